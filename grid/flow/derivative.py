"""How the power that a network and its loads take moves with the voltages, on one fixed pattern.

At phase node k the network and its loads take

    G_k(v) = v_k conj((Y v)_k) + Σ_l A_lk v_k m_l,    m_l = s_l(|w_l|)/w_l,    w = A v,

A : `across` of the loads; a wye load simply takes s_l. Every node has its own frame: a step is
dv_k = φ_k (a_k + j b_k), φ_k = v_k/|v_k|, so a_k is to first order the change of the magnitude.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from voltier.grid.threephase import ThreePhaseNetwork

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

N_SOURCE = 3


class Balance(NamedTuple):
    """A network's numbers, laid out for the kernels; all p.u.

    first, column, mirror : rows and columns of the symmetric pattern of node pairs, and where (m, k) stands
    y : (n_pair,) nodal admittance on the pattern
    load_first, load_node, load_across : `across` row by row; load_pair : its node pairs, load after load
    v_nominal, s_power, s_current, s_impedance : (k,) as in VoltageLoads
    """

    first: Index
    column: Index
    mirror: Index
    y: Complex
    load_first: Index
    load_node: Index
    load_across: Complex
    load_pair: Index
    v_nominal: Array
    s_power: Complex
    s_current: Complex
    s_impedance: Complex


def balance_of(network: ThreePhaseNetwork, *further: sparse.csr_matrix) -> Balance:
    """Lay out a network; two networks of the same structure (other taps) get the same pattern.

    further : matrices with a column for each node; nodes that meet in a row of theirs are pairs too
    """
    n, across = network.y.shape[0], sorted_rows(network.loads.across)
    ones = _ones(network.y)
    touched = [ones, ones.T, sparse.eye(n)]
    touched += [_ones(part).T @ _ones(part) for part in (across, *further)]
    pattern = sparse.csr_matrix(sum(touched[1:], touched[0]))
    pattern.sort_indices()
    tagged = sparse.csr_matrix((np.arange(pattern.nnz) + 1.0, pattern.indices, pattern.indptr), pattern.shape)
    mirrored = sorted_rows(tagged.T)
    first, column = pattern.indptr.astype(np.int64), pattern.indices.astype(np.int64)
    nothing, none = np.zeros(pattern.nnz, dtype=np.complex128), np.zeros(0, dtype=np.complex128)
    structure = Balance(
        first=first,
        column=column,
        mirror=mirrored.data.real.astype(np.int64) - 1,
        y=nothing,
        load_first=across.indptr.astype(np.int64),
        load_node=across.indices.astype(np.int64),
        load_across=none,
        load_pair=pair_places(first, column, across),
        v_nominal=np.zeros(0),
        s_power=none,
        s_current=none,
        s_impedance=none,
    )
    return rebalanced(structure, network)


def rebalanced(balance: Balance, network: ThreePhaseNetwork) -> Balance:
    """Take over the numbers of the same network at other taps or loads; the structure is not looked at again."""
    loads, across, given = network.loads, sorted_rows(network.loads.across), sparse.coo_matrix(network.y)
    y = np.zeros_like(balance.y)
    y[places(balance.first, balance.column, given.row, given.col)] = given.data
    return balance._replace(
        y=y,
        load_across=across.data,
        v_nominal=np.asarray(loads.v_nominal_pu, dtype=float),
        s_power=np.asarray(loads.s_power, dtype=np.complex128),
        s_current=np.asarray(loads.s_current, dtype=np.complex128),
        s_impedance=np.asarray(loads.s_impedance, dtype=np.complex128),
    )


def places(first: Index, column: Index, row: Index, col: Index) -> Index:
    """Return where the pairs (row, col) stand in a sorted pattern."""
    n = len(first) - 1
    key = np.repeat(np.arange(n), np.diff(first)) * n + column
    return np.asarray(np.searchsorted(key, np.asarray(row, dtype=np.int64) * n + col), dtype=np.int64)


def entry_pairs(start: Index) -> tuple[Index, Index]:
    """Return all ordered pairs of entries of each row, row after row; start : as in a csr matrix."""
    ends = np.diff(start)
    row = np.repeat(np.arange(len(ends)), ends)
    one = np.repeat(np.arange(len(row)), ends[row])
    offset = np.arange(len(one)) - np.repeat(np.cumsum(ends[row]) - ends[row], ends[row])
    return one, np.asarray(start[row[one]] + offset, dtype=np.int64)


def pair_places(first: Index, column: Index, matrix: sparse.csr_matrix) -> Index:
    """Return where the pairs of nodes of each row of a matrix stand in a pattern, row after row."""
    one, two = entry_pairs(matrix.indptr)
    return places(first, column, matrix.indices[one], matrix.indices[two])


def sorted_rows(matrix: sparse.spmatrix) -> sparse.csr_matrix:
    """Return a complex csr copy with sorted columns."""
    out = sparse.csr_matrix(matrix, dtype=np.complex128, copy=True)
    out.sort_indices()
    return out


def _ones(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    out = sparse.csr_matrix(matrix)
    return sparse.csr_matrix((np.ones(out.nnz), out.indices, out.indptr), shape=out.shape)


def power_derivative(balance: Balance, v: Complex) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Return (n, n) D and E of the power taken at these voltages, dG = D dv + E conj(dv)."""
    with_v, with_conj = np.empty_like(balance.y), np.empty_like(balance.y)
    _first_derivative(balance, v, with_v, with_conj)
    shape = (len(v), len(v))
    one, two = (
        sparse.csr_matrix((part, balance.column, balance.first), shape=shape) for part in (with_v, with_conj)
    )
    return one, two


class PowerJacobian:
    """The derivative of the power taken beside the source, filled in at one voltage after another.

    matrix : (2f, 2f) CSC, rows P then Q, columns a then b of the f nodes beside the source
    source : (3, 2f) derivative of the active power taken at the source's nodes ; frame : (n,) φ
    """

    def __init__(self, balance: Balance) -> None:
        n = len(balance.first) - 1
        f, row = n - N_SOURCE, np.repeat(np.arange(n), np.diff(balance.first))
        k, m = row - N_SOURCE, balance.column - N_SOURCE
        inner = (k >= 0) & (m >= 0)
        k, m, count = k[inner], m[inner], int(inner.sum())
        places_of = np.concatenate([m, f + m, m, f + m]) * (2 * f) + np.concatenate([k, k, f + k, f + k])
        order = np.argsort(places_of)
        key = places_of[order]
        start = np.searchsorted(key, 2 * f * np.arange(2 * f + 1))
        self.matrix = sparse.csc_matrix((np.zeros(4 * count), key % (2 * f), start), shape=(2 * f, 2 * f))
        self._entry = np.full((4, len(inner)), -1, dtype=np.int64)
        place = np.empty(4 * count, dtype=np.int64)
        place[order] = np.arange(4 * count)
        self._entry[:, inner] = place.reshape(4, count)
        self.source, self.frame = np.zeros((N_SOURCE, 2 * f)), np.ones(n, dtype=np.complex128)
        self._with_v, self._with_conj = np.empty_like(balance.y), np.empty_like(balance.y)

    def fill(self, balance: Balance, v: Complex) -> None:
        """Write the numbers at these voltages of a network of the same structure."""
        _first_derivative(balance, v, self._with_v, self._with_conj)
        self.frame = v / np.abs(v)
        _in_frames(
            balance, self.frame, self._with_v, self._with_conj, self._entry, self.matrix.data, self.source
        )

    def factor(self) -> SuperLU:
        """Factorise the matrix; RuntimeError where it is singular, at the nose of the power-flow curve."""
        return splu(self.matrix, permc_spec="MMD_AT_PLUS_A")


@njit(cache=True)
def _first_derivative(net: Balance, v: Complex, with_v: Complex, with_conj: Complex) -> None:
    """Write dG = with_v·dv + with_conj·conj(dv) on the pattern of node pairs."""
    for k in range(v.size):
        current = 0.0j
        own = -1
        for e in range(net.first[k], net.first[k + 1]):
            current += net.y[e] * v[net.column[e]]
            with_v[e] = 0.0
            with_conj[e] = v[k] * np.conj(net.y[e])
            if net.column[e] == k:
                own = e
        with_v[own] = np.conj(current)
    at = 0
    for l in range(net.v_nominal.size):  # noqa: E741 (the symbol of the equations)
        begin, end = net.load_first[l], net.load_first[l + 1]
        w = 0.0j
        for t in range(begin, end):
            w += net.load_across[t] * v[net.load_node[t]]
        size, nominal = abs(w), net.v_nominal[l]
        s_i, s_z = net.s_current[l] / nominal, net.s_impedance[l] / nominal**2
        m = (net.s_power[l] + s_i * size + s_z * size * size) / w
        m_w = -(net.s_power[l] + 0.5 * s_i * size) / (w * w)
        m_c = 0.5 * s_i / size + s_z
        for t in range(begin, end):
            reach = net.load_across[t] * v[net.load_node[t]]
            for r in range(begin, end):
                e = net.load_pair[at]
                with_v[e] += reach * m_w * net.load_across[r]
                with_conj[e] += reach * m_c * np.conj(net.load_across[r])
                if r == t:
                    with_v[e] += net.load_across[t] * m
                at += 1


@njit(cache=True)
def _in_frames(
    net: Balance,
    frame: Complex,
    with_v: Complex,
    with_conj: Complex,
    entry: Index,
    data: Array,
    source: Array,
) -> None:
    """Write dG in the nodes' own frames."""
    f = frame.size - N_SOURCE
    for k in range(frame.size):
        for e in range(net.first[k], net.first[k + 1]):
            m = net.column[e]
            if m < N_SOURCE:
                continue
            one, two = with_v[e] * frame[m], with_conj[e] * np.conj(frame[m])
            along, across = one + two, 1j * (one - two)
            if k < N_SOURCE:
                source[k, m - N_SOURCE] = along.real
                source[k, f + m - N_SOURCE] = across.real
            else:
                data[entry[0, e]] = along.real
                data[entry[1, e]] = across.real
                data[entry[2, e]] = along.imag
                data[entry[3, e]] = across.imag
