"""A run's dispatch, minute by minute, through other power-flow engines, and how far they are from the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, NotConvergedError, Problem
from voltier.grid.feeder import Feeder
from voltier.grid.flow.engines import SEQUENCE_ENGINES
from voltier.grid.flow.port import PowerFlow
from voltier.scenarios.panels import Array, Block, read_block
from voltier.scenarios.results import table_names
from voltier.scenarios.schema_sections import CrosscheckSection

Index = NDArray[np.int64]
Kpis = dict[str, float | int | str | None]

MINUTE_S = 60
MINUTE_H = 1.0 / 60.0
TAP_ROUNDING = 0.25
"""How far a tap read from a ratio of voltages may be from a whole number: regulators may keep some impedance."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What a run injected at each time, and the state it says followed.

    t_s : (n_t,) ; p_kw, q_kvar, v_pu : (n_t, n_bus, 3) injections and voltage magnitudes, nan where there is no voltage
    tap : (n_t, n_reg) ; import_kw, loss_kw : (n_t,)
    taps_recorded : whether the run wrote its taps; without, they are read from the ratios of its voltages
    """

    t_s: Index
    p_kw: Array
    q_kvar: Array
    v_pu: Array
    tap: Index
    import_kw: Array
    loss_kw: Array
    taps_recorded: bool


@dataclass(frozen=True, slots=True)
class Replay:
    """What an engine made of a dispatch; nan at the minutes it could not solve.

    v_pu : (n_t, n_bus, 3) magnitudes ; import_kw, loss_kw : (n_t,)
    refused, failed : message → number of minutes that it cannot represent, and that did not converge
    solve_s : wall time of all solutions
    """

    v_pu: Array
    import_kw: Array
    loss_kw: Array
    refused: Mapping[str, int]
    failed: Mapping[str, int]
    solve_s: float


@dataclass(frozen=True, slots=True)
class Difference:
    """One engine against the run, by time.

    v_pu : (n_t, n_bus, 3) |v| of the engine less the run's ; v_max_pu, v_median_pu : (n_t,) of its size
    import_kw, loss_kw : (n_t,) the engine's less the run's
    """

    v_pu: Array
    v_max_pu: Array
    v_median_pu: Array
    import_kw: Array
    loss_kw: Array


def read_dispatch(run_dir: Path, feeder: Feeder, every_min: int = 1) -> Dispatch:
    """Read what a run injected, every so many minutes.

    Raises InputError with all problems: tables or columns that are not there, buses and phases that are not those of
    the feeder, voltages from which no taps can be read.
    """
    grid, substation = (_block(run_dir, name) for name in ("grid", "substation"))
    _check_columns(run_dir, grid, substation)
    bus, phase = _places(run_dir, grid, feeder)
    t_s, at_grid, at_substation = np.intersect1d(grid.t_s, substation.t_s, return_indices=True)
    if not len(t_s):
        remedy = "the tables grid and substation have no time in common; record both at the same times"
        raise InputError([Problem(str(run_dir), "t_s", "none", remedy)])
    keep = (t_s - t_s[0]) % (every_min * MINUTE_S) == 0
    t_s, at_grid, at_substation = t_s[keep], at_grid[keep], at_substation[keep]
    state = {}
    for column, empty in (("p_kw", 0.0), ("q_kvar", 0.0), ("v_pu", np.nan)):
        state[column] = np.full((len(t_s), len(feeder.bus), 3), empty)
        state[column][:, bus, phase] = grid[column][at_grid]
    recorded = "taps" in table_names(run_dir)
    tap = (
        _recorded_taps(run_dir, feeder, t_s)
        if recorded
        else _taps_of_voltages(run_dir, feeder, state["v_pu"])
    )
    return Dispatch(
        t_s=t_s,
        p_kw=state["p_kw"],
        q_kvar=state["q_kvar"],
        v_pu=state["v_pu"],
        tap=tap,
        import_kw=-substation.sum("p_kw")[at_substation],
        loss_kw=substation.sum("loss_kw")[at_substation],
        taps_recorded=recorded,
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """How far one engine may be from the run: voltage magnitudes [p.u.], energy lost and peak import [%]."""

    v_pu: float
    loss_percent: float
    import_percent: float


def limits_of(engine: str, section: CrosscheckSection) -> Limits:
    """Return what an engine is allowed; one that knows lines by sequence impedances only has voltages of its own."""
    v_pu = section.sequence_v_pu if engine in SEQUENCE_ENGINES else section.v_pu
    return Limits(v_pu, section.loss_percent, section.import_percent)


def replay(dispatch: Dispatch, engine: PowerFlow, advance: Callable[[], None], stride: int = 1) -> Replay:
    """Solve every minute of a dispatch, or every so many of them; advance is called after each."""
    count = len(dispatch.t_s)
    v_pu, power = np.full(dispatch.v_pu.shape, np.nan), np.full((2, count), np.nan)
    refused: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    began = perf_counter()
    for k in range(0, count, stride):
        try:
            flow = engine.solve(dispatch.p_kw[k], dispatch.q_kvar[k], dispatch.tap[k])
            v_pu[k] = np.abs(flow.v_pu)
            power[:, k] = -flow.p_cc_kw.sum(), flow.loss_kw
        except InputError as error:
            refused[str(error)] += 1
        except NotConvergedError as error:
            failed[str(error)] += 1
        advance()
    return Replay(v_pu, power[0], power[1], refused, failed, perf_counter() - began)


def difference(dispatch: Dispatch, other: Replay) -> Difference:
    """Subtract the run from an engine's replay of it."""
    v_pu = other.v_pu - dispatch.v_pu
    size = np.abs(v_pu).reshape(len(v_pu), -1)
    known = np.isfinite(size).any(axis=1)
    largest, median = np.full((2, len(size)), np.nan)
    largest[known], median[known] = np.nanmax(size[known], axis=1), np.nanmedian(size[known], axis=1)
    return Difference(
        v_pu, largest, median, other.import_kw - dispatch.import_kw, other.loss_kw - dispatch.loss_kw
    )


def figures(
    dispatch: Dispatch,
    other: Replay,
    change: Difference,
    feeder: Feeder,
    every_min: int,
    limits: Limits,
) -> Kpis:
    """Sum up an engine's difference as flat key figures.

    Voltages: size of the difference of magnitudes over all nodes and minutes, and where and when it is largest.
    losses.difference_percent: of the energy lost, against the run's. import.difference_percent: of the largest
    difference in a minute against the run's peak. within_limits: 1 if no threshold is exceeded, every minute that
    the engine can represent converged, and voltage stands at the same nodes; 0 otherwise.
    """
    solved = np.isfinite(other.loss_kw)
    kpis: Kpis = {
        "minutes": int(solved.sum()),
        "minutes_refused": sum(other.refused.values()),
        "minutes_failed": sum(other.failed.values()),
        "solve_s": other.solve_s,
    }
    if not solved.any():
        return kpis | {"within_limits": 0}
    size = np.abs(change.v_pu[solved])
    k, bus, phase = (int(at) for at in np.unravel_index(int(np.nanargmax(size)), size.shape))
    lone = int((np.isfinite(other.v_pu[solved]) != np.isfinite(dispatch.v_pu[solved])).sum())
    own_kwh = float(dispatch.loss_kw[solved].sum() * MINUTE_H * every_min)
    extra_kwh = float(change.loss_kw[solved].sum() * MINUTE_H * every_min)
    peak_kw = float(np.abs(dispatch.import_kw[solved]).max())
    import_kw = float(np.abs(change.import_kw[solved]).max())
    kpis |= {
        "voltage.max_difference_pu": float(size[k, bus, phase]),
        "voltage.median_difference_pu": float(np.nanmedian(size)),
        "voltage.p99_difference_pu": float(np.nanpercentile(size, 99.0)),
        "voltage.worst_node": f"{feeder.bus[bus]}.{'abc'[phase]}",
        "voltage.worst_t_s": int(dispatch.t_s[solved][k]),
        "voltage.nodes_in_one_only": lone,
        "losses.run_kwh": own_kwh,
        "losses.difference_kwh": extra_kwh,
        "losses.difference_percent": _percent(abs(extra_kwh), own_kwh),
        "import.max_difference_kw": import_kw,
        "import.difference_percent": _percent(import_kw, peak_kw),
    }
    return kpis | {"within_limits": int(not exceeded(kpis, limits))}


def exceeded(kpis: Kpis, limits: Limits) -> list[str]:
    """Say in words what an engine's figures exceed; empty when all is within the limits."""
    words = []
    for key, limit, unit in (
        ("voltage.max_difference_pu", limits.v_pu, "p.u."),
        ("losses.difference_percent", limits.loss_percent, "%"),
        ("import.difference_percent", limits.import_percent, "%"),
    ):
        value = kpis.get(key)
        # not a number is never within a limit
        if isinstance(value, float) and not value <= limit:
            words.append(f"{key} {value:.3g} {unit} is above {limit:g} {unit}")
    for key, what in (
        ("minutes_failed", "minutes did not converge"),
        ("voltage.nodes_in_one_only", "voltages stand in one of the two only"),
    ):
        if kpis.get(key):
            words.append(f"{kpis[key]} {what}")
    return words


def _percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole > 0.0 else (0.0 if part == 0.0 else float("inf"))


# ---------------------------------------------------------------------- reading


def _block(run_dir: Path, name: str) -> Block:
    block = read_block(run_dir, name)
    if block is None:
        names = table_names(run_dir)
        if name in names:
            empty = "the table has no rows: the run ended before its first power flow was kept; run it longer"
            raise InputError([Problem(str(run_dir), "table", name, empty)])
        known = ", ".join(names) or "no table at all"
        remedy = f"a crosscheck needs the tables grid and substation; this run has {known}"
        raise InputError([Problem(str(run_dir), "table", name, remedy)])
    return block


def _check_columns(run_dir: Path, grid: Block, substation: Block) -> None:
    lacking = [("grid", name) for name in ("bus", "phase") if name not in grid.keys]
    lacking += [("grid", name) for name in ("v_pu", "p_kw", "q_kvar") if name not in grid.values]
    lacking += [("substation", name) for name in ("p_kw", "loss_kw") if name not in substation.values]
    remedy = (
        "the column is not there; give injections and voltages of every bus and phase (p_kw, q_kvar, v_pu)"
    )
    if lacking:
        raise InputError(
            [Problem(f"{run_dir}: table {table}", "column", name, remedy) for table, name in lacking]
        )


def _places(run_dir: Path, grid: Block, feeder: Feeder) -> tuple[Index, Index]:
    """Find the table's rows among the feeder's buses and phases; all of them, and no others."""
    row = {name: k for k, name in enumerate(feeder.bus)}
    named = list(zip(grid.keys["bus"].tolist(), grid.keys["phase"].tolist(), strict=True))
    known = [
        (row[bus], "abc".index(phase)) for bus, phase in named if bus in row and phase in ("a", "b", "c")
    ]
    strange = [f"{bus}.{phase}" for bus, phase in named if bus not in row or phase not in ("a", "b", "c")]
    there = np.zeros_like(feeder.has_phase)
    for bus, phase in known:
        there[bus, phase] = True
    missing = [f"{feeder.bus[i]}.{'abc'[k]}" for i, k in np.argwhere(feeder.has_phase & ~there).tolist()]
    strange += [f"{feeder.bus[i]}.{'abc'[k]}" for i, k in np.argwhere(~feeder.has_phase & there).tolist()]
    problems = [
        Problem(
            f"{run_dir}: table grid", "bus, phase", _some(names), f"{what} feeder {feeder.name}; {remedy}"
        )
        for names, what, remedy in (
            (strange, "these nodes are not of the", "crosscheck the run on its own feeder (--scenario)"),
            (missing, "these nodes are missing that are of the", "record every bus and phase"),
        )
        if names
    ]
    if problems:
        raise InputError(problems)
    bus, phase = np.array(known, dtype=np.int64).reshape(-1, 2).T
    return bus, phase


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _recorded_taps(run_dir: Path, feeder: Feeder, t_s: Index) -> Index:
    block, regulators = _block(run_dir, "taps"), feeder.regulators
    own = list(zip(regulators.name, ("abc"[k] for k in regulators.phase.tolist()), strict=True))
    named = list(zip(block.keys["regulator"].tolist(), block.keys["phase"].tolist(), strict=True))
    where = f"{run_dir}: table taps"
    if sorted(own) != sorted(named):
        remedy = f"give one row for each regulated phase of feeder {feeder.name}, at every time"
        raise InputError(
            [Problem(where, "regulator, phase", _some([".".join(row) for row in named]), remedy)]
        )
    if not np.isin(t_s, block.t_s).all():
        raise InputError(
            [Problem(where, "t_s", len(block.t_s), "give the taps at every time of the table grid")]
        )
    column = [named.index(row) for row in own]
    return block["tap"][np.searchsorted(block.t_s, t_s)][:, column].astype(np.int64)


def _taps_of_voltages(run_dir: Path, feeder: Feeder, v_pu: Array) -> Index:
    """Read the taps from the voltages on both sides of each regulator, which is an ideal ratio."""
    regulators = feeder.regulators
    before, after = (v_pu[:, bus, regulators.phase] for bus in (regulators.from_bus, regulators.to_bus))
    exact = (after / before - 1.0) / regulators.tap_step_pu
    tap = np.rint(np.nan_to_num(exact))
    off = ~(np.abs(exact - tap) <= TAP_ROUNDING)
    remedy = "the voltages on both sides of it are not a whole number of taps apart; give a table taps"
    names = [
        f"{regulators.name[k]}.{'abc'[regulators.phase[k]]}" for k in np.flatnonzero(off.any(axis=0)).tolist()
    ]
    if names:
        raise InputError([Problem(f"{run_dir}: table grid", "v_pu", _some(names), remedy)])
    return tap.astype(np.int64)
