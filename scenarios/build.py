"""From a scenario to its operators: any process can build any operator, and gets the same one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from voltier.agents.attacker import Attacker, GeneratorAttack
from voltier.agents.operator import Operator
from voltier.agents.population import Population
from voltier.agents.smo import SmoRows
from voltier.grid.errors import FederationError, InputError, Problem
from voltier.grid.feeder import Feeder
from voltier.grid.flow.engines import engine
from voltier.grid.flow.port import PowerFlow
from voltier.scenarios.build_gridlabd import premises_of
from voltier.scenarios.build_hardware import outside_of
from voltier.scenarios.build_primary import area_names, areas_of, build_area, build_pmo, phase_nodes
from voltier.scenarios.built_case import BuiltCase, built_case, market_clock, start_taps
from voltier.scenarios.inputs import conditions
from voltier.scenarios.schema import Scenario
from voltier.scenarios.tables import TableLayout, layout


def operator_names(scenario: Scenario) -> list[str]:
    """Name every operator of a run: "wholesale", "resilience", "smo.0" ..., "pmo", "cmo.0" ..., "grid".

    With a federated primary market there are "area.0" ... too, with a transmission grid "bulk", with devices outside
    "device", which the shell builds.
    """
    shards = range(scenario.federation.shards)
    smos, cmos = [f"smo.{k}" for k in shards], [f"cmo.{k}" for k in shards]
    bulk = [] if scenario.bulk is None else ["bulk"]
    outside = ["device"] if scenario.hardware else []
    return ["wholesale", "resilience", *smos, *area_names(scenario), "pmo", *cmos, "grid", *bulk, *outside]


def build_operator(
    scenario: Scenario, name: str, *, make_engine: Callable[[str, Feeder], PowerFlow] = engine
) -> Operator:
    """Build one operator by its name. Raises FederationError for a name the scenario does not have.

    make_engine : makes the power flow of a name and a feeder; from above, it may know engines that run as processes
    """
    if name not in operator_names(scenario):
        raise FederationError(f"no operator {name!r} here; there are: {', '.join(operator_names(scenario))}")
    role, _, shard = name.partition(".")
    if role == "device":
        raise FederationError(
            "devices outside are reached by `voltier run` alone; leave the section hardware out"
        )
    if role == "grid":
        return _grid(scenario, make_engine)
    return _BUILDERS[role](scenario, int(shard or 0))


def population_of(scenario: Scenario) -> Population:
    """Return the houses, agents and operators that the scenario draws."""
    return built_case(scenario).population


def feeder_of(scenario: Scenario) -> Feeder:
    """Return the scenario's feeder."""
    return built_case(scenario).feeder


def table_layouts(scenario: Scenario) -> dict[str, TableLayout]:
    """Name the columns and fixed rows of every table of a run."""
    case = built_case(scenario)
    population, feeder = case.population, case.feeder
    smo_of_sma = tuple(population.smo_name[i] for i in population.sma_smo)
    sma_of_house = tuple(population.sma_name[j] for j in population.house_sma)
    bus, phase = np.nonzero(feeder.has_phase)
    generators = tuple(f"gen_{generator.bus}" for generator in scenario.generators)
    primary_parties = (*population.smo_name, *generators, "pmo", "bulk")
    secondary_parties = (*population.sma_name, *population.smo_name)
    nodes = {"bus": tuple(feeder.bus[i] for i in bus), "phase": tuple("abc"[k] for k in phase)}
    regulators = feeder.regulators
    regulated = {"regulator": regulators.name, "phase": tuple("abc"[k] for k in regulators.phase.tolist())}
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
        **({"taps": layout("taps", **regulated)} if regulators.name else {}),
        **({"dlmp": layout("dlmp", **nodes)} if by_phase else {}),
        **({"areas": layout("areas")} if scenario.primary.transport == "federated" else {}),
        **({} if scenario.bulk is None else {"bulk": layout("bulk", area=("1", "2"))}),
        **({"hardware": _hardware_layout(scenario)} if scenario.hardware else {}),
        **(
            {}
            if scenario.gridlabd is None
            else {"gridlabd": layout("gridlabd", object=premises_of(scenario, feeder).objects)}
        ),
        **({"realtime": layout("realtime")} if scenario.federation.realtime else {}),
    }


def _hardware_layout(scenario: Scenario) -> TableLayout:
    assert scenario.hardware is not None
    devices = scenario.hardware.devices
    house, kind = (tuple(getattr(device, name) for device in devices) for name in ("house", "kind"))
    return layout("hardware", house=house, device=kind)


def check_data(scenario: Scenario) -> None:
    """Read every data file, draw and place the population: what is wrong with them is told before a run begins.

    Raises InputError.
    """
    case = built_case(scenario)
    _ = case.shard_smos
    conditions(scenario)
    if scenario.bulk is not None:
        from voltier.grid.kundur import require_andes

        require_andes()
    if scenario.primary.formulation == "current_injection":
        phase_nodes(case)
    _check_cut_areas(scenario)


def _check_cut_areas(scenario: Scenario) -> None:
    names = area_names(scenario)
    problems = [
        Problem("scenario", f"primary.channel.cut_areas.{i}", k, f"there are areas 0 to {len(names) - 1}")
        for i, k in enumerate(scenario.primary.channel.cut_areas)
        if k >= len(names)
    ]
    if problems:
        raise InputError(problems)


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
        areas=area_names(scenario),
    )


def _resilience(scenario: Scenario, _: int) -> Operator:
    from voltier.agents.resilience import ResilienceOperator
    from voltier.market.resilience.detection import Detector

    case = built_case(scenario)
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
    return build_secondary(scenario, k)


def build_secondary(scenario: Scenario, k: int, places: np.ndarray | None = None) -> Operator:
    """Build the k-th shard of secondary operators: all of them, or those in some places of the shard."""
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
    rows = _smo_rows(built_case(scenario), k)
    if places is not None:
        rows = _some(rows, places)
    return SecondaryOperator(k, rows, rules, market_clock(scenario), _bid_takers(scenario, rows))


def _bid_takers(scenario: Scenario, rows: SmoRows) -> dict[str, np.ndarray] | None:
    """Return the areas that the SMOs of a shard bid to; None: the primary operator takes all bids."""
    if scenario.primary.transport == "local":
        return None
    area = areas_of(scenario).of_smo[rows.smo]
    return {f"area.{k}": np.flatnonzero(area == k) for k in np.unique(area)}


def _smo_rows(case: BuiltCase, k: int) -> SmoRows:
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


def _some(rows: SmoRows, places: np.ndarray) -> SmoRows:
    """Return the rows of some operators of a shard and of their agents, in their order."""
    counts = np.diff(rows.offset)
    sma = np.isin(np.repeat(np.arange(len(rows.smo)), counts), places)
    return SmoRows(
        smo=rows.smo[places],
        bus=rows.bus[places],
        name=tuple(rows.name[i] for i in places),
        sma=rows.sma[sma],
        n_sma_total=rows.n_sma_total,
        offset=np.concatenate([[0], np.cumsum(counts[places])]),
        phases=rows.phases[places],
        gen_max_kw=rows.gen_max_kw[places],
        alpha_usd_per_kw2h=rows.alpha_usd_per_kw2h[places],
    )


def _cmo(scenario: Scenario, k: int) -> Operator:
    from voltier.agents.cmo import ConsumerOperator, ConsumerRules
    from voltier.agents.forecast import ForecastError
    from voltier.agents.iot import IotSpec

    case = built_case(scenario)
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
    part = case.shard(k)
    outside = outside_of(part, scenario.hardware.devices) if scenario.hardware else None
    return ConsumerOperator(k, part, case.profiles_kw, rules, iot, scenario.seed, outside)


def _grid(scenario: Scenario, make_engine: Callable[[str, Feeder], PowerFlow]) -> Operator:
    from voltier.agents.grid import GridOperator

    feeder = built_case(scenario).feeder
    return GridOperator(
        feeder,
        make_engine(scenario.feeder.engine, feeder),
        start_taps(scenario, feeder),
        controlled=scenario.feeder.regulators == "controlled",
        v_min_pu=scenario.feeder.v_min_pu,
        v_max_pu=scenario.feeder.v_max_pu,
        areas=area_names(scenario),
        metered_by=("resilience",) if scenario.bulk is None else ("resilience", "bulk"),
        record_period_s=scenario.recording.consumer_period_s,
    )


def _bulk(scenario: Scenario, _: int) -> Operator:
    from voltier.agents.bulk import BulkOperator

    assert scenario.bulk is not None and scenario.bulk_start_s is not None
    return BulkOperator(scenario.bulk.copies, scenario.bulk_start_s)


_BUILDERS = {
    "wholesale": _wholesale,
    "resilience": _resilience,
    "smo": _smo,
    "area": build_area,
    "pmo": build_pmo,
    "cmo": _cmo,
    "bulk": _bulk,
}
