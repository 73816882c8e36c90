"""Household planning: plans computed by hand, the effect of every weight, independent solvers, edge cases."""

from dataclasses import fields, replace
from itertools import product

import numpy as np
import pytest

from voltier.grid.errors import InputError
from voltier.market.planning.household import (
    PRINTED_SHARE,
    DeviceRows,
    HouseholdProblem,
    plan_households,
    plan_printed,
)

# eps (c^2 + g^2) moves a marginal cost by 2e-5 $/kWh per kW; plans computed by hand ignore it
EPS_USD = 1e-2
PER_DEVICE = (
    "x0", "theta", "gain_g", "penalty", "w_ramp_usd_per_kw2", "w_spill_usd_per_kw2h", "w_flex_usd_per_kwh",
    "shares_meter",
)  # fmt: skip
PLAIN = {
    "x0": 5, "theta": 1, "gain_c": 1, "gain_g": 1, "drift": 0, "c_max_kw": 5, "g_max_kw": 5, "x_min": 0, "x_max": 10,
    "target": 0, "w_state": 0, "penalty": 10, "w_ramp_usd_per_kw2": 0, "w_spill_usd_per_kw2h": 0,
    "w_flex_usd_per_kwh": 0, "shares_meter": False,
}  # fmt: skip


def house(*devices, price=0.1, w_self=0.0, other=0.0, steps=2):
    """One house; a device is a 10 kWh battery without losses, 5 kW both ways, with changes; steps of an hour."""
    shape = {name: () if name in PER_DEVICE else (steps,) for name in PLAIN}
    columns = {
        name: np.array(
            [np.broadcast_to((PLAIN | device)[name], shape[name]) for device in devices],
            dtype=bool if name == "shares_meter" else float,
        )
        for name in PLAIN
    }
    grid = [np.broadcast_to(np.asarray(v, float), (1, steps)) for v in (price, w_self, other)]
    return HouseholdProblem(np.array([0, len(devices)]), DeviceRows(**columns), *grid, dt_h=1.0)


PV = {"gain_c": 0, "gain_g": 0, "c_max_kw": 0, "x_min": -np.inf, "x_max": np.inf, "x0": 0}
BURN = {"gain_c": 0.9, "gain_g": 1 / 0.9, "x0": 9.0}


def draw_house(rng, steps, shift):
    """Battery, vehicle, heat pump, water heater, PV and a load to be done by a deadline, under one meter."""
    dt_h, hour = 24 / steps, (np.arange(steps) + 0.5) * 24 / steps
    sun = np.maximum(0, np.sin((hour - 6) / 12 * np.pi))
    away, at = (hour > 8) & (hour < 17), np.zeros(steps)
    home, leave, end = (
        at + (np.arange(steps) == k) for k in (np.argmax(hour > 17), np.argmax(hour > 7), steps - 1)
    )
    size, power, air = rng.uniform(6, 15), rng.uniform(2, 6), rng.uniform(-5, 35) + 4 * sun
    theta, tank = np.exp(-dt_h / rng.uniform(15, 60)), np.exp(-dt_h / 120)
    wish = {"w_flex_usd_per_kwh": rng.choice([0, 1e-3, 1e-2]), "penalty": 10 ** rng.uniform(-0.3, 1)}
    storage = {"shares_meter": True, "w_ramp_usd_per_kw2": rng.choice([0, 1e-3]), "gain_c": 0.95 * dt_h}
    battery = {
        "x0": size * rng.uniform(0, 1), "gain_g": dt_h / 0.95, "c_max_kw": power, "g_max_kw": power,
        "x_min": 0.1 * size, "x_max": 0.95 * size, "target": size / 2, "w_state": 0.02 * end,
    }  # fmt: skip
    both_ways = rng.random() < 0.5
    vehicle = {
        "x0": rng.uniform(10, 50), "gain_g": dt_h / 0.95 * both_ways, "drift": -8 * home,
        "c_max_kw": 7.0 * ~away, "g_max_kw": 7.0 * ~away * both_ways, "x_min": 6, "x_max": 57, "target": 54,
        "w_state": 0.05 * leave,
    }  # fmt: skip
    heat = {
        "x0": rng.uniform(18, 25), "theta": theta, "gain_c": np.where(air < 22, 6, -6) * (1 - theta), "gain_g": 0,
        "drift": (1 - theta) * air, "c_max_kw": 4, "g_max_kw": 0, "x_min": 19, "x_max": 25, "target": 22,
        "w_state": rng.choice([0, 0.01]) * dt_h,
    }  # fmt: skip
    water = {
        "x0": rng.uniform(44, 58), "theta": tank, "gain_c": dt_h / 0.22, "gain_g": 0, "c_max_kw": 4.5, "g_max_kw": 0,
        "drift": (1 - tank) * 20 - dt_h / 0.22 * rng.exponential(0.3, steps), "x_min": 45, "x_max": 60,
    }  # fmt: skip
    pv = PV | {
        "g_max_kw": rng.uniform(1, 10) * sun,
        "w_spill_usd_per_kw2h": rng.choice([0, 2e-3]),
        "shares_meter": True,
    }
    energy = rng.uniform(1, 3)
    washer = {
        "x0": 0, "gain_c": dt_h, "gain_g": 0, "g_max_kw": 0, "c_max_kw": 2.0 * (hour > 9), "x_max": energy,
        "x_min": np.where(hour > 20, energy, -np.inf),
    }  # fmt: skip
    price = 0.12 + 0.08 * np.sin((hour - 12) / 12 * np.pi) + rng.normal(0, 0.02, steps) - shift * sun
    devices = [wish | device for device in (storage | battery, storage | vehicle, heat, water, pv, washer)]
    drawn = [device for device in devices if rng.random() < 0.8]
    problem = house(
        *drawn, price=price, w_self=rng.choice([0, 4e-3]), other=-rng.uniform(0, 2, steps), steps=steps
    )
    return replace(problem, dt_h=dt_h)


def draw(seed, n, steps, shift=0.0):
    """n random houses; a shift makes prices negative at noon."""
    drawn = [draw_house(np.random.default_rng([seed, i]), steps, shift) for i in range(n)]
    counts = [one.offset[1] for one in drawn]

    def stack(name):
        return np.concatenate([getattr(one, name) for one in drawn])

    devices = {name: np.concatenate([getattr(one.devices, name) for one in drawn]) for name in PLAIN}
    grid = [stack(name) for name in ("price_usd_per_kwh", "w_self_usd_per_kw2h", "other_kw")]
    return HouseholdProblem(np.cumsum([0, *counts]), DeviceRows(**devices), *grid, dt_h=24 / steps)


def only(problem, houses):
    """The problem of some houses, and their rows."""
    rows = np.concatenate([np.arange(problem.offset[h], problem.offset[h + 1]) for h in houses]).astype(int)
    devices = {f.name: getattr(problem.devices, f.name)[rows] for f in fields(DeviceRows)}
    counts = np.diff(problem.offset)[houses]
    grid = [
        getattr(problem, name)[houses] for name in ("price_usd_per_kwh", "w_self_usd_per_kw2h", "other_kw")
    ]
    return HouseholdProblem(np.cumsum([0, *counts]), DeviceRows(**devices), *grid, dt_h=problem.dt_h), rows


def states(problem, c_kw, g_kw):
    """States by the law of the devices, written again."""
    d, out = problem.devices, []
    x = d.x0
    for t in range(c_kw.shape[1]):
        x = d.theta * x + d.gain_c[:, t] * c_kw[:, t] - d.gain_g * g_kw[:, t] + d.drift[:, t]
        out.append(x)
    return np.stack(out, axis=1)


def terms(problem, c_kw, g_kw, delta_kw):
    """Cost by house, term by term, written again."""
    d, dt, p, x = problem.devices, problem.dt_h, g_kw - c_kw, states(problem, c_kw, g_kw)
    owner = np.repeat(np.arange(len(problem.offset) - 1), np.diff(problem.offset))
    broken = np.maximum(0, x - d.x_max) + np.maximum(0, d.x_min - x)
    spill = (d.g_max_kw - g_kw) ** 2
    by_device = {
        "energy": -dt * (problem.price_usd_per_kwh[owner] * p).sum(axis=1),
        "ramp": d.w_ramp_usd_per_kw2 * (np.diff(p) ** 2).sum(axis=1),
        "spill": dt * d.w_spill_usd_per_kw2h * spill.sum(axis=1),
        "eps": dt * 1e-5 * (c_kw**2 + g_kw**2).sum(axis=1),
        "flex": -dt * d.w_flex_usd_per_kwh * delta_kw.sum(axis=1),
        "state": (d.w_state * (x - d.target) ** 2).sum(axis=1),
        "penalty": d.penalty * broken.sum(axis=1),
    }
    houses = len(problem.offset) - 1
    out = {name: np.bincount(owner, value, houses) for name, value in by_device.items()}
    meter = problem.other_kw.copy()
    np.add.at(meter, owner, p * d.shares_meter[:, None])
    return out | {"self": dt * (problem.w_self_usd_per_kw2h * meter**2).sum(axis=1)}


def cost(problem, plan):
    return sum(terms(problem, plan.c_kw, plan.g_kw, plan.delta_kw).values())


@pytest.mark.parametrize(("shift", "search"), [(0.0, 0), (0.3, 0), (0.3, 30)])
@pytest.mark.parametrize("planner", [plan_households, plan_printed])
def test_plans_are_what_they_say(planner, shift, search):
    problem = draw(1, 40, 24, shift)
    plan, d = planner(problem, search=search), problem.devices
    assert plan.converged.all()
    np.testing.assert_array_equal(plan.c_kw * plan.g_kw, 0)
    np.testing.assert_array_equal(plan.p_kw, plan.g_kw - plan.c_kw)
    for power, most in ((plan.c_kw, d.c_max_kw), (plan.g_kw, d.g_max_kw)):
        assert (power >= 0).all()
        assert (power <= most + 1e-12).all()  # rounding of a sum of steps
    np.testing.assert_allclose(plan.x, states(problem, plan.c_kw, plan.g_kw), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(plan.objective_usd, cost(problem, plan), rtol=1e-11, atol=1e-11)
    room = np.minimum(d.g_max_kw - plan.p_kw, plan.p_kw + d.c_max_kw)
    if planner is plan_households:
        np.testing.assert_allclose(plan.delta_kw, room, atol=1e-12)
    else:
        least, most = (share * np.abs(plan.p_kw) for share in PRINTED_SHARE)
        np.testing.assert_allclose(plan.delta_kw, np.minimum(room, most), atol=1e-12)
        assert (plan.delta_kw >= least - 1e-9).all()
    # the stopping rule is 1e-9 of the size, 1e-6 where rounding stops it
    size = 1 + np.abs(plan.objective_usd)
    assert (plan.objective_usd >= plan.bound_usd).all()
    assert ((plan.objective_usd - plan.bound_usd) / size)[~plan.binary].max() < 1e-6


def test_the_relaxation_agrees_with_an_independent_solver():
    pytest.importorskip("cvxpy")
    pytest.importorskip("pyscipopt")
    from voltier.market.planning.household_reference import plan_households_reference

    for problem in (draw(2, 25, 12), draw(3, 15, 10, 0.3), draw(4, 4, 30)):
        plan, twin = plan_households(problem), plan_households_reference(problem)
        size = np.maximum(1, np.abs(twin.objective_usd))
        # twice the larger of both solvers' gaps
        assert (np.abs(plan.bound_usd - twin.objective_usd) / size).max() < 2e-7
        exact = np.repeat(~plan.binary, np.diff(problem.offset))
        # powers are as flat as sqrt(gap / eps)
        np.testing.assert_allclose(plan.p_kw[exact], twin.p_kw[exact], atol=2e-2)
        assert not (twin.binary & ~plan.binary).any()


def test_two_hundred_houses_equal_the_mixed_integer_optimum():
    problem = draw(5, 200, 24)
    plan = plan_households(problem)
    # the relaxation bounds the mixed-integer optimum from below, and a plan with one direction per step from above
    assert (plan.objective_usd - plan.bound_usd)[~plan.binary].max() < 1e-4
    assert plan.binary.mean() < 0.05


def test_choosing_directions_finds_the_optimum_of_scip():
    pytest.importorskip("cvxpy")
    pytest.importorskip("pyscipopt")
    from voltier.market.planning.household_reference import plan_households_reference

    problem = draw(6, 4, 8, 0.3)
    plan, printed = plan_households(problem, search=50), plan_printed(problem, search=50)
    assert plan.binary.any()
    for ours, form in ((plan, False), (printed, True)):
        twin = plan_households_reference(problem, whole=True, printed=form, seconds=30)
        np.testing.assert_allclose(ours.objective_usd, twin.objective_usd, atol=1e-4)
        assert (ours.bound_usd <= twin.objective_usd + 1e-6).all()


def test_directions_are_the_best_of_all_that_there_are():
    problem = house(BURN | {"w_ramp_usd_per_kw2": 1e-3}, price=[[-0.2, 0.05, -0.1, -0.15, 0.1]], steps=5)
    plan = plan_households(problem, search=100)
    costs = []
    for ways in product([0.0, 1.0], repeat=5):
        boxes = replace(problem.devices, c_max_kw=5 * np.array([ways]), g_max_kw=5 - 5 * np.array([ways]))
        costs.append(plan_households(replace(problem, devices=boxes)).objective_usd[0])
    assert plan.binary[0]
    np.testing.assert_allclose(plan.objective_usd[0], min(costs), atol=1e-6)
    assert plan.bound_usd[0] < min(costs)


def test_more_search_is_never_worse():
    problem = draw(7, 20, 24, 0.3)
    worth = [plan_households(problem, search=search).objective_usd for search in (0, 20, 100)]
    assert (worth[1] <= worth[0]).all()
    assert (worth[2] <= worth[1]).all()
    assert (worth[2] < worth[0] - 1e-6).any()


def test_no_random_move_inside_the_boxes_is_cheaper():
    problem, rng = draw(11, 20, 24), np.random.default_rng(5)
    plan, d = plan_households(problem), problem.devices
    for reach in (1.0, 1e-2):
        for _ in range(30):
            c, g = (
                power + reach * rng.random() * (rng.random(power.shape) * most - power)
                for power, most in ((plan.c_kw, d.c_max_kw), (plan.g_kw, d.g_max_kw))
            )
            room = np.minimum(d.g_max_kw - g + c, g - c + d.c_max_kw)
            moved = sum(terms(problem, c, g, room).values())
            assert (
                moved >= plan.bound_usd - 1e-9 * (1 + np.abs(moved))
            ).all()  # rounding of costs of up to 1e4 $


def test_a_battery_buys_low_and_sells_high():
    plan = plan_households(house({"x0": 2.0, "c_max_kw": 4.0}, price=[[0.1, 0.3]]))
    # 5 kWh can be sold at 0.3, so 3 are bought at 0.1: a fourth would be left over
    np.testing.assert_allclose(plan.p_kw, [[-3, 5]], atol=1e-5)
    np.testing.assert_allclose(plan.x, [[5, 0]], atol=1e-5)
    assert not plan.binary[0]


def test_losses_above_the_spread_stop_arbitrage():
    plan = plan_households(house(BURN | {"x0": 0.0}, price=[[0.1, 0.11]]))
    # a round trip keeps 81 % of the energy and earns 10 % on it
    np.testing.assert_allclose(plan.p_kw, 0, atol=1e-4)


def test_self_use_ties_all_that_share_the_meter():
    sun = PV | {"g_max_kw": 5.0, "shares_meter": True}
    store, load = {"shares_meter": True, "g_max_kw": 0.0}, {"shares_meter": False, "g_max_kw": 0.0}
    plan = plan_households(house(sun, store, load, price=0.1, w_self=1.0, other=-1.0, steps=1))
    # stationarity of PV: 0.1 = 2 w (other + p) at the meter, so that the store leaves 0.05 kW: without PV below 5 kW
    # it has nothing to cancel, and every kW bought costs 0.1
    np.testing.assert_allclose((plan.p_kw[0] + plan.p_kw[1])[0], 1.05, atol=1e-4)
    np.testing.assert_allclose(plan.p_kw[2], 0, atol=1e-4)
    apart = plan_households(house(sun | {"shares_meter": False}, price=0.1, w_self=1.0, other=-1.0, steps=1))
    np.testing.assert_allclose(apart.p_kw, 5, atol=1e-4)
    np.testing.assert_allclose(
        apart.objective_usd, 1.0 - 0.5, atol=EPS_USD
    )  # the fixed injection still counts


def test_target_weighs_energy_against_price():
    plan = plan_households(house({"target": 8.0, "w_state": 0.1, "g_max_kw": 0.0}, steps=1))
    # stationarity: 0.1 + 0.2 (5 + c - 8) = 0 at c = 2.5
    np.testing.assert_allclose(plan.x, [[7.5]], atol=EPS_USD)


def test_ramps_smooth_power():
    rush = {"x_max": np.inf, "x_min": -np.inf}
    prices = [[0.1, 0.02, -0.1]]
    free = plan_households(house(rush, price=prices, steps=3))
    np.testing.assert_allclose(free.p_kw, [[5, 5, -5]], atol=1e-4)
    slow = plan_households(house(rush | {"w_ramp_usd_per_kw2": 0.002}, price=prices, steps=3))
    # the second step: 0.02 = 2 w (p2 - p1) + 2 w (p2 - p3) has p2 = 2.5 between 5 and -5
    np.testing.assert_allclose(slow.p_kw, [[5, 2.5, -5]], atol=EPS_USD)


def test_headroom_holds_power_in_the_middle():
    load = {"g_max_kw": 0.0, "x_max": np.inf}
    free = plan_households(house(load, price=[[-0.01, 0.01]]))
    np.testing.assert_allclose(free.p_kw, [[-5, 0]], atol=1e-4)
    paid = plan_households(house(load | {"w_flex_usd_per_kwh": 0.02}, price=[[-0.01, 0.01]]))
    # a kW towards the middle earns 0.02 and costs 0.01
    np.testing.assert_allclose(paid.p_kw, -2.5, atol=1e-4)
    np.testing.assert_allclose(paid.delta_kw, 2.5, atol=1e-4)


def test_spilled_sun_costs():
    plan = plan_households(house(PV | {"w_spill_usd_per_kw2h": 0.1}, price=-0.2, steps=1))
    # stationarity: 0.2 = 2 w (5 - g)
    np.testing.assert_allclose(plan.g_kw, [[4]], atol=EPS_USD)


def test_a_load_is_done_by_its_deadline():
    late = {
        "x0": 0,
        "g_max_kw": 0,
        "c_max_kw": 2,
        "x_min": [-np.inf, -np.inf, 3, -np.inf],
        "x_max": 3,
        "penalty": 1.0,
    }
    plan = plan_households(house(late, price=[[0.3, 0.1, 0.2, 0.05]], steps=4))
    np.testing.assert_allclose(plan.c_kw, [[0, 2, 1, 0]], atol=1e-4)


def test_soft_limits_are_kept_where_they_can_be_and_missed_least_where_not():
    plan = plan_households(house({"x0": -9.0}, price=1.0))
    np.testing.assert_allclose(plan.x, [[-4, 0]], atol=1e-6)  # full power, then exactly to the limit
    np.testing.assert_allclose(plan.objective_usd, [10 * 4 + 5 + 4], rtol=1e-4)  # eps adds 0.0004 $
    cheap = plan_households(house({"x0": -9.0, "penalty": 0.1, "g_max_kw": 0.0}, price=1.0))
    np.testing.assert_allclose(cheap.c_kw, 0, atol=1e-6)  # missing the limit costs less than power


def test_devices_without_any_choice_report_their_drift():
    fixed = {
        "c_max_kw": 0.0,
        "g_max_kw": 0.0,
        "drift": -4.0,
        "w_ramp_usd_per_kw2": 1.0,
        "w_flex_usd_per_kwh": 1.0,
    }
    plan = plan_households(house(fixed))
    assert plan.converged[0]
    np.testing.assert_array_equal(plan.p_kw, 0)
    np.testing.assert_array_equal(plan.x, [[1, -3]])
    np.testing.assert_allclose(plan.objective_usd, [30], rtol=1e-12)  # 3 kWh short at 10 $/kWh


def test_houses_without_devices_pay_for_what_they_inject():
    problem = replace(house({}, w_self=0.5, other=2.0), offset=np.array([0, 0, 1]))
    grid = {
        name: np.repeat(getattr(problem, name), 2, axis=0)
        for name in ("price_usd_per_kwh", "w_self_usd_per_kw2h", "other_kw")
    }
    plan = plan_households(replace(problem, **grid))
    np.testing.assert_allclose(plan.objective_usd[0], 2 * 0.5 * 4, rtol=1e-12)
    nobody = plan_households(only(replace(problem, **grid), [0])[0])
    np.testing.assert_array_equal(nobody.objective_usd, plan.objective_usd[:1])
    assert nobody.p_kw.shape == (0, 2)


def test_infinite_limits_leave_only_the_boxes():
    plan = plan_households(house({"x_min": -np.inf, "x_max": np.inf}, price=[[0.1, -0.2]]))
    np.testing.assert_allclose(plan.p_kw, [[5, -5]], atol=1e-5)


@pytest.mark.parametrize("width", [0.0, 1e-12, 1e-8, 1e-5, 1e-2])
def test_narrow_boxes_do_no_harm(width):
    device = {"c_max_kw": width, "w_flex_usd_per_kwh": 1e-3}
    plan = plan_households(house(device, price=np.linspace(0.1, 0.2, 24), steps=24))
    assert plan.converged[0]
    # 5 kWh sold in the dearest hours, the last one short of full power by half its headroom's worth
    assert plan.p_kw.sum() == pytest.approx(5, abs=24 * width + 1e-4)
    assert plan.c_kw.max() <= width


def test_a_cooling_device_has_a_negative_gain():
    hot = {
        "x0": 26.0,
        "theta": 0.9,
        "gain_c": -1.0,
        "drift": 3.0,
        "g_max_kw": 0.0,
        "x_min": 22.0,
        "x_max": 24.0,
    }
    plan = plan_households(house(hot, steps=6))
    assert plan.converged[0]
    # cooling costs money, so the state rests on its upper limit: c = 0.9 x + 3 - 24
    np.testing.assert_allclose(plan.x, 24, atol=1e-5)
    np.testing.assert_allclose(plan.c_kw, [[2.4, *[0.6] * 5]], atol=1e-5)


def test_negative_prices_with_losses_need_directions():
    lossy = house(BURN | {"x0": 10.0}, price=-0.2, steps=4)
    assert plan_households(lossy).binary[0]  # burning energy in the losses is paid for
    one_way = replace(lossy, devices=replace(lossy.devices, g_max_kw=np.zeros((1, 4))))
    assert not plan_households(one_way).binary[0]


@pytest.mark.parametrize(
    ("weight", "term", "shift"),
    [
        ("w_ramp_usd_per_kw2", "ramp", 0.0),
        ("w_spill_usd_per_kw2h", "spill", 0.3),  # nobody spills what is worth something
        ("w_flex_usd_per_kwh", "flex", 0.0),
        ("w_state", "state", 0.0),
        ("penalty", "penalty", 0.0),
        ("w_self_usd_per_kw2h", "self", 0.0),
    ],
)
def test_a_larger_weight_lessens_what_it_weighs(weight, term, shift):
    problem = draw(13, 30, 24, shift)
    holder = problem if weight == "w_self_usd_per_kw2h" else problem.devices
    worth = getattr(holder, weight)
    measured = []
    for factor in (0.5, 4.0):
        changed = replace(holder, **{weight: factor * worth})
        one = changed if holder is problem else replace(problem, devices=changed)
        plan = plan_households(one)
        unscaled = terms(problem, plan.c_kw, plan.g_kw, plan.delta_kw)[term]
        measured.append(np.where(plan.binary, 0, unscaled))
    # a minimiser's term falls as its weight rises; 1e-6 for the gaps of both plans, over the difference of weights
    assert (measured[1] <= measured[0] + 1e-6).all()
    assert (measured[1] < measured[0] - 1e-3).any()


def test_houses_are_bitwise_independent():
    problem = draw(17, 30, 24, 0.2)
    for planner in (plan_households, plan_printed):
        whole = planner(problem, search=5)
        for houses in ([13], [29, 2, 17], list(range(10, 20))):
            part_problem, rows = only(problem, houses)
            part = planner(part_problem, search=5)
            for field in fields(part):
                ours, all_of = getattr(part, field.name), getattr(whole, field.name)
                np.testing.assert_array_equal(ours, all_of[rows if ours.ndim == 2 else houses])


def test_scaling_the_state_leaves_the_cost():
    problem = draw(19, 40, 24)
    names = ("x0", "gain_c", "gain_g", "drift", "x_min", "x_max", "target")
    scaled = {name: 1000 * getattr(problem.devices, name) for name in names}
    d = replace(
        problem.devices,
        **scaled,
        w_state=problem.devices.w_state / 1e6,
        penalty=problem.devices.penalty / 1e3,
    )
    stretched, plan = plan_households(replace(problem, devices=d)), plan_households(problem)
    # the same programme in Wh; both gaps are below 1e-6 of the size
    np.testing.assert_allclose(stretched.objective_usd, plan.objective_usd, rtol=1e-6, atol=1e-6)


def test_printed_flexibility_is_paid_for_power():
    battery = {"w_flex_usd_per_kwh": 1.0, "x_min": -np.inf, "x_max": np.inf}
    plan = plan_printed(house(battery, price=0.0, steps=1))
    # the best of min(0.3 p, 5 - p) is at p = 5 / 1.3
    np.testing.assert_allclose(np.abs(plan.p_kw), 5 / 1.3, atol=1e-3)
    np.testing.assert_allclose(plan.objective_usd, -0.3 * 5 / 1.3, atol=1e-3)
    dear = plan_printed(house(battery | {"w_flex_usd_per_kwh": 0.0, "g_max_kw": 0.0}, price=-1.0, steps=1))
    np.testing.assert_allclose(dear.c_kw, 5 / 1.05, atol=1e-4)  # some headroom has to be left


def test_wrong_problems_name_everything_that_is_wrong():
    right = house({}, {})
    rows = replace(
        right.devices, penalty=np.zeros(2), drift=np.full((2, 2), np.nan), target=np.zeros((2, 3)),
        w_flex_usd_per_kwh=np.array([-1.0, 0.0]), x_max=np.full((2, 2), np.nan),
    )  # fmt: skip
    wrong = replace(right, devices=rows, offset=np.array([0, 3]), dt_h=0.0, other_kw=np.zeros((2, 2)))
    with pytest.raises(InputError) as caught:
        plan_households(wrong)
    assert {problem.field for problem in caught.value.problems} == {
        "penalty", "drift", "target", "w_flex_usd_per_kwh", "x_max", "offset", "dt_h", "other_kw",
    }  # fmt: skip
