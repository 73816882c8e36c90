"""Prices for each agent: same answers as with common ones, every agent's budget closed by itself, nobody subsidised."""

import numpy as np
import pytest

from voltier.market.consumer import best_response, play_game
from voltier.market.consumer_mechanisms import play, random_markets, surplus_usd_per_h

ONE = np.array([0, 3])
P0, GAMMA = np.array([-3.0, -4.0, -2.0]), np.array([0.5, 0.4, 0.6])


def individual(target, low, high, pi=0.08, p0=P0):
    return play_game(ONE, p0, low, high, GAMMA, np.array([target]), np.array([pi]), prices="individual")


def test_by_hand():
    # s = 2 D / sum 1/gamma = 3.6 / (37/6); agent 0 moves by s, its price is (0.08 P - s x)/P0.
    game = individual(-7.2, P0 - 5, P0 + 5)
    s = 3.6 / (37 / 6)
    assert game.s_usd_per_kwh[0] == pytest.approx(s)
    x = s / (2 * GAMMA)
    np.testing.assert_allclose(game.mu_usd_per_kwh, (0.08 * (P0 + x) - s * x) / P0, rtol=1e-13)
    np.testing.assert_allclose(game.mu_tilde_usd_per_kwh, (P0 + x) * (s - 0.08) / P0, rtol=1e-13)
    np.testing.assert_allclose(game.paid_usd_per_h, 0.08 * (P0 + x), rtol=1e-13)


@pytest.mark.parametrize("target", [-7.2, -9.0, -10.3])
def test_answers_are_those_of_common_prices_and_best_responses_to_the_own(target):
    low, high = P0 - np.array([1, 0.2, 2]), P0 + np.array([0.3, 2, 2])
    game = individual(target, low, high)
    common = play_game(ONE, P0, low, high, GAMMA, np.array([target]), np.array([0.08]))
    np.testing.assert_array_equal(game.p_kw, common.p_kw)
    answer = best_response(P0, low, high, GAMMA, game.mu_usd_per_kwh, game.mu_tilde_usd_per_kwh)
    # rounding of sums of prices over twice a gamma of 0.4
    np.testing.assert_allclose(answer, game.p_kw, atol=1e-13)
    assert abs(game.tracking_error_kw[0]) < 1e-9


def test_an_agent_that_cannot_move_loses_by_common_prices_and_not_by_its_own():
    low, high = P0.copy(), P0 + np.array([0.0, 2.0, 2.0])
    arguments = (ONE, P0, low, high, GAMMA, np.array([-7.5]), np.array([0.08]))
    common, own = play_game(*arguments), play_game(*arguments, prices="individual")
    loss = own.paid_usd_per_h[0] - 0.08 * P0[0], common.paid_usd_per_h[0] - 0.08 * P0[0]
    assert loss[0] == pytest.approx(0.0, abs=1e-14)
    # share of P0 times D (pi - s), in the words of the game
    s = common.s_usd_per_kwh[0]
    assert loss[1] == pytest.approx(P0[0] / P0.sum() * 1.5 * (0.08 - s), rel=1e-12)
    assert loss[1] < -0.1


@pytest.mark.parametrize(("s_over_pi", "loses"), [(1.9, False), (2.1, True)])
def test_an_agent_within_its_limits_loses_from_twice_the_grid_price_on(s_over_pi, loses):
    pi = 0.08
    change = s_over_pi * pi * (0.5 / GAMMA).sum()
    game = individual(P0.sum() + change, P0, P0 + 5, pi)
    surplus = game.paid_usd_per_h - GAMMA * (game.p_kw - P0) ** 2 - pi * P0
    assert ((surplus < 0.0) == loses).all()


def test_wishes_near_zero_are_paid_beside_the_prices():
    p0 = np.array([-3.0, 0.01, -2.0])
    game = individual(-4.0, p0 - 1, p0 + 1, p0=p0)
    np.testing.assert_array_equal(game.degenerate, [False, True, False])
    assert game.mu_usd_per_kwh[1] == 0.08
    assert game.side_payment_usd_per_h[1] != 0.0
    np.testing.assert_allclose(game.paid_usd_per_h, 0.08 * game.p_kw, atol=1e-14)


def test_in_random_markets_budgets_close_one_by_one_and_surpluses_add_up_alike():
    markets = random_markets(np.random.default_rng(5), 100, 4)
    common, own = play("published", markets), play("individual", markets)
    pi = markets.price_usd_per_kwh[markets.market]
    # mu goes with 1/P0, which may be a twentieth of the reach: some digits are lost, none that matter
    np.testing.assert_allclose(own.paid_usd_per_h, pi * own.p_kw, atol=1e-11)
    assert np.abs(own.tracking_error_kw).max() < 1e-9
    assert np.abs(own.budget_error_usd_per_h).max() < 1e-9
    sums = [np.add.reduceat(surplus_usd_per_h(game, markets), markets.offset[:-1]) for game in (common, own)]
    np.testing.assert_allclose(sums[0], sums[1], atol=1e-10)
    moved = own.p_kw - markets.p0_kw
    bound = np.add.reduceat(pi * moved - markets.gamma_usd_per_kw2h * moved**2, markets.offset[:-1])
    np.testing.assert_allclose(sums[0], bound, atol=1e-10)
    loses = np.minimum.reduceat(surplus_usd_per_h(own, markets), markets.offset[:-1]) < -1e-9
    assert loses[bound < -1e-6].all(), "where moving costs more than it earns, somebody must lose"
    assert (bound < -1e-6).any()


def test_paid_with_common_prices_is_what_they_say():
    markets = random_markets(np.random.default_rng(6), 50, 3)
    game = play("published", markets)
    mu, mu_tilde = (x[markets.market] for x in (game.mu_usd_per_kwh, game.mu_tilde_usd_per_kwh))
    np.testing.assert_allclose(
        game.paid_usd_per_h, mu * game.p_kw + mu_tilde * (game.p_kw - markets.p0_kw), rtol=1e-12
    )


def test_a_common_side_payment_is_shared_by_size():
    p0 = np.array([-3.0, 3.01, 0.0])
    game = play_game(ONE, p0, p0 - 1, p0 + 1, GAMMA, np.array([0.6]), np.array([0.08]))
    rest = game.paid_usd_per_h - 0.08 * game.p_kw - game.mu_tilde_usd_per_kwh * (game.p_kw - p0)
    np.testing.assert_allclose(rest, game.side_payment_usd_per_h * np.abs(p0) / 6.01, atol=1e-14)
    none = np.zeros(3)
    still = play_game(ONE, none, none - 1, none + 1, GAMMA, np.array([0.6]), np.array([0.08]))
    assert still.paid_usd_per_h.sum() == pytest.approx(0.08 * 0.6)
