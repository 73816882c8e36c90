"""What holds for any injections, taps and load levels on the three-phase network: balance, losses, retapping."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from voltier.grid.feeder import read_feeder
from voltier.grid.flow.nodal import branch_losses_pu, injection_needed, load_power, losses_pu
from voltier.grid.flow.threephase import ThreePhaseFlow
from voltier.grid.threephase_build import retap_three_phase, three_phase_network

N_NODE = 244
NORMAL = ("sw1", "sw2", "sw3", "sw4", "sw5", "sw6")
taps = arrays(np.int64, 9, elements=st.integers(-16, 16))
powers = arrays(
    np.float64, N_NODE, elements=st.floats(-0.0625, 0.0625, width=32)
)  # up to 21 kW at every node


@cache
def setting(tied):
    feeder = read_feeder("ieee123")
    closed = (*NORMAL, "sw7", "sw8") if tied else None
    network = three_phase_network(feeder, feeder.regulators.published_tap, closed=closed)
    return feeder, network, ThreePhaseFlow(network)


@settings(max_examples=40, deadline=None)
@given(p=powers, q=powers, tap=taps, tied=st.booleans())
def test_injections_are_met_and_cover_losses(p, q, tap, tied):
    feeder, network, flow = setting(tied)
    # closed ties join four pairs of nodes
    assert len(network.node_bus) == (N_NODE - 4 if tied else N_NODE)
    network = retap_three_phase(network, feeder, tap)
    s = (p + 0.5j * q)[: len(network.node_bus)]
    solved = flow.retuned(network).solve(s)
    supplied = injection_needed(network, solved.v)
    assert np.abs(supplied - s)[3:].max() <= 1e-9
    # the same sums in another order, of currents up to 1e5
    assert solved.residual_pu == pytest.approx(np.abs(supplied - s)[3:].max(), abs=1e-10)
    kept = losses_pu(network, solved.v) + load_power(network, solved.v).real.sum()
    # differences of branch powers, of admittances up to 1e4, at 118 branches
    assert supplied.real.sum() == pytest.approx(kept, abs=1e-9)
    assert branch_losses_pu(network, solved.v).min() > -1e-9


@settings(max_examples=20, deadline=None)
@given(p=powers, q=powers)
def test_a_new_start_ends_at_the_same_voltages(p, q):
    _, _, flow = setting(False)
    s = p + 0.5j * q
    first = flow.solve(s)
    moved = flow.solve(s, first.v * (1.0 + 0.1 * np.sin(np.arange(N_NODE))))
    # power met to 1e-10 through impedances below 1
    assert np.abs(first.v - moved.v).max() < 1e-9


@settings(max_examples=20, deadline=None)
@given(tap=taps)
def test_voltage_limits_hold_at_buses_exactly_when_they_hold_at_nodes(tap):
    feeder, network, _ = setting(False)
    network = retap_three_phase(network, feeder, tap)
    live = network.bus_node >= 0
    for limit, worst in ((network.v_max_pu, np.max), (network.v_min_pu, np.min)):
        at_bus = network.bus_ratio[live] * limit[network.bus_node[live]]
        for node in range(N_NODE):
            edge = worst(at_bus[network.bus_node[live] == node])
            assert edge == pytest.approx(1.05 if worst is np.max else 0.95, rel=1e-14)
