"""Electric vehicle: a battery that is away by day, comes home emptier and wants to leave full."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

DEPARTURE_SOC = 0.9
DAY_MIN = 1440


@dataclass(frozen=True, slots=True)
class Stays:
    """Samples of when cars stand at home, (n,) each: minute of the day of arrival, minutes until they leave."""

    arrival_min: Index
    parked_min: Index


COMMUTERS = Stays(np.array([16 * 60, 17 * 60, 18 * 60]), np.array([16 * 60, 15 * 60, 14 * 60]))
"""Home from the late afternoon until eight, where no data are given."""


def at_home(minute_of_day: int | Index, away_min: Index, home_min: Index) -> Mask:
    """Say which cars are plugged in; home_min may lie past midnight; shapes broadcast."""
    return (minute_of_day - away_min) % DAY_MIN >= (home_min - away_min) % DAY_MIN


def driven_kwh(minute_of_day: int, home_min: Index, trip_kwh: Array) -> Array:
    """Return the energy that the day's trip took, in the minute in which the car comes home; else zero."""
    return np.where(minute_of_day == home_min % DAY_MIN, trip_kwh, 0.0)
