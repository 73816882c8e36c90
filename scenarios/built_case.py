"""What several operators of a run are built from: its feeder and its population, made once in each process."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from voltier.agents.clock import MarketClock
from voltier.agents.devices.fleet import FleetSpec
from voltier.agents.population import Population, build_population
from voltier.grid.feeder import Feeder, read_feeder
from voltier.grid.regulators import initial_taps, neutral_taps
from voltier.scenarios.build_hardware import with_ratings
from voltier.scenarios.inputs import ev_stays, load_profiles
from voltier.scenarios.schema import Scenario


def market_clock(scenario: Scenario) -> MarketClock:
    """Return the run's clock."""
    return MarketClock(primary_period_s=scenario.primary.period_s, end_s=scenario.end_s)


class BuiltCase:
    """Feeder and population of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.feeder: Feeder = read_feeder(scenario.feeder.name)
        self.profiles_kw = load_profiles(scenario)
        drawn = build_population(
            _fleet(scenario), self.feeder, scenario.seed, self.profiles_kw.shape[1], ev_stays(scenario)
        )
        self.population: Population = with_ratings(drawn, scenario)

    def shard(self, k: int) -> Population:
        """Return the k-th of the run's shards of the population."""
        return self.population.shard(k, self.scenario.federation.shards)

    @property
    def has_generator(self) -> np.ndarray:
        """Which SMOs have a generator, (n_smo,)."""
        generator_buses = {generator.bus for generator in self.scenario.generators}
        return np.array([self.feeder.bus[bus] in generator_buses for bus in self.population.smo_bus])

    @property
    def shard_smos(self) -> list[np.ndarray]:
        """Positions of the SMOs of each shard."""
        return [self.shard(k).smo_index for k in range(self.scenario.federation.shards)]


@lru_cache(maxsize=2)
def built_case(scenario: Scenario) -> BuiltCase:
    """Return the feeder and population of a scenario."""
    return BuiltCase(scenario)


def _fleet(scenario: Scenario) -> FleetSpec:
    return FleetSpec(**scenario.fleet.model_dump())


def start_taps(scenario: Scenario, feeder: Feeder) -> np.ndarray:
    """Return the published positions, or all at zero; controlled regulators start from neutral and move at once."""
    return initial_taps(feeder) if scenario.feeder.regulators == "published" else neutral_taps(feeder)
