"""First-order thermal storage: what a heat pump and a house, or a heater and a tank, have in common.

Temperature after dt at constant power: T' = theta T + (1 - theta) T_rest + gain c, theta = exp(-dt / time constant),
with T_rest the temperature without power and c >= 0 the electric consumption. All arrays (n,) unless said.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LET_GO_SHARE = 0.5
"""Share of a heat pump's or heater's planned power that its people let the market move ("up to 50 %" published)."""
COMFORT_MARGIN_C = 0.01
"""Kept from both limits: in the minute after an offer the air may move by 2.4 degC without breaking them."""


def step_temperature(temp_c: Array, rest_c: Array, theta: Array, gain_c_per_kw: Array, c_kw: Array) -> Array:
    """Return the temperatures after one step at consumption c_kw."""
    return theta * temp_c + (1.0 - theta) * rest_c + gain_c_per_kw * c_kw


def power_to_reach(
    target_c: Array, temp_c: Array, rest_c: Array, theta: Array, gain_c_per_kw: Array
) -> Array:
    """Return the consumption [kW] that ends a step at target_c; it may lie outside the rating. Zero gain gives zero."""
    missing = target_c - theta * temp_c - (1.0 - theta) * rest_c
    return np.divide(missing, gain_c_per_kw, out=np.zeros_like(missing), where=gain_c_per_kw != 0.0)


def comfort_band_kw(
    temp_c: Array, rest_c: Array, theta: Array, gain: Array, low_c: Array, high_c: Array, rated_kw: Array
) -> tuple[Array, Array]:
    """Return the least and most consumption that keep the temperature within low_c and high_c over the step.

    Outside comfort already, or beyond the rating, both are the end of the rating nearest to comfort.
    """
    at_low = power_to_reach(low_c, temp_c, rest_c, theta, gain)
    at_high = power_to_reach(high_c, temp_c, rest_c, theta, gain)
    least, most = np.minimum(at_low, at_high), np.maximum(at_low, at_high)
    return np.clip(least, 0.0, rated_kw), np.clip(most, 0.0, rated_kw)


def guard_c(
    theta: Array, rest_low_c: Array, rest_high_c: Array, push_c: Array, low_c: Array, high_c: Array
) -> tuple[Array, Array]:
    """Return the temperatures from which the limits can be kept to the end of the horizon, (n, H + 1) twice.

    Backward from the last step: L[k] = max(low, (L[k+1] - (1 - theta) rest_low[k] - max(push[k], 0)) / theta) is the
    coldest that full power still keeps above the limits, and likewise the warmest, at the lowest and the highest
    expected rest_c, (n, H) each; push_c : (n, H) what full power adds in a step, negative where it cools. Where the
    coldest lies above the warmest no power keeps the limits. Between two ends of steps both are convex in time
    towards their limits, so that reading them on a straight line errs on the safe side.
    """
    n, steps = push_c.shape
    coldest, warmest = np.empty((2, n, steps + 1))
    coldest[:, -1], warmest[:, -1] = low_c, high_c
    for k in range(steps - 1, -1, -1):
        cold = (coldest[:, k + 1] - (1.0 - theta) * rest_low_c[:, k] - np.maximum(push_c[:, k], 0.0)) / theta
        warm = (warmest[:, k + 1] - (1.0 - theta) * rest_high_c[:, k] - np.minimum(push_c[:, k], 0.0)) / theta
        coldest[:, k], warmest[:, k] = np.maximum(cold, low_c), np.minimum(warm, high_c)
    return coldest, warmest


def neighbours(values: Array) -> tuple[Array, Array]:
    """Return the least and the greatest of each step of a forecast and its two neighbours, along the last axis."""
    first, last = values[..., :1], values[..., -1:]
    three = np.stack(
        [values, np.concatenate([first, values[..., :-1]], -1), np.concatenate([values[..., 1:], last], -1)]
    )
    return three.min(axis=0), three.max(axis=0)
