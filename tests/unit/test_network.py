"""The balanced equivalent: structure, ratios, limits, and physics against OpenDSS and hand formulas."""

from dataclasses import replace

import numpy as np
import pytest

from voltier.grid.feeder import read_feeder
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.network import balanced_network, retap, sequence_equivalent
from voltier.grid.perunit import PerUnit


@pytest.fixture(scope="module")
def feeder():
    return read_feeder("ieee123")


@pytest.fixture(scope="module")
def network(feeder):
    return balanced_network(feeder, feeder.regulators.published_tap)


def sweep(network, p_pu, q_pu):
    """Solve the tree by backward-forward sweep; a plain transcription of the equations in BalancedNetwork."""
    n = len(network.parent)
    z = network.r_pu + 1j * network.x_pu
    v = np.full(n, network.v_root_pu, dtype=complex)
    for _ in range(200):
        before = v.copy()
        draw = np.conj((-(p_pu + 1j * q_pu)) / v) + 1j * network.b_pu * v
        current = draw.copy()
        for j in range(n - 1, 0, -1):
            current[network.parent[j]] += network.ratio[j] * current[j]
        for j in range(1, n):
            v[j] = network.ratio[j] * v[network.parent[j]] - z[j] * current[j]
        if np.abs(v - before).max() < 1e-14:
            break
    return v, current, v[0] * np.conj(current[0])


def test_nodes_are_ordered_and_every_fed_bus_has_one(feeder, network):
    n = len(network.parent)
    assert network.parent[0] == -1
    assert (network.parent[1:] < np.arange(1, n)).all()
    assert {feeder.bus[k] for k in np.flatnonzero(network.node_of_bus < 0)} == {"251", "350", "451"}
    assert set(network.node_of_bus[network.node_of_bus >= 0]) == set(range(n))
    # 130 fed buses less 6 closed switches and 4 regulators
    assert n == 120
    assert (network.r_pu[1:] > 0).all()
    assert (network.node_of_bus[network.send_bus[1:]] == network.parent[1:]).all()
    assert (network.line[1:] >= 0).sum() == 118


def test_buses_joined_by_switches_and_regulators_share_a_node_and_differ_by_the_ratio(feeder, network):
    def at(bus):
        return feeder.bus.index(bus)

    for one, other in (
        ("150", "149"),
        ("13", "152"),
        ("60", "160r"),
        ("25", "25r"),
        ("9", "9r"),
        ("61", "61s"),
    ):
        assert network.node_of_bus[at(one)] == network.node_of_bus[at(other)]
    assert network.ratio_of_bus[at("150")] == 1.0
    assert network.ratio_of_bus[at("149")] == pytest.approx(1.04375, abs=1e-15)
    # mean of the taps 8, 1, 5
    assert network.ratio_of_bus[at("160r")] == pytest.approx(1 + 0.00625 * 14 / 3, abs=1e-15)
    assert network.ratio[network.node_of_bus[at("67")]] == network.ratio_of_bus[at("160r")]
    assert network.ratio[network.node_of_bus[at("62")]] == 1.0


def test_limits_keep_every_member_bus_within_its_own(feeder, network):
    live = network.node_of_bus >= 0
    top = network.v_max_pu[network.node_of_bus[live]] * network.ratio_of_bus[live]
    low = network.v_min_pu[network.node_of_bus[live]] * network.ratio_of_bus[live]
    # one unit in the last place of the division
    assert top.max() <= 1.05 + 1e-15
    assert low.min() >= 0.95 - 1e-15


def test_retap_equals_building_anew_and_keeps_the_structure(feeder, network):
    tap = np.array([3, 3, 3, -5, 2, 0, -16, 16, 1])
    anew, moved = balanced_network(feeder, tap), retap(network, feeder, tap)
    for name in ("ratio", "ratio_of_bus", "v_min_pu", "v_max_pu", "b_pu", "r_pu", "x_pu", "parent"):
        assert np.array_equal(getattr(anew, name), getattr(moved, name)), name
    assert moved.r_pu is network.r_pu
    assert not np.array_equal(moved.ratio, network.ratio)


def test_the_base_changes_units_and_nothing_else(feeder, network):
    other = balanced_network(feeder, feeder.regulators.published_tap, s_base_kva=10_000.0)
    assert np.allclose(other.r_pu, 10 * network.r_pu, rtol=1e-14)
    assert np.allclose(other.b_pu, network.b_pu / 10, rtol=1e-14)
    assert np.allclose(other.i_max_pu[1:], network.i_max_pu[1:] / 10, rtol=1e-14)


def test_ratings_follow_from_the_ampere_of_the_wires(feeder, network):
    base_a = PerUnit(1000.0, 4.16).i_base_a
    trunk, lateral = (network.node_of_bus[feeder.bus.index(bus)] for bus in ("1", "2"))
    assert network.i_max_pu[trunk] * base_a == pytest.approx(530.0)
    # a wire of a single-phase lateral carries three times the balanced current
    assert network.i_max_pu[lateral] * base_a == pytest.approx(230.0 / 3.0)
    assert network.i_max_pu[network.node_of_bus[feeder.bus.index("610")]] == pytest.approx(0.15)


def test_sequence_equivalent_is_the_mean_drop_of_balanced_currents():
    rng = np.random.default_rng(3)
    half = rng.uniform(0.1, 1.0, (3, 3))
    matrix = half + half.T
    turn = np.exp(-2j * np.pi / 3 * np.arange(3))
    for mask in ([1, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1]):
        present = np.array(mask, dtype=bool)
        unit = np.where(present, turn, 0)
        mean = ((matrix @ unit)[present] / turn[present]).mean()
        assert sequence_equivalent(matrix, present) == pytest.approx(mean.real, rel=1e-14)


def scaled_loads(feeder, share):
    p_kw, q_kvar = np.zeros((2, len(feeder.bus), 3))
    loads = feeder.spot_loads
    for bus, phases, p, q in zip(loads.bus, loads.phase, loads.p_kw, loads.q_kvar, strict=True):
        rows = ["abc".index(letter) for letter in phases]
        p_kw[bus, rows] -= share * p / len(rows)
        q_kvar[bus, rows] -= share * q / len(rows)
    return p_kw, q_kvar


def test_a_transposed_balanced_trunk_equals_three_phase_opendss(feeder):
    """With only three-phase buses loaded alike and transposed lines the equivalent is exact.

    Tolerance 2e-6 pu: OpenDSS's regulators keep 1e-6 ohm; laterals charge one phase only (a few var).
    """
    lines = feeder.lines
    full = lines.has_phase.all(axis=1)

    def transposed(matrix):
        own = np.einsum("kii->k", matrix) / 3
        mutual = (matrix.sum(axis=(1, 2)) - 3 * own) / 6
        mean = own[:, None, None] * np.eye(3) + mutual[:, None, None] * (1 - np.eye(3))
        return np.where(full[:, None, None], mean, matrix)

    twin = replace(
        feeder,
        lines=replace(
            lines, r_ohm=transposed(lines.r_ohm), x_ohm=transposed(lines.x_ohm), b_us=transposed(lines.b_us)
        ),
        capacitors=replace(feeder.capacitors, q_kvar=np.where(feeder.capacitors.q_kvar == 200, 200.0, 0.0)),
    )
    trunk = [feeder.bus.index(bus) for bus in ("35", "47", "48", "49", "65", "76", "300", "83")]
    p_kw, q_kvar = np.zeros((2, len(feeder.bus), 3))
    p_kw[trunk], q_kvar[trunk] = -80.0, -30.0
    tap = np.array([4, 4, 4, 0, 0, 0, 3, 3, 3])
    flow = OpenDssFlow(twin).solve(p_kw, q_kvar, tap)
    network = balanced_network(twin, tap)
    p_pu, q_pu = np.zeros((2, len(network.parent)))
    np.add.at(p_pu, network.node_of_bus[trunk], -0.24)
    np.add.at(q_pu, network.node_of_bus[trunk], -0.09)
    v, _, source = sweep(network, p_pu, q_pu)
    ours = v[network.node_of_bus[trunk]] * network.ratio_of_bus[trunk]
    turned = flow.v_pu[trunk] * np.exp(2j * np.pi / 3 * np.arange(3))
    assert np.abs(turned - ours[:, None]).max() < 2e-6
    assert 1000 * source.real == pytest.approx(-flow.p_cc_kw.sum(), abs=0.02)


def test_true_drop_shows_the_drop_of_a_single_phase_lateral(feeder):
    """The drop along lateral 67-71 (phase a): self impedance shows a third of it, true drop all."""
    p_kw, q_kvar = np.zeros((2, len(feeder.bus), 3))
    end, start = feeder.bus.index("71"), feeder.bus.index("67")
    p_kw[end, 0], q_kvar[end, 0] = -60.0, -30.0
    tap = np.zeros(9, dtype=int)
    flow = OpenDssFlow(feeder).solve(p_kw, q_kvar, tap)
    real = abs(flow.v_pu[start, 0]) - abs(flow.v_pu[end, 0])
    drops = []
    for kind in ("true_drop", "self"):
        network = balanced_network(feeder, tap, lateral_impedance=kind)
        p_pu, q_pu = np.zeros((2, len(network.parent)))
        p_pu[network.node_of_bus[end]], q_pu[network.node_of_bus[end]] = -0.06, -0.03
        v, _, _ = sweep(network, p_pu, q_pu)
        drops.append(abs(v[network.node_of_bus[start]]) - abs(v[network.node_of_bus[end]]))
    # 1 %: the level of the voltage at the head of the lateral differs a little between the models
    assert drops[0] == pytest.approx(real, rel=0.01)
    assert drops[1] == pytest.approx(real / 3, rel=0.01)


def test_the_sweep_balances_power(feeder, network):
    p_kw, q_kvar = scaled_loads(feeder, 0.7)
    n = len(network.parent)
    live = network.node_of_bus >= 0
    p_pu = np.bincount(network.node_of_bus[live], p_kw.sum(axis=1)[live], minlength=n) / 1000
    q_pu = np.bincount(network.node_of_bus[live], q_kvar.sum(axis=1)[live], minlength=n) / 1000
    v, current, source = sweep(network, p_pu, q_pu)
    losses = (network.r_pu * np.abs(current) ** 2)[1:].sum()
    # rounding of 120 sums
    assert source.real + p_pu.sum() - losses == pytest.approx(0.0, abs=1e-11)
    assert 0.7 < np.abs(v).min() < np.abs(v).max() < 1.1
