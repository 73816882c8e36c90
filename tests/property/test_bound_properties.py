"""Bounds of random three-phase feeders: every power flow lies inside, and no bound is above what a dispatch costs."""

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy import sparse

from voltier.grid.errors import NotConvergedError
from voltier.grid.flow.threephase import solve_power_flow
from voltier.grid.threephase import ANGLE_RAD, Branches, ThreePhaseNetwork, VoltageLoads
from voltier.market.primary.current_injection.bound import BoundSolver
from voltier.market.primary.current_injection.bounds import Near, Tightening, limits_of, operator_power
from voltier.market.primary.current_injection.by_cones import ConeRounds
from voltier.market.primary.current_injection.by_mccormick import McCormickRounds
from voltier.market.primary.current_injection.case import Case, Goal
from voltier.market.primary.current_injection.cones import ConeRelaxation
from voltier.market.primary.current_injection.intervals import Rectangle
from voltier.market.primary.current_injection.mccormick import McCormick
from voltier.market.primary.current_injection.quadratic import QuadraticSolver
from voltier.market.primary.current_injection.reference import solve_mccormick_reference
from voltier.market.primary.current_injection.terminals import (
    VoltageTarget,
    build_response,
    build_terminals,
)
from voltier.market.primary.problem import ScaledBids
from voltier.market.primary.three_phase.exact import ExactDispatch
from voltier.market.primary.three_phase.problem import ScaledProblem, check_share, scaled_cost

TURN = np.exp(1j * ANGLE_RAD)
MEDIUM = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 10_000)


def random_network(rng: np.random.Generator) -> ThreePhaseNetwork:
    """A feeder of 4 to 10 buses with one to three phases, ratios, charging, wye and delta ZIP loads, maybe a loop."""
    n_bus = int(rng.integers(4, 11))
    phases, parent = [(0, 1, 2)], [-1]
    for bus in range(1, n_bus):
        above = int(rng.integers(max(0, bus - 3), bus))
        own = phases[above]
        if bus > 2 and rng.random() < 0.45:
            own = tuple(sorted(rng.choice(own, int(rng.integers(1, len(own) + 1)), replace=False).tolist()))
        phases.append(own)
        parent.append(above)
    place = [(bus, phase) for bus in range(n_bus) for phase in phases[bus]]
    bus_node = np.full((n_bus, 3), -1)
    for node, (bus, phase) in enumerate(place):
        bus_node[bus, phase] = node
    edges = [(parent[bus], bus) for bus in range(1, n_bus)]
    whole = [bus for bus in range(n_bus) if len(phases[bus]) == 3]
    if len(whole) > 3 and rng.random() < 0.5:
        edges.append((whole[-1], whole[1]))
    n, branches = len(place), empty_branches(len(edges))
    y = np.zeros((n, n), dtype=complex)
    for e, (i, j) in enumerate(edges):
        add_line(rng, branches, y, e, (bus_node[i], bus_node[j], phases[j]))
    y[n - 1, n - 1] += 0.01j
    node_bus, node_phase = np.array(place).T
    return ThreePhaseNetwork(
        bus=tuple(map(str, range(n_bus))), node_bus=node_bus, node_phase=node_phase, bus_node=bus_node,
        bus_ratio=np.ones((n_bus, 3)), y=sparse.csr_matrix(y), branches=branches,
        loads=random_loads(rng, bus_node, phases, n), v_source_pu=1.02, v_min_pu=np.full(n, 0.9),
        v_max_pu=np.full(n, 1.06), s_phase_kva=1000.0, kv_ll=np.full(n_bus, 4.16),
    )  # fmt: skip


def empty_branches(m: int) -> Branches:
    zero = [np.zeros((m, 3, 3), dtype=complex) for _ in range(4)]
    name = tuple(map(str, range(m)))
    node = [np.full((m, 3), -1) for _ in range(2)]
    return Branches(name, *node, np.ones((m, 3)), np.ones((m, 3)), *zero, np.full(m, np.inf))


def add_line(rng: np.random.Generator, branches: Branches, y: np.ndarray, e: int, ends: tuple) -> None:
    start, end, phases = ends[0], ends[1], list(ends[2])
    branches.from_node[e, phases], branches.to_node[e, phases] = start[phases], end[phases]
    if rng.random() < 0.3:
        branches.from_ratio[e, phases] = 1.0 + 0.00625 * rng.integers(-4, 5, len(phases))
    length = rng.uniform(0.3, 1.0)
    z = 0.02 * length * ((0.35 + 1j) * np.eye(3) + (0.1 + 0.4j) * (1.0 - np.eye(3)))
    turn = np.diag(TURN[phases])
    series = turn.conj() @ np.linalg.inv(z[np.ix_(phases, phases)]) @ turn
    own = series + 1e-3j * length * np.eye(len(phases))
    at = np.ix_([e], phases, phases)
    branches.y_ff[at], branches.y_ft[at], branches.y_tf[at], branches.y_tt[at] = own, -series, -series, own
    node = np.concatenate([start[phases], end[phases]])
    ratio = np.concatenate([branches.from_ratio[e, phases], branches.to_ratio[e, phases]])
    y[np.ix_(node, node)] += np.block([[own, -series], [-series, own]]) * np.outer(ratio, ratio)


def random_loads(rng: np.random.Generator, bus_node: np.ndarray, phases: list, n: int) -> VoltageLoads:
    rows, nominal, size = [], [], []
    for bus in range(1, len(phases)):
        for k, phase in enumerate(phases[bus]):
            row = np.zeros(n, dtype=complex)
            row[bus_node[bus, phase]] = 1.0
            if rng.random() < 0.6:
                rows.append(row)
                nominal.append(1.0)
            other = phases[bus][(k + 1) % len(phases[bus])]
            if other != phase and rng.random() < 0.3:
                row = TURN[phase] * row
                row[bus_node[bus, other]] = -TURN[other]
                rows.append(row)
                nominal.append(np.sqrt(3.0))
    size = rng.uniform(0.02, 0.08, len(rows)) * (1.0 + 0.5j)
    power, current, impedance = rng.dirichlet([1.0, 1.0, 1.0], len(rows)).T * size
    across = sparse.csr_matrix(np.array(rows).reshape(-1, n))
    return VoltageLoads(across, np.array(nominal), power, current, impedance)


def random_bids(rng: np.random.Generator, network: ThreePhaseNetwork) -> tuple[sparse.csc_matrix, ScaledBids]:
    n_bus, n = len(network.bus), network.y.shape[0]
    home = [bus for bus in range(1, n_bus) if rng.random() < 0.6] or [n_bus - 1]
    share = np.zeros((n, len(home)))
    for k, bus in enumerate(home):
        node = network.bus_node[bus]
        share[node[node >= 0], k] = rng.dirichlet(np.ones(np.count_nonzero(node >= 0)))
    k = len(home)
    p0 = -rng.uniform(0.03, 0.1, k)
    gen = rng.uniform(0.0, 0.15, k) * (rng.random(k) < 0.7)
    start = np.stack([p0, 0.4 * p0, np.zeros(k)])
    low = np.stack([p0, 0.5 * p0, np.zeros(k)])
    high = np.stack([p0 * rng.uniform(0.5, 0.9, k), 0.3 * p0, gen])
    weight = np.stack([rng.uniform(0.5, 4.0, k), rng.uniform(0.5, 4.0, k), rng.uniform(0.3, 1.0, k)])
    constant = 0.5 * float(np.sum(weight * start**2))
    slope = float(rng.choice([0.0, 0.02]))
    bids = ScaledBids(low, high, start, weight, -weight * start, constant, 0.08, slope, 0.02)
    return sparse.csc_matrix(share), bids


def state_of(network, share, u):
    """Voltages, import and losses of a dispatch, by the power flow of the grid room."""
    injected = share @ (u[0] + u[2] + 1j * u[1])
    v = solve_power_flow(network, injected, tol=1e-12).v
    loads = network.loads
    w = loads.across @ v
    size = abs(w) / loads.v_nominal_pu
    s = loads.s_power + loads.s_current * size + loads.s_impedance * size**2
    taken = v * np.conj(network.y @ v) + v * (loads.across.T @ (s / w))
    loss = float((v.conj() @ (network.y @ v)).real)
    return v, float((taken - injected)[:3].real.sum()), loss


def outside(box: Rectangle, value: np.ndarray) -> float:
    """How far the worst value lies outside its rectangle."""
    below, above = box.low - value, value - box.high
    return float(np.max([below.real, below.imag, above.real, above.imag]))


def keeps_limits(network, v) -> bool:
    size = abs(v[3:])
    return bool(np.all(size >= network.v_min_pu[3:]) and np.all(size <= network.v_max_pu[3:]))


def build(seed: int):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    share, bids = random_bids(rng, network)
    return rng, network, share, bids


def tightening_of(network, share):
    terminals = build_terminals(network, share)
    response = build_response(terminals, network.v_source_pu)
    limits = limits_of(network.v_min_pu, network.v_max_pu, network.v_source_pu)
    return terminals, Tightening(terminals, response), limits


def terminal_state(terminals, share_u, v):
    w = terminals.voltage @ v
    s = terminals.share @ share_u
    return w, np.conj((s - terminals.s_power - terminals.s_current * abs(w)) / w)


@MEDIUM
@given(SEEDS)
def test_power_flows_lie_inside_the_bounds_and_widths_shrink(seed):
    rng, network, share, bids = build(seed)
    terminals, tightening, limits = tightening_of(network, share)
    bounds = tightening.run(operator_power(terminals, bids), limits)
    widths = bounds.widths
    assert np.all(widths[1:] <= widths[:-1])
    if bounds.feasible:
        assert np.all(widths[-1] < 0.9 * widths[0])
    corners = [bids.low, bids.high, *(rng.uniform(bids.low, bids.high) for _ in range(6))]
    for u in corners:
        v, _, _ = state_of(network, share, u)
        if not keeps_limits(network, v):
            continue
        assert bounds.feasible
        w, i = terminal_state(terminals, u[0] + u[2] + 1j * u[1], v)
        # The power flow is solved to 1e-12 p.u., which impedances of a few hundredths do not enlarge.
        assert max(outside(bounds.v, v), outside(bounds.w, w), outside(bounds.i, i)) <= 1e-9
        assert np.all(abs(w) >= bounds.w_low - 1e-9)
        assert np.all(abs(w) <= bounds.w_high + 1e-9)


@MEDIUM
@given(SEEDS)
def test_bounds_around_a_dispatch_hold_what_is_near_it(seed):
    rng, network, share, bids = build(seed)
    terminals, tightening, limits = tightening_of(network, share)
    power = operator_power(terminals, bids)
    centre = rng.uniform(bids.low, bids.high)
    radius = np.where(rng.random(centre.shape) < 0.8, rng.uniform(0.005, 0.05, centre.shape), np.inf)
    near = Near(centre, radius, bids.low, bids.high)
    plain = tightening.run(power, limits)
    bounds = tightening.run(power, limits, known=plain, near=near)
    if plain.feasible and bounds.feasible:
        assert np.all(bounds.v.radius.real <= plain.v.radius.real + 1e-12)
    for _ in range(6):
        step = rng.normal(size=centre.shape) * np.isfinite(radius)
        step *= rng.random() / max(float(np.linalg.norm(step)), 1e-9)
        u = np.where(np.isfinite(radius), centre + step * np.where(np.isfinite(radius), radius, 0.0), centre)
        u = np.clip(u, bids.low, bids.high)
        v, _, _ = state_of(network, share, u)
        if keeps_limits(network, v):
            assert bounds.feasible
            w, i = terminal_state(terminals, u[0] + u[2] + 1j * u[1], v)
            assert max(outside(bounds.v, v), outside(bounds.w, w), outside(bounds.i, i)) <= 1e-9
            drop = np.asarray(tightening.drops(network.y, bounds, near).low)
            current = network.y @ v
            # Short lines have admittances of a hundred: 1e-12 p.u. of voltage becomes 1e-9 of current.
            assert np.all(drop.real <= current.real + 1e-8)


@MEDIUM
@given(SEEDS)
def test_the_moments_of_a_power_flow_are_a_point_of_the_cone_program(seed):
    rng, network, share, bids = build(seed)
    terminals, tightening, limits = tightening_of(network, share)
    bounds = tightening.run(operator_power(terminals, bids), limits)
    u = rng.uniform(bids.low, bids.high)
    v, head, loss = state_of(network, share, u)
    if not keeps_limits(network, v):
        return
    relaxation = ConeRelaxation(network, terminals, tightening)
    case = Case(bids, VoltageTarget(0.3, 0.98), bounds)
    instance = relaxation.build(case)
    x = lifted(relaxation, instance, u, v, head)
    program = instance.program
    slack = program.rhs - program.matrix @ x
    n_equal, n_unequal = program.n_equal, program.n_unequal
    # What rounding leaves of sums of products of size one.
    assert np.max(abs(slack[:n_equal])) < 1e-9
    assert np.min(slack[n_equal : n_equal + n_unequal]) > -1e-9
    assert np.all(abs(x) <= program.reach + 1e-9)
    value = 0.5 * float(program.curvature @ x**2) + float(program.linear @ x) + program.constant
    problem = ScaledProblem(bids, 0.3, 0.98)
    assert value == pytest.approx(scaled_cost(problem, u, v, head, loss), abs=1e-10)


def lifted(relaxation, instance, u, v, head):
    """The columns of the program at one state: deviations, their products, magnitudes."""
    layout, scaling, moments = relaxation.layout, instance.scaling, relaxation.moments
    known = scaling.radius == 0.0
    terminals, loads = relaxation.terminals, moments.loads
    w, i_terminal = terminal_state(terminals, u[0] + u[2] + 1j * u[1], v)
    quantity = np.concatenate([v, moments.drop @ v, i_terminal[loads.active]])
    deviation = np.where(known, 0.0, (quantity - scaling.centre) / np.where(known, 1.0, scaling.radius))
    i, j = layout.pair_key // layout.n_quantity, layout.pair_key % layout.n_quantity
    pair = deviation[i] * deviation[j].conj()
    parts = [u.ravel(), [head], deviation.real, deviation.imag, abs(deviation) ** 2, pair.real, pair.imag]
    return np.concatenate([*parts, abs(w)[loads.sized]])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SEEDS, st.sampled_from(["mccormick", "mccormick+obbt", "cones", "auto"]))
def test_no_bound_is_above_the_cost_of_a_dispatch(seed, method):
    rng, network, share, bids = build(seed)
    weight = float(rng.choice([0.0, 0.2]))
    problem, target = ScaledProblem(bids, weight, 0.99), VoltageTarget(weight, 0.99)
    solver = BoundSolver(network, share)
    alone = solver.bound(bids, target=target, method=method).value
    for u in [bids.low, *(rng.uniform(bids.low, bids.high) for _ in range(4))]:
        v, head, loss = state_of(network, share, u)
        if keeps_limits(network, v):
            assert alone <= scaled_cost(problem, u, v, head, loss) + 1e-9
    exact = ExactDispatch(network, check_share(network, share)).solve(network, problem, warm=False)
    if exact.point is None or max(exact.v_slack, exact.i_slack) > 1e-9:
        return
    # The optimum is a local one, found to 1e-6 of the multipliers; its own cost is exact to rounding.
    cost = exact.point.cost
    assert alone <= cost + 1e-7
    near = solver.bound(bids, target=target, method=method, cut_off=cost, gap_wanted=1e-6, rounds=3)
    # The second call starts from the first one's factorisation; where a program is nearly degenerate PIQP stops early,
    # and what its multipliers then prove differs in the seventh digit.
    assert alone - 1e-6 <= near.value <= cost
    bounds = np.array([stage.bound for stage in near.stages])
    assert np.all(bounds <= cost + 1e-7)
    assert np.all(np.diff(bounds) >= 0.0)
    if method in ("cones", "auto"):
        # Only where an upper limit binds is the relaxation not tight, and there the rounds close what is left.
        assert cost - near.value <= 5e-3 * abs(cost)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SEEDS, st.sampled_from(["mccormick", "cones"]))
def test_rounds_around_an_optimum_keep_it_and_shrink(seed, method):
    _, network, share, bids = build(seed)
    problem = ScaledProblem(bids, 0.0, 1.0)
    exact = ExactDispatch(network, check_share(network, share)).solve(network, problem, warm=False)
    if exact.point is None or max(exact.v_slack, exact.i_slack) > 1e-9:
        return
    point = exact.point
    terminals, tightening, limits = tightening_of(network, share)
    if method == "cones":
        relaxation = ConeRelaxation(network, terminals, tightening)
        rounds = ConeRounds(terminals, tightening, limits, relaxation)
    else:
        rounds = McCormickRounds(terminals, tightening, limits, McCormick(terminals, network))
    first = tightening.run(operator_power(terminals, bids), limits)
    case, goal = Case(bids, VoltageTarget(), first), Goal(point.cost, 1e-6, 0.0, 1, 1000)
    w, i = terminal_state(terminals, point.u[0] + point.u[2] + 1j * point.u[1], point.v)
    stages = []
    for _ in range(3):
        stages, after = rounds.run(case, goal, stages, probing=False)
        assert after.bounds.feasible
        for old, new, state in ((case.bounds.v, after.bounds.v, point.v), (case.bounds.i, after.bounds.i, i)):
            # Limits are kept to 1e-9 by the optimum itself.
            assert outside(new, state) <= 1e-8
            assert np.all(new.radius.real <= old.radius.real + 1e-12)
            assert np.all(new.radius.imag <= old.radius.imag + 1e-12)
        assert outside(after.bounds.w, w) <= 1e-8
        case = after


@settings(max_examples=5, deadline=None)
@given(SEEDS)
@example(154)  # no point at all
@example(2473)  # out of digits after nine rounds
def test_the_program_is_its_readable_twin(seed):
    _, network, share, bids = build(seed)
    terminals, tightening, limits = tightening_of(network, share)
    relaxation, solver = McCormick(terminals, network), QuadraticSolver()
    for rounds in (0, 9):
        bounds = tightening.run(operator_power(terminals, bids), limits, rounds=rounds)
        if not bounds.feasible:
            continue
        case = Case(bids, VoltageTarget(0.1, 0.98), bounds)
        ours = solver.solve(relaxation.build(case, tightening.drops(relaxation.wire, bounds)))
        if ours.bound == np.inf:  # proven: there is no point at all
            with pytest.raises(NotConvergedError, match="infeasible"):
                solve_mccormick_reference(network, terminals, case)
            continue
        twin = solve_mccormick_reference(network, terminals, case)
        # Interior methods stop at 1e-8 of values around one; one that ran out of digits says so, and its bound holds.
        value, tight = (1e-6, 1e-5) if ours.solved else (1e-5, 1e-4)
        assert ours.value == pytest.approx(twin.value, abs=value)
        assert ours.bound <= min(ours.value, twin.value) + 1e-8
        assert ours.bound >= ours.value - tight
