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
from voltier.market.primary.three_phase.bundled import (
    BundledTariff,
    bundled_tariff,
    support_payment,
    support_worth,
)
from voltier.market.primary.three_phase.exact import ExactDispatch
from voltier.market.primary.three_phase.market import Dispatcher, ThreePhaseMarket
from voltier.market.primary.three_phase.price_parts import price_parts
from voltier.market.primary.three_phase.problem import SocialWeights, ThreePhaseClearing, scale_problem
from voltier.market.primary.three_phase.shares import PhaseBaseline, with_baseline

Array = NDArray[np.float64]
Index = NDArray[np.int64]

PHASE_PARTS = ("energy", "loss", "voltage", "congestion", "regulation")
"""Parts of a price that are recorded; all loads bid, so none follows its voltage and the sixth part is zero."""
PART_COLUMNS = (
    tuple(f"{part}_usd_per_kwh" for part in PHASE_PARTS),
    tuple(f"{part}_q_usd_per_kvarh" for part in PHASE_PARTS),
)
"""Names of the parts of the active and of the reactive price; energy has no reactive price, its part is zero."""


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
    bus_ratio : (n_bus, 3) v_bus = ratio·v_node at the taps that the dispatch is for
    origin : None where the prices in force are the marginal import price everywhere
    """

    dlmp_gen_usd_per_kwh: Array
    bus_ratio: Array
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
    dispatcher : as of ThreePhaseMarket

    Net loads are on the phases that their bids say, and moves away from them on those of load_share. A generator
    feeds the phases of its bus evenly, whatever phases the SMO's houses are on: in the market it is an operator of
    its own.
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
        *,
        dispatcher: Dispatcher = ExactDispatch,
    ) -> None:
        self._feeder, self._built, self._network = feeder, network, network
        self._smo_bus = smo_bus
        self._load_share, self._gen_smo, self._weights = load_share, gen_smo, unit_generation(weights)
        self._share = sparse.csc_matrix(sparse.hstack([load_share, gen_share]))
        self._place = _places(network, smo_bus, load_share)
        nothing = np.zeros(load_share.shape[1])
        empty = with_baseline(network, smo_bus, load_share, (nothing, nothing), None)
        self._market = ThreePhaseMarket(
            empty, self._share, lower_bound=self._lower_bound, dispatcher=dispatcher
        )
        self._bounds: tuple[ThreePhaseNetwork, BoundSolver] | None = None
        self._tap: Index | None = None
        bus, self._phase = np.nonzero(feeder.has_phase)
        self._bus, self._node = bus, network.bus_node[bus, self._phase]

    @property
    def s_base_kva(self) -> float:
        """Three-phase power base [kVA]."""
        return 3.0 * self._built.s_phase_kva

    def clear(
        self,
        bids: PrimaryBids,
        prices: PrimaryPrices,
        *,
        baseline: PhaseBaseline | None = None,
        tap: Index | None,
        bound: bool,
    ) -> OperatorClearing:
        """Clear at these taps; see ThreePhaseMarket.clear.

        baseline : see with_baseline. Raises InputError for generation where no generator is, and for a baseline
        that is not the bids'.
        """
        # Taps mostly rest, and so do the numbers that follow from them.
        if tap is None:
            self._tap, self._network = None, self._built
        elif self._tap is None or not np.array_equal(tap, self._tap):
            self._tap, self._network = tap, retap_three_phase(self._built, self._feeder, tap)
        total = bids.p0_kw, bids.q0_kvar
        network = with_baseline(self._network, self._smo_bus, self._load_share, total, baseline)
        clearing = self._market.clear(
            self._spread(bids), prices, network=network, weights=self._weights, bound=bound
        )
        return self._gathered(clearing, PriceOrigin(network, prices, clearing))

    def v_at_operators(self, clearing: PrimaryClearing) -> Array:
        """Return the voltage magnitude at each operator's bus, the mean of its phases by share [p.u.]."""
        assert isinstance(clearing, OperatorClearing)
        place, share = self._place, self._load_share
        at_bus = clearing.bus_ratio[place.bus, place.phase] * clearing.v_pu[share.indices]
        mean = np.bincount(place.smo, share.data * at_bus, share.shape[1])
        return np.asarray(mean, dtype=np.float64)

    def bundled(self, clearing: OperatorClearing) -> BundledTariff:
        """Return what operators pay at the prices in force, and per kWh; see bundled_tariff.

        Voltage support has the worth it has where the prices come from, none where they are the import's.
        """
        origin, place = clearing.origin, self._place
        worth = np.zeros_like(clearing.v)
        if origin is not None:
            worth = support_worth(origin.network, origin.clearing)
        ratio = clearing.bus_ratio[place.bus, place.phase]
        support = support_payment(clearing.v, worth, self._load_share, ratio)
        return bundled_tariff(clearing, support, dlmp_gen_usd_per_kwh=clearing.dlmp_gen_usd_per_kwh)

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
        """Return prices in force, their parts, bundled tariffs, and the dispatch's voltages at all phases of all buses.

        Rows: buses in the feeder's order, phases a to c; nan where nothing feeds them. Prices and their parts are
        those of the last sound clearing where the dispatch is of another one. The bundled tariff is the operator's,
        the same at all its phases.
        """
        assert isinstance(clearing, OperatorClearing)
        nodal = {
            "dlmp_usd_per_kwh": clearing.dlmp_node_p_usd_per_kwh,
            "dlmp_q_usd_per_kvarh": clearing.dlmp_node_q_usd_per_kvarh,
            "v_pu": clearing.v_pu,
        } | _parts(clearing)
        columns = {
            name: np.where(self._node >= 0, value[self._node], np.nan) for name, value in nodal.items()
        }
        columns["v_pu"] *= clearing.bus_ratio[self._bus, self._phase]
        bundled = np.full(self._built.bus_node.shape, np.nan)
        place = self._place
        bundled[place.bus, place.phase] = self.bundled(clearing).tariff_usd_per_kwh[place.smo]
        return columns | {"bundled_usd_per_kwh": bundled[self._bus, self._phase]}

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
        return OperatorClearing(
            **values, dlmp_gen_usd_per_kwh=gen_price, bus_ratio=origin.network.bus_ratio, origin=origin
        )

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


@dataclass(frozen=True, slots=True)
class _Places:
    """Operator, bus and phase of each entry of the load shares."""

    smo: Index
    bus: Index
    phase: Index


def _places(network: ThreePhaseNetwork, smo_bus: Index, load_share: sparse.csc_matrix) -> _Places:
    smo = np.repeat(np.arange(load_share.shape[1]), np.diff(load_share.indptr))
    return _Places(smo, smo_bus[smo], network.node_phase[load_share.indices])


def _parts(clearing: OperatorClearing) -> dict[str, Array]:
    """Return the parts of the active and reactive prices at every phase node, by column."""
    columns = [name for names in PART_COLUMNS for name in names]
    if clearing.origin is None:
        flat = dict.fromkeys(columns, np.zeros_like(clearing.v_pu))
        return flat | {columns[0]: clearing.dlmp_node_p_usd_per_kwh}
    origin = clearing.origin
    parts = price_parts(origin.network, origin.clearing, origin.prices)
    # Limits that do not bind have parts of negative zero.
    return {
        name: getattr(parts, part)[side] + 0.0
        for side, names in enumerate(PART_COLUMNS)
        for name, part in zip(names, PHASE_PARTS, strict=True)
    }
