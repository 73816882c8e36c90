"""What a scenario says of the part that a program from outside plays in it."""

from __future__ import annotations

from typing import Any

import numpy as np

from voltier.federates.part import ExternalPart
from voltier.federates.wiring import role_of
from voltier.grid.errors import InputError, Problem
from voltier.scenarios.build import operator_names
from voltier.scenarios.built_case import BuiltCase, built_case, start_taps
from voltier.scenarios.schema import Scenario

PLAYABLE = ("wholesale", "resilience", "smo", "pmo", "cmo", "grid")


def check_playable(scenario: Scenario, name: str) -> None:
    """Raise InputError if nobody outside can play an operator of this scenario."""
    can = [other for other in operator_names(scenario) if role_of(other) in PLAYABLE]
    most = scenario.federation.shards
    if role_of(name) == "area":
        remedy = "areas confer in slots of an instant, which only our own do; leave it in"
    elif ":" in name:
        remedy = (
            f"operators are taken by shards: there are {', '.join(can)}; with --set federation.shards=N (now {most}, "
            "at most one a secondary operator) each smo.k and cmo.k serves fewer, down to a single one"
        )
    else:
        remedy = f"one of {', '.join(can)}; federation.shards says how many smo.k and cmo.k there are"
    if name not in can:
        raise InputError([Problem("command line", "--external", name, remedy)])
    if name == "pmo" and scenario.design == "no_market":
        remedy = "in the design no_market there is no primary market to play"
        raise InputError([Problem("command line", "--external", name, remedy)])


def external_part(scenario: Scenario, name: str) -> ExternalPart:
    """Return the facts and limits of an operator's part. Raises InputError if nobody outside can play it."""
    check_playable(scenario, name)
    role, _, shard = name.partition(".")
    case = built_case(scenario)
    facts: dict[str, Any] = {
        "seed": scenario.seed,
        "start": scenario.start.isoformat(),
        "design": scenario.design,
        "feeder": scenario.feeder.name,
        "bus": list(case.feeder.bus),
    }
    rows: dict[str, list[int]] = {}
    survives = role == "resilience"
    if role in ("smo", "cmo"):
        part = case.shard(int(shard))
        facts |= _agents(case, int(shard))
        smo, sma = part.smo_index.tolist(), part.sma_index.tolist()
        rows = {f"SmaSchedule>cmo.{shard}": sma} if role == "smo" else {f"SmaBids>smo.{shard}": sma}
        if role == "smo" and scenario.primary.transport == "local":
            rows["SmoBids>pmo"] = smo
        survives = role == "smo" and scenario.secondary.policy != "abort"
    if role == "pmo":
        rows = {f"PrimarySchedule>smo.{k}": smo.tolist() for k, smo in enumerate(case.shard_smos)}
        survives = scenario.primary.policy != "abort"
    if role == "grid":
        facts["node"] = np.argwhere(case.feeder.has_phase).tolist()
        facts["regulator"] = list(case.feeder.regulators.name)
        facts["tap"] = start_taps(scenario, case.feeder).tolist()
    return ExternalPart(facts=facts, rows=rows, n_bus=len(case.feeder.bus), survives=survives)


def _agents(case: BuiltCase, shard: int) -> dict[str, Any]:
    """Return the operators and agents of a shard, as tables in the order of their messages."""
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
    ]
    sma = [
        {
            "sma": int(part.sma_index[j]),
            "name": part.sma_name[j],
            "smo": int(part.smo_index[part.sma_smo[j]]),
        }
        for j in range(len(part.sma_index))
    ]
    return {"smo": smo, "sma": sma}
