"""Every house of a run over time: its devices, comfort, bill and use of its own PV, from the records of the run.

A record is one minute out of each recording period (recording.consumer_period_s, usually five minutes): powers and
prices are that minute's, temperatures and stored energies those at its end. Sums over records let each stand for its
whole period; what happens between two records is not seen. Only what houses pay is added up in every minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voltier.agents.devices.battery import SOC_MAX, SOC_MIN, Battery
from voltier.agents.devices.block import FlexibleBlock
from voltier.agents.devices.device import DAY_MIN
from voltier.agents.devices.ev import Car
from voltier.agents.devices.hvac import HeatPump
from voltier.agents.devices.pv import Pv
from voltier.grid.errors import InputError, Problem
from voltier.scenarios.build import population_of
from voltier.scenarios.panels import Array, Block
from voltier.scenarios.schema import Scenario

Index = NDArray[np.int64]
Names = NDArray[np.object_]

OWNED = {"pv": "PV", "battery": "battery", "ev": "EV"}
"""Kinds of device that set houses apart; heating, hot water and what can be put off do so less, and a site like a data
centre is no house at all."""
SHARED = ("p0_kw", "p_min_kw", "p_max_kw", "p_kw", "p_meter_kw", "paid_usd", "given_usd")
"""Columns of the table of consumers under their own names."""
OUTSIDE_C = 0.01
"""Least excursion that counts as outside the comfort limits: less than any thermostat tells, more than rounding."""
OUTSIDE_KWH = 1e-6
"""Least excess over the limits of a battery's energy that is not rounding."""


@dataclass(frozen=True, slots=True)
class Equipment:
    """What each house has, (n_house,) each; zero for what it lacks.

    kind : what sets the house apart: "PV + battery", "EV", "none"; "flexible block" whatever else there is
    set_c, min_c, max_c : wanted temperature and comfort limits ; ev_target_kwh : energy wanted in a car that leaves
    ev_away_min, ev_home_min : minutes of the day between which the car is away
    """

    kind: Names
    set_c: Array
    min_c: Array
    max_c: Array
    pv_kva: Array
    battery_kwh: Array
    ev_kwh: Array
    ev_target_kwh: Array
    ev_away_min: Index
    ev_home_min: Index


@dataclass(frozen=True, slots=True)
class Households:
    """Records of all houses; (n_t, n_house) unless said otherwise, injections positive.

    t_s : (n_t,) ; period_h : what a record stands for ; start_minute : minute of the day at t_s = 0
    name, market : (n_house,) the house and its consumer market ; equipment : what they have
    device_kw : column of the table → power of that device ; temp_c : indoors ; battery_kwh, ev_kwh : stored
    p0_kw, p_min_kw, p_max_kw : wish and offered limits ; p_kw : what the market asks for ; p_meter_kw : what it gets
    paid_usd, given_usd : what the house paid since the record before, in all minutes up to this one, and what of that
    the consumer market saved it
    """

    t_s: Index
    period_h: float
    start_minute: int
    name: Names
    market: Names
    equipment: Equipment
    device_kw: Mapping[str, Array]
    temp_c: Array
    battery_kwh: Array
    ev_kwh: Array
    p0_kw: Array
    p_min_kw: Array
    p_max_kw: Array
    p_kw: Array
    p_meter_kw: Array
    paid_usd: Array
    given_usd: Array


@dataclass(frozen=True, slots=True)
class Departures:
    """Departures of cars, (n,) each: house, record that tells the car's energy, and what it lacks to its target."""

    house: Index
    record: Index
    minute: Index
    missing_kwh: Array


def equipment_of(scenario: Scenario) -> Equipment:
    """Draw the scenario's houses again and return what they have."""
    house = population_of(scenario).house
    owned: list[list[str]] = [[] for _ in range(house.n)]
    for device in house.devices:
        for i in device.at if device.key in OWNED else ():
            owned[i].append(OWNED[device.key])
    for i in house.kind(FlexibleBlock).at:
        owned[i] = ["flexible block"]
    return Equipment(
        kind=np.array([" + ".join(names) or "none" for names in owned], dtype=object),
        set_c=house.spread(HeatPump, "set_c"),
        min_c=house.spread(HeatPump, "min_c"),
        max_c=house.spread(HeatPump, "max_c"),
        pv_kva=house.spread(Pv, "rated_kva"),
        battery_kwh=house.spread(Battery, "capacity_kwh"),
        ev_kwh=house.spread(Car, "capacity_kwh"),
        ev_target_kwh=house.spread(Car, "target_kwh"),
        ev_away_min=house.spread(Car, "away_min"),
        ev_home_min=house.spread(Car, "home_min"),
    )


def households(consumer: Block, devices: Block, scenario: Scenario) -> Households:
    """Join the tables `consumer` and `devices` with what the scenario says of the houses.

    Raises InputError where another version made the tables: they lack columns, or the scenario gives other houses now.
    """
    # A run that was broken off may have left more of one table than of the other.
    n = min(len(consumer.t_s), len(devices.t_s))
    equipment = equipment_of(scenario)
    _check_same_version(consumer, devices, equipment, scenario)
    state = {column: values[:n] for column, values in devices.values.items()}
    share = {column: values[:n] for column, values in consumer.values.items()}
    return Households(
        t_s=devices.t_s[:n],
        period_h=scenario.recording.consumer_period_s / 3600.0,
        start_minute=scenario.start_second_of_day // 60,
        name=devices.keys["cma"],
        market=consumer.keys["cmo"],
        equipment=equipment,
        device_kw={column: values for column, values in state.items() if column.endswith("_kw")},
        temp_c=state["temp_indoor_c"],
        battery_kwh=state["battery_kwh"],
        ev_kwh=state["ev_kwh"],
        **{name: share[name] for name in SHARED},
    )


def bills_usd(houses: Households) -> Array:
    """Return what each house pays up to the last record, (n_house,); every minute counts.

    Σ (− tariff P_meter − given) dt, where given = paid − tariff P is what the consumer market pays for its outcome P
    beyond the tariff: with common prices (mu − tariff) P + mu~ (P − P0) and, where wishes cancel, a side payment. It
    sums to zero over the houses of a market. Payments and penalties of the secondary market stay with its agents.
    """
    return houses.paid_usd.sum(axis=0)


def excursion_c(houses: Households) -> Array:
    """Return how far indoor temperatures lie outside the comfort limits, zero within: (n_t, n_house)."""
    least, most = houses.equipment.min_c, houses.equipment.max_c
    return np.maximum(np.maximum(least - houses.temp_c, houses.temp_c - most), 0.0)


def rms_from_wanted_c(houses: Households) -> Array:
    """Return the root mean square distance of each house from its wanted temperature, (n_house,)."""
    return np.sqrt(((houses.temp_c - houses.equipment.set_c) ** 2).mean(axis=0))


def self_used_kw(houses: Households) -> Array:
    """Return how much of its PV each house uses behind its own meter, (n_t, n_house).

    min(PV, consumption of all other devices, charging of battery and car included).
    """
    others = [power for column, power in houses.device_kw.items() if column != "pv_kw"]
    consumption = sum((np.maximum(-power, 0.0) for power in others), np.zeros_like(houses.p_meter_kw))
    return np.minimum(houses.device_kw["pv_kw"], consumption)


def self_use_share(houses: Households) -> Array:
    """Return the share of its PV energy that each house uses itself, (n_house,); nan without PV energy."""
    used, made = self_used_kw(houses).sum(axis=0), houses.device_kw["pv_kw"].sum(axis=0)
    return np.divide(used, made, out=np.full_like(made, np.nan), where=made > 0.0)


def soc_excess_kwh(energy_kwh: Array, capacity_kwh: Array) -> Array:
    """Return how far stored energies lie outside the limits of state of charge, zero within; shapes broadcast."""
    low, high = SOC_MIN * capacity_kwh, SOC_MAX * capacity_kwh
    return np.maximum(np.maximum(low - energy_kwh, energy_kwh - high), 0.0)


def departures(houses: Households) -> Departures:
    """Return all departures that a record tells of.

    A parked or driving car keeps its energy until it is home again, so the first record after its departure is exact;
    should it return before one, the last record before counts, which may miss a recording period of charging.
    """
    minute = houses.start_minute + houses.t_s // 60
    # A record holds the energy at the end of its minute.
    end = minute + 1
    found: list[tuple[int, int, int, float]] = []
    for i in np.flatnonzero(houses.equipment.ev_kwh > 0.0):
        away, home = int(houses.equipment.ev_away_min[i]), int(houses.equipment.ev_home_min[i])
        first = away + DAY_MIN * -(-(int(minute[0]) + 1 - away) // DAY_MIN)
        for leaves in range(first, int(end[-1]) + 1, DAY_MIN):
            record = int(np.searchsorted(end, leaves))
            if end[record] > leaves + (home - away) % DAY_MIN and record > 0:
                record -= 1
            missing = float(houses.equipment.ev_target_kwh[i] - houses.ev_kwh[record, i])
            found.append((int(i), record, leaves % DAY_MIN, missing if missing > OUTSIDE_KWH else 0.0))
    house, at, left, missing_kwh = zip(*found, strict=True) if found else ((), (), (), ())
    return Departures(
        np.array(house, dtype=np.int64),
        np.array(at, dtype=np.int64),
        np.array(left, dtype=np.int64),
        np.array(missing_kwh, dtype=np.float64),
    )


def _check_same_version(consumer: Block, devices: Block, equipment: Equipment, scenario: Scenario) -> None:
    lacking = sorted(set(SHARED) - consumer.values.keys())
    if lacking:
        remedy = "an earlier version made this table, without it; repeat the run"
        raise InputError([Problem("table consumer", "column", ", ".join(lacking), remedy)])
    name = devices.keys["cma"]
    same = tuple(name) == population_of(scenario).house_name and all(
        np.array_equal(devices[column][0] > 0.0, capacity > 0.0)
        for column, capacity in (("battery_kwh", equipment.battery_kwh), ("ev_kwh", equipment.ev_kwh))
    )
    if not same:
        remedy = "this version draws other houses from the scenario than the run had; repeat the run"
        raise InputError([Problem("table devices", "cma", len(name), remedy)])
