"""Photovoltaic units: all that the sun gives is injected; the inverter can add reactive power."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PvUnits:
    """One row a unit, in order of houses. house : (n,) row of the house; s_max_kva : inverter rating."""

    house: Index
    s_max_kva: Array


def output_kw(units: PvUnits, pv_available: float) -> Array:
    """Return the injection of each unit. pv_available : output over rating, 0 to 1."""
    return units.s_max_kva * pv_available
