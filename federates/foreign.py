"""Programs from outside that take part in a run: which operators they may play, and how they are invited."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from voltier.agents.clock import MarketClock
from voltier.federates.carving import ALONE, part_name
from voltier.federates.foreign_part import check_playable, shard_of
from voltier.federates.part import ExternalPart, Part, instants_text
from voltier.federates.ports import Door
from voltier.federates.progress import Watch
from voltier.grid.errors import InputError, Problem
from voltier.scenarios.manifest import write_json
from voltier.scenarios.schema import Scenario

FOLDER = "external"


def doors_for(
    scenario: Scenario, names: Sequence[str], transport: str, interface: str, join_s: float, answer_s: float
) -> dict[str, Door]:
    """Return a door for each operator, or shard of which one, is to be played from outside.

    Raises InputError for operators that cannot be, and for transports and time limits that do not allow it.
    """
    if not names:
        return {}
    names = [part_name(name) for name in names]
    for name in names:
        check_playable(scenario, name)
    shards = [shard_of(scenario, name) if name.startswith(ALONE) else name for name in names]
    problems = [
        Problem("command line", "--external", shard, "one program a shard; raise federation.shards for more")
        for shard in dict.fromkeys(shards)
        if shards.count(shard) > 1
    ]
    if transport not in ("zmq", "tcp"):
        remedy = "take zmq or tcp: a program outside needs a socket to join by"
        problems.append(Problem("command line", "--transport", transport, remedy))
    limit_s = scenario.federation.timeout_s
    if answer_s >= limit_s:
        remedy = f"take less than federation.timeout_s, {limit_s:g} s, after which the whole run is given up"
        problems.append(Problem("command line", "--answer-limit", answer_s, remedy))
    if problems:
        raise InputError(problems)
    door = Door(transport, "", interface, join_s=join_s, answer_s=answer_s)
    return {
        shard: replace(
            door, key=secrets.token_urlsafe(12), bus=name.removeprefix(ALONE) if name != shard else ""
        )
        for shard, name in zip(shards, names, strict=True)
    }


def invitation(
    part: Part, clock: MarketClock, external: ExternalPart, door: Door, address: str
) -> dict[str, Any]:
    """Return where to join, every topic, the instants, and the rows that a part is about."""
    return {
        "role": part.name,
        "broker": address,
        "key": door.key,
        "transport": door.transport,
        "join_limit_s": door.join_s,
        "answer_limit_s": door.answer_s,
        "primary_period_s": clock.primary_period_s,
        "end_s": clock.end_s,
        "instants": instants_text(part.name, clock),
        "topics": part.to_json(),
        "facts": dict(external.facts),
    }


def write_invitation(
    run_dir: Path, part: Part, clock: MarketClock, external: ExternalPart, door: Door, address: str
) -> Path:
    """Write the invitation as external/ROLE.json of a run."""
    folder = run_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return write_json(folder / f"{part.name}.json", invitation(part, clock, external, door, address))


class Invitations:
    """A Watch that prints each invitation of a run once, when its door is open."""

    def __init__(self, watch: Watch, run_dir: Path, doors: Mapping[str, Door], console: Console) -> None:
        self._watch, self._folder, self._console = watch, run_dir / FOLDER, console
        self._waiting = list(doors)
        self._played = {name: f"{ALONE}{door.bus}" if door.bus else name for name, door in doors.items()}

    def __call__(self, now_s: int, states: Mapping[str, str]) -> None:
        """Pass the state on and print what is new."""
        for name in [name for name in self._waiting if states.get(name) == "awaiting"]:
            self._waiting.remove(name)
            path = self._folder / f"{self._played[name]}.json"
            show_invitation(self._console, json.loads(path.read_text(encoding="utf-8")), path)
        self._watch(now_s, states)


def wide(console: Console) -> Console:
    """Return a console for tables: a file or pipe has no width that they would have to fit."""
    return console if console.is_terminal else Console(highlight=False, width=200)


def show_invitation(console: Console, given: Mapping[str, Any], path: Path) -> None:
    """Print where and how to join."""
    topics = given["topics"]
    table = Table("topic", "as", "type", "unit", "carries", box=None, pad_edge=False, header_style="bold")
    for kind, label in (("writes", "writes to {}"), ("reads", "reads from {}")):
        for topic in topics[kind]:
            shown = ", ".join(topic["messages"])
            table.add_row(topic["name"], f"endpoint, {label.format(topic['partner'])}", "JSON", "", shown)
    for kind, label in (("publications", "publication"), ("subscriptions", "subscription")):
        for topic in topics[kind]:
            table.add_row(topic["name"], label, topic["type"], topic["unit"], topic["message"])
    console.print(
        f"[bold]waiting for an external {given['role']}[/bold], at most {given['join_limit_s']:g} s\n"
        f"broker     {given['broker']}\nkey        {given['key']}\n"
        f"transport  {given['transport']}\nall of it  {path}\n" + "\n".join(given["instants"]),
        soft_wrap=True,
    )
    wide(console).print(table)
