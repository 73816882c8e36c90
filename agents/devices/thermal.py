"""First-order thermal storage: what a heat pump and a house, or a heater and a tank, have in common.

Temperature after dt at constant power: T' = theta T + (1 - theta) T_rest + gain c, theta = exp(-dt / time constant),
with T_rest the temperature without power and c >= 0 the electric consumption. All arrays (n,) unless said.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def step_temperature(temp_c: Array, rest_c: Array, theta: Array, gain_c_per_kw: Array, c_kw: Array) -> Array:
    """Return the temperatures after one step at consumption c_kw."""
    return theta * temp_c + (1.0 - theta) * rest_c + gain_c_per_kw * c_kw


def power_to_reach(
    target_c: Array, temp_c: Array, rest_c: Array, theta: Array, gain_c_per_kw: Array
) -> Array:
    """Return the consumption [kW] that ends a step at target_c; it may lie outside the rating. Zero gain gives zero."""
    missing = target_c - theta * temp_c - (1.0 - theta) * rest_c
    return np.divide(missing, gain_c_per_kw, out=np.zeros_like(missing), where=gain_c_per_kw != 0.0)
