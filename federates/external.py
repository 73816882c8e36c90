"""An operator that somebody outside plays: what it says is checked, and what becomes of the market without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from voltier.agents.clock import MINUTE_S, MarketClock
from voltier.agents.operator import Mail, Outbox, Rows
from voltier.federates.border import check_body
from voltier.federates.part import ExternalPart, expected
from voltier.federates.ports import OutsiderError, OutsiderLostError
from voltier.federates.wiring import Wiring, role_of, wire_time


class Outside(Protocol):
    """The way to somebody outside."""

    def exchange(self, now_s: int, mail: Sequence[Mail]) -> tuple[list[Mail], list[Rows]]:
        """Give mail at an instant and return the answer. Raises OutsiderLostError if there is none."""
        ...

    def has_left(self) -> bool:
        """Say whether nobody is there any more."""
        ...

    def close(self, reason: str = "") -> None:
        """End it."""
        ...


class ExternalOperator:
    """Passes mail to and from an outsider. Once it is lost, what it said last is said again, if the case allows."""

    def __init__(
        self, name: str, outside: Outside, wiring: Wiring, clock: MarketClock, part: ExternalPart
    ) -> None:
        self.name = name
        self._outside, self._wiring, self._clock, self._part = outside, wiring, clock, part
        self._last: dict[str, list[Mail]] = {}
        self.sent: dict[str, list[int]] = {}
        """Simulated seconds at which each type of message came and was found sound."""
        self._lost = False

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Let the outsider answer. Raises OutsiderError for an answer that is wrong or missing."""
        if self._lost:
            return self._hold(now_s)
        try:
            mail, rows = self._outside.exchange(now_s, inbox)
        except OutsiderLostError as error:
            return self._lose(now_s, str(error))
        missing = self._missing(now_s, mail)
        if missing:
            if self._outside.has_left():
                why = f"left, or was taken down, before simulated second {now_s}"
                return self._lose(now_s, f"the external {self.name} {why}")
            raise self._refused(
                f"sent no {' and no '.join(missing)} at simulated second {now_s} (HELICS time "
                f"{wire_time(self.name, now_s):g} s) and let that time pass (see its period and offset)"
            )
        for item in mail:
            problem = check_body(item.body, item.receiver, now_s, self._part)
            if problem is not None:
                raise self._refused(f"sent to {item.receiver} at simulated second {now_s}: {problem}")
        for kind in {type(item.body).__name__ for item in mail}:
            self.sent.setdefault(kind, []).append(now_s)
            self._last[kind] = [item for item in mail if type(item.body).__name__ == kind]
        return Outbox(mail, rows)

    def _missing(self, now_s: int, mail: Sequence[Mail]) -> list[str]:
        """Name what should have been sent and was not."""
        sent = {(type(item.body).__name__, item.receiver) for item in mail}
        found = []
        for kind, role in expected(self.name, self._wiring, self._clock, now_s):
            receivers = [key.partition(">")[2] for key in self._part.rows if key.startswith(f"{kind}>")]
            if receivers:
                found += [f"{kind} to {to}" for to in receivers if (kind, to) not in sent]
            elif not any(kind == done and role_of(to) == role for done, to in sent):
                found.append(f"{kind} to {role}")
        return found

    def _refused(self, what: str) -> OutsiderError:
        text = f"the external {self.name} {what}"
        self._outside.close(text)
        return OutsiderError(text)

    # ------------------------------------------------------------------ without it

    def _lose(self, now_s: int, why: str) -> Outbox:
        self._outside.close(why)
        self._lost = True
        needed = {kind for kind, _ in expected(self.name, self._wiring, self._clock, now_s)}
        if not self._part.survives:
            raise OutsiderError(f"{why}; the market cannot go on without it")
        if not needed <= set(self._last):
            raise OutsiderError(f"{why}; it had said nothing yet that could stay in force")
        outbox = self._hold(now_s)
        text = f"{why}; what it said last stays in force"
        columns: dict[str, Sequence[float | str]] = {
            "source": [self.name],
            "kind": ["external-lost"],
            "text": [text],
        }
        outbox.rows.append(Rows("events", now_s // MINUTE_S * MINUTE_S, columns))
        return outbox

    def _hold(self, now_s: int) -> Outbox:
        """Say again what was said last, as of this minute."""
        kinds = [kind for kind, _ in expected(self.name, self._wiring, self._clock, now_s)]
        if "SmaSchedule" in kinds:
            kinds.append("Injections")  # the operators' own generators, if they have any
        minute_s = now_s // MINUTE_S * MINUTE_S
        outbox = Outbox()
        for kind in dict.fromkeys(kinds):
            again: dict[int, Any] = {}  # a state must be one object for all its readers
            for item in self._last.get(kind, []):
                body = again.setdefault(id(item.body), msgspec.structs.replace(item.body, t_s=minute_s))
                outbox.mail.append(Mail(self.name, item.receiver, body))
        return outbox
