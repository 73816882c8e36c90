"""Plan many one-state devices at once: batteries, electric vehicles, heat pumps and water heaters.

Every device chooses a consumption c and a generation g per step and drives one state x,

    x[t+1] = theta x[t] + gain_c[t] c[t] - gain_g g[t] + drift[t],

so as to minimise, over the boxes 0 <= c <= c_max and 0 <= g <= g_max,

    sum_t dt price (c - g) + dt w_self [other > 0] (other + g - c)^2 + dt eps (c^2 + g^2)
          + w_state (x[t+1] - target)^2 + penalty (max(0, x[t+1] - x_max) + max(0, x_min - x[t+1])).

State limits are soft, so every plan exists; the linear penalty is exact: above the marginal worth of the
state it keeps the limit wherever the limit can be kept. A primal-dual interior point (Mehrotra, SIAM Journal
on Optimization 2(4), 1992) starts inside all limits; its Newton system is one scalar Riccati recursion,
O(H) per iteration.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, Problem
from voltier.market.planning.storage_kernel import plan_rows

Array = NDArray[np.float64]

SIMULTANEOUS_KW2 = 1e-4  # product c g above which a plan charges and discharges at once


@dataclass(frozen=True, slots=True)
class StorageProblem:
    """Devices with one state over H steps; n rows, one per device.

    x0, theta : (n,) first state [unit of the state, kWh or degC] and the share of it kept in one step
    gain_c : (n, H) change of the state per kW consumed, of any sign (a heat pump cools or heats) [unit/kW per step]
    gain_g : (n,) drop of the state per kW generated [unit/kW per step]
    drift : (n, H) change of the state that the device does not choose (trips, weather, draws) [unit per step]
    c_max_kw, g_max_kw : (n, H) largest consumption and generation [kW], zero where unavailable
    x_min, x_max : (n, H) soft limits of the state after each step, infinite for none
    price_usd_per_kwh : (n, H) price of consumption and worth of generation, of any sign
    other_kw : (n, H) forecast injection behind the same meter [kW]; self-use counts where it is positive
    w_self : (n,) [$/(kW^2 h)]; target, w_state : (n, H) wished state and its weight [$/unit^2]; terminal
    terms stand in the last column; penalty : (n,) > 0 [$/unit per step]; dt_h : length of a step [h]
    """

    x0: Array
    theta: Array
    gain_c: Array
    gain_g: Array
    drift: Array
    c_max_kw: Array
    g_max_kw: Array
    x_min: Array
    x_max: Array
    price_usd_per_kwh: Array
    other_kw: Array
    w_self: Array
    target: Array
    w_state: Array
    penalty: Array
    dt_h: float


@dataclass(frozen=True, slots=True)
class StoragePlan:
    """Plans of n devices over H steps.

    p_kw : (n, H) injection g - c [kW]; c_kw, g_kw : (n, H) its parts; x : (n, H) state after each step
    objective_usd : (n,) cost with all weights and penalties; gap : (n,) duality gap [$]
    iterations : (n,) Newton steps; converged : (n,) whether the gap met its tolerance
    simultaneous : (n,) whether some step consumes and generates at once (c g > 1e-4 kW^2). The convex
        model allows it; it pays when prices are negative and the device has losses. Only p_kw is then real.
    """

    p_kw: Array
    c_kw: Array
    g_kw: Array
    x: Array
    objective_usd: Array
    iterations: NDArray[np.int64]
    converged: NDArray[np.bool_]
    gap: Array
    simultaneous: NDArray[np.bool_]


def plan_storage(problem: StorageProblem) -> StoragePlan:
    """Return the cheapest plan of every device; a row does not depend on the other rows.

    Raises InputError when shapes disagree, a number is not finite (limits may be infinite), a box or a weight
    is negative, or a penalty is not positive.
    """
    check_problem(problem)
    columns = [getattr(problem, f.name) for f in fields(problem) if f.name != "dt_h"]
    # copies: a read-only or strided column would make numba compile once more
    arrays = [np.array(column, dtype=np.float64, order="C") for column in columns]
    c, g, x, objective, gap, iterations, converged = plan_rows(float(problem.dt_h), *arrays)
    simultaneous = (c * g > SIMULTANEOUS_KW2).any(axis=1)
    return StoragePlan(g - c, c, g, x, objective, iterations, converged, gap, simultaneous)


def check_problem(problem: StorageProblem) -> None:
    """Raise InputError with everything that is wrong with a problem."""
    n, steps = np.shape(problem.drift)
    per_row = ("x0", "theta", "gain_g", "w_self", "penalty")
    wrong = []

    def report(name: str, value: object, remedy: str) -> None:
        wrong.append(Problem("storage problem", name, value, remedy))

    for field in fields(problem):
        value = np.asarray(getattr(problem, field.name))
        shape: tuple[int, ...] = () if field.name == "dt_h" else (n,) if field.name in per_row else (n, steps)
        if value.shape != shape:
            report(field.name, value.shape, f"give the shape {shape}")
        elif field.name in ("x_min", "x_max"):
            if np.isnan(value).any():
                report(field.name, "nan", "write numbers or infinities")
        elif not np.isfinite(value).all():
            report(field.name, "not finite", "write finite numbers")
        elif field.name in ("c_max_kw", "g_max_kw", "w_self", "w_state") and (value < 0).any():
            report(field.name, value.min(), "write zero or more")
        elif field.name in ("penalty", "dt_h") and (value <= 0).any():
            report(field.name, value.min(), "write more than zero")
    if wrong:
        raise InputError(wrong)
