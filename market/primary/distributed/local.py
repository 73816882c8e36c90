"""What every atom computes alone: its least cost plus quadratic terms under its own rows and its own limits.

For given r and diagonal D an atom finds min ½ aᵀDa - rᵀa + ηᵀ(Ga - b) + W/2 |Ga - b|² over its box. With y the
multipliers of its rows, a = clip(D⁻¹(r - Gᵀy)) and Ga - b = (y - η)/W; Newton's method on y is the search for the
limits that bind. The kernels here are compiled into their callers' caches: after a change here, clear those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from voltier.market.primary.distributed.atoms import Atoms
from voltier.market.primary.distributed.factor import (
    Blocks,
    build_blocks,
    eliminate_order,
    factorise,
    solve_rows,
)

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Side = NDArray[np.int8]
Place = NDArray[np.uint32]
Flag = NDArray[np.bool_]

# Newton steps of one cell in one round; a set that is not found by then is sought further in the next round.
NEWTON_LIMIT = 100
# A step of Newton's method is shortened until the slope beyond the minimum is at most this share of that before it.
OVERSHOOT = 0.3
SEARCH_LIMIT = 40
# A slope of the dual function that is rounding.
ROUNDING = 1e-20


class Rows(NamedTuple):
    """Normalised local rows in elimination order; places are unsigned, which spares the kernels a test of their sign.

    first, column, value : CSR of G ; back_first, back_row, back_value : CSR of Gᵀ ; rhs : b
    row_first, first_local : (n_cell + 1,) rows and unknowns of each cell ; cell_of : (L,) ; low, high : (L,)
    """

    first: Index
    column: Place
    value: Array
    back_first: Index
    back_row: Place
    back_value: Array
    rhs: Array
    row_first: Index
    first_local: Index
    cell_of: Index
    low: Array
    high: Array


@dataclass(frozen=True, slots=True)
class LocalProblem:
    """The atoms with normalised rows. order : (m,) local rows in elimination order ; norm : (m,) their norms."""

    atoms: Atoms
    rows: Rows
    matrix: sparse.csr_matrix
    order: Index
    norm: Array

    def row_duals(self, y: Array) -> Array:
        """Return multipliers of the program's rows from those of normalised local rows."""
        out = np.empty_like(y)
        out[self.atoms.row[self.order]] = y / self.norm
        return out

    def local_duals(self, y: Array) -> Array:
        """Return multipliers of normalised local rows from those of the program's rows."""
        return np.asarray(y[self.atoms.row[self.order]] * self.norm)

    def blocks(self, back: Array) -> Blocks:
        """Lay out the factorisation of all atoms' rows, loosened by back (m,)."""
        return build_blocks(self.matrix, self.atoms.cell_row_first, back)


def local_problem(atoms: Atoms) -> LocalProblem:
    """Normalise the local rows and find their order."""
    order = eliminate_order(atoms)
    own = atoms.matrix[order]
    norm = np.sqrt(np.asarray(own.multiply(own).sum(axis=1)).ravel())
    norm[norm == 0.0] = 1.0
    matrix = sparse.csr_matrix(sparse.diags(1.0 / norm) @ own)
    matrix.sort_indices()
    back = sparse.csr_matrix(matrix.T)
    back.sort_indices()
    rows = Rows(
        first=matrix.indptr.astype(np.int64),
        column=matrix.indices.astype(np.uint32),
        value=matrix.data,
        back_first=back.indptr.astype(np.int64),
        back_row=back.indices.astype(np.uint32),
        back_value=back.data,
        rhs=atoms.rhs[order] / norm,
        row_first=atoms.cell_row_first,
        first_local=atoms.cell_first,
        cell_of=np.repeat(np.arange(len(atoms.cell_first) - 1), np.diff(atoms.cell_first)),
        low=atoms.low,
        high=atoms.high,
    )
    return LocalProblem(atoms, rows, matrix, order, norm)


@njit(cache=True)
def private_share(seed: int, atom: int, count: int) -> float:
    """Return a number in [0, 1) that only the atom knows: the splitmix64 hash of its seed, its number and the round."""
    z = np.uint64(seed) + np.uint64(atom + 1) * np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(count + 1) * np.uint64(0xD1B54A32D192ED03)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) / 9007199254740992.0


@njit(cache=True)
def minimise(
    rows: Rows, blocks: Blocks, r: Array, diagonal: Array, inverse: Array, side: Side, eta: Array, a: Array,
    y: Array, step: Array,
) -> None:  # fmt: skip
    """Write all atoms' minimisers into a and the multipliers of their rows into y.

    inverse : (L,) D⁻¹, zero at the limits that side names (-1 low, 1 high); the blocks are factorised for it and
    are left so. a holds the limits of what stands at one. step : (m,) scratch. Where the same limits bind as in the
    last round, this is one solve.
    """
    last = y.copy()
    for k in range(y.size):
        total = blocks.back[k] * eta[k] - rows.rhs[k]
        for e in range(rows.first[k], rows.first[k + 1]):
            i = rows.column[e]
            total += rows.value[e] * (a[i] if side[i] != 0 else inverse[i] * r[i])
        y[k] = total
    solve_rows(blocks, 0, y.size, y)
    stale = np.zeros(rows.row_first.size - 1, dtype=np.bool_)
    if _place(rows, 0, a.size, r, diagonal, inverse, side, y, a, stale):
        for cell in range(stale.size):
            if stale[cell]:
                # Other limits: from the multipliers of the last round, for the step just made may be a long one.
                for k in range(rows.row_first[cell], rows.row_first[cell + 1]):
                    y[k] = last[k]
                begin, end = rows.first_local[cell], rows.first_local[cell + 1]
                _place(rows, begin, end, r, diagonal, inverse, side, y, a, stale)
                _search(rows, blocks, cell, r, diagonal, inverse, side, eta, a, y, step, stale)


@njit(cache=True)
def _search(
    rows: Rows, blocks: Blocks, cell: int, r: Array, diagonal: Array, inverse: Array, side: Side, eta: Array,
    a: Array, y: Array, step: Array, stale: Flag,
) -> None:  # fmt: skip
    """Find which limits bind in one cell by Newton's method from y."""
    for _ in range(NEWTON_LIMIT):
        factorise(blocks, cell, inverse)
        slope = _newton_step(rows, blocks, cell, eta, a, y, step)
        if slope > -ROUNDING:
            return
        if not _move(rows, blocks, cell, r, diagonal, inverse, side, eta, a, y, step, slope, stale):
            return
    factorise(blocks, cell, inverse)


@njit(cache=True)
def _newton_step(rows: Rows, blocks: Blocks, cell: int, eta: Array, a: Array, y: Array, step: Array) -> float:
    """Write the step of y towards Ga - b = (y - η)/W; return the dual function's slope along it, negative."""
    begin, end = rows.row_first[cell], rows.row_first[cell + 1]
    for k in range(begin, end):
        step[k] = _excess(rows, blocks, k, eta, a, y)
    first = step[begin:end].copy()
    solve_rows(blocks, begin, end, step)
    slope = 0.0
    for k in range(begin, end):
        slope -= first[k - begin] * step[k]
    return slope


@njit(cache=True)
def _excess(rows: Rows, blocks: Blocks, k: int, eta: Array, a: Array, y: Array) -> float:
    total = -rows.rhs[k] - blocks.back[k] * (y[k] - eta[k])
    for e in range(rows.first[k], rows.first[k + 1]):
        total += rows.value[e] * a[rows.column[e]]
    return total


@njit(cache=True)
def _move(
    rows: Rows, blocks: Blocks, cell: int, r: Array, diagonal: Array, inverse: Array, side: Side,
    eta: Array, a: Array, y: Array, step: Array, slope: float, stale: Flag,
) -> bool:  # fmt: skip
    """Go along the step as far as the convex dual function falls; return whether there is more to do."""
    begin, end = rows.row_first[cell], rows.row_first[cell + 1]
    near, near_slope, far, far_slope = 0.0, slope, 1.0, 0.0
    share, gone = 1.0, 0.0
    changed = False
    for trial in range(SEARCH_LIMIT):
        for k in range(begin, end):
            y[k] += (share - gone) * step[k]
        gone = share
        first, last = rows.first_local[cell], rows.first_local[cell + 1]
        if _place(rows, first, last, r, diagonal, inverse, side, y, a, stale):
            changed = True
        here = 0.0
        for k in range(begin, end):
            here -= _excess(rows, blocks, k, eta, a, y) * step[k]
        if abs(here) <= -OVERSHOOT * slope or (share == 1.0 and here < 0.0):
            break
        if here > 0.0:
            far, far_slope = share, here
        else:
            near, near_slope = share, here
        # The straight line between the slopes and the middle by turns: kinks differ by orders of magnitude.
        share = (
            near - near_slope * (far - near) / (far_slope - near_slope)
            if trial % 2 == 0
            else 0.5 * (near + far)
        )
    return changed or share != 1.0


@njit(cache=True)
def _place(
    rows: Rows, begin: int, end: int, r: Array, diagonal: Array, inverse: Array, side: Side, y: Array, a: Array,
    stale: Flag,
) -> bool:  # fmt: skip
    """Write a = clip(D⁻¹(r - Gᵀy)) from begin to end; mark cells where an unknown has reached or left a limit."""
    any_stale = False
    for i in range(begin, end):
        total = r[i]
        for e in range(rows.back_first[i], rows.back_first[i + 1]):
            total -= rows.back_value[e] * y[rows.back_row[e]]
        free, low, high = total / diagonal[i], rows.low[i], rows.high[i]
        now = 0
        if free >= high or low == high:
            now, free = 1, high
        elif free <= low:
            now, free = -1, low
        a[i] = free
        if now != side[i]:
            side[i] = now
            inverse[i] = 0.0 if now != 0 else 1.0 / diagonal[i]
            stale[rows.cell_of[i]] = any_stale = True
    return any_stale
