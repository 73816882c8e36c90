from datetime import datetime

import numpy as np
import pytest

from voltier.grid.errors import InputError
from voltier.scenarios.inputs import (
    PACKAGED,
    conditions,
    ev_stays,
    load_profiles,
    read_weather,
    weather_minutes,
)
from voltier.scenarios.schema import load_scenario

DAY = load_scenario("ieee123-day")


def with_file(tmp_path, field, edit):
    """The reference day on a copy of a packaged file, changed line by line (comments come first)."""
    path = tmp_path / f"{field}.csv"
    path.write_text("\n".join(edit(PACKAGED[field].read_text().splitlines())) + "\n")
    return load_scenario("ieee123-day", [f"inputs.{field}={path}"])


def test_conditions_reach_from_the_minute_before_the_start_to_one_horizon_after_the_end():
    series = conditions(load_scenario("ieee123-day", ["hours=2", "start=2020-07-15T10:00"]))
    n = 1 + 2 * 60 + 24 * 60
    assert series.price_usd_per_kwh.shape == series.temp_air_c.shape == series.pv_available.shape == (n,)


def test_price_holds_for_the_hour_that_the_file_says():
    # Rows of the file: 15 July 2020, hours ending 18, 19 and 20.
    wanted = {}
    for line in PACKAGED["price_csv"].read_text().splitlines():
        for hour in (18, 19, 20):
            if line.startswith(f"2020,7,15,{hour},"):
                wanted[hour] = float(line.rsplit(",", 1)[1]) / 1000.0
    price = conditions(load_scenario("ieee123-day", ["hours=2", "start=2020-07-15T18:00"])).price_usd_per_kwh
    assert price[0] == wanted[18]
    assert (price[1:61] == wanted[19]).all()
    assert (price[61:121] == wanted[20]).all()


def test_temperature_meets_its_hourly_readings():
    weather = read_weather(PACKAGED["weather_csv"])
    at_noon = np.array([12 * 60 - 1, 12 * 60])
    temp_air_c, _ = weather_minutes(weather, datetime(2020, 7, 15), at_noon, DAY.inputs)
    row = (datetime(2019, 7, 15) - datetime(2019, 1, 1)).days * 24 + 11
    # The two minutes lie half a minute to either side of noon, whose reading ends the twelfth hour.
    assert temp_air_c.mean() == pytest.approx(weather["temp_air_c"][row], abs=0.02)


def test_pv_year_gives_the_yield_of_the_site():
    weather = read_weather(PACKAGED["weather_csv"])
    _, pv = weather_minutes(weather, datetime(2019, 1, 1), np.arange(0, 525_600, 10), DAY.inputs)
    # An hourly PVWatts computation on this file with a 96 % inverter gives 1,520 kWh/kW; ours has no inverter
    # loss beyond pv_loss, so 1,583 is expected; 3 % covers the sky models (isotropic here).
    assert pv.sum() / 6.0 == pytest.approx(1520.0 / 0.96, rel=0.03)
    assert pv.min() == 0.0
    assert pv.max() <= 1.0


def test_pv_is_dark_at_night_and_centred_on_solar_noon():
    series = conditions(DAY)
    pv = series.pv_available[1 : 1 + 1440]
    assert (pv[:240] == 0.0).all()
    assert (pv[21 * 60 :] == 0.0).all()
    centre_h = (pv * (np.arange(1440) + 0.5)).sum() / pv.sum() / 60.0
    # Solar noon on 15 July at 122.38 W is 12:15 PST; weather of the single day moves the centre a little.
    assert centre_h == pytest.approx(12.25, abs=0.5)


def test_leap_day_and_new_year_have_conditions():
    for start in ("2020-02-29", "2020-12-31"):
        series = conditions(load_scenario("ieee123-day", [f"start={start}"]))
        assert np.isfinite(series.price_usd_per_kwh).all()
        assert np.isfinite(series.temp_air_c).all()


def test_house_profiles_and_sessions_are_plausible():
    profiles = load_profiles(DAY)
    assert profiles.shape == (1440, 100)
    assert profiles.min() >= 0.0
    # Mean of the published profiles: 8.4 kWh a day.
    assert profiles.mean() * 24.0 == pytest.approx(8.4, abs=0.1)
    stays = ev_stays(DAY)
    assert len(stays.arrival_min) > 3000
    # People come home in the evening and stay overnight.
    assert 15 * 60 < np.median(stays.arrival_min) < 20 * 60
    assert 8 * 60 < np.median(stays.parked_min) < 16 * 60


@pytest.mark.parametrize(
    ("field", "edit", "problem_field"),
    [
        ("weather_csv", lambda lines: lines[:-1], "rows"),
        ("weather_csv", lambda lines: [line.replace("temp_air_c", "temp") for line in lines], "temp_air_c"),
        ("weather_csv", lambda lines: [*lines[:-1], "12,31,24,0,0,0,,2.0"], "temp_air_c"),
        ("weather_csv", lambda lines: [*lines[:-1], "12,31,24,0,-5,0,9.0,2.0"], "dni_w_m2"),
        ("weather_csv", lambda lines: [*lines[:-2], lines[-1], lines[-2]], "calendar"),
        ("price_csv", lambda lines: [*lines[:-1], "2020,12,31,24,high"], "price_usd_per_mwh"),
        ("price_csv", lambda lines: lines[:2000], "start"),
        ("price_csv", lambda lines: [*lines[:-1], "2020,12,31,25,3.0"], "hour_ending"),
        ("price_csv", lambda lines: [*lines[:-1], "2020,12,31,23,3.0"], "calendar"),
        ("price_csv", lambda lines: [*lines[:-1], ",12,31,24,3.0"], "year"),
    ],
)
def test_wrong_files_are_refused_by_name(tmp_path, field, edit, problem_field):
    scenario = with_file(tmp_path, field, edit)
    with pytest.raises(InputError) as caught:
        conditions(scenario)
    problem = caught.value.problems[0]
    assert problem.field == problem_field
    assert f"{field}.csv" in str(caught.value)


def test_a_run_lies_within_its_prices_and_forecasts_repeat_their_last_day():
    with pytest.raises(InputError, match="within the prices"):
        conditions(load_scenario("ieee123-day", ["start=2020-12-31T20:00", "hours=5"]))
    price = conditions(load_scenario("ieee123-day", ["start=2020-12-31"])).price_usd_per_kwh
    np.testing.assert_array_equal(price[1 + 1440 : 1 + 2880], price[1 : 1 + 1440])


@pytest.mark.parametrize(
    "edit", [lambda rows: [*rows[:-2], rows[-1], rows[-2]], lambda rows: [*rows[:-1], rows[-2]]]
)
def test_profiles_whose_minutes_are_not_in_order_are_refused(tmp_path, edit):
    with pytest.raises(InputError, match="every minute once"):
        load_profiles(with_file(tmp_path, "load_profiles_csv", edit))


def test_a_profile_file_of_another_length_is_refused(tmp_path):
    with pytest.raises(InputError, match="1440"):
        load_profiles(with_file(tmp_path, "load_profiles_csv", lambda lines: lines[:-1]))
    with pytest.raises(InputError, match="parked_minutes"):
        ev_stays(
            with_file(tmp_path, "ev_sessions_csv", lambda ls: [x.replace("parked_minutes", "e") for x in ls])
        )
