"""Who lives on the feeder: houses, their devices, and the agents that gather them, all drawn from one seed.

Counts and totals follow the published DER-rich IEEE 123-node study (Nair, PhD thesis, MIT 2025); its placement is not
public, so houses follow the spot loads and devices are drawn at random until counts, nodes and ratings match.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voltier.agents.devices.ev import COMMUTERS, DAY_MIN, Stays
from voltier.agents.randomness import stream
from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import Feeder

Array = NDArray[np.float64]
Index = NDArray[np.int64]

SMA_MAX = 10
RELIABLE, AVERAGE, UNRELIABLE = range(3)


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """How many of what. Ratings in kVA (PV in all, battery each), battery energy in kWh each; shares sum to one.

    hvac_kw_min, hvac_kw_max, ev_kw_min, ev_kw_max : bounds of the heat pump and of the charger of a house [kW]
    """

    houses: int = 1008
    water_heaters: int = 348
    pv_units: int = 207
    pv_kva: float = 880.84
    pv_nodes: int = 68
    batteries: int = 173
    battery_kva: float = 5.0
    battery_kwh: float = 13.5
    battery_nodes: int = 63
    dg_nodes: int = 82
    evs: int = 0
    hvac_kw_min: float = 2.0
    hvac_kw_max: float = 5.0
    ev_kw_min: float = 2.0
    ev_kw_max: float = 10.0
    sma_min: int = 3
    houses_per_sma: int = 3
    reliable_share: float = 0.6
    average_share: float = 0.25
    unreliable_share: float = 0.15


@dataclass(frozen=True, slots=True)
class Houses:
    """Parameters of all houses, (n_house,) each; a device that a house lacks has rating zero.

    profile : column of the load profiles ; profile_scale : factor on it ; profile_shift_min : roll of the profile
    r_c_per_kw, c_kwh_per_c : thermal resistance and capacity ; cop ; hvac_kw : electric rating ; set_c : wanted
    temperature ; min_c, max_c : comfort ; water_kw : heater rating ; water_kwh_per_c : tank capacity ;
    draw_kw : mean heat drawn from the tank ; pv_kva ; battery_kw, battery_kwh ; ev_kw, ev_kwh : charger and battery ;
    ev_away_min, ev_home_min : minutes of the day between which the car is away ; ev_trip_kwh : energy driven a day
    flex_price_usd_per_kwh : what using all of the house's flexibility costs its people
    """

    profile: Index
    profile_scale: Array
    profile_shift_min: Index
    r_c_per_kw: Array
    c_kwh_per_c: Array
    cop: Array
    hvac_kw: Array
    set_c: Array
    min_c: Array
    max_c: Array
    water_kw: Array
    water_kwh_per_c: Array
    draw_kw: Array
    pv_kva: Array
    battery_kw: Array
    battery_kwh: Array
    ev_kw: Array
    ev_kwh: Array
    ev_away_min: Index
    ev_home_min: Index
    ev_trip_kwh: Array
    flex_price_usd_per_kwh: Array

    def rows(self, at: Index) -> Houses:
        """Return the houses at some positions."""
        return Houses(**{field.name: getattr(self, field.name)[at] for field in fields(self)})


@dataclass(frozen=True, slots=True)
class Population:
    """Operators, agents and houses of a run, or of one shard of it.

    smo_index, sma_index, house_index : positions in the whole run. smo_bus : (n_smo,) rows of the feeder's bus table.
    sma_smo : (n_sma,) and house_sma : (n_house,) positions within this population, sorted.
    sma_reliability : (n_sma,) RELIABLE, AVERAGE or UNRELIABLE. house_phase : (n_house,) 0 to 2. house : parameters.
    """

    smo_index: Index
    smo_bus: Index
    smo_name: tuple[str, ...]
    sma_index: Index
    sma_smo: Index
    sma_name: tuple[str, ...]
    sma_reliability: Index
    house_index: Index
    house_sma: Index
    house_name: tuple[str, ...]
    house_phase: Index
    house: Houses

    @property
    def sma_offset(self) -> Index:
        """First house of each SMA, and the number of houses: (n_sma + 1,)."""
        return _offset(self.house_sma, len(self.sma_name))

    @property
    def smo_offset(self) -> Index:
        """First SMA of each SMO, and the number of SMAs: (n_smo + 1,)."""
        return _offset(self.sma_smo, len(self.smo_name))

    @property
    def house_bus(self) -> Index:
        """Row of the feeder's bus table of each house."""
        return self.smo_bus[self.sma_smo[self.house_sma]]

    def shard(self, k: int, n: int) -> Population:
        """Return the k-th of n contiguous blocks of SMOs with all that belongs to them.

        Raises InputError when there are more blocks than SMOs.
        """
        if n > len(self.smo_name):
            remedy = f"give at most {len(self.smo_name)}, one for each secondary operator"
            raise InputError([Problem("scenario", "federation.shards", n, remedy)])
        smo = np.array_split(np.arange(len(self.smo_name)), n)[k]
        sma = np.flatnonzero(np.isin(self.sma_smo, smo))
        house = np.flatnonzero(np.isin(self.house_sma, sma))
        return Population(
            smo_index=self.smo_index[smo],
            smo_bus=self.smo_bus[smo],
            smo_name=tuple(self.smo_name[i] for i in smo),
            sma_index=self.sma_index[sma],
            sma_smo=self.sma_smo[sma] - smo[0],
            sma_name=tuple(self.sma_name[j] for j in sma),
            sma_reliability=self.sma_reliability[sma],
            house_index=self.house_index[house],
            house_sma=self.house_sma[house] - sma[0],
            house_name=tuple(self.house_name[h] for h in house),
            house_phase=self.house_phase[house],
            house=self.house.rows(house),
        )


def build_population(
    spec: FleetSpec, feeder: Feeder, seed: int, n_profiles: int = 100, stays: Stays = COMMUTERS
) -> Population:
    """Place houses, agents and devices on a feeder.

    Houses follow the spot loads (largest remainder), at least sma_min a load bus, each on one phase of its bus' loads.
    n_profiles : number of base-load profiles to draw from ; stays : samples to draw each car's daily stay at home from.
    Raises InputError when the counts cannot be met.
    """
    load_bus = feeder.load_buses
    kw = _spot_kw(feeder)
    houses_at = _apportion(spec.houses, kw.sum(axis=1)[load_bus], spec.sma_min)
    sma_max = max(SMA_MAX, spec.sma_min)
    n_sma_at = np.clip(np.round(houses_at / spec.houses_per_sma), spec.sma_min, sma_max).astype(np.int64)
    sma_smo = np.repeat(np.arange(len(load_bus)), n_sma_at)
    houses_in_sma = np.concatenate([_even(h, n) for h, n in zip(houses_at, n_sma_at, strict=True)])
    house_sma = np.repeat(np.arange(len(sma_smo)), houses_in_sma)
    house_smo = sma_smo[house_sma]
    names = [feeder.bus[bus] for bus in load_bus]
    in_smo = np.arange(len(sma_smo)) - np.searchsorted(sma_smo, sma_smo)
    draw = stream(seed, "reliability").random(len(sma_smo))
    reliability = np.searchsorted(np.cumsum([spec.reliable_share, spec.average_share]), draw, side="right")
    phase = np.concatenate(
        [
            _phases(kw[bus], int(n), stream(seed, "phase", feeder.bus[bus]))
            for bus, n in zip(load_bus, houses_at, strict=True)
        ]
    )
    return Population(
        smo_index=np.arange(len(load_bus)),
        smo_bus=np.asarray(load_bus, dtype=np.int64),
        smo_name=tuple(f"smo_{name}" for name in names),
        sma_index=np.arange(len(sma_smo)),
        sma_smo=sma_smo,
        sma_name=tuple(f"sma_{names[i]}_{j}" for i, j in zip(sma_smo, in_smo, strict=True)),
        sma_reliability=np.minimum(reliability, UNRELIABLE).astype(np.int64),
        house_index=np.arange(spec.houses),
        house_sma=house_sma,
        house_name=tuple(f"house_{h:04d}" for h in range(spec.houses)),
        house_phase=phase,
        house=_furnish(spec, house_smo, seed, n_profiles, stays),
    )


# ---------------------------------------------------------------------- placing


def _spot_kw(feeder: Feeder) -> Array:
    """Sum the spot loads by bus and phase; a load between two phases counts half on each: (n_bus, 3) [kW]."""
    kw = np.zeros((len(feeder.bus), 3))
    loads = feeder.spot_loads
    for bus, phases, p_kw in zip(loads.bus, loads.phase, loads.p_kw, strict=True):
        for phase in phases:
            kw[bus, "abc".index(phase)] += p_kw / len(phases)
    return kw


def _apportion(total: int, weight: Array, least: int) -> Index:
    """Share a total in proportion to weights by largest remainder, at least `least` each."""
    if total < least * len(weight):
        raise InputError(
            [
                Problem(
                    "scenario",
                    "fleet.houses",
                    total,
                    f"give at least {least * len(weight)}: sma_min at each load bus",
                )
            ]
        )
    spare = total - least * len(weight)
    if spare == 0:
        return np.full(len(weight), least)
    quota = np.maximum(total * weight / weight.sum() - least, 0.0)
    quota *= spare / quota.sum()
    whole = np.floor(quota).astype(np.int64)
    rest = np.argsort(-(quota - whole), kind="stable")[: spare - int(whole.sum())]
    whole[rest] += 1
    return whole + least


def _even(total: int, parts: int) -> Index:
    """Split a whole number into parts that differ by one at most, larger first."""
    return np.full(parts, total // parts) + (np.arange(parts) < total % parts)


def _phases(kw: Array, n: int, rng: np.random.Generator) -> Index:
    """Give each of n houses a phase, in proportion to the bus' load on it, in random order."""
    counts = np.floor(n * kw / kw.sum()).astype(np.int64)
    remainder = n * kw / kw.sum() - counts
    counts[np.argsort(-remainder, kind="stable")[: n - int(counts.sum())]] += 1
    return rng.permutation(np.repeat(np.arange(3), counts))


def _hosts(n_units: int, nodes: Index, house_smo: Index, rng: np.random.Generator, field: str) -> Index:
    """Draw n_units houses, one unit a house, at all the given nodes and nowhere else."""
    candidates = np.flatnonzero(np.isin(house_smo, nodes))
    if n_units > len(candidates):
        remedy = f"only {len(candidates)} houses stand at the nodes drawn; give fewer units or more nodes"
        raise InputError([Problem("scenario", f"fleet.{field}", n_units, remedy)])
    first = np.array([rng.choice(np.flatnonzero(house_smo == node)) for node in nodes], dtype=np.int64)
    others = np.setdiff1d(candidates, first)
    return np.sort(np.concatenate([first, rng.choice(others, n_units - len(first), replace=False)]))


def _dg_nodes(spec: FleetSpec, n_smo: int, rng: np.random.Generator) -> tuple[Index, Index]:
    """Draw the nodes with PV and those with batteries, so that both together are dg_nodes in number."""
    if spec.dg_nodes > n_smo:
        raise InputError(
            [Problem("scenario", "fleet.dg_nodes", spec.dg_nodes, f"the feeder has {n_smo} load buses")]
        )
    nodes = rng.permutation(n_smo)[: spec.dg_nodes]
    pv = nodes[: spec.pv_nodes]
    alone = nodes[spec.pv_nodes :]
    shared = rng.choice(pv, spec.battery_nodes - len(alone), replace=False)
    return np.sort(pv), np.sort(np.concatenate([alone, shared]))


# ---------------------------------------------------------------------- furnishing


def _furnish(spec: FleetSpec, house_smo: Index, seed: int, n_profiles: int, stays: Stays) -> Houses:
    n = spec.houses
    rng = stream(seed, "houses")
    pv_nodes, battery_nodes = _dg_nodes(spec, int(house_smo[-1]) + 1, stream(seed, "nodes"))
    pv_at = _hosts(spec.pv_units, pv_nodes, house_smo, stream(seed, "pv"), "pv_units")
    battery_at = _hosts(spec.batteries, battery_nodes, house_smo, stream(seed, "batteries"), "batteries")
    water_at = np.sort(stream(seed, "water heaters").choice(n, spec.water_heaters, replace=False))
    pv_kva = _at(n, pv_at, _sizes(spec.pv_units, spec.pv_kva, stream(seed, "pv sizes")))
    set_c = rng.uniform(20.5, 22.5, n)
    return Houses(
        profile=rng.integers(0, n_profiles, n),
        # Annual use without heating and hot water; the profiles' own mean is divided out where they are read.
        profile_scale=rng.uniform(4500.0, 6500.0, n) / 8760.0,
        profile_shift_min=rng.integers(-30, 31, n),
        r_c_per_kw=2.0 * rng.uniform(0.8, 1.2, n),
        c_kwh_per_c=2.0 * rng.uniform(0.8, 1.2, n),
        cop=3.0 * rng.uniform(0.9, 1.1, n),
        hvac_kw=rng.uniform(spec.hvac_kw_min, spec.hvac_kw_max, n),
        set_c=set_c,
        min_c=np.full(n, 19.0),
        max_c=np.full(n, 25.0),
        water_kw=_at(n, water_at, np.full(spec.water_heaters, 4.5)),
        water_kwh_per_c=_at(n, water_at, np.full(spec.water_heaters, 0.22)),
        draw_kw=_at(n, water_at, stream(seed, "hot water").uniform(0.2, 0.5, spec.water_heaters)),
        pv_kva=pv_kva,
        battery_kw=_at(n, battery_at, np.full(spec.batteries, spec.battery_kva)),
        battery_kwh=_at(n, battery_at, np.full(spec.batteries, spec.battery_kwh)),
        **_cars(spec, stays, seed),
        flex_price_usd_per_kwh=rng.uniform(0.15, 0.40, n),
    )


def _cars(spec: FleetSpec, stays: Stays, seed: int) -> dict[str, NDArray[Any]]:
    """Draw the columns of the cars: charger, battery, the same stay at home every day, and what a day's trip takes."""
    n = spec.houses
    at = np.sort(stream(seed, "evs").choice(n, spec.evs, replace=False))
    rng = stream(seed, "cars")
    ev_kwh = rng.uniform(20.0, 100.0, spec.evs)
    stay = rng.integers(0, len(stays.arrival_min), spec.evs)
    home_min = np.zeros(n, dtype=np.int64)
    away_min = np.zeros(n, dtype=np.int64)
    home_min[at] = stays.arrival_min[stay]
    away_min[at] = (stays.arrival_min + stays.parked_min)[stay] % DAY_MIN
    return {
        "ev_kw": _at(n, at, rng.uniform(spec.ev_kw_min, spec.ev_kw_max, spec.evs)),
        "ev_kwh": _at(n, at, ev_kwh),
        "ev_away_min": away_min,
        "ev_home_min": home_min,
        "ev_trip_kwh": _at(n, at, np.minimum(rng.uniform(5.0, 15.0, spec.evs), 0.5 * ev_kwh)),
    }


def _at(n: int, where: Index, values: Array) -> Array:
    full = np.zeros(n)
    full[where] = values
    return full


def _sizes(n: int, total: float, rng: np.random.Generator) -> Array:
    """Draw n ratings of 2 to 10 kVA, most of them small, that sum exactly to the total."""
    if n == 0:
        return np.zeros(0)
    draw = 2.0 + 8.0 * rng.beta(1.2, 3.0, n)
    return draw * total / draw.sum()


def _offset(member: Index, n: int) -> Index:
    return np.concatenate([[0], np.cumsum(np.bincount(member, minlength=n))])
