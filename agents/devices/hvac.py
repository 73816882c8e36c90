"""Heat pump of a house: heats where the air is below the wanted temperature, cools where it is above.

theta = exp(-dt/(R C)), gain = +(1 - theta) R COP when heating, minus that when cooling (Nair et al., arXiv 2406.06844,
with the exponent's missing bracket restored).
"""

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

MIN_C, MAX_C = 19.0, 25.0
DEAD_BAND_C = 0.2
"""Air this near to the wanted temperature needs no pump: no minute turns what was offered as heat into cold."""
COMFORT_USD_PER_C2H = 0.01
"""What a degree away from the wanted temperature costs for an hour, squared."""
DISCOMFORT_USD_PER_C = 1.0
"""Penalty of each degree outside comfort at the end of a step: far above any tariff, yet never infeasible."""


@dataclass(frozen=True, slots=True)
class HeatPump(Device):
    """Heat pumps with their rooms; state: indoor temperature [degC].

    r_c_per_kw, c_kwh_per_c : thermal resistance and capacity ; cop ; rated_kw : electric ; set_c : wanted temperature ;
    min_c, max_c : comfort
    """

    key: ClassVar[str] = "hvac"
    lags: ClassVar[bool] = True
    state_columns: ClassVar[tuple[str, ...]] = ("temp_indoor_c",)

    r_c_per_kw: Array
    c_kwh_per_c: Array
    cop: Array
    rated_kw: Array
    set_c: Array
    min_c: Array
    max_c: Array

    @classmethod
    def draw(cls, fleet: Fleet) -> Self:
        """Give every house one."""
        n, rng, spec = fleet.spec.houses, fleet.rng, fleet.spec
        return cls(
            at=np.arange(n),
            r_c_per_kw=2.0 * rng.uniform(0.8, 1.2, n),
            c_kwh_per_c=2.0 * rng.uniform(0.8, 1.2, n),
            cop=3.0 * rng.uniform(0.9, 1.1, n),
            rated_kw=rng.uniform(spec.hvac_kw_min, spec.hvac_kw_max, n),
            set_c=fleet.set_c,
            min_c=np.full(n, MIN_C),
            max_c=np.full(n, MAX_C),
        )

    def rest(self, minute_of_day: int) -> Array:
        """Return rooms at their wanted temperatures."""
        return self.set_c.copy()

    def model(self, temp_air_c: Array | float, dt_h: float) -> tuple[Array, Array]:
        """Return (theta, gain [degC per kW]) over a step; outdoor against wanted temperature decides the mode.

        temp_air_c : a number, giving (n,) arrays, or (1, H), giving (n, 1) and (n, H).
        """
        r, c, cop, set_c = (self.r_c_per_kw, self.c_kwh_per_c, self.cop, self.set_c)
        if np.ndim(temp_air_c):
            r, c, cop, set_c = (column[:, None] for column in (r, c, cop, set_c))
        theta = np.exp(-dt_h / (r * c))
        colder = set_c - temp_air_c
        mode = np.where(np.abs(colder) > DEAD_BAND_C, np.sign(colder), 0.0)
        return theta, mode * (1.0 - theta) * r * cop

    def rows(self, x: Array, outlook: Outlook) -> DeviceRows:
        """Weigh the bill against the distance to the wanted temperature."""
        air, steps = outlook.temp_air_c[None, :], len(outlook.temp_air_c)
        theta, gain = self.model(air, outlook.step_h)
        return replace(
            idle_rows(x, steps),
            theta=theta[:, 0],
            gain_c=gain,
            drift=(1.0 - theta) * air,
            c_max_kw=over_steps(self.rated_kw, steps),
            x_min=over_steps(self.min_c, steps),
            x_max=over_steps(self.max_c, steps),
            target=over_steps(self.set_c, steps),
            w_state=np.full((len(x), steps), COMFORT_USD_PER_C2H * outlook.step_h),
            penalty=np.full(len(x), DISCOMFORT_USD_PER_C),
        )

    def guard(self, outlook: Outlook) -> tuple[Array, Array]:
        """Return the coldest and the warmest rooms that comfort can still be kept in, at the worst air of an hour."""
        theta, gain = self.model(outlook.temp_air_c[None, :], outlook.step_h)
        low, high = (np.broadcast_to(air, gain.shape) for air in thermal.neighbours(outlook.temp_air_c))
        return thermal.guard_c(theta[:, 0], low, high, gain * self.rated_kw[:, None], self.min_c, self.max_c)

    def offer(self, x: Array, wish: Wish, moment: Moment, window_h: float) -> Response:
        """Track the planned temperature; offer what keeps comfort now and leaves it possible later.

        A room that no power could keep within comfort follows its plan and offers nothing.
        """
        air, margin = moment.temp_air_c, thermal.COMFORT_MARGIN_C
        rest = np.full(len(x), air)
        wished = thermal.power_to_reach(wish.x, x, rest, *self.model(air, wish.ahead_h))
        safe = wish.low + 2.0 * margin <= wish.high
        low, high = (
            np.where(safe, wish.low, self.min_c) + margin,
            np.where(safe, wish.high, self.max_c) - margin,
        )
        theta, gain = self.model(air, window_h)
        least, most = thermal.comfort_band_kw(x, rest, theta, gain, low, high, self.rated_kw)
        wished = np.clip(wished, least, most)
        share = np.where(safe, thermal.LET_GO_SHARE, 0.0)
        return load_response(wished, least, most, share * wished, share * (self.rated_kw - wished))

    def step(self, x: Array, p_kw: Array, moment: Moment) -> Array:
        """Let the room lose heat to the air and gain what is pumped."""
        rest = np.full(len(x), moment.temp_air_c)
        return thermal.step_temperature(x, rest, *self.model(moment.temp_air_c, MINUTE_H), -p_kw)

    def columns(self, x: Array, moment: Moment) -> Mapping[str, Array]:
        """Return the indoor temperature."""
        return {"temp_indoor_c": x}
