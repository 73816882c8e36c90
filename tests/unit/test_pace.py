"""The wall clock of a run: nobody acts early, lateness is told, and time steps of the system do no harm."""

import time

import pytest

from voltier.federates.pace import Pace
from voltier.federates.ports import Pacing


def test_an_instant_is_held_until_it_is_due_and_its_lag_is_told() -> None:
    pace = Pace(Pacing(factor=100.0, lag_budget_ms=2000.0))
    began = time.monotonic()
    pace.begin(time.time())
    (row,) = pace.hold("smo.0", 20)
    assert time.monotonic() - began >= 0.2 - 1e-3  # the two clocks are read one after the other
    assert row.table == "realtime"
    assert row.columns["operator"] == ["smo.0"]
    # A busy machine may wake us late, never early.
    assert 0.0 <= row.columns["lag_ms"][0] < 2000.0
    assert pace.simulated_s() >= 20.0
    assert pace.unix_s(20) == pytest.approx(time.time() - (pace.simulated_s() - 20) / 100.0, abs=0.05)


def test_going_over_the_budget_is_an_event_each_time_it_begins() -> None:
    pace = Pace(Pacing(factor=1.0, lag_budget_ms=50.0))
    pace.begin(time.time() - 10.0)
    assert [len(pace.hold("grid", now_s)) for now_s in (0, 5)] == [2, 1]
    assert len(pace.hold("pmo", 5)) == 2  # another operator's lateness is news again
    pace = Pace(Pacing(factor=1.0, lag_budget_ms=50.0))
    pace.begin(time.time() - 0.1)
    (_, event) = pace.hold("grid", 0)
    assert event.columns["kind"] == ["lag"]
    assert "more than the 50 ms allowed" in event.columns["text"][0]


def test_who_is_released_waits_no_longer() -> None:
    pace = Pace(Pacing(factor=1.0))
    pace.begin(time.time())
    pace.release()
    began = time.monotonic()
    pace.hold("grid", 3600)
    assert time.monotonic() - began < 5.0
