"""Battery: energy in, energy out, losses both ways.

E' = E + eta_c c dt - g dt / eta_d, with c >= 0 charging and g >= 0 discharging at the grid side; one efficiency for
each direction, so that a round trip keeps eta_c eta_d of the energy (a single efficiency for both would lose nothing).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ETA_CHARGE, ETA_DISCHARGE = 0.95, 0.95
SOC_MIN, SOC_MAX = 0.1, 0.95


def step_energy(energy_kwh: Array, p_kw: Array, dt_h: float) -> Array:
    """Return the stored energy after dt_h at injection p_kw (discharge positive)."""
    charge = np.maximum(-p_kw, 0.0) * ETA_CHARGE
    discharge = np.maximum(p_kw, 0.0) / ETA_DISCHARGE
    return energy_kwh + (charge - discharge) * dt_h


def power_band_kw(
    energy_kwh: Array, capacity_kwh: Array, rated_kw: Array, window_h: float
) -> tuple[Array, Array]:
    """Return the least and most injection that can be held for window_h within the limits of energy and rating."""
    room_kwh = np.maximum(SOC_MAX * capacity_kwh - energy_kwh, 0.0)
    stock_kwh = np.maximum(energy_kwh - SOC_MIN * capacity_kwh, 0.0)
    least = -np.minimum(rated_kw, room_kwh / (ETA_CHARGE * window_h))
    most = np.minimum(rated_kw, stock_kwh * ETA_DISCHARGE / window_h)
    return least, most
