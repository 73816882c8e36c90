"""Every atom's own rows, factorised together: S = G D⁻¹ Gᵀ + W⁻¹ over the unknowns that are off their limits.

With a diagonal Hessian D an atom's minimisation under G a = b (W infinite) or under a penalty W on G a - b is one
solve with S in the multipliers of its rows. S is block-diagonal whatever the atoms' size, and sparse within a block,
which is a cell of an atom; its elimination order and fill are found once. An unknown that reaches or leaves a limit
changes the numbers of its cell's block alone. The factorisation is the up-looking LDLᵀ (Davis, ACM Trans. Math.
Software 31(4), 2005).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from voltier.market.primary.distributed.atoms import Atoms

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class Blocks(NamedTuple):
    """Pattern and numbers of S = L E Lᵀ, rows in elimination order within each atom.

    first : (n_cell + 1,) rows of each cell ; back : (m,) loosening 1/W of each row
    up_first, up_row : columns of the upper triangle of S, diagonal last ; term_first, term_column, term_value : what
    each of its entries sums, value·D⁻¹[column]
    parent : elimination tree ; l_first, l_row, l_value : columns of L ; l_count : stored so far ; pivot : E
    work, path, mark : scratch
    """

    first: Index
    back: Array
    up_first: Index
    up_row: Index
    term_first: Index
    term_column: NDArray[np.uint32]
    term_value: Array
    parent: Index
    l_first: Index
    l_row: NDArray[np.uint32]
    l_value: Array
    l_count: Index
    pivot: Array
    work: Array
    path: Index
    mark: Index


def eliminate_order(atoms: Atoms) -> Index:
    """Return the order in which the local rows are eliminated: cells stay together, fill is kept low."""
    m = len(atoms.rhs)
    shape = sparse.csr_matrix(
        (np.ones(atoms.matrix.nnz), atoms.matrix.indices, atoms.matrix.indptr), atoms.matrix.shape
    )
    square = sparse.csc_matrix(shape @ shape.T + m * sparse.eye(m))
    options = {"SymmetricMode": True}
    perm = splu(square, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options).perm_c
    cell = np.repeat(np.arange(len(atoms.cell_row_first) - 1), np.diff(atoms.cell_row_first))
    return np.lexsort((perm, cell)).astype(np.int64)


def build_blocks(matrix: sparse.csr_matrix, row_first: Index, back: Array) -> Blocks:
    """Lay out S for local rows that stand in elimination order; matrix : (m, L) G, block-diagonal by atom."""
    m = matrix.shape[0]
    columns = sparse.csc_matrix(matrix)
    size = np.diff(columns.indptr)
    row, other, value, column = [], [], [], []
    for k in np.unique(size[size > 0]):
        which = np.flatnonzero(size == k)
        at = columns.indptr[which][:, None] + np.arange(k)
        one, two = np.repeat(np.arange(k), k), np.tile(np.arange(k), k)
        keep = one <= two
        row.append(columns.indices[at[:, one[keep]]].ravel())
        other.append(columns.indices[at[:, two[keep]]].ravel())
        value.append((columns.data[at[:, one[keep]]] * columns.data[at[:, two[keep]]]).ravel())
        column.append(np.repeat(which, int(keep.sum())))
    # Diagonals of all rows are entries, though a row may have no term.
    r, c = np.concatenate([*row, np.arange(m)]), np.concatenate([*other, np.arange(m)])
    v, source = np.concatenate([*value, np.zeros(m)]), np.concatenate([*column, np.zeros(m, dtype=np.int64)])
    key, inverse = np.unique(np.maximum(r, c).astype(np.int64) * m + np.minimum(r, c), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    up_first = np.searchsorted(key, m * np.arange(m + 1, dtype=np.int64))
    up_row = key % m
    parent, count = _symbolic(m, up_first, up_row)
    l_first = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    return Blocks(
        first=np.asarray(row_first, dtype=np.int64),
        back=back,
        up_first=up_first,
        up_row=up_row,
        term_first=np.searchsorted(inverse[order], np.arange(len(key) + 1)),
        term_column=source[order].astype(np.uint32),
        term_value=v[order],
        parent=parent,
        l_first=l_first,
        l_row=np.zeros(l_first[-1], dtype=np.uint32),
        l_value=np.zeros(l_first[-1]),
        l_count=np.zeros(m, dtype=np.int64),
        pivot=np.ones(m),
        work=np.zeros(m),
        path=np.zeros(m, dtype=np.int64),
        mark=np.full(m, -1, dtype=np.int64),
    )


@njit(cache=True)
def _symbolic(m: int, up_first: Index, up_row: Index) -> tuple[Index, Index]:
    """Return the elimination tree and the entries of each column of L."""
    parent, count, mark = np.full(m, -1), np.zeros(m, np.int64), np.full(m, -1)
    for k in range(m):
        mark[k] = k
        for e in range(up_first[k], up_first[k + 1]):
            i = up_row[e]
            while i < k and mark[i] != k:
                if parent[i] == -1:
                    parent[i] = k
                count[i] += 1
                mark[i] = k
                i = parent[i]
    return parent, count


@njit(cache=True)
def factorise(blocks: Blocks, cell: int, inverse: Array) -> None:
    """Factorise one cell's block; inverse : (L,) D⁻¹, zero where an unknown is at a limit."""
    begin, end = blocks.first[cell], blocks.first[cell + 1]
    work, mark, path = blocks.work, blocks.mark, blocks.path
    for k in range(begin, end):
        blocks.l_count[k] = 0
        mark[k] = -1
        work[k] = 0.0
    for k in range(begin, end):
        top = end
        mark[k] = k
        for e in range(blocks.up_first[k], blocks.up_first[k + 1]):
            total = 0.0
            for t in range(blocks.term_first[e], blocks.term_first[e + 1]):
                total += blocks.term_value[t] * inverse[blocks.term_column[t]]
            i = blocks.up_row[e]
            work[i] += total
            length = 0
            while i < k and mark[i] != k:
                path[begin + length] = i
                length += 1
                mark[i] = k
                i = blocks.parent[i]
            while length > 0:
                length -= 1
                top -= 1
                path[top] = path[begin + length]
        pivot = work[k] + blocks.back[k]
        work[k] = 0.0
        for at in range(top, end):
            i = path[at]
            y = work[i]
            work[i] = 0.0
            stop = blocks.l_first[i] + blocks.l_count[i]
            for p in range(blocks.l_first[i], stop):
                work[blocks.l_row[p]] -= blocks.l_value[p] * y
            share = y / blocks.pivot[i]
            pivot -= share * y
            blocks.l_row[stop] = k
            blocks.l_value[stop] = share
            blocks.l_count[i] += 1
        blocks.pivot[k] = pivot


@njit(cache=True)
def factorise_all(blocks: Blocks, inverse: Array) -> None:
    """Factorise every cell's block."""
    for j in range(blocks.first.size - 1):
        factorise(blocks, j, inverse)


@njit(cache=True)
def solve_rows(blocks: Blocks, begin: int, end: int, y: Array) -> None:
    """Overwrite y[begin:end], the rows of whole cells, with S⁻¹ y."""
    for k in range(begin, end):
        at = y[k]
        for p in range(blocks.l_first[k], blocks.l_first[k] + blocks.l_count[k]):
            y[blocks.l_row[p]] -= blocks.l_value[p] * at
        y[k] = at / blocks.pivot[k]
    for k in range(end - 1, begin - 1, -1):
        total = y[k]
        for p in range(blocks.l_first[k], blocks.l_first[k] + blocks.l_count[k]):
            total -= blocks.l_value[p] * y[blocks.l_row[p]]
        y[k] = total
