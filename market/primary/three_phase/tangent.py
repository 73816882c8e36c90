"""Sparse matrices of the tangent program: their patterns, built once, and the kernels that fill in numbers.

Unknowns: steps [a of the free nodes | b of the free nodes | net power, reactive power, generation of the
operators | import]. Equations: active and reactive balance of every free node, and the import as what the
source's nodes take. Free nodes are all but the source's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.flow.derivative import N_SOURCE, Balance, PowerJacobian

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Size:
    """First columns and rows of the blocks. n_free : nodes without the source's; n_smo : operators."""

    n_free: int
    n_smo: int

    @property
    def control(self) -> int:
        """First column of the operators' unknowns."""
        return 2 * self.n_free

    @property
    def head(self) -> int:
        """Column of the import."""
        return 2 * self.n_free + 3 * self.n_smo

    @property
    def n_column(self) -> int:
        """All unknowns."""
        return self.head + 1

    @property
    def n_row(self) -> int:
        """All equations; the last is the import's."""
        return 2 * self.n_free + 1


@dataclass(frozen=True, slots=True)
class Pattern:
    """Matrices whose stored values are to be overwritten, and the places where they stand.

    matrix : (n_row, n_column) CSC; square : places in it of the values of PowerJacobian.matrix
    source_column, source : columns of the nodes next to the source, and their places in the row of the import
    control : (3, n_share) places of the shares in `matrix`, which already has them; -1 where the source's
    reactive balance is no row ; operator : (n_share,) whose share it is
    hessian : (n_column, n_column) CSC, upper triangle; curve : (3, n_pair) places of (a, a), (a, b), (b, b)
    diagonal : (n_column,) places of the diagonal
    """

    matrix: sparse.csc_matrix
    square: Index
    source_column: Index
    source: Index
    control: Index
    operator: Index
    hessian: sparse.csc_matrix
    curve: Index
    diagonal: Index


def build_pattern(net: Balance, tangent: PowerJacobian, share: sparse.csc_matrix) -> Pattern:
    """Lay out the program of a network and the operators' shares, (n, n_smo)."""
    n, n_smo = share.shape
    size = Size(n - N_SOURCE, n_smo)
    f = size.n_free
    beside = np.setdiff1d(net.column[: net.first[N_SOURCE]], np.arange(N_SOURCE)) - N_SOURCE
    source_column = np.concatenate([beside, f + beside])
    entries = [_stored(tangent.matrix), (np.full(len(source_column), 2 * f), source_column)]
    given = sparse.coo_matrix(share)
    at, operator = given.row.astype(np.int64), given.col.astype(np.int64)
    free = at >= N_SOURCE
    p_at = np.where(free, at - N_SOURCE, 2 * f)
    entries += [
        (p_at, size.control + operator),
        (np.where(free, f + at - N_SOURCE, -1), size.control + n_smo + operator),
        (p_at, size.control + 2 * n_smo + operator),
        (np.array([2 * f]), np.array([size.head])),
    ]
    matrix, places = _assemble(entries, (size.n_row, size.n_column))
    matrix.data[places[5]] = -1.0
    for place in places[2:5]:
        # The source's three phases share one row.
        np.add.at(matrix.data, place[place >= 0], -given.data[place >= 0])
    row = np.repeat(np.arange(n), np.diff(net.first))
    k, m = row - N_SOURCE, net.column - N_SOURCE
    inner = (k >= 0) & (m >= 0)
    upper = np.where(inner & (k <= m), k, -1)
    every_column = np.arange(size.n_column)
    curves = [(upper, m), (np.where(inner, k, -1), f + m), (np.where(upper < 0, -1, f + k), f + m)]
    hessian, bends = _assemble([*curves, (every_column, every_column)], (size.n_column, size.n_column))
    return Pattern(
        matrix=matrix,
        square=places[0],
        source_column=source_column,
        source=places[1],
        control=np.stack(places[2:5]),
        operator=operator,
        hessian=hessian,
        curve=np.stack(bends[:3]),
        diagonal=bends[3],
    )


def _stored(matrix: sparse.csc_matrix) -> tuple[Index, Index]:
    """Return rows and columns of the stored values."""
    column = np.repeat(np.arange(matrix.shape[1]), np.diff(matrix.indptr))
    return matrix.indices.astype(np.int64), column


def _assemble(
    entries: list[tuple[Index, Index]], shape: tuple[int, int]
) -> tuple[sparse.csc_matrix, list[Index]]:
    """Return a zero matrix with these entries stored (twice named, once stored) and their places.

    An entry in row -1 is none, and its place is -1.
    """
    row, column = (np.concatenate([entry[k] for entry in entries]) for k in range(2))
    there = row >= 0
    key, inverse = np.unique(column[there] * shape[0] + row[there], return_inverse=True)
    indptr = np.searchsorted(key, shape[0] * np.arange(shape[1] + 1))
    matrix = sparse.csc_matrix((np.zeros(len(key)), key % shape[0], indptr), shape=shape)
    place = np.full(len(row), -1, dtype=np.int64)
    place[there] = inverse
    ends = np.cumsum([len(rows) for rows, _ in entries])
    return matrix, np.split(place, ends[:-1])


def write_tangent(tangent: PowerJacobian, pattern: Pattern) -> None:
    """Take the balances' derivative over into the matrix; the import is what all phases of the source take."""
    data = pattern.matrix.data
    data[pattern.square] = tangent.matrix.data
    data[pattern.source] = tangent.source[:, pattern.source_column].sum(axis=0)


@njit(cache=True)
def write_hessian(
    net: Balance, frame: Complex, plain: Complex, mixed: Complex, curve: Index, data: Array
) -> None:
    """Write twice the form Re(dvᵀ plain dv) + dvᴴ mixed dv in the nodes' own frames, upper triangle."""
    for k in range(frame.size):
        for e in range(net.first[k], net.first[k + 1]):
            if curve[1, e] < 0:
                continue
            phase = frame[net.column[e]]
            u = 2.0 * frame[k] * phase * plain[e]
            h = 2.0 * np.conj(frame[k]) * phase * mixed[e]
            data[curve[1, e]] = -u.imag - h.imag
            if curve[0, e] >= 0:
                data[curve[0, e]] = u.real + h.real
                data[curve[2, e]] = h.real - u.real


@njit(cache=True)
def residual(indptr: Index, indices: Index, data: Array, gradient: Array, y: Array, out: Array) -> None:
    """Write gradient + Aᵀ y for a CSC matrix A."""
    for column in range(out.size):
        total = gradient[column]
        for k in range(indptr[column], indptr[column + 1]):
            total += data[k] * y[indices[k]]
        out[column] = total
