"""Houses, batteries and arrays that live in GridLAB-D, in its real process: what they do, and what the run says."""

import json
import os
import signal
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from voltier.agents.premises import draw_premises
from voltier.federates.gridlabd_engine import GridlabdFlow
from voltier.federates.gridlabd_premises import PremisesInModel
from voltier.federates.session import run_scenario
from voltier.grid.errors import FederationError
from voltier.grid.feeder import Feeder, read_feeder
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.flow.port import Flow, OwnPower
from voltier.grid.writers.glm_premises import Premises, Site
from voltier.scenarios.build_gridlabd import Weather
from voltier.scenarios.metrics import write_kpis
from voltier.scenarios.results import read_table
from voltier.scenarios.schema import load_scenario

pytest.importorskip("gridlabd")
pytestmark = pytest.mark.federation

SITE = Site(37.6, -122.4, -8.0)
START = datetime(2020, 7, 15, 18, 0)
HOUSES, PV = 6, 3


def weather(air_c: float, pv: float = 0.0) -> Weather:
    """Six hours of the same, without sun on the walls."""
    return Weather(0, *(np.full(360, value) for value in (air_c, pv, 0.0, 0.0, 0.0)))


def engine(feeder: Feeder, air_c: float, pv: float = 0.0) -> tuple[GridlabdFlow, Premises]:
    premises = draw_premises(feeder, 3, houses=HOUSES, batteries=PV, pv=PV)
    return GridlabdFlow(feeder, premises=PremisesInModel(premises, SITE, weather(air_c, pv), START)), premises


def minute(flow: GridlabdFlow, k: int) -> tuple[Flow, OwnPower]:
    feeder = flow._feeder
    idle = np.zeros(feeder.has_phase.shape)
    flow.begin(60 * k)
    solution = flow.solve(idle, idle, feeder.regulators.published_tap)
    assert solution.own is not None
    return solution, solution.own


@pytest.mark.parametrize(("air_c", "mode"), [(38.0, "cooling_c"), (0.0, "heating_c")])
def test_thermostats_hold_their_own_set_points(air_c: float, mode: str) -> None:
    flow, premises = engine(read_feeder("ieee13"), air_c)
    hours = 5
    states = [minute(flow, k)[1] for k in range(60 * hours)]
    flow.close()
    inside_c = np.array([own.temp_indoor_c[:HOUSES] for own in states])
    assert np.isnan(states[0].temp_indoor_c[HOUSES:]).all()
    # the last hour lies in the thermostat's band of 1 K about the set-point; a compressor that goes on in between
    # minutes may be past it by a little
    assert np.abs(inside_c[-60:] - getattr(premises, mode)).max() < 0.8
    used_kw = -np.array([own.object_p_kw[:HOUSES] for own in states])
    # the compressor cycles: power is not what lights and plugs use alone
    assert (np.ptp(used_kw[-120:], axis=0) > 1.0).all()
    # lights and plugs of an evening alone are some 0.8 kW; a heat pump of a detached house adds one to four
    assert 0.8 < used_kw[-60:].mean() < 5.0


def test_what_they_inject_is_what_the_power_flow_saw() -> None:
    feeder = read_feeder("ieee13")
    flow, premises = engine(feeder, 30.0, pv=0.6)
    for k in range(4):
        solution, own = minute(flow, k)
    flow.close()
    other = OpenDssFlow(feeder).solve(own.p_kw, own.q_kvar, feeder.regulators.published_tap)
    # the agreement of the two engines without premises
    np.testing.assert_allclose(solution.v_pu, other.v_pu, atol=5e-6, rtol=0)
    np.testing.assert_allclose(solution.p_cc_kw, other.p_cc_kw, atol=0.02)
    assert solution.loss_kw == pytest.approx(other.loss_kw, abs=0.05)
    # an array gives its rating times the availability: no losses twice, but a hundredth by its own temperature
    np.testing.assert_allclose(own.object_p_kw[-PV:], 0.6 * premises.pv_kw, rtol=0.015)
    # service transformers take next to nothing of what the meters count
    extra_kw = own.object_p_kw.sum() - own.p_kw.sum()
    assert 0.0 < extra_kw < 0.02 * np.abs(own.object_p_kw).sum()


def test_batteries_take_up_what_the_sun_leaves_and_give_it_in_the_dark() -> None:
    states = {}
    for pv in (0.9, 0.0):
        flow, _ = engine(read_feeder("ieee13"), 22.0, pv)
        states[pv] = [minute(flow, k)[1] for k in range(12)]
        flow.close()
    battery = slice(HOUSES, HOUSES + PV)
    sun, dark = states[0.9][-1], states[0.0][-1]
    assert (sun.object_p_kw[battery] < -1.0).all()
    assert (sun.soc[battery] > states[0.9][0].soc[battery]).all()
    assert (dark.object_p_kw[battery] > 0.1).all()
    assert (dark.soc[battery] < states[0.0][0].soc[battery]).all()


def test_a_battery_gives_what_it_held_and_rests_at_its_reserve() -> None:
    flow, premises = engine(read_feeder("ieee13"), 38.0)
    states = [minute(flow, k)[1] for k in range(240)]
    flow.close()
    battery = slice(HOUSES, HOUSES + PV)
    power_kw = np.array([own.object_p_kw[battery] for own in states])
    charge = np.array([own.soc[battery] for own in states])
    np.testing.assert_allclose(charge[-1], 0.1, atol=1e-6)
    assert np.abs(power_kw[-30:]).max() < 1e-6
    drawn_kwh = (charge[0] - charge[-1]) * premises.battery_kwh
    # inverter 0.97, store 0.95 one way; a minute's sample of power is not its mean
    np.testing.assert_allclose(power_kw[1:].sum(axis=0) / 60.0, 0.92 * drawn_kwh, rtol=0.06)


def test_a_new_process_begins_again_at_the_set_points_and_says_so() -> None:
    flow, premises = engine(read_feeder("ieee13"), 38.0)
    for k in range(0, 180, 20):
        _, before = minute(flow, k)
    os.kill(flow._child.pid, signal.SIGKILL)
    solution, after = minute(flow, 180)
    middle_c = (premises.heating_c + premises.cooling_c) / 2.0
    assert "premises begin again at their set-points" in solution.note
    assert (before.temp_indoor_c[:HOUSES] > middle_c + 1.0).all()
    # a minute at 38 C from there
    np.testing.assert_allclose(after.temp_indoor_c[:HOUSES], middle_c, atol=0.8)
    assert minute(flow, 181)[0].note == ""
    with pytest.raises(FederationError, match="cannot go back"):
        minute(flow, 181)
    flow.close()


def test_a_run_with_premises_is_the_same_without_and_with_a_bus(
    tmp_path: Path, nothing_left_behind: None
) -> None:
    sets = ["hours=0.25", "feeder.engine=gridlabd", "design=no_market"]
    sets += ["gridlabd.houses=8", "gridlabd.batteries=3", "gridlabd.pv=4"]
    scenario = load_scenario("ieee123-hour", sets)
    runs = [run_scenario(scenario, tmp_path / name, transport=name) for name in ("none", "zmq")]
    for table in ("grid", "substation", "gridlabd"):
        one, other = (read_table(run, table).to_pandas() for run in runs)
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    rows = read_table(runs[0], "gridlabd").to_pandas()
    assert rows["t_s"].unique().tolist() == [0, 300, 600]
    assert rows["object"].iloc[0] == "gld_house_0000"
    assert len(rows) == 3 * 15
    substation = read_table(runs[0], "substation").to_pandas()
    assert substation["balance_error_kw"].abs().max() < 1e-3
    kpis = write_kpis(runs[0])
    assert json.loads((runs[0] / "kpis.json").read_text())["gridlabd.house_kwh"] == kpis["gridlabd.house_kwh"]
    # homes of the United States use 29 kWh a day on average; a quarter of an hour may be thrice or a third of it
    assert 9.0 < kpis["gridlabd.house_kwh_per_day"] < 90.0
    assert 19.0 < kpis["gridlabd.indoor_min_c"] <= kpis["gridlabd.indoor_max_c"] < 26.0
