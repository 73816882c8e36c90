"""The bus over HELICS: targeted endpoints for messages, publications for states, rows to the recorder.

Every endpoint names its one destination and every state its readers, so that a federate waits for those it
reads from and for nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import helics as h
import numpy as np

from voltier.agents.messages import SCHEMA_VERSION, Message, encode
from voltier.agents.operator import Mail, Rows
from voltier.federates.border import read_message
from voltier.federates.codec import decode_rows, encode_rows
from voltier.federates.helics import Connection, Pair
from voltier.federates.helics_memory import publish_vector, read_vector
from voltier.federates.mailbox import Inbox, check_finite, split_post
from voltier.federates.part import STAMP
from voltier.federates.ports import SOUND, Channel
from voltier.federates.wiring import OBSERVED, RECORDER, Value, Wiring, role_of, unit_of, values_of, wire_time
from voltier.grid.errors import FederationError

# No operator may be further ahead of the recorder than this, so that what waits in its inbox stays small.
RECORDER_LAG_S = 3600.0
ORIGIN_TOPIC = f"{RECORDER}/origin_unix_s"
_ORIGIN = Value("origin_unix_s", "scalar", "s")


class HelicsBus:
    """An operator's bus. channel : what its mail to operators of its own role, which confer, suffers on its way.

    paced : whether the recorder will tell when time begins
    """

    def __init__(
        self,
        name: str,
        wiring: Wiring,
        connection: Connection,
        channel: Channel = SOUND,
        *,
        paced: bool = False,
    ) -> None:
        self.name, self._wiring, self._channel, self._paced = name, wiring, channel, paced
        self._inbox = Inbox()
        self.pair = Pair(name, connection)

    def join(self) -> None:
        """Register all topics of the operator, check them against the others', and go to time zero."""
        wiring, name, pair = self._wiring, self.name, self.pair
        self._to = {
            other: pair.writes_to(f"{name}/to/{other}", f"{other}/from/{name}")
            for other in (*wiring.correspondents(name), RECORDER)
        }
        self._from = {other: pair.reads_from(f"{name}/from/{other}") for other in wiring.writers(name)}
        for other in self._to:
            if role_of(other) == role_of(name):
                pair.disturb(f"{name}/to/{other}", self._channel)
        if not wiring.senders(name):
            # Nothing else would keep it from running to the end of the clock at once.
            pair.reads_from(f"{name}/from/{RECORDER}")
        self._states = {body: State(pair, name, body) for body in wiring.published(name)}
        self._observed = {body: _Observed(pair, body) for body in wiring.observed(name)}
        self._subscriptions = [Subscription(pair, sender, body) for sender, body in wiring.subscribed(name)]
        self._origin = pair.subscription(ORIGIN_TOPIC, _ORIGIN) if self._paced else None
        pair.start(lambda: [problem for item in self._subscriptions for problem in item.problems()])

    def advance(self, now_s: int, slot: int = 0) -> None:
        """Wait until a slot of simulated time now_s, when all mail sent before it has arrived."""
        self.pair.advance(now_s, slot)

    def collect(self) -> list[Mail]:
        """Return the mail that arrived since the last call, ordered by sender, then sent time."""
        for sender, endpoint in self._from.items():
            for sent, data in self.pair.receive(endpoint):
                self._inbox.put(sent, Mail(sender, self.name, read_message(sender, data)), newest_only=False)
        for subscription in self._subscriptions:
            arrived = subscription.read()
            if arrived is not None:
                sent, body = arrived
                self._inbox.put(sent, Mail(subscription.sender, self.name, body), newest_only=True)
        return self._inbox.take()

    def post(self, now_s: int, mail: Sequence[Mail], rows: Sequence[Rows], slot: int = 0) -> None:
        """Send mail to others and rows to the recorder."""
        self.pair.lose(self._channel.loss_at(self.name, now_s))
        messages, states = split_post(self._wiring, self.name, mail)
        for item in messages:
            check_finite(item.body)
            self.pair.send(self._to[item.receiver], encode(item.body))
        for kind, body in states.items():
            check_finite(body)
            self._states[kind].publish(body, wire_time(self.name, now_s, slot))
        for kind, observed in self._observed.items():
            observed.publish([item.body for item in mail if isinstance(item.body, kind)])
        if rows:
            self.pair.send(self._to[RECORDER], encode_rows(rows))

    def origin_unix_s(self) -> float:
        """Return the wall-clock time of simulated second 0 of a paced run, once the warm-up is over."""
        return float(h.helicsInputGetDouble(self._origin))

    def leave(self) -> None:
        """Take part no more."""
        self.pair.leave()


class RecorderBus:
    """The recorder's bus: rows of every operator. Nobody waits for the recorder unless it lags far behind.

    paced : the recorder says when time begins; then nobody is a minute ahead of it
    """

    def __init__(self, wiring: Wiring, connection: Connection, *, paced: bool = False) -> None:
        self._wiring, self._paced = wiring, paced
        self.pair = Pair(RECORDER, connection)

    def join(self) -> None:
        """Register an endpoint for each operator and go to time zero."""
        wiring, pair = self._wiring, self.pair
        self._from = {other: pair.reads_from(f"{RECORDER}/from/{other}") for other in wiring.names}
        for other in wiring.names:
            if not wiring.senders(other):
                pair.writes_to(f"{RECORDER}/to/{other}", f"{other}/from/{RECORDER}")
        if self._paced:
            self._origin = pair.publication(ORIGIN_TOPIC, _ORIGIN)
        else:
            pair.delay_output(RECORDER_LAG_S)
        pair.start(list)

    def advance(self, now_s: int) -> None:
        """Wait until all rows sent before simulated time now_s have arrived."""
        self.pair.advance(now_s)

    def collect_rows(self) -> list[Rows]:
        """Return the rows that arrived, in the order of acting."""
        parcels = [
            (sent, sender, data)
            for sender, endpoint in self._from.items()
            for sent, data in self.pair.receive(endpoint)
        ]
        parcels.sort(key=lambda parcel: parcel[:2])
        return [rows for _, _, data in parcels for rows in decode_rows(data)]

    def announce(self, origin_unix_s: float) -> None:
        """Tell everybody the wall-clock time of simulated second 0 of a paced run."""
        h.helicsPublicationPublishDouble(self._origin, origin_unix_s)

    def leave(self) -> None:
        """Take part no more."""
        self.pair.leave()


class State:
    """A message type as an operator publishes it; value "t_s" holds its t_s and the time of sending."""

    def __init__(self, pair: Pair, sender: str, body: type[Message]) -> None:
        self._values = [
            (value, _publication(pair, topic(sender, body, value.field), value)) for value in values_of(body)
        ]
        self._stamp = _publication(pair, topic(sender, body, STAMP.field), STAMP)

    def publish(self, body: Message, sent: float) -> None:
        """Publish a message, sent at a HELICS time [s]."""
        for value, publication in self._values:
            content = getattr(body, value.field)
            if value.shape == "vector":
                publish_vector(publication, content)
            else:
                h.helicsPublicationPublishDouble(publication, float(content))
        publish_vector(self._stamp, np.array([body.t_s, sent]))


class _Observed:
    """Fields of a message type for observers, joined over its receivers."""

    def __init__(self, pair: Pair, body: type[Message]) -> None:
        self._fields = {
            field: _publication(pair, topic(pair.name, body, field), Value(field, "vector", unit_of(field)))
            for field in OBSERVED[body]
        }

    def publish(self, bodies: Sequence[Message]) -> None:
        if not bodies:
            return
        for field, publication in self._fields.items():
            publish_vector(publication, np.concatenate([getattr(body, field) for body in bodies]))


class Subscription:
    """The reader's end of a State."""

    def __init__(self, pair: Pair, sender: str, body: type[Message]) -> None:
        self.sender, self._body = sender, body
        self._inputs = {
            value: pair.subscription(topic(sender, body, value.field), value)
            for value in (*values_of(body), STAMP)
        }
        self._stamp = self._inputs[STAMP]

    def problems(self) -> list[str]:
        """Say what is wrong with the sources. Units must agree: HELICS converts those of scalars only."""
        found = []
        for value, source in self._inputs.items():
            name = topic(self.sender, self._body, value.field)
            shape, unit = h.helicsInputGetPublicationType(source), h.helicsInputGetInjectionUnits(source)
            expected = "double_vector" if value.shape == "vector" else "double"
            if shape in ("", "any"):
                found.append(f"nobody publishes {name}")
            elif shape != expected:
                found.append(f"{name} is published as {shape}, expected {expected}")
            elif unit != value.unit:
                found.append(
                    f"{name} is published in {unit or 'no unit'}, expected {value.unit or 'no unit'}"
                )
        return found

    def read(self) -> tuple[float, Message] | None:
        """Return (sent time, message) if something new was published."""
        if not h.helicsInputIsUpdated(self._stamp):
            return None
        content: dict[str, Any] = {}
        for value, source in self._inputs.items():
            if value.shape == "vector":
                content[value.field] = read_vector(source).astype(value.dtype)
            else:
                content[value.field] = h.helicsInputGetDouble(source)
        stamp = content.pop(STAMP.field).tolist()
        if len(stamp) != 2:
            name = topic(self.sender, self._body, STAMP.field)
            raise FederationError(f"{name} has {len(stamp)} numbers, expected its t_s and the HELICS time")
        t_s, sent = stamp
        return sent, self._body(t_s=int(t_s), **content)


def topic(sender: str, body: type[Message], field: str) -> str:
    """Return the public name of a value."""
    return f"{sender}/{body.__name__}/{field}"


def _publication(pair: Pair, name: str, value: Value) -> Any:
    publication = pair.publication(name, value)
    h.helicsPublicationSetTag(publication, "schema_version", str(SCHEMA_VERSION))
    return publication
