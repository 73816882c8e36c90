"""What a federate from outside has registered, held against the part that it is to play."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voltier.federates.part import Part

GATE = "voltier"
"""Name of the gate's own federates."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. severe : the outsider cannot take part with it."""

    text: str
    severe: bool


def examine(ask: Callable[[str, str], Any], part: Part, wrong: Sequence[str]) -> list[Finding]:
    """Return all that is wrong or odd. ask : HELICS query (target, question); wrong : what is known to be wrong."""
    found = [Finding(text, severe=True) for text in wrong]
    loose = ask("root", "unconnected_interfaces")
    found += [
        Finding(f"it subscribes to {name}, which nobody publishes", severe=True)
        for name in loose.get("unknown_publications", [])
    ]
    found += [
        Finding(f"it writes to {name}, which is nobody's endpoint", severe=True)
        for name in loose.get("unknown_endpoints", [])
    ]
    graph = ask("root", "data_flow_graph")
    ours, theirs = _sides(graph)
    names = {
        (item["federate"], item["handle"]): item["key"]
        for federate in ours
        for item in federate.get("publications", [])
    }
    units = {topic.name: topic.unit for topic in part.subscriptions}
    known = {topic.name for topic in (*part.writes, *part.reads, *part.publications, part.rows_to)}
    read: set[str] = set()
    for federate in theirs:
        given = _given_units(ask, federate)
        for source, unit in zip(_sources(federate, names), given, strict=False):
            read.add(source)
            if source in units and unit not in ("", units[source]):
                expected = units[source] or "no unit"
                found.append(Finding(f"it reads {source} in {unit}, expected {expected}", severe=True))
        found += _strange(federate, known)
    found += [
        Finding(f"it does not read {topic.name}", severe=False)
        for topic in part.subscriptions
        if topic.name not in read
    ]
    return found


def _sides(graph: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Part the federates of a data-flow graph into the gate's and the outsider's."""
    federates = [federate for core in graph.get("cores", []) for federate in core.get("federates", [])]
    ours = [item for item in federates if item["attributes"]["name"].partition(".")[0] == GATE]
    return ours, [item for item in federates if item not in ours]


def _sources(federate: Mapping[str, Any], names: Mapping[tuple[int, int], str]) -> Iterator[str]:
    """Name the first source of each input, "" for one without."""
    for item in federate.get("inputs", []):
        sources = [names.get((at["federate"], at["handle"]), "") for at in item.get("sources", [])]
        yield sources[0] if sources else ""


def _given_units(ask: Callable[[str, str], Any], federate: Mapping[str, Any]) -> list[str]:
    details = ask(federate["attributes"]["name"], "interface_details")
    return [item.get("units", "") for item in details.get("inputs", [])]


def _strange(federate: Mapping[str, Any], known: set[str]) -> Iterator[Finding]:
    for kind in ("endpoints", "publications"):
        for item in federate.get(kind, []):
            if item["key"] not in known:
                yield Finding(f"{item['key']} is no topic of this part", severe=False)
