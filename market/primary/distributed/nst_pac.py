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
    """Rows of B, one's own first. copy, own : (c,) local unknowns, or places of foreign ones after them

    atom : (c,) whose row it is ; weight : (c,) w ; mine : rows whose multipliers are found here, c where all are
    """

    copy: Place
    own: Place
    atom: Index
    weight: Array
    mine: int


class NstState(NamedTuple):
    """Iterates. a : (L,) ; sent : (L + g,) â, of g foreign ends of rows of B the last that arrived ; eta, eta_hat,
    y : (m,) ; nu, nu_hat : (c,) ; side, inverse : limits that bind
    """

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

    row_atom, atom_of : (m,), (L,) whose they are, of n_atom from number first_atom on
    """

    linear: Array
    tau: Array
    diagonal: Array
    row_weight: Array
    row_atom: Index
    atom_of: Index
    n_atom: int
    first_atom: int


class Scratch(NamedTuple):
    """Room of the kernels. new : (L,) ; r : (L + g,) ; step : (m,) ; share : (n_atom,) of momentum in this round."""

    new: Array
    r: Array
    step: Array
    share: Array


@njit(cache=True)
def nst_rounds(
    rows: Rows, blocks: Blocks, ties: Ties, numbers: NstNumbers, state: NstState, scratch: Scratch, steps: Array,
    mask: float, seed: int, begun: int, count: int,
) -> None:  # fmt: skip
    """Advance all atoms by count rounds; steps : α, φ, θ, of which each atom and round takes (1 - mask·private)."""
    # Fields of a tuple are counted as references wherever they are read: once is enough.
    a, sent, eta, eta_hat, nu, nu_hat = (
        state.a, state.sent, state.eta, state.eta_hat, state.nu, state.nu_hat,
    )  # fmt: skip
    tau, linear, atom_of, row_weight, row_atom = (
        numbers.tau, numbers.linear, numbers.atom_of, numbers.row_weight, numbers.row_atom,
    )  # fmt: skip
    copy, own, tie_atom, weight, mine = ties.copy, ties.own, ties.atom, ties.weight, ties.mine
    first, column, value, rhs = rows.first, rows.column, rows.value, rows.rhs
    new, r, share = scratch.new, scratch.r, scratch.share
    for now in range(begun, begun + count):
        draw_shares(share, mask, seed, numbers.first_atom, now)
        _gather(a, sent, nu_hat, tau, linear, copy, own, weight, r, new)
        minimise(
            rows, blocks, r, numbers.diagonal, state.inverse, state.side, eta_hat, new, state.y, scratch.step
        )
        _tell(a, sent, new, steps[0], share, atom_of)
        _lift_rows(eta, eta_hat, sent, first, column, value, rhs, row_weight, steps[1], share, row_atom)
        _lift_ties(nu, nu_hat, sent, copy, own, weight, steps[2], share, tie_atom, mine)


@njit(cache=True)
def primal_half(
    rows: Rows, blocks: Blocks, ties: Ties, numbers: NstNumbers, state: NstState, scratch: Scratch, steps: Array,
    mask: float, seed: int, now: int,
) -> None:  # fmt: skip
    """Find a⁺ and â of round now from what is known of â and ν̂."""
    draw_shares(scratch.share, mask, seed, numbers.first_atom, now)
    _gather(
        state.a, state.sent, state.nu_hat, numbers.tau, numbers.linear, ties.copy, ties.own, ties.weight, scratch.r,
        scratch.new,
    )  # fmt: skip
    minimise(
        rows, blocks, scratch.r, numbers.diagonal, state.inverse, state.side, state.eta_hat, scratch.new, state.y,
        scratch.step,
    )  # fmt: skip
    _tell(state.a, state.sent, scratch.new, steps[0], scratch.share, numbers.atom_of)


@njit(cache=True)
def dual_half(
    rows: Rows, ties: Ties, numbers: NstNumbers, state: NstState, scratch: Scratch, steps: Array, mask: float,
    seed: int, now: int,
) -> None:  # fmt: skip
    """Find η⁺, η̂⁺ and, of the rows of B that are one's own, ν⁺ and ν̂⁺ of round now from what is known of â."""
    draw_shares(scratch.share, mask, seed, numbers.first_atom, now)
    _lift_rows(
        state.eta, state.eta_hat, state.sent, rows.first, rows.column, rows.value, rows.rhs, numbers.row_weight,
        steps[1], scratch.share, numbers.row_atom,
    )  # fmt: skip
    _lift_ties(
        state.nu, state.nu_hat, state.sent, ties.copy, ties.own, ties.weight, steps[2], scratch.share, ties.atom,
        ties.mine,
    )  # fmt: skip


@njit(cache=True)
def draw_shares(share: Array, mask: float, seed: int, first_atom: int, now: int) -> None:
    """Write the part of the momentum that each atom takes in a round."""
    for j in range(share.size):
        share[j] = 1.0 - mask * private_share(seed, first_atom + j, now)


@njit(cache=True)
def _gather(
    a: Array, sent: Array, nu_hat: Array, tau: Array, linear: Array, copy: Place, own: Place, weight: Array,
    r: Array, new: Array,
) -> None:  # fmt: skip
    """Write the linear part of all atoms' minimisations, and what stands at limits."""
    for i in range(a.size):
        r[i] = tau[i] * a[i] - linear[i]
        # Whoever is at a limit stands there until its atom finds otherwise.
        new[i] = a[i]
    for c in range(nu_hat.size):
        r[copy[c]] += weight[c] * sent[own[c]] - nu_hat[c]
        r[own[c]] += weight[c] * sent[copy[c]] + nu_hat[c]


@njit(cache=True)
def _tell(a: Array, sent: Array, new: Array, alpha: float, share: Array, atom_of: Index) -> None:
    for i in range(a.size):
        sent[i] = new[i] + alpha * share[atom_of[i]] * (new[i] - a[i])
        a[i] = new[i]


@njit(cache=True)
def _lift_rows(
    eta: Array, eta_hat: Array, sent: Array, first: Index, column: Place, value: Array, rhs: Array,
    row_weight: Array, phi: float, share: Array, row_atom: Index,
) -> None:  # fmt: skip
    for k in range(eta.size):
        total = -rhs[k]
        for e in range(first[k], first[k + 1]):
            total += value[e] * sent[column[e]]
        total = eta_hat[k] + row_weight[k] * total
        eta_hat[k] = total + phi * share[row_atom[k]] * (total - eta[k])
        eta[k] = total


@njit(cache=True)
def _lift_ties(
    nu: Array, nu_hat: Array, sent: Array, copy: Place, own: Place, weight: Array, theta: float, share: Array,
    tie_atom: Index, mine: int,
) -> None:  # fmt: skip
    for c in range(mine):
        total = nu_hat[c] + weight[c] * (sent[copy[c]] - sent[own[c]])
        nu_hat[c] = total + theta * share[tie_atom[c]] * (total - nu[c])
        nu[c] = total


class Snapshot(NamedTuple):
    """State of a method: flat, y, side and inverse as in NstState, rounds made."""

    flat: Array
    y: Array
    side: Side
    inverse: Array
    rounds: int


class Foreign(NamedTuple):
    """What an atom on its own knows of others. ends : foreign ends of rows of B ; mine : rows of B that are its own

    first_atom : its number, which its private shares depend on
    """

    ends: int
    mine: int
    first_atom: int


class NstPac:
    """NST-PAC at work on one local problem; flat : the whole state a | â | η | η̂ | ν | ν̂.

    foreign : where the problem is one atom's, whose rows of B have ends elsewhere
    """

    def __init__(
        self, local: LocalProblem, options: Options, stiffness: Array, foreign: Foreign | None = None
    ) -> None:
        atoms = local.atoms
        self.local, self._options = local, options
        size, m, c = len(atoms.column), len(atoms.rhs), atoms.n_copy
        ends, mine, first_atom = foreign or Foreign(0, c, 0)
        self.flat = np.zeros(2 * size + ends + 2 * m + 2 * c)
        self.a, self.sent, self.eta, eta_hat, self.nu, self.nu_hat = np.split(
            self.flat, np.cumsum([size, size + ends, m, m, c])
        )
        tied = (
            np.bincount(atoms.copy, stiffness, size + ends) + np.bincount(atoms.own, stiffness, size + ends)
        )[:size]
        tau = np.where(tied > 0.0, tied, ALONE)
        diagonal = atoms.curvature + tied + tau
        self._state = NstState(
            self.a, self.sent, self.eta, eta_hat, np.zeros(m), self.nu, self.nu_hat,
            np.zeros(size, dtype=np.int8), 1.0 / diagonal,
        )  # fmt: skip
        atom_of = np.repeat(np.arange(atoms.n_atom), np.diff(atoms.first))
        row_atom = np.repeat(np.arange(atoms.n_atom), np.diff(atoms.row_first))
        tie_atom = np.repeat(np.arange(atoms.n_atom), np.diff(atoms.tie_first))
        weight = np.full(m, options.row_weight)
        self._ties = Ties(
            atoms.copy.astype(np.uint32), atoms.own.astype(np.uint32), tie_atom, stiffness, mine
        )
        self._numbers = NstNumbers(
            atoms.linear, tau, diagonal, weight, row_atom, atom_of, atoms.n_atom, first_atom
        )
        self._scratch = Scratch(np.empty(size), np.empty(size + ends), np.empty(m), np.ones(atoms.n_atom))
        self._blocks = local.blocks(1.0 / weight)
        factorise_all(self._blocks, self._state.inverse)
        self._steps = np.array(options.extrapolation)
        self.metric = np.sqrt(
            np.concatenate([tau, np.zeros(size + ends + m), 1.0 / weight, np.zeros(c), 1.0 / stiffness])
        )
        self.rounds = 0

    def begin(self, a: Array, eta: Array, nu: Array) -> None:
        """Start from local unknowns, with foreign ends behind them, and multipliers."""
        state = self._state
        self.sent[:] = a
        self.a[:] = a[: len(self.a)]
        self.eta[:] = state.eta_hat[:] = eta
        self.nu[:] = self.nu_hat[:] = nu

    def advance(self, count: int) -> None:
        """Advance by count rounds."""
        options = self._options
        nst_rounds(
            self.local.rows, self._blocks, self._ties, self._numbers, self._state, self._scratch, self._steps,
            options.mask, options.seed, self.rounds, count,
        )  # fmt: skip
        self.rounds += count

    def primal(self) -> None:
        """Make the first half of a round; the foreign ends of the last are in sent, foreign multipliers in nu_hat."""
        primal_half(
            self.local.rows, self._blocks, self._ties, self._numbers, self._state, self._scratch,
            self._steps, self._options.mask, self._options.seed, self.rounds,
        )  # fmt: skip

    def dual(self) -> None:
        """Make the second half; the foreign ends of the first are in sent."""
        dual_half(
            self.local.rows, self._ties, self._numbers, self._state, self._scratch, self._steps,
            self._options.mask, self._options.seed, self.rounds,
        )  # fmt: skip
        self.rounds += 1

    def held(self) -> tuple[Array, Array, Array]:
        """Return a start for another program: what the atoms have last told each other, and their own multipliers.

        The true ν, and α's share of â, are then nobody else's to know.
        """
        return self.sent.copy(), self.eta.copy(), self.nu_hat.copy()

    def restart(self) -> None:
        """Go on without momentum, from what the atoms have told each other."""
        self._steps[:] = 0.0
        self._state.eta_hat[:] = self.eta
        self.nu[:] = self.nu_hat

    def snapshot(self) -> Snapshot:
        """Return all that the next round depends on."""
        state = self._state
        return Snapshot(
            self.flat.copy(), state.y.copy(), state.side.copy(), state.inverse.copy(), self.rounds
        )

    def rewind(self, kept: Snapshot) -> None:
        """Return to where a snapshot was taken."""
        state = self._state
        self.flat[:], state.y[:], state.side[:], state.inverse[:], self.rounds = kept
        factorise_all(self._blocks, state.inverse)
