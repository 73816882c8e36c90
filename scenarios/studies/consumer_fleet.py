"""The three agents (CMAs) of the study of the consumer market: ten houses each, with different equipment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from voltier.agents.devices.device import DAY_MIN, Device
from voltier.agents.devices.fleet import Fleet, FleetSpec, Stays
from voltier.agents.devices.kinds import KEYS, KINDS
from voltier.agents.population import Houses
from voltier.agents.randomness import stream

Array = NDArray[np.float64]
Index = NDArray[np.int64]

AnyDevice = TypeVar("AnyDevice", bound=Device)


@dataclass(frozen=True, slots=True)
class Equipment:
    """How many houses of an agent have each kind of device beside their base load, by the kind's key.

    flex_price_usd_per_kwh : what the last kW of all its flexibility costs its people
    """

    name: str
    devices: Mapping[str, int]
    flex_price_usd_per_kwh: float


HOUSES = 10
CMAS = (
    Equipment(
        "CMA 1", {"hvac": 10, "water_heater": 5, "pv": 2, "battery": 1, "ev": 3, "deferrable": 4}, 0.25
    ),
    Equipment("CMA 2", {"hvac": 10, "water_heater": 10, "ev": 5, "deferrable": 6}, 0.45),
    Equipment("CMA 3", {"water_heater": 3, "pv": 1, "battery": 1, "deferrable": 2}, 0.70),
)
"""Everything; all electric without generation; sun and storage beside gas heating. Numbers and prices are our choice:
PV is less than what the houses draw at noon, and full use of flexibility costs several times the grid price."""

V2G_SHARE = 0.3
SIZES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "pv": {"rated_kva": (4.0, 5.0)},
    "battery": {"rated_kw": (4.0, 8.0), "capacity_kwh": (10.0, 20.0)},
    "hvac": {"rated_kw": (5.0, 8.0)},
    "ev": {"rated_kw": (2.0, 10.0), "capacity_kwh": (20.0, 100.0)},
}
"""Ranges that sizes are drawn from (V. J. Nair, PhD thesis, MIT 2025); PV at their lower end."""


def build_houses(seed: int, n_profiles: int, stays: Stays, step_min: int) -> tuple[Houses, Index]:
    """Return the houses of all agents and the offset of each agent's first house, (n_cma + 1,).

    n_profiles : base loads to choose from ; stays : when cars stand at home, taken at full steps of step_min
    """
    n = HOUSES * len(CMAS)
    offset = HOUSES * np.arange(len(CMAS) + 1)
    # Every house has everything at first, as at nodes of a feeder; then it keeps what its agent has.
    spec = FleetSpec(
        houses=n, water_heaters=n, pv_units=n, pv_kva=5.0 * n, pv_nodes=len(CMAS), batteries=n,
        battery_nodes=len(CMAS), dg_nodes=len(CMAS), evs=n, v2g_share=V2G_SHARE, deferrables=n,
    )  # fmt: skip
    rng = stream(seed, "consumer market houses")
    set_c = rng.uniform(20.5, 22.5, n)
    fleet = Fleet(
        spec,
        np.repeat(np.arange(len(CMAS)), HOUSES),
        seed,
        n_profiles,
        _at_steps(stays, step_min),
        rng,
        set_c,
    )
    devices = tuple(_fit(kind.draw(fleet), seed) for kind in KINDS)
    prices = np.repeat([cma.flex_price_usd_per_kwh for cma in CMAS], HOUSES)
    return Houses(n, prices, devices), offset


def _at_steps(stays: Stays, step_min: int) -> Stays:
    """Let cars come and leave where periods begin, so that none leaves within one."""

    def rounded(minute: Index) -> Index:
        return np.asarray(np.round(minute / step_min) * step_min, dtype=np.int64)

    arrival = rounded(stays.arrival_min)
    parked = np.clip(rounded(stays.arrival_min + stays.parked_min) - arrival, step_min, DAY_MIN - step_min)
    return Stays(arrival % DAY_MIN, parked)


def _fit(device: AnyDevice, seed: int) -> AnyDevice:
    """Keep the devices of the houses that are to have one, in sizes of SIZES."""
    if device.key == KEYS[0]:
        return device
    here = np.isin(device.at, _owners(device.key, seed))
    columns: dict[str, Any] = {field.name: getattr(device, field.name)[here] for field in fields(device)}
    for name, between in SIZES.get(device.key, {}).items():
        columns[name] = stream(seed, "consumer market sizes", device.key, name).uniform(
            *between, int(here.sum())
        )
    return replace(device, **columns)


def _owners(key: str, seed: int) -> Index:
    rng = stream(seed, "consumer market", key)
    chosen = [HOUSES * i + rng.permutation(HOUSES)[: cma.devices.get(key, 0)] for i, cma in enumerate(CMAS)]
    return np.concatenate(chosen)
