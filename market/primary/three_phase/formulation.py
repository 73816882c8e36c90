"""The three-phase market behind the operator's port: shares over phases, generators, prices by phase, certificate."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import Feeder
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.grid.threephase_build import retap_three_phase
from voltier.market.primary.current_injection.bound import BoundSolver, Method
from voltier.market.primary.current_injection.terminals import VoltageTarget
from voltier.market.primary.problem import PrimaryBids, PrimaryClearing, PrimaryPrices, priced_as
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.market.primary.three_phase.price_parts import price_parts
from voltier.market.primary.three_phase.problem import SocialWeights, ThreePhaseClearing, scale_problem

Array = NDArray[np.float64]
Index = NDArray[np.int64]

PHASE_PARTS = ("energy", "loss", "voltage", "congestion", "regulation")
"""Parts of the active price; all loads bid, so none follows its voltage and the sixth part is zero."""


@dataclass(frozen=True, slots=True)
class PriceOrigin:
    """The problem whose multipliers a clearing's prices are."""

    network: ThreePhaseNetwork
    prices: PrimaryPrices
    clearing: ThreePhaseClearing


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorClearing(ThreePhaseClearing):
    """A three-phase clearing in the order of the SMOs, generators with the SMO that has them.

    dlmp_gen_usd_per_kwh : (n_smo,) price over the phases that a generator feeds; the SMO's own where there is none
    origin : None where the prices in force are the marginal import price everywhere
    """

    dlmp_gen_usd_per_kwh: Array
    origin: PriceOrigin | None


def unit_generation(weights: SocialWeights) -> SocialWeights:
    """Return weights with the same optimum of which generation's is 1, so that prices are money."""
    unit = weights.generation
    return replace(
        weights,
        disutility=weights.disutility / unit,
        generation=1.0,
        loss=weights.loss / unit,
        voltage_usd_per_pu2h=weights.voltage_usd_per_pu2h / unit,
    )


class CurrentInjection:
    """A feeder's phase nodes, cleared AC-exactly.

    network : built from the feeder without its spot loads, for every load bids ; smo_bus : (n_smo,) rows of the bus
    table ; load_share : (n_node, n_smo) of the net loads ; gen_share : (n_node, n_gen) of the generators, which
    belong to the SMOs gen_smo (n_gen,)
    weights : of the objective's parts; it is divided by generation's, and so is the cost that clearings state

    A generator feeds the phases of its bus evenly, whatever phases the SMO's houses are on: in the market it is an
    operator of its own.
    """

    def __init__(
        self,
        feeder: Feeder,
        network: ThreePhaseNetwork,
        smo_bus: Index,
        load_share: sparse.csc_matrix,
        gen_share: sparse.csc_matrix,
        gen_smo: Index,
        weights: SocialWeights,
    ) -> None:
        self._feeder, self._built, self._network = feeder, network, network
        self._smo_bus = smo_bus
        self._load_share, self._gen_smo, self._weights = load_share, gen_smo, unit_generation(weights)
        self._share = sparse.csc_matrix(sparse.hstack([load_share, gen_share]))
        self._market = ThreePhaseMarket(network, self._share, lower_bound=self._lower_bound)
        self._bounds: tuple[ThreePhaseNetwork, BoundSolver] | None = None
        self._tap: Index | None = None
        bus, self._phase = np.nonzero(feeder.has_phase)
        self._bus, self._node = bus, network.bus_node[bus, self._phase]

    @property
    def s_base_kva(self) -> float:
        """Three-phase power base [kVA]."""
        return 3.0 * self._built.s_phase_kva

    def clear(
        self, bids: PrimaryBids, prices: PrimaryPrices, *, tap: Index | None, bound: bool
    ) -> OperatorClearing:
        """Clear at these taps; see ThreePhaseMarket.clear. Raises InputError for generation where no generator is."""
        # The factors of a network are worth keeping as long as its taps rest.
        if tap is None:
            self._tap, self._network = None, self._built
        elif self._tap is None or not np.array_equal(tap, self._tap):
            self._tap, self._network = tap, retap_three_phase(self._built, self._feeder, tap)
        clearing = self._market.clear(
            self._spread(bids), prices, network=self._network, weights=self._weights, bound=bound
        )
        return self._gathered(clearing, PriceOrigin(self._network, prices, clearing))

    def v_at_operators(self, clearing: PrimaryClearing) -> Array:
        """Return the voltage magnitude at each operator's bus, the mean of its phases by share [p.u.]."""
        share = self._load_share
        smo = np.repeat(np.arange(share.shape[1]), np.diff(share.indptr))
        ratio = self._network.bus_ratio[self._smo_bus[smo], self._network.node_phase[share.indices]]
        mean = np.zeros(share.shape[1])
        np.add.at(mean, smo, share.data * ratio * clearing.v_pu[share.indices])
        return mean

    def generator_prices(self, clearing: PrimaryClearing) -> Array:
        """Return the prices over the phases of the generators [$/kWh]."""
        assert isinstance(clearing, OperatorClearing)
        return clearing.dlmp_gen_usd_per_kwh

    def priced_as(
        self, clearing: PrimaryClearing, sound: PrimaryClearing | None, prices: PrimaryPrices
    ) -> OperatorClearing:
        """Return a clearing with the prices of a sound one at every phase node; see problem.priced_as."""
        priced = priced_as(clearing, sound, prices)
        assert isinstance(priced, OperatorClearing)
        if sound is None:
            flat = priced.dlmp_p_usd_per_kwh
            nothing = np.zeros_like(priced.dlmp_node_q_usd_per_kvarh)
            return replace(priced, dlmp_gen_usd_per_kwh=flat, dlmp_node_q_usd_per_kvarh=nothing, origin=None)
        assert isinstance(sound, OperatorClearing)
        return replace(
            priced,
            dlmp_gen_usd_per_kwh=sound.dlmp_gen_usd_per_kwh,
            dlmp_node_q_usd_per_kvarh=sound.dlmp_node_q_usd_per_kvarh,
            origin=sound.origin,
        )

    def phase_columns(self, clearing: PrimaryClearing) -> dict[str, Array]:
        """Return prices in force, their parts, and the dispatch's voltages at all phases of all buses.

        Rows: buses in the feeder's order, phases a to c; nan where nothing feeds them. Prices and their parts are
        those of the last sound clearing where the dispatch is of another one.
        """
        assert isinstance(clearing, OperatorClearing)
        nodal = {
            "dlmp_usd_per_kwh": clearing.dlmp_node_p_usd_per_kwh,
            "dlmp_q_usd_per_kvarh": clearing.dlmp_node_q_usd_per_kvarh,
            "v_pu": clearing.v_pu,
        } | _active_parts(clearing)
        columns = {
            name: np.where(self._node >= 0, value[self._node], np.nan) for name, value in nodal.items()
        }
        columns["v_pu"] *= self._network.bus_ratio[self._bus, self._phase]
        return columns

    # ------------------------------------------------------------------ between SMOs and the market's operators

    def _spread(self, bids: PrimaryBids) -> PrimaryBids:
        """Return bids of the net loads, then of the generators."""
        here = self._gen_smo
        stray = np.setdiff1d(np.flatnonzero(bids.gen_max_kw > 0.0), here)
        if len(stray):
            remedy = "bid generation where a generator stands"
            raise InputError(
                [
                    Problem(f"operator {k}", "gen_max_kw", float(bids.gen_max_kw[k]), remedy)
                    for k in stray.tolist()
                ]
            )
        nothing = np.zeros(len(here))
        columns = {field.name: getattr(bids, field.name) for field in fields(bids)}
        spread = {name: np.concatenate([value, nothing]) for name, value in columns.items()}
        for name in ("alpha_usd_per_kw2h", "beta_p_usd_per_kw2h", "beta_q_usd_per_kvar2h"):
            spread[name] = np.concatenate([columns[name], columns[name][here]])
        spread["gen_max_kw"] = np.concatenate([np.zeros_like(bids.gen_max_kw), bids.gen_max_kw[here]])
        return PrimaryBids(**spread)

    def _gathered(self, clearing: ThreePhaseClearing, origin: PriceOrigin) -> OperatorClearing:
        n, here = self._load_share.shape[1], self._gen_smo
        values = {field.name: getattr(clearing, field.name) for field in fields(clearing)}
        price = clearing.dlmp_p_usd_per_kwh
        gen_kw, gen_price = np.zeros(n), price[:n].copy()
        gen_kw[here], gen_price[here] = clearing.gen_kw[n:], price[n:]
        values |= {
            "p_kw": clearing.p_kw[:n],
            "q_kvar": clearing.q_kvar[:n],
            "gen_kw": gen_kw,
            "dlmp_p_usd_per_kwh": price[:n],
            "dlmp_q_usd_per_kvarh": clearing.dlmp_q_usd_per_kvarh[:n],
        }
        return OperatorClearing(**values, dlmp_gen_usd_per_kwh=gen_price, origin=origin)

    # ------------------------------------------------------------------ certificate

    def _lower_bound(
        self,
        network: ThreePhaseNetwork,
        bids: PrimaryBids,
        prices: PrimaryPrices,
        weights: SocialWeights,
        clearing: ThreePhaseClearing,
    ) -> float:
        """Return the certified bound, tightened around the cleared cost [$/h]."""
        if self._bounds is None or self._bounds[0] is not network:
            self._bounds = network, BoundSolver(network, self._share)
        base = network.s_phase_kva
        problem = scale_problem(bids, prices, weights, base)
        target = VoltageTarget(problem.voltage_weight, problem.v_target)
        cut_off = clearing.cost_usd_per_h / base
        # A second at most; where limits bind hard, the semidefinite cones take minutes and are not close either.
        method: Method = "mccormick+obbt"
        found = self._bounds[1].bound(problem.bids, target=target, cut_off=cut_off, method=method)
        return base * found.value


def _active_parts(clearing: OperatorClearing) -> dict[str, Array]:
    """Return the parts of the active prices at every phase node, by column."""
    names = [f"{name}_usd_per_kwh" for name in PHASE_PARTS]
    if clearing.origin is None:
        nothing = np.zeros_like(clearing.v_pu)
        return dict.fromkeys(names, nothing) | {names[0]: clearing.dlmp_node_p_usd_per_kwh}
    origin = clearing.origin
    parts = price_parts(origin.network, origin.clearing, origin.prices)
    # Limits that do not bind have parts of negative zero.
    return {name: getattr(parts, part)[0] + 0.0 for name, part in zip(names, PHASE_PARTS, strict=True)}
