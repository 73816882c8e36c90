"""Optimality-based tightening over the cone relaxation: how far quantities reach within a cut-off of the cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter

import clarabel
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.market.primary.current_injection.case import Case
from voltier.market.primary.current_injection.certificate import certified_value, with_cut
from voltier.market.primary.current_injection.cones import ConeRelaxation, Instance, solver_settings
from voltier.market.primary.current_injection.intervals import Rectangle, meet
from voltier.market.primary.current_injection.near import RANGE_MARGIN_PU, margin

Array = NDArray[np.float64]
Index = NDArray[np.int64]


PROGRAMS_EACH = 4
"""Least and greatest, real and imaginary part."""


@dataclass(frozen=True, slots=True)
class Probed:
    """Ranges found by minimising and maximising quantities; programs : solved ; shrunk : mean factor of widths."""

    box: Rectangle
    programs: int
    seconds: float
    shrunk: float


def probe(
    relaxation: ConeRelaxation, case: Case, instance: Instance, cut_off: float, quantities: Index
) -> Probed:
    """Minimise and maximise real and imaginary parts over the dispatches of the relaxation within the cut-off.

    Optimality-based bound tightening; one program structure, four objectives for each quantity. Certified bounds
    are used, so a solver that stops early costs sharpness only.
    """
    began = perf_counter()
    layout, scaling = relaxation.layout, instance.scaling
    program = with_cut(instance.program, cut_off + margin(cut_off))
    low, high = instance.box.low.copy(), instance.box.high.copy()
    before = (high - low)[quantities]
    none = sparse.csc_matrix((len(program.linear),) * 2)
    solver: clarabel.DefaultSolver | None = None
    for quantity in quantities.tolist():
        ends = np.zeros((2, 2))
        for part in range(2):
            column = layout.first + part * layout.n_quantity + quantity
            for end, sign in enumerate((1.0, -1.0)):
                linear = np.zeros_like(program.linear)
                linear[column] = sign
                if solver is None:
                    solver = clarabel.DefaultSolver(
                        none, linear, program.matrix, program.rhs, program.cones(), _loose_settings()
                    )
                else:
                    solver.update(q=linear)
                answer = solver.solve()
                aim = replace(program, linear=linear)
                ends[part, end] = sign * certified_value(aim, np.array(answer.x), np.array(answer.z))
        reach = scaling.reach[quantity]
        ends[:, 0] = np.maximum(ends[:, 0], [-reach.real, -reach.imag])
        ends[:, 1] = np.minimum(ends[:, 1], [reach.real, reach.imag])
        ends = scaling.radius[quantity] * ends
        low[quantity] = scaling.centre[quantity] + complex(ends[0, 0], ends[1, 0])
        high[quantity] = scaling.centre[quantity] + complex(ends[0, 1], ends[1, 1])
    box, _ = meet(instance.box, Rectangle(low, high))
    after = (box.high - box.low)[quantities]
    shrunk = float(np.mean(abs(after) / np.maximum(abs(before), RANGE_MARGIN_PU))) if len(after) else 1.0
    return Probed(box, PROGRAMS_EACH * len(quantities), perf_counter() - began, shrunk)


def _loose_settings() -> clarabel.DefaultSettings:
    settings = solver_settings()
    settings.tol_gap_abs = settings.tol_gap_rel = 1e-4
    settings.tol_feas = 1e-6
    settings.max_iter = 40
    return settings
