"""The reference twin of the storage planner: the same programme written out in cvxpy, one row at a time."""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from voltier.grid.errors import NotConvergedError
from voltier.market.planning.storage import (
    SIMULTANEOUS_KW2,
    Array,
    StoragePlan,
    StorageProblem,
    check_problem,
)
from voltier.market.planning.storage_kernel import REGULARISATION_USD_PER_KW2H

# at dollar size the solver mistakes differences of 1e-5 $/kWh for none and stops early
SOLVER_UNITS_PER_USD = 1e4


def plan_storage_reference(problem: StorageProblem) -> StoragePlan:
    """Return the cheapest plan of every device by Clarabel; slow, meant for checks.

    The gap is not reported by cvxpy and stands as nan. Raises InputError as plan_storage does and
    NotConvergedError when the solver gives up on a row.
    """
    check_problem(problem)
    shape = np.shape(problem.drift)
    c_kw, g_kw, x = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    objective, iterations = np.zeros(shape[0]), np.zeros(shape[0], np.int64)
    for i in range(shape[0]):
        c_kw[i], g_kw[i], x[i], objective[i], iterations[i] = _plan_row(problem, i)
    return StoragePlan(
        p_kw=g_kw - c_kw,
        c_kw=c_kw,
        g_kw=g_kw,
        x=x,
        objective_usd=objective,
        iterations=iterations,
        converged=np.ones(shape[0], np.bool_),
        gap=np.full(shape[0], np.nan),
        simultaneous=np.any(c_kw * g_kw > SIMULTANEOUS_KW2, axis=1),
    )


def _plan_row(problem: StorageProblem, i: int) -> tuple[Array, Array, Array, float, int]:
    """Solve one device; returns c, g, x, cost, iterations."""
    steps, dt = problem.drift.shape[1], problem.dt_h
    c, g, state = cp.Variable(steps), cp.Variable(steps), cp.Variable(steps + 1)
    x = state[1:]
    step = (
        problem.theta[i] * state[:-1]
        + cp.multiply(problem.gain_c[i], c)
        - problem.gain_g[i] * g
        + problem.drift[i]
    )
    limits = [state[0] == problem.x0[i], x == step]
    limits += [c >= 0, c <= problem.c_max_kw[i], g >= 0, g <= problem.g_max_kw[i]]
    sunny, high, low = problem.other_kw[i] > 0, np.isfinite(problem.x_max[i]), np.isfinite(problem.x_min[i])
    cost = dt * problem.price_usd_per_kwh[i] @ (c - g)
    cost += dt * REGULARISATION_USD_PER_KW2H * (cp.sum_squares(c) + cp.sum_squares(g))
    cost += cp.sum(cp.multiply(problem.w_state[i], cp.square(x - problem.target[i])))
    if sunny.any():
        cost += dt * problem.w_self[i] * cp.sum_squares(problem.other_kw[i][sunny] + (g - c)[sunny])
    if high.any():
        cost += problem.penalty[i] * cp.sum(cp.pos(x[high] - problem.x_max[i][high]))
    if low.any():
        cost += problem.penalty[i] * cp.sum(cp.pos(problem.x_min[i][low] - x[low]))
    programme = cp.Problem(cp.Minimize(SOLVER_UNITS_PER_USD * cost), limits)
    programme.solve(cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    if programme.status != cp.OPTIMAL:
        raise NotConvergedError(f"storage row {i}: the solver ended as {programme.status}")
    return c.value, g.value, x.value, float(cost.value), programme.solver_stats.num_iters
