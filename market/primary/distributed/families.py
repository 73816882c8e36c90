"""The markets of one clearing as families of tangent programs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from voltier.grid.flow.derivative import N_SOURCE
from voltier.grid.network import BalancedNetwork
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.distributed.program import ConvexProgram
from voltier.market.primary.distributed.tangent_branch_flow import BranchFlowPoint, BranchFlowTangent
from voltier.market.primary.distributed.tangent_current import CurrentPoint, CurrentTangent
from voltier.market.primary.problem import ScaledBids
from voltier.market.primary.three_phase.problem import ScaledProblem

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, slots=True)
class BranchFlowFamily:
    """The balanced market of one clearing."""

    tangent: BranchFlowTangent
    network: BalancedNetwork
    bids: ScaledBids

    def at(self, point: BranchFlowPoint) -> ConvexProgram:
        """Return the program tangent at a point."""
        return self.tangent.at(self.network, self.bids, point)

    def moved(self, point: BranchFlowPoint, x: Array, y: Array) -> BranchFlowPoint:
        """Return the point that a solution describes."""
        return self.tangent.point(self.network, x, y)

    def bends(self, point: BranchFlowPoint, x: Array) -> Array:
        """Return what linearising has left at each node, (n_node,) [p.u.]."""
        return self.tangent.bends(self.network, x)

    def bend(self, point: BranchFlowPoint, x: Array) -> float:
        """Return the largest of it."""
        return float(self.bends(point, x).max())

    def flat(self) -> tuple[BranchFlowPoint, Array]:
        """Return a start of which others need to know nothing: no flow, and what the own operators forecast."""
        point = _without_flow(self.network, self.tangent.size.n_branch)
        return point, self.tangent.start(point, np.clip(self.bids.start, self.bids.low, self.bids.high))


@dataclass(frozen=True, slots=True)
class CurrentFamily:
    """The three-phase market of one clearing. Losses bend by the import's price, which everybody knows.

    The bend speeds the steps from point to point and vanishes where they end, so any price leads to the same optimum.
    """

    tangent: CurrentTangent
    network: ThreePhaseNetwork
    problem: ScaledProblem

    def at(self, point: CurrentPoint) -> ConvexProgram:
        """Return the program tangent at a point."""
        return self.tangent.at(self.network, self.problem, point)

    def moved(self, point: CurrentPoint, x: Array, y: Array) -> CurrentPoint:
        """Return the point that a solution describes."""
        return self.tangent.moved(point, x, point.price_usd_per_kwh)

    def bends(self, point: CurrentPoint, x: Array) -> Array:
        """Return what linearising has left at each bus, (n_bus,) [p.u.]."""
        return self.tangent.bends(point, x)

    def bend(self, point: CurrentPoint, x: Array) -> float:
        """Return the largest of it."""
        return float(self.bends(point, x).max())

    def flat(self) -> tuple[CurrentPoint, Array]:
        """Return a start of which others need to know nothing: no current, and what the own operators forecast.

        Voltages have the angles of a network without load and the middle of their limits, for without load boosted
        feeders may be far above them, and limits about a tangent there cannot be kept.
        """
        bids, network = self.problem.bids, self.network
        v = _without_load(network)
        middle = 0.5 * (network.v_min_pu + network.v_max_pu)[N_SOURCE:]
        v[N_SOURCE:] *= middle / np.abs(v[N_SOURCE:])
        nothing = np.zeros(self.tangent.layout.n_wire, dtype=np.complex128)
        point = CurrentPoint(v, nothing, max(bids.import_price, 0.0))
        return point, self.tangent.start(point, np.clip(bids.start, bids.low, bids.high), 0.0)


def _without_flow(network: BalancedNetwork, n_branch: int) -> BranchFlowPoint:
    """Return the point of no flow at the voltages of the source and the ratios."""
    state = np.zeros((4, n_branch + 1))
    state[2, 0] = network.v_root_pu**2
    for k in range(1, n_branch + 1):
        state[2, k] = network.ratio[k] ** 2 * state[2, network.parent[k]]
    return BranchFlowPoint(state, np.zeros(n_branch))


def _without_load(network: ThreePhaseNetwork) -> Complex:
    """Return the voltages of a network that nobody draws from, (n,)."""
    v = np.full(network.y.shape[0], network.v_source_pu, dtype=np.complex128)
    y = sparse.csc_matrix(network.y)
    v[N_SOURCE:] = -splu(y[N_SOURCE:, N_SOURCE:]).solve(y[N_SOURCE:, :N_SOURCE] @ v[:N_SOURCE])
    return v
