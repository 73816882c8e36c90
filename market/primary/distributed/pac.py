"""PAC: proximal atomic coordination, all atoms at once.

After Romvary, Ferro, Haider and Annaswamy (IEEE Trans. Automatic Control 67(1), 2022), with b kept in the dual step:

    a⁺ = argmin f + η̂ᵀ(Ga - b) + ν̂ᵀBa + |a - a_prev|²/(2ρ) over the box
    η⁺ = η + Σ(Ga⁺ - b),  η̂⁺ = η⁺ + γ̂Σ(Ga⁺ - b);      ν⁺ = ν + wBa⁺,  ν̂⁺ = ν⁺ + γ̂wBa⁺

An owner sends a of what is copied, a copying atom sends ν̂, which its private γ̂ in [0, 1] masks. ρ and w may be
diagonal. With a diagonal cost the minimiser is a clipped quotient. γ̂ = 1 is the primal-dual hybrid gradient method.

Σ is ργ, a number, or σ(GρGᵀ)⁻¹, which every atom can do by itself for Σ is block-diagonal: the steps of Pock and
Chambolle (IEEE ICCV 2011) with a block instead of a diagonal. Voltages want proximal steps ρ 10⁴ times shorter than
currents, and measured by ρ an atom's normalised rows have condition 10³ to 10⁴. One dual step for all of them must suit
the worst, and holds the steps of currents 100 times shorter than their ties would. With the block the norm condition is
σ + |√w B√ρ|² ≤ 1, and ρ = (1 - σ)/(2 w·ties) keeps it with what an atom knows of its own ties.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from voltier.market.primary.distributed.factor import Blocks, factorise_all, solve_rows
from voltier.market.primary.distributed.local import LocalProblem, Place, Rows, private_share
from voltier.market.primary.distributed.options import Options
from voltier.market.primary.distributed.step_rule import squared_norm

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# What loosens own rows so that rounding cannot make a block singular.
ROW_LOOSENESS = 1e-11
# Proximal weight of unknowns that no other atom shares, of their stiffness: no tie bounds their step, but a long one
# shortens the dual steps of their rows. Found on IEEE 13, 34 and 123; a factor of three either way costs at most half.
ALONE = 0.3


class PacNumbers(NamedTuple):
    """Costs and steps. linear, near, divisor : (L,), near 1/ρ, divisor 1/(curvature + 1/ρ)

    copy, own : (c,) rows of B ; row_step, tie_step : ργ or σ, and w ; row_atom, tie_atom : whose they are
    whole : own rows step by the inverse of their block
    """

    linear: Array
    near: Array
    divisor: Array
    copy: Place
    own: Place
    row_step: Array
    tie_step: Array
    row_atom: Index
    tie_atom: Index
    n_atom: int
    whole: bool


@njit(cache=True)
def pac_rounds(
    rows: Rows, blocks: Blocks, numbers: PacNumbers, a: Array, eta: Array, eta_hat: Array, nu: Array,
    nu_hat: Array, mask: float, seed: int, begun: int, count: int,
) -> None:  # fmt: skip
    """Advance all atoms by count rounds."""
    pull, gap, share = np.empty_like(a), np.empty_like(eta), np.ones(numbers.n_atom)
    # Fields of a tuple are counted as references wherever they are read: once is enough.
    near, linear, divisor, low, high = numbers.near, numbers.linear, numbers.divisor, rows.low, rows.high
    copy, own, row_step, tie_step = numbers.copy, numbers.own, numbers.row_step, numbers.tie_step
    row_atom, tie_atom, rhs = numbers.row_atom, numbers.tie_atom, rows.rhs
    first, column, value = rows.first, rows.column, rows.value
    back_first, back_row, back_value = rows.back_first, rows.back_row, rows.back_value
    for now in range(begun, begun + count):
        if mask > 0.0:
            for j in range(share.size):
                share[j] = 1.0 - mask * private_share(seed, j, now)
        for i in range(a.size):
            pull[i] = near[i] * a[i] - linear[i]
        for c in range(nu.size):
            pull[copy[c]] -= nu_hat[c]
            pull[own[c]] += nu_hat[c]
        for i in range(a.size):
            total = pull[i]
            for e in range(back_first[i], back_first[i + 1]):
                total -= back_value[e] * eta_hat[back_row[e]]
            a[i] = min(max(total * divisor[i], low[i]), high[i])
        for k in range(eta.size):
            total = -rhs[k]
            for e in range(first[k], first[k + 1]):
                total += value[e] * a[column[e]]
            gap[k] = total
        if numbers.whole:
            solve_rows(blocks, 0, eta.size, gap)
        for k in range(eta.size):
            total = row_step[k] * gap[k]
            eta[k] += total
            eta_hat[k] = eta[k] + share[row_atom[k]] * total
        for c in range(nu.size):
            total = tie_step[c] * (a[copy[c]] - a[own[c]])
            nu[c] += total
            nu_hat[c] = nu[c] + share[tie_atom[c]] * total


class Pac:
    """PAC at work on one local problem; advance() changes a, eta and nu in place.

    flat : the whole state in one vector, of which the others are views: a | η | η̂ | ν | ν̂
    norm : ‖√Σ[G; B]√ρ‖² or a bound of it, at most 1
    """

    def __init__(self, local: LocalProblem, options: Options, stiffness: Array) -> None:
        self.local, self._options, atoms = local, options, local.atoms
        size, m, c = len(atoms.column), len(atoms.rhs), atoms.n_copy
        self.flat = np.zeros(size + 2 * m + 2 * c)
        self.a, self.eta, self._eta_hat, self.nu, self.nu_hat = np.split(
            self.flat, np.cumsum([size, m, m, c])
        )
        who = np.arange(atoms.n_atom)
        row_step, column_step, self.norm = _steps(local, options, stiffness)
        self._blocks = local.blocks(np.full(m, ROW_LOOSENESS))
        if options.precondition:
            factorise_all(self._blocks, column_step)
        self._numbers = PacNumbers(
            atoms.linear, 1.0 / column_step, 1.0 / (atoms.curvature + 1.0 / column_step),
            atoms.copy.astype(np.uint32), atoms.own.astype(np.uint32), row_step[:m], row_step[m:],
            np.repeat(who, np.diff(atoms.row_first)), np.repeat(who, np.diff(atoms.tie_first)),
            atoms.n_atom, options.precondition,
        )  # fmt: skip
        # Of a block, the diagonal.
        size_of = local.matrix.multiply(local.matrix) @ column_step if options.precondition else np.ones(m)
        self.metric = np.sqrt(
            np.concatenate(
                [1.0 / column_step, np.zeros(m), size_of / row_step[:m], np.zeros(c), 1.0 / row_step[m:]]
            )
        )
        self._round = 0

    def begin(self, a: Array, eta: Array, nu: Array) -> None:
        """Start from local unknowns and multipliers."""
        self.a[:] = a
        self.eta[:] = self._eta_hat[:] = eta
        self.nu[:] = self.nu_hat[:] = nu

    def advance(self, count: int) -> None:
        """Advance by count rounds."""
        options = self._options
        pac_rounds(
            self.local.rows, self._blocks, self._numbers, self.a, self.eta, self._eta_hat, self.nu, self.nu_hat,
            options.mask, options.seed, self._round, count,
        )  # fmt: skip
        self._round += count

    def held(self) -> tuple[Array, Array, Array]:
        """Return a start for another program: what the atoms have last told each other, and their own multipliers."""
        return self.a.copy(), self.eta.copy(), self.nu_hat.copy()

    def restart(self) -> None:
        """Go on without momentum, from what the atoms have told each other."""
        self._eta_hat[:] = self.eta
        self.nu[:] = self.nu_hat


def _steps(local: LocalProblem, options: Options, stiffness: Array) -> tuple[Array, Array, float]:
    """Return the steps of rows and columns, within the rule, and the norm that says so; stiffness : (L,)."""
    atoms, m = local.atoms, len(local.atoms.rhs)
    if options.precondition:
        weight = stiffness[atoms.copy]
        size = len(atoms.column)
        tied = np.bincount(atoms.copy, weight, size) + np.bincount(atoms.own, weight, size)
        rest = 1.0 - options.row_share
        column_step = np.where(tied > 0.0, rest / np.maximum(2.0 * tied, 1e-300), 1.0 / (ALONE * stiffness))
        return np.concatenate([np.full(m, options.row_share), weight]), column_step, 1.0
    both = sparse.csr_matrix(sparse.vstack([local.matrix, atoms.consensus()]))
    row_step = np.full(both.shape[0], options.rho * options.gamma)
    column_step = np.full(both.shape[1], options.rho)
    norm = squared_norm(both, row_step, column_step)
    # The rule is kept by shortening the dual steps.
    if norm > 1.0:
        row_step, norm = row_step / norm, 1.0
    return row_step, column_step, norm
