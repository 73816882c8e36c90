"""The market in one process: the reference that every federation must reproduce to the last bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count, groupby

from voltier.agents.clock import MINUTE_S, WARM_UP_S, MarketClock
from voltier.agents.operator import Mail, Operator, Outbox, Rows
from voltier.federates.mailbox import Inbox, as_received, rows_as_received, split_post
from voltier.federates.pace import Pace
from voltier.federates.wiring import Wiring, role_of, wire_time


def run_local(
    operators: Sequence[Operator],
    clock: MarketClock,
    sink: Callable[[Rows], None],
    progress: Callable[[int], None],
    pace: Pace | None = None,
) -> None:
    """Run all operators to the end of the clock.

    sink : takes every table row, in time order. progress : called with the simulated second [s] up to which
    all is done, once a minute. pace : the wall clock, if the run follows it. Errors of the operators pass
    through; FederationError for mail that has no route.
    """
    by_name = {operator.name: operator for operator in operators}
    wiring = Wiring(list(by_name))
    inbox = {name: Inbox() for name in by_name}
    minute_s = WARM_UP_S

    def deliver(name: str, sent: float, outbox: Outbox) -> None:
        messages, states = split_post(wiring, name, outbox.mail)
        for mail in messages:
            inbox[mail.receiver].put(
                sent, Mail(name, mail.receiver, as_received(mail.body)), newest_only=False
            )
        for kind, body in states.items():
            for reader in wiring.readers(name, kind):
                inbox[reader].put(sent, Mail(name, reader, as_received(body)), newest_only=True)
        for rows in outbox.rows:
            sink(rows_as_received(rows))

    for _, entries in groupby(agenda(list(by_name), clock), key=lambda entry: entry[0]):
        acting = [(name, now_s) for _, name, now_s in entries]
        while acting[0][1] >= minute_s + MINUTE_S:
            minute_s += MINUTE_S
            progress(minute_s)
        for slot in count():
            said = []
            for name, now_s in acting:
                if pace is not None and now_s >= 0 and slot == 0:
                    pace.begin(time.time())
                    for rows in pace.hold(name, now_s):
                        sink(rows)
                said.append((name, now_s, by_name[name].decide(now_s, inbox[name].take())))
            # Those who act at one moment do not hear each other before the next.
            for name, now_s, outbox in said:
                deliver(name, wire_time(name, now_s, slot), outbox)
            acting = [(name, now_s) for name, now_s, outbox in said if outbox.confers]
            if not acting:
                break
    progress(clock.end_s)


def agenda(names: Sequence[str], clock: MarketClock) -> Iterator[tuple[float, str, int]]:
    """Yield (wire time, operator, simulated second) of every instant of a run, in the order of acting."""
    instants = [
        (wire_time(name, now_s), name, now_s) for name in names for now_s in clock.instants(role_of(name))
    ]
    yield from sorted(instants)
