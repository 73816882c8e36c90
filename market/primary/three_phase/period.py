"""One period of the three-phase market at a point: start, derivatives, room, merit and optimality residual."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.linearised import FIXED_WIDTH_PU
from voltier.market.primary.problem import ScaledBids
from voltier.market.primary.three_phase.physics import (
    N_SOURCE,
    Physics,
    second_derivative,
    taken_power,
    wire_curvature,
)
from voltier.market.primary.three_phase.point import AcPoint, PointSolver
from voltier.market.primary.three_phase.problem import ScaledProblem
from voltier.market.primary.three_phase.program import Room
from voltier.market.primary.three_phase.tangent import write_hessian

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

# Wires loaded beyond this share of their rating are rows of the program; the others are only checked.
WATCHED_LOADING = 0.8


def price_scale(bids: ScaledBids) -> float:
    """Return a size of prices [$/kWh] against which duals are judged."""
    marginal = np.abs(bids.weight[2] * bids.high[2])
    dearest = float(marginal.max()) if marginal.size else 0.0
    return max(abs(bids.import_price), abs(bids.loss_price), min(dearest, 10.0), 1e-2)


class Period:
    """A network, bids and limits; penalty [$/kWh per p.u.] prices excess where limits are elastic, 0 if strict."""

    def __init__(
        self,
        points: PointSolver,
        net: Physics,
        network: ThreePhaseNetwork,
        problem: ScaledProblem,
        *,
        penalty: float = 0.0,
    ) -> None:
        self.points, self.net, self.problem, self.bids = points, net, problem, problem.bids
        self.penalty, self.scale = penalty, price_scale(problem.bids)
        self._pattern, self._v_source = points.pattern, network.v_source_pu
        self._v_low, self._v_high = network.v_min_pu[N_SOURCE:], network.v_max_pu[N_SOURCE:]

    def start(self, warm: AcPoint | None) -> AcPoint | None:
        """Return the last clearing's point under these bids, or that of the forecast; None without power flow."""
        bids, net = self.bids, self.net
        n, wires = len(net.first) - 1, len(net.i_max)
        v_price, i_price = np.zeros(n - N_SOURCE), np.zeros(wires)
        if warm is not None and len(warm.i_price) == wires:
            u, guess = np.clip(warm.u, bids.low, bids.high), warm.v.copy()
            guess[:N_SOURCE] = self._v_source
            state = self.points.flow(net, u, guess)
            if state is not None:
                return self.point(u, state, warm.v_price, warm.i_price)
        u = self.first_controls()
        state = self.points.first_flow(net, u, self._v_source)
        if state is None:
            u = np.clip(np.zeros_like(u), bids.low, bids.high)
            state = self.points.first_flow(net, u, self._v_source)
        return None if state is None else self.point(u, state, v_price, i_price)

    def first_controls(self) -> Array:
        """Return the forecast, with generators where the import's price would have them."""
        bids = self.bids
        u = np.clip(bids.start, bids.low, bids.high)
        worth = max(bids.import_price, 0.0)
        u[2] = np.clip(worth / np.maximum(bids.weight[2], 1e-12), bids.low[2], bids.high[2])
        return u

    def point(self, u: Array, v: Complex, v_price: Array, i_price: Array) -> AcPoint:
        """Return the point of solved voltages with these limit multipliers."""
        return self.points.point(self.net, self.problem, u, v, v_price, i_price)

    def fill(self, point: AcPoint, proximal: float, *, exact: bool) -> None:
        """Write Jacobian and Hessian at the point into the pattern.

        exact : the Hessian of the Lagrangian; else one that prices all losses alike, which is convex.
        """
        self.points.fill(self.net, point.v)
        net, pattern, bids = self.net, self._pattern, self.bids
        plain, mixed = np.empty_like(net.y), np.empty_like(net.y)
        if exact:
            second_derivative(net, point.v, point.price + bids.loss_price, point.price, plain, mixed)
            bend = point.v_price
        else:
            # Losses priced alike everywhere are convex in the voltages.
            alike = np.full_like(point.v, max(float(np.mean(point.price.real)) + bids.loss_price, 0.0))
            second_derivative(net, point.v, alike, np.zeros_like(point.v), plain, mixed)
            bend = np.maximum(point.v_price, 0.0)
        wire_curvature(net, point.current, point.i_price, point.v, plain, mixed)
        data = pattern.hessian.data
        frame = point.v / np.abs(point.v)
        write_hessian(net, frame, plain, mixed, pattern.curve, data)
        size = self.points.size
        f, flat = size.n_free, slice(size.control, size.head)
        diagonal = pattern.diagonal
        # Half the form of |v - target|² is the unit matrix; |v| bends only across its own direction.
        data[diagonal[: 2 * f]] += 2.0 * self.problem.voltage_weight
        data[diagonal[f : 2 * f]] += bend / np.abs(point.v[N_SOURCE:])
        data[diagonal[flat]] = bids.weight.ravel() + proximal
        data[diagonal[size.head]] = bids.import_curvature

    def loaded(self, point: AcPoint) -> Index:
        """Return the wires near their rating."""
        return np.flatnonzero(np.abs(point.current) > WATCHED_LOADING * self.net.i_max)

    def room(self, point: AcPoint) -> Room:
        """Return what is left of every limit."""
        size = np.abs(point.v[N_SOURCE:])
        return Room(self._v_low - size, self._v_high - size, self.net.i_max - np.abs(point.current))

    def moved(self, point: AcPoint, du: Array, dv: Complex) -> tuple[Array, Complex | None]:
        """Return the controls after a step, kept in their boxes, and their AC voltages, sought near dv's."""
        u = np.clip(point.u + du, self.bids.low, self.bids.high)
        guess = point.v.copy()
        guess[N_SOURCE:] += point.v[N_SOURCE:] / np.abs(point.v[N_SOURCE:]) * dv
        return u, self.points.flow(self.net, u, guess)

    def merit(self, point: AcPoint, weight: float) -> float:
        """Return cost plus weighted excess over the limits."""
        return point.cost + weight * float(sum(part.sum() for part in self.violations(point)))

    def violations(self, point: AcPoint) -> tuple[Array, Array]:
        """Return the excess over the limits of voltages and of wires [p.u.]."""
        v = np.abs(point.v[N_SOURCE:])
        over = np.maximum(v - self._v_high, 0.0) + np.maximum(self._v_low - v, 0.0)
        return over, np.maximum(np.abs(point.current) - self.net.i_max, 0.0)

    def residual(self, point: AcPoint) -> float:
        """Return the largest of the relative gain of a control that can still move, violation, complementarity."""
        bids = self.bids
        scale = max(self.scale, float(np.abs(point.price).max()))
        # What a control could still gain: its slope times the share of its box that is left that way.
        way = np.where(point.slope > 0.0, point.u - bids.low, bids.high - point.u)
        width = bids.high - bids.low
        # Boxes that the program takes for points leave nothing to gain.
        left = np.where(width < FIXED_WIDTH_PU, 0.0, way / np.maximum(width, FIXED_WIDTH_PU))
        stationarity = np.abs(point.slope) / scale * left
        v = np.abs(point.v[N_SOURCE:])
        over_v, over_i = self.violations(point)
        products = [
            np.maximum(point.v_price, 0.0) * np.maximum(self._v_high - v, 0.0),
            np.maximum(-point.v_price, 0.0) * np.maximum(v - self._v_low, 0.0),
            np.maximum(point.i_price, 0.0) * np.maximum(self.net.i_max - np.abs(point.current), 0.0),
        ]
        violation = 0.0
        if self.penalty > 0.0:
            products += [over_v * np.abs(self.penalty - np.abs(point.v_price))]
            products += [over_i * np.abs(self.penalty - point.i_price)]
        else:
            violation = max(over_v.max(initial=0.0), over_i.max(initial=0.0))
        slack = max(float(part.max(initial=0.0)) for part in products) / scale
        return max(float(stationarity.max(initial=0.0)), float(violation), slack)

    def ac_residual(self, point: AcPoint) -> float:
        """Return the largest mismatch of complex power at a node [p.u.]."""
        taken = np.empty_like(point.v)
        taken_power(self.net, point.v, taken)
        return float(np.abs(taken - self.points.injection(point.u))[N_SOURCE:].max())
