"""One sparse quadratic program for all periods of a horizon and the energy stored between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.market.primary.linearised import FIXED_WIDTH_PU
from voltier.market.primary.persistent import PersistentSolver
from voltier.market.primary.problem import ScaledBids
from voltier.market.primary.three_phase.physics import Physics
from voltier.market.primary.three_phase.point import AcPoint
from voltier.market.primary.three_phase.program import CONTENT, STEP_LIMIT, Room, TangentProgram
from voltier.market.primary.three_phase.tangent import Pattern

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

# A horizon's program takes a second: prices are put right by the adjoint, so this is enough.
DAY_GOAL = 1e-8
# Numbers of a node in every period, about, that separate a feeder in two.
FRONT = 12


@dataclass(slots=True)
class DayStep:
    """Solution of one program, as Step with a leading axis of periods; worth : (T, k) of the energy equations."""

    u: Array
    dv: Complex
    v_price: Array
    i_price: Array
    worth: Array


class DayProgram:
    """The program of a horizon; put() writes a period's numbers, store() the batteries', solve() solves.

    Columns: the steps of period after period as in the program of one period, then the stored energies, period
    after period. The batteries are the last operators of each period.
    """

    def __init__(
        self, net: Physics, pattern: Pattern, watched: Index, *, n_period: int, n_battery: int
    ) -> None:
        self._pattern, self._n_period, self._n_battery = pattern, n_period, n_battery
        self._one = TangentProgram(net, pattern, watched, elastic=False)
        self.watched, self._n_wire = watched, len(net.i_max)
        size, t = self._one.size, n_period
        self._width, self._stored = size.n_column, t * size.n_column
        total = self._stored + t * n_battery
        self._matrix, self._order = self._coupled(total)
        self._values = np.zeros(len(self._order))
        self._column = np.repeat(np.arange(total), np.diff(self._matrix.indptr))
        flat = _energy_pattern(t, n_battery)
        self._hessian = _blocks([pattern.hessian] * t + [flat], (total, total))
        self._hessian.data[:] = 0.0
        rows = self._one.rows
        self._rows = None if rows is None else _blocks([rows] * t, (t * rows.shape[0], total))
        self._linear, self._low, self._high = np.zeros(total), np.full(total, -np.inf), np.full(total, np.inf)
        self._room, self._rhs = np.zeros((t, len(watched))), np.zeros(self._matrix.shape[0])
        self._fixed = np.zeros((t, 3, size.n_smo), dtype=bool)
        self._solver = PersistentSolver(goal=DAY_GOAL, content=CONTENT, step_limit=STEP_LIMIT)

    def _coupled(self, total: int) -> tuple[sparse.csc_matrix, Index]:
        """Return the equations, and where each value comes from: period after period, then the energy rows."""
        size, t, k = self._one.size, self._n_period, self._n_battery
        nnz = self._pattern.matrix.nnz
        blocks = []
        for period in range(t):
            block = self._pattern.matrix.copy()
            block.data = nnz * period + np.arange(nnz) + 1.0
            blocks.append(block)
        top = sparse.coo_matrix(_blocks(blocks, (t * size.n_row, total)))
        when, battery = np.divmod(np.arange(t * k), k)
        first = when * self._width + size.control + size.n_smo - k + battery
        later = when > 0
        row = np.arange(t * k)
        column = [first, first + 2 * size.n_smo, self._stored + row, (self._stored + row - k)[later]]
        rows = np.concatenate([row, row, row, row[later]]) + t * size.n_row
        tags = nnz * t + np.arange(len(rows)) + 1.0
        place = (np.concatenate([top.row, rows]), np.concatenate([top.col, *column]))
        matrix = sparse.csc_matrix(
            (np.concatenate([top.data, tags]), place), shape=(t * (size.n_row + k), total)
        )
        matrix.sort_indices()
        return matrix, matrix.data.astype(np.int64) - 1

    def put(self, t: int, point: AcPoint, bids: ScaledBids, room: Room, tangent: Array) -> None:
        """Take a period's numbers from the pattern, which was filled at its point."""
        pattern, size, f = self._pattern, self._one.size, self._one.size.n_free
        nnz, bends = pattern.matrix.nnz, pattern.hessian.nnz
        self._values[t * nnz : (t + 1) * nnz] = pattern.matrix.data
        fixed = self._fixed[t] = bids.high - bids.low < FIXED_WIDTH_PU
        block = self._hessian.data[t * bends : (t + 1) * bends]
        block[:] = pattern.hessian.data
        flat = slice(size.control, size.head)
        block[pattern.diagonal[flat][fixed.ravel()]] = 1.0
        own = slice(t * self._width, (t + 1) * self._width)
        linear, low, high = self._linear[own], self._low[own], self._high[own]
        linear[:] = point.gradient
        linear[flat][fixed.ravel()] = 0.0
        low[:f], high[:f] = room.v_low, room.v_high
        low[flat] = np.where(fixed, -1.0, bids.low - point.u).ravel()
        high[flat] = np.where(fixed, 1.0, bids.high - point.u).ravel()
        self._room[t] = room.i_high[self.watched]
        if self._rows is not None and self._one.rows is not None:
            place, source = self._one.wire
            self._rows.data[t * self._one.rows.nnz + place] = tangent.ravel()[source]

    def store(self, charge: Array, discharge: Array, low: Array, high: Array) -> None:
        """Take the batteries: energy change per p.u. of net power and generation, room of the stored energy."""
        t, k = self._n_period, self._n_battery
        start = t * self._pattern.matrix.nnz
        tail = [np.tile(charge, t), np.tile(discharge, t), np.ones(t * k), -np.ones((t - 1) * k)]
        self._values[start:] = np.concatenate(tail)
        self._low[self._stored :], self._high[self._stored :] = low.ravel(), high.ravel()

    def solve(self) -> DayStep | None:
        """Return the step, or None where the program was not solved."""
        t, k, size = self._n_period, self._n_battery, self._one.size
        gone = np.zeros(self._matrix.shape[1], dtype=bool)
        controls = gone[: self._stored].reshape(t, self._width)[:, size.control : size.head]
        controls[:] = self._fixed.reshape(t, -1)
        self._matrix.data[:] = np.where(gone[self._column], 0.0, self._values[self._order])
        rows = {} if self._rows is None else {"G": self._rows, "h_u": self._room.ravel()}
        data = {"P": self._hessian, "c": self._linear, "A": self._matrix, "b": self._rhs} | rows
        result, solved = self._solver.solve(**data, x_l=self._low, x_u=self._high)
        if not solved:
            return None
        x = np.array(result.x)[: self._stored].reshape(t, self._width)
        f = size.n_free
        u = np.where(self._fixed, 0.0, x[:, size.control : size.head].reshape(t, 3, -1))
        held = np.array(result.z_bu) - np.array(result.z_bl)
        i_price = np.zeros((t, self._n_wire))
        if self._rows is not None:
            i_price[:, self.watched] = np.array(result.z_u).reshape(t, -1)
        worth = np.array(result.y)[t * size.n_row :].reshape(t, k)
        v_price = held[: self._stored].reshape(t, self._width)[:, :f]
        return DayStep(u, x[:, :f] + 1j * x[:, f : 2 * f], v_price, i_price, worth)


def _energy_pattern(n_period: int, n_battery: int) -> sparse.csc_matrix:
    """Return the upper pattern of the energies' Hessian, whose values are all zero.

    Pairs of batteries are stored only to guide minimum degree: it would eliminate the energies early, as they have
    few neighbours, and so grow together all periods; so it takes them as late as they are when periods are
    eliminated one by one. Where batteries are many, fronts along the feeder are smaller than fronts of batteries.
    """
    one = (
        sparse.triu(np.ones((n_battery, n_battery)))
        if n_battery <= FRONT * n_period
        else sparse.eye(n_battery)
    )
    return _blocks([sparse.csc_matrix(one)] * n_period, (n_period * n_battery, n_period * n_battery))


def _blocks(parts: list[sparse.csc_matrix], shape: tuple[int, int]) -> sparse.csc_matrix:
    """Return parts along the diagonal, their stored values one after the other, zeros too, in a matrix of a shape."""
    row, indptr, above, count = [], [np.zeros(1, dtype=np.int64)], 0, 0
    for part in parts:
        row.append(part.indices + above)
        indptr.append(part.indptr[1:] + count)
        above, count = above + part.shape[0], count + part.nnz
    first = np.concatenate(indptr)
    first = np.append(first, np.full(shape[1] + 1 - len(first), count))
    return sparse.csc_matrix(
        (np.concatenate([part.data for part in parts]), np.concatenate(row), first), shape=shape
    )
