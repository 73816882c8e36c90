"""Primary resilience manager: it sees only the power at the substation, detects a deviation and asks for mitigation."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from statistics import fmean

from voltier.agents.attacker import Attacker
from voltier.agents.messages import Alarm, ImportSchedule, Measurement
from voltier.agents.operator import Mail, Outbox, Rows
from voltier.market.resilience.detection import Detector, DetectorState, observe

_PRE_ATTACK_MIN = 15
"""Minutes before the first suspicious one whose mean is the import to go back to."""


class ResilienceOperator:
    """Monitor of P_cc, with the scenario's attacker riding on the same federate.

    The two share no state: the monitor never learns which nodes are attacked, or whether any is.
    """

    name = "resilience"

    def __init__(self, detector: Detector, attacker: Attacker, *, enabled: bool, mitigate: bool) -> None:
        self._detector, self._attacker = detector, attacker
        self._enabled, self._mitigate = enabled, mitigate
        self._state = DetectorState()
        self._schedule: ImportSchedule | None = None
        self._clean_p_cc_kw: deque[float] = deque(maxlen=_PRE_ATTACK_MIN)
        self._target_p_cc_kw: float | None = None

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Let the attacker act, then judge last minute's measurement against the schedule."""
        outbox = self._attacker.act(now_s)
        for mail in inbox:
            if isinstance(mail.body, ImportSchedule):
                self._schedule = mail.body
        measured = [mail.body for mail in inbox if isinstance(mail.body, Measurement)]
        if self._enabled and measured and self._schedule is not None:
            self._judge(now_s, float(measured[-1].p_cc_kw.sum()), outbox)
        return outbox

    def _judge(self, now_s: int, p_cc_kw: float, outbox: Outbox) -> None:
        assert self._schedule is not None
        was_alarmed = self._state.alarm
        residual_kw = p_cc_kw - self._schedule.p_cc_kw
        self._state, _ = observe(self._state, residual_kw, self._schedule.load_kw, self._detector)
        shortfall_kw = self._state.bias_kw - residual_kw
        if not self._state.alarm and self._state.beyond == 0:
            self._clean_p_cc_kw.append(p_cc_kw)
        if self._state.alarm and not was_alarmed:
            self._target_p_cc_kw = (
                fmean(self._clean_p_cc_kw) if self._clean_p_cc_kw else self._schedule.p_cc_kw
            )
            text = f"import deviates by {shortfall_kw:.0f} kW from the schedule of {-self._schedule.p_cc_kw:.0f} kW"
            outbox.rows.append(_event(now_s, "alarm", text))
        elif was_alarmed and not self._state.alarm:
            outbox.rows.append(_event(now_s, "all-clear", f"import is back on schedule ({-p_cc_kw:.0f} kW)"))
        if self._mitigate and (self._state.alarm or was_alarmed):
            assert self._target_p_cc_kw is not None
            alarm = Alarm(
                t_s=now_s,
                active=self._state.alarm,
                target_p_cc_kw=self._target_p_cc_kw,
                shortfall_kw=shortfall_kw,
            )
            outbox.mail.append(Mail(self.name, "pmo", alarm))


def _event(t_s: int, kind: str, text: str) -> Rows:
    return Rows("events", t_s, {"source": ["resilience"], "kind": [kind], "text": [text]})
