"""A foreign GridLAB-D model as a market's feeder: tables, topic map, starter scenario."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import COLUMNS, Feeder, read_feeder
from voltier.grid.readers.glm_tables import GlmTables, read_glm_tables

FEEDER, SCENARIO, TOPICS = "feeder", "scenario.yaml", "topics.json"
KW_PER_HOUSE = 3.5
"""Spot load that one house stands for: the reference feeder has 3,490 kW and 1,008 houses."""
SHARES = {"water_heaters": 0.345, "pv_units": 0.205, "batteries": 0.17, "deferrables": 0.3}
"""Equipment of houses, as in the reference scenario."""
PV_KVA_PER_UNIT = 4.25


@dataclass(frozen=True, slots=True)
class ImportedFeeder:
    """What came of a model. files : path within the folder → text ; notes : what was decided on the way"""

    feeder: Feeder
    files: dict[str, str]
    notes: tuple[str, ...]


def import_gridlabd(path: Path) -> ImportedFeeder:
    """Read a .glm file into feeder tables, the map from topics to its objects, and a scenario to start from.

    Raises InputError with all problems, each with file, object, property and remedy.
    """
    tables = read_glm_tables(path)
    texts = {f"{name}.csv": _csv(name, tables, path.name) for name in COLUMNS}
    feeder = _checked(tables, texts)
    name = _plain_name(path)
    files = {
        **{f"{FEEDER}/{file}": text for file, text in texts.items()},
        TOPICS: json.dumps(_topics(tables, feeder, name), indent=1) + "\n",
        SCENARIO: _scenario(feeder, name, path.name),
    }
    return ImportedFeeder(feeder, files, tuple(tables.notes))


def _plain_name(path: Path) -> str:
    """Make a scenario's name of a file's."""
    return "".join(letter if letter.isalnum() else "-" for letter in path.stem).strip("-") or "feeder"


def _csv(name: str, tables: GlmTables, source: str) -> str:
    columns = [column.name for column in COLUMNS[name]]
    out = io.StringIO()
    out.write(f"# {name} of {source}, a GridLAB-D model; written by voltier import gridlabd\n")
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(tables.rows.get(name, []))
    return out.getvalue()


def _checked(tables: GlmTables, texts: dict[str, str]) -> Feeder:
    """Read the tables as a run would; what is wrong is said of the model's objects, not of the rows."""
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above) / Path(tables.file).stem
        folder.mkdir()
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
        try:
            return read_feeder(folder)
        except InputError as error:
            raise InputError([_of_object(tables, problem) for problem in error.problems]) from error


def _of_object(tables: GlmTables, problem: Problem) -> Problem:
    """Say a problem of a row ("lines.csv:7") of the object behind it; comment and header are lines 1 and 2."""
    file, _, line = problem.where.partition(":")
    labels = tables.label.get(file.removesuffix(".csv"), [])
    if not line.isdigit() or not 0 <= int(line) - 3 < len(labels):
        return problem
    where = f"{tables.file}: {labels[int(line) - 3]}"
    return Problem(
        where, problem.field, problem.value, f"{problem.remedy} (table {file.removesuffix('.csv')})"
    )


def _topics(tables: GlmTables, feeder: Feeder, name: str) -> dict[str, object]:
    """Map the topics of bus and phase to objects and properties of the model, as its HELICS configuration would."""
    voltages = [
        {
            "topic": f"gridlabd/{bus}/voltage_{letter.upper()}",
            "bus": bus,
            "phase": letter,
            "unit": "V",
            "object": bus,
            "property": f"voltage_{letter.upper()}",
        }
        for bus, there in zip(feeder.bus, feeder.has_phase, strict=True)
        for letter, has in zip("abc", there, strict=True)
        if has
    ]
    loads = [
        {
            "topic": f"voltier/{target}/load_{letter}",
            "bus": bus,
            "phase": phases,
            "unit": "VA",
            "object": target,
            "property": f"constant_power_{letter}",
        }
        for target, letter, bus, phases in tables.load_places
    ]
    return {"feeder": name, "model": tables.file, "publications": voltages, "subscriptions": loads}


def _scenario(feeder: Feeder, name: str, source: str) -> str:
    """Write a scenario with houses in proportion to the spot loads, and equipment as in the reference scenario."""
    n_bus = len(feeder.load_buses)
    houses = max(round(float(feeder.spot_loads.p_kw.sum()) / KW_PER_HOUSE), 3 * n_bus)
    counts = {key: round(share * houses) for key, share in SHARES.items()}
    pv_nodes, battery_nodes = (min(n_bus, counts[key]) for key in ("pv_units", "batteries"))
    scenario = {
        "name": name,
        "title": f"Feeder of {source}",
        "seed": 1,
        "hours": 24,
        "feeder": {"name": f"./{FEEDER}", "engine": "opendss", "regulators": "controlled"},
        "fleet": {
            "houses": houses,
            **counts,
            "pv_kva": round(PV_KVA_PER_UNIT * counts["pv_units"], 2),
            "pv_nodes": pv_nodes,
            "battery_nodes": battery_nodes,
            "dg_nodes": max(pv_nodes, battery_nodes),
        },
    }
    head = f"# Written by voltier import gridlabd {source}: a place to start from. What is not given has its default.\n"
    return head + yaml.safe_dump(scenario, sort_keys=False)
