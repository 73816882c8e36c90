"""Deferrable load: a washing machine or dishwasher filled at one time of the day and wanted clean by another.

Each day an energy is owed from the release on and must be consumed by the deadline, at the rating at most; it can be
put off only as long as the rest of the time at full rating still finishes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from voltier.agents.devices.device import (
    DAY_MIN,
    MINUTE_H,
    Array,
    Device,
    Index,
    Moment,
    Outlook,
    Response,
    Wish,
    idle_rows,
    load_response,
    minutes_until,
    over_steps,
)
from voltier.agents.devices.fleet import Fleet
from voltier.market.planning.household import DeviceRows

UNDONE_USD_PER_KWH = 1.0
"""Penalty of energy still owed at the deadline."""


@dataclass(frozen=True, slots=True)
class Deferrable(Device):
    """Deferrable loads; state: energy still owed [kWh].

    rated_kw ; energy_kwh : of a day's run ; release_min, deadline_min : minutes of the day of its earliest begin and
    latest end
    """

    key: ClassVar[str] = "deferrable"
    lags: ClassVar[bool] = True
    state_columns: ClassVar[tuple[str, ...]] = ("deferrable_kwh",)

    rated_kw: Array
    energy_kwh: Array
    release_min: Index
    deadline_min: Index

    @classmethod
    def draw(cls, fleet: Fleet) -> Self:
        """Draw the houses that let an appliance wait: one run a day, filled between 7 and 22 h, 4 to 12 h to wait.

        Its energy comes on top of the base load.
        """
        n, rng = fleet.spec.deferrables, fleet.stream("deferrable loads")
        release = rng.integers(7 * 60, 22 * 60, n)
        return cls(
            at=fleet.owners("deferrable houses", n),
            rated_kw=rng.uniform(1.0, 2.2, n),
            energy_kwh=rng.uniform(0.7, 1.6, n),
            release_min=release,
            deadline_min=(release + rng.integers(4 * 60, 12 * 60 + 1, n)) % DAY_MIN,
        )

    def rest(self, minute_of_day: int) -> Array:
        """Return loads that wait for their deadline, as far as they can still meet it; nothing owed otherwise."""
        left_min = minutes_until(minute_of_day, self.deadline_min)
        waits = left_min <= (self.deadline_min - self.release_min) % DAY_MIN
        return np.where(waits, np.minimum(self.energy_kwh, self.rated_kw * left_min * MINUTE_H), 0.0)

    def rows(self, x: Array, outlook: Outlook) -> DeviceRows:
        """Consume when it is cheap, between release and deadline."""
        begin, step_min, steps = outlook.begin_min, outlook.step_min, len(outlook.hour_of_day)
        release, deadline = self.release_min[:, None], self.deadline_min[:, None]
        drift = np.where((release - begin) % DAY_MIN < step_min, self.energy_kwh[:, None], 0.0)
        # What is released right now is owed already.
        drift[self.release_min == begin[0], 0] = 0.0
        return replace(
            idle_rows(x, steps),
            gain_c=np.full((len(x), steps), -outlook.step_h),
            drift=drift,
            c_max_kw=over_steps(self.rated_kw, steps),
            x_min=np.zeros((len(x), steps)),
            x_max=np.where((deadline - begin - 1) % DAY_MIN < step_min, 0.0, np.inf),
            penalty=np.full(len(x), UNDONE_USD_PER_KWH),
        )

    def offer(self, x: Array, wish: Wish, moment: Moment, window_h: float) -> Response:
        """Follow the plan; offer what still finishes by the deadline."""
        left_h = minutes_until(moment.minute_of_day, self.deadline_min) * MINUTE_H
        window = np.minimum(window_h, left_h)
        least = np.maximum(x - self.rated_kw * (left_h - window), 0.0) / window
        most = np.minimum(self.rated_kw, x / window)
        return load_response(-wish.p_kw, np.minimum(least, most), most, self.rated_kw, self.rated_kw)

    def step(self, x: Array, p_kw: Array, moment: Moment) -> Array:
        """Take what is consumed off the energy owed, and owe the next run once it is released."""
        released = (moment.minute_of_day + 1) % DAY_MIN == self.release_min
        return np.maximum(x + p_kw * MINUTE_H, 0.0) + np.where(released, self.energy_kwh, 0.0)

    def columns(self, x: Array, moment: Moment) -> Mapping[str, Array]:
        """Return the energy still owed."""
        return {"deferrable_kwh": x}
