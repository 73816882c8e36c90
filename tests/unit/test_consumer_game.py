"""Consumer market: closed form against brute force, saturated agents, both directions, degenerate totals."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voltier.market.consumer import best_response, play_game, share_target


def play_one(p0, low, high, gamma, target, pi=0.08):
    p0, low, high, gamma = (np.asarray(v, dtype=float) for v in (p0, low, high, gamma))
    return play_game(np.array([0, p0.size]), p0, low, high, gamma, np.array([float(target)]), np.array([pi]))


def utility(p, p0, gamma, mu, mu_tilde):
    return mu_tilde * (p - p0) + mu * p - gamma * (p - p0) ** 2


def test_interior_prices_equal_the_published_closed_form():
    p0, gamma, target, pi = np.array([-3.0, -4.0, -2.0]), np.array([0.5, 0.4, 0.6]), -7.2, 0.08
    game = play_one(p0, p0, p0 + 5, gamma, target, pi)
    total0, rate, change = p0.sum(), (1 / gamma).sum(), target - p0.sum()
    assert game.mu_usd_per_kwh[0] == pytest.approx(
        pi * target / total0 - 2 * change**2 / (rate * total0), rel=1e-12
    )
    assert game.mu_tilde_usd_per_kwh[0] == pytest.approx(
        target * (2 * change - pi * rate) / (rate * total0), rel=1e-12
    )


def test_published_formula_misses_the_target_with_a_saturated_agent_and_water_filling_meets_it():
    p0, gamma = np.array([-4.0, -3.0, -2.0]), np.array([0.5, 0.75, 1.5])
    high = p0 + np.array([0.17, 3.0, 3.0])
    change, rate = 1.8, (1 / gamma).sum()
    printed = best_response(p0, p0, high, gamma, 2 * change / rate, 0.0).sum()
    assert printed == pytest.approx(-7.93)  # the interior formula ignores the limit
    game = play_one(p0, p0, high, gamma, -7.2)
    assert game.p_kw.sum() == pytest.approx(-7.2, abs=1e-9)
    assert abs(game.budget_error_usd_per_h[0]) < 1e-9
    assert game.p_kw[0] == high[0]
    assert game.feasible[0]


@pytest.mark.parametrize("target", [-7.2, -8.9, -10.5])
def test_every_answer_is_a_best_response_by_brute_force(target):
    p0, low, high = np.array([-3.0, -4, -2]), np.array([-4.0, -4.3, -4]), np.array([-2.0, -2, -1.5])
    gamma = np.array([0.5, 0.4, 0.6])
    game = play_one(p0, low, high, gamma, target)
    mu, mu_tilde = game.mu_usd_per_kwh[0], game.mu_tilde_usd_per_kwh[0]
    for i in range(3):
        grid = np.linspace(low[i], high[i], 20_001)
        best = grid[utility(grid, p0[i], gamma[i], mu, mu_tilde).argmax()]
        assert game.p_kw[i] == pytest.approx(best, abs=2e-4)  # one and a half steps of the grid
    np.testing.assert_allclose(game.p_kw, best_response(p0, low, high, gamma, mu, mu_tilde), atol=1e-12)
    assert game.p_kw.sum() == pytest.approx(target, abs=1e-9)
    assert np.sign(game.s_usd_per_kwh[0]) == np.sign(target - p0.sum())


def test_equals_the_cost_minimising_split():
    rng = np.random.default_rng(2)
    for _ in range(10):
        p0 = rng.uniform(-6, 1, 6)
        low, high = p0 - rng.uniform(0, 2, 6), p0 + rng.uniform(0, 2, 6)
        gamma, target = rng.uniform(0.1, 1, 6), p0.sum() + rng.uniform(-2, 2)
        game = play_one(p0, low, high, gamma, target)
        p = cp.Variable(6)
        balance = cp.sum(p) == target
        cost = cp.sum_squares(cp.multiply(np.sqrt(gamma), p - p0))
        cp.Problem(cp.Minimize(cost), [balance, p >= low, p <= high]).solve(cp.CLARABEL)
        # accuracy of the conic solver; s is the multiplier of the target
        np.testing.assert_allclose(game.p_kw, p.value, atol=1e-5)
        assert game.s_usd_per_kwh[0] == pytest.approx(-balance.dual_value, abs=1e-4)


def test_best_response_has_three_branches():
    p0, low, high, gamma = np.array([-3.0]), np.array([-4.0]), np.array([-2.5]), np.array([0.5])
    assert best_response(p0, low, high, gamma, 0.3, 0.1)[0] == pytest.approx(-2.6)
    assert best_response(p0, low, high, gamma, 0.3, -0.3)[0] == -3.0
    assert best_response(p0, low, high, gamma, 0.3, -0.9)[0] == pytest.approx(-3.6)
    assert best_response(p0, low, high, gamma, 9.0, 0.0)[0] == -2.5
    assert best_response(p0, p0, high, gamma, 0.3, -0.9)[0] == -3.0  # published box: never below the wish


def test_small_request_needs_a_negative_flexibility_price():
    p0 = np.array([-3.0, -4.0, -2.0])
    for change, positive in ((0.1, False), (2.0, True)):
        game = play_one(p0, p0, p0 + 3, [0.5, 0.4, 0.6], p0.sum() + change)
        assert (game.mu_tilde_usd_per_kwh[0] > 0) == positive == (game.s_usd_per_kwh[0] > 0.08)


def test_no_request_charges_the_grid_price():
    p0 = np.array([-3.0, -4.0])
    game = play_one(p0, p0 - 1, p0 + 1, [0.5, 0.4], -7.0)
    assert game.mu_usd_per_kwh[0] == pytest.approx(0.08, rel=1e-12)
    assert game.mu_tilde_usd_per_kwh[0] == pytest.approx(-0.08, rel=1e-12)
    np.testing.assert_array_equal(game.p_kw, p0)


@pytest.mark.parametrize(("target", "total"), [(-1.0, -5.0), (-20.0, -9.0)])
def test_target_out_of_reach_plays_the_nearest_total(target, total):
    p0 = np.array([-3.0, -4.0])
    game = play_one(p0, p0 - 1, p0 + 1, [0.5, 0.4], target)
    assert not game.feasible[0]
    assert game.p_kw.sum() == total
    assert game.tracking_error_kw[0] == pytest.approx(total - target)
    assert abs(game.budget_error_usd_per_h[0]) < 1e-9
    prices = game.mu_usd_per_kwh[0], game.mu_tilde_usd_per_kwh[0]
    np.testing.assert_allclose(best_response(p0, p0 - 1, p0 + 1, np.array([0.5, 0.4]), *prices), game.p_kw)


def test_a_target_that_is_beyond_the_boxes_by_rounding_is_met():
    p0 = np.array([-3.1, -4.3, -2.7])
    reach = float((p0 + 0.1).sum())
    assert play_one(p0, p0, p0 + 0.1, [0.5, 0.4, 0.3], reach + 1e-12).feasible[0]
    assert not play_one(p0, p0, p0 + 0.1, [0.5, 0.4, 0.3], reach + 1e-6).feasible[0]


@pytest.mark.parametrize("share", [-1.3, -0.6, 0.0, 0.6, 1.3])
def test_shares_without_a_game_follow_the_room_and_pay_the_tariff(share):
    offset = np.array([0, 2, 3, 3])
    p0, down, up = np.array([-3.0, 2.0, -1.0]), np.array([1.0, 2.0, 0.0]), np.array([0.5, 0.0, 0.0])
    asked = share * np.array([0.5 if share > 0 else 3.0, 1.0, 1.0])
    total = np.array([-1.0, -1.0, 0.0])
    pi = np.array([0.1, 0.2, 0.3])
    game = share_target(offset, p0, p0 - down, p0 + up, np.ones(3), total + asked, pi)
    reached = np.clip(share, -1.0, 1.0)
    np.testing.assert_allclose(game.p_kw[:2], p0[:2] + reached * (up if share > 0 else down)[:2], rtol=1e-14)
    assert game.p_kw[2] == -1.0  # no room at all
    np.testing.assert_array_equal(game.feasible, [abs(share) <= 1.0, share == 0.0, share == 0.0])
    played = np.array([game.p_kw[:2].sum(), game.p_kw[2], 0.0])
    np.testing.assert_allclose(game.tracking_error_kw, played - (total + asked), atol=1e-14)
    np.testing.assert_array_equal(game.mu_usd_per_kwh, pi)
    assert not game.mu_tilde_usd_per_kwh.any()
    assert not game.budget_error_usd_per_h.any()


def test_wishes_that_cancel_use_a_side_payment():
    p0 = np.array([-3.0, 3.01])
    game = play_one(p0, p0 - 1, p0 + 1, [0.5, 0.4], 0.6)
    assert game.degenerate[0]
    assert game.mu_usd_per_kwh[0] == 0.08
    change = 0.6 - p0.sum()
    expected = -(game.s_usd_per_kwh[0] - 0.08) * change
    assert game.side_payment_usd_per_h[0] == pytest.approx(expected)
    assert abs(game.budget_error_usd_per_h[0]) < 1e-9
    assert game.p_kw.sum() == pytest.approx(0.6, abs=1e-9)


def test_market_without_agents_is_empty():
    none = np.zeros(0)
    game = play_game(np.array([0, 0]), none, none, none, none, np.array([-1.0]), np.array([0.08]))
    assert not game.feasible[0]
    assert game.tracking_error_kw[0] == 1.0
    assert game.budget_error_usd_per_h[0] == 0.0


@given(seed=st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_tracking_budget_and_best_response_on_random_markets(seed):
    rng = np.random.default_rng(seed)
    offset = np.concatenate([[0], np.cumsum(rng.integers(1, 30, 8))])
    n = int(offset[-1])
    p0 = rng.uniform(-6, 2, n)
    low, high = p0 - rng.uniform(0, 2, n) * (rng.random(n) < 0.7), p0 + rng.uniform(0, 2, n)
    gamma = 10 ** rng.uniform(-2, 1, n)
    least, most = np.add.reduceat(low, offset[:-1]), np.add.reduceat(high, offset[:-1])
    target = least + rng.uniform(0, 1, 8) * (most - least)
    pi = rng.uniform(-0.05, 0.2, 8)
    game = play_game(offset, p0, low, high, gamma, target, pi)
    assert game.feasible.all()
    assert np.abs(game.tracking_error_kw).max() < 1e-9
    assert np.abs(game.budget_error_usd_per_h).max() < 1e-9
    each = np.diff(offset)
    answer = best_response(
        p0, low, high, gamma, np.repeat(game.mu_usd_per_kwh, each), np.repeat(game.mu_tilde_usd_per_kwh, each)
    )
    # prices up to 20 pi and s/(2 gamma) with gamma down to 0.01: rounding only
    np.testing.assert_allclose(answer, game.p_kw, atol=1e-9)
    rows = slice(offset[3], offset[4])
    alone = play_game(
        np.array([0, each[3]]), p0[rows], low[rows], high[rows], gamma[rows], target[3:4], pi[3:4]
    )
    np.testing.assert_array_equal(alone.p_kw, game.p_kw[rows])
    np.testing.assert_array_equal(alone.mu_usd_per_kwh, game.mu_usd_per_kwh[3:4])
