"""The population: published counts, exact totals, names, shards, and what cannot be placed."""

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest

from voltier.agents.population import FleetSpec, build_population
from voltier.grid.errors import InputError
from voltier.grid.feeder import read_feeder
from voltier.scenarios.schema import load_scenario

FEEDER = read_feeder("ieee123")
WHOLE = build_population(FleetSpec(evs=40), FEEDER, 7)


def smos_with(rating):
    """Positions of the SMOs that have a device of some rating."""
    return set(WHOLE.sma_smo[WHOLE.house_sma[rating > 0]].tolist())


def test_counts_and_totals_are_the_published_ones():
    house = WHOLE.house
    assert len(WHOLE.smo_bus) == 85
    assert len(WHOLE.house_sma) == 1008
    rated = (house.water_kw, house.pv_kva, house.battery_kw)
    assert [int((rating > 0).sum()) for rating in rated] == [
        348,
        207,
        173,
    ]
    assert house.pv_kva.sum() == pytest.approx(880.84, abs=1e-9)  # a sum of 207 roundings
    assert (house.battery_kw[house.battery_kw > 0] == 5.0).all()
    pv, battery = smos_with(house.pv_kva), smos_with(house.battery_kw)
    assert (len(pv), len(battery), len(pv | battery)) == (68, 63, 82)
    assert int((house.ev_kw > 0).sum()) == 40


def test_operators_are_the_load_buses_and_houses_follow_their_load():
    np.testing.assert_array_equal(WHOLE.smo_bus, FEEDER.load_buses)
    kw = np.bincount(FEEDER.spot_loads.bus, FEEDER.spot_loads.p_kw, minlength=len(FEEDER.bus))[WHOLE.smo_bus]
    houses = np.bincount(WHOLE.sma_smo[WHOLE.house_sma], minlength=85)
    # largest remainder: off by less than a house, and a little for the least of three at each bus
    assert np.abs(houses - 1008 * kw / kw.sum()).max() < 1.5


def test_every_operator_has_three_to_ten_agents_of_nearly_equal_size():
    smas = np.bincount(WHOLE.sma_smo)
    assert smas.min() >= 3
    assert smas.max() <= 10
    houses = np.bincount(WHOLE.house_sma, minlength=len(WHOLE.sma_name))
    for i in range(85):
        assert np.ptp(houses[WHOLE.sma_smo == i]) <= 1


def test_houses_stand_on_phases_that_their_bus_load_has():
    loaded = np.zeros((len(FEEDER.bus), 3), dtype=bool)
    for bus, phases in zip(FEEDER.spot_loads.bus, FEEDER.spot_loads.phase, strict=True):
        for phase in phases:
            loaded[bus, "abc".index(phase)] = True
    assert loaded[WHOLE.house_bus, WHOLE.house_phase].all()


def test_a_delta_load_is_spread_over_its_two_phases():
    at_35 = WHOLE.house_bus == FEEDER.bus.index("35")  # one delta load, a to b
    count = np.bincount(WHOLE.house_phase[at_35], minlength=3)
    assert count[2] == 0
    assert abs(int(count[0]) - int(count[1])) <= 1


def test_names_are_unique_and_speak_of_the_bus():
    for names in (WHOLE.smo_name, WHOLE.sma_name, WHOLE.house_name):
        assert len(set(names)) == len(names)
    assert WHOLE.smo_name[0] == f"smo_{FEEDER.bus[WHOLE.smo_bus[0]]}"
    assert WHOLE.sma_name[0].startswith(f"sma_{FEEDER.bus[WHOLE.smo_bus[0]]}_")


def test_one_seed_one_population():
    again, other = (
        build_population(FleetSpec(evs=40), FEEDER, 7),
        build_population(FleetSpec(evs=40), FEEDER, 8),
    )
    for field in fields(WHOLE.house):
        np.testing.assert_array_equal(getattr(WHOLE.house, field.name), getattr(again.house, field.name))
    assert not np.array_equal(WHOLE.house.pv_kva, other.house.pv_kva)


@pytest.mark.parametrize("n", [1, 4, 7])
def test_shards_together_are_the_whole_to_the_last_bit(n):
    parts = [WHOLE.shard(k, n) for k in range(n)]
    for name in ("smo_index", "sma_index", "house_index"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, np.arange(len(joined)))
    for name in ("smo_bus", "sma_reliability", "house_phase", "house_bus"):
        np.testing.assert_array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(WHOLE, name))
    for field in fields(WHOLE.house):
        joined = np.concatenate([getattr(part.house, field.name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(WHOLE.house, field.name))
    assert tuple(itertools.chain(*(part.house_name for part in parts))) == WHOLE.house_name
    for part in parts:  # positions inside a shard begin at zero
        assert (part.sma_smo[0], part.house_sma[0]) == (0, 0)
        np.testing.assert_array_equal(
            part.sma_offset, np.searchsorted(part.house_sma, np.arange(len(part.sma_name) + 1))
        )


def test_more_shards_than_operators_are_refused():
    with pytest.raises(InputError, match=r"federation\.shards = 86"):
        WHOLE.shard(0, 86)


def test_reliability_follows_its_shares():
    share = np.bincount(WHOLE.sma_reliability, minlength=3) / len(WHOLE.sma_name)
    # some 340 draws: four standard deviations of a share are below 0.11
    np.testing.assert_allclose(share, [0.6, 0.25, 0.15], atol=0.11)
    sure = build_population(FleetSpec(reliable_share=1.0, average_share=0.0, unreliable_share=0.0), FEEDER, 7)
    assert not sure.sma_reliability.any()


def test_parameters_are_drawn_within_their_published_ranges():
    house = WHOLE.house
    ranges = {
        "r_c_per_kw": (1.6, 2.4), "c_kwh_per_c": (1.6, 2.4), "cop": (2.7, 3.3), "hvac_kw": (2.0, 5.0),
        "set_c": (20.5, 22.5), "flex_price_usd_per_kwh": (0.15, 0.40),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        values = getattr(house, name)
        assert low <= values.min() < values.max() <= high, name
    assert (house.min_c < house.set_c).all()
    assert (house.set_c < house.max_c).all()


def test_bounds_of_heat_pumps_and_chargers_are_kept_and_move_nothing_else():
    spec = FleetSpec(evs=40, hvac_kw_min=6.5, hvac_kw_max=6.5, ev_kw_min=3.0, ev_kw_max=4.0)
    house = build_population(spec, FEEDER, 7).house
    assert set(house.hvac_kw) == {6.5}
    charger = house.ev_kw[house.ev_kw > 0]
    assert len(charger) == 40 and charger.min() >= 3.0 and charger.max() <= 4.0
    # The same draw, stretched: a house with a larger charger still has a larger one.
    wide = WHOLE.house.ev_kw[house.ev_kw > 0]
    np.testing.assert_allclose((charger - 3.0) / 1.0, (wide - 2.0) / 8.0, atol=1e-12)
    for field in fields(house):
        if field.name not in ("hvac_kw", "ev_kw"):
            np.testing.assert_array_equal(getattr(house, field.name), getattr(WHOLE.house, field.name))


def test_cars_leave_and_return_within_a_day_and_can_make_their_trip():
    house, car = WHOLE.house, WHOLE.house.ev_kw > 0
    parked_min = (house.ev_away_min - house.ev_home_min) % 1440
    assert set(parked_min[car]) == {14 * 60, 15 * 60, 16 * 60}
    assert (house.ev_away_min[car] == 8 * 60).all()
    assert (house.ev_trip_kwh[car] <= 0.5 * house.ev_kwh[car]).all()
    for name in ("ev_kw", "ev_kwh", "ev_trip_kwh"):
        assert (getattr(house, name)[car] > 0).all()
        assert not getattr(house, name)[~car].any()


def test_cars_change_nothing_else():
    without = build_population(FleetSpec(), FEEDER, 7)
    assert not without.house.ev_kw.any()
    for field in fields(WHOLE.house):
        if not field.name.startswith("ev_"):
            np.testing.assert_array_equal(
                getattr(without.house, field.name), getattr(WHOLE.house, field.name)
            )


def test_a_fleet_may_have_no_device_at_all():
    none = dict.fromkeys(
        ("water_heaters", "pv_units", "pv_nodes", "batteries", "battery_nodes", "dg_nodes"), 0
    )
    house = build_population(FleetSpec(**none, pv_kva=0.0), FEEDER, 7).house
    assert not any(rating.any() for rating in (house.water_kw, house.pv_kva, house.battery_kw))


def test_the_smallest_fleet_has_sma_min_houses_at_each_bus():
    small = {"houses": 255, "water_heaters": 20, "pv_units": 70, "batteries": 70}
    least = build_population(FleetSpec(**small), FEEDER, 7)
    np.testing.assert_array_equal(np.bincount(least.sma_smo[least.house_sma]), np.full(85, 3))


def test_more_than_ten_agents_come_only_if_asked_for():
    crowd = build_population(FleetSpec(houses=3000, sma_min=12), FEEDER, 7)
    np.testing.assert_array_equal(np.bincount(crowd.sma_smo), np.full(85, 12))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"houses": 200}, "houses"),
        ({"sma_min": 12}, "houses"),
        ({"dg_nodes": 90, "pv_nodes": 80}, "dg_nodes"),
        ({"pv_nodes": 20, "pv_units": 900}, "pv_units"),
        ({"battery_nodes": 20, "batteries": 900}, "batteries"),
    ],
)
def test_what_cannot_be_placed_is_named(change, field):
    with pytest.raises(InputError) as caught:
        build_population(replace(FleetSpec(), **change), FEEDER, 1)
    assert any(field in problem.field for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("water_heaters", 1009),
        ("pv_units", 1009),
        ("batteries", 1009),
        ("evs", 1009),
        ("pv_nodes", 83),
        ("battery_nodes", 174),
        ("dg_nodes", 132),
        ("pv_kva", 0.0),
        ("reliable_share", 0.5),
    ],
)
def test_counts_that_contradict_each_other_are_refused_with_the_scenario(field, value):
    with pytest.raises(InputError, match=field):
        load_scenario("ieee123-day", [f"fleet.{field}={value}"])
