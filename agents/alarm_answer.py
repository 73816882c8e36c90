"""What the primary market does about an alarm: it re-weights its bids until the import is back, then lets go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from voltier.agents.messages import Alarm, Array
from voltier.market.primary.problem import PrimaryClearing
from voltier.market.resilience.coefficients import Coefficients, faded
from voltier.market.resilience.mitigation import restore_import

Clear = Callable[..., PrimaryClearing]
"""Coefficients, and bound: whether to certify the gap → clearing."""

_TRIM_RATE = 0.5
"""Share of the import error left by one answer that the next one takes up."""


class AlarmAnswer:
    """Repeats the mitigation with the newest shortfall while an alarm is on, and fades it out afterwards.

    recovery_periods : clearings over which the re-weighting fades; stop_share : import error, as a share of the import
    to go back to, at which the answer is no longer corrected; s_base_kva : power base of the network.
    """

    def __init__(self, recovery_periods: int, stop_share: float, s_base_kva: float) -> None:
        self._recovery_periods, self._stop_share, self._s_base_kva = recovery_periods, stop_share, s_base_kva
        self._alarm: Alarm | None = None
        self._weights: Coefficients | None = None
        self._shortfall_kw, self._trim_kw = 0.0, 0.0
        self._answered_kw: float | None = None
        self._recovery_left = 0

    def hear(self, alarms: Sequence[Alarm]) -> None:
        """Take note of the alarms since the last clearing, in order."""
        for alarm in alarms:
            if self._alarm is not None and self._alarm.active and not alarm.active:
                self._recovery_left = self._recovery_periods
                self._trim_kw = 0.0
            self._alarm = alarm
        shortfall_kw = [alarm.shortfall_kw for alarm in alarms if alarm.active]
        if shortfall_kw:
            self._shortfall_kw = float(np.mean(shortfall_kw))

    def review(self, import_kw: float) -> None:
        """Compare the metered import of the last answer's period with where it was to go.

        The error is summed up, as in any integral controller, unless it is small enough, or resources had run out.
        """
        if self._answered_kw is None or self._alarm is None or not self._alarm.active:
            return
        error_kw = import_kw + self._alarm.target_p_cc_kw
        if abs(error_kw) >= self._stop_share * abs(self._alarm.target_p_cc_kw):
            # What the shortfall has grown by meanwhile is in the next answer's target already.
            self._trim_kw += _TRIM_RATE * (error_kw - (self._shortfall_kw - self._answered_kw))

    def clear(
        self, clear: Clear, usual: Coefficients, rs: Array, miss_kw: float
    ) -> tuple[PrimaryClearing, str | None]:
        """Clear as the alarm asks; return the clearing, and what was done if an alarm is on.

        usual : coefficients as bid; rs : (n,) resilience scores; miss_kw : power that agents will fail to deliver.
        """
        self._answered_kw = None
        if self._alarm is None or not self._alarm.active:
            return clear(self._fading(usual)), None
        target_kw = -self._alarm.target_p_cc_kw - self._shortfall_kw - miss_kw - self._trim_kw
        restored = restore_import(
            partial(clear, bound=False),
            usual,
            rs,
            delta_kw=self._shortfall_kw,
            target_import_kw=target_kw,
            s_base_kva=self._s_base_kva,
        )
        clearing = clear(restored.coefficients)
        self._weights = restored.coefficients
        self._answered_kw = self._shortfall_kw if restored.reached else None
        outcome = "reached" if restored.reached else "as far as resources go"
        return clearing, (
            f"shortfall {self._shortfall_kw:.0f} kW: import scheduled at {clearing.p_import_kw:.0f} kW "
            f"for a target of {target_kw:.0f} kW ({outcome}, mu = {restored.mu:.3g})"
        )

    def _fading(self, usual: Coefficients) -> Coefficients:
        """Return the usual coefficients, or, after an alarm, what is left of the re-weighting."""
        if self._weights is None or self._recovery_left == 0:
            self._weights = None
            return usual
        share = self._recovery_left / (self._recovery_periods + 1)
        self._recovery_left -= 1
        return faded(usual, self._weights, share)
