"""One interior-point solver for program after program of one structure (PIQP, Schwan et al., IEEE CDC 2023)."""

from __future__ import annotations

from typing import Any

import numpy as np
import piqp
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Floor of the regularisation: below it the factors of large feeders, whose short lines have admittances of 1e7,
# lose the digits that the last steps need.
REGULARISATION = 1e-10


class PersistentSolver:
    """min ½ x'Px + c'x, Ax = b, h_l <= Gx <= h_u, x_l <= x <= x_u; structure and symbolic factor of the first stay.

    goal : residuals to strive for ; content : to be content with where rounding allows no better
    step_limit : steps of the method; a program that has an inside is done in 10 to 50
    """

    def __init__(self, *, goal: float, content: float, step_limit: int) -> None:
        self._goal, self._content, self._step_limit = goal, content, step_limit
        self._solver: piqp.SparseSolver | None = None

    def solve(self, **data: Any) -> tuple[piqp.Result, bool]:
        """Return the solver's result and whether it is a solution; data : the arrays that differ from last time."""
        if self._solver is None:
            self._solver = piqp.SparseSolver()
            settings = self._solver.settings
            settings.compute_timings = False
            settings.eps_abs = settings.eps_rel = self._goal
            settings.max_iter = self._step_limit
            settings.reg_lower_limit = settings.reg_finetune_lower_limit = REGULARISATION
            # Programs are of like size already; the default of 10 rounds of scaling costs a tenth of the time.
            settings.preconditioner_iter = 3
            self._solver.setup(**data)
        else:
            self._solver.update(**data)
        status = self._solver.solve()
        result = self._solver.result
        met = status == piqp.PIQP_SOLVED or worst_residual(result.info) <= self._content
        return result, met and bool(np.all(np.isfinite(result.x)))


def worst_residual(info: piqp.Info) -> float:
    """Return the largest residual of a program's solution, whatever the solver thinks of it."""
    return float(max(info.primal_res, info.dual_res, min(info.duality_gap, info.duality_gap_rel)))
