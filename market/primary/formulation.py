"""What the primary operator needs of a market's physics, and the balanced branch flow behind that port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from voltier.grid.feeder import Feeder
from voltier.grid.network import BalancedNetwork, retap
from voltier.market.primary.exact import ExactDispatch
from voltier.market.primary.market import Dispatcher, PrimaryMarket
from voltier.market.primary.problem import (
    PrimaryBids,
    PrimaryClearing,
    PrimaryPrices,
    SetPoints,
    priced_as,
)
from voltier.market.primary.three_phase.shares import PhaseBaseline

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class PrimaryFormulation(Protocol):
    """A primary market with its network: one object clears the whole run, operators in the order of the SMOs."""

    @property
    def s_base_kva(self) -> float:
        """Three-phase power base [kVA]."""

    def clear(
        self,
        bids: PrimaryBids,
        prices: PrimaryPrices,
        *,
        baseline: PhaseBaseline | None = None,
        tap: Index | None,
        bound: bool,
    ) -> PrimaryClearing:
        """Clear at these taps, rows of feeder.regulators (None: as built).

        baseline : how the bids' p0_kw and q0_kvar divide over phases; None: as the places of the operators do, as
        every move away from them does. bound : certify the gap too.
        """

    def v_at_operators(self, clearing: PrimaryClearing) -> Array:
        """Return the voltage magnitude at each operator's bus at the last taps, (n_smo,) [p.u.]."""

    def generator_prices(self, clearing: PrimaryClearing) -> Array:
        """Return what a unit of each operator's dispatchable generation is worth, (n_smo,) [$/kWh]."""

    def priced_as(
        self, clearing: PrimaryClearing, sound: PrimaryClearing | None, prices: PrimaryPrices
    ) -> PrimaryClearing:
        """Return a clearing with the prices of a sound one, or the marginal import price for want of one."""

    def phase_columns(self, clearing: PrimaryClearing) -> Mapping[str, Array] | None:
        """Return prices and voltages of all phases of all buses, rows as in the table "dlmp"; None: has none."""


class BranchFlow:
    """The balanced equivalent of a feeder, cleared on its exact branch flow.

    network : built from the feeder ; smo_bus : (n_smo,) rows of the feeder's bus table
    dispatcher : as of PrimaryMarket
    """

    def __init__(
        self,
        feeder: Feeder,
        network: BalancedNetwork,
        smo_bus: Index,
        *,
        dispatcher: Dispatcher = ExactDispatch,
    ) -> None:
        self._feeder, self._built, self._network = feeder, network, network
        self._smo_bus, self._node = smo_bus, network.node_of_bus[smo_bus]
        self._market = PrimaryMarket(network, self._node, dispatcher=dispatcher)
        self._tap: Index | None = None

    @property
    def s_base_kva(self) -> float:
        """Three-phase power base [kVA]."""
        return self._built.s_base_kva

    @property
    def n_node(self) -> int:
        """Nodes of the network, the source among them."""
        return len(self._built.parent)

    def clear(
        self,
        bids: PrimaryBids,
        prices: PrimaryPrices,
        *,
        baseline: PhaseBaseline | None = None,
        tap: Index | None,
        bound: bool,
    ) -> PrimaryClearing:
        """Clear at these taps; see PrimaryMarket.clear. Balanced phases have no use for the baseline."""
        return self._market.clear(bids, prices, network=self._at(tap), bound=bound)

    def judge(self, points: SetPoints, slack_pu: float, *, tap: Index | None) -> PrimaryClearing:
        """Judge a clearing by others at these taps; see PrimaryMarket.judge."""
        return self._market.judge(points, slack_pu, network=self._at(tap))

    def _at(self, tap: Index | None) -> BalancedNetwork:
        if tap is not self._tap:
            self._tap = tap
            self._network = self._built if tap is None else retap(self._built, self._feeder, tap)
        return self._network

    def v_at_operators(self, clearing: PrimaryClearing) -> Array:
        """Return the voltage magnitude at each operator's bus [p.u.]."""
        return self._network.ratio_of_bus[self._smo_bus] * clearing.v_pu[self._node]

    def generator_prices(self, clearing: PrimaryClearing) -> Array:
        """Return the operators' own prices: balanced phases have one price a node."""
        return clearing.dlmp_p_usd_per_kwh

    def priced_as(
        self, clearing: PrimaryClearing, sound: PrimaryClearing | None, prices: PrimaryPrices
    ) -> PrimaryClearing:
        """Return a clearing with the prices of a sound one; see problem.priced_as."""
        return priced_as(clearing, sound, prices)

    def phase_columns(self, clearing: PrimaryClearing) -> None:
        """Return None: there is one price for all phases."""
        return
