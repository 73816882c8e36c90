"""Base load: what a house consumes whatever the price; nobody plans it and nobody moves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from voltier.agents.devices.device import Array, Device, Index, Moment, Response, Wish
from voltier.agents.devices.fleet import Fleet

DAY_H = 8760.0


@dataclass(frozen=True, slots=True)
class Base(Device):
    """Base loads of all houses. profile : column of the load profiles ; scale_kw : mean ; shift_min : roll of it."""

    key: ClassVar[str] = "base"
    lags: ClassVar[bool] = True

    profile: Index
    scale_kw: Array
    shift_min: Index

    @classmethod
    def draw(cls, fleet: Fleet) -> Self:
        """Draw one profile a house and its annual use without heating and hot water."""
        n, rng = fleet.spec.houses, fleet.rng
        return cls(
            at=np.arange(n),
            profile=rng.integers(0, fleet.n_profiles, n),
            scale_kw=rng.uniform(4500.0, 6500.0, n) / DAY_H,
            shift_min=rng.integers(-30, 31, n),
        )

    def day_kw(self, profiles_kw: NDArray[np.float64]) -> Array:
        """Return the loads of a day of minutes, (1440, n) [kW, positive].

        profiles_kw : (1440, n_profiles), of any mean, as only their shape is used.
        """
        shape = profiles_kw / profiles_kw.mean(axis=0)
        minute = (np.arange(len(shape))[:, None] - self.shift_min[None, :]) % len(shape)
        return shape[minute, self.profile[None, :]] * self.scale_kw

    def offer(self, x: Array, wish: Wish, moment: Moment, window_h: float) -> Response:
        """Expect the load of the minute known; offer nothing."""
        none = np.zeros(len(self.at))
        return Response(-moment.base_kw[self.at], none, none)

    def realise(self, p_kw: Array, response: Response, moment: Moment) -> Array:
        """Return the load of the minute: people do not follow bids."""
        return -moment.base_kw[self.at]
