"""The primary market of a scenario: the operator that clears or judges it, and its areas."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from voltier.agents.operator import Operator
from voltier.agents.randomness import stream
from voltier.scenarios.built_case import BuiltCase, built_case, market_clock, start_taps
from voltier.scenarios.schema import Scenario

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

    from voltier.agents.primary_rules import PrimaryRules
    from voltier.grid.network import BalancedNetwork
    from voltier.grid.threephase import ThreePhaseNetwork
    from voltier.market.primary.distributed.area_market import Areas
    from voltier.market.primary.distributed.dispatch import Plan
    from voltier.market.primary.formulation import PrimaryFormulation


def build_pmo(scenario: Scenario, _: int) -> Operator:
    """Build the primary operator."""
    from voltier.agents.pmo import PrimaryOperator
    from voltier.agents.pmo_areas import JudgingOperator

    case = built_case(scenario)
    population = case.population
    kind = PrimaryOperator if scenario.primary.transport == "local" else JudgingOperator
    return kind(
        _FORMULATIONS[scenario.primary.formulation](case),
        case.shard_smos,
        case.has_generator,
        len(population.sma_smo) + len(population.smo_bus),
        _primary_rules(scenario),
        market_clock(scenario),
    )


def build_area(scenario: Scenario, k: int) -> Operator:
    """Build the k-th area of a federated primary market."""
    from voltier.agents.area import AreaOperator
    from voltier.market.primary.distributed.area_market import AreaMarket
    from voltier.market.primary.distributed.options import Options, StoppingRule

    # Areas judge in passing, so they look often; what masks their momentum is drawn from a seed of their own.
    seed = int(stream(scenario.seed, "area", k).integers(2**62))
    options = Options(seed=seed, stop=StoppingRule(look_every=10))
    case, areas = built_case(scenario), areas_of(scenario)
    smo_bus = case.population.smo_bus
    market = AreaMarket(case.feeder, _balanced(case), smo_bus, areas, k, scenario.primary.solver, options)
    return AreaOperator(market, area_names(scenario), _primary_rules(scenario), market_clock(scenario))


def area_names(scenario: Scenario) -> list[str]:
    """Name the areas that clear the primary market; none unless it is federated."""
    if scenario.primary.transport == "local":
        return []
    return [f"area.{k}" for k in range(areas_of(scenario).n_area)]


@lru_cache(maxsize=2)
def areas_of(scenario: Scenario) -> Areas:
    """Return the division of the feeder into areas."""
    from voltier.market.primary.distributed.area_market import divide

    case = built_case(scenario)
    return divide(_balanced(case), case.population.smo_bus, scenario.primary.areas)


def _primary_rules(scenario: Scenario) -> PrimaryRules:
    from voltier.agents.primary_rules import PrimaryRules

    return PrimaryRules(
        design=scenario.design,
        loss_usd_per_kwh=scenario.primary.loss_usd_per_kwh,
        import_slope_usd_per_kw2h=scenario.wholesale.import_slope_usd_per_kwh_per_mw / 1000.0,
        relaxation_bound=scenario.primary.relaxation_bound,
        policy=scenario.primary.policy,
        settlement_period_s=scenario.recording.settlement_period_s,
        stop_share=scenario.resilience.stop_share,
    )


def _branch_flow(case: BuiltCase) -> PrimaryFormulation:
    from voltier.market.primary.exact import ExactDispatch
    from voltier.market.primary.formulation import BranchFlow

    plan = _plan(case.scenario)
    dispatcher = ExactDispatch if plan is None else plan.branch_flow
    return BranchFlow(case.feeder, _balanced(case), case.population.smo_bus, dispatcher=dispatcher)


def _balanced(case: BuiltCase) -> BalancedNetwork:
    from voltier.grid.network import balanced_network

    feeder = case.scenario.feeder
    return balanced_network(
        case.feeder,
        start_taps(case.scenario, case.feeder),
        lateral_impedance=feeder.lateral_impedance,
        v_min_pu=feeder.v_min_pu + feeder.primary_v_margin_pu,
        v_max_pu=feeder.v_max_pu - feeder.primary_v_margin_pu,
    )


def _plan(scenario: Scenario) -> Plan | None:
    """Return how atoms clear the market; None: one program does."""
    from voltier.market.primary.distributed.atoms import per_area, per_lateral, per_node
    from voltier.market.primary.distributed.dispatch import Plan
    from voltier.market.primary.distributed.options import Options

    primary = scenario.primary
    if primary.solver == "central":
        return None
    profiles = {"node": per_node, "lateral": per_lateral, "area": partial(per_area, n_area=primary.areas)}
    return Plan(primary.solver, Options(seed=scenario.seed), profiles[primary.atoms])


def phase_nodes(case: BuiltCase) -> tuple[ThreePhaseNetwork, csc_matrix, csc_matrix, np.ndarray]:
    """Return the market's phase nodes, the shares of net loads and of generators, and the SMOs that have these.

    Raises InputError for houses or generators on phases without voltage to ground.
    """
    from voltier.grid.threephase_build import three_phase_network
    from voltier.market.primary.three_phase.shares import phase_share

    feeder, population = case.scenario.feeder, case.population
    # Every load bids, so the market's own network has none.
    network = three_phase_network(
        case.feeder,
        start_taps(case.scenario, case.feeder),
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


def _current_injection(case: BuiltCase) -> PrimaryFormulation:
    from voltier.market.primary.three_phase.exact import ExactDispatch
    from voltier.market.primary.three_phase.formulation import CurrentInjection
    from voltier.market.primary.three_phase.problem import SocialWeights

    plan = _plan(case.scenario)
    dispatcher = ExactDispatch if plan is None else plan.current_injection
    network, load_share, gen_share, gen_smo = phase_nodes(case)
    weights = SocialWeights(**case.scenario.primary.weights.model_dump())
    return CurrentInjection(
        case.feeder, network, case.population.smo_bus, load_share, gen_share, gen_smo, weights,
        dispatcher=dispatcher,
    )  # fmt: skip


_FORMULATIONS = {"branch_flow": _branch_flow, "current_injection": _current_injection}
