"""Sorting mail: what a decision may send, and what its receiver's next one sees. The same in both loops."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
import numpy as np

from voltier.agents.messages import Array, Index, Message
from voltier.agents.operator import Mail, Rows
from voltier.federates.wiring import Wiring
from voltier.grid.errors import FederationError


class Inbox:
    """Mail waiting for one operator: every message from endpoints, the newest of each published type."""

    def __init__(self) -> None:
        self._messages: list[tuple[str, float, Mail]] = []
        self._states: dict[tuple[str, type[Message]], tuple[float, Mail]] = {}

    def put(self, sent: float, mail: Mail, *, newest_only: bool) -> None:
        """Take in one mail that was sent at (wire) time sent."""
        if newest_only:
            self._states[mail.sender, type(mail.body)] = sent, mail
        else:
            self._messages.append((mail.sender, sent, mail))

    def take(self) -> list[Mail]:
        """Return and forget all mail: by sender, sent time and type, then as it was posted."""
        entries = self._messages + [(mail.sender, sent, mail) for sent, mail in self._states.values()]
        self._messages, self._states = [], {}
        entries.sort(key=lambda entry: (entry[0], entry[1], type(entry[2].body).__name__))
        return [mail for _, _, mail in entries]


def split_post(
    wiring: Wiring, sender: str, mail: Sequence[Mail]
) -> tuple[list[Mail], dict[type[Message], Message]]:
    """Part an operator's mail into messages and published states.

    Raises FederationError for mail in another's name, without a route, or for a state that its readers would
    not all see alike: it must be the same object, posted once to each of them.
    """
    messages: list[Mail] = []
    states: dict[type[Message], list[Mail]] = {}
    for item in mail:
        if item.sender != sender:
            raise FederationError(f"{sender} sends mail in the name of {item.sender}")
        kind = type(item.body)
        if wiring.carrier(sender, item.receiver, kind) == "endpoint":
            messages.append(item)
        else:
            states.setdefault(kind, []).append(item)
    for kind, items in states.items():
        readers = wiring.readers(sender, kind)
        if sorted(item.receiver for item in items) != sorted(readers):
            raise FederationError(f"{sender} must post {kind.__name__} once to each of {', '.join(readers)}")
        if any(item.body is not items[0].body for item in items):
            raise FederationError(
                f"{sender} posts {kind.__name__} with different content to different readers"
            )
    return messages, {kind: items[0].body for kind, items in states.items()}


def as_received(body: Message) -> Message:
    """Return a copy of a message as the wire would deliver it: own arrays, in the types of the fields.

    Raises FederationError for a number that is not finite, which JSON cannot carry.
    """
    arrays: dict[str, Any] = {
        name: np.array(getattr(body, name), dtype=dtype, ndmin=1) for name, dtype in _array_fields(type(body))
    }
    check_finite(body)
    return msgspec.structs.replace(body, **arrays) if arrays else body


def check_finite(body: Message) -> None:
    """Raise FederationError if a number of the message is not finite."""
    for name in _number_fields(type(body)):
        # A sum is finite if all its terms are, short of an overflow that no power or price comes near.
        if not np.isfinite(np.sum(getattr(body, name))):
            raise FederationError(
                f"{type(body).__name__}.{name} at {body.t_s} s holds a number that is not finite"
            )


def rows_as_received(rows: Rows) -> Rows:
    """Return a copy of rows that the sender can no longer change."""
    return Rows(
        rows.table,
        rows.t_s,
        {
            name: np.array(values) if isinstance(values, np.ndarray) else list(values)
            for name, values in rows.columns.items()
        },
    )


@cache
def _array_fields(kind: type[Message]) -> tuple[tuple[str, type], ...]:
    dtypes = ((Array, np.float64), (Index, np.int64))
    fields = msgspec.structs.fields(kind)
    return tuple((field.name, dtype) for field in fields for array, dtype in dtypes if field.type == array)


@cache
def _number_fields(kind: type[Message]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(kind) if field.type in (float, Array))
