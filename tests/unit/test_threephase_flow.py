"""Our three-phase power flow: hand formulas, fixed point against Newton, derivatives, and where no solution is."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from voltier.grid.errors import InputError, PowerFlowError
from voltier.grid.feeder import read_feeder
from voltier.grid.flow.derivative import PowerJacobian, balance_of, entry_pairs
from voltier.grid.flow.ldl import factorise, pattern_of, solve_in_place
from voltier.grid.flow.nodal import branch_losses_pu, injection_needed, load_power, losses_pu
from voltier.grid.flow.threephase import ThreePhaseFlow, solve_power_flow
from voltier.grid.threephase import ANGLE_RAD, Branches, ThreePhaseNetwork, VoltageLoads
from voltier.grid.threephase_build import retap_three_phase, three_phase_network


@pytest.fixture(scope="module")
def feeder():
    return read_feeder("ieee123")


@pytest.fixture(scope="module")
def network(feeder):
    return three_phase_network(feeder, feeder.regulators.published_tap)


def one_line(z_pu):
    """Three uncoupled phases, one line, no loads."""
    y_line = np.eye(3, dtype=complex) / z_pu
    block = np.block([[y_line, -y_line], [-y_line, y_line]])
    ends, ones = np.arange(6)[None, :], np.ones((1, 3))
    branches = Branches(
        ("line",), ends[:, :3], ends[:, 3:], ones, ones, *(part[None] for part in (y_line, -y_line, -y_line, y_line)),
        np.full(1, np.inf),
    )  # fmt: skip
    empty, none = np.zeros(0, dtype=complex), sparse.csr_matrix((0, 6), dtype=complex)
    return ThreePhaseNetwork(
        bus=("source", "end"),
        node_bus=np.repeat([0, 1], 3),
        node_phase=np.tile([0, 1, 2], 2),
        bus_node=np.arange(6).reshape(2, 3),
        bus_ratio=np.ones((2, 3)),
        y=sparse.csr_matrix(block),
        branches=branches,
        loads=VoltageLoads(none, np.zeros(0), empty, empty, empty),
        v_source_pu=1.0,
        v_min_pu=np.full(6, 0.95),
        v_max_pu=np.full(6, 1.05),
        s_phase_kva=1000.0 / 3.0,
        kv_ll=np.full(2, 4.16),
    )


def voltage_by_hand(z_pu, s):
    """|v| at the end of a line that delivers s: the high root of |v|⁴ + (2 Re(z* s) - 1)|v|² + |z s|² = 0."""
    b = 2.0 * (np.conj(z_pu) * s).real - 1.0
    return np.sqrt((-b + np.sqrt(b * b - 4.0 * abs(z_pu * s) ** 2)) / 2.0)


# load by which a line of z = 0.02 + 0.04j at angle 0.4 rad of load reaches the nose of its voltage curve
LINE, TURN = 0.02 + 0.04j, np.exp(0.4j)
NOSE = 1.0 / (2.0 * ((np.conj(LINE) * TURN).real + abs(LINE)))


@pytest.mark.parametrize("share", [-1.0, 0.1, 0.5, 0.9, 0.99, 0.9999])
def test_line_against_the_quadratic_formula(share):
    network = one_line(LINE)
    s = share * NOSE * TURN
    injection = np.zeros(6, dtype=complex)
    injection[3:] = -s
    flow = solve_power_flow(network, injection)
    # close to the nose a missing power of 1e-10 moves the voltage by its square root, times 1/sqrt(1 - share)
    assert np.abs(flow.v[3:]) == pytest.approx(voltage_by_hand(LINE, s), abs=1e-8)
    assert flow.residual_pu <= 1e-10


def test_newton_takes_over_where_the_fixed_point_is_slow():
    network, injection = one_line(LINE), np.zeros(6, dtype=complex)
    injection[3:] = -0.9999 * NOSE * TURN
    flow = solve_power_flow(network, injection)
    assert flow.iterations > 200


def test_no_solution_beyond_the_nose():
    injection = np.zeros(6, dtype=complex)
    injection[4] = -1.001 * NOSE * TURN
    with pytest.raises(PowerFlowError, match=r"kVA are missing at bus end\.b"):
        solve_power_flow(one_line(LINE), injection)


def test_plain_phasors_give_the_same(feeder):
    """Solve IEEE-123 without loads and regulators in volts and siemens, without rotation or bases."""
    neutral = np.zeros(9, dtype=np.int64)
    network = three_phase_network(feeder, neutral, loads=False)
    lines, n = feeder.lines, len(network.node_bus)
    y = np.zeros((n + 1, n + 1), dtype=complex)
    for k, has_phase in enumerate(lines.has_phase):
        pick = np.ix_(has_phase, has_phase)
        series = np.zeros((3, 3), dtype=complex)
        series[pick] = np.linalg.inv((lines.r_ohm[k] + 1j * lines.x_ohm[k])[pick])
        i, j = (np.where(has_phase, network.bus_node[bus[k]], n) for bus in (lines.from_bus, lines.to_bus))
        own = series + 0.5e-6j * lines.b_us[k]
        for row, column, block in ((i, i, own), (i, j, -series), (j, i, -series), (j, j, own)):
            np.add.at(y, (row[:, None], column[None, :]), block)
    capacitors = feeder.capacitors
    at = network.bus_node[capacitors.bus, capacitors.phase]
    y[at, at] += 1j * capacitors.q_kvar * 1e-3 / capacitors.kv_ll**2 * 3.0
    s_va = np.zeros(n, dtype=complex)
    s_va[3:] = -(8e3 + 3e3j)
    volt = 4160.0 / np.sqrt(3.0) * np.exp(1j * ANGLE_RAD[network.node_phase])
    held, inner, factor = volt[:3].copy(), slice(3, n), np.linalg.inv(y[3:n, 3:n])
    for _ in range(60):
        volt[inner] = factor @ (np.conj(s_va[inner] / volt[inner]) - y[3:n, :3] @ held)
    flow = solve_power_flow(network, s_va / 1000.0 / network.s_phase_kva)
    plain = volt / (4160.0 / np.sqrt(3.0)) * np.exp(-1j * ANGLE_RAD[network.node_phase])
    # power met to 1e-10 through impedances below 1; the dense inverse is good to 1e-12
    assert np.abs(flow.v - plain).max() < 1e-9


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.5])
@pytest.mark.parametrize("name", ["ieee13", "ieee34", "ieee123"])
def test_fixed_point_and_newton_agree(name, scale):
    feeder = read_feeder(name)
    network = three_phase_network(feeder, feeder.regulators.published_tap, load_scale=scale)
    flow, none = ThreePhaseFlow(network), np.zeros(len(network.node_bus), dtype=complex)
    fixed = flow.solve(none)
    newton, _ = flow._newton(none, flow._unloaded(), 1e-10)
    assert fixed.iterations < 60
    # both miss up to 1e-10 of power, through impedances that sum to a few units on IEEE-34
    assert np.abs(fixed.v - newton).max() < 1e-9


def test_start_does_not_matter_and_a_good_one_saves_passes(network):
    flow, none = ThreePhaseFlow(network), np.zeros(len(network.node_bus), dtype=complex)
    cold = flow.solve(none)
    warm = flow.solve(none, cold.v)
    assert warm.iterations < cold.iterations
    assert np.abs(warm.v - cold.v).max() < 1e-9


def test_retuned_flow_equals_a_new_one(feeder, network):
    moved = retap_three_phase(network, feeder, np.array([3, -2, 5, 0, 9, -4, 16, -16, 1]))
    none = np.zeros(len(network.node_bus), dtype=complex)
    again = ThreePhaseFlow(network).retuned(moved).solve(none)
    assert np.array_equal(again.v, solve_power_flow(moved, none).v)


def test_energy_is_conserved(network):
    rng = np.random.default_rng(4)
    n = len(network.node_bus)
    s = 0.05 * (rng.normal(size=n) + 1j * rng.normal(size=n))
    flow = solve_power_flow(network, s)
    supplied = injection_needed(network, flow.v)
    # 241 nodes, each short of at most 1e-10
    assert np.abs(supplied - s)[3:].max() <= 1e-10
    kept = losses_pu(network, flow.v) + load_power(network, flow.v).real.sum()
    assert supplied.real.sum() == pytest.approx(kept, abs=1e-9)
    assert branch_losses_pu(network, flow.v).min() > -1e-9


def mixed_loads(network):
    """All models at once in every load, so that each has its part in the derivatives."""
    loads = network.loads
    s = loads.s_power + loads.s_current + loads.s_impedance
    return replace(network, loads=replace(loads, s_power=0.5 * s, s_current=0.3 * s, s_impedance=0.2 * s))


def filled(network, v):
    balance = balance_of(network)
    tangent = PowerJacobian(balance)
    tangent.fill(balance, v)
    return tangent


def test_derivative_against_differences(network):
    network, rng = mixed_loads(network), np.random.default_rng(2)
    n = len(network.node_bus)
    v, local = (rng.normal(size=(2, n)).T @ [1, 1j] for _ in range(2))
    v, local[:3] = 1.0 + 0.05 * v, 0.0
    tangent = filled(network, v)
    direction, step = tangent.frame * local, 1e-6
    ahead, back = (injection_needed(network, v + sign * step * direction) for sign in (1, -1))
    slope = (ahead - back) / (2.0 * step)
    along = np.concatenate([local.real[3:], local.imag[3:]])
    # values of 1e4 differ by rounding of 1e-12 over a step of 1e-6
    assert np.abs(tangent.matrix @ along - np.concatenate([slope.real[3:], slope.imag[3:]])).max() < 1e-4
    assert np.abs(tangent.source @ along - slope.real[:3]).max() < 1e-4
    assert np.abs(slope).max() > 100.0


def test_sensitivity_of_voltage_to_injection(network):
    n = len(network.node_bus)
    s = np.zeros(n, dtype=complex)
    v = solve_power_flow(network, s).v
    tangent, f = filled(network, v), n - 3
    moved = tangent.factor().solve(np.eye(2 * f)[:, 100])
    slope = tangent.frame[3:] * (moved[:f] + 1j * moved[f:])
    step = 1e-3
    found = []
    for sign in (1, -1):
        s[103] = sign * step
        found.append(solve_power_flow(network, s).v[3:])
    difference = (found[0] - found[1]) / (2 * step)
    # power met to 1e-10 over a step of 1e-3, and a third-order remainder
    assert np.abs(slope - difference).max() < 1e-6


def test_pairs_of_entries_are_those_of_each_row():
    one, two = entry_pairs(np.array([0, 2, 2, 3]))
    assert list(zip(one.tolist(), two.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("seed", range(5))
def test_sparse_factor_solves(seed):
    rng = np.random.default_rng(seed)
    n = 60
    half = sparse.random(n, n, 0.06, random_state=rng, format="csr")
    half = half + 1j * sparse.random(n, n, 0.06, random_state=rng, format="csr")
    a = sparse.csr_matrix(half + half.T + sparse.diags(rng.uniform(5, 9, n) + 3j))
    a.sort_indices()
    factor = factorise(pattern_of(a.indptr, a.indices), a.data)
    b = rng.normal(size=n) + 1j * rng.normal(size=n)
    x = b.copy()
    solve_in_place(
        factor.order, factor.l_start, factor.l_row, factor.l_value, factor.d_inverse, x, np.empty_like(x)
    )
    assert np.abs(a @ x - b).max() < 1e-13 * n  # diagonally dominant: rounding alone


@pytest.mark.parametrize("change", ["one entry", "one way only", "a ratio with an angle", "not a number"])
def test_admittances_that_are_not_symmetric_are_refused_and_located(change):
    net = one_line(0.01 + 0.03j)
    y = net.y.tolil()
    if change == "one entry":
        y[3, 3], y[3, 4], y[4, 3] = 50.0, 4.0 + 1j, 4.001 + 1j
    elif change == "one way only":
        y[3, 4] = 4.0 + 1j
    elif change == "a ratio with an angle":
        turn = np.exp(0.1j)
        y[3, 4], y[4, 3] = 5.0 * turn, 5.0 * np.conj(turn)
    else:
        y[3, 4] = y[4, 3] = np.nan
    with pytest.raises(InputError, match=r"end\.[ab] and end\.[ab]"):
        ThreePhaseFlow(replace(net, y=sparse.csr_matrix(y)))


def test_moved_numbers_are_looked_at_too(network):
    flow = ThreePhaseFlow(network)
    data = network.y.data.copy()
    row = np.repeat(np.arange(network.y.shape[0]), np.diff(network.y.indptr))
    data[np.flatnonzero((row > 10) & (network.y.indices > row))[0]] *= 1.0 + 1e-6
    y = sparse.csr_matrix((data, network.y.indices, network.y.indptr), network.y.shape)
    with pytest.raises(InputError, match="way back"):
        flow.retuned(replace(network, y=y))
