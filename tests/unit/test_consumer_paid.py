"""Flexibility paid from outside: payments against an independent solver, what agents and operator are sure of."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voltier.grid.errors import InputError
from voltier.market.consumer_incentives import measure_incentives, summarise
from voltier.market.consumer_mechanisms import Markets, play, random_markets, surplus_usd_per_h
from voltier.market.consumer_paid import play_paid


def one(p0, low, high, gamma, target, pi=0.08, omega=1.0):
    p0, low, high, gamma = (np.asarray(x, dtype=float) for x in (p0, low, high, gamma))
    single = [np.array([float(x)]) for x in (target, pi, omega)]
    return Markets(np.array([0, p0.size]), p0, low, high, gamma, *single)


def cheapest(p0, low, high, gamma, target, omega):
    """V by a conic solver."""
    p = cp.Variable(len(p0))
    cost = cp.sum(cp.multiply(gamma, cp.square(p - p0))) + omega * cp.abs(target - cp.sum(p))
    return cp.Problem(cp.Minimize(cost), [p >= low, p <= high]).solve(cp.CLARABEL)


def test_two_agents_by_hand():
    # gamma 0.5 each, D = 1: s = 0.5, half a kW each. Alone one would need gamma D^2 = 0.5, the other now bears 0.125.
    market = one([-3, -4], [-3, -4], [0, 0], [0.5, 0.5], -6.0, omega=2.0)
    game = play("vcg", market)
    np.testing.assert_allclose(game.p_kw, [-2.5, -3.5])
    np.testing.assert_allclose(game.paid_usd_per_h, 0.08 * market.p0_kw + 0.375)
    assert game.budget_error_usd_per_h[0] == pytest.approx(0.75 - 0.08)
    assert game.mu_tilde_usd_per_kwh[0] == pytest.approx(0.5 - 0.08)
    np.testing.assert_allclose(game.side_payment_usd_per_h, 0.375 - 0.5 * 0.5)
    uniform = play("uniform", market)
    np.testing.assert_allclose(uniform.paid_usd_per_h, 0.08 * market.p0_kw + 0.25)
    np.testing.assert_allclose(uniform.side_payment_usd_per_h, 0.0, atol=1e-15)


@pytest.mark.parametrize("target", [-5.0, -7.2, -9.3, -20.0])
def test_payments_are_the_savings_of_others_by_an_independent_solver(target):
    p0, gamma = np.array([-3.0, -4.0, -2.0]), np.array([0.5, 0.4, 0.6])
    low, high, omega = p0 - np.array([1, 0.3, 2]), p0 + np.array([1, 2, 0.5]), 0.7
    game = play("vcg", one(p0, low, high, gamma, target, omega=omega))
    cost = (gamma * (game.p_kw - p0) ** 2).sum() + omega * abs(game.tracking_error_kw[0])
    # accuracy of the conic solver
    assert cost == pytest.approx(cheapest(p0, low, high, gamma, target, omega), abs=1e-6)
    for i in range(3):
        others = np.arange(3) != i
        rest = p0[others], low[others], high[others], gamma[others]
        saved = cheapest(*rest, target - p0[i], omega) - cheapest(*rest, target - game.p_kw[i], omega)
        assert game.paid_usd_per_h[i] == pytest.approx(0.08 * p0[i] + saved, abs=1e-6)


def test_what_costs_more_than_outside_is_bought_there():
    p0, gamma = np.array([-3.0, -4.0]), np.array([0.5, 0.4])
    game = play("vcg", one(p0, p0 - 2, p0 + 2, gamma, -5.0, omega=0.3))
    assert game.s_usd_per_kwh[0] == 0.3
    np.testing.assert_allclose(game.p_kw - p0, 0.15 / gamma)
    assert game.feasible[0]
    assert game.tracking_error_kw[0] == pytest.approx(0.15 / 0.5 + 0.15 / 0.4 - 2.0)


def test_a_baseline_that_is_known_decides_what_counts_as_moved():
    p0, gamma = np.array([-3.0, -4.0]), np.array([0.5, 0.4])
    m = one(p0, p0 - 2, p0 + 2, gamma, -6.5)
    told = play("vcg", m, np.array([-3.0, -4.0]))
    other = play("vcg", m, np.array([-2.5, -4.0]))
    np.testing.assert_array_equal(told.p_kw, other.p_kw)
    assert other.paid_usd_per_h[1] == told.paid_usd_per_h[1]
    assert other.paid_usd_per_h[0] - 0.08 * -2.5 < told.paid_usd_per_h[0] - 0.08 * -3.0


def test_unknown_mechanism_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="published, individual, uniform, vcg"):
        play("auction", random_markets(np.random.default_rng(0), 2, 3))


def test_markets_without_or_with_one_agent():
    none = np.zeros(0)
    empty = play_paid(
        np.array([0, 0]), none, none, none, none, np.array([-1.0]), np.array([0.1]), np.array([1.0])
    )
    assert not empty.feasible[0]
    assert empty.tracking_error_kw[0] == 1.0
    alone = play("vcg", one([-3], [-4], [-1], [0.5], -2.5))
    # the only one is paid what the operator would pay outside
    assert alone.paid_usd_per_h[0] == pytest.approx(0.08 * -3 + 1.0 * 0.5)


@given(seed=st.integers(0, 10_000), agents=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_nobody_loses_and_the_operator_never_pays_more_than_outside(seed, agents):
    m = random_markets(np.random.default_rng(seed), 20, agents)
    vcg, uniform = play("vcg", m), play("uniform", m)
    # sums of a dozen terms of order one
    assert surplus_usd_per_h(vcg, m).min() > -1e-12
    assert surplus_usd_per_h(uniform, m).min() > -1e-12
    assert (vcg.side_payment_usd_per_h > -1e-12).all()
    np.testing.assert_array_equal(vcg.p_kw, uniform.p_kw)
    assert np.abs(vcg.tracking_error_kw).max() < 1e-9
    moved = np.add.reduceat(m.p0_kw, m.offset[:-1])
    flexibility = vcg.budget_error_usd_per_h + m.price_usd_per_kwh * (m.target_kw - moved)
    assert (flexibility <= m.outside_usd_per_kwh * np.abs(m.target_kw - moved) + 1e-12).all()


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_no_random_lie_pays_under_vcg(seed):
    """All of gamma, box and wish at once, which the search of the study takes one at a time."""
    rng = np.random.default_rng(seed)
    true = random_markets(rng, 50, 3)
    honest = surplus_usd_per_h(play("vcg", true, true.p0_kw), true)
    liar = true.offset[:-1] + rng.integers(0, 3, 50)
    p0, low, high, gamma = (
        x.copy() for x in (true.p0_kw, true.p_min_kw, true.p_max_kw, true.gamma_usd_per_kw2h)
    )
    ends = np.sort(rng.uniform(low[liar], high[liar], (3, 50)), axis=0)
    low[liar], p0[liar], high[liar] = ends
    gamma[liar] *= 10 ** rng.uniform(-1, 1, 50)
    told = Markets(
        true.offset, p0, low, high, gamma, true.target_kw, true.price_usd_per_kwh, true.outside_usd_per_kwh
    )
    lied = surplus_usd_per_h(play("vcg", told, true.p0_kw), true)
    assert (lied[liar] - honest[liar]).max() < 1e-12


def test_measured_incentives_of_the_four_mechanisms():
    true = random_markets(np.random.default_rng(3), 40, 3)
    found = {
        name: summarise(measure_incentives(name, true), true)
        for name in ("published", "individual", "uniform", "vcg")
    }
    for figures in found.values():
        assert figures["max_tracking_error_kw"] < 1e-6
    for name in ("published", "individual"):
        assert found[name]["max_budget_error_usd_per_h"] < 1e-6
        assert found[name]["losers_share"] >= 1 / 3 * found[name]["unavoidable_share"]
        assert found[name]["gain_gamma_max_usd_per_h"] > 0.1
    for name in ("uniform", "vcg"):
        assert found[name]["losers_share"] == 0.0
        assert found[name]["mean_deficit_usd_per_h"] > 0.0
    assert found["uniform"]["gain_gamma_max_usd_per_h"] > 0.1
    for told in ("gamma", "wish", "box"):
        # stated tolerance of the mechanism
        assert found["vcg"][f"gain_{told}_max_usd_per_h"] < 1e-6
    assert found["vcg"]["strategic_cost_ratio"] == found["vcg"]["strategic_factor"] == 1.0
    assert found["published"]["strategic_cost_ratio"] > 1.01
    blind = summarise(measure_incentives("vcg", true, known_baseline=False), true)
    assert blind["gain_gamma_max_usd_per_h"] < 1e-6
    assert blind["gain_wish_max_usd_per_h"] > 0.1, "wishes taken as reported are open to misreporting"


def test_the_search_finds_the_best_false_gamma_of_a_fine_grid():
    true = random_markets(np.random.default_rng(8), 4, 3)
    measured = measure_incentives("published", true)
    for row in range(0, 12, 5):
        gains = []
        for factor in np.logspace(-1, 1, 801):
            gamma = true.gamma_usd_per_kw2h.copy()
            gamma[row] *= factor
            told = Markets(true.offset, true.p0_kw, true.p_min_kw, true.p_max_kw, gamma, true.target_kw,
                           true.price_usd_per_kwh, true.outside_usd_per_kwh)  # fmt: skip
            gains.append(
                surplus_usd_per_h(play("published", told), true)[row] - measured.surplus_usd_per_h[row]
            )
        # the fine grid may lie beside the top by half a step of 0.3 %
        assert measured.gain_gamma_usd_per_h[row] >= max(gains) - 1e-9
        assert measured.gain_gamma_usd_per_h[row] <= max(gains) * 1.01 + 1e-6


def test_agents_alike_have_no_gain_of_first_order_by_common_prices():
    n = 4
    m = one([-3.0] * n, [-6.0] * n, [3.0] * n, [0.5] * n, -3.0 * n + 1.0)
    honest = surplus_usd_per_h(play("published", m), m)[0]
    gains = []
    for step in (1e-2, 1e-3):
        gamma = m.gamma_usd_per_kw2h.copy()
        gamma[0] *= 1 + step
        told = one(m.p0_kw, m.p_min_kw, m.p_max_kw, gamma, m.target_kw[0])
        gains.append((surplus_usd_per_h(play("published", told), m)[0] - honest) / step)
    # second order: a tenth of the step, a tenth of the gain for it
    assert abs(gains[1]) < 0.2 * abs(gains[0]) + 1e-9
