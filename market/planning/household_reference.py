"""The reference twin of the household planner: the programme written out in cvxpy, one house at a time.

Three forms: the convex relaxation, the mixed-integer form in which a device either consumes or generates, and either
of them with flexibility as printed in Nair et al., arXiv 2406.06844, stage I: EPS_1 |P| <= delta <= EPS_2 |P| and
P + delta, P - delta within the limits, where |P| = c + g. The printed form's relaxation pays for consuming and
generating at once, since that raises c + g.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse

from voltier.grid.errors import NotConvergedError
from voltier.market.planning.household import (
    PRINTED_SHARE,
    Array,
    HouseholdPlan,
    HouseholdProblem,
    check_problem,
)
from voltier.market.planning.household_terms import REGULARISATION_USD_PER_KW2H

# at dollar size the solver mistakes differences of 1e-5 $/kWh for none and stops early
SOLVER_UNITS_PER_USD = 1e4


@dataclass(frozen=True, slots=True)
class _Plan:
    """One house: (devices, H) arrays, its cost and what the solver proved."""

    c_kw: Array
    g_kw: Array
    x: Array
    delta_kw: Array
    cost_usd: float
    bound_usd: float


def plan_households_reference(
    problem: HouseholdProblem, *, whole: bool = False, printed: bool = False, seconds: float = 60.0
) -> HouseholdPlan:
    """Return the cheapest plan of every house; slow, meant for checks.

    whole : choose directions by a mixed-integer search (SCIP, at most `seconds` of processor time a house, then its
    incumbent) instead of the relaxation (Clarabel) ; printed : flexibility as a share of |P| instead of headroom
    Raises InputError as plan_households does and NotConvergedError when a solver has no plan.
    """
    check_problem(problem)
    parts = [_plan_house(problem, i, whole, printed, seconds) for i in range(len(problem.price_usd_per_kwh))]
    steps = problem.devices.drift.shape[1]

    def stack(name: str) -> Array:
        return np.concatenate([np.zeros((0, steps)), *(getattr(part, name) for part in parts)])

    c_kw, g_kw = stack("c_kw"), stack("g_kw")
    both = np.add.reduceat(np.append((c_kw * g_kw > 1e-4).any(axis=1), False), problem.offset[:-1])
    return HouseholdPlan(
        p_kw=g_kw - c_kw,
        c_kw=c_kw,
        g_kw=g_kw,
        x=stack("x"),
        delta_kw=stack("delta_kw"),
        objective_usd=np.array([part.cost_usd for part in parts]),
        bound_usd=np.array([part.bound_usd for part in parts]),
        binary=(both > 0) & (np.diff(problem.offset) > 0),
        converged=np.ones(len(parts), np.bool_),
    )


def _plan_house(problem: HouseholdProblem, i: int, whole: bool, printed: bool, seconds: float) -> _Plan:
    """Write and solve the programme of one house."""
    rows, dt = slice(problem.offset[i], problem.offset[i + 1]), problem.dt_h
    d = problem.devices
    shape = (n, steps) = d.drift[rows].shape
    if n == 0:
        cost = float(dt * problem.w_self_usd_per_kw2h[i] @ problem.other_kw[i] ** 2)
        nothing = np.zeros(shape)
        return _Plan(nothing, nothing, nothing, nothing, cost, cost)
    c, g, delta = cp.Variable(shape), cp.Variable(shape), cp.Variable(shape)
    state = cp.Variable((n, steps + 1))
    x, p, c_max, g_max = state[:, 1:], g - c, d.c_max_kw[rows], d.g_max_kw[rows]
    drained = cp.multiply(np.tile(d.gain_g[rows, None], steps), g)
    kept = cp.multiply(np.tile(d.theta[rows, None], steps), state[:, :-1])
    limits = [state[:, 0] == d.x0[rows], x == kept + cp.multiply(d.gain_c[rows], c) - drained + d.drift[rows]]
    limits += [c >= 0, c <= c_max, g >= 0, g <= g_max, delta >= 0, p + delta <= g_max, p - delta >= -c_max]
    generates = cp.Variable(shape)
    if whole:
        limits += [generates >= 0, generates <= 1]
        limits += [c <= cp.multiply(c_max, 1 - generates), g <= cp.multiply(g_max, generates)]
    if printed:
        limits += [PRINTED_SHARE[0] * (c + g) <= delta, delta <= PRINTED_SHARE[1] * (c + g)]
    cost = _device_cost(problem, rows, c, g, x, delta) + dt * problem.price_usd_per_kwh[i] @ cp.sum(
        -p, axis=0
    )
    meter = problem.other_kw[i] + d.shares_meter[rows].astype(float) @ p
    cost += dt * cp.sum(cp.multiply(problem.w_self_usd_per_kw2h[i], cp.square(meter)))
    programme = cp.Problem(cp.Minimize(SOLVER_UNITS_PER_USD * cost), limits)
    if whole:
        way, bound = _choose(programme, generates, i, seconds)
        _solve(cp.Problem(programme.objective, [*limits, generates == way]), i)
    else:
        bound = _solve(programme, i)
    return _Plan(c.value, g.value, x.value, delta.value, float(cost.value), bound / SOLVER_UNITS_PER_USD)


def _device_cost(
    problem: HouseholdProblem, rows: slice, c: cp.Variable, g: cp.Variable, x: Any, delta: cp.Variable
) -> Any:
    """Cost of the devices of a house apart from energy and self-use [$]."""
    d, dt, steps = problem.devices, problem.dt_h, x.shape[1]

    def each(weight: Array) -> Array:
        return np.tile(weight[rows, None], steps)

    cost = dt * REGULARISATION_USD_PER_KW2H * (cp.sum_squares(c) + cp.sum_squares(g))
    cost += dt * cp.sum(cp.multiply(each(d.w_spill_usd_per_kw2h), cp.square(d.g_max_kw[rows] - g)))
    cost -= dt * cp.sum(cp.multiply(each(d.w_flex_usd_per_kwh), delta))
    cost += cp.sum(cp.multiply(d.w_state[rows], cp.square(x - d.target[rows])))
    if steps > 1:
        change = (g - c)[:, 1:] - (g - c)[:, :-1]
        cost += cp.sum(cp.multiply(each(d.w_ramp_usd_per_kw2)[:, 1:], cp.square(change)))
    for limit, sign in ((d.x_max[rows], 1.0), (d.x_min[rows], -1.0)):
        real = np.isfinite(limit)
        broken = cp.pos(sign * (x - np.where(real, limit, 0.0)))
        cost += cp.sum(cp.multiply(np.where(real, each(d.penalty), 0.0), broken))
    return cost


def _solve(programme: cp.Problem, i: int) -> float:
    """Solve the convex programme of house i and return its optimum."""
    programme.solve(cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    if programme.status != cp.OPTIMAL:
        raise NotConvergedError(f"house {i}: the solver ended as {programme.status}")
    return float(programme.value)


def _choose(programme: cp.Problem, generates: cp.Variable, i: int, seconds: float) -> tuple[Array, float]:
    """Return the best directions that SCIP finds and its lower bound, in the objective's units.

    Every square of the objective has an epigraph of its own, which is what SCIP's cuts handle best.
    """
    import pyscipopt as scip  # an oracle's package: the relaxation does without

    data, _, inverse = programme.get_problem_data(cp.OSQP)
    first = data["param_prob"].var_id_to_col[generates.id]
    whole = range(first, first + generates.size)
    curve, n = scipy.sparse.coo_array(data["P"]), len(data["q"])
    model = scip.Model()
    model.hideOutput()
    model.setParam("timing/clocktype", 1)  # processor time: a busy machine takes nothing from the search
    model.setParam("limits/time", seconds)
    model.setParam("limits/gap", 1e-7)
    v = [model.addVar(vtype="B" if j in whole else "C", lb=None if j not in whole else 0.0) for j in range(n)]
    square = {j: model.addVar(lb=0.0) for j in curve.row}
    if (curve.row != curve.col).any():
        raise NotConvergedError(f"house {i}: the objective is not a sum of squares")
    for j in curve.row:
        model.addCons(v[j] * v[j] <= square[j])
    for matrix, right, equal in ((data["A"], data["b"], True), (data["F"], data["G"], False)):
        rows = scipy.sparse.csr_array(matrix)
        for k in range(rows.shape[0]):
            part = slice(rows.indptr[k], rows.indptr[k + 1])
            left = scip.quicksum(a * v[j] for j, a in zip(rows.indices[part], rows.data[part], strict=True))
            model.addCons(left == right[k] if equal else left <= right[k])
    cost = scip.quicksum(data["q"][j] * v[j] for j in range(n))
    cost += scip.quicksum(0.5 * a * square[j] for j, a in zip(curve.row, curve.data, strict=True))
    model.setObjective(cost)
    model.optimize()
    if model.getNSols() == 0:
        raise NotConvergedError(f"house {i}: SCIP ended as {model.getStatus()} without a plan")
    best: Any = model.getBestSol()
    chosen = np.array([best[v[j]] for j in whole]).reshape(generates.shape, order="F")
    return chosen.round(), model.getDualbound() + inverse[-1]["offset"]
