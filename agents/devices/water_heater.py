"""Electric water heater: a tank that people draw heat from in the morning and in the evening."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MIN_C, MAX_C, WANTED_C, ROOM_C = 45.0, 60.0, 55.0, 20.0
TIME_CONSTANT_H = 120.0
"""A well-insulated 190-litre tank loses its heat over about five days."""

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


def coefficients(kwh_per_c: Array, dt_h: float) -> tuple[float, Array]:
    """Return (theta, gain [degC per kW]) over a step; a house without a tank has zero gain."""
    theta = float(np.exp(-dt_h / TIME_CONSTANT_H))
    return theta, np.divide(dt_h, kwh_per_c, out=np.zeros_like(kwh_per_c), where=kwh_per_c > 0.0)


def rest_c(draw_kw: Array, factor: Array | float, theta: float, gain: Array) -> Array:
    """Return the temperature that the tank tends to without power, with the step's draw folded in [degC]."""
    return ROOM_C - gain * draw_kw * factor / (1.0 - theta)
