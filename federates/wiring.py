"""Who may write to whom, on which carrier and in which unit: the one table that both loops and the HELICS
topics follow.

Mail travels on one of two carriers. On an *endpoint* every message arrives. On a *publication* a message is a
set of HELICS values `SENDER/TYPE/field`, each with its unit: a state, of which the receiver sees the newest
only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from voltier.agents.clock import WARM_UP_S
from voltier.agents.messages import (
    Alarm,
    AreaClearing,
    AreaMeters,
    AreaPacket,
    Array,
    Attack,
    Conditions,
    DeviceReadings,
    DeviceSetpoints,
    Forecast,
    ImportSchedule,
    Index,
    Injections,
    Measurement,
    Message,
    PrimarySchedule,
    SmaBids,
    SmaMeters,
    SmaSchedule,
    SmoBids,
    Taps,
)
from voltier.grid.errors import FederationError

Carrier = Literal["endpoint", "publication"]
RECORDER = "recorder"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Route:
    """One permitted kind of mail. sender, receiver : roles, "smo" stands for every "smo.k"."""

    sender: str
    receiver: str
    body: type[Message]
    carrier: Carrier = "endpoint"


@dataclass(frozen=True, slots=True)
class Value:
    """A field of a message as a HELICS value. unit : as HELICS spells it; dtype : of the reader's array."""

    field: str
    shape: Literal["scalar", "vector"]
    unit: str
    dtype: type = np.float64


ROUTES = (
    Route("wholesale", "pmo", Conditions, "publication"),
    Route("wholesale", "cmo", Conditions, "publication"),
    Route("wholesale", "smo", Conditions),
    Route("wholesale", "resilience", Conditions),
    Route("wholesale", "cmo", Forecast),
    Route("cmo", "smo", SmaBids),
    Route("cmo", "smo", SmaMeters),
    Route("cmo", "grid", Injections, "publication"),
    Route("smo", "pmo", SmoBids),
    Route("smo", "cmo", SmaSchedule),
    Route("smo", "grid", Injections, "publication"),
    # With a federated solver the SMOs bid to their areas, and the primary operator sees what came of it.
    Route("wholesale", "area", Conditions, "publication"),
    Route("grid", "area", Taps, "publication"),
    Route("smo", "area", SmoBids),
    Route("area", "area", AreaPacket),
    Route("area", "pmo", AreaClearing),
    Route("area", "pmo", AreaMeters),
    Route("pmo", "smo", PrimarySchedule),
    Route("pmo", "resilience", ImportSchedule),
    Route("grid", "resilience", Measurement, "publication"),
    Route("grid", "bulk", Measurement, "publication"),
    # The primary operator meters a whole period: it needs every minute, not the newest.
    Route("grid", "pmo", Measurement),
    Route("grid", "pmo", Taps, "publication"),
    Route("cmo", "device", DeviceSetpoints),
    Route("device", "cmo", DeviceReadings),
    Route("resilience", "pmo", Alarm),
    Route("resilience", "smo", Attack),
)

# Published for observers, who need no place in the market: the parts for all receivers, one after the other.
OBSERVED: dict[type[Message], tuple[str, ...]] = {PrimarySchedule: ("smo", "dlmp_p_usd_per_kwh")}

# Operators of one offset whose mail touches act apart on the wire: HELICS leaves it open whether a value sent at an
# instant is seen at the same instant, and here it must not be. Receivers come first, but for the attacker's
# commands, which bite in the minute they are given: resilience acts just before smo; and devices outside are told
# just after cmo. The recorder reads half a minute before its minute, when nobody acts.
_WIRE_DELAY_S = {"resilience": -0.25, "wholesale": 0.5, "area": -0.4, "device": 0.25, RECORDER: -30.0}

# Areas confer in the time between the wholesale price and the primary operator's instant.
SLOT_S = 1e-5
MOST_SLOTS = 39_000

_UNIT_OF_SUFFIX = {
    "_usd_per_kwh": "$/kWh",
    "_kw": "kW",
    "_kvar": "kvar",
    "_c": "degC",
    "_s": "s",
}


def role_of(name: str) -> str:
    """Return the role of an operator: "smo" for "smo.3"."""
    return name.partition(".")[0]


def wire_time(name: str, now_s: int, slot: int = 0) -> float:
    """Return the HELICS time of a slot of an operator's instant; the warm-up minute starts at zero.

    Raises FederationError for a conference of operators that would run into the next instant.
    """
    if slot > MOST_SLOTS:
        raise FederationError(f"{name} still confers after {MOST_SLOTS} slots of its instant at {now_s} s")
    return now_s - WARM_UP_S + _WIRE_DELAY_S.get(role_of(name), 0.0) + slot * SLOT_S


def values_of(body: type[Message]) -> tuple[Value, ...]:
    """Return the values that carry a message type, beside the time stamp; arrays are vectors."""
    fields = [field for field in msgspec.structs.fields(body) if field.name not in ("t_s", "version")]
    return tuple(
        Value(
            field.name,
            "vector" if field.type in (Array, Index) else "scalar",
            unit_of(field.name),
            np.int64 if field.type == Index else np.float64,
        )
        for field in fields
    )


def unit_of(field: str) -> str:
    """Return the unit that a field's name ends with, as HELICS spells it; "" for counts and ratios."""
    return next((unit for suffix, unit in _UNIT_OF_SUFFIX.items() if field.endswith(suffix)), "")


class Wiring:
    """The routes between the operators of a federation. names : every operator, "smo.0", "smo.1" ...."""

    def __init__(self, names: Sequence[str], routes: Sequence[Route] = ROUTES) -> None:
        self.names = tuple(names)
        self.routes = tuple(routes)
        self._carrier = {(route.sender, route.receiver, route.body): route.carrier for route in routes}

    def carrier(self, sender: str, receiver: str, body: type[Message]) -> Carrier:
        """Say how a kind of mail travels. Raises FederationError if there is no such route or receiver."""
        carrier = self._carrier.get((role_of(sender), role_of(receiver), body))
        if carrier is None:
            raise FederationError(f"{sender} sends {body.__name__} to {receiver}, but there is no such route")
        if receiver not in self.names:
            raise FederationError(
                f"{sender} sends {body.__name__} to {receiver}, which takes no part in this run"
            )
        return carrier

    def correspondents(self, sender: str) -> list[str]:
        """Name the operators to whom the sender has an endpoint route."""
        roles = {route.receiver for route in self._from(sender) if route.carrier == "endpoint"}
        return [name for name in self.names if role_of(name) in roles and name != sender]

    def writers(self, receiver: str) -> list[str]:
        """Name the operators that have an endpoint route to the receiver."""
        roles = {route.sender for route in self._to(receiver) if route.carrier == "endpoint"}
        return [name for name in self.names if role_of(name) in roles and name != receiver]

    def published(self, sender: str) -> list[type[Message]]:
        """Return the message types that the sender publishes as values."""
        return list(
            dict.fromkeys(route.body for route in self._from(sender) if route.carrier == "publication")
        )

    def observed(self, sender: str) -> list[type[Message]]:
        """Return the message types of the sender that observers can follow."""
        return list(dict.fromkeys(route.body for route in self._from(sender) if route.body in OBSERVED))

    def readers(self, sender: str, body: type[Message]) -> list[str]:
        """Name the operators that subscribe to a message type of the sender."""
        routes = [route for route in self._from(sender) if route.body is body]
        roles = {route.receiver for route in routes if route.carrier == "publication"}
        return [name for name in self.names if role_of(name) in roles]

    def subscribed(self, receiver: str) -> list[tuple[str, type[Message]]]:
        """Return (sender, message type) of every value that the receiver reads."""
        kinds = [(route.sender, route.body) for route in self._to(receiver) if route.carrier == "publication"]
        return [(name, body) for name in self.names for role, body in kinds if role_of(name) == role]

    def senders(self, receiver: str) -> list[str]:
        """Name everyone whom the receiver may have to wait for; the recorder waits for all."""
        if receiver == RECORDER:
            return list(self.names)
        roles = {route.sender for route in self._to(receiver)}
        return [name for name in self.names if role_of(name) in roles and name != receiver]

    def _from(self, sender: str) -> list[Route]:
        return [route for route in self.routes if route.sender == role_of(sender)]

    def _to(self, receiver: str) -> list[Route]:
        return [route for route in self.routes if route.receiver == role_of(receiver)]
