"""Local tariffs: budget, limits and optimality."""

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

from voltier.market.pricing import TariffRules, price_secondary
from voltier.market.secondary import SecondaryBids, SecondaryDispatch, sum_by_market

RULES = TariffRules(flexibility_usd_per_kwh=0.05, reserve_usd_per_kwh=0.01, cap_usd_per_kwh=0.129)


def scheduled(offset, p_kw, moved_kw, dp_kw, q_kvar=None):
    """Make bids and a dispatch with given schedule, |P - P0| and flexibility."""
    offset, p_kw = np.asarray(offset), np.asarray(p_kw, dtype=float)
    zero, none = np.zeros(p_kw.size), np.zeros(offset.size - 1)
    q_kvar = zero if q_kvar is None else np.asarray(q_kvar, dtype=float)
    bids = SecondaryBids(offset, p_kw - moved_kw, p_kw - 9, p_kw + 9, zero, zero, zero, zero, zero, zero + 1)
    dispatch = SecondaryDispatch(
        p_kw=p_kw,
        q_kvar=q_kvar,
        dp_kw=np.asarray(dp_kw, dtype=float),
        dq_kvar=zero,
        p_shortage_kw=none,
        q_shortage_kvar=none,
        level_value=np.zeros((none.size, 3)),
        residual=none,
        converged=none == 0,
        feasible=none == 0,
    )
    return bids, dispatch


def price(bids, dispatch, lam, rules=RULES, previous=None, lam_q=0.0):
    lam = np.broadcast_to(np.asarray(lam, dtype=float), bids.offset.size - 1)
    previous = np.repeat(lam, np.diff(bids.offset)) if previous is None else previous
    return price_secondary(bids, dispatch, lam, np.full_like(lam, lam_q), previous, rules)


def budget(bids, dispatch, tariffs, rules=RULES):
    paid = tariffs.p_usd_per_kwh * dispatch.p_kw
    paid = paid + rules.flexibility_usd_per_kwh * np.abs(dispatch.p_kw - bids.p0_kw)
    return sum_by_market(bids.offset, paid + rules.reserve_usd_per_kwh * dispatch.dp_kw)


def test_tariff_equals_dlmp_when_no_flexibility_is_paid():
    bids, dispatch = scheduled([0, 3], [-3, -5, 1], 0.0, np.zeros(3))
    tariffs = price(bids, dispatch, 0.064)
    np.testing.assert_allclose(tariffs.p_usd_per_kwh, 0.064, rtol=1e-12)
    assert not tariffs.capped.any()


def test_loads_carry_the_flexibility_payments_as_computed_by_hand():
    # two equal loads of 4 kW, 1 kW moved each, 1 kW kept each: 0.12 $/h on 8 kW adds 0.015 $/kWh
    bids, dispatch = scheduled([0, 2], [-4, -4], 1.0, np.ones(2))
    tariffs = price(bids, dispatch, 0.064)
    np.testing.assert_allclose(tariffs.p_usd_per_kwh, 0.079, rtol=1e-12)
    assert tariffs.budget_residual_usd_per_h[0] == pytest.approx(0.0, abs=1e-12)


def test_equals_the_quadratic_program():
    rng = np.random.default_rng(3)
    count = rng.integers(1, 7, 30)
    offset = np.concatenate([[0], np.cumsum(count)])
    n = int(offset[-1])
    p = np.where(rng.random(n) < 0.8, rng.uniform(-12, -0.5, n), rng.uniform(0, 4, n))
    bids, dispatch = scheduled(offset, p, rng.uniform(-1, 1, n), rng.uniform(0, 1, n))
    lam, previous = rng.uniform(-0.05, 0.11, 30), rng.uniform(0.02, 0.12, n)
    rules = replace(RULES, smoothing=0.7)
    tariffs = price(bids, dispatch, lam, rules, previous)
    assert (~tariffs.capped).sum() > 15
    for i in np.flatnonzero(~tariffs.capped):
        rows = slice(offset[i], offset[i + 1])
        mu = cp.Variable(count[i])
        cost = cp.sum_squares(mu - lam[i]) + rules.smoothing * cp.sum_squares(mu - previous[rows])
        due = (
            lam[i] * p[rows].sum()
            - 0.05 * np.abs(p - bids.p0_kw)[rows].sum()
            - 0.01 * dispatch.dp_kw[rows].sum()
        )
        low = 0.0 if lam[i] >= 0 else -max(0.129, 2 * abs(lam[i]))
        cp.Problem(cp.Minimize(cost), [mu @ p[rows] == due, mu >= low, mu <= 0.129]).solve(cp.CLARABEL)
        # the conic solver's accuracy on prices of 0.1 $/kWh
        np.testing.assert_allclose(tariffs.p_usd_per_kwh[rows], mu.value, atol=1e-6)
    closed = ~tariffs.capped
    np.testing.assert_allclose(
        budget(bids, dispatch, tariffs, rules)[closed], (lam * sum_by_market(offset, p))[closed], atol=1e-9
    )


def test_cap_binds_and_the_residual_is_what_is_missing():
    bids, dispatch = scheduled([0, 2], [-1, -1], 2.0, np.ones(2))
    tariffs = price(bids, dispatch, 0.1)
    np.testing.assert_allclose(tariffs.p_usd_per_kwh, 0.129)
    assert tariffs.capped[0]
    # due -0.2 - 0.2 - 0.02, collected 2 x 0.129
    assert tariffs.budget_residual_usd_per_h[0] == pytest.approx(-0.42 + 0.258)


@pytest.mark.parametrize("lam", [-0.4, -0.05, -1e-6])
@pytest.mark.parametrize("p", [[-4.0, -3.0], [3.0, 5.0], [-4.0, 2.0]])
def test_negative_wholesale_price_closes_the_budget(lam, p):
    bids, dispatch = scheduled([0, 2], p, 0.4, np.full(2, 0.5))
    tariffs = price(bids, dispatch, lam)
    assert not tariffs.capped[0]
    assert budget(bids, dispatch, tariffs)[0] == pytest.approx(lam * sum(p), abs=1e-12)
    assert (tariffs.p_usd_per_kwh >= -max(0.129, 2 * abs(lam))).all()


def test_no_energy_keeps_the_clipped_dlmp_and_reports_the_residual():
    bids, dispatch = scheduled([0, 2], [0.0, 0.0], 0.0, np.ones(2))
    tariffs = price(bids, dispatch, [0.2])
    np.testing.assert_allclose(tariffs.p_usd_per_kwh, 0.129)
    assert tariffs.budget_residual_usd_per_h[0] == pytest.approx(-0.02)
    assert tariffs.capped[0]


def test_smoothing_stays_nearer_to_the_previous_tariff():
    bids, dispatch = scheduled([0, 2], [-4, -8], 0.0, np.zeros(2))
    previous = np.array([0.10, 0.05])
    rough = price(bids, dispatch, 0.064, previous=previous)
    smooth = price(bids, dispatch, 0.064, replace(RULES, smoothing=5.0), previous)
    assert np.abs(smooth.p_usd_per_kwh - previous).sum() < np.abs(rough.p_usd_per_kwh - previous).sum()
    np.testing.assert_allclose(smooth.budget_residual_usd_per_h, 0.0, atol=1e-12)


def test_reactive_tariff_is_the_dlmp_within_its_own_cap():
    bids, dispatch = scheduled([0, 2], [-4, -8], 0.0, np.zeros(2), q_kvar=[-2.0, -1.0])
    np.testing.assert_allclose(price(bids, dispatch, 0.06, lam_q=-0.004).q_usd_per_kvarh, -0.004, rtol=1e-12)
    high = price(bids, dispatch, 0.06, lam_q=0.05)
    np.testing.assert_allclose(high.q_usd_per_kvarh, 0.0129)
    assert high.q_budget_residual_usd_per_h[0] == pytest.approx(-3 * (0.05 - 0.0129))


def test_a_market_alone_gets_the_same_tariffs():
    rng = np.random.default_rng(1)
    p = rng.uniform(-9, 2, 12)
    bids, dispatch = scheduled([0, 4, 7, 12], p, 0.5, np.ones(12))
    together = price(bids, dispatch, [0.06, 0.07, 0.08])
    bids, dispatch = scheduled([0, 3], p[4:7], 0.5, np.ones(3))
    np.testing.assert_array_equal(price(bids, dispatch, 0.07).p_usd_per_kwh, together.p_usd_per_kwh[4:7])
