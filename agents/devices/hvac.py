"""Heat pump of a house: heats below the wanted temperature, cools above it.

theta = exp(-dt/(R C)), gain = +(1 - theta) R COP when heating, minus that when cooling (Nair et al., arXiv 2406.06844,
with the exponent's missing bracket restored).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voltier.agents.devices.thermal import power_to_reach, step_temperature

Array = NDArray[np.float64]


def coefficients(
    r_c_per_kw: Array, c_kwh_per_c: Array, cop: Array, set_c: Array, temp_air_c: Array | float, dt_h: float
) -> tuple[Array, Array]:
    """Return (theta, gain [degC per kW]) over a step; the mode follows from outdoor against wanted temperature."""
    theta = np.exp(-dt_h / (r_c_per_kw * c_kwh_per_c))
    heats = np.where(temp_air_c < set_c, 1.0, -1.0)
    return theta, heats * (1.0 - theta) * r_c_per_kw * cop


def comfort_band_kw(
    temp_c: Array, temp_air_c: float, theta: Array, gain: Array, low_c: Array, high_c: Array, rated_kw: Array
) -> tuple[Array, Array]:
    """Return the least and most consumption that keep the temperature within low_c and high_c over the step.

    Outside comfort already, or beyond the rating, both are the end of the rating nearest to comfort.
    """
    rest = np.full_like(temp_c, temp_air_c)
    at_low = power_to_reach(low_c, temp_c, rest, theta, gain)
    at_high = power_to_reach(high_c, temp_c, rest, theta, gain)
    least, most = np.minimum(at_low, at_high), np.maximum(at_low, at_high)
    return np.clip(least, 0.0, rated_kw), np.clip(most, 0.0, rated_kw)


__all__ = ["coefficients", "comfort_band_kw", "power_to_reach", "step_temperature"]
