"""Household plans of arbitrary devices: real, within their boxes, and no dearer than doing nothing."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from voltier.market.planning.household import DeviceRows, HouseholdProblem, plan_households, plan_printed

PER_DEVICE = ("penalty", "w_ramp_usd_per_kw2", "w_spill_usd_per_kw2h", "w_flex_usd_per_kwh")


def magnitude(rng, shape, low, high):
    """Numbers across orders of magnitude, a third of them zero."""
    return np.where(rng.random(shape) < 0.3, 0.0, 10 ** rng.uniform(low, high, shape))


@st.composite
def problems(draw):
    """Houses of devices with gains of either sign, any prices, boxes of zero width and limits out of reach."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps, counts = draw(st.integers(1, 12)), draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    n, houses = sum(counts), len(counts)
    grid = (n, steps)
    middle, width = rng.normal(0, 10, (n, 1)), rng.exponential(5, grid)
    rows = DeviceRows(
        x0=rng.normal(0, 10, n),
        theta=rng.choice([1.0, 0.9, 0.5, 0.0], n),
        gain_c=rng.choice([1.0, 0.0, -1.0], (n, 1)) * rng.uniform(0.1, 5, grid),
        gain_g=rng.choice([1.0, 0.0], n) * rng.uniform(0.1, 5, n),
        drift=rng.normal(0, 1, grid) * rng.choice([0.0, 1.0], (n, 1)),
        c_max_kw=magnitude(rng, grid, -4, 1.5),
        g_max_kw=magnitude(rng, grid, -4, 1.5),
        x_min=np.where(rng.random(grid) < 0.3, -np.inf, middle - width),
        x_max=np.where(rng.random(grid) < 0.3, np.inf, middle + rng.choice([-1, 1], (n, 1)) * width),
        target=rng.normal(0, 10, grid),
        w_state=magnitude(rng, grid, -5, 0),
        penalty=10 ** rng.uniform(-2, 2, n),
        w_ramp_usd_per_kw2=magnitude(rng, n, -4, 0),
        w_spill_usd_per_kw2h=magnitude(rng, n, -4, 0),
        w_flex_usd_per_kwh=magnitude(rng, n, -4, 0),
        shares_meter=rng.random(n) < 0.6,
    )
    return HouseholdProblem(
        offset=np.cumsum([0, *counts]),
        devices=rows,
        price_usd_per_kwh=rng.normal(draw(st.sampled_from([0.2, 0.0, -0.2])), 0.2, (houses, steps)),
        w_self_usd_per_kw2h=magnitude(rng, (houses, steps), -4, 0),
        other_kw=rng.normal(0, 3, (houses, steps)),
        dt_h=draw(st.sampled_from([1.0, 0.25, 1 / 12])),
    )


@settings(max_examples=150, deadline=None)
@given(problems(), st.integers(0, 10))
def test_plans_are_real_and_bounded(problem, search):
    d = problem.devices
    for planner in (plan_households, plan_printed):
        plan = planner(problem, search=search)
        assert plan.converged.all()
        assert (plan.c_kw * plan.g_kw == 0).all()
        for power, most in ((plan.c_kw, d.c_max_kw), (plan.g_kw, d.g_max_kw)):
            assert (power >= 0).all()
            assert (power <= most + 1e-12).all()  # rounding of a sum of steps
        assert (plan.objective_usd >= plan.bound_usd).all()
        size = 1 + np.abs(plan.objective_usd)
        # the accuracy promised where no directions had to be chosen
        assert ((plan.objective_usd - plan.bound_usd)[~plan.binary] <= 2e-6 * size[~plan.binary]).all()


@settings(max_examples=60, deadline=None)
@given(problems())
def test_closing_the_boxes_costs_at_least_as_much(problem):
    d = problem.devices
    closed = replace(d, c_max_kw=0.5 * d.c_max_kw, w_flex_usd_per_kwh=0 * d.w_flex_usd_per_kwh)
    free = replace(d, w_flex_usd_per_kwh=0 * d.w_flex_usd_per_kwh)
    tight, wide = (plan_households(replace(problem, devices=rows)) for rows in (closed, free))
    assert (tight.objective_usd >= wide.bound_usd).all()


@settings(max_examples=60, deadline=None)
@given(problems(), st.floats(0.1, 10))
def test_money_has_no_unit(problem, factor):
    d = problem.devices
    rows = replace(d, w_state=factor * d.w_state, **{name: factor * getattr(d, name) for name in PER_DEVICE})
    scaled = replace(
        problem,
        devices=rows,
        price_usd_per_kwh=factor * problem.price_usd_per_kwh,
        w_self_usd_per_kw2h=factor * problem.w_self_usd_per_kw2h,
    )
    plan, other = plan_households(problem), plan_households(scaled)
    eps_usd = 1e-5 * problem.dt_h * (d.c_max_kw**2 + d.g_max_kw**2).sum() * abs(factor - 1)
    size = 1 + np.abs(plan.bound_usd)
    # eps alone is not scaled; the gaps are 1e-6 of the size
    slack = eps_usd + 3e-6 * (1 + factor) * size
    assert (np.abs(factor * plan.bound_usd - other.bound_usd) <= slack).all()
