"""Electric water heaters: a mixed tank with losses and hot-water draws, heated by an element.

C dT/dt = P + UA (T_room - T) + m c (T_inlet - T), stepped implicitly: stable for any draw, exact in energy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

KWH_PER_L_C = 4.186 / 3600.0
"""Heat capacity of a litre of water."""


@dataclass(frozen=True, slots=True)
class WaterHeaters:
    """One row a tank, in order of houses.

    house : (n,) row of the house; p_max_kw : element; volume_l; loss_kw_per_c : UA
    set_point_c, min_c, max_c : wished temperature and range; start_c : before the first minute
    inlet_c, room_c : cold water and surroundings
    draw_l : (1440, n) litres drawn in each minute of a day; usual_draw_l_per_h : (24, n) what the house expects
    """

    house: Index
    p_max_kw: Array
    volume_l: Array
    loss_kw_per_c: Array
    set_point_c: Array
    min_c: Array
    max_c: Array
    start_c: Array
    inlet_c: Array
    room_c: Array
    draw_l: Array
    usual_draw_l_per_h: Array


def step(heaters: WaterHeaters, temp_c: Array, p_kw: Array, draw_l_per_h: Array, dt_h: float) -> Array:
    """Return the tank temperature after dt_h hours at p_kw (<= 0, consumption) and a draw of draw_l_per_h."""
    stored = heaters.volume_l * KWH_PER_L_C
    flow = draw_l_per_h * KWH_PER_L_C
    heat = -p_kw + heaters.loss_kw_per_c * heaters.room_c + flow * heaters.inlet_c
    return (stored * temp_c + dt_h * heat) / (stored + dt_h * (heaters.loss_kw_per_c + flow))


def limits(
    heaters: WaterHeaters, temp_c: Array, draw_l_per_h: Array, window_h: float
) -> tuple[Array, Array]:
    """Return the least and greatest injection [kW, <= 0] that keep the tank in its range for window_h.

    A tank below its range is heated at full power.
    """
    stored = heaters.volume_l * KWH_PER_L_C
    flow = draw_l_per_h * KWH_PER_L_C
    drain = heaters.loss_kw_per_c + flow
    heat = heaters.loss_kw_per_c * heaters.room_c + flow * heaters.inlet_c
    to_min = (heaters.min_c * (stored + window_h * drain) - stored * temp_c) / window_h - heat
    to_max = (heaters.max_c * (stored + window_h * drain) - stored * temp_c) / window_h - heat
    least_drawn = np.minimum(np.maximum(to_min, 0.0), heaters.p_max_kw)
    most_drawn = np.minimum(np.maximum(to_max, 0.0), heaters.p_max_kw)
    return -most_drawn, -least_drawn
