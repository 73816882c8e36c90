"""What holds for any injections and taps: energy, the sign of a voltage drop, limits, tap moves."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from voltier.grid.feeder import read_feeder
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.network import balanced_network, retap
from voltier.grid.regulators import next_taps, relay_voltage_v
from voltier.grid.topology import reached

N_PLACE = 271
taps = arrays(np.int64, 9, elements=st.integers(-16, 16))
powers = arrays(np.float64, N_PLACE, elements=st.floats(-25.0, 15.0, width=32))


@cache
def setting():
    feeder = read_feeder("ieee123")
    tap = feeder.regulators.published_tap
    return feeder, OpenDssFlow(feeder), balanced_network(feeder, tap), reached(feeder, through_delta=False)


def spread(values):
    _, _, _, mask = setting()
    full = np.zeros(mask.shape)
    full[mask] = values
    return full


@settings(max_examples=25, deadline=None)
@given(p=powers, q=powers, tap=taps)
def test_power_in_equals_power_out_plus_losses(p, q, tap):
    _, engine, _, mask = setting()
    assert mask.sum() == N_PLACE
    flow = engine.solve(spread(p), spread(q / 2), tap)
    # OpenDSS stops when no voltage moves by 1e-10: 1e-10 of a few MW at each of its iterations
    assert flow.p_cc_kw.sum() + flow.loss_kw == pytest.approx(p.sum(), abs=1e-3)
    assert flow.loss_kw >= 0


@settings(max_examples=25, deadline=None)
@given(p=powers, place=st.integers(3, N_PLACE - 1), extra=st.floats(1.0, 20.0))
def test_more_load_lowers_the_voltage_where_it_stands(p, place, extra):
    feeder, engine, _, mask = setting()
    tap, zero = feeder.regulators.published_tap, np.zeros(mask.shape)
    bus, phase = (int(k[place]) for k in np.nonzero(mask))
    before = engine.solve(spread(p), zero, tap)
    heavier = spread(p)
    heavier[bus, phase] -= extra
    after = engine.solve(heavier, zero, tap)
    held = feeder.bus[bus] in ("150", "150r", "149")  # behind nothing but the source and an ideal ratio
    drop = abs(before.v_pu[bus, phase]) - abs(after.v_pu[bus, phase])
    assert drop > 0 or (held and abs(drop) < 1e-6)


@settings(max_examples=50, deadline=None)
@given(tap=taps)
def test_limits_and_shunts_follow_the_ratios_at_any_tap(tap):
    feeder, _, network, _ = setting()
    moved = retap(network, feeder, tap)
    live = moved.node_of_bus >= 0
    member = moved.ratio_of_bus[live]
    node = moved.node_of_bus[live]
    # one rounding of a division
    assert (moved.v_max_pu[node] * member <= 1.05 * (1 + 1e-15)).all()
    assert (moved.v_min_pu[node] * member >= 0.95 * (1 - 1e-15)).all()
    # a node's shunt at 1 pu of its own draws what its buses' shunts draw at their voltages
    drawn = np.bincount(node, moved.b_bus_pu[live] * member**2, minlength=len(moved.parent))
    assert np.allclose(moved.b_pu, drawn, rtol=1e-14, atol=0)
    assert (np.abs(moved.ratio - 1) <= 0.1 + 1e-12).all()


@settings(max_examples=25, deadline=None)
@given(p=powers, tap=taps)
def test_regulators_never_leave_their_range_and_step_towards_the_set_point(p, tap):
    feeder, engine, _, mask = setting()
    flow = engine.solve(spread(p), np.zeros(mask.shape), tap)
    moved = next_taps(feeder, flow, tap)
    assert (np.abs(moved) <= feeder.regulators.max_tap).all()
    short_v = feeder.regulators.v_set_v - relay_voltage_v(feeder, flow)
    assert ((moved - tap) * short_v >= 0).all()
    resting = np.abs(short_v) <= feeder.regulators.bandwidth_v / 2
    assert (moved[resting] == tap[resting]).all()
