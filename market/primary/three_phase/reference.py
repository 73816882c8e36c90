"""The three-phase market as one readable non-convex program, solved by Ipopt through casadi, for reference.

Slow and plain on purpose: currents balance at every phase node, voltages and controls are unknowns alike. It needs
the package casadi, which only tests and benchmarks install; nothing else imports this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import casadi as ca
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.flow.derivative import N_SOURCE
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices
from voltier.market.primary.three_phase.physics import rated_wires
from voltier.market.primary.three_phase.problem import ScaledProblem, SocialWeights, scale_problem

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, slots=True)
class ReferenceDispatch:
    """A local optimum of Ipopt; as in ThreePhaseClearing. success : Ipopt's own verdict."""

    p_kw: Array
    q_kvar: Array
    gen_kw: Array
    v: Complex
    p_import_kw: float
    cost_usd_per_h: float
    success: bool
    status: str
    iterations: int


class ReferenceProgram:
    """The program of one network and one set of bids, built symbolically; solve() runs Ipopt on it."""

    def __init__(
        self,
        network: ThreePhaseNetwork,
        share: sparse.spmatrix,
        bids: PrimaryBids,
        prices: PrimaryPrices,
        weights: SocialWeights,
    ) -> None:
        self._network = network
        problem = scale_problem(bids, prices, weights, network.s_phase_kva)
        self._bids, n, n_smo = problem.bids, network.y.shape[0], share.shape[1]
        real, imag = ca.SX.sym("real", n), ca.SX.sym("imag", n)
        u = ca.SX.sym("u", 3 * n_smo)
        p, q, gen = (u[k * n_smo : (k + 1) * n_smo] for k in range(3))
        spread = _casadi(sparse.csc_matrix(share, dtype=float))
        active, reactive = spread @ (p + gen), spread @ q
        drawn = _times(network.y, (real, imag))
        load = _load_current(network, (real, imag))
        # conj(S/v) = (P - jQ)/(vr - j vi)
        square = real**2 + imag**2
        market = (active * real + reactive * imag) / square, (active * imag - reactive * real) / square
        balance = [drawn[part] + load[part] - market[part] for part in range(2)]
        source = slice(0, N_SOURCE)
        head = ca.sum1(real[source] * balance[0][source] + imag[source] * balance[1][source])
        loss = ca.dot(real, drawn[0]) + ca.dot(imag, drawn[1])
        cost = _cost(problem, u, (real, imag), head, loss)
        wire, i_max = rated_wires(network)
        current = _times(wire, (real, imag))
        rules = [part[N_SOURCE:] for part in balance] + [square[N_SOURCE:], current[0] ** 2 + current[1] ** 2]
        zero = np.zeros(2 * (n - N_SOURCE))
        self._low = np.concatenate([zero, network.v_min_pu[N_SOURCE:] ** 2, np.full(len(i_max), -np.inf)])
        self._high = np.concatenate([zero, network.v_max_pu[N_SOURCE:] ** 2, i_max**2])
        x = ca.vertcat(real, imag, u)
        program = {"x": x, "f": cost, "g": ca.vertcat(*rules)}
        # Short lines make large entries: scaled away, the balances would be met to 1e-6 only.
        ipopt = {"print_level": 0, "sb": "yes", "tol": 1e-9, "constr_viol_tol": 1e-10, "max_iter": 500}
        options: dict[str, Any] = {"print_time": False, "ipopt": ipopt}
        self._solver = ca.nlpsol("market", "ipopt", program, options)
        self._head = ca.Function("head", [x], [head])

    def solve(self) -> ReferenceDispatch:
        """Solve from a flat voltage and the forecast."""
        network, bids, base = self._network, self._bids, self._network.s_phase_kva
        n, free = network.y.shape[0], np.full(network.y.shape[0], np.inf)
        real_low, real_high = -free, free.copy()
        real_low[:N_SOURCE] = real_high[:N_SOURCE] = network.v_source_pu
        imag_low, imag_high = -free, free.copy()
        imag_low[:N_SOURCE] = imag_high[:N_SOURCE] = 0.0
        start = np.clip(bids.start, bids.low, bids.high).ravel()
        answer = self._solver(
            x0=np.concatenate([np.full(n, network.v_source_pu), np.zeros(n), start]),
            lbx=np.concatenate([real_low, imag_low, bids.low.ravel()]),
            ubx=np.concatenate([real_high, imag_high, bids.high.ravel()]),
            lbg=self._low,
            ubg=self._high,
        )
        x, stats = np.asarray(answer["x"]).ravel(), self._solver.stats()
        p, q, gen = x[2 * n :].reshape(3, -1) * base
        return ReferenceDispatch(
            p_kw=p,
            q_kvar=q,
            gen_kw=gen,
            v=x[:n] + 1j * x[n : 2 * n],
            p_import_kw=float(self._head(x)) * base,
            cost_usd_per_h=float(answer["f"]) * base,
            success=bool(stats["success"]),
            status=str(stats["return_status"]),
            iterations=int(stats["iter_count"]),
        )


def _casadi(matrix: sparse.csc_matrix) -> ca.DM:
    n_row, n_column = (int(size) for size in matrix.shape)
    pattern = ca.Sparsity(n_row, n_column, matrix.indptr, matrix.indices)
    return ca.DM(pattern, matrix.data)


def _times(matrix: sparse.spmatrix, x: tuple[ca.SX, ca.SX]) -> tuple[ca.SX, ca.SX]:
    """Return the complex product matrix @ x in real and imaginary parts."""
    ordered = sparse.csc_matrix(matrix, dtype=complex)
    ordered.sort_indices()
    real = sparse.csc_matrix((ordered.data.real, ordered.indices, ordered.indptr), shape=ordered.shape)
    imag = sparse.csc_matrix((ordered.data.imag, ordered.indices, ordered.indptr), shape=ordered.shape)
    a, b = _casadi(real), _casadi(imag)
    return a @ x[0] - b @ x[1], a @ x[1] + b @ x[0]


def _load_current(network: ThreePhaseNetwork, v: tuple[ca.SX, ca.SX]) -> tuple[ca.SX, ca.SX]:
    """Return what the voltage-dependent loads draw at every node: acrossᴴ conj(s/w)."""
    loads = network.loads
    w = _times(loads.across, v)
    square = w[0] ** 2 + w[1] ** 2
    u = ca.sqrt(square) / loads.v_nominal_pu
    p = loads.s_power.real + loads.s_current.real * u + loads.s_impedance.real * u**2
    q = loads.s_power.imag + loads.s_current.imag * u + loads.s_impedance.imag * u**2
    real = ca.SX((p * w[0] + q * w[1]) / square)
    imag = ca.SX((p * w[1] - q * w[0]) / square)
    return _times(sparse.csr_matrix(loads.across).conj().T, (real, imag))


def _cost(problem: ScaledProblem, u: ca.SX, v: tuple[ca.SX, ca.SX], head: ca.SX, loss: ca.SX) -> ca.SX:
    bids = problem.bids
    own = ca.dot(0.5 * bids.weight.ravel() * u + bids.linear.ravel(), u) + bids.constant
    away = ca.sumsqr(v[0][N_SOURCE:] - problem.v_target) + ca.sumsqr(v[1][N_SOURCE:])
    traded = bids.import_price * head + 0.5 * bids.import_curvature * head**2 + bids.loss_price * loss
    return own + traded + problem.voltage_weight * away
