"""A primary formulation whose market is cleared by atoms instead of by one program."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, Problem
from voltier.market.primary.distributed.atoms import Profile, per_node
from voltier.market.primary.distributed.dispatch import BranchFlowDispatch, CurrentDispatch, Plan
from voltier.market.primary.distributed.options import MethodName, Options
from voltier.market.primary.distributed.program import ConvexProgram
from voltier.market.primary.distributed.solve import DEFAULT_OPTIONS, DistributedSolution
from voltier.market.primary.formulation import BranchFlow, PrimaryFormulation
from voltier.market.primary.problem import PrimaryBids, PrimaryClearing, PrimaryPrices
from voltier.market.primary.three_phase.formulation import CurrentInjection
from voltier.market.primary.three_phase.shares import PhaseBaseline

Array = NDArray[np.float64]
Index = NDArray[np.int64]


class Distributed:
    """A balanced or three-phase formulation, cleared by distributed solution; it takes the formulation over.

    method, options : of the atoms ; profile : makes the decomposition of a program. Everything but the dispatch and its
    prices, which are the atoms' own multipliers, is the formulation's. Clearings that the atoms do not agree on have
    status "failed" and say so. Raises InputError for a formulation of another kind.
    """

    def __init__(
        self,
        formulation: PrimaryFormulation,
        method: MethodName,
        options: Options = DEFAULT_OPTIONS,
        profile: Callable[[ConvexProgram], Profile] = per_node,
    ) -> None:
        plan = Plan(method, options, profile)
        self._inner = formulation
        self._dispatch: BranchFlowDispatch | CurrentDispatch
        if isinstance(formulation, BranchFlow):
            market = formulation._market
            self._dispatch = market._exact = BranchFlowDispatch(market._network, market._node, plan)
        elif isinstance(formulation, CurrentInjection):
            phases = formulation._market
            self._dispatch = phases._exact = CurrentDispatch(phases._network, phases._share, plan)
        else:
            kind, remedy = type(formulation).__name__, "a balanced branch flow or a current injection"
            raise InputError([Problem("distributed", "formulation", kind, remedy)])

    @property
    def last(self) -> DistributedSolution | None:
        """The atoms' solution of the last clearing, with history and certificate; None before the first."""
        return self._dispatch.last

    @property
    def s_base_kva(self) -> float:
        """Three-phase power base [kVA]."""
        return self._inner.s_base_kva

    def clear(
        self,
        bids: PrimaryBids,
        prices: PrimaryPrices,
        *,
        baseline: PhaseBaseline | None = None,
        tap: Index | None,
        bound: bool,
    ) -> PrimaryClearing:
        """Clear by atoms; see PrimaryFormulation.clear."""
        return self._inner.clear(bids, prices, baseline=baseline, tap=tap, bound=bound)

    def v_at_operators(self, clearing: PrimaryClearing) -> Array:
        """Return the voltage magnitude at each operator's bus at the last taps [p.u.]."""
        return self._inner.v_at_operators(clearing)

    def generator_prices(self, clearing: PrimaryClearing) -> Array:
        """Return what a unit of each operator's dispatchable generation is worth [$/kWh]."""
        return self._inner.generator_prices(clearing)

    def priced_as(
        self, clearing: PrimaryClearing, sound: PrimaryClearing | None, prices: PrimaryPrices
    ) -> PrimaryClearing:
        """Return a clearing with the prices of a sound one."""
        return self._inner.priced_as(clearing, sound, prices)

    def phase_columns(self, clearing: PrimaryClearing) -> Mapping[str, Array] | None:
        """Return prices and voltages of all phases of all buses, or None."""
        return self._inner.phase_columns(clearing)
