"""Figures of voltage worked out by hand: ranges, longest times, unbalance, nodes without a voltage."""

import numpy as np
import pytest

from voltier.scenarios.metrics_voltage import by_phase, excess_pu, longest_run, unbalance, voltage_kpis
from voltier.scenarios.panels import Block

NAMES = {"bus": ["1", "1", "1", "2", "3"], "phase": ["a", "b", "c", "a", "b"]}


def block(v_pu):
    keys = {name: np.array(texts, dtype=object) for name, texts in NAMES.items()}
    return Block(60 * np.arange(len(v_pu)), keys, {"v_pu": np.asarray(v_pu, dtype=float)})


FLAT = [1.0, 1.0, 1.0, 1.0, np.nan]
"""Bus 3 hangs behind an open switch."""


def test_a_flat_feeder_has_nothing_to_report():
    kpis = voltage_kpis(block([FLAT, FLAT]), (0.95, 1.05))
    zero = {name for name in kpis if not name.endswith(("min_pu", "max_pu"))}
    assert {kpis[name] for name in zero} == {0}
    assert kpis["voltage.min_pu"] == kpis["voltage.max_pu"] == 1.0


def test_ranges_count_node_minutes_worst_excess_and_longest_time():
    low, high = [1.0, 1.0, 1.0, 0.94, np.nan], [1.0, 1.0, 1.06, 0.94, np.nan]
    kpis = voltage_kpis(block([FLAT, low, high, low, FLAT, low]), (0.95, 1.05))
    # 24 node-minutes have a voltage; node 2.a is low in four of them, 1.c high in one.
    assert kpis["voltage.range_a_outside_share"] == pytest.approx(5 / 24)
    assert kpis["voltage.range_a_worst_excess_pu"] == pytest.approx(0.01)
    assert kpis["voltage.range_a_longest_min"] == 3
    assert kpis["voltage.range_b_outside_share"] == pytest.approx(1 / 24)
    assert kpis["voltage.range_b_worst_excess_pu"] == pytest.approx(0.002)
    assert kpis["voltage.range_b_longest_min"] == 1
    assert kpis["voltage.violations"] == 5


def test_limits_of_the_scenario_and_of_the_standard_are_two_things():
    kpis = voltage_kpis(block([[0.96, 1.0, 1.0, 1.0, 1.0]]), (0.97, 1.03))
    assert (kpis["voltage.violations"], kpis["voltage.range_a_outside_share"]) == (1, 0.0)


def test_a_voltage_on_the_limit_lies_within():
    edges = np.array([0.95, 1.05, 0.9499, 1.0501, np.nan])
    np.testing.assert_allclose(excess_pu(edges, 0.95, 1.05), [0.0, 0.0, 1e-4, 1e-4, 0.0], atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_longest_run_is_that_of_counting(seed):
    flags = np.random.default_rng(seed).random((60, 4)) < 0.7
    longest = 0
    for column in flags.T:
        run = 0
        for flag in column:
            run = run + 1 if flag else 0
            longest = max(longest, run)
    assert longest_run(flags) == longest
    assert longest_run(~(flags | True)) == 0
    assert longest_run(flags | True) == 60


def test_unbalance_is_the_largest_deviation_over_the_mean():
    # NEMA's own example: 460, 467 and 450 V have the mean 459 and are off by 9 V at most, 1.96 %.
    assert unbalance(np.array([460.0, 467.0, 450.0])) == pytest.approx(9 / 459)
    volts = np.array([1.02, 0.99, 0.96])
    assert unbalance(3.7 * volts[[2, 0, 1]]) == pytest.approx(unbalance(volts)), "no unit, no order"


def test_only_buses_with_all_phases_have_an_unbalance():
    v_pu = [[1.04, 1.0, 0.96, 0.5, 0.5], [1.0, 1.0, 1.0, 0.5, 0.5]]
    assert by_phase(block(v_pu)).shape == (2, 1, 3)
    kpis = voltage_kpis(block(v_pu), (0.95, 1.05))
    assert kpis["voltage.max_unbalance_share"] == pytest.approx(0.04)
    assert kpis["voltage.mean_unbalance_share"] == pytest.approx(0.02)
    assert kpis["voltage.unbalance_above_limit_share"] == pytest.approx(0.5)
    alone = block(v_pu)
    alone = Block(
        alone.t_s, {name: keys[3:] for name, keys in alone.keys.items()}, {"v_pu": alone["v_pu"][:, 3:]}
    )
    assert not any("unbalance" in name for name in voltage_kpis(alone, (0.95, 1.05)))
