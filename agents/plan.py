"""The plan of every house over the horizon: its devices together, tied by its meter, for bill, comfort and wear.

The house's storage and the sun behind its meter count together, (PV + battery + car)^2: by day charging then cancels
PV (the self-use term of arXiv 2406.06844), and at night the same term is a wear on what storage exchanges.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from voltier.agents.devices.device import Outlook, Wish
from voltier.agents.houses import State
from voltier.agents.population import Houses
from voltier.market.planning.household import DeviceRows, HouseholdPlan, HouseholdProblem, plan_households

Array = NDArray[np.float64]
Index = NDArray[np.int64]

SELF_USE_USD_PER_KW2H = 0.004
"""Weight of the self-use term: at 5 kW from the grid or into it, 0.02 $/kWh."""


@dataclass(frozen=True, slots=True)
class KindPlan:
    """The plan of the devices of one kind. x, p_kw : (n, H) state at the end of each step, injection in it.

    low, high : (n, H + 1), or (n, 1), states at the ends of steps from which limits can be kept through the horizon
    """

    x: Array
    p_kw: Array
    low: Array
    high: Array


@dataclass(frozen=True, slots=True)
class HousePlan:
    """A plan of all houses. t_s, step_h : of the outlook ; kinds : by key of the kind.

    objective_usd, bound_usd : (n_house,) cost of each house's plan and a lower bound of it
    unsolved : houses whose problem did not converge ; binary : houses that chose directions of storage by search
    """

    t_s: int
    step_h: float
    kinds: dict[str, KindPlan]
    objective_usd: Array
    bound_usd: Array
    unsolved: int
    binary: int

    def at(self, now_s: int, window_s: int) -> dict[str, Wish]:
        """Return what the plan wants of the minute at now_s, by kind; beyond the horizon its last step serves.

        States are those planned one step ahead of now, interpolated, so that tracking them is smooth; guards are read
        at the end of the window.
        """
        step_s = round(self.step_h * 3600)
        into_s = max(now_s - self.t_s, 0)
        return {
            key: Wish(
                x=_between(kind.x, into_s / step_s),
                p_kw=kind.p_kw[:, min(into_s // step_s, kind.p_kw.shape[1] - 1)],
                low=_between(kind.low, (into_s + window_s) / step_s),
                high=_between(kind.high, (into_s + window_s) / step_s),
                ahead_h=self.step_h,
            )
            for key, kind in self.kinds.items()
        }


def _between(columns: Array, place: float) -> Array:
    """Interpolate between two columns; the last serves beyond the end."""
    last = columns.shape[1] - 1
    k = min(int(place), last)
    share, after = place - int(place), min(k + 1, last)
    # Guards may be infinite, and a share of nothing is not.
    value = (
        columns[:, k]
        if share == 0.0 or k == last
        else (1.0 - share) * columns[:, k] + share * columns[:, after]
    )
    return np.asarray(value)


def plan_houses(house: Houses, state: State, outlook: Outlook) -> HousePlan:
    """Plan all devices of all houses from their present state."""
    problem, place = household_problem(house, state, outlook)
    plan = plan_households(problem)
    kinds = {}
    for device in house.devices:
        low, high = device.guard(outlook)
        at = place.get(device.key)
        nothing = np.zeros((len(device.at), len(outlook.temp_air_c)))
        x, p_kw = (nothing, nothing) if at is None else (plan.x[at], plan.p_kw[at])
        # Read a column at a time, all day long.
        kinds[device.key] = KindPlan(*(np.asfortranarray(part) for part in (x, p_kw, low, high)))
    return _house_plan(outlook, kinds, plan)


def _house_plan(outlook: Outlook, kinds: dict[str, KindPlan], plan: HouseholdPlan) -> HousePlan:
    return HousePlan(
        t_s=outlook.t_s,
        step_h=outlook.step_h,
        kinds=kinds,
        objective_usd=plan.objective_usd,
        bound_usd=plan.bound_usd,
        unsolved=int((~plan.converged).sum()),
        binary=int(plan.binary.sum()),
    )


def household_problem(
    house: Houses, state: State, outlook: Outlook
) -> tuple[HouseholdProblem, dict[str, Index]]:
    """Return the problem of all houses, and where in it the rows of each kind of device are."""
    rows, owner, keys = [], [], []
    other_kw = np.zeros_like(outlook.price_usd_per_kwh)
    for device in house.devices:
        part = device.rows(state[device.key], outlook)
        if part is not None:
            rows.append(part)
            owner.append(device.at)
            keys.append(device.key)
        counted = device.counted_kw(outlook)
        if counted is not None:
            other_kw[device.at] += counted
    houses = np.concatenate(owner)
    order = np.argsort(houses, kind="stable")
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in rows])[order]
        for field in fields(DeviceRows)
    }
    problem = HouseholdProblem(
        offset=np.concatenate([[0], np.cumsum(np.bincount(houses, minlength=house.n))]),
        devices=DeviceRows(**columns),
        price_usd_per_kwh=outlook.price_usd_per_kwh,
        w_self_usd_per_kw2h=np.full_like(outlook.price_usd_per_kwh, SELF_USE_USD_PER_KW2H),
        other_kw=other_kw,
        dt_h=outlook.step_h,
    )
    position = np.empty(len(order), dtype=np.int64)
    position[order] = np.arange(len(order))
    ends = np.cumsum([len(at) for at in owner])[:-1]
    return problem, dict(zip(keys, np.split(position, ends), strict=True))
