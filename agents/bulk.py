"""The transmission grid as an operator: the substation's power in, many times over, frequencies into the records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from voltier.agents.clock import MINUTE_S
from voltier.agents.messages import Array, Measurement
from voltier.agents.operator import Mail, Outbox, Rows
from voltier.grid.bulk import BulkGrid, BulkSeconds, BulkTrace, by_second

COLUMNS = (
    "frequency_hz",
    "frequency_min_hz",
    "frequency_max_hz",
    "rocof_hz_per_s",
    "generation_mw",
    "load_mw",
    "export_mw",
    "feeder_mw",
)


class FeederCopies:
    """A transmission grid that feels a feeder many times over, minute by minute.

    copies : feeders like the measured one. The grid comes to life in equilibrium with the first minute it is told of.
    """

    def __init__(self, copies: int) -> None:
        self._copies = copies
        self._grid: BulkGrid | None = None
        self._last: BulkTrace | None = None

    def minute(self, t_s: int, import_kw: float) -> BulkSeconds:
        """Return the seconds of the minute from t_s, in which each feeder draws import_kw from its first second on.

        Raises InputError and FederationError as BulkGrid does.
        """
        p_mw = self._copies * import_kw / 1000.0
        if self._grid is None:
            self._grid = BulkGrid(p_mw, t_s)
        trace = self._grid.step(t_s + MINUTE_S, p_mw)
        seconds = by_second(trace, self._grid.machines.area, self._last)
        self._last = trace
        return seconds


class BulkOperator:
    """Carries the transmission grid one minute on with each measurement; nobody hears from it.

    start_s : simulated second from which on there is a transmission grid to record.
    """

    name = "bulk"

    def __init__(self, copies: int, start_s: int) -> None:
        self._feeders, self._start_s = FeederCopies(copies), start_s

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Live through the minute whose measurement has come, and record its seconds."""
        outbox = Outbox()
        for mail in inbox:
            if isinstance(mail.body, Measurement) and mail.body.t_s >= self._start_s:
                seconds = self._feeders.minute(mail.body.t_s, -float(np.sum(mail.body.p_cc_kw)))
                outbox.rows += _rows(seconds)
        return outbox


def _rows(seconds: BulkSeconds) -> list[Rows]:
    """One set of rows, both areas, for each second."""
    columns: dict[str, Array] = {name: getattr(seconds, name) for name in COLUMNS}
    return [
        Rows("bulk", int(t_s), {name: values[i] for name, values in columns.items()})
        for i, t_s in enumerate(seconds.t_s)
    ]
