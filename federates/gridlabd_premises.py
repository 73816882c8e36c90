"""What lives in a GridLAB-D model beside the injections: its text, what is set each minute, and what is read back."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from voltier.grid.feeder import Feeder
from voltier.grid.flow.port import Complex, OwnPower
from voltier.grid.writers.glm_network import GlmFeeder, number
from voltier.grid.writers.glm_premises import (
    PLANE,
    SKY,
    Premises,
    Site,
    celsius,
    fahrenheit,
    meter_name,
    per_square_foot,
    premises_model,
    service_name,
)
from voltier.scenarios.build_gridlabd import Weather, premises_of, site_of, weather_of
from voltier.scenarios.schema import Scenario

_PLANE_W_M2 = 1000.0
"""Irradiance at which an array gives its rating."""


def premises_in_model(scenario: Scenario, feeder: Feeder) -> PremisesInModel | None:
    """Return what the scenario's engine gridlabd has of its own, or None. Raises InputError."""
    if scenario.gridlabd is None:
        return None
    return PremisesInModel(
        premises_of(scenario, feeder), site_of(scenario), weather_of(scenario), scenario.start
    )


class PremisesInModel:
    """Premises with the run's weather. start : wall clock at simulated second 0."""

    def __init__(self, premises: Premises, site: Site, weather: Weather, start: datetime) -> None:
        self.start = start
        self._premises, self._site, self._weather = premises, site, weather
        self._services = [service_name(k) for k in range(len(premises.bus))]
        self._houses = [name for name in premises.objects if "_house_" in name]
        self._batteries = [name for name in premises.objects if "_battery_" in name]
        self.reads = [
            *((name, key) for key in ("power_in", "power_out") for name in self._services),
            *((meter_name(name), "measured_power") for name in premises.objects),
            *((name, "air_temperature") for name in self._houses),
            *((name, "state_of_charge") for name in self._batteries),
        ]

    def text(self, model: GlmFeeder) -> str:
        """Give the text to append to the feeder's model."""
        return premises_model(model, self._premises, self._site)

    def writes(self, t_s: int) -> list[tuple[str, str, str]]:
        """List the weather of a minute, in GridLAB-D's units."""
        air_c, pv_available, dni, dhi, ghi = self._weather.at(t_s)
        sun = {"solar_direct": dni, "solar_diffuse": dhi, "solar_global": ghi}
        return [
            *((name, "temperature", number(fahrenheit(air_c))) for name in (SKY, PLANE)),
            *((SKY, key, number(per_square_foot(w_m2))) for key, w_m2 in sun.items()),
            (PLANE, "solar_direct", number(per_square_foot(_PLANE_W_M2 * pv_available))),
        ]

    def take(self, values: Complex, shape: tuple[int, ...]) -> tuple[OwnPower, float]:
        """Give what the premises inject into buses and phases of a shape, and their transformers' losses [kW].

        values : those of reads.
        """
        n, n_object = len(self._services), len(self._premises.objects)
        near_va, far_va, meter_va, air_f, soc = np.split(
            values, np.cumsum([n, n, n_object, len(self._houses)])
        )
        injected = np.zeros(shape, dtype=np.complex128)
        np.add.at(injected, (self._premises.bus, self._premises.phase), -near_va / 1000.0)
        temp_c, charge = np.full((2, n_object), np.nan)
        temp_c[: len(air_f)] = celsius(air_f.real)
        charge[len(air_f) : len(air_f) + len(soc)] = soc.real
        own = OwnPower(
            p_kw=injected.real,
            q_kvar=injected.imag,
            object_p_kw=-meter_va.real / 1000.0,
            object_q_kvar=-meter_va.imag / 1000.0,
            temp_indoor_c=temp_c,
            soc=charge,
        )
        return own, float((near_va - far_va).real.sum() / 1000.0)
