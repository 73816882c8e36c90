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

from voltier.market.primary.three_phase.physics import N_SOURCE, Physics

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

    matrix : (n_row, n_column) CSC; jacobian : (2 n_free, 2 n_free) CSC, the balances in a and b
    entry : (4, n_pair) places in `matrix` of (P row, a), (P row, b), (Q row, a), (Q row, b); -1 if none
    square : places in `matrix` of the values of `jacobian`
    control : (3, n_share) places of the shares in `matrix`, which already has them; -1 where the source's
    reactive balance is no row ; operator : (n_share,) whose share it is
    hessian : (n_column, n_column) CSC, upper triangle; curve : (3, n_pair) places of (a, a), (a, b), (b, b)
    diagonal : (n_column,) places of the diagonal
    """

    matrix: sparse.csc_matrix
    jacobian: sparse.csc_matrix
    entry: Index
    square: Index
    control: Index
    operator: Index
    hessian: sparse.csc_matrix
    curve: Index
    diagonal: Index


def build_pattern(net: Physics, share: sparse.csc_matrix) -> Pattern:
    """Lay out the program of a network and the operators' shares, (n, n_smo)."""
    n, n_smo = share.shape
    size = Size(n - N_SOURCE, n_smo)
    f = size.n_free
    row = np.repeat(np.arange(n), np.diff(net.first))
    k, m = row - N_SOURCE, net.column - N_SOURCE
    inner, from_source = (k >= 0) & (m >= 0), (k < 0) & (m >= 0)
    p_row = np.where(k >= 0, k, 2 * f)
    entries = [
        (p_row, m, inner | from_source),
        (p_row, f + m, inner | from_source),
        (f + k, m, inner),
        (f + k, f + m, inner),
    ]
    given = sparse.coo_matrix(share)
    at, operator = given.row.astype(np.int64), given.col.astype(np.int64)
    free = at >= N_SOURCE
    p_at, every = np.where(free, at - N_SOURCE, 2 * f), np.ones(len(at), dtype=bool)
    entries += [
        (p_at, size.control + operator, every),
        (f + at - N_SOURCE, size.control + n_smo + operator, free),
        (p_at, size.control + 2 * n_smo + operator, every),
        (np.array([2 * f]), np.array([size.head]), np.array([True])),
    ]
    matrix, places = _assemble(entries, (size.n_row, size.n_column))
    matrix.data[places[7]] = -1.0
    for place in places[4:7]:
        # The source's three phases share one row.
        np.add.at(matrix.data, place[place >= 0], -given.data[place >= 0])
    jacobian, square = _submatrix(matrix, 2 * f)
    upper = inner & (k <= m)
    every_column = np.arange(size.n_column)
    curves = [
        (k, m, upper),
        (k, f + m, inner),
        (f + k, f + m, upper),
        (every_column, every_column, every_column >= 0),
    ]
    hessian, bends = _assemble(curves, (size.n_column, size.n_column))
    return Pattern(
        matrix=matrix,
        jacobian=jacobian,
        entry=np.stack(places[:4]),
        square=square,
        control=np.stack(places[4:7]),
        operator=operator,
        hessian=hessian,
        curve=np.stack(bends[:3]),
        diagonal=bends[3],
    )


def _assemble(
    entries: list[tuple[Index, Index, NDArray[np.bool_]]], shape: tuple[int, int]
) -> tuple[sparse.csc_matrix, list[Index]]:
    """Return a zero matrix with these entries stored (twice named, once stored) and their places."""
    row = np.concatenate([r[keep] for r, _, keep in entries])
    column = np.concatenate([c[keep] for _, c, keep in entries])
    key, inverse = np.unique(column * shape[0] + row, return_inverse=True)
    indptr = np.searchsorted(key, shape[0] * np.arange(shape[1] + 1))
    matrix = sparse.csc_matrix((np.zeros(len(key)), key % shape[0], indptr), shape=shape)
    places, start = [], 0
    for _, _, keep in entries:
        place = np.full(len(keep), -1, dtype=np.int64)
        count = int(keep.sum())
        place[keep] = inverse[start : start + count]
        places.append(place)
        start += count
    return matrix, places


def _submatrix(matrix: sparse.csc_matrix, n: int) -> tuple[sparse.csc_matrix, Index]:
    """Return the leading (n, n) block and where its values stand in the matrix."""
    end = matrix.indptr[n]
    keep = np.flatnonzero(matrix.indices[:end] < n)
    indptr = np.searchsorted(keep, matrix.indptr[: n + 1])
    block = sparse.csc_matrix((np.zeros(len(keep)), matrix.indices[keep], indptr), shape=(n, n))
    return block, keep.astype(np.int64)


@njit(cache=True)
def write_jacobian(
    net: Physics, frame: Complex, with_v: Complex, with_conj: Complex, entry: Index, data: Array
) -> None:
    """Write dG in the nodes' own frames into the matrix; frame : (n,) φ = v/|v|."""
    for part in range(4):
        for e in range(net.column.size):
            if entry[part, e] >= 0:
                data[entry[part, e]] = 0.0
    for k in range(frame.size):
        for e in range(net.first[k], net.first[k + 1]):
            if entry[0, e] < 0:
                continue
            phase = frame[net.column[e]]
            one, two = with_v[e] * phase, with_conj[e] * np.conj(phase)
            along, across = one + two, 1j * (one - two)
            data[entry[0, e]] += along.real
            data[entry[1, e]] += across.real
            if entry[2, e] >= 0:
                data[entry[2, e]] += along.imag
                data[entry[3, e]] += across.imag


@njit(cache=True)
def write_hessian(
    net: Physics, frame: Complex, plain: Complex, mixed: Complex, curve: Index, data: Array
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
