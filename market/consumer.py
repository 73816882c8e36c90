"""Consumer market: an operator (CMO) sets two prices, its agents (CMAs) answer, the target is met exactly.

Agent: max mu P + mu~ (P - P0) - gamma (P - P0)^2 over its box, so P = clip(P0 + s/(2 gamma), P_min, P_max)
with s = mu + mu~. Operator: sum P = target and mu~ D + mu sum P = pi sum P, D = sum P - sum P0. Hence s by
water-filling (agents at a limit included), mu = (pi sum P - s D)/sum P0 and mu~ = sum P (s - pi)/sum P0.
Source: arXiv 2406.06844. There the lower end of the box is P0, and the printed prices hold while no agent is
at a limit. A two-sided box, which serves requests to consume more through s < 0, is an extension; it gives
the published market when P_min = P0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from voltier.market.water_filling import water_fill

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

CANCELLED = 0.05
"""Wishes that cancel to less than this share of their size cannot carry prices: mu goes with 1/sum P0."""

CANCELLED_KW = 1e-6

REACH_KW = 1e-9
"""Targets beyond the boxes by less than this are rounding of the boxes' sums, and not out of reach."""


@dataclass(frozen=True, slots=True)
class Game:
    """Outcome of the consumer markets; per agent (n_cma,) or per operator (n_cmo,).

    p_kw : (n_cma,) injections, the agents' best responses
    s_usd_per_kwh, mu_usd_per_kwh, mu_tilde_usd_per_kwh : (n_cmo,) marginal pay s = mu + mu~, energy price mu,
    flexibility price mu~ (may be negative for a small request: mu~ > 0 just when s > pi)
    side_payment_usd_per_h : (n_cmo,) paid to the agents together where sum P0 is too near zero to carry
    prices; there mu = pi
    degenerate : (n_cmo,) where such a side payment is used
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
) -> Game:
    """Find the equilibrium of every consumer market, each on its own.

    offset : (n_cmo + 1,) rows offset[i]:offset[i+1] are the agents of operator i
    p0_kw, p_min_kw, p_max_kw : (n_cma,) wish and box, P_min <= P0 <= P_max
    gamma_usd_per_kw2h : (n_cma,) > 0, disutility of the deviation squared
    target_kw : (n_cmo,) total injection asked for ; price_usd_per_kwh : (n_cmo,) what the operator earns, pi
    """
    n_cmo = offset.size - 1
    total0, size0, least, most = (_sum(offset, value) for value in (p0_kw, np.abs(p0_kw), p_min_kw, p_max_kw))
    total = np.minimum(np.maximum(target_kw, least), most)
    p, s = np.empty_like(p0_kw), np.empty(n_cmo)
    _fill_targets(offset, p0_kw, p_min_kw, p_max_kw, 0.5 / gamma_usd_per_kw2h, total, p, s)
    change = total - total0
    degenerate = np.abs(total0) < CANCELLED * size0 + CANCELLED_KW
    base = np.where(degenerate, 1.0, total0)
    pi = price_usd_per_kwh
    mu = np.where(degenerate, pi, (pi * total - s * change) / base)
    mu_tilde = np.where(degenerate, s - pi, total * (s - pi) / base)
    side = np.where(degenerate, -(s - pi) * change, 0.0)
    played = _sum(offset, p)
    paid = mu * played + mu_tilde * _sum(offset, p - p0_kw) + side
    return Game(
        p_kw=p,
        s_usd_per_kwh=s,
        mu_usd_per_kwh=mu,
        mu_tilde_usd_per_kwh=mu_tilde,
        side_payment_usd_per_h=side,
        degenerate=degenerate,
        feasible=np.abs(total - target_kw) <= REACH_KW,
        tracking_error_kw=played - target_kw,
        budget_error_usd_per_h=paid - pi * played,
    )


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
    total0, least, most = (_sum(offset, value) for value in (p0_kw, p_min_kw, p_max_kw))
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
        feasible=np.abs(total - target_kw) <= REACH_KW,
        tracking_error_kw=_sum(offset, p) - target_kw,
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


def _sum(offset: Index, value: Array) -> Array:
    n = offset.size - 1
    return np.bincount(np.repeat(np.arange(n), np.diff(offset)), value, n).astype(np.float64, copy=False)


@njit(cache=True)
def _fill_targets(
    offset: Index, p0: Array, p_min: Array, p_max: Array, c: Array, total: Array, p: Array, s: Array
) -> None:
    for i in range(offset.size - 1):
        a, b = offset[i], offset[i + 1]
        s[i] = water_fill(p0[a:b], p_min[a:b], p_max[a:b], c[a:b], 0.0, total[i], 0.0, p[a:b])
