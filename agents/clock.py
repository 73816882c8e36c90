"""The market clock: who acts in which order within a minute, and so who knows what when.

A minute starts at now_s = 60 k. Within it operators act at whole-second offsets, those of one offset in the order of
the table; what is sent at one instant is read at the next instant of its receiver. Simulated results belong to the
minute, not to the offset.

offset  who                          reads                                    sends
0       resilience                   measurement of the last minute           alarm, attack
0       smo                          attack, bids, meters (last minute's)     bid up, or schedule
0       wholesale                    -                                        conditions (and hourly forecast)
1       area (each primary period)   bids, conditions, taps, other areas       packets, set-points, dLMP
1       pmo (each primary period)    aggregate bids, conditions, alarm, taps  set-points, dLMP
2       smo (each primary period)    set-points, dLMP                         schedule
2       device (hardware)            what devices outside measured            readings
3       cmo                          schedule, conditions, readings           injections, meters, next bids, set-points
3       device (hardware)            set-points                               set-points to devices outside
4       grid                         injections                               measurement, taps
5       bulk (where there is one)    measurement                              -

An SMO bids up in a minute with a primary clearing and sends its schedule at once in any other. The lag is therefore one
minute from a bid to its use and from a measurement to the alarm it causes, and up to one primary period from an SMO's
need to its new set-point. One extra minute before the start (now_s = -60) lets the consumers bid for the first minute;
one instant after the end lets smo and pmo settle the last period. Devices outside, if there are any, are read just
before the consumers act and told just after: a minute's meter is the last reading before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MINUTE_S = 60
WARM_UP_S = -MINUTE_S
OFFSET_S = {
    "wholesale": 0,
    "resilience": 0,
    "smo": 0,
    "area": 1,
    "pmo": 1,
    "smo_reclear": 2,
    "device": 2,
    "cmo": 3,
    "device_instruct": 3,
    "grid": 4,
    "bulk": 5,
}


@dataclass(frozen=True, slots=True)
class MarketClock:
    """Instants of a run. primary_period_s : multiple of 60; end_s : end of the simulated time, exclusive."""

    primary_period_s: int
    end_s: int

    def is_primary(self, now_s: int) -> bool:
        """Say whether the primary market clears in the minute of now_s."""
        return now_s >= 0 and (now_s // MINUTE_S * MINUTE_S) % self.primary_period_s == 0

    def instants(self, role: str) -> Iterator[int]:
        """Yield the simulated seconds at which operators of a role ("smo", "pmo", ...) act, in order."""
        for minute_s in range(WARM_UP_S, self.end_s, MINUTE_S):
            warm_up, primary = minute_s < 0, self.is_primary(minute_s)
            if warm_up and role not in ("wholesale", "device", "cmo"):
                continue
            if role in ("area", "pmo") and not primary:
                continue
            yield minute_s + OFFSET_S[role]
            if role == "smo" and primary:
                yield minute_s + OFFSET_S["smo_reclear"]
            if role == "device" and not warm_up:
                yield minute_s + OFFSET_S["device_instruct"]
        if role in ("smo", "area", "pmo", "device"):
            yield self.end_s + OFFSET_S[role]
