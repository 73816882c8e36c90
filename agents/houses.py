"""The houses of a shard as arrays: state, what each could do next, what it does; one row a house, no loop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voltier.agents.devices import battery, ev, hvac, water_heater
from voltier.agents.devices.inverter import LOAD_TAN_PHI, reactive_room_kvar
from voltier.agents.population import Houses

Array = NDArray[np.float64]

MINUTE_H = 1.0 / 60.0
THERMAL_SHARE = 0.5
"""Share of a heat pump's or heater's planned power that its people let the market move ("up to 50 %" published)."""
BATTERY_SHARE = 0.3
"""Share of a battery's rating that its owner lets the market move (upper end of the published range)."""

BASE, HVAC, WATER, PV, BATTERY, EV = range(6)


@dataclass(slots=True)
class HouseState:
    """What changes from minute to minute, (n,) each: temperatures [degC], stored energies [kWh]."""

    temp_c: Array
    water_c: Array
    battery_kwh: Array
    ev_kwh: Array

    @classmethod
    def at_rest(cls, house: Houses) -> HouseState:
        """Return houses at their wanted temperatures with half-full batteries.

        Days begin at midnight, when cars still miss what their last trip took: the night's charging is ahead of them.
        """
        return cls(
            temp_c=house.set_c.copy(),
            water_c=np.full(len(house.set_c), water_heater.WANTED_C),
            battery_kwh=0.5 * house.battery_kwh,
            ev_kwh=ev.DEPARTURE_SOC * house.ev_kwh - house.ev_trip_kwh,
        )


@dataclass(frozen=True, slots=True)
class Moment:
    """What the houses know of a minute: base load (n,) [kW, positive], weather, minute of the day."""

    base_kw: Array
    temp_air_c: float
    pv_available: float
    minute_of_day: int


@dataclass(frozen=True, slots=True)
class Target:
    """The plan in force at a minute, (n,) each: temperatures to reach in ahead_h from now, and powers now."""

    temp_c: Array
    water_c: Array
    battery_kw: Array
    ev_kw: Array
    ahead_h: float


@dataclass(frozen=True, slots=True)
class Offer:
    """What each house would inject, and how far the market may move it; powers are injections.

    device_kw : (6, n) wished injection of each device (BASE ... EV)
    up_kw, down_kw : (6, n) how much more, how much less each device could inject for the whole window
    q0_kvar, q_room_kvar : (n,) reactive injection without support, and the room of the inverters to both sides
    """

    device_kw: Array
    up_kw: Array
    down_kw: Array
    q0_kvar: Array
    q_room_kvar: Array

    @property
    def p0_kw(self) -> Array:
        """Wished injection of each house."""
        return self.device_kw.sum(axis=0)


def make_offer(house: Houses, state: HouseState, moment: Moment, target: Target, window_h: float) -> Offer:
    """Follow the plan from the present state, and offer the headroom that can be held for window_h."""
    device, up, down = np.zeros((3, 6, len(house.set_c)))
    device[BASE] = -moment.base_kw
    device[PV] = moment.pv_available * house.pv_kva
    _offer_hvac(house, state, moment, target, window_h, device, up, down)
    _offer_water(house, state, moment, target, window_h, device, up, down)
    least, most = battery.power_band_kw(state.battery_kwh, house.battery_kwh, house.battery_kw, window_h)
    device[BATTERY] = np.clip(target.battery_kw, least, most)
    # An inverter can throttle all of its PV at any moment; there is no more sun than there is.
    down[PV] = device[PV]
    share_kw = BATTERY_SHARE * house.battery_kw
    up[BATTERY] = np.minimum(most - device[BATTERY], share_kw)
    down[BATTERY] = np.minimum(device[BATTERY] - least, share_kw)
    _offer_ev(house, state, moment, target, window_h, device, up, down)
    load_kw = device[BASE] + device[HVAC] + device[WATER]
    room = inverter_room_kvar(house, device[PV], device[BATTERY])
    return Offer(device, up, down, q0_kvar=LOAD_TAN_PHI * load_kw, q_room_kvar=room)


def inverter_room_kvar(house: Houses, pv_kw: Array, battery_kw: Array) -> Array:
    """Return the reactive room of each house's inverters to both sides at their powers, (n,) [kvar]."""
    return reactive_room_kvar(pv_kw, house.pv_kva) + reactive_room_kvar(battery_kw, house.battery_kw)


def _offer_hvac(
    house: Houses, state: HouseState, moment: Moment, target: Target, window_h: float,
    device: Array, up: Array, down: Array,
) -> None:  # fmt: skip
    air_c = moment.temp_air_c
    rest = np.full(len(house.set_c), air_c)
    theta, gain = _hvac(house, air_c, target.ahead_h)
    wished = hvac.power_to_reach(target.temp_c, state.temp_c, rest, theta, gain)
    theta, gain = _hvac(house, air_c, window_h)
    least, most = hvac.comfort_band_kw(
        state.temp_c, air_c, theta, gain, house.min_c, house.max_c, house.hvac_kw
    )
    _offer_load(HVAC, np.clip(wished, least, most), least, most, house.hvac_kw, device, up, down)


def _offer_water(
    house: Houses, state: HouseState, moment: Moment, target: Target, window_h: float,
    device: Array, up: Array, down: Array,
) -> None:  # fmt: skip
    factor = water_heater.draw_factor(moment.minute_of_day / 60.0)
    theta, gain = water_heater.coefficients(house.water_kwh_per_c, target.ahead_h)
    rest = water_heater.rest_c(house.draw_kw, factor, theta, gain)
    wished = hvac.power_to_reach(target.water_c, state.water_c, rest, np.full_like(rest, theta), gain)
    theta, gain = water_heater.coefficients(house.water_kwh_per_c, window_h)
    rest = water_heater.rest_c(house.draw_kw, factor, theta, gain)
    ends = [
        hvac.power_to_reach(np.full_like(rest, end), state.water_c, rest, np.full_like(rest, theta), gain)
        for end in (water_heater.MIN_C, water_heater.MAX_C)
    ]
    least, most = (np.clip(end, 0.0, house.water_kw) for end in ends)
    _offer_load(WATER, np.clip(wished, least, most), least, most, house.water_kw, device, up, down)


def _offer_load(
    row: int,
    wished_kw: Array,
    least_kw: Array,
    most_kw: Array,
    rated_kw: Array,
    device: Array,
    up: Array,
    down: Array,
) -> None:
    """Enter a consumption and its band as injections; people let go of at most a share of it."""
    device[row] = -wished_kw
    up[row] = np.minimum(wished_kw - least_kw, THERMAL_SHARE * wished_kw)
    down[row] = np.minimum(most_kw - wished_kw, THERMAL_SHARE * (rated_kw - wished_kw))


def _offer_ev(
    house: Houses, state: HouseState, moment: Moment, target: Target, window_h: float,
    device: Array, up: Array, down: Array,
) -> None:  # fmt: skip
    home = ev.at_home(moment.minute_of_day, house.ev_away_min, house.ev_home_min)
    least, _ = battery.power_band_kw(state.ev_kwh, house.ev_kwh, np.where(home, house.ev_kw, 0.0), window_h)
    # V1G: the car only charges.
    device[EV] = np.clip(target.ev_kw, least, 0.0)
    up[EV] = THERMAL_SHARE * -device[EV]
    down[EV] = THERMAL_SHARE * (device[EV] - least)


def _hvac(house: Houses, temp_air_c: float, dt_h: float) -> tuple[Array, Array]:
    return hvac.coefficients(house.r_c_per_kw, house.c_kwh_per_c, house.cop, house.set_c, temp_air_c, dt_h)


def move_devices(offer: Offer, moved_kw: Array) -> Array:
    """Split each house's departure from its wish over its devices, in proportion to what each offered: (6, n)."""
    room = np.where(moved_kw >= 0.0, offer.up_kw, offer.down_kw)
    total = room.sum(axis=0)
    share = np.divide(room, total, out=np.zeros_like(room), where=total > 0.0)
    return offer.device_kw + share * moved_kw


def step_houses(house: Houses, state: HouseState, moment: Moment, device_kw: Array) -> HouseState:
    """Return the state after a minute in which the devices inject device_kw, (6, n)."""
    theta, gain = _hvac(house, moment.temp_air_c, MINUTE_H)
    rest = np.full(len(house.set_c), moment.temp_air_c)
    temp_c = hvac.step_temperature(state.temp_c, rest, theta, gain, -device_kw[HVAC])
    tank_theta, tank_gain = water_heater.coefficients(house.water_kwh_per_c, MINUTE_H)
    factor = water_heater.draw_factor(moment.minute_of_day / 60.0)
    tank_rest = water_heater.rest_c(house.draw_kw, factor, tank_theta, tank_gain)
    water_c = hvac.step_temperature(
        state.water_c, tank_rest, np.full_like(tank_rest, tank_theta), tank_gain, -device_kw[WATER]
    )
    ev_kwh = battery.step_energy(state.ev_kwh, device_kw[EV], MINUTE_H)
    ev_kwh = ev_kwh - ev.driven_kwh(moment.minute_of_day, house.ev_home_min, house.ev_trip_kwh)
    return HouseState(
        temp_c=temp_c,
        water_c=water_c,
        battery_kwh=battery.step_energy(state.battery_kwh, device_kw[BATTERY], MINUTE_H),
        ev_kwh=ev_kwh,
    )
