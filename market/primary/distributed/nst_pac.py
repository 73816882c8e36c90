"""NST-PAC: proximal atomic coordination with Nesterov steps in primal and dual, all atoms at once.

After Romvary, Ferro, Haider and Annaswamy (IEEE Trans. Automatic Control 67(1), 2022) with the residual of the whole
coupling: an atom's penalty is w/2 |B_j a_j + Σ_i B_i â_i|² over all atoms i that share its rows of B, with their last
broadcast. With its own block alone, as printed, the fixed point is another problem's. One round:

    a⁺ = argmin f + η̂ᵀ(Ga - b) + W/2|Ga - b|² + ν̂ᵀBa + w/2|Ba|² + τ/2|a - a_prev|²,   â = a⁺ + α(a⁺ - a_prev)
    η⁺ = η̂ + W(Gâ - b),  η̂⁺ = η⁺ + φ(η⁺ - η),      ν⁺ = ν̂ + wBâ,  ν̂⁺ = ν⁺ + θ(ν⁺ - ν)

An atom sends â of what it shares and ν̂ of its copies. W is inside the atom, so no step-size rule binds it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from voltier.market.primary.distributed.factor import Blocks, factorise_all
from voltier.market.primary.distributed.local import LocalProblem, Place, Rows, minimise, private_share
from voltier.market.primary.distributed.options import Options

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Side = NDArray[np.int8]

# Proximal weight of unknowns that no other atom shares: their atom could do without.
ALONE = 1e-3


class Ties(NamedTuple):
    """Rows of B. copy, own : (c,) local unknowns ; atom : (c,) whose row it is ; weight : (c,) w."""

    copy: Place
    own: Place
    atom: Index
    weight: Array


class NstState(NamedTuple):
    """Iterates. a, sent : (L,) ; eta, eta_hat, y : (m,) ; nu, nu_hat : (c,) ; side, inverse : limits that bind."""

    a: Array
    sent: Array
    eta: Array
    eta_hat: Array
    y: Array
    nu: Array
    nu_hat: Array
    side: Side
    inverse: Array


class NstNumbers(NamedTuple):
    """Fixed numbers. linear, tau, diagonal : (L,), diagonal of curvature, ties and proximal term; row_weight : (m,) W.

    row_atom, atom_of : (m,), (L,) whose they are
    """

    linear: Array
    tau: Array
    diagonal: Array
    row_weight: Array
    row_atom: Index
    atom_of: Index
    n_atom: int


@njit(cache=True)
def nst_rounds(
    rows: Rows, blocks: Blocks, ties: Ties, numbers: NstNumbers, state: NstState, steps: Array, mask: float,
    seed: int, begun: int, count: int,
) -> None:  # fmt: skip
    """Advance all atoms by count rounds; steps : α, φ, θ, of which each atom and round takes (1 - mask·private)."""
    a, sent, new, share = state.a, state.sent, np.empty_like(state.a), np.ones(numbers.n_atom)
    r, step, y = np.empty_like(a), np.empty_like(state.y), state.y
    # Fields of a tuple are counted as references wherever they are read: once is enough.
    eta, eta_hat, nu, nu_hat, tau, linear = (
        state.eta,
        state.eta_hat,
        state.nu,
        state.nu_hat,
        numbers.tau,
        numbers.linear,
    )
    copy, own, tie_atom, weight = ties.copy, ties.own, ties.atom, ties.weight
    first, column, value, rhs, row_weight = rows.first, rows.column, rows.value, rows.rhs, numbers.row_weight
    atom_of, row_atom = numbers.atom_of, numbers.row_atom
    for now in range(begun, begun + count):
        for j in range(share.size):
            share[j] = 1.0 - mask * private_share(seed, j, now)
        for i in range(a.size):
            r[i] = tau[i] * a[i] - linear[i]
            # Whoever is at a limit stands there until its atom finds otherwise.
            new[i] = a[i]
        for c in range(nu.size):
            r[copy[c]] += weight[c] * sent[own[c]] - nu_hat[c]
            r[own[c]] += weight[c] * sent[copy[c]] + nu_hat[c]
        minimise(rows, blocks, r, numbers.diagonal, state.inverse, state.side, eta_hat, new, y, step)
        for i in range(a.size):
            sent[i] = new[i] + steps[0] * share[atom_of[i]] * (new[i] - a[i])
            a[i] = new[i]
        for k in range(eta.size):
            total = -rhs[k]
            for e in range(first[k], first[k + 1]):
                total += value[e] * sent[column[e]]
            total = eta_hat[k] + row_weight[k] * total
            eta_hat[k] = total + steps[1] * share[row_atom[k]] * (total - eta[k])
            eta[k] = total
        for c in range(nu.size):
            total = nu_hat[c] + weight[c] * (sent[copy[c]] - sent[own[c]])
            nu_hat[c] = total + steps[2] * share[tie_atom[c]] * (total - nu[c])
            nu[c] = total


class NstPac:
    """NST-PAC at work on one local problem; flat : the whole state a | â | η | η̂ | ν | ν̂."""

    def __init__(self, local: LocalProblem, options: Options, stiffness: Array) -> None:
        atoms = local.atoms
        self.local, self._options = local, options
        size, m, c = len(atoms.column), len(atoms.rhs), atoms.n_copy
        self.flat = np.zeros(2 * size + 2 * m + 2 * c)
        self.a, sent, self.eta, eta_hat, self.nu, self.nu_hat = np.split(
            self.flat, np.cumsum([size, size, m, m, c])
        )
        tied = np.bincount(atoms.copy, stiffness, size) + np.bincount(atoms.own, stiffness, size)
        tau = np.where(tied > 0.0, tied, ALONE)
        diagonal = atoms.curvature + tied + tau
        self._state = NstState(
            self.a, sent, self.eta, eta_hat, np.zeros(m), self.nu, self.nu_hat, np.zeros(size, dtype=np.int8),
            1.0 / diagonal,
        )  # fmt: skip
        atom_of = np.repeat(np.arange(atoms.n_atom), np.diff(atoms.first))
        row_atom = np.repeat(np.arange(atoms.n_atom), np.diff(atoms.row_first))
        weight = np.full(m, options.row_weight)
        self._ties = Ties(
            atoms.copy.astype(np.uint32), atoms.own.astype(np.uint32), atom_of[atoms.copy], stiffness
        )
        self._numbers = NstNumbers(atoms.linear, tau, diagonal, weight, row_atom, atom_of, atoms.n_atom)
        self._blocks = local.blocks(1.0 / weight)
        factorise_all(self._blocks, self._state.inverse)
        self._steps = np.array(options.extrapolation)
        self.metric = np.sqrt(
            np.concatenate([tau, np.zeros(size + m), 1.0 / weight, np.zeros(c), 1.0 / stiffness])
        )
        self._round = 0

    def begin(self, a: Array, eta: Array, nu: Array) -> None:
        """Start from local unknowns and multipliers."""
        state = self._state
        self.a[:] = state.sent[:] = a
        self.eta[:] = state.eta_hat[:] = eta
        self.nu[:] = self.nu_hat[:] = nu

    def advance(self, count: int) -> None:
        """Advance by count rounds."""
        options = self._options
        nst_rounds(
            self.local.rows, self._blocks, self._ties, self._numbers, self._state, self._steps, options.mask,
            options.seed, self._round, count,
        )  # fmt: skip
        self._round += count

    def restart(self) -> None:
        """Forget the momentum, and go on without."""
        self._steps[:] = 0.0
        self._state.sent[:] = self.a
        self._state.eta_hat[:] = self.eta
        self.nu_hat[:] = self.nu
