"""Ohm's law of all branches as sparse equations of phase-node voltages and of the currents into the branches.

A wire is a phase of a branch at its from-end, where its current i is counted. Ohm's law of all wires is

    at_v v = at_i i        and the nodes feed        out_i i + out_v v

into the grid. A line and a wye transformer are solved for the far end, v_t = at_i i + ... : short or long, that is a
well conditioned row. Windings that cannot be solved so, for they block the zero sequence or have more phases at one end
than at the other, say i = y_ff v_f + y_ft v_t.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from voltier.grid.threephase import Branches, ThreePhaseNetwork

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

# Beyond this condition an admittance counts as one without inverse: rounding would be all there is of it.
SINGULAR = 1e8
# Share of the largest admittance below which what the branches leave of the nodal matrix is rounding.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Wires:
    """All wires of a network of n phase nodes. from_node, to_node : (w,) ; i_max_pu : (w,) ratings

    r_pu : (w,) resistance that bends losses ; at_v : (w, n), at_i : (w, w), out_i : (n, w), out_v : (n, n) complex
    """

    from_node: Index
    to_node: Index
    i_max_pu: Array
    r_pu: Array
    at_v: sparse.csr_matrix
    at_i: sparse.csr_matrix
    out_i: sparse.csr_matrix
    out_v: sparse.csr_matrix


@dataclass(slots=True)
class _Entries:
    """Entries of a sparse matrix, block by block."""

    row: list[Index] = field(default_factory=list)
    column: list[Index] = field(default_factory=list)
    value: list[Complex] = field(default_factory=list)

    def add(self, row: Index, column: Index, block: ArrayLike) -> None:
        self.row.append(np.repeat(row, len(column)))
        self.column.append(np.tile(column, len(row)))
        self.value.append(np.asarray(block, dtype=np.complex128).ravel())

    def matrix(self, shape: tuple[int, int]) -> sparse.csr_matrix:
        place = (np.concatenate(self.row), np.concatenate(self.column))
        return sparse.csr_matrix((np.concatenate(self.value), place), shape=shape)


def wires_of(network: ThreePhaseNetwork) -> Wires:
    """Return the wires of a network and their equations."""
    branches, n = network.branches, network.y.shape[0]
    there = branches.from_node >= 0
    number = np.cumsum(there).reshape(there.shape) - 1
    w = int(there.sum())
    to_node, r = np.zeros(w, dtype=np.int64), np.zeros(w)
    at_v, at_i, out_i, out_v, taken = (_Entries() for _ in range(5))
    for k in range(len(there)):
        wire, ends = number[k, there[k]], _ends(branches, k)
        to_node[wire] = ends.t[np.minimum(np.arange(len(wire)), len(ends.t) - 1)]
        out_i.add(ends.f, wire, np.diag(ends.here))
        for row, column, block in (
            (ends.f, ends.f, ends.ff), (ends.f, ends.t, ends.ft), (ends.t, ends.f, ends.tf), (ends.t, ends.t, ends.tt),
        ):  # fmt: skip
            taken.add(row, column, block)
        solve = _solved_for_the_far_end if ends.invertible else _as_admittance
        r[wire] = solve(ends, wire, at_v, at_i, out_i, out_v)
    rest = sparse.csr_matrix(network.y - taken.matrix((n, n)))
    rest.data[np.abs(rest.data) < ROUNDING * np.abs(network.y.data).max()] = 0.0
    rest.eliminate_zeros()
    return Wires(
        from_node=branches.from_node[there],
        to_node=to_node,
        i_max_pu=np.repeat(branches.i_max_pu, there.sum(axis=1)),
        r_pu=r,
        at_v=at_v.matrix((w, n)),
        at_i=at_i.matrix((w, w)),
        out_i=out_i.matrix((n, w)),
        out_v=sparse.csr_matrix(out_v.matrix((n, n)) + rest),
    )


@dataclass(frozen=True, slots=True)
class _Ends:
    """One branch between node voltages: nodes f, t ; ratios here, far ; admittances times ratios at both sides."""

    f: Index
    t: Index
    here: Array
    far: Array
    ff: Complex
    ft: Complex
    tf: Complex
    tt: Complex

    @property
    def invertible(self) -> bool:
        return len(self.f) == len(self.t) and max(np.linalg.cond(self.ft), np.linalg.cond(self.ff)) < SINGULAR


def _ends(branches: Branches, k: int) -> _Ends:
    pf, pt = np.flatnonzero(branches.from_node[k] >= 0), np.flatnonzero(branches.to_node[k] >= 0)
    here, far = branches.from_ratio[k, pf], branches.to_ratio[k, pt]
    return _Ends(
        f=branches.from_node[k, pf],
        t=branches.to_node[k, pt],
        here=here,
        far=far,
        ff=here[:, None] * branches.y_ff[k][np.ix_(pf, pf)] * here,
        ft=here[:, None] * branches.y_ft[k][np.ix_(pf, pt)] * far,
        tf=far[:, None] * branches.y_tf[k][np.ix_(pt, pf)] * here,
        tt=far[:, None] * branches.y_tt[k][np.ix_(pt, pt)] * far,
    )


def _solved_for_the_far_end(
    ends: _Ends, wire: Index, at_v: _Entries, at_i: _Entries, out_i: _Entries, out_v: _Entries
) -> Array:
    """Add v_t = z (here·i - ff v_f) with z = ft⁻¹, and the far end's current from i and v_t; return resistances."""
    z, forth = np.linalg.inv(ends.ft), ends.tf @ np.linalg.inv(ends.ff)
    at_v.add(wire, ends.t, np.eye(len(wire)))
    at_v.add(wire, ends.f, z @ ends.ff)
    at_i.add(wire, wire, z * ends.here)
    out_i.add(ends.t, wire, forth * ends.here)
    out_v.add(ends.t, ends.t, ends.tt - forth @ ends.ft)
    # Of the branch itself: what its current meets, whatever ratios stand beside it.
    own = z * ends.here * ends.far[:, None]
    return np.asarray(np.maximum(-np.real(np.diag(own)), 0.0))


def _as_admittance(
    ends: _Ends, wire: Index, at_v: _Entries, at_i: _Entries, out_i: _Entries, out_v: _Entries
) -> Array:
    """Add here·i = ff v_f + ft v_t, and the far end's current from both voltages; return resistances."""
    at_v.add(wire, ends.f, ends.ff)
    at_v.add(wire, ends.t, ends.ft)
    at_i.add(wire, wire, np.diag(ends.here))
    out_v.add(ends.t, ends.f, ends.tf)
    out_v.add(ends.t, ends.t, ends.tt)
    return np.asarray(np.maximum(np.real(ends.here**2 / np.diag(ends.ff)), 0.0))
