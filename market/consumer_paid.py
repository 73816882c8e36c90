"""Consumer market whose flexibility is paid from outside: truthful payments, or one price for every kW moved.

The operator may buy what is missing from its target elsewhere, on the secondary market, at omega per kW of either
sign, so it wants the cheapest of

    V = min sum gamma (P - P0)^2 + omega |target - sum P|    over the boxes,

which agents reach by s = mu + mu~ clipped to [-omega, omega]. Let V_i(r) be the cheapest way in which the others and
the outside reach r together, and b_i what i would inject without the market, known from its meter. Agent i is paid

    pi b_i + V_i(target - b_i) - V_i(target - P_i),

the others' saving (E. H. Clarke, Public Choice 11, 1971; T. Groves, Econometrica 41, 1973). Its own report enters
through P_i alone, and the clearing chooses the P_i it would choose itself: no report of gamma, box or wish beats the
truth. It may stay at b_i for pi b_i, so it never loses. V_i rises by at most omega per kW: the operator never pays
more than it would outside. The price is a deficit, which no budget-balanced rule can avoid once sum gamma (P - P0)^2
exceeds pi D. Paying s for each kW moved costs less and leaves nobody worse off either, but can be gamed where agents
are few.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numba import njit

from voltier.market.consumer import REACH_KW, Array, Game, Index
from voltier.market.secondary import sum_by_market
from voltier.market.water_filling import water_fill

Rule = Literal["vcg", "uniform"]


def play_paid(
    offset: Index,
    p0_kw: Array,
    p_min_kw: Array,
    p_max_kw: Array,
    gamma_usd_per_kw2h: Array,
    target_kw: Array,
    price_usd_per_kwh: Array,
    outside_usd_per_kwh: Array,
    *,
    rule: Rule = "vcg",
    baseline_kw: Array | None = None,
) -> Game:
    """Clear every consumer market, each on its own, and pay its agents for what they move.

    Arguments up to price_usd_per_kwh as in `play_game`, with wishes, boxes and gamma as reported.
    outside_usd_per_kwh : (n_cmo,) > 0, what the operator pays for each kWh missing from its target, omega
    rule : "vcg" pays each agent what it saves the others, "uniform" pays s for every kW
    baseline_kw : (n_cma,) what the operator knows that agents would inject; by default the wishes reported, which
    leaves these open to misreporting

    In the result mu = pi and mu~ = s - pi, per operator; side_payment_usd_per_h is per agent, what "vcg" adds to the
    prices. tracking_error_kw is bought outside (at omega, not in the budget), which happens where s reaches omega;
    `feasible` says whether the boxes reach the target. budget_error_usd_per_h is the deficit: paid to the agents
    minus received for their total at pi.
    """
    n = np.diff(offset)
    pi = price_usd_per_kwh
    baseline = p0_kw if baseline_kw is None else baseline_kw
    p, (s, cost) = np.empty_like(p0_kw), np.empty((2, offset.size - 1))
    own = (offset, p0_kw, p_min_kw, p_max_kw, gamma_usd_per_kw2h, target_kw, outside_usd_per_kwh)
    _clear(*own, p, s, cost)
    if rule == "vcg":
        earned = np.empty_like(p0_kw)
        _save(*own, baseline, p, cost, earned)
    else:
        earned = np.repeat(s, n) * (p - baseline)
    paid = np.repeat(pi, n) * baseline + earned
    played = sum_by_market(offset, p)
    posted = np.repeat(pi, n) * p + np.repeat(s - pi, n) * (p - p0_kw)
    least, most = sum_by_market(offset, p_min_kw), sum_by_market(offset, p_max_kw)
    return Game(
        p_kw=p,
        s_usd_per_kwh=s,
        mu_usd_per_kwh=pi.copy(),
        mu_tilde_usd_per_kwh=s - pi,
        side_payment_usd_per_h=paid - posted,
        degenerate=np.zeros(offset.size - 1, dtype=bool),
        paid_usd_per_h=paid,
        feasible=(target_kw >= least - REACH_KW) & (target_kw <= most + REACH_KW),
        tracking_error_kw=played - target_kw,
        budget_error_usd_per_h=sum_by_market(offset, paid) - pi * played,
    )


@njit(cache=True)
def _reach(
    p0: Array, lo: Array, hi: Array, gamma: Array, target: float, omega: float, p: Array
) -> tuple[float, float]:
    """Reach a target together with the outside; write the powers, return s and the cost V."""
    s = water_fill(p0, lo, hi, 0.5 / gamma, 0.0, target, 0.0, p)
    if target > hi.sum():
        s = omega
    elif target < lo.sum():
        s = -omega
    if abs(s) >= omega:
        s = min(max(s, -omega), omega)
        for k in range(p.size):
            p[k] = min(max(p0[k] + 0.5 * s / gamma[k], lo[k]), hi[k])
    cost = omega * abs(target - p.sum()) if abs(s) >= omega else 0.0
    for k in range(p.size):
        cost += gamma[k] * (p[k] - p0[k]) ** 2
    return s, cost


@njit(cache=True)
def _without(values: Array, i: int) -> Array:
    rest = np.empty(values.size - 1)
    rest[:i] = values[:i]
    rest[i:] = values[i + 1 :]
    return rest


@njit(cache=True)
def _clear(
    offset: Index, p0: Array, lo: Array, hi: Array, gamma: Array, target: Array, omega: Array, p: Array, s: Array,
    cost: Array,
) -> None:  # fmt: skip
    for m in range(offset.size - 1):
        a, b = offset[m], offset[m + 1]
        s[m], cost[m] = _reach(p0[a:b], lo[a:b], hi[a:b], gamma[a:b], target[m], omega[m], p[a:b])


@njit(cache=True)
def _save(
    offset: Index, p0: Array, lo: Array, hi: Array, gamma: Array, target: Array, omega: Array, baseline: Array,
    p: Array, cost: Array, saved: Array,
) -> None:  # fmt: skip
    """Write what each agent saves the others by injecting p and not its baseline."""
    for m in range(offset.size - 1):
        a, b = offset[m], offset[m + 1]
        for k in range(a, b):
            i, rest = k - a, np.empty(b - a - 1)
            others = (
                _without(p0[a:b], i), _without(lo[a:b], i), _without(hi[a:b], i), _without(gamma[a:b], i)
            )  # fmt: skip
            alone = _reach(*others, target[m] - baseline[k], omega[m], rest)[1]
            saved[k] = alone - (cost[m] - gamma[k] * (p[k] - p0[k]) ** 2)
