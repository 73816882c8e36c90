"""Rounds of the McCormick program: envelopes, tangents of the losses, ranges around the optimum, probing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.market.primary.current_injection.bounds import Limits, Tightening
from voltier.market.primary.current_injection.case import Case, Goal, Stage, relative_gap, tightened
from voltier.market.primary.current_injection.intervals import Rectangle, meet
from voltier.market.primary.current_injection.mccormick import McCormick
from voltier.market.primary.current_injection.near import margin, near_optimum
from voltier.market.primary.current_injection.quadratic import (
    QuadraticPoint,
    QuadraticProgram,
    QuadraticSolver,
)
from voltier.market.primary.current_injection.terminals import Terminals

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

CUTS = 3
# A round that leaves more of the gap than this part is the last without probing.
SLOW = 0.8
# A round after probing that leaves more than this part ends it.
STALLED = 0.97
PROBED_AT_ONCE = 8
# Terminals whose power is met better than this part of the mean power are not probed.
MISMATCH_WANTED = 0.01


@dataclass(frozen=True, slots=True)
class _Solved:
    """One solution with what it says."""

    program: QuadraticProgram
    point: QuadraticPoint
    u: Array
    prices: tuple[Array, Array]
    missing: Complex


class McCormickRounds:
    """Bounds by the McCormick program of one network."""

    def __init__(
        self, terminals: Terminals, tightening: Tightening, limits: Limits, relaxation: McCormick
    ) -> None:
        self._terminals, self._tightening, self._limits = terminals, tightening, limits
        self._relaxation = relaxation
        self._solver, self._prober = QuadraticSolver(), QuadraticSolver()

    def run(self, case: Case, goal: Goal, before: list[Stage], *, probing: bool) -> tuple[list[Stage], Case]:
        """Return the stages after those before, the last with the best bound, and the case with all that was proven."""
        began = perf_counter()
        stages, cut_off = list(before), goal.cut_off
        cuts: list[Complex] = []
        solved = self._solve(case, cuts)
        stages.append(self._stage("envelopes", solved, stages, began, cut_off))
        for _ in range(CUTS if self._relaxation.can_cut else 0):
            began = perf_counter()
            cuts.append(self._relaxation.read(solved.point.x).v)
            solved = self._solve(case, cuts)
            stages.append(self._stage("loss tangents", solved, stages, began, cut_off))
        if cut_off is None or not np.isfinite(solved.point.bound):
            return stages, case
        probed = False
        for _ in range(goal.rounds):
            if goal.reached(stages) or not goal.affords(stages, 1):
                break
            began = perf_counter()
            gap = relative_gap(cut_off, solved.point.bound)
            case = self._nearer(case, solved, cut_off)
            if not case.bounds.feasible:
                stages.append(replace(stages[-1], name="closed", bound=cut_off, programs=0, work=0))
                break
            solved = self._solve(case, cuts)
            stages.append(self._stage("cut-off", solved, stages, began, cut_off))
            cuts = [*cuts[1:], self._relaxation.read(solved.point.x).v] if cuts else cuts
            left = relative_gap(cut_off, solved.point.bound)
            if left > SLOW * gap:
                afforded = probing and goal.affords(stages, 8 * PROBED_AT_ONCE + 1)
                if not afforded or goal.reached(stages) or (probed and left > STALLED * gap):
                    break
                found = self._probed(case, solved, cut_off, stages)
                if found is None:
                    break
                case, probed = found, True
        return stages, case

    def _solve(self, case: Case, cuts: list[Complex]) -> _Solved:
        padded = [*cuts, *(np.zeros(self._terminals.n_node, complex) for _ in range(CUTS - len(cuts)))]
        use = padded if self._relaxation.can_cut else None
        wires = self._tightening.drops(self._relaxation.wire, case.bounds, case.near)
        program = self._relaxation.build(case, wires, use)
        point = self._solver.solve(program)
        state = self._relaxation.read(point.x)
        n = self._relaxation.columns.head
        rest = point.rest[:n].reshape(3, -1)
        prices = (np.maximum(rest, 0.0), np.maximum(-rest, 0.0))
        return _Solved(program, point, state.u, prices, self._relaxation.missing(state))

    def _nearer(self, case: Case, solved: _Solved, cut_off: float) -> Case:
        found = near_optimum(case.bids, solved.u, solved.prices, solved.point.bound, cut_off)
        return tightened(case, self._terminals, self._tightening, self._limits, found)

    def _probed(self, case: Case, solved: _Solved, cut_off: float, stages: list[Stage]) -> Case | None:
        """Minimise and maximise voltage and current parts of the terminals with the largest mismatch, if any."""
        began = perf_counter()
        asked = abs(self._relaxation.asked(self._relaxation.read(solved.point.x)))
        missing = abs(solved.missing)
        worst = np.argsort(-missing)[:PROBED_AT_ONCE]
        worst = worst[missing[worst] > MISMATCH_WANTED * float(asked.mean())]
        if len(worst) == 0:
            return None
        program = within_cut_off(solved.program, solved.point.x, cut_off + margin(cut_off))
        w, i, v = case.bounds.w, case.bounds.i, case.bounds.v
        ends = [w.low.copy(), w.high.copy(), i.low.copy(), i.high.copy(), v.low.copy(), v.high.copy()]
        node = self._terminals.node
        for active in worst.tolist():
            at = int(self._relaxation.active[active])
            low, high = self._reach(program, active)
            ends[0][at], ends[1][at] = complex(low[0], low[1]), complex(high[0], high[1])
            ends[2][at], ends[3][at] = complex(low[2], low[3]), complex(high[2], high[3])
            if at < len(node):
                ends[4][node[at]], ends[5][node[at]] = ends[0][at], ends[1][at]
        parts = [meet(old, Rectangle(ends[2 * k], ends[2 * k + 1])) for k, old in enumerate((w, i, v))]
        feasible = case.bounds.feasible and all(ok for _, ok in parts)
        bounds = replace(case.bounds, w=parts[0][0], i=parts[1][0], v=parts[2][0], feasible=feasible)
        seconds, programs = perf_counter() - began, 8 * len(worst)
        stages.append(replace(stages[-1], name="probing", seconds=seconds, programs=programs, work=programs))
        return replace(case, bounds=bounds)

    def _reach(self, program: QuadraticProgram, active: int) -> tuple[Array, Array]:
        """Return least and greatest Re w, Im w, Re i, Im i of a terminal over a program's points."""
        rows, constant = self._relaxation.factors_of(active)
        out = np.zeros((2, len(rows)))
        for end, sign in enumerate((1.0, -1.0)):
            for k, row in enumerate(rows):
                answer = self._prober.solve(replace(program, c=sign * row))
                out[end, k] = sign * answer.bound + constant[k]
        return out[0], out[1]

    def _stage(
        self, name: str, solved: _Solved, stages: list[Stage], began: float, cut_off: float | None
    ) -> Stage:
        bound = solved.point.bound if cut_off is None else min(solved.point.bound, cut_off)
        bound = max([bound, *(stage.bound for stage in stages)])
        seconds = perf_counter() - began
        if not solved.point.solved:
            # The multipliers prove what they prove; the point is none.
            return Stage(name, bound, seconds, 1, 1, np.nan, np.nan, np.nan)
        missing, state = abs(solved.missing), self._relaxation.read(solved.point.x)
        mean = float(missing.sum()) / max(float(abs(self._relaxation.asked(state)).sum()), 1e-12)
        loss = self._relaxation.model_loss(state)
        return Stage(name, bound, seconds, 1, 1, float(missing.max(initial=0.0)), mean, loss)


def within_cut_off(program: QuadraticProgram, x: Array, cut_off: float) -> QuadraticProgram:
    """Return the program without its objective, but with the objective's tangent at x kept below the cut-off."""
    curved = program.p @ x
    slope = curved + program.c
    high = cut_off - program.constant + 0.5 * float(x @ curved)
    return replace(
        program,
        p=sparse.csc_matrix(program.p.shape),
        c=np.zeros_like(program.c),
        constant=0.0,
        g=sparse.vstack([program.g, sparse.csr_matrix(slope)], format="csc"),
        g_low=np.append(program.g_low, -np.inf),
        g_high=np.append(program.g_high, high),
    )
