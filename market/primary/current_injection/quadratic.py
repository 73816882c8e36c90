"""A quadratic program with ranges, its persistent solver, and the lower bound that its multipliers prove."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import piqp
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float64]

GOAL = 1e-9
STEP_LIMIT = 80


@dataclass(frozen=True, slots=True)
class QuadraticProgram:
    """min ½ xᵀ p x + c·x + constant, a x = b, g_low <= g x <= g_high, low <= x <= high (all finite)."""

    p: sparse.csc_matrix
    c: Array
    constant: float
    a: sparse.csc_matrix
    b: Array
    g: sparse.csc_matrix
    g_low: Array
    g_high: Array
    low: Array
    high: Array


@dataclass(frozen=True, slots=True)
class QuadraticPoint:
    """Solution of a program.

    bound : proven lower bound; -inf without one, inf where there is no point at all (proven)
    rest : (n,) what every column costs beyond the rows' multipliers: positive where its lower end is wanted
    """

    x: Array
    value: float
    bound: float
    rest: Array
    solved: bool


class QuadraticSolver:
    """Keeps one PIQP solver as long as the structure of the matrices stays."""

    def __init__(self) -> None:
        self._solver: piqp.SparseSolver | None = None
        self._shape: tuple[bytes, ...] = ()

    def solve(self, program: QuadraticProgram) -> QuadraticPoint:
        """Solve, from the same factorisation pattern where the structure is the last one's."""
        data = {
            "P": program.p,
            "c": program.c,
            "A": program.a,
            "b": program.b,
            "G": program.g,
            "h_l": program.g_low,
            "h_u": program.g_high,
            "x_l": program.low,
            "x_u": program.high,
        }
        shape = _structure(program)
        if self._solver is None or shape != self._shape:
            self._solver, self._shape = piqp.SparseSolver(), shape
            self._solver.settings.compute_timings = False
            self._solver.settings.eps_abs = self._solver.settings.eps_rel = GOAL
            self._solver.settings.max_iter = STEP_LIMIT
            self._solver.setup(**data)
        else:
            self._solver.update(**data)
        status = self._solver.solve()
        result = self._solver.result
        x, y = np.array(result.x), np.array(result.y)
        multiplier = np.array(result.z_u) - np.array(result.z_l)
        value = float(0.5 * (x @ (program.p @ x)) + program.c @ x) + program.constant
        bound, rest = proven(program, x, y, multiplier)
        return QuadraticPoint(x, value, bound, rest, status == piqp.PIQP_SOLVED)


def proven(program: QuadraticProgram, x: Array, y: Array, multiplier: Array) -> tuple[float, Array]:
    """Return the lower bound that any x, y and multiplier (of g, positive at the upper side) prove, and the rest.

    f(x*) >= -½ xᵀPx - b·y - Σ max(m·g_low, m·g_high) + min over the ranges of (Px + c + Aᵀy + Gᵀm)·x*.
    """
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y)) and np.all(np.isfinite(multiplier))):
        return -np.inf, np.zeros_like(program.c)
    # A multiplier on a side that does not exist is rounding; without it the bound stays valid.
    upper = np.where(np.isfinite(program.g_high), np.maximum(multiplier, 0.0), 0.0)
    lower = np.where(np.isfinite(program.g_low), np.maximum(-multiplier, 0.0), 0.0)
    side = upper @ np.where(np.isfinite(program.g_high), program.g_high, 0.0)
    side -= lower @ np.where(np.isfinite(program.g_low), program.g_low, 0.0)
    curved = program.p @ x
    rest = curved + program.c + program.a.T @ y + program.g.T @ (upper - lower)
    least = np.minimum(rest * program.low, rest * program.high).sum()
    bound = float(-0.5 * (x @ curved) - program.b @ y - side + least)
    # Beyond what the objective can reach at all, the multipliers prove that there is no point.
    return (np.inf if bound > _ceiling(program) else bound + program.constant), rest


def _ceiling(program: QuadraticProgram) -> float:
    size = np.maximum(abs(program.low), abs(program.high))
    return float(abs(program.c) @ size + 0.5 * (size @ (abs(program.p) @ size)))


def _structure(program: QuadraticProgram) -> tuple[bytes, ...]:
    matrices = (program.p, program.a, program.g)
    return tuple(part.tobytes() for matrix in matrices for part in (matrix.indptr, matrix.indices))
