"""AC points: Newton's power flow with a kept factor, and the adjoint that turns multipliers into prices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from voltier.market.primary.three_phase.physics import (
    N_SOURCE,
    Physics,
    first_derivative,
    losses,
    taken_power,
    wire_current,
)
from voltier.market.primary.three_phase.problem import ScaledProblem, scaled_cost
from voltier.market.primary.three_phase.tangent import Pattern, Size, residual, write_jacobian

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

# Mismatch of power [p.u.] that is rounding of the admittances of short lines.
FLOW_TOLERANCE_PU = 1e-10
FLOW_ACCEPTABLE_PU = 1e-8
NEWTON_LIMIT = 30
# A kept factor serves while each step shrinks the mismatch to this share.
CHORD_RATE = 0.2
REFINEMENT_LIMIT = 6
# Parts of a dispatch on the way to one that Newton's method does not reach from no load.
APPROACH = (0.25, 0.5, 0.75, 0.9, 1.0)


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


class PointSolver:
    """Power flow and adjoint of one network and one set of shares; the pattern is filled at its last point."""

    def __init__(self, pattern: Pattern, share: sparse.csc_matrix) -> None:
        self.pattern, self._share = pattern, share
        n_free = pattern.jacobian.shape[0] // 2
        self.size = Size(n_free, share.shape[1])
        self._nodal = sparse.csr_matrix(share)
        self._factor: SuperLU | None = None
        self._frame = np.ones(n_free + N_SOURCE, dtype=np.complex128)
        self._order = np.arange(2 * n_free)

    def injection(self, u: Array) -> Complex:
        """Return the operators' complex injection at every phase node [p.u.]."""
        return np.asarray(self._nodal @ (u[0] + u[2] + 1j * u[1]))

    def flow(self, net: Physics, u: Array, guess: Complex) -> Complex | None:
        """Return the voltages of the dispatch u, or None where Newton's method finds none from the guess."""
        injected = self.injection(u)
        v, taken = guess.copy(), np.empty_like(guess)
        self._factor = None
        before = np.inf
        for _ in range(NEWTON_LIMIT):
            taken_power(net, v, taken)
            off = (taken - injected)[N_SOURCE:]
            size = float(np.abs(off).max())
            if size <= FLOW_TOLERANCE_PU:
                return v
            if not np.isfinite(size):
                return None
            if size > CHORD_RATE * before or self._factor is None:
                if size <= FLOW_ACCEPTABLE_PU and self._factor is not None and size >= before:
                    return v
                if not self._factorise(net, v):
                    return None
            step = self._solve(-np.concatenate([off.real, off.imag]))
            f = self.size.n_free
            move = self._frame[N_SOURCE:] * (step[:f] + 1j * step[f:])
            # Half the voltage in one step is no longer the neighbourhood the tangent speaks of.
            v[N_SOURCE:] += move * min(1.0, 0.5 / max(float(np.abs(move).max()), 1e-300))
            before = size
        return v if size <= FLOW_ACCEPTABLE_PU else None

    def first_flow(self, net: Physics, u: Array, v_source: float) -> Complex | None:
        """Return the voltages of the dispatch u from nothing, or None where no power flow is found.

        The search starts at the voltages without any injection, and where that is too far, approaches in parts.
        """
        n = len(net.first) - 1
        y = sparse.csc_matrix(sparse.csr_matrix((net.y, net.column, net.first), shape=(n, n)))
        v = np.full(n, v_source, dtype=np.complex128)
        right = -np.asarray(y[N_SOURCE:, :N_SOURCE] @ v[:N_SOURCE])
        v[N_SOURCE:] = splu(sparse.csc_matrix(y[N_SOURCE:, N_SOURCE:])).solve(right)
        found = self.flow(net, u, v)
        if found is not None:
            return found
        for part in APPROACH:
            nearer = self.flow(net, part * u, v)
            if nearer is None:
                return None
            v = nearer
        return v

    def _factorise(self, net: Physics, v: Complex) -> bool:
        self.fill(net, v)
        try:
            self._factor = splu(self.pattern.jacobian)
        except RuntimeError:
            # A singular Jacobian is the nose of the power-flow curve: no such state near here.
            return False
        return True

    def _solve(self, right: Array, trans: str = "N") -> Array:
        assert self._factor is not None
        return np.asarray(self._factor.solve(right, trans=trans))

    def fill(self, net: Physics, v: Complex) -> None:
        """Write the Jacobian at v into the pattern."""
        with_v, with_conj = np.empty_like(net.y), np.empty_like(net.y)
        first_derivative(net, v, with_v, with_conj)
        self._frame = v / np.abs(v)
        pattern = self.pattern
        write_jacobian(net, self._frame, with_v, with_conj, pattern.entry, pattern.matrix.data)
        pattern.jacobian.data[:] = pattern.matrix.data[pattern.square]

    def point(
        self, net: Physics, problem: ScaledProblem, u: Array, v: Complex, v_price: Array, i_price: Array
    ) -> AcPoint:
        """Return the point of a solved power flow, with the prices that these limit multipliers imply."""
        self.fill(net, v)
        if self._factor is None:
            self._factor = splu(self.pattern.jacobian)
        taken = np.empty_like(v)
        taken_power(net, v, taken)
        head = float((taken[:N_SOURCE] - self.injection(u)[:N_SOURCE]).real.sum())
        loss = losses(net, v)
        gradient = self._gradient(net, problem, u, v, head)
        current = wire_current(net, v)
        price, slope = self._adjoint(net, gradient, current, v_price, i_price)
        cost = scaled_cost(problem, u, v, head, loss)
        return AcPoint(u, v, taken, head, loss, cost, current, gradient, price, v_price, i_price, slope)

    def _gradient(self, net: Physics, problem: ScaledProblem, u: Array, v: Complex, head: float) -> Array:
        size, bids = self.size, problem.bids
        f = size.n_free
        out = np.zeros(size.n_column)
        # Re(vᴴ Y v) = Re vᴴ ½(Y + Yᴴ) v, and the pattern holds Yᴴ as the conjugate of the mirror.
        symmetric = net.y + np.conj(net.y[net.mirror])
        drawn = sparse.csr_matrix((symmetric, net.column, net.first), shape=(len(v), len(v))) @ v
        away = 2.0 * problem.voltage_weight * (v - problem.v_target)
        pull = np.conj(self._frame) * (bids.loss_price * drawn + away)
        out[:f], out[f : 2 * f] = pull.real[N_SOURCE:], pull.imag[N_SOURCE:]
        out[size.control : size.head] = (bids.weight * u + bids.linear).ravel()
        out[size.head] = bids.import_price + bids.import_curvature * head
        return out

    def wire_tangent(self, net: Physics, current: Complex) -> Array:
        """Return (entries, 2): the derivative of |i| with a and b of each node of each rated wire's end."""
        size = np.abs(current)
        turn = np.where(size > 1e-9, np.conj(current) / np.maximum(size, 1e-9), 0.0)
        along = np.repeat(turn, np.diff(net.wire_first)) * net.wire_y * self._frame[net.wire_node]
        return np.stack([along.real, -along.imag], axis=1)

    def _adjoint(
        self, net: Physics, gradient: Array, current: Complex, v_price: Array, i_price: Array
    ) -> tuple[Complex, Array]:
        size, pattern = self.size, self.pattern
        f, matrix = size.n_free, pattern.matrix
        pull = gradient.copy()
        pull[:f] += v_price
        if np.any(i_price):
            tangent = np.repeat(i_price, np.diff(net.wire_first))[:, None] * self.wire_tangent(net, current)
            for part in range(2):
                load = np.bincount(net.wire_node, tangent[:, part], f + N_SOURCE)
                pull[part * f : (part + 1) * f] += load[N_SOURCE:]
        y = np.zeros(size.n_row)
        y[-1] = gradient[size.head]
        left = np.empty(size.n_column)
        goal = 1e-11 * max(float(np.abs(pull).max()), 1e-3)
        for _ in range(REFINEMENT_LIMIT):
            residual(matrix.indptr, matrix.indices, matrix.data, pull, y, left)
            if float(np.abs(left[: 2 * f]).max()) <= goal:
                break
            y[:-1] -= self._solve(left[: 2 * f], "T")
        residual(matrix.indptr, matrix.indices, matrix.data, pull, y, left)
        price = np.full(f + N_SOURCE, y[-1], dtype=np.complex128)
        price[N_SOURCE:] = y[:f] + 1j * y[f : 2 * f]
        return price, left[size.control : size.head].reshape(3, -1)
