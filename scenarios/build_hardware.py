"""From the scenario's section hardware to the devices outside and their places among the houses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from voltier.agents.devices.battery import Battery
from voltier.agents.devices.device import Device
from voltier.agents.devices.hvac import HeatPump
from voltier.agents.devices.kinds import KEYS
from voltier.agents.hardware import DeviceSpec, Outside
from voltier.agents.population import Houses, Population
from voltier.grid.errors import InputError, Problem
from voltier.scenarios.schema import Scenario
from voltier.scenarios.schema_hardware import HardwareDevice

_KIND: dict[str, type[HeatPump] | type[Battery]] = {"hvac": HeatPump, "battery": Battery}


def with_ratings(population: Population, scenario: Scenario) -> Population:
    """Give the devices outside their ratings. Raises InputError for a house that is not there or lacks the device."""
    if scenario.hardware is None:
        return population
    check_places(population, scenario.hardware.devices)
    by_kind: dict[str, Device] = {device.key: device for device in population.house.devices}
    for given in scenario.hardware.devices:
        device = population.house.kind(_KIND[given.kind])
        if given.rated_kw is not None:
            changed = by_kind[given.kind]
            assert isinstance(changed, HeatPump | Battery)
            rated_kw = changed.rated_kw.copy()
            rated_kw[_place(device, population.house_name.index(given.house))] = given.rated_kw
            by_kind[given.kind] = replace(changed, rated_kw=rated_kw)
    house = population.house
    return replace(population, house=Houses(house.n, house.flex_price_usd_per_kwh, tuple(by_kind.values())))


def check_places(population: Population, devices: Sequence[HardwareDevice]) -> None:
    """Raise InputError for devices that have no place among the houses."""
    problems = []
    for i, given in enumerate(devices):
        owners = population.house.kind(_KIND[given.kind]).at
        if given.house not in population.house_name:
            remedy = f"there are {population.house_name[0]} to {population.house_name[-1]}"
        elif population.house_name.index(given.house) not in owners:
            some = ", ".join(population.house_name[h] for h in owners[:5])
            remedy = f"this house has no {given.kind}; {some} have"
        else:
            continue
        problems.append(Problem("scenario", f"hardware.devices.{i}.house", given.house, remedy))
    if problems:
        raise InputError(problems)


def device_specs(population: Population, devices: Sequence[HardwareDevice]) -> list[DeviceSpec]:
    """Return the devices outside, in the scenario's order. population : that of the whole run."""
    specs = []
    for given in devices:
        device = population.house.kind(_KIND[given.kind])
        place = _place(device, population.house_name.index(given.house))
        capacity_kwh = float(device.capacity_kwh[place]) if isinstance(device, Battery) else 0.0
        specs.append(DeviceSpec(given.house, given.kind, float(device.rated_kw[place]), capacity_kwh))
    return specs


def outside_of(part: Population, devices: Sequence[HardwareDevice]) -> Outside | None:
    """Return the devices outside that belong to houses of a shard; None if there are none."""
    here = [i for i, given in enumerate(devices) if given.house in part.house_name]
    if not here:
        return None
    kind = tuple(devices[i].kind for i in here)
    house = [part.house_name.index(devices[i].house) for i in here]
    place = [_place(part.house.kind(_KIND[key]), at) for key, at in zip(kind, house, strict=True)]
    return Outside(
        device=np.array(here),
        kind=kind,
        kind_row=np.array([KEYS.index(key) for key in kind]),
        house=np.array(house),
        place=np.array(place),
    )


def _place(device: Device, house: int) -> int:
    return int(np.searchsorted(device.at, house))
