"""Second-order cone relaxation of the primary market, assembled once; its dual value bounds the cost.

The current equation l·w = P² + Q² of the branch-flow model is widened to l·w ≥ P² + Q² (Farivar and Low, IEEE
Trans. Power Systems 28(3), 2013), written ‖(2P, 2Q, w - l)‖ ≤ w + l. The relaxation is exact while losses
cost something and no upper voltage limit binds; elsewhere its dispatch may be no power flow at all, so only
its dual value, a valid lower bound in every case, is used for the certificate.
"""

from __future__ import annotations

from dataclasses import dataclass

import clarabel
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.network import BalancedNetwork
from voltier.market.primary.linearised import FIXED_WIDTH_PU, Rows, build_pattern, squared_limits
from voltier.market.primary.problem import ScaledBids

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RelaxedPoint:
    """Solution of the relaxation; p.u. and $/kWh.

    u : (3, n_smo); state : (4, n_node) rows P, Q, v, l; y : (2, n_node) duals of the active and reactive
    balances
    value : objective; bound : certified lower bound of the exact problem, -inf when the solver found none
    residual : max(l·w - P² - Q²) over branches with impedance; status : the solver's own word
    """

    u: Array
    state: Array
    y: Array
    value: float
    bound: float
    residual: float
    status: str


class Relaxation:
    """The cone program of one network structure; bids, limits and ratios are updated in place."""

    def __init__(self, network: BalancedNetwork, node: Index) -> None:
        self._node = np.asarray(node, dtype=np.int64)
        self._size = Rows(len(network.parent), len(node))
        self._pattern = build_pattern(network, self._node, current_rows=False)
        m, n = self._size.n_branch, self._size.n_column
        self._above = np.asarray(network.parent[1:], dtype=np.int64)
        # On an ideal branch l neither costs nor matters: no cone, unless its current is limited.
        ideal = (network.r_pu[1:] == 0.0) & (network.x_pu[1:] == 0.0)
        limited = np.isfinite(squared_limits(network).l_high)
        self._cones = np.flatnonzero(~ideal | limited)
        self._free = np.flatnonzero(ideal & ~limited)
        self._limited = np.flatnonzero(limited)
        self._lossy = np.flatnonzero(~ideal)
        controls = np.arange(self._size.control, self._size.head)
        v = np.arange(2 * m, 3 * m)
        pick_high = np.concatenate([controls, v, 3 * m + self._limited, 3 * m + self._free])
        pick_low = np.concatenate([controls, v, 3 * m + self._free])
        boxes = sparse.vstack([_pick(pick_high, n), -_pick(pick_low, n)])
        body = [self._pattern.matrix, boxes, self._cone_rows(network)]
        self._n_equal, self._n_box = self._size.current, len(pick_high) + len(pick_low)
        # Explicit zeros must survive: they are places for other ratios and for bids fixed now but not later.
        self._matrix = _stack(body)
        self._cost = sparse.csc_matrix(sparse.eye(n))
        self._solver: clarabel.DefaultSolver | None = None
        self._slots()

    def _cone_rows(self, network: BalancedNetwork) -> sparse.csc_matrix:
        m, c = self._size.n_branch, len(self._cones)
        branch, at = self._cones, 4 * np.arange(c)
        square = network.ratio[1:][branch] ** 2
        inner = self._above[branch] > 0
        row, column, value = [at + 1, at + 2, at, at + 3], [branch, m + branch, 3 * m + branch, 3 * m +
        branch], [
            np.full(c, -2.0), np.full(c, -2.0), np.full(c, -1.0), np.ones(c)]  # fmt: skip
        for offset in (0, 3):
            row.append(at[inner] + offset)
            column.append(2 * m + self._above[branch][inner] - 1)
            value.append(-square[inner])
        place = (np.concatenate(row), np.concatenate(column))
        return sparse.csc_matrix((np.concatenate(value), place), shape=(4 * c, self._size.n_column))

    def _slots(self) -> None:
        """Find where the ratios and the operators' columns stand in the stacked matrix."""
        m, size, matrix = self._size.n_branch, self._size, self._matrix
        tagged = matrix.copy()
        tagged.data = np.arange(matrix.nnz, dtype=float)
        inner = np.flatnonzero(self._above > 0)
        self._drop = inner, _find(tagged, size.voltage + inner, 2 * m + self._above[inner] - 1)
        branch = np.flatnonzero(self._above[self._cones] > 0)
        first = self._n_equal + self._n_box + 4 * branch
        column = 2 * m + self._above[self._cones[branch]] - 1
        both = [_find(tagged, first + offset, column) for offset in (0, 3)]
        self._cone_ratio = self._cones[branch], np.stack(both)
        branch = np.arange(m)
        self._shunt = _find(tagged, size.n_node + 1 + branch, 2 * m + branch)
        smo = np.arange(size.n_smo)
        rows = (self._node, size.n_node + self._node, self._node)
        places = [_find(tagged, row, size.control + k * size.n_smo + smo) for k, row in enumerate(rows)]
        self._control = np.stack(places)

    def solve(self, network: BalancedNetwork, bids: ScaledBids) -> RelaxedPoint:
        """Solve for one clearing and certify the dual value as a lower bound."""
        cost, linear, rhs = self._data(network, bids)
        if self._solver is None:
            self._solver = clarabel.DefaultSolver(
                cost, linear, self._matrix, rhs, self._cone_list(), _settings()
            )
        else:
            self._solver.update(P=cost, q=linear, A=self._matrix, b=rhs)
        return self._read(network, bids, self._solver.solve(), linear, rhs)

    def _cone_list(self) -> list[object]:
        cones = [clarabel.SecondOrderConeT(4) for _ in self._cones]
        return [clarabel.ZeroConeT(self._n_equal), clarabel.NonnegativeConeT(self._n_box), *cones]

    def _data(self, network: BalancedNetwork, bids: ScaledBids) -> tuple[sparse.csc_matrix, Array, Array]:
        size, m, n = self._size, self._size.n_branch, self._size.n_node
        square = network.ratio[1:] ** 2
        self._matrix.data[self._drop[1]] = -square[self._drop[0]]
        self._matrix.data[self._shunt] = network.b_pu[1:]
        self._matrix.data[self._cone_ratio[1]] = -square[self._cone_ratio[0]]
        fixed = bids.high - bids.low < FIXED_WIDTH_PU
        value = np.where(fixed, 0.5 * (bids.low + bids.high), 0.0)
        self._matrix.data[self._control] = np.where(fixed, 0.0, 1.0)
        diagonal, linear = np.zeros(size.n_column), np.zeros(size.n_column)
        flat = slice(size.control, size.head)
        diagonal[flat] = np.where(fixed, 1.0, bids.weight).ravel()
        linear[flat] = np.where(fixed, -value, bids.linear).ravel()
        diagonal[size.head], linear[size.head] = bids.import_curvature, bids.import_price
        linear[3 * m : 4 * m] = bids.loss_price * network.r_pu[1:]
        self._cost.data[:] = diagonal
        # What the fixed unknowns cost stands outside the program.
        part = (0.5 * bids.weight * value + bids.linear) * value
        self._constant = float(part[fixed].sum() + 0.5 * (value[fixed] ** 2).sum()) + bids.constant
        rhs = np.zeros(self._matrix.shape[0])
        rhs[:n] = -np.bincount(self._node, value[0] + value[2], n)
        rhs[n : 2 * n] = -np.bincount(self._node, value[1], n)
        v_root = network.v_root_pu**2
        rhs[n] -= network.b_pu[0] * v_root
        below_slack = np.flatnonzero(self._above == 0)
        rhs[size.voltage + below_slack] = square[below_slack] * v_root
        limits = squared_limits(network)
        box_high = np.where(fixed, value + 1.0, bids.high).ravel()
        box_low = np.where(fixed, value - 1.0, bids.low).ravel()
        free = np.ones(len(self._free))
        high = [box_high, limits.v_high, limits.l_high[self._limited], free]
        low = [-box_low, -limits.v_low, 0.0 * free]
        rhs[self._n_equal : self._n_equal + self._n_box] = np.concatenate(high + low)
        at = self._n_equal + self._n_box + 4 * np.arange(len(self._cones))
        from_slack = self._above[self._cones] == 0
        root = square[self._cones[from_slack]] * v_root
        rhs[at[from_slack]] = rhs[at[from_slack] + 3] = root
        return self._cost, linear, rhs

    def _read(
        self,
        network: BalancedNetwork,
        bids: ScaledBids,
        answer: clarabel.DefaultSolution,
        linear: Array,
        rhs: Array,
    ) -> RelaxedPoint:
        size, m, n = self._size, self._size.n_branch, self._size.n_node
        x, z = np.array(answer.x), np.array(answer.z)
        state = np.zeros((4, n))
        state[:, 1:] = x[: 4 * m].reshape(4, m)
        state[0, 0], state[1, 0], state[2, 0] = x[size.head], x[size.head + 1], network.v_root_pu**2
        w = network.ratio[1:] ** 2 * state[2, self._above]
        excess = state[3, 1:] * w - state[0, 1:] ** 2 - state[1, 1:] ** 2
        fixed = bids.high - bids.low < FIXED_WIDTH_PU
        u = np.where(fixed, 0.5 * (bids.low + bids.high), x[size.control : size.head].reshape(3, -1))
        return RelaxedPoint(
            u=u,
            state=state,
            y=z[: 2 * n].reshape(2, n),
            value=answer.obj_val + self._constant,
            bound=self._certified(x, z, linear, rhs),
            residual=float(excess[self._lossy].max(initial=0.0)),
            status=str(answer.status),
        )

    def _certified(self, x: Array, z: Array, linear: Array, rhs: Array) -> float:
        """Return the dual value at (x, z), less what the dual equations' rounding error could hide.

        For any x and any z in the dual cone, f ≥ -½xᵀPx - bᵀz + (Px + q + Aᵀz)ᵀx* at every feasible x*.
        """
        if not (np.all(np.isfinite(x)) and np.all(np.isfinite(z))):
            return -np.inf
        cone = z[self._n_equal :].copy()
        norms = np.linalg.norm(cone[self._n_box :].reshape(-1, 4)[:, 1:], axis=1)
        short = np.maximum(norms - cone[self._n_box :: 4], 0.0).max(initial=0.0)
        if short > 1e-9 or (self._n_box and cone[: self._n_box].min() < -1e-9):
            return -np.inf
        curved = self._cost.data * x
        rest = curved + linear + self._matrix.T @ z
        size = np.maximum(1.0, 2.0 * np.abs(x))
        rounding = float(np.abs(rest) @ size)
        if rounding > 1e-3:
            return -np.inf
        return float(-0.5 * (curved @ x) - rhs @ z) - rounding + self._constant


def _settings() -> clarabel.DefaultSettings:
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    # Updating in place needs the program as it was given.
    settings.presolve_enable = False
    settings.chordal_decomposition_enable = False
    settings.iterative_refinement_enable = False
    settings.max_threads = 1
    return settings


def _pick(column: Index, n: int) -> sparse.csc_matrix:
    return sparse.csc_matrix((np.ones(len(column)), (np.arange(len(column)), column)), shape=(len(column), n))


def _stack(parts: list[sparse.csc_matrix]) -> sparse.csc_matrix:
    """Stack matrices, keeping stored zeros."""
    coordinates = [sparse.coo_matrix(part) for part in parts]
    offset = np.cumsum([0] + [part.shape[0] for part in parts])
    row = np.concatenate([part.row + first for part, first in zip(coordinates, offset, strict=False)])
    column = np.concatenate([part.col for part in coordinates])
    value = np.concatenate([part.data for part in coordinates])
    out = sparse.csc_matrix((value, (row, column)), shape=(int(offset[-1]), parts[0].shape[1]))
    out.sort_indices()
    return out


def _find(tagged: sparse.csc_matrix, row: Index, column: Index) -> Index:
    """Return the storage place of entries (row, column), whose stored values are their places."""
    rows = [tagged.indices[tagged.indptr[c] : tagged.indptr[c + 1]] for c in column]
    within = [int(np.searchsorted(block, r)) for block, r in zip(rows, row, strict=True)]
    return np.asarray(tagged.indptr[column] + np.array(within, dtype=np.int64), dtype=np.int64)
