"""Storage planning: hand-computed plans, an independent solver, edge cases and row independence."""

from dataclasses import fields, replace

import numpy as np
import pytest

from voltier.grid.errors import InputError
from voltier.market.planning.storage import StorageProblem, plan_storage
from voltier.market.planning.storage_reference import plan_storage_reference

# eps (c^2 + g^2) moves a marginal cost by 2e-5 $/kWh per kW; hand-computed plans ignore it
EPS_USD = 1e-2


def device(steps=2, n=1, **changes):
    """A 10 kWh battery without losses, 5 kW both ways, 1 h steps, flat price, full end not wished."""
    row, grid = np.ones(n), np.ones((n, steps))
    plain = {
        "x0": 5 * row, "theta": row, "gain_c": grid, "gain_g": row, "drift": 0 * grid,
        "c_max_kw": 5 * grid, "g_max_kw": 5 * grid, "x_min": 0 * grid, "x_max": 10 * grid,
        "price_usd_per_kwh": 0.1 * grid, "other_kw": 0 * grid, "w_self": 0 * row,
        "target": 0 * grid, "w_state": 0 * grid, "penalty": 10 * row,
    }  # fmt: skip
    shaped = {
        k: np.broadcast_to(np.asarray(v, float), plain[k].shape) for k, v in changes.items() if k != "dt_h"
    }
    return StorageProblem(**(plain | shaped), dt_h=changes.get("dt_h", 1.0))


def draw_storage(rng, n, steps):
    """Electric storage by turns at home and away: batteries (even rows) and vehicles (odd rows)."""
    dt_h, vehicle = 24 / steps, np.arange(n) % 2 == 1
    hour, grid = np.arange(steps) * dt_h, np.ones((n, steps))
    size = np.where(vehicle, rng.uniform(40, 80, n), rng.uniform(5, 20, n))
    efficiency, power = rng.uniform(0.85, 1, n), rng.uniform(2, 7, n)
    away = vehicle[:, None] & (hour > 8) & (hour < 17)
    w_state = np.zeros((n, steps))
    w_state[:, -1] = np.where(rng.random(n) < 0.5, 0, 10 ** rng.uniform(-4, 0, n))
    w_state[:, int(8 / dt_h)] = np.where(vehicle, 0.05, 0)  # the departure
    return {
        "x0": rng.uniform(0, 1.1, n) * size,  # some start outside their limits
        "theta": 1 - rng.uniform(0, 0.002, n) * dt_h,
        "gain_c": (efficiency * dt_h)[:, None] * grid,
        "gain_g": dt_h / efficiency,
        "drift": -0.8 * dt_h * away,
        "c_max_kw": np.where(away, 0, power[:, None]),
        "g_max_kw": np.where(away, 0, (power * (rng.random(n) < 0.7))[:, None]),
        "x_min": 0.1 * size[:, None] * grid,
        "x_max": 0.95 * size[:, None] * grid,
        "target": 0.8 * size[:, None] * grid,
        "w_state": w_state,
    }


def draw_heat(rng, n, steps):
    """Heat pumps (even rows) and water heaters (odd rows)."""
    dt_h, tank, grid = 24 / steps, (np.arange(n) % 2 == 1)[:, None], np.ones((n, steps))
    theta = np.exp(-dt_h / rng.uniform(20, 80, n))
    ambient = np.where(tank, 20, rng.uniform(-5, 10, (n, 1)) + 4 * np.sin(np.arange(steps) / steps * 6.28))
    draws = np.where(tank, rng.exponential(1, (n, steps)), 0) * dt_h
    return {
        "x0": np.where(tank[:, 0], rng.uniform(40, 65, n), rng.uniform(16, 24, n)),
        "theta": theta,
        "gain_c": (np.where(tank[:, 0], 8, 0.4) * rng.uniform(0.7, 1, n) * dt_h)[:, None]
        * np.ones((n, steps)),
        "gain_g": np.ones(n),
        "drift": (1 - theta)[:, None] * ambient - draws,
        "c_max_kw": rng.uniform(1, 4.5, (n, 1)) * grid,
        "g_max_kw": 0 * grid,
        "x_min": np.where(tank, 48, 19) * grid,
        "x_max": np.where(tank, 62, 23) * grid,
        "target": 21 * grid,
        "w_state": np.where(tank, 0, rng.choice([0, 1e-3, 0.05], (n, 1))) * grid,
    }


def draw(seed, n, steps):
    """n devices of the four kinds under smooth, flat and partly negative prices, with random outages."""
    rng = np.random.default_rng(seed)
    halves = draw_storage(rng, n // 2, steps), draw_heat(rng, n - n // 2, steps)
    columns = {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}
    columns["c_max_kw"] = np.where(rng.random((n, steps)) < 0.1, 0, columns["c_max_kw"])
    hour = np.arange(steps) * 24 / steps
    price = (
        0.12 + 0.08 * np.sin(hour / 12 * np.pi + rng.uniform(0, 6, (n, 1))) + rng.normal(0, 0.02, (n, steps))
    )
    mode = rng.integers(0, 3, (n, 1))
    price = np.where(mode == 1, 0.15, price - 0.3 * ((mode == 2) & (rng.random((n, steps)) < 0.3)))
    return StorageProblem(
        **columns,
        price_usd_per_kwh=price,
        other_kw=np.maximum(0, rng.uniform(0, 8, (n, 1)) * np.sin((hour - 6) / 12 * np.pi)),
        w_self=np.where(rng.random(n) < 0.5, 0, 10 ** rng.uniform(-4, -1, n)),
        penalty=10 ** rng.uniform(-0.5, 2, n),
        dt_h=24 / steps,
    )


def rows_of(problem, pick):
    """The problem of some rows."""
    values = {f.name: getattr(problem, f.name) for f in fields(problem)}
    return replace(problem, **{k: v[pick] for k, v in values.items() if k != "dt_h"})


def states(problem, plan):
    """States by the device's law, written again."""
    x, out = problem.x0, []
    for t in range(problem.drift.shape[1]):
        x = problem.theta * x + problem.gain_c[:, t] * plan.c_kw[:, t] - problem.gain_g * plan.g_kw[:, t]
        x = x + problem.drift[:, t]
        out.append(x)
    return np.stack(out, axis=1)


@pytest.mark.parametrize(("seed", "n", "steps"), [(1, 240, 24), (2, 40, 96), (3, 60, 5)])
def test_plans_agree_with_an_independent_solver(seed, n, steps):
    problem = draw(seed, n, steps)
    ours, twin = plan_storage(problem), plan_storage_reference(problem)
    assert ours.converged.all()
    size = np.maximum(1, np.abs(twin.objective_usd))
    # both solvers stop near 1e-10 of the size; the promised accuracy is 1e-6
    assert (np.abs(ours.objective_usd - twin.objective_usd) / size).max() < 1e-7
    # eps makes powers unique, but a gap of 1e-9 $ of the twin still leaves about this much room
    np.testing.assert_allclose(ours.p_kw, twin.p_kw, atol=1e-3)
    np.testing.assert_array_equal(ours.simultaneous, twin.simultaneous)


@pytest.mark.parametrize(("n", "steps"), [(800, 24), (200, 96)])
def test_every_plan_converges_inside_its_boxes_and_obeys_its_law(n, steps):
    problem = draw(7, n, steps)
    plan = plan_storage(problem)
    assert plan.converged.all()
    # 1e-10 per dollar is the stopping rule
    assert (plan.gap <= 1e-10 * (1 + np.abs(plan.objective_usd)) * 1.01).all()
    for power, most in ((plan.c_kw, problem.c_max_kw), (plan.g_kw, problem.g_max_kw)):
        assert (power >= 0).all()
        assert (power <= most + 1e-12).all()  # rounding of a sum of steps
    np.testing.assert_allclose(plan.x, states(problem, plan), rtol=1e-12)
    np.testing.assert_array_equal(plan.p_kw, plan.g_kw - plan.c_kw)


def test_no_random_move_inside_the_boxes_is_cheaper():
    problem = draw(11, 40, 24)
    plan = plan_storage(problem)
    rng = np.random.default_rng(5)
    for reach in (1.0, 1e-2):
        for _ in range(50):
            move = [
                power + reach * rng.random() * (rng.random(power.shape) * most - power)
                for power, most in ((plan.c_kw, problem.c_max_kw), (plan.g_kw, problem.g_max_kw))
            ]
            cost = objective(problem, replace(plan, c_kw=move[0], g_kw=move[1]))
            # the gap bounds what any other plan can save; 1e-9 for rounding of costs of up to 1e4 $
            assert (cost >= plan.objective_usd - 1e-9 * (1 + np.abs(cost))).all()


def objective(problem, plan):
    """The cost written again in numpy."""
    x, drawn = states(problem, plan), plan.c_kw - plan.g_kw
    self_use = problem.w_self[:, None] * (problem.other_kw > 0) * (problem.other_kw - drawn) ** 2
    eps = 1e-5 * (plan.c_kw**2 + plan.g_kw**2)
    broken = np.maximum(0, x - problem.x_max) + np.maximum(0, problem.x_min - x)
    cost = problem.dt_h * (problem.price_usd_per_kwh * drawn + self_use + eps)
    cost += problem.w_state * (x - problem.target) ** 2 + problem.penalty[:, None] * broken
    return cost.sum(axis=1)


def test_reported_objective_is_the_stated_cost():
    problem = draw(13, 60, 24)
    plan = plan_storage(problem)
    np.testing.assert_allclose(plan.objective_usd, objective(problem, plan), rtol=1e-10, atol=1e-10)


def test_a_battery_buys_low_and_sells_high():
    plan = plan_storage(device(price_usd_per_kwh=[[0.1, 0.3]], x0=2.0, c_max_kw=4.0))
    # 5 kWh can be sold at 0.3, so 3 are bought at 0.1: a fourth would be left over
    np.testing.assert_allclose(plan.p_kw, [[-3, 5]], atol=1e-6)
    np.testing.assert_allclose(plan.x, [[5, 0]], atol=1e-6)
    assert not plan.simultaneous[0]


def test_losses_above_the_spread_stop_arbitrage():
    lossy = device(price_usd_per_kwh=[[0.1, 0.11]], gain_c=0.9, gain_g=1 / 0.9, x0=0.0)
    # a round trip keeps 81 % of the energy and earns 10 % on it
    np.testing.assert_allclose(plan_storage(lossy).p_kw, 0, atol=1e-4)


def test_self_use_charges_the_solar_power():
    sunny = device(steps=1, other_kw=3.0, w_self=1.0, price_usd_per_kwh=0.1)
    # stationarity: 0.1 - 2 (3 - c) = 0
    np.testing.assert_allclose(plan_storage(sunny).p_kw, [[-2.95]], atol=1e-4)
    dark = replace(sunny, other_kw=np.full((1, 1), -3.0))
    assert plan_storage(dark).p_kw[0, 0] > 4.99  # no self-use term: sell what is stored


def test_target_weighs_energy_against_price():
    plan = plan_storage(device(steps=1, target=8.0, w_state=0.1, g_max_kw=0.0))
    # stationarity: 0.1 + 0.2 (5 + c - 8) = 0 at c = 2.5
    np.testing.assert_allclose(plan.x, [[7.5]], atol=EPS_USD)


def test_soft_limits_are_kept_where_they_can_be_and_missed_least_where_not():
    plan = plan_storage(device(x0=-9.0, price_usd_per_kwh=1.0))
    np.testing.assert_allclose(plan.x, [[-4, 0]], atol=1e-6)  # full power, then exactly to the limit
    np.testing.assert_allclose(plan.objective_usd, [10 * 4 + 5 + 4], rtol=1e-4)  # eps adds 0.0004 $
    cheap = plan_storage(device(x0=-9.0, price_usd_per_kwh=1.0, penalty=0.1, g_max_kw=0.0))
    np.testing.assert_allclose(cheap.c_kw, 0, atol=1e-6)  # missing the limit costs less than power


def test_devices_without_any_choice_report_their_drift():
    fixed = device(c_max_kw=0.0, g_max_kw=0.0, drift=-4.0)
    plan = plan_storage(fixed)
    assert plan.converged[0]
    np.testing.assert_array_equal(plan.p_kw, 0)
    np.testing.assert_array_equal(plan.x, [[1, -3]])
    np.testing.assert_allclose(plan.objective_usd, [30], rtol=1e-12)  # 3 kWh short at 10 $/kWh
    free = replace(fixed, x_min=np.full((1, 2), -np.inf), x_max=np.full((1, 2), np.inf))
    assert plan_storage(free).converged[0]
    assert plan_storage(free).objective_usd[0] == 0


def test_infinite_limits_leave_only_the_boxes():
    free = device(x_min=-np.inf, x_max=np.inf, price_usd_per_kwh=[[0.1, -0.2]])
    np.testing.assert_allclose(plan_storage(free).p_kw, [[5, -5]], atol=1e-6)


@pytest.mark.parametrize("width", [1e-12, 1e-8, 1e-5, 1e-2])
def test_narrow_boxes_do_no_harm(width):
    plan = plan_storage(device(steps=24, c_max_kw=width, price_usd_per_kwh=np.linspace(0.1, 0.2, 24)))
    assert plan.converged[0]
    # 5 kWh sold in the dearest hour, and what the sliver holds
    np.testing.assert_allclose(plan.p_kw[0, -1], 5, atol=1e-4)
    assert plan.c_kw.max() <= width


def test_negative_prices_with_losses_flag_simultaneous_flows():
    lossy = device(steps=4, price_usd_per_kwh=-0.2, gain_c=0.9, gain_g=1 / 0.9, x0=10.0)
    plan = plan_storage(lossy)
    assert plan.simultaneous[0]  # burning energy in the losses is paid for
    assert not plan_storage(replace(lossy, g_max_kw=np.zeros((1, 4)))).simultaneous[0]


def test_a_cooling_device_has_a_negative_gain():
    hot = device(steps=6, x0=26.0, theta=0.9, gain_c=-1.0, drift=3.0, g_max_kw=0.0, x_min=22.0, x_max=24.0)
    plan = plan_storage(hot)
    assert plan.converged[0]
    # cooling costs money, so the state rests on its upper limit: c = 0.9 x + 3 - 24
    np.testing.assert_allclose(plan.x, 24, atol=1e-6)
    np.testing.assert_allclose(plan.c_kw, [[2.4, *[0.6] * 5]], atol=1e-6)


def test_rows_are_bitwise_independent():
    problem = draw(17, 60, 24)
    whole = plan_storage(problem)
    for pick in ([13], [59, 2, 30], list(range(20, 40))):
        part = plan_storage(rows_of(problem, pick))
        for field in fields(part):
            np.testing.assert_array_equal(getattr(part, field.name), getattr(whole, field.name)[pick])


def test_scaling_the_state_leaves_the_powers():
    problem = draw(19, 80, 24)
    stretched = replace(
        problem,
        **{
            k: 1000 * getattr(problem, k)
            for k in ("x0", "gain_c", "gain_g", "drift", "x_min", "x_max", "target")
        },
        w_state=problem.w_state / 1e6,
        penalty=problem.penalty / 1e3,
    )
    # the same programme in Wh; the stopping rule leaves this much room
    np.testing.assert_allclose(plan_storage(stretched).p_kw, plan_storage(problem).p_kw, atol=1e-3)


def test_wrong_problems_name_everything_that_is_wrong():
    wrong = replace(device(), penalty=np.zeros(1), drift=np.full((1, 2), np.nan), target=np.zeros((1, 3)))
    with pytest.raises(InputError) as caught:
        plan_storage(wrong)
    assert {problem.field for problem in caught.value.problems} == {"penalty", "drift", "target"}
