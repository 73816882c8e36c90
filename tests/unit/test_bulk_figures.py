"""The transmission grid in scenarios: what may be set, which figures come out."""

import numpy as np
import pytest

from voltier.grid.bulk import BulkSeconds
from voltier.grid.errors import InputError
from voltier.scenarios.build import operator_names, table_layouts
from voltier.scenarios.metrics_bulk import bulk_kpis, frequency_kpis
from voltier.scenarios.schema import load_scenario


def seconds(system_hz, t0=0):
    """Both areas at the system's frequency; extremes 0.01 Hz off; 100 MW of feeders less for each 0.1 Hz."""
    n = len(system_hz)
    both = np.column_stack([system_hz, system_hz])
    feeder = np.column_stack([np.zeros(n), 700.0 + 1000.0 * (60.0 - system_hz)])
    rocof = np.gradient(both, axis=0)
    return BulkSeconds(
        t_s=np.arange(t0, t0 + n), frequency_hz=both, frequency_min_hz=both - 0.01, frequency_max_hz=both + 0.01,
        rocof_hz_per_s=rocof, generation_mw=both, load_mw=both,
        export_mw=np.column_stack([feeder[:, 1] / 2, -feeder[:, 1] / 2]), feeder_mw=feeder,
    )  # fmt: skip


def test_figures_of_a_step_and_its_end():
    hz = np.concatenate([np.full(100, 60.0), [59.5], np.full(399, 59.8), [60.4], np.full(99, 60.0)])
    found = frequency_kpis(seconds(hz), 100, 500, mean_s=1)
    assert found["bulk.frequency_before_hz"] == pytest.approx(60.0)
    assert found["bulk.frequency_nadir_hz"] == pytest.approx(59.49)
    assert found["bulk.nadir_deviation_hz"] == pytest.approx(-0.51)
    assert found["bulk.settling_hz"] == pytest.approx(59.8)
    assert found["bulk.settling_deviation_hz"] == pytest.approx(-0.2)
    assert found["bulk.settling_time_s"] == 1
    assert found["bulk.rebound_hz"] == pytest.approx(0.41)
    assert found["bulk.feeders_rise_mw"] == pytest.approx(200.0)
    assert found["bulk.feeders_largest_rise_mw"] == pytest.approx(500.0)
    assert found["bulk.tie_swing_mw"] == pytest.approx(250.0)
    assert found["bulk.tie_settling_rise_mw"] == pytest.approx(100.0)
    # Of the seconds within the attack, the last is half way up to the rebound: (60.4 - 59.8) / 2.
    assert found["bulk.rocof_hz_per_s"] == pytest.approx(0.3)


def test_a_frequency_that_does_not_settle_has_no_settling_time():
    hz = 60.0 + 0.2 * np.sin(np.arange(400) / 20.0)
    assert frequency_kpis(seconds(hz), 100, 400, mean_s=1)["bulk.settling_time_s"] is None


def test_without_anything_before_there_are_no_figures():
    assert frequency_kpis(seconds(np.full(50, 60.0)), 0, 50) == {}
    assert bulk_kpis(None, load_scenario("ieee123-hour")) == {}


def test_there_is_no_transmission_grid_unless_asked_for():
    scenario = load_scenario("ieee123-attack-2b")
    assert scenario.bulk is None
    assert scenario.bulk_start_s is None
    assert "bulk" not in operator_names(scenario)
    assert "bulk" not in table_layouts(scenario)


def test_it_begins_a_quarter_of_an_hour_before_an_attack_or_when_told():
    asked = load_scenario("ieee123-attack-2b", ["bulk.copies=550"])
    assert (asked.bulk.system, asked.bulk.copies) == ("kundur", 550)
    assert asked.bulk_start_s == 3600
    assert operator_names(asked)[-1] == "bulk"
    assert table_layouts(asked)["bulk"].keys["area"] == ("1", "2")
    assert load_scenario("ieee123-attack-2b", ["bulk.start=21:10"]).bulk_start_s == 4200
    assert load_scenario("ieee123-hour", ["bulk={}"]).bulk_start_s == 0


@pytest.mark.parametrize(
    ("override", "field", "remedy"),
    [
        ("bulk.system=wecc", "bulk.system", "kundur"),
        ("bulk.copies=0", "bulk.copies", "more than 0"),
        ("bulk.copy=5", "bulk.copy", 'did you mean "copies"'),
        ("bulk.start=09:00", "bulk.start", "within the run"),
        ("bulk.start=noon", "bulk.start", "HH:MM"),
    ],
)
def test_what_is_wrong_with_it_is_told(override, field, remedy):
    with pytest.raises(InputError) as caught:
        load_scenario("ieee123-attack-2b", [override])
    (problem,) = caught.value.problems
    assert problem.field == field
    assert remedy in problem.remedy
