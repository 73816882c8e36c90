"""Scenarios in and out: library, user files, overrides; every problem found is told, none is guessed away."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import read_feeder
from voltier.scenarios.schema_model import Scenario
from voltier.scenarios.schema_problems import locate, nearest, problems_of
from voltier.scenarios.schema_yaml import parse_value, read_yaml

__all__ = ["Scenario", "dump_scenario", "json_schema", "load_scenario", "scenario_names"]

LIBRARY = Path(__file__).parent / "library"
_FILE_FIELDS = ("weather_csv", "price_csv", "load_profiles_csv", "ev_sessions_csv")


def scenario_names() -> dict[str, str]:
    """Return the library: name of each scenario → its title, in alphabetical order."""
    return {path.stem: str(read_yaml(path)[0].get("title", "")) for path in sorted(LIBRARY.glob("*.yaml"))}


def load_scenario(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Scenario:
    """Load a scenario of the library or of a file, with overrides such as "primary.period_s=600" on top.

    A file may say `extends: NAME-or-PATH` and then gives only what differs; sections are merged key by key,
    lists are replaced. Paths in a file are relative to it. Raises InputError with every problem found:
    syntax, unknown keys, types, bounds, periods that do not divide, buses not in the feeder, files not there.
    """
    path = _find(str(name_or_path), Path.cwd(), "scenario", "name")
    values, where = _read_chain(path, ())
    for override in overrides:
        _apply(values, where, override)
    try:
        scenario = Scenario.model_validate(values)
    except ValidationError as error:
        raise InputError(problems_of(error, Scenario, where)) from error
    problems = [*_missing_files(scenario, where), *_wrong_buses(scenario, where)]
    if problems:
        raise InputError(problems)
    return scenario


def dump_scenario(scenario: Scenario, path: Path) -> None:
    """Write the scenario with every default spelled out; load_scenario reads it back to an equal value."""
    values = scenario.model_dump(mode="python")
    values["start"] = scenario.start.strftime("%Y-%m-%dT%H:%M")
    text = yaml.dump(_plain(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    path.write_text(
        text.replace(f"start: '{values['start']}'", f"start: {values['start']}"), encoding="utf-8"
    )


def json_schema() -> str:
    """Return the JSON Schema of a scenario file, for editors, as indented JSON text."""
    schema = Scenario.model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "scenario to start from, a library name or a path; this file then gives what differs",
    }
    # A file that extends another need not name itself again.
    schema["required"] = []
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


class _Dumper(yaml.SafeDumper):
    """Block style; text that looks like a time or a number is quoted, by the wider rules of YAML 1.1."""


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _find(name: str, folder: Path, where: str, field: str) -> Path:
    """Find a scenario by library name or by path; a path is known by its suffix or its slash."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = (folder / name).resolve()
        if not path.is_file():
            what = "this is a folder, not a file" if path.is_dir() else "there is no such file"
            raise InputError([Problem(where, field, name, f"{what} (looked for {path})")])
        return path
    path = LIBRARY / f"{name}.yaml"
    if not path.is_file():
        known = sorted(entry.stem for entry in LIBRARY.glob("*.yaml"))
        hint = nearest(name, known) or ", or a path that ends in .yaml"
        remedy = "no such scenario" + hint + "; the library has " + ", ".join(known)
        raise InputError([Problem(where, field, name, remedy)])
    return path


def _read_chain(path: Path, below: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a file and all that it extends; return merged values and where each was written."""
    values, where = read_yaml(path)
    _anchor_paths(values, path.parent)
    if path in below:
        chain = " extends ".join(entry.name for entry in (*below, path))
        raise InputError(
            [Problem(where["extends"], "extends", path.name, f"goes round in a circle: {chain}")]
        )
    base_name = values.pop("extends", None)
    if base_name is None:
        values.setdefault("name", path.stem)
        return values, where
    if not isinstance(base_name, str):
        raise InputError(
            [Problem(where["extends"], "extends", base_name, "give a name of the library or a path")]
        )
    base, base_where = _read_chain(_find(base_name, path.parent, where["extends"], "extends"), (*below, path))
    values.setdefault("name", path.stem)
    return _merge(base, values), {**base_where, **where}


def _anchor_paths(values: dict[str, Any], folder: Path) -> None:
    """Make the paths that a file names relative to that file, not to wherever the command runs."""
    inputs, feeder = values.get("inputs"), values.get("feeder")
    if isinstance(inputs, dict):
        for field in _FILE_FIELDS:
            if isinstance(inputs.get(field), str):
                inputs[field] = str((folder / inputs[field]).resolve())
    if isinstance(feeder, dict) and isinstance(feeder.get("name"), str) and "/" in feeder["name"]:
        feeder["name"] = str((folder / feeder["name"]).resolve())


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _apply(values: dict[str, Any], where: dict[str, str], override: str) -> None:
    """Set one "a.b=value" in place; a number in the path is a position in a list."""
    field, equals, text = override.partition("=")
    place = f"--set {override}"
    if not equals or not field or "" in field.split("."):
        raise InputError(
            [Problem("--set", "override", override, 'write it as key=value, "primary.period_s=600"')]
        )
    try:
        value = parse_value(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError([Problem(place, field, text, "cannot be read as a YAML value; quote it")]) from error
    *sections, key = field.split(".")
    target: Any = values
    for depth, section in enumerate(sections):
        if isinstance(target, list):
            target = target[_position(target, section, place, field)]
        else:
            if target.get(section) is None:
                target[section] = {}
            target = target[section]
        if not isinstance(target, (dict, list)):
            above = ".".join(sections[: depth + 1])
            raise InputError([Problem(place, field, text, f"{above} is a single value, not a section")])
    if isinstance(target, list):
        target[_position(target, key, place, field)] = value
    else:
        target[key] = value
    where[field] = place
    if not sections and field in ("inputs", "feeder"):
        return
    _anchor_override(target, field, key)


def _anchor_override(target: Any, field: str, key: str) -> None:
    """Paths given on the command line are relative to the working directory."""
    is_path = field == f"inputs.{key}" and key in _FILE_FIELDS
    is_feeder = field == "feeder.name" and "/" in str(target[key])
    if (is_path or is_feeder) and isinstance(target[key], str):
        target[key] = str(Path(target[key]).resolve())


def _position(entries: list[Any], text: str, place: str, field: str) -> int:
    if not text.isdigit() or int(text) >= len(entries):
        remedy = f'"{text}" must be a position from 0 to {len(entries) - 1}'
        raise InputError([Problem(place, field, text, remedy)])
    return int(text)


def _missing_files(scenario: Scenario, where: Mapping[str, str]) -> list[Problem]:
    problems: list[Problem] = []
    for name in _FILE_FIELDS:
        path = getattr(scenario.inputs, name)
        if path is not None and not Path(path).is_file():
            field = f"inputs.{name}"
            remedy = "there is no such file; leave the key out to use the packaged data"
            problems.append(Problem(locate(where, field), field, path, remedy))
    return problems


def _wrong_buses(scenario: Scenario, where: Mapping[str, str]) -> list[Problem]:
    """Compare the buses that the scenario names with the feeder; a generator needs a bus with a market."""
    try:
        feeder = read_feeder(scenario.feeder.name)
    except InputError as error:
        return list(error.problems)
    load_buses = [feeder.bus[i] for i in feeder.load_buses]
    named = [(f"generators.{i}.bus", entry.bus) for i, entry in enumerate(scenario.generators)]
    named += [(f"iot.compromised_buses.{i}", bus) for i, bus in enumerate(scenario.iot.compromised_buses)]
    problems: list[Problem] = []
    for field, bus in named:
        if bus not in feeder.bus:
            remedy = f"the feeder {scenario.feeder.name} has no such bus{nearest(bus, feeder.bus)}"
        elif bus not in load_buses:
            remedy = "this bus carries no load and so has no secondary market; take a load bus"
            remedy += nearest(bus, load_buses)
        else:
            continue
        problems.append(Problem(locate(where, field), field, bus, remedy))
    limits = (("pv_nodes", scenario.fleet.pv_nodes), ("battery_nodes", scenario.fleet.battery_nodes))
    for name, nodes in (*limits, ("dg_nodes", scenario.fleet.dg_nodes)):
        if nodes > len(load_buses):
            field = f"fleet.{name}"
            remedy = f"the feeder has only {len(load_buses)} load buses"
            problems.append(Problem(locate(where, field), field, nodes, remedy))
    return problems
