"""The quadratic program at an AC point: tangent balances, boxes, rated wires, one persistent solver.

The point satisfies the physics, so the equations of the step have no constant term. Voltage limits are boxes of
the steps' radial parts; wires near their rating are rows. The elastic form moves both limits into rows with
priced slacks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import piqp
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.flow.derivative import N_SOURCE
from voltier.market.primary.linearised import FIXED_WIDTH_PU
from voltier.market.primary.persistent import PersistentSolver
from voltier.market.primary.problem import ScaledBids
from voltier.market.primary.three_phase.physics import Physics
from voltier.market.primary.three_phase.tangent import Pattern, Size

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

STEP_LIMIT = 80
GOAL = 1e-9
CONTENT = 1e-8


@dataclass(slots=True)
class Room:
    """What is left of every limit at a point [p.u.].

    v_low, v_high : (n_free,) lowest and highest radial step; i_high : (n_wire,) rise of |i| that is left
    """

    v_low: Array
    v_high: Array
    i_high: Array


@dataclass(slots=True)
class Step:
    """Solution of one program.

    u : (3, n_smo) step of the controls; dv : (n_free,) a + jb; v_price : (n_free,) signed multiplier of the
    voltage limits; i_price : (n_wire,) of the ratings
    """

    u: Array
    dv: Complex
    v_price: Array
    i_price: Array
    solved: bool


class TangentProgram:
    """One program, set up once for a structure and a set of watched wires, then updated at every point.

    watched : (k,) wires that are rows; elastic : limits may be exceeded at a price, and costs are written in units
    of that price, for the solver's tolerances are absolute
    rows, wire : the rows of limits, and the places of the wires' values with where these come from
    """

    def __init__(self, net: Physics, pattern: Pattern, watched: Index, *, elastic: bool) -> None:
        n_free = pattern.matrix.shape[0] // 2
        self.size = Size(n_free, (pattern.matrix.shape[1] - 1 - 2 * n_free) // 3)
        self.watched, self.elastic = watched, elastic
        self._pattern, self._net = pattern, net
        self._n_slack = n_free + len(watched) if elastic else 0
        total = self.size.n_column + self._n_slack
        self.matrix = _widen(pattern.matrix, (self.size.n_row, total))
        self.hessian, self._diagonal = _diagonal_added(pattern, total)
        self.rows, self.wire = self._inequalities(total)
        self._low, self._high = np.full(total, -np.inf), np.full(total, np.inf)
        self._low[self.size.n_column :] = 0.0
        self._linear = np.zeros(total)
        self._rhs = np.zeros(self.size.n_row)
        self._fixed = np.zeros((3, self.size.n_smo), dtype=bool)
        self._unit = 1.0
        self._solver = PersistentSolver(goal=GOAL, content=CONTENT, step_limit=STEP_LIMIT)

    def bid(self, bids: ScaledBids, penalty: float) -> None:
        """Take the boxes of one clearing; penalty [$/kWh per p.u.] prices the slacks of the elastic form."""
        self._fixed = bids.high - bids.low < FIXED_WIDTH_PU
        self._unit = penalty if self.elastic else 1.0

    def solve(self, gradient: Array, bids: ScaledBids, u: Array, room: Room, tangent: Array) -> Step:
        """Solve at a point; see data."""
        result, solved = self._solver.solve(**self.data(gradient, bids, u, room, tangent))
        x, f = np.array(result.x), self.size.n_free
        du = np.where(self._fixed, 0.0, x[self.size.control : self.size.head].reshape(3, -1))
        v_price, i_price = self._prices(result)
        return Step(du, x[:f] + 1j * x[f : 2 * f], v_price, i_price, solved)

    def data(
        self, gradient: Array, bids: ScaledBids, u: Array, room: Room, tangent: Array
    ) -> dict[str, Array | sparse.csc_matrix]:
        """Return the program at a point whose Jacobian and Hessian stand in the pattern, in PersistentSolver's words.

        gradient : (n_column,) of the objective; u : (3, n_smo) controls there; tangent : (wire entries, 2)
        derivative of |i| with a and b, in the order of Physics.wire_node
        """
        size, pattern, fixed = self.size, self._pattern, self._fixed.ravel()
        nnz = pattern.matrix.nnz
        self.matrix.data[:nnz] = pattern.matrix.data
        gone = self._fixed[:, pattern.operator] & (pattern.control >= 0)
        self.matrix.data[pattern.control[gone]] = 0.0
        self.hessian.data[: pattern.hessian.nnz] = pattern.hessian.data
        flat = slice(size.control, size.head)
        # A point cannot be the inside of an interior method: fixed columns leave the program.
        self.hessian.data[self._diagonal[flat][fixed]] = 1.0
        self._linear[: size.n_column] = gradient
        self._linear[flat][fixed] = 0.0
        if self.elastic:
            self.hessian.data /= self._unit
            self._linear[: size.n_column] /= self._unit
        self._low[flat] = np.where(fixed, -1.0, (bids.low - u).ravel())
        self._high[flat] = np.where(fixed, 1.0, (bids.high - u).ravel())
        sides = self._sides(room)
        self._write_wires(tangent)
        if self.rows is not None:
            sides["G"] = self.rows
        own = {"P": self.hessian, "c": self._linear, "A": self.matrix, "b": self._rhs}
        return own | {"x_l": self._low, "x_u": self._high} | sides

    def _sides(self, room: Room) -> dict[str, Array | sparse.csc_matrix]:
        f, n, c = self.size.n_free, self.size.n_column, len(self.watched)
        if self.elastic:
            self._linear[n:] = 1.0
            low = np.concatenate([room.v_low, np.full(f + c, -np.inf)])
            high = np.concatenate([np.full(f, np.inf), room.v_high, room.i_high[self.watched]])
            return {"h_l": low, "h_u": high}
        self._low[:f], self._high[:f] = room.v_low, room.v_high
        return {"h_u": room.i_high[self.watched]} if c else {}

    def _inequalities(self, total: int) -> tuple[sparse.csc_matrix | None, tuple[Index, Index]]:
        """Return the rows of limits and, for the wires' values, their places and sources in wire_node order."""
        f, c, net = self.size.n_free, len(self.watched), self._net
        none = np.zeros(0, dtype=np.int64)
        if not self.elastic and not c:
            return None, (none, none)
        base = 2 * f if self.elastic else 0
        row, column, source = [none], [none], [none]
        value = [np.zeros(0)]
        if self.elastic:
            k, slack = np.arange(f), self.size.n_column + np.arange(f)
            row += [k, k, f + k, f + k]
            column += [k, slack, k, slack]
            value += [np.ones(3 * f), -np.ones(f)]
            source += [np.full(4 * f, -1)]
            row.append(base + np.arange(c))
            column.append(self.size.n_column + f + np.arange(c))
            value.append(-np.ones(c))
            source.append(np.full(c, -1))
        for line, wire in enumerate(self.watched):
            at = np.arange(net.wires.indptr[wire], net.wires.indptr[wire + 1])
            at = at[net.wire_node[at] >= N_SOURCE]
            for part in range(2):
                row.append(np.full(len(at), base + line))
                column.append(part * f + net.wire_node[at] - N_SOURCE)
                value.append(np.ones(len(at)))
                source.append(2 * at + part)
        rows, columns = np.concatenate(row), np.concatenate(column)
        matrix = sparse.csc_matrix((np.concatenate(value), (rows, columns)), shape=(base + c, total))
        matrix.sort_indices()
        from_wire = np.concatenate(source)[np.lexsort((rows, columns))]
        place = np.flatnonzero(from_wire >= 0)
        return matrix, (place, from_wire[place])

    def _write_wires(self, tangent: Array) -> None:
        if self.rows is not None:
            place, source = self.wire
            self.rows.data[place] = tangent.ravel()[source]

    def _prices(self, result: piqp.Result) -> tuple[Array, Array]:
        f, base = self.size.n_free, 2 * self.size.n_free if self.elastic else 0
        i_price = np.zeros(len(self._net.i_max))
        if len(self.watched):
            i_price[self.watched] = self._unit * np.array(result.z_u[base:])
        if self.elastic:
            return self._unit * (np.array(result.z_u[f : 2 * f]) - np.array(result.z_l[:f])), i_price
        return np.array(result.z_bu[:f]) - np.array(result.z_bl[:f]), i_price


def _widen(matrix: sparse.csc_matrix, shape: tuple[int, int]) -> sparse.csc_matrix:
    """Return a copy with empty columns added."""
    indptr = np.append(matrix.indptr, np.full(shape[1] - matrix.shape[1], matrix.nnz))
    return sparse.csc_matrix((matrix.data.copy(), matrix.indices, indptr), shape=shape)


def _diagonal_added(pattern: Pattern, total: int) -> tuple[sparse.csc_matrix, Index]:
    """Return the Hessian widened to total columns, the new ones with a zero diagonal, and its diagonal's places."""
    base = pattern.hessian
    extra = total - base.shape[0]
    indptr = np.append(base.indptr, base.nnz + 1 + np.arange(extra))
    indices = np.append(base.indices, base.shape[0] + np.arange(extra))
    data = np.append(base.data, np.zeros(extra))
    return sparse.csc_matrix((data, indices, indptr), shape=(total, total)), pattern.diagonal
