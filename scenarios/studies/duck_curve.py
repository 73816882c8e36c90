"""The duck curve on IEEE 34: no control, agents that lower their own peaks, and network-aware control of the ramps.

After R. Haider, G. Ferro, M. Robba and A. M. Annaswamy, "Flattening the duck curve: a case for distributed decision
making", IEEE PES General Meeting 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, Problem
from voltier.market.primary.distributed.options import Options
from voltier.market.primary.distributed.ramp import total_ramp
from voltier.scenarios.manifest import write_json
from voltier.scenarios.studies.cases import CaseKpis, new_directory
from voltier.scenarios.studies.duck_curve_balance import Then, local_agents, schedule
from voltier.scenarios.studies.duck_curve_case import (
    CAPACITY_KWH,
    HOURS,
    RATING_KW,
    DuckCase,
    Reading,
    Start,
    batteries,
    build_case,
)
from voltier.scenarios.studies.duck_curve_flow import DayFlow, day_flow
from voltier.scenarios.studies.duck_curve_network import (
    ByAtoms,
    Dispatch,
    Plan,
    as_published,
    plan_day,
    until_agreed,
)
from voltier.scenarios.studies.duck_curve_page import write_page
from voltier.scenarios.studies.duck_curve_results import Result, case_kpis, write_series

Array = NDArray[np.float64]

STARTS: tuple[Start, ...] = get_args(Start)
MAX_ROUNDS = 3000
SENSITIVITY_DAYS = ("06-15", "09-15", "12-15")
"""Working days of the other seasons, beside the day itself."""


def study_duck_curve(
    out: Path,
    *,
    day: str = "03-31",
    seed: int = 1,
    starts: Sequence[str] = ("mid", "min", "full"),
    max_rounds: int = MAX_ROUNDS,
    sensitivity: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> CaseKpis:
    """Run the scenarios; write out/kpis.json, one flat object a case, out/duck_curve.csv and out/index.html.

    day : MM-DD of the typical year ; starts : of "min", "mid", "full", the first gives cases a, b and c, each other
    one its own ; max_rounds : of each stage of NST-PAC ; tell : takes a line for each case that begins.
    Raises InputError if out holds something already or an option is wrong, NotConvergedError where voltages cannot be
    kept within 0.95 to 1.05 p.u.
    """
    chosen = _check(starts, max_rounds)
    reading = Reading(month_day=day, seed=seed)
    case = build_case(reading)
    new_directory(out)
    results: dict[str, Result] = {"a": without_control(case)}
    for i, start in enumerate(chosen):
        tail = "" if i == 0 else f"_{start}"
        tell(f"agents for themselves, batteries {start}")
        results[f"b{tail}"] = for_themselves(case, start, "least_use")
        tell(f"network-aware control, batteries {start}")
        results |= {f"{name}{tail}": one for name, one in network_aware(
            case, start, results["a"].flow, until_agreed(max_rounds), published=i == 0
        ).items()}  # fmt: skip
    results["b_least_energy"] = for_themselves(case, chosen[0], "least_energy")
    kpis = {name: case_kpis(results["a"], one) for name, one in results.items()}
    if sensitivity:
        tell("other readings")
        kpis |= {f"reading_{name}": figures for name, figures in other_readings(reading, chosen[0]).items()}
    write_json(out / "kpis.json", kpis)
    write_series(out / "duck_curve.csv", results)
    write_page(out, case, results, kpis, reading, chosen)
    return kpis


def without_control(case: DuckCase) -> Result:
    """Return scenario A: inverters at unity power factor, no batteries, no load shed."""
    idle = np.zeros((HOURS, len(case.battery_bus)))
    flow = day_flow(case, case.pv_kw - case.load_kw, -case.load_kvar, idle)
    return Result(case.net_kw, idle, None, flow, {})


def for_themselves(case: DuckCase, start: Start, then: Then) -> Result:
    """Return scenario B: every agent lowers its own peak, inverters at unity power factor."""
    devices, began = batteries(start), process_time()
    found = local_agents(case, devices, then)
    seconds = process_time() - began
    battery = found.discharge_kw - found.charge_kw
    p = case.pv_kw - case.load_kw + found.shed_kw
    flow = day_flow(case, p, -case.load_kvar, battery)
    figures = _performance(seconds, len(case.agent)) | {"shed.energy_kwh": float(found.shed_kw.sum())}
    energy = np.vstack([devices.energy_start_kwh, found.energy_kwh])
    return Result(-(p.sum(axis=1) + battery.sum(axis=1)), battery, energy, flow, figures)


def network_aware(
    case: DuckCase, start: Start, before: DayFlow, stages: Sequence[Options], *, published: bool
) -> dict[str, Result]:
    """Return scenario C by our stopping rule, "c", and after the paper's 1,000 iterations, "c_1000"."""
    plan = plan_day(case, batteries(start), before.tap)
    ways = {"c": stages} | ({"c_1000": as_published()} if published else {})
    return {name: _controlled(case, start, plan, plan.control.by_atoms(way)) for name, way in ways.items()}


def _controlled(case: DuckCase, start: Start, plan: Plan, atoms: ByAtoms) -> Result:
    solution = atoms.last.solution
    found = plan.control.dispatch(atoms.last.point, solution.x, solution.duals)
    battery = found.discharge_kw - found.charge_kw
    flow = day_flow(case, found.p_kw, found.q_kvar, battery, plan.tap)
    figures = _performance(atoms.seconds, atoms.atoms) | _agreement(plan, atoms, found)
    figures |= {
        "shed.energy_kwh": float((found.p_kw - (case.pv_kw - case.load_kw)).sum()),
        "flow.import_difference_kw": float(np.abs(flow.head_kw - found.head_kw).max()),
    }
    energy = np.vstack([batteries(start).energy_start_kwh, found.energy_kwh])
    return Result(-(found.p_kw.sum(axis=1) + battery.sum(axis=1)), battery, energy, flow, figures)


def _agreement(plan: Plan, atoms: ByAtoms, found: Dispatch) -> dict[str, Any]:
    """Return how far the atoms are from the optimum of one that sees everything."""
    best, cost = plan.dispatch, plan.optimum.solution.cost
    certificate = atoms.last.solution.certificate
    battery = (found.discharge_kw - found.charge_kw) - (best.discharge_kw - best.charge_kw)
    return {
        "distributed.cost_gap_percent": 100.0 * (certificate.cost / cost - 1.0),
        "distributed.setpoint_difference_kw": float(np.abs(found.p_kw - best.p_kw).max()),
        "distributed.reactive_difference_kvar": float(np.abs(found.q_kvar - best.q_kvar).max()),
        "distributed.battery_difference_kw": float(np.abs(battery).max()),
        "distributed.import_difference_kw": float(np.abs(found.head_kw - best.head_kw).max()),
        "distributed.dlmp_difference_percent": float(
            100.0 * np.abs(found.price - best.price).max() / np.abs(best.price).max()
        ),
        "distributed.consensus_pu": certificate.consensus_pu,
        "distributed.equations_pu": certificate.primal_pu,
        "distributed.iterations": atoms.rounds,
        "distributed.tangent_points": atoms.points,
        "distributed.converged": atoms.last.converged,
        "central.head_total_kw": total_ramp(best.head_kw, cyclic=True),
        "central.solve_s": plan.seconds,
    }


def _performance(seconds: float, agents: int) -> dict[str, Any]:
    return {
        "performance.run_time_s": seconds,
        "performance.agents": agents,
        "performance.run_time_per_agent_s": seconds / agents,
    }


def other_readings(reading: Reading, start: Start) -> dict[str, dict[str, Any]]:
    """Return A, B and the least ramping without a network for other days and other readings of the source."""
    day = {"as_read": reading} | {
        f"day_{name.replace('-', '')}": replace(reading, month_day=name) for name in SENSITIVITY_DAYS
    }
    readings = day | {
        "by_size": replace(reading, split="by_size"),
        "shed_all_flexible": replace(reading, shed="all_share"),
        "shed_nothing": replace(reading, shed="none"),
        "other_seed": replace(reading, seed=reading.seed + 1),
    }
    found = {name: _bound(build_case(one), start) for name, one in readings.items()}
    case = build_case(reading)
    found["open_day"] = _bound(case, start, cyclic=False)
    found["no_batteries"] = _bound(case, start, rating_kw=np.zeros(3))
    found["printed_units"] = _bound(case, start, rating_kw=CAPACITY_KWH, capacity_kwh=RATING_KW)
    return found


def _bound(case: DuckCase, start: Start, *, cyclic: bool = True, **sizes: Array) -> dict[str, Any]:
    """Return ramping without control, of agents for themselves, and the least a network without limits allows."""
    if not np.all(sizes.get("rating_kw", RATING_KW)):
        # Nothing can be stored on demand, so a state that must be reached is that of the start.
        start = "mid"
    devices = batteries(start, **sizes)
    local = local_agents(case, devices, "least_use")
    best = schedule(case.net_kw, case.shed_max_kw, devices, "ramp", "least_use", cyclic=cyclic)
    base = total_ramp(case.net_kw, cyclic=cyclic)
    kpis: dict[str, Any] = {"ramping.a_total_kw": base}
    for name, one in (("b", local), ("least", best)):
        net = case.net_kw - one.shed_kw.sum(axis=1) + (one.charge_kw - one.discharge_kw).sum(axis=1)
        total = total_ramp(net, cyclic=cyclic)
        kpis[f"ramping.{name}_total_kw"] = total
        kpis[f"ramping.{name}_reduction_percent"] = 100.0 * (1.0 - total / base)
    return kpis


def _check(starts: Sequence[str], max_rounds: int) -> tuple[Start, ...]:
    known = tuple(s for name in dict.fromkeys(starts) for s in STARTS if s == name)
    problems = [
        Problem("study duck-curve", "--start", name, f"take {', '.join(STARTS)}")
        for name in starts
        if name not in STARTS
    ]
    if not starts:
        problems.append(
            Problem("study duck-curve", "--start", "none", f"take at least one of {', '.join(STARTS)}")
        )
    if max_rounds < 25:
        problems.append(Problem("study duck-curve", "--max-rounds", max_rounds, "give 25 rounds at least"))
    if problems:
        raise InputError(problems)
    return known
