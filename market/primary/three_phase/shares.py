"""How operators are spread over the phases of a feeder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.errors import InputError, Problem
from voltier.grid.threephase import ThreePhaseNetwork

Index = NDArray[np.int64]


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
