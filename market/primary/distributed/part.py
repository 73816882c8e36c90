"""One atom cut out of all, for a process of its own: what it holds, and what it shares with whom."""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.errors import InputError, Problem
from voltier.market.primary.distributed.atoms import Atoms

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Link:
    """What two atoms share; both list it in the same order, that of the program's columns.

    neighbour : the other atom ; give : local unknowns it is told ; take : places of those that it tells
    give_dual, take_dual : rows of B whose multipliers it is told and tells
    """

    neighbour: int
    give: Index
    take: Index
    give_dual: Index
    take_dual: Index


@dataclass(frozen=True, slots=True)
class Part:
    """One atom. Places of its unknowns are those of its Atoms; foreign ends of rows of B stand behind them.

    atoms : itself alone, rows of B first its own, then those of others that copy from it ; owner : its own unknowns
    mine : rows of B of its own ; own_column : columns of the program it owns, in the order of atoms.owner
    tie_column : (c,) columns of the rows of B, each of which has one foreign end
    links : one for each neighbour, by number ; reach : edges between the two atoms farthest from each other
    """

    number: int
    atoms: Atoms
    mine: int
    own_column: Index
    tie_column: Index
    links: tuple[Link, ...]
    reach: int

    @property
    def size(self) -> int:
        """Unknowns of its own, copies among them."""
        return len(self.atoms.column)


def cut(atoms: Atoms, number: int) -> Part:
    """Return one atom. Raises InputError for atoms that have no way to each other."""
    whose = np.repeat(np.arange(atoms.n_atom), np.diff(atoms.first))
    tie_atom, own_atom = whose[atoms.copy], whose[atoms.own]
    mine, theirs = np.flatnonzero(tie_atom == number), np.flatnonzero(own_atom == number)
    tie = np.concatenate([mine, theirs])
    begin, end = atoms.first[number], atoms.first[number + 1]
    ends = end - begin + np.arange(len(tie))
    copy = np.concatenate([atoms.copy[mine] - begin, ends[len(mine) :]])
    own = np.concatenate([ends[: len(mine)], atoms.own[theirs] - begin])
    column = atoms.column[atoms.copy[tie]]
    other = np.concatenate([own_atom[mine], tie_atom[theirs]])
    links = []
    for neighbour in np.unique(other):
        here = np.flatnonzero(other == neighbour)
        here = here[np.argsort(column[here], kind="stable")]
        out, back = here[here < len(mine)], here[here >= len(mine)]
        links.append(
            Link(
                neighbour=int(neighbour),
                give=np.concatenate([copy[out], own[back]]),
                take=np.concatenate([copy[back], own[out]]),
                give_dual=out,
                take_dual=back,
            )
        )
    owned = atoms.owner[(atoms.owner >= begin) & (atoms.owner < end)] - begin
    return Part(
        number=number,
        atoms=_alone(atoms, number, copy, own, owned, len(mine)),
        mine=len(mine),
        own_column=atoms.column[begin:end][owned],
        tie_column=column,
        links=tuple(links),
        reach=_reach(atoms.n_atom, tie_atom, own_atom),
    )


def _alone(atoms: Atoms, number: int, copy: Index, own: Index, owned: Index, mine: int) -> Atoms:
    begin, end = atoms.first[number], atoms.first[number + 1]
    row, row_end = atoms.row_first[number], atoms.row_first[number + 1]
    cells = slice(*np.searchsorted(atoms.cell_first, [begin, end]))
    within = slice(cells.start, cells.stop + 1)
    matrix = sparse.csr_matrix(atoms.matrix[row:row_end][:, begin:end])
    matrix.sort_indices()
    return Atoms(
        n_atom=1,
        first=np.array([0, end - begin]),
        row_first=np.array([0, row_end - row]),
        column=atoms.column[begin:end],
        owner=owned,
        row=atoms.row[row:row_end],
        matrix=matrix,
        rhs=atoms.rhs[row:row_end],
        curvature=atoms.curvature[begin:end],
        linear=atoms.linear[begin:end],
        low=atoms.low[begin:end],
        high=atoms.high[begin:end],
        copy=copy,
        own=own,
        tie_first=np.array([0, mine]),
        cell_first=atoms.cell_first[within] - begin,
        cell_row_first=atoms.cell_row_first[within] - row,
    )


def _reach(n_atom: int, one: Index, other: Index) -> int:
    graph = nx.Graph()
    graph.add_nodes_from(range(n_atom))
    graph.add_edges_from(zip(one.tolist(), other.tolist(), strict=True))
    if not nx.is_connected(graph):
        remedy = "areas with a way to each other"
        raise InputError([Problem("profile", "areas", n_atom, remedy)])
    return int(nx.diameter(graph))
