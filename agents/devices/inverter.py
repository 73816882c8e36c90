"""PV, battery and car inverters: reactive power within power factor 0.8 and the apparent rating."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TAN_PHI_MAX = 0.75
"""tan(arccos 0.8)."""


def reactive_room_kvar(p_kw: Array, s_kva: Array) -> Array:
    """Return the largest |Q| at injection p_kw: at most 0.75 |P|, and P^2 + Q^2 <= S^2."""
    circle = np.sqrt(np.maximum(s_kva**2 - p_kw**2, 0.0))
    return np.minimum(TAN_PHI_MAX * np.abs(p_kw), circle)
