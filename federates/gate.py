"""The gate for one federate from outside: a federation of two, in which it finds all its partners' topics.

The outsider joins the gate's own broker, not the run's. So it can be examined before the run knows of it, and
whatever becomes of it (killed, silent, gone) takes only its own federation down: HELICS has no way to go on without a
federate that vanished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import helics as h
import msgspec

from voltier.agents.clock import MarketClock
from voltier.agents.messages import Message, encode
from voltier.agents.operator import Mail, Rows
from voltier.federates.border import MOST_BYTES, read_message
from voltier.federates.codec import decode_rows, read_json_rows
from voltier.federates.gate_check import GATE, Finding, examine
from voltier.federates.helics import Broker, BusLostError, Connection, Pair, free_port
from voltier.federates.helics_bus import State, Subscription
from voltier.federates.part import part_of
from voltier.federates.ports import Door, OutsiderError, OutsiderLostError
from voltier.federates.wiring import RECORDER, Wiring, wire_time
from voltier.grid.errors import FederationError

# The gate speaks so long before an instant of the outsider, and listens so long after it [s].
_ASIDE_S = 0.01
_TIME_TOLERANCE_S = 1e-6
_SHORTEST_NAP_S, _LONGEST_NAP_S = 0.0002, 0.02
_FAREWELL_S = 0.3
# What goes wrong here is said in words of ours.
_LOG_LEVEL = "no_print"


class Gate:
    """Partners of one operator, played to a federate from outside over a HELICS broker of its own."""

    def __init__(self, name: str, wiring: Wiring, clock: MarketClock, door: Door) -> None:
        self.name, self._wiring, self._clock, self._door = name, wiring, clock, door
        self.part = part_of(name, wiring)
        self.findings: list[Finding] = []
        self._outsiders: list[str] = []
        self._under_way: dict[int, tuple[Any, Callable[..., Any]]] = {}
        self._turned_away = 0
        self._set_up(door.port or free_port(door.interface))

    def _set_up(self, port: int) -> None:
        name, wiring, door = self.name, self._wiring, self._door
        self._port = port
        self._broker: Broker | None = None
        if not door.address:
            options = {"interface": door.interface, "port": port, "log_level": _LOG_LEVEL}
            self._broker = Broker(door.transport, 3, door.key, **options)
        self._open = True
        self.address = self._broker.address if self._broker else door.address
        # HELICS keeps cores by name, also those of a federation that is over.
        connection = Connection(door.transport, self.address, door.key, door.interface, log_level=_LOG_LEVEL)
        pair = self._pair = Pair(f"{GATE}.{self._turned_away}", connection)
        self._heard = {
            other: pair.reads_from(f"{other}/from/{name}") for other in wiring.correspondents(name)
        }
        self._rows = pair.reads_from(self.part.rows_to.partner, required=False)
        others = wiring.writers(name) + ([] if wiring.senders(name) else [RECORDER])
        self._told = {other: pair.writes_to(f"{other}/to/{name}", f"{name}/from/{other}") for other in others}
        self._subscriptions = [Subscription(pair, name, body) for body in wiring.published(name)]
        self._states = {(sender, body): State(pair, sender, body) for sender, body in wiring.subscribed(name)}

    # ------------------------------------------------------------------ its life

    def welcome(self, tick: Callable[[], None] = lambda: None) -> None:
        """Wait for the outsider, examine what it registered, and go to time zero with it.

        tick : called while waiting. Raises OutsiderError, which the outsider is told too.
        """
        limit_s = self._door.join_s
        until = time.monotonic() + limit_s
        self._wait_for_somebody(until, tick)
        wrong = [problem for item in self._subscriptions for problem in item.problems()]
        wrong += self._pair.unconnected()
        self.findings = examine(self._ask, self.part, wrong)
        errors = [finding.text for finding in self.findings if finding.severe]
        if errors:
            raise self._refused("is wired wrongly: " + "; ".join(errors))
        if not self._together("EnterExecutingMode", until, tick):
            raise self._refused(f"did not go to time zero within {limit_s:g} s")

    def _wait_for_somebody(self, until: float, tick: Callable[[], None]) -> None:
        """Go to initializing mode with the outsider. Who comes with a wrong key takes a HELICS federation down: so
        it is set up again, and the right one has its time."""
        while True:
            try:
                if not self._together("EnterInitializingMode", until, tick):
                    raise self._refused(self._nobody())
                there = self._ask("root", "federates")
            except OutsiderLostError:
                there = []
            # A broken federation answers with an error, which is no list.
            found = there if isinstance(there, list) else []
            self._outsiders = [name for name in found if name.partition(".")[0] != GATE]
            if self._outsiders:
                return
            if self._broker is None:
                raise self._refused("is not there: the broker's federation began without it")
            self._turned_away += 1
            self.close("somebody tried to join with another key")
            self._set_up(self._port)

    def exchange(self, now_s: int, mail: Sequence[Mail]) -> tuple[list[Mail], list[Rows]]:
        """Give the outsider its mail at an instant and return what it answers.

        Raises OutsiderLostError if it does not come to the instant within the time limit, OutsiderError for an
        answer at another time or that cannot be read.
        """
        time_s = wire_time(self.name, now_s)
        self._advance(self._pair.mouth, time_s - _ASIDE_S, now_s)
        for item in mail:
            kind = type(item.body)
            if self._wiring.carrier(item.sender, self.name, kind) == "endpoint":
                self._call(self._pair.send, self._told[item.sender], encode(item.body))
            else:
                self._call(self._states[item.sender, kind].publish, item.body, time_s - _ASIDE_S)
        for federate in (self._pair.mouth, self._pair.ear):
            self._advance(federate, time_s + _ASIDE_S, now_s)
        return self._collect(time_s), self._collect_rows()

    def has_left(self) -> bool:
        """Say whether the outsider has left, or its federation is no more."""
        return all(self._ask(name, "state") != "connected" for name in self._outsiders)

    def close(self, reason: str = "") -> None:
        """Leave the outsider alone: in good order, or with a reason that its next call into HELICS raises."""
        if not self._open:
            return
        self._open = False
        if reason:
            self._break_off(reason)
        else:
            with suppress(h.HelicsException):
                self._pair.leave()
            if self._broker is not None:
                self._broker.wait(self._door.answer_s)
        if self._broker is not None:
            self._broker.close()

    def _break_off(self, reason: str) -> None:
        if self._broker is not None:
            # The Python layer passes this text on as it is, and C wants bytes.
            h.helicsBrokerGlobalError(self._broker.handle, 3, reason.encode())
        else:
            with suppress(h.HelicsException):
                h.helicsFederateGlobalError(self._pair.ear, 3, reason)
        time.sleep(_FAREWELL_S)
        for federate, function in self._under_way.values():
            # A call whose failure nobody has fetched makes HELICS abort the process when it is closed.
            with suppress(h.HelicsException):
                function(federate)
        self._under_way.clear()

    # ------------------------------------------------------------------ inside

    def _collect(self, time_s: float) -> list[Mail]:
        found = []
        for other, endpoint in self._heard.items():
            for sent, data in self._pair.receive(endpoint):
                self._check_time(sent, time_s, f"to {other}")
                if len(data) > MOST_BYTES:
                    text = f"sent {len(data)} bytes to {other} at once; the longest message allowed has"
                    raise self._refused(f"{text} {MOST_BYTES}")
                body = self._trouble(read_message, self.name, data)
                self._trouble(self._wiring.carrier, self.name, other, type(body))
                found.append(Mail(self.name, other, body))
        for subscription in self._subscriptions:
            arrived: tuple[float, Message] | None = self._trouble(subscription.read)
            if arrived is not None:
                body = arrived[1]
                readers = self._wiring.readers(self.name, type(body))
                found += [Mail(self.name, reader, body) for reader in readers]
        return found

    def _collect_rows(self) -> list[Rows]:
        found: list[Rows] = []
        for _, data in self._pair.receive(self._rows):
            if data[:1] in (b"[", b"{"):
                found += self._trouble(read_json_rows, self.name, data)
                continue
            try:
                found += decode_rows(data)
            except (msgspec.DecodeError, ValueError) as error:
                raise self._refused(f"sent table rows that cannot be read: {error}") from error
        return found

    def _check_time(self, sent: float, time_s: float, what: str) -> None:
        if abs(sent - time_s) > _TIME_TOLERANCE_S:
            raise self._refused(
                f"spoke {what} at HELICS time {sent:g} s; it acts at {time_s:g} s (see its period and offset, and "
                "whether it is uninterruptible)"
            )

    def _trouble(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that finds fault with what the outsider sent, and turn it away for that."""
        try:
            return function(*arguments)
        except FederationError as error:
            raise self._refused(str(error).removeprefix(f"{self.name} ")) from error

    def _refused(self, what: str) -> OutsiderError:
        """Tell the outsider why it has to go; return the same as an error."""
        text = f"the external {self.name} {what}"
        self.close(text)
        return OutsiderError(text)

    def _advance(self, federate: Any, time_s: float, now_s: int) -> None:
        until = time.monotonic() + self._door.answer_s
        self._begin("RequestTime", federate, time_s)
        if not self._ended(federate, until):
            raise OutsiderLostError(
                f"the external {self.name} did not answer within {self._door.answer_s:g} s at simulated "
                f"second {now_s}"
            )
        self._complete(federate)

    def _together(self, step: str, until: float, tick: Callable[[], None]) -> bool:
        """Take both our federates through a step; return whether the outsider took it in time."""
        both = (self._pair.mouth, self._pair.ear)
        for federate in both:
            self._begin(step, federate)
        if not all(self._ended(federate, until, tick) for federate in both):
            return False
        for federate in both:
            self._complete(federate)
        return True

    def _begin(self, step: str, federate: Any, *arguments: Any) -> None:
        self._call(getattr(h, f"helicsFederate{step}Async"), federate, *arguments)
        self._under_way[id(federate)] = federate, getattr(h, f"helicsFederate{step}Complete")

    def _complete(self, federate: Any) -> None:
        _, function = self._under_way.pop(id(federate))
        self._call(function, federate)

    def _ended(self, federate: Any, until: float, tick: Callable[[], None] = lambda: None) -> bool:
        """Wait for a call under way; HELICS itself knows no time limit."""
        nap_s = _SHORTEST_NAP_S
        while not h.helicsFederateIsAsyncOperationCompleted(federate):
            if time.monotonic() > until:
                return False
            tick()
            time.sleep(nap_s)
            nap_s = min(2.0 * nap_s, _LONGEST_NAP_S)
        return True

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except (h.HelicsException, BusLostError) as error:
            raise OutsiderLostError(f"the external {self.name} ended the federation: {error}") from error

    def _ask(self, target: str, question: str) -> Any:
        query = h.helicsCreateQuery(target, question)
        try:
            return h.helicsQueryExecute(query, self._pair.ear)
        finally:
            h.helicsQueryFree(query)

    def _nobody(self) -> str:
        """Say who has not come, and who has instead."""
        text = (
            f"did not join within {self._door.join_s:g} s at {self.address}: nobody entered initializing mode"
        )
        if self._turned_away:
            text += f"; turned away for another key, or for leaving again: {self._turned_away}"
        return text
