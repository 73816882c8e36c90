"""Who lives on the feeder: houses, their devices, and the agents that gather them, all drawn from one seed.

Counts and totals follow the published DER-rich IEEE 123-node study (Nair, PhD thesis, MIT 2025); its placement is not
public, so houses follow the spot loads and devices are drawn at random until counts, nodes and ratings match.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from voltier.agents.devices.device import Device
from voltier.agents.devices.fleet import COMMUTERS, Fleet, FleetSpec, Stays
from voltier.agents.devices.kinds import KINDS
from voltier.agents.randomness import stream
from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import Feeder

Array = NDArray[np.float64]
Index = NDArray[np.int64]

AnyDevice = TypeVar("AnyDevice", bound=Device)

SMA_MAX = 10
RELIABLE, AVERAGE, UNRELIABLE = range(3)


@dataclass(frozen=True, slots=True)
class Houses:
    """n houses and all their devices, one object a kind in the order of KINDS.

    flex_price_usd_per_kwh : (n,) what using all of a house's flexibility costs its people
    """

    n: int
    flex_price_usd_per_kwh: Array
    devices: tuple[Device, ...]

    def kind(self, of: type[AnyDevice]) -> AnyDevice:
        """Return the devices of one kind."""
        return next(device for device in self.devices if isinstance(device, of))

    def spread(self, of: type[Device], name: str) -> NDArray[Any]:
        """Return a field of a kind's devices for all houses, (n,); zero where a house has none."""
        device = self.kind(of)
        values = getattr(device, name)
        full = np.zeros(self.n, dtype=values.dtype)
        full[device.at] = values
        return full

    def rows(self, at: Index) -> Houses:
        """Return the houses at some positions, rising."""
        return Houses(
            len(at), self.flex_price_usd_per_kwh[at], tuple(device.take(at) for device in self.devices)
        )


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


# ---------------------------------------------------------------------- furnishing


def _furnish(spec: FleetSpec, house_smo: Index, seed: int, n_profiles: int, stays: Stays) -> Houses:
    rng = stream(seed, "houses")
    set_c = rng.uniform(20.5, 22.5, spec.houses)
    fleet = Fleet(spec, house_smo, seed, n_profiles, stays, rng, set_c)
    devices = tuple(kind.draw(fleet) for kind in KINDS)
    return Houses(spec.houses, rng.uniform(0.15, 0.40, spec.houses), devices)


def _offset(member: Index, n: int) -> Index:
    return np.concatenate([[0], np.cumsum(np.bincount(member, minlength=n))])
