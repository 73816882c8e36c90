"""The bus over HELICS: one federate per operator, targeted endpoints for messages, publications for states.

The only module that imports the HELICS library. Choices, measured with benchmarks/bench_bus.py: endpoints name their
destinations, so that each federate waits for those it reads from and for nobody else; federates are uninterruptible,
so that mail does not wake them before their next instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import helics as h
import numpy as np
from voltier.agents.messages import SCHEMA_VERSION, Message, decode, encode
from voltier.agents.operator import Mail, Rows
from voltier.federates.codec import decode_rows, encode_rows
from voltier.federates.mailbox import Inbox, check_finite, split_post
from voltier.federates.wiring import OBSERVED, RECORDER, Value, Wiring, unit_of, values_of, wire_time
from voltier.grid.errors import FederationError

Transport = Literal["zmq", "tcp", "inproc"]

# No operator may be further ahead of the recorder than this, so that what waits in its inbox stays small.
RECORDER_LAG_S = 3600.0
# A HELICS core over tcp drops longer messages without a word; ours are some 100 kB.
TCP_MESSAGE_BYTES = 4_000_000
_TIME_TOLERANCE_S = 1e-6


class BusLostError(FederationError):
    """The bus broke down, as a rule because somebody else did."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the broker is. broker : address, or name for inproc; key : must be the broker's; interface : own address.

    core : name of a core of this process to share (inproc), else a new core is made.
    """

    transport: Transport
    broker: str
    key: str
    interface: str = ""
    core: str = ""

    def core_options(self, federates: int) -> str:
        """Return the HELICS options of a core with so many federates."""
        options = [f"--federates={federates}", f"--brokerkey={self.key}", "--loglevel=warning"]
        options.append(
            f"--broker={self.broker}" if self.transport == "inproc" else f"--broker_address={self.broker}"
        )
        return " ".join(options + network_options(self.transport, self.interface))


def network_options(transport: Transport, interface: str) -> list[str]:
    """Return the HELICS options for sockets of a broker or core."""
    options = [f"--max_size={TCP_MESSAGE_BYTES}"] if transport == "tcp" else []
    if interface and transport != "inproc":
        options.append(f"--localinterface={interface if transport == 'tcp' else 'tcp://' + interface}")
    return options


class Broker:
    """A HELICS broker in this process. Raises FederationError if it cannot be started, e.g. the port is taken."""

    def __init__(
        self, transport: Transport, federates: int, key: str, *, interface: str = "", port: int = 0
    ) -> None:
        options = [f"--federates={federates}", f"--brokerkey={key}", "--loglevel=warning"]
        options += network_options(transport, interface) + ([f"--localport={port}"] if port else [])
        try:
            self._broker = h.helicsCreateBroker(transport, "", " ".join(options))
        except h.HelicsException as error:
            raise FederationError(f"the HELICS broker does not start: {error}") from error
        if not h.helicsBrokerIsConnected(self._broker):
            raise FederationError(f"the HELICS broker does not start on port {port}; is it taken?")
        inproc = transport == "inproc"
        self.address: str = (h.helicsBrokerGetIdentifier if inproc else h.helicsBrokerGetAddress)(
            self._broker
        )

    def wait(self, timeout_s: float) -> bool:
        """Wait until all federates have left; return whether they have."""
        return bool(h.helicsBrokerWaitForDisconnect(self._broker, int(timeout_s * 1000)))

    def close(self) -> None:
        """End the broker; federates that are still there get a BusLostError."""
        h.helicsBrokerDisconnect(self._broker)
        h.helicsBrokerFree(self._broker)


def shared_core(connection: Connection, name: str, federates: int) -> Any:
    """Make a core that all federates of this process share."""
    return h.helicsCreateCore(connection.transport, name, connection.core_options(federates))


class HelicsFederate:
    """What operators and the recorder have in common: a HELICS federate and its way through time."""

    uninterruptible = True

    def __init__(self, name: str, wiring: Wiring, connection: Connection) -> None:
        self.name = name
        self._wiring = wiring
        self._endpoints: list[str] = []
        self._limit = TCP_MESSAGE_BYTES if connection.transport == "tcp" else 0
        info = h.helicsCreateFederateInfo()
        h.helicsFederateInfoSetCoreTypeFromString(info, connection.transport)
        if connection.core:
            h.helicsFederateInfoSetCoreName(info, connection.core)
        else:
            h.helicsFederateInfoSetCoreInitString(info, connection.core_options(federates=1))
        h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_UNINTERRUPTIBLE, self.uninterruptible)
        h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_TERMINATE_ON_ERROR, True)
        try:
            self.federate = h.helicsCreateCombinationFederate(name, info)
        except h.HelicsException as error:
            raise BusLostError(
                f"{name} cannot join the HELICS broker at {connection.broker}: {error}"
            ) from error
        finally:
            h.helicsFederateInfoFree(info)

    def endpoint(self, name: str, destination: str = "") -> Any:
        """Register an endpoint; destination : the only endpoint it writes to."""
        endpoint = h.helicsFederateRegisterGlobalTargetedEndpoint(self.federate, name, "")
        self._endpoints.append(name)
        if destination:
            h.helicsEndpointAddDestinationTarget(endpoint, destination)
        return endpoint

    def enter(self, problems: list[str]) -> None:
        """Go on from initialising to time zero, or take the federation down if this federate is wired wrongly."""
        if problems:
            text = f"{self.name} is wired wrongly: " + "; ".join(problems)
            h.helicsFederateGlobalError(self.federate, 3, text)
            raise FederationError(text)
        self.call(h.helicsFederateEnterExecutingMode)

    def unconnected(self) -> list[str]:
        """Say which endpoints have no other end, as far as HELICS knows. To be asked while initialising."""
        query = h.helicsCreateQuery(self.name, "unconnected_interfaces")
        connected = set(h.helicsQueryExecute(query, self.federate)["connected_endpoints"])
        h.helicsQueryFree(query)
        alone = [name for name in self._endpoints if name not in connected]
        return [f"nobody is at the other end of {name}" for name in alone]

    def advance(self, now_s: int) -> None:
        """Wait until simulated time now_s, when all that was sent before has arrived."""
        time_s = wire_time(self.name, now_s)
        granted_s = self.call(h.helicsFederateRequestTime, time_s)
        if abs(granted_s - time_s) > _TIME_TOLERANCE_S:
            raise BusLostError(f"{self.name} asked for HELICS time {time_s} s and was granted {granted_s} s")

    def call(self, function: Any, *arguments: Any) -> Any:
        """Call HELICS with this federate."""
        try:
            return function(self.federate, *arguments)
        except h.HelicsException as error:
            raise BusLostError(f"{self.name} lost the bus: {error}") from error

    def send(self, endpoint: Any, data: bytes) -> None:
        """Send bytes from an endpoint to its destination."""
        if self._limit and len(data) > self._limit:
            raise FederationError(
                f"{self.name} sends {len(data)} bytes at once; over tcp {self._limit} pass, use zmq"
            )
        h.helicsEndpointSendBytes(endpoint, data)

    def receive(self, endpoint: Any) -> list[tuple[float, bytes]]:
        """Return (sent time, bytes) of all that waits at an endpoint, in the order of sending."""
        found = []
        while h.helicsEndpointHasMessage(endpoint):
            message = h.helicsEndpointGetMessage(endpoint)
            found.append((h.helicsMessageGetTime(message), h.helicsMessageGetBytes(message)))
        return found

    def leave(self) -> None:
        """Leave the federation in good order."""
        h.helicsFederateDisconnect(self.federate)
        h.helicsFederateFree(self.federate)


class HelicsBus(HelicsFederate):
    """An operator's bus."""

    def join(self) -> None:
        """Register all topics of the operator, check them against the others', and go to time zero."""
        wiring, name = self._wiring, self.name
        self._inbox = Inbox()
        self._to = {
            other: self.endpoint(f"{name}/to/{other}", f"{other}/from/{name}")
            for other in wiring.correspondents(name)
        }
        self._from = {other: self.endpoint(f"{name}/from/{other}") for other in wiring.writers(name)}
        self._to_recorder = self.endpoint(f"{name}/to/{RECORDER}", f"{RECORDER}/from/{name}")
        if not wiring.senders(name):
            self.endpoint(f"{name}/from/{RECORDER}")
        self._states = {body: _State(self, body) for body in wiring.published(name)}
        self._observed = {body: _Observed(self, body) for body in wiring.observed(name)}
        self._subscriptions = [_Subscription(self, sender, body) for sender, body in wiring.subscribed(name)]
        self.call(h.helicsFederateEnterInitializingMode)
        problems = [problem for item in self._subscriptions for problem in item.problems()]
        self.enter(problems + self.unconnected())

    def collect(self) -> list[Mail]:
        """Return the mail that arrived since the last call, ordered by sender, then sent time."""
        for sender, endpoint in self._from.items():
            for sent, data in self.receive(endpoint):
                self._inbox.put(sent, Mail(sender, self.name, _decode(sender, data)), newest_only=False)
        for subscription in self._subscriptions:
            arrived = subscription.read()
            if arrived is not None:
                sent, body = arrived
                self._inbox.put(sent, Mail(subscription.sender, self.name, body), newest_only=True)
        return self._inbox.take()

    def post(self, now_s: int, mail: Sequence[Mail], rows: Sequence[Rows]) -> None:
        """Send mail to others and rows to the recorder."""
        messages, states = split_post(self._wiring, self.name, mail)
        for item in messages:
            check_finite(item.body)
            self.send(self._to[item.receiver], encode(item.body))
        for kind, body in states.items():
            check_finite(body)
            self._states[kind].publish(body, wire_time(self.name, now_s))
        for kind, observed in self._observed.items():
            observed.publish([item.body for item in mail if isinstance(item.body, kind)])
        if rows:
            self.send(self._to_recorder, encode_rows(rows))


class RecorderBus(HelicsFederate):
    """The recorder's bus: rows of every operator, of whom none waits for it unless it lags far behind."""

    def join(self) -> None:
        """Register an endpoint for each operator and go to time zero."""
        wiring = self._wiring
        self._from = {other: self.endpoint(f"{RECORDER}/from/{other}") for other in wiring.names}
        for other in wiring.names:
            if not wiring.senders(other):
                self.endpoint(f"{RECORDER}/to/{other}", f"{other}/from/{RECORDER}")
        h.helicsFederateSetTimeProperty(self.federate, h.HELICS_PROPERTY_TIME_OUTPUT_DELAY, RECORDER_LAG_S)
        self.call(h.helicsFederateEnterInitializingMode)
        self.enter(self.unconnected())

    def collect_rows(self) -> list[Rows]:
        """Return the rows that arrived, in the order of acting."""
        parcels = [
            (sent, sender, data)
            for sender, endpoint in self._from.items()
            for sent, data in self.receive(endpoint)
        ]
        parcels.sort(key=lambda parcel: parcel[:2])
        return [rows for _, _, data in parcels for rows in decode_rows(data)]


class _State:
    """A message type that a federate publishes, value by value; "t_s" holds the message's t_s and the sending time."""

    def __init__(self, owner: HelicsFederate, body: type[Message]) -> None:
        self._values = [
            (value, _publication(owner, topic(owner.name, body, value.field), value))
            for value in values_of(body)
        ]
        stamp = Value("t_s", "vector", "s")
        self._stamp = _publication(owner, topic(owner.name, body, "t_s"), stamp)

    def publish(self, body: Message, sent: float) -> None:
        for value, publication in self._values:
            content = getattr(body, value.field)
            if value.shape == "vector":
                h.helicsPublicationPublishVector(publication, np.asarray(content, dtype=np.float64).tolist())
            else:
                h.helicsPublicationPublishDouble(publication, float(content))
        h.helicsPublicationPublishVector(self._stamp, [float(body.t_s), sent])


class _Observed:
    """Fields of a message type for observers, joined over its receivers."""

    def __init__(self, owner: HelicsFederate, body: type[Message]) -> None:
        self._fields = {
            field: _publication(owner, topic(owner.name, body, field), Value(field, "vector", unit_of(field)))
            for field in OBSERVED[body]
        }

    def publish(self, bodies: Sequence[Message]) -> None:
        if not bodies:
            return
        for field, publication in self._fields.items():
            joined = np.concatenate([np.asarray(getattr(body, field), dtype=np.float64) for body in bodies])
            h.helicsPublicationPublishVector(publication, joined.tolist())


class _Subscription:
    """The reader's end of a _State."""

    def __init__(self, owner: HelicsFederate, sender: str, body: type[Message]) -> None:
        self.sender, self._body = sender, body
        self._inputs = [
            (
                value,
                topic(sender, body, value.field),
                _input(owner, topic(sender, body, value.field), value.unit),
            )
            for value in values_of(body)
        ]
        self._stamp = _input(owner, topic(sender, body, "t_s"), "s")

    def problems(self) -> list[str]:
        """Say what is wrong with the sources; HELICS converts units of scalars but not of vectors, so they must agree."""
        found = []
        stamp = (Value("t_s", "vector", "s"), topic(self.sender, self._body, "t_s"), self._stamp)
        for value, name, source in (*self._inputs, stamp):
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
        t_s, sent = h.helicsInputGetVector(self._stamp)
        content: dict[str, Any] = {}
        for value, _, source in self._inputs:
            if value.shape == "vector":
                content[value.field] = np.array(h.helicsInputGetVector(source), dtype=value.dtype)
            else:
                content[value.field] = h.helicsInputGetDouble(source)
        return sent, self._body(t_s=int(t_s), **content)


def topic(sender: str, body: type[Message], field: str) -> str:
    """Return the public name of a value."""
    return f"{sender}/{body.__name__}/{field}"


def _publication(owner: HelicsFederate, name: str, value: Value) -> Any:
    kind = h.HELICS_DATA_TYPE_VECTOR if value.shape == "vector" else h.HELICS_DATA_TYPE_DOUBLE
    publication = h.helicsFederateRegisterGlobalPublication(owner.federate, name, kind, value.unit)
    h.helicsPublicationSetTag(publication, "schema_version", str(SCHEMA_VERSION))
    return publication


def _input(owner: HelicsFederate, name: str, unit: str) -> Any:
    return h.helicsFederateRegisterSubscription(owner.federate, name, unit)


def _decode(sender: str, data: bytes) -> Message:
    body = decode(data)
    if body.version != SCHEMA_VERSION:
        raise FederationError(
            f"{sender} speaks message version {body.version}, this side version {SCHEMA_VERSION}"
        )
    return body
