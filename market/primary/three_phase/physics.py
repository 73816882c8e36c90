"""Power balance of a three-phase network as numbers in a fixed pattern, with first and second derivatives.

At phase node k the balance is G_k(v) = S_k with S_k the operators' complex injection and

    G_k(v) = v_k conj((Y v)_k) + Σ_l A_lk v_k m_l,    m_l = s_l(|w_l|)/w_l,    w = A v,

what the network and the voltage-dependent loads take there (A : `across` of the loads; a wye load simply takes
s_l). Every node has its own frame: a step is dv_k = φ_k (a_k + j b_k), φ_k = v_k/|v_k|, so a_k is to first order
the change of the magnitude and the voltage limits are bounds of a_k.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.threephase import ThreePhaseNetwork

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

N_SOURCE = 3


class Physics(NamedTuple):
    """A network's numbers, laid out for the kernels; all p.u.

    first, column, mirror : rows and columns of the symmetric pattern of node pairs, and where (m, k) stands
    y : (n_pair,) nodal admittance on the pattern
    load_first, load_node, load_across : `across` row by row; load_pair : its node pairs, load after load
    v_nominal, s_power, s_current, s_impedance : (k,) as in VoltageLoads
    wire_first, wire_node, wire_y : current of a rated wire's end as i = wire_y @ v, row by row
    wire_pair : its node pairs ; i_max : (n_wire,)
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
    wire_first: Index
    wire_node: Index
    wire_y: Complex
    wire_pair: Index
    i_max: Array


def build_physics(network: ThreePhaseNetwork) -> Physics:
    """Lay out a network; two networks of the same structure (other taps) get the same pattern."""
    n = network.y.shape[0]
    across = _sorted(network.loads.across)
    wire, i_max = rated_wires(network)
    touched = [_ones(network.y), _ones(network.y).T, sparse.eye(n)]
    touched += [_ones(part).T @ _ones(part) for part in (across, wire)]
    pattern = sparse.csr_matrix(sum(touched[1:], touched[0]))
    pattern.sort_indices()
    tagged = sparse.csr_matrix((np.arange(pattern.nnz) + 1.0, pattern.indices, pattern.indptr), pattern.shape)
    mirrored = sparse.csr_matrix(tagged.T)
    mirrored.sort_indices()
    first, column = pattern.indptr.astype(np.int64), pattern.indices.astype(np.int64)
    y = np.zeros(pattern.nnz, dtype=np.complex128)
    given = sparse.coo_matrix(network.y)
    y[_place(first, column, given.row, given.col)] = given.data
    return Physics(
        first=first,
        column=column,
        mirror=mirrored.data.astype(np.int64) - 1,
        y=y,
        load_first=across.indptr.astype(np.int64),
        load_node=across.indices.astype(np.int64),
        load_across=across.data.astype(np.complex128),
        load_pair=_pairs(across, first, column),
        v_nominal=np.asarray(network.loads.v_nominal_pu, dtype=float),
        s_power=np.asarray(network.loads.s_power, dtype=np.complex128),
        s_current=np.asarray(network.loads.s_current, dtype=np.complex128),
        s_impedance=np.asarray(network.loads.s_impedance, dtype=np.complex128),
        wire_first=wire.indptr.astype(np.int64),
        wire_node=wire.indices.astype(np.int64),
        wire_y=wire.data.astype(np.complex128),
        wire_pair=_pairs(wire, first, column),
        i_max=i_max,
    )


def rated_wires(network: ThreePhaseNetwork) -> tuple[sparse.csr_matrix, Array]:
    """Return (n_wire, n) C with i = C @ v at both ends of every rated wire, all from-ends first, and ratings."""
    branches = network.branches
    rated = np.flatnonzero(np.isfinite(branches.i_max_pu))
    node = np.hstack([branches.from_node, branches.to_node])[rated]
    ratio = np.hstack([branches.from_ratio, branches.to_ratio])[rated]
    row: list[Index] = []
    column: list[Index] = []
    value: list[Complex] = []
    limit: list[Array] = []
    count = 0
    for end, (own, other) in enumerate(((branches.y_ff, branches.y_ft), (branches.y_tf, branches.y_tt))):
        pair: Complex = np.concatenate([own, other], axis=2)[rated]
        y: Complex = pair * ratio[:, None, :].astype(np.complex128)
        there = node[:, 3 * end : 3 * end + 3] >= 0
        line = np.where(there, count + np.cumsum(there).reshape(there.shape) - 1, -1)
        keep = there[:, :, None] & (node >= 0)[:, None, :]
        row.append(np.broadcast_to(line[:, :, None], keep.shape)[keep])
        column.append(np.broadcast_to(node[:, None, :], keep.shape)[keep])
        value.append(y[keep])
        limit.append(np.repeat(branches.i_max_pu[rated], there.sum(axis=1)))
        count += int(there.sum())
    place = (np.concatenate(row), np.concatenate(column))
    shape = (count, network.y.shape[0])
    return _sorted(sparse.csr_matrix((np.concatenate(value), place), shape=shape)), np.concatenate(limit)


def _sorted(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    out = sparse.csr_matrix(matrix, dtype=np.complex128)
    out.sort_indices()
    return out


def _ones(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    out = sparse.csr_matrix(matrix)
    return sparse.csr_matrix((np.ones(out.nnz), out.indices, out.indptr), shape=out.shape)


def _place(first: Index, column: Index, row: Index, col: Index) -> Index:
    """Return where the pairs (row, col) stand in a sorted pattern."""
    n = len(first) - 1
    key = np.repeat(np.arange(n), np.diff(first)) * n + column
    return np.asarray(np.searchsorted(key, np.asarray(row, dtype=np.int64) * n + col), dtype=np.int64)


def _pairs(matrix: sparse.csr_matrix, first: Index, column: Index) -> Index:
    """Return the places of all pairs of nodes of each row, row after row, in row-major order."""
    size = np.diff(matrix.indptr)
    parts = []
    for row in range(matrix.shape[0]):
        node = matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
        parts.append((np.repeat(node, size[row]), np.tile(node, size[row])))
    if not parts:
        return np.zeros(0, dtype=np.int64)
    row_of, column_of = (np.concatenate([part[k] for part in parts]) for k in range(2))
    return _place(first, column, row_of, column_of)


@njit(cache=True)
def taken_power(net: Physics, v: Complex, out: Complex) -> None:
    """Write G(v), the complex power the network and its loads take at every node [p.u.]."""
    for k in range(v.size):
        current = 0.0j
        for e in range(net.first[k], net.first[k + 1]):
            current += net.y[e] * v[net.column[e]]
        out[k] = v[k] * np.conj(current)
    for l in range(net.v_nominal.size):  # noqa: E741 (the symbol of the equations)
        w = 0.0j
        for t in range(net.load_first[l], net.load_first[l + 1]):
            w += net.load_across[t] * v[net.load_node[t]]
        u = abs(w) / net.v_nominal[l]
        s = net.s_power[l] + net.s_current[l] * u + net.s_impedance[l] * u * u
        for t in range(net.load_first[l], net.load_first[l + 1]):
            k = net.load_node[t]
            out[k] += net.load_across[t] * v[k] * s / w


@njit(cache=True)
def wire_current(net: Physics, v: Complex) -> Complex:
    """Return the current of every rated wire's end [p.u.]."""
    out = np.zeros(net.i_max.size, dtype=np.complex128)
    for c in range(out.size):
        for t in range(net.wire_first[c], net.wire_first[c + 1]):
            out[c] += net.wire_y[t] * v[net.wire_node[t]]
    return out


@njit(cache=True)
def losses(net: Physics, v: Complex) -> float:
    """Return Re(vᴴ Y v), what lines and transformers lose [p.u.]."""
    total = 0.0
    for k in range(v.size):
        for e in range(net.first[k], net.first[k + 1]):
            total += (np.conj(v[k]) * net.y[e] * v[net.column[e]]).real
    return total


@njit(cache=True)
def load_power(net: Physics, v: Complex) -> complex:
    """Return the complex power all voltage-dependent loads consume [p.u.]."""
    total = 0.0j
    for l in range(net.v_nominal.size):  # noqa: E741
        w = 0.0j
        for t in range(net.load_first[l], net.load_first[l + 1]):
            w += net.load_across[t] * v[net.load_node[t]]
        u = abs(w) / net.v_nominal[l]
        total += net.s_power[l] + net.s_current[l] * u + net.s_impedance[l] * u * u
    return total


@njit(cache=True)
def first_derivative(net: Physics, v: Complex, with_v: Complex, with_conj: Complex) -> None:
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
    for l in range(net.v_nominal.size):  # noqa: E741
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
def second_derivative(
    net: Physics, v: Complex, network_price: Complex, load_price: Complex, plain: Complex, mixed: Complex
) -> None:
    """Write the quadratic form Re(dvᵀ plain dv) + dvᴴ mixed dv of the priced balances on the pattern.

    network_price : (n,) P + jQ multipliers that weigh v conj(Y v); load_price : those that weigh the loads. The
    form is half the second derivative. plain is symmetric, mixed is Hermitian.
    """
    for k in range(v.size):
        for e in range(net.first[k], net.first[k + 1]):
            plain[e] = 0.0
            back = network_price[net.column[e]] * net.y[net.mirror[e]]
            mixed[e] = 0.5 * (network_price[k] * net.y[e] + np.conj(back))
    at = 0
    for l in range(net.v_nominal.size):  # noqa: E741
        begin, end = net.load_first[l], net.load_first[l + 1]
        w, z = 0.0j, 0.0j
        for t in range(begin, end):
            k = net.load_node[t]
            w += net.load_across[t] * v[k]
            z += np.conj(load_price[k]) * net.load_across[t] * v[k]
        size, nominal = abs(w), net.v_nominal[l]
        s_p, s_i, s_z = net.s_power[l], net.s_current[l] / nominal, net.s_impedance[l] / nominal**2
        m_w = -(s_p + 0.5 * s_i * size) / (w * w)
        m_c = 0.5 * s_i / size + s_z
        m_ww = (2.0 * s_p + 0.75 * s_i * size) / w**3
        m_wc = -0.25 * s_i / (size * w)
        m_cc = -0.25 * s_i * w / size**3
        bend = 0.5 * (z * m_ww + np.conj(z * m_cc))
        for t in range(begin, end):
            a_k = net.load_across[t]
            price_k = np.conj(load_price[net.load_node[t]])
            for r in range(begin, end):
                a_m = net.load_across[r]
                price_m = np.conj(load_price[net.load_node[r]])
                e = net.load_pair[at]
                plain[e] += (0.5 * (price_k + price_m) * m_w + bend) * a_k * a_m
                # The form holds conj(dv_k)·mixed_km·dv_m; the Hermitian part is all that counts.
                one = (price_m * m_c + z * m_wc) * a_m * np.conj(a_k)
                two = (price_k * m_c + z * m_wc) * a_k * np.conj(a_m)
                mixed[e] += 0.5 * (one + np.conj(two))
                at += 1


@njit(cache=True)
def wire_curvature(
    net: Physics, current: Complex, price: Array, v: Complex, plain: Complex, mixed: Complex
) -> None:
    """Add the second-order form of price·|i| of the wires' ends; price : (n_wire,) multipliers."""
    at = 0
    for c in range(price.size):
        begin, end = net.wire_first[c], net.wire_first[c + 1]
        if price[c] <= 0.0 or abs(current[c]) < 1e-9:
            at += (end - begin) ** 2
            continue
        weight = 0.25 * price[c] / abs(current[c])
        turn = np.conj(current[c]) / abs(current[c])
        for t in range(begin, end):
            a_k = turn * net.wire_y[t]
            for r in range(begin, end):
                a_m = turn * net.wire_y[r]
                plain[net.wire_pair[at]] -= weight * a_k * a_m
                mixed[net.wire_pair[at]] += weight * np.conj(a_k) * a_m
                at += 1
