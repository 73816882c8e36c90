"""Regulator control: the relay equation by hand, and the published taps as a point of rest."""

from dataclasses import fields, replace

import numpy as np
import pytest

from voltier.grid.feeder import read_feeder
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.flow.port import Flow
from voltier.grid.regulators import (
    initial_taps,
    neutral_taps,
    next_taps,
    regulators_above,
    relay_voltage_v,
)


@pytest.fixture(scope="module")
def feeder():
    return read_feeder("ieee123")


def flow_at(feeder, v_pu, current_a):
    shape = (len(feeder.bus), 3)
    volts = np.full(shape, v_pu, dtype=complex)
    currents = np.full(9, current_a, dtype=complex)
    return Flow(volts, np.zeros(3), np.zeros(3), 0.0, currents, converged=True)


def test_the_relay_sees_the_compensated_voltage(feeder):
    """reg1: pt 20, ct 700 A, R 3 V, X 7.5 V, by hand at 1.0 pu and 350 A lagging by 30 degrees."""
    current = 350.0 * np.exp(-1j * np.pi / 6)
    by_hand = abs(4160 / np.sqrt(3) / 20 - (3 + 7.5j) * current / 700)
    assert relay_voltage_v(feeder, flow_at(feeder, 1.0, current))[0] == pytest.approx(by_hand, rel=1e-14)


def test_a_feeder_without_regulators_has_no_taps_to_move(feeder):
    rows = feeder.regulators
    none = {field.name: getattr(rows, field.name)[:0] for field in fields(rows)}
    bare = replace(feeder, regulators=replace(rows, **none))
    flow = replace(flow_at(feeder, 0.9, 0.0), i_regulator_a=np.zeros(0, dtype=complex))
    assert relay_voltage_v(bare, flow).shape == (0,)
    assert next_taps(bare, flow, neutral_taps(bare)).shape == (0,)


def test_taps_move_by_whole_steps_towards_the_set_point_and_stop_at_the_end(feeder):
    # relay at 120.09·v; set 120 (reg1 to reg3) and 124 (reg4); a step is 0.7506 V
    flow = flow_at(feeder, 0.97, 0.0)
    short = np.array([120.0] * 6 + [124.0] * 3) - 0.97 * 4160 / np.sqrt(3) / 20
    expected = np.floor(short / (0.00625 * 4160 / np.sqrt(3) / 20)).astype(int)
    assert next_taps(feeder, flow, neutral_taps(feeder)).tolist() == expected.tolist()
    assert expected.tolist() == [4] * 6 + [10] * 3
    assert next_taps(feeder, flow, np.full(9, 15)).tolist() == [16] * 9
    assert next_taps(feeder, flow_at(feeder, 1.10, 0.0), np.full(9, -16)).tolist() == [-16] * 9


def test_inside_the_band_nothing_moves_and_just_outside_it_moves_by_one(feeder):
    nominal = 4160 / np.sqrt(3) / 20
    narrow = 3 + np.arange(3)  # reg2 has 2 V, reg3 has 1 V of band
    inside, outside = flow_at(feeder, 119.55 / nominal, 0.0), flow_at(feeder, 119.45 / nominal, 0.0)
    assert next_taps(feeder, inside, np.zeros(9, int))[narrow].tolist() == [0, 0, 0]
    assert next_taps(feeder, outside, np.zeros(9, int))[narrow].tolist() == [0, 1, 1]


def test_a_gang_follows_the_phase_it_senses(feeder):
    flow = flow_at(feeder, 1.0, 0.0)
    flow.v_pu[feeder.bus.index("150r")] = [0.95, 1.05, 1.02]
    moved = next_taps(feeder, flow, neutral_taps(feeder))
    assert moved[0] == moved[1] == moved[2] > 0


def test_the_regulators_above_a_bus_stand_on_the_way_to_it(feeder):
    def above(bus, phase):
        rows = regulators_above(feeder, feeder.bus.index(bus), phase)
        assert (feeder.regulators.phase[rows] == phase).all()
        return [feeder.regulators.name[row] for row in rows]

    assert above("1", 0) == ["reg1"]
    assert above("83", 2) == ["reg1", "reg4"]
    assert above("26", 2) == ["reg1", "reg3"]
    assert above("11", 0) == ["reg1", "reg2"]
    assert above("150", 0) == []


def test_published_taps_are_at_rest_at_published_loading(feeder):
    engine = OpenDssFlow(feeder, spot_loads=True)
    zero = np.zeros((len(feeder.bus), 3))
    tap = initial_taps(feeder)
    assert tap.tolist() == [7, 7, 7, -1, 0, -1, 8, 1, 5]
    assert next_taps(feeder, engine.solve(zero, zero, tap), tap).tolist() == tap.tolist()


def test_from_neutral_the_control_comes_to_rest_inside_all_bands(feeder):
    engine = OpenDssFlow(feeder, spot_loads=True)
    zero = np.zeros((len(feeder.bus), 3))
    tap = neutral_taps(feeder)
    for _ in range(10):
        flow = engine.solve(zero, zero, tap)
        tap, before = next_taps(feeder, flow, tap), tap
        if np.array_equal(tap, before):
            break
    deviation = np.abs(relay_voltage_v(feeder, flow) - feeder.regulators.v_set_v)
    assert np.array_equal(tap, before)
    assert (deviation <= feeder.regulators.bandwidth_v / 2).all()
