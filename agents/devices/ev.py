"""Electric vehicle: a battery that is away by day, comes home emptier and wants to leave full.

Charging can be put off only as long as the rest of the stay, at full rating, still reaches the departure target:
E(t) >= target - eta_c rated (t_departure - t).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from voltier.agents.devices.battery import (
    ETA_CHARGE,
    SOC_MAX,
    SOC_MIN,
    power_band_kw,
    step_energy,
    storage_rows,
)
from voltier.agents.devices.device import (
    DAY_MIN,
    MINUTE_H,
    Array,
    Device,
    Index,
    Mask,
    Moment,
    Outlook,
    Response,
    Wish,
    minutes_until,
)
from voltier.agents.devices.fleet import Fleet
from voltier.agents.devices.inverter import reactive_room_kvar
from voltier.market.planning.household import DeviceRows

DEPARTURE_SOC = 0.9
LET_GO_SHARE = 0.5
"""Share of its planned charging, or of the rating where it may discharge, that the owner lets the market move."""


def at_home(minute_of_day: int | Index, away_min: Index, home_min: Index) -> Mask:
    """Say which cars are plugged in; home_min may lie past midnight; shapes broadcast."""
    return (minute_of_day - away_min) % DAY_MIN >= (home_min - away_min) % DAY_MIN


def driven_kwh(minute_of_day: int, home_min: Index, trip_kwh: Array) -> Array:
    """Return the energy that the day's trip took, in the minute in which the car comes home; else zero."""
    return np.where(minute_of_day == home_min % DAY_MIN, trip_kwh, 0.0)


@dataclass(frozen=True, slots=True)
class Car(Device):
    """Cars; state: stored energy [kWh].

    rated_kw : charger ; capacity_kwh ; away_min, home_min : minutes of the day between which the car is away ;
    trip_kwh : energy driven a day ; discharges : 1 for V2G, 0 for cars that only charge (V1G)
    """

    key: ClassVar[str] = "ev"
    state_columns: ClassVar[tuple[str, ...]] = ("ev_kwh", "ev_missing_kwh")

    rated_kw: Array
    capacity_kwh: Array
    away_min: Index
    home_min: Index
    trip_kwh: Array
    discharges: Array

    @classmethod
    def draw(cls, fleet: Fleet) -> Self:
        """Draw charger, battery, the same stay at home every day, what a day's trip takes, and who may discharge."""
        spec, stays, rng, n = fleet.spec, fleet.stays, fleet.stream("cars"), fleet.spec.evs
        capacity_kwh = rng.uniform(20.0, 100.0, n)
        stay = rng.integers(0, len(stays.arrival_min), n)
        rated_kw = rng.uniform(spec.ev_kw_min, spec.ev_kw_max, n)
        # Nobody drives further, day by day, than charging at home brings back.
        longest_kwh = np.minimum(
            0.5 * capacity_kwh, ETA_CHARGE * rated_kw * stays.parked_min[stay] * MINUTE_H
        )
        both_ways = np.zeros(n)
        both_ways[fleet.stream("v2g").permutation(n)[: round(spec.v2g_share * n)]] = 1.0
        return cls(
            at=fleet.owners("evs", n),
            rated_kw=rated_kw,
            capacity_kwh=capacity_kwh,
            away_min=(stays.arrival_min + stays.parked_min)[stay] % DAY_MIN,
            home_min=stays.arrival_min[stay],
            trip_kwh=np.minimum(rng.uniform(5.0, 15.0, n), longest_kwh),
            discharges=both_ways,
        )

    @property
    def target_kwh(self) -> Array:
        """Energy wanted in the car when it leaves."""
        return DEPARTURE_SOC * self.capacity_kwh

    def rest(self, minute_of_day: int) -> Array:
        """Return cars on the road with what they left with, and at home as empty as still lets them leave ready.

        The latter miss at most what their last trip took: the night's charging is ahead of them.
        """
        home = at_home(minute_of_day, self.away_min, self.home_min)
        paid_later = driven_kwh(minute_of_day, self.home_min, self.trip_kwh)
        missing = np.minimum(self.trip_kwh, self.chargeable_kwh(minutes_until(minute_of_day, self.away_min)))
        return self.target_kwh - np.where(home & (paid_later == 0.0), missing, 0.0)

    def chargeable_kwh(self, minutes: Index) -> Array:
        """Return the energy that some minutes of charging at full rating store."""
        return ETA_CHARGE * self.rated_kw * minutes * MINUTE_H

    def rows(self, x: Array, outlook: Outlook) -> DeviceRows:
        """Charge, or trade, while at home; leave with the target; come home without the trip's energy."""
        steps, step_min = len(outlook.hour_of_day), outlook.step_min
        begin, away, back = outlook.begin_min[None, :], self.away_min[:, None], self.home_min[:, None]
        home = at_home(begin + step_min // 2, away, back)
        comes_home = (back - begin) % DAY_MIN < step_min
        leaves = home & ~at_home(begin + step_min // 2 + step_min, away, back)
        rated = np.where(home, self.rated_kw[:, None], 0.0)
        rows = storage_rows(x, rated, self.discharges[:, None] * rated, self.capacity_kwh, outlook.step_h)
        least = np.where(leaves, self.target_kwh[:, None], SOC_MIN * self.capacity_kwh[:, None])
        drift = np.where(comes_home, -self.trip_kwh[:, None], np.zeros((1, steps)))
        return replace(rows, x_min=least, drift=drift)

    def offer(self, x: Array, wish: Wish, moment: Moment, window_h: float) -> Response:
        """Follow the plan; offer what leaves the departure target within reach at full rating.

        A car that cannot reach it any more charges with all it has and offers nothing.
        """
        minute = moment.minute_of_day
        rated = np.where(at_home(minute, self.away_min, self.home_min), self.rated_kw, 0.0)
        x = x - driven_kwh(minute, self.home_min, self.trip_kwh)
        stay_h = minutes_until(minute, self.away_min) * MINUTE_H
        window = np.minimum(window_h, stay_h)
        needed = self.target_kwh - ETA_CHARGE * self.rated_kw * (stay_h - window)
        floor = np.maximum(needed, SOC_MIN * self.capacity_kwh)
        least, most = power_band_kw(x, floor, SOC_MAX * self.capacity_kwh, rated, window)
        least = np.minimum(least, 0.0)
        most = np.minimum(most, np.where(self.discharges > 0.0, rated, 0.0))
        most = np.maximum(most, least)
        p_kw = np.clip(wish.p_kw, least, most)
        any_kw = self.discharges * rated
        return Response(
            p_kw,
            np.minimum(most - p_kw, LET_GO_SHARE * np.maximum(-p_kw, any_kw)),
            np.minimum(p_kw - least, LET_GO_SHARE * np.maximum(p_kw + rated, any_kw)),
        )

    def step(self, x: Array, p_kw: Array, moment: Moment) -> Array:
        """Store what is charged, give what is discharged, and pay for the trip on coming home."""
        return step_energy(x, p_kw, MINUTE_H) - driven_kwh(moment.minute_of_day, self.home_min, self.trip_kwh)

    def reactive_room_kvar(self, p_kw: Array) -> Array:
        """Return the room of the chargers that work both ways; plain chargers have none."""
        return self.discharges * reactive_room_kvar(p_kw, self.rated_kw)

    def columns(self, x: Array, moment: Moment) -> Mapping[str, Array]:
        """Return the stored energy, and what a car that is away left without."""
        # The record is of the end of the minute: a car that leaves with the next one has left.
        away = ~at_home(moment.minute_of_day + 1, self.away_min, self.home_min)
        return {
            "ev_kwh": x,
            "ev_missing_kwh": np.where(away, np.maximum(self.target_kwh - x, 0.0), 0.0),
        }
