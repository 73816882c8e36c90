"""Houses, batteries and arrays that live in the power-flow engine: where they stand, and what is recorded of them."""

from __future__ import annotations

import numpy as np

from voltier.agents.clock import MINUTE_S
from voltier.agents.operator import Rows
from voltier.agents.randomness import stream
from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import Feeder
from voltier.grid.flow.port import OwnPower
from voltier.grid.writers.glm_network import GlmFeeder
from voltier.grid.writers.glm_premises import Premises

# spread of what is drawn, each uniform: about a detached house and what is sold for it
_FLOOR_M2, _HEATING_C, _COOLING_C = (110.0, 190.0), (19.0, 21.0), (23.5, 25.5)
_LIGHTS_KW, _PLUGS_KW, _SKEW_S = (0.2, 0.6), (0.3, 0.9), 1800
_BATTERY_KW, _BATTERY_KWH, _PV_KW = (3.0, 5.0), (8.0, 14.0), (3.0, 6.0)


def draw_premises(feeder: Feeder, seed: int, *, houses: int, batteries: int, pv: int) -> Premises:
    """Draw premises at phases of load buses, several at one where it falls so; the same for the same seed.

    The i-th battery and the i-th array stand at the premises of the i-th house; beyond the houses, at premises without
    one. Each kind has a stream of its own: more of one does not move another.
    Raises InputError where no load bus is fed.
    """
    n = max(houses, batteries, pv)
    fed = GlmFeeder.of(feeder, keeps_open=True).fed
    at_load = np.argwhere(fed & np.isin(np.arange(len(feeder.bus)), feeder.load_buses)[:, None])
    if not len(at_load):
        remedy = "take a feeder with spot loads at fed phases: premises stand there"
        raise InputError([Problem("scenario", "gridlabd", feeder.name, remedy)])
    bus, phase = at_load[stream(seed, "premises", "place").integers(len(at_load), size=n)].T
    house, store, panel = (stream(seed, "premises", kind) for kind in ("house", "battery", "pv"))
    # one row a house: a longer draw begins with the shorter one
    low, high = np.array([_FLOOR_M2, _HEATING_C, _COOLING_C, _LIGHTS_KW, _PLUGS_KW, (-_SKEW_S, _SKEW_S)]).T
    floor, heating, cooling, lights, plugs, skew = house.uniform(low, high, (houses, len(low))).T
    low, high = np.array([_BATTERY_KW, _BATTERY_KWH]).T
    battery_kw, battery_kwh = store.uniform(low, high, (batteries, len(low))).T
    return Premises(
        bus=bus,
        phase=phase,
        floor_m2=floor,
        heating_c=heating,
        cooling_c=cooling,
        lights_kw=lights,
        plugs_kw=plugs,
        skew_s=skew.astype(np.int64),
        battery_kw=battery_kw,
        battery_kwh=battery_kwh,
        pv_kw=panel.uniform(*_PV_KW, size=pv),
    )


class PremisesRecord:
    """Sums up what lives in the engine over recording periods. period_s : their length."""

    def __init__(self, period_s: int) -> None:
        self._period_s = period_s
        self._power: list[np.ndarray] = []

    def take(self, t_s: int, own: OwnPower) -> list[Rows]:
        """Take a minute's state; return rows at the end of a period: mean power, temperature and charge by then."""
        self._power.append(np.stack([own.object_p_kw, own.object_q_kvar]))
        if (t_s + MINUTE_S) % self._period_s:
            return []
        p_kw, q_kvar = np.mean(self._power, axis=0)
        self._power.clear()
        columns = {"p_kw": p_kw, "q_kvar": q_kvar, "temp_indoor_c": own.temp_indoor_c, "soc": own.soc}
        return [Rows("gridlabd", t_s + MINUTE_S - self._period_s, columns)]
