"""Factors of sparse complex symmetric matrices: the structure once, the numbers as often as they change.

The factorisation is a = l·d·lᵀ (transposed, not conjugated) without pivoting, row by row along the elimination
tree. Admittance matrices of passive networks have a definite real part, for which this is stable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

Complex = NDArray[np.complex128]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pattern:
    """Where the factor of a matrix of one structure has entries.

    order : (n,) row of the matrix that stands at each place of the elimination
    start, row, source : columns of the permuted upper triangle, and where their numbers stand among the
    entries of the matrix
    parent : (n,) elimination tree, -1 at roots ; l_start : (n + 1,) columns of l
    """

    order: Index
    start: Index
    row: Index
    source: Index
    parent: Index
    l_start: Index


@dataclass(frozen=True, slots=True)
class Factor:
    """A factor l·d·lᵀ of a permuted matrix: l has unit diagonal, which is not stored; d_inverse is 1/d."""

    order: Index
    l_start: Index
    l_row: Index
    l_value: Complex
    d_inverse: Complex


def pattern_of(row_start: Index, column: Index) -> Pattern:
    """Order a matrix of symmetric structure, given in rows, for little fill and lay out its factor.

    row_start : (n + 1,), column : (entries,) as in a csr matrix. The order is SuperLU's minimum degree.
    """
    n = len(row_start) - 1
    # any numbers do for the ordering; a heavy diagonal keeps SuperLU from pivoting
    model = sparse.csc_matrix((np.ones(len(column)), column, row_start), (n, n)) + 4.0 * n * sparse.eye(n)
    place = splu(model.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).perm_c.astype(
        np.int64
    )
    row, column = place[np.repeat(np.arange(n), np.diff(row_start))], place[column]
    source = np.flatnonzero(row <= column)
    source = source[np.lexsort((row[source], column[source]))]
    start = np.searchsorted(column[source], np.arange(n + 1)).astype(np.int64)
    parent, count = _tree(start, row[source])
    l_start = np.concatenate([[0], np.cumsum(count)])
    return Pattern(np.argsort(place), start, row[source], source, parent, l_start)


def factorise(pattern: Pattern, value: Complex) -> Factor:
    """Factorise the matrix of these entries, in the order of its rows; a zero pivot leaves what is not finite."""
    l_row, l_value, d = _numbers(
        pattern.start, pattern.row, value[pattern.source], pattern.parent, pattern.l_start
    )
    return Factor(pattern.order, pattern.l_start, l_row, l_value, 1.0 / d)


@njit(cache=True)
def _tree(start: Index, row: Index) -> tuple[Index, Index]:
    """Find the elimination tree and the entries in each column of l."""
    n = len(start) - 1
    parent, seen = np.full(n, -1, np.int64), np.empty(n, np.int64)
    count = np.zeros(n, np.int64)
    for k in range(n):
        seen[k] = k
        for p in range(start[k], start[k + 1]):
            i = row[p]
            while seen[i] != k:
                if parent[i] < 0:
                    parent[i] = k
                count[i] += 1
                seen[i] = k
                i = parent[i]
    return parent, count


@njit(cache=True, error_model="numpy")
def _numbers(
    start: Index, row: Index, data: Complex, parent: Index, l_start: Index
) -> tuple[Index, Complex, Complex]:
    n = len(start) - 1
    l_row, l_value = np.empty(l_start[n], np.int64), np.empty(l_start[n], np.complex128)
    d, work = np.zeros(n, np.complex128), np.zeros(n, np.complex128)
    seen, filled, stack, path = (
        np.empty(n, np.int64),
        np.zeros(n, np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
    )
    for k in range(n):
        top, seen[k] = n, k
        for p in range(start[k], start[k + 1]):
            i, length = row[p], 0
            work[i] += data[p]
            while seen[i] != k:
                path[length], seen[i] = i, k
                length, i = length + 1, parent[i]
            while length > 0:
                length -= 1
                top -= 1
                stack[top] = path[length]
        d[k], work[k] = work[k], 0.0
        for t in range(top, n):
            i = stack[t]
            value, work[i] = work[i], 0.0
            end = l_start[i] + filled[i]
            for p in range(l_start[i], end):
                work[l_row[p]] -= l_value[p] * value
            quotient = value / d[i]
            d[k] -= quotient * value
            l_row[end], l_value[end] = k, quotient
            filled[i] += 1
    return l_row, l_value, d


@njit(cache=True, error_model="numpy")
def solve_in_place(
    order: Index,
    l_start: Index,
    l_row: Index,
    l_value: Complex,
    d_inverse: Complex,
    b: Complex,
    work: Complex,
) -> None:
    """Turn b into the solution; work : (n,) scratch."""
    n = len(d_inverse)
    for k in range(n):
        work[k] = b[order[k]]
    for k in range(n):
        x = work[k]
        for p in range(l_start[k], l_start[k + 1]):
            work[l_row[p]] -= l_value[p] * x
    for k in range(n - 1, -1, -1):
        x = work[k] * d_inverse[k]
        for p in range(l_start[k], l_start[k + 1]):
            x -= l_value[p] * work[l_row[p]]
        work[k] = x
    for k in range(n):
        b[order[k]] = work[k]
