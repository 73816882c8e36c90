"""What drives and records a GridLAB-D model: players of its tape module, and topics of its HELICS module."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from voltier.grid.writers.glm_network import GlmFeeder, block, number

TIME = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True, slots=True)
class Player:
    """A property that follows a file. target : object ; file : as the model names it
    t_s : times after the start [s] ; values : as many, complex, or whole numbers for taps
    """

    target: str
    key: str
    file: str
    t_s: Sequence[int]
    values: Sequence[complex | int]

    def text(self, start: datetime) -> str:
        """Write the file: a time and a value a line, only where the value changes."""
        lines, last = [], None
        for t_s, value in zip(self.t_s, self.values, strict=True):
            text = number(value) if isinstance(value, complex) else str(value)
            if text != last:
                lines.append(f"{start + timedelta(seconds=t_s):{TIME}},{text}\n")
            last = text
        return "".join(lines)


@dataclass(frozen=True, slots=True)
class Topic:
    """A HELICS value that a property publishes or follows."""

    key: str
    unit: str
    target: str
    property: str


def player_objects(players: Iterable[Player]) -> Iterator[str]:
    """Write the players of a model."""
    for player in players:
        yield block("player", {"parent": player.target, "property": player.key, "file": f'"{player.file}"'})


def recorder_objects(model: GlmFeeder, folder: str, period_s: int) -> Iterator[str]:
    """Write recorders: voltages of all nodes by phase, and power and voltage at the source, into CSV files."""
    for letter in "ABC":
        properties = {
            "group": '"class=node"',
            "property": f"voltage_{letter}",
            "interval": str(period_s),
            "file": f'"{folder}/voltage_{letter}.csv"',
        }
        yield block("group_recorder", properties)
    measured = [f"{key}_{letter}" for key in ("measured_power", "voltage") for letter in "ABC"]
    properties = {
        "parent": model.name[model.feeder.source_bus],
        "property": f'"{",".join(measured)}"',
        "interval": str(period_s),
        "file": f'"{folder}/substation.csv"',
    }
    yield block("recorder", properties)


def helics_json(
    name: str, period_s: int, publications: Sequence[Topic], subscriptions: Sequence[Topic]
) -> str:
    """Write the HELICS configuration that a build of GridLAB-D with helics_msg reads; so do HELICS's own bindings.

    Object and property stand in "info", a JSON text inside the JSON. All values are complex.
    """
    config = {
        "name": name,
        "core_type": "zmq",
        "period": float(period_s),
        "offset": 0.0,
        "log_level": "warning",
        "terminate_on_error": True,
        "publications": [{**_topic(topic), "global": True} for topic in publications],
        "subscriptions": [{**_topic(topic), "required": True} for topic in subscriptions],
    }
    return json.dumps(config, indent=1) + "\n"


def _topic(topic: Topic) -> dict[str, str]:
    info = json.dumps({"object": topic.target, "property": topic.property})
    return {"key": topic.key, "type": "complex", "unit": topic.unit, "info": info}
