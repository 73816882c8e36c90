"""Replaying a dispatch: what is read, what is compared, and what is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from voltier.grid.errors import InputError, NotConvergedError, Problem
from voltier.grid.feeder import read_feeder
from voltier.grid.flow.engines import engine, three_phase_engines
from voltier.grid.flow.port import Flow
from voltier.scenarios.crosscheck import difference, exceeded, figures, read_dispatch, replay
from voltier.scenarios.schema_sections import CrosscheckSection
from voltier.scenarios.studies.crosscheck import build_engines, crosscheck

FEEDER = read_feeder("ieee13")
BUS, PHASE = np.nonzero(FEEDER.has_phase)
TAPS = np.array([[10, 8, 11], [9, 8, 11], [9, 8, 10]])
LIMITS = CrosscheckSection()
ROW = FEEDER.bus.index("671")


@pytest.fixture(scope="module")
def solved():
    """Three minutes of rising load, solved by OpenDSS: injections and flows."""
    tool, loads = engine("opendss", FEEDER), FEEDER.spot_loads
    p_kw = np.zeros((3, len(FEEDER.bus), 3))
    for bus, phases, p in zip(loads.bus, loads.phase, loads.p_kw, strict=True):
        p_kw[:, bus, ["abc".index(letter) for letter in phases]] -= p / len(phases)
    p_kw *= np.array([0.4, 0.5, 0.6])[:, None, None]
    return p_kw, [tool.solve(p, 0.3 * p, tap) for p, tap in zip(p_kw, TAPS, strict=True)]


@pytest.fixture
def run_dir(tmp_path, solved):
    p_kw, flows = solved
    n = len(BUS)
    grid = {
        "t_s": np.repeat([0, 60, 120], n),
        "bus": [FEEDER.bus[i] for i in BUS] * 3,
        "phase": ["abc"[k] for k in PHASE] * 3,
        "v_pu": np.concatenate([np.abs(flow.v_pu)[BUS, PHASE] for flow in flows]),
        "p_kw": np.concatenate([p[BUS, PHASE] for p in p_kw]),
        "q_kvar": np.concatenate([0.3 * p[BUS, PHASE] for p in p_kw]),
    }
    substation = {
        "t_s": np.repeat([0, 60, 120], 3),
        "phase": list("abc") * 3,
        "p_kw": np.concatenate([flow.p_cc_kw for flow in flows]),
        "loss_kw": np.repeat([flow.loss_kw / 3.0 for flow in flows], 3),
    }
    regulators = FEEDER.regulators
    taps = {
        "t_s": np.repeat([0, 60, 120], 3),
        "regulator": list(regulators.name) * 3,
        "phase": ["abc"[k] for k in regulators.phase] * 3,
        "tap": TAPS.ravel(),
    }
    (tmp_path / "tables").mkdir()
    for name, columns in (("grid", grid), ("substation", substation), ("taps", taps)):
        pq.write_table(pa.table(columns), tmp_path / "tables" / f"{name}.parquet")
    return tmp_path


def change(run_dir, name, edit):
    path = run_dir / "tables" / f"{name}.parquet"
    pq.write_table(edit(pq.read_table(path)), path)


def test_taps_are_read_back_and_without_them_found_in_the_voltages(run_dir):
    recorded = read_dispatch(run_dir, FEEDER)
    assert recorded.taps_recorded
    assert np.array_equal(recorded.tap, TAPS)
    (run_dir / "tables" / "taps.parquet").unlink()
    found = read_dispatch(run_dir, FEEDER)
    assert not found.taps_recorded
    assert np.array_equal(found.tap, TAPS)


def test_every_so_many_minutes(run_dir):
    assert read_dispatch(run_dir, FEEDER, every_min=2).t_s.tolist() == [0, 120]


@pytest.mark.parametrize(("tool", "within_pu"), [("opendss", 0.0), ("power-grid-model", 1e-6)])
def test_an_engine_repeats_the_run(run_dir, tool, within_pu):
    dispatch = read_dispatch(run_dir, FEEDER)
    seen = []
    other = replay(dispatch, engine(tool, FEEDER), lambda: seen.append(1))
    kpis = figures(dispatch, other, difference(dispatch, other), FEEDER, 1, LIMITS)
    assert len(seen) == kpis["minutes"] == 3
    # the same engine on the same input gives the same bits; the other's 1e-6: OpenDSS's regulators keep 1e-6 ohm
    assert kpis["voltage.max_difference_pu"] <= within_pu
    assert kpis["losses.difference_percent"] < 1e-3
    assert kpis["within_limits"] == 1
    assert exceeded(kpis, LIMITS) == []


class Off:
    """An engine that is off by known amounts in the minute 1, fails in minute 2, refuses minute 0."""

    def __init__(self, flows):
        self.flows, self.k = flows, -1

    def solve(self, p_kw, q_kvar, tap):
        self.k += 1
        if self.k == 0:
            raise InputError([Problem("engine", "tap", 1, "cannot")])
        if self.k == 2:
            raise NotConvergedError("lost")
        flow = self.flows[1]
        v_pu = flow.v_pu.copy()
        v_pu[ROW, 0] *= 1.0 + 0.01 / abs(v_pu[ROW, 0])
        return Flow(v_pu, flow.p_cc_kw - 2.0, flow.q_cc_kvar, 1.1 * flow.loss_kw, flow.i_regulator_a, True)


def test_differences_are_those_made(run_dir, solved):
    dispatch = read_dispatch(run_dir, FEEDER)
    other = replay(dispatch, Off(solved[1]), lambda: None)
    kpis = figures(dispatch, other, difference(dispatch, other), FEEDER, 1, LIMITS)
    assert (kpis["minutes"], kpis["minutes_refused"], kpis["minutes_failed"]) == (1, 1, 1)
    # a difference of two numbers near one
    assert kpis["voltage.max_difference_pu"] == pytest.approx(0.01, abs=1e-12)
    assert kpis["voltage.median_difference_pu"] == 0.0
    assert kpis["voltage.worst_node"] == "671.a"
    assert kpis["voltage.worst_t_s"] == 60
    assert kpis["losses.difference_percent"] == pytest.approx(10.0, rel=1e-9)
    assert kpis["import.max_difference_kw"] == pytest.approx(6.0, rel=1e-9)
    assert kpis["import.difference_percent"] == pytest.approx(600.0 / dispatch.import_kw[1], rel=1e-9)
    assert kpis["within_limits"] == 0
    words = exceeded(kpis, LIMITS)
    assert (
        len(words) == 3
    )  # voltage, losses, a minute that failed; 6 kW of import are less than half a per cent
    assert "1 minutes did not converge" in words


# ---------------------------------------------------------------------- broken input


@pytest.mark.parametrize("name", ["grid", "substation"])
def test_a_missing_table_is_named(run_dir, name):
    (run_dir / "tables" / f"{name}.parquet").unlink()
    with pytest.raises(InputError, match=f"{name}.*needs the tables grid and substation"):
        read_dispatch(run_dir, FEEDER)


def test_tables_without_a_time_in_common_are_refused(run_dir):
    change(run_dir, "grid", lambda table: table.set_column(0, "t_s", pc.add(table["t_s"], 30)))
    with pytest.raises(InputError, match="no time in common"):
        read_dispatch(run_dir, FEEDER)


def test_a_run_without_phases_is_refused(run_dir):
    change(run_dir, "grid", lambda table: table.drop_columns(["phase", "q_kvar"]))
    with pytest.raises(InputError) as caught:
        read_dispatch(run_dir, FEEDER)
    assert [problem.value for problem in caught.value.problems] == ["phase", "q_kvar"]


def test_a_run_on_another_feeder_is_refused(run_dir):
    with pytest.raises(InputError) as caught:
        read_dispatch(run_dir, read_feeder("ieee34"))
    strange, missing = caught.value.problems
    assert "not of the feeder ieee34" in strange.remedy
    assert "650.a" in str(strange.value)
    assert "800.a" in str(missing.value)


def test_voltages_without_whole_taps_are_refused(run_dir):
    (run_dir / "tables" / "taps.parquet").unlink()
    row = [FEEDER.bus[i] for i in BUS].index(FEEDER.bus[FEEDER.regulators.to_bus[0]])

    def shift(table):
        v_pu = table["v_pu"].to_numpy().copy()
        v_pu[row] += 0.003
        return table.set_column(table.column_names.index("v_pu"), "v_pu", pa.array(v_pu))

    change(run_dir, "grid", shift)
    with pytest.raises(InputError, match="not a whole number of taps"):
        read_dispatch(run_dir, FEEDER)


def test_taps_of_other_regulators_are_refused(run_dir):
    change(run_dir, "taps", lambda table: table.set_column(1, "regulator", pa.array(["other"] * 9)))
    with pytest.raises(InputError, match="one row for each regulated phase of feeder ieee13"):
        read_dispatch(run_dir, FEEDER)


def test_all_engines_of_three_phases_are_asked_for_unless_named():
    assert {"opendss", "pandapower-three-phase", "power-grid-model"} <= set(three_phase_engines())
    assert "pandapower-balanced" not in three_phase_engines()
    assert list(build_engines(["power-grid-model", "opendss"], FEEDER)) == ["power-grid-model", "opendss"]


def test_engines_that_cannot_be_had_are_all_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "power_grid_model", None)
    monkeypatch.delitem(__import__("sys").modules, "voltier.grid.flow.power_grid_model", raising=False)
    with pytest.raises(InputError) as caught:
        build_engines(["opendss", "abacus", "power-grid-model"], FEEDER)
    unknown, missing = caught.value.problems
    assert "choose from opendss" in unknown.remedy
    assert "pip install" in missing.remedy
    assert "leave the engine out: --engines opendss," in missing.remedy


def test_a_directory_that_names_no_feeder_asks_for_one(run_dir, tmp_path):
    with pytest.raises(InputError, match="--scenario"):
        crosscheck(run_dir, tmp_path / "out", engines=["opendss"])
