"""Heat pumps that heat and cool a house: first-order thermal model, modulating power.

T' = theta T + (1 - theta)(T_free +- rho P), theta = exp(-dt/(R C)), rho = R COP, + in heating, - in cooling.
T_free = T_out + R g is where the house settles without the heat pump; g are the gains from appliances and sun.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class HeatPumps:
    """One row a heat pump (every house has one), in order of houses.

    house : (n,) row of the house; p_max_kw : rated electric power
    resistance_c_per_kw, time_constant_h : of the house, the latter R C ; cop : heat moved over power drawn
    set_point_c, min_c, max_c : wished temperature and comfort range; start_c : before the first minute
    solar_gain_kw : heat from the sun when PV is at its rating
    """

    house: Index
    p_max_kw: Array
    resistance_c_per_kw: Array
    time_constant_h: Array
    cop: Array
    set_point_c: Array
    min_c: Array
    max_c: Array
    start_c: Array
    solar_gain_kw: Array


def free_temperature_c(
    pumps: HeatPumps, temp_air_c: float | Array, base_kw: Array, pv_available: float | Array, share: float
) -> Array:
    """Return the temperature that the house tends to without its heat pump.

    base_kw : consumption of the other appliances (positive), of which share ends as heat indoors
    """
    gain_kw = share * base_kw + pumps.solar_gain_kw * pv_available
    return temp_air_c + pumps.resistance_c_per_kw * gain_kw


def lift_c_per_kw(pumps: HeatPumps, heating: NDArray[np.bool_]) -> Array:
    """Return rho with the sign of the mode: what a kW drawn for ever adds to the temperature."""
    rho = pumps.resistance_c_per_kw * pumps.cop
    return np.where(heating, rho, -rho)


def step(temp_c: Array, free_c: Array, lift: Array, decay: Array, p_kw: Array) -> Array:
    """Return the indoor temperature after a step in which p_kw (<= 0, consumption) was injected.

    decay : theta of the step; lift : rho with the sign of the mode
    """
    return decay * temp_c + (1.0 - decay) * (free_c - lift * p_kw)


def limits(
    pumps: HeatPumps, temp_c: Array, free_c: Array, lift: Array, decay: Array
) -> tuple[Array, Array]:
    """Return the least and greatest injection [kW, <= 0] that keep comfort to the end of a window.

    decay : theta of the window. A house that has left its comfort range is driven back as fast as it can be.
    """
    at_min = (pumps.min_c - decay * temp_c) / (1.0 - decay) - free_c
    at_max = (pumps.max_c - decay * temp_c) / (1.0 - decay) - free_c
    one, other = at_min / lift, at_max / lift
    least_drawn = np.minimum(np.maximum(np.minimum(one, other), 0.0), pumps.p_max_kw)
    most_drawn = np.minimum(np.maximum(np.maximum(one, other), 0.0), pumps.p_max_kw)
    return -most_drawn, -least_drawn
