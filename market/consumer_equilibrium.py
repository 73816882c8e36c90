"""Check equilibria of the consumer market by brute force: deviations of every side, search over prices, many starts.

Nothing here uses the closed form but to compare with it. Answers come from a grid over each box, the leader's prices
from a grid that narrows on where tracking and budget change sign, and from adjustment, raising s while the total
misses the target and lowering it while it passes it, which ends at a root of the total from any start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from voltier.market.consumer import Array, Flags, Game, best_response
from voltier.market.consumer_mechanisms import Markets
from voltier.market.secondary import sum_by_market

GRID, ROUNDS = 41, 11
ADJUSTMENTS, SETTLED_KW = 1000, 1e-11
FIRST_STEP, LARGEST_STEP, GROWTH = 0.1, 1.0, 1.2


@dataclass(frozen=True, slots=True)
class EquilibriumCheck:
    """How far an outcome is from an equilibrium, as measured.

    follower_gain_usd_per_h : (n_cma,) most that an agent gains by another point of a grid over its box, at its prices
    price_gap_usd_per_kwh : (n_cmo,) largest difference of s, mu, mu~ from those found by search
    start_gap_usd_per_kwh : (n_cmo,) largest difference of s from where the starts end
    interior : (n_cmo,) targets strictly within the boxes, for which prices are unique; at the ends every larger s
    does as well, and the closed form takes the least
    settled : (n_cmo,) whether all starts came to rest
    """

    follower_gain_usd_per_h: Array
    price_gap_usd_per_kwh: Array
    start_gap_usd_per_kwh: Array
    interior: Flags
    settled: Flags


def check_equilibrium(
    game: Game,
    markets: Markets,
    rng: np.random.Generator,
    *,
    starts: int = 16,
    largest_usd_per_kwh: float = 20.0,
) -> EquilibriumCheck:
    """Check the outcome of `play_game` with common prices on markets that have an agent at least.

    starts : first values of s drawn from plus and minus largest_usd_per_kwh, which also bounds the search
    """
    least, most = (sum_by_market(markets.offset, p) for p in (markets.p_min_kw, markets.p_max_kw))
    s, mu = _search(markets, largest_usd_per_kwh)
    gaps = [s - game.s_usd_per_kwh, mu - game.mu_usd_per_kwh, s - mu - game.mu_tilde_usd_per_kwh]
    first = rng.uniform(-largest_usd_per_kwh, largest_usd_per_kwh, (starts, len(least)))
    last, settled = _adjust(markets, first)
    return EquilibriumCheck(
        follower_gain_usd_per_h=_follower_gain(game, markets),
        price_gap_usd_per_kwh=np.abs(gaps).max(axis=0),
        start_gap_usd_per_kwh=np.abs(last - game.s_usd_per_kwh).max(axis=0),
        interior=(markets.target_kw > least) & (markets.target_kw < most),
        settled=np.asarray(settled.all(axis=0)),
    )


def _follower_gain(game: Game, markets: Markets, points: int = 2001) -> Array:
    """Return each agent's best gain over a grid of its box, at the prices that it was given."""
    m = markets
    share = np.linspace(0.0, 1.0, points)[:, None]
    other = m.p_min_kw + share * (m.p_max_kw - m.p_min_kw)
    mu, mu_tilde = (price[m.market] for price in (game.mu_usd_per_kwh, game.mu_tilde_usd_per_kwh))

    def utility(p_kw: Array) -> Array:
        x = p_kw - m.p0_kw
        return mu_tilde * x + mu * p_kw - m.gamma_usd_per_kw2h * x**2

    return np.asarray((utility(other) - utility(game.p_kw)).max(axis=0))


def _totals(m: Markets, s: Array) -> Array:
    """Return the total answer of every market to marginal pays s, (k, n_cmo)."""
    answer = best_response(m.p0_kw, m.p_min_kw, m.p_max_kw, m.gamma_usd_per_kw2h, s[:, m.market], 0.0)
    return np.asarray(np.add.reduceat(answer, m.offset[:-1], axis=1))


def _search(m: Markets, largest: float) -> tuple[Array, Array]:
    """Return the s that tracks and the mu that closes the budget with it, each by a grid that narrows."""
    s = _narrow(lambda tried: _totals(m, tried) - m.target_kw, np.full(m.target_kw.size, largest))
    total, wished = _totals(m, s[None])[0], sum_by_market(m.offset, m.p0_kw)
    moved, pi = total - wished, m.price_usd_per_kwh

    def open_budget(mu: Array) -> Array:
        return np.sign(wished) * ((s - mu) * moved + mu * total - pi * total)

    # mu goes with 1/sum P0, so its range grows with that of the budget over it.
    return s, _narrow(open_budget, (np.abs(pi * total) + np.abs(s * moved)) / np.abs(wished) + 1.0)


def _narrow(rises: Callable[[Array], Array], reach: Array) -> Array:
    """Return where a function that does not fall crosses zero, within plus and minus reach, (n_cmo,)."""
    low, high, column = -reach, reach, np.arange(reach.size)
    share = np.linspace(0.0, 1.0, GRID)[:, None]
    for _ in range(ROUNDS):
        tried = low + share * (high - low)
        below = np.clip((rises(tried) < 0.0).sum(axis=0) - 1, 0, GRID - 2)
        low, high = tried[below, column], tried[below + 1, column]
    return 0.5 * (low + high)


def _adjust(m: Markets, s: Array) -> tuple[Array, Flags]:
    """Raise s where the total misses the target and lower it where it passes it, until all is at rest; (starts, n_cmo).

    Steps grow while the error keeps its sign and halve when it turns; the size of the error is not used.
    """
    step, before = np.full_like(s, FIRST_STEP), np.zeros_like(s)
    for _ in range(ADJUSTMENTS):
        error = m.target_kw - _totals(m, s)
        if np.abs(error).max() < SETTLED_KW:
            break
        turned = error * before < 0.0
        step = np.where(turned, 0.5 * step, np.minimum(GROWTH * step, LARGEST_STEP))
        s = s + np.where(np.abs(error) < SETTLED_KW, 0.0, np.sign(error) * step)
        before = error
    return s, np.abs(m.target_kw - _totals(m, s)) < SETTLED_KW
