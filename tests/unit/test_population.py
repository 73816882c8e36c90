"""The population: published counts, exact totals, names, shards, and what cannot be placed."""

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest

from voltier.agents.devices.base import Base
from voltier.agents.devices.battery import Battery
from voltier.agents.devices.block import FlexibleBlock
from voltier.agents.devices.deferrable import Deferrable
from voltier.agents.devices.ev import Car
from voltier.agents.devices.fleet import FleetSpec, Stays
from voltier.agents.devices.hvac import HeatPump
from voltier.agents.devices.pv import Pv
from voltier.agents.devices.water_heater import WaterHeater
from voltier.agents.population import build_population
from voltier.grid.errors import InputError
from voltier.grid.feeder import read_feeder
from voltier.scenarios.schema import load_scenario

FEEDER = read_feeder("ieee123")
WHOLE = build_population(FleetSpec(evs=40), FEEDER, 7)


def smos_with(device):
    """Positions of the SMOs that have a device of some kind."""
    return set(WHOLE.sma_smo[WHOLE.house_sma[device.at]].tolist())


def assert_same(one, other, but=()):
    """Two sets of houses have the same devices, but for fields named so."""
    np.testing.assert_array_equal(one.flex_price_usd_per_kwh, other.flex_price_usd_per_kwh)
    for device, same in zip(one.devices, other.devices, strict=True):
        assert type(device) is type(same)
        for field in fields(device):
            if f"{device.key}.{field.name}" not in but and device.key not in but:
                np.testing.assert_array_equal(getattr(device, field.name), getattr(same, field.name))


def test_counts_and_totals_are_the_published_ones():
    house = WHOLE.house
    assert len(WHOLE.smo_bus) == 85
    assert len(WHOLE.house_sma) == house.n == 1008
    kinds = (Base, HeatPump, WaterHeater, Pv, Battery, Car, Deferrable, FlexibleBlock)
    assert [len(house.kind(kind).at) for kind in kinds] == [1008, 1008, 348, 207, 173, 40, 0, 0]
    pv, battery = house.kind(Pv), house.kind(Battery)
    assert pv.rated_kva.sum() == pytest.approx(880.84, abs=1e-9)  # a sum of 207 roundings
    assert (battery.rated_kw == 5.0).all()
    with_pv, with_battery = smos_with(pv), smos_with(battery)
    assert (len(with_pv), len(with_battery), len(with_pv | with_battery)) == (68, 63, 82)


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
    assert_same(WHOLE.house, again.house)
    assert not np.array_equal(WHOLE.house.kind(Pv).rated_kva, other.house.kind(Pv).rated_kva)


@pytest.mark.parametrize("n", [1, 4, 7])
def test_shards_together_are_the_whole_to_the_last_bit(n):
    parts = [WHOLE.shard(k, n) for k in range(n)]
    for name in ("smo_index", "sma_index", "house_index"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, np.arange(len(joined)))
    for name in ("smo_bus", "sma_reliability", "house_phase", "house_bus"):
        np.testing.assert_array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(WHOLE, name))
    for row, device in enumerate(WHOLE.house.devices):
        for field in fields(device):
            pieces = [getattr(part.house.devices[row], field.name) for part in parts]
            if field.name == "at":  # positions inside a shard
                pieces = [part.house_index[piece] for part, piece in zip(parts, pieces, strict=True)]
            np.testing.assert_array_equal(np.concatenate(pieces), getattr(device, field.name))
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
    pump = WHOLE.house.kind(HeatPump)
    ranges = {
        "r_c_per_kw": (1.6, 2.4), "c_kwh_per_c": (1.6, 2.4), "cop": (2.7, 3.3), "rated_kw": (2.0, 5.0),
        "set_c": (20.5, 22.5),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        values = getattr(pump, name)
        assert low <= values.min() < values.max() <= high, name
    assert (pump.min_c < pump.set_c).all()
    assert (pump.set_c < pump.max_c).all()
    price = WHOLE.house.flex_price_usd_per_kwh
    assert 0.15 <= price.min() < price.max() <= 0.40


def test_bounds_of_heat_pumps_and_chargers_are_kept_and_move_nothing_else():
    spec = FleetSpec(evs=40, hvac_kw_min=6.5, hvac_kw_max=6.5, ev_kw_min=3.0, ev_kw_max=4.0)
    house = build_population(spec, FEEDER, 7).house
    assert set(house.kind(HeatPump).rated_kw) == {6.5}
    charger, wide = house.kind(Car).rated_kw, WHOLE.house.kind(Car).rated_kw
    assert len(charger) == 40 and charger.min() >= 3.0 and charger.max() <= 4.0
    # The same draw, stretched: a house with a larger charger still has a larger one.
    np.testing.assert_allclose((charger - 3.0) / 1.0, (wide - 2.0) / 8.0, atol=1e-12)
    assert_same(house, WHOLE.house, but=("hvac.rated_kw", "ev.rated_kw"))


def test_cars_leave_and_return_within_a_day_and_can_make_their_trip():
    car = WHOLE.house.kind(Car)
    parked_min = (car.away_min - car.home_min) % 1440
    assert set(parked_min) == {14 * 60, 15 * 60, 16 * 60}
    assert (car.away_min == 8 * 60).all()
    assert (car.trip_kwh <= 0.5 * car.capacity_kwh).all()
    for name in ("rated_kw", "capacity_kwh", "trip_kwh"):
        assert (getattr(car, name) > 0).all()
    np.testing.assert_array_equal(np.flatnonzero(WHOLE.house.spread(Car, "rated_kw")), car.at)


def test_no_car_drives_further_than_its_stay_at_home_can_charge():
    short = Stays(np.array([18 * 60]), np.array([90]))
    car = build_population(FleetSpec(evs=200), FEEDER, 7, stays=short).house.kind(Car)
    most_kwh = 0.95 * 1.5 * car.rated_kw
    assert (car.trip_kwh <= most_kwh + 1e-12).all()  # rounding
    assert (car.trip_kwh == most_kwh).any()
    assert (car.trip_kwh < most_kwh - 0.1).any()


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"evs": 0}, "ev"),
        ({"evs": 40, "v2g_share": 0.5}, "ev.discharges"),
        ({"evs": 40, "deferrables": 300}, "deferrable"),
        ({"evs": 40, "flexible_blocks": 5}, "block"),
    ],
)
def test_more_devices_of_a_kind_change_nothing_else(more, key):
    house = build_population(FleetSpec(**more), FEEDER, 7).house
    assert_same(house, WHOLE.house, but=(key,))
    with pytest.raises(AssertionError):
        assert_same(house, WHOLE.house)


def test_new_kinds_are_drawn_as_asked():
    spec = FleetSpec(evs=40, v2g_share=0.25, deferrables=300, flexible_blocks=5, flexible_block_kw=50.0)
    house = build_population(spec, FEEDER, 7).house
    assert house.kind(Car).discharges.sum() == 10
    load, block = house.kind(Deferrable), house.kind(FlexibleBlock)
    assert (len(load.at), len(block.at)) == (300, 5)
    wait_h = (load.deadline_min - load.release_min) % 1440 / 60
    assert (wait_h >= 4.0).all() and (wait_h <= 12.0).all()
    assert (load.energy_kwh < load.rated_kw * wait_h).all()  # so it can always be done
    assert set(block.ceiling_kw) == {50.0}
    assert ((block.floor_kw < block.arrival_kw) & (block.arrival_kw < block.ceiling_kw)).all()


def test_a_fleet_may_have_no_device_at_all():
    none = dict.fromkeys(
        ("water_heaters", "pv_units", "pv_nodes", "batteries", "battery_nodes", "dg_nodes"), 0
    )
    house = build_population(FleetSpec(**none, pv_kva=0.0), FEEDER, 7).house
    assert [device.key for device in house.devices if len(device.at)] == ["base", "hvac"]


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
        ("deferrables", 1009),
        ("flexible_blocks", 1009),
        ("v2g_share", 1.5),
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
