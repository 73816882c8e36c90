"""What lives in the engine gridlabd, as a scenario has it: premises, their site, and the weather of each minute."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from voltier.agents.clock import MINUTE_S, WARM_UP_S
from voltier.agents.premises import draw_premises
from voltier.grid.feeder import Feeder
from voltier.grid.writers.glm_premises import Premises, Site
from voltier.scenarios.inputs import conditions, sky_minutes
from voltier.scenarios.schema import Scenario

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Weather:
    """Weather of each minute from first_s on: air [C], PV output over rating, irradiance [W/m²] (n,)."""

    first_s: int
    temp_air_c: Array
    pv_available: Array
    dni_w_m2: Array
    dhi_w_m2: Array
    ghi_w_m2: Array

    def at(self, t_s: int) -> tuple[float, float, float, float, float]:
        """Return air temperature, PV output, direct, diffuse and global irradiance of a simulated second."""
        k = (t_s - self.first_s) // MINUTE_S
        series = (self.temp_air_c, self.pv_available, self.dni_w_m2, self.dhi_w_m2, self.ghi_w_m2)
        air, pv, dni, dhi, ghi = (float(values[k]) for values in series)
        return air, pv, dni, dhi, ghi


def premises_of(scenario: Scenario, feeder: Feeder) -> Premises:
    """Draw the premises of a scenario with a section gridlabd. Raises InputError."""
    assert scenario.gridlabd is not None
    return draw_premises(feeder, scenario.seed, **scenario.gridlabd.model_dump())


def site_of(scenario: Scenario) -> Site:
    """Return where the scenario's sun is seen from."""
    site = scenario.inputs
    return Site(site.latitude_deg, site.longitude_deg, site.utc_offset_h)


@lru_cache(maxsize=2)
def weather_of(scenario: Scenario) -> Weather:
    """Return the scenario's weather: that which its market and its own houses and arrays have."""
    series = conditions(scenario)
    return Weather(WARM_UP_S, series.temp_air_c, series.pv_available, *sky_minutes(scenario))
