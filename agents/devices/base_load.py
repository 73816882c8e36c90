"""What a house draws besides its flexible devices: a measured day of minutes, scaled and shifted for each house."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

MINUTES_A_DAY = 1440
DAYS_A_YEAR = 365.0


@dataclass(frozen=True, slots=True)
class BaseLoads:
    """One row a house.

    house : (n,) row of the house; profile_draw : 0 to 1, picks one of whatever number of profiles there are
    annual_kwh : consumption; shift_min : minutes by which the day is later; q_per_p : reactive over active power
    """

    house: Index
    profile_draw: Array
    annual_kwh: Array
    shift_min: Index
    q_per_p: Array


def day_kw(loads: BaseLoads, profiles_kw: Array) -> Array:
    """Return the consumption of each house in each minute of a day, (1440, n) [kW, positive].

    profiles_kw : (1440, n_profiles) measured days. Every day is alike.
    """
    if profiles_kw.shape[0] != MINUTES_A_DAY or profiles_kw.ndim != 2:
        raise ValueError(f"profiles must be (1440, n_profiles), not {profiles_kw.shape}")
    profile = (loads.profile_draw * profiles_kw.shape[1]).astype(np.int64)
    # Column by column in the same order for any set of houses: a profile's energy does not depend on who uses it.
    energy_kwh = np.array([float(column.sum()) / 60.0 for column in np.ascontiguousarray(profiles_kw.T)])
    scale = loads.annual_kwh / (DAYS_A_YEAR * energy_kwh[profile])
    minute = (np.arange(MINUTES_A_DAY)[:, None] - loads.shift_min[None, :]) % MINUTES_A_DAY
    return profiles_kw[minute, profile[None, :]] * scale[None, :]
