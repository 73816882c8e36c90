"""The Mesa model of a shard's consumers: market agents and houses as views on arrays that step as one batch.

Agents are for looking, selecting and grouping (`model.agents_by_type`, `AgentSet`); a step touches no agent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import mesa
import numpy as np
from numpy.typing import NDArray

from voltier.agents.devices.device import Moment, Outlook
from voltier.agents.hardware import Meters
from voltier.agents.houses import Offer, at_rest, make_offer, move_devices, realise, step_houses
from voltier.agents.plan import HousePlan, plan_houses
from voltier.agents.population import Population
from voltier.market.consumer import Game, Prices, play_game, share_target
from voltier.market.secondary import sum_by_market

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_SMALLEST_FLEX_KW = 0.05
"""Floor on flexibility where a price is divided by it, so that the inflexible are stiff but not infinitely so."""


class House(mesa.Agent):
    """One house (CMA): a view on its row."""

    def __init__(self, model: ConsumerModel, row: int) -> None:
        super().__init__(model)
        self.row = row

    @property
    def name(self) -> str:
        """Name of the house."""
        return self.model.population.house_name[self.row]

    @property
    def temp_c(self) -> float:
        """Indoor temperature."""
        return float(self.model.state["hvac"][self.row])

    @property
    def p_kw(self) -> float:
        """Injection in the minute just over."""
        return float(self.model.device_kw[:, self.row].sum())


class ConsumerMarket(mesa.Agent):
    """One consumer market operator (CMO), which is an agent (SMA) of its secondary market: a view on its houses."""

    def __init__(self, model: ConsumerModel, row: int) -> None:
        super().__init__(model)
        self.row = row
        first, last = model.offset[row], model.offset[row + 1]
        self.houses = model.houses[first:last]

    @property
    def name(self) -> str:
        """Name of the agent on the secondary market."""
        return self.model.population.sma_name[self.row]

    @property
    def p_kw(self) -> float:
        """Injection of all its houses in the minute just over."""
        return sum(house.p_kw for house in self.houses)


@dataclass(frozen=True, slots=True)
class Bid:
    """What the agents bid, (n_sma,) each."""

    p0_kw: Array
    p_min_kw: Array
    p_max_kw: Array
    q0_kvar: Array
    q_room_kvar: Array
    beta_p_usd_per_kw2h: Array
    beta_q_usd_per_kvar2h: Array


class ConsumerModel(mesa.Model):
    """All consumer markets of a shard.

    flexible : whether houses offer flexibility at all. window_s : how long an offer must hold.
    start_minute : minute of the day at which the run begins.
    game : whether houses share schedules by the game's prices, or in proportion to their offers ; prices : of the game,
    one pair for all houses of a market or a pair for each. meters : of devices outside, which are not simulated
    """

    def __init__(
        self,
        population: Population,
        *,
        flexible: bool,
        window_s: int,
        start_minute: int = 0,
        game: bool = True,
        prices: Prices = "common",
        meters: Meters | None = None,
    ) -> None:
        super().__init__()
        self._share = partial(play_game, prices=prices) if game else share_target
        self.population, self._flexible, self._window_s = population, flexible, window_s
        self._meters = meters
        self.offset = population.sma_offset
        self.state = at_rest(population.house, start_minute)
        self.device_kw = np.zeros((len(population.house.devices), len(population.house_name)))
        self.plan: HousePlan | None = None
        self.offer: Offer | None = None
        self._gamma = np.zeros(len(population.house_name))
        self.houses = [House(self, row) for row in range(len(population.house_name))]
        self.markets = [ConsumerMarket(self, row) for row in range(len(population.sma_name))]

    def make_plan(self, outlook: Outlook) -> HousePlan:
        """Plan the horizon anew for all houses."""
        self.plan = plan_houses(self.population.house, self.state, outlook)
        return self.plan

    def make_bid(self, now_s: int, moment: Moment, price_usd_per_kwh: Array | float = 0.0) -> Bid:
        """Offer for the minute at now_s, from the present state and plan.

        price_usd_per_kwh : (n_sma,) tariff that the agents expect. Its sign says to which side the market will move
        them, and so which side's flexibility the one coefficient of a bid must price: what injects more, or, where
        consumption is paid, what injects less.
        """
        assert self.plan is not None
        wishes = self.plan.at(now_s, self._window_s)
        offer = make_offer(self.population.house, self.state, moment, wishes, self._window_s / 3600.0)
        if not self._flexible:
            offer = _nothing_offered(offer)
        self.offer = offer
        p0, up, down = offer.p0_kw, offer.up_kw.sum(axis=0), offer.down_kw.sum(axis=0)
        room = self._by_market(offer.q_room_kvar)
        price = self.population.house.flex_price_usd_per_kwh
        paid_to_consume = (
            np.broadcast_to(price_usd_per_kwh, len(self.markets))[self.population.house_sma] < 0.0
        )
        flex = np.maximum(np.where(paid_to_consume, down, up), _SMALLEST_FLEX_KW)
        self._gamma = price / (2.0 * flex)
        # Houses in parallel: the agent's coefficient is that of the cheapest split of a departure over them.
        beta = 1.0 / self._by_market(1.0 / self._gamma)
        beta_q = 0.1 * self._mean_by_market(price) / (2.0 * np.maximum(room, _SMALLEST_FLEX_KW))
        p0_sma = self._by_market(p0)
        return Bid(
            p0_kw=p0_sma,
            p_min_kw=p0_sma - self._by_market(down),
            p_max_kw=p0_sma + self._by_market(up),
            q0_kvar=self._by_market(offer.q0_kvar),
            q_room_kvar=room,
            beta_p_usd_per_kw2h=beta,
            beta_q_usd_per_kvar2h=beta_q,
        )

    def play(self, target_kw: Array, price_usd_per_kwh: Array) -> Game:
        """Let every market reach its scheduled injection at the energy price of its tariff, (n_sma,) each."""
        offer = self.offer
        assert offer is not None
        p0 = offer.p0_kw
        return self._share(
            self.offset,
            p0,
            p0 - offer.down_kw.sum(axis=0),
            p0 + offer.up_kw.sum(axis=0),
            self._gamma,
            target_kw,
            price_usd_per_kwh,
        )

    def step(self, moment: Moment, moved_kw: Array) -> None:
        """Let a minute pass in which every house departs from its offer's wish by moved_kw, (n_house,)."""
        assert self.offer is not None
        house, offer = self.population.house, self.offer
        self.device_kw = realise(house, offer, move_devices(offer, moved_kw), moment)
        if self._meters is not None:
            self._meters.put_power(self.device_kw)
        self.state = step_houses(house, self.state, moment, self.device_kw)
        if self._meters is not None:
            self._meters.put_state(self.state)

    def _by_market(self, values: Array) -> Array:
        return sum_by_market(self.offset, values)

    def _mean_by_market(self, values: Array) -> Array:
        return self._by_market(values) / np.diff(self.offset)


def _nothing_offered(offer: Offer) -> Offer:
    """Return the wishes of an offer alone."""
    none = np.zeros_like(offer.up_kw)
    return replace(
        offer,
        up_kw=none,
        down_kw=none,
        q_room_kvar=np.zeros_like(offer.q_room_kvar),
    )
