"""Houses: what they offer are boxes within ratings, and moving them conserves power, whatever their state and plan."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from voltier.agents.devices import battery, water_heater
from voltier.agents.devices.device import Moment, Wish
from voltier.agents.devices.fleet import FleetSpec
from voltier.agents.devices.pv import Pv
from voltier.agents.houses import at_rest, make_offer, move_devices
from voltier.agents.population import build_population
from voltier.grid.feeder import read_feeder

SPEC = FleetSpec(evs=60, v2g_share=0.5, deferrables=200, flexible_blocks=10)
HOUSE = build_population(SPEC, read_feeder("ieee123"), 11).house
N = HOUSE.n
WINDOW_H = 5 / 60
RATED = {device.key: getattr(device, "rated_kw", None) for device in HOUSE.devices}
BATTERY, CAR = HOUSE.devices[4], HOUSE.devices[5]

settled = settings(max_examples=25, deadline=None)
worlds = st.builds(
    lambda seed, air, minute: (np.random.default_rng(seed), air, minute),
    st.integers(0, 2**32 - 1),
    st.floats(-5, 38),
    st.integers(0, 1439),
)


def offer_of(world):
    """Offer of houses anywhere inside their limits, with any plan and any guard."""
    rng, air_c, minute = world
    low, high = battery.SOC_MIN, battery.SOC_MAX
    state = at_rest(HOUSE, minute) | {
        "hvac": rng.uniform(19, 25, N),
        "water_heater": rng.uniform(water_heater.MIN_C, water_heater.MAX_C, len(HOUSE.devices[2].at)),
        "battery": rng.uniform(low, high, len(BATTERY.at)) * BATTERY.capacity_kwh,
        "ev": rng.uniform(0.3, 0.9, len(CAR.at)) * CAR.capacity_kwh,
        "block": rng.uniform(0.0, 1.0, 10) * HOUSE.devices[7].queue_kwh,
    }
    moment = Moment(rng.uniform(0.1, 2.0, N), air_c, rng.random(), minute)
    wishes = {}
    for device in HOUSE.devices:
        n, thermal = len(device.at), device.key in ("hvac", "water_heater")
        at = rng.uniform(*((19, 25) if device.key == "hvac" else (45, 60)), (3, n))
        guard = at[1:] if thermal else np.array([np.full(n, -np.inf), np.full(n, np.inf)])
        wishes[device.key] = Wish(at[0], rng.uniform(-30, 10, n), *guard, 1.0)
    return make_offer(HOUSE, state, moment, wishes, WINDOW_H)


@settled
@given(worlds)
def test_offers_are_boxes_within_the_ratings(world):
    offer = offer_of(world)
    assert (offer.up_kw >= 0.0).all()
    assert (offer.down_kw >= 0.0).all()
    near = 1e-9  # rounding of the limits of energy, over the window
    least, most = offer.device_kw - offer.down_kw, offer.device_kw + offer.up_kw
    for row, device in enumerate(HOUSE.devices):
        rated = RATED[device.key]
        if rated is not None:
            both = rated * (device.discharges if device is CAR else float(device is BATTERY))
            assert (least[row, device.at] >= -rated - near).all()
            assert (most[row, device.at] <= both + near).all()
        others = np.delete(np.arange(N), device.at)
        assert not least[row, others].any() and not most[row, others].any()


@settled
@given(worlds, st.floats(-1, 1))
def test_moving_devices_moves_the_house_by_exactly_that(world, share):
    offer = offer_of(world)
    box = offer.up_kw if share >= 0 else offer.down_kw
    moved = share * box.sum(axis=0)
    device = move_devices(offer, moved)
    np.testing.assert_allclose(device.sum(axis=0), offer.p0_kw + moved, atol=1e-11)  # rounding of eight terms
    assert (device <= offer.device_kw + offer.up_kw + 1e-11).all()
    assert (device >= offer.device_kw - offer.down_kw - 1e-11).all()


@settled
@given(worlds)
def test_inverters_stay_within_power_factor_and_rating(world):
    offer = offer_of(world)
    both_ways = np.abs(offer.device_kw[5])
    both_ways[CAR.at] *= CAR.discharges
    limit = 0.75 * (np.abs(offer.device_kw[3]) + np.abs(offer.device_kw[4]) + both_ways)
    assert (offer.q_room_kvar <= limit + 1e-12).all()
    rating = (
        HOUSE.spread(Pv, "rated_kva")
        + HOUSE.spread(type(BATTERY), "rated_kw")
        + HOUSE.spread(type(CAR), "rated_kw")
    )
    assert (offer.q_room_kvar <= rating + 1e-12).all()
