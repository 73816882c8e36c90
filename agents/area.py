"""One area of a primary market that nobody clears alone: it takes its operators' bids and confers with neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from voltier.agents.clock import MINUTE_S, MarketClock
from voltier.agents.messages import (
    AreaClearing,
    AreaMeters,
    AreaPacket,
    Conditions,
    Index,
    SmoBids,
    Taps,
    encode,
)
from voltier.agents.operator import Mail, Outbox, Rows
from voltier.agents.primary_rules import PrimaryRules, as_bids, as_prices, merge_bids
from voltier.market.primary.distributed.area_market import AreaMarket
from voltier.market.primary.distributed.exchange import Packet

_NOBODY = np.zeros(0, dtype=np.int64)


class AreaOperator:
    """Clears its part of the feeder each primary period; what it tells other areas is what an AreaPacket can hold.

    market : the mathematics, of this area ; name_of : operator of each area, "area.0" ... ; rules : of the primary
    level. To the primary operator go set-points, prices and meters, to the recorder how the rounds went.
    """

    def __init__(
        self, market: AreaMarket, name_of: Sequence[str], rules: PrimaryRules, clock: MarketClock
    ) -> None:
        self.name = name_of[market.area]
        self._market, self._name_of, self._rules, self._clock = market, tuple(name_of), rules, clock
        self._area_of: Mapping[str, int] = {name: k for k, name in enumerate(name_of)}
        self._conditions: Conditions | None = None
        self._tap: Index | None = None
        self._open_s: int | None = None
        self._slots = self._packets = self._bytes = 0

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Open a clearing with the bids, or go on with the one that is open."""
        t_s = now_s // MINUTE_S * MINUTE_S
        parts, packets = self._read(t_s, inbox)
        outbox = Outbox()
        if self._open_s is None:
            bids = merge_bids(parts, self._market.smo)
            outbox.mail.append(Mail(self.name, "pmo", self._meters(t_s, bids)))
            if t_s == self._clock.end_s:
                return outbox
            assert self._conditions is not None
            self._market.open(as_bids(bids), as_prices(self._rules, self._conditions), tap=self._tap)
            self._open_s = t_s
            self._slots = self._packets = self._bytes = 0
        self._confer(t_s, packets, outbox)
        return outbox

    def _read(self, t_s: int, inbox: Sequence[Mail]) -> tuple[list[SmoBids], list[Packet]]:
        parts: list[SmoBids] = []
        packets: list[Packet] = []
        for mail in inbox:
            body = mail.body
            if isinstance(body, SmoBids):
                parts.append(body)
            elif isinstance(body, Conditions):
                self._conditions = body
            elif isinstance(body, Taps):
                self._tap = body.tap
            elif isinstance(body, AreaPacket) and body.t_s == t_s:
                # What is late from an earlier clearing has nothing to say any more.
                packets.append(self._packet(mail.sender, body))
        return parts, packets

    def _packet(self, sender: str, body: AreaPacket) -> Packet:
        return Packet(
            sender=self._area_of[sender], receiver=self._market.area, half_round=body.half_round, seen=body.seen,
            values=body.values, verdict=body.verdict, halt=body.halt,
        )  # fmt: skip

    def _confer(self, t_s: int, packets: Sequence[Packet], outbox: Outbox) -> None:
        self._slots += 1
        for packet in self._market.slot(packets):
            body = AreaPacket(
                t_s=t_s, half_round=packet.half_round, seen=packet.seen, values=packet.values,
                verdict=packet.verdict, halt=packet.halt,
            )  # fmt: skip
            self._packets, self._bytes = self._packets + 1, self._bytes + len(encode(body))
            outbox.mail.append(Mail(self.name, self._name_of[packet.receiver], body))
        outbox.confers = not self._market.done
        if self._market.done:
            self._open_s = None
            self._conclude(t_s, outbox)

    def _conclude(self, t_s: int, outbox: Outbox) -> None:
        found = self._market.outcome()
        points = found.points
        agreed = not found.failure
        clearing = AreaClearing(
            t_s=t_s, failure=found.failure, rounds=found.rounds, smo=self._market.smo if agreed else _NOBODY,
            p_kw=points.p_kw, q_kvar=points.q_kvar, gen_kw=points.gen_kw,
            node=self._market.node if agreed else _NOBODY,
            dlmp_p_usd_per_kwh=points.dlmp_node_p_usd_per_kwh, dlmp_q_usd_per_kvarh=points.dlmp_node_q_usd_per_kvarh,
        )  # fmt: skip
        outbox.mail.append(Mail(self.name, "pmo", clearing))
        columns: dict[str, list[float | str]] = {
            "area": [self.name], "failure": [found.failure], "rounds": [found.rounds], "slots": [self._slots],
            "packets": [self._packets], "sent_bytes": [self._bytes], "solve_s": [found.solve_s],
        }  # fmt: skip
        outbox.rows.append(Rows("areas", t_s, columns))

    def _meters(self, t_s: int, bids: SmoBids) -> AreaMeters:
        return AreaMeters(
            t_s=t_s, smo=bids.smo, resilience_score=bids.resilience_score, p_meter_kw=bids.p_meter_kw,
            q_meter_kvar=bids.q_meter_kvar, gen_meter_kw=bids.gen_meter_kw,
        )  # fmt: skip
