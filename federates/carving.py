"""One secondary operator taken out of a shard: its mail apart from the others', their answers together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from voltier.agents.messages import (
    Array,
    Attack,
    Index,
    Injections,
    Message,
    PrimarySchedule,
    SmaBids,
    SmaMeters,
    SmaSchedule,
    SmoBids,
)
from voltier.agents.operator import Mail, Operator, Outbox
from voltier.federates.wiring import Wiring, role_of

ALONE = "smo.bus"
"""What the name of an operator that was taken out begins with; the name of its bus follows."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Who is taken out. smo, sma : its position and its agents' in the run; row : its place in the shard."""

    smo: int
    sma: Index
    row: int


class CarvedOperator:
    """A shard of which somebody outside plays one operator; to all others it is still one."""

    def __init__(self, ours: Operator, theirs: Operator, cut: Cut) -> None:
        self.name = ours.name
        self._ours, self._theirs, self._cut = ours, theirs, cut

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Let both act on their rows of the mail, and join what they say."""
        apart = [self._part(mail.body) for mail in inbox]
        kept = [
            replace(mail, body=rest) for mail, (rest, _) in zip(inbox, apart, strict=True) if rest is not None
        ]
        given = [
            replace(mail, receiver=self._theirs.name, body=taken)
            for mail, (_, taken) in zip(inbox, apart, strict=True)
            if taken is not None
        ]
        ours, theirs = self._ours.decide(now_s, kept), self._theirs.decide(now_s, given)
        pieces: dict[tuple[str, type[Message]], list[Message]] = {}
        for item in (*ours.mail, *theirs.mail):
            pieces.setdefault((item.receiver, type(item.body)), []).append(item.body)
        mail = [Mail(self.name, to, _joined(bodies)) for (to, _), bodies in pieces.items()]
        return Outbox(mail, [*ours.rows, *theirs.rows])

    def _part(self, body: Message) -> tuple[Message | None, Message | None]:
        """Return what of a message the others hear, and what the one outside hears; None for nothing."""
        cut = self._cut
        if isinstance(body, SmaBids):
            here, shard = np.isin(body.sma, cut.sma), np.arange(len(body.p0_phase_kw)) == cut.row
            return _rows(body, ~here, ~shard), _rows(body, here, shard)
        if isinstance(body, SmaMeters):
            here = np.isin(body.sma, cut.sma)
            return _rows(body, ~here), _rows(body, here)
        if isinstance(body, PrimarySchedule):
            here = body.smo == cut.smo
            return _rows(body, ~here), _rows(body, here)
        if isinstance(body, Attack):
            return body, body if cut.smo in body.smo else None
        return body, body


def part_name(given: str) -> str:
    """Return the name of a part as the bus has it; "smo:35" is how people write it for the operator at bus 35."""
    return given.replace("smo:", ALONE, 1) if given.startswith("smo:") else given


def wiring_alone(wiring: Wiring, shard: str, bus: str) -> Wiring:
    """Return the wiring that an operator taken out of a shard sees: itself, its own consumers, and who is one."""
    own = f"cmo.{shard.partition('.')[2]}"
    others = [name for name in wiring.names if role_of(name) not in ("smo", "cmo")]
    return Wiring([*others, own, f"{ALONE}{bus}"], wiring.routes)


def _rows(body: Message, here: np.ndarray, phases: np.ndarray | None = None) -> Message:
    """Return some rows of a message. phases : rows of the columns by phase, if there are others."""
    parts: dict[str, Any] = {
        item.name: getattr(body, item.name)[phases if phases is not None and "_phase_" in item.name else here]
        for item in msgspec.structs.fields(type(body))
        if item.type in (Array, Index)
    }
    return msgspec.structs.replace(body, **parts)


def _joined(bodies: Sequence[Message]) -> Message:
    """Return the rows of all in the order of their index."""
    first = bodies[0]
    if len(bodies) == 1:
        return first
    names = [item.name for item in msgspec.structs.fields(type(first)) if item.type in (Array, Index)]
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(body, name) for body in bodies]) for name in names
    }
    index = {SmoBids: "smo", SmaSchedule: "sma", Injections: "bus"}[type(first)]
    order = np.argsort(columns[index], kind="stable")
    return msgspec.structs.replace(first, **{name: values[order] for name, values in columns.items()})
