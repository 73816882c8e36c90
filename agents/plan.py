"""The plan of every house over the horizon: four kinds of storage, each a batch of small convex problems.

A house minimises its bill at the forecast tariff, its discomfort, and the wear of its battery; by day the battery's
wear term acts on PV and battery together, so that charging cancels PV (the self-use term of arXiv 2406.06844).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voltier.agents.devices import battery, ev, hvac, water_heater
from voltier.agents.houses import HouseState, Target
from voltier.agents.population import Houses
from voltier.market.planning.storage import StorageProblem, plan_storage

Array = NDArray[np.float64]
Index = NDArray[np.int64]

COMFORT_USD_PER_C2H = 0.01
"""What a degree away from the wanted temperature costs for an hour, squared."""
TANK_USD_PER_C2H = 0.0002
"""The same for the tank, whose temperature people hardly notice."""
DISCOMFORT_USD_PER_C = 1.0
"""Penalty of each degree outside comfort at the end of a step: far above any tariff, yet never infeasible."""
EMPTY_USD_PER_KWH = 1.0
"""Penalty of energy outside a battery's limits."""
WEAR_USD_PER_KW2H = 0.004
"""Quadratic wear of a battery: 0.02 $/kWh at 5 kW."""
END_USD_PER_KWH2 = 0.02
"""Pull towards the same energy at the end of the horizon as at its start of the day (half full)."""
DEPARTURE_USD_PER_KWH2 = 0.05
"""Cost of each kWh, squared, that a car misses when it leaves."""
NIGHT_KW = 1e-9
"""Stands for no PV where the self-use term should act as plain wear."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Forecast over the horizon. price_usd_per_kwh : (n, H) tariff of each house; temp_air_c, pv_available : (H,).

    hour_of_day : (H,) at the middle of each step; step_h : its length.
    """

    t_s: int
    step_h: float
    price_usd_per_kwh: Array
    temp_air_c: Array
    pv_available: Array
    hour_of_day: Array


@dataclass(frozen=True, slots=True)
class HousePlan:
    """A plan, (n, H) each: temperatures at the end of each step [degC], injections of battery and car [kW].

    base for reading it: t_s and step_h of the outlook. unsolved : devices whose problem did not converge.
    """

    t_s: int
    step_h: float
    temp_c: Array
    water_c: Array
    battery_kw: Array
    ev_kw: Array
    unsolved: int

    def at(self, now_s: int) -> Target:
        """Return what the plan wants of the minute at now_s; beyond the horizon its last step serves.

        Temperatures are those planned one step ahead of now, interpolated, so that tracking them is smooth.
        """
        step_s, last = round(self.step_h * 3600), self.temp_c.shape[1] - 1
        k, into_s = divmod(max(now_s - self.t_s, 0), step_s)
        k, share = min(k, last), into_s / step_s
        after = min(k + 1, last)

        def ahead(planned: Array) -> Array:
            return (1.0 - share) * planned[:, k] + share * planned[:, after]

        return Target(
            ahead(self.temp_c), ahead(self.water_c), self.battery_kw[:, k], self.ev_kw[:, k], self.step_h
        )


def plan_houses(house: Houses, state: HouseState, outlook: Outlook) -> HousePlan:
    """Plan all devices of all houses from their present state."""
    steps = len(outlook.temp_air_c)
    room = _room(house, state, outlook)
    tank_rows = np.flatnonzero(house.water_kw > 0.0)
    tank = _tank(house, state, outlook, tank_rows)
    battery_rows = np.flatnonzero(house.battery_kw > 0.0)
    cars = np.flatnonzero(house.ev_kw > 0.0)
    plans = {"room": plan_storage(room), "tank": plan_storage(tank)}
    car = plan_storage(_car(house, state, outlook, cars))
    ev_kw = _full(len(house.set_c), steps, cars, car.p_kw)
    store = plan_storage(_store(house, state, outlook, battery_rows))
    water_c = np.full((len(house.set_c), steps), water_heater.WANTED_C)
    water_c[tank_rows] = plans["tank"].x
    unsolved = sum(int((~plan.converged).sum()) for plan in (*plans.values(), car, store))
    return HousePlan(
        t_s=outlook.t_s,
        step_h=outlook.step_h,
        temp_c=plans["room"].x,
        water_c=water_c,
        battery_kw=_full(len(house.set_c), steps, battery_rows, store.p_kw),
        ev_kw=ev_kw,
        unsolved=unsolved,
    )


def _full(n: int, steps: int, rows: Index, values: Array) -> Array:
    full = np.zeros((n, steps))
    full[rows] = values
    return full


def _room(house: Houses, state: HouseState, outlook: Outlook) -> StorageProblem:
    n, steps = outlook.price_usd_per_kwh.shape
    air = outlook.temp_air_c[None, :]
    r_c_per_kw, c_kwh_per_c = house.r_c_per_kw[:, None], house.c_kwh_per_c[:, None]
    cop, set_c = house.cop[:, None], house.set_c[:, None]
    theta, gain = hvac.coefficients(r_c_per_kw, c_kwh_per_c, cop, set_c, air, outlook.step_h)
    return StorageProblem(
        x0=state.temp_c,
        theta=theta[:, 0],
        gain_c=gain,
        gain_g=np.zeros(n),
        drift=(1.0 - theta) * air,
        c_max_kw=_columns(house.hvac_kw, steps),
        g_max_kw=np.zeros((n, steps)),
        x_min=_columns(house.min_c, steps),
        x_max=_columns(house.max_c, steps),
        price_usd_per_kwh=outlook.price_usd_per_kwh,
        other_kw=np.zeros((n, steps)),
        w_self=np.zeros(n),
        target=_columns(house.set_c, steps),
        w_state=np.full((n, steps), COMFORT_USD_PER_C2H * outlook.step_h),
        penalty=np.full(n, DISCOMFORT_USD_PER_C),
        dt_h=outlook.step_h,
    )


def _tank(house: Houses, state: HouseState, outlook: Outlook, rows: Index) -> StorageProblem:
    n, steps = len(rows), len(outlook.hour_of_day)
    theta, gain = water_heater.coefficients(house.water_kwh_per_c[rows], outlook.step_h)
    factor = water_heater.draw_factor(outlook.hour_of_day)[None, :]
    rest = water_heater.rest_c(house.draw_kw[rows][:, None], factor, theta, gain[:, None])
    return StorageProblem(
        x0=state.water_c[rows],
        theta=np.full(n, theta),
        gain_c=_columns(gain, steps),
        gain_g=np.zeros(n),
        drift=(1.0 - theta) * rest,
        c_max_kw=_columns(house.water_kw[rows], steps),
        g_max_kw=np.zeros((n, steps)),
        x_min=np.full((n, steps), water_heater.MIN_C),
        x_max=np.full((n, steps), water_heater.MAX_C),
        price_usd_per_kwh=outlook.price_usd_per_kwh[rows],
        other_kw=np.zeros((n, steps)),
        w_self=np.zeros(n),
        target=np.full((n, steps), water_heater.WANTED_C),
        w_state=np.full((n, steps), TANK_USD_PER_C2H * outlook.step_h),
        penalty=np.full(n, DISCOMFORT_USD_PER_C),
        dt_h=outlook.step_h,
    )


def _store(house: Houses, state: HouseState, outlook: Outlook, rows: Index) -> StorageProblem:
    n, steps = len(rows), len(outlook.hour_of_day)
    capacity = house.battery_kwh[rows]
    rated = _columns(house.battery_kw[rows], steps)
    pv_kw = outlook.pv_available[None, :] * house.pv_kva[rows][:, None]
    pull = np.zeros((n, steps))
    pull[:, -1] = END_USD_PER_KWH2
    return StorageProblem(
        x0=state.battery_kwh[rows],
        theta=np.ones(n),
        gain_c=np.full((n, steps), battery.ETA_CHARGE * outlook.step_h),
        gain_g=np.full(n, outlook.step_h / battery.ETA_DISCHARGE),
        drift=np.zeros((n, steps)),
        c_max_kw=rated,
        g_max_kw=rated,
        x_min=_columns(battery.SOC_MIN * capacity, steps),
        x_max=_columns(battery.SOC_MAX * capacity, steps),
        price_usd_per_kwh=outlook.price_usd_per_kwh[rows],
        other_kw=np.maximum(pv_kw, NIGHT_KW),
        w_self=np.full(n, WEAR_USD_PER_KW2H),
        target=_columns(0.5 * capacity, steps),
        w_state=pull,
        penalty=np.full(n, EMPTY_USD_PER_KWH),
        dt_h=outlook.step_h,
    )


def _car(house: Houses, state: HouseState, outlook: Outlook, rows: Index) -> StorageProblem:
    """Charge only (V1G); away between leaving and coming home, when the trip's energy is gone."""
    n, steps = len(rows), len(outlook.hour_of_day)
    capacity = house.ev_kwh[rows]
    step_min = round(outlook.step_h * 60.0)
    minute = np.round(outlook.hour_of_day * 60.0).astype(np.int64)[None, :]
    begin = np.round((outlook.hour_of_day - 0.5 * outlook.step_h) * 60.0).astype(np.int64)[None, :]
    away_min, home_min = house.ev_away_min[rows][:, None], house.ev_home_min[rows][:, None]
    home = ev.at_home(minute, away_min, home_min)
    comes_home = (home_min - begin) % ev.DAY_MIN < step_min
    leaves = home & ~ev.at_home(minute + step_min, away_min, home_min)
    return StorageProblem(
        x0=state.ev_kwh[rows],
        theta=np.ones(n),
        gain_c=np.full((n, steps), battery.ETA_CHARGE * outlook.step_h),
        gain_g=np.zeros(n),
        drift=np.where(comes_home, -house.ev_trip_kwh[rows][:, None], 0.0),
        c_max_kw=np.where(home, house.ev_kw[rows][:, None], 0.0),
        g_max_kw=np.zeros((n, steps)),
        x_min=_columns(battery.SOC_MIN * capacity, steps),
        x_max=_columns(battery.SOC_MAX * capacity, steps),
        price_usd_per_kwh=outlook.price_usd_per_kwh[rows],
        other_kw=np.full((n, steps), NIGHT_KW),
        w_self=np.full(n, WEAR_USD_PER_KW2H),
        target=_columns(ev.DEPARTURE_SOC * capacity, steps),
        w_state=np.where(leaves, DEPARTURE_USD_PER_KWH2, 0.0),
        penalty=np.full(n, EMPTY_USD_PER_KWH),
        dt_h=outlook.step_h,
    )


def _columns(values: Array, steps: int) -> Array:
    """Repeat a column for every step: (n, steps)."""
    return np.repeat(values[:, None], steps, axis=1)
