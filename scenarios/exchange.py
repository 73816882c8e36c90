"""A scenario as a GridLAB-D case: model, players, HELICS topics and how to run them; and the other way round."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np

from voltier.agents.clock import MINUTE_S, OFFSET_S
from voltier.agents.grid import GridOperator
from voltier.agents.messages import Array, Index, Injections, Taps
from voltier.agents.operator import Mail
from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import Feeder, read_feeder
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.regulators import initial_taps, neutral_taps, next_taps
from voltier.grid.writers.glm_devices import (
    injection_name,
    power_property,
    regulator_rows,
    spot_load_draws,
    spot_load_objects,
)
from voltier.grid.writers.glm_network import GlmFeeder, PhaseInjections
from voltier.grid.writers.glm_tape import (
    TIME,
    Player,
    Topic,
    helics_json,
    player_objects,
    recorder_objects,
)
from voltier.grid.writers.gridlabd import GlmSetting, gridlabd_model
from voltier.scenarios.exchange_readme import readme
from voltier.scenarios.manifest import RunDirectory
from voltier.scenarios.results import read_table
from voltier.scenarios.schema import Scenario

RESULTS, PLAYERS = "results", "players"
_SETTLING_ROUNDS = 20
_LEAD_S = 1
"""GridLAB-D lets a moved tap act at its next instant: the player moves it a second before its minute."""


@dataclass(frozen=True, slots=True)
class _Course:
    """What happens at the load places. bus, phase : (n,) ; t_s : (t,) ; p_kw, q_kvar : (t, n) ; tap : (t, n_reg)"""

    bus: Index
    phase: Index
    t_s: Index
    p_kw: Array
    q_kvar: Array
    tap: Index


def export_gridlabd(scenario: Scenario, run_dir: Path | None = None) -> dict[str, str]:
    """Give the files of a GridLAB-D case of the scenario's feeder: path within its folder → text.

    Without a run the loads are the feeder's published spot loads, constant; with one they follow its net loads minute
    by minute, and its taps. Raises InputError: a feeder that cannot be written as a model, a run of another feeder.
    """
    feeder = read_feeder(scenario.feeder.name)
    course = _published(scenario, feeder) if run_dir is None else _recorded(scenario, feeder, run_dir)
    model = GlmFeeder.of(feeder, keeps_open=True)
    # a run may be shorter than its scenario, or than it was meant to be
    end_s = scenario.end_s if run_dir is None else int(course.t_s[-1]) + MINUTE_S
    stop = scenario.start + timedelta(seconds=end_s)
    setting = GlmSetting(
        about=f"of scenario {scenario.name}: wires, devices, and a load at every place that is driven from outside",
        start=f"{scenario.start:{TIME}}",
        stop=f"{stop:{TIME}}",
    )
    first = PhaseInjections(course.bus, course.phase, course.p_kw[0], course.q_kvar[0])
    network = gridlabd_model(feeder, course.tap[0], first, setting=setting)
    if run_dir is None:
        # checked together with the loads
        gridlabd_model(feeder, course.tap[0], first, loads=True)
    players = _load_players(model, course) if run_dir else _spot_players(model)
    players += _tap_players(model, course)
    loads = "" if run_dir else "".join(spot_load_objects(model))
    name = f"{scenario.name}-gridlabd"
    config = {
        "helics": "helics.json",
        "model": "network.glm",
        "start": f"{scenario.start:{TIME}}",
        "duration_s": end_s,
        "period_s": MINUTE_S,
        "timeout_s": 30.0,
    }
    include = '#include "network.glm"\n' + ('#include "loads.glm"\n' if loads else "")
    recorders = "".join(recorder_objects(model, RESULTS, MINUTE_S))
    return {
        "README.txt": readme(scenario, run_dir, len(players), "loads.glm" if loads else ""),
        "network.glm": network,
        **({"loads.glm": loads} if loads else {}),
        "players.glm": "".join(player_objects(players)),
        "snapshot.glm": include,
        "model.glm": f'module tape;\n{include}#include "players.glm"\n{recorders}',
        "model_helics.glm": f'module connection;\n#include "network.glm"\n{_HELICS_OBJECT}',
        "run.py": _RUN,
        "helics.json": helics_json(name, MINUTE_S, _publications(model), _subscriptions(model, course)),
        "federate.json": json.dumps(config, indent=1) + "\n",
        **{player.file: player.text(scenario.start) for player in players},
        f"{RESULTS}/README.txt": "GridLAB-D's recorders write here.\n",
    }


_RUN = """\"\"\"Run model.glm by the package gridlabd, in this folder.\"\"\"

from gridlabd import DirectGridLabD

model = DirectGridLabD()
for step in (lambda: model.load_glm(["model.glm"]), model.setup_after_load, model.run):
    code = step()
    if code.name != "SUCCESS":
        raise SystemExit(f"GridLAB-D: {code.name}")
model.exit_gld("")
"""
_HELICS_OBJECT = "object helics_msg {\n    name helics;\n    configure helics.json;\n}\n"


def _published(scenario: Scenario, feeder: Feeder) -> _Course:
    """Nothing injected at the places of the spot loads; regulators where the scenario lets them come to rest."""
    bus, phase = _spot_places(feeder)
    none = np.zeros((1, len(bus)))
    tap = initial_taps(feeder) if scenario.feeder.regulators == "published" else neutral_taps(feeder)
    if scenario.feeder.regulators == "controlled":
        engine, idle = OpenDssFlow(feeder, spot_loads=True), np.zeros((len(feeder.bus), 3))
        for _ in range(_SETTLING_ROUNDS):
            tap = next_taps(feeder, engine.solve(idle, idle, tap), tap)
    return _Course(bus, phase, np.zeros(1, dtype=np.int64), none, none, tap[None, :])


def _spot_places(feeder: Feeder) -> tuple[Index, Index]:
    """Give the phases that spot loads touch, bus by bus."""
    touched = np.zeros((len(feeder.bus), 3), dtype=np.bool_)
    for bus, letters in zip(feeder.spot_loads.bus.tolist(), feeder.spot_loads.phase, strict=True):
        touched[bus, ["abc".index(letter) for letter in letters]] = True
    bus, phase = np.nonzero(touched)
    return bus, phase


def _recorded(scenario: Scenario, feeder: Feeder, run_dir: Path) -> _Course:
    """Take the injections of a run, and find its taps again by the rule that moved them."""
    bus, phase = np.nonzero(feeder.has_phase)
    table = read_table(run_dir, "grid")
    t_s = np.unique(table["t_s"].to_numpy())
    if not len(t_s):
        remedy = (
            "its table grid has no rows: the run ended before its first power flow was kept; run it longer"
        )
        raise InputError([Problem("command line", "--run", str(run_dir), remedy)])
    ran = RunDirectory(run_dir).scenario()
    if ran.feeder != scenario.feeder or ran.start != scenario.start or table.num_rows != len(t_s) * len(bus):
        remedy = f"export the run's own scenario, {run_dir / 'config.resolved.yaml'}"
        raise InputError([Problem("command line", "--run", str(run_dir), remedy)])
    p_kw, q_kvar = (table[key].to_numpy().reshape(len(t_s), len(bus)) for key in ("p_kw", "q_kvar"))
    tap = _replayed_taps(scenario, feeder, t_s, p_kw, q_kvar)
    used = (p_kw != 0).any(axis=0) | (q_kvar != 0).any(axis=0)
    return _Course(bus[used], phase[used], t_s, p_kw[:, used], q_kvar[:, used], tap)


def _replayed_taps(scenario: Scenario, feeder: Feeder, t_s: Index, p_kw: Array, q_kvar: Array) -> Index:
    """Give the tap of every regulator in every minute, (t, n_reg), by the grid's own operator."""
    bus, phase = np.nonzero(feeder.has_phase)
    start = initial_taps(feeder) if scenario.feeder.regulators == "published" else neutral_taps(feeder)
    if scenario.feeder.regulators != "controlled":
        return np.tile(start, (len(t_s), 1))
    grid = GridOperator(
        feeder,
        OpenDssFlow(feeder),
        start,
        controlled=True,
        v_min_pu=scenario.feeder.v_min_pu,
        v_max_pu=scenario.feeder.v_max_pu,
    )
    taps = []
    for k, at_s in enumerate(t_s.tolist()):
        body = Injections(t_s=at_s, bus=bus, phase=phase, p_kw=p_kw[k], q_kvar=q_kvar[k])
        outbox = grid.decide(at_s + OFFSET_S["grid"], [Mail("cmo.0", "grid", body)])
        taps += [mail.body.tap for mail in outbox.mail if isinstance(mail.body, Taps)]
    return np.array(taps)


def _load_players(model: GlmFeeder, course: _Course) -> list[Player]:
    va = -1000.0 * (course.p_kw + 1j * course.q_kvar)
    times = course.t_s.tolist()
    return [
        _player(injection_name(model.name[bus]), power_property(phase), times, va[:, k].tolist())
        for k, (bus, phase) in enumerate(zip(course.bus.tolist(), course.phase.tolist(), strict=True))
    ]


def _spot_players(model: GlmFeeder) -> list[Player]:
    return [_player(target, key, [0], [value]) for target, key, value in spot_load_draws(model)]


def _tap_players(model: GlmFeeder, course: _Course) -> list[Player]:
    """Drive the regulators that move; the first position stands in the model."""
    times = [max(t_s - _LEAD_S, 0) for t_s in course.t_s.tolist()]
    phase = model.feeder.regulators.phase
    return [
        _player(name, f"tap_{'ABC'[phase[k]]}", times, course.tap[:, k].tolist())
        for name, rows in regulator_rows(model).items()
        for k in rows
        if (course.tap[:, k] != course.tap[0, k]).any()
    ]


def _player(target: str, key: str, t_s: list[int], values: Sequence[complex | int]) -> Player:
    return Player(target, key, f"{PLAYERS}/{target}.{key}.csv", t_s, values)


def _publications(model: GlmFeeder) -> list[Topic]:
    """Publish every voltage, and the power at the source."""
    voltages = [
        Topic(f"gridlabd/{model.name[bus]}/voltage_{letter}", "V", model.name[bus], f"voltage_{letter}")
        for bus in np.flatnonzero(model.fed.any(axis=1)).tolist()
        for letter in model.phases(bus)
    ]
    source = model.name[model.feeder.source_bus]
    powers = [f"measured_power_{letter}" for letter in "ABC"]
    return [*voltages, *(Topic(f"gridlabd/{source}/{key}", "VA", source, key) for key in powers)]


def _subscriptions(model: GlmFeeder, course: _Course) -> list[Topic]:
    """Follow the load at every place that is driven, consumption positive."""
    return [
        Topic(
            f"voltier/{model.name[bus]}/load_{'ABC'[phase]}",
            "VA",
            injection_name(model.name[bus]),
            power_property(phase),
        )
        for bus, phase in zip(course.bus.tolist(), course.phase.tolist(), strict=True)
    ]
