"""Secondary clearing against an independent conic solver, and properties on random and degenerate markets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voltier.market.secondary import SecondaryBids, clear_secondary, level_values, sum_by_market
from voltier.market.secondary_reference import clear_secondary_reference


def random_markets(n_smo, seed, *, hard):
    """Draw bids and targets; hard adds boxes of no width, wishes at limits, scores of 0, D = 0, shortages."""
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 9, n_smo)
    offset = np.concatenate([[0], np.cumsum(count)])
    n = int(offset[-1])

    def box(size):
        wish = rng.uniform(-15, 5, n) * size
        down, up = rng.uniform(0, 4, (2, n)) * size
        if hard:
            kind = rng.random(n)
            down[kind < 0.15] = 0.0
            up[(kind > 0.1) & (kind < 0.25)] = 0.0
        return wish, wish - down, wish + up

    def target(wish, low, high):
        fraction = rng.uniform(-1.2, 1.2, n_smo) if hard else rng.uniform(-0.9, 0.9, n_smo)
        if hard:
            fraction[rng.random(n_smo) < 0.15] = 0.0
        side = np.where(fraction > 0, sum_by_market(offset, high - wish), sum_by_market(offset, wish - low))
        return sum_by_market(offset, wish) + fraction * side

    p, q = box(1.0), box(0.4)
    score, beta_p, beta_q = rng.uniform(0.3, 1, n), rng.uniform(0.005, 0.1, n), rng.uniform(0.001, 0.02, n)
    if hard:
        score[rng.random(n) < 0.1] = 0.0
        score[rng.random(n) < 0.1] = 0.001
        beta_p[rng.random(n) < 0.1] *= 100.0
    bids = SecondaryBids(offset, *p, *q, beta_p, beta_q, score)
    return bids, target(*p), target(*q)


def values(bids, dispatch):
    return level_values(bids, dispatch.p_kw, dispatch.q_kvar)


@pytest.mark.parametrize(("epsilon", "seed"), [(0.0, 1), (0.01, 2), (0.05, 3), (0.05, 4), (0.2, 5)])
def test_equals_the_reference_on_ordinary_markets(epsilon, seed):
    bids, p_target, q_target = random_markets(70, seed, hard=False)
    ours = clear_secondary(bids, p_target, q_target, epsilon=epsilon)
    twin = clear_secondary_reference(bids, p_target, q_target, epsilon=epsilon)
    # the conic solver stops at 1e-10 relative; multipliers carry its error in a bound on to the next stage
    np.testing.assert_allclose(ours.level_value, twin.level_value, rtol=1e-6, atol=1e-9)
    # every stage with disutilities > 0 ends in one point, but f4 is flat there: 1e-8 in value is 1e-4 in kW
    np.testing.assert_allclose(ours.p_kw, twin.p_kw, atol=5e-4)
    np.testing.assert_allclose(ours.q_kvar, twin.q_kvar, atol=5e-4)
    assert ours.feasible.all()


@pytest.mark.parametrize(("epsilon", "seed"), [(0.01, 11), (0.05, 12), (0.8, 13)])
def test_equals_the_reference_on_degenerate_markets(epsilon, seed):
    bids, p_target, q_target = random_markets(70, seed, hard=True)
    ours = clear_secondary(bids, p_target, q_target, epsilon=epsilon)
    twin = clear_secondary_reference(bids, p_target, q_target, epsilon=epsilon)
    # weights over four decades: the conic solver reaches 1e-8 at worst, f4 is ten times more sensitive
    np.testing.assert_allclose(ours.level_value[:, 0], twin.level_value[:, 0], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours.level_value[:, 1], twin.level_value[:, 1], rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(ours.level_value[:, 2], twin.level_value[:, 2], rtol=2e-5, atol=1e-8)
    np.testing.assert_allclose(ours.p_kw, twin.p_kw, atol=2e-3)
    np.testing.assert_array_equal(ours.feasible, twin.feasible)


@pytest.mark.parametrize("epsilon", [0.0, 1e-12, 1e-6, 0.001, 0.05, 1.0, 5.0])
def test_certificate_holds_on_thousands_of_degenerate_markets(epsilon):
    bids, p_target, q_target = random_markets(2000, 99, hard=True)
    ours = clear_secondary(bids, p_target, q_target, epsilon=epsilon)
    assert ours.converged.all()
    assert ours.residual.max() < 1e-9  # kW, or relative to a stage's bound
    assert (ours.p_kw >= bids.p_min_kw).all()
    assert (ours.p_kw <= bids.p_max_kw).all()
    total = sum_by_market(bids.offset, ours.p_kw) + ours.p_shortage_kw
    np.testing.assert_allclose(total, p_target, atol=1e-9)
    got = values(bids, ours)
    assert (got[:, 0] <= ours.level_value[:, 0] * (1 + epsilon) * (1 + 1e-9) + 1e-12).all()
    lowest = ours.level_value[:, 1] + epsilon * np.abs(ours.level_value[:, 1])
    assert (got[:, 1] <= np.minimum(lowest, 0.0) + 1e-8).all()


def test_first_stage_satisfies_its_optimality_conditions():
    bids, p_target, q_target = random_markets(300, 5, hard=True)
    p = clear_secondary(bids, p_target, q_target, epsilon=0.0).p_kw
    slope = 2 * (p - bids.p0_kw) / np.maximum(bids.resilience_score, 1e-4)
    for a, b in zip(bids.offset[:-1], bids.offset[1:], strict=True):
        lower, upper = p[a:b] > bids.p_min_kw[a:b] + 1e-9, p[a:b] < bids.p_max_kw[a:b] - 1e-9
        # no agent that can come down has a steeper slope than one that can go up: KKT of the balance
        highest = slope[a:b][lower].max(initial=-np.inf)
        least = slope[a:b][upper].min(initial=np.inf)
        assert highest <= least + 1e-6 * max(1.0, abs(least) if np.isfinite(least) else 1.0)


def test_no_random_feasible_point_beats_the_clearing():
    bids, p_target, q_target = random_markets(40, 8, hard=False)
    ours = clear_secondary(bids, p_target, q_target, epsilon=0.1)
    rng = np.random.default_rng(0)
    bound1 = ours.level_value[:, 0] * 1.1
    bound3 = ours.level_value[:, 1] * 0.9
    for _ in range(400):
        step = [
            0.3 * rng.uniform() * (rng.uniform(low, high) - now)
            for low, high, now in (
                (bids.p_min_kw, bids.p_max_kw, ours.p_kw),
                (bids.q_min_kvar, bids.q_max_kvar, ours.q_kvar),
            )
        ]
        mean = [sum_by_market(bids.offset, s) / np.diff(bids.offset) for s in step]
        p, q = (
            now + s - m[bids.market_of_agent]
            for now, s, m in zip((ours.p_kw, ours.q_kvar), step, mean, strict=True)
        )
        inside = (p >= bids.p_min_kw) & (p <= bids.p_max_kw) & (q >= bids.q_min_kvar) & (q <= bids.q_max_kvar)
        fits = sum_by_market(bids.offset, ~inside) == 0
        got = level_values(bids, p, q)
        fits &= (got[:, 0] <= bound1) & (got[:, 1] <= bound3)
        assert (got[fits, 2] >= ours.level_value[fits, 2] * (1 - 1e-9)).all()


@given(seed=st.integers(0, 10_000), keep=st.integers(0, 11), epsilon=st.sampled_from([0.0, 0.05, 0.3]))
@settings(max_examples=60, deadline=None)
def test_a_market_alone_gives_the_same_bits_as_in_the_batch(seed, keep, epsilon):
    bids, p_target, q_target = random_markets(12, seed, hard=True)
    all_of_them = clear_secondary(bids, p_target, q_target, epsilon=epsilon)
    rows = slice(bids.offset[keep], bids.offset[keep + 1])
    alone = SecondaryBids(
        np.array([0, rows.stop - rows.start]),
        *(getattr(bids, name)[rows] for name in list(SecondaryBids.__dataclass_fields__)[1:]),
    )
    one = clear_secondary(alone, p_target[keep : keep + 1], q_target[keep : keep + 1], epsilon=epsilon)
    np.testing.assert_array_equal(one.p_kw, all_of_them.p_kw[rows])
    np.testing.assert_array_equal(one.q_kvar, all_of_them.q_kvar[rows])
    np.testing.assert_array_equal(one.level_value[0], all_of_them.level_value[keep])


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 0.1, 10.0, 1e3]))
@settings(max_examples=40, deadline=None)
def test_schedule_scales_with_the_powers(seed, scale):
    bids, p_target, q_target = random_markets(5, seed, hard=False)
    base = clear_secondary(bids, p_target, q_target)
    scaled = SecondaryBids(
        bids.offset,
        *(getattr(bids, name) * scale for name in list(SecondaryBids.__dataclass_fields__)[1:7]),
        bids.beta_p_usd_per_kw2h,
        bids.beta_q_usd_per_kvar2h,
        bids.resilience_score,
    )
    other = clear_secondary(scaled, p_target * scale, q_target * scale)
    # relative to a box; root tolerance 1e-11 in a bound, square-root flat at the optimum
    np.testing.assert_allclose(other.p_kw / scale, base.p_kw, atol=1e-5)
