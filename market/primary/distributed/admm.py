"""ADMM: the alternating direction method of multipliers on the same atoms, the known alternative.

Consensus form (Boyd et al., Foundations and Trends in Machine Learning 3(1), 2011) with z the value all holders of a
column agree on, over-relaxed by κ:

    a⁺ = argmin f + β/2|a - z + u|² under Ga = b,   ã = κa⁺ + (1-κ)z
    z⁺ = clip(mean of ã + u over the holders),      u⁺ = u + ã - z⁺

A holder sends ã + u to the owner, which sends z back. Limits are the owner's, so no atom's own solve has any.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from voltier.market.primary.distributed.factor import Blocks, factorise_all, solve_rows
from voltier.market.primary.distributed.local import LocalProblem, Place, Rows
from voltier.market.primary.distributed.options import Options

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# What loosens own rows so that rounding cannot make a block singular.
ROW_LOOSENESS = 1e-11


class AdmmNumbers(NamedTuple):
    """linear, beta, inverse : (L,), inverse of curvature + β ; column : (L,) ; low, high, share : (n,), 1/holders."""

    linear: Array
    beta: Array
    inverse: Array
    column: Place
    low: Array
    high: Array
    share: Array


@njit(cache=True)
def admm_rounds(
    rows: Rows,
    blocks: Blocks,
    numbers: AdmmNumbers,
    a: Array,
    z: Array,
    u: Array,
    y: Array,
    relax: float,
    count: int,
) -> None:
    """Advance all atoms by count rounds."""
    # Fields of a tuple are counted as references wherever they are read: once is enough.
    beta, linear, inverse, share = numbers.beta, numbers.linear, numbers.inverse, numbers.share
    holder, low, high, rhs = numbers.column, numbers.low, numbers.high, rows.rhs
    first, column, value = rows.first, rows.column, rows.value
    back_first, back_row, back_value = rows.back_first, rows.back_row, rows.back_value
    for _ in range(count):
        for i in range(a.size):
            a[i] = (beta[i] * (z[holder[i]] - u[i]) - linear[i]) * inverse[i]
        for k in range(y.size):
            total = -rhs[k]
            for e in range(first[k], first[k + 1]):
                total += value[e] * a[column[e]]
            y[k] = total
        solve_rows(blocks, 0, y.size, y)
        for i in range(a.size):
            total = 0.0
            for e in range(back_first[i], back_first[i + 1]):
                total += back_value[e] * y[back_row[e]]
            a[i] -= inverse[i] * total
            u[i] += relax * a[i] + (1.0 - relax) * z[holder[i]]
        z[:] = 0.0
        for i in range(a.size):
            z[holder[i]] += share[holder[i]] * u[i]
        for n in range(z.size):
            z[n] = min(max(z[n], low[n]), high[n])
        for i in range(a.size):
            u[i] -= z[holder[i]]


class Admm:
    """ADMM at work on one local problem; flat : the state z | u."""

    def __init__(self, local: LocalProblem, options: Options, weight: Array) -> None:
        atoms = local.atoms
        self.local, self._options = local, options
        size, n, m = len(atoms.column), len(atoms.owner), len(atoms.rhs)
        self.flat = np.zeros(n + size)
        self.z, self._u = np.split(self.flat, [n])
        self.a, self.eta = np.zeros(size), np.zeros(m)
        inverse = 1.0 / (atoms.curvature + weight)
        self._blocks = local.blocks(np.full(m, ROW_LOOSENESS))
        factorise_all(self._blocks, inverse)
        holders = np.bincount(atoms.column, minlength=n)
        column = atoms.column.astype(np.uint32)
        low, high = atoms.low[atoms.owner], atoms.high[atoms.owner]
        self._numbers = AdmmNumbers(atoms.linear, weight, inverse, column, low, high, 1.0 / holders)

        self.metric = np.sqrt(np.concatenate([np.bincount(atoms.column, weight, n), weight]))

    @property
    def nu(self) -> Array:
        """Multipliers of the rows of B, (c,)."""
        return np.asarray((self._numbers.beta * self._u)[self.local.atoms.copy])

    def begin(self, a: Array, eta: Array, nu: Array) -> None:
        """Start from local unknowns and multipliers, which settle what the holders' differences must be."""
        atoms = self.local.atoms
        self.a[:], self.eta[:] = a, eta
        self.z[:] = a[atoms.owner]
        slope = atoms.curvature * a + atoms.linear + self.local.matrix.T @ eta
        self._u[:] = -slope / self._numbers.beta

    def advance(self, count: int) -> None:
        """Advance by count rounds."""
        options = self._options
        admm_rounds(
            self.local.rows, self._blocks, self._numbers, self.a, self.z, self._u, self.eta, options.relaxation,
            count,
        )  # fmt: skip

    def held(self) -> tuple[Array, Array, Array]:
        """Return a start for another program."""
        return self.a.copy(), self.eta.copy(), self.nu

    def restart(self) -> None:
        """Do nothing: there is no momentum."""
