"""One period of the three-phase market at a point: start, derivatives, room, merit and optimality residual."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voltier.grid.flow.derivative import N_SOURCE
from voltier.market.primary.linearised import FIXED_WIDTH_PU
from voltier.market.primary.problem import price_scale
from voltier.market.primary.three_phase.physics import Physics, second_derivative, wire_curvature
from voltier.market.primary.three_phase.point import AcPoint, PointSolver
from voltier.market.primary.three_phase.problem import ScaledProblem
from voltier.market.primary.three_phase.program import Room
from voltier.market.primary.three_phase.tangent import write_hessian

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

# Wires loaded beyond this share of their rating are rows of the program; the others are only checked.
WATCHED_LOADING = 0.8


class Period:
    """A network, bids and limits; penalty [$/kWh per p.u.] prices excess where limits are elastic, 0 if strict."""

    def __init__(
        self,
        points: PointSolver,
        net: Physics,
        problem: ScaledProblem,
        *,
        penalty: float = 0.0,
    ) -> None:
        self.points, self.net, self.problem, self.bids = points, net, problem, problem.bids
        self.penalty, self.scale = penalty, price_scale(problem.bids)
        self._pattern = points.pattern
        self._v_low, self._v_high = (v[N_SOURCE:] for v in (net.network.v_min_pu, net.network.v_max_pu))

    def start(self, warm: AcPoint | None) -> AcPoint | None:
        """Return the last clearing's point under these bids, or that of the forecast; None without power flow."""
        bids, wires = self.bids, len(self.net.i_max)
        if warm is not None and len(warm.i_price) == wires:
            u = np.clip(warm.u, bids.low, bids.high)
            found = self.point(u, self.points.flow(self.net, u, warm.v), warm.v_price, warm.i_price)
            if found is not None:
                return found
        return self.at_rest(self.first_controls()) or self.at_rest(np.clip(0.0, bids.low, bids.high))

    def at_rest(self, u: Array) -> AcPoint | None:
        """Return the point of a dispatch from nothing, with limits that cost nothing."""
        v = self.points.flow(self.net, u)
        return self.point(u, v, np.zeros(self.points.size.n_free), np.zeros(len(self.net.i_max)))

    def first_controls(self) -> Array:
        """Return the forecast, with generators where the import's price would have them."""
        bids = self.bids
        u = np.clip(bids.start, bids.low, bids.high)
        worth = max(bids.import_price, 0.0)
        u[2] = np.clip(worth / np.maximum(bids.weight[2], 1e-12), bids.low[2], bids.high[2])
        return u

    def point(self, u: Array, v: Complex | None, v_price: Array, i_price: Array) -> AcPoint | None:
        """Return the point of solved voltages with these limit multipliers; None for none."""
        return None if v is None else self.points.point(self.net, self.problem, u, v, v_price, i_price)

    def fill(self, point: AcPoint, proximal: float, *, exact: bool) -> None:
        """Write Jacobian and Hessian at the point into the pattern.

        exact : the Hessian of the Lagrangian; else one that prices all losses alike, which is convex.
        """
        self.points.fill(self.net, point.v)
        net, pattern, bids = self.net.balance, self._pattern, self.bids
        plain, mixed = np.empty_like(net.y), np.empty_like(net.y)
        if exact:
            second_derivative(net, point.v, point.price + bids.loss_price, point.price, plain, mixed)
            bend = point.v_price
        else:
            # Losses priced alike everywhere are convex in the voltages.
            alike = np.full_like(point.v, max(float(np.mean(point.price.real)) + bids.loss_price, 0.0))
            second_derivative(net, point.v, alike, np.zeros_like(point.v), plain, mixed)
            bend = np.maximum(point.v_price, 0.0)
        wire_curvature(self.net, point.current, point.i_price, plain, mixed)
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
        return float(np.abs(point.taken - self.points.injection(point.u))[N_SOURCE:].max())
