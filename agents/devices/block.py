"""Flexible block: a small data centre that must run, must not run above its rating, and may queue some of its work.

B' = B + (arrival - c) dt, floor <= c <= ceiling, 0 <= B <= B_max, and B = 0 at a due minute each day; so the queue may
never be longer than what the ceiling can work off until then.
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

QUEUE_USD_PER_KWH = 1.0
"""Penalty of a queue beyond its limit."""
FLOOR_SHARE, ARRIVAL_SHARE = 0.3, 0.65
"""Least consumption, and work that comes in, of the rating: idle servers and cooling, and a mean utilisation."""
QUEUE_H = 3.0
"""Work that may wait, in hours of what comes in."""


@dataclass(frozen=True, slots=True)
class FlexibleBlock(Device):
    """Blocks; state: queued work [kWh].

    floor_kw, ceiling_kw : limits of consumption ; arrival_kw : work that comes in, between them ; queue_kwh : most that
    may wait ; due_min : minute of the day by which nothing waits
    """

    key: ClassVar[str] = "block"
    lags: ClassVar[bool] = True
    state_columns: ClassVar[tuple[str, ...]] = ("block_queue_kwh",)

    floor_kw: Array
    ceiling_kw: Array
    arrival_kw: Array
    queue_kwh: Array
    due_min: Index

    @classmethod
    def draw(cls, fleet: Fleet) -> Self:
        """Draw the sites; all are alike but for the hour by which their day's work is due."""
        n, ceiling = fleet.spec.flexible_blocks, fleet.spec.flexible_block_kw
        arrival = ARRIVAL_SHARE * ceiling
        return cls(
            at=fleet.owners("flexible blocks", n),
            floor_kw=np.full(n, FLOOR_SHARE * ceiling),
            ceiling_kw=np.full(n, ceiling),
            arrival_kw=np.full(n, arrival),
            queue_kwh=np.full(n, QUEUE_H * arrival),
            due_min=60 * fleet.stream("flexible blocks due").integers(0, 24, n),
        )

    def rows(self, x: Array, outlook: Outlook) -> DeviceRows:
        """Shift what lies above the floor; consumption counts from there."""
        steps, step_min = len(outlook.hour_of_day), outlook.step_min
        due = (self.due_min[:, None] - outlook.begin_min[None, :] - 1) % DAY_MIN < step_min
        return replace(
            idle_rows(x, steps),
            gain_c=np.full((len(x), steps), -outlook.step_h),
            drift=over_steps(outlook.step_h * (self.arrival_kw - self.floor_kw), steps),
            c_max_kw=over_steps(self.ceiling_kw - self.floor_kw, steps),
            x_min=np.zeros((len(x), steps)),
            x_max=np.where(due, 0.0, self.queue_kwh[:, None]),
            penalty=np.full(len(x), QUEUE_USD_PER_KWH),
        )

    def offer(self, x: Array, wish: Wish, moment: Moment, window_h: float) -> Response:
        """Follow the plan; offer what keeps the queue short enough to be worked off in time."""
        left_h = minutes_until(moment.minute_of_day, self.due_min) * MINUTE_H
        window = np.minimum(window_h, left_h)
        spare_kw = self.ceiling_kw - self.arrival_kw
        longest = np.minimum(self.queue_kwh, spare_kw * (left_h - window))
        least = np.clip(self.arrival_kw + (x - longest) / window, self.floor_kw, self.ceiling_kw)
        most = np.clip(self.arrival_kw + x / window, least, self.ceiling_kw)
        return load_response(self.floor_kw - wish.p_kw, least, most, self.ceiling_kw, self.ceiling_kw)

    def step(self, x: Array, p_kw: Array, moment: Moment) -> Array:
        """Queue what comes in beyond what is worked off."""
        return np.maximum(x + (self.arrival_kw + p_kw) * MINUTE_H, 0.0)

    def columns(self, x: Array, moment: Moment) -> Mapping[str, Array]:
        """Return the queued work."""
        return {"block_queue_kwh": x}
