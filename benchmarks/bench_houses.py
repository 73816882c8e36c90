"""Time a minute of 1,008 houses against one Mesa agent a house in plain Python.

Run: .venv/bin/python benchmarks/bench_houses.py
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import fields
from types import SimpleNamespace
from typing import Any

import mesa
import numpy as np

from voltier.agents.devices import battery, ev, thermal, water_heater
from voltier.agents.devices.device import Moment, Wish
from voltier.agents.devices.fleet import FleetSpec
from voltier.agents.devices.hvac import DEAD_BAND_C
from voltier.agents.houses import Offer, State, at_rest, make_offer, move_devices, step_houses
from voltier.agents.iot import IotNetwork, IotSpec
from voltier.agents.population import Houses, build_population
from voltier.grid.feeder import read_feeder

DT_H, AHEAD_H = 1 / 60, 1.0


KINDS = ("hvac", "water_heater", "pv", "battery", "ev", "deferrable")
BASE, HVAC, WATER, PV, BATTERY, EV, LOAD = range(7)
STATES = ("hvac", "water_heater", "battery", "ev", "deferrable")


class PlainHouse(mesa.Agent):
    """A house that steps itself: the usual way to write a Mesa model. part : fields of each device that it has."""

    def __init__(self, model: mesa.Model, row: int, house: Houses, state: State) -> None:
        super().__init__(model)
        self.row = row
        self.part: dict[str, Any] = {}
        self.x: dict[str, float] = {}
        for device in house.devices:
            at = np.flatnonzero(device.at == row)
            if len(at):
                i = int(at[0])
                names = [f.name for f in fields(device)]
                self.part[device.key] = SimpleNamespace(
                    **{n: getattr(device, n)[i].item() for n in names}, i=i
                )
                self.x[device.key] = float(state[device.key][i])

    def pass_minute(self, air_c: float, minute: int, factor: float, device_kw: np.ndarray) -> None:
        """Integrate the house's states over a minute."""
        d, x, p = self.part["hvac"], self.x, device_kw[:, self.row].tolist()
        theta = math.exp(-DT_H / (d.r_c_per_kw * d.c_kwh_per_c))
        x["hvac"] = theta * x["hvac"] + (1 - theta) * (
            air_c - _mode(d, air_c) * d.r_c_per_kw * d.cop * p[HVAC]
        )
        if "water_heater" in x:
            d = self.part["water_heater"]
            keep = math.exp(-DT_H / water_heater.TIME_CONSTANT_H)
            drawn = DT_H * (-p[WATER] - d.draw_kw * factor) / d.kwh_per_c
            x["water_heater"] = keep * x["water_heater"] + (1 - keep) * water_heater.ROOM_C + drawn
        if "battery" in x:
            x["battery"] += DT_H * _stored(p[BATTERY])
        if "ev" in x:
            d = self.part["ev"]
            x["ev"] += DT_H * _stored(p[EV]) - (d.trip_kwh if minute == d.home_min else 0.0)
        if "deferrable" in x:
            d = self.part["deferrable"]
            released = (minute + 1) % 1440 == d.release_min
            x["deferrable"] = max(x["deferrable"] + p[LOAD] * DT_H, 0.0) + (d.energy_kwh if released else 0.0)

    def offer(
        self, moment: Moment, wishes: dict[str, Wish], factor: float, window_h: float
    ) -> list[list[float]]:
        """Return wish, room above and room below of each device, as the batch does."""
        answer = {"base": [-float(moment.base_kw[self.row]), 0.0, 0.0]}
        for key in KINDS:
            if key in self.part:
                wish, d = wishes[key], self.part[key]
                look = {n: float(getattr(wish, n)[d.i]) for n in ("x", "p_kw", "low", "high")}
                answer[key] = getattr(self, f"_{key}")(d, SimpleNamespace(**look), moment, factor, window_h)
        return [answer.get(key, [0.0, 0.0, 0.0]) for key in ("base", *KINDS, "block")]

    def _hvac(self, d: Any, wish: Any, moment: Moment, factor: float, window_h: float) -> list[float]:
        air_c = moment.temp_air_c

        def heat(target_c: float, hours: float) -> float:
            theta = math.exp(-hours / (d.r_c_per_kw * d.c_kwh_per_c))
            gain = _mode(d, air_c) * (1 - theta) * d.r_c_per_kw * d.cop
            return (target_c - theta * self.x["hvac"] - (1 - theta) * air_c) / gain if gain else 0.0

        return _thermal(heat, wish, d.min_c, d.max_c, window_h, d.rated_kw)

    def _water_heater(self, d: Any, wish: Any, moment: Moment, factor: float, window_h: float) -> list[float]:
        def boil(target_c: float, hours: float) -> float:
            theta = math.exp(-hours / water_heater.TIME_CONSTANT_H)
            drawn = hours / d.kwh_per_c * d.draw_kw * factor
            rest = (1 - theta) * water_heater.ROOM_C - drawn
            return (target_c - theta * self.x["water_heater"] - rest) * d.kwh_per_c / hours

        return _thermal(boil, wish, water_heater.MIN_C, water_heater.MAX_C, window_h, d.rated_kw)

    def _pv(self, d: Any, wish: Any, moment: Moment, factor: float, window_h: float) -> list[float]:
        sun_kw = moment.pv_available * d.rated_kva
        return [sun_kw, 0.0, sun_kw]

    def _battery(self, d: Any, wish: Any, moment: Moment, factor: float, window_h: float) -> list[float]:
        limits = battery.SOC_MIN * d.capacity_kwh, battery.SOC_MAX * d.capacity_kwh
        least, most = _power_band(self.x["battery"], *limits, d.rated_kw, window_h)
        p_kw, share = _clip(wish.p_kw, least, most), battery.LET_GO_SHARE * d.rated_kw
        return [p_kw, min(most - p_kw, share), min(p_kw - least, share)]

    def _ev(self, d: Any, wish: Any, moment: Moment, factor: float, window_h: float) -> list[float]:
        minute = moment.minute_of_day
        home = (minute - d.away_min) % 1440 >= (d.home_min - d.away_min) % 1440
        stored = self.x["ev"] - (d.trip_kwh if minute == d.home_min else 0.0)
        stay_h = ((d.away_min - minute - 1) % 1440 + 1) / 60
        window = min(window_h, stay_h)
        needed = ev.DEPARTURE_SOC * d.capacity_kwh - battery.ETA_CHARGE * d.rated_kw * (stay_h - window)
        floor, rated = max(needed, battery.SOC_MIN * d.capacity_kwh), d.rated_kw if home else 0.0
        least, most = _power_band(stored, floor, battery.SOC_MAX * d.capacity_kwh, rated, window)
        least = min(least, 0.0)
        most = max(min(most, rated if d.discharges else 0.0), least)
        p_kw, any_kw = _clip(wish.p_kw, least, most), d.discharges * rated
        up = min(most - p_kw, ev.LET_GO_SHARE * max(-p_kw, any_kw))
        return [p_kw, up, min(p_kw - least, ev.LET_GO_SHARE * max(p_kw + rated, any_kw))]

    def _deferrable(self, d: Any, wish: Any, moment: Moment, factor: float, window_h: float) -> list[float]:
        owed, left_h = self.x["deferrable"], ((d.deadline_min - moment.minute_of_day - 1) % 1440 + 1) / 60
        window = min(window_h, left_h)
        most = min(d.rated_kw, owed / window)
        least = min(max(owed - d.rated_kw * (left_h - window), 0.0) / window, most)
        wished = _clip(-wish.p_kw, least, most)
        return [-wished, max(min(wished - least, d.rated_kw), 0.0), max(min(most - wished, d.rated_kw), 0.0)]

    def move(self, offered: list[list[float]], moved_kw: float) -> list[float]:
        """Split a departure from the wish over the devices in proportion to their offers."""
        side = 1 if moved_kw >= 0 else 2
        total = sum(device[side] for device in offered)
        share = moved_kw / total if total > 0 else 0.0
        return [device[0] + share * device[side] for device in offered]


def _mode(d: Any, air_c: float) -> float:
    return math.copysign(1.0, d.set_c - air_c) if abs(d.set_c - air_c) > DEAD_BAND_C else 0.0


def _thermal(
    power: Callable[[float, float], float], wish: Any, low: float, high: float, window_h: float, rated: float
) -> list[float]:
    margin = thermal.COMFORT_MARGIN_C
    safe = wish.low + 2 * margin <= wish.high
    limits = (wish.low, wish.high) if safe else (low, high)
    ends = sorted((power(limits[0] + margin, window_h), power(limits[1] - margin, window_h)))
    least, most = (_clip(end, 0.0, rated) for end in ends)
    wished, share = _clip(power(wish.x, AHEAD_H), least, most), thermal.LET_GO_SHARE if safe else 0.0
    up = min(wished - least, share * wished)
    return [-wished, max(up, 0.0), max(min(most - wished, share * (rated - wished)), 0.0)]


def _power_band(stored: float, low: float, high: float, rated: float, window_h: float) -> tuple[float, float]:
    room, stock = high - stored, stored - low
    least = (-room / battery.ETA_CHARGE if room >= 0 else -room * battery.ETA_DISCHARGE) / window_h
    most = (stock * battery.ETA_DISCHARGE if stock >= 0 else stock / battery.ETA_CHARGE) / window_h
    return _clip(least, -rated, rated), _clip(most, -rated, rated)


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


def plain_houses(house: Houses, state: State) -> mesa.Model:
    """Return a Mesa model of one agent a house."""
    model = mesa.Model(rng=1)
    for row in range(house.n):
        PlainHouse(model, row, house, state)
    return model


def compare_step(house: Houses, state: State, moment: Moment, device_kw: np.ndarray) -> Timing:
    """Return ours and the naive time [us] and the largest difference of any state after one minute."""
    after = step_houses(house, state, moment, device_kw)
    factor = float(water_heater.draw_factor(moment.minute_of_day / 60))
    model = plain_houses(house, state)
    arguments = moment.temp_air_c, moment.minute_of_day, factor, device_kw
    model.agents.do("pass_minute", *arguments)
    naive = [np.array([a.x[key] for a in model.agents if key in a.x]) for key in STATES]
    difference = max(float(np.abs(x - after[key]).max()) for key, x in zip(STATES, naive, strict=True))
    return (
        median_us(lambda: step_houses(house, state, moment, device_kw), 200),
        median_us(lambda: model.agents.do("pass_minute", *arguments), 30),
        difference,
    )


def compare_offer(
    house: Houses, state: State, moment: Moment, wish: dict[str, Wish], window_h: float
) -> Timing:
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


def compare_move(house: Houses, state: State, offer: Offer) -> Timing:
    """Return the same for a call on two thirds of every offer."""
    up = np.arange(house.n) % 2 == 0
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


def any_wish(house: Houses, rng: np.random.Generator) -> dict[str, Wish]:
    """Return plans drawn blindly, with the limits of now for guards."""
    wishes, span = {}, {"hvac": (19.0, 25.0), "water_heater": (45.0, 60.0)}
    for device in house.devices:
        m = len(device.at)
        low, high = span.get(device.key, (-np.inf, np.inf))
        x = rng.uniform(*span.get(device.key, (0.0, 1.0)), m)
        wishes[device.key] = Wish(x, rng.uniform(-5, 3, m), np.full(m, low), np.full(m, high), AHEAD_H)
    return wishes


def main() -> None:
    """Print one row for each part of a minute."""
    population = build_population(
        FleetSpec(evs=100, v2g_share=0.3, deferrables=300), read_feeder("ieee123"), 1
    )
    house, n = population.house, population.house.n
    car = house.kind(ev.Car)
    rng, minute = np.random.default_rng(1), int(car.home_min[0])
    state = at_rest(house, minute)
    moment = Moment(rng.uniform(0.1, 2.0, n), 12.0, 0.4, minute)
    wish = any_wish(house, rng)
    offer = make_offer(house, state, moment, wish, 5 / 60)
    at_home = int(ev.at_home(minute, car.away_min, car.home_min).sum())
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
