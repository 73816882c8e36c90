"""Where current enters a three-phase network other than through admittances, and how voltages follow from it.

Constant impedances of loads join the nodal admittance. What is left enters at terminals: a phase node with
operators or wye loads, or the two nodes of a delta load. With terminal voltages w = T v and terminal currents i
(into the network), Y v = Tᴴ i at every node but the source's, so that v = v0 + K i.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from voltier.grid.errors import InputError, Problem
from voltier.grid.threephase import ThreePhaseNetwork

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

N_SOURCE = 3
# K is dense (nodes x terminals); beyond this it does not fit an ordinary machine's memory with its products.
LARGEST_DENSE = 4000


@dataclass(frozen=True, slots=True)
class VoltageTarget:
    """Cost weight·Σ |v - target|² over the nodes but the source's."""

    weight: float = 0.0
    target: float = 1.0


@dataclass(frozen=True, slots=True)
class Terminals:
    """Terminals of a network, node terminals first; p.u., rotated frame.

    node : (n_wye,) node of each node terminal, sorted; those of the source come first
    voltage : (t, n) T, sparse complex ; share : (t, n_smo) part of each operator's injection
    s_power : (t,) constant-power consumption ; s_current : (t,) constant-current consumption per unit of |w|
    y : (n, n) admittance with the constant impedances of loads ; y_network : without, its losses are the network's
    load_impedance : (n, n) the difference
    """

    node: Index
    voltage: sparse.csr_matrix
    share: sparse.csr_matrix
    s_power: Complex
    s_current: Complex
    y: sparse.csr_matrix
    y_network: sparse.csr_matrix
    load_impedance: sparse.csr_matrix

    @property
    def n_node(self) -> int:
        """Phase nodes of the network."""
        return int(self.y.shape[0])

    @property
    def count(self) -> int:
        """All terminals."""
        return int(self.voltage.shape[0])

    def injection(self, v: Complex, power: Complex) -> Complex:
        """Return what operators (power : (n_smo,) complex) and loads inject at each node at voltages v."""
        w = self.voltage @ v
        s = self.share @ power - self.s_power - self.s_current * abs(w)
        return np.asarray(v * np.conj(self.voltage.conj().T @ np.conj(s / w)))


@dataclass(frozen=True, slots=True)
class Response:
    """Voltages as a function of terminal currents: v = idle + gain @ i.

    idle : (n,) voltages without currents ; gain : (n, t) dense; rows of the source are zero
    """

    idle: Complex
    gain: Complex


def build_terminals(network: ThreePhaseNetwork, share: sparse.spmatrix) -> Terminals:
    """Gather operators and loads at terminals; share : (n, n_smo) part of each operator's injection at each node."""
    n = network.y.shape[0]
    if share.shape[0] != n:
        remedy = f"one row for each of the network's {n} phase nodes"
        raise InputError([Problem(where="share", field="shape", value=share.shape, remedy=remedy)])
    loads, across = network.loads, sparse.csr_matrix(network.loads.across, dtype=np.complex128)
    entries = np.diff(across.indptr)
    wye, delta = np.flatnonzero(entries == 1), np.flatnonzero(entries > 1)
    impedance = across.conj().T @ sparse.diags(np.conj(loads.s_impedance) / loads.v_nominal_pu**2) @ across
    follows = np.abs(loads.s_power) + np.abs(loads.s_current) > 0.0
    wye, delta = wye[follows[wye]], delta[follows[delta]]
    at = across.indices[across.indptr[wye]].astype(np.int64)
    size = np.abs(across.data[across.indptr[wye]])
    share = sparse.csr_matrix(share, dtype=float)
    node = np.union1d(at, np.flatnonzero(np.diff(share.indptr) > 0)).astype(np.int64)
    place = np.searchsorted(node, at)
    power = np.zeros(len(node) + len(delta), dtype=np.complex128)
    current = np.zeros_like(power)
    np.add.at(power, place, loads.s_power[wye])
    np.add.at(current, place, loads.s_current[wye] * size / loads.v_nominal_pu[wye])
    power[len(node) :] = loads.s_power[delta]
    current[len(node) :] = loads.s_current[delta] / loads.v_nominal_pu[delta]
    pick = sparse.csr_matrix((np.ones(len(node)), (np.arange(len(node)), node)), shape=(len(node), n))
    none = sparse.csr_matrix((len(delta), share.shape[1]))
    voltage = sparse.vstack([pick, _forward(across[delta])], format="csr")
    voltage.sort_indices()
    return Terminals(
        node=node,
        voltage=voltage,
        share=sparse.vstack([share[node], none], format="csr"),
        s_power=power,
        s_current=current,
        y=sparse.csr_matrix(network.y + impedance),
        y_network=sparse.csr_matrix(network.y),
        load_impedance=sparse.csr_matrix(impedance),
    )


def _forward(across: sparse.csr_matrix) -> sparse.csr_matrix:
    """Turn the voltages across delta loads by quarters so that the nominal ones lie within 45 degrees of the real axis.

    Powers do not change, rectangles stay rectangles, and no range of angles comes near ±π.
    """
    nominal = np.asarray(across.sum(axis=1)).ravel()
    quarters = np.rint(np.angle(nominal) / (0.5 * np.pi)).astype(np.int64)
    return sparse.csr_matrix(sparse.diags(np.array([1.0, -1.0j, -1.0, 1.0j])[quarters % 4]) @ across)


def build_response(terminals: Terminals, v_source_pu: float) -> Response:
    """Solve the reduced admittance for every terminal; raises InputError for a network too large to do so."""
    n, t = terminals.n_node, terminals.count
    if max(n, t) > LARGEST_DENSE:
        remedy = f"use a network of at most {LARGEST_DENSE} phase nodes and terminals"
        raise InputError([Problem("network", "phase nodes", max(n, t), remedy)])
    y = sparse.csc_matrix(terminals.y[N_SOURCE:])
    factor = splu(sparse.csc_matrix(y[:, N_SOURCE:]))
    source = np.full(N_SOURCE, v_source_pu, dtype=np.complex128)
    idle, gain = np.zeros(n, dtype=np.complex128), np.zeros((n, t), dtype=np.complex128)
    idle[:N_SOURCE] = source
    idle[N_SOURCE:] = factor.solve(-(y[:, :N_SOURCE] @ source))
    gain[N_SOURCE:] = factor.solve(terminals.voltage.conj().T.toarray()[N_SOURCE:])
    return Response(idle, gain)
