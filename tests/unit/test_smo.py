"""Secondary operators: what they ask for, whom they move, what they pay, and what they do when they cannot."""

from dataclasses import replace

import numpy as np
import pytest

from voltier.agents.clock import MarketClock
from voltier.agents.messages import (
    Attack,
    Injections,
    PrimarySchedule,
    SmaBids,
    SmaMeters,
    SmaSchedule,
    SmoBids,
)
from voltier.agents.operator import Mail
from voltier.agents.smo import SecondaryOperator, SecondaryRules, SmoRows
from voltier.grid.errors import ClearingAborted
from voltier.market.pricing import TariffRules
from voltier.market.scores import CommitmentRules, TrustRules
from voltier.market.settlement import SettlementRules

CLOCK = MarketClock(primary_period_s=300, end_s=900)
# Two operators in the middle of a run of more; the first has three agents and a generator on two phases.
ROWS = SmoRows(
    smo=np.array([4, 5]),
    bus=np.array([30, 31]),
    name=("smo_a", "smo_b"),
    sma=np.array([10, 11, 12, 13, 14]),
    n_sma_total=20,
    offset=np.array([0, 3, 5]),
    phases=np.array([[True, False, True], [False, True, False]]),
    gen_max_kw=np.array([50.0, 0.0]),
    alpha_usd_per_kw2h=np.array([0.001, 1.0]),
)
RULES = SecondaryRules(
    design="hierarchical",
    epsilon=0.0,
    retail_usd_per_kwh=0.129,
    tariffs=TariffRules(0.05, 0.01, 0.258, smoothing=0.1),
    settlement=SettlementRules(0.05, 0.01, 0.129),
    policy="relax",
    commitment=CommitmentRules(),
    trust=TrustRules(),
    commitment_weight=0.5,
    commitment_start=1.0,
    settlement_period_s=300,
)
P0 = np.array([-6.0, -8.0, -4.0, -5.0, -3.0])
Q0 = 0.33 * P0
P0_PHASE = np.array([[-20.0, 0.0, 2.0], [0.0, -8.0, 0.0]])
ROOM = np.array([5.0, 5.0, 5.0, 2.0, 2.0])


def bids(t_s=0, p0=P0, room=ROOM, q_room=1.0):
    body = SmaBids(
        t_s=t_s, sma=ROWS.sma, p0_kw=p0, p_min_kw=p0 - room, p_max_kw=p0 + room, q0_kvar=Q0,
        q_min_kvar=Q0 - q_room, q_max_kvar=Q0 + q_room, beta_p_usd_per_kw2h=np.array([0.1, 0.2, 0.4, 0.1, 0.3]),
        beta_q_usd_per_kvar2h=np.full(5, 0.05), p0_phase_kw=P0_PHASE, q0_phase_kvar=0.33 * P0_PHASE,
    )  # fmt: skip
    return Mail("cmo.0", "smo.0", body)


def primary(t_s=0, p=(-18.0, -8.0), q=None, gen=(40.0, 0.0), dlmp=(0.1, 0.12)):
    q = np.array([Q0[:3].sum(), Q0[3:].sum()]) if q is None else np.array(q)
    body = PrimarySchedule(
        t_s=t_s, smo=ROWS.smo, p_kw=np.array(p), q_kvar=q, gen_kw=np.array(gen),
        dlmp_p_usd_per_kwh=np.array(dlmp), dlmp_q_usd_per_kvarh=np.array([0.01, 0.0]),
    )  # fmt: skip
    return Mail("pmo", "smo.0", body)


def meters(t_s, p_kw, q_kvar=Q0, anomaly=0.0):
    body = SmaMeters(
        t_s=t_s, sma=ROWS.sma, p_kw=p_kw, q_kvar=q_kvar, anomaly=np.broadcast_to(anomaly, 5).astype(float)
    )
    return Mail("cmo.0", "smo.0", body)


def only(outbox, kind):
    (body,) = [mail.body for mail in outbox.mail if isinstance(mail.body, kind)]
    return body


def rows_of(outbox, table):
    return [rows for rows in outbox.rows if rows.table == table]


def kinds(outbox):
    return [row.columns["kind"][0] for row in rows_of(outbox, "events")]


def operator(**changes):
    return SecondaryOperator(0, ROWS, replace(RULES, **changes), CLOCK)


def cleared(smo, **asked):
    """Let the first minute clear on a set-point; return what was sent."""
    smo.decide(0, [bids()])
    return smo.decide(2, [primary(**asked)])


# ---------------------------------------------------------------------- upwards


def test_it_offers_the_sum_of_the_boxes_and_the_cheapest_split_of_a_move():
    offer = only(operator().decide(0, [bids()]), SmoBids)
    np.testing.assert_array_equal(offer.smo, [4, 5])
    np.testing.assert_allclose(offer.p0_kw, [-18.0, -8.0])
    np.testing.assert_array_equal(offer.p0_phase_kw, P0_PHASE)
    np.testing.assert_array_equal(offer.q0_phase_kvar, 0.33 * P0_PHASE)
    np.testing.assert_allclose(offer.p_min_kw, [-33.0, -12.0])
    np.testing.assert_allclose(offer.p_max_kw, [-3.0, -4.0])
    np.testing.assert_allclose(offer.q_max_kvar - offer.q0_kvar, [3.0, 2.0])
    # min of sum beta d^2 with sum d = 1 is 1 / sum(1/beta)
    np.testing.assert_allclose(offer.beta_p_usd_per_kw2h, [1 / (10 + 5 + 2.5), 1 / (10 + 1 / 0.3)])
    np.testing.assert_allclose(offer.beta_q_usd_per_kvar2h, [0.05 / 3, 0.05 / 2])
    np.testing.assert_array_equal(offer.gen_max_kw, [50.0, 0.0])
    assert (offer.alpha_usd_per_kw2h > 0).all()
    # everybody starts with a clean record: 50 good minutes against Beta's one doubt of either kind
    np.testing.assert_allclose(offer.resilience_score, 1.0, atol=1e-12)


def test_meters_go_up_as_the_mean_of_the_period_and_once():
    smo = operator()
    cleared(smo)
    for minute in range(1, 5):
        smo.decide(60 * minute, [bids(60 * minute), meters(60 * (minute - 1), P0 + minute)])
    offer = only(smo.decide(300, [bids(300), meters(240, P0 + 5)]), SmoBids)
    np.testing.assert_allclose(offer.p_meter_kw, [-18.0 + 3 * 3.0, -8.0 + 2 * 3.0])
    np.testing.assert_allclose(offer.q_meter_kvar, [Q0[:3].sum(), Q0[3:].sum()])
    np.testing.assert_allclose(offer.gen_meter_kw, [40.0, 0.0])
    smo.decide(302, [primary(300)])
    later = [smo.decide(300 + 60 * m, [bids(), meters(240 + 60 * m, P0)]) for m in range(1, 6)]
    np.testing.assert_allclose(only(later[-1], SmoBids).p_meter_kw, [-18.0, -8.0])


def test_it_bids_up_in_primary_minutes_and_sends_a_schedule_in_all():
    smo = operator()
    assert [type(mail.body) for mail in smo.decide(0, [bids()]).mail] == [SmoBids]
    for now_s, inbox in ((2, [primary()]), (60, [bids(60), meters(0, P0)])):
        outbox = smo.decide(now_s, inbox)
        assert [(m.receiver, type(m.body)) for m in outbox.mail] == [
            ("cmo.0", SmaSchedule),
            ("grid", Injections),
        ]
    last = smo.decide(900, [bids(900), meters(840, P0)])
    assert [(m.receiver, type(m.body)) for m in last.mail] == [("pmo", SmoBids)]


# ---------------------------------------------------------------------- clearing


def test_a_move_is_shared_in_proportion_to_the_scores():
    """Published example: scores in the ratio 39 : 41 : 20 share a move like that (epsilon = 0)."""
    scores = np.array([0.78, 0.82, 0.40, 1.0, 1.0])
    tolerance = 0.2
    rules = CommitmentRules(rate=1.0, tolerance=tolerance)  # the newest minute is all that counts
    smo = operator(commitment_weight=1.0, commitment=rules)
    schedule = only(cleared(smo), SmaSchedule)
    miss = -tolerance * np.log(scores) * np.maximum(np.abs(schedule.p_kw), 1.0)
    metered = meters(0, schedule.p_kw + miss)
    sent = smo.decide(60, [bids(60), metered, primary(0, p=(-8.0, -8.0))])
    np.testing.assert_allclose(rows_of(sent, "secondary")[0].columns["rs"], scores, rtol=1e-12)
    moved = only(sent, SmaSchedule).p_kw - P0
    # ten kW in all; the kernel's bisection ends at 1e-9 of the boxes
    np.testing.assert_allclose(moved, [3.9, 4.1, 2.0, 0.0, 0.0], atol=1e-6)


def test_schedules_meet_the_set_points_and_stay_in_their_boxes():
    outbox = cleared(operator(epsilon=0.05), p=(-25.0, -6.5), q=(Q0[:3].sum() + 1.5, Q0[3:].sum() - 0.5))
    schedule = only(outbox, SmaSchedule)
    np.testing.assert_allclose(
        np.bincount(np.repeat([0, 1], [3, 2]), schedule.p_kw), [-25.0, -6.5], atol=1e-6
    )
    wanted = np.array([Q0[:3].sum() + 1.5, Q0[3:].sum() - 0.5])
    np.testing.assert_allclose(np.bincount(np.repeat([0, 1], [3, 2]), schedule.q_kvar), wanted, atol=1e-6)
    assert (np.abs(schedule.p_kw - P0) <= ROOM + 1e-9).all()
    np.testing.assert_allclose(schedule.dp_kw, ROOM - np.abs(schedule.p_kw - P0), atol=1e-9)
    assert kinds(outbox) == []


def test_reactive_support_is_asked_on_top_of_what_the_loads_draw_now():
    smo = operator()
    cleared(smo, q=(Q0[:3].sum() + 1.5, Q0[3:].sum()))
    drift = bids(60)
    body = drift.body
    moved = {name: getattr(body, name) - 0.4 for name in ("q0_kvar", "q_min_kvar", "q_max_kvar")}
    values = {name: getattr(body, name) for name in SmaBids.__struct_fields__} | moved
    sent = smo.decide(60, [Mail("cmo.0", "smo.0", SmaBids(**values)), meters(0, P0)])
    asked = only(sent, SmaSchedule).q_kvar - (Q0 - 0.4)
    np.testing.assert_allclose([asked[:3].sum(), asked[3:].sum()], [1.5, 0.0], atol=1e-6)


def test_the_generator_feeds_its_phases_alike_and_an_attack_silences_it():
    smo = operator()
    feed = only(cleared(smo), Injections)
    np.testing.assert_array_equal(feed.bus, [30, 30])
    np.testing.assert_array_equal(feed.phase, [0, 2])
    np.testing.assert_allclose(feed.p_kw, [20.0, 20.0])
    assert not feed.q_kvar.any()

    def minute(now_s, smos, active):
        attack = Mail(
            "resilience", "smo.0", Attack(t_s=now_s, smo=np.array(smos, dtype=np.int64), active=active)
        )
        return only(smo.decide(now_s, [bids(now_s), meters(now_s - 60, P0), attack]), Injections)

    assert not minute(60, [4, 70], True).p_kw.any()
    assert not minute(120, [70], False).p_kw.any()  # another's release
    np.testing.assert_allclose(minute(180, [4, 70], False).p_kw, [20.0, 20.0])
    np.testing.assert_allclose(minute(240, [], True).p_kw, [20.0, 20.0])
    offer = only(smo.decide(300, [bids(300), meters(240, P0)]), SmoBids)
    assert offer.gen_meter_kw[0] == pytest.approx(40.0 * 3 / 5)  # silent for two minutes of five


@pytest.mark.parametrize(
    ("design", "expected"), [("primary_only", [0.1, 0.1, 0.1, 0.12, 0.12]), ("no_market", [0.129] * 5)]
)
def test_without_a_secondary_market_wishes_stand_and_tariffs_are_plain(design, expected):
    smo = operator(design=design, settlement=SettlementRules(0.0, 0.0, 0.0))
    smo.decide(0, [bids()])
    sent = smo.decide(2, [primary(p=(-10.0, -6.0))] if design == "primary_only" else [])
    schedule = only(sent, SmaSchedule)
    np.testing.assert_allclose(schedule.p_kw, P0, atol=1e-9)
    np.testing.assert_allclose(schedule.tariff_usd_per_kwh, expected)
    assert not schedule.tariff_q_usd_per_kvarh.any()


# ---------------------------------------------------------------------- failing


def test_an_unreachable_set_point_is_told_once_as_long_as_it_lasts():
    smo = operator()
    outbox = cleared(smo, p=(-18.0, 10.0))
    assert kinds(outbox) == ["shortage"]
    assert (
        rows_of(outbox, "events")[0].columns["text"][0].startswith("smo_b misses its set-point by +14.00 kW")
    )
    np.testing.assert_allclose(only(outbox, SmaSchedule).p_kw[3:], (P0 + ROOM)[3:])  # as far as it goes
    again = smo.decide(60, [bids(60), meters(0, P0)])
    assert kinds(again) == []
    back = smo.decide(120, [bids(120), meters(60, P0), primary(60)])
    assert kinds(back) == []
    anew = smo.decide(180, [bids(180), meters(120, P0), primary(120, p=(-18.0, 10.0))])
    assert kinds(anew) == ["shortage"]


def test_policy_abort_ends_the_run_at_an_unreachable_set_point_only():
    smo = operator(policy="abort")
    cleared(smo)
    with pytest.raises(ClearingAborted, match=r"smo_a at 60 s misses its set-point by \+27.000 kW"):
        smo.decide(60, [bids(60), meters(0, P0), primary(0, p=(24.0, -8.0))])


def test_policy_hold_keeps_the_last_schedule_of_those_that_miss_within_their_new_boxes():
    smo = operator(policy="hold")
    last = only(cleared(smo, p=(-15.0, -6.0)), SmaSchedule)
    p0 = P0 + np.array([0, 0, 0, 0, 4.5])  # the last agent's box has left its last schedule behind
    outbox = smo.decide(60, [bids(60, p0=p0), meters(0, P0), primary(0, p=(-12.0, 10.0))])
    held = only(outbox, SmaSchedule)
    assert kinds(outbox) == ["shortage"]
    assert held.p_kw[:3].sum() == pytest.approx(-12.0, abs=1e-6)  # the first operator clears as asked
    assert held.p_kw[3] == last.p_kw[3]
    assert held.p_kw[4] == p0[4] - ROOM[4]
    assert held.dp_kw[4] == 0.0
    np.testing.assert_allclose(held.dp_kw[3], ROOM[3] - abs(held.p_kw[3] - p0[3]))
    first = cleared(operator(policy="hold"), p=(-15.0, 10.0))
    np.testing.assert_allclose(only(first, SmaSchedule).p_kw[3:], (P0 + ROOM)[3:])  # nothing to hold yet


# ---------------------------------------------------------------------- after the fact


def test_meters_are_judged_by_the_schedule_they_are_about_whatever_order_mail_comes_in():
    results = []
    for turned in (False, True):
        smo = operator()
        schedule = only(cleared(smo, p=(-12.0, -8.0)), SmaSchedule)
        mail = [bids(60, p0=P0 - 3.0), meters(0, schedule.p_kw, schedule.q_kvar)]
        results.append(rows_of(smo.decide(60, mail[::-1] if turned else mail), "secondary")[0])
    for column, values in results[0].columns.items():
        np.testing.assert_array_equal(values, results[1].columns[column])
    assert results[0].t_s == 0
    np.testing.assert_array_equal(results[0].columns["p0_kw"], P0)
    np.testing.assert_array_equal(results[0].columns["cs"], np.ones(5))  # kept to the letter
    np.testing.assert_array_equal(results[0].columns["position"], ROWS.sma)


def test_broken_commitments_and_anomalies_cost_score_of_those_concerned_only():
    smo = operator()
    schedule = only(cleared(smo), SmaSchedule)
    broken = schedule.p_kw - np.array([0, 9.0, 0, 0, 0])
    anomaly = np.array([0, 0, 0, 0, 1.0])
    row = rows_of(smo.decide(60, [bids(60), meters(0, broken, schedule.q_kvar, anomaly)]), "secondary")[0]
    np.testing.assert_array_equal(row.columns["cs"] < 1.0, [False, True, False, False, False])
    np.testing.assert_array_equal(row.columns["ts"] < 0.98, [False, False, False, False, True])
    np.testing.assert_allclose(row.columns["rs"], 0.5 * (row.columns["cs"] + row.columns["ts"]))


def test_books_balance_and_pay_tariff_flexibility_and_penalty():
    rng, smo = np.random.default_rng(1), operator()
    sent = cleared(smo, p=(-12.0, -9.0))
    energy, kept, fines = np.zeros((3, 5))
    for minute in range(5):
        schedule = only(sent, SmaSchedule)
        metered = schedule.p_kw + rng.normal(0, 4, 5)
        q_metered = schedule.q_kvar + rng.normal(0, 0.2, 5)
        energy += (
            schedule.tariff_usd_per_kwh * metered / 60 + schedule.tariff_q_usd_per_kvarh * q_metered / 60
        )
        kept += (0.05 * np.abs(schedule.p_kw - P0) + 0.01 * schedule.dp_kw) / 60
        fines += 0.129 * np.maximum(np.abs(metered - schedule.p_kw) - schedule.dp_kw, 0.0) / 60
        now_s = 60 * (minute + 1)
        sent = smo.decide(now_s, [bids(now_s), meters(now_s - 60, metered, q_metered)])
    (row,) = rows_of(sent, "settlement")
    assert row.t_s == 0
    np.testing.assert_array_equal(row.columns["position"], [10, 11, 12, 13, 14, 24, 25])
    assert fines.any()
    books = (("energy_usd", energy), ("flexibility_usd", kept), ("penalty_usd", -fines))
    for column, received in books:
        amounts = row.columns[column]
        assert abs(amounts.sum()) < 1e-14  # rounding of transfers of less than a dollar
        np.testing.assert_allclose(amounts[:5], received, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(amounts[5], -received[:3].sum(), rtol=1e-9, atol=1e-12)
    assert rows_of(smo.decide(302, [primary(300)]), "settlement") == []


def test_tariffs_close_each_operators_budget_at_its_price():
    schedule = only(cleared(operator(), p=(-14.0, -7.0), dlmp=(0.1, 0.12)), SmaSchedule)
    market = np.repeat([0, 1], [3, 2])
    paid = schedule.tariff_usd_per_kwh * schedule.p_kw
    paid += 0.05 * np.abs(schedule.p_kw - P0) + 0.01 * schedule.dp_kw
    # what the agents get equals what the operator gets for them from the primary market
    np.testing.assert_allclose(np.bincount(market, paid), [0.1 * -14.0, 0.12 * -7.0], atol=1e-9)
    assert (schedule.tariff_usd_per_kwh >= 0).all()
    assert (schedule.tariff_usd_per_kwh <= 0.258).all()


def test_an_agent_whose_reading_is_lost_is_judged_and_settled_by_its_last_one():
    smo = operator()
    first = only(cleared(smo, p=(-12.0, -8.0)), SmaSchedule)
    miss = np.array([0.0, 9.0, 0.0, 0.0, 0.0])

    def some(t_s, p_kw, here):
        body = SmaMeters(
            t_s=t_s, sma=ROWS.sma[here], p_kw=p_kw[here], q_kvar=Q0[here], anomaly=np.zeros(len(here))
        )
        return Mail("cmo.0", "smo.0", body)

    # never read: taken at its word
    sent = smo.decide(60, [bids(60), some(0, first.p_kw - miss, [0, 2, 3, 4])])
    row = rows_of(sent, "secondary")[0]
    np.testing.assert_array_equal(row.columns["p_meter_kw"], first.p_kw)
    assert row.t_s == 0
    second = only(sent, SmaSchedule)
    sent = smo.decide(120, [bids(120), some(60, second.p_kw - miss, [0, 1, 2, 3, 4])])
    assert rows_of(sent, "secondary")[0].columns["cs"][1] < 1.0
    third = only(sent, SmaSchedule)
    # lost afterwards: the last reading stands, and with it the bad mark, though it would be good now
    row = rows_of(smo.decide(180, [bids(180), some(120, third.p_kw, [0, 2, 3, 4])]), "secondary")[0]
    assert row.columns["p_meter_kw"][1] == second.p_kw[1] - 9.0
    np.testing.assert_array_equal(np.delete(row.columns["p_meter_kw"], 1), np.delete(third.p_kw, 1))
    assert row.columns["cs"][1] < rows_of(sent, "secondary")[0].columns["cs"][1]
    # nothing arrives at all
    row = rows_of(smo.decide(240, [bids(240), some(180, P0, [])]), "secondary")[0]
    assert row.columns["p_meter_kw"][1] == second.p_kw[1] - 9.0


# ---------------------------------------------------------------------- certificates


def test_every_clearing_leaves_its_certificate():
    outbox = cleared(operator(epsilon=0.05), p=(-25.0, 10.0))
    (row,) = rows_of(outbox, "secondary_clearings")
    assert row.t_s == 0
    np.testing.assert_array_equal(row.columns["position"], ROWS.smo)
    assert (row.columns["residual"] < 1e-9).all()  # the kernel's own bound
    np.testing.assert_array_equal(row.columns["converged"], 1.0)
    np.testing.assert_allclose(row.columns["p_shortage_kw"], [0.0, 14.0], atol=1e-9)
    np.testing.assert_array_equal(row.columns["capped"], 0.0)
    assert (row.columns["solve_s"] > 0).all()
    for design in ("primary_only", "no_market"):  # nothing is cleared there
        smo = operator(design=design, settlement=SettlementRules(0.0, 0.0, 0.0))
        smo.decide(0, [bids()])
        assert rows_of(smo.decide(2, [primary()]), "secondary_clearings") == []


def test_a_budget_that_tariff_limits_keep_open_is_told_when_it_begins():
    smo = operator()
    # dearer than the tariff's cap of 0.258 $/kWh, and a reactive price beyond a tenth of it
    dear = primary(p=(-14.0, -8.0), dlmp=(0.4, 0.1))
    schedule = {name: getattr(dear.body, name) for name in PrimarySchedule.__struct_fields__}
    dear = Mail("pmo", "smo.0", PrimarySchedule(**schedule | {"dlmp_q_usd_per_kvarh": np.array([0.0, 0.05])}))
    smo.decide(0, [bids()])
    outbox = smo.decide(2, [dear])
    (row,) = rows_of(outbox, "secondary_clearings")
    sent = only(outbox, SmaSchedule)
    paid = 0.258 * sent.p_kw[:3] + 0.05 * np.abs(sent.p_kw - P0)[:3] + 0.01 * sent.dp_kw[:3]
    left = 0.4 * -14.0 - paid.sum()
    left_q = (0.05 - 0.0258) * Q0[3:].sum()
    np.testing.assert_allclose(row.columns["budget_residual_usd_per_h"], [left, 0.0], atol=1e-9)
    np.testing.assert_allclose(row.columns["q_budget_residual_usd_per_h"], [0.0, left_q], atol=1e-9)
    np.testing.assert_array_equal(row.columns["capped"], [1.0, 0.0])
    np.testing.assert_array_equal(row.columns["q_capped"], [0.0, 1.0])
    assert [row.columns["text"][0] for row in rows_of(outbox, "events")] == [
        f"smo_a: tariff limits leave the budget of active energy open by {left:+.4f} $/h, paid by the operator",
        f"smo_b: tariff limits leave the budget of reactive energy open by {left_q:+.4f} $/h, paid by the operator",
    ]
    assert kinds(smo.decide(60, [bids(60), meters(0, P0)])) == []  # lasts, is not told again
    assert kinds(smo.decide(120, [bids(120), meters(60, P0), primary(60)])) == []
    assert kinds(smo.decide(180, [bids(180), meters(120, P0), dear])) == ["budget-open"] * 2


def test_neighbours_in_a_shard_do_not_change_an_operator():
    whole = only(cleared(operator(epsilon=0.05), p=(-12.0, -6.0)), SmaSchedule)
    alone = SmoRows(
        smo=ROWS.smo[1:], bus=ROWS.bus[1:], name=ROWS.name[1:], sma=ROWS.sma[3:], n_sma_total=20,
        offset=np.array([0, 2]), phases=ROWS.phases[1:], gen_max_kw=ROWS.gen_max_kw[1:],
        alpha_usd_per_kw2h=ROWS.alpha_usd_per_kw2h[1:],
    )  # fmt: skip
    smo = SecondaryOperator(0, alone, replace(RULES, epsilon=0.05), CLOCK)

    def part(body, first):
        cut = {
            name: value[first:] if isinstance(value := getattr(body, name), np.ndarray) else value
            for name in body.__struct_fields__
        }
        return Mail("x", "smo.0", type(body)(**cut))

    smo.decide(0, [part(bids().body, 3)])
    sent = smo.decide(2, [part(primary(p=(-12.0, -6.0)).body, 1)])
    assert [type(mail.body) for mail in sent.mail] == [SmaSchedule]  # no generator, nothing for the grid
    for name in ("p_kw", "q_kvar", "dp_kw", "tariff_usd_per_kwh"):
        np.testing.assert_array_equal(getattr(only(sent, SmaSchedule), name), getattr(whole, name)[3:])
