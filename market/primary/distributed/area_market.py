"""One area's part of the balanced primary market: its operators' bids in, set-points and prices of its own out.

The wires of the feeder, its taps and the import price are known to all; bids, costs, flows and the multipliers of its
rows an area keeps to itself. What it tells its neighbours is what `area.Packet` can hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from voltier.grid.feeder import Feeder
from voltier.grid.network import BalancedNetwork, retap
from voltier.market.primary.distributed.area import AreaSolver, AreaWarm
from voltier.market.primary.distributed.atoms import Profile, per_area
from voltier.market.primary.distributed.exchange import Packet, Transport
from voltier.market.primary.distributed.families import BranchFlowFamily
from voltier.market.primary.distributed.options import MethodName, Options
from voltier.market.primary.distributed.tangent_branch_flow import BranchFlowPoint, BranchFlowTangent
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices, SetPoints, box_problems, scale_bids

Array = NDArray[np.float64]
Index = NDArray[np.int64]


# Slots in which areas that have not agreed give up; a clearing takes some hundreds, more on a bad channel.
SLOT_LIMIT = 30_000


@dataclass(frozen=True, slots=True)
class Areas:
    """A division of a feeder into connected areas. of_node : (n_node,) ; of_smo : (n_smo,) area of each."""

    n_area: int
    of_node: Index
    of_smo: Index

    @property
    def profile(self) -> Profile:
        """The decomposition in which areas are the atoms."""
        return Profile(self.of_node)


@dataclass(frozen=True, slots=True)
class AreaOutcome:
    """What a clearing came to in one area. points : of its operators and nodes, empty when the areas did not agree.

    failure : why they did not, "" when they did ; rounds : taken, the same in every area ; solve_s : own wall time
    """

    points: SetPoints
    failure: str
    rounds: int
    solve_s: float


def divide(network: BalancedNetwork, smo_bus: Index, n_area: int) -> Areas:
    """Divide a feeder into about n_area connected areas of like size; smo_bus : rows of the feeder's bus table."""
    node = np.asarray(network.node_of_bus[smo_bus], dtype=np.int64)
    tangent = BranchFlowTangent(network, node)
    family = BranchFlowFamily(
        tangent, network, scale_bids(_nobody(len(node)), _NO_PRICES, network.s_base_kva)
    )
    program = family.at(family.flat()[0])
    of_node = per_area(program, n_area).atom_of_place
    return Areas(int(of_node.max()) + 1, of_node, of_node[node])


class AreaMarket:
    """Clears one area's part again and again. smo, node : (k,), (m,) positions of its operators and nodes.

    network : built from the feeder ; smo_bus : (n_smo,) rows of the feeder's bus table ; areas : the division that
    all areas know ; area : the number of this one
    """

    def __init__(
        self,
        feeder: Feeder,
        network: BalancedNetwork,
        smo_bus: Index,
        areas: Areas,
        area: int,
        method: MethodName,
        options: Options,
    ) -> None:
        self.area, self._areas, self._method, self._options = area, areas, method, options
        self._feeder, self._built, self._network = feeder, network, network
        self._n_smo = len(smo_bus)
        self._place = np.asarray(network.node_of_bus[smo_bus], dtype=np.int64)
        self.smo = np.flatnonzero(areas.of_smo == area)
        self.node = np.flatnonzero(areas.of_node == area)
        self._tangent = BranchFlowTangent(network, self._place)
        self._solver: AreaSolver[BranchFlowPoint] | None = None
        self._warm: AreaWarm[BranchFlowPoint] | None = None
        self._busy_s = 0.0
        self._wrong = ""

    def open(self, bids: PrimaryBids, prices: PrimaryPrices, *, tap: Index | None) -> None:
        """Begin a clearing with the bids of this area's operators, at these taps (None: as built).

        With an empty box among them the area takes no part: its neighbours wait for it in vain, and all fail.
        """
        began = perf_counter()
        self._network = self._built if tap is None else retap(self._built, self._feeder, tap)
        scaled = scale_bids(self._among_all(bids), prices, self._network.s_base_kva)
        self._wrong, self._solver = box_problems(scaled), None
        if not self._wrong:
            family = BranchFlowFamily(self._tangent, self._network, scaled)
            point, x = family.flat()
            self._solver = AreaSolver(
                family, point, x, self._areas.profile, self.area, self._options, method=self._method,
                transport=Transport(slot_limit=SLOT_LIMIT), warm=self._warm,
            )  # fmt: skip
        self._busy_s = perf_counter() - began

    @property
    def done(self) -> bool:
        """Whether the clearing has ended, agreed or not."""
        return bool(self._wrong) or (self._solver is not None and self._solver.done)

    def slot(self, packets: Sequence[Packet]) -> list[Packet]:
        """Take in what came, go on as far as that allows, and return what the neighbours need next."""
        if self._solver is None:
            return []
        began = perf_counter()
        answer = self._solver.slot(packets)
        self._busy_s += perf_counter() - began
        return answer

    def outcome(self) -> AreaOutcome:
        """Return what the clearing came to; the next one starts from it."""
        solver = self._solver
        if solver is None or solver.failure:
            failure = self._wrong if solver is None else solver.failure
            nothing = SetPoints(*np.zeros((5, 0)))
            return AreaOutcome(nothing, failure, 0 if solver is None else solver.rounds, self._busy_s)
        found, size, n = solver.solution(), self._tangent.size, len(self._areas.of_node)
        self._warm = found.warm
        u = found.x[size.control : size.head].reshape(3, -1)[:, self.smo] * self._network.s_base_kva
        price = -found.duals[: 2 * n].reshape(2, -1)[:, self.node]
        return AreaOutcome(SetPoints(*u, *price), "", found.rounds, self._busy_s)

    def _among_all(self, bids: PrimaryBids) -> PrimaryBids:
        """Return bids of all operators, of whom those elsewhere offer nothing."""
        everybody = _nobody(self._n_smo)
        for field in fields(PrimaryBids):
            getattr(everybody, field.name)[self.smo] = getattr(bids, field.name)
        return everybody


_NO_PRICES = PrimaryPrices(0.0, 0.0, 0.0)


def _nobody(n: int) -> PrimaryBids:
    """Return bids of operators that neither draw nor offer anything."""
    values = {field.name: np.zeros(n) for field in fields(PrimaryBids)}
    for name in ("beta_p_usd_per_kw2h", "beta_q_usd_per_kvar2h", "alpha_usd_per_kw2h"):
        values[name] += 1.0
    return PrimaryBids(**values)
