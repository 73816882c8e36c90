"""What an attack on one feeder means to the transmission grid when hundreds of feeders are hit alike.

Published: V. J. Nair, PhD thesis, MIT 2025: 550 copies of the feeder in area 2 of Kundur's two-area system are 359 MW
short. Its plots cannot be read; 359 MW on four machines of 900 MVA with 5 % droop leave 0.30 Hz missing, and the
published import after the market's answer, 1328 kW for 1325 kW before, next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from voltier.agents.bulk import FeederCopies
from voltier.agents.clock import MINUTE_S
from voltier.grid.bulk import BulkGrid, BulkSeconds, by_second, join, join_seconds
from voltier.grid.errors import InputError, Problem
from voltier.grid.kundur import require_andes
from voltier.scenarios.manifest import RunDirectory, write_json
from voltier.scenarios.metrics_attack import BEFORE_S
from voltier.scenarios.metrics_bulk import frequency_kpis
from voltier.scenarios.panels import read_block
from voltier.scenarios.studies.attack import cases
from voltier.scenarios.studies.cases import CaseKpis, Run, new_directory, run_cases
from voltier.scenarios.studies.transmission_page import Shown, write_page

CASES = ("unmitigated", "mitigated")
COPIES = 550
AFTER_S = 900
"""Time played after the attack, in which the generators come back [s]."""
SHORTFALL_MW = 359.0
ANSWER_MW = SHORTFALL_MW * (1821.0 - 1328.0) / (1821.0 - 1325.0)
"""The published shortfall, and the part of it that the published imports take back."""
IDEAL_BEFORE_MW = COPIES * 1.325
_STEP_S, _STEP_RAMP_S, _ANSWER_S, _IDEAL_END_S = 1.0, 0.1, 60.0, 181.0

Progress = Callable[[str, float], None]
"""Called with a case and the share of it that is done."""


def study_transmission(
    run: Run,
    out: Path,
    *,
    base: str = "ieee123-attack-2b",
    overrides: Sequence[str] = (),
    runs: Path | None = None,
    copies: int = COPIES,
    progress: Progress = lambda case, share: None,
) -> CaseKpis:
    """Play an attack with and without the market's answer into the transmission grid; write kpis.json and index.html.

    runs : directory of an attack study whose runs are taken as they are; none: base is run both ways into out first.
    Raises InputError for a directory that is no such study, a scenario without an attack, or more copies than area 2
    has load for; FederationError where the grid collapses.
    """
    require_andes()
    if runs is None:
        scenarios = cases(base, overrides)
        if any(scenario.attack is None for scenario in scenarios.values()):
            remedy = "give the scenario an attack, or take ieee123-attack-2b"
            raise InputError([Problem(base, "attack", "nothing", remedy)])
        run_cases(scenarios, run, out)
    else:
        _require_study(runs)
        new_directory(out)
    source = out if runs is None else runs
    shown = {
        case: _played(source / case, copies, lambda done, case=case: progress(case, done)) for case in CASES
    }
    return _conclude(
        out, shown, f"{copies:,} feeders, each as in {source.name}", mean_s=MINUTE_S, ticks="%H:%M"
    )


def study_ideal(out: Path, *, progress: Progress = lambda case, share: None) -> CaseKpis:
    """Play the published figures themselves: 359 MW within a tenth of a second, an answer that takes a minute."""
    require_andes()
    new_directory(out)
    shown: dict[str, Shown] = {}
    for i, case in enumerate(CASES):
        progress(case, 0.0)
        shown[case] = Shown(ideal(i * ANSWER_MW), _STEP_S, _IDEAL_END_S, 0)
        progress(case, 1.0)
    return _conclude(out, shown, "the published steps of power", mean_s=1, ticks="%M:%S")


def ideal(answer_mw: float) -> BulkSeconds:
    """Return three minutes with the published shortfall after one second and answer_mw taken back over a minute."""
    grid = BulkGrid(IDEAL_BEFORE_MW)
    struck_mw, answered_s = IDEAL_BEFORE_MW + SHORTFALL_MW, _STEP_S + _ANSWER_S
    traces = [
        grid.step(_STEP_S, IDEAL_BEFORE_MW),
        # The answer starts with the step, of which a tenth of a second takes its share.
        grid.step(_STEP_S + _STEP_RAMP_S, struck_mw - answer_mw * _STEP_RAMP_S / _ANSWER_S, _STEP_RAMP_S),
        grid.step(answered_s, struck_mw - answer_mw, _ANSWER_S - _STEP_RAMP_S),
        grid.step(_IDEAL_END_S, struck_mw - answer_mw),
    ]
    return by_second(join(traces), grid.machines.area)


def play(
    t_s: np.ndarray, import_kw: np.ndarray, copies: int, progress: Callable[[float], None] = lambda done: None
) -> BulkSeconds:
    """Play the minutes of a feeder's import into the grid. t_s, import_kw : (n,) minutes in order, and their means."""
    feeders = FeederCopies(copies)
    parts = []
    for i, (at_s, p_kw) in enumerate(zip(t_s, import_kw, strict=True)):
        parts.append(feeders.minute(int(at_s), float(p_kw)))
        progress((i + 1) / len(t_s))
    return join_seconds(parts)


def _played(run_dir: Path, copies: int, progress: Callable[[float], None]) -> Shown:
    """Play a run from the quarter of an hour before its attack to the one after it."""
    scenario, substation = RunDirectory(run_dir).scenario(), read_block(run_dir, "substation")
    if scenario.attack_window_s is None or substation is None:
        remedy = "give a directory of `voltier study attack`, whose runs are complete"
        raise InputError([Problem(str(run_dir), "attack and substation", "not there", remedy)])
    start_s, stop_s = scenario.attack_window_s
    end_s = min(stop_s or scenario.end_s, scenario.end_s)
    here = (substation.t_s >= start_s - BEFORE_S) & (substation.t_s < end_s + AFTER_S)
    seconds = play(substation.t_s[here], -substation.sum("p_kw")[here], copies, progress)
    return Shown(seconds, start_s, end_s, scenario.start_second_of_day)


def _require_study(runs: Path) -> None:
    missing = [case for case in CASES if not (runs / case / "manifest.json").is_file()]
    if missing:
        remedy = (
            f"it has no run {' and no run '.join(missing)}; `voltier study attack` makes such a directory"
        )
        raise InputError([Problem("command line", "--run", str(runs), remedy)])


def _conclude(out: Path, shown: dict[str, Shown], what: str, *, mean_s: int, ticks: str) -> CaseKpis:
    """Write key figures, seconds and page."""
    kpis: CaseKpis = {
        case: dict(frequency_kpis(one.seconds, one.start_s, one.end_s, mean_s=mean_s))
        for case, one in shown.items()
    }
    write_json(out / "kpis.json", kpis)
    (out / "tables").mkdir(exist_ok=True)
    for case, one in shown.items():
        pq.write_table(_table(one.seconds), out / "tables" / f"bulk_{case}.parquet")
    write_page(out, shown, kpis, what, ticks)
    return kpis


def _table(seconds: BulkSeconds) -> pa.Table:
    """The columns of a run's table bulk."""
    n = len(seconds.t_s)
    names = [field.name for field in fields(BulkSeconds) if field.name != "t_s"]
    values = {name: getattr(seconds, name).ravel() for name in names}
    return pa.table({"t_s": np.repeat(seconds.t_s, 2), "area": ["1", "2"] * n, **values})
