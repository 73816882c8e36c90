"""Bills, comfort, cars, batteries, own PV and delivered flexibility of a few houses, against sums done by hand."""

import numpy as np
import pytest

from voltier.grid.errors import InputError
from voltier.scenarios import households as source
from voltier.scenarios.households import (
    Equipment,
    Households,
    departures,
    self_use_share,
)
from voltier.scenarios.metrics_household import flexibility_kpis, household_kpis
from voltier.scenarios.panels import Block
from voltier.scenarios.schema import load_scenario

NAMES = np.array(["a", "b"], dtype=object)
MARKET = np.array(["sma_1", "sma_1"], dtype=object)
RECORDS = 4
SETTINGS = ["recording.consumer_period_s=900", "start=2020-07-15T00:00"]


def near(value):
    # Sums of a handful of doubles: off by rounding alone.
    return pytest.approx(value, rel=1e-12, abs=1e-12)


def equipment(**given):
    none, never = np.zeros(2), np.zeros(2, dtype=np.int64)
    return Equipment(
        **{
            "kind": NAMES, "set_c": np.full(2, 21.0), "min_c": np.full(2, 19.0), "max_c": np.full(2, 25.0),
            "pv_kva": none, "battery_kwh": none, "ev_kwh": none, "ev_target_kwh": none,
            "ev_away_min": never, "ev_home_min": never,
        } | given
    )  # fmt: skip


def houses(**given):
    """Two houses that draw 2 and 1 kW, at four records of 15 minutes."""
    flat = np.ones((RECORDS, 2))
    load = flat * [-2.0, -1.0]
    return Households(
        **{
            "t_s": 900 * np.arange(RECORDS), "period_h": 0.25, "start_minute": 0, "name": NAMES, "market": MARKET,
            "equipment": equipment(), "device_kw": {"base_kw": load, "pv_kw": 0.0 * flat},
            "temp_c": 21.0 * flat, "battery_kwh": 0.0 * flat, "ev_kwh": 0.0 * flat,
            "p0_kw": load, "p_min_kw": load, "p_max_kw": load, "p_kw": load, "p_meter_kw": load,
            "given_usd": 0.0 * flat,
            "paid_usd": 0.025 * flat * [2.0, 1.0],
        } | given
    )  # fmt: skip


def blocks(made):
    """The tables that these houses would have left."""
    share = {name: getattr(made, name) for name in source.SHARED}
    state = {"temp_indoor_c": made.temp_c, "battery_kwh": made.battery_kwh, "ev_kwh": made.ev_kwh}
    consumer = Block(made.t_s, {"cmo": made.market, "cma": made.name}, share)
    return consumer, Block(made.t_s, {"cma": made.name}, made.device_kw | state)


def kpis_of(made, monkeypatch, system=None, side=None, **more):
    scenario = load_scenario("ieee123-hour", SETTINGS)
    drawn = type("Drawn", (), {"house_name": tuple(made.name)})
    monkeypatch.setattr(source, "population_of", lambda _: drawn)
    monkeypatch.setattr(source, "equipment_of", lambda _: made.equipment)
    consumer, devices = blocks(made)
    devices = Block(devices.t_s, devices.keys, {**devices.values, **more})
    return household_kpis(consumer, devices, system, side, scenario)


def test_bills_are_sums_of_what_was_paid(monkeypatch):
    paid = np.array([[0.02, 0.05], [0.03, 0.05], [0.0, 0.05], [-0.01, 0.05]])
    given = np.array([[0.005, -0.005], [0.001, -0.001], [0.0, 0.0], [-0.002, 0.002]])
    side = Block(
        900 * np.arange(RECORDS),
        {"cmo": MARKET[:1]},
        {"side_payment_usd_per_h": np.full((RECORDS, 1), -0.04)},
    )
    kpis = kpis_of(houses(paid_usd=paid, given_usd=given), monkeypatch, side=side)
    assert kpis["bills.total_usd"] == near(0.24)
    assert kpis["bills.house_mean_usd"] == near(0.12)
    assert kpis["bills.house_median_usd"] == near(0.12)
    assert kpis["bills.house_p05_usd"] == near(0.95 * 0.04 + 0.05 * 0.2)
    assert kpis["bills.house_p95_usd"] == near(0.05 * 0.04 + 0.95 * 0.2)
    assert kpis["bills.transferred_usd"] == near(0.004)
    assert (kpis["bills.house_least_given_usd"], kpis["bills.house_most_given_usd"]) == (
        near(-0.004),
        near(0.004),
    )
    assert kpis["bills.side_payments_usd"] == near(-0.04)


def test_comfort_counts_hours_degrees_and_the_worst(monkeypatch):
    temp_c = np.array([[21.0, 26.0], [18.5, 25.5], [18.995, 23.0], [19.0, 21.0]])
    kpis = kpis_of(houses(temp_c=temp_c), monkeypatch)
    assert kpis["comfort.worst_excursion_c"] == 1.0
    assert kpis["comfort.outside_limits_house_h"] == near(3 * 0.25), "18.995 is less than 0.01 outside"
    assert kpis["comfort.outside_limits_c_h"] == near((1.0 + 0.5 + 0.5 + 0.005) * 0.25)
    assert kpis["comfort.mean_temp_indoor_c"] == near(temp_c.mean())
    assert kpis["comfort.rms_from_wanted_c"] == near(np.sqrt(((temp_c - 21.0) ** 2).mean()))


def test_hot_water_counts_where_it_is_recorded(monkeypatch):
    water = np.array([[44.0, np.nan], [50.0, np.nan], [60.5, np.nan], [60.0, np.nan]])
    kpis = kpis_of(houses(), monkeypatch, temp_water_c=water)
    assert kpis["comfort.water_outside_limits_house_h"] == near(0.5)
    assert kpis["comfort.water_worst_excursion_c"] == 1.0
    assert "comfort.water_worst_excursion_c" not in kpis_of(houses(), monkeypatch)


def with_car(away, home, energy, start_minute=0):
    car = equipment(
        ev_kwh=np.array([50.0, 0.0]), ev_target_kwh=np.array([45.0, 0.0]),
        ev_away_min=np.array([away, 0]), ev_home_min=np.array([home, 0]),
    )  # fmt: skip
    ev_kwh = np.column_stack([energy, np.zeros(RECORDS)])
    return houses(equipment=car, ev_kwh=ev_kwh, start_minute=start_minute)


def test_a_car_is_judged_by_the_first_record_after_it_left(monkeypatch):
    # Records hold the energy at the end of minutes 0, 15, 30, 45; the car leaves as minute 20 begins.
    made = with_car(20, 600, [40.0, 42.0, 43.0, 43.0])
    left = departures(made)
    assert (left.house.tolist(), left.record.tolist(), left.minute.tolist()) == ([0], [2], [20])
    kpis = kpis_of(made, monkeypatch)
    assert (kpis["ev.cars"], kpis["ev.departures"], kpis["ev.departures_below_target"]) == (1, 1, 1)
    assert kpis["ev.missing_kwh"] == near(2.0)
    assert kpis["ev.min_soc_share"] == near(0.8)


@pytest.mark.parametrize(
    ("away", "home", "start_minute", "records"),
    [
        (31, 600, 0, [2]),  # leaves with the end of minute 30, which the third record tells
        (32, 600, 0, [3]),
        (47, 600, 0, []),  # no record left
        (0, 600, 0, []),  # had left before the run
        (20, 25, 0, [1]),  # home again before the next record: the one before it left
        (20, 600, 1430, [2]),  # the run starts ten minutes to midnight
        (10, 600, 1430, [2]),
    ],
)
def test_departures_find_their_records(away, home, start_minute, records):
    made = with_car(away, home, [46.0] * RECORDS, start_minute)
    left = departures(made)
    assert left.record.tolist() == records
    assert left.missing_kwh.tolist() == [0.0] * len(records)


def test_states_of_charge_against_their_limits(monkeypatch):
    owns = equipment(battery_kwh=np.array([0.0, 10.0]))
    battery_kwh = np.array([[0.0, 5.0], [0.0, 0.8], [0.0, 9.5], [0.0, 1.0]])
    kpis = kpis_of(houses(equipment=owns, battery_kwh=battery_kwh), monkeypatch)
    assert kpis["battery.outside_soc_limits_house_h"] == near(0.25)
    assert kpis["battery.worst_soc_excess_kwh"] == near(0.2)
    assert (kpis["battery.min_soc_share"], kpis["battery.max_soc_share"]) == (near(0.08), near(0.95))
    assert not any(key.startswith(("ev.", "pv.")) for key in kpis), "nobody has a car or PV"


def test_own_use_of_pv_counts_what_the_house_takes_behind_its_meter(monkeypatch):
    pv = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 0.0], [1.0, 0.0]])
    battery = np.array([[0.0, 0.0], [-0.5, 0.0], [2.0, 0.0], [0.0, 0.0]])
    base = np.ones((RECORDS, 2)) * [-2.0, -1.0]
    owns = equipment(pv_kva=np.array([4.0, 0.0]), battery_kwh=np.array([10.0, 0.0]))
    made = houses(
        equipment=owns, device_kw={"base_kw": base, "pv_kw": pv, "battery_kw": battery},
        battery_kwh=np.full((RECORDS, 2), 5.0) * [1.0, 0.0],
    )  # fmt: skip
    used = self_use_share(made)
    assert used[0] == near((2.5 + 2.0 + 1.0) / 7.0), "a discharging battery takes up no PV"
    assert np.isnan(used[1])
    # The sun is known at every second record only, so each of them stands for half an hour.
    system = Block(np.array([0, 1800]), {}, {"pv_available": np.array([[0.1], [0.9]])})
    kpis = kpis_of(made, monkeypatch, system=system)
    assert kpis["pv.self_used_kwh"] == near(5.5 * 0.25)
    assert kpis["pv.self_use_share"] == near(5.5 / 7.0)
    assert kpis["pv.available_kwh"] == near((0.4 + 3.6) * 0.5)
    assert kpis["pv.curtailed_kwh"] == near((0.4 + 0.6) * 0.5)


def test_delivered_flexibility_is_what_came_in_the_direction_of_the_call():
    p0, p, meter = np.array([[[-5.0], [-5.0], [-5.0]], [[-3.0], [-7.0], [-5.0]], [[-4.0], [-6.5], [-4.0]]])
    block = Block(np.array([0, 60, 120]), {}, {"p0_kw": p0, "p_kw": p, "p_meter_kw": meter})
    kpis = flexibility_kpis(block)
    expected = {
        "called_up": 2.0,
        "called_down": 2.0,
        "delivered_up": 1.0,
        "delivered_down": 1.5,
        "missed": 2.5,
    }
    assert {key: kpis[f"flexibility.{key}_kwh"] for key in expected} == {
        key: near(value / 60.0) for key, value in expected.items()
    }
    assert kpis["flexibility.delivered_share"] == near(2.5 / 4.0)
    quiet = flexibility_kpis(
        Block(np.array([0]), {}, {"p0_kw": p0[:1], "p_kw": p0[:1], "p_meter_kw": p0[:1]})
    )
    assert quiet["flexibility.called_up_kwh"] == 0.0 and "flexibility.delivered_share" not in quiet
    assert (
        flexibility_kpis(None) == {} == household_kpis(None, None, None, None, load_scenario("ieee123-hour"))
    )


def test_tables_of_another_version_are_refused(monkeypatch):
    made = houses(battery_kwh=np.full((RECORDS, 2), 5.0))
    with pytest.raises(InputError, match=r"other houses .* repeat the run"):
        kpis_of(made, monkeypatch)
    consumer, devices = blocks(houses())
    del consumer.values["paid_usd"]
    monkeypatch.setattr(source, "equipment_of", lambda _: houses().equipment)
    with pytest.raises(InputError, match=r"paid_usd.*repeat the run"):
        household_kpis(consumer, devices, None, None, load_scenario("ieee123-hour"))
