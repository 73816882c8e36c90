"""The cone relaxation: it agrees with its readable twin, and its dual value is a bound."""

from dataclasses import replace

import numpy as np
import pytest

from voltier.grid.feeder import read_feeder
from voltier.grid.network import BalancedNetwork, balanced_network, retap
from voltier.market.primary.branch_flow import dispatch_branch_flow
from voltier.market.primary.market import PrimaryMarket
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices, scale_bids
from voltier.market.primary.relaxation import Relaxation

PRICES = PrimaryPrices(0.10, 2e-5, 0.10)


@pytest.fixture(scope="module")
def case() -> tuple[BalancedNetwork, np.ndarray, BalancedNetwork, PrimaryBids]:
    feeder = read_feeder("ieee123")
    network = balanced_network(feeder, feeder.regulators.published_tap, v_max_pu=1.08)
    rows = feeder.load_buses
    p = np.bincount(feeder.spot_loads.bus, feeder.spot_loads.p_kw, len(feeder.bus))[rows]
    bids = PrimaryBids(
        p0_kw=-p, p_min_kw=-1.1 * p, p_max_kw=-0.7 * p,
        beta_p_usd_per_kw2h=0.2 / p, q0_kvar=-0.5 * p, q_min_kvar=-0.6 * p, q_max_kvar=-0.4 * p,
        beta_q_usd_per_kvar2h=0.05 / p, gen_max_kw=np.where(p > 60.0, 40.0, 0.0), alpha_usd_per_kw2h=0.2 / p,
    )  # fmt: skip
    return (
        network,
        network.node_of_bus[rows],
        retap(network, feeder, feeder.regulators.published_tap - 2),
        bids,
    )


def test_fast_relaxation_equals_the_reference(case) -> None:
    network, node, _, bids = case
    fast = Relaxation(network, node).solve(network, scale_bids(bids, PRICES, network.s_base_kva))
    slow = dispatch_branch_flow(network, node, bids, PRICES)
    # Two interior-point runs on differently scaled programs, each to 1e-8.
    assert fast.value * network.s_base_kva == pytest.approx(slow.cost_usd_per_h, rel=1e-6)
    np.testing.assert_allclose(-fast.y[0], slow.dlmp_node_p_usd_per_kwh, atol=1e-6)
    np.testing.assert_allclose(-fast.y[1], slow.dlmp_node_q_usd_per_kvarh, atol=1e-6)


def test_tight_relaxation_equals_the_exact_market(case) -> None:
    network, node, _, bids = case
    slow = dispatch_branch_flow(network, node, bids, PRICES)
    exact = PrimaryMarket(network, node).clear(bids, PRICES)
    assert slow.residual_pu < 1e-5
    assert exact.cost_usd_per_h == pytest.approx(slow.cost_usd_per_h, rel=1e-6)
    np.testing.assert_allclose(exact.dlmp_node_p_usd_per_kwh, slow.dlmp_node_p_usd_per_kwh, atol=1e-6)
    np.testing.assert_allclose(exact.v_pu, slow.v_pu, atol=1e-5)
    assert exact.lower_bound_usd_per_h <= exact.cost_usd_per_h * (1.0 + 1e-8)
    assert exact.gap < 1e-6


def test_update_in_place_equals_a_fresh_program(case) -> None:
    network, node, moved, bids = case
    relaxation = Relaxation(network, node)
    relaxation.solve(network, scale_bids(bids, PRICES, network.s_base_kva))
    # Some boxes closed, others opened, other taps, other prices: only stored numbers may change.
    p_min = np.where(np.arange(len(node)) % 3 == 0, bids.p0_kw, bids.p_min_kw)
    p_max = np.where(np.arange(len(node)) % 3 == 0, bids.p0_kw, bids.p_max_kw)
    changed = replace(bids, p_min_kw=p_min, p_max_kw=p_max, gen_max_kw=np.roll(bids.gen_max_kw, 1))
    scaled = scale_bids(changed, PrimaryPrices(0.05, 0.0, 0.2), network.s_base_kva)
    again = relaxation.solve(moved, scaled)
    fresh = Relaxation(moved, node).solve(moved, scaled)
    assert again.value == pytest.approx(fresh.value, rel=1e-7)
    np.testing.assert_allclose(again.y, fresh.y, atol=1e-6)
    slow = dispatch_branch_flow(moved, node, changed, PrimaryPrices(0.05, 0.0, 0.2))
    assert again.value * network.s_base_kva == pytest.approx(slow.cost_usd_per_h, rel=1e-6)


def test_bound_lies_below_the_value_by_no_more_than_rounding(case) -> None:
    network, node, _, bids = case
    point = Relaxation(network, node).solve(network, scale_bids(bids, PRICES, network.s_base_kva))
    assert point.bound <= point.value + 1e-9
    assert point.bound == pytest.approx(point.value, rel=1e-5)


def test_bound_of_an_infeasible_market_is_not_a_number_to_rely_on(case) -> None:
    network, node, _, bids = case
    impossible = replace(network, v_min_pu=np.full(len(network.parent), 1.07))
    clearing = PrimaryMarket(impossible, node).clear(bids, PRICES)
    assert clearing.status == "relaxed"
    assert clearing.lower_bound_usd_per_h == -np.inf
    assert np.isinf(clearing.gap)
