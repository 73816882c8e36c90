"""AC-exact dispatch: sequential quadratic programs on the branch-flow equations, every iterate a power flow.

The unknown that is searched is only u = (net power, reactive power, generation) of the operators; a
distribution sweep turns each u into an exact AC point, so the answer satisfies the physics whatever the
program's accuracy. At that point l = (P² + Q²)/w is linearised and its convex second-order part, weighted
with the multiplier of the row, is added to the objective. Steps are accepted when the optimality residual
falls or when cost plus weighted limit violation falls; otherwise they are shortened and held back by a
proximal term.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from voltier.grid.network import BalancedNetwork
from voltier.market.primary.distflow import flow_residual, sweep
from voltier.market.primary.linearised import (
    Limits,
    Rows,
    Step,
    TangentProgram,
    fill_tangent,
    squared_limits,
    stationarity,
)
from voltier.market.primary.problem import ScaledBids, price_scale

Array = NDArray[np.float64]
Index = NDArray[np.int64]

KKT_TOLERANCE = 1e-6
# Accepted when no further step improves: prices are then still good to about this share of themselves.
KKT_ACCEPTABLE = 1e-4
ITERATION_LIMIT = 40
# Squared p.u. beyond a limit that is rounding, not a violation.
LIMIT_TOLERANCE_PU = 1e-6
# Price of a unit of squared voltage or current beyond its limit, in multiples of the dearest price of energy.
PENALTY_FACTOR = 1e2


@dataclass(frozen=True, slots=True)
class Residuals:
    """Optimality: stationarity and complementarity as shares of the price scale, violation in p.u."""

    stationarity: float
    violation: float
    complementarity: float

    @property
    def worst(self) -> float:
        """The largest of the three."""
        return max(self.stationarity, self.violation, self.complementarity)


@dataclass(slots=True)
class ExactPoint:
    """An AC point with multipliers. u : (3, n_smo); state : (4, n_node); y : rows; all p.u. and $/kWh."""

    u: Array
    state: Array
    y: Array
    z: Array
    kkt: float
    ac_residual: float
    v_slack: float
    l_slack: float
    iterations: int
    solved: bool
    note: str


@njit(cache=True)
def nodal_sum(node: Index, active: Array, out: Array) -> None:
    """Add each operator's value to its node's place in out, which is first set to zero."""
    out[:] = 0.0
    for k in range(node.size):
        out[node[k]] += active[k]


class ExactDispatch:
    """Solver of the AC-exact problem for one network structure; keeps its last point as the next start."""

    def __init__(self, network: BalancedNetwork, node: Index) -> None:
        self._node = np.asarray(node, dtype=np.int64)
        self._first = network
        self._parent = np.asarray(network.parent, dtype=np.int64)
        self._size = Rows(len(network.parent), len(node))
        self._strict = TangentProgram(network, self._node, elastic=False)
        self._elastic: TangentProgram | None = None
        self._warm: ExactPoint | None = None

    def solve(self, network: BalancedNetwork, bids: ScaledBids, *, warm: bool = True) -> ExactPoint:
        """Dispatch within all limits if that can be, else with the least priced violation."""
        limits = squared_limits(network)
        start = self._warm if warm else None
        point = Search(self, self._strict, network, bids, limits, np.inf).run(start)
        if not point.solved:
            if self._elastic is None:
                self._elastic = TangentProgram(self._first, self._node, elastic=True)
            penalty = PENALTY_FACTOR * price_scale(bids)
            again = Search(self, self._elastic, network, bids, limits, penalty).run(None)
            again.iterations += point.iterations
            point = again
        # A point priced by penalties would be a poor guess of a market that keeps its limits.
        kept = max(point.v_slack, point.l_slack) <= LIMIT_TOLERANCE_PU
        self._warm = point if point.solved and kept else None
        return point

    def flow(self, network: BalancedNetwork, u: Array, guess: Array) -> tuple[Array, int]:
        """Return the AC state of the dispatch u and the sweeps it took (-1: no such state)."""
        n = self._size.n_node
        p, q = np.empty(n), np.empty(n)
        nodal_sum(self._node, u[0] + u[2], p)
        nodal_sum(self._node, u[1], q)
        state = guess.copy()
        count = sweep(
            self._parent,
            network.r_pu,
            network.x_pu,
            network.ratio,
            network.b_pu,
            network.v_root_pu,
            p,
            q,
            state,
        )
        return state, count

    def ac_residual(self, network: BalancedNetwork, u: Array, state: Array) -> float:
        """Return the largest branch-flow residual of a state for the dispatch u [p.u.]."""
        n = self._size.n_node
        p, q = np.empty(n), np.empty(n)
        nodal_sum(self._node, u[0] + u[2], p)
        nodal_sum(self._node, u[1], q)
        return flow_residual(
            self._parent, network.r_pu, network.x_pu, network.ratio, network.b_pu, p, q, state
        )


class Search:
    """One run of sequential quadratic programming."""

    def __init__(
        self,
        owner: ExactDispatch,
        program: TangentProgram,
        network: BalancedNetwork,
        bids: ScaledBids,
        limits: Limits,
        penalty: float,
    ) -> None:
        self._owner, self._program, self._network, self._bids = owner, program, network, bids
        self._limits, self._penalty = limits, penalty
        self._size = program.size
        self._scale = price_scale(bids)
        self._merit_weight = 0.0 if np.isinf(penalty) else penalty
        program.bid(network, bids, limits, 0.0 if np.isinf(penalty) else penalty)

    def run(self, warm: ExactPoint | None) -> ExactPoint:
        """Iterate from the last clearing's point, or from the forecast."""
        point = self.start(warm)
        if not point.solved:
            return point
        point.solved = False
        proximal, best = 0.0, np.inf
        for count in range(1, ITERATION_LIMIT + 1):
            point.iterations = count
            self._program.tangent(self._network.ratio, point.state, point.y[self._size.current :])
            step = self._program.solve(point.state, point.u, proximal)
            if not (step.solved and np.all(np.isfinite(step.u))):
                point.note = f"quadratic program {count} has no solution"
                return point
            step.u = np.clip(step.u, self._bids.low, self._bids.high)
            moved = self._move(point, step, best)
            if moved is None:
                if best <= KKT_ACCEPTABLE:
                    break
                proximal = max(10.0 * proximal, 1e-3 * self._scale)
                if proximal > 1e6 * self._scale:
                    break
                continue
            proximal = 0.1 * proximal if proximal > 1e-6 * self._scale else 0.0
            moved.iterations, point = count, moved
            best = min(best, point.kkt)
            if point.kkt <= KKT_TOLERANCE:
                break
        return self._finish(point)

    def start(self, warm: ExactPoint | None) -> ExactPoint:
        """Return the power flow of the last clearing's controls, or of the forecast."""
        size, network, bids = self._size, self._network, self._bids
        state = np.zeros((4, size.n_node))
        state[2] = network.v_root_pu**2
        y, z = np.zeros(size.n_row), np.zeros(size.n_column)
        if warm is not None:
            u, y, state = np.clip(warm.u, bids.low, bids.high), warm.y, warm.state
        else:
            u = np.clip(bids.start, bids.low, bids.high)
            worth = max(bids.import_price, 0.0)
            dear = np.maximum(bids.weight[2], 1e-12)
            u[2] = np.clip(worth / dear, bids.low[2], bids.high[2])
            y[size.current :] = -(bids.import_price + bids.loss_price) * network.r_pu[1:]
        state, sweeps = self._owner.flow(network, u, state)
        if sweeps < 0:
            state[:] = 0.0
            state[2] = network.v_root_pu**2
            u = np.clip(np.zeros_like(u), bids.low, bids.high)
            state, sweeps = self._owner.flow(network, u, state)
        note = "" if sweeps >= 0 else "no power flow exists at the start (voltage collapse)"
        return ExactPoint(u, state, y, z, np.inf, np.inf, 0.0, 0.0, 0, sweeps >= 0, note)

    def _move(self, point: ExactPoint, step: Step, best: float) -> ExactPoint | None:
        """Return the accepted next point on the way from point to step.u, or None."""
        if np.isinf(self._penalty):
            # An exact penalty outweighs every multiplier; the elastic form has its price already.
            largest = float(
                np.abs(step.z[2 * self._size.n_branch : 4 * self._size.n_branch]).max(initial=0.0)
            )
            self._merit_weight = max(self._merit_weight, 2.0 * largest)
        here = self._merit(point.u, point.state)
        share = 1.0
        for _ in range(8):
            u = point.u + share * (step.u - point.u) if share < 1.0 else step.u
            state, sweeps = self._owner.flow(self._network, u, point.state)
            if sweeps >= 0:
                kkt = self.residuals(u, state, step.y, step.z).worst
                if kkt <= max(0.5 * best, KKT_TOLERANCE) or self._merit(u, state) < here:
                    return ExactPoint(u, state, step.y, step.z, kkt, np.inf, 0.0, 0.0, 0, False, "")
            share *= 0.4
        return None

    def _merit(self, u: Array, state: Array) -> float:
        bids = self._bids
        head = state[0, 0]
        cost = float(np.sum((0.5 * bids.weight * u + bids.linear) * u))
        cost += bids.import_price * head + 0.5 * bids.import_curvature * head**2
        cost += bids.loss_price * float(self._network.r_pu @ state[3])
        return cost + self._merit_weight * float(sum(part.sum() for part in self.violations(state)))

    def violations(self, state: Array) -> tuple[Array, Array]:
        """Return how far squared voltages and squared currents are beyond their limits [p.u.]."""
        v, current = state[2, 1:], state[3, 1:]
        over = np.maximum(v - self._limits.v_high, 0.0) + np.maximum(self._limits.v_low - v, 0.0)
        return over, np.maximum(current - self._limits.l_high, 0.0)

    def residuals(self, u: Array, state: Array, y: Array, z: Array) -> Residuals:
        """Judge the point (u, state) with multipliers y, z against the exact problem."""
        size, m, bids, pattern = self._size, self._size.n_branch, self._bids, self._program.pattern
        matrix = self._program.matrix
        fill_tangent(
            self._owner._parent, self._network.ratio, state, pattern.tangent, pattern.drop, matrix.data,
            np.empty(size.n_row), y[size.current :], np.empty(m),
        )  # fmt: skip
        gradient = np.zeros(size.n_column)
        gradient[3 * m : 4 * m] = bids.loss_price * self._network.r_pu[1:]
        gradient[size.control : size.head] = (bids.weight * u + bids.linear).ravel()
        gradient[size.head] = bids.import_price + bids.import_curvature * state[0, 0]
        left = stationarity(matrix.indptr, matrix.indices, matrix.data, gradient, y, z)
        fixed = bids.high - bids.low < 1e-9
        left[size.control : size.head][fixed.ravel()] = 0.0
        over_v, over_l = self.violations(state)
        violation = max(over_v.max(initial=0.0), over_l.max(initial=0.0)) if np.isinf(self._penalty) else 0.0
        scale = max(self._scale, float(np.abs(y[: size.n_node]).max()))
        return Residuals(
            float(np.abs(left).max()) / scale, float(violation), self._complementarity(u, state, z) / scale
        )

    def _complementarity(self, u: Array, state: Array, z: Array) -> float:
        size, m, bids, limits = self._size, self._size.n_branch, self._bids, self._limits
        zv, zl = z[2 * m : 3 * m], z[3 * m : 4 * m]
        zu = z[size.control : size.head].reshape(3, -1)
        products = [
            np.maximum(zu, 0.0) * (bids.high - u),
            np.maximum(-zu, 0.0) * (u - bids.low),
            np.maximum(zv, 0.0) * np.maximum(limits.v_high - state[2, 1:], 0.0),
            np.maximum(-zv, 0.0) * np.maximum(state[2, 1:] - limits.v_low, 0.0),
        ]
        limited = np.isfinite(limits.l_high)
        products.append(np.maximum(zl[limited], 0.0) * np.maximum(limits.l_high - state[3, 1:], 0.0)[limited])
        if np.isfinite(self._penalty):
            over_v, over_l = self.violations(state)
            products += [over_v * np.abs(self._penalty - np.abs(zv)), over_l * np.abs(self._penalty - zl)]
        return max(float(part.max(initial=0.0)) for part in products)

    def _finish(self, point: ExactPoint) -> ExactPoint:
        over_v, over_l = self.violations(point.state)
        point.v_slack, point.l_slack = float(over_v.max(initial=0.0)), float(over_l.max(initial=0.0))
        point.ac_residual = self._owner.ac_residual(self._network, point.u, point.state)
        point.solved = point.kkt <= KKT_ACCEPTABLE
        if point.kkt > KKT_TOLERANCE:
            point.note = f"stopped at optimality residual {point.kkt:.1e}"
        return point
