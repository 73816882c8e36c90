"""Readable twin of `voltier.market.secondary`: the same market, written as it is stated, solved by cvxpy.

Slow (tens of milliseconds per market); for tests and for readers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import NotConvergedError
from voltier.market.secondary import (
    SCORE_FLOOR,
    SecondaryBids,
    SecondaryDispatch,
    level_values,
    sum_by_market,
)
from voltier.market.secondary_kernel import BETA_FLOOR, EPSILON_MIN

Array = NDArray[np.float64]

SOLVER_NOISE_KW = 1e-5
"""Deviations that the conic solver leaves where the exact answer is that nothing moves."""


def clear_secondary_reference(
    bids: SecondaryBids, p_target_kw: Array, q_target_kvar: Array, *, epsilon: float = 0.05
) -> SecondaryDispatch:
    """Do what `clear_secondary` does, by one cvxpy problem per market and stage. Raises NotConvergedError."""
    n_smo, n_sma = bids.offset.size - 1, bids.p0_kw.size
    x, level = np.zeros((2, n_sma)), np.zeros((n_smo, 3))
    target = np.zeros((2, n_smo))
    for i, (asked_p, asked_q) in enumerate(zip(p_target_kw, q_target_kvar, strict=True)):
        rows = slice(bids.offset[i], bids.offset[i + 1])
        p_box, q_box = (
            (bids.p_min_kw[rows], bids.p_max_kw[rows]),
            (bids.q_min_kvar[rows], bids.q_max_kvar[rows]),
        )
        target[:, i] = [
            np.clip(asked, low.sum(), high.sum())
            for asked, (low, high) in ((asked_p, p_box), (asked_q, q_box))
        ]
        x[:, rows], level[i] = _clear_one(bids, rows, target[:, i], epsilon)
    got = np.stack([sum_by_market(bids.offset, row) for row in x])
    p_short, q_short = p_target_kw - target[0], q_target_kvar - target[1]
    return SecondaryDispatch(
        p_kw=x[0],
        q_kvar=x[1],
        dp_kw=np.maximum(0.0, np.minimum(x[0] - bids.p_min_kw, bids.p_max_kw - x[0])),
        dq_kvar=np.maximum(0.0, np.minimum(x[1] - bids.q_min_kvar, bids.q_max_kvar - x[1])),
        p_shortage_kw=p_short,
        q_shortage_kvar=q_short,
        level_value=level,
        residual=np.abs(got - target).max(axis=0),
        converged=np.ones(n_smo, dtype=np.bool_),
        feasible=(p_short == 0.0) & (q_short == 0.0),
    )


def _clear_one(bids: SecondaryBids, rows: slice, target: Array, epsilon: float) -> tuple[Array, Array]:
    """Run the three stages of one market. Returns powers (2, n) and the optima of f1', f3, f4."""
    wish = np.stack([bids.p0_kw[rows], bids.q0_kvar[rows]])
    low = np.stack([bids.p_min_kw[rows], bids.q_min_kvar[rows]])
    high = np.stack([bids.p_max_kw[rows], bids.q_max_kvar[rows]])
    beta = np.stack([bids.beta_p_usd_per_kw2h[rows], bids.beta_q_usd_per_kvar2h[rows]])
    score = np.maximum(bids.resilience_score[rows], SCORE_FLOOR)
    power, room = cp.Variable(wish.shape), cp.Variable(wish.shape, nonneg=True)
    deviation = power - wish
    weight = np.stack([1.0 / score, 1.0 / score])
    disutility = np.maximum(beta / (beta.max(initial=0.0) or 1.0), BETA_FLOOR)
    levels: tuple[Callable[[float], cp.Expression], ...] = (
        lambda size: cp.sum_squares(cp.multiply(deviation, np.sqrt(weight / size))),
        lambda size: -cp.sum(room) / size,
        lambda size: cp.sum_squares(cp.multiply(deviation, np.sqrt(disutility / size))),
    )
    constraints = [cp.sum(power, axis=1) == target, low + room <= power, power <= high - room]
    optima: list[float] = []
    for level in levels:
        optima.append(_solve(cp.Problem(cp.Minimize(level(1.0)), constraints)))
        size = abs(optima[-1])
        if size > 1e-7:  # F + epsilon |F|, divided by |F| for the solver's sake; room >= 0 bounds nothing
            constraints.append(level(size) <= optima[-1] / size + epsilon)
        if len(optima) == 1 and (epsilon < EPSILON_MIN or np.abs(deviation.value).max() <= SOLVER_NOISE_KW):
            break
    found: Array = np.asarray(power.value)
    here = _one_market(bids, rows)
    final = level_values(here, found[0], found[1])[0]
    return found, np.array([optima[0], *(optima[1:2] or final[1:2]), final[2]])


def _solve(problem: cp.Problem) -> float:
    """Solve as sharply as the problem's conditioning allows and return the optimum."""
    for tolerance in (1e-10, 1e-8):
        limits = {"tol_gap_abs": tolerance, "tol_gap_rel": tolerance, "tol_feas": tolerance}
        try:
            with warnings.catch_warnings():  # an inaccurate answer is not taken but tried again below
                warnings.simplefilter("ignore", UserWarning)
                problem.solve(solver=cp.CLARABEL, **limits)
        except cp.error.SolverError:
            continue
        if problem.status == cp.OPTIMAL:
            return float(problem.value)
    raise NotConvergedError(f"reference clearing: a stage ended as {problem.status}")


def _one_market(bids: SecondaryBids, rows: slice) -> SecondaryBids:
    n = rows.stop - rows.start
    values = {
        name: getattr(bids, name)[rows] for name in SecondaryBids.__dataclass_fields__ if name != "offset"
    }
    return SecondaryBids(offset=np.array([0, n], dtype=np.int64), **values)
