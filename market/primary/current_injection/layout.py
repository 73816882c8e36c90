"""From complex moments to the real columns of a cone program."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.market.primary.current_injection.collect import Products, Sums, parts
from voltier.market.primary.current_injection.intervals import Rectangle

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

# Quantities narrower than this [p.u.] are scaled as if they were so wide.
SMALLEST_SCALE_PU = 1e-5


@dataclass(frozen=True, slots=True)
class Scaling:
    """Every quantity as centre + radius·x, with |Re x|, |Im x| <= 1; radius 0 where it is known.

    box : (n_q,) the ranges, from which reach.real, reach.imag bound |Re x|, |Im x|
    """

    centre: Complex
    radius: Array
    reach: Complex


def scale_quantities(box: Rectangle, known: int) -> Scaling:
    """Scale quantities to their ranges; the first `known` are constants."""
    half = box.radius
    radius = np.maximum(np.maximum(half.real, half.imag), SMALLEST_SCALE_PU)
    radius[:known] = 0.0
    reach = half / np.where(radius > 0.0, radius, 1.0)
    return Scaling(box.centre, radius, reach)


@dataclass(frozen=True, slots=True)
class Layout:
    """Columns: operators' u (3·n_smo), import, Re x, Im x, E|x|², Re and Im of E[x_i conj(x_j)], magnitudes |w|.

    pair_key : sorted keys i·n_quantity + j (i < j) of the pairs
    """

    n_smo: int
    n_quantity: int
    pair_key: Index
    n_size: int

    @property
    def head(self) -> int:
        """Column of the import."""
        return 3 * self.n_smo

    @property
    def first(self) -> int:
        """First column of the quantities' deviations."""
        return self.head + 1

    @property
    def square(self) -> int:
        """First column of the deviations' squares."""
        return self.first + 2 * self.n_quantity

    @property
    def pair(self) -> int:
        """First column of the pairs."""
        return self.square + self.n_quantity

    @property
    def size(self) -> int:
        """First column of the magnitudes."""
        return self.pair + 2 * len(self.pair_key)

    @property
    def n_column(self) -> int:
        """All columns."""
        return self.size + self.n_size

    def place(self, first: Index, second: Index) -> tuple[Index, Index, Array]:
        """Return real and imaginary columns of E[x_first conj(x_second)] and the sign of the latter (0: none)."""
        low, high = np.minimum(first, second), np.maximum(first, second)
        at = np.searchsorted(self.pair_key, low * self.n_quantity + high)
        at = np.minimum(at, max(len(self.pair_key) - 1, 0))
        same = first == second
        real = np.where(same, self.square + first, self.pair + at)
        imaginary = np.where(same, real, self.pair + len(self.pair_key) + at)
        sign = np.where(same, 0.0, np.where(first < second, 1.0, -1.0))
        return real, imaginary, sign


@dataclass(frozen=True, slots=True)
class Affine:
    """Complex rows: value = constant + (real + j·imaginary) @ columns."""

    real: sparse.csr_matrix
    imaginary: sparse.csr_matrix
    constant: Complex


def expand(products: Products, count: int, layout: Layout, scaling: Scaling) -> Affine:
    """Write E[a conj(b)] with a = centre + radius·x in the columns of the program."""
    a, b, value, row = products.first, products.second, products.value, products.row
    centre, radius = scaling.centre, scaling.radius
    constant = np.zeros(count, dtype=np.complex128)
    np.add.at(constant, row, value * centre[a] * centre[b].conj())
    real, imaginary, sign = layout.place(a, b)
    n = layout.n_quantity
    terms = [
        (row, layout.first + a, value * radius[a] * centre[b].conj()),
        (row, layout.first + n + a, 1j * value * radius[a] * centre[b].conj()),
        (row, layout.first + b, value * centre[a] * radius[b]),
        (row, layout.first + n + b, -1j * value * centre[a] * radius[b]),
        (row, real, value * radius[a] * radius[b]),
        (row, imaginary, 1j * sign * value * radius[a] * radius[b]),
    ]
    return _affine(terms, count, layout, constant)


def expand_sums(sums: Sums, count: int, layout: Layout, scaling: Scaling) -> Affine:
    """Write E[a] in the columns of the program."""
    constant = np.zeros(count, dtype=np.complex128)
    np.add.at(constant, sums.row, sums.value * scaling.centre[sums.quantity])
    value = sums.value * scaling.radius[sums.quantity]
    terms = [
        (sums.row, layout.first + sums.quantity, value),
        (sums.row, layout.first + layout.n_quantity + sums.quantity, 1j * value),
    ]
    return _affine(terms, count, layout, constant)


def _affine(
    terms: list[tuple[Index, Index, Complex]], count: int, layout: Layout, constant: Complex
) -> Affine:
    row, column, value = (np.concatenate([term[k] for term in terms]) for k in range(3))
    keep = value != 0.0
    shape = (count, layout.n_column)
    matrix = sparse.csr_matrix((value[keep], (row[keep], column[keep])), shape=shape, dtype=np.complex128)
    return Affine(*parts(matrix), constant)


Block = tuple[sparse.csr_matrix, Array]
"""Rows and their right-hand sides: matrix @ columns + slack = side."""


def pick(column: Index, value: Array, n_column: int) -> sparse.csr_matrix:
    """Return rows with one entry each."""
    row = np.arange(len(column))
    return sparse.csr_matrix(
        (np.broadcast_to(value, len(column)), (row, column)), shape=(len(column), n_column)
    )


def cone_rows(clique: Index, layout: Layout) -> tuple[Index, Index, Array, Array]:
    """Return rows (from 0), columns, values and rhs that make the moments of a clique, with 1, a cone.

    A Hermitian matrix X + jY is positive semidefinite when [[X, -Y], [Y, X]] is; its upper triangle is written
    column by column, off-diagonal entries times √2. One quantity alone is |E x|² <= E|x|², a cone of second order.
    """
    if len(clique) == 1:
        return _small_cone(int(clique[0]), layout)
    size = 1 + len(clique)
    j, i = np.tril_indices(2 * size)
    weight = np.where(i == j, 1.0, np.sqrt(2.0))
    p, q = i % size, j % size
    across = (i < size) & (j >= size)
    line = np.arange(len(i))
    row: list[Index] = []
    column: list[Index] = []
    value: list[Array] = []
    rhs = np.zeros(len(i))
    unit = (p == 0) & (q == 0)
    rhs[unit & ~across] = 1.0
    inner = (p > 0) & (q > 0)
    real, imaginary, sign = layout.place(clique[np.maximum(p - 1, 0)], clique[np.maximum(q - 1, 0)])
    _put(row, column, value, (inner & ~across, line, real, weight))
    _put(row, column, value, (inner & across & (sign != 0.0), line, imaginary, -sign * weight))
    edge = (p == 0) != (q == 0)
    other = clique[np.maximum(np.maximum(p, q) - 1, 0)]
    # E[1·conj(x)] in the first row, E[x] in the first column.
    turn = np.where(p == 0, -1.0, 1.0)
    _put(row, column, value, (edge & ~across, line, layout.first + other, weight))
    _put(row, column, value, (edge & across, line, layout.first + layout.n_quantity + other, -turn * weight))
    return np.concatenate(row), np.concatenate(column), -np.concatenate(value), rhs


def _put(
    row: list[Index],
    column: list[Index],
    value: list[Array],
    what: tuple[NDArray[np.bool_], Index, Index, Array],
) -> None:
    keep, line, at, weight = what
    row.append(line[keep])
    column.append(np.broadcast_to(at, line.shape)[keep])
    value.append(weight[keep])


def _small_cone(quantity: int, layout: Layout) -> tuple[Index, Index, Array, Array]:
    """|(2 Re x, 2 Im x, s - 1)| <= s + 1."""
    square, re = layout.square + quantity, layout.first + quantity
    row = np.array([0, 1, 2, 3])
    column = np.array([square, re, re + layout.n_quantity, square])
    return row, column, np.array([-1.0, -2.0, -2.0, -1.0]), np.array([1.0, 0.0, 0.0, -1.0])
