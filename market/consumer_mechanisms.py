"""The rules by which a consumer market may be cleared and paid, behind one door; and random markets to try them on."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

from voltier.grid.errors import InputError, Problem
from voltier.market.consumer import Array, Game, Index, play_game
from voltier.market.consumer_paid import play_paid

Mechanism = Literal["published", "individual", "uniform", "vcg"]
MECHANISMS: tuple[Mechanism, ...] = get_args(Mechanism)


@dataclass(frozen=True, slots=True)
class Markets:
    """Consumer markets as their agents report themselves, or as they truly are.

    offset : (n_cmo + 1,) rows offset[i]:offset[i+1] are the agents of operator i
    p0_kw, p_min_kw, p_max_kw, gamma_usd_per_kw2h : (n_cma,) as in `play_game`
    target_kw, price_usd_per_kwh, outside_usd_per_kwh : (n_cmo,) as in `play_paid`
    """

    offset: Index
    p0_kw: Array
    p_min_kw: Array
    p_max_kw: Array
    gamma_usd_per_kw2h: Array
    target_kw: Array
    price_usd_per_kwh: Array
    outside_usd_per_kwh: Array

    @property
    def market(self) -> Index:
        """Market of each agent, (n_cma,)."""
        return np.repeat(np.arange(self.offset.size - 1), np.diff(self.offset))

    def tile(self, times: int) -> Markets:
        """Return all markets `times` times over, one block after the other."""
        n = self.offset[-1]
        starts = self.offset[:-1] + n * np.arange(times)[:, None]
        columns = {f.name: np.tile(getattr(self, f.name), times) for f in fields(self)[1:]}
        return Markets(offset=np.append(starts.ravel(), n * times), **columns)


def play(mechanism: Mechanism, reported: Markets, baseline_kw: Array | None = None) -> Game:
    """Clear markets by a mechanism.

    published : one pair of prices, budget closed among the agents ; individual : a pair for each, every agent's
    budget closed by itself ; uniform, vcg : flexibility paid from outside, see `play_paid`, which alone uses
    baseline_kw.
    Raises InputError for another name.
    """
    m = reported
    own = (m.offset, m.p0_kw, m.p_min_kw, m.p_max_kw, m.gamma_usd_per_kw2h, m.target_kw, m.price_usd_per_kwh)
    if mechanism == "published":
        return play_game(*own)
    if mechanism == "individual":
        return play_game(*own, prices="individual")
    if mechanism not in MECHANISMS:
        remedy = f"take one of {', '.join(MECHANISMS)}"
        raise InputError([Problem("consumer market", "mechanism", mechanism, remedy)])
    return play_paid(*own, m.outside_usd_per_kwh, rule=mechanism, baseline_kw=baseline_kw)


def surplus_usd_per_h(game: Game, true: Markets) -> Array:
    """Return what each agent gains by the market against paying pi P0 for its wish, (n_cma,) [$/h]."""
    disutility = true.gamma_usd_per_kw2h * (game.p_kw - true.p0_kw) ** 2
    return game.paid_usd_per_h - disutility - true.price_usd_per_kwh[true.market] * true.p0_kw


def random_markets(
    rng: np.random.Generator, n_markets: int, n_agents: int, *, upward: bool = False
) -> Markets:
    """Draw markets of net loads whose targets lie within reach, prices and rooms as small houses have them.

    Wishes of -6 to 1 kW, rooms of 0.2 to 3 kW up and 0.2 to 2 kW down (none where `upward`, the published box), use of
    the larger of which costs 0.1 to 1 $/kWh at the margin ; pi 0.02 to 0.12 $/kWh, outside 1 $/kWh, so that nothing is
    bought there ; targets within 95 % of reach.
    """
    n = n_markets * n_agents
    offset = n_agents * np.arange(n_markets + 1)
    # One agent at least draws more than the others can inject, so that wishes never cancel.
    p0 = rng.uniform(-6.0, 1.0, (n_markets, n_agents))
    p0[:, 0] = -rng.uniform(3.0, 6.0, n_markets) - np.maximum(p0, 0.0).sum(axis=1)
    up, down = rng.uniform(0.2, 3.0, n), rng.uniform(0.2, 2.0, n) * (not upward)
    marginal = 10.0 ** rng.uniform(-1.0, 0.0, n)
    reach_up, reach_down = (np.add.reduceat(room, offset[:-1]) for room in (up, down))
    asked = rng.uniform(0.0 if upward else -0.95, 0.95, n_markets)
    return Markets(
        offset=offset,
        p0_kw=p0.ravel(),
        p_min_kw=p0.ravel() - down,
        p_max_kw=p0.ravel() + up,
        gamma_usd_per_kw2h=marginal / (2.0 * np.maximum(up, down)),
        target_kw=p0.sum(axis=1) + np.where(asked >= 0.0, asked * reach_up, asked * reach_down),
        price_usd_per_kwh=rng.uniform(0.02, 0.12, n_markets),
        outside_usd_per_kwh=np.ones(n_markets),
    )
