"""Rows of sums over quantities and over products of two quantities, and complex sparse matrices in parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

Complex = NDArray[np.complex128]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Products:
    """Sums over value·E[first·conj(second)], one for each row; first, second : quantities."""

    row: Index
    first: Index
    second: Index
    value: Complex


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over value·E[quantity], one for each row."""

    row: Index
    quantity: Index
    value: Complex


def parts(matrix: sparse.spmatrix) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Return real and imaginary part of a sparse matrix, sorted, each with its own index arrays.

    scipy lets the two share the index arrays of the matrix and sorts them in place for one of the three only.
    """
    own = sparse.csr_matrix(matrix, dtype=np.complex128, copy=True)
    own.sum_duplicates()
    shape = own.shape
    return (
        sparse.csr_matrix((own.data.real.copy(), own.indices.copy(), own.indptr.copy()), shape=shape),
        sparse.csr_matrix((own.data.imag.copy(), own.indices.copy(), own.indptr.copy()), shape=shape),
    )


class Collector:
    """Grows rows, array by array; zeros are left out."""

    def __init__(self) -> None:
        self._parts: list[tuple[Index, Index, Index, Complex]] = []

    def add(self, row: ArrayLike, first: ArrayLike, second: ArrayLike, value: ArrayLike) -> None:
        """Add terms; the arguments are broadcast against each other."""
        row_, first_, second_, value_ = np.broadcast_arrays(row, first, second, value)
        keep = value_ != 0.0
        self._parts.append((row_[keep], first_[keep], second_[keep], value_[keep].astype(np.complex128)))

    def products(self) -> Products:
        """Return what was gathered."""
        empty = np.zeros(0, dtype=np.int64)
        parts = [*self._parts, (empty, empty, empty, np.zeros(0, dtype=np.complex128))]
        row, first, second, value = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Products(row.astype(np.int64), first.astype(np.int64), second.astype(np.int64), value)

    def sums(self) -> Sums:
        """Return what was gathered, the first quantities alone."""
        products = self.products()
        return Sums(products.row, products.first, products.value)
