"""From a scenario to its operators: any process can build any operator, and gets the same one."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from voltier.agents.attacker import Attacker, GeneratorAttack
from voltier.agents.clock import MarketClock
from voltier.agents.devices.fleet import FleetSpec
from voltier.agents.operator import Operator
from voltier.agents.population import Population, build_population
from voltier.agents.smo import SmoRows
from voltier.grid.errors import FederationError
from voltier.grid.feeder import Feeder, read_feeder
from voltier.grid.regulators import initial_taps, neutral_taps
from voltier.scenarios.inputs import conditions, ev_stays, load_profiles
from voltier.scenarios.schema import Scenario
from voltier.scenarios.tables import TableLayout, layout

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

    from voltier.grid.threephase import ThreePhaseNetwork
    from voltier.market.primary.formulation import PrimaryFormulation

ROLES = ("wholesale", "resilience", "smo", "pmo", "cmo", "grid", "bulk")


def market_clock(scenario: Scenario) -> MarketClock:
    """Return the run's clock."""
    return MarketClock(primary_period_s=scenario.primary.period_s, end_s=scenario.end_s)


def operator_names(scenario: Scenario) -> list[str]:
    """Name every operator of a run: "wholesale", "resilience", "smo.0" ..., "pmo", "cmo.0" ..., "grid", "bulk"."""
    shards = range(scenario.federation.shards)
    smos, cmos = [f"smo.{k}" for k in shards], [f"cmo.{k}" for k in shards]
    bulk = [] if scenario.bulk is None else ["bulk"]
    return ["wholesale", "resilience", *smos, "pmo", *cmos, "grid", *bulk]


def build_operator(scenario: Scenario, name: str) -> Operator:
    """Build one operator by its name. Raises FederationError for a name the scenario does not have."""
    if name not in operator_names(scenario):
        raise FederationError(f"no operator {name!r} here; there are: {', '.join(operator_names(scenario))}")
    role, _, shard = name.partition(".")
    return _BUILDERS[role](scenario, int(shard or 0))


def population_of(scenario: Scenario) -> Population:
    """Return the houses, agents and operators that the scenario draws."""
    return _case(scenario).population


def table_layouts(scenario: Scenario) -> dict[str, TableLayout]:
    """Name the columns and fixed rows of every table of a run."""
    case = _case(scenario)
    population, feeder = case.population, case.feeder
    smo_of_sma = tuple(population.smo_name[i] for i in population.sma_smo)
    sma_of_house = tuple(population.sma_name[j] for j in population.house_sma)
    bus, phase = np.nonzero(feeder.has_phase)
    generators = tuple(f"gen_{generator.bus}" for generator in scenario.generators)
    primary_parties = (*population.smo_name, *generators, "pmo", "bulk")
    secondary_parties = (*population.sma_name, *population.smo_name)
    nodes = {"bus": tuple(feeder.bus[i] for i in bus), "phase": tuple("abc"[k] for k in phase)}
    by_phase = scenario.primary.formulation == "current_injection" and scenario.design != "no_market"
    return {
        "primary": layout("primary", bus=tuple(feeder.bus[i] for i in population.smo_bus)),
        "secondary": layout("secondary", smo=smo_of_sma, sma=population.sma_name),
        "secondary_clearings": layout("secondary_clearings", smo=population.smo_name),
        "consumer_clearings": layout("consumer_clearings", cmo=population.sma_name),
        "consumer": layout("consumer", cmo=sma_of_house, cma=population.house_name),
        "devices": layout("devices", cma=population.house_name),
        "grid": layout("grid", **nodes),
        "substation": layout("substation", phase=("a", "b", "c")),
        "system": layout("system"),
        "clearings": layout("clearings"),
        "events": layout("events"),
        "settlement": layout(
            "settlement",
            market=("secondary",) * len(secondary_parties) + ("primary",) * len(primary_parties),
            party=(*secondary_parties, *primary_parties),
        ),
        **({"dlmp": layout("dlmp", **nodes)} if by_phase else {}),
        **({} if scenario.bulk is None else {"bulk": layout("bulk", area=("1", "2"))}),
    }


def check_data(scenario: Scenario) -> None:
    """Read every data file, draw and place the population: what is wrong with them is told before a run begins.

    Raises InputError.
    """
    case = _case(scenario)
    _ = case.shard_smos
    conditions(scenario)
    if scenario.bulk is not None:
        from voltier.grid.kundur import require_andes

        require_andes()
    if scenario.primary.formulation == "current_injection":
        _phase_nodes(case)


# ---------------------------------------------------------------------- what several operators share


class _Case:
    """Feeder and population of a scenario, made once in each process."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.feeder: Feeder = read_feeder(scenario.feeder.name)
        self.profiles_kw = load_profiles(scenario)
        self.population: Population = build_population(
            _fleet(scenario), self.feeder, scenario.seed, self.profiles_kw.shape[1], ev_stays(scenario)
        )

    def shard(self, k: int) -> Population:
        """Return the k-th of the run's shards of the population."""
        return self.population.shard(k, self.scenario.federation.shards)

    @property
    def has_generator(self) -> np.ndarray:
        """Which SMOs have a generator, (n_smo,)."""
        generator_buses = {generator.bus for generator in self.scenario.generators}
        return np.array([self.feeder.bus[bus] in generator_buses for bus in self.population.smo_bus])

    @property
    def shard_smos(self) -> list[np.ndarray]:
        """Positions of the SMOs of each shard."""
        return [self.shard(k).smo_index for k in range(self.scenario.federation.shards)]


@lru_cache(maxsize=2)
def _case(scenario: Scenario) -> _Case:
    return _Case(scenario)


def _fleet(scenario: Scenario) -> FleetSpec:
    return FleetSpec(**scenario.fleet.model_dump())


# ---------------------------------------------------------------------- one builder a role
# Heavy libraries (pvlib, OpenDSS, Clarabel, Mesa) are imported by the operator that needs them: each federate
# starts with what it uses.


def _wholesale(scenario: Scenario, _: int) -> Operator:
    from voltier.agents.wholesale import ConditionSeries, WholesaleOperator

    series = conditions(scenario)
    return WholesaleOperator(
        ConditionSeries(series.price_usd_per_kwh, series.temp_air_c, series.pv_available),
        shards=scenario.federation.shards,
        plan_period_s=scenario.consumer.period_s,
        plan_step_s=scenario.consumer.step_s,
        horizon_s=scenario.consumer.horizon_h * 3600,
    )


def _resilience(scenario: Scenario, _: int) -> Operator:
    from voltier.agents.resilience import ResilienceOperator
    from voltier.market.resilience.detection import Detector

    case = _case(scenario)
    population, settings = case.population, scenario.resilience
    attack = None
    if scenario.attack is not None and scenario.attack_window_s is not None:
        at_bus = {case.feeder.bus[bus]: i for i, bus in enumerate(population.smo_bus)}
        start_s, end_s = scenario.attack_window_s
        attack = GeneratorAttack(np.array([at_bus[bus] for bus in scenario.attack.buses]), start_s, end_s)
    detector = Detector(
        sigmas=settings.sigmas,
        load_share=settings.load_share,
        consecutive=settings.consecutive,
        warm_up=settings.warm_up_min,
    )
    attacker = Attacker(attack, population.smo_name, scenario.federation.shards)
    return ResilienceOperator(detector, attacker, enabled=settings.enabled, mitigate=settings.mitigate)


def _smo(scenario: Scenario, k: int) -> Operator:
    from voltier.agents.smo import SecondaryOperator, SecondaryRules
    from voltier.market.pricing import TariffRules
    from voltier.market.scores import CommitmentRules, TrustRules
    from voltier.market.settlement import SettlementRules

    market, scores = scenario.secondary, scenario.scores
    rules = SecondaryRules(
        design=scenario.design,
        epsilon=market.epsilon,
        retail_usd_per_kwh=scenario.wholesale.retail_usd_per_kwh,
        tariffs=TariffRules(
            flexibility_usd_per_kwh=market.flexibility_usd_per_kwh,
            reserve_usd_per_kwh=market.reserve_usd_per_kwh,
            cap_usd_per_kwh=market.cap_usd_per_kwh,
            smoothing=market.smoothing,
        ),
        settlement=SettlementRules(
            flexibility_usd_per_kwh=market.flexibility_usd_per_kwh,
            reserve_usd_per_kwh=market.reserve_usd_per_kwh,
            penalty_usd_per_kwh=market.penalty_usd_per_kwh,
        )
        if scenario.design == "hierarchical"
        else SettlementRules(0.0, 0.0, 0.0),
        policy=market.policy,
        commitment=CommitmentRules(rate=scores.commitment_rate, tolerance=scores.commitment_scale),
        trust=TrustRules(forgetting=scores.trust_forgetting),
        commitment_weight=scores.commitment_weight,
        commitment_start=scores.commitment_start,
        settlement_period_s=scenario.recording.settlement_period_s,
    )
    return SecondaryOperator(k, _smo_rows(_case(scenario), k), rules, market_clock(scenario))


def _smo_rows(case: _Case, k: int) -> SmoRows:
    part, feeder = case.shard(k), case.feeder
    generators = {generator.bus: generator for generator in case.scenario.generators}
    here = [generators.get(feeder.bus[bus]) for bus in part.smo_bus]
    gen_max_kw = np.array([generator.p_max_kw if generator else 0.0 for generator in here])
    # Marginal cost alpha·P reaches the stated price at rated power.
    alpha = np.array(
        [generator.price_usd_per_kwh / generator.p_max_kw if generator else 1.0 for generator in here]
    )
    counts = np.bincount(part.sma_smo, minlength=len(part.smo_bus))
    return SmoRows(
        smo=part.smo_index,
        bus=part.smo_bus,
        name=part.smo_name,
        sma=part.sma_index,
        n_sma_total=len(case.population.sma_smo),
        offset=np.concatenate([[0], np.cumsum(counts)]),
        phases=feeder.has_phase[part.smo_bus],
        gen_max_kw=gen_max_kw,
        alpha_usd_per_kw2h=alpha,
    )


def _pmo(scenario: Scenario, _: int) -> Operator:
    from voltier.agents.pmo import PrimaryOperator, PrimaryRules

    case = _case(scenario)
    rules = PrimaryRules(
        design=scenario.design,
        loss_usd_per_kwh=scenario.primary.loss_usd_per_kwh,
        import_slope_usd_per_kw2h=scenario.wholesale.import_slope_usd_per_kwh_per_mw / 1000.0,
        relaxation_bound=scenario.primary.relaxation_bound,
        policy=scenario.primary.policy,
        settlement_period_s=scenario.recording.settlement_period_s,
        stop_share=scenario.resilience.stop_share,
    )
    population = case.population
    return PrimaryOperator(
        _FORMULATIONS[scenario.primary.formulation](case),
        case.shard_smos,
        case.has_generator,
        len(population.sma_smo) + len(population.smo_bus),
        rules,
        market_clock(scenario),
    )


def _branch_flow(case: _Case) -> PrimaryFormulation:
    from voltier.grid.network import balanced_network
    from voltier.market.primary.formulation import BranchFlow

    feeder = case.scenario.feeder
    network = balanced_network(
        case.feeder,
        _start_taps(case.scenario, case.feeder),
        lateral_impedance=feeder.lateral_impedance,
        v_min_pu=feeder.v_min_pu + feeder.primary_v_margin_pu,
        v_max_pu=feeder.v_max_pu - feeder.primary_v_margin_pu,
    )
    return BranchFlow(case.feeder, network, case.population.smo_bus)


def _phase_nodes(case: _Case) -> tuple[ThreePhaseNetwork, csc_matrix, csc_matrix, np.ndarray]:
    """Return the market's phase nodes, the shares of net loads and of generators, and the SMOs that have these.

    Raises InputError for houses or generators on phases without voltage to ground.
    """
    from voltier.grid.threephase_build import three_phase_network
    from voltier.market.primary.three_phase.shares import phase_share

    feeder, population = case.scenario.feeder, case.population
    # Every load bids, so the market's own network has none.
    network = three_phase_network(
        case.feeder,
        _start_taps(case.scenario, case.feeder),
        loads=False,
        v_min_pu=feeder.v_min_pu + feeder.primary_v_margin_pu,
        v_max_pu=feeder.v_max_pu - feeder.primary_v_margin_pu,
    )
    house_smo, gen_smo = population.sma_smo[population.house_sma], np.flatnonzero(case.has_generator)
    gen_bus = population.smo_bus[gen_smo]
    generator, phase = np.nonzero(case.feeder.has_phase[gen_bus])
    n_smo, n_gen = len(population.smo_bus), len(gen_smo)
    load_share = phase_share(network, population.house_bus, population.house_phase, house_smo, n_smo)
    return network, load_share, phase_share(network, gen_bus[generator], phase, generator, n_gen), gen_smo


def _current_injection(case: _Case) -> PrimaryFormulation:
    from voltier.market.primary.three_phase.formulation import CurrentInjection
    from voltier.market.primary.three_phase.problem import SocialWeights

    network, load_share, gen_share, gen_smo = _phase_nodes(case)
    weights = SocialWeights(**case.scenario.primary.weights.model_dump())
    return CurrentInjection(
        case.feeder, network, case.population.smo_bus, load_share, gen_share, gen_smo, weights
    )


def _cmo(scenario: Scenario, k: int) -> Operator:
    from voltier.agents.cmo import ConsumerOperator, ConsumerRules
    from voltier.agents.forecast import ForecastError
    from voltier.agents.iot import IotSpec

    case = _case(scenario)
    at_bus = {case.feeder.bus[bus]: i for i, bus in enumerate(case.population.smo_bus)}
    rules = ConsumerRules(
        flexible=scenario.design == "hierarchical",
        game=scenario.consumer.market,
        prices=scenario.consumer.prices,
        outside_price_usd_per_kwh=scenario.wholesale.retail_usd_per_kwh
        if scenario.consumer.outside_market == "retail_tariff"
        else 0.0,
        first_guess_usd_per_kwh=scenario.wholesale.retail_usd_per_kwh,
        window_s=scenario.consumer.flexibility_window_s,
        start_minute=scenario.start_second_of_day // 60,
        record_period_s=scenario.recording.consumer_period_s,
        forecast_error=ForecastError(**scenario.consumer.forecast_error.model_dump()),
    )
    iot = IotSpec(
        latency_s=scenario.iot.latency_ms / 1000.0,
        loss=scenario.iot.loss,
        compromised=tuple(at_bus[bus] for bus in scenario.iot.compromised_buses),
    )
    return ConsumerOperator(k, case.shard(k), case.profiles_kw, rules, iot, scenario.seed)


def _grid(scenario: Scenario, _: int) -> Operator:
    from voltier.agents.grid import GridOperator
    from voltier.grid.flow.engines import engine

    feeder = _case(scenario).feeder
    return GridOperator(
        feeder,
        engine(scenario.feeder.engine, feeder),
        _start_taps(scenario, feeder),
        controlled=scenario.feeder.regulators == "controlled",
        v_min_pu=scenario.feeder.v_min_pu,
        v_max_pu=scenario.feeder.v_max_pu,
        metered_by=("resilience",) if scenario.bulk is None else ("resilience", "bulk"),
    )


def _bulk(scenario: Scenario, _: int) -> Operator:
    from voltier.agents.bulk import BulkOperator

    assert scenario.bulk is not None and scenario.bulk_start_s is not None
    return BulkOperator(scenario.bulk.copies, scenario.bulk_start_s)


def _start_taps(scenario: Scenario, feeder: Feeder) -> np.ndarray:
    """Return the published positions, or all at zero; controlled regulators start from neutral and move at once."""
    return initial_taps(feeder) if scenario.feeder.regulators == "published" else neutral_taps(feeder)


_FORMULATIONS = {"branch_flow": _branch_flow, "current_injection": _current_injection}

_BUILDERS = {
    "wholesale": _wholesale,
    "resilience": _resilience,
    "smo": _smo,
    "pmo": _pmo,
    "cmo": _cmo,
    "grid": _grid,
    "bulk": _bulk,
}
