"""Commitment, trust and resilience scores."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from voltier.agents.randomness import stream
from voltier.market.scores import (
    CommitmentRules,
    TrustRules,
    commitment_error,
    resilience_score,
    smo_resilience_score,
    update_commitment,
    update_trust,
)

RULES = CommitmentRules()
BEHAVIOUR = ((20.0, 1.0), (5.0, 1.5), (1.5, 3.0))  # reliable, average, unreliable: Beta(a, b) share delivered


def commit(cs, meter, sched, dp, rules=RULES, offset=None):
    cs, meter, sched, dp = (np.atleast_1d(np.asarray(v, dtype=float)) for v in (cs, meter, sched, dp))
    zero = np.zeros_like(meter)
    return update_commitment(cs, meter, sched, dp, rules, reactive=(zero, zero, zero), offset=offset)


def test_error_counts_only_outside_the_contract():
    error = commitment_error(np.array([-3.0, -2.5, -1.0]), np.array([-3.0] * 3), np.array([0.5] * 3))
    np.testing.assert_allclose(error, [0.0, 0.0, 1.5])


def test_absolute_score_by_hand():
    # relative error (4 - 3 - 0.5)/3 = 1/6, half of it over 0.2
    got = commit(0.8, -4.0, -3.0, 0.5)
    assert got[0] == pytest.approx(0.95 * 0.8 + 0.05 * np.exp(-0.5 / 6 / 0.2))


def test_perfect_response_returns_to_one_and_small_schedules_use_the_base():
    assert commit(1.0, -3.2, -3.0, 0.5)[0] == 1.0
    assert commit(1.0, 0.2, 0.0, 0.0)[0] == pytest.approx(0.95 + 0.05 * np.exp(-0.5))
    cs = np.array([0.1])
    for _ in range(500):
        cs = commit(cs, -3.0, -3.0, 0.0)
    assert cs[0] == pytest.approx(1.0, abs=1e-9)


def test_worse_behaviour_never_scores_higher():
    scores = commit(np.full(50, 0.9), -3.0 - np.linspace(0, 5, 50), np.full(50, -3.0), np.full(50, 0.3))
    assert (np.diff(scores) <= 0).all()


def test_relative_score_compares_within_the_market_only():
    rules = CommitmentRules(variant="relative")
    offset = np.array([0, 3, 5])
    meter, sched = np.array([-3.0, -4.0, -5.0, -9.0, -9.0]), np.full(5, -3.0)
    cs = commit(np.full(5, 0.5), meter, sched, np.zeros(5), rules, offset)
    # errors 0, 1/3, 2/3 deviate by -1, 0, 1 of the largest deviation; reactive part zero
    np.testing.assert_allclose(cs[:3], [0.525, 0.5, 0.475])
    np.testing.assert_allclose(cs[3:], 0.5)  # equally bad: no difference
    top = commit(np.full(5, 1.0), meter, sched, np.zeros(5), rules, offset)
    assert top.max() <= 1.0


def test_unknown_variant_is_an_error():
    with pytest.raises(ValueError, match="variant"):
        commit(1.0, -3.0, -3.0, 0.0, CommitmentRules(variant="best"))
    with pytest.raises(ValueError, match="offset"):
        commit(1.0, -3.0, -3.0, 0.0, CommitmentRules(variant="relative"))


@pytest.mark.parametrize("variant", ["absolute", "relative"])
def test_a_day_separates_reliable_from_unreliable_agents(variant):
    rng = stream(7, "test-scores")
    n, offset = 90, np.arange(0, 91, 6)
    kind = rng.integers(0, 3, n)
    kind[::6], kind[1::6], kind[2::6] = 0, 1, 2
    a, b = np.array(BEHAVIOUR)[kind].T
    reliability = a / (a + b)
    cs = np.ones(n)
    rules = CommitmentRules(variant=variant)
    for _ in range(24 * 60):
        p0 = rng.uniform(-8, -4, n)
        sched = p0 + rng.uniform(-1.5, 1.5, n)
        meter = p0 + (sched - p0) * rng.beta(a, b)
        cs = commit(cs, meter, sched, np.full(n, 0.1), rules, offset)
        assert ((cs >= 0) & (cs <= 1)).all()
    correlation = spearmanr(cs, reliability).statistic
    if variant == "absolute":
        assert correlation >= 0.8
        assert cs[kind == 0].min() > cs[kind == 2].max()
    else:
        assert correlation >= 0.7  # scores end at 0 or 1, where ties cost rank correlation


def test_trust_falls_with_anomalies_and_recovers():
    rules = TrustRules()
    r = s = np.zeros(2)
    anomaly = np.array([0.0, 1.0])
    for _ in range(200):
        r, s, ts = update_trust(r, s, anomaly, rules)
    assert ts[0] > 0.95
    assert ts[1] < 0.05
    for _ in range(400):
        r, s, ts = update_trust(r, s, np.zeros(2), rules)
    assert ts[1] > 0.9


def test_trust_by_hand_and_alarm():
    r, s, ts = update_trust(np.array([3.0]), np.array([1.0]), np.array([0.5]), TrustRules(0.9, 2.0), 0.4)
    np.testing.assert_allclose([r[0], s[0]], [0.9 * 3 + 0.5, 0.9 + 1.0])
    assert ts[0] == pytest.approx(0.6 * (3.2 + 1) / (3.2 + 1.9 + 2))


def test_resilience_scores():
    np.testing.assert_allclose(resilience_score(np.array([0.9]), np.array([0.5]), 0.25), 0.6)
    rs = np.array([0.947, 0.985, 0.493, 0.8])
    got = smo_resilience_score(np.array([0, 3, 3, 4]), np.array([1.0, -2.0, 1.0, 0.0]), rs)
    np.testing.assert_allclose(got, [(0.947 + 2 * 0.985 + 0.493) / 4, 0.0, 0.8])
