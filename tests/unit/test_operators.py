"""Operators in isolation: what they send and record, on small hand-made inputs."""

import numpy as np
import pytest

from voltier.agents.attacker import Attacker, GeneratorAttack
from voltier.agents.grid import GridOperator
from voltier.agents.messages import (
    Alarm,
    Attack,
    Conditions,
    Forecast,
    ImportSchedule,
    Injections,
    Measurement,
    Taps,
)
from voltier.agents.operator import Mail
from voltier.agents.resilience import ResilienceOperator
from voltier.agents.wholesale import ConditionSeries, WholesaleOperator
from voltier.grid.feeder import read_feeder
from voltier.grid.flow.port import Flow
from voltier.market.resilience.detection import Detector

FEEDER = read_feeder("ieee123")


class LosslessEngine:
    """A power flow without impedance: everything injected arrives; voltages are given."""

    def __init__(self, v_pu=1.0):
        self.v_pu = v_pu

    def solve(self, p_kw, q_kvar, tap):
        v = np.where(FEEDER.has_phase, self.v_pu + 0j, np.nan)
        return Flow(v, p_kw.sum(axis=0), q_kvar.sum(axis=0), 0.0, np.zeros(len(tap), complex), True)


def grid_operator(engine):
    tap = np.zeros(len(FEEDER.regulators.phase), dtype=np.int64)
    return GridOperator(FEEDER, engine, tap, controlled=False, v_min_pu=0.95, v_max_pu=1.05)


def injections(p_kw):
    bus, phase = np.nonzero(FEEDER.has_phase)
    return Injections(t_s=0, bus=bus[:3], phase=phase[:3], p_kw=np.array(p_kw), q_kvar=np.zeros(3))


def test_grid_sums_injections_of_all_senders_and_reports_the_substation():
    parts = [
        Mail("cmo.0", "grid", injections([-3.0, -2.0, -1.0])),
        Mail("smo.0", "grid", injections([1.0, 0, 0])),
    ]
    outbox = grid_operator(LosslessEngine()).decide(4, parts)
    measured = next(mail.body for mail in outbox.mail if isinstance(mail.body, Measurement))
    assert measured.p_cc_kw.sum() == pytest.approx(-5.0, abs=1e-12)
    assert {mail.receiver for mail in outbox.mail if isinstance(mail.body, Taps)} == {"pmo"}
    assert [rows.table for rows in outbox.rows] == ["grid", "substation", "taps"]


def test_grid_says_once_when_voltages_leave_their_limits_and_once_when_they_return():
    engine = LosslessEngine(1.06)
    operator = grid_operator(engine)
    kinds = []
    for minute, v_pu in enumerate((1.06, 1.06, 1.0, 1.0)):
        engine.v_pu = v_pu
        rows = operator.decide(60 * minute + 4, []).rows
        kinds += [kind for row in rows if row.table == "events" for kind in row.columns["kind"]]
    assert kinds == ["voltage", "voltage-restored"]


def voltage_text(v_pu, *, tap=0, controlled=False):
    """What the grid says of one minute in which bus 83 has these voltages, and all others are at 1."""
    engine = LosslessEngine()
    solve = engine.solve

    def bent(p_kw, q_kvar, taps):
        flow = solve(p_kw, q_kvar, taps)
        flow.v_pu[FEEDER.bus.index("83")] = v_pu
        return flow

    engine.solve = bent
    taps = np.full(len(FEEDER.regulators.phase), tap, dtype=np.int64)
    operator = GridOperator(FEEDER, engine, taps, controlled=controlled, v_min_pu=0.95, v_max_pu=1.05)
    if controlled:
        operator._settled = True
    (row,) = [row for row in operator.decide(4, []).rows if row.table == "events"]
    return row.columns["text"][0]


def test_an_excess_is_said_with_its_size_and_its_reason():
    text = voltage_text([1.050031, 1.0, 1.01])
    assert "1 of 283 nodes outside 0.95 to 1.05 p.u.; farthest 83.a, 0.000031 p.u. above 1.05" in text
    assert "unbalance, the mean of its phases is 1.0200, inside" in text
    assert "reg1 at tap 0 is fixed, reg4 at tap 0 is fixed" in text
    text = voltage_text([1.0, 0.9, 0.94])
    assert "2 of 283 nodes" in text
    assert "farthest 83.b, 0.05 p.u. below 0.95: the mean of its phases is outside too, 0.9467" in text


def test_taps_at_their_end_or_before_their_move_are_named():
    # relays see 1.0 p.u. or 120.09 V: reg1 is content with its 120 V, reg4 wants 124 V and can, or cannot
    text = voltage_text([0.94, 1.0, 1.0], tap=3, controlled=True)
    assert "reg1 at tap 3 rests" in text
    assert "reg4 at tap 3 moves to 8 after its delay" in text
    assert "reg4 at tap 16 is at its end" in voltage_text([0.94, 1.0, 1.0], tap=16, controlled=True)


def test_a_node_is_farthest_by_what_it_exceeds_not_by_its_distance_from_one():
    """With limits that are not symmetric the two differ."""
    engine = LosslessEngine(0.94)
    operator = GridOperator(FEEDER, engine, np.zeros(9, int), controlled=False, v_min_pu=0.95, v_max_pu=1.2)
    solve = engine.solve

    def bent(p_kw, q_kvar, taps):
        flow = solve(p_kw, q_kvar, taps)
        flow.v_pu[FEEDER.bus.index("83")] = 1.205
        return flow

    engine.solve = bent
    (row,) = [row for row in operator.decide(4, []).rows if row.table == "events"]
    assert "0.01 p.u. below 0.95" in row.columns["text"][0]


def test_wholesale_announces_conditions_each_minute_and_forecasts_one_minute_ahead():
    n = 1 + 60 + 120
    series = ConditionSeries(np.arange(n, dtype=float), np.full(n, 15.0), np.zeros(n))
    operator = WholesaleOperator(series, shards=2, plan_period_s=3600, plan_step_s=1800, horizon_s=3600)
    first = operator.decide(-60, []).mail
    forecasts = [mail for mail in first if isinstance(mail.body, Forecast)]
    assert [mail.receiver for mail in forecasts] == ["cmo.0", "cmo.1"]
    # The horizon starts with the first minute of the run, which is the second of the series.
    np.testing.assert_allclose(
        forecasts[0].body.price_usd_per_kwh, [np.arange(1, 31).mean(), np.arange(31, 61).mean()]
    )
    later = operator.decide(0, []).mail
    assert all(isinstance(mail.body, Conditions) for mail in later)
    assert later[0].body.price_usd_per_kwh == 1.0


def resilience_operator(attack=None, mitigate=True):
    detector = Detector(sigmas=4.0, load_share=0.01, consecutive=2, warm_up=5)
    attacker = Attacker(attack, ("smo_1", "smo_2"), shards=1)
    return ResilienceOperator(detector, attacker, enabled=True, mitigate=mitigate)


def minute_mail(t_s, p_cc_kw, scheduled_kw=-1000.0):
    measured = Measurement(t_s=t_s, p_cc_kw=np.full(3, p_cc_kw / 3), q_cc_kvar=np.zeros(3))
    scheduled = ImportSchedule(t_s=t_s, p_cc_kw=scheduled_kw, load_kw=1500.0)
    return [Mail("grid", "resilience", measured), Mail("pmo", "resilience", scheduled)]


def test_a_lasting_rise_of_the_import_raises_the_alarm_and_its_end_clears_it():
    operator = resilience_operator()
    rng = np.random.default_rng(1)
    kinds, alarms = [], []
    for minute in range(60):
        attacked = 30 <= minute < 45
        p_cc_kw = -1000.0 + rng.normal(0, 3.0) - (300.0 if attacked else 0.0)
        outbox = operator.decide(60 * minute, minute_mail(60 * (minute - 1), p_cc_kw))
        kinds += [(minute, row.columns["kind"][0]) for row in outbox.rows]
        alarms += [mail.body for mail in outbox.mail if isinstance(mail.body, Alarm)]
    assert [kind for _, kind in kinds] == ["alarm", "all-clear"]
    assert kinds[0][0] == 31
    assert alarms[0].target_p_cc_kw == pytest.approx(-1000.0, abs=3.0)  # the mean of 15 samples of sigma 3
    assert alarms[0].shortfall_kw == pytest.approx(300.0, abs=15.0)  # five sigmas of the noise
    assert not alarms[-1].active


def test_the_attacker_strikes_and_lets_go_at_its_times():
    operator = resilience_operator(GeneratorAttack(np.array([1]), start_s=120, end_s=240))
    sent = {now_s: [mail.body for mail in operator.decide(now_s, []).mail] for now_s in range(0, 360, 60)}
    assert [now_s for now_s, bodies in sent.items() if bodies] == [120, 240]
    assert isinstance(sent[120][0], Attack)
    assert sent[120][0].active
    assert not sent[240][0].active
