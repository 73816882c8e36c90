"""The balanced branch flow as a program of atoms, tangent at a point that need not be a power flow.

Columns and rows are those of the AC-exact market's program: [P, Q, v, l of the branches | net power, reactive power,
generation of the operators | head P, head Q]; active balances, reactive balances, voltage drops, tangent currents. A
node owns its balances, its branch to the parent, and its operators.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.network import BalancedNetwork
from voltier.market.primary.distributed.program import ConvexProgram
from voltier.market.primary.linearised import Rows, build_pattern, fill_tangent, squared_limits
from voltier.market.primary.problem import ScaledBids

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Found on IEEE 13, 34 and 123 [$/kWh per p.u.]; a factor of three either way costs a factor of two in rounds.
POWER_STIFFNESS = 0.03
VOLTAGE_STIFFNESS = 30.0


def subtree_sizes(parent: Index) -> Array:
    """Return how many nodes hang at each node, itself among them, (n,); parents come before children."""
    size = np.ones(len(parent))
    for k in range(len(parent) - 1, 0, -1):
        size[parent[k]] += size[k]
    return size


@dataclass(frozen=True, slots=True)
class BranchFlowPoint:
    """Where the currents are linearised. state : (4, n_node) rows P, Q, v, l; y : (n_branch,) their multipliers."""

    state: Array
    y: Array


class BranchFlowTangent:
    """The program of one network structure; at(...) moves it to a point, bids and ratios."""

    def __init__(self, network: BalancedNetwork, node: Index) -> None:
        self._node = np.asarray(node, dtype=np.int64)
        self.size = Rows(len(network.parent), len(node))
        self._parent = np.asarray(network.parent, dtype=np.int64)
        self._pattern = build_pattern(network, self._node)
        m, n = self.size.n_branch, self.size.n_node
        below = np.arange(1, n)
        self._column = np.concatenate([np.tile(below, 4), np.tile(self._node, 3), [0, 0]]).astype(np.int64)
        self._row = np.concatenate([np.tile(np.arange(n), 2), np.tile(below, 2)]).astype(np.int64)
        self._edge = np.stack([self._parent[1:], below], axis=1)
        self._m = m
        below_share = subtree_sizes(self._parent)[1:] / n
        self._stiffness = np.ones(self.size.n_column)
        # Power is what the subtree makes it and voltage is what the path makes it: each yields to where it comes from.
        self._stiffness[: 2 * m] = np.tile(POWER_STIFFNESS / below_share, 2)
        self._stiffness[2 * m : 3 * m] = VOLTAGE_STIFFNESS * below_share

    def at(self, network: BalancedNetwork, bids: ScaledBids, point: BranchFlowPoint) -> ConvexProgram:
        """Return the program tangent at a point, with the convex part of the currents' curvature."""
        size, m, n = self.size, self._m, self.size.n_node
        matrix = self._pattern.matrix.copy()
        matrix.data[self._pattern.shunt] = network.b_pu[1:]
        rhs, curve = np.zeros(size.n_row), np.empty(m)
        fill_tangent(
            self._parent, network.ratio, point.state, self._pattern.tangent, self._pattern.drop, matrix.data,
            rhs, point.y, curve,
        )  # fmt: skip
        rhs[n] -= network.b_pu[0] * network.v_root_pu**2
        curvature, linear = np.zeros(size.n_column), np.zeros(size.n_column)
        curvature[:m] = curvature[m : 2 * m] = curve
        linear[:m] = -curve * point.state[0, 1:]
        linear[m : 2 * m] = -curve * point.state[1, 1:]
        linear[3 * m : 4 * m] = bids.loss_price * network.r_pu[1:]
        flat = slice(size.control, size.head)
        curvature[flat], linear[flat] = bids.weight.ravel(), bids.linear.ravel()
        curvature[size.head], linear[size.head] = bids.import_curvature, bids.import_price
        limits = squared_limits(network)
        low, high = np.full(size.n_column, -np.inf), np.full(size.n_column, np.inf)
        low[2 * m : 3 * m], high[2 * m : 3 * m] = limits.v_low, limits.v_high
        high[3 * m : 4 * m] = limits.l_high
        low[flat], high[flat] = bids.low.ravel(), bids.high.ravel()
        return ConvexProgram(
            curvature=curvature, linear=linear, matrix=sparse.csr_matrix(matrix), rhs=rhs, low=low, high=high,
            column_place=self._column, row_place=self._row,
            column_period=np.zeros(size.n_column, dtype=np.int64),
            row_period=np.zeros(size.n_row, dtype=np.int64), edge=self._edge, stiffness=self._stiffness,
            price_row=np.arange(2 * n),
            constant=bids.constant + 0.5 * float(curve @ (point.state[:2, 1:] ** 2).sum(axis=0)),
        )  # fmt: skip

    def start(self, point: BranchFlowPoint, u: Array) -> Array:
        """Return the unknowns at a point; u : (3, n_smo)."""
        x = np.empty(self.size.n_column)
        x[: 4 * self._m] = point.state[:, 1:].ravel()
        x[self.size.control : self.size.head] = u.ravel()
        x[self.size.head :] = point.state[:2, 0]
        return x

    def point(self, network: BalancedNetwork, x: Array, y: Array) -> BranchFlowPoint:
        """Return the point that unknowns and multipliers describe; every node can do its own part."""
        m = self._m
        state = np.zeros((4, self.size.n_node))
        state[:, 1:] = x[: 4 * m].reshape(4, m)
        state[:2, 0] = x[self.size.head :]
        state[2, 0] = network.v_root_pu**2
        w = network.ratio[1:] ** 2 * state[2, self._parent[1:]]
        state[3, 1:] = (state[0, 1:] ** 2 + state[1, 1:] ** 2) / w
        return BranchFlowPoint(state, y[self.size.current :])

    def bend(self, network: BalancedNetwork, x: Array) -> float:
        """Return the largest power that linearising has left over [p.u.]."""
        return float(self.bends(network, x).max())

    def bends(self, network: BalancedNetwork, x: Array) -> Array:
        """Return |z (l - (P² + Q²)/w)| of each node's branch, (n_node,): the power that linearising has left [p.u.]."""
        m = self._m
        exact = self.point(network, x, np.zeros(self.size.n_row)).state[3]
        size = np.hypot(network.r_pu, network.x_pu)
        return np.asarray(size * np.abs(np.append(0.0, x[3 * m : 4 * m]) - exact))
