"""A whole run in one process: same rows for any number of shards and any repetition, and energy is accounted for."""

from collections import Counter
from functools import cache

import numpy as np
import pytest

from voltier.agents.devices.kinds import KEYS
from voltier.federates.local import run_local
from voltier.scenarios.build import build_operator, market_clock, operator_names, table_layouts
from voltier.scenarios.schema import load_scenario

HALF_HOUR = (
    "ieee123-day",
    "hours=0.5",
    "start=2020-07-15 18:00",
    "fleet.evs=100",
    "recording.consumer_period_s=60",
)
ATTACK = (
    "ieee123-attack-2b",
    "hours=0.5",
    "resilience.warm_up_min=10",
    "attack.start=20:14",
    "attack.end=20:24",
)
BY_PHASE = (
    "ieee123-attack-2b",
    "hours=0.25",
    "primary.formulation=current_injection",
    "start=2020-07-15 20:00",
    "attack.start=20:05",
    "attack.end=20:10",
)


@cache
def run(name, *overrides):
    """Return {(table, t_s): columns} with the rows of all shards in the run's order, and the events in any order."""
    scenario = load_scenario(name, overrides)
    rows = []
    operators = [build_operator(scenario, name) for name in operator_names(scenario)]
    run_local(operators, market_clock(scenario), rows.append, lambda now_s: None)
    parts = {}
    for item in rows:
        parts.setdefault((item.table, item.t_s), []).append(item.columns)
    events = Counter(
        (t_s, *(part[key][0] for key in ("source", "kind", "text")))
        for (table, t_s), found in parts.items()
        if table == "events"
        for part in found
    )
    tables = {key: _joined(found) for key, found in parts.items() if key[0] != "events"}
    return scenario, tables, events


def _joined(parts):
    columns = {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}
    if "position" in columns:
        order = np.argsort(columns["position"], kind="stable")
        columns = {name: values[order] for name, values in columns.items()}
    return columns


def assert_same(one, other):
    assert set(one[1]) == set(other[1])
    for key, columns in one[1].items():
        for name, values in columns.items():
            if name != "solve_s":  # wall time, the one column that may differ
                np.testing.assert_array_equal(values, other[1][key][name], err_msg=f"{key} {name}")
    assert one[2] == other[2]


@pytest.mark.parametrize("case", [HALF_HOUR, ATTACK], ids=["evening", "attack"])
@pytest.mark.parametrize("shards", [3, 7])
def test_any_number_of_shards_gives_the_same_rows_to_the_last_bit(case, shards):
    assert_same(run(*case), run(*case, f"federation.shards={shards}"))


def test_the_same_scenario_twice_gives_the_same_rows_to_the_last_bit():
    assert_same(run(*HALF_HOUR), run.__wrapped__(*HALF_HOUR))


def test_a_market_by_phase_does_not_depend_on_shards_either():
    one, other = run(*BY_PHASE), run(*BY_PHASE, "federation.shards=3")
    assert_same(one, other)
    assert_same(one, run.__wrapped__(*BY_PHASE))
    scenario, tables, _ = one
    assert {t_s for table, t_s in tables if table == "dlmp"} == set(range(0, 900, 300))
    for t_s in range(0, 900, 300):
        (gap,), phases = tables["clearings", t_s]["gap"], tables["dlmp", t_s]
        assert 0.0 <= gap < 0.05
        assert len(phases["v_pu"]) == table_layouts(scenario)["dlmp"].n_rows


def test_another_seed_is_another_run():
    _, tables, _ = run(*HALF_HOUR)
    _, others, _ = run(*HALF_HOUR, "seed=2")
    assert set(tables) == set(others)
    assert not np.array_equal(tables["devices", 0]["base_kw"], others["devices", 0]["base_kw"])


def test_every_row_of_every_table_is_there_once():
    scenario, tables, _ = run(*HALF_HOUR)
    layouts = table_layouts(scenario)
    for (table, t_s), columns in tables.items():
        assert {len(values) for values in columns.values()} == {layouts[table].n_rows or 1}, (table, t_s)
        if "position" in columns:
            np.testing.assert_array_equal(columns["position"], np.arange(layouts[table].n_rows))
    minutes, periods = set(range(0, 1800, 60)), set(range(0, 1800, 300))
    for table, expected in {
        "grid": minutes, "substation": minutes, "secondary": minutes, "consumer": minutes, "devices": minutes,
        "secondary_clearings": minutes, "consumer_clearings": minutes,
        "primary": periods, "clearings": periods, "system": periods, "settlement": periods,
    }.items():  # fmt: skip
        assert {t_s for name, t_s in tables if name == table} == expected, table


@pytest.mark.parametrize("case", [HALF_HOUR, ATTACK], ids=["evening", "attack"])
def test_what_is_injected_goes_to_the_bulk_grid_or_is_lost(case):
    _, tables, _ = run(*case)
    for t_s in range(0, 1800, 60):
        injected = tables["grid", t_s]["p_kw"].sum()
        substation = tables["substation", t_s]
        lost = substation["loss_kw"].sum() - substation["balance_error_kw"][0]  # as the engine counts it
        # The engine's voltages converge to 1e-10 p.u., an error that does not shrink with the net load of a
        # minute: it is relative to what the feeder is made for, 3,490 kW of spot load.
        assert abs(injected - substation["p_kw"].sum() - lost) < 1e-8 * 3490.0
        assert 0.0 < lost < 0.1 * abs(injected)


def test_meters_of_houses_agents_and_feeder_agree():
    scenario, tables, _ = run(*HALF_HOUR, "iot.loss=0")  # else operators go by old readings of some agents
    keys = table_layouts(scenario)
    of_house = np.array([keys["secondary"].keys["sma"].index(cmo) for cmo in keys["consumer"].keys["cmo"]])
    for t_s in range(0, 1800, 60):
        devices = tables["devices", t_s]
        house = sum(devices[f"{key}_kw"] for key in KEYS)
        np.testing.assert_allclose(tables["consumer", t_s]["p_meter_kw"], house, atol=1e-12)  # eight terms
        agents = tables["secondary", t_s]["p_meter_kw"]
        np.testing.assert_allclose(np.bincount(of_house, house), agents, atol=1e-11)  # some ten houses
        # 1,008 numbers in another order
        assert tables["grid", t_s]["p_kw"].sum() == pytest.approx(agents.sum(), rel=1e-12)


def test_money_only_changes_hands():
    for case in (HALF_HOUR, ATTACK):
        _, tables, _ = run(*case)
        for (table, _), columns in tables.items():
            if table == "settlement":
                for name in ("energy_usd", "flexibility_usd", "penalty_usd"):
                    # some 700 transfers of cents to a few dollars
                    assert abs(columns[name].sum()) < 1e-12


def test_the_attack_is_felt_seen_and_met():
    _, tables, events = run(*ATTACK)
    told = sorted((t_s, kind) for t_s, _, kind, _ in events)
    begun = next(t_s for t_s, kind in told if kind == "attack")
    assert begun == 14 * 60
    alarm = next(t_s for t_s, kind in told if kind == "alarm")
    assert 0 < alarm - begun <= 4 * 60  # two suspicious minutes, and one on the way there
    mitigated = [t_s for t_s, kind in told if kind == "mitigation"]
    assert mitigated
    assert mitigated[0] - alarm <= 300
    import_kw = {
        t_s: -columns["p_kw"].sum() for (table, t_s), columns in tables.items() if table == "substation"
    }
    before, struck = import_kw[begun - 60], import_kw[begun + 60]
    assert struck - before > 400.0  # of 650 kW rated
    assert import_kw[mitigated[0] + 240] < struck - 100.0
