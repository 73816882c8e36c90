"""How wrong a forecast is: errors that grow with the time ahead, the same for all who read the same forecast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voltier.agents.messages import Forecast
from voltier.agents.randomness import stream

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class ForecastError:
    """Standard deviations a day ahead; they grow with the square root of the time ahead.

    temp_air_c : added [degC] ; pv_share, price_share : of the value itself
    """

    temp_air_c: float = 0.0
    pv_share: float = 0.0
    price_share: float = 0.0

    @property
    def any(self) -> bool:
        """Whether there is any error at all."""
        return max(self.temp_air_c, self.pv_share, self.price_share) > 0.0


NO_ERROR = ForecastError()


def with_error(forecast: Forecast, error: ForecastError, seed: int) -> Forecast:
    """Return a forecast with errors: random walks over the time ahead, drawn anew for each forecast.

    They depend on the seed and the forecast's time only, so that every process sees the same wrong forecast.
    """
    if not error.any:
        return forecast
    draws = stream(seed, "forecast error", forecast.t_s).standard_normal((3, len(forecast.price_usd_per_kwh)))
    walk: NDArray[np.float64] = np.sqrt(forecast.step_s / DAY_S) * np.cumsum(draws, axis=1)
    return Forecast(
        t_s=forecast.t_s,
        step_s=forecast.step_s,
        price_usd_per_kwh=forecast.price_usd_per_kwh * (1.0 + error.price_share * walk[2]),
        temp_air_c=forecast.temp_air_c + error.temp_air_c * walk[0],
        pv_available=np.clip(forecast.pv_available * (1.0 + error.pv_share * walk[1]), 0.0, 1.0),
    )
