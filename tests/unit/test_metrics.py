import json

import numpy as np
import pytest

from voltier.agents.operator import Rows
from voltier.grid.errors import InputError
from voltier.scenarios.manifest import RunDirectory
from voltier.scenarios.metrics import _phase_prices, write_kpis
from voltier.scenarios.metrics_physical import generation_kw
from voltier.scenarios.metrics_physical import load_kw as physical_load_kw
from voltier.scenarios.panels import Block
from voltier.scenarios.results import TableWriter, layout
from voltier.scenarios.schema import load_scenario
from voltier.scenarios.studies.attack import study_attack
from voltier.scenarios.studies.designs import cases, comparison, study_designs

BUSES = ("47", "48", "49", "65", "76", "1")
SMA = tuple(f"sma_{bus}_{k}" for bus in BUSES for k in range(2))
LAYOUTS = {
    "primary": layout("primary", bus=BUSES),
    "secondary": layout("secondary", smo=tuple(f"smo_{bus}" for bus in BUSES for _ in range(2)), sma=SMA),
    "grid": layout("grid", bus=BUSES, phase=("a",) * 6),
    "substation": layout("substation", phase=("a", "b", "c")),
    "system": layout("system"),
    "clearings": layout("clearings"),
    "events": layout("events"),
    "settlement": layout("settlement", market=("secondary", "secondary", "primary", "primary"),
                         party=("sma_1_0", "smo_1", "pmo", "bulk")),
}  # fmt: skip
START_S, ALARM_S, ANSWER_S, END_S = 4500, 4620, 4800, 7200
LOSS_KW = 30.0
COST = {"before": 100.0, "attacked": 107.0, "mitigated": 131.7}
FLEX_KW = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
"""What each SMO curtails after the answer; scores rise in the same order."""


def state(t_s):
    if START_S <= t_s < ANSWER_S:
        return "attacked"
    return "mitigated" if ANSWER_S <= t_s < END_S else "before"


def generation(t_s):
    return {"before": [165.0, 165.0, 160.0, 160.0, 100.0, 0.0], "attacked": [0, 0, 0, 0, 100.0, 0.0],
            "mitigated": [0, 0, 0, 0, 420.0, 0.0]}[state(t_s)]  # fmt: skip


def load_kw(t_s):
    """Load of each SMO: 350 kW, less what it curtails."""
    return np.full(6, 350.0) - (FLEX_KW if state(t_s) == "mitigated" else 0.0)


def write_run(path, scenario):
    """A made-up run whose figures can be worked out by hand."""
    run = RunDirectory.create(path, scenario)
    writer = TableWriter(path, LAYOUTS)
    for t_s in range(0, scenario.end_s, 60):
        gen_kw, meter_kw = np.array(generation(t_s)), -load_kw(t_s)
        injection = gen_kw + meter_kw
        p_cc_kw = injection.sum() - LOSS_KW
        third = np.ones(3) / 3.0
        v_pu = np.array([1.0, 1.01, 0.99, 1.02, 0.98, 0.94 if t_s == 0 else 1.0])
        writer.add(Rows("grid", t_s, {"v_pu": v_pu, "p_kw": injection, "q_kvar": 0.0 * injection}))
        substation = {"p_kw": p_cc_kw * third, "q_kvar": 0.0 * third, "loss_kw": LOSS_KW * third,
                      "balance_error_kw": np.full(3, 1e-8)}  # fmt: skip
        writer.add(Rows("substation", t_s, substation))
        writer.add(Rows("secondary", t_s, secondary(meter_kw)))
        if t_s % 300 == 0:
            write_period(writer, t_s, gen_kw)
    for t_s, source, kind in (
        (START_S, "attacker", "attack"), (ALARM_S, "resilience", "alarm"), (END_S, "attacker", "attack-over")
    ):  # fmt: skip
        writer.add(Rows("events", t_s, {"source": [source], "kind": [kind], "text": ["..."]}))
    writer.finalise()
    run.finish("done")
    return path


def secondary(meter_kw):
    half = np.repeat(meter_kw / 2.0, 2)
    score = np.repeat(np.linspace(0.5, 0.95, 6), 2)
    return {"p0_kw": np.full(12, -175.0), "p_min_kw": np.full(12, -180.0), "p_max_kw": np.full(12, -165.0),
            "p_kw": half, "q_kvar": 0.0 * half, "dp_kw": 0.0 * half,
            "tariff_usd_per_kwh": np.linspace(0.07, 0.09, 12),
            "p_meter_kw": half, "cs": score, "ts": score, "rs": score}  # fmt: skip


def write_period(writer, t_s, gen_kw):
    p_kw = -load_kw(t_s)
    zero = np.zeros(6)
    primary = {"p0_kw": np.full(6, -350.0), "p_min_kw": np.full(6, -360.0), "p_max_kw": np.full(6, -330.0),
               "beta_p_usd_per_kw2h": np.full(6, 0.01), "p_kw": p_kw, "q_kvar": zero, "gen_kw": gen_kw,
               "dlmp_usd_per_kwh": np.linspace(0.05, 0.07, 6),
               "dlmp_q_usd_per_kvarh": zero, "v_pu": 1.0 + zero,
               "rs": np.linspace(0.5, 0.95, 6)}  # fmt: skip
    writer.add(Rows("primary", t_s, primary))
    system = {"price_usd_per_kwh": [0.04], "temp_air_c": [15.0], "pv_available": [0.0],
              "p_import_scheduled_kw": [1380.0], "p_import_kw": [1380.0],
              "cost_usd_per_h": [COST[state(t_s)]]}  # fmt: skip
    writer.add(Rows("system", t_s, system))
    clearing = {"market": ["primary"], "status": ["relaxed" if t_s == 0 else "optimal"], "gap": [1e-6],
                "ac_residual_pu": [1e-9], "kkt_residual": [1e-9],
                "cost_usd_per_h": [1.0], "lower_bound_usd_per_h": [1.0],
                "iterations": [3], "solve_s": [0.004]}  # fmt: skip
    writer.add(Rows("clearings", t_s, clearing))
    settlement = {"energy_usd": [-1.0, 1.0, 0.5, -0.5], "flexibility_usd": [0.2, -0.2, 0.0, 0.0],
                  "penalty_usd": [-0.1, 0.1, 0.0, 0.0]}  # fmt: skip
    writer.add(Rows("settlement", t_s, settlement))


@pytest.fixture(scope="module")
def kpis(tmp_path_factory):
    path = write_run(tmp_path_factory.mktemp("runs") / "run", load_scenario("ieee123-attack-2b"))
    written = write_kpis(path, {"wall_s": 12.5})
    assert json.loads((path / "kpis.json").read_text()) == written
    return written


# Sums of a few hundred doubles: relative error far below 1e-12; 1e-9 leaves room for the order of summation.
def near(value):
    return pytest.approx(value, rel=1e-9, abs=1e-9)


def test_energy_and_balance(kpis):
    load = 6 * 350.0
    before, attacked, mitigated = load + 30 - 750, load + 30 - 100, load - 21 + 30 - 420
    minutes = {"before": 180 - 45, "attacked": 5, "mitigated": 40}
    imported = before * minutes["before"] + attacked * minutes["attacked"] + mitigated * minutes["mitigated"]
    assert kpis["energy.import_kwh"] == near(imported / 60.0)
    assert kpis["energy.peak_import_kw"] == near(attacked)
    assert kpis["energy.load_kwh"] == near((load * 180 - 21 * 40) / 60.0)
    assert kpis["energy.generation_kwh"] == near((750 * 135 + 100 * 5 + 420 * 40) / 60.0)
    assert kpis["losses.energy_kwh"] == near(30.0 * 3)
    assert kpis["balance.max_error_kw"] == 1e-8


def test_prices_voltages_money_and_certificates(kpis):
    assert kpis["prices.mean_dlmp_usd_per_kwh"] == near(0.06)
    assert kpis["prices.mean_tariff_usd_per_kwh"] == near(0.08)
    assert kpis["prices.mean_wholesale_usd_per_kwh"] == near(0.04)
    assert kpis["voltage.violations"] == 1
    assert kpis["voltage.min_pu"] == 0.94
    assert kpis["settlement.imbalance_usd"] < 1e-12
    assert kpis["settlement.pmo_surplus_usd"] == near(0.5 * 36)
    assert kpis["settlement.penalty_usd"] == near(0.1 * 36)
    assert kpis["clearings.count"] == 36
    assert kpis["clearings.relaxed"] == 1
    assert kpis["clearings.failed"] == 0
    assert kpis["clearings.primary_median_solve_ms"] == near(4.0)
    assert kpis["events.attack_over"] == 1
    assert kpis["performance.wall_s"] == 12.5


def test_attack_figures(kpis):
    assert kpis["attack.detection_delay_s"] == ALARM_S - START_S
    assert kpis["attack.import_before_kw"] == near(1380.0)
    assert kpis["attack.import_attacked_kw"] == near(2030.0)
    assert kpis["attack.import_mitigated_kw"] == near(1689.0)
    assert kpis["attack.generation_lost_kw"] == near(650.0)
    assert kpis["attack.generation_added_kw"] == near(320.0)
    assert kpis["attack.curtailment_kw"] == near(21.0)
    assert kpis["attack.import_error_share"] == near(309.0 / 1380.0)
    assert kpis["attack.curtailment_smo_max_kw"] == near(6.0)
    # Scores and curtailments rise together, so all ranks agree.
    assert kpis["attack.curtailment_smo_spearman"] == near(1.0)
    assert kpis["attack.curtailment_share_sma_spearman"] == near(1.0)


def test_attack_cost_is_that_of_the_periods_in_each_window(kpis):
    assert [kpis[f"attack.cost_{name}_usd_per_h"] for name in COST] == near(list(COST.values()))


def test_a_run_cut_short_still_gives_figures(tmp_path):
    scenario = load_scenario("ieee123-hour")
    RunDirectory.create(tmp_path / "run", scenario)
    writer = TableWriter(tmp_path / "run", LAYOUTS)
    write_period(writer, 0, np.zeros(6))
    writer.commit()
    kpis = write_kpis(tmp_path / "run")
    assert kpis["prices.mean_dlmp_usd_per_kwh"] == near(0.06)
    assert "voltage.min_pu" not in kpis
    assert not any(name.startswith("attack.") for name in kpis)


def run_made_up(scenario, path):
    write_run(path, scenario)
    write_kpis(path)
    return path


def test_study_of_designs_writes_one_object_a_case(tmp_path):
    kpis = study_designs(run_made_up, tmp_path / "study", base="ieee123-hour")
    assert json.loads((tmp_path / "study" / "kpis.json").read_text()) == kpis
    assert list(kpis) == ["no_market", "no_market_planned", "primary_only", "primary_only_planned",
                          "hierarchical_without_game", "hierarchical"]  # fmt: skip
    changes = comparison(kpis)
    # Published: 0.064 against 0.116 and 0.082 against 0.129; ours are equal here, since the runs are.
    assert changes["dLMP, hierarchy against primary alone"]["published"] == pytest.approx(-0.448, abs=1e-3)
    assert changes["tariff, hierarchy against no market"]["published"] == pytest.approx(-0.364, abs=1e-3)
    assert changes["tariff, hierarchy against no market"]["ours"] == 0.0
    assert changes["import, consumer market on against off"]["ours"] == 0.0
    assert "0.0600" in (tmp_path / "study" / "designs.md").read_text()
    page = (tmp_path / "study" / "consumer_market.html").read_text()
    assert "hierarchy without consumer market" in page
    assert "no market, planned at the retail rate" in page


def test_cases_of_the_designs_differ_as_they_say():
    found = cases("ieee123-hour")
    assert {name: scenario.consumer.market for name, scenario in found.items() if "hierarchical" in name} == {
        "hierarchical_without_game": False, "hierarchical": True,
    }  # fmt: skip
    assert found["no_market"].consumer.outside_market == "set_temperature"
    assert found["no_market_planned"].consumer.outside_market == "retail_tariff"
    with pytest.raises(InputError, match="leave it out"):
        cases("ieee123-hour", ["consumer.market=false"])


def test_study_of_the_attack_sets_ours_beside_the_published(tmp_path):
    kpis = study_attack(run_made_up, tmp_path / "study")
    assert list(kpis) == ["mitigated", "unmitigated"]
    text = (tmp_path / "study" / "attack.md").read_text()
    assert "+37.4 %" in text
    assert "+47.1 %" in text
    assert kpis["unmitigated"]["attack.import_attacked_kw"] > kpis["mitigated"]["attack.import_mitigated_kw"]


def test_phase_prices_are_taken_apart_over_the_phases_that_are_fed():
    price = np.array([[0.10, 0.14, np.nan, 0.20], [0.20, 0.18, np.nan, 0.10]])
    parts = dict.fromkeys(("energy", "loss", "voltage", "congestion", "regulation"), 0.0)
    shares = parts | {"energy": 0.75, "loss": 0.25}
    block = Block(
        t_s=np.array([0, 300]),
        keys={
            "bus": np.array(["1", "1", "1", "2"], dtype=object),
            "phase": np.array(list("abca"), dtype=object),
        },
        values={"dlmp_usd_per_kwh": price}
        | {f"{name}_usd_per_kwh": share * price for name, share in shares.items()},
    )
    found = _phase_prices(block)
    assert found["prices.mean_dlmp_energy_usd_per_kwh"] == near(0.75 * 0.92 / 6)
    assert found["prices.mean_dlmp_loss_usd_per_kwh"] == near(0.25 * 0.92 / 6)
    assert found["prices.mean_dlmp_voltage_usd_per_kwh"] == 0.0
    assert found["prices.mean_phase_spread_usd_per_kwh"] == near((0.04 + 0.02) / 4)
    assert found["prices.max_phase_spread_usd_per_kwh"] == near(0.04)
    assert _phase_prices(None) == {}


def test_generators_hold_their_set_points_and_give_nothing_under_attack():
    scenario = load_scenario("ieee123-attack-2b")
    start_s, end_s = scenario.attack_window_s
    at_s = np.array([0, start_s - 300, start_s])
    set_kw = np.array([[10.0] * 6, [20.0] * 6, [30.0] * 6])
    primary = Block(at_s, {"bus": np.array(BUSES, dtype=object)}, {"gen_kw": set_kw})
    t_s = np.array([-60, 0, start_s - 60, start_s, end_s - 60, end_s])
    spared = sum(bus not in scenario.attack.buses for bus in BUSES)
    assert 0 < spared < 6
    expected = [0.0, 60.0, 120.0, 30.0 * spared, 30.0 * spared, 180.0]
    assert generation_kw(primary, scenario, t_s).tolist() == expected
    grid = Block(t_s, {}, {"p_kw": np.full((6, 2), 25.0)})
    assert physical_load_kw(grid, None, scenario).tolist() == [-50.0] * 6, (
        "without a market no generator runs"
    )
