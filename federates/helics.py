"""HELICS itself: broker, cores, and the pair of federates by which one operator takes part.

An operator is two HELICS federates on one core: an ear, which only reads and has to wait, and a mouth, which
only writes and never waits. So who waits for whom is a graph without cycles. A single federate for both would
be correct too, but two such federates that read each other and both wait for a third send each other time
requests without end, which costs more than the market does (benchmarks/bench_bus.py). Federates are
uninterruptible: mail does not wake them before their next instant.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import helics as h

from voltier.federates.helics_memory import message_bytes
from voltier.federates.ports import Channel
from voltier.federates.wiring import SLOT_S, Value, wire_time
from voltier.grid.errors import FederationError

Transport = Literal["zmq", "tcp", "inproc"]

FEDERATES_PER_OPERATOR = 2
# A HELICS core over tcp drops longer messages without a word; ours are some 100 kB.
TCP_MESSAGE_BYTES = 4_000_000
_TIME_TOLERANCE_S = 1e-6

_CONNECT_S = 30


class BusLostError(FederationError):
    """The bus broke down, as a rule because somebody else did."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the broker is. broker : address, or its name for inproc. interface : own address.

    key : that of the broker. core : name of a core of this process to share (inproc), else each operator
    makes one. log_level : of HELICS, in words.
    """

    transport: Transport
    broker: str
    key: str
    interface: str = ""
    core: str = ""
    log_level: str = "warning"

    def core_options(self, federates: int) -> str:
        """Return the HELICS options of a core with so many federates."""
        options = [f"--federates={federates}", f"--brokerkey={self.key}"]
        options.append(f"--loglevel={self.log_level}")
        # HELICS gives a connection 4 s; a machine that starts many processes at once can need longer.
        options.append(f"--networktimeout={_CONNECT_S}s")
        options.append(
            f"--broker={self.broker}" if self.transport == "inproc" else f"--broker_address={self.broker}"
        )
        if self.transport != "inproc":
            # HELICS would take the ports beside the broker's, which may belong to somebody else.
            options.append(f"--localport={free_port(self.interface)}")
        return " ".join(options + network_options(self.transport, self.interface))


def network_options(transport: Transport, interface: str) -> list[str]:
    """Return the HELICS options for sockets of a broker or core."""
    options = [f"--max_size={TCP_MESSAGE_BYTES}"] if transport == "tcp" else []
    if interface and transport != "inproc":
        options.append(f"--localinterface={interface if transport == 'tcp' else 'tcp://' + interface}")
    return options


def free_port(interface: str = "") -> int:
    """Return a port that is free, as the next one is (a zmq broker takes two). interface : "" stands for all."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind((interface, 0))
            port: int = first.getsockname()[1]
            with suppress(OSError):
                second.bind((interface, port + 1))
                return port


class Broker:
    """A HELICS broker in this process. port : 0 takes any that is free.

    Raises FederationError if it cannot start, e.g. because its port is taken.
    """

    def __init__(
        self,
        transport: Transport,
        federates: int,
        key: str,
        *,
        interface: str = "",
        port: int = 0,
        log_level: str = "error",
    ) -> None:
        options = [f"--federates={federates}", f"--brokerkey={key}", f"--loglevel={log_level}"]
        inproc = transport == "inproc"
        if not inproc:
            options += [*network_options(transport, interface), f"--localport={port or free_port(interface)}"]
        try:
            self.handle = h.helicsCreateBroker(transport, "", " ".join(options))
        except h.HelicsException as error:
            raise FederationError(f"the HELICS broker does not start: {error}") from error
        if not h.helicsBrokerIsConnected(self.handle):
            raise FederationError(
                f"the HELICS broker does not start ({' '.join(options)}); is the port taken?"
            )
        self.address: str = (h.helicsBrokerGetIdentifier if inproc else h.helicsBrokerGetAddress)(self.handle)

    def wait(self, timeout_s: float) -> bool:
        """Wait until all federates have left; return whether they have."""
        return bool(h.helicsBrokerWaitForDisconnect(self.handle, int(timeout_s * 1000)))

    def close(self) -> None:
        """End the broker; federates that are still there get a BusLostError."""
        h.helicsBrokerDisconnect(self.handle)
        h.helicsBrokerFree(self.handle)


def shared_core(connection: Connection, name: str, federates: int) -> Any:
    """Make a core that all federates of this process share."""
    core = h.helicsCreateCore(connection.transport, name, connection.core_options(federates))
    h.helicsCoreConnect(core)
    return core


class Pair:
    """The ear and the mouth of one operator, and what they have registered."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name = name
        self._limit = TCP_MESSAGE_BYTES if connection.transport == "tcp" else 0
        self._endpoints: list[str] = []
        self._drops: list[Any] = []
        self._loss = -1.0
        info = h.helicsCreateFederateInfo()
        h.helicsFederateInfoSetCoreTypeFromString(info, connection.transport)
        h.helicsFederateInfoSetCoreName(info, connection.core or f"{name}.core")
        if not connection.core:
            h.helicsFederateInfoSetCoreInitString(info, connection.core_options(FEDERATES_PER_OPERATOR))
        h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_UNINTERRUPTIBLE, True)
        h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_TERMINATE_ON_ERROR, True)
        try:
            self.ear = h.helicsCreateCombinationFederate(name, info)
            self.mouth = h.helicsCreateCombinationFederate(f"{name}.out", info)
        except h.HelicsException as error:
            raise BusLostError(
                f"{name} cannot join the HELICS broker at {connection.broker}: {error}"
            ) from error
        finally:
            h.helicsFederateInfoFree(info)

    # ------------------------------------------------------------------ what it registers

    def writes_to(self, name: str, destination: str) -> Any:
        """Register an endpoint of the mouth that writes to one other endpoint."""
        endpoint = self._endpoint(self.mouth, name)
        h.helicsEndpointAddDestinationTarget(endpoint, destination)
        return endpoint

    def reads_from(self, name: str, *, required: bool = True) -> Any:
        """Register an endpoint of the ear. required : somebody must be at its other end."""
        return self._endpoint(self.ear, name, required=required)

    def publication(self, name: str, value: Value) -> Any:
        """Register a value that the mouth publishes."""
        kind = h.HELICS_DATA_TYPE_VECTOR if value.shape == "vector" else h.HELICS_DATA_TYPE_DOUBLE
        return h.helicsFederateRegisterGlobalPublication(self.mouth, name, kind, value.unit)

    def subscription(self, name: str, value: Value) -> Any:
        """Register a value that the ear reads."""
        return h.helicsFederateRegisterSubscription(self.ear, name, value.unit)

    def delay_output(self, delay_s: float) -> None:
        """Promise that nothing said at a time is heard before delay_s later."""
        h.helicsFederateSetTimeProperty(self.mouth, h.HELICS_PROPERTY_TIME_OUTPUT_DELAY, delay_s)

    def disturb(self, endpoint: str, channel: Channel) -> None:
        """Put HELICS filters on what an endpoint of the mouth sends."""
        if channel.loses(self.name):
            self._drops.append(self._filter(h.HELICS_FILTER_TYPE_RANDOM_DROP, f"{endpoint}/drop", endpoint))
        if channel.jitter_slots:
            late = self._filter(h.HELICS_FILTER_TYPE_RANDOM_DELAY, f"{endpoint}/delay", endpoint)
            h.helicsFilterSetString(late, "distribution", "uniform")
            h.helicsFilterSet(late, "min", channel.delay_slots * SLOT_S)
            h.helicsFilterSet(late, "max", (channel.delay_slots + channel.jitter_slots) * SLOT_S)
        elif channel.delay_slots:
            late = self._filter(h.HELICS_FILTER_TYPE_DELAY, f"{endpoint}/delay", endpoint)
            h.helicsFilterSet(late, "delay", channel.delay_slots * SLOT_S)

    def lose(self, share: float) -> None:
        """Lose this share of what the disturbed endpoints send from now on."""
        if share != self._loss:
            self._loss = share
            for drop in self._drops:
                h.helicsFilterSet(drop, "dropprob", share)

    def _filter(self, kind: Any, name: str, endpoint: str) -> Any:
        made = h.helicsFederateRegisterGlobalFilter(self.mouth, kind, name)
        h.helicsFilterAddSourceTarget(made, endpoint)
        return made

    def _endpoint(self, federate: Any, name: str, *, required: bool = True) -> Any:
        if required:
            self._endpoints.append(name)
        return h.helicsFederateRegisterGlobalTargetedEndpoint(federate, name, "")

    # ------------------------------------------------------------------ its life

    def start(self, problems: Callable[[], list[str]]) -> None:
        """Wait for the others, compare what is registered, and go to time zero.

        problems : asked when everybody has registered. Raises FederationError, after taking the federation
        down, if there are any or an endpoint has no other end.
        """
        self._together("EnterInitializingMode")
        found = problems() + self.unconnected()
        if found:
            text = f"{self.name} is wired wrongly: " + "; ".join(found)
            h.helicsFederateGlobalError(self.ear, 3, text)
            raise FederationError(text)
        self._together("EnterExecutingMode")

    def advance(self, now_s: int, slot: int = 0) -> None:
        """Say that nothing more comes before a slot of simulated time now_s, and wait until all others have said so."""
        time_s = wire_time(self.name, now_s, slot)
        for federate in (self.mouth, self.ear):
            granted_s = self._call(h.helicsFederateRequestTime, federate, time_s)
            if abs(granted_s - time_s) > _TIME_TOLERANCE_S:
                raise BusLostError(
                    f"{self.name} asked for HELICS time {time_s} s and was granted {granted_s} s"
                )

    def send(self, endpoint: Any, data: bytes) -> None:
        """Send bytes from an endpoint to its destination."""
        if self._limit and len(data) > self._limit:
            text = f"{self.name} sends {len(data)} bytes at once; tcp passes at most {self._limit}, use zmq"
            raise FederationError(text)
        h.helicsEndpointSendBytes(endpoint, data)

    def receive(self, endpoint: Any) -> list[tuple[float, bytes]]:
        """Return (sent time, bytes) of all that waits at an endpoint, in the order of sending."""
        found = []
        while h.helicsEndpointHasMessage(endpoint):
            message = h.helicsEndpointGetMessage(endpoint)
            found.append((h.helicsMessageGetTime(message), message_bytes(message)))
        return found

    def leave(self) -> None:
        """Leave the federation in good order."""
        for federate in (self.mouth, self.ear):
            h.helicsFederateDisconnect(federate)
            h.helicsFederateFree(federate)

    def _together(self, step: str) -> None:
        """Take both through a step that ends only when all federates of the federation take it."""
        self._call(getattr(h, f"helicsFederate{step}Async"), self.ear)
        self._call(getattr(h, f"helicsFederate{step}"), self.mouth)
        self._call(getattr(h, f"helicsFederate{step}Complete"), self.ear)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except h.HelicsException as error:
            raise BusLostError(f"{self.name} lost the bus: {error}") from error

    def unconnected(self) -> list[str]:
        """Say which endpoints have no other end, as far as HELICS knows."""
        connected: set[str] = set()
        for federate in (self.ear, self.mouth):
            query = h.helicsCreateQuery(h.helicsFederateGetName(federate), "unconnected_interfaces")
            connected.update(h.helicsQueryExecute(query, federate).get("connected_endpoints", []))
            h.helicsQueryFree(query)
        alone = [name for name in self._endpoints if name not in connected]
        return [f"nobody is at the other end of {name}" for name in alone]
