"""The population: published counts, exact totals, names, shards, and what cannot be placed."""

import itertools
from dataclasses import fields, replace

import numpy as np
import pytest

from voltier.agents.population import FleetSpec, build_population
from voltier.grid.errors import InputError
from voltier.grid.feeder import read_feeder

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


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"houses": 200}, "houses"),
        ({"dg_nodes": 90, "pv_nodes": 80}, "dg_nodes"),
        ({"pv_nodes": 20, "pv_units": 900}, "pv_units"),
    ],
)
def test_what_cannot_be_placed_is_named(change, field):
    with pytest.raises(InputError) as caught:
        build_population(replace(FleetSpec(), **change), FEEDER, 1)
    assert any(field in problem.field for problem in caught.value.problems)
