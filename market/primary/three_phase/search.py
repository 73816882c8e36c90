"""The outer loop of sequential quadratic programming, whatever a point and a program are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from voltier.market.primary.exact import KKT_TOLERANCE

Point = TypeVar("Point")
Direction = TypeVar("Direction")

# Steps converge quadratically, so a goal beyond the tolerance costs little, and prices gain.
KKT_GOAL = 1e-7
ITERATION_LIMIT = 40
TRIAL_LIMIT = 8
SHORTENING = 0.4


@dataclass(slots=True)
class Walk(Generic[Point]):
    """Where the loop ended: point, its optimality residual, programs solved, and what went wrong, if anything."""

    point: Point
    kkt: float
    iterations: int
    note: str


class Search(ABC, Generic[Point, Direction]):
    """Iterate programs from a point; a step is accepted if the residual halves or the merit falls.

    scale : size of prices [$/kWh] in which the proximal term is measured ; elastic : limits are priced, so that a
    program without solution is no proof that there is none ; goal : residual to stop at
    """

    scale: float
    elastic: bool
    goal: float = KKT_GOAL

    @abstractmethod
    def residual(self, point: Point) -> float:
        """Return the optimality residual."""

    @abstractmethod
    def merit(self, point: Point) -> float:
        """Return what an accepted step lowers."""

    @abstractmethod
    def direction(self, point: Point, proximal: float, *, exact: bool) -> Direction | None:
        """Return the solution of the program at the point; None where it was not solved.

        exact : with the Hessian of the Lagrangian, else with a convex one.
        """

    @abstractmethod
    def trial(self, point: Point, step: Direction, share: float) -> Point | None:
        """Return the AC point a share of the step away; None where there is none."""

    def run(self, point: Point) -> Walk[Point]:
        """Iterate until the residual is at its goal or no step helps."""
        kkt = best = self.residual(point)
        proximal, count, note = 0.0, 0, ""
        exact = bends = True
        while kkt > self.goal and count < ITERATION_LIMIT:
            count += 1
            step = self.direction(point, proximal, exact=exact)
            moved = None if step is None else self._move(point, step, best)
            if moved is None:
                if exact:
                    # Prices of binding limits can make the true Hessian too indefinite to be of use.
                    exact, bends = False, bends and step is not None
                    continue
                if best <= KKT_TOLERANCE:
                    break
                if step is None and not self.elastic:
                    note = f"quadratic program {count} has no solution"
                    break
                proximal = max(10.0 * proximal, 1e-3 * self.scale)
                if proximal > 1e6 * self.scale:
                    break
                continue
            if moved[1] <= 0.5 * kkt:
                proximal = 0.1 * proximal if proximal > 1e-6 * self.scale else 0.0
                exact = bends and proximal == 0.0
            else:
                # Steps to and fro: what the convex Hessian lacks. The true one is tried, and both are held back.
                proximal, exact = max(10.0 * proximal, 1e-2 * self.scale), not exact
            point, kkt = moved
            best = min(best, kkt)
        if kkt > KKT_TOLERANCE and not note:
            note = f"stopped at optimality residual {kkt:.1e}"
        return Walk(point, kkt, count, note)

    def _move(self, point: Point, step: Direction, best: float) -> tuple[Point, float] | None:
        """Return the accepted next point on the way along the step and its residual, or None."""
        here, share = self.merit(point), 1.0
        for _ in range(TRIAL_LIMIT):
            moved = self.trial(point, step, share)
            if moved is not None:
                kkt = self.residual(moved)
                if kkt <= max(0.5 * best, self.goal) or self.merit(moved) < here:
                    return moved, kkt
            share *= SHORTENING
        return None
