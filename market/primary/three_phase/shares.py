"""How operators are spread over the phases of a feeder."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.errors import InputError, Problem
from voltier.grid.threephase import ThreePhaseNetwork, VoltageLoads

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

BASELINE_TOLERANCE_KW = 1e-3


@dataclass(frozen=True, slots=True)
class PhaseBaseline:
    """How the baselines of bids divide over phases a to c: p0_kw, q0_kvar, (n_smo, 3) injections [kW, kvar]."""

    p0_kw: Array
    q0_kvar: Array


def phase_share(
    network: ThreePhaseNetwork, bus: Index, phase: Index, owner: Index, n: int
) -> sparse.csc_matrix:
    """Spread n owners over phase nodes in proportion to how many places each has there, (n_node, n).

    bus, phase, owner : (n_place,) of each place. Raises InputError for places that nothing feeds.
    """
    node = network.bus_node[bus, phase]
    if np.any(node < 0):
        remedy = "move the load to a phase that is joined to the source"
        dark = sorted({f"{network.bus[bus[k]]}.{'abc'[phase[k]]}" for k in np.flatnonzero(node < 0)})
        raise InputError([Problem("three-phase market", "bus", name, remedy) for name in dark])
    one = np.ones(len(node)) / np.bincount(owner, minlength=n)[owner]
    return sparse.csc_matrix(sparse.coo_matrix((one, (node, owner)), shape=(len(network.node_bus), n)))


def with_baseline(
    network: ThreePhaseNetwork,
    bus: Index,
    share: sparse.csc_matrix,
    total: tuple[Array, Array],
    baseline: PhaseBaseline | None,
) -> ThreePhaseNetwork:
    """Return a network without loads with what the shares get wrong of the baselines as constant-power loads.

    Operators inject share @ p. With a load of share·p0 - p0_phase beside it, that is p0_phase at p = p0, and a move
    away from p0 is spread by the shares. bus : (n_smo,) of the operators ; total : p0_kw and q0_kvar of their bids,
    (n_smo,) each. The loads of every operator sum to zero; those of no baseline are zero, in the same structure.
    Raises InputError for a baseline on a phase that nothing feeds, or that differs from the total.
    """
    node = network.bus_node[bus]
    owner, phase = np.nonzero(node >= 0)
    at, n = node[owner, phase], share.shape[0]
    s_load = np.zeros(len(at), dtype=np.complex128)
    if baseline is not None:
        s_phase, s_total = baseline.p0_kw + 1j * baseline.q0_kvar, total[0] + 1j * total[1]
        _check_baseline(network, bus, s_phase, s_total)
        part = np.asarray(share[at, owner]).ravel()
        s_load += (part * s_total[owner] - s_phase[owner, phase]) / network.s_phase_kva
    zero = np.zeros_like(s_load)
    across = sparse.csr_matrix((np.ones_like(s_load), (np.arange(len(at)), at)), shape=(len(at), n))
    loads = VoltageLoads(across, np.ones(len(at)), s_power=s_load, s_current=zero, s_impedance=zero)
    return replace(network, loads=loads)


def _check_baseline(network: ThreePhaseNetwork, bus: Index, s_phase: Complex, s_total: Complex) -> None:
    problems = []
    dark = (network.bus_node[bus] < 0) & (s_phase != 0.0)
    for k, phase in zip(*(axis.tolist() for axis in np.nonzero(dark)), strict=True):
        name = f"{network.bus[bus[k]]}.{'abc'[phase]}"
        remedy = "leave out the phases that nothing feeds"
        problems.append(Problem("three-phase market", "p0_phase_kw", name, remedy))
    off = np.abs(s_phase.sum(axis=1) - s_total)
    # Sums of the same houses in another order; a meter sees no less than watts.
    for k in np.flatnonzero(off > BASELINE_TOLERANCE_KW).tolist():
        remedy = "give phases that sum up to the baseline of the bid"
        problems.append(Problem(f"operator {k}", "p0_phase_kw", float(off[k]), remedy))
    if problems:
        raise InputError(problems)
