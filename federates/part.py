"""The part that one operator has in a federation, as somebody outside must play it: topics, units, instants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from voltier.agents.clock import MINUTE_S, MarketClock
from voltier.agents.messages import Message
from voltier.federates.wiring import RECORDER, Value, Wiring, role_of, values_of, wire_time

STAMP = Value("t_s", "vector", "s")
"""Beside the fields of a published message: its t_s, and the HELICS time at which it was sent [s]."""

_HELICS_TYPE = {"scalar": "double", "vector": "vector"}


@dataclass(frozen=True, slots=True)
class MessageTopic:
    """A targeted, global HELICS endpoint. partner : endpoint at the other end; messages : types that pass."""

    name: str
    partner: str
    messages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ValueTopic:
    """A HELICS value. type : "double" or "vector"; unit : as HELICS spells it; message : of which it is a field."""

    name: str
    type: str
    unit: str
    message: str


@dataclass(frozen=True, slots=True)
class Part:
    """Everything that a federate in the place of an operator registers, and when it acts.

    writes, reads : endpoints by which it sends and receives JSON messages; publications, subscriptions : values;
    rows_to : endpoint for table rows, which nobody has to send.
    """

    name: str
    writes: tuple[MessageTopic, ...]
    reads: tuple[MessageTopic, ...]
    publications: tuple[ValueTopic, ...]
    subscriptions: tuple[ValueTopic, ...]
    rows_to: MessageTopic

    def to_json(self) -> dict[str, Any]:
        """Return the part as plain dicts and lists."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ExternalPart:
    """What only the case knows of a part that somebody outside plays.

    facts : the rows it is about, for its author to read. rows : "MESSAGE>receiver" → the exact content of the
    message's index. n_bus : size of the feeder's bus table. n_smo : operators of the shard, each of which has a row in
    the columns by phase of SmaBids. survives : whether the market goes on, on what was said last, when the federate is
    gone.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    rows: Mapping[str, Sequence[int]] = field(default_factory=dict)
    n_bus: int | None = None
    n_smo: int | None = None
    survives: bool = False


def part_of(name: str, wiring: Wiring) -> Part:
    """Return the part of an operator."""
    writes = tuple(
        MessageTopic(f"{name}/to/{other}", f"{other}/from/{name}", _messages(wiring, name, other))
        for other in wiring.correspondents(name)
    )
    reads = [
        MessageTopic(f"{name}/from/{other}", f"{other}/to/{name}", _messages(wiring, other, name))
        for other in wiring.writers(name)
    ]
    if not wiring.senders(name):
        reads.append(MessageTopic(f"{name}/from/{RECORDER}", f"{RECORDER}/to/{name}", ()))
    return Part(
        name=name,
        writes=writes,
        reads=tuple(reads),
        publications=tuple(t for body in wiring.published(name) for t in _values(name, body)),
        subscriptions=tuple(t for sender, body in wiring.subscribed(name) for t in _values(sender, body)),
        rows_to=MessageTopic(f"{name}/to/{RECORDER}", f"{RECORDER}/from/{name}", ("Rows",)),
    )


def instants_text(name: str, clock: MarketClock) -> list[str]:
    """Say at which HELICS times an operator acts: the first ones, their pattern, the last."""
    times = [wire_time(name, now_s) for now_s in clock.instants(role_of(name))]
    shown = ", ".join(f"{time_s:g}" for time_s in times[:8])
    return [
        f"HELICS time = simulated second + {wire_time('pmo', 0):g}; the first minute begins at {MINUTE_S} s",
        f"acts {len(times)} times, at HELICS times {shown}{', ...' if len(times) > 8 else ''} to {times[-1]:g} s",
    ]


def period_of(name: str, clock: MarketClock) -> tuple[float, float] | None:
    """Return (period, offset) [s] of an operator's HELICS times if they are evenly spaced."""
    times = [wire_time(name, now_s) for now_s in clock.instants(role_of(name))]
    gaps = {round(b - a, 6) for a, b in pairwise(times)}
    if len(gaps) != 1:
        return None
    period_s = gaps.pop()
    return period_s, times[0] % period_s


def expected(name: str, wiring: Wiring, clock: MarketClock, now_s: int) -> tuple[tuple[str, str], ...]:
    """Return (message type, role of the receiver) of all that an operator must send at an instant."""
    minute_s = now_s // MINUTE_S * MINUTE_S
    match role_of(name):
        case "wholesale":
            return (("Conditions", "pmo"),)
        case "smo" if minute_s == clock.end_s or (clock.is_primary(minute_s) and now_s == minute_s):
            taker = "area" if any(role_of(other) == "area" for other in wiring.names) else "pmo"
            return (("SmoBids", taker),)
        case "smo":
            return (("SmaSchedule", "cmo"),)
        case "pmo" if minute_s < clock.end_s:
            return (("PrimarySchedule", "smo"), ("ImportSchedule", "resilience"))
        case "cmo" if minute_s < 0:
            return (("SmaBids", "smo"),)
        case "cmo":
            return (("SmaBids", "smo"), ("SmaMeters", "smo"), ("Injections", "grid"))
        case "grid":
            return (("Measurement", "pmo"), ("Measurement", "resilience"), ("Taps", "pmo"))
    return ()


def _messages(wiring: Wiring, sender: str, receiver: str) -> tuple[str, ...]:
    ends = role_of(sender), role_of(receiver)
    return tuple(
        route.body.__name__
        for route in wiring.routes
        if (route.sender, route.receiver) == ends and route.carrier == "endpoint"
    )


def _values(sender: str, body: type[Message]) -> tuple[ValueTopic, ...]:
    return tuple(
        ValueTopic(
            f"{sender}/{body.__name__}/{value.field}", _HELICS_TYPE[value.shape], value.unit, body.__name__
        )
        for value in (*values_of(body), STAMP)
    )
