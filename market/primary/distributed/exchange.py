"""Numbered half-rounds over a channel that may lose, delay, repeat and reorder: the protocol, blind to the numbers.

A party has finished half-round h; it may finish h + 1 when it has every neighbour's packet of h. So neighbours are
never more than one half-round apart, and a party's last two packets are all that any neighbour can still need. Packets
carry what has arrived from their receiver, and what has not is sent again. What is computed is therefore the same
whatever the channel does; its faults cost slots, time steps of the channel, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import FederationError, InputError, Problem

Array = NDArray[np.float64]

# Codes of Packet.halt; above 0: that much less one is the number of an area that has fallen silent.
RUNNING, DECIDED, SETTLED, OUT_OF_SLOTS = 0, -1, -2, -3
NOTHING: Array = np.zeros(0)


@dataclass(frozen=True, slots=True, eq=False)
class Packet:
    """What one area sends a neighbour in a slot.

    half_round : whose values these are, 0 for a packet that has none and only shows that its sender lives
    seen : the highest half-round up to which the sender has all of the receiver's packets
    values : â of what the two share after an odd half of a round, ν̂ of the sender's copies after an even one
    verdict : maxima over areas while a decision is under way, else empty
    halt : 0 running, -1 has decided, -2 and all neighbours have its packets, -3 out of slots, k + 1 area k is silent
    clearing : number of the clearing, so that late packets of another one are not mistaken
    """

    sender: int
    receiver: int
    half_round: int
    seen: int
    values: Array
    verdict: Array
    halt: int = RUNNING
    clearing: int = 0


@dataclass(frozen=True, slots=True)
class Transport:
    """How an area deals with its channel.

    patience_slots : slots without a packet after which a neighbour counts as silent ; slot_limit : slots of a clearing
    resend_slots : slots after which a packet that nobody confirms is sent again; a fault-free channel takes 2
    farewell_slots : slots for which the last confirmations are repeated ; clearing : number of the clearing
    """

    patience_slots: int = 200
    slot_limit: int = 200_000
    resend_slots: int = 2
    farewell_slots: int = 10
    clearing: int = 0


def check_transport(transport: Transport) -> None:
    """Raise InputError for settings without meaning."""
    names = ("patience_slots", "slot_limit", "resend_slots", "farewell_slots")
    problems = [
        Problem("transport", name, getattr(transport, name), "1 or more")
        for name in names
        if getattr(transport, name) < 1
    ]
    if problems:
        raise InputError(problems)


@dataclass(slots=True)
class _Line:
    """One neighbour. got : packets that wait, by half-round ; told : slot in which each packet was last sent."""

    neighbour: int
    arrived: int = 0
    confirmed: int = 0
    heard: int = 0
    halt: int = RUNNING
    got: dict[int, Packet] = field(default_factory=dict)
    told: dict[int, int] = field(default_factory=dict)


class Exchange:
    """One area's end of all its lines. half : the last half-round it has finished ; slot : slots gone by.

    packets, floats : sent so far, repeated ones among them
    """

    def __init__(self, area: int, neighbours: Sequence[int], transport: Transport) -> None:
        check_transport(transport)
        self._area, self._transport = area, transport
        self._lines = [_Line(k) for k in neighbours]
        self._line = {line.neighbour: line for line in self._lines}
        self._kept: dict[int, tuple[Sequence[Array], Array]] = {}
        self.half = self.slot = self.packets = self.floats = 0

    def take(self, packets: Sequence[Packet]) -> None:
        """Begin a slot with what has arrived. Raises FederationError for packets that are not for this area."""
        self.slot += 1
        for packet in packets:
            line = self._line.get(packet.sender)
            if line is None or packet.receiver != self._area:
                raise FederationError(
                    f"area {self._area} was given a packet from area {packet.sender} to area {packet.receiver}; its "
                    f"neighbours are {sorted(self._line)}"
                )
            if packet.clearing != self._transport.clearing:
                continue
            line.heard = self.slot
            line.confirmed = max(line.confirmed, packet.seen)
            # What has once been said of an end is not taken back by a packet that comes late.
            if packet.halt != RUNNING and line.halt in (RUNNING, DECIDED):
                line.halt = packet.halt
            if packet.half_round > line.arrived:
                line.got[packet.half_round] = packet
            while line.arrived + 1 in line.got:
                line.arrived += 1

    @property
    def ready(self) -> bool:
        """Every neighbour's packet of the last half-round is here."""
        return all(line.arrived >= self.half for line in self._lines)

    def inputs(self) -> list[Packet]:
        """Return every neighbour's packet of the last half-round, none before the first."""
        return [line.got[self.half] for line in self._lines] if self.half else []

    def put(self, values: Sequence[Array], verdict: Array) -> None:
        """Finish the next half-round. values : for each neighbour."""
        self.half += 1
        self._kept[self.half] = values, verdict
        self._kept.pop(self.half - 2, None)
        for line in self._lines:
            line.got.pop(self.half - 1, None)
            line.told.pop(self.half - 2, None)

    def outgoing(self, halt: int) -> list[Packet]:
        """Return the packets of this slot: what neighbours need and have not confirmed, and a sign of life at least."""
        out = []
        for k, line in enumerate(self._lines):
            due = [h for h in sorted(self._kept) if h > line.confirmed and self._overdue(line, h)]
            for h in due:
                values, verdict = self._kept[h]
                line.told[h] = self.slot
                out.append(self._packet(line, h, values[k], verdict, halt))
            if not due:
                out.append(self._packet(line, 0, NOTHING, NOTHING, halt))
        self.packets += len(out)
        self.floats += sum(len(p.values) + len(p.verdict) for p in out)
        return out

    def _overdue(self, line: _Line, half: int) -> bool:
        told = line.told.get(half)
        return told is None or self.slot - told >= self._transport.resend_slots

    def _packet(self, line: _Line, half: int, values: Array, verdict: Array, halt: int) -> Packet:
        return Packet(
            self._area, line.neighbour, half, line.arrived, values, verdict, halt, self._transport.clearing
        )

    @property
    def settled(self) -> bool:
        """Every neighbour has confirmed all packets of this area."""
        return all(line.confirmed >= self.half for line in self._lines)

    def halts(self) -> list[int]:
        """Return what every neighbour has said of its end."""
        return [line.halt for line in self._lines]

    def silent(self) -> int | None:
        """Return a neighbour that has not been heard of for too long, though it had not ended or is still needed."""
        limit = self.slot - self._transport.patience_slots
        for line in self._lines:
            if line.heard < limit and (line.halt == RUNNING or line.arrived < self.half):
                return line.neighbour
        return None

    @property
    def forsaken(self) -> bool:
        """Some neighbour that has not confirmed all packets has been silent for too long."""
        limit = self.slot - self._transport.patience_slots
        return any(line.confirmed < self.half and line.heard < limit for line in self._lines)
