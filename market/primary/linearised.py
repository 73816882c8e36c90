"""The quadratic program at an AC point: exact linear rows, tangent current rows, one persistent solver.

Unknowns: [P, Q, v, l of the branches | net power, reactive power, generation of the operators | head P,
head Q], and in the elastic form one slack for the voltage and one for the current of each branch.
Rows: active balance of every node, reactive balance of every node, voltage drop and tangent current of
every branch. The function l = (P² + Q²)/w is homogeneous of degree one, so its tangent has no constant term.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import piqp
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.network import BalancedNetwork
from voltier.market.primary.persistent import PersistentSolver
from voltier.market.primary.problem import ScaledBids

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# Boxes narrower than this [p.u.] are points: their column leaves the program, for an interior method needs
# an inside.
FIXED_WIDTH_PU = 1e-9


@dataclass(frozen=True, slots=True)
class Rows:
    """First rows of the four blocks of equations and first columns of the blocks of unknowns."""

    n_node: int
    n_smo: int

    @property
    def n_branch(self) -> int:
        """Branches, one above every node but the slack."""
        return self.n_node - 1

    @property
    def voltage(self) -> int:
        """First row of the voltage drops."""
        return 2 * self.n_node

    @property
    def current(self) -> int:
        """First row of the tangent currents."""
        return 2 * self.n_node + self.n_branch

    @property
    def n_row(self) -> int:
        """All equations."""
        return 2 * self.n_node + 2 * self.n_branch

    @property
    def control(self) -> int:
        """First column of the operators' unknowns."""
        return 4 * self.n_branch

    @property
    def head(self) -> int:
        """Column of the power drawn at the head; the reactive power follows."""
        return 4 * self.n_branch + 3 * self.n_smo

    @property
    def n_column(self) -> int:
        """All unknowns without slacks."""
        return self.head + 2


@dataclass(frozen=True, slots=True)
class Pattern:
    """The constraint matrix with the places of the values that change.

    matrix : (n_row, n_column) CSC; tangent : (3, n_branch) places of P, Q and parent v in the current rows;
    drop : (n_branch,) place of parent v in the voltage rows (-1 below the slack); control : (3, n_smo)
    shunt : (n_branch,) place of the node's own v in its reactive balance
    """

    matrix: sparse.csc_matrix
    tangent: Index
    drop: Index
    control: Index
    shunt: Index


def build_pattern(network: BalancedNetwork, node: Index, *, current_rows: bool = True) -> Pattern:
    """Assemble the equations once; without current_rows only the linear ones (for the cone program)."""
    size = Rows(len(network.parent), len(node))
    m, n = size.n_branch, size.n_node
    k = np.arange(m)
    below, above = k + 1, np.asarray(network.parent[1:], dtype=np.int64)
    r, x = network.r_pu[1:], network.x_pu[1:]
    one = np.ones(m)
    entries: list[tuple[Index, Index, Array]] = [
        (n + below, 2 * m + k, network.b_pu[1:]),
        (below, k, one), (above, k, -one), (below, 3 * m + k, -r),
        (n + below, m + k, one), (n + above, m + k, -one), (n + below, 3 * m + k, -x),
        (size.voltage + k, 2 * m + k, one), (size.voltage + k, k, 2 * r), (size.voltage + k, m + k, 2 * x),
        (size.voltage + k, 3 * m + k, -(r**2 + x**2)),
        (np.array([0, n]), size.head + np.arange(2), np.ones(2)),
    ]  # fmt: skip
    smo = np.arange(size.n_smo)
    inner = np.flatnonzero(above > 0)
    start = sum(len(e[0]) for e in entries)
    for block, row in enumerate((node, n + node, node)):
        entries.append((row, size.control + block * size.n_smo + smo, np.ones(size.n_smo)))
    entries.append((size.voltage + inner, 2 * m + above[inner] - 1, -(network.ratio[1:][inner] ** 2)))
    if current_rows:
        entries.append((size.current + k, 3 * m + k, one))
        entries += [(size.current + k, block * m + k, one) for block in range(2)]
        entries.append((size.current + inner, 2 * m + above[inner] - 1, np.ones(len(inner))))
    row, column, value = (np.concatenate([e[part] for e in entries]) for part in range(3))
    n_row = size.n_row if current_rows else size.current
    order = np.lexsort((row, column))
    place = np.empty(len(row), dtype=np.int64)
    place[order] = np.arange(len(row))
    matrix = sparse.csc_matrix((value, (row, column)), shape=(n_row, size.n_column))
    matrix.sort_indices()
    at = start + 3 * size.n_smo
    drop = np.full(m, -1, dtype=np.int64)
    drop[inner] = place[at : at + len(inner)]
    tangent = np.full((3, m), -1, dtype=np.int64)
    if current_rows:
        at += len(inner) + m
        tangent[0], tangent[1] = place[at : at + m], place[at + m : at + 2 * m]
        tangent[2, inner] = place[at + 2 * m :]
    return Pattern(matrix, tangent, drop, place[start : start + 3 * size.n_smo].reshape(3, -1), place[:m])


@njit(cache=True)
def fill_tangent(
    parent: Index,
    ratio: Array,
    state: Array,
    tangent: Index,
    drop: Index,
    data: Array,
    rhs: Array,
    y: Array,
    curve: Array,
) -> None:
    """Write the tangent of the current, the ratios and the second-order weights at an AC point.

    y : multipliers of the current rows. The current's curvature 2/w enters the Lagrangian with weight -y;
    where that is negative (losses pay) the program would be nonconvex, so it is left out there.
    """
    n = parent.size
    m = n - 1
    for k in range(m):
        j = k + 1
        above = parent[j]
        square = ratio[j] * ratio[j]
        w = square * state[2, above]
        at_v = square * state[3, j] / w
        data[tangent[0, k]] = -2.0 * state[0, j] / w
        data[tangent[1, k]] = -2.0 * state[1, j] / w
        rhs[2 * n + k] = 0.0
        rhs[2 * n + m + k] = 0.0
        if above > 0:
            data[drop[k]] = -square
            data[tangent[2, k]] = at_v
        else:
            rhs[2 * n + k] = square * state[2, 0]
            rhs[2 * n + m + k] = -at_v * state[2, 0]
        curve[k] = max(-2.0 * y[k] / w, 0.0)


@njit(cache=True)
def stationarity(indptr: Index, indices: Index, data: Array, gradient: Array, y: Array, z: Array) -> Array:
    """Return gradient + Aᵀy + z for a CSC matrix A."""
    out = gradient + z
    for column in range(gradient.size):
        total = 0.0
        for k in range(indptr[column], indptr[column + 1]):
            total += data[k] * y[indices[k]]
        out[column] += total
    return out


@dataclass(slots=True)
class Limits:
    """Limits of the branches' end voltages and currents, squared [p.u.]; (n_branch,) each."""

    v_low: Array
    v_high: Array
    l_high: Array


# A line "without rating" is often given a huge one, whose square spoils the scaling of a program.
UNREACHED_I_PU = 100.0


def squared_limits(network: BalancedNetwork) -> Limits:
    """Return the limits in the squared variables of the branch-flow model; ratings that nothing reaches are none."""
    i_max = np.where(network.i_max_pu[1:] > UNREACHED_I_PU, np.inf, network.i_max_pu[1:])
    return Limits(network.v_min_pu[1:] ** 2, network.v_max_pu[1:] ** 2, i_max**2)


@dataclass(slots=True)
class Step:
    """Solution of one program. u : (3, n_smo); y : rows; z : (n_column,) signed bound multipliers."""

    u: Array
    y: Array
    z: Array
    solved: bool


class TangentProgram:
    """The quadratic program, assembled once and updated at every AC point; elastic adds priced slacks."""

    def __init__(self, network: BalancedNetwork, node: Index, *, elastic: bool) -> None:
        self.size = Rows(len(network.parent), len(node))
        self.pattern = build_pattern(network, node)
        self.elastic = elastic
        self._parent = np.asarray(network.parent, dtype=np.int64)
        self._rated = np.flatnonzero(np.isfinite(network.i_max_pu[1:]))
        extra = self.size.n_branch + len(self._rated) if elastic else 0
        total = self.size.n_column + extra
        base = self.pattern.matrix
        self.matrix = sparse.csc_matrix(
            (base.data, base.indices, np.append(base.indptr, np.full(extra, base.nnz))),
            shape=(self.size.n_row, total),
        )
        self.hessian = sparse.csc_matrix(sparse.eye(total))
        self.linear = np.zeros(total)
        self.rhs = np.zeros(self.size.n_row)
        self.low = np.full(total, -np.inf)
        self.high = np.full(total, np.inf)
        self.curvature = np.zeros(self.size.n_column)
        self._solver = PersistentSolver(goal=1e-9, content=0.0, step_limit=250)
        self._slacks = self._slack_rows() if elastic else None
        self._fixed = np.zeros((3, len(node)), dtype=bool)
        self._fixed_value = np.zeros((3, len(node)))
        self._node = node

    def bid(self, network: BalancedNetwork, bids: ScaledBids, limits: Limits, penalty: float) -> None:
        """Take the bids and limits of one clearing; penalty [$/kWh per p.u.] prices the slacks."""
        size, m = self.size, self.size.n_branch
        flat = slice(size.control, size.head)
        self._fixed = bids.high - bids.low < FIXED_WIDTH_PU
        self._fixed_value = np.where(self._fixed, 0.5 * (bids.low + bids.high), 0.0)
        fixed, value = self._fixed.ravel(), self._fixed_value.ravel()
        self.matrix.data[self.pattern.control] = np.where(self._fixed, 0.0, 1.0)
        self.matrix.data[self.pattern.shunt] = network.b_pu[1:]
        self.curvature[flat] = np.where(fixed, 1.0, bids.weight.ravel())
        self.linear[flat] = np.where(fixed, -value, bids.linear.ravel())
        self.low[flat] = np.where(fixed, value - 1.0, bids.low.ravel())
        self.high[flat] = np.where(fixed, value + 1.0, bids.high.ravel())
        self.curvature[size.head] = bids.import_curvature
        self.linear[size.head] = bids.import_price
        self.linear[3 * m : 4 * m] = bids.loss_price * network.r_pu[1:]
        injection = np.bincount(self._node, (self._fixed_value[0] + self._fixed_value[2]), size.n_node)
        self.rhs[: size.n_node] = -injection
        self.rhs[size.n_node : 2 * size.n_node] = -np.bincount(self._node, self._fixed_value[1], size.n_node)
        # The slack node's own shunt is fed by the head.
        self.rhs[size.n_node] -= network.b_pu[0] * network.v_root_pu**2
        if self.elastic:
            self.linear[size.n_column :] = penalty
            self.low[size.n_column :] = 0.0
            rated = limits.l_high[self._rated]
            self._side = np.concatenate([limits.v_low, np.full(m + len(rated), -np.inf)])
            self._other = np.concatenate([np.full(m, np.inf), limits.v_high, rated])
        else:
            self.low[2 * m : 3 * m], self.high[2 * m : 3 * m] = limits.v_low, limits.v_high
            self.high[3 * m : 4 * m] = limits.l_high

    def tangent(self, ratio: Array, state: Array, y: Array) -> None:
        """Move the program to an AC point; y : multipliers of the current rows there."""
        m = self.size.n_branch
        curve = np.empty(m)
        fill_tangent(
            self._parent,
            ratio,
            state,
            self.pattern.tangent,
            self.pattern.drop,
            self.matrix.data,
            self.rhs,
            y,
            curve,
        )
        self._curve = curve

    def solve(self, state: Array, u: Array, proximal: float) -> Step:
        """Solve at the current AC point; proximal [$/kWh per p.u.] holds the operators near u."""
        size, m = self.size, self.size.n_branch
        diagonal, linear = self.hessian.data, self.linear.copy()
        diagonal[: size.n_column] = self.curvature
        diagonal[size.n_column :] = 0.0
        diagonal[:m] = diagonal[m : 2 * m] = self._curve
        linear[:m] = -self._curve * state[0, 1:]
        linear[m : 2 * m] = -self._curve * state[1, 1:]
        flat = slice(size.control, size.head)
        diagonal[flat] += proximal
        linear[flat] -= proximal * u.ravel()
        data = {
            "P": self.hessian,
            "c": linear,
            "A": self.matrix,
            "b": self.rhs,
            "x_l": self.low,
            "x_u": self.high,
        }
        if self.elastic:
            data |= {"G": self._slacks, "h_l": self._side, "h_u": self._other}
        result, solved = self._solver.solve(**data)
        x = np.array(result.x)
        control = np.where(self._fixed, self._fixed_value, x[flat].reshape(3, -1))
        return Step(control, np.array(result.y), self._bound_multipliers(result), solved)

    def _slack_rows(self) -> sparse.csc_matrix:
        """Return the rows v + s ≥ v_low, v - s ≤ v_high, l - t ≤ l_high."""
        m, n, c = self.size.n_branch, self.size.n_column, len(self._rated)
        k, slack = np.arange(m), n + np.arange(m + c)
        row = np.concatenate([k, k, m + k, m + k, 2 * m + np.arange(c), 2 * m + np.arange(c)])
        column = np.concatenate([2 * m + k, slack[:m], 2 * m + k, slack[:m], 3 * m + self._rated, slack[m:]])
        value = np.concatenate([np.ones(3 * m), -np.ones(m), np.ones(c), -np.ones(c)])
        return sparse.csc_matrix((value, (row, column)), shape=(2 * m + c, n + m + c))

    def _bound_multipliers(self, result: piqp.Result) -> Array:
        m, n = self.size.n_branch, self.size.n_column
        z = np.array(result.z_bu[:n]) - np.array(result.z_bl[:n])
        if self.elastic:
            z[2 * m : 3 * m] = result.z_u[m : 2 * m] - result.z_l[:m]
            z[3 * m + self._rated] = result.z_u[2 * m :]
        # A fixed unknown has left the program; the multiplier that holds it is found by the caller.
        z[self.size.control : self.size.head][self._fixed.ravel()] = 0.0
        return z
