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
    EV,
    HVAC,
    WATER,
    HouseState,
    Moment,
    Target,
    make_offer,
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


def compare_step(
    house: Houses, state: HouseState, moment: Moment, device_kw: np.ndarray
) -> tuple[float, float, float]:
    """Return ours and the naive time [us] and the largest difference of any state after one minute."""
    after = step_houses(house, state, moment, device_kw)
    factor = float(water_heater.draw_factor(moment.minute_of_day / 60))
    model = mesa.Model(seed=1)
    for row in range(len(house.set_c)):
        PlainHouse(model, row, house, state)
    arguments = moment.temp_air_c, moment.minute_of_day, factor, device_kw
    model.agents.do("pass_minute", *arguments)
    naive = np.array([[a.temp, a.water, a.stored, a.car] for a in model.agents]).T
    ours = np.stack([after.temp_c, after.water_c, after.battery_kwh, after.ev_kwh])
    return (
        median_us(lambda: step_houses(house, state, moment, device_kw), 200),
        median_us(lambda: model.agents.do("pass_minute", *arguments), 30),
        float(np.abs(ours - naive).max()),
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
    ours, naive, difference = compare_step(house, state, moment, offer.device_kw)
    at_home = int(
        ev.at_home(moment.minute_of_day, house.ev_away_min, house.ev_home_min)[house.ev_kw > 0].sum()
    )
    print(f"{n} houses, {at_home} cars at home; naive = Mesa agents stepped one by one")
    print(f"{'part':<24}{'ours us':>10}{'naive us':>10}{'ratio':>8}  largest difference")
    print(
        f"{'physics of a minute':<24}{ours:>10.0f}{naive:>10.0f}{naive / ours:>8.0f}  {difference:.1e} C, kWh"
    )
    offering = median_us(lambda: make_offer(house, state, moment, wish, 5 / 60), 200)
    print(f"{'offers of a minute':<24}{offering:>10.0f}{'-':>10}{'-':>8}")
    network = IotNetwork(IotSpec(0.05, 0.01), 1, population.smo_index, population.smo_offset)
    print(f"{'device network (SimPy)':<24}{median_us(network.minute, 100):>10.0f}{'-':>10}{'-':>8}")


if __name__ == "__main__":
    main()
