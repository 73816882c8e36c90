"""Crosscheck a finished run: other engines solve its dispatch, and what differs is written beside it."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

import numpy as np

from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import Feeder, read_feeder
from voltier.grid.flow.engines import SEQUENCE_ENGINES, engine, three_phase_engines
from voltier.grid.flow.port import PowerFlow
from voltier.scenarios.crosscheck import Kpis, difference, figures, limits_of, read_dispatch, replay
from voltier.scenarios.manifest import RunDirectory, read_json, write_json
from voltier.scenarios.report.crosscheck import Checked, Crosscheck, write_page
from voltier.scenarios.schema import Scenario, load_scenario

Progress = Callable[[str, int], Callable[[], None]]
"""Begins a bar of so many steps under a name; what it returns is called after each step."""
COLUMNS = (
    "engine", "t_s", "v_max_difference_pu", "worst_node", "v_median_difference_pu", "loss_run_kw", "loss_kw",
    "import_run_kw", "import_kw",
)  # fmt: skip
KEPT = (
    "voltage.max_difference_pu",
    "losses.difference_percent",
    "import.difference_percent",
    "within_limits",
)
"""What the run's own kpis.json takes over of each engine."""


NO_ENGINES: Mapping[str, Callable[[Feeder], PowerFlow]] = MappingProxyType({})
SLOW_STRIDE = 15


def no_progress(name: str, steps: int) -> Callable[[], None]:
    """Show nothing."""
    return lambda: None


def crosscheck(
    run_dir: Path,
    out: Path,
    *,
    engines: Sequence[str] | None = None,
    every_min: int | None = None,
    outside: Mapping[str, Callable[[Feeder], PowerFlow]] = NO_ENGINES,
    scenario: str | None = None,
    progress: Progress = no_progress,
) -> Mapping[str, Kpis]:
    """Replay a run and write out/crosscheck.html, .csv and .json; return the figures by engine.

    engines : names of three_phase_engines() and of outside, by default all ; scenario : of a run without its own
    every_min : replay only every so many minutes ; None: each, but every 15th in pandapower, which takes half a second
    outside : engines that only rooms above can build
    The run's kpis.json, if it has one, gets the main figures as crosscheck.ENGINE.*. Raises InputError, before
    anything is solved, for engines that are unknown, not installed or cannot represent the feeder, and for tables
    that do not fit; afterwards for an engine that refused every minute.
    """
    if every_min is not None and every_min < 1:
        raise InputError([Problem("command line", "--every", every_min, "give whole minutes, 1 or more")])
    case = _scenario(run_dir, scenario)
    feeder = read_feeder(case.feeder.name)
    ready = build_engines(engines, feeder, outside)
    dispatch = read_dispatch(run_dir, feeder, every_min or 1)
    checked: dict[str, Checked] = {}
    for name, tool in ready.items():
        stride = SLOW_STRIDE if every_min is None and name in SEQUENCE_ENGINES else 1
        steps = -(-len(dispatch.t_s) // stride)
        other = replay(dispatch, tool, progress(name, steps), stride)
        if sum(other.refused.values()) == steps:
            remedy = f"it cannot represent this run; leave it out with --engines: {next(iter(other.refused))}"
            raise InputError([Problem("crosscheck", "engine", name, remedy)])
        change, limits = difference(dispatch, other), limits_of(name, case.crosscheck)
        checked[name] = Checked(
            other, change, figures(dispatch, other, change, feeder, stride * (every_min or 1), limits)
        )
    found = Crosscheck(
        run=case.name, engine=case.feeder.engine, start_s=case.start_second_of_day, every_min=every_min or 1,
        feeder=feeder, dispatch=dispatch, limits=case.crosscheck, checked=checked,
    )  # fmt: skip
    _write(found, run_dir, out)
    return {name: part.kpis for name, part in checked.items()}


def build_engines(
    names: Sequence[str] | None,
    feeder: Feeder,
    outside: Mapping[str, Callable[[Feeder], PowerFlow]] = NO_ENGINES,
) -> dict[str, PowerFlow]:
    """Build the named engines, or all that solve each phase.

    Raises InputError that tells of every one that cannot be had.
    """
    known = (*three_phase_engines(), *outside)
    ready: dict[str, PowerFlow] = {}
    problems: list[Problem] = []
    for name in dict.fromkeys(known if names is None else names):
        if name not in known:
            problems.append(Problem("crosscheck", "--engines", name, f"choose from {', '.join(known)}"))
            continue
        try:
            ready[name] = outside[name](feeder) if name in outside else engine(name, feeder)
        except InputError as error:
            others = ",".join(other for other in known if other != name)
            for problem in error.problems:
                remedy = f"{problem.remedy}, or leave the engine out: --engines {others}"
                problems.append(Problem(problem.where, problem.field, problem.value, remedy))
    if not ready and not problems:
        problems.append(Problem("crosscheck", "--engines", "", f"choose from {', '.join(known)}"))
    if problems:
        raise InputError(problems)
    return ready


def _scenario(run_dir: Path, given: str | None) -> Scenario:
    if given is not None:
        return load_scenario(given)
    run = RunDirectory(Path(run_dir))
    if not run.config.is_file():
        remedy = "the directory does not say on which feeder the run was; name a scenario with --scenario"
        raise InputError([Problem(str(run_dir), "config.resolved.yaml", "not there", remedy)])
    if (run.path / "manifest.json").is_file() and run.manifest().get("status") == "running":
        remedy = "the run is still going on, or broke off: wait, or `voltier report` it first"
        raise InputError([Problem(str(run_dir), "status", "running", remedy)])
    return run.scenario()


def _write(found: Crosscheck, run_dir: Path, out: Path) -> None:
    limits = {f"limits.{name}": value for name, value in found.limits.model_dump().items()}
    cases = {name: _finite({**part.kpis, **limits}) for name, part in found.checked.items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "crosscheck.json", cases)
        with (out / "crosscheck.csv").open("w", newline="", encoding="utf-8") as file:
            _write_rows(found, file)
        write_page(found, out / "crosscheck.html")
        own = Path(run_dir) / "kpis.json"
        if own.is_file():
            kept = {
                f"crosscheck.{name}.{key}": kpis[key]
                for name, kpis in cases.items()
                for key in KEPT
                if key in kpis
            }
            write_json(own, read_json(own) | kept)
    except OSError as error:
        remedy = f"cannot be written ({error.strerror}); choose another directory"
        raise InputError([Problem("crosscheck", "--out", str(out), remedy)]) from error


def _finite(kpis: Mapping[str, object]) -> dict[str, object]:
    """JSON has no infinity and no NaN."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in kpis.items()
    }


def _write_rows(found: Crosscheck, file: TextIO) -> None:
    """Write a row for each engine and minute."""
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    dispatch, feeder = found.dispatch, found.feeder
    for name, part in found.checked.items():
        size = np.abs(part.change.v_pu).reshape(len(dispatch.t_s), -1)
        worst = np.argmax(np.nan_to_num(size, nan=-1.0), axis=1)
        for k, t_s in enumerate(dispatch.t_s.tolist()):
            solved = bool(np.isfinite(part.replay.loss_kw[k]))
            bus, phase = divmod(int(worst[k]), 3)
            node = f"{feeder.bus[bus]}.{'abc'[phase]}" if solved else ""
            numbers = (
                part.change.v_median_pu[k], dispatch.loss_kw[k], part.replay.loss_kw[k],
                dispatch.import_kw[k], part.replay.import_kw[k],
            )  # fmt: skip
            texts = [f"{value:.9g}" if np.isfinite(value) else "" for value in numbers]
            largest = f"{part.change.v_max_pu[k]:.9g}" if solved else ""
            writer.writerow([name, t_s, largest, node, *texts])
