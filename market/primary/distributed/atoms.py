"""Atomisation: who owns and who copies each unknown, built once from a program and a map of places to atoms.

An atom owns the columns and rows of its places. Of a foreign column that one of its rows names it holds a copy, and
a row of B says copy - owner = 0; that row belongs to the copying atom.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from voltier.grid.errors import InputError, Problem
from voltier.market.primary.distributed.program import ConvexProgram

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Profile:
    """A decomposition: atom_of_place (n_place,) ; by_period : every period of a place is an atom of its own."""

    atom_of_place: Index
    by_period: bool = False


@dataclass(frozen=True, slots=True)
class Atoms:
    """All atoms' local programs in flat arrays, sorted by atom. Local unknowns : a (L,), local rows : G a = b (m,).

    n_atom ; first, row_first : (n_atom + 1,) each atom's unknowns and rows
    column : (L,) the program's column of each local unknown ; owner : (n,) the owner's local unknown of each column
    row : (m,) the program's row of each local row ; matrix : (m, L) CSR, block-diagonal ; rhs : (m,)
    curvature, linear : (L,), zero for copies ; low, high : (L,), infinite for copies
    copy, own : (c,) local unknowns of each row of B, a[copy] - a[own] = 0, sorted by copying atom
    tie_first : (n_atom + 1,) each atom's rows of B
    cell_first, cell_row_first : (n_cell + 1,) parts of atoms that no local row ties to each other, finer than first
    """

    n_atom: int
    first: Index
    row_first: Index
    column: Index
    owner: Index
    row: Index
    matrix: sparse.csr_matrix
    rhs: Array
    curvature: Array
    linear: Array
    low: Array
    high: Array
    copy: Index
    own: Index
    tie_first: Index
    cell_first: Index
    cell_row_first: Index

    @property
    def n_copy(self) -> int:
        """Copied unknowns, which is rows of B."""
        return len(self.copy)

    @property
    def copies_of(self) -> Array:
        """How many rows of B each local unknown is in, (L,)."""
        size = len(self.column)
        return np.asarray(
            np.bincount(self.copy, minlength=size) + np.bincount(self.own, minlength=size), dtype=float
        )

    def consensus(self) -> sparse.csr_matrix:
        """Return B, (c, L)."""
        c = np.arange(self.n_copy)
        value = np.repeat([1.0, -1.0], self.n_copy)
        place = (np.tile(c, 2), np.concatenate([self.copy, self.own]))
        return sparse.csr_matrix((value, place), shape=(self.n_copy, len(self.column)))

    def spread(self, x: Array) -> Array:
        """Return local unknowns that agree with x, (L,)."""
        return x[self.column]

    def gathered(self, a: Array) -> Array:
        """Return what the owners hold, (n,)."""
        return a[self.owner]


def atomise(program: ConvexProgram, profile: Profile) -> Atoms:
    """Split a program by a profile. Raises InputError for a profile that leaves a place without atom."""
    column_atom, row_atom = _owners(program, profile)
    names, inverse = np.unique(np.concatenate([column_atom, row_atom]), return_inverse=True)
    n, m = len(program.linear), len(program.rhs)
    column_atom, row_atom = inverse[:n].astype(np.int64), inverse[n:].astype(np.int64)
    coo = sparse.coo_matrix(program.matrix)
    # Local unknowns: every column with its owner, and with every atom that has a row naming it.
    key = np.concatenate([column_atom * n + np.arange(n), row_atom[coo.row] * n + coo.col])
    local, place = np.unique(key, return_inverse=True)
    atom, column = np.divmod(local, n)
    cell_of_row, cell = _cells(coo.row, np.asarray(place[n:]), (m, len(local)), atom, row_atom)
    # Unknowns and rows of a cell stand together, cells of an atom too.
    sort = np.lexsort((column, cell))
    rank_local = np.argsort(sort)
    atom, column, cell = atom[sort], column[sort], cell[sort]
    owner = np.asarray(rank_local[place[:n]], dtype=np.int64)
    order = np.argsort(cell_of_row, kind="stable")
    rank = np.argsort(order)
    matrix = sparse.csr_matrix((coo.data, (rank[coo.row], rank_local[place[n:]])), shape=(m, len(local)))
    matrix.sort_indices()
    owned = np.zeros(len(local), dtype=bool)
    owned[owner] = True
    copy = np.flatnonzero(~owned)
    count = len(names)
    return Atoms(
        n_atom=count,
        first=np.searchsorted(atom, np.arange(count + 1)),
        row_first=np.searchsorted(row_atom[order], np.arange(count + 1)),
        column=column,
        owner=owner,
        row=order,
        matrix=matrix,
        rhs=program.rhs[order],
        curvature=np.where(owned, program.curvature[column], 0.0),
        linear=np.where(owned, program.linear[column], 0.0),
        low=np.where(owned, program.low[column], -np.inf),
        high=np.where(owned, program.high[column], np.inf),
        copy=copy,
        own=owner[column[copy]],
        tie_first=np.searchsorted(atom[copy], np.arange(count + 1)),
        cell_first=np.searchsorted(cell, np.arange(int(cell.max()) + 2)),
        cell_row_first=np.searchsorted(cell_of_row[order], np.arange(int(cell.max()) + 2)),
    )


def _owners(program: ConvexProgram, profile: Profile) -> tuple[Index, Index]:
    atom_of = np.asarray(profile.atom_of_place, dtype=np.int64)
    if len(atom_of) < program.n_place or (len(atom_of) and atom_of.min() < 0):
        remedy = f"an atom, 0 or more, for each of the {program.n_place} places"
        raise InputError([Problem("profile", "atom_of_place", len(atom_of), remedy)])
    column_atom, row_atom = atom_of[program.column_place], atom_of[program.row_place]
    if profile.by_period:
        periods = int(program.column_period.max()) + 1
        column_atom = column_atom * periods + program.column_period
        row_atom = row_atom * periods + program.row_period
    return column_atom, row_atom


def _cells(
    row: Index, column: Index, shape: tuple[int, int], atom: Index, row_atom: Index
) -> tuple[Index, Index]:
    """Return the cell of each row and of each local unknown, numbered atom by atom."""
    m, size = shape
    graph = sparse.coo_matrix((np.ones(len(row)), (row, m + column)), shape=(m + size, m + size))
    label = connected_components(graph, directed=False)[1]
    number = np.unique(np.concatenate([row_atom, atom]) * (m + size) + label, return_inverse=True)[1]
    return number[:m].astype(np.int64), number[m:].astype(np.int64)


def per_node(program: ConvexProgram, *, by_period: bool = False) -> Profile:
    """Return the profile in which every place is an atom."""
    return Profile(np.arange(program.n_place), by_period)


def per_lateral(program: ConvexProgram, *, by_period: bool = False) -> Profile:
    """Return the profile of unbranched stretches: an only child joins its parent's atom."""
    tree = _tree(program)
    atom = np.arange(program.n_place)
    for above, below in nx.bfs_edges(tree, _source(program)):
        if tree.out_degree(above) == 1:
            atom[below] = atom[above]
    return Profile(np.unique(atom, return_inverse=True)[1].astype(np.int64), by_period)


def per_area(program: ConvexProgram, n_area: int, *, by_period: bool = False) -> Profile:
    """Return n_area connected areas of like size or a little more, cut off from the far ends of the tree inwards."""
    tree = _tree(program)
    goal = max(program.n_place // n_area, 1)
    weight = np.ones(program.n_place, dtype=np.int64)
    head = np.full(program.n_place, -1, dtype=np.int64)
    edges = list(nx.bfs_edges(tree, _source(program)))
    for above, below in reversed(edges):
        if weight[below] >= goal:
            head[below] = below
        else:
            weight[above] += weight[below]
    head[_source(program)] = _source(program)
    for above, below in edges:
        if head[below] < 0:
            head[below] = head[above]
    return Profile(np.unique(head, return_inverse=True)[1].astype(np.int64), by_period)


def _source(program: ConvexProgram) -> int:
    return int(program.edge[0, 0])


def _tree(program: ConvexProgram) -> nx.DiGraph:
    """Return the tree of a breadth-first walk from the source; meshes are cut where the walk meets itself."""
    graph = nx.Graph()
    graph.add_nodes_from(range(program.n_place))
    graph.add_edges_from(map(tuple, program.edge.tolist()))
    return nx.bfs_tree(graph, _source(program))
