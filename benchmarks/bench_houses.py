"""Time a minute of 1,008 houses against one Mesa agent a house in plain Python.

Run: .venv/bin/python benchmarks/bench_houses.py
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import mesa
import numpy as np

from voltier.agents.devices import battery, ev, water_heater
from voltier.agents.houses import (
    BATTERY,
    BATTERY_SHARE,
    EV,
    HVAC,
    THERMAL_SHARE,
    WATER,
    HouseState,
    Moment,
    Offer,
    Target,
    make_offer,
    move_devices,
    step_houses,
)
from voltier.agents.iot import IotNetwork, IotSpec
from voltier.agents.population import FleetSpec, Houses, build_population
from voltier.grid.feeder import read_feeder

DT_H = 1 / 60


class PlainHouse(mesa.Agent):
    """A house that steps itself: the usual way to write a Mesa model."""

    def __init__(self, model: mesa.Model, row: int, house: Houses, state: HouseState) -> None:
        super().__init__(model)
        self.row = row
        self.r, self.c = float(house.r_c_per_kw[row]), float(house.c_kwh_per_c[row])
        self.cop, self.set_c = float(house.cop[row]), float(house.set_c[row])
        self.tank, self.draw_kw = float(house.water_kwh_per_c[row]), float(house.draw_kw[row])
        self.home_min, self.trip = int(house.ev_home_min[row]), float(house.ev_trip_kwh[row])
        self.away_min, self.car_size = int(house.ev_away_min[row]), float(house.ev_kwh[row])
        self.rated = [
            float(column[row]) for column in (house.hvac_kw, house.water_kw, house.battery_kw, house.ev_kw)
        ]
        self.low_c, self.high_c = float(house.min_c[row]), float(house.max_c[row])
        self.size, self.pv_kva = float(house.battery_kwh[row]), float(house.pv_kva[row])
        self.temp, self.water = float(state.temp_c[row]), float(state.water_c[row])
        self.stored, self.car = float(state.battery_kwh[row]), float(state.ev_kwh[row])

    def pass_minute(self, air_c: float, minute: int, factor: float, device_kw: np.ndarray) -> None:
        """Integrate the house's states over a minute."""
        theta = math.exp(-DT_H / (self.r * self.c))
        sign = 1.0 if air_c < self.set_c else -1.0
        hvac_kw, water_kw, battery_kw, ev_kw = (
            float(device_kw[k, self.row]) for k in (HVAC, WATER, BATTERY, EV)
        )
        self.temp = theta * self.temp + (1 - theta) * (air_c - sign * self.r * self.cop * hvac_kw)
        keep = math.exp(-DT_H / water_heater.TIME_CONSTANT_H)
        if self.tank > 0:
            drawn = DT_H * (-water_kw - self.draw_kw * factor) / self.tank
            self.water = keep * self.water + (1 - keep) * water_heater.ROOM_C + drawn
        else:
            self.water = keep * self.water + (1 - keep) * water_heater.ROOM_C
        self.stored += DT_H * _stored(battery_kw)
        self.car += DT_H * _stored(ev_kw) - (self.trip if minute == self.home_min else 0.0)

    def offer(self, moment: Moment, wish: Target, factor: float, window_h: float) -> list[list[float]]:
        """Return wish, room above and room below of each device, as the batch does."""
        hvac_kw, water_kw, battery_kw, ev_kw = self.rated
        air_c, row = moment.temp_air_c, self.row
        sign = 1.0 if air_c < self.set_c else -1.0

        def heat(target_c: float, hours: float) -> float:
            theta = math.exp(-hours / (self.r * self.c))
            gain = sign * (1 - theta) * self.r * self.cop
            return (target_c - theta * self.temp - (1 - theta) * air_c) / gain

        def boil(target_c: float, hours: float) -> float:
            if self.tank == 0:
                return 0.0
            theta = math.exp(-hours / water_heater.TIME_CONSTANT_H)
            drawn = hours / self.tank * self.draw_kw * factor
            rest = (1 - theta) * water_heater.ROOM_C - drawn
            return (target_c - theta * self.water - rest) * self.tank / hours

        ends = sorted((heat(self.low_c, window_h), heat(self.high_c, window_h)))
        hvac = _load(heat(float(wish.temp_c[row]), wish.ahead_h), *ends, hvac_kw)
        ends = [boil(water_heater.MIN_C, window_h), boil(water_heater.MAX_C, window_h)]
        water = _load(boil(float(wish.water_c[row]), wish.ahead_h), *ends, water_kw)
        room = max(battery.SOC_MAX * self.size - self.stored, 0.0) / (battery.ETA_CHARGE * window_h)
        stock = max(self.stored - battery.SOC_MIN * self.size, 0.0) * battery.ETA_DISCHARGE / window_h
        least, most = -min(battery_kw, room), min(battery_kw, stock)
        p_kw, share = _clip(float(wish.battery_kw[row]), least, most), BATTERY_SHARE * battery_kw
        store = [p_kw, min(most - p_kw, share), min(p_kw - least, share)]
        home = moment.minute_of_day < self.away_min or moment.minute_of_day >= self.home_min
        room = max(battery.SOC_MAX * self.car_size - self.car, 0.0) / (battery.ETA_CHARGE * window_h)
        least = -min(ev_kw if home else 0.0, room)
        p_kw = _clip(float(wish.ev_kw[row]), least, 0.0)
        car = [p_kw, THERMAL_SHARE * -p_kw, THERMAL_SHARE * (p_kw - least)]
        sun_kw = moment.pv_available * self.pv_kva
        return [[-float(moment.base_kw[row]), 0.0, 0.0], hvac, water, [sun_kw, 0.0, sun_kw], store, car]

    def move(self, offered: list[list[float]], moved_kw: float) -> list[float]:
        """Split a departure from the wish over the devices in proportion to their offers."""
        side = 1 if moved_kw >= 0 else 2
        total = sum(device[side] for device in offered)
        share = moved_kw / total if total > 0 else 0.0
        return [device[0] + share * device[side] for device in offered]


def _load(wished: float, least: float, most: float, rated: float) -> list[float]:
    least, most = _clip(least, 0.0, rated), _clip(most, 0.0, rated)
    wished = _clip(wished, least, most)
    up = min(wished - least, THERMAL_SHARE * wished)
    return [-wished, up, min(most - wished, THERMAL_SHARE * (rated - wished))]


def _clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _stored(p_kw: float) -> float:
    return -p_kw * battery.ETA_CHARGE if p_kw < 0 else -p_kw / battery.ETA_DISCHARGE


def median_us(call: Callable[[], Any], repeats: int) -> float:
    """Return the median time of a call [us]; one call warms up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e6 * float(np.median(times))


Timing = tuple[float, float, float]


def plain_houses(house: Houses, state: HouseState) -> mesa.Model:
    """Return a Mesa model of one agent a house."""
    model = mesa.Model(rng=1)
    for row in range(len(house.set_c)):
        PlainHouse(model, row, house, state)
    return model


def compare_step(house: Houses, state: HouseState, moment: Moment, device_kw: np.ndarray) -> Timing:
    """Return ours and the naive time [us] and the largest difference of any state after one minute."""
    after = step_houses(house, state, moment, device_kw)
    factor = float(water_heater.draw_factor(moment.minute_of_day / 60))
    model = plain_houses(house, state)
    arguments = moment.temp_air_c, moment.minute_of_day, factor, device_kw
    model.agents.do("pass_minute", *arguments)
    naive = np.array([[a.temp, a.water, a.stored, a.car] for a in model.agents]).T
    ours = np.stack([after.temp_c, after.water_c, after.battery_kwh, after.ev_kwh])
    return (
        median_us(lambda: step_houses(house, state, moment, device_kw), 200),
        median_us(lambda: model.agents.do("pass_minute", *arguments), 30),
        float(np.abs(ours - naive).max()),
    )


def compare_offer(house: Houses, state: HouseState, moment: Moment, wish: Target, window_h: float) -> Timing:
    """Return the same for the offers of all houses; the difference is in kW."""
    model = plain_houses(house, state)
    factor = float(water_heater.draw_factor(moment.minute_of_day / 60))

    def naive() -> list[Any]:
        return model.agents.map("offer", moment, wish, factor, window_h)

    ours = make_offer(house, state, moment, wish, window_h)
    together = np.stack([ours.device_kw, ours.up_kw, ours.down_kw], axis=-1).transpose(1, 0, 2)
    return (
        median_us(lambda: make_offer(house, state, moment, wish, window_h), 200),
        median_us(naive, 30),
        float(np.abs(together - np.array(naive())).max()),
    )


def compare_move(house: Houses, state: HouseState, offer: Offer) -> Timing:
    """Return the same for a call on two thirds of every offer."""
    up = np.arange(len(house.set_c)) % 2 == 0
    moved_kw = np.where(up, offer.up_kw.sum(axis=0), -offer.down_kw.sum(axis=0)) * 2 / 3
    agents = list(plain_houses(house, state).agents)
    offered = np.stack([offer.device_kw, offer.up_kw, offer.down_kw], axis=-1).transpose(1, 0, 2).tolist()
    calls = list(zip(agents, offered, moved_kw.tolist(), strict=True))

    def naive() -> list[list[float]]:
        return [agent.move(part, kw) for agent, part, kw in calls]

    return (
        median_us(lambda: move_devices(offer, moved_kw), 200),
        median_us(naive, 30),
        float(np.abs(move_devices(offer, moved_kw).T - np.array(naive())).max()),
    )


def main() -> None:
    """Print one row for each part of a minute."""
    population = build_population(FleetSpec(evs=100), read_feeder("ieee123"), 1)
    house, n = population.house, len(population.house_name)
    rng, state = np.random.default_rng(1), HouseState.at_rest(population.house)
    moment = Moment(rng.uniform(0.1, 2.0, n), 12.0, 0.4, int(house.ev_home_min[house.ev_kw > 0][0]))
    wish = Target(
        house.set_c, np.full(n, water_heater.WANTED_C), rng.uniform(-3, 3, n), -rng.uniform(0, 5, n), 1.0
    )
    offer = make_offer(house, state, moment, wish, 5 / 60)
    at_home = int(
        ev.at_home(moment.minute_of_day, house.ev_away_min, house.ev_home_min)[house.ev_kw > 0].sum()
    )
    print(f"{n} houses, {at_home} cars at home; naive = Mesa agents one by one in plain Python")
    print(f"{'part':<24}{'ours us':>10}{'naive us':>10}{'ratio':>8}  largest difference")
    for name, unit, (ours, naive, difference) in (
        ("offers of a minute", "kW", compare_offer(house, state, moment, wish, 5 / 60)),
        ("moves of a minute", "kW", compare_move(house, state, offer)),
        ("physics of a minute", "C, kWh", compare_step(house, state, moment, offer.device_kw)),
    ):
        print(f"{name:<24}{ours:>10.0f}{naive:>10.0f}{naive / ours:>8.0f}  {difference:.1e} {unit}")
    network = IotNetwork(IotSpec(0.05, 0.01), 1, population.smo_index, population.smo_offset)
    print(f"{'device network (SimPy)':<24}{median_us(network.minute, 100):>10.0f}{'-':>10}{'-':>8}")


if __name__ == "__main__":
    main()
