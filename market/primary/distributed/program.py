"""The convex program that atoms share, and its central solution as the reference.

    minimise ½ xᵀ diag(curvature) x + linearᵀ x    subject to    matrix x = rhs,  low ≤ x ≤ high

Every column and every row has a place: a node of the grid, or a battery beside it. Who owns a place is the matter of a
profile, not of the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import piqp
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.errors import InputError, Problem

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Accuracy that every quadratic program here reaches, and that no distributed method needs.
CENTRAL_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class ConvexProgram:
    """A quadratic program with a diagonal Hessian, spread over places; p.u. and $/kWh.

    curvature, linear, low, high : (n,) ; matrix : (m, n) CSR ; rhs : (m,)
    column_place, row_place : (n,), (m,) places ; column_period, row_period : periods, all 0 where there is one
    edge : (k, 2) places that are neighbours in the grid, nearer to the source first
    stiffness : (n,) cost per squared difference between owner and copy that steers a method without steering the
    optimum: topology and units, nobody's bids
    price_row : (k,) rows whose multipliers are prices of energy, the balances
    constant : cost of nothing
    """

    curvature: Array
    linear: Array
    matrix: sparse.csr_matrix
    rhs: Array
    low: Array
    high: Array
    column_place: Index
    row_place: Index
    column_period: Index
    row_period: Index
    edge: Index
    stiffness: Array
    price_row: Index
    constant: float = 0.0

    @property
    def n_place(self) -> int:
        """Places, one more than the highest in use."""
        return int(max(self.column_place.max(), self.row_place.max(), self.edge.max(initial=0))) + 1

    def cost(self, x: Array) -> float:
        """Return the objective at x."""
        return float(np.sum((0.5 * self.curvature * x + self.linear) * x)) + self.constant

    def pull(self, x: Array, y: Array) -> Array:
        """Return the slope of the Lagrangian with each unknown; y : (m,) multipliers of matrix x - rhs."""
        return np.asarray(self.curvature * x + self.linear + self.matrix.T @ y)


@dataclass(frozen=True, slots=True)
class CentralSolution:
    """Optimum of a program: x (n,), multipliers y (m,) of matrix x - rhs, and the objective."""

    x: Array
    y: Array
    cost: float


def check_program(program: ConvexProgram) -> None:
    """Raise InputError for a program that no method here can solve."""
    bad = {
        "curvature": np.flatnonzero(~(program.curvature >= 0.0)),
        "linear": np.flatnonzero(~np.isfinite(program.linear)),
        "high": np.flatnonzero(~(program.low <= program.high)),
        "rhs": np.flatnonzero(~np.isfinite(program.rhs)),
    }
    remedies = {
        "curvature": "a convex cost",
        "linear": "a finite cost",
        "high": "boxes that are not empty",
        "rhs": "finite right-hand sides",
    }
    problems = [
        Problem(f"program, entry {k}", name, float(getattr(program, name)[k]), remedies[name])
        for name, where in bad.items()
        for k in where[:5]
    ]
    if problems:
        raise InputError(problems)


def solve_central(program: ConvexProgram) -> CentralSolution:
    """Return the optimum found by an interior method that sees everything.

    Raises InputError where there is none.
    """
    check_program(program)
    solver = piqp.SparseSolver()
    solver.settings.eps_abs = solver.settings.eps_rel = CENTRAL_TOLERANCE
    solver.setup(
        P=sparse.csc_matrix(sparse.diags(program.curvature)),
        c=program.linear,
        A=sparse.csc_matrix(program.matrix),
        b=program.rhs,
        x_l=program.low,
        x_u=program.high,
    )
    status = solver.solve()
    if status != piqp.PIQP_SOLVED:
        remedy = "bids and limits that some dispatch can meet"
        raise InputError([Problem("program", "status", str(status), remedy)])
    x = np.clip(np.array(solver.result.x), program.low, program.high)
    return CentralSolution(x, np.array(solver.result.y), program.cost(x))


def stack_periods(programs: Sequence[ConvexProgram]) -> ConvexProgram:
    """Return the programs of periods of one structure side by side, not yet tied to each other."""
    first, width, height = programs[0], len(programs[0].linear), len(programs[0].rhs)
    return ConvexProgram(
        curvature=np.concatenate([p.curvature for p in programs]),
        linear=np.concatenate([p.linear for p in programs]),
        matrix=sparse.csr_matrix(sparse.block_diag([p.matrix for p in programs], format="csr")),
        rhs=np.concatenate([p.rhs for p in programs]),
        low=np.concatenate([p.low for p in programs]),
        high=np.concatenate([p.high for p in programs]),
        column_place=np.concatenate([p.column_place for p in programs]),
        row_place=np.concatenate([p.row_place for p in programs]),
        column_period=np.repeat(np.arange(len(programs)), width),
        row_period=np.repeat(np.arange(len(programs)), [len(p.rhs) for p in programs]),
        edge=first.edge,
        stiffness=np.concatenate([p.stiffness for p in programs]),
        price_row=np.concatenate([t * height + p.price_row for t, p in enumerate(programs)]),
        constant=sum(p.constant for p in programs),
    )
