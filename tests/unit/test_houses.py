"""Houses: what they offer they can deliver, moves add up, energy is conserved, plans are read and kept."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voltier.agents.consumer_model import ConsumerModel
from voltier.agents.devices import battery, ev, thermal, water_heater
from voltier.agents.devices.battery import Battery
from voltier.agents.devices.deferrable import Deferrable
from voltier.agents.devices.device import MINUTE_H, Moment, Outlook, Wish
from voltier.agents.devices.ev import Car
from voltier.agents.devices.fleet import FleetSpec
from voltier.agents.devices.hvac import HeatPump
from voltier.agents.devices.kinds import KEYS
from voltier.agents.devices.pv import Pv
from voltier.agents.devices.water_heater import WaterHeater
from voltier.agents.houses import at_rest, device_columns, make_offer, move_devices, step_houses
from voltier.agents.plan import HousePlan, KindPlan, household_problem, plan_houses
from voltier.agents.population import build_population
from voltier.grid.feeder import read_feeder

PART = build_population(FleetSpec(evs=500, deferrables=300), read_feeder("ieee123"), 5).shard(2, 8)
HOUSE = PART.house
N = HOUSE.n
ROOM, TANK, STORE = HOUSE.kind(HeatPump), HOUSE.kind(WaterHeater), HOUSE.kind(Battery)
CAR, LOAD = HOUSE.kind(Car), HOUSE.kind(Deferrable)
BASE, HVAC, WATER, PV, BATTERY, EV = range(6)
WINDOW_MIN = 5
SUN_KVA = HOUSE.spread(Pv, "rated_kva")


def within_limits(rng):
    """Houses anywhere inside their limits."""
    return at_rest(HOUSE) | {
        "hvac": rng.uniform(ROOM.min_c, ROOM.max_c),
        "water_heater": rng.uniform(water_heater.MIN_C, water_heater.MAX_C, len(TANK.at)),
        "battery": rng.uniform(battery.SOC_MIN, battery.SOC_MAX, len(STORE.at)) * STORE.capacity_kwh,
        "ev": rng.uniform(battery.SOC_MIN, battery.SOC_MAX, len(CAR.at)) * CAR.capacity_kwh,
    }


def any_wish(rng):
    """Plans drawn blindly, with the limits of now for guards."""
    wishes = {}
    span = {"hvac": (19.0, 25.0), "water_heater": (45.0, 60.0)}
    for device in HOUSE.devices:
        n = len(device.at)
        low, high = span.get(device.key, (-np.inf, np.inf))
        x = rng.uniform(*span.get(device.key, (0.0, 1.0)), n)
        wishes[device.key] = Wish(x, rng.uniform(-12, 6, n), np.full(n, low), np.full(n, high), 1.0)
    return wishes


def outlook(t_s=0, start_hour=18.0, steps=24, price=0.1, air_c=15.0, sun=None):
    hour = (start_hour + t_s / 3600 + np.arange(steps) + 0.5) % 24.0
    return Outlook(
        t_s=t_s,
        step_h=1.0,
        price_usd_per_kwh=np.broadcast_to(price, (N, steps)).copy(),
        temp_air_c=np.broadcast_to(air_c, steps).astype(float),
        pv_available=np.clip(np.sin((hour - 6) / 12 * np.pi), 0, 1) if sun is None else np.full(steps, sun),
        hour_of_day=hour,
    )


# ---------------------------------------------------------------------- offers


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(14, 30), st.integers(0, 1439), st.floats(-1, 1))
def test_any_call_within_the_box_can_be_held_for_the_window(seed, air_c, minute, share):
    rng = np.random.default_rng(seed)
    moment = Moment(rng.uniform(0.1, 2.0, N), air_c, rng.random(), minute)
    state = within_limits(rng)
    offer = make_offer(HOUSE, state, moment, any_wish(rng), WINDOW_MIN / 60)
    box = offer.up_kw if share >= 0 else -offer.down_kw
    device = move_devices(offer, abs(share) * box.sum(axis=0))
    # cars come home with a trip behind them: they have offered without its energy
    home = ev.driven_kwh(minute, CAR.home_min, CAR.trip_kwh)
    still = replace(
        HOUSE, devices=(*HOUSE.devices[:EV], replace(CAR, trip_kwh=0.0 * home), *HOUSE.devices[EV + 1 :])
    )
    state = dict(state) | {"ev": state["ev"] - home}
    low_kwh = np.minimum(state["ev"], battery.SOC_MIN * CAR.capacity_kwh)
    for _ in range(WINDOW_MIN):
        state = step_houses(still, state, moment, device)
    near = 1e-9  # rounding of five steps, against limits met exactly
    # between 14 and 30 degC outside no house leaves comfort within five minutes at either end of its rating
    assert (state["hvac"] >= ROOM.min_c - near).all()
    assert (state["hvac"] <= ROOM.max_c + near).all()
    # the largest draw, 0.5 kW times its evening peak, takes less than the heater gives
    assert (state["water_heater"] >= water_heater.MIN_C - near).all()
    assert (state["water_heater"] <= water_heater.MAX_C + near).all()
    assert (state["battery"] >= battery.SOC_MIN * STORE.capacity_kwh - near).all()
    assert (state["battery"] <= battery.SOC_MAX * STORE.capacity_kwh + near).all()
    assert (state["ev"] >= low_kwh - near).all()
    assert (state["ev"] <= battery.SOC_MAX * CAR.capacity_kwh + near).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-5, 38), st.integers(0, 1439))
def test_people_let_go_of_no_more_than_their_share(seed, air_c, minute):
    rng = np.random.default_rng(seed)
    moment = Moment(rng.uniform(0.1, 2.0, N), air_c, rng.random(), minute)
    offer = make_offer(HOUSE, within_limits(rng), moment, any_wish(rng), WINDOW_MIN / 60)
    near = 1e-12  # rounding of one product
    for row, device, share in (
        (HVAC, ROOM, thermal.LET_GO_SHARE),
        (WATER, TANK, thermal.LET_GO_SHARE),
        (EV, CAR, ev.LET_GO_SHARE),
    ):
        used = -offer.device_kw[row, device.at]
        assert (offer.up_kw[row, device.at] <= share * used + near).all()
        assert (offer.down_kw[row, device.at] <= share * (device.rated_kw - used) + near).all()
    for room in (offer.up_kw, offer.down_kw):
        assert (room[BATTERY, STORE.at] <= battery.LET_GO_SHARE * STORE.rated_kw + near).all()
        assert not room[BASE].any()  # nobody moves what cannot be steered
        assert (room >= -near).all()
    assert not offer.up_kw[PV].any()  # there is no more sun than there is
    np.testing.assert_array_equal(offer.down_kw[PV], offer.device_kw[PV])


@pytest.mark.parametrize(("sun", "left"), [(0.6, 0.5 * 0.6), (0.8, 0.8 - 0.3), (0.2, 0.0)])
def test_pv_is_throttled_by_what_was_asked_of_it_whatever_the_sun_does(sun, left):
    model = ConsumerModel(PART, flexible=True, window_s=60 * WINDOW_MIN)
    model.make_plan(outlook())
    moment = Moment(np.ones(N), 15.0, 0.6, 12 * 60)
    bid = model.make_bid(0, moment)
    pv_kw = np.bincount(PART.house_sma, 0.6 * SUN_KVA)
    assert (bid.p0_kw - bid.p_min_kw >= pv_kw - 1e-12).all()  # the market may take it all; rounding
    model.step(replace(moment, pv_available=sun), -0.5 * model.offer.down_kw.sum(axis=0))
    np.testing.assert_allclose(model.device_kw[PV], left * SUN_KVA, atol=1e-12)  # rounding
    others = np.delete(
        model.device_kw - model.offer.device_kw + 0.5 * model.offer.down_kw, [BASE, PV], axis=0
    )
    np.testing.assert_allclose(others, 0.0, atol=1e-12)


def test_a_car_offers_nothing_while_it_is_away():
    rng = np.random.default_rng(1)
    away = Moment(np.ones(N), 15.0, 0.0, 12 * 60)  # everybody leaves before ten and returns after two
    offer = make_offer(HOUSE, within_limits(rng), away, any_wish(rng), WINDOW_MIN / 60)
    assert not offer.device_kw[EV].any()
    assert not offer.up_kw[EV].any()
    assert not offer.down_kw[EV].any()


def test_a_move_is_split_in_proportion_to_what_each_device_offers():
    rng = np.random.default_rng(2)
    moment = Moment(np.ones(N), 15.0, 0.5, 1200)
    offer = make_offer(HOUSE, within_limits(rng), moment, any_wish(rng), WINDOW_MIN / 60)
    for share, room in ((0.3, offer.up_kw), (-0.7, offer.down_kw)):
        moved = move_devices(offer, share * room.sum(axis=0)) - offer.device_kw
        np.testing.assert_allclose(moved, share * room, atol=1e-12)  # rounding
    still = move_devices(offer, np.zeros(N))
    np.testing.assert_array_equal(still, offer.device_kw)


# ---------------------------------------------------------------------- dynamics


def test_a_minute_conserves_the_energy_of_every_store():
    rng = np.random.default_rng(3)
    before, minute = within_limits(rng), int(CAR.home_min[0])
    before["deferrable"] = LOAD.energy_kwh.copy()
    moment = Moment(np.ones(N), 9.0, 0.5, minute)
    device = make_offer(HOUSE, before, moment, any_wish(rng), WINDOW_MIN / 60).device_kw
    after = step_houses(HOUSE, before, moment, device)
    # house: R C T' = (air - T) + R COP P, integrated by 20,000 small steps (error of the order of the step)
    temp, small_h = before["hvac"].copy(), MINUTE_H / 20_000
    for _ in range(20_000):
        flow_kw = (9.0 - temp) / ROOM.r_c_per_kw - ROOM.cop * device[HVAC]
        temp += small_h * flow_kw / ROOM.c_kwh_per_c
    np.testing.assert_allclose(after["hvac"], temp, atol=1e-7)
    factor = water_heater.draw_factor(minute / 60)
    leak_kw = TANK.kwh_per_c * (before["water_heater"] - water_heater.ROOM_C) / water_heater.TIME_CONSTANT_H
    gained = MINUTE_H * (-device[WATER, TANK.at] - TANK.draw_kw * factor - leak_kw)
    # the leak falls within the minute by a share of 1/(60 120) of itself
    stored = TANK.kwh_per_c * (after["water_heater"] - before["water_heater"])
    np.testing.assert_allclose(stored, gained, atol=1e-6)
    trip = np.where(CAR.home_min == minute, CAR.trip_kwh, 0.0)
    for row, at, old, new in (
        (BATTERY, STORE.at, before["battery"], after["battery"]),
        (EV, CAR.at, before["ev"], after["ev"] + trip),
    ):
        p = device[row, at]
        stored = np.where(p < 0, -0.95 * p, -p / 0.95) / 60
        np.testing.assert_allclose(new - old, stored, atol=1e-12)  # rounding of energies up to 100 kWh
    done = before["deferrable"] - after["deferrable"]
    again = LOAD.release_min == minute + 1
    np.testing.assert_allclose(done[~again], -device[6, LOAD.at][~again] / 60, atol=1e-12)


def test_the_state_before_is_left_alone():
    state = at_rest(HOUSE)
    kept = {key: x.copy() for key, x in state.items()}
    step_houses(HOUSE, state, Moment(np.ones(N), 0.0, 0.0, 0), np.full((len(KEYS), N), -0.5))
    for key, x in state.items():
        np.testing.assert_array_equal(x, kept[key])


def test_the_devices_table_is_zero_or_nan_where_a_house_has_none():
    moment = Moment(np.ones(N), 15.0, 0.5, 0)
    columns = device_columns(HOUSE, at_rest(HOUSE), np.zeros((len(KEYS), N)), moment)
    assert np.isfinite(columns["temp_indoor_c"]).all()
    assert set(np.flatnonzero(np.isfinite(columns["temp_water_c"]))) == set(TANK.at)
    assert set(np.flatnonzero(columns["battery_kwh"])) == set(STORE.at)
    assert set(np.flatnonzero(columns["ev_kwh"])) == set(CAR.at)


# ---------------------------------------------------------------------- plans


def test_a_plan_is_read_one_step_ahead_and_interpolated_and_its_guards_at_the_end_of_the_window():
    hours = np.arange(4.0)[None, :]
    ends = np.arange(5.0)[None, :]
    kinds = {
        "a": KindPlan(20 + hours, -hours, ends, 9.0 - ends),
        "b": KindPlan(hours, hours, *np.full((2, 1, 1), np.inf)),
    }
    plan = HousePlan(7200, 1.0, kinds, np.zeros(1), np.zeros(1), unsolved=0, binary=0)

    def seen(now_s):
        wish = plan.at(now_s, 900)["a"]
        return wish.x[0], wish.p_kw[0], wish.low[0], wish.high[0], wish.ahead_h

    assert seen(7200) == (20.0, 0.0, 0.25, 8.75, 1.0)  # the first hour ends at 20 degC
    assert seen(7200 + 900) == (20.25, 0.0, 0.5, 8.5, 1.0)
    assert seen(7200 + 3600) == (21.0, -1.0, 1.25, 7.75, 1.0)
    assert seen(7200 + 3 * 3600 + 1800) == (23.0, -3.0, 3.75, 5.25, 1.0)  # nothing is planned beyond
    assert seen(7200 + 9 * 3600) == (23.0, -3.0, 4.0, 5.0, 1.0)
    assert seen(0) == (20.0, 0.0, 0.25, 8.75, 1.0)
    assert plan.at(7300, 900)["b"].low == np.inf


def test_the_problem_has_every_device_of_a_house_in_its_rows():
    problem, place = household_problem(HOUSE, at_rest(HOUSE), outlook())
    count = np.zeros(N, dtype=int)
    for key, rows in place.items():
        device = HOUSE.devices[KEYS.index(key)]
        count[device.at] += 1
        assert (problem.offset[device.at] <= rows).all() and (rows < problem.offset[device.at + 1]).all()
    np.testing.assert_array_equal(np.diff(problem.offset), count)
    assert set(place) == set(KEYS) - {"base"}
    np.testing.assert_array_equal(problem.devices.x0[place["hvac"]], ROOM.set_c)
    assert problem.devices.shares_meter.sum() == len(STORE.at) + len(CAR.at)
    assert (problem.other_kw[HOUSE.kind(Pv).at].max(axis=1) > 0).all()


def test_a_house_plans_the_same_alone():
    forecast = outlook(price=0.1 + 0.05 * np.sin(np.arange(24)))
    whole = plan_houses(HOUSE, at_rest(HOUSE), forecast)
    few = np.arange(3, 9)
    part = HOUSE.rows(few)
    alone = plan_houses(
        part, at_rest(part), replace(forecast, price_usd_per_kwh=forecast.price_usd_per_kwh[few])
    )
    for device, same in zip(HOUSE.devices, part.devices, strict=True):
        rows = np.isin(device.at, few)
        np.testing.assert_array_equal(alone.kinds[same.key].p_kw, whole.kinds[device.key].p_kw[rows])
        np.testing.assert_array_equal(alone.kinds[same.key].low, whole.kinds[device.key].low[rows])
    np.testing.assert_array_equal(alone.objective_usd, whole.objective_usd[few])


def test_following_the_plan_gets_where_it_says():
    state, forecast = at_rest(HOUSE, 18 * 60), outlook(price=0.1 + 0.05 * np.sin(np.arange(24)))
    plan = plan_houses(HOUSE, state, forecast)
    assert plan.unsolved == 0
    assert (plan.bound_usd <= plan.objective_usd + 1e-6).all()  # $; what the solver leaves open
    for minute in range(60):
        # the plan takes the mean draw of the hour
        moment = Moment(np.ones(N), 15.0, 0.0, 18 * 60 + 30)
        offer = make_offer(HOUSE, state, moment, plan.at(60 * minute, 300), WINDOW_MIN / 60)
        state = step_houses(HOUSE, state, moment, offer.device_kw)
    stored, room = plan.kinds["battery"].p_kw[:, 0], plan.kinds["hvac"]
    change = np.where(stored < 0, -0.95 * stored, -stored / 0.95)
    expected = 0.5 * STORE.capacity_kwh + change
    np.testing.assert_allclose(state["battery"], expected, atol=1e-6)  # kWh; the plan's own tolerance
    # tracking aims an hour ahead all the time and so lags a moving plan by part of its slope
    slope = np.abs(np.diff(room.x[:, :2], axis=1)[:, 0]) + np.abs(room.x[:, 0] - ROOM.set_c)
    assert (np.abs(state["hvac"] - room.x[:, 0]) <= slope + 0.05).all()


def test_batteries_buy_when_cheap_and_sell_when_dear():
    price = np.full(24, 0.05)
    price[[2, 3]], price[[8, 9]] = 0.01, 0.50
    plan = plan_houses(HOUSE, at_rest(HOUSE), outlook(price=price, sun=0.0)).kinds["battery"].p_kw
    assert (plan[:, [2, 3]].sum(axis=1) < -1.0).all()
    assert (plan[:, [8, 9]].sum(axis=1) > 5.0).all()


def test_batteries_take_up_the_sun_behind_their_meter():
    plan = plan_houses(HOUSE, at_rest(HOUSE), outlook(start_hour=6.0, price=0.0)).kinds["battery"].p_kw
    sunny = SUN_KVA[STORE.at] > 0
    noon = plan[:, 3:9].sum(axis=1)
    assert (noon[sunny] < -1.0).all()
    # at no price there is nothing else to do but to feed the house's car
    alone = ~sunny & ~np.isin(STORE.at, CAR.at)
    assert alone.any()
    assert (np.abs(noon[alone]) < 0.1).all()


def test_cars_charge_when_cheap_and_leave_ready():
    state = at_rest(HOUSE, 20 * 60) | {"ev": 0.6 * CAR.capacity_kwh}
    price = np.full(24, 0.2)
    price[4:8] = 0.05  # from midnight to four
    plan = plan_houses(HOUSE, state, outlook(start_hour=20.0, price=price)).kinds["ev"]
    # all are home from 20:00 to 08:00, when they leave
    charged = 0.95 * -plan.p_kw[:, :12].sum(axis=1)
    need = 0.3 * CAR.capacity_kwh
    can = 0.95 * 12 * CAR.rated_kw > need
    np.testing.assert_allclose(
        charged[can], need[can], atol=1e-3
    )  # kWh; ten cents of penalty on the solver's gap
    np.testing.assert_allclose(charged[~can], 0.95 * 12 * CAR.rated_kw[~can], atol=1e-3)
    # most of it in the four cheap hours, unless the charger is too small for that
    small = CAR.rated_kw * 4 * 0.95 < need
    cheap = 0.95 * -plan.p_kw[:, 4:8].sum(axis=1)
    assert (cheap[~small] > 0.6 * charged[~small]).all()


def test_a_car_pays_for_its_trip_once_in_a_plan_of_any_reach():
    """Plans from every third hour, of 12 and 36 h: what they charge makes good the trips still to come."""
    ready = at_rest(HOUSE) | {"ev": CAR.target_kwh}
    for start in range(0, 24, 3):
        for steps in (12, 36):
            plan = plan_houses(HOUSE, ready, outlook(start_hour=float(start), steps=steps)).kinds["ev"]
            minutes = np.arange(start * 60, (start + steps) * 60)
            trips = np.array([(minutes % 1440 == m).sum() for m in CAR.home_min])
            charged = 0.95 * -plan.p_kw.sum(axis=1)
            # full at the start: no trip, nothing to charge but the margin between 90 % at rest and 95 %
            limit = trips * CAR.trip_kwh + 0.05 * CAR.capacity_kwh
            assert (charged <= limit + 1e-6).all()


def test_deferrable_loads_wait_for_the_cheapest_hour_they_may():
    price = 0.1 + 0.002 * np.abs(np.arange(24) - 7)  # cheapest at one in the morning
    state = at_rest(HOUSE, 18 * 60)
    plan = plan_houses(HOUSE, state, outlook(price=price)).kinds["deferrable"]
    used = -plan.p_kw
    hour = (18 + np.arange(24)) % 24
    released = (LOAD.release_min[:, None] - 60 * hour[None, :]) % 1440 < 60
    owed = state["deferrable"] + np.where(released.any(axis=1), LOAD.energy_kwh, 0.0)
    at_release = np.array([released[i, int((LOAD.release_min[i] // 60 - 18) % 24)] for i in range(len(owed))])
    assert at_release.all()
    assert (used.sum(axis=1) <= owed + 1e-6).all()
    wait = LOAD.release_min >= 18 * 60  # theirs is to come, and due before six next evening
    over = (LOAD.deadline_min - LOAD.release_min) % 1440
    ready_at_one = wait & (LOAD.release_min + over > 26 * 60)
    assert ready_at_one.sum() > 2
    at_one = used[ready_at_one, 7]
    np.testing.assert_allclose(at_one, np.minimum(LOAD.energy_kwh, LOAD.rated_kw)[ready_at_one], atol=1e-2)


def test_comfort_is_kept_for_a_day_of_plans_that_nobody_disturbs():
    model = ConsumerModel(PART, flexible=True, window_s=60 * WINDOW_MIN, start_minute=360)
    rng, lowest, highest, coldest, missing = np.random.default_rng(4), np.inf, -np.inf, np.inf, 0.0
    for minute in range(1440):
        hour = minute / 60
        air_c = 18.0 + 7.0 * np.sin((hour - 3) / 24 * 2 * np.pi)  # 11 to 25 degC, warmest at 9 h of the run
        if minute % 60 == 0:
            steps = hour + np.arange(24) + 0.5
            forecast = outlook(
                t_s=60 * minute, start_hour=6.0, price=0.1 + 0.05 * np.sin(steps),
                air_c=18.0 + 7.0 * np.sin((steps - 3) / 24 * 2 * np.pi),
            )  # fmt: skip
            assert model.make_plan(forecast).unsolved == 0
        moment = Moment(rng.uniform(0.1, 2.0, N), air_c, 0.3, (360 + minute) % 1440)
        model.make_bid(60 * minute, moment)
        model.step(moment, np.zeros(N))
        room, car = model.state["hvac"], model.state["ev"]
        lowest, highest = min(lowest, room.min()), max(highest, room.max())
        coldest = min(coldest, model.state["water_heater"].min())
        leaves = CAR.away_min == (361 + minute) % 1440
        missing = max(missing, (CAR.target_kwh - car)[leaves].max(initial=0.0))
    # the offers end at the limits, so nothing but rounding is beyond them
    assert lowest >= 19.0 - 1e-9
    assert highest <= 25.0 + 1e-9
    assert coldest >= water_heater.MIN_C - 1e-9
    assert missing < 1e-9
    assert (model.state["ev"] >= battery.SOC_MIN * CAR.capacity_kwh).all()


@pytest.mark.parametrize("flexible", [True, False])
def test_bids_of_the_model_are_the_sums_of_its_houses(flexible):
    model = ConsumerModel(PART, flexible=flexible, window_s=60 * WINDOW_MIN)
    model.make_plan(outlook())
    moment = Moment(np.ones(N), 15.0, 0.4, 18 * 60)
    bid = model.make_bid(0, moment)
    up, down = model.offer.up_kw.sum(axis=0), model.offer.down_kw.sum(axis=0)
    members = PART.house_sma
    np.testing.assert_allclose(bid.p_max_kw - bid.p0_kw, np.bincount(members, up), atol=1e-12)
    np.testing.assert_allclose(bid.p0_kw - bid.p_min_kw, np.bincount(members, down), atol=1e-12)
    np.testing.assert_allclose(bid.p0_kw, np.bincount(members, model.offer.p0_kw), atol=1e-12)
    assert up.any() == flexible
    # one agent of houses in parallel: the cheapest split of a kW costs beta, and no single house less
    assert (bid.beta_p_usd_per_kw2h > 0).all()
