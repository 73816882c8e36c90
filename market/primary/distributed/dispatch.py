"""Dispatchers that stand where the AC-exact ones do and let the atoms clear the market.

The atoms' dispatch is turned into a power flow once, as the grid itself would, so that a clearing reports what its set
points do. Prices are the atoms' multipliers of their own balances.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.network import BalancedNetwork
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary import exact
from voltier.market.primary.distributed.atoms import Profile, per_node
from voltier.market.primary.distributed.families import BranchFlowFamily, CurrentFamily
from voltier.market.primary.distributed.options import MethodName, Options
from voltier.market.primary.distributed.program import ConvexProgram
from voltier.market.primary.distributed.solve import DistributedSolution
from voltier.market.primary.distributed.successive import SuccessiveSolution, solve_successive
from voltier.market.primary.distributed.tangent_branch_flow import BranchFlowPoint, BranchFlowTangent
from voltier.market.primary.distributed.tangent_current import CurrentPoint, CurrentTangent
from voltier.market.primary.exact import ExactPoint
from voltier.market.primary.linearised import squared_limits
from voltier.market.primary.problem import ScaledBids
from voltier.market.primary.three_phase import exact as phase_exact
from voltier.market.primary.three_phase.exact import Outcome
from voltier.market.primary.three_phase.period import WATCHED_LOADING, Period
from voltier.market.primary.three_phase.physics import at_other_taps
from voltier.market.primary.three_phase.problem import ScaledProblem

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Residuals of many equations add up along a path: within this many times the stopping rule a limit counts as kept.
LIMIT_FACTOR = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a market is cleared by atoms; its methods are dispatchers of the markets.

    method, options : of the atoms ; profile : makes the decomposition of a program. Everything but the dispatch and its
    prices, which are the atoms' own multipliers, stays the market's. Clearings that the atoms do not agree on have
    status "failed" and say so.
    """

    method: MethodName
    options: Options
    profile: Callable[[ConvexProgram], Profile] = per_node

    def branch_flow(self, network: BalancedNetwork, node: Index) -> BranchFlowDispatch:
        """Return the dispatch of a balanced market."""
        return BranchFlowDispatch(network, node, self)

    def current_injection(self, network: ThreePhaseNetwork, share: sparse.csc_matrix) -> CurrentDispatch:
        """Return the dispatch of a three-phase market."""
        return CurrentDispatch(network, share, self)


class BranchFlowDispatch(exact.ExactDispatch):
    """The balanced market's dispatch by atoms; last : the atoms' own solution of the last clearing."""

    def __init__(self, network: BalancedNetwork, node: Index, plan: Plan) -> None:
        super().__init__(network, node)
        self._plan, self._tangent = plan, BranchFlowTangent(network, self._node)
        self._profile: Profile | None = None
        self.last: DistributedSolution | None = None
        self._kept: SuccessiveSolution[BranchFlowPoint] | None = None

    def solve(self, network: BalancedNetwork, bids: ScaledBids, *, warm: bool = True) -> ExactPoint:
        """Dispatch within all limits to the accuracy of the stopping rule; limits that none keeps are not solved."""
        family = BranchFlowFamily(self._tangent, network, bids)
        kept = self._kept if warm else None
        if kept is None:
            # What the meters show before anyone has moved.
            first = exact.Search(self, self._strict, network, bids, squared_limits(network), np.inf).start(
                None
            )
            u, state = first.u, first.state
            if not first.solved:
                return first
            point = BranchFlowPoint(state, first.y[self._size.current :])
            x, held = self._tangent.start(point, u), None
        else:
            point, x, held = kept.point, kept.solution.x, kept.solution.warm
        if self._profile is None:
            self._profile = self._plan.profile(family.at(point))
        found = solve_successive(
            family, point, x, self._profile, self._plan.method, self._plan.options, warm=held
        )
        self.last, self._kept = found.solution, found if found.converged else None
        return self._judged(network, bids, found)

    def _judged(
        self, network: BalancedNetwork, bids: ScaledBids, found: SuccessiveSolution[BranchFlowPoint]
    ) -> ExactPoint:
        size, x, y = self._size, found.solution.x, found.solution.duals
        u = x[size.control : size.head].reshape(3, -1).copy()
        guess = self._tangent.point(network, x, y).state
        note = _note(found)
        if note or not np.all(np.isfinite(x)):
            return ExactPoint(u, guess, y, x * 0.0, np.inf, np.inf, 0.0, 0.0, found.rounds, False, note)
        state, sweeps = self.flow(network, u, guess)
        z = _limit_multipliers(found.program, x, y)
        if sweeps < 0:
            note = "the atoms' dispatch has no power flow"
            return ExactPoint(u, guess, y, z, np.inf, np.inf, 0.0, 0.0, found.rounds, False, note)
        search = exact.Search(self, self._strict, network, bids, squared_limits(network), np.inf)
        kkt = search.residuals(u, state, y, z).worst
        slack = LIMIT_FACTOR * self._plan.options.stop.primal_pu
        over_v, over_l = (float(part.max(initial=0.0)) for part in search.violations(state))
        return ExactPoint(
            u, state, y, z, kkt, self.ac_residual(network, u, state), _beyond(over_v, slack), _beyond(over_l, slack),
            found.rounds, True, _account(found),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class JointCurrentFamily(CurrentFamily):
    """The three-phase market of atoms in one process: losses bend by the mean of the prices of all of them."""

    def moved(self, point: CurrentPoint, x: Array, y: Array) -> CurrentPoint:
        """Return the point that unknowns and multipliers describe."""
        price = self.tangent.prices(self.problem, y).real
        return self.tangent.moved(point, x, float(price.mean()))


class CurrentDispatch(phase_exact.ExactDispatch):
    """The three-phase market's dispatch by atoms; last : the atoms' own solution of the last clearing.

    Ratings of the wires that are loaded near them are rows, of the current at the from-end.
    """

    def __init__(self, network: ThreePhaseNetwork, share: sparse.csc_matrix, plan: Plan) -> None:
        super().__init__(network, share)
        self._shares, self._plan = share, plan
        self._tangent: CurrentTangent | None = None
        self._on: ThreePhaseNetwork | None = None
        self.last: DistributedSolution | None = None
        self._kept: SuccessiveSolution[CurrentPoint] | None = None

    def solve(self, network: ThreePhaseNetwork, problem: ScaledProblem, *, warm: bool = True) -> Outcome:
        """Dispatch within all limits to the accuracy of the stopping rule; limits that none keeps are not solved."""
        if network is not self.net.network:
            self.net = at_other_taps(self.net, network)
        if self._tangent is None or not _same_wires(self._on, network):
            watched = None if self._tangent is None else self._tangent.watched
            self._tangent, self._on = CurrentTangent(network, self._shares, watched=watched), network
        kept, rounds = self._kept if warm else None, 0
        while True:
            found = self._found(network, problem, kept)
            if found is None:
                note = "no power flow exists at the start (voltage collapse)"
                return Outcome(None, np.inf, np.inf, np.nan, np.nan, rounds, False, note)
            rounds += found.rounds
            more = self._more_watched(found)
            if len(more) == len(self._tangent.watched) or _note(found):
                break
            self._tangent, kept = CurrentTangent(network, self._shares, watched=more), None
        self.last, self._kept = found.solution, found if found.converged else None
        return self._judged(problem, found, rounds)

    def _found(
        self,
        network: ThreePhaseNetwork,
        problem: ScaledProblem,
        kept: SuccessiveSolution[CurrentPoint] | None,
    ) -> SuccessiveSolution[CurrentPoint] | None:
        assert self._tangent is not None
        tangent, bids = self._tangent, problem.bids
        if kept is None or len(kept.solution.x) != tangent.layout.n_column:
            # What the meters show before anyone has moved.
            first = Period(self.points, self.net, problem).start(None)
            if first is None:
                return None
            point = tangent.point(first.v, max(bids.import_price, 0.0))
            x, held = tangent.start(point, first.u, first.head), None
        else:
            point, x, held = kept.point, kept.solution.x, kept.solution.warm
        family = JointCurrentFamily(tangent, network, problem)
        profile = self._plan.profile(family.at(point))
        return solve_successive(family, point, x, profile, self._plan.method, self._plan.options, warm=held)

    def _more_watched(self, found: SuccessiveSolution[CurrentPoint]) -> Index:
        assert self._tangent is not None
        layout, x = self._tangent.layout, found.solution.x
        i = x[layout.current : layout.current + layout.n_wire]
        size = np.hypot(i, x[layout.current + layout.n_wire : layout.control])
        loaded = np.flatnonzero(size > WATCHED_LOADING * self._tangent.wires.i_max_pu)
        return np.union1d(self._tangent.watched, loaded).astype(np.int64)

    def _judged(
        self, problem: ScaledProblem, found: SuccessiveSolution[CurrentPoint], rounds: int
    ) -> Outcome:
        assert self._tangent is not None
        tangent, x, y = self._tangent, found.solution.x, found.solution.duals
        layout, note = tangent.layout, _note(found)
        if note or not np.all(np.isfinite(x)):
            return Outcome(None, np.inf, np.inf, np.nan, np.nan, rounds, False, note)
        u = x[layout.control : layout.head].reshape(3, -1).copy()
        v = self.points.flow(self.net, u, tangent.moved(found.point, x, 0.0).v)
        v_price = _limit_multipliers(found.program, x, y)[: layout.n_free]
        period = Period(self.points, self.net, problem)
        point = period.point(u, v, v_price, self._rating_prices(y))
        if point is None:
            note = "the atoms' dispatch has no power flow"
            return Outcome(None, np.inf, np.inf, np.nan, np.nan, rounds, False, note)
        kkt = period.residual(point)
        point.price = tangent.prices(problem, y)
        over_v, over_i = (float(part.max(initial=0.0)) for part in period.violations(point))
        slack = LIMIT_FACTOR * self._plan.options.stop.primal_pu
        return Outcome(
            point, kkt, period.ac_residual(point), _beyond(over_v, slack), _beyond(over_i, slack), rounds, True,
            _account(found),
        )  # fmt: skip

    def _rating_prices(self, y: Array) -> Array:
        """Return multipliers of the rated wires' ends; those of the watched from-ends are rows."""
        assert self._tangent is not None
        price = np.zeros(len(self.net.i_max))
        rated = np.cumsum(np.isfinite(self._tangent.wires.i_max_pu)) - 1
        watched = self._tangent.watched
        price[rated[watched]] = np.maximum(y[len(y) - len(watched) :], 0.0) if len(watched) else 0.0
        return price


def _same_wires(one: ThreePhaseNetwork | None, other: ThreePhaseNetwork) -> bool:
    """Say whether two networks of one structure differ in nothing but loads and limits of voltages."""
    return one is not None and one.branches is other.branches and one.y is other.y


def _limit_multipliers(program: ConvexProgram, x: Array, y: Array) -> Array:
    """Return signed multipliers of the boxes: what holds an unknown that stands at a limit, zero elsewhere."""
    z = -program.pull(x, y)
    held = ((x >= program.high) & (z > 0.0)) | ((x <= program.low) & (z < 0.0))
    return np.where(held, z, 0.0)


def _beyond(over: float, slack: float) -> float:
    return over if over > slack else 0.0


def _note(found: SuccessiveSolution[BranchFlowPoint] | SuccessiveSolution[CurrentPoint]) -> str:
    if found.converged:
        return ""
    certificate = found.solution.certificate
    return (
        f"atoms not agreed after {found.rounds} rounds (consensus {certificate.consensus_pu:.1e}, equations "
        f"{certificate.primal_pu:.1e}, linearisation {found.bend:.1e} p.u.)"
    )


def _account(found: SuccessiveSolution[BranchFlowPoint] | SuccessiveSolution[CurrentPoint]) -> str:
    return f"cleared by atoms in {found.rounds} rounds at {found.points} points"
