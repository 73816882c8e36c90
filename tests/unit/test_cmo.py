"""The consumer operator: bids contain its wish, moves meet the schedule, meters add up, shards agree."""

import numpy as np
import pytest

from voltier.agents.cmo import ConsumerOperator, ConsumerRules
from voltier.agents.devices.base import Base
from voltier.agents.devices.device import LOAD_TAN_PHI
from voltier.agents.devices.ev import Car
from voltier.agents.devices.fleet import FleetSpec, Stays
from voltier.agents.devices.hvac import HeatPump
from voltier.agents.devices.kinds import KEYS
from voltier.agents.devices.pv import Pv
from voltier.agents.forecast import ForecastError, with_error
from voltier.agents.iot import IotSpec
from voltier.agents.messages import Conditions, Forecast, Injections, SmaBids, SmaMeters, SmaSchedule
from voltier.agents.operator import Mail
from voltier.agents.population import RELIABLE, UNRELIABLE, build_population
from voltier.grid.feeder import read_feeder
from voltier.scenarios.build import build_operator
from voltier.scenarios.schema import load_scenario

FEEDER = read_feeder("ieee123")
WHOLE = build_population(FleetSpec(), FEEDER, 3)
PROFILES = 0.2 + np.random.default_rng(0).random((1440, 100))
SURE = IotSpec(latency_s=0.0, loss=0.0)
BASE, HVAC, WATER, PV, BATTERY = range(5)
SUN_KVA = WHOLE.house.spread(Pv, "rated_kva")
BASE_LOAD = WHOLE.house.kind(Base)


def operator(population=WHOLE, iot=SURE, flexible=True, **rest):
    rules = ConsumerRules(
        flexible, 0.13, **{"window_s": 300, "start_minute": 18 * 60, "record_period_s": 60, **rest}
    )
    return ConsumerOperator(0, population, PROFILES, rules, iot, seed=3)


def weather(t_s):
    conditions = Conditions(t_s=t_s, price_usd_per_kwh=0.05, temp_air_c=12.0, pv_available=0.3)
    return Mail("wholesale", "cmo.0", conditions)


def forecast(t_s):
    steps = np.arange(24)
    body = Forecast(
        t_s=t_s, step_s=3600, price_usd_per_kwh=0.06 + 0.03 * np.sin(steps), temp_air_c=12.0 + steps / 8,
        pv_available=np.clip(np.sin((steps - 12) / 12 * np.pi), 0, 1),
    )  # fmt: skip
    return Mail("wholesale", "cmo.0", body)


def schedule(t_s, population, bids, share):
    """Ask for a share of the box above the wish, of the one below where negative."""
    side = np.where(share >= 0, bids.p_max_kw - bids.p0_kw, bids.p0_kw - bids.p_min_kw)
    n = len(bids.p0_kw)
    body = SmaSchedule(
        t_s=t_s, sma=population.sma_index, p_kw=bids.p0_kw + share * side, q_kvar=bids.q0_kvar,
        dp_kw=np.zeros(n), dq_kvar=np.zeros(n), tariff_usd_per_kwh=np.full(n, 0.1),
        tariff_q_usd_per_kvarh=np.zeros(n),
    )  # fmt: skip
    return Mail("smo.0", "cmo.0", body)


def only(outbox, kind):
    (body,) = [mail.body for mail in outbox.mail if isinstance(mail.body, kind)]
    return body


def warm_up(cmo):
    return only(cmo.decide(-57, [weather(-60), forecast(0)]), SmaBids)


def minutes(cmo, population, shares):
    """Run minutes that ask for the given shares of the box; return bids and outboxes."""
    bids, outboxes = [warm_up(cmo)], []
    for k, share in enumerate(shares):
        outboxes.append(
            cmo.decide(60 * k + 3, [schedule(60 * k, population, bids[-1], share), weather(60 * k)])
        )
        bids.append(only(outboxes[-1], SmaBids))
    return bids, outboxes


def table(outbox, name):
    (rows,) = [rows for rows in outbox.rows if rows.table == name]
    return rows.columns


def test_before_the_first_minute_it_bids_and_nothing_else():
    outbox = operator().decide(-57, [weather(-60), forecast(0)])
    assert [(mail.receiver, type(mail.body)) for mail in outbox.mail] == [("smo.0", SmaBids)]
    assert outbox.rows == []
    assert outbox.mail[0].body.t_s == 0


def test_boxes_contain_the_wish_and_coefficients_are_positive():
    bids, _ = minutes(operator(), WHOLE, [0.5, -0.5, 1.0])
    for bid in bids:
        assert (bid.p_min_kw <= bid.p0_kw).all()
        assert (bid.p0_kw <= bid.p_max_kw).all()
        assert (bid.q_min_kvar <= bid.q0_kvar).all()
        assert (bid.q0_kvar <= bid.q_max_kvar).all()
        assert (bid.beta_p_usd_per_kw2h > 0).all()
        assert (bid.beta_q_usd_per_kvar2h > 0).all()
    assert (bids[0].p_max_kw - bids[0].p_min_kw).sum() > 100.0  # a fleet of this size has something to offer


@pytest.mark.parametrize("share", [0.8, -0.8])
def test_shares_of_the_game_meet_the_schedule(share):
    bids, outboxes = minutes(operator(), WHOLE, [share])
    side = bids[0].p_max_kw - bids[0].p0_kw if share > 0 else bids[0].p0_kw - bids[0].p_min_kw
    played = np.bincount(WHOLE.house_sma, table(outboxes[0], "consumer")["p_kw"])
    np.testing.assert_allclose(played, bids[0].p0_kw + share * side, atol=1e-6)  # the promised tracking error


def test_injections_meters_and_devices_tell_the_same_power():
    _, outboxes = minutes(operator(), WHOLE, [0.4, -0.4])
    for outbox in outboxes:
        sent, meters, devices = only(outbox, Injections), only(outbox, SmaMeters), table(outbox, "devices")
        house = sum(devices[f"{key}_kw"] for key in KEYS)
        np.testing.assert_allclose(meters.p_kw, np.bincount(WHOLE.house_sma, house), atol=1e-10)  # rounding
        at = np.zeros((len(FEEDER.bus), 3))
        np.add.at(at, (WHOLE.house_bus, WHOLE.house_phase), house)
        np.testing.assert_allclose(at[sent.bus, sent.phase], sent.p_kw, atol=1e-10)
        assert np.count_nonzero(at) == len(sent.p_kw)
        assert FEEDER.has_phase[sent.bus, sent.phase].all()
        assert sent.q_kvar.sum() == pytest.approx(meters.q_kvar.sum(), abs=1e-9)


def test_base_load_and_sun_follow_the_minute_not_the_bid():
    cmo = operator()
    bids = warm_up(cmo)
    bright = Conditions(t_s=0, price_usd_per_kwh=0.05, temp_air_c=12.0, pv_available=0.9)
    outbox = cmo.decide(3, [schedule(0, WHOLE, bids, 0.0), Mail("wholesale", "cmo.0", bright)])
    devices = table(outbox, "devices")
    np.testing.assert_allclose(devices["pv_kw"], 0.9 * SUN_KVA, rtol=1e-15)
    minute = (18 * 60 - BASE_LOAD.shift_min) % 1440
    shape = PROFILES[minute, BASE_LOAD.profile] / PROFILES.mean(axis=0)[BASE_LOAD.profile]
    np.testing.assert_allclose(devices["base_kw"], -shape * BASE_LOAD.scale_kw, rtol=1e-12)


def test_inverters_support_only_as_far_as_the_sun_of_the_minute_allows():
    cmo = operator()
    bids = warm_up(cmo)
    asked = schedule(0, WHOLE, bids, 0.0)
    body = {name: getattr(asked.body, name) for name in SmaSchedule.__struct_fields__}
    body["q_kvar"] = bids.q_max_kvar
    dark = Conditions(t_s=0, price_usd_per_kwh=0.05, temp_air_c=12.0, pv_available=0.05)
    meters = only(
        cmo.decide(3, [Mail("smo.0", "cmo.0", SmaSchedule(**body)), Mail("wholesale", "cmo.0", dark)]),
        SmaMeters,
    )
    device = cmo.model.device_kw
    load_kvar = LOAD_TAN_PHI * (device[BASE] + device[HVAC] + device[WATER])
    support = meters.q_kvar - np.bincount(WHOLE.house_sma, load_kvar)
    limit = np.bincount(WHOLE.house_sma, 0.75 * (np.abs(device[PV]) + np.abs(device[BATTERY])))
    assert (support >= -1e-12).all()  # rounding of sums
    assert (support <= limit + 1e-12).all()
    assert support.sum() < 0.5 * (bids.q_max_kvar - bids.q0_kvar).sum()  # 0.3 of the sun was bid, 0.05 came


def test_cars_draw_nothing_from_the_minute_they_leave_to_the_minute_they_return():
    parked_min = np.arange(14 * 60, 14 * 60 + 60)  # they leave from seven to eight
    stays = Stays(np.full(60, 17 * 60), parked_min)
    population = build_population(FleetSpec(evs=300), FEEDER, 3, stays=stays)
    car, to_the_last = population.house.kind(Car), False
    rules = ConsumerRules(True, 0.13, window_s=300, start_minute=7 * 60, record_period_s=60)
    cmo = ConsumerOperator(0, population, PROFILES, rules, SURE, seed=3)
    cmo.model.state["ev"] = 0.3 * car.capacity_kwh  # so empty that they charge until they leave
    bids = warm_up(cmo)
    for minute in range(40):
        t_s, now = 60 * minute, 7 * 60 + minute
        outbox = cmo.decide(t_s + 3, [schedule(t_s, population, bids, -0.5), weather(t_s)])
        bids, ev_kw = only(outbox, SmaBids), table(outbox, "devices")["ev_kw"][car.at]
        assert not ev_kw[car.away_min <= now].any()
        to_the_last |= bool(((car.away_min == now + 1) & (ev_kw < 0)).any())
    assert to_the_last  # so the test had something to see


def test_reliable_agents_deliver_more_of_what_is_asked():
    cmo = operator()
    _, outboxes = minutes(cmo, WHOLE, [0.6] * 30)
    made, asked = np.zeros(len(WHOLE.sma_name)), np.zeros(len(WHOLE.sma_name))
    for outbox in outboxes:
        consumer, devices = table(outbox, "consumer"), table(outbox, "devices")
        # less what base load and sun did against the bid
        fixed = devices["base_kw"] + devices["pv_kw"]
        made += np.bincount(
            WHOLE.house_sma, consumer["p_meter_kw"] - consumer["p0_kw"] - (fixed - _fixed(outbox))
        )
        asked += np.bincount(WHOLE.house_sma, consumer["p_kw"] - consumer["p0_kw"])
    share = made / asked
    good, bad = share[WHOLE.sma_reliability == RELIABLE], share[WHOLE.sma_reliability == UNRELIABLE]
    # means of Beta(20, 1) and Beta(1.5, 3) are 0.95 and 0.33; 30 minutes of three houses average well
    assert good.mean() == pytest.approx(20 / 21, abs=0.03)
    assert bad.mean() == pytest.approx(1 / 3, abs=0.05)


def _fixed(outbox):
    """What the bid took base load and sun to be: those of the minute before (first: of the warm-up)."""
    t_s = only(outbox, SmaMeters).t_s
    base = _base_kw(t_s - 60)
    return -base + 0.3 * SUN_KVA


def _base_kw(t_s):
    minute = (18 * 60 + t_s // 60 - BASE_LOAD.shift_min) % 1440
    shape = PROFILES[minute, BASE_LOAD.profile] / PROFILES.mean(axis=0)[BASE_LOAD.profile]
    return shape * BASE_LOAD.scale_kw


def test_an_agent_that_hears_nothing_stays_at_its_plan():
    deaf = operator(iot=IotSpec(latency_s=0.0, loss=1.0))
    bids = warm_up(deaf)
    wish = deaf.model.offer.device_kw.copy()
    deaf.decide(3, [schedule(0, WHOLE, bids, 1.0), weather(0)])
    moved = np.delete(deaf.model.device_kw - wish, [BASE, PV], axis=0)
    assert not moved.any()


def test_without_flexibility_boxes_are_points_and_nobody_moves():
    rigid = operator(flexible=False)
    bids = warm_up(rigid)
    np.testing.assert_array_equal(bids.p_min_kw, bids.p0_kw)
    np.testing.assert_array_equal(bids.p_max_kw, bids.p0_kw)
    np.testing.assert_array_equal(bids.q_min_kvar, bids.q_max_kvar)
    wish = rigid.model.offer.device_kw.copy()
    rigid.decide(3, [schedule(0, WHOLE, bids, 0.0), weather(0)])
    np.testing.assert_array_equal(rigid.model.device_kw[[HVAC, WATER]], wish[[HVAC, WATER]])


def test_the_wish_is_told_by_phase_of_the_houses():
    bids, outboxes = minutes(operator(), WHOLE, [0.5, -0.5])
    wish = table(outboxes[-1], "consumer")["p0_kw"]  # of the minute just over, which bids[-2] was for
    by_phase = np.zeros((len(WHOLE.smo_name), 3))
    for house, p_kw in enumerate(wish):
        by_phase[WHOLE.sma_smo[WHOLE.house_sma[house]], WHOLE.house_phase[house]] += p_kw
    np.testing.assert_allclose(bids[-2].p0_phase_kw, by_phase, atol=1e-12)  # the same sums in another order
    for bid in bids:
        for part, whole in ((bid.p0_phase_kw, bid.p0_kw), (bid.q0_phase_kvar, bid.q0_kvar)):
            of_smo = np.bincount(WHOLE.sma_smo, whole)
            np.testing.assert_allclose(part.sum(axis=1), of_smo, atol=1e-10)


def test_any_number_of_shards_sends_the_same_to_the_last_bit():
    shares, iot = [0.7, -0.7, 0.3], IotSpec(0.05, 0.2, (4,))
    n = 4
    whole_bids, whole = minutes(operator(iot=iot), WHOLE, shares)
    parts = [minutes(operator(part, iot), part, shares) for part in (WHOLE.shard(k, n) for k in range(n))]
    for name in (
        "p0_kw",
        "p_min_kw",
        "p_max_kw",
        "q0_kvar",
        "q_max_kvar",
        "beta_p_usd_per_kw2h",
        "beta_q_usd_per_kvar2h",
        "p0_phase_kw",
        "q0_phase_kvar",
    ):
        joined = np.concatenate([getattr(bids[-1], name) for bids, _ in parts])
        np.testing.assert_array_equal(joined, getattr(whole_bids[-1], name))
    for name in ("consumer", "devices"):
        for column, values in table(whole[-1], name).items():
            np.testing.assert_array_equal(
                np.concatenate([table(out[-1], name)[column] for _, out in parts]), values
            )
    for name in ("p_kw", "q_kvar", "anomaly"):
        joined = np.concatenate([getattr(only(out[-1], SmaMeters), name) for _, out in parts])
        np.testing.assert_array_equal(joined, getattr(only(whole[-1], SmaMeters), name))


def test_only_readings_that_arrive_are_sent():
    _, outboxes = minutes(operator(iot=IotSpec(latency_s=0.0, loss=0.3)), WHOLE, [0.0] * 20)
    sent = [only(outbox, SmaMeters) for outbox in outboxes]
    heard = np.array([np.isin(WHOLE.sma_index, meters.sma) for meters in sent])
    # 20 minutes of 300 agents and more: four standard deviations are 0.024
    assert heard.mean() == pytest.approx(0.7, abs=0.024)
    for meters, outbox, here in zip(sent, outboxes, heard, strict=True):
        house = table(outbox, "consumer")["p_meter_kw"]
        np.testing.assert_allclose(meters.p_kw, np.bincount(WHOLE.house_sma, house)[here], atol=1e-12)
    assert len(only(minutes(operator(iot=IotSpec(0.0, 1.0)), WHOLE, [0.0])[1][0], SmaMeters).sma) == 0


# ---------------------------------------------------------------------- the game and its certificate


def test_without_the_game_houses_share_in_proportion_to_their_offers_at_their_agents_tariff():
    bids, outboxes = minutes(operator(game=False), WHOLE, [0.4, -0.7])
    assert (bids[0].p_max_kw > bids[0].p0_kw).any()  # flexible all the same
    for share, outbox in zip([0.4, -0.7], outboxes, strict=True):
        rows = table(outbox, "consumer")
        room = rows["p_max_kw"] - rows["p0_kw"] if share > 0 else rows["p0_kw"] - rows["p_min_kw"]
        np.testing.assert_allclose(
            rows["p_kw"] - rows["p0_kw"], share * room, atol=1e-9
        )  # rounding, divided by room
        np.testing.assert_array_equal(rows["mu"], 0.1)
        assert not rows["mu_tilde"].any()
    game = table(minutes(operator(), WHOLE, [0.4])[1][0], "consumer")
    assert not np.allclose(game["p_kw"], table(outboxes[0], "consumer")["p_kw"])


def test_with_prices_of_their_own_houses_move_as_before_and_are_paid_the_tariff_for_what_they_play():
    shares = [0.4, -0.7]
    own, common = (minutes(operator(prices=prices), WHOLE, shares)[1] for prices in ("individual", "common"))
    for mine, theirs in zip(own, common, strict=True):
        np.testing.assert_allclose(
            table(mine, "consumer")["p_kw"], table(theirs, "consumer")["p_kw"], atol=1e-9
        )
        paid, p_kw = table(mine, "consumer")["paid_usd"], table(mine, "consumer")["p_meter_kw"]
        # every house's budget closes by itself, at the tariff of 0.1 $/kWh
        np.testing.assert_allclose(paid, -0.1 * p_kw / 60, atol=1e-12)
        pairs = [len(np.unique(table(each, "consumer")["mu"])) for each in (mine, theirs)]
        assert pairs[1] <= len(WHOLE.sma_name) < pairs[0]
        assert table(mine, "consumer_clearings")["budget_error_usd_per_h"].max() < 1e-6


def test_each_market_records_the_worst_of_its_games_over_the_period():
    _, outboxes = minutes(operator(record_period_s=120), WHOLE, [0.3, 0.9, 0.2, 0.5])
    rows = [row for outbox in outboxes for row in outbox.rows if row.table == "consumer_clearings"]
    assert [row.t_s for row in rows] == [0, 120]
    for row in rows:
        np.testing.assert_array_equal(row.columns["position"], WHOLE.sma_index)
        assert row.columns["tracking_error_kw"].max() < 1e-6
        assert row.columns["budget_error_usd_per_h"].max() < 1e-6
        assert not row.columns["infeasible_share"].any()
        assert (row.columns["solve_s"] > 0).all()


def infeasible_told(outbox):
    events = [row.columns for row in outbox.rows if row.table == "events"]
    return [columns["text"][0] for columns in events if columns["kind"] == ["game-infeasible"]]


def test_a_target_out_of_reach_is_told_when_it_begins_and_recorded():
    _, outboxes = minutes(operator(), WHOLE, [0.5, 1.2, 1.3, 0.5, 1.2])
    told = [infeasible_told(outbox) for outbox in outboxes]
    assert [bool(texts) for texts in told] == [False, True, False, False, True]
    assert "its houses cannot reach the target; they miss it by +" in told[1][0]
    out = [table(outbox, "consumer_clearings") for outbox in outboxes]
    assert [columns["infeasible_share"].any() for columns in out] == [False, True, True, False, True]
    assert out[1]["tracking_error_kw"].max() > 1e-3


def test_without_a_market_there_is_no_game_to_certify():
    _, outboxes = minutes(operator(flexible=False), WHOLE, [0.0])
    assert {row.table for row in outboxes[0].rows} == {"consumer", "devices"}


def test_outside_a_market_houses_hold_their_temperature_or_save_at_the_flat_tariff():
    warm, thrifty = operator(flexible=False), operator(flexible=False, outside_price_usd_per_kwh=0.129)
    for cmo in (warm, thrifty):
        bids = warm_up(cmo)
        np.testing.assert_array_equal(bids.p_min_kw, bids.p_max_kw)  # no offers either way
    set_c = WHOLE.house.kind(HeatPump).set_c[:, None]
    # 12 degC outside: heating costs, so the bill falls with the temperature; at no price hardly anybody moves
    # (but houses whose heat pump is too small for the afternoon)
    assert (np.abs(warm.model.plan.kinds["hvac"].x - set_c) < 0.05).mean() > 0.95
    assert (thrifty.model.plan.kinds["hvac"].x < set_c - 0.05).mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], (True, True, 0.0)),
        (["consumer.market=false"], (True, False, 0.0)),  # flexible, without the game
        (["design=primary_only"], (False, True, 0.0)),
        (["design=no_market", "consumer.outside_market=retail_tariff"], (False, True, 0.129)),
    ],
)
def test_a_scenario_says_how_consumers_take_part(settings, expected):
    rules = build_operator(load_scenario("ieee123-hour", settings), "cmo.0")._rules
    assert (rules.flexible, rules.game, rules.outside_price_usd_per_kwh) == expected


def test_a_scenario_says_what_the_game_prices_and_how_wrong_forecasts_are():
    plain = build_operator(load_scenario("ieee123-hour"), "cmo.0")._rules
    assert (plain.prices, plain.forecast_error.any) == ("common", False)
    settings = ["consumer.prices=individual", "consumer.forecast_error.temp_air_c=1.5"]
    rules = build_operator(load_scenario("ieee123-hour", settings), "cmo.0")._rules
    assert (rules.prices, rules.forecast_error) == ("individual", ForecastError(temp_air_c=1.5))


def test_mesa_agents_are_views_on_the_arrays():
    cmo = operator()
    minutes(cmo, WHOLE, [0.5])
    model = cmo.model
    assert len(model.agents) == len(WHOLE.house_name) + len(WHOLE.sma_name)
    total = np.bincount(WHOLE.house_sma, model.device_kw.sum(axis=0))
    for row in (0, 100, len(WHOLE.sma_name) - 1):
        assert model.markets[row].p_kw == pytest.approx(total[row], rel=1e-12, abs=1e-12)
        assert model.markets[row].name == WHOLE.sma_name[row]
    model.state["hvac"][5] = 17.25
    assert model.houses[5].temp_c == 17.25


# ---------------------------------------------------------------------- bills and forecasts


def test_what_houses_pay_is_what_their_agents_pay_for_what_the_meters_saw():
    _, outboxes = minutes(operator(record_period_s=120), WHOLE, [0.3, 0.9, -0.4, 0.5])
    energy_usd, tariff = np.zeros(len(WHOLE.sma_name)), 0.1
    for k, outbox in enumerate(outboxes):
        energy_usd -= tariff * only(outbox, SmaMeters).p_kw / 60
        if k % 2 == 0:  # recorded in the first of two minutes, for both since the last record
            rows = table(outbox, "consumer")
            np.testing.assert_array_equal(rows["tariff"], tariff)
            paid = np.bincount(WHOLE.house_sma, rows["paid_usd"])
            np.testing.assert_allclose(paid, energy_usd, atol=1e-9)  # $; budgets of games close to 1e-12 $/h
            given = np.bincount(WHOLE.house_sma, rows["given_usd"])
            np.testing.assert_allclose(given, 0.0, atol=1e-9, err_msg="a market gives what it takes")
            assert np.ptp(rows["given_usd"]) > 0
            energy_usd[:] = 0.0
            assert np.ptp(rows["paid_usd"]) > 0


def test_forecast_errors_grow_with_the_time_ahead_and_are_the_same_for_everybody():
    body = forecast(0).body
    error = ForecastError(temp_air_c=1.5, pv_share=0.2, price_share=0.1)
    wrong = [with_error(Forecast(**_fields(body, t_s)), error, 3) for t_s in range(0, 400 * 3600, 3600)]
    off = np.array([each.temp_air_c - body.temp_air_c for each in wrong])
    # 400 draws: four standard deviations of a standard deviation are 14 %
    np.testing.assert_allclose(off.std(axis=0)[[5, 23]], [0.75, 1.5], rtol=0.14)
    relative = np.array([each.price_usd_per_kwh / body.price_usd_per_kwh - 1.0 for each in wrong])
    assert relative[:, 23].std() == pytest.approx(0.1, rel=0.14)
    assert all((each.pv_available >= 0).all() and (each.pv_available <= 1).all() for each in wrong)
    again = with_error(body, error, 3)
    np.testing.assert_array_equal(again.temp_air_c, wrong[0].temp_air_c)
    assert with_error(body, ForecastError(), 3) is body


def _fields(body, t_s):
    names = ("step_s", "price_usd_per_kwh", "temp_air_c", "pv_available")
    return {name: getattr(body, name) for name in names} | {"t_s": t_s}


def test_houses_plan_by_the_wrong_forecast():
    right, wrong = operator(), operator(forecast_error=ForecastError(temp_air_c=3.0))
    for cmo in (right, wrong):
        warm_up(cmo)
    used = [cmo.model.plan.kinds["hvac"].p_kw for cmo in (right, wrong)]
    assert np.abs(used[0] - used[1]).max() > 0.1
    np.testing.assert_allclose(used[0][:, 0], used[1][:, 0], atol=0.5)  # the next hour is nearly known
