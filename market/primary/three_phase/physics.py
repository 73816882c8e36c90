"""The network as the market's programs see it: power flow, pattern of node pairs, rated wires, second derivatives.

At phase node k the balance is G_k(v) = S_k with S_k the operators' complex injection and G_k what the network and
its voltage-dependent loads take; see voltier.grid.flow.derivative for G, its derivative and the nodes' own frames.
In these the voltage limits are bounds of a_k.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.flow.derivative import Balance, balance_of, pair_places, rebalanced, sorted_rows
from voltier.grid.flow.threephase import ThreePhaseFlow
from voltier.grid.threephase import ThreePhaseNetwork

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Physics:
    """A network made ready for the market's programs; all p.u.

    flow : its power flow ; balance : its numbers on the pattern of node pairs, wires' pairs among them
    wires : (n_wire, n) csr, current of a rated wire's end as i = wires @ v ; wire_node : (entries,) their columns
    wire_pair : node pairs of each row, row after row ; i_max : (n_wire,)
    """

    network: ThreePhaseNetwork
    flow: ThreePhaseFlow
    balance: Balance
    wires: sparse.csr_matrix
    wire_node: Index
    wire_pair: Index
    i_max: Array


def build_physics(network: ThreePhaseNetwork) -> Physics:
    """Make a network ready."""
    wires, i_max = rated_wires(network)
    balance = balance_of(network, wires)
    pair = pair_places(balance.first, balance.column, wires)
    node = wires.indices.astype(np.int64)
    return Physics(network, ThreePhaseFlow(network), balance, wires, node, pair, i_max)


def at_other_taps(net: Physics, network: ThreePhaseNetwork) -> Physics:
    """Make the same network at other taps, loads or limits ready; its structure is not looked at again."""
    wires, i_max = net.wires, net.i_max
    if network.branches is not net.network.branches:
        wires, i_max = rated_wires(network)
    flow, balance = net.flow.retuned(network), rebalanced(net.balance, network)
    return Physics(network, flow, balance, wires, net.wire_node, net.wire_pair, i_max)


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
    return sorted_rows(sparse.csr_matrix((np.concatenate(value), place), shape=shape)), np.concatenate(limit)


@njit(cache=True)
def second_derivative(
    net: Balance, v: Complex, network_price: Complex, load_price: Complex, plain: Complex, mixed: Complex
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
    for l in range(net.v_nominal.size):  # noqa: E741 (the symbol of the equations)
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


def wire_curvature(net: Physics, current: Complex, price: Array, plain: Complex, mixed: Complex) -> None:
    """Add the second-order form of price·|i| of the wires' ends; price : (n_wire,) multipliers."""
    wires = net.wires
    _add_curvature(wires.indptr, wires.data, net.wire_pair, current, price, plain, mixed)


@njit(cache=True)
def _add_curvature(
    first: Index, y: Complex, pair: Index, current: Complex, price: Array, plain: Complex, mixed: Complex
) -> None:
    at = 0
    for c in range(price.size):
        begin, end = first[c], first[c + 1]
        if price[c] <= 0.0 or abs(current[c]) < 1e-9:
            at += (end - begin) ** 2
            continue
        weight = 0.25 * price[c] / abs(current[c])
        turn = np.conj(current[c]) / abs(current[c])
        for t in range(begin, end):
            a_k = turn * y[t]
            for r in range(begin, end):
                a_m = turn * y[r]
                plain[pair[at]] -= weight * a_k * a_m
                mixed[pair[at]] += weight * np.conj(a_k) * a_m
                at += 1
