"""Batteries behind a meter: stored energy, charging losses, and what they can do for the next minutes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batteries:
    """One row a battery, in order of houses.

    house : (n,) row of the house; s_max_kva : inverter rating, also the limit of power both ways
    min_kwh, max_kwh : range of use; start_kwh : stored energy before the first minute
    charge_efficiency, discharge_efficiency : grid side to store and back, 0 to 1
    self_discharge_per_h : share of the stored energy lost in an hour
    """

    house: Index
    s_max_kva: Array
    min_kwh: Array
    max_kwh: Array
    start_kwh: Array
    charge_efficiency: Array
    discharge_efficiency: Array
    self_discharge_per_h: Array


def step(batteries: Batteries, energy_kwh: Array, p_kw: Array, dt_h: float) -> Array:
    """Return the stored energy after dt_h hours at p_kw (discharge positive).

    E' = (1 - sigma dt) E + (eta_c P- - P+/eta_d) dt, so that a round trip yields eta_c eta_d.
    """
    charge, discharge = np.maximum(-p_kw, 0.0), np.maximum(p_kw, 0.0)
    kept = (1.0 - batteries.self_discharge_per_h * dt_h) * energy_kwh
    stored = batteries.charge_efficiency * charge - discharge / batteries.discharge_efficiency
    return kept + stored * dt_h


def limits(batteries: Batteries, energy_kwh: Array, window_h: float) -> tuple[Array, Array]:
    """Return the least and greatest power [kW] that can be held for window_h without leaving the range of use."""
    loss_kwh = batteries.self_discharge_per_h * window_h * energy_kwh
    above = np.maximum(energy_kwh - loss_kwh - batteries.min_kwh, 0.0)
    below = np.maximum(batteries.max_kwh - energy_kwh, 0.0)
    p_max = np.minimum(batteries.s_max_kva, above * batteries.discharge_efficiency / window_h)
    p_min = -np.minimum(batteries.s_max_kva, below / (batteries.charge_efficiency * window_h))
    return p_min, p_max
