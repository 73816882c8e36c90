"""Random unbalanced feeders: every three-phase clearing is physical, within its boxes and a local optimum."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from voltier.grid.feeder import read_feeder
from voltier.grid.flow.derivative import PowerJacobian
from voltier.grid.flow.nodal import injection_needed
from voltier.grid.threephase import ANGLE_RAD, Branches, ThreePhaseNetwork, VoltageLoads
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices
from voltier.market.primary.three_phase import physics
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.market.primary.three_phase.problem import SocialWeights
from voltier.market.primary.three_phase.tangent import build_pattern, write_hessian, write_tangent

# A line of some 300 m at 4.16 kV on 1 MVA, with its mutual impedances [p.u.].
Z_WIRE = np.array([
    [0.0047 + 0.0100j, 0.0016 + 0.0042j, 0.0016 + 0.0038j],
    [0.0016 + 0.0042j, 0.0048 + 0.0098j, 0.0015 + 0.0036j],
    [0.0016 + 0.0038j, 0.0015 + 0.0036j, 0.0047 + 0.0099j],
])  # fmt: skip
TURN = np.exp(1j * ANGLE_RAD)


def random_feeder(rng: np.random.Generator, n_bus: int, *, load_pu: float, v_max: float, tie: bool):
    """A random tree of one- and three-phase lines, perhaps with a loop, with wye and delta ZIP loads."""
    edges, phases_of = [], [(0, 1, 2)]
    for bus in range(1, n_bus):
        above = int(rng.integers(max(0, bus - 6), bus))
        up = phases_of[above]
        keep = above == 0 or len(up) < 3 or rng.random() < 0.6
        phases_of.append(up if keep else (int(rng.integers(3)),))
        edges.append((above, bus, phases_of[bus]))
    whole = [bus for bus in range(n_bus) if len(phases_of[bus]) == 3]
    if tie and len(whole) > 3:
        edges.append((whole[1], whole[-1], (0, 1, 2)))
    bus_node = np.full((n_bus, 3), -1)
    pairs = [(bus, phase) for bus in range(n_bus) for phase in phases_of[bus]]
    for node, (bus, phase) in enumerate(pairs):
        bus_node[bus, phase] = node
    n, m = len(pairs), len(edges)
    ends, y = np.full((2, m, 3), -1), np.zeros((4, m, 3, 3), dtype=complex)
    total = sparse.lil_matrix((n, n), dtype=complex)
    for k, (above, bus, phases) in enumerate(edges):
        ph = np.array(phases)
        z = Z_WIRE[np.ix_(ph, ph)] * rng.uniform(0.2, 1.0) * 20.0 / n_bus
        series = np.linalg.inv(z * TURN[ph][None, :] / TURN[ph][:, None])
        ends[0, k, ph], ends[1, k, ph] = bus_node[above, ph], bus_node[bus, ph]
        for part, sign in enumerate((1, -1, -1, 1)):
            y[part, k][np.ix_(ph, ph)] = sign * series
            a, b = ends[part // 2, k, ph], ends[part % 2, k, ph]
            total[np.ix_(a, b)] += sign * series
    return ThreePhaseNetwork(
        bus=tuple(str(bus) for bus in range(n_bus)), node_bus=np.array([bus for bus, _ in pairs]),
        node_phase=np.array([phase for _, phase in pairs]), bus_node=bus_node, bus_ratio=np.ones((n_bus, 3)),
        y=sparse.csr_matrix(total),
        branches=Branches(
            tuple(f"{a}-{b}" for a, b, _ in edges), *ends, np.ones((m, 3)), np.ones((m, 3)), *y,
            np.where(rng.random(m) < 0.15, rng.uniform(0.1, 0.6, m), np.inf),
        ),
        loads=random_loads(rng, bus_node, n, load_pu), v_source_pu=1.0, v_min_pu=np.full(n, 0.9),
        v_max_pu=np.full(n, v_max), s_phase_kva=1000.0 / 3.0, kv_ll=np.full(n_bus, 4.16),
    )  # fmt: skip


def random_loads(rng: np.random.Generator, bus_node, n: int, load_pu: float) -> VoltageLoads:
    """Every third bus has a load, a delta one on some three-phase buses, of mixed voltage dependence."""
    across, nominal = [], []
    for nodes in bus_node[1::3]:
        row = np.zeros(n, dtype=complex)
        if np.all(nodes >= 0) and rng.random() < 0.4:
            row[nodes[0]], row[nodes[1]] = TURN[0], -TURN[1]
            nominal.append(np.sqrt(3.0))
        else:
            row[nodes[nodes >= 0][0]] = 1.0
            nominal.append(1.0)
        across.append(row)
    parts = load_pu * (1.0 + 0.5j) * rng.dirichlet(np.ones(3), len(across)).T
    return VoltageLoads(sparse.csr_matrix(np.array(across)), np.array(nominal), *parts)


def random_shares(rng: np.random.Generator, net: ThreePhaseNetwork, n_smo: int) -> sparse.csc_matrix:
    """Operators at random buses, the source's too, spread at random over their phases."""
    dense = np.zeros((len(net.node_bus), n_smo))
    for k in range(n_smo):
        nodes = net.bus_node[int(rng.integers(len(net.bus)))]
        dense[nodes[nodes >= 0], k] = rng.dirichlet(np.ones(np.count_nonzero(nodes >= 0)))
    return sparse.csc_matrix(dense)


def random_bids(rng: np.random.Generator, n: int, size: float, solar: float) -> PrimaryBids:
    p0, q0 = rng.uniform(-100.0, 100.0 * solar, n) * size, rng.uniform(-40.0, 10.0, n) * size
    up, down = rng.uniform(0.0, 50.0, (2, n)) * (rng.random(n) < 0.8)
    gen = np.where(rng.random(n) < 0.3, rng.uniform(1.0, 80.0, n), 0.0)
    return PrimaryBids(
        p0_kw=p0, p_min_kw=p0 - down, p_max_kw=p0 + up, beta_p_usd_per_kw2h=rng.uniform(0.0, 0.01, n),
        q0_kvar=q0, q_min_kvar=q0 - up, q_max_kvar=q0 + down, gen_max_kw=gen,
        beta_q_usd_per_kvar2h=rng.uniform(1e-5, 0.01, n), alpha_usd_per_kw2h=rng.uniform(1e-4, 0.01, n),
    )  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_bus=st.integers(2, 30),
    solar=st.sampled_from([0.0, 1.0, 3.0]),
    price=st.sampled_from([-0.05, 0.0, 0.03, 0.10, 0.50]),
    loss_price=st.sampled_from([0.0, 0.1]),
    load_pu=st.sampled_from([0.0, 0.03]),
    v_max=st.sampled_from([1.02, 1.05]),
    voltage=st.sampled_from([0.0, 100.0]),
)
def test_every_clearing_is_physical_and_within_its_boxes(
    seed, n_bus, solar, price, loss_price, load_pu, v_max, voltage
) -> None:
    rng = np.random.default_rng(seed)
    net = random_feeder(rng, n_bus, load_pu=load_pu, v_max=v_max, tie=bool(rng.integers(2)))
    n_smo = int(rng.integers(1, 2 * n_bus))
    share, bids = random_shares(rng, net, n_smo), random_bids(rng, n_smo, 15.0 / max(n_bus, 5), solar)
    c = ThreePhaseMarket(net, share).clear(
        bids, PrimaryPrices(price, 0.0, loss_price), weights=SocialWeights(voltage_usd_per_pu2h=voltage)
    )
    assert c.status in ("optimal", "relaxed"), c.note
    assert c.kkt_residual <= 1e-4  # what the solver itself calls acceptable
    for value, low, high in (
        (c.p_kw, bids.p_min_kw, bids.p_max_kw),
        (c.q_kvar, bids.q_min_kvar, bids.q_max_kvar),
        (c.gen_kw, 0.0, bids.gen_max_kw),
    ):
        # Boxes hold to the rounding of kW → p.u. → kW.
        assert np.all(value >= low - 1e-9)
        assert np.all(value <= high + 1e-9)
    # Written apart from the market's equations: currents balance, energy is conserved.
    power = share @ (c.p_kw + c.gen_kw + 1j * c.q_kvar) / net.s_phase_kva
    w = net.loads.across @ c.v
    u = np.abs(w) / net.loads.v_nominal_pu
    drawn = np.conj((net.loads.s_power + net.loads.s_current * u + net.loads.s_impedance * u**2) / w)
    off = net.y @ c.v - np.conj(power / c.v) + net.loads.across.conj().T @ drawn
    assert np.abs(off[3:]).max(initial=0.0) < 1e-7  # Newton's 1e-10 to 1e-8 p.u. of power
    balance = c.p_import_kw + c.p_kw.sum() + c.gen_kw.sum() - c.load_kw - c.loss_kw
    assert abs(balance) < 1e-5
    assert c.loss_kw >= -1e-9  # rounding, where nothing flows
    if c.status == "optimal":
        assert max(c.v_slack_pu, c.i_slack_pu) < 1e-6


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), n_bus=st.integers(2, 12))
def test_derivatives_of_the_balances_are_their_finite_differences(seed: int, n_bus: int) -> None:
    rng = np.random.default_rng(seed)
    feeder = random_feeder(rng, n_bus, load_pu=0.5, v_max=1.05, tie=True)
    net = physics.build_physics(feeder)
    n = len(feeder.node_bus)
    tangent = PowerJacobian(net.balance)
    pattern = build_pattern(net.balance, tangent, random_shares(rng, feeder, 3))

    def noise(size: int) -> np.ndarray:
        return rng.normal(size=size) + 1j * rng.normal(size=size)

    v, d, price = 1.0 + 0.05 * noise(n), noise(n), noise(n)
    d[:3] = 0.0  # the source is held
    i_price = rng.random(len(net.i_max))
    frame = v / np.abs(v)
    f = n - 3
    step = np.zeros(pattern.matrix.shape[1])
    local = (np.conj(frame) * d)[3:]
    step[:f], step[f : 2 * f] = local.real, local.imag

    def taken(at: np.ndarray) -> np.ndarray:
        return injection_needed(feeder, at)

    tangent.fill(net.balance, v)
    write_tangent(tangent, pattern)
    h = 1e-6
    slope = (taken(v + h * d) - taken(v - h * d)) / (2.0 * h)
    found = pattern.matrix @ step
    y = net.balance.y
    size = np.abs(y).max() * np.abs(d).max()
    # Central differences of a smooth function: h² of its third derivative and the rounding of G over h.
    np.testing.assert_allclose(found[:f] + 1j * found[f : 2 * f], slope[3:], atol=1e-8 * size)
    assert abs(found[-1] - slope[:3].real.sum()) < 1e-8 * size

    def lagrangian(at: np.ndarray) -> float:
        current = np.abs(net.wires @ at)
        return float(np.sum((np.conj(price) * taken(at)).real) + i_price @ current)

    plain, mixed = np.empty_like(y), np.empty_like(y)
    physics.second_derivative(net.balance, v, price, price, plain, mixed)
    physics.wire_curvature(net, net.wires @ v, i_price, plain, mixed)
    write_hessian(net.balance, frame, plain, mixed, pattern.curve, pattern.hessian.data)
    upper = pattern.hessian
    whole = upper + sparse.triu(upper, 1).T
    h = 3e-5
    bend = (lagrangian(v + h * d) - 2.0 * lagrangian(v) + lagrangian(v - h * d)) / h**2
    # Rounding of the second difference, and the fourth derivative of |i| where a current is small.
    assert abs(step @ (whole @ step) - bend) < 1e-4 * size * n


LONG_FEEDER = read_feeder("ieee34")


def out_of_reach(rng: np.random.Generator):
    """A long feeder whose voltages spread by 0.1 p.u. and more, a window of 0.04 for them, and ratings at random."""
    tap = LONG_FEEDER.regulators.published_tap
    full = three_phase_network(LONG_FEEDER, tap)
    touched = (abs(full.loads.across) > 0).astype(float)
    share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T)
    rated = (full.loads.s_power + full.loads.s_current + full.loads.s_impedance).real * full.s_phase_kva
    n, low = len(rated), rng.uniform(0.9, 1.0)
    p = rng.uniform(0.3, 1.1, n) * rated
    sun = rng.random(n) < 0.3
    bids = PrimaryBids(
        p0_kw=np.where(sun, p, -p), p_min_kw=np.where(sun, 0.7, -1.3) * p, p_max_kw=np.where(sun, 1.3, -0.7) * p,
        beta_p_usd_per_kw2h=rng.choice([0.0, 0.3]) / p, q0_kvar=-0.4 * p, q_min_kvar=-0.7 * p, q_max_kvar=-0.1 * p,
        beta_q_usd_per_kvar2h=0.1 / p, gen_max_kw=np.where(np.arange(n) % 4 == 0, 40.0, 0.0),
        alpha_usd_per_kw2h=np.full(n, 3e-3),
    )  # fmt: skip
    net = three_phase_network(LONG_FEEDER, tap, loads=False, v_min_pu=low, v_max_pu=low + 0.04)
    few = rng.random(len(net.branches.name)) < 0.3
    rating = np.where(few, rng.uniform(0.3, 3.0, len(few)), np.inf)
    return replace(net, branches=replace(net.branches, i_max_pu=rating)), share, bids


@pytest.mark.parametrize("seed", range(12))
def test_limits_nobody_can_keep_are_relaxed_and_not_given_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net, share, bids = out_of_reach(rng)
    prices = PrimaryPrices(0.1, 0.0, rng.choice([0.0, 0.1, 0.5]))
    c = ThreePhaseMarket(net, share).clear(bids, prices, bound=False)
    assert c.status == "relaxed", c.note
    # As for any clearing: KKT_ACCEPTABLE, and Newton's tolerance.
    assert c.kkt_residual < 1e-4
    assert c.ac_residual_pu < 1e-8
    beyond = np.maximum(net.v_min_pu - c.v_pu, c.v_pu - net.v_max_pu)[3:].max()
    assert c.v_slack_pu == pytest.approx(max(beyond, 0.0), abs=1e-12)
    assert max(c.v_slack_pu, c.i_slack_pu) > 1e-3
