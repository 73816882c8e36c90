"""A scenario as an ordinary HELICS federation: a JSON file for each federate and a runner file.

`helics run --path=DIR/runner.json` starts the same processes as `voltier run`, by the commands of containers; the JSON
file of a federate is for whoever puts a program of their own in its place.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

from voltier.agents.clock import MarketClock
from voltier.federates.case import ScenarioCase
from voltier.federates.foreign_part import PLAYABLE
from voltier.federates.launch import ONE_THREAD
from voltier.federates.part import MessageTopic, Part, ValueTopic, instants_text, part_of, period_of
from voltier.federates.schemas import write_schemas
from voltier.federates.wiring import LOOPBACK, RECORDER, Wiring, role_of
from voltier.grid.errors import InputError, Problem
from voltier.scenarios.build import check_data
from voltier.scenarios.manifest import RunDirectory, write_json
from voltier.scenarios.schema import Scenario

FEDERATES_PER_OPERATOR = 2
"""Each of our operators is an ear and a mouth; the broker waits for all of them."""

_README = """\
{title}
{underline}
Start it:            helics run --path={folder}/runner.json
Then read it:        voltier report {folder}/run
Once more:           export it again into another folder: a run directory holds one run.

runner.json          every process, for `helics run` (pip install helics); voltier must be on the PATH
NAME.json            topics, types and units of each operator, as HELICS loads them with
                     helicsCreateCombinationFederateFromConfig("NAME.json")
schemas/             the messages on the endpoints, as JSON Schema
run/                 the run directory: configuration, then tables, logs and report

The broker listens at {broker} and has the key {key}: who comes with another is refused.
HELICS 3.6.1 takes the whole federation down with one who joins with a wrong key, or late. Nothing is encrypted: across
hosts, put the bus into a tunnel.

A program of your own in the place of an operator, say smo.0: either
- change the "exec" of smo.0 in runner.json to your program, which registers every topic of smo.0.json as ONE federate,
  and lower the -f of the broker by one; or
- append " --external --door-port 23500 --door-key sesame" to its "exec" and start your program beside it, with its
  broker at 23500. Then what it says is checked, and its end need not be that of the run. run/external/smo.0.json
  tells where to join.
HELICS time = simulated second + 60. A federate must be uninterruptible (as its file says) or ask again until it is
granted the time that it asked for.

{instants}
"""


def export_helics(scenario: Scenario, folder: Path, *, port: int, command: str = "voltier") -> Path:
    """Write a federation into a folder and return its runner file.

    port : of the broker, and the next one too; command : by which our federates are started. Raises InputError if
    the folder holds something already.
    """
    if folder.is_dir() and any(folder.iterdir()):
        remedy = "it is not empty; choose another directory or remove it"
        raise InputError([Problem("command line", "DIR", str(folder), remedy)])
    check_data(scenario)
    case = ScenarioCase(scenario)
    names, clock = case.operator_names(), case.market_clock()
    wiring = Wiring(names)
    key, broker = secrets.token_urlsafe(12), f"tcp://{LOOPBACK}:{port}"
    RunDirectory.create(folder / "run", scenario, transport="zmq")
    for name in names:
        if role_of(name) in PLAYABLE:
            write_json(folder / f"{name}.json", federate_json(part_of(name, wiring), clock, broker, key))
    write_schemas(folder / "schemas")
    title = f"{scenario.name} as a HELICS federation"
    instants = "\n".join(
        f"{name:12} {instants_text(name, clock)[1]}" for name in names if role_of(name) in PLAYABLE
    )
    text = _README.format(
        title=title, underline="=" * len(title), folder=folder.name, broker=broker, key=key, instants=instants
    )
    (folder / "README.txt").write_text(text, encoding="utf-8")
    return write_json(
        folder / "runner.json", _runner(scenario.name, [*names, RECORDER], port, broker, key, command)
    )


def federate_json(part: Part, clock: MarketClock, broker: str, key: str) -> dict[str, Any]:
    """Return an operator's part as a HELICS federate configuration, for one federate that plays all of it."""
    content: dict[str, Any] = {
        "name": part.name,
        "core_type": "zmq",
        "core_name": f"{part.name}.core",
        "core_init_string": f"--federates=1 --broker_address={broker} --brokerkey={key}",
        "uninterruptible": True,
        "terminate_on_error": True,
        "wait_for_current_time_update": False,
        "log_level": "warning",
    }
    even = period_of(part.name, clock)
    if even is not None:
        content["period"], content["offset"] = even
    content["endpoints"] = [_endpoint(topic, "out") for topic in (*part.writes, part.rows_to)]
    content["endpoints"] += [_endpoint(topic, "in") for topic in part.reads]
    content["publications"] = [
        {"key": topic.name, "type": topic.type, "unit": topic.unit, "global": True, "info": _info(topic)}
        for topic in part.publications
    ]
    content["subscriptions"] = [
        {
            "key": topic.name,
            "type": topic.type,
            "unit": topic.unit,
            "connection_required": True,
            "info": _info(topic),
        }
        for topic in part.subscriptions
    ]
    return content


def _endpoint(topic: MessageTopic, way: str) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": topic.name,
        "global": True,
        "targeted": True,
        "info": json.dumps({"messages": topic.messages, "partner": topic.partner}),
    }
    if way == "out":
        content["destination_targets"] = [topic.partner]
    return content


def _info(topic: ValueTopic) -> str:
    return json.dumps({"message": topic.message, "field": topic.name.rpartition("/")[2]})


def _runner(title: str, names: list[str], port: int, broker: str, key: str, command: str) -> dict[str, Any]:
    """Return the content of the runner file; the broker is an entry of its own, for it needs a port and a key."""
    brokers = (
        f"helics_broker --coretype=zmq -f {FEDERATES_PER_OPERATOR * len(names)} --brokerkey={key} "
        f"--localinterface=tcp://{LOOPBACK} --localport={port} --loglevel=error"
    )
    options = f"--scenario run/config.resolved.yaml --run-dir run --broker {broker} --key {key} --interface {LOOPBACK}"
    federates = [{"directory": ".", "exec": brokers, "host": "localhost", "name": "broker"}]
    federates += [
        {
            "directory": ".",
            "exec": f"{command} federate {name} {options}",
            "host": "localhost",
            "name": name,
            "env": ONE_THREAD,
        }
        for name in names
    ]
    return {"name": title, "broker": False, "federates": federates}
