"""One clearing on its way to a bound: what is known of it, the steps taken, and what they are to reach."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from voltier.market.primary.current_injection.bounds import (
    Bounds,
    Limits,
    Near,
    Tightening,
    operator_power,
)
from voltier.market.primary.current_injection.intervals import Rectangle, meet
from voltier.market.primary.current_injection.terminals import Terminals, VoltageTarget
from voltier.market.primary.problem import ScaledBids

CONE_WORK = 50
"""Time of a cone program in quadratic programs of the same network: 30 to 60 on feeders of 29 to 244 nodes."""

SMALLEST_COST = 1e-6


@dataclass(frozen=True, slots=True)
class Case:
    """One clearing and what has been proven about it.

    bids : with the ranges that are still possible ; bounds, near : from tightening
    extra : (n_quantity,) ranges of the cone relaxation's quantities found otherwise, None: none
    """

    bids: ScaledBids
    target: VoltageTarget
    bounds: Bounds
    near: Near | None = None
    extra: Rectangle | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One step towards a bound: what it was, the bound after it, its time and the programs it solved.

    work : its cost in quadratic programs
    mismatch_pu : largest difference between powers and products of voltages and currents in its solution
    mismatch : mean difference relative to the mean power ; loss_pu : losses of its model ; nan where not asked for
    """

    name: str
    bound: float
    seconds: float
    programs: int
    work: int
    mismatch_pu: float
    mismatch: float
    loss_pu: float


@dataclass(frozen=True, slots=True)
class Goal:
    """When to stop.

    cut_off : cost of a known feasible dispatch, None: none ; gap : relative, to the cut-off ; mismatch : relative mean
    rounds : at most so many of one method ; budget : at most so much work, in quadratic programs
    """

    cut_off: float | None
    gap: float
    mismatch: float
    rounds: int
    budget: int

    def reached(self, stages: list[Stage]) -> bool:
        """Say whether nothing is left to do."""
        value = max(stage.bound for stage in stages)
        if self.cut_off is None or value == np.inf:
            return value == np.inf
        close = self.mismatch == np.inf or relaxed_state(stages).mismatch <= self.mismatch
        return relative_gap(self.cut_off, value) <= self.gap and (close or stages[-1].name == "closed")

    def affords(self, stages: list[Stage], work: int) -> bool:
        """Say whether the budget leaves so much."""
        return sum(stage.work for stage in stages) + work <= self.budget


def relaxed_state(stages: list[Stage]) -> Stage:
    """Return the last stage that left a solution, the last one where none did."""
    return next((stage for stage in reversed(stages) if np.isfinite(stage.mismatch)), stages[-1])


def relative_gap(cost: float, bound: float) -> float:
    """Return the gap relative to the cost."""
    return (cost - bound) / max(abs(cost), SMALLEST_COST)


def tightened(
    case: Case, terminals: Terminals, tightening: Tightening, limits: Limits, found: tuple[ScaledBids, Near]
) -> Case:
    """Tighten a case once more, from newly found ranges of the operators and what it knows already."""
    bids, near = found
    known = case.bounds
    if case.extra is not None:
        v, ok = meet(known.v, case.extra[: terminals.n_node])
        known = replace(known, v=v, feasible=known.feasible and ok)
    bounds = tightening.run(operator_power(terminals, bids), limits, known=known, near=near)
    return replace(
        case, bids=bids, near=near, bounds=replace(bounds, feasible=bounds.feasible and known.feasible)
    )
