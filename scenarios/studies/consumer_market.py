"""One consumer market over a day, and what its rule is worth: three agents, California's weather and prices.

The game of Nair et al. (arXiv 2406.06844) is played every period on flexibility that houses really have, checked by
brute force, and set beside prices for each agent and two rules that pay flexibility from outside the agents' budget,
on the markets of the day and on random ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from voltier.grid.errors import InputError, Problem
from voltier.scenarios.manifest import write_json
from voltier.scenarios.schema import Scenario, load_scenario
from voltier.scenarios.studies.consumer_findings import examine, key_figures
from voltier.scenarios.studies.consumer_page import write_page
from voltier.scenarios.studies.consumer_tables import write_tables

STEPS_MIN = (5, 6, 10, 12, 15, 20, 30, 60)
MOST_INSTANCES = 5000
_OWN = "inputs."


def study_consumer_market(
    out: Path,
    *,
    base: str = "ieee123-day",
    day: str | None = None,
    step_minutes: int = 15,
    seed: int = 1,
    instances: int = 200,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Run the study; write out/kpis.json, out/tables and out/index.html, and return the key figures.

    base : scenario whose inputs and day are used ; day : another day, YYYY-MM-DD ; step_minutes : period of the market
    instances : random markets of three agents ; overrides : of inputs only.
    Raises InputError if out holds something already or an argument is wrong.
    """
    scenario = _scenario(base, day, step_minutes, seed, instances, overrides)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        remedy = "it is not empty; choose another directory or remove it"
        raise InputError([Problem("study", "--out", str(out), remedy)])
    found = examine(scenario, step_minutes, instances)
    kpis = key_figures(found)
    write_tables(out / "tables", found)
    write_page(out / "index.html", found, kpis, scenario, step_minutes)
    write_json(out / "kpis.json", kpis)
    return kpis


def _scenario(
    base: str, day: str | None, step_minutes: int, seed: int, instances: int, overrides: Sequence[str]
) -> Scenario:
    problems = []
    if step_minutes not in STEPS_MIN:
        remedy = f"take one of {', '.join(map(str, STEPS_MIN))}: it must divide an hour"
        problems.append(Problem("study", "--step-minutes", step_minutes, remedy))
    if not 1 <= instances <= MOST_INSTANCES:
        problems.append(Problem("study", "--instances", instances, f"give 1 to {MOST_INSTANCES}"))
    if seed < 0:
        problems.append(Problem("study", "--seed", seed, "give a whole number from 0 on"))
    settings = [*overrides, "hours=24", f"seed={seed}"]
    for override in overrides:
        key, _, value = override.partition("=")
        if not key.startswith(_OWN):
            remedy = "the study reads nothing but inputs.* of a scenario; leave it out"
            problems.append(Problem(f"--set {override}", key, value, remedy))
    if day is not None:
        try:
            settings.append(f"start={date.fromisoformat(day).isoformat()}")
        except ValueError:
            problems.append(Problem("study", "--day", day, "give a day of the price data as YYYY-MM-DD"))
    if problems:
        raise InputError(problems)
    scenario = load_scenario(base, settings)
    if scenario.start_second_of_day != 0:
        raise InputError(
            [Problem(base, "start", str(scenario.start), "give --day: the study is of a whole day")]
        )
    return scenario
