"""Secondary clearing: hand-computed markets, optimality conditions and edge cases."""

from dataclasses import replace

import numpy as np
import pytest

from voltier.market.secondary import SecondaryBids, clear_secondary, level_values

SCORES = np.array([0.947, 0.985, 0.493])  # the three agents of Nair, PhD thesis, MIT 2025


def one_market(rs, *, half_kw=3.0, p0_kw=0.0, beta=0.1):
    n = len(rs)
    zero = np.zeros(n)
    return SecondaryBids(
        offset=np.array([0, n]),
        p0_kw=zero + p0_kw,
        p_min_kw=zero + p0_kw - half_kw,
        p_max_kw=zero + p0_kw + half_kw,
        q0_kvar=zero,
        q_min_kvar=zero,
        q_max_kvar=zero,
        beta_p_usd_per_kw2h=zero + beta,
        beta_q_usd_per_kvar2h=zero + beta,
        resilience_score=np.asarray(rs, dtype=float),
    )


def clear_p(bids, target_kw, epsilon=0.0):
    return clear_secondary(bids, np.array([float(target_kw)]), np.zeros(1), epsilon=epsilon)


def test_published_scores_share_39_41_20_percent():
    dispatch = clear_p(one_market(SCORES), 2.0)
    share = dispatch.p_kw / 2.0
    # the closed form D RS_j / sum RS; only rounding remains
    np.testing.assert_allclose(share, SCORES / SCORES.sum(), rtol=1e-12)
    np.testing.assert_allclose(100 * share, [39, 41, 20], atol=0.5)  # published to a whole percent
    assert dispatch.feasible.all()
    assert dispatch.residual[0] < 1e-12


def test_curtailment_moves_the_other_way_with_the_same_shares():
    up, down = clear_p(one_market(SCORES, p0_kw=-5.0), -13.0), clear_p(one_market(SCORES, p0_kw=-5.0), -17.0)
    np.testing.assert_allclose(up.p_kw + 5.0, -(down.p_kw + 5.0), rtol=1e-12)


def test_saturated_agent_leaves_the_rest_to_the_others_in_ratio_of_scores():
    bids = one_market(SCORES)
    bids = replace(bids, p_max_kw=np.array([0.2, 3.0, 3.0]))
    p = clear_p(bids, 2.0).p_kw
    assert p[0] == 0.2
    assert p[1] / p[2] == pytest.approx(SCORES[1] / SCORES[2], rel=1e-12)
    assert p.sum() == pytest.approx(2.0, abs=1e-12)


def test_epsilon_lets_later_objectives_act_within_the_bound():
    bids = replace(one_market(SCORES), beta_p_usd_per_kw2h=np.array([0.4, 0.05, 0.1]))
    strict, loose = clear_p(bids, 2.5), clear_p(bids, 2.5, epsilon=0.05)
    best = strict.level_value[0, 0]
    values = level_values(bids, loose.p_kw, loose.q_kvar)[0]
    assert values[0] <= best * 1.05 * (1 + 1e-9)
    assert values[0] > best * 1.04  # the cheap agent is used up to the bound
    # f3 < 0: the bound is F + epsilon |F|, which lies above F and so is feasible
    assert values[1] <= loose.level_value[0, 1] * 0.95 + 1e-9
    assert values[2] < level_values(bids, strict.p_kw, strict.q_kvar)[0, 2]
    assert loose.p_kw[1] > strict.p_kw[1]


def test_stage_room_matches_a_hand_solved_market():
    # Two agents, equal scores, d1 + d2 = 2; boxes [-3, 3] and [-1, 5]: agent 2 sits below its middle (2), so
    # each kW moved from 1 to 2 gains two kW of room until f1 = d1^2 + d2^2 is 1.08 * 2: d = 1 -/+ sqrt(0.08).
    bids = one_market([1.0, 1.0])
    bids = replace(bids, p_min_kw=np.array([-3.0, -1.0]), p_max_kw=np.array([3.0, 5.0]))
    dispatch = clear_p(bids, 2.0, epsilon=0.08)
    move = np.sqrt(0.08)
    room = (3.0 - (1.0 - move)) + (1.0 + move + 1.0)
    assert dispatch.level_value[0, 1] == pytest.approx(-room, rel=1e-9)


def test_nothing_asked_nothing_moves():
    bids = one_market(SCORES, p0_kw=-4.0)
    for epsilon in (0.0, 0.05, 0.5):
        dispatch = clear_p(bids, -12.0, epsilon)
        np.testing.assert_array_equal(dispatch.p_kw, bids.p0_kw)
        assert dispatch.level_value[0, 0] == 0.0


@pytest.mark.parametrize(("target", "end", "short"), [(12.0, 3.0, 3.0), (-10.0, -3.0, -1.0)])
def test_target_beyond_the_boxes_goes_to_their_end_and_reports_the_shortage(target, end, short):
    dispatch = clear_p(one_market(SCORES), target, epsilon=0.05)
    np.testing.assert_array_equal(dispatch.p_kw, end)
    assert dispatch.p_shortage_kw[0] == pytest.approx(short)
    assert dispatch.converged[0]
    assert not dispatch.feasible[0]
    np.testing.assert_array_equal(dispatch.dp_kw, 0.0)


def test_agent_without_score_moves_last():
    p = clear_p(one_market([0.0, 1.0]), 2.0).p_kw
    assert p[0] < 1e-3
    p = clear_p(one_market([0.0, 1.0]), 4.0).p_kw
    np.testing.assert_allclose(p, [1.0, 3.0], atol=1e-9)


def test_single_agent_takes_all():
    for epsilon in (0.0, 0.05):
        dispatch = clear_p(one_market([0.7]), 1.25, epsilon)
        assert dispatch.p_kw[0] == pytest.approx(1.25, abs=1e-12)
        assert dispatch.dp_kw[0] == pytest.approx(1.75, abs=1e-12)
        assert dispatch.feasible[0]


def test_boxes_of_no_width_stay():
    dispatch = clear_p(one_market(SCORES, half_kw=0.0, p0_kw=-2.0), -6.0, epsilon=0.05)
    np.testing.assert_array_equal(dispatch.p_kw, -2.0)
    assert dispatch.feasible[0]
    mixed = replace(one_market(SCORES), p_min_kw=np.array([0.0, -3, -3]), p_max_kw=np.array([0.0, 3, 3]))
    np.testing.assert_allclose(clear_p(mixed, 3.0).p_kw[0], 0.0)


def test_wish_at_a_limit():
    bids = replace(one_market(SCORES), p_max_kw=np.zeros(3))
    up, down = clear_p(bids, 0.5, 0.05), clear_p(bids, -1.5, 0.05)
    np.testing.assert_array_equal(up.p_kw, 0.0)
    assert up.p_shortage_kw[0] == 0.5
    assert down.feasible[0]
    assert (down.p_kw <= 0).all()


def test_market_without_agents_reports_its_whole_target():
    bids = replace(one_market(SCORES), offset=np.array([0, 0, 3]))
    dispatch = clear_secondary(bids, np.array([1.5, 2.0]), np.zeros(2))
    np.testing.assert_allclose(dispatch.p_shortage_kw, [1.5, 0.0])
    assert list(dispatch.feasible) == [False, True]


def test_active_and_reactive_requests_share_one_reliability_bound():
    bids = one_market(SCORES)
    bids = replace(bids, q_min_kvar=np.full(3, -2.0), q_max_kvar=np.full(3, 2.0))
    dispatch = clear_secondary(bids, np.array([2.0]), np.array([-1.0]), epsilon=0.0)
    np.testing.assert_allclose(dispatch.q_kvar, -SCORES / SCORES.sum(), rtol=1e-12)
    np.testing.assert_allclose(dispatch.p_kw, 2 * SCORES / SCORES.sum(), rtol=1e-12)


def test_no_disutility_keeps_the_roomiest_schedule():
    bids = one_market(SCORES, beta=0.0)
    dispatch = clear_p(bids, 2.0, 0.05)
    values = level_values(bids, dispatch.p_kw, dispatch.q_kvar)[0]
    assert values[1] == pytest.approx(dispatch.level_value[0, 1], rel=1e-12)
    assert values[2] == 0.0


def test_not_a_number_is_flagged_in_its_market_only():
    bids = one_market([*SCORES, *SCORES])
    bids = replace(bids, offset=np.array([0, 3, 6]), p0_kw=np.array([np.nan, 0, 0, 0, 0, 0]))
    for epsilon in (0.0, 0.05):
        dispatch = clear_secondary(bids, np.array([2.0, 2.0]), np.zeros(2), epsilon=epsilon)
        assert list(dispatch.feasible) == [False, True]
