"""Settlement: every column sums to zero, and each party gets what the contract says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voltier.market.settlement import (
    PrimaryPeriod,
    SecondaryPeriod,
    SettlementRules,
    settle_primary,
    settle_secondary,
)

RULES = SettlementRules(0.05, 0.01, 0.129)


def random_secondary(seed):
    rng = np.random.default_rng(seed)
    offset = np.concatenate([[0], np.cumsum(rng.integers(1, 7, int(rng.integers(1, 12))))])
    n = int(offset[-1])
    p = rng.uniform(-20, 6, n)
    period = SecondaryPeriod(
        p_meter_kw=p + rng.normal(0, 1, n),
        q_meter_kvar=rng.uniform(-5, 1, n),
        p_sched_kw=p,
        p0_kw=p + rng.uniform(-2, 2, n),
        dp_kw=rng.uniform(0, 1, n),
        tariff_usd_per_kwh=rng.uniform(0, 0.129, n),
        tariff_q_usd_per_kvarh=rng.uniform(-0.01, 0.01, n),
    )
    return offset, period


def random_primary(seed, n_smo=9, **given):
    rng = np.random.default_rng(seed)
    has_generator = rng.random(n_smo) < 0.4
    values = {
        "p_meter_kw": rng.uniform(-20, 6, n_smo),
        "q_meter_kvar": rng.uniform(-5, 1, n_smo),
        "gen_meter_kw": np.where(has_generator, rng.uniform(0, 100, n_smo), 0.0),
        "dlmp_p_usd_per_kwh": rng.uniform(-0.02, 0.15, n_smo),
        "dlmp_q_usd_per_kvarh": rng.uniform(-0.01, 0.01, n_smo),
        "p_cc_kw": float(rng.uniform(-900, 100)),
        "price_usd_per_kwh": float(rng.uniform(-0.02, 0.15)),
    }
    values = {**values, **given}
    values.setdefault("dlmp_gen_usd_per_kwh", values["dlmp_p_usd_per_kwh"])
    return PrimaryPeriod(**values), has_generator


@given(seed=st.integers(0, 100_000))
@settings(max_examples=100, deadline=None)
def test_every_column_sums_to_zero(seed):
    primary, has_generator = random_primary(seed)
    for books in (
        settle_secondary(*random_secondary(seed), RULES, 1 / 60),
        settle_primary(primary, has_generator, 1 / 12),
    ):
        # Rounding of the sums only.
        assert (np.abs(books.sum(axis=0)) <= 1e-12 * np.abs(books).sum(axis=0)).all()


@given(seed=st.integers(0, 100_000))
@settings(max_examples=50, deadline=None)
def test_the_surplus_is_what_dlmps_collect_less_what_the_bulk_grid_charges(seed):
    period, has_generator = random_primary(seed)
    books = settle_primary(period, has_generator, 0.5)
    credited = (
        period.dlmp_p_usd_per_kwh @ (period.p_meter_kw + period.gen_meter_kw)
        + period.dlmp_q_usd_per_kvarh @ period.q_meter_kvar
    )
    surplus = 0.5 * (period.price_usd_per_kwh * period.p_cc_kw - credited)
    assert books[-2].sum() == pytest.approx(surplus, rel=1e-9, abs=1e-12)


def test_two_agents_by_hand():
    period = SecondaryPeriod(
        p_meter_kw=np.array([-4.0, -1.0]),
        q_meter_kvar=np.zeros(2),
        p_sched_kw=np.array([-4.5, -3.0]),
        p0_kw=np.array([-5.0, -3.0]),
        dp_kw=np.array([0.6, 0.5]),
        tariff_usd_per_kwh=np.array([0.08, 0.08]),
        tariff_q_usd_per_kvarh=np.zeros(2),
    )
    energy, flexibility, penalty = settle_secondary(np.array([0, 2]), period, RULES, dt_h=0.5).T
    np.testing.assert_allclose(energy, [-0.5 * 0.08 * 4, -0.5 * 0.08 * 1, 0.5 * 0.08 * 5])
    moved_and_kept = [0.5 * (0.05 * 0.5 + 0.01 * 0.6), 0.5 * 0.01 * 0.5]
    np.testing.assert_allclose(flexibility, [*moved_and_kept, -sum(moved_and_kept)])
    np.testing.assert_allclose(penalty, [0, -0.5 * 0.129 * 1.5, 0.5 * 0.129 * 1.5])


def test_a_generator_and_an_smo_by_hand():
    period = PrimaryPeriod(
        p_meter_kw=np.array([-5.0]),
        q_meter_kvar=np.zeros(1),
        gen_meter_kw=np.array([2.0]),
        dlmp_p_usd_per_kwh=np.array([0.07]),
        dlmp_q_usd_per_kvarh=np.zeros(1),
        dlmp_gen_usd_per_kwh=np.array([0.08]),
        p_cc_kw=-3.1,
        price_usd_per_kwh=0.06,
    )
    energy = settle_primary(period, np.array([True]), dt_h=0.5)[:, 0]
    surplus = 0.5 * (0.07 * 5 - 0.08 * 2 - 0.06 * 3.1)
    np.testing.assert_allclose(energy, [-0.5 * 0.07 * 5, 0.5 * 0.08 * 2, surplus, 0.5 * 0.06 * 3.1])
    assert surplus > 0


def test_lossless_feeder_at_one_price_leaves_no_surplus():
    period, has_generator = random_primary(4)
    net = float(period.p_meter_kw.sum() + period.gen_meter_kw.sum())
    flat, has_generator = random_primary(
        4,
        dlmp_p_usd_per_kwh=np.full(9, 0.06),
        dlmp_q_usd_per_kvarh=np.zeros(9),
        p_cc_kw=net,
        price_usd_per_kwh=0.06,
    )
    # Sums of about ten terms of some dollars.
    assert settle_primary(flat, has_generator, 1.0)[-2].sum() == pytest.approx(0.0, abs=1e-12)


def test_money_is_proportional_to_time():
    offset, period = random_secondary(5)
    one, five = (settle_secondary(offset, period, RULES, dt_h) for dt_h in (1 / 60, 5 / 60))
    np.testing.assert_allclose(five, 5 * one, rtol=1e-12, atol=1e-15)
