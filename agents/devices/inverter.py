"""Reactive power of inverters: within the power factor and the rating, whatever the active power turns out to be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MIN_POWER_FACTOR = 0.8
Q_PER_P = 0.75
"""tan(arccos(MIN_POWER_FACTOR))."""


def reactive_room_kvar(p_kw: Array, s_max_kva: Array, delta_kw: Array | float = 0.0) -> Array:
    """Return the largest |Q| that is allowed at every active power within p_kw +- delta_kw.

    |Q| <= Q_PER_P |P| holds for the sign of P either way, and P^2 + Q^2 <= S^2.
    """
    size = np.abs(p_kw)
    by_factor = Q_PER_P * np.maximum(size - delta_kw, 0.0)
    by_rating = np.sqrt(np.maximum(s_max_kva**2 - (size + delta_kw) ** 2, 0.0))
    return np.minimum(by_factor, by_rating)
