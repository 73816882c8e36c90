"""Rounds of the cone relaxation: solve, tighten around the optimum, probe where that is slow."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import numpy as np

from voltier.market.primary.current_injection.bounds import Limits, Tightening
from voltier.market.primary.current_injection.case import (
    CONE_WORK,
    Case,
    Goal,
    Stage,
    relative_gap,
    tightened,
)
from voltier.market.primary.current_injection.cones import ConePoint, ConeRelaxation
from voltier.market.primary.current_injection.near import near_optimum
from voltier.market.primary.current_injection.probing import PROGRAMS_EACH, probe
from voltier.market.primary.current_injection.terminals import Terminals

# A round that leaves more of the gap than this part calls for probing quantities one by one, or ends it.
SLOW = 0.8
PROBED_AT_ONCE = 3


class ConeRounds:
    """Bounds by the cone relaxation of one network."""

    def __init__(
        self, terminals: Terminals, tightening: Tightening, limits: Limits, relaxation: ConeRelaxation
    ) -> None:
        self._terminals, self._tightening, self._limits = terminals, tightening, limits
        self._relaxation = relaxation

    def run(self, case: Case, goal: Goal, before: list[Stage], *, probing: bool) -> tuple[list[Stage], Case]:
        """Return the stages after those before, the last with the best bound, and the case with all that was proven."""
        began = perf_counter()
        point = self._relaxation.solve(self._relaxation.build(case))
        proven = max([stage.bound for stage in before], default=-np.inf)
        stages = [*before, self._stage("cones", point, max(point.bound, proven), began)]
        cut_off = goal.cut_off
        if cut_off is None or not np.isfinite(point.bound):
            return stages, case
        slow = False
        for _ in range(goal.rounds):
            gap = relative_gap(cut_off, point.bound)
            work = CONE_WORK * (1 + PROBED_AT_ONCE * PROGRAMS_EACH * slow)
            if goal.reached(stages) or (slow and not probing) or not goal.affords(stages, work):
                break
            case = self._nearer(case, point, cut_off)
            if case.bounds.feasible and slow:
                case = self._probed(case, point, cut_off, stages)
            began = perf_counter()
            if not case.bounds.feasible:
                # Nothing is below the cut-off, whose own dispatch is feasible.
                stages.append(
                    replace(stages[-1], name="closed", bound=cut_off, programs=0, work=0, seconds=0.0)
                )
                break
            following = self._relaxation.solve(self._relaxation.build(case))
            best = max(min(following.bound, cut_off), stages[-1].bound)
            stages.append(self._stage("cut-off", following, best, began))
            if following.bound > point.bound:
                point = following
            slow = relative_gap(cut_off, point.bound) > SLOW * gap
        return stages, case

    def _nearer(self, case: Case, point: ConePoint, cut_off: float) -> Case:
        """Cut the ranges to what dispatches no dearer than the cut-off can use."""
        prices = (point.low_price, point.high_price)
        found = near_optimum(case.bids, point.u, prices, point.bound, cut_off)
        return tightened(case, self._terminals, self._tightening, self._limits, found)

    def _probed(self, case: Case, point: ConePoint, cut_off: float, stages: list[Stage]) -> Case:
        """Probe the voltages whose moments are least those of one state."""
        worst = self._relaxation.widest(point)
        found = probe(self._relaxation, case, self._relaxation.build(case), cut_off, worst)
        work = CONE_WORK * found.programs
        step = replace(stages[-1], name="probing", seconds=found.seconds, programs=found.programs, work=work)
        stages.append(step)
        return self._nearer(replace(case, extra=found.box), point, cut_off)

    def _stage(self, name: str, point: ConePoint, bound: float, began: float) -> Stage:
        known = point.solved
        largest, mean = self._relaxation.mismatch(point) if known else (np.nan, np.nan)
        loss = point.loss if known else np.nan
        return Stage(name, bound, perf_counter() - began, 1, CONE_WORK, largest, mean, loss)
