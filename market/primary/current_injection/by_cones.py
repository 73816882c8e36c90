"""Rounds of the cone relaxation: solve, tighten around the optimum, probe where that is slow."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter

import numpy as np

from voltier.market.primary.current_injection.bounds import Limits, Tightening
from voltier.market.primary.current_injection.case import Case, Stage, tightened
from voltier.market.primary.current_injection.cones import ConePoint, ConeRelaxation
from voltier.market.primary.current_injection.near import near_optimum
from voltier.market.primary.current_injection.probing import probe
from voltier.market.primary.current_injection.terminals import Terminals

# A round that leaves more of the gap than this part calls for probing quantities one by one.
SLOW = 0.6
PROBED_AT_ONCE = 3
# Moments whose spread is below this [p.u. squared] are those of one state.
TIGHT = 1e-6
SMALLEST_COST = 1e-6


def relative_gap(cost: float, bound: float) -> float:
    """Return the gap relative to the cost."""
    return (cost - bound) / max(abs(cost), SMALLEST_COST)


class ConeRounds:
    """Bounds by the cone relaxation of one network."""

    def __init__(
        self, terminals: Terminals, tightening: Tightening, limits: Limits, relaxation: ConeRelaxation
    ) -> None:
        self._terminals, self._tightening, self._limits = terminals, tightening, limits
        self._relaxation = relaxation

    def run(
        self, case: Case, cut_off: float | None, gap_wanted: float, rounds: int, *, probing: bool = True
    ) -> tuple[list[Stage], Case]:
        """Return the stages, the last with the best bound, and the case with all that was proven on the way."""
        began = perf_counter()
        point = self._relaxation.solve(self._relaxation.build(case))
        stages = [self._stage("cones", point, point.bound, began)]
        if cut_off is None or not np.isfinite(point.bound):
            return stages, case
        slow = False
        for _ in range(rounds):
            gap = relative_gap(cut_off, point.bound)
            if gap <= gap_wanted:
                break
            if slow and not probing:
                break
            began = perf_counter()
            case = self._nearer(case, point, cut_off)
            if case.bounds.feasible and slow:
                case = self._probed(case, point, cut_off, stages)
                began = perf_counter()
            if not case.bounds.feasible:
                # Nothing is below the cut-off, whose own dispatch is feasible.
                stages.append(
                    replace(
                        stages[-1], name="closed", bound=cut_off, programs=0, seconds=perf_counter() - began
                    )
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
        """Probe the quantities whose moments are least those of one state, or else the loosest delta loads."""
        worst = self._relaxation.widest(point)
        if point.spread[worst].max() < TIGHT:
            worst = self._relaxation.loosest_nodes(case)[:PROBED_AT_ONCE]
        found = probe(self._relaxation, case, self._relaxation.build(case), cut_off, worst)
        stages.append(replace(stages[-1], name="probing", seconds=found.seconds, programs=found.programs))
        return self._nearer(replace(case, extra=found.box), point, cut_off)

    def _stage(self, name: str, point: ConePoint, bound: float, began: float) -> Stage:
        known = np.all(np.isfinite(point.mean))
        largest, mean = self._relaxation.mismatch(point) if known else (np.nan, np.nan)
        loss = point.loss if known else np.nan
        return Stage(name, bound, perf_counter() - began, 1, largest, mean, loss)
