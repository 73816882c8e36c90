"""Power balances without a network: what local agents do for their own peaks, and how flat a feeder could be at best.

Goals are met in order: first the goal itself, then, among all schedules that meet it as well, the one that moves
devices least, or the one that buys least energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog

from voltier.grid.errors import InputError, Problem
from voltier.market.primary.distributed.ramp import RampPrice
from voltier.market.primary.three_phase.batteries import Batteries
from voltier.market.primary.three_phase.multi_period import BOTH_WAYS_KW
from voltier.scenarios.studies.duck_curve_case import DuckCase

Array = NDArray[np.float64]
Goal = Literal["peak", "ramp"]
Then = Literal["least_use", "least_energy"]

# What the second goal may cost the first [kW]: the solver's own tolerance on constraints.
SECOND_GOAL_KW = 1e-6


@dataclass(frozen=True, slots=True)
class Schedule:
    """A day of devices. shed_kw : (T, n) ; charge_kw, discharge_kw : (T, k) at the grid ; energy_kwh : (T, k)."""

    shed_kw: Array
    charge_kw: Array
    discharge_kw: Array
    energy_kwh: Array


def schedule(
    net_kw: Array, shed_max_kw: Array, devices: Batteries, goal: Goal, then: Then, *, cyclic: bool = True
) -> Schedule:
    """Return the schedule of an agent; net_kw : (T,) consumption without control, shed_max_kw : (T, n).

    goal : "peak", the largest hour of net consumption, or "ramp", the sum of its changes; steps of an hour.
    Raises InputError where no schedule keeps the batteries' limits.
    """
    program = _Program(net_kw, shed_max_kw.sum(axis=1), devices, goal, cyclic)
    while True:
        first = program.solve(program.goal, None)
        x = program.solve(program.second(then), float(program.goal @ first))
        shed, charge, discharge, energy = program.split(x)
        both = both_ways(charge, discharge)
        # Each round closes one more direction at least, so there is a last one.
        if not both.any():
            break
        program.close(both & (charge < discharge), both & (charge >= discharge))
    total = shed_max_kw.sum(axis=1, keepdims=True)
    part = np.divide(shed_max_kw, total, out=np.zeros_like(shed_max_kw), where=total > 0.0)
    return Schedule(shed[:, None] * part, charge, discharge, energy)


def both_ways(charge_kw: Array, discharge_kw: Array) -> NDArray[np.bool_]:
    """Return where a battery would charge and discharge at once, which would only burn energy."""
    return np.asarray(np.minimum(charge_kw, discharge_kw) > BOTH_WAYS_KW)


def local_agents(case: DuckCase, devices: Batteries, then: Then) -> Schedule:
    """Let every agent of the case lower its own peak, each knowing its own loads and batteries only."""
    hours, n, k = *case.load_kw.shape, len(case.battery_bus)
    out = Schedule(np.zeros((hours, n)), *(np.zeros((hours, k)) for _ in range(3)))
    for buses in case.agent:
        mine = np.flatnonzero(np.isin(case.bus, buses))
        own = np.flatnonzero(np.isin(case.battery_bus, buses))
        if len(mine) + len(own) == 0:
            continue
        net = (case.load_kw - case.pv_kw)[:, mine].sum(axis=1)
        found = schedule(net, case.shed_max_kw[:, mine], picked(devices, own), "peak", then)
        out.shed_kw[:, mine] = found.shed_kw
        out.charge_kw[:, own], out.discharge_kw[:, own] = found.charge_kw, found.discharge_kw
        out.energy_kwh[:, own] = found.energy_kwh
    return out


def picked(devices: Batteries, rows: NDArray[np.int64]) -> Batteries:
    """Return some of the batteries."""
    return Batteries(**{name: getattr(devices, name)[rows] for name in Batteries.__dataclass_fields__})


class _Program:
    """Columns: [shed (T) | charge, discharge, energy (T k each) | peak, or ups and downs]."""

    def __init__(self, net: Array, shed_max: Array, devices: Batteries, goal: Goal, cyclic: bool) -> None:
        self._t, self._k, self._net = len(net), len(devices.charge_max_kw), net
        t, k = self._t, self._k
        price = RampPrice(1.0, cyclic)
        before, after = price.steps(t)
        tail = 1 if goal == "peak" else 2 * len(after)
        self._width = t + 3 * t * k + tail
        self.goal = np.append(np.zeros(self._width - tail), np.ones(tail))
        self._equal, self._equal_rhs = self._energy(devices, tail)
        # Net consumption is net + draw @ x.
        self._draw = self._net_matrix(tail)
        self._below, self._below_rhs = None, None
        if goal == "peak":
            one = sparse.csr_matrix(
                (np.full(t, -1.0), (np.arange(t), np.full(t, self._width - 1))), (t, self._width)
            )
            self._below, self._below_rhs = self._draw + one, -net
        else:
            m = len(after)
            place = (np.tile(np.arange(m), 2), self._width - 2 * m + np.arange(2 * m))
            ups = sparse.csr_matrix((np.repeat([-1.0, 1.0], m), place), (m, self._width))
            rows = self._draw[after] - self._draw[before] + ups
            self._equal = sparse.vstack([self._equal, rows]).tocsr()
            self._equal_rhs = np.append(self._equal_rhs, net[before] - net[after])
        low_e = np.tile(devices.energy_min_kwh, (t, 1))
        low_e[-1] = np.maximum(low_e[-1], devices.energy_end_kwh)
        zero = np.zeros(t * k)
        self._low = np.concatenate([np.zeros(t), zero, zero, low_e.ravel(), np.full(tail, -np.inf)])
        if goal == "ramp":
            self._low[-tail:] = 0.0
        rated = [np.tile(part, t) for part in (devices.charge_max_kw, devices.discharge_max_kw)]
        self._high = np.concatenate(
            [shed_max, *rated, np.tile(devices.energy_max_kwh, t), np.full(tail, np.inf)]
        )

    def close(self, charge: NDArray[np.bool_], discharge: NDArray[np.bool_]) -> None:
        """Close a direction to batteries, (T, k) each."""
        t, k = self._t, self._k
        closed = np.concatenate([charge.ravel(), discharge.ravel()])
        self._high[t : t + 2 * t * k][closed] = 0.0

    def second(self, then: Then) -> Array:
        """Return the costs that decide between schedules of equal goal."""
        t, k = self._t, self._k
        use = np.zeros(self._width)
        if then == "least_energy":
            return np.asarray(self._draw.sum(axis=0)).ravel()
        use[: t + 2 * t * k] = 1.0
        return use

    def solve(self, cost: Array, bound: float | None) -> Array:
        """Return the optimum of a cost with the goal held at its bound."""
        below, rhs = self._below, self._below_rhs
        if bound is not None:
            row = sparse.csr_matrix(self.goal)
            below = row if below is None else sparse.vstack([below, row])
            rhs = np.append(np.zeros(0) if rhs is None else rhs, bound + SECOND_GOAL_KW)
        limits = np.stack([self._low, self._high], axis=1)
        found = linprog(cost, below, rhs, self._equal, self._equal_rhs, limits, method="highs")
        if not found.success:
            remedy = "batteries whose end-of-day energy can be reached from their start"
            raise InputError([Problem("duck curve, schedule", "status", found.message, remedy)])
        return np.asarray(found.x)

    def split(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Return shed (T,), charge, discharge and energy (T, k)."""
        t, k = self._t, self._k
        parts = (x[t + i * t * k : t + (i + 1) * t * k].reshape(t, k) for i in range(3))
        return (x[:t], *parts)

    def _energy(self, devices: Batteries, tail: int) -> tuple[sparse.csr_matrix, Array]:
        """e_t - e_(t-1) - efficiency·charge + discharge/efficiency = 0, with the start on the right of the first."""
        t, k = self._t, self._k
        gain = sparse.diags(np.tile(devices.charge_efficiency, t))
        loss = sparse.diags(np.tile(1.0 / devices.discharge_efficiency, t))
        step = sparse.eye(t * k) - sparse.eye(t * k, k=-k)
        rows = [sparse.csr_matrix((t * k, t)), -gain, loss, step, sparse.csr_matrix((t * k, tail))]
        rhs = np.zeros(t * k)
        rhs[:k] = devices.energy_start_kwh
        return sparse.csr_matrix(sparse.hstack(rows)), rhs

    def _net_matrix(self, tail: int) -> sparse.csr_matrix:
        t, k = self._t, self._k
        each = sparse.kron(sparse.eye(t), np.ones((1, k))) if k else sparse.csr_matrix((t, 0))
        none = sparse.csr_matrix((t, t * k + tail))
        return sparse.csr_matrix(sparse.hstack([-sparse.eye(t), each, -each, none]))
