"""AC points: the grid's power flow of a dispatch, and the adjoint that turns multipliers into prices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import SuperLU

from voltier.grid.errors import PowerFlowError
from voltier.grid.flow.derivative import N_SOURCE, PowerJacobian
from voltier.grid.flow.nodal import injection_needed, load_power
from voltier.market.primary.three_phase.physics import Physics
from voltier.market.primary.three_phase.problem import ScaledProblem, scaled_cost
from voltier.market.primary.three_phase.tangent import Pattern, Size, build_pattern, residual, write_tangent

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

# Mismatch of power [p.u.]; where the admittances of short lines round to more, their rounding is what is met.
FLOW_TOLERANCE_PU = 1e-11
REFINEMENT_LIMIT = 3


@dataclass(slots=True)
class AcPoint:
    """An AC point with multipliers; p.u. and $/kWh.

    u : (3, n_smo); v : (n,); taken : (n,) G(v); head, loss : import and losses; cost : scaled objective
    current : (n_wire,); gradient : (n_column,) of the objective in the nodes' frames
    price : (n,) P + jQ multipliers of the balances; v_price, i_price : of the limits; slope : (3, n_smo)
    derivative of the Lagrangian with the controls
    """

    u: Array
    v: Complex
    taken: Complex
    head: float
    loss: float
    cost: float
    current: Complex
    gradient: Array
    price: Complex
    v_price: Array
    i_price: Array
    slope: Array


def point_solver(net: Physics, share: sparse.csc_matrix) -> PointSolver:
    """Lay out the programs of a network and the operators' shares, (n, n_smo)."""
    tangent = PowerJacobian(net.balance)
    return PointSolver(build_pattern(net.balance, tangent, share), tangent, share)


class PointSolver:
    """Power flow and adjoint for one set of shares; the pattern is filled at its last point."""

    def __init__(self, pattern: Pattern, tangent: PowerJacobian, share: sparse.csc_matrix) -> None:
        self.pattern, self._tangent = pattern, tangent
        self.size = Size(tangent.matrix.shape[0] // 2, share.shape[1])
        self._nodal = sparse.csr_matrix(share)

    def injection(self, u: Array) -> Complex:
        """Return the operators' complex injection at every phase node [p.u.]."""
        return np.asarray(self._nodal @ (u[0] + u[2] + 1j * u[1]))

    def flow(self, net: Physics, u: Array, guess: Complex | None = None) -> Complex | None:
        """Return the voltages of the dispatch u, sought near a guess, or None where there are none."""
        try:
            return net.flow.solve(self.injection(u), guess, FLOW_TOLERANCE_PU).v
        except PowerFlowError:
            # Beyond the nose of the power-flow curve: a dispatch to step back from.
            return None

    def fill(self, net: Physics, v: Complex) -> None:
        """Write the tangent of the balances at v into the pattern."""
        self._tangent.fill(net.balance, v)
        write_tangent(self._tangent, self.pattern)

    def point(
        self, net: Physics, problem: ScaledProblem, u: Array, v: Complex, v_price: Array, i_price: Array
    ) -> AcPoint | None:
        """Return the point of a solved power flow, with the prices that these limit multipliers imply.

        None at the very nose of the power-flow curve, where nothing has a price.
        """
        self.fill(net, v)
        try:
            factor = self._tangent.factor()
        except RuntimeError:
            return None
        taken = injection_needed(net.network, v)
        # what the operators themselves inject there is theirs
        head = float((taken[:N_SOURCE] - self.injection(u)[:N_SOURCE]).real.sum())
        loss = float(taken.real.sum() - load_power(net.network, v).real.sum())
        gradient = self._gradient(net, problem, u, v, head)
        current = np.asarray(net.wires @ v)
        price, slope = self._adjoint(factor, gradient, self._pull(net, gradient, current, v_price, i_price))
        cost = scaled_cost(problem, u, v, head, loss)
        return AcPoint(u, v, taken, head, loss, cost, current, gradient, price, v_price, i_price, slope)

    def _gradient(self, net: Physics, problem: ScaledProblem, u: Array, v: Complex, head: float) -> Array:
        size, bids, y = self.size, problem.bids, net.balance
        f = size.n_free
        out = np.zeros(size.n_column)
        # Re(vᴴ Y v) = Re vᴴ ½(Y + Yᴴ) v, and the pattern holds Yᴴ as the conjugate of the mirror.
        symmetric = y.y + np.conj(y.y[y.mirror])
        drawn = sparse.csr_matrix((symmetric, y.column, y.first), shape=(len(v), len(v))) @ v
        away = 2.0 * problem.voltage_weight * (v - problem.v_target)
        pull = np.conj(self._tangent.frame) * (bids.loss_price * drawn + away)
        out[:f], out[f : 2 * f] = pull.real[N_SOURCE:], pull.imag[N_SOURCE:]
        out[size.control : size.head] = (bids.weight * u + bids.linear).ravel()
        out[size.head] = bids.import_price + bids.import_curvature * head
        return out

    def wire_tangent(self, net: Physics, current: Complex) -> Array:
        """Return (entries, 2): the derivative of |i| with a and b of each node of each rated wire's end."""
        size = np.abs(current)
        turn = np.where(size > 1e-9, np.conj(current) / np.maximum(size, 1e-9), 0.0)
        along = (
            np.repeat(turn, np.diff(net.wires.indptr)) * net.wires.data * self._tangent.frame[net.wire_node]
        )
        return np.stack([along.real, -along.imag], axis=1)

    def _pull(self, net: Physics, gradient: Array, current: Complex, v_price: Array, i_price: Array) -> Array:
        """Return the gradient of the objective and of the priced limits."""
        f, pull = self.size.n_free, gradient.copy()
        pull[:f] += v_price
        if np.any(i_price):
            weight = np.repeat(i_price, np.diff(net.wires.indptr))[:, None]
            tangent = weight * self.wire_tangent(net, current)
            for part in range(2):
                load = np.bincount(net.wire_node, tangent[:, part], f + N_SOURCE)
                pull[part * f : (part + 1) * f] += load[N_SOURCE:]
        return pull

    def _adjoint(self, factor: SuperLU, gradient: Array, pull: Array) -> tuple[Complex, Array]:
        size, matrix = self.size, self.pattern.matrix
        f = size.n_free
        y = np.zeros(size.n_row)
        y[-1] = gradient[size.head]
        left = np.empty(size.n_column)
        goal = 1e-11 * max(float(np.abs(pull).max()), 1e-3)
        for _ in range(REFINEMENT_LIMIT):
            residual(matrix.indptr, matrix.indices, matrix.data, pull, y, left)
            if float(np.abs(left[: 2 * f]).max()) <= goal:
                break
            y[:-1] -= factor.solve(left[: 2 * f], trans="T")
        residual(matrix.indptr, matrix.indices, matrix.data, pull, y, left)
        price = np.full(f + N_SOURCE, y[-1], dtype=np.complex128)
        price[N_SOURCE:] = y[:f] + 1j * y[f : 2 * f]
        return price, left[size.control : size.head].reshape(3, -1)
