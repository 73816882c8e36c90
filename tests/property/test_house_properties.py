"""Houses: what they offer can be delivered, whatever their state, and moving them conserves power."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from voltier.agents.devices import battery, hvac, water_heater
from voltier.agents.houses import (
    BATTERY,
    HVAC,
    WATER,
    HouseState,
    Moment,
    Target,
    make_offer,
    move_devices,
    step_houses,
)
from voltier.agents.population import FleetSpec, build_population
from voltier.grid.feeder import read_feeder

HOUSE = build_population(FleetSpec(evs=60), read_feeder("ieee123"), 11).house
N = len(HOUSE.set_c)
WINDOW_MIN = 5
HAS_TANK, HAS_BATTERY = HOUSE.water_kw > 0, HOUSE.battery_kw > 0

settled = settings(max_examples=25, deadline=None)
worlds = st.builds(
    lambda seed, air, minute: (np.random.default_rng(seed), air, minute),
    st.integers(0, 2**32 - 1),
    st.floats(-5, 38),
    st.integers(0, 1439),
)


def draw(world):
    """Houses anywhere inside their limits, with any plan."""
    rng, air_c, minute = world
    low, high = battery.SOC_MIN, battery.SOC_MAX
    state = HouseState(
        temp_c=rng.uniform(HOUSE.min_c, HOUSE.max_c),
        water_c=rng.uniform(water_heater.MIN_C, water_heater.MAX_C, N),
        battery_kwh=rng.uniform(low, high, N) * HOUSE.battery_kwh,
        ev_kwh=rng.uniform(0.3, 0.9, N) * HOUSE.ev_kwh,
    )
    moment = Moment(rng.uniform(0.1, 2.0, N), air_c, rng.random(), minute)
    target = Target(
        temp_c=rng.uniform(HOUSE.min_c, HOUSE.max_c),
        water_c=rng.uniform(water_heater.MIN_C, water_heater.MAX_C, N),
        battery_kw=rng.uniform(-6, 6, N),
        ev_kw=-rng.uniform(0, 10, N),
        ahead_h=1.0,
    )
    return state, moment, target


def offer_of(world):
    state, moment, target = draw(world)
    return state, moment, make_offer(HOUSE, state, moment, target, WINDOW_MIN / 60)


@settled
@given(worlds)
def test_offers_are_boxes_within_the_ratings(world):
    _, _, offer = offer_of(world)
    assert (offer.up_kw >= -1e-12).all()  # rounding of a difference
    assert (offer.down_kw >= -1e-12).all()
    least, most = offer.device_kw - offer.down_kw, offer.device_kw + offer.up_kw
    for row, rated in ((HVAC, HOUSE.hvac_kw), (WATER, HOUSE.water_kw), (BATTERY, HOUSE.battery_kw)):
        assert (least[row] >= -rated - 1e-9).all()
        assert (most[row] <= (rated if row == BATTERY else 0) + 1e-9).all()


@settled
@given(worlds, st.sampled_from([-1, 1]))
def test_a_full_call_can_be_held_for_the_window(world, side):
    state, moment, offer = offer_of(world)
    device = offer.device_kw + (offer.up_kw if side > 0 else -offer.down_kw)
    held = state
    for _ in range(WINDOW_MIN):
        held = step_houses(HOUSE, held, moment, device)
    soc = held.battery_kwh[HAS_BATTERY] / HOUSE.battery_kwh[HAS_BATTERY]
    assert soc.min() >= battery.SOC_MIN - 1e-9
    assert soc.max() <= battery.SOC_MAX + 1e-9
    # houses that the weather carries out of comfort at either end of the rating are not the offer's doing
    theta, gain = hvac.coefficients(
        HOUSE.r_c_per_kw, HOUSE.c_kwh_per_c, HOUSE.cop, HOUSE.set_c, moment.temp_air_c, WINDOW_MIN / 60
    )
    rest = np.full(N, moment.temp_air_c)
    ends = np.stack(
        [hvac.step_temperature(state.temp_c, rest, theta, gain, c) for c in (np.zeros(N), HOUSE.hvac_kw)]
    )
    can_stay = (ends.max(axis=0) >= HOUSE.min_c) & (ends.min(axis=0) <= HOUSE.max_c)
    assert (held.temp_c >= HOUSE.min_c - 1e-9)[can_stay].all()
    assert (held.temp_c <= HOUSE.max_c + 1e-9)[can_stay].all()


@settled
@given(worlds, st.floats(-1, 1))
def test_moving_devices_moves_the_house_by_exactly_that(world, share):
    _, _, offer = offer_of(world)
    box = offer.up_kw if share >= 0 else offer.down_kw
    moved = share * box.sum(axis=0)
    device = move_devices(offer, moved)
    np.testing.assert_allclose(device.sum(axis=0), offer.p0_kw + moved, atol=1e-11)  # rounding of six terms
    assert (device <= offer.device_kw + offer.up_kw + 1e-11).all()
    assert (device >= offer.device_kw - offer.down_kw - 1e-11).all()


@settled
@given(worlds)
def test_inverters_stay_within_power_factor_and_rating(world):
    _, _, offer = offer_of(world)
    limit = 0.75 * (np.abs(offer.device_kw[3]) + np.abs(offer.device_kw[BATTERY]))
    assert (offer.q_room_kvar <= limit + 1e-12).all()
    assert (offer.q_room_kvar <= HOUSE.pv_kva + HOUSE.battery_kw + 1e-12).all()
