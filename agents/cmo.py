"""Consumer operators: the houses of a shard plan, bid, play their game, act, and are metered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from voltier.agents.certificates import GameBook, event
from voltier.agents.clock import MINUTE_S
from voltier.agents.consumer_model import ConsumerModel
from voltier.agents.devices.base import Base
from voltier.agents.devices.device import Moment, Outlook
from voltier.agents.forecast import NO_ERROR, ForecastError, with_error
from voltier.agents.hardware import Meters, Outside
from voltier.agents.houses import device_columns, move_devices, reactive_kvar
from voltier.agents.iot import IotNetwork, IotSpec
from voltier.agents.messages import (
    Conditions,
    DeviceReadings,
    DeviceSetpoints,
    Forecast,
    Injections,
    SmaBids,
    SmaMeters,
    SmaSchedule,
)
from voltier.agents.operator import Mail, Outbox, Rows
from voltier.agents.population import Population
from voltier.agents.randomness import stream
from voltier.market.consumer import Game, Prices
from voltier.market.secondary import sum_by_market

Array = NDArray[np.float64]

_BETA = ((20.0, 1.0), (5.0, 1.5), (1.5, 3.0))
"""Share of a requested move that a house really makes: Beta(a, b) for reliable, average, unreliable agents."""
_HOUR_MIN = 60
_ADDER_RATE = 1.0 / 60.0
"""Weight of the newest minute in what houses take as the usual difference between tariff and wholesale price."""


@dataclass(frozen=True, slots=True)
class ConsumerRules:
    """How consumers take part.

    flexible : whether they plan by the market's prices and bid flexibility (hierarchical design); without, they plan
    at outside_price_usd_per_kwh, and at zero thermostats hold the wanted temperature and batteries only keep their
    house's own PV. game : whether schedules are shared by the consumer market's game.
    first_guess_usd_per_kwh : tariff expected before any is known. start_minute : minute of the day at simulated
    second 0. record_period_s : between records of houses and devices. forecast_error : of what they plan by.
    prices : of the game, one pair for all houses of a market or a pair for each.
    """

    flexible: bool
    first_guess_usd_per_kwh: float
    window_s: int
    start_minute: int
    record_period_s: int
    game: bool = True
    prices: Prices = "common"
    outside_price_usd_per_kwh: float = 0.0
    forecast_error: ForecastError = NO_ERROR


class ConsumerOperator:
    """All consumer markets of one shard; name "cmo.K", serving the agents of "smo.K".

    profiles_kw : (1440, n) base loads of a day, scaled here so that each has mean one. outside : devices that are real.
    """

    def __init__(
        self,
        shard: int,
        population: Population,
        profiles_kw: Array,
        rules: ConsumerRules,
        iot: IotSpec,
        seed: int,
        outside: Outside | None = None,
    ) -> None:
        self.name, self._smo = f"cmo.{shard}", f"smo.{shard}"
        self._meters = None if outside is None else Meters(outside)
        self.model = ConsumerModel(
            population,
            flexible=rules.flexible,
            window_s=rules.window_s,
            start_minute=rules.start_minute,
            game=rules.game,
            prices=rules.prices,
            meters=self._meters,
        )
        self._book = GameBook(population.sma_name, population.sma_index)
        self._population, self._rules = population, rules
        self._base_kw = population.house.kind(Base).day_kw(profiles_kw)
        self._paid_usd, self._given_usd = np.zeros((2, len(population.house_name)))
        self._seed = seed
        self._iot = IotNetwork(iot, seed, population.smo_index, population.smo_offset)
        self._streams = [stream(seed, "response", int(h)) for h in population.house_index]
        self._response = np.zeros((_HOUR_MIN, len(population.house_index)))
        self._adder = np.full(len(population.sma_name), np.nan)
        self._conditions: Conditions | None = None
        self._terminals = _terminals(population)

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Act out the minute's schedule, then plan if a forecast came, then bid for the next minute."""
        outbox = Outbox()
        t_s = now_s // MINUTE_S * MINUTE_S
        forecast: Forecast | None = None
        schedule: SmaSchedule | None = None
        for mail in inbox:
            if isinstance(mail.body, Conditions):
                self._conditions = mail.body
            elif isinstance(mail.body, Forecast):
                forecast = mail.body
            elif isinstance(mail.body, SmaSchedule):
                schedule = mail.body
            elif isinstance(mail.body, DeviceReadings) and self._meters is not None:
                self._meters.take(mail.body)
        if schedule is not None:
            self._act(t_s, schedule, outbox)
        if forecast is not None:
            self._plan(t_s, forecast, outbox)
        self._bid(t_s + MINUTE_S, t_s, outbox)
        return outbox

    # ------------------------------------------------------------------ acting

    def _act(self, t_s: int, schedule: SmaSchedule, outbox: Outbox) -> None:
        """Play the games, let houses respond as well as they do, step the devices, report meters."""
        model, population = self.model, self._population
        offer = model.offer
        assert offer is not None
        assert self._conditions is not None
        game = self._play(t_s, schedule, outbox)
        traffic = self._iot.minute()
        heard = traffic.delivered[population.house_sma]
        response = np.where(heard, self._responses(t_s), 0.0)
        asked_kw = game.p_kw - offer.p0_kw
        if self._meters is not None:
            outbox.mail.append(self._setpoints(t_s, self._meters.outside, move_devices(offer, asked_kw)))
        model.step(self._moment(t_s), response * asked_kw)
        p_kw = model.device_kw.sum(axis=0)
        # Energy at the tariff for what the meter saw, less what the market pays for its outcome beyond the tariff.
        tariff = schedule.tariff_usd_per_kwh[population.house_sma]
        given_usd = (game.paid_usd_per_h - tariff * game.p_kw) * (MINUTE_S / 3600.0)
        self._given_usd += given_usd
        self._paid_usd -= tariff * p_kw * (MINUTE_S / 3600.0) + given_usd
        q_kvar = self._reactive(schedule, response)
        self._learn_adder(schedule)
        outbox.mail.append(Mail(self.name, "grid", self._injections(t_s, p_kw, q_kvar)))
        meters = SmaMeters(
            t_s=t_s,
            sma=population.sma_index[traffic.metered],
            p_kw=self._by_sma(p_kw)[traffic.metered],
            q_kvar=self._by_sma(q_kvar)[traffic.metered],
            anomaly=traffic.anomaly[traffic.metered],
        )
        outbox.mail.append(Mail(self.name, self._smo, meters))
        if t_s % self._rules.record_period_s == 0:
            self._record(t_s, schedule, game, p_kw, outbox)

    def _setpoints(self, t_s: int, outside: Outside, device_kw: Array) -> Mail:
        """Ask the devices outside for the whole of what the market wants: they answer for themselves."""
        assert self.model.plan is not None
        wishes = self.model.plan.at(t_s, self._rules.window_s)
        wanted = [wishes[kind].x[place] for kind, place in zip(outside.kind, outside.place, strict=True)]
        body = DeviceSetpoints(
            t_s=t_s,
            device=outside.device,
            p_kw=device_kw[outside.kind_row, outside.house],
            wanted=np.array(wanted, dtype=np.float64),
        )
        return Mail(self.name, "device", body)

    def _play(self, t_s: int, schedule: SmaSchedule, outbox: Outbox) -> Game:
        """Share the schedules among the houses and keep the books of it, where there is a market."""
        began = perf_counter()
        game = self.model.play(schedule.p_kw, schedule.tariff_usd_per_kwh)
        if self._rules.flexible:
            outbox.rows += self._book.add(t_s, self._by_operator(game), perf_counter() - began)
            period_s = self._rules.record_period_s
            if (t_s + MINUTE_S) % period_s == 0:
                outbox.rows.append(self._book.close(t_s + MINUTE_S - period_s))
        return game

    def _responses(self, t_s: int) -> Array:
        """Return the share of its move that each house makes in this minute, drawn an hour at a time."""
        minute = t_s // MINUTE_S % _HOUR_MIN
        if minute == 0:
            kind = self._population.sma_reliability[self._population.house_sma]
            for h, rng in enumerate(self._streams):
                self._response[:, h] = rng.beta(*_BETA[kind[h]], _HOUR_MIN)
        return self._response[minute]

    def _reactive(self, schedule: SmaSchedule, response: Array) -> Array:
        """Follow the load's power factor, plus each house's share of its agent's reactive request."""
        offer, population = self.model.offer, self._population
        assert offer is not None
        room = self._by_sma(offer.q_room_kvar)
        asked = schedule.q_kvar - self._by_sma(offer.q0_kvar)
        used = np.divide(asked, room, out=np.zeros_like(asked), where=room > 0.0)
        support = response * used[population.house_sma] * offer.q_room_kvar
        # The inverters stay within their limits at the power they really have.
        load_kvar, room_now = reactive_kvar(population.house, self.model.device_kw)
        return load_kvar + np.clip(support, -room_now, room_now)

    def _injections(self, t_s: int, p_kw: Array, q_kvar: Array) -> Injections:
        bus, phase, terminal = self._terminals
        n = len(bus)
        return Injections(
            t_s=t_s,
            bus=bus,
            phase=phase,
            p_kw=np.asarray(np.bincount(terminal, p_kw, minlength=n), dtype=np.float64),
            q_kvar=np.asarray(np.bincount(terminal, q_kvar, minlength=n), dtype=np.float64),
        )

    # ------------------------------------------------------------------ planning and bidding

    def _learn_adder(self, schedule: SmaSchedule) -> None:
        assert self._conditions is not None
        seen = schedule.tariff_usd_per_kwh - self._conditions.price_usd_per_kwh
        known = np.where(np.isnan(self._adder), seen, self._adder)
        self._adder = known + _ADDER_RATE * (seen - known)

    def _plan(self, t_s: int, forecast: Forecast, outbox: Outbox) -> None:
        forecast = with_error(forecast, self._rules.forecast_error, self._seed)
        n, steps = len(self._population.house_name), len(forecast.price_usd_per_kwh)
        if self._rules.flexible:
            first = self._rules.first_guess_usd_per_kwh - forecast.price_usd_per_kwh.mean()
            adder = np.where(np.isnan(self._adder), first, self._adder)[self._population.house_sma]
            price = forecast.price_usd_per_kwh[None, :] + adder[:, None]
        else:
            price = np.full((n, steps), self._rules.outside_price_usd_per_kwh)
        middle_s = forecast.t_s + (np.arange(steps) + 0.5) * forecast.step_s
        outlook = Outlook(
            t_s=forecast.t_s,
            step_h=forecast.step_s / 3600.0,
            price_usd_per_kwh=price,
            temp_air_c=forecast.temp_air_c,
            pv_available=forecast.pv_available,
            hour_of_day=np.asarray(
                (self._rules.start_minute / 60.0 + middle_s / 3600.0) % 24.0, dtype=np.float64
            ),
        )
        plan = self.model.make_plan(outlook)
        if plan.unsolved:
            text = f"{plan.unsolved} house plans did not converge; their last iterates are used"
            outbox.rows.append(event("cmo", t_s, "plan-unsolved", text))

    def _bid(self, for_s: int, now_s: int, outbox: Outbox) -> None:
        """Bid for the minute at for_s on what is known now: base load and sun are expected to stay."""
        moment = replace(self._moment(now_s), minute_of_day=self._minute_of_day(for_s))
        assert self._conditions is not None
        # An agent that has seen no tariff yet knows the wholesale price.
        tariff = self._conditions.price_usd_per_kwh + np.nan_to_num(self._adder)
        bid = self.model.make_bid(for_s, moment, tariff)
        offer = self.model.offer
        assert offer is not None
        bids = SmaBids(
            t_s=for_s,
            sma=self._population.sma_index,
            p0_kw=bid.p0_kw,
            p_min_kw=bid.p_min_kw,
            p_max_kw=bid.p_max_kw,
            q0_kvar=bid.q0_kvar,
            q_min_kvar=bid.q0_kvar - bid.q_room_kvar,
            q_max_kvar=bid.q0_kvar + bid.q_room_kvar,
            beta_p_usd_per_kw2h=bid.beta_p_usd_per_kw2h,
            beta_q_usd_per_kvar2h=bid.beta_q_usd_per_kvar2h,
            p0_phase_kw=self._by_phase(offer.p0_kw),
            q0_phase_kvar=self._by_phase(offer.q0_kvar),
        )
        outbox.mail.append(Mail(self.name, self._smo, bids))

    def _moment(self, t_s: int) -> Moment:
        conditions = self._conditions
        assert conditions is not None
        minute = self._minute_of_day(t_s)
        return Moment(self._base_kw[minute], conditions.temp_air_c, conditions.pv_available, minute)

    def _minute_of_day(self, t_s: int) -> int:
        return (self._rules.start_minute + t_s // MINUTE_S) % 1440

    # ------------------------------------------------------------------ recording

    def _record(self, t_s: int, schedule: SmaSchedule, game: Game, p_kw: Array, outbox: Outbox) -> None:
        """Write down the minute, and what houses paid since the last record."""
        model, population = self.model, self._population
        offer, position = model.offer, population.house_index.astype(np.float64)
        assert offer is not None
        p0 = offer.p0_kw
        consumer = {
            "position": position,
            "p0_kw": p0,
            "p_min_kw": p0 - offer.down_kw.sum(axis=0),
            "p_max_kw": p0 + offer.up_kw.sum(axis=0),
            "p_kw": game.p_kw,
            "p_meter_kw": p_kw,
            "mu": self._by_house(game.mu_usd_per_kwh),
            "mu_tilde": self._by_house(game.mu_tilde_usd_per_kwh),
            "tariff": self._by_house(schedule.tariff_usd_per_kwh),
            "paid_usd": self._paid_usd,
            "given_usd": self._given_usd,
        }
        self._paid_usd, self._given_usd = np.zeros((2, len(self._paid_usd)))
        devices = {"position": position}
        devices |= device_columns(population.house, model.state, model.device_kw, self._moment(t_s))
        outbox.rows += [Rows("consumer", t_s, consumer), Rows("devices", t_s, devices)]

    def _by_operator(self, game: Game) -> Game:
        """Return a game with one side payment for each market, where every house has its own."""
        if len(game.degenerate) == len(self._population.sma_name):
            return game
        return replace(
            game,
            side_payment_usd_per_h=self._by_sma(game.side_payment_usd_per_h),
            degenerate=self._by_sma(game.degenerate.astype(np.float64)) > 0.0,
        )

    def _by_house(self, values: Array) -> Array:
        """Give every house its market's value, where it has none of its own."""
        return (
            values if len(values) == len(self._population.house_name) else values[self._population.house_sma]
        )

    def _by_sma(self, values: Array) -> Array:
        return sum_by_market(self.model.offset, values)

    def _by_phase(self, values: Array) -> Array:
        """Sum the houses' values by SMO and phase, (n_smo, 3)."""
        population = self._population
        key = 3 * population.sma_smo[population.house_sma] + population.house_phase
        total = np.bincount(key, values, minlength=3 * len(population.smo_name))
        return np.asarray(total.reshape(-1, 3), dtype=np.float64)


def _terminals(population: Population) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the (bus, phase) terminals that houses are on, and each house's terminal."""
    key = population.house_bus * 3 + population.house_phase
    at, terminal = np.unique(key, return_inverse=True)
    return at // 3, at % 3, terminal
