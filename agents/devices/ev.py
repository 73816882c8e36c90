"""Electric vehicles at home: parked each day from arrival to departure, charged for the next trip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

MINUTES_A_DAY = 1440


@dataclass(frozen=True, slots=True)
class Vehicles:
    """One row a vehicle, in order of houses.

    house : (n,) row of the house; charge_max_kw, discharge_max_kw : power limits (the latter 0: no feeding back)
    min_kwh, max_kwh : range of use; start_kwh : stored energy before the first minute
    arrival_minute : of the day; parked_minutes : until departure, below a day
    trip_kwh : taken out by the day's trip, seen at arrival; target_kwh : wanted at departure
    charge_efficiency, discharge_efficiency : 0 to 1
    """

    house: Index
    charge_max_kw: Array
    discharge_max_kw: Array
    min_kwh: Array
    max_kwh: Array
    start_kwh: Array
    arrival_minute: Index
    parked_minutes: Index
    trip_kwh: Array
    target_kwh: Array
    charge_efficiency: Array
    discharge_efficiency: Array


def parked(vehicles: Vehicles, minute_of_day: int) -> Flags:
    """Say which vehicles are at home in the minute."""
    return (minute_of_day - vehicles.arrival_minute) % MINUTES_A_DAY < vehicles.parked_minutes


def minutes_left(vehicles: Vehicles, minute_of_day: int) -> Index:
    """Return the minutes until departure; meaningless for a vehicle that is away."""
    return vehicles.parked_minutes - (minute_of_day - vehicles.arrival_minute) % MINUTES_A_DAY


def step(
    vehicles: Vehicles, energy_kwh: Array, p_kw: Array, dt_h: float, next_minute_of_day: int
) -> Array:
    """Return the stored energy after dt_h hours at p_kw (discharge positive); arrivals have used their trip.

    A trip longer than the stored energy allows leaves the vehicle at min_kwh: it was charged on the way.
    """
    charge, discharge = np.maximum(-p_kw, 0.0), np.maximum(p_kw, 0.0)
    stored = vehicles.charge_efficiency * charge - discharge / vehicles.discharge_efficiency
    energy = energy_kwh + stored * dt_h
    arrives = vehicles.arrival_minute == next_minute_of_day
    return np.where(arrives, np.maximum(energy - vehicles.trip_kwh, vehicles.min_kwh), energy)


def limits(
    vehicles: Vehicles, energy_kwh: Array, minute_of_day: int, window_h: float
) -> tuple[Array, Array]:
    """Return the least and greatest injection [kW] that can be held for window_h.

    Away: both 0. Charging may pause only while the target can still be reached by departure at full power.
    """
    here = parked(vehicles, minute_of_day)
    left_h = minutes_left(vehicles, minute_of_day) / 60.0
    room = np.maximum(vehicles.max_kwh - energy_kwh, 0.0) / (vehicles.charge_efficiency * window_h)
    p_min = -np.where(here, np.minimum(vehicles.charge_max_kw, room), 0.0)
    above = np.maximum(energy_kwh - vehicles.min_kwh, 0.0) * vehicles.discharge_efficiency / window_h
    p_max = np.where(here, np.minimum(vehicles.discharge_max_kw, above), 0.0)
    # Energy that full power adds between the end of the window and departure.
    later = vehicles.charge_max_kw * vehicles.charge_efficiency * np.maximum(left_h - window_h, 0.0)
    due_kw = (vehicles.target_kwh - later - energy_kwh) / window_h
    must = np.where(due_kw > 0.0, -due_kw / vehicles.charge_efficiency, -due_kw * vehicles.discharge_efficiency)
    return p_min, np.maximum(np.minimum(p_max, must), p_min)
