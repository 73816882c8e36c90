"""What a fleet of devices is drawn from: how many of what, which houses stand where, and one stream for each draw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voltier.agents.randomness import stream
from voltier.grid.errors import InputError, Problem

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """How many of what. Ratings in kVA (PV in all, battery each), battery energy in kWh each; shares sum to one.

    hvac_kw_min, hvac_kw_max, ev_kw_min, ev_kw_max : bounds of the heat pump and of the charger of a house [kW]
    v2g_share : share of the cars that may also discharge ; flexible_block_kw : most that a flexible block consumes
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
    v2g_share: float = 0.0
    deferrables: int = 0
    flexible_blocks: int = 0
    flexible_block_kw: float = 20.0
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
class Stays:
    """Samples of when cars stand at home, (n,) each: minute of the day of arrival, minutes until they leave."""

    arrival_min: Index
    parked_min: Index


COMMUTERS = Stays(np.array([16 * 60, 17 * 60, 18 * 60]), np.array([16 * 60, 15 * 60, 14 * 60]))
"""Home from the late afternoon until eight, where no data are given."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Houses that wait for their devices.

    house_smo : (n_house,) operator of each ; rng : the houses' own stream, from which base load and heat pumps are
    drawn one after the other ; set_c : (n_house,) wanted temperatures, its first draw ; n_profiles : base loads to
    choose from ; stays : when cars stand at home
    """

    spec: FleetSpec
    house_smo: Index
    seed: int
    n_profiles: int
    stays: Stays
    rng: np.random.Generator
    set_c: Array

    def stream(self, name: str) -> np.random.Generator:
        """Return the stream of a named draw."""
        return stream(self.seed, name)

    def owners(self, name: str, count: int) -> Index:
        """Draw the houses that own a device, in rising order."""
        return np.sort(self.stream(name).choice(self.spec.houses, count, replace=False))

    def hosts(self, n_units: int, nodes: Index, name: str, field: str) -> Index:
        """Draw n_units houses, one unit a house, at all the given nodes and nowhere else. Raises InputError."""
        rng = self.stream(name)
        candidates = np.flatnonzero(np.isin(self.house_smo, nodes))
        if n_units > len(candidates):
            remedy = f"only {len(candidates)} houses stand at the nodes drawn; give fewer units or more nodes"
            raise InputError([Problem("scenario", f"fleet.{field}", n_units, remedy)])
        first = np.array(
            [rng.choice(np.flatnonzero(self.house_smo == node)) for node in nodes], dtype=np.int64
        )
        others = np.setdiff1d(candidates, first)
        return np.sort(np.concatenate([first, rng.choice(others, n_units - len(first), replace=False)]))

    def dg_nodes(self) -> tuple[Index, Index]:
        """Draw the nodes with PV and those with batteries, so that both together are dg_nodes in number."""
        spec, n_smo, rng = self.spec, int(self.house_smo[-1]) + 1, self.stream("nodes")
        if spec.dg_nodes > n_smo:
            raise InputError(
                [Problem("scenario", "fleet.dg_nodes", spec.dg_nodes, f"the feeder has {n_smo} load buses")]
            )
        nodes = rng.permutation(n_smo)[: spec.dg_nodes]
        pv = nodes[: spec.pv_nodes]
        alone = nodes[spec.pv_nodes :]
        shared = rng.choice(pv, spec.battery_nodes - len(alone), replace=False)
        return np.sort(pv), np.sort(np.concatenate([alone, shared]))
