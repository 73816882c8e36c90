"""Consumer market: an operator (CMO) sets prices, its agents (CMAs) answer, the target is met exactly.

Agent: max mu P + mu~ (P - P0) - gamma (P - P0)^2 over its box, so P = clip(P0 + s/(2 gamma), P_min, P_max)
with s = mu + mu~. Operator: sum P = target and mu~ D + mu sum P = pi sum P, D = sum P - sum P0. Hence s by
water-filling (agents at a limit included), mu = (pi sum P - s D)/sum P0 and mu~ = sum P (s - pi)/sum P0.
Source: arXiv 2406.06844. There the lower end of the box is P0, and the printed prices hold while no agent is
at a limit. A two-sided box, which serves requests to consume more through s < 0, is an extension; it gives
the published market when P_min = P0.

Prices for each agent: answers depend on s alone, so an operator that gives every agent the same s and a mu_i of
its own still meets the target. With each agent's own P_i, P0_i and x_i = P_i - P0_i in place of the sums,

    mu_i = (pi P_i - s x_i)/P0_i,    mu~_i = P_i (s - pi)/P0_i,

every agent's budget closes by itself: it is paid pi P_i, and nobody subsidises another. Its surplus against paying
for its wish is pi x_i - gamma_i x_i^2: an agent that does not move loses nothing, one that moves upwards loses once
gamma_i |x_i| > pi, and one that moves downwards always. No prices that close the budget can do without losers where
pi D < sum gamma x^2, since the surpluses add up to the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from voltier.market.secondary import sum_by_market
from voltier.market.water_filling import water_fill

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

CANCELLED = 0.05
"""Wishes that cancel to less than this share of their size cannot carry prices: mu goes with 1/sum P0."""

CANCELLED_KW = 1e-6

REACH_KW = 1e-9
"""Targets beyond the boxes by less than this are rounding of the boxes' sums, and not out of reach."""


Prices = Literal["common", "individual"]


@dataclass(frozen=True, slots=True)
class Game:
    """Outcome of the consumer markets; per agent (n_cma,) or per operator (n_cmo,).

    mu, mu~, side payments and `degenerate` are per operator, or per agent where each has prices of its own.

    p_kw : (n_cma,) injections, the agents' best responses
    s_usd_per_kwh, mu_usd_per_kwh, mu_tilde_usd_per_kwh : marginal pay s = mu + mu~, (n_cmo,), energy price mu,
    flexibility price mu~ (may be negative for a small request: mu~ > 0 just when s > pi, of net loads)
    side_payment_usd_per_h : paid beside the prices, to the agents of an operator together or to each; where wishes
    are too near zero to carry prices it closes the budget, with mu = pi
    degenerate : where wishes are too near zero
    paid_usd_per_h : (n_cma,) mu P + mu~ (P - P0) and the side payment, what each agent is paid in all
    feasible : (n_cmo,) False where the boxes cannot reach the target but for rounding; then the nearest total is played
    tracking_error_kw : (n_cmo,) total minus target
    budget_error_usd_per_h : (n_cmo,) paid to the agents minus received for the total at pi
    """

    p_kw: Array
    s_usd_per_kwh: Array
    mu_usd_per_kwh: Array
    mu_tilde_usd_per_kwh: Array
    side_payment_usd_per_h: Array
    degenerate: Flags
    paid_usd_per_h: Array
    feasible: Flags
    tracking_error_kw: Array
    budget_error_usd_per_h: Array


def play_game(
    offset: Index,
    p0_kw: Array,
    p_min_kw: Array,
    p_max_kw: Array,
    gamma_usd_per_kw2h: Array,
    target_kw: Array,
    price_usd_per_kwh: Array,
    *,
    prices: Prices = "common",
) -> Game:
    """Find the equilibrium of every consumer market, each on its own.

    offset : (n_cmo + 1,) rows offset[i]:offset[i+1] are the agents of operator i
    p0_kw, p_min_kw, p_max_kw : (n_cma,) wish and box, P_min <= P0 <= P_max
    gamma_usd_per_kw2h : (n_cma,) > 0, disutility of the deviation squared
    target_kw : (n_cmo,) total injection asked for ; price_usd_per_kwh : (n_cmo,) what the operator earns, pi
    prices : one pair of prices for all agents of an operator, or a pair for each, by which nobody subsidises another
    """
    least, most = sum_by_market(offset, p_min_kw), sum_by_market(offset, p_max_kw)
    total = np.minimum(np.maximum(target_kw, least), most)
    p, s = np.empty_like(p0_kw), np.empty(offset.size - 1)
    _fill_targets(offset, p0_kw, p_min_kw, p_max_kw, 0.5 / gamma_usd_per_kw2h, total, p, s)
    price = _individual_prices if prices == "individual" else _common_prices
    pi = price_usd_per_kwh
    mu, mu_tilde, side, degenerate, paid = price(offset, p0_kw, p_min_kw, p_max_kw, p, s, pi)
    played = sum_by_market(offset, p)
    return Game(
        p_kw=p,
        s_usd_per_kwh=s,
        mu_usd_per_kwh=mu,
        mu_tilde_usd_per_kwh=mu_tilde,
        side_payment_usd_per_h=side,
        degenerate=degenerate,
        paid_usd_per_h=paid,
        feasible=np.abs(total - target_kw) <= REACH_KW,
        tracking_error_kw=played - target_kw,
        budget_error_usd_per_h=sum_by_market(offset, paid) - pi * played,
    )


_Priced = tuple[Array, Array, Array, Flags, Array]


def _common_prices(
    offset: Index, p0: Array, p_min: Array, p_max: Array, p: Array, s: Array, pi: Array
) -> _Priced:
    """Return mu, mu~, side payment and whether degenerate, (n_cmo,), and what each agent is paid, (n_cma,)."""
    n = np.diff(offset)
    total0, size0 = sum_by_market(offset, p0), sum_by_market(offset, np.abs(p0))
    degenerate = np.abs(total0) < CANCELLED * size0 + CANCELLED_KW
    mu, mu_tilde, side = _closing(total0, sum_by_market(offset, p), s, pi, degenerate)
    # A side payment is shared by size, as prices share out by their pull on P0.
    even = np.repeat(1.0 / np.maximum(n, 1), n)
    share = np.divide(np.abs(p0), np.repeat(size0, n), out=even, where=np.repeat(size0 > CANCELLED_KW, n))
    paid = np.repeat(mu, n) * p + np.repeat(mu_tilde, n) * (p - p0) + np.repeat(side, n) * share
    return mu, mu_tilde, side, degenerate, paid


def _individual_prices(
    offset: Index, p0: Array, p_min: Array, p_max: Array, p: Array, s: Array, pi: Array
) -> _Priced:
    """Return mu, mu~, side payment, whether degenerate and what is paid, (n_cma,) each."""
    n = np.diff(offset)
    degenerate = np.abs(p0) < CANCELLED * np.maximum(np.abs(p_min), np.abs(p_max)) + CANCELLED_KW
    mu, mu_tilde, side = _closing(p0, p, np.repeat(s, n), np.repeat(pi, n), degenerate)
    return mu, mu_tilde, side, degenerate, mu * p + mu_tilde * (p - p0) + side


def _closing(p0: Array, p: Array, s: Array, pi: Array, degenerate: Flags) -> tuple[Array, Array, Array]:
    """Return mu, mu~ and side payment with mu + mu~ = s under which p is paid pi p, where p0 was wished."""
    base = np.where(degenerate, 1.0, p0)
    mu = np.where(degenerate, pi, (pi * p - s * (p - p0)) / base)
    mu_tilde = np.where(degenerate, s - pi, p * (s - pi) / base)
    return mu, mu_tilde, np.where(degenerate, -(s - pi) * (p - p0), 0.0)


def share_target(
    offset: Index,
    p0_kw: Array,
    p_min_kw: Array,
    p_max_kw: Array,
    gamma_usd_per_kw2h: Array,
    target_kw: Array,
    price_usd_per_kwh: Array,
) -> Game:
    """Meet every target without a game: agents move in proportion to their room on its side, at the price pi.

    Arguments and result as in `play_game`; nobody is asked for gamma. mu = pi and mu~ = 0, which closes every budget.
    """
    n_cmo = offset.size - 1
    total0, least, most = (sum_by_market(offset, value) for value in (p0_kw, p_min_kw, p_max_kw))
    total = np.minimum(np.maximum(target_kw, least), most)
    change, room = total - total0, np.where(total >= total0, most - total0, total0 - least)
    used = np.divide(change, room, out=np.zeros(n_cmo), where=room > 0.0)
    share = np.repeat(used, np.diff(offset))
    p = p0_kw + share * np.where(share >= 0.0, p_max_kw - p0_kw, p0_kw - p_min_kw)
    none = np.zeros(n_cmo)
    return Game(
        p_kw=p,
        s_usd_per_kwh=price_usd_per_kwh.copy(),
        mu_usd_per_kwh=price_usd_per_kwh.copy(),
        mu_tilde_usd_per_kwh=none,
        side_payment_usd_per_h=none,
        degenerate=np.zeros(n_cmo, dtype=bool),
        paid_usd_per_h=np.repeat(price_usd_per_kwh, np.diff(offset)) * p,
        feasible=np.abs(total - target_kw) <= REACH_KW,
        tracking_error_kw=sum_by_market(offset, p) - target_kw,
        budget_error_usd_per_h=none,
    )


def best_response(
    p0_kw: Array,
    p_min_kw: Array,
    p_max_kw: Array,
    gamma_usd_per_kw2h: Array,
    mu: Array | float,
    mu_tilde: Array | float,
) -> Array:
    """Return the injection each agent chooses at given prices, (n_cma,) [kW].

    Three branches: marginal pay s = mu + mu~ > 0 moves up to P_max, s < 0 down to P_min, s = 0 stays at P0.
    mu, mu_tilde : one price or one per agent [$/kWh]
    """
    wanted = p0_kw + (np.asarray(mu) + np.asarray(mu_tilde)) / (2.0 * gamma_usd_per_kw2h)
    return np.minimum(np.maximum(wanted, p_min_kw), p_max_kw)


@njit(cache=True)
def _fill_targets(
    offset: Index, p0: Array, p_min: Array, p_max: Array, c: Array, total: Array, p: Array, s: Array
) -> None:
    for i in range(offset.size - 1):
        a, b = offset[i], offset[i + 1]
        s[i] = water_fill(p0[a:b], p_min[a:b], p_max[a:b], c[a:b], 0.0, total[i], 0.0, p[a:b])
