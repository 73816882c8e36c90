"""Following the wall clock: every operator waits for its instant to be due, and says how late it was.

An instant at simulated second now_s is due at origin + now_s / factor. The origin is one for all operators; it is set
when the warm-up minute, which takes as long as it takes, is over. Waiting changes no result: nobody acts without the
mail of those who act before it, however late that makes it. HELICS' own real-time flag knows neither a factor nor a
common origin, and with a limit of lag it grants time to those whose mail is not there yet (benchmarks/bench_pacing.py).
"""

from __future__ import annotations

import threading
import time
from typing import Protocol, runtime_checkable

from voltier.agents.operator import Operator, Rows
from voltier.federates.ports import Pacing

START_MARGIN_S = 0.5
"""Wall time between the announcement of the origin and the origin, for the news to reach every process."""


class Pace:
    """The wall clock of the operators in one process."""

    def __init__(self, pacing: Pacing) -> None:
        self._pacing = pacing
        self._origin: float | None = None
        self._late: set[str] = set()
        self._released = threading.Event()

    def begin(self, origin_unix_s: float) -> None:
        """Take the wall-clock time of simulated second 0; what comes later is ignored."""
        if self._origin is None:
            # From here on steps of the system's clock do no harm.
            self._origin = time.monotonic() + origin_unix_s - time.time()

    @property
    def runs(self) -> bool:
        """Whether the origin is known."""
        return self._origin is not None

    def simulated_s(self, monotonic_s: float | None = None) -> float:
        """Return the simulated second that the wall clock shows, now or at a reading of time.monotonic()."""
        assert self._origin is not None
        at = time.monotonic() if monotonic_s is None else monotonic_s
        return (at - self._origin) * self._pacing.factor

    def unix_s(self, now_s: float) -> float:
        """Return the wall-clock time at which a simulated second is due."""
        assert self._origin is not None
        return self._origin + now_s / self._pacing.factor - time.monotonic() + time.time()

    def hold(self, name: str, now_s: int) -> list[Rows]:
        """Wait until the instant of an operator at now_s is due; return how late it is now, as table rows."""
        assert self._origin is not None
        due = self._origin + now_s / self._pacing.factor
        self._released.wait(max(due - time.monotonic(), 0.0))
        lag_ms = 1e3 * (time.monotonic() - due)
        rows = [Rows("realtime", now_s, {"operator": [name], "lag_ms": [lag_ms]})]
        late = lag_ms > self._pacing.lag_budget_ms
        if late and name not in self._late:
            text = f"acts {lag_ms:.0f} ms late, more than the {self._pacing.lag_budget_ms:g} ms allowed"
            rows.append(Rows("events", now_s, {"source": [name], "kind": ["lag"], "text": [text]}))
        (self._late.add if late else self._late.discard)(name)
        return rows

    def release(self) -> None:
        """Let nobody wait any more: the run is over."""
        self._released.set()


@runtime_checkable
class Outward(Protocol):
    """An operator that deals with the world outside, by its clock."""

    def paced_by(self, pace: Pace) -> None:
        """Take the wall clock of the run."""
        ...

    def close(self) -> None:
        """Let go of the world outside; called once, however the run ends."""
        ...


def attend(operator: Operator, pace: Pace) -> None:
    """Give the wall clock to an operator that deals with the world outside."""
    if isinstance(operator, Outward):
        operator.paced_by(pace)


def pace_of(pacing: Pacing | None) -> Pace | None:
    """Return the wall clock of a process, if the run follows it."""
    return None if pacing is None else Pace(pacing)
