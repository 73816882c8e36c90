"""AC-exact three-phase dispatch: sequential quadratic programs, every iterate a power flow.

Only the operators' controls u are searched; Newton's method turns each u into an exact AC point, so the answer
satisfies the physics whatever the program's accuracy. The program at a point has tangent balances and the exact
Hessian of the Lagrangian; where that fails, one that prices all losses alike, which is convex. An adjoint solve
gives every point prices that fit it exactly, so optimality is judged by the slopes of the controls alone. Steps
are accepted when that residual halves or when cost plus weighted limit violation falls; otherwise they are
shortened and held back by a proximal term.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.exact import KKT_ACCEPTABLE, KKT_TOLERANCE, LIMIT_TOLERANCE_PU
from voltier.market.primary.problem import price_scale
from voltier.market.primary.three_phase.period import Period
from voltier.market.primary.three_phase.physics import at_other_taps, build_physics
from voltier.market.primary.three_phase.point import AcPoint, point_solver
from voltier.market.primary.three_phase.problem import ScaledProblem
from voltier.market.primary.three_phase.program import Step, TangentProgram
from voltier.market.primary.three_phase.search import Search

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

# Prices of a p.u. of voltage or current beyond its limit, in multiples of the dearest price of energy. The first at
# which the search ends is taken: a dear one keeps the excess least, a cheap one is the easier problem.
PENALTY_FACTORS = (1e4, 1e3, 1e2)


@dataclass(slots=True)
class Outcome:
    """Where a search ended. point : None when there is not even a power flow; slacks beyond limits [p.u.]."""

    point: AcPoint | None
    kkt: float
    ac_residual: float
    v_slack: float
    i_slack: float
    iterations: int
    solved: bool
    note: str


class ExactDispatch:
    """Solver of the AC-exact problem for one network structure; keeps its last point as the next start."""

    def __init__(self, network: ThreePhaseNetwork, share: sparse.csc_matrix) -> None:
        self.net = build_physics(network)
        self.points = point_solver(self.net, share)
        self._watched = np.zeros(0, dtype=np.int64)
        self._programs: dict[bool, TangentProgram] = {}
        self._warm: AcPoint | None = None

    def solve(self, network: ThreePhaseNetwork, problem: ScaledProblem, *, warm: bool = True) -> Outcome:
        """Dispatch within all limits if that can be, else with the least priced violation."""
        if network is not self.net.network:
            self.net = at_other_taps(self.net, network)
        start = self._warm if warm else None
        outcome = _OnePeriod(self, Period(self.points, self.net, problem)).outcome(start)
        for factor in PENALTY_FACTORS:
            if outcome.solved or outcome.point is None:
                break
            penalty = factor * price_scale(problem.bids)
            elastic = Period(self.points, self.net, problem, penalty=penalty)
            again = _OnePeriod(self, elastic).outcome(None)
            again.iterations += outcome.iterations
            outcome = again
        # A point priced by penalties would be a poor guess of a market that keeps its limits.
        kept = max(outcome.v_slack, outcome.i_slack) <= LIMIT_TOLERANCE_PU
        self._warm = outcome.point if outcome.solved and kept else None
        return outcome

    def program(self, loaded: Index, *, elastic: bool) -> TangentProgram:
        """Return the program that has these wires among its rows."""
        if not np.all(np.isin(loaded, self._watched)):
            self._watched = np.union1d(self._watched, loaded)
            self._programs.clear()
        if elastic not in self._programs:
            self._programs[elastic] = TangentProgram(
                self.net, self.points.pattern, self._watched, elastic=elastic
            )
        return self._programs[elastic]


class _OnePeriod(Search[AcPoint, Step]):
    """The search for one period's dispatch."""

    def __init__(self, owner: ExactDispatch, period: Period) -> None:
        self._owner, self._period = owner, period
        self.scale, self.elastic = period.scale, period.penalty > 0.0
        self._merit_weight = period.penalty
        if self.elastic:
            # Penalties dwarf all prices: what is beyond the tolerance takes programs and tells nothing.
            self.goal = KKT_TOLERANCE

    def outcome(self, warm: AcPoint | None) -> Outcome:
        """Search from the last clearing's point, or from the forecast."""
        start = self._period.start(warm)
        if start is None:
            note = "no power flow exists at the start (voltage collapse)"
            return Outcome(None, np.inf, np.inf, np.nan, np.nan, 0, False, note)
        walk = self.run(start)
        over_v, over_i = self._period.violations(walk.point)
        return Outcome(
            point=walk.point,
            kkt=walk.kkt,
            ac_residual=self._period.ac_residual(walk.point),
            v_slack=float(over_v.max(initial=0.0)),
            i_slack=float(over_i.max(initial=0.0)),
            iterations=walk.iterations,
            solved=walk.kkt <= KKT_ACCEPTABLE,
            note=walk.note,
        )

    def residual(self, point: AcPoint) -> float:
        """Return the period's residual."""
        return self._period.residual(point)

    def merit(self, point: AcPoint) -> float:
        """Return cost plus weighted excess over the limits."""
        return self._period.merit(point, self._merit_weight)

    def direction(self, point: AcPoint, proximal: float, *, exact: bool) -> Step | None:
        """Solve the program at the point; watch the wires that are loaded there."""
        period = self._period
        program = self._owner.program(period.loaded(point), elastic=self.elastic)
        program.bid(period.bids, period.penalty)
        period.fill(point, proximal, exact=exact)
        tangent = period.points.wire_tangent(period.net, point.current)
        step = program.solve(point.gradient, period.bids, point.u, period.room(point), tangent)
        if not step.solved:
            return None
        if not self.elastic:
            # An exact penalty outweighs every multiplier; the elastic form has its price already.
            largest = max(np.abs(step.v_price).max(initial=0.0), step.i_price.max(initial=0.0))
            self._merit_weight = max(self._merit_weight, 2.0 * float(largest))
        return step

    def trial(self, point: AcPoint, step: Step, share: float) -> AcPoint | None:
        """Return the AC point a share of the step away."""
        period = self._period
        u, v = period.moved(point, share * step.u, share * step.dv)
        return period.point(u, v, step.v_price, step.i_price)
