"""Secondary market: one operator schedules its market agents to meet the primary market's set-point.

Quantities only (prices: `voltier.market.pricing`). Objectives in priority order, deviations d = P - P0:
  f1' = sum (dP^2 + dQ^2) / RS            who is reliable moves most,
  f3  = - sum (deltaP + deltaQ)           as much flexibility as possible is left,
  f4  = sum beta_P dP^2 + beta_Q dQ^2     with the least disutility.
A finished stage becomes the bound f <= F + epsilon |F| of the later ones. The published f1 = -RS d^2 is
concave (it drives agents in opposite directions), and its bound (1 + epsilon) F is infeasible for F < 0;
both are corrected here. The published f2 (payments) is constant once balance and budget are equalities: it
has no stage. Source: Nair, PhD thesis, MIT 2025; Nair et al., IEEE Trans. Smart Grid 2022 (arXiv 2110.02358).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voltier.market.secondary_kernel import clear_markets

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

SCORE_FLOOR = 1e-4
"""Smallest resilience score used in 1/RS: an agent with score 0 moves last, yet the problem stays finite."""


@dataclass(frozen=True, slots=True)
class SecondaryBids:
    """Bids of all agents (SMAs) in all markets (SMOs), injections positive.

    offset : (n_smo + 1,) rows offset[i]:offset[i+1] belong to market i
    p0_kw, p_min_kw, p_max_kw, q0_kvar, q_min_kvar, q_max_kvar : (n_sma,) wish and box, lower end <= upper end
    beta_p_usd_per_kw2h, beta_q_usd_per_kvar2h : (n_sma,) disutility of a deviation, >= 0
    resilience_score : (n_sma,) 0 to 1, higher is better
    """

    offset: Index
    p0_kw: Array
    p_min_kw: Array
    p_max_kw: Array
    q0_kvar: Array
    q_min_kvar: Array
    q_max_kvar: Array
    beta_p_usd_per_kw2h: Array
    beta_q_usd_per_kvar2h: Array
    resilience_score: Array

    @property
    def market_of_agent(self) -> Index:
        """(n_sma,) position of each agent's market."""
        return np.repeat(np.arange(self.offset.size - 1), np.diff(self.offset))


@dataclass(frozen=True, slots=True)
class SecondaryDispatch:
    """Schedule of all agents, with its certificate.

    p_kw, q_kvar : (n_sma,) scheduled injections
    dp_kw, dq_kvar : (n_sma,) flexibility left on both sides, min(P - P_min, P_max - P)
    p_shortage_kw, q_shortage_kvar : (n_smo,) target minus scheduled; 0 where the boxes allow the target
    level_value : (n_smo, 3) optima of f1', f3 and f4, each within the bounds of the stages before it
    residual : (n_smo,) largest error of a balance [kW, kvar] or relative excess over a stage's bound
    converged : (n_smo,) False if an iteration ended early (the schedule is then that of its last trial)
    feasible : (n_smo,) converged, and the target met
    """

    p_kw: Array
    q_kvar: Array
    dp_kw: Array
    dq_kvar: Array
    p_shortage_kw: Array
    q_shortage_kvar: Array
    level_value: Array
    residual: Array
    converged: Flags
    feasible: Flags


def sum_by_market(offset: Index, value: Array) -> Array:
    """Sum the agents' values within each market, in row order (same bits whatever else is there)."""
    n = offset.size - 1
    return np.bincount(np.repeat(np.arange(n), np.diff(offset)), value, n).astype(np.float64, copy=False)


def clear_secondary(
    bids: SecondaryBids, p_target_kw: Array, q_target_kvar: Array, *, epsilon: float = 0.05
) -> SecondaryDispatch:
    """Schedule every market's agents to meet its targets, in lexicographic order f1', f3, f4.

    p_target_kw, q_target_kvar : (n_smo,) net injection asked for; beyond the sums of the boxes the agents go
    to that end and the shortage is reported.
    epsilon : relative room that a finished stage leaves to the next ones, >= 0; 0 shares deviations in
    proportion to the resilience scores. Disutilities below 1e-6 of a market's largest count as that much.
    Each market is solved on its own. A market that does not converge is flagged, not raised.
    """
    p = np.stack([bids.p0_kw, bids.p_min_kw, bids.p_max_kw, bids.beta_p_usd_per_kw2h])
    q = np.stack([bids.q0_kvar, bids.q_min_kvar, bids.q_max_kvar, bids.beta_q_usd_per_kvar2h])
    target = np.stack([_reachable(bids.offset, p, p_target_kw), _reachable(bids.offset, q, q_target_kvar)])
    n_sma, n_smo = bids.p0_kw.size, bids.offset.size - 1
    x, level, residual = np.empty((2, n_sma)), np.empty((n_smo, 3)), np.empty(n_smo)
    converged = np.empty(n_smo, dtype=np.bool_)
    score = np.maximum(bids.resilience_score, SCORE_FLOOR)
    clear_markets(bids.offset, p, q, score, target, epsilon, x, level, residual, converged)
    p_short, q_short = p_target_kw - target[0], q_target_kvar - target[1]
    return SecondaryDispatch(
        p_kw=x[0],
        q_kvar=x[1],
        dp_kw=np.maximum(0.0, np.minimum(x[0] - p[1], p[2] - x[0])),
        dq_kvar=np.maximum(0.0, np.minimum(x[1] - q[1], q[2] - x[1])),
        p_shortage_kw=p_short,
        q_shortage_kvar=q_short,
        level_value=level,
        residual=residual,
        converged=converged,
        feasible=converged & (p_short == 0.0) & (q_short == 0.0),
    )


def _reachable(offset: Index, bid: Array, target: Array) -> Array:
    """Clip the targets to the sums of the boxes. bid : rows wish, lower end, upper end, ..."""
    low, high = sum_by_market(offset, bid[1]), sum_by_market(offset, bid[2])
    return np.minimum(np.maximum(target, low), high)


def level_values(bids: SecondaryBids, p_kw: Array, q_kvar: Array) -> Array:
    """Evaluate f1', f3 and f4 of a schedule. p_kw, q_kvar : (n_sma,). Returns (n_smo, 3)."""
    dp, dq = p_kw - bids.p0_kw, q_kvar - bids.q0_kvar
    room = np.minimum(p_kw - bids.p_min_kw, bids.p_max_kw - p_kw)
    room += np.minimum(q_kvar - bids.q_min_kvar, bids.q_max_kvar - q_kvar)
    score = np.maximum(bids.resilience_score, SCORE_FLOOR)
    columns = (
        (dp**2 + dq**2) / score,
        -room,
        bids.beta_p_usd_per_kw2h * dp**2 + bids.beta_q_usd_per_kvar2h * dq**2,
    )
    return np.stack([sum_by_market(bids.offset, column) for column in columns], axis=1)
