"""A day of one consumer market: houses plan and offer, the operator asks, the game is played, devices follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voltier.agents.devices.base import Base
from voltier.agents.devices.device import DAY_MIN, Moment, Outlook
from voltier.agents.devices.kinds import KEYS
from voltier.agents.houses import Offer, at_rest, make_offer, move_devices, step_houses
from voltier.agents.plan import HousePlan, plan_houses
from voltier.agents.randomness import stream
from voltier.agents.wholesale import ConditionSeries
from voltier.market.consumer import Game
from voltier.market.consumer_mechanisms import Markets, play
from voltier.market.secondary import sum_by_market
from voltier.scenarios.inputs import conditions, ev_stays, load_profiles
from voltier.scenarios.schema import Scenario
from voltier.scenarios.studies.consumer_fleet import CMAS, build_houses

Array = NDArray[np.float64]
Index = NDArray[np.int64]

OUTSIDE_USD_PER_KWH = 1.0
"""Worth of flexibility to the operator: the soft cap of energy bids in the market of the California ISO."""
ASKED_UP, ASKED_DOWN = 1.15, 0.15
"""Share of the offer that is asked for in the dearest and in the cheapest hour: beyond the offer in the former."""
NOISE = 0.05
DEVICES = KEYS
"""Names of the rows of every array of devices, in order."""
_SMALLEST_ROOM_KW = 0.05
"""Floor where a price is divided by room: an agent with none is stiff but not infinitely so."""


@dataclass(frozen=True, slots=True)
class Day:
    """What a day brought; T periods, n agents, one market.

    minute : (T,) at which periods begin ; step_h ; price_usd_per_kwh : (T,) pi
    markets : T markets of the n agents as they bid ; game : with common prices
    asked_kw : (T,) change of the total that the operator asks for ; offered_up_kw, offered_down_kw : (T,)
    device_kw, wished_kw : (T, kinds, n) injection of each kind of device of DEVICES, as it was and as it was wished
    unsolved : device plans that did not converge
    """

    minute: Index
    step_h: float
    price_usd_per_kwh: Array
    markets: Markets
    game: Game
    asked_kw: Array
    offered_up_kw: Array
    offered_down_kw: Array
    wished_kw: Array
    device_kw: Array
    unsolved: int


def simulate_day(scenario: Scenario, step_min: int) -> Day:
    """Let a day pass in periods of step_min minutes. Raises InputError for data that cannot be used."""
    series, profiles_kw = conditions(scenario), load_profiles(scenario)
    house, offset = build_houses(scenario.seed, profiles_kw.shape[1], ev_stays(scenario), step_min)
    base_kw = house.kind(Base).day_kw(profiles_kw)
    minutes = np.arange(0, DAY_MIN, step_min)
    price = _means(series.price_usd_per_kwh[1:], minutes, step_min)
    share = _requests(price, scenario.seed)
    state, periods, unsolved = at_rest(house), [], 0
    plan: HousePlan | None = None
    for t, minute in enumerate(minutes):
        if plan is None or minute * 60 % scenario.consumer.period_s == 0:
            plan = plan_houses(house, state, _outlook(scenario, series, int(minute), house.n))
            unsolved += plan.unsolved
        moment = _moment(series, base_kw, int(minute), step_min)
        offer = make_offer(house, state, moment, plan.at(int(minute) * 60, step_min * 60), step_min / 60.0)
        period = _play(offer, offset, float(share[t]), float(price[t]))
        for _ in range(step_min):
            state = step_houses(house, state, moment, period.house_device_kw)
            moment = Moment(moment.base_kw, moment.temp_air_c, moment.pv_available, moment.minute_of_day + 1)
        periods.append(period)
    return _gather(periods, minutes, step_min / 60.0, price, unsolved)


@dataclass(frozen=True, slots=True)
class _Period:
    markets: Markets
    asked_kw: float
    up_kw: float
    down_kw: float
    wished_kw: Array
    device_kw: Array
    house_device_kw: Array


def _play(offer: Offer, offset: Index, share: float, price: float) -> _Period:
    """Bid for the agents, play the game, split each agent's move over its houses and devices by what they offered."""
    up, down, p0 = (_by_agent(offset, x) for x in (offer.up_kw, offer.down_kw, offer.device_kw))
    up_kw, down_kw, p0_kw = (x.sum(axis=0) for x in (up, down, p0))
    asked = share * (up_kw.sum() if share >= 0.0 else down_kw.sum())
    # All agents move to the side that is asked for, so that side's room is what the coefficient prices.
    room = np.maximum(up_kw if share >= 0.0 else down_kw, _SMALLEST_ROOM_KW)
    markets = Markets(
        offset=np.array([0, len(CMAS)]),
        p0_kw=p0_kw,
        p_min_kw=p0_kw - down_kw,
        p_max_kw=p0_kw + up_kw,
        gamma_usd_per_kw2h=np.array([cma.flex_price_usd_per_kwh for cma in CMAS]) / (2.0 * room),
        target_kw=np.array([p0_kw.sum() + asked]),
        price_usd_per_kwh=np.array([price]),
        outside_usd_per_kwh=np.array([OUTSIDE_USD_PER_KWH]),
    )
    x = play("published", markets).p_kw - p0_kw
    offered = np.where(x >= 0.0, up_kw, down_kw)
    used = np.divide(x, offered, out=np.zeros_like(x), where=offered > 0.0)[_agent(offset)]
    moved = used * np.where(used >= 0.0, offer.up_kw, offer.down_kw).sum(axis=0)
    device = move_devices(offer, moved)
    return _Period(markets, float(asked), up_kw.sum(), down_kw.sum(), p0, _by_agent(offset, device), device)


def _gather(periods: list[_Period], minutes: Index, step_h: float, price: Array, unsolved: int) -> Day:
    n, bids = len(CMAS), [period.markets for period in periods]
    markets = Markets(
        offset=n * np.arange(len(periods) + 1),
        **{
            name: np.concatenate([getattr(bid, name) for bid in bids])
            for name in Markets.__slots__
            if name != "offset"
        },
    )
    return Day(
        minute=minutes,
        step_h=step_h,
        price_usd_per_kwh=price,
        markets=markets,
        game=play("published", markets),
        asked_kw=np.array([period.asked_kw for period in periods]),
        offered_up_kw=np.array([period.up_kw for period in periods]),
        offered_down_kw=np.array([period.down_kw for period in periods]),
        wished_kw=np.stack([period.wished_kw for period in periods]),
        device_kw=np.stack([period.device_kw for period in periods]),
        unsolved=unsolved,
    )


def _requests(price: Array, seed: int) -> Array:
    """Return the share of the offer that is asked for, (T,): up when the grid is dear, down when it is cheap."""
    above = price - np.median(price)
    scale = np.where(above >= 0.0, ASKED_UP / max(above.max(), 1e-9), ASKED_DOWN / max(-above.min(), 1e-9))
    noise = stream(seed, "consumer market", "requests").normal(0.0, NOISE, len(price))
    return scale * above + noise


def _moment(series: ConditionSeries, base_kw: Array, minute: int, step_min: int) -> Moment:
    """Return the means of a period; the series begin a minute before the day does."""
    here, there = slice(minute, minute + step_min), slice(minute + 1, minute + 1 + step_min)
    return Moment(
        base_kw=base_kw[here].mean(axis=0),
        temp_air_c=float(series.temp_air_c[there].mean()),
        pv_available=float(series.pv_available[there].mean()),
        minute_of_day=minute,
    )


def _outlook(scenario: Scenario, series: ConditionSeries, minute: int, n: int) -> Outlook:
    """Return what houses know of the horizon: prices and weather as they will be, averaged over steps of the plan."""
    step_s = scenario.consumer.step_s
    begin = minute + np.arange(0, scenario.consumer.horizon_h * 60, step_s // 60)
    price, temp, sun = (
        _means(x[1:], begin, step_s // 60)
        for x in (series.price_usd_per_kwh, series.temp_air_c, series.pv_available)
    )
    return Outlook(
        t_s=minute * 60,
        step_h=step_s / 3600.0,
        price_usd_per_kwh=np.tile(price, (n, 1)),
        temp_air_c=temp,
        pv_available=sun,
        hour_of_day=(begin + 0.5 * step_s / 60.0) / 60.0 % 24.0,
    )


def _means(series: Array, begin: Index, length: int) -> Array:
    return np.array([series[b : b + length].mean() for b in begin])


def _agent(offset: Index) -> Index:
    return np.repeat(np.arange(offset.size - 1), np.diff(offset))


def _by_agent(offset: Index, device_kw: Array) -> Array:
    """Sum the houses of each agent, device by device: (kinds, n_house) to (kinds, n)."""
    return np.stack([sum_by_market(offset, row) for row in device_kw])
