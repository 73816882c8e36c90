"""What is offered can be called, minute after minute, in any order, for whole days, whatever the plan had been.

Nothing here trusts the planner: plans are random, calls are adversarial, weather is read from the packaged year.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from voltier.agents.devices.battery import Battery
from voltier.agents.devices.block import FlexibleBlock
from voltier.agents.devices.deferrable import Deferrable
from voltier.agents.devices.device import Moment, Outlook
from voltier.agents.devices.ev import Car, at_home
from voltier.agents.devices.fleet import FleetSpec
from voltier.agents.devices.hvac import HeatPump
from voltier.agents.devices.water_heater import WaterHeater
from voltier.agents.houses import at_rest, make_offer, move_devices, realise, step_houses
from voltier.agents.plan import HousePlan, KindPlan
from voltier.agents.population import build_population
from voltier.grid.feeder import read_feeder
from voltier.scenarios.inputs import conditions, ev_stays
from voltier.scenarios.schema import load_scenario

DAY, NOON, WINDOW_S = 1440, 720, 300
NEAR = 1e-9  # rounding of a day of sums, against limits met exactly
COLDEST = "2020-01-24"
SCENARIO = load_scenario("ieee123-day")
SPEC = FleetSpec(evs=400, v2g_share=0.4, deferrables=500, flexible_blocks=60)
HOUSE = build_population(SPEC, read_feeder("ieee123"), 17, stays=ev_stays(SCENARIO)).house
N = HOUSE.n
CAR, ROOM, TANK = HOUSE.kind(Car), HOUSE.kind(HeatPump), HOUSE.kind(WaterHeater)
STORE, LOAD, BLOCK = HOUSE.kind(Battery), HOUSE.kind(Deferrable), HOUSE.kind(FlexibleBlock)


@dataclass
class Replay:
    """What a day of calls did, the worst of all minutes: (n,) arrays."""

    coldest_c: np.ndarray
    warmest_c: np.ndarray
    tank_least_c: float
    tank_most_c: float
    soc_least: float
    soc_most: float
    car_least_soc: float
    missing_kwh: np.ndarray
    undone_kwh: float
    longest_queue: float
    queue_due_kwh: float
    band_least_kw: float
    called_kwh: float


def series(start):
    """Minutes from noon on, two days of them: air and sun."""
    settings = [f"start={start} 12:00", "hours=24", "consumer.horizon_h=26"]
    given = conditions(load_scenario("ieee123-day", settings))
    return given.temp_air_c[1:], given.pv_available[1:]  # without the minute of warming up


def outlook(minute, air_c, sun):
    hours = minute + 60 * np.arange(24)
    mean = [slice(h, h + 60) for h in hours]
    return Outlook(
        t_s=60 * minute, step_h=1.0, price_usd_per_kwh=np.full((N, 24), 0.1),
        temp_air_c=np.array([air_c[at].mean() for at in mean]), pv_available=np.array([sun[at].mean() for at in mean]),
        hour_of_day=(12.5 + hours / 60) % 24,
    )  # fmt: skip


def any_plan(forecast, rng):
    """A plan drawn blindly: temperatures within comfort, powers beyond every rating."""
    span = {"hvac": (19.0, 25.0), "water_heater": (45.0, 60.0)}
    kinds = {}
    for device in HOUSE.devices:
        n = len(device.at)
        x = rng.uniform(*span.get(device.key, (0.0, 1.0)), (n, 24))
        kinds[device.key] = KindPlan(x, rng.uniform(-30, 12, (n, 24)), *device.guard(forecast))
    return HousePlan(forecast.t_s, 1.0, kinds, np.zeros(N), np.zeros(N), 0, 0)


def slack(state, minute):
    """How far each house is from trouble to below (more injection would bring it) and to above, normalised."""
    low, high = np.full((2, N), np.inf)
    for device, least, most, size in (
        (ROOM, 19.0, 25.0, 6.0),
        (TANK, 45.0, 60.0, 15.0),
        (STORE, 0.1 * STORE.capacity_kwh, 0.95 * STORE.capacity_kwh, STORE.capacity_kwh),
        (CAR, 0.1 * CAR.capacity_kwh, 0.95 * CAR.capacity_kwh, CAR.capacity_kwh),
    ):
        x = state[device.key]
        low[device.at] = np.minimum(low[device.at], (x - least) / size)
        high[device.at] = np.minimum(high[device.at], (most - x) / size)
    return low, high


def worst(offer, state, minute, rng):
    """Push each house to the limit that it is nearest to already."""
    low, high = slack(state, minute)
    return np.where(low < high, 1.0, -1.0)


CALLS = {
    "none": lambda offer, state, minute, rng: np.zeros(N),
    "up": lambda offer, state, minute, rng: np.ones(N),
    "down": lambda offer, state, minute, rng: -np.ones(N),
    "alternating": lambda offer, state, minute, rng: np.full(N, 1.0 - 2.0 * (minute % 2)),
    "slowly alternating": lambda offer, state, minute, rng: np.full(N, 1.0 - 2.0 * (minute // 90 % 2)),
    "random": lambda offer, state, minute, rng: rng.uniform(-1, 1, N),
    "worst": worst,
}


def replay(call, start, seed=3):
    """Run a day from noon to noon in which every house is called as the named adversary likes."""
    air_c, sun = series(start)
    rng, state = np.random.default_rng(seed), at_rest(HOUSE, NOON)
    seen = Replay(
        np.full(N, np.inf), np.full(N, -np.inf), np.inf, -np.inf, np.inf, -np.inf, np.inf,
        np.zeros(len(CAR.at)), 0.0, 0.0, 0.0, np.inf, 0.0,
    )  # fmt: skip
    for minute in range(DAY):
        day_min, last = (NOON + minute) % DAY, max(minute - 1, 0)
        if minute % 60 == 0:
            plan = any_plan(outlook(minute, air_c, sun), np.random.default_rng([seed, minute]))
        # an offer knows the air and the sun of the minute before
        before = Moment(rng.uniform(0.1, 2.0, N), air_c[last], sun[last], day_min)
        offer = make_offer(HOUSE, state, before, plan.at(60 * minute, WINDOW_S), WINDOW_S / 3600)
        share = CALLS[call](offer, state, minute, rng)
        moved = np.where(share >= 0, share * offer.up_kw.sum(axis=0), share * offer.down_kw.sum(axis=0))
        now = replace(before, temp_air_c=air_c[minute], pv_available=sun[minute])
        state = step_houses(HOUSE, state, now, realise(HOUSE, offer, move_devices(offer, moved), now))
        _see(seen, state, offer, (day_min + 1) % DAY, moved)
    return seen


def _see(seen, state, offer, minute, moved):
    seen.coldest_c = np.minimum(seen.coldest_c, state["hvac"])
    seen.warmest_c = np.maximum(seen.warmest_c, state["hvac"])
    seen.tank_least_c = min(seen.tank_least_c, state["water_heater"].min())
    seen.tank_most_c = max(seen.tank_most_c, state["water_heater"].max())
    soc = state["battery"] / STORE.capacity_kwh
    seen.soc_least, seen.soc_most = min(seen.soc_least, soc.min()), max(seen.soc_most, soc.max())
    seen.car_least_soc = min(seen.car_least_soc, (state["ev"] / CAR.capacity_kwh).min())
    leaves = (CAR.away_min == minute) & ~at_home(minute, CAR.away_min, CAR.home_min)
    seen.missing_kwh = np.maximum(seen.missing_kwh, np.where(leaves, CAR.target_kwh - state["ev"], 0.0))
    seen.undone_kwh = max(seen.undone_kwh, state["deferrable"][LOAD.deadline_min == minute].max(initial=0.0))
    seen.longest_queue = max(seen.longest_queue, (state["block"] - BLOCK.queue_kwh).max())
    seen.queue_due_kwh = max(seen.queue_due_kwh, state["block"][BLOCK.due_min == minute].max(initial=0.0))
    seen.band_least_kw = min(seen.band_least_kw, offer.up_kw.min(), offer.down_kw.min())
    seen.called_kwh += float(np.abs(moved).sum()) / 60


def assert_kept(seen):
    """All limits but those of rooms, which the weather may break."""
    assert seen.band_least_kw >= 0.0  # the wish always lies inside the band
    assert seen.tank_least_c >= 45.0
    assert seen.tank_most_c <= 60.0
    assert seen.soc_least >= 0.1 - NEAR
    assert seen.soc_most <= 0.95 + NEAR
    assert seen.car_least_soc >= 0.1 - NEAR
    assert (seen.missing_kwh <= NEAR).all()
    assert seen.undone_kwh <= NEAR
    assert seen.longest_queue <= NEAR
    assert seen.queue_due_kwh <= NEAR


@pytest.mark.parametrize(
    ("call", "start"),
    [
        ("random", "2020-07-15"),
        ("alternating", "2020-07-15"),
        ("up", "2020-06-30"),  # the hottest day: calls keep the rooms from being cooled
        ("down", "2020-06-30"),
        ("worst", "2020-07-15"),
        ("slowly alternating", "2020-06-30"),
    ],
)
def test_a_day_of_calls_breaks_no_limit_of_any_house(call, start):
    seen = replay(call, start)
    assert seen.called_kwh > 20_000.0  # the day has 30,000 kWh of load: the adversary had something to call
    assert_kept(seen)
    assert (seen.coldest_c >= 19.0).all()
    assert (seen.warmest_c <= 25.0).all()


def test_on_the_coldest_day_calls_make_no_room_colder_that_no_pump_could_have_kept_warm():
    free = replay("none", COLDEST)
    too_small = free.coldest_c < 19.0
    assert 0 < too_small.sum() < 0.05 * N  # so the test has something to see
    seen = replay("up", COLDEST)
    assert_kept(seen)
    assert (seen.coldest_c[~too_small] >= 19.0).all()
    assert (seen.warmest_c <= 25.0).all()
    # rooms forget: what was called the afternoon before is gone by the coldest hour but for this much
    assert (seen.coldest_c >= free.coldest_c - 1e-3)[too_small].all()


def test_an_offer_that_forgot_the_departure_would_be_found_out(monkeypatch):
    """The adversary is strong enough to need the guards: with all the time in the world cars leave short."""
    monkeypatch.setattr("voltier.agents.devices.ev.minutes_until", lambda minute, due: np.full(len(due), DAY))
    assert replay("up", "2020-07-15").missing_kwh.max() > 1.0
