"""Electric water heater: a tank that people draw heat from in the morning and in the evening."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from voltier.agents.devices import thermal
from voltier.agents.devices.device import (
    MINUTE_H,
    Array,
    Device,
    Moment,
    Outlook,
    Response,
    Wish,
    idle_rows,
    load_response,
    over_steps,
)
from voltier.agents.devices.fleet import Fleet
from voltier.market.planning.household import DeviceRows

MIN_C, MAX_C, WANTED_C, ROOM_C = 45.0, 60.0, 55.0, 20.0
TIME_CONSTANT_H = 120.0
"""A well-insulated 190-litre tank loses its heat over about five days."""
TANK_USD_PER_C2H = 0.0002
"""What a degree away from the wanted temperature costs for an hour, squared; people hardly notice it."""
DISCOMFORT_USD_PER_C = 1.0
"""Penalty of each degree outside the limits at the end of a step."""

_MORNING, _EVENING, _SPREAD_H = 7.0, 19.5, 1.5


def draw_factor(hour_of_day: Array | float) -> Array:
    """Return the heat drawn over its daily mean: two peaks a day on a quiet floor. Shape of hour_of_day."""
    hour = np.asarray(hour_of_day, dtype=np.float64)

    def peak(centre: float) -> Array:
        distance = np.abs((hour - centre + 12.0) % 24.0 - 12.0)
        return np.exp(-0.5 * (distance / _SPREAD_H) ** 2)

    area = np.sqrt(2.0 * np.pi) * _SPREAD_H
    # 0.1 of the mean at all hours, the rest split 2:3 between morning and evening.
    return np.asarray(0.1 + 0.9 * 24.0 / area * (0.4 * peak(_MORNING) + 0.6 * peak(_EVENING)))


@dataclass(frozen=True, slots=True)
class WaterHeater(Device):
    """Tanks; state: their temperature [degC]. rated_kw ; kwh_per_c : capacity ; draw_kw : mean heat drawn."""

    key: ClassVar[str] = "water_heater"
    lags: ClassVar[bool] = True
    state_columns: ClassVar[tuple[str, ...]] = ("temp_water_c",)

    rated_kw: Array
    kwh_per_c: Array
    draw_kw: Array

    @classmethod
    def draw(cls, fleet: Fleet) -> Self:
        """Draw the houses that heat water with electricity, and how much of it they use."""
        n = fleet.spec.water_heaters
        return cls(
            at=fleet.owners("water heaters", n),
            rated_kw=np.full(n, 4.5),
            kwh_per_c=np.full(n, 0.22),
            draw_kw=fleet.stream("hot water").uniform(0.2, 0.5, n),
        )

    def rest(self, minute_of_day: int) -> Array:
        """Return tanks at the wanted temperature."""
        return np.full(len(self.at), WANTED_C)

    def model(self, factor: Array | float, dt_h: float) -> tuple[Array, Array, Array]:
        """Return (theta (n,), gain (n,) [degC per kW], temperature without power) over a step.

        factor : the draw over its daily mean, a number or (1, H); the last is (n,) or (n, H), the draw folded in.
        """
        theta, gain = np.full(len(self.at), np.exp(-dt_h / TIME_CONSTANT_H)), dt_h / self.kwh_per_c
        cooled = gain * self.draw_kw / (1.0 - theta)
        return theta, gain, ROOM_C - (cooled[:, None] if np.ndim(factor) else cooled) * factor

    def rows(self, x: Array, outlook: Outlook) -> DeviceRows:
        """Weigh the bill against the distance to the wanted temperature."""
        n, steps = len(x), len(outlook.hour_of_day)
        theta, gain, rest = self.model(draw_factor(outlook.hour_of_day)[None, :], outlook.step_h)
        return replace(
            idle_rows(x, steps),
            theta=theta,
            gain_c=over_steps(gain, steps),
            drift=(1.0 - theta)[:, None] * rest,
            c_max_kw=over_steps(self.rated_kw, steps),
            x_min=np.full((n, steps), MIN_C),
            x_max=np.full((n, steps), MAX_C),
            target=np.full((n, steps), WANTED_C),
            w_state=np.full((n, steps), TANK_USD_PER_C2H * outlook.step_h),
            penalty=np.full(n, DISCOMFORT_USD_PER_C),
        )

    def guard(self, outlook: Outlook) -> tuple[Array, Array]:
        """Return the coldest and the warmest tanks that can still be kept within limits."""
        factor = draw_factor(outlook.hour_of_day)[None, :]
        theta, gain, rest = self.model(factor, outlook.step_h)
        low, high = thermal.neighbours(rest)
        push = over_steps(gain * self.rated_kw, rest.shape[1])
        limits = np.full(len(gain), MIN_C), np.full(len(gain), MAX_C)
        return thermal.guard_c(theta, low, high, push, *limits)

    def offer(self, x: Array, wish: Wish, moment: Moment, window_h: float) -> Response:
        """Track the planned temperature; offer what keeps the tank within limits now and leaves it possible later.

        A tank that the heater could not keep within limits follows its plan and offers nothing.
        """
        factor, margin = draw_factor(moment.minute_of_day / 60.0), thermal.COMFORT_MARGIN_C
        theta, gain, rest = self.model(factor, wish.ahead_h)
        wished = thermal.power_to_reach(wish.x, x, rest, theta, gain)
        safe = wish.low + 2.0 * margin <= wish.high
        low, high = np.where(safe, wish.low, MIN_C) + margin, np.where(safe, wish.high, MAX_C) - margin
        theta, gain, rest = self.model(factor, window_h)
        least, most = thermal.comfort_band_kw(x, rest, theta, gain, low, high, self.rated_kw)
        wished = np.clip(wished, least, most)
        share = np.where(safe, thermal.LET_GO_SHARE, 0.0)
        return load_response(wished, least, most, share * wished, share * (self.rated_kw - wished))

    def step(self, x: Array, p_kw: Array, moment: Moment) -> Array:
        """Let the tank leak, be drawn from and be heated."""
        theta, gain, rest = self.model(draw_factor(moment.minute_of_day / 60.0), MINUTE_H)
        return thermal.step_temperature(x, rest, theta, gain, -p_kw)

    def columns(self, x: Array, moment: Moment) -> Mapping[str, Array]:
        """Return the tank's temperature."""
        return {"temp_water_c": x}
