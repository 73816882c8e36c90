"""What a scenario says of the part that a program from outside plays in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from voltier.agents.operator import Operator
from voltier.federates.carving import ALONE, Cut
from voltier.federates.part import ExternalPart
from voltier.federates.wiring import role_of
from voltier.grid.errors import InputError, Problem
from voltier.scenarios.build import build_secondary, operator_names
from voltier.scenarios.build_primary import areas_of
from voltier.scenarios.built_case import BuiltCase, built_case, start_taps
from voltier.scenarios.schema import Scenario

PLAYABLE = ("wholesale", "resilience", "smo", "pmo", "cmo", "grid")


def check_playable(scenario: Scenario, name: str, *, option: str = "--external") -> None:
    """Raise InputError if nobody outside can play an operator of this scenario; option : where it was named."""
    can = [other for other in operator_names(scenario) if role_of(other) in PLAYABLE]
    shards = f"one of {', '.join(can)}; federation.shards says how many smo.k and cmo.k there are"
    if name.startswith(ALONE):
        remedy = _why_not_alone(scenario, name.removeprefix(ALONE))
    elif role_of(name) == "area":
        remedy = "areas confer in slots of an instant, which only our own do; leave it in"
    elif name == "pmo" and scenario.design == "no_market":
        remedy = "in the design no_market there is no primary market to play"
    else:
        remedy = "" if name in can else f"{shards}; smo:BUS is a single secondary operator"
    if remedy:
        shown = name.replace(ALONE, "smo:", 1)
        raise InputError([Problem("command line", option, shown, remedy)])


def _why_not_alone(scenario: Scenario, bus: str) -> str:
    case = built_case(scenario)
    buses = [case.feeder.bus[at] for at in case.population.smo_bus]
    if bus not in buses:
        return f"there is no secondary operator at this bus; there are some at {', '.join(buses)}"
    if scenario.primary.transport != "local":
        return "with a federated primary market take a whole shard, smo.k"
    if len(case.shard(_place(case, bus)[0]).smo_bus) == 1:
        return f"it is alone in its shard: take smo.{_place(case, bus)[0]}"
    return ""


def _place(case: BuiltCase, bus: str) -> tuple[int, int]:
    """Return (shard, place in it) of the operator at a bus."""
    at = [case.feeder.bus[b] for b in case.population.smo_bus].index(bus)
    return next((k, int(np.searchsorted(smo, at))) for k, smo in enumerate(case.shard_smos) if at in smo)


def shard_of(scenario: Scenario, name: str) -> str:
    """Return the shard, "smo.k", that serves an operator named alone."""
    return f"smo.{_place(built_case(scenario), name.removeprefix(ALONE))[0]}"


def carve(scenario: Scenario, name: str, bus: str) -> tuple[Operator, Cut]:
    """Return a shard of secondary operators without the one at a bus, and what belongs to that one."""
    check_playable(scenario, f"{ALONE}{bus}")
    case = built_case(scenario)
    k, i = _place(case, bus)
    part = case.shard(k)
    cut = Cut(int(part.smo_index[i]), part.sma_index[part.sma_smo == i], i)
    return build_secondary(scenario, k, np.delete(np.arange(len(part.smo_bus)), i)), cut


def external_part(scenario: Scenario, name: str) -> ExternalPart:
    """Return the facts and limits of an operator's part. Raises InputError if nobody outside can play it."""
    check_playable(scenario, name)
    role, _, shard = name.partition(".")
    case, alone = built_case(scenario), None
    if name.startswith(ALONE):
        k, alone = _place(case, name.removeprefix(ALONE))
        shard = str(k)
    facts: dict[str, Any] = {
        "seed": scenario.seed,
        "start": scenario.start.isoformat(),
        "design": scenario.design,
        "feeder": scenario.feeder.name,
        "bus": list(case.feeder.bus),
    }
    rows: dict[str, list[int]] = {}
    n_smo, survives = None, role == "resilience"
    if role in ("smo", "cmo"):
        tables = _agents(case, int(shard), alone)
        takers = _takers(scenario, [row["smo"] for row in tables["smo"]])
        for row in tables["smo"]:
            row["bids_to"] = next(name for name, smo in takers.items() if row["smo"] in smo)
        facts |= tables
        sma = [row["sma"] for row in tables["sma"]]
        if role == "smo":
            rows = {f"SmaSchedule>cmo.{shard}": sma} | {f"SmoBids>{to}": smo for to, smo in takers.items()}
        else:
            rows = {f"{kind}>smo.{shard}": sma for kind in ("SmaBids", "SmaMeters")}
        n_smo, survives = len(tables["smo"]), role == "smo" and scenario.secondary.policy != "abort"
    if role == "pmo":
        rows = {f"PrimarySchedule>smo.{k}": smo.tolist() for k, smo in enumerate(case.shard_smos)}
        survives = scenario.primary.policy != "abort"
    if role == "grid":
        facts["node"] = np.argwhere(case.feeder.has_phase).tolist()
        facts["regulator"] = list(case.feeder.regulators.name)
        facts["tap"] = start_taps(scenario, case.feeder).tolist()
    return ExternalPart(facts=facts, rows=rows, n_bus=len(case.feeder.bus), n_smo=n_smo, survives=survives)


def _takers(scenario: Scenario, smo: list[int]) -> dict[str, list[int]]:
    """Return who takes whose bids: the primary operator all of them, or each area those of its own operators."""
    if scenario.primary.transport == "local":
        return {"pmo": smo}
    takers: dict[str, list[int]] = {}
    for at in smo:
        takers.setdefault(f"area.{areas_of(scenario).of_smo[at]}", []).append(at)
    return takers


def _agents(case: BuiltCase, shard: int, alone: int | None) -> dict[str, list[dict[str, Any]]]:
    """Return the operators and agents of a shard, or of one place in it, as tables in the order of their messages."""
    part, feeder = case.shard(shard), case.feeder
    at = {generator.bus: generator for generator in case.scenario.generators}
    smo = [
        {
            "smo": int(part.smo_index[i]),
            "name": part.smo_name[i],
            "bus": int(bus),
            "bus_name": feeder.bus[bus],
            "phases": np.flatnonzero(feeder.has_phase[bus]).tolist(),
            "gen_max_kw": at[feeder.bus[bus]].p_max_kw if feeder.bus[bus] in at else 0.0,
            "alpha_usd_per_kw2h": at[feeder.bus[bus]].price_usd_per_kwh / at[feeder.bus[bus]].p_max_kw
            if feeder.bus[bus] in at
            else 1.0,
        }
        for i, bus in enumerate(part.smo_bus.tolist())
        if alone in (None, i)
    ]
    sma = [
        {
            "sma": int(part.sma_index[j]),
            "name": part.sma_name[j],
            "smo": int(part.smo_index[part.sma_smo[j]]),
        }
        for j in range(len(part.sma_index))
        if alone is None or part.sma_smo[j] == alone
    ]
    return {"smo": smo, "sma": sma}
