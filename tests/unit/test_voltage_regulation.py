"""The study of voltage regulation: which cases it runs, what it refuses, and what its pages say of made-up figures."""

import json

import numpy as np
import pytest

from voltier.grid.errors import InputError
from voltier.grid.feeder import read_feeder
from voltier.scenarios.report.along import distance_km
from voltier.scenarios.studies.voltage_page import _by_distance, _spread
from voltier.scenarios.studies.voltage_regulation import (
    DESIGNS,
    LEVELS,
    SHOWN,
    SIZES_KW,
    WEIGHTED,
    cases,
    study_voltage_regulation,
)

VARIED = {f"{kind}_{level}" for kind in SIZES_KW for level in LEVELS}


def made_up(scenario, path):
    """A run that left nothing but key figures: better the more market, worse the larger the devices."""
    path.mkdir(parents=True)
    calm = 1.0 - 0.25 * DESIGNS.index(scenario.design)
    fleet = scenario.fleet
    size = fleet.battery_kva / 5.0 + fleet.pv_kva / 880.84 + fleet.hvac_kw_max / 5.0 + fleet.ev_kw_max / 10.0
    kpis = {"voltage.mean_abs_deviation_pu": 0.004 * calm * size, "voltage.std_pu": 0.01 * calm,
            "voltage.min_pu": 0.97, "voltage.max_pu": 1.03, "voltage.range_a_outside_share": 0.00125,
            "voltage.max_unbalance_share": 0.012, "losses.energy_kwh": 40.0 * calm,
            "energy.import_kwh": 1000.0}  # fmt: skip
    if scenario.design != "no_market":
        kpis["prices.mean_dlmp_usd_per_kwh"] = 0.06
    (path / "kpis.json").write_text(json.dumps(kpis))
    return path


def row(page, start):
    line = next(line for line in page.splitlines() if line.startswith(f"| {start} "))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


# ---------------------------------------------------------------------- which cases


def test_designs_differ_in_nothing_but_the_design_and_clear_every_phase():
    chosen = cases("ieee123-hour", ["hours=0.5"], 0.0)
    assert tuple(chosen) == SHOWN
    dumped = [chosen[name].model_dump(exclude={"design"}) for name in SHOWN]
    assert dumped[0] == dumped[1] == dumped[2]
    assert dumped[2]["primary"]["weights"].pop("voltage_usd_per_pu2h") == 0.0
    assert dumped[3]["primary"]["weights"].pop("voltage_usd_per_pu2h") > 0.0
    assert dumped[3] == dumped[2] and chosen[WEIGHTED].design == "hierarchical"
    assert dumped[0]["primary"]["formulation"] == "current_injection"
    assert {scenario.hours for scenario in chosen.values()} == {0.5}


def test_sensitivity_is_six_hours_from_the_afternoon_of_a_day():
    chosen = cases()
    assert set(chosen) == {*SHOWN, "reference"} | VARIED
    assert {chosen[name].hours for name in SHOWN} == {24.0}
    for name in {"reference"} | VARIED:
        assert (chosen[name].hours, chosen[name].start.hour, chosen[name].design) == (6.0, 15, "hierarchical")


def test_sensitivity_of_a_short_run_is_over_its_hours_and_needs_no_reference():
    chosen = cases("ieee123-hour")
    assert set(chosen) == set(SHOWN) | VARIED
    assert {(s.hours, s.start.hour) for s in chosen.values()} == {(1.0, 18)}


def test_every_device_has_the_size_of_its_level():
    chosen = cases("ieee123-hour")
    for i, level in enumerate(LEVELS):
        battery, pv, pump, car = (chosen[f"{kind}_{level}"].fleet for kind in SIZES_KW)
        assert (battery.battery_kva, battery.battery_kwh) == ((4.0, 6.0, 8.0)[i], (10.0, 15.0, 20.0)[i])
        assert pv.pv_kva / pv.pv_units == pytest.approx((4.0, 7.0, 10.0)[i])
        assert pump.hvac_kw_min == pump.hvac_kw_max == (5.0, 6.5, 8.0)[i]
        assert car.ev_kw_min == car.ev_kw_max == (2.0, 6.0, 10.0)[i]
        assert car.evs == 201, "a fifth of the houses where the scenario has no cars"
    assert cases("ieee123-hour", ["fleet.evs=50"])["evs_low"].fleet.evs == 50


@pytest.mark.parametrize(
    ("overrides", "hours", "said"),
    [
        (["design=no_market"], None, "the study sets this itself"),
        (["primary.formulation=branch_flow"], 0.0, "the study sets this itself"),
        (["primary.weights.voltage_usd_per_pu2h=5"], 0.0, "the study sets this itself"),
        (["fleet.battery_kva=3"], None, "the study sets this itself"),
        ([], -1.0, "--sensitivity-hours = -1"),
        ([], 0.01, "hours = 0.01"),
        (["fleet.pv_units=0", "fleet.pv_kva=0", "fleet.pv_nodes=0"], 0.0, "dg_nodes"),
    ],
)
def test_what_contradicts_the_study_is_refused(overrides, hours, said, tmp_path):
    with pytest.raises(InputError, match=said):
        study_voltage_regulation(
            made_up, tmp_path / "study", base="ieee123-hour", overrides=overrides, sensitivity_hours=hours
        )
    assert not (tmp_path / "study").exists()


def test_sizes_may_be_set_where_the_study_varies_none():
    assert cases("ieee123-hour", ["fleet.battery_kva=3"], 0.0)["hierarchical"].fleet.battery_kva == 3.0


# ---------------------------------------------------------------------- what it writes


def test_study_writes_one_object_a_case_and_two_pages(tmp_path):
    out = tmp_path / "study"
    kpis = study_voltage_regulation(made_up, out, base="ieee123-hour")
    assert json.loads((out / "kpis.json").read_text()) == kpis
    assert set(kpis) == set(SHOWN) | VARIED
    page = (out / "voltage_regulation.md").read_text()
    assert row(page, "mean abs(V - 1) [p.u.]")[:3] == ["0.01600", "0.01200", "0.00800"]
    assert row(page, "outside ANSI range A [% of node-minutes]") == ["0.1250"] * 4
    assert row(page, "losses [kWh]") == ["40.0", "30.0", "20.0", "20.0"]
    assert "-50.0 %" in page
    assert row(page, "batteries_high")[:2] == ["8.0", "0.00920"]
    assert row(page, "hierarchical")[0] == "-", "the reference of the sensitivity has sizes of its own"
    html = (out / "voltage_regulation.html").read_text()
    assert "No run wrote prices by phase." in html
    assert "moves most with PV of high size: from 0.0080" in html


# ---------------------------------------------------------------------- along the feeder


def test_distance_follows_closed_wires_only():
    feeder = read_feeder("ieee123")
    km = dict(zip(feeder.bus, distance_km(feeder), strict=True))
    foot = 0.3048e-3
    assert km["150"] == km["150r"] == km["149"] == 0.0, "a regulator and a switch have no length"
    # 149-1 is 400 ft, 1-2 175 ft and 1-3 250 ft in the published table.
    assert km["2"] == pytest.approx(575 * foot)
    assert km["3"] == pytest.approx(650 * foot)
    assert np.isnan(km["350"]), "behind an open switch"


def test_nodes_are_put_in_order_of_distance():
    km = {"1": 0.2, "2": 0.1, "3": float("nan")}
    names = ("1.a", "2.a", "2.b", "3.a")
    assert [names[i] for i in _by_distance(names, "a", km)] == ["2.a", "1.a"]


def test_spread_is_taken_against_the_nodes_that_have_a_price():
    np.testing.assert_allclose(_spread(np.array([[1.0, 3.0, np.nan]])), [[-1.0, 1.0, np.nan]])
