"""Device models against their equations, written again or worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voltier.agents.devices import battery, ev, hvac, inverter, water_heater

ONE = np.ones(1)


def test_a_round_trip_keeps_the_product_of_both_efficiencies():
    full = battery.step_energy(np.zeros(1), np.array([-4.0]), 1.0)
    drained_kw = full * battery.ETA_DISCHARGE
    assert drained_kw[0] == pytest.approx(4.0 * battery.ETA_CHARGE * battery.ETA_DISCHARGE, rel=1e-15)
    assert battery.step_energy(full, drained_kw, 1.0)[0] == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize("energy", [1.35, 2.0, 6.0, 12.0, 12.825])
def test_both_ends_of_the_power_band_hold_for_the_window_and_no_more_would(energy):
    window, capacity, rated = 1 / 12, 13.5, 5.0
    least, most = battery.power_band_kw(np.array([energy]), np.array([capacity]), np.array([rated]), window)
    low, high = battery.SOC_MIN * capacity, battery.SOC_MAX * capacity
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
    least, most = battery.power_band_kw(energy, size, np.array([rated]), window)
    assert -rated <= least[0] <= 0.0 <= most[0] <= rated
    power = least + at * (most - least)
    for _ in range(5):
        energy = battery.step_energy(energy, power, window / 5)
        # rounding of five sums of the size of the battery
        assert battery.SOC_MIN - 1e-12 <= energy[0] / capacity <= battery.SOC_MAX + 1e-12


def test_a_battery_beyond_its_limits_only_moves_back():
    size, rated = np.full(2, 10.0), np.full(2, 5.0)
    least, most = battery.power_band_kw(np.array([0.5, 9.9]), size, rated, 1 / 12)
    np.testing.assert_array_equal(most, [0.0, 5.0])
    np.testing.assert_array_equal(least, [-5.0, 0.0])


@pytest.mark.parametrize(("air", "sign"), [(5.0, 1.0), (35.0, -1.0)])
def test_a_constant_heat_pump_settles_at_air_temperature_plus_lift(air, sign):
    r, c, cop, wanted, power = 2.0 * ONE, 2.0 * ONE, 3.0 * ONE, 22.0 * ONE, 1.5
    theta, gain = hvac.coefficients(r, c, cop, wanted, air, 1.0)
    temp = wanted.copy()
    for _ in range(400):  # 100 time constants
        temp = hvac.step_temperature(temp, np.array([air]), theta, gain, power * ONE)
    assert temp[0] == pytest.approx(air + sign * 2.0 * 3.0 * power, abs=1e-9)


def test_sixty_minutes_are_an_hour():
    columns = 1.8 * ONE, 2.2 * ONE, 3.1 * ONE, 21.0 * ONE
    hour, minute = (hvac.coefficients(*columns, 8.0, dt) for dt in (1.0, 1 / 60))
    once = hvac.step_temperature(20.0 * ONE, 8.0 * ONE, *hour, 2.0 * ONE)
    often = 20.0 * ONE
    for _ in range(60):
        often = hvac.step_temperature(often, 8.0 * ONE, *minute, 2.0 * ONE)
    assert often[0] == pytest.approx(once[0], rel=1e-12)  # exact solution of the same equation


@pytest.mark.parametrize("air", [5.0, 35.0])
def test_the_comfort_band_ends_at_the_comfort_limits(air):
    theta, gain = hvac.coefficients(2 * ONE, 2 * ONE, 3 * ONE, 22 * ONE, air, 0.5)
    least, most = hvac.comfort_band_kw(22.0 * ONE, air, theta, gain, 21.5 * ONE, 22.5 * ONE, 50.0 * ONE)
    ends = sorted(hvac.step_temperature(22.0 * ONE, air * ONE, theta, gain, c)[0] for c in (least, most))
    # unless not running at all already keeps comfort, each end is a limit
    np.testing.assert_allclose(ends, [21.5, 22.5], atol=1e-9)


def test_a_cold_house_is_heated_with_all_there_is():
    theta, gain = hvac.coefficients(2 * ONE, 2 * ONE, 3 * ONE, 22 * ONE, -10.0, 1 / 12)
    band = hvac.comfort_band_kw(12.0 * ONE, -10.0, theta, gain, 19 * ONE, 25 * ONE, 3 * ONE)
    np.testing.assert_array_equal(band, [[3.0], [3.0]])


def test_hot_water_draws_add_up_to_their_daily_mean():
    factor = water_heater.draw_factor(np.arange(1440) / 60.0)
    assert factor.min() > 0
    # the peaks are cut at half a day, eight spreads away
    assert factor.mean() == pytest.approx(1.0, abs=1e-6)


def test_a_tank_loses_what_is_drawn_and_gains_what_is_fed():
    kwh_per_c, draw_kw, dt = 0.22 * ONE, 0.4 * ONE, 1 / 60
    theta, gain = water_heater.coefficients(kwh_per_c, dt)
    rest = water_heater.rest_c(draw_kw, 1.5, theta, gain)
    at_room = water_heater.ROOM_C * ONE  # no standing loss: the energy balance is exact
    after = hvac.step_temperature(at_room, rest, theta * ONE, gain, 2.0 * ONE)
    assert (after - at_room)[0] * 0.22 == pytest.approx((2.0 - 0.4 * 1.5) * dt, rel=1e-9)


def test_a_tank_balances_its_energy_over_a_day():
    tank, draw, dt = 0.22 * ONE, 0.4 * ONE, 1 / 60
    temp, fed, leaked = 55.0 * ONE, 0.0, 0.0
    theta, gain = water_heater.coefficients(tank, dt)
    for minute in range(1440):
        power = (2.0 if minute % 7 == 0 else 0.1) * ONE
        leaked += float((1.0 - theta) * 0.22 * (temp[0] - water_heater.ROOM_C))
        rest = water_heater.rest_c(draw, water_heater.draw_factor(minute / 60), theta, gain)
        temp = hvac.step_temperature(temp, rest, theta * ONE, gain, power)
        fed += power[0] * dt
    # 24 h of the mean draw; the draw factor has mean one to 1e-6
    assert 0.22 * (temp[0] - 55.0) == pytest.approx(fed - 0.4 * 24 - leaked, abs=1e-5)


def test_a_tank_left_alone_tends_to_the_room_at_its_time_constant():
    theta, gain = water_heater.coefficients(0.22 * ONE, water_heater.TIME_CONSTANT_H)
    rest = water_heater.rest_c(0.0 * ONE, 1.0, theta, gain)
    after = hvac.step_temperature(60.0 * ONE, rest, theta * ONE, gain, 0.0 * ONE)
    room = water_heater.ROOM_C
    assert after[0] == pytest.approx(room + (60.0 - room) / np.e, rel=1e-14)  # rounding


def test_a_house_without_a_tank_gains_nothing():
    _, gain = water_heater.coefficients(np.array([0.0, 0.22]), 1.0)
    assert gain[0] == 0.0
    assert gain[1] > 0.0


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
