"""The check of equilibria itself: it agrees with the closed form, and it finds what is wrong."""

from dataclasses import replace

import numpy as np
import pytest

from voltier.market.consumer_equilibrium import check_equilibrium
from voltier.market.consumer_mechanisms import play, random_markets


@pytest.mark.parametrize(("agents", "upward"), [(3, False), (3, True), (5, False)])
def test_closed_form_is_the_one_equilibrium_of_random_markets(agents, upward):
    markets = random_markets(np.random.default_rng(agents), 40, agents, upward=upward)
    check = check_equilibrium(play("published", markets), markets, np.random.default_rng(1))
    assert check.interior.all()
    assert check.settled.all()
    # an answer beats every point of its grid but for rounding
    assert check.follower_gain_usd_per_h.max() < 1e-12
    # the grid narrows by 40 eleven times, to rounding of s; mu goes with 1/sum P0
    assert check.price_gap_usd_per_kwh.max() < 1e-10
    # adjustment stops within 1e-11 kW, where the stiffest agent moves by 0.2 kW for 1 $/kWh
    assert check.start_gap_usd_per_kwh.max() < 1e-9


def test_wrong_prices_and_wrong_answers_are_found():
    markets = random_markets(np.random.default_rng(2), 10, 3)
    game, rng = play("published", markets), np.random.default_rng(1)
    dear = replace(game, mu_usd_per_kwh=game.mu_usd_per_kwh + 0.01)
    check = check_equilibrium(dear, markets, rng)
    np.testing.assert_allclose(check.price_gap_usd_per_kwh, 0.01, rtol=1e-6)
    assert check.follower_gain_usd_per_h.max() > 1e-5
    lazy = replace(game, p_kw=markets.p0_kw.copy())
    assert check_equilibrium(lazy, markets, rng).follower_gain_usd_per_h.max() > 1e-3
    other = replace(game, s_usd_per_kwh=game.s_usd_per_kwh + 0.02)
    np.testing.assert_allclose(check_equilibrium(other, markets, rng).start_gap_usd_per_kwh, 0.02, rtol=1e-6)


def test_a_target_at_the_end_is_told_apart():
    markets = random_markets(np.random.default_rng(4), 6, 3)
    most = np.add.reduceat(markets.p_max_kw, markets.offset[:-1])
    beyond = replace(markets, target_kw=np.where(np.arange(6) < 2, most + 1.0, markets.target_kw))
    check = check_equilibrium(play("published", beyond), beyond, np.random.default_rng(1))
    np.testing.assert_array_equal(check.interior, [False, False, True, True, True, True])
    assert not check.settled[:2].any()
    assert check.follower_gain_usd_per_h.max() < 1e-12
