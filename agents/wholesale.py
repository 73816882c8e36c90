"""The wholesale market and the weather, as the feeder sees them: a price taker's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voltier.agents.clock import MINUTE_S, WARM_UP_S
from voltier.agents.messages import Array, Conditions, Forecast
from voltier.agents.operator import Mail, Outbox


@dataclass(frozen=True, slots=True)
class ConditionSeries:
    """Minute series that begin at WARM_UP_S and reach one planning horizon beyond the end of the run.

    price_usd_per_kwh, temp_air_c, pv_available : (n_minutes,) arrays; pv_available is PV output over rating, 0 to 1.
    """

    price_usd_per_kwh: Array
    temp_air_c: Array
    pv_available: Array


class WholesaleOperator:
    """Announces the conditions of each minute and, at each planning period, the horizon ahead.

    The forecast is the series itself averaged over each step (perfect foresight of price and weather; base load and
    the behaviour of others stay uncertain to the consumers). areas : as of the grid's operator.
    """

    name = "wholesale"

    def __init__(
        self,
        series: ConditionSeries,
        *,
        shards: int,
        plan_period_s: int,
        plan_step_s: int,
        horizon_s: int,
        areas: Sequence[str] = (),
    ) -> None:
        self._series = series
        self._areas = tuple(areas)
        self._consumers = [f"cmo.{k}" for k in range(shards)]
        self._plan_period_s, self._plan_step_s, self._horizon_s = plan_period_s, plan_step_s, horizon_s

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Publish the minute's conditions; at the start and each planning period also the forecast."""
        minute = (now_s - WARM_UP_S) // MINUTE_S
        conditions = Conditions(
            t_s=now_s,
            price_usd_per_kwh=float(self._series.price_usd_per_kwh[minute]),
            temp_air_c=float(self._series.temp_air_c[minute]),
            pv_available=float(self._series.pv_available[minute]),
        )
        outbox = Outbox([Mail(self.name, to, conditions) for to in ("pmo", *self._areas, *self._consumers)])
        # The plan made at the end of a minute serves from the next one on: forecasts go out one minute ahead.
        if (now_s + MINUTE_S) % self._plan_period_s == 0:
            forecast = self._forecast(minute + 1, now_s + MINUTE_S)
            outbox.mail += [Mail(self.name, to, forecast) for to in self._consumers]
        return outbox

    def _forecast(self, first: int, t_s: int) -> Forecast:
        per_step, steps = self._plan_step_s // MINUTE_S, self._horizon_s // self._plan_step_s

        def means(values: Array) -> Array:
            return values[first : first + per_step * steps].reshape(steps, per_step).mean(axis=1)

        return Forecast(
            t_s=t_s,
            step_s=self._plan_step_s,
            price_usd_per_kwh=means(self._series.price_usd_per_kwh),
            temp_air_c=np.asarray(means(self._series.temp_air_c)),
            pv_available=means(self._series.pv_available),
        )
