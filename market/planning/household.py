"""Plan whole houses at once: every device of a house over the horizon, tied together by one meter.

Every device r chooses a consumption c and a generation g per step, p = g - c, and drives one state x,

    x[t+1] = theta x[t] + gain_c[t] c[t] - gain_g g[t] + drift[t],

within 0 <= c <= c_max and 0 <= g <= g_max. A house minimises over its devices

    sum_t dt price (sum_r c - g) + dt w_self (other + sum_{r shares} g - c)^2
    + sum_r { w_ramp (p[t+1] - p[t])^2 + dt w_spill (g_max - g)^2 + dt eps (c^2 + g^2) - dt w_flex delta
              + w_state (x[t+1] - target)^2 + penalty (max(0, x[t+1] - x_max) + max(0, x_min - x[t+1])) },

where delta <= min(g_max - p, p + c_max) is flexibility as headroom to both sides. State limits are soft with an exact
penalty, so every plan exists. Source: Nair et al., arXiv 2406.06844, stage I, with one efficiency for each direction.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, Problem
from voltier.market.planning.household_directions import Share
from voltier.market.planning.household_fleet import Fleet, plan_fleet

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

HEADROOM = Share(0.0, 0.0)
PRINTED_SHARE = Share(0.05, 0.30)  # EPS_1 and EPS_2, which the paper leaves open


@dataclass(frozen=True, slots=True)
class DeviceRows:
    """Devices with one state over H steps, one row a device; all of them may stand in different houses.

    x0, theta : (n,) first state [kWh or degC], share of it kept in a step ; gain_c : (n, H) change of the state per kW
    consumed, of any sign ; gain_g : (n,) drop per kW generated ; drift : (n, H) change that the device does not choose
    c_max_kw, g_max_kw : (n, H) ; x_min, x_max : (n, H) soft limits after each step, infinite for none
    target, w_state : (n, H) wished state and its weight [$/unit^2] ; penalty : (n,) > 0 [$/unit per step]
    w_ramp_usd_per_kw2 : (n,) on the change of p between steps ; w_spill_usd_per_kw2h : (n,) on generation not used
    w_flex_usd_per_kwh : (n,) >= 0, reward of headroom ; shares_meter : (n,) whether it counts in the self-use term
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
    target: Array
    w_state: Array
    penalty: Array
    w_ramp_usd_per_kw2: Array
    w_spill_usd_per_kw2h: Array
    w_flex_usd_per_kwh: Array
    shares_meter: Mask


@dataclass(frozen=True, slots=True)
class HouseholdProblem:
    """Houses and their devices over H steps.

    offset : (n_house + 1,) rows offset[i]:offset[i+1] of the devices belong to house i
    price_usd_per_kwh : (n_house, H) price of consumption and worth of generation, of any sign
    w_self_usd_per_kw2h, other_kw : (n_house, H) weight of the self-use term (zero where it does not act) and the fixed
    injection that it counts beside the sharing devices ; dt_h : length of a step
    """

    offset: Index
    devices: DeviceRows
    price_usd_per_kwh: Array
    w_self_usd_per_kw2h: Array
    other_kw: Array
    dt_h: float


@dataclass(frozen=True, slots=True)
class HouseholdPlan:
    """Plans of n devices in m houses over H steps.

    p_kw, c_kw, g_kw : (n, H) injection and its parts, c g = 0 ; x : (n, H) state after each step
    delta_kw : (n, H) flexibility to both sides
    objective_usd : (m,) cost of this plan, an upper bound of the mixed-integer optimum ; bound_usd : (m,) the convex
    relaxation's, a lower bound ; binary : (m,) houses whose relaxation is cheaper because it charges and discharges
    at once, so that directions were chosen ; converged : (m,) whether the relaxation met 1e-6 of its size
    """

    p_kw: Array
    c_kw: Array
    g_kw: Array
    x: Array
    delta_kw: Array
    objective_usd: Array
    bound_usd: Array
    binary: Mask
    converged: Mask


def plan_households(problem: HouseholdProblem, *, search: int = 0) -> HouseholdPlan:
    """Return the cheapest plan of every house; a house does not depend on the others.

    search : solves that may be spent on better directions for each block of devices whose relaxation is not tight
    Raises InputError when shapes disagree, a number is not finite (state limits may be infinite), a box or a weight
    is negative, a penalty is not positive, or the offsets do not split the devices.
    """
    return _plan(problem, search, HEADROOM)


def plan_printed(problem: HouseholdProblem, *, search: int = 0) -> HouseholdPlan:
    """Return good plans with flexibility as Nair et al. print it: EPS_1 |P| <= delta <= EPS_2 |P| within the headroom.

    Rewarding a share of |P| = c + g makes the problem nonconvex wherever a device can both consume and generate. There
    directions follow the sign of the headroom plan and then a local search; the bound keeps plain headroom there.
    """
    return _plan(problem, search, PRINTED_SHARE)


def _plan(problem: HouseholdProblem, search: int, share: Share) -> HouseholdPlan:
    check_problem(problem)

    # copies: a read-only or strided column would make numba compile once more
    def copy(column: Array) -> Array:
        return np.array(column, dtype=np.float64, order="C")

    columns = [copy(getattr(problem.devices, field.name)) for field in fields(DeviceRows)[:-1]]
    house = (problem.price_usd_per_kwh, problem.w_self_usd_per_kw2h, problem.other_kw)
    fleet = Fleet(float(problem.dt_h), *columns, *(copy(column) for column in house))
    shares = np.array(problem.devices.shares_meter, np.bool_)
    c, g, x, cost, bound, binary, converged = plan_fleet(
        fleet, np.array(problem.offset, np.int64), shares, share, search
    )
    p = g - c
    delta = np.minimum(fleet.g_max - p, p + fleet.c_max)
    if share.most > 0.0:
        delta = np.minimum(delta, share.most * (c + g))
    return HouseholdPlan(p, c, g, x, delta, cost, bound, binary, converged)


def check_problem(problem: HouseholdProblem) -> None:
    """Raise InputError with everything that is wrong with a problem."""
    devices, offset = problem.devices, np.asarray(problem.offset)
    n, steps = np.shape(devices.drift)
    wrong: list[Problem] = []
    if (
        offset.ndim != 1
        or len(offset) < 1
        or offset[0] != 0
        or offset[-1] != n
        or (np.diff(offset) < 0).any()
    ):
        wrong.append(Problem("households", "offset", offset, f"rise from 0 to the number of devices, {n}"))
    if not (np.isfinite(problem.dt_h) and problem.dt_h > 0.0):
        wrong.append(Problem("households", "dt_h", problem.dt_h, "write more than zero"))
    houses = max(len(np.atleast_1d(offset)) - 1, 0)
    for name in ("price_usd_per_kwh", "w_self_usd_per_kw2h", "other_kw"):
        wrong += _check_column(name, getattr(problem, name), (houses, steps))
    for field in fields(devices):
        shape = (n,) if field.name in _PER_DEVICE else (n, steps)
        wrong += _check_column(field.name, getattr(devices, field.name), shape)
    if wrong:
        raise InputError(wrong)


_PER_DEVICE = (
    "x0", "theta", "gain_g", "penalty", "w_ramp_usd_per_kw2", "w_spill_usd_per_kw2h", "w_flex_usd_per_kwh",
    "shares_meter",
)  # fmt: skip


def _check_column(name: str, column: Array | Mask, shape: tuple[int, ...]) -> list[Problem]:
    """Return what is wrong with one array."""
    value: NDArray[Any] = np.asarray(column)
    if value.shape != shape:
        return [Problem("households", name, value.shape, f"give the shape {shape}")]
    if name in ("x_min", "x_max"):
        return (
            [Problem("households", name, "nan", "write numbers or infinities")]
            if np.isnan(value).any()
            else []
        )
    if not np.isfinite(value).all():
        return [Problem("households", name, "not finite", "write finite numbers")]
    if name.startswith(("w_", "c_max", "g_max")) and (value < 0).any():
        return [Problem("households", name, value.min(), "write zero or more")]
    if name == "penalty" and (value <= 0).any():
        return [Problem("households", name, value.min(), "write more than zero")]
    return []
