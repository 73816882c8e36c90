"""Exactness: programs tangent at one point after the other, each solved by the atoms, with what they hold kept.

Every atom can move its own rows, for a point is nothing but what owners and copies agree on; no power flow is solved.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import NotConvergedError
from voltier.market.primary.distributed.atoms import Profile
from voltier.market.primary.distributed.options import MethodName, Options
from voltier.market.primary.distributed.program import CentralSolution, ConvexProgram, solve_central
from voltier.market.primary.distributed.solve import DistributedSolution, DistributedSolver, Warm

Array = NDArray[np.float64]
Point = TypeVar("Point")

POINT_LIMIT = 12


class Tangents(Protocol[Point]):
    """A nonlinear problem as a family of tangent programs of one structure."""

    def at(self, point: Point) -> ConvexProgram:
        """Return the program tangent at a point."""

    def moved(self, point: Point, x: Array, y: Array) -> Point:
        """Return the point that a solution of the program at a point describes."""

    def bend(self, point: Point, x: Array) -> float:
        """Return what linearising at the point has left at x [p.u.]."""


@dataclass(frozen=True, slots=True)
class SuccessiveSolution(Generic[Point]):
    """solution of the last program; point it is tangent at; program; rounds of all programs; points visited.

    bend : what linearising has left [p.u.] ; converged : every residual is within the stopping rule
    """

    solution: DistributedSolution
    point: Point
    program: ConvexProgram
    rounds: int
    points: int
    bend: float
    converged: bool


def solve_successive(
    tangents: Tangents[Point],
    point: Point,
    x: Array,
    profile: Profile,
    method: MethodName,
    options: Options,
    *,
    warm: Warm | None = None,
) -> SuccessiveSolution[Point]:
    """Solve tangent programs until linearising leaves no more than the stopping rule; x : unknowns to begin with."""
    program, rounds = tangents.at(point), 0
    solver = DistributedSolver(program, profile, method, options)
    for visited in range(1, POINT_LIMIT + 1):
        solution = solver.solve(program, start=x, warm=warm, bend=partial(tangents.bend, point))
        rounds += solution.rounds
        if not solution.moving or visited == POINT_LIMIT:
            bend, done = tangents.bend(point, solution.x), solution.certificate.converged
            return SuccessiveSolution(solution, point, program, rounds, visited, bend, done)
        point = tangents.moved(point, solution.x, solution.duals)
        program, warm, x = tangents.at(point), solution.warm, solution.x
    raise AssertionError("the loop returns")


@dataclass(frozen=True, slots=True)
class CentralSuccessive(Generic[Point]):
    """Central optimum of the last program, the point it is tangent at, points visited, and what linearising left."""

    solution: CentralSolution
    point: Point
    points: int
    bend: float


def central_successive(tangents: Tangents[Point], point: Point, goal_pu: float) -> CentralSuccessive[Point]:
    """Solve tangent programs by a solver that sees everything, until linearising leaves goal_pu: the reference.

    Raises InputError where a program has no solution, NotConvergedError where linearising leaves more.
    """
    for visited in range(1, POINT_LIMIT + 1):
        solution = solve_central(tangents.at(point))
        bend = tangents.bend(point, solution.x)
        if bend <= goal_pu:
            return CentralSuccessive(solution, point, visited, bend)
        point = tangents.moved(point, solution.x, solution.y)
    raise NotConvergedError(f"linearising leaves {bend:.1e} p.u. after {POINT_LIMIT} points")
