"""Device models against their equations, written again or worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voltier.agents.devices import battery, ev, inverter, thermal, water_heater
from voltier.agents.devices.block import FlexibleBlock
from voltier.agents.devices.deferrable import Deferrable
from voltier.agents.devices.device import Moment, Outlook, Wish, minutes_until
from voltier.agents.devices.ev import Car
from voltier.agents.devices.hvac import HeatPump
from voltier.agents.devices.kinds import DEVICE_COLUMNS, KINDS
from voltier.agents.devices.pv import Pv
from voltier.agents.devices.water_heater import WaterHeater

ONE = np.ones(1)
AT = np.zeros(1, dtype=np.int64)
WINDOW_H = 5 / 60


def pump(r=2.0, c=2.0, cop=3.0, rated=3.0, set_c=22.0, low=19.0, high=25.0):
    return HeatPump(AT, *(value * ONE for value in (r, c, cop, rated, set_c, low, high)))


def tank(kwh_per_c=0.22, draw_kw=0.4, rated=4.5):
    return WaterHeater(AT, rated * ONE, kwh_per_c * ONE, draw_kw * ONE)


def car(energy_max=50.0, rated=6.0, away=480, home=1020, trip=9.0, discharges=0.0):
    minutes = (np.array([at], dtype=np.int64) for at in (away, home))
    return Car(AT, rated * ONE, energy_max * ONE, *minutes, trip * ONE, discharges * ONE)


def at_minute(minute, air=12.0, sun=0.0):
    return Moment(ONE, air, sun, minute)


def wish(p_kw=0.0, x=0.0, low=-np.inf, high=np.inf):
    return Wish(x * ONE, p_kw * ONE, low * ONE, high * ONE, 1.0)


def outlook(start_hour=0.0, steps=24, step_h=1.0, air=12.0, sun=0.0, price=0.1):
    hour = (start_hour + (np.arange(steps) + 0.5) * step_h) % 24
    return Outlook(
        0, step_h, np.full((1, steps), price), np.broadcast_to(air, steps).astype(float),
        np.broadcast_to(sun, steps).astype(float), hour,
    )  # fmt: skip


def test_a_round_trip_keeps_the_product_of_both_efficiencies():
    full = battery.step_energy(np.zeros(1), np.array([-4.0]), 1.0)
    drained_kw = full * battery.ETA_DISCHARGE
    assert drained_kw[0] == pytest.approx(4.0 * battery.ETA_CHARGE * battery.ETA_DISCHARGE, rel=1e-15)
    assert battery.step_energy(full, drained_kw, 1.0)[0] == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("energy", [1.35, 2.0, 6.0, 12.0, 12.825])
def test_both_ends_of_the_power_band_hold_for_the_window_and_no_more_would(energy):
    window, capacity, rated = 1 / 12, 13.5, 5.0
    low, high = battery.SOC_MIN * capacity, battery.SOC_MAX * capacity
    least, most = battery.power_band_kw(np.array([energy]), low, high, np.array([rated]), window)
    for power in (least, most):
        after = battery.step_energy(np.array([energy]), power, window)[0]
        assert low - 1e-12 <= after <= high + 1e-12  # rounding of one product
    assert most[0] == rated or battery.step_energy(np.array([energy]), most, window)[0] == pytest.approx(low)
    assert least[0] == -rated or battery.step_energy(np.array([energy]), least, window)[0] == pytest.approx(
        high
    )


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0.1, 0.95), st.floats(1.0, 50.0), st.floats(0.1, 20.0), st.floats(1 / 60, 2.0), st.floats(0, 1)
)
def test_every_power_of_the_band_keeps_the_charge_within_limits_all_along(soc, capacity, rated, window, at):
    energy, size = np.array([soc * capacity]), np.array([capacity])
    limits = battery.SOC_MIN * size, battery.SOC_MAX * size
    least, most = battery.power_band_kw(energy, *limits, np.array([rated]), window)
    near = 1e-9 / window  # rounding of the limits, over the window
    assert -rated <= least[0] <= near and -near <= most[0] <= rated
    power = least + at * (most - least)
    for _ in range(5):
        energy = battery.step_energy(energy, power, window / 5)
        # rounding of five sums of the size of the battery
        assert battery.SOC_MIN - 1e-12 <= energy[0] / capacity <= battery.SOC_MAX + 1e-12


def test_a_battery_beyond_its_limits_is_led_back_and_no_further():
    size, rated = np.full(3, 10.0), np.full(3, 5.0)
    energy = np.array([0.5, 9.9, 0.9])
    least, most = battery.power_band_kw(energy, 0.1 * size, 0.95 * size, rated, 0.5)
    # 0.5 kWh short, in half an hour: 1 kW into the battery; 0.4 kWh too much: 0.8 kW out of it; 0.1 short
    np.testing.assert_allclose(most, [-1.0 / 0.95, 5.0, -0.2 / 0.95], rtol=1e-12)
    np.testing.assert_allclose(least, [-5.0, 0.8 * 0.95, -5.0], rtol=1e-12)


@pytest.mark.parametrize(("air", "sign"), [(5.0, 1.0), (35.0, -1.0)])
def test_a_constant_heat_pump_settles_at_air_temperature_plus_lift(air, sign):
    power, temp = 1.5, 22.0 * ONE
    theta, gain = pump().model(air, 1.0)
    for _ in range(400):  # 100 time constants
        temp = thermal.step_temperature(temp, np.array([air]), theta, gain, power * ONE)
    assert temp[0] == pytest.approx(air + sign * 2.0 * 3.0 * power, abs=1e-9)


def test_sixty_minutes_are_an_hour():
    room = pump(1.8, 2.2, 3.1, set_c=21.0)
    once = thermal.step_temperature(20.0 * ONE, 8.0 * ONE, *room.model(8.0, 1.0), 2.0 * ONE)
    often = 20.0 * ONE
    for _ in range(60):
        often = room.step(often, -2.0 * ONE, at_minute(0, air=8.0))
    assert often[0] == pytest.approx(once[0], rel=1e-12)  # exact solution of the same equation


def test_air_near_the_wanted_temperature_needs_no_pump():
    assert pump().model(21.9, 1.0)[1] == 0.0
    gains = [pump().model(air, 1.0)[1][0] for air in (21.7, 22.3)]
    assert gains[0] == -gains[1] > 0.0
    lazy = pump().offer(22.0 * ONE, wish(x=24.0, low=19.0, high=25.0), at_minute(0, air=22.1), WINDOW_H)
    assert (lazy.p_kw, lazy.up_kw, lazy.down_kw) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("air", [5.0, 35.0])
def test_the_comfort_band_ends_at_the_comfort_limits(air):
    theta, gain = pump().model(air, 0.5)
    band = thermal.comfort_band_kw(22.0 * ONE, air * ONE, theta, gain, 21.5 * ONE, 22.5 * ONE, 50.0 * ONE)
    ends = sorted(thermal.step_temperature(22.0 * ONE, air * ONE, theta, gain, c)[0] for c in band)
    # unless not running at all already keeps comfort, each end is a limit
    np.testing.assert_allclose(ends, [21.5, 22.5], atol=1e-9)


def test_a_cold_house_is_heated_with_all_there_is():
    theta, gain = pump().model(-10.0, 1 / 12)
    band = thermal.comfort_band_kw(12 * ONE, -10 * ONE, theta, gain, 19 * ONE, 25 * ONE, 3 * ONE)
    np.testing.assert_array_equal(band, [[3.0], [3.0]])


# ---------------------------------------------------------------------- tubes


def test_the_coldest_room_allowed_just_keeps_comfort_at_full_power():
    # 2 kW lift 12 degC: enough at 9 degC outside, too little in the hour at 5 degC
    room, air = pump(rated=2.0), np.concatenate([np.full(8, 9.0), [5.0], np.full(15, 9.0)])
    low, high = room.guard(outlook(air=air))
    assert low.shape == high.shape == (1, 25)
    assert (low <= high).all()
    theta, gain = room.model(5.0, 1.0)
    # the tube reckons with the colder neighbour of each hour
    worst = np.concatenate([np.full(7, 9.0), np.full(3, 5.0), np.full(14, 9.0)])
    temp = low[:, 0]
    for k in range(24):
        temp = thermal.step_temperature(temp, worst[k] * ONE, theta, gain, 2.0 * ONE)
        assert temp[0] >= low[0, k + 1] - 1e-12  # rounding
        if k == 9:
            assert temp[0] == pytest.approx(19.0, abs=1e-12)  # nothing to spare at the end of the cold
    assert low[0, 7] > 19.5
    assert (low[0, 10:] == 19.0).all()


def test_a_room_that_no_power_can_keep_warm_follows_its_plan_and_offers_nothing():
    room = pump(rated=1.0)  # lifts 6 degC
    low, high = room.guard(outlook(air=2.0))
    assert low[0, 0] > high[0, 0]
    answer = room.offer(
        20.0 * ONE, wish(x=19.0, low=low[0, 0], high=high[0, 0]), at_minute(0, air=2.0), WINDOW_H
    )
    assert answer.p_kw < 0.0
    assert (answer.up_kw, answer.down_kw) == (0.0, 0.0)


def test_calls_end_at_the_tube():
    room, air = pump(rated=4.0), 5.0
    for temp in (19.52, 21.0):
        tube = wish(x=22.0, low=19.5, high=25.0)
        answer = room.offer(temp * ONE, tube, at_minute(0, air=air), WINDOW_H)
        theta, gain = room.model(air, WINDOW_H)
        most_up = thermal.step_temperature(temp * ONE, air * ONE, theta, gain, -answer.p_kw - answer.up_kw)
        assert most_up[0] >= 19.5
        half = answer.up_kw[0] == pytest.approx(-0.5 * answer.p_kw[0])
        # near the tube it gives less than half of its power, and then ends just inside it
        assert half if temp == 21.0 else not half and most_up[0] == pytest.approx(19.51, abs=1e-9)


def test_hot_water_draws_add_up_to_their_daily_mean():
    factor = water_heater.draw_factor(np.arange(1440) / 60.0)
    assert factor.min() > 0
    # the peaks are cut at half a day, eight spreads away
    assert factor.mean() == pytest.approx(1.0, abs=1e-6)


def test_a_tank_loses_what_is_drawn_and_gains_what_is_fed():
    heater, dt = tank(), 1 / 60
    at_room = water_heater.ROOM_C * ONE  # no standing loss: the energy balance is exact
    minute = 20 * 60
    after = heater.step(at_room, -2.0 * ONE, at_minute(minute))
    drawn = 0.4 * water_heater.draw_factor(minute / 60)
    assert (after - at_room)[0] * 0.22 == pytest.approx((2.0 - drawn) * dt, rel=1e-9)


def test_a_tank_balances_its_energy_over_a_day():
    heater, dt = tank(), 1 / 60
    temp, fed, leaked = 55.0 * ONE, 0.0, 0.0
    theta = np.exp(-dt / water_heater.TIME_CONSTANT_H)
    for minute in range(1440):
        power = (2.0 if minute % 7 == 0 else 0.1) * ONE
        leaked += float((1.0 - theta) * 0.22 * (temp[0] - water_heater.ROOM_C))
        temp = heater.step(temp, -power, at_minute(minute))
        fed += power[0] * dt
    # 24 h of the mean draw; the draw factor has mean one to 1e-6
    assert 0.22 * (temp[0] - 55.0) == pytest.approx(fed - 0.4 * 24 - leaked, abs=1e-5)


def test_a_tank_left_alone_tends_to_the_room_at_its_time_constant():
    theta, gain, rest = tank(draw_kw=0.0).model(1.0, water_heater.TIME_CONSTANT_H)
    after = thermal.step_temperature(60.0 * ONE, rest, theta, gain, 0.0 * ONE)
    room = water_heater.ROOM_C
    assert after[0] == pytest.approx(room + (60.0 - room) / np.e, rel=1e-14)  # rounding


@pytest.mark.parametrize(
    ("p", "room"), [(0.0, 0.0), (2.0, 1.5), (-2.0, 1.5), (4.0, 3.0), (-4.8, 1.4), (5.0, 0.0)]
)
def test_reactive_room_is_within_power_factor_and_rating_for_either_sign(p, room):
    # 4 kW is the corner of a 5 kVA inverter at power factor 0.8; beyond it the circle counts
    assert inverter.reactive_room_kvar(np.array([p]), np.array([5.0]))[0] == pytest.approx(room, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.floats(-20, 20), st.floats(0.1, 20))
def test_reactive_room_never_leaves_the_circle_or_the_cone(p, s):
    room = float(inverter.reactive_room_kvar(np.array([p]), np.array([s]))[0])
    assert 0.0 <= room <= 0.75 * abs(p)
    # rounding of squares; without active power beyond the rating
    assert abs(p) > s or p**2 + room**2 <= s**2 * (1 + 1e-12)
    assert abs(p) <= s or room == 0.0


def test_a_car_of_the_night_shift_is_away_over_midnight():
    away, home = np.array([1320]), np.array([1800])  # 22:00 to 06:00
    there = np.array([ev.at_home(m, away, home)[0] for m in range(1440)])
    assert (~there).sum() == 480
    assert not there[[1320, 1439, 0, 359]].any()
    assert there[[360, 1319]].all()
    paid = [ev.driven_kwh(m, home, np.array([9.0]))[0] for m in range(1440)]
    assert (sum(paid), paid[360]) == (9.0, 9.0)
    np.testing.assert_array_equal(ev.at_home(np.arange(1440), away, home - 1440), there)


def test_a_car_is_away_between_leaving_and_coming_home_and_pays_its_trip_once():
    away, home = np.array([480]), np.array([1020])
    there = np.array([ev.at_home(m, away, home)[0] for m in range(1440)])
    assert (~there).sum() == 540
    assert not there[480]
    assert there[1020]
    assert sum(ev.driven_kwh(m, home, np.array([9.0]))[0] for m in range(1440)) == 9.0


# ---------------------------------------------------------------------- cars, loads, blocks, PV


def charge_floor_kw(answer):
    """Least consumption that the offer leaves."""
    return -(answer.p_kw + answer.up_kw)[0]


def test_a_car_may_wait_just_as_long_as_full_power_still_fills_it():
    # 45 kWh wanted, 6 kW: 5.7 kWh an hour; leaving at eight
    for hours_left, energy, least in (
        (2.0, 45.0 - 2 * 5.7, 6.0),
        (2.0, 45.0 - 1.0 * 5.7, 0.0),
        (2.0, 20.0, 6.0),
    ):
        minute = int(480 - 60 * hours_left)
        lazy = car().offer(energy * ONE, wish(p_kw=0.0), at_minute(minute), WINDOW_H)
        assert charge_floor_kw(lazy) == pytest.approx(least, abs=1e-9)  # rounding over a twelfth of an hour
    # three minutes of waiting are left of the window: the floor lies between
    energy = 45.0 - 5.7 * (2.0 - 3 / 60)
    lazy = car().offer(energy * ONE, wish(p_kw=0.0), at_minute(360), WINDOW_H)
    assert charge_floor_kw(lazy) == pytest.approx(6.0 * 2 / 5, abs=1e-9)


@pytest.mark.parametrize("discharges", [0.0, 1.0])
def test_a_car_that_can_trade_keeps_the_departure_within_reach(discharges):
    both = car(discharges=discharges)
    free = both.offer(40.0 * ONE, wish(p_kw=5.0), at_minute(1300), WINDOW_H)
    assert free.p_kw[0] == 5.0 * discharges
    last = both.offer((45.0 - 5.7 * 1.5) * ONE, wish(p_kw=5.0), at_minute(480 - 90), WINDOW_H)
    assert last.p_kw[0] == pytest.approx(-6.0, abs=1e-9)
    assert last.up_kw[0] == pytest.approx(0.0, abs=1e-9)


def test_the_trip_is_counted_in_the_offer_of_the_minute_of_return():
    home = car(home=480 - 100, away=480)
    before = home.offer((45.0 - 1.0) * ONE, wish(), at_minute(480 - 99), WINDOW_H)
    returning = home.offer((45.0 - 1.0) * ONE, wish(), at_minute(480 - 100), WINDOW_H)
    assert charge_floor_kw(before) == 0.0
    assert charge_floor_kw(returning) > 0.0  # a kWh was missing, and nine more are


def test_what_a_car_left_without_is_told_while_it_is_away():
    energy = 40.0 * ONE
    assert car().columns(energy, at_minute(478))["ev_missing_kwh"] == 0.0
    assert car().columns(energy, at_minute(479))["ev_missing_kwh"] == 5.0  # it leaves with the next minute
    assert car().columns(energy, at_minute(700))["ev_missing_kwh"] == 5.0
    assert car().columns(energy, at_minute(1020))["ev_missing_kwh"] == 0.0


def load(energy=1.0, rated=2.0, release=600, deadline=900):
    return Deferrable(AT, rated * ONE, energy * ONE, np.array([release]), np.array([deadline]))


@pytest.mark.parametrize("late", [False, True])
def test_a_deferrable_load_is_done_between_release_and_deadline(late):
    machine, owed, used = load(), np.zeros(1), np.zeros(1440)
    for minute in range(1440):
        answer = machine.offer(owed, wish(p_kw=0.0 if late else -5.0), at_minute(minute), WINDOW_H)
        used[minute] = -answer.p_kw[0]
        owed = machine.step(owed, answer.p_kw, at_minute(minute))
    assert used.sum() / 60 == pytest.approx(1.0, abs=1e-12)  # rounding of the minutes' sum
    assert used.max() <= 2.0
    at = np.flatnonzero(used > 1e-3)
    # an eager one runs at full power as long as five minutes of it are owed, a lazy one in the last half hour,
    # and as the window sees it coming, a little from four minutes before
    assert (at[0], at[-1]) == (866, 899) if late else at[0] == 600 and used[:626].sum() / 60 > 0.85


def test_a_plan_counts_a_release_once():
    machine = load()
    for start, owed, drift in ((9.0, 0.0, [0, 1]), (10.0, 1.0, [0, 0]), (10.0 + 1 / 60, 1.0, [0, 0])):
        rows = machine.rows(owed * ONE, outlook(start_hour=start))
        np.testing.assert_array_equal(rows.drift[0, :2], drift)
        assert rows.drift.sum() in (1.0, 0.0)
    rows = machine.rows(np.zeros(1), outlook())
    assert np.flatnonzero(np.isfinite(rows.x_max[0])).tolist() == [14]  # due by 15:00


def block(queue=20.0, due=0):
    return FlexibleBlock(AT, 6.0 * ONE, 20.0 * ONE, 13.0 * ONE, queue * ONE, np.array([due]))


@pytest.mark.parametrize("lazy", [True, False])
def test_a_block_keeps_its_limits_and_does_all_its_work_by_the_due_time(lazy):
    site, queue, used, longest = block(), np.zeros(1), 0.0, 0.0
    for minute in range(1440):
        answer = site.offer(queue, wish(p_kw=0.0 if lazy else -99.0), at_minute(minute), WINDOW_H)
        assert 6.0 <= -answer.p_kw[0] <= 20.0
        queue = site.step(queue, answer.p_kw, at_minute(minute))
        used, longest = used - answer.p_kw[0] / 60, max(longest, queue[0])
    assert queue[0] == pytest.approx(0.0, abs=1e-9)
    assert used == pytest.approx(13.0 * 24, abs=1e-9)
    # a lazy one waits until the queue is full; who never waits has none
    assert longest == (pytest.approx(20.0) if lazy else pytest.approx(0.0, abs=1e-12))


def test_pv_is_throttled_at_a_cost_and_all_of_the_sun_is_the_wish():
    roof = Pv(AT, 4.0 * ONE)
    answer = roof.offer(np.zeros(1), wish(p_kw=1.0), at_minute(720, sun=0.5), WINDOW_H)
    assert (answer.p_kw, answer.up_kw, answer.down_kw) == (2.0, 0.0, 2.0)
    # 1.5 kW asked off; the sun came out or went
    for sun, left in ((0.5, 0.5), (0.9, 2.1), (0.2, 0.0)):
        assert roof.realise(0.5 * ONE, answer, at_minute(720, sun=sun))[0] == pytest.approx(left, abs=1e-12)
    rows = roof.rows(np.zeros(1), outlook(sun=0.5))
    assert (rows.g_max_kw == 2.0).all() and (rows.w_spill_usd_per_kw2h > 0).all()


def test_minutes_until_a_time_of_day_are_a_day_at_most():
    due = np.array([480])
    assert [int(minutes_until(m, due)[0]) for m in (479, 480, 481, 0)] == [1, 1440, 1439, 480]


def test_every_kind_has_its_own_columns():
    assert len(set(DEVICE_COLUMNS)) == len(DEVICE_COLUMNS)
    assert [kind.key for kind in KINDS][:6] == ["base", "hvac", "water_heater", "pv", "battery", "ev"]
