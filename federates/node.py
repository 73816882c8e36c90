"""One federate's life: wait, receive, decide, send. It knows buses and operators, not HELICS."""

from __future__ import annotations

import threading
import time
from itertools import count
from typing import Protocol

from voltier.agents.clock import MINUTE_S, MarketClock
from voltier.agents.operator import Operator, Rows
from voltier.federates.pace import START_MARGIN_S, Outward, Pace, attend
from voltier.federates.ports import Bus, Sink
from voltier.federates.pulse import Pulse
from voltier.federates.rehearsal import rehearse
from voltier.federates.wiring import role_of


class RowBus(Protocol):
    """The recorder's connection to the others."""

    def join(self) -> None:
        """Take part."""
        ...

    def advance(self, now_s: int) -> None:
        """Wait until all rows sent before simulated time now_s have arrived."""
        ...

    def collect_rows(self) -> list[Rows]:
        """Return the rows that arrived since the last call, in the order of acting."""
        ...

    def announce(self, origin_unix_s: float) -> None:
        """Tell everybody the wall-clock time of simulated second 0 of a paced run."""
        ...

    def leave(self) -> None:
        """Take part no more."""
        ...


def run_operator(
    operator: Operator, clock: MarketClock, bus: Bus, pulse: Pulse, pace: Pace | None = None
) -> None:
    """Drive an operator over the bus to the end of the clock, at the pace of the wall clock if there is one."""
    if pace is not None:
        rehearse(operator.name)
        attend(operator, pace)
    try:
        _live(operator, clock, bus, pulse, pace)
    finally:
        if isinstance(operator, Outward):
            operator.close()


def _live(operator: Operator, clock: MarketClock, bus: Bus, pulse: Pulse, pace: Pace | None) -> None:
    pulse.turn("joining")
    bus.join()
    for now_s in clock.instants(role_of(operator.name)):
        for slot in count():
            pulse.wait(now_s)
            bus.advance(now_s, slot)
            mail = bus.collect()
            lag: list[Rows] = []
            if pace is not None and now_s >= 0 and slot == 0:
                pace.begin(bus.origin_unix_s())
                lag = pace.hold(operator.name, now_s)
            pulse.decide()
            outbox = operator.decide(now_s, mail)
            pulse.send()
            bus.post(now_s, outbox.mail, [*outbox.rows, *lag], slot)
            if not outbox.confers:
                break
    bus.leave()


def run_recorder(sink: Sink, clock: MarketClock, bus: RowBus, pulse: Pulse, pace: Pace | None = None) -> None:
    """Write all rows minute by minute; a last minute takes in what comes at the very end of the clock.

    It hears from everybody, and so knows when the warm-up is over: in a paced run it then says when time begins.
    """
    pulse.turn("joining")
    bus.join()
    for now_s in range(0, clock.end_s + 2 * MINUTE_S, MINUTE_S):
        pulse.wait(now_s)
        bus.advance(now_s)
        pulse.decide()
        if pace is not None and now_s == 0:
            bus.announce(time.time() + START_MARGIN_S)
        for rows in bus.collect_rows():
            sink.write(rows)
        sink.commit(now_s)
    bus.leave()
    sink.close()


class GuardedSink:
    """A sink that can be closed by another thread at any moment, once."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._closed = False

    def write(self, rows: Rows) -> None:
        """Take rows, unless closed."""
        with self._lock:
            if not self._closed:
                self._sink.write(rows)

    def commit(self, now_s: int) -> None:
        """Commit, unless closed."""
        with self._lock:
            if not self._closed:
                self._sink.commit(now_s)

    def close(self) -> None:
        """Write what is left, unless that was done."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._sink.close()
