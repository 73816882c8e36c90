"""What every kind of device answers: how a plan sees it, what it offers, what a minute does to it.

A device object holds all devices of one kind in a shard as arrays, one row for each house that owns one. Its state is
one number a row: a temperature, a stored energy, work still to do. Powers are injections into the grid [kW].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from voltier.agents.devices.fleet import Fleet
from voltier.market.planning.household import DeviceRows

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

MINUTE_H = 1.0 / 60.0
DAY_MIN = 1440
LOAD_TAN_PHI = float(np.tan(np.arccos(0.95)))
"""Reactive over active consumption of household load, power factor 0.95."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What the houses know of a minute: base load (n_house,) [kW, positive], weather, minute of the day."""

    base_kw: Array
    temp_air_c: float
    pv_available: float
    minute_of_day: int


@dataclass(frozen=True, slots=True)
class Outlook:
    """Forecast over the horizon. price_usd_per_kwh : (n_house, H) tariff; temp_air_c, pv_available : (H,).

    hour_of_day : (H,) at the middle of each step; step_h : its length.
    """

    t_s: int
    step_h: float
    price_usd_per_kwh: Array
    temp_air_c: Array
    pv_available: Array
    hour_of_day: Array

    @property
    def begin_min(self) -> Index:
        """Minute of the day at which each step begins, (H,)."""
        return np.round((self.hour_of_day - 0.5 * self.step_h) * 60.0).astype(np.int64) % DAY_MIN

    @property
    def step_min(self) -> int:
        """Length of a step in minutes."""
        return round(self.step_h * 60.0)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a plan wants of the devices of a kind at a minute, (n,) each.

    x : state planned for ahead_h from now ; p_kw : planned injection
    low, high : states at the end of the offer's window from which limits can be kept for the rest of the horizon
    """

    x: Array
    p_kw: Array
    low: Array
    high: Array
    ahead_h: float


@dataclass(frozen=True, slots=True)
class Response:
    """Wished injection of the devices of a kind, and how much more and less they could inject, (n,) [kW] each."""

    p_kw: Array
    up_kw: Array
    down_kw: Array


@dataclass(frozen=True, slots=True)
class Device(ABC):
    """All devices of one kind. at : (n,) rows of the houses that own one, rising; other fields of a kind are (n,) too.

    key : name of the kind, of its column {key}_kw and of its state ; lags : whether it draws reactive power as a load
    """

    key: ClassVar[str]
    lags: ClassVar[bool] = False
    state_columns: ClassVar[tuple[str, ...]] = ()

    at: Index

    @classmethod
    @abstractmethod
    def draw(cls, fleet: Fleet) -> Self:
        """Draw the kind's devices for all houses of a fleet."""

    def take(self, houses: Index) -> Self:
        """Return the devices of some houses, renumbered by their positions there; houses : rising rows."""
        here = np.flatnonzero(np.isin(self.at, houses))
        columns = {field.name: getattr(self, field.name)[here] for field in fields(self)}
        return replace(self, **(columns | {"at": np.searchsorted(houses, columns["at"])}))

    def rest(self, minute_of_day: int) -> Array:
        """Return the state in which a run begins at a minute of the day."""
        return np.zeros(len(self.at))

    def rows(self, x: Array, outlook: Outlook) -> DeviceRows | None:
        """Return constraints and costs over the horizon from the state x, or None for what nobody can plan."""
        return None

    def counted_kw(self, outlook: Outlook) -> Array | None:
        """Return the fixed injection that self-use counts, (n, H), or None."""
        return None

    def guard(self, outlook: Outlook) -> tuple[Array, Array]:
        """Return least and most states from which limits can be kept, (n, H + 1) at the ends of steps; (n, 1): always.

        Without limits that a forecast could endanger there are none.
        """
        none = np.full((len(self.at), 1), np.inf)
        return -none, none

    @abstractmethod
    def offer(self, x: Array, wish: Wish, moment: Moment, window_h: float) -> Response:
        """Follow the plan for a minute, and offer what can be held for window_h and made good ever after."""

    def realise(self, p_kw: Array, response: Response, moment: Moment) -> Array:
        """Return what a minute really brings where the market asked for p_kw of what had been offered."""
        return p_kw

    def step(self, x: Array, p_kw: Array, moment: Moment) -> Array:
        """Return the state after a minute at injection p_kw."""
        return x

    def reactive_room_kvar(self, p_kw: Array) -> Array:
        """Return the reactive room to both sides at injection p_kw; without an inverter none."""
        return np.zeros(len(p_kw))

    def columns(self, x: Array, moment: Moment) -> Mapping[str, Array]:
        """Return the state in words of the devices table: a column (n,) for each of state_columns."""
        return {}


def idle_rows(x: Array, steps: int) -> DeviceRows:
    """Return the rows of devices in the state x that do nothing, cost nothing and know no limits."""
    n = len(x)
    none, grid = np.zeros(n), np.zeros((n, steps))
    return DeviceRows(
        x0=x,
        theta=np.ones(n),
        gain_c=grid,
        gain_g=none,
        drift=grid,
        c_max_kw=grid,
        g_max_kw=grid,
        x_min=np.full((n, steps), -np.inf),
        x_max=np.full((n, steps), np.inf),
        target=grid,
        w_state=grid,
        penalty=np.ones(n),
        w_ramp_usd_per_kw2=none,
        w_spill_usd_per_kw2h=none,
        w_flex_usd_per_kwh=none,
        shares_meter=np.zeros(n, dtype=np.bool_),
    )


def over_steps(values: Array, steps: int) -> Array:
    """Repeat a column for every step: (n, steps)."""
    return np.repeat(values[:, None], steps, axis=1)


def load_response(
    wished_kw: Array, least_kw: Array, most_kw: Array, up_kw: Array, down_kw: Array
) -> Response:
    """Return the response of a consumption within a band, of which at most up_kw may be let go and down_kw added."""
    wished = np.minimum(np.maximum(wished_kw, least_kw), most_kw)
    return Response(
        p_kw=-wished,
        up_kw=np.maximum(np.minimum(wished - least_kw, up_kw), 0.0),
        down_kw=np.maximum(np.minimum(most_kw - wished, down_kw), 0.0),
    )


def minutes_until(minute_of_day: int, due_min: Index) -> Index:
    """Return the minutes from one of the day until the next due one, 1 to 1440."""
    return (due_min - minute_of_day - 1) % DAY_MIN + 1
