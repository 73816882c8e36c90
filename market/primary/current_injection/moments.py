"""Second moments of a three-phase network: powers, losses and limits as linear functions of E[a conj(b)].

Quantities are the node voltages, for every phase of a branch the drop d = ratio·v_from - ratio·v_to between its ends
(powers of a short line are then no differences of large numbers), and the currents of the terminals. Along a branch
everything is bilinear in the sending voltages and drops, so one positive semidefinite matrix of moments per branch
holds all of it (the branch-flow form of the semidefinite relaxation, after Gan and Low, Power Systems Computation
Conference 2014); at a terminal, in its voltages and current.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.threephase import Branches, ThreePhaseNetwork
from voltier.market.primary.current_injection.bounds import LIMIT_SLACK_PU
from voltier.market.primary.current_injection.collect import Collector, Products, Sums
from voltier.market.primary.current_injection.load_moments import LoadMoments, build_load_moments
from voltier.market.primary.current_injection.terminals import N_SOURCE, Terminals

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

# Rounding left where branches and nodal admittance cancel, relative to the largest admittance at the node.
CANCELLED = 1e-11


@dataclass(frozen=True, slots=True)
class Moments:
    """What a network's equations say in moments; quantities 0 to n - 1 are nodes, the others drops.

    drop : (n_drop, n) drops as functions of the node voltages
    cliques : quantities whose moments form a positive semidefinite matrix together with 1
    pairs : (k, 2) pairs of quantities whose moments stand in the program, lower first
    taken : power taken from each node by branches, capacitors and constant impedances
    drawn : current drawn from each node by the same
    loss : (one row) losses of the network
    node_sum, node_product : zero rows that tie voltages at receiving ends to sending ends and drops
    loads : what enters at terminals
    wire : squared currents of the rated wires' ends ; wire_limit : (n_wire,) squared ratings
    """

    n_node: int
    drop: sparse.csr_matrix
    cliques: tuple[Index, ...]
    pairs: Index
    taken: Products
    drawn: Sums
    loss: Products
    node_sum: Sums
    node_product: Products
    loads: LoadMoments
    wire: Products
    wire_limit: Array

    @property
    def n_quantity(self) -> int:
        """Nodes, drops and terminal currents."""
        return self.n_node + int(self.drop.shape[0]) + len(self.loads.active)


@dataclass(frozen=True, slots=True)
class _Span:
    """One branch in its basis of sending voltages and drops.

    basis : (k,) quantities ; from_node, to_node : (3,) or -1 ; ends : (6, k) branch voltages at the from end and at
    the to end in the basis ; current : (6, k) currents into the branch ; tied : phases whose far voltage follows
    """

    basis: Index
    node: Index
    ends: Complex
    current: Complex
    ratio: Array
    tied: tuple[int, ...]


def build_moments(network: ThreePhaseNetwork, terminals: Terminals) -> Moments:
    """Lay out the moments of a network."""
    n = terminals.n_node
    spans, drop = _spans(network.branches, n)
    taken, drawn, loss, wire = Collector(), Collector(), Collector(), Collector()
    limit: list[float] = []
    for b, span in enumerate(spans):
        _branch_powers(span, taken, loss)
        for end in np.flatnonzero(span.node >= 0):
            drawn.add(span.node[end], span.basis, 0, span.ratio[end] * span.current[end])
        i_max = float(network.branches.i_max_pu[b])
        if np.isfinite(i_max):
            for end in np.flatnonzero(span.node >= 0):
                product = np.outer(span.current[end], span.current[end].conj())
                wire.add(len(limit), span.basis[:, None], span.basis[None, :], product)
                limit.append((i_max + LIMIT_SLACK_PU) ** 2)
    shunt = _shunt(network)
    for matrix, sinks in ((shunt, (taken, loss)), (terminals.load_impedance, (taken,))):
        entry = sparse.coo_matrix(matrix)
        for sink in sinks:
            row = entry.row if sink is taken else np.zeros_like(entry.row)
            sink.add(row, entry.row, entry.col, np.conj(entry.data))
        drawn.add(entry.row, entry.col, 0, entry.data)
    loads = build_load_moments(terminals, n + drop.shape[0])
    bases = [*(span.basis for span in spans), *loads.bases]
    cliques, known = _cliques(spans, bases, _pairs_of([shunt, terminals.load_impedance]))
    sums, products = _ties(spans, known)
    return Moments(
        n_node=n,
        drop=drop,
        cliques=cliques,
        pairs=np.array(sorted(known), dtype=np.int64).reshape(-1, 2),
        taken=taken.products(),
        drawn=drawn.sums(),
        loss=loss.products(),
        node_sum=sums,
        node_product=products,
        loads=loads,
        wire=wire.products(),
        wire_limit=np.array(limit),
    )


def _spans(branches: Branches, n: int) -> tuple[list[_Span], sparse.csr_matrix]:
    spans, row, column, value = [], [], [], []
    count = 0
    for b in range(len(branches.from_node)):
        node = np.concatenate([branches.from_node[b], branches.to_node[b]])
        ratio = np.concatenate([branches.from_ratio[b], branches.to_ratio[b]])
        y = np.block([[branches.y_ff[b], branches.y_ft[b]], [branches.y_tf[b], branches.y_tt[b]]])
        if np.any((node[3:] >= 0) & (node[3:] < N_SOURCE)):
            # The known voltages of the source must be the sending ones.
            order = np.r_[3:6, 0:3]
            node, ratio, y = node[order], ratio[order], y[np.ix_(order, order)]
        basis: list[int] = []
        ends = np.zeros((6, 6), dtype=np.complex128)
        tied = []
        for f in np.flatnonzero(node[:3] >= 0):
            ends[f, len(basis)] = ratio[f]
            basis.append(int(node[f]))
        for f in np.flatnonzero(node[3:] >= 0):
            if node[f] < 0:
                ends[3 + f, len(basis)] = ratio[3 + f]
                basis.append(int(node[3 + f]))
                continue
            ends[3 + f] = ends[f]
            ends[3 + f, len(basis)] = -1.0
            basis.append(n + count)
            row += [count, count]
            column += [int(node[f]), int(node[3 + f])]
            value += [ratio[f], -ratio[3 + f]]
            count += 1
            tied.append(int(f))
        ends = ends[:, : len(basis)]
        spans.append(_Span(np.array(basis, dtype=np.int64), node, ends, y @ ends, ratio, tuple(tied)))
    return spans, sparse.csr_matrix((value, (row, column)), shape=(count, n))


def _branch_powers(span: _Span, taken: Collector, loss: Collector) -> None:
    """Add e·conj(i) of each end to the power taken at its node, and of both ends to the losses.

    With e_to = e_from - d the losses are e_from·conj(i_from + i_to) - d·conj(i_to): nothing large cancels.
    """
    first, second = span.basis[:, None], span.basis[None, :]
    total = np.zeros((len(span.basis), len(span.basis)), dtype=np.complex128)
    for end in np.flatnonzero(span.node >= 0):
        product = np.outer(span.ends[end], span.current[end].conj())
        taken.add(span.node[end], first, second, product)
    through = span.current[:3] + span.current[3:]
    for f in range(3):
        if span.node[f] >= 0 and span.node[3 + f] >= 0:
            total += np.outer(span.ends[f], through[f].conj())
            total += np.outer(span.ends[3 + f] - span.ends[f], span.current[3 + f].conj())
        else:
            for alone in (f, 3 + f):
                if span.node[alone] >= 0:
                    total += np.outer(span.ends[alone], span.current[alone].conj())
    loss.add(0, first, second, total)


def _shunt(network: ThreePhaseNetwork) -> sparse.csr_matrix:
    """Return what the nodal admittance holds beside the branches: capacitors."""
    branches, n = network.branches, network.y.shape[0]
    node = np.hstack([branches.from_node, branches.to_node])
    ratio = np.hstack([branches.from_ratio, branches.to_ratio])
    y = np.concatenate(
        [
            np.concatenate([branches.y_ff, branches.y_ft], axis=2),
            np.concatenate([branches.y_tf, branches.y_tt], axis=2),
        ],
        axis=1,
    )
    y = y * ratio[:, :, None] * ratio[:, None, :]
    keep = (node >= 0)[:, :, None] & (node >= 0)[:, None, :]
    row = np.broadcast_to(node[:, :, None], keep.shape)[keep]
    column = np.broadcast_to(node[:, None, :], keep.shape)[keep]
    rest = sparse.coo_matrix(network.y - sparse.csr_matrix((y[keep], (row, column)), shape=(n, n)))
    scale = np.zeros(n)
    np.maximum.at(scale, row, abs(y[keep]))
    real = abs(rest.data) > CANCELLED * np.maximum(scale[rest.row], 1.0)
    return sparse.csr_matrix((rest.data[real], (rest.row[real], rest.col[real])), shape=(n, n))


def _pairs_of(patterns: list[sparse.csr_matrix]) -> set[tuple[int, int]]:
    pairs: set[tuple[int, int]] = set()
    for pattern in patterns:
        entry = sparse.coo_matrix(pattern)
        low, high = np.minimum(entry.row, entry.col), np.maximum(entry.row, entry.col)
        inner = (low != high) & (low >= N_SOURCE)
        pairs.update(zip(low[inner].tolist(), high[inner].tolist(), strict=True))
    return pairs


def _cliques(
    spans: list[_Span], bases: list[Index], extra: set[tuple[int, int]]
) -> tuple[tuple[Index, ...], set[tuple[int, int]]]:
    """Return the cliques, and the pairs of quantities whose moments stand in the program."""
    cliques = [basis[basis >= N_SOURCE] for basis in bases]
    held = _pairs_in(cliques)
    receiving: Counter[tuple[int, int]] = Counter()
    for span in spans:
        far = np.array([span.node[3 + f] for f in span.tied], dtype=np.int64)
        receiving.update(_pairs_in([far[far >= N_SOURCE]]))
    alone = sorted(pair for pair in extra if pair not in held and pair not in receiving)
    cliques += [np.array(pair, dtype=np.int64) for pair in alone]
    twice = {pair for pair, times in receiving.items() if times > 1}
    return tuple(clique for clique in cliques if len(clique)), held | extra | twice


def _pairs_in(cliques: list[Index]) -> set[tuple[int, int]]:
    pairs: set[tuple[int, int]] = set()
    for clique in cliques:
        inner = sorted(clique.tolist())
        pairs.update((i, j) for k, i in enumerate(inner) for j in inner[k + 1 :])
    return pairs


def _ties(spans: list[_Span], known: set[tuple[int, int]]) -> tuple[Sums, Products]:
    """Return rows saying v_to = (ratio·v_from - d)/ratio_to, in first moments and in second moments."""
    first, second = Collector(), Collector()
    n_first, n_second = 0, 0
    for span in spans:
        form = {f: span.ends[3 + f] / span.ratio[3 + f] for f in span.tied}
        for f in span.tied:
            node = int(span.node[3 + f])
            if node < N_SOURCE:
                continue
            first.add(n_first, node, 0, 1.0)
            first.add(n_first, span.basis, 0, -form[f])
            n_first += 1
            for g in span.tied:
                other = int(span.node[3 + g])
                if g < f or other < N_SOURCE:
                    continue
                if node != other and (min(node, other), max(node, other)) not in known:
                    continue
                second.add(n_second, node, other, 1.0)
                second.add(
                    n_second, span.basis[:, None], span.basis[None, :], -np.outer(form[f], form[g].conj())
                )
                n_second += 1
    return first.sums(), second.products()
