"""Interruptions, loading, welfare, agents' bills and recovery on tables small enough to work out by hand."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voltier.grid.errors import InputError
from voltier.grid.feeder import COLUMNS, read_feeder
from voltier.scenarios.crosscheck import Dispatch
from voltier.scenarios.metrics_attack import time_to_recover_min
from voltier.scenarios.metrics_interruptions import customers_at, interruption_kpis
from voltier.scenarios.metrics_loading import Loading, loading, loading_kpis, loading_of
from voltier.scenarios.metrics_public import public_kpis
from voltier.scenarios.metrics_welfare import sma_bill_kpis, sma_bills_usd, welfare_kpis
from voltier.scenarios.panels import Block
from voltier.scenarios.schema import load_scenario

MINUTES = np.arange(0, 1200, 60)


def block(t_s, values, **keys):
    return Block(
        np.asarray(t_s), {name: np.array(names, dtype=object) for name, names in keys.items()}, values
    )


# Sums of a few doubles: 1e-12 is rounding.
def near(value):
    return pytest.approx(value, rel=1e-12, abs=1e-12)


def grid_block(v_pu, p_kw):
    return block(MINUTES, {"v_pu": v_pu, "p_kw": p_kw}, bus=["1", "2", "3"], phase=["a", "b", "c"])


def supply():
    """Twenty minutes at three nodes: steady 1 p.u., injections −6, −12 and −3 kW."""
    return np.ones((20, 3)), np.tile([-6.0, -12.0, -3.0], (20, 1))


def test_nobody_interrupted_is_zero_not_absent():
    found = interruption_kpis(grid_block(*supply()), np.array([2.0, 1.0, 1.0]))
    assert found == {
        "interruptions.customers": 4, "interruptions.saidi_min": 0.0, "interruptions.saifi": 0.0,
        "interruptions.maifi": 0.0, "interruptions.energy_not_served_kwh": 0.0,
    }  # fmt: skip


def test_interruptions_are_counted_by_customers_and_by_length():
    v_pu, p_kw = supply()
    v_pu[3:13, 0], p_kw[3:13, 0] = np.nan, 0.0  # ten minutes, two customers
    v_pu[5:10, 1], p_kw[5:10, 1] = 0.05, 0.0  # five minutes are momentary
    v_pu[0:6, 2], p_kw[0:6, 2] = 0.0, 0.0  # six minutes from the start, priced at the mean of later
    p_kw[2, 0] = -9.0  # the last minute before
    found = interruption_kpis(grid_block(v_pu, p_kw), np.array([2.0, 1.0, 1.0]))
    assert found["interruptions.saifi"] == near((2 + 1) / 4)
    assert found["interruptions.saidi_min"] == near((2 * 10 + 6) / 4)
    assert found["interruptions.maifi"] == near(1 / 4)
    assert found["interruptions.energy_not_served_kwh"] == near(9 * 10 / 60 + 12 * 5 / 60 + 3 * 6 / 60)


def test_a_low_voltage_is_no_interruption_and_nodes_without_customers_do_not_count():
    v_pu, p_kw = supply()
    v_pu[:, 1] = 0.11
    v_pu[:, 2] = np.nan
    found = interruption_kpis(grid_block(v_pu, p_kw), np.array([1.0, 1.0, 0.0]))
    assert found["interruptions.saidi_min"] == 0.0
    assert interruption_kpis(grid_block(v_pu, p_kw), np.zeros(3)) == {}


def test_customers_are_houses_or_else_nodes_that_draw():
    v_pu, p_kw = supply()
    p_kw[:, 2] = 4.0
    assert customers_at(grid_block(v_pu, p_kw), None).tolist() == [1.0, 1.0, 0.0]
    scenario = load_scenario("ieee123-hour")
    feeder = read_feeder("ieee123")
    bus, phase = np.nonzero(feeder.has_phase)
    whole = block(
        [0], {}, bus=[feeder.bus[i] for i in bus], phase=["abc"[k] for k in phase]
    )  # fmt: skip
    assert customers_at(whole, scenario).sum() == scenario.fleet.houses


# ---------------------------------------------------------------------- loading


@pytest.fixture
def two_buses(tmp_path):
    """A feeder of one wire: 1 ohm, good for 100 A, at 4.16 kV."""
    given = {
        "buses": [
            {"bus": "s", "phases": "abc", "nominal_kv_ll": "4.16"},
            {"bus": "t", "phases": "a", "nominal_kv_ll": "4.16"},
        ],
        "line_configs": [{"config": "wire", "phases": "a", "r_aa_ohm_per_mile": "1", "ampacity_a": "100"}],
        "lines": [{"line": "l", "from_bus": "s", "to_bus": "t", "phases": "a", "config": "wire", "length_ft": "5280"}],
        "spot_loads": [{"bus": "t", "connection": "wye", "phase": "a", "model": "PQ", "p_kw": "1", "q_kvar": "0"}],
        "source": [{"bus": "s", "v_pu": "1"}],
    }  # fmt: skip
    folder = tmp_path / "two"
    folder.mkdir()
    for name, columns in COLUMNS.items():
        rows = [",".join(column.name for column in columns)]
        for row in given.get(name, []):
            rows.append(",".join(row.get(c.name, "" if c.optional else "0") for c in columns))
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return read_feeder(folder)


def test_loading_is_current_over_rating(two_buses):
    """10 A and 40 A through 1 ohm: the load is what is left of 2401.8 V times the current."""
    volt, amp = 4160.0 / np.sqrt(3.0), np.array([10.0, 40.0])
    p_kw = np.zeros((2, 2, 3))
    p_kw[:, 1, 0] = -(volt - amp) * amp / 1000.0
    nothing = np.zeros(2)
    dispatch = Dispatch(
        np.array([0, 60]), p_kw, 0.0 * p_kw, 1.0 + p_kw, np.zeros((2, 0), dtype=int), nothing, nothing, True
    )
    found = loading_of(dispatch, two_buses)
    assert found.name == ("l",)
    # the source's 1e-7 ohm, and the solver's tolerance of 1e-10
    assert found.share[:, 0] == pytest.approx([0.1, 0.4], rel=1e-6)


def test_a_feeder_without_ratings_has_no_loading(two_buses):
    unrated = replace(two_buses, lines=replace(two_buses.lines, i_max_a=np.array([np.inf])))
    still = np.zeros((1, 2, 3))
    nothing = np.zeros(1)
    dispatch = Dispatch(
        np.array([0]), still, still, 1.0 + still, np.zeros((1, 0), dtype=int), nothing, nothing, True
    )
    with pytest.raises(InputError, match="ratings"):
        loading_of(dispatch, unrated)


def test_loading_is_summed_up_over_branches_and_times():
    share = np.array([[0.2, 1.2], [0.4, 1.1], [0.6, 0.8]])
    found = loading_kpis(Loading(np.array([0, 300, 600]), ("x", "y"), share))
    assert found["loading.p50_share"] == near((0.6 + 0.8) / 2)
    assert found["loading.max_share"] == 1.2
    assert found["loading.overloaded_branch_h"] == near(2 * 5 / 60)


def test_tables_that_do_not_hold_the_feeder_have_no_loading(tmp_path):
    reason = loading(tmp_path, read_feeder("ieee13"))
    assert isinstance(reason, str)
    assert "grid" in reason


# ---------------------------------------------------------------------- money


def test_welfare_counts_cost_by_period_and_import_at_the_price_in_force():
    cost, price = np.array([[12.0], [24.0]]), np.array([[0.1], [0.2]])
    system = block([0, 300], {"cost_usd_per_h": cost, "price_usd_per_kwh": price})
    t_s = np.arange(0, 600, 60)
    p_kw = np.full((10, 3), -20.0)
    p_kw[5:] = 10.0  # export
    found = welfare_kpis(system, block(t_s, {"p_kw": p_kw}, phase=["a", "b", "c"]))
    assert found["welfare.cost_usd"] == near((12 + 24) * 300 / 3600)
    assert found["welfare.total_usd"] == -found["welfare.cost_usd"]
    assert found["welfare.import_usd"] == near(5 * 60 / 60 * 0.1 - 5 * 30 / 60 * 0.2)
    assert welfare_kpis(None, None) == {}


def test_the_cost_of_a_single_period_takes_its_length():
    system = block([0], {"cost_usd_per_h": np.array([[12.0]]), "price_usd_per_kwh": np.array([[0.1]])})
    assert welfare_kpis(system, None, 1800)["welfare.cost_usd"] == near(6.0)
    assert welfare_kpis(system, None) == {}  # nobody says how long it was


def test_bills_of_agents_leave_operators_and_the_other_market_out():
    energy = np.array([[-3.0, -1.0, 4.0, -9.0], [-1.0, -1.0, 2.0, -9.0]])
    values = {
        "energy_usd": energy,
        "flexibility_usd": 0.0 * energy + [0.5, 0.0, -0.5, 0.0],
        "penalty_usd": 0.0 * energy,
    }
    settlement = block(
        [0, 300], values, market=["secondary"] * 3 + ["primary"], party=["sma_1", "sma_2", "smo_1", "sma_1"]
    )
    assert sma_bills_usd(settlement, ("sma_1", "sma_2")).tolist() == [3.0, 2.0]
    found = sma_bill_kpis(settlement, block([0], {}, smo=["smo_1"] * 2, sma=["sma_1", "sma_2"]))
    assert found["bills.sma_mean_usd"] == 2.5
    assert found["bills.sma_p95_usd"] == near(2.95)


# ---------------------------------------------------------------------- recovery


def recovered(import_kw):
    t_s = np.arange(0, 60 * len(import_kw), 60)
    return time_to_recover_min(t_s, np.asarray(import_kw, dtype=float), (0, 600))


def test_recovery_is_the_first_minute_from_which_the_import_stays_near_its_level():
    before = [100.0] * 10
    # twelve minutes away; the mean of five is within 2 % from the minute on after which one of them at most is 109
    assert recovered(before + [109.0] * 12 + [100.0] * 30) == 11.0
    # a dip back of ten minutes is no recovery
    assert recovered(before + [109.0] * 12 + [100.0] * 10 + [109.0] * 5 + [100.0] * 30) == 12 + 10 + 5 - 1
    assert recovered(before + [109.0] * 30) is None
    assert recovered([100.0] * 60) == 0.0
    assert recovered([100.0] * 12) is None, "less than a quarter of an hour says nothing"


# ---------------------------------------------------------------------- tables alone


def write(folder, name, columns):
    (folder / "tables").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / "tables" / f"{name}.parquet")


def test_tables_of_another_tool_give_the_figures_they_can(tmp_path):
    write(
        tmp_path,
        "grid",
        {"t_s": [0, 0, 60, 60], "bus": ["x", "y"] * 2, "v_pu": [1.0, 0.94, 1.0, 1.06], "p_kw": [-1.0] * 4},
    )
    write(
        tmp_path,
        "substation",
        {"t_s": [0, 60], "phase": ["a", "a"], "p_kw": [-3.0, -6.0], "loss_kw": [1.0, 2.0]},
    )
    write(tmp_path, "primary", {"t_s": [0, 0], "bus": ["x", "y"], "dlmp_usd_per_kwh": [0.1, 0.3]})
    found = public_kpis(tmp_path)
    assert found["energy.import_kwh"] == near(9 / 60)
    assert found["losses.energy_kwh"] == near(3 / 60)
    assert found["prices.mean_dlmp_usd_per_kwh"] == near(0.2)
    assert found["voltage.range_a_outside_share"] == 0.5
    assert found["voltage.range_a_worst_excess_pu"] == near(0.01)
    assert found["interruptions.customers"] == 2
    assert "voltage.max_unbalance_share" not in found, "there are no phases to be unbalanced"
    assert "welfare.cost_usd" not in found


def test_a_table_that_is_no_parquet_is_named(tmp_path):
    write(tmp_path, "grid", {"t_s": [0]})
    (tmp_path / "tables" / "grid.parquet").write_bytes(b"none")
    with pytest.raises(InputError, match=r"grid.*cannot be read as parquet"):
        public_kpis(tmp_path)
