"""Lower bounds of the three-phase market: interval arithmetic, certificates, IEEE-13, errors."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from voltier.grid.errors import InputError
from voltier.grid.feeder import read_feeder
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.current_injection.bound import BoundSolver, lower_bound
from voltier.market.primary.current_injection.certificate import Program, certified_value, proves_empty
from voltier.market.primary.current_injection.collect import parts
from voltier.market.primary.current_injection.intervals import (
    Polar,
    Rectangle,
    linear,
    polar,
    product,
    quotient,
    rectangle,
    sizes,
)
from voltier.market.primary.current_injection.quadratic import QuadraticProgram, QuadraticSolver, proven
from voltier.market.primary.current_injection.terminals import (
    VoltageTarget,
    build_response,
    build_terminals,
)
from voltier.market.primary.problem import ScaledBids
from voltier.market.primary.three_phase.exact import ExactDispatch
from voltier.market.primary.three_phase.problem import ScaledProblem, check_share

RNG = np.random.default_rng(7)
# Interval ends and samples are rounded differently.
ROUNDING = 1e-12


def random_box(n: int, centre: complex) -> Rectangle:
    half = RNG.uniform(0.0, 0.5, n) + 1j * RNG.uniform(0.0, 0.5, n)
    middle = centre + RNG.normal(size=n) + 1j * RNG.normal(size=n)
    return Rectangle(middle - half, middle + half)


def samples(box: Rectangle, count: int = 200) -> np.ndarray:
    """Corners first, then random points, one row each."""
    corners = [box.low, box.high, box.low.real + 1j * box.high.imag, box.high.real + 1j * box.low.imag]
    n = len(box.low)
    inner = [
        box.low + (RNG.random(n) * box.radius.real + 1j * RNG.random(n) * box.radius.imag) * 2.0
        for _ in range(count)
    ]
    return np.stack(corners + inner)


def holds(box: Rectangle, values: np.ndarray) -> bool:
    low, high = values - box.low, box.high - values
    return bool(min(low.real.min(), low.imag.min(), high.real.min(), high.imag.min()) >= -ROUNDING)


def test_ranges_hold_all_values_and_are_sharp():
    first, second = random_box(50, 0.0), random_box(50, 0.0)
    x, y = samples(first), samples(second)
    assert holds(product(first, second), x[RNG.permutation(len(x))] * y)
    matrix = RNG.normal(size=(20, 50)) + 1j * RNG.normal(size=(20, 50))
    assert holds(linear(matrix, sizes(matrix), first), x @ matrix.T)
    sector = polar(first)
    assert np.all(np.abs(x) >= sector.low - ROUNDING)
    assert np.all(np.abs(x) <= sector.high + ROUNDING)
    # The smallest and the largest modulus are reached: at the nearest point and at a corner.
    assert np.allclose(np.abs(x[:4]).max(axis=0), sector.high)


def test_currents_of_a_power_lie_in_their_range_which_extremes_touch():
    power = random_box(40, 0.0)
    voltage = Polar(np.full(40, 0.9), np.full(40, 1.1), np.full(40, -0.2), RNG.uniform(-0.1, 0.4, 40))
    box = quotient(power, voltage)
    s = samples(power, 400)
    angle = voltage.angle_low + RNG.random(s.shape) * (voltage.angle_high - voltage.angle_low)
    angle[: len(s) // 2] = np.where(
        RNG.random((len(s) // 2, 40)) < 0.5, voltage.angle_low, voltage.angle_high
    )
    size = np.where(RNG.random(s.shape) < 0.5, 0.9, 1.1)
    currents = np.conj(s / (size * np.exp(1j * angle)))
    assert holds(box, currents)
    # The four corners of S, both magnitudes, both angles: 16 of 400 samples; most ranges are touched to 2 %.
    reached = np.maximum(currents.real.max(axis=0) - box.low.real, 0.0) / (2.0 * box.radius.real)
    assert np.median(reached) > 0.9


def test_rectangles_around_sectors_of_rings_hold_them():
    low = RNG.uniform(-np.pi, np.pi, 60)
    sector = Polar(np.full(60, 0.5), np.full(60, 1.0), low, low + RNG.uniform(0.0, 2.0 * np.pi, 60))
    part = np.linspace(0.0, 1.0, 101)[:, None]
    angle = sector.angle_low + part * (sector.angle_high - sector.angle_low)
    assert holds(rectangle(sector), np.concatenate([0.5 * np.exp(1j * angle), np.exp(1j * angle)]))


def test_parts_of_a_sparse_matrix_survive_unsorted_indices():
    matrix = sparse.csr_matrix(
        (np.array([1.0 + 2.0j, 3.0 - 1.0j]), np.array([1, 0]), np.array([0, 2])), shape=(1, 2)
    )
    re, im = parts(matrix)
    abs(re).sort_indices()
    assert np.array_equal(re.toarray() + 1j * im.toarray(), [[3.0 - 1.0j, 1.0 + 2.0j]])
    assert np.array_equal(matrix.toarray(), [[3.0 - 1.0j, 1.0 + 2.0j]])


def toy_program(limit: float) -> Program:
    """min x + y over |(2x, 2y, s - 1)| <= s + 1 (x² + y² <= s) and s <= limit: -√(2·limit)."""
    matrix = sparse.csc_matrix(
        np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [-2.0, 0.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, -1.0]])
    )
    rhs = np.array([limit, 1.0, 0.0, 0.0, -1.0])
    linear_cost = np.array([1.0, 1.0, 0.0])
    return Program(np.zeros(3), linear_cost, 0.5, matrix, rhs, 0, 1, (1,), np.full(3, 10.0))


def test_a_certificate_holds_for_any_dual_point():
    program, best = toy_program(2.0), 0.5 - 2.0
    for _ in range(200):
        assert certified_value(program, RNG.normal(size=3), RNG.normal(size=5)) <= best + 1e-12
    # At the optimum x = y = -1, s = 2: the cone's multiplier is along its boundary.
    z = np.array([0.5, 0.75, 0.5, 0.5, -0.25])
    assert certified_value(program, np.zeros(3), z) == pytest.approx(best, abs=1e-12)
    assert not proves_empty(program, z)


def test_an_empty_program_is_proven_empty():
    # s <= -1 contradicts s >= x² + y².
    z = np.array([1.0, 0.5, 0.0, 0.0, 0.5])
    assert proves_empty(toy_program(-1.0), z)
    assert not proves_empty(toy_program(1.0), z)


def test_multipliers_of_a_quadratic_program_prove_its_value_or_less():
    p = sparse.csc_matrix(np.diag([2.0, 1.0]))
    one = sparse.csc_matrix(np.array([[1.0, 1.0]]))
    rows = sparse.csc_matrix(np.array([[1.0, -1.0]]))
    side = np.array([0.2])
    program = QuadraticProgram(
        p,
        np.array([-1.0, 0.5]),
        3.0,
        one,
        np.array([1.0]),
        rows,
        -side,
        side,
        np.full(2, -5.0),
        np.full(2, 5.0),
    )
    point = QuadraticSolver().solve(program)
    # On x + y = 1 the cost falls towards larger x until the row x - y <= 0.2 stops it at x = 0.6, y = 0.4.
    best = 3.0 + 0.36 + 0.08 - 0.6 + 0.2
    # PIQP is asked for residuals of 1e-9.
    assert np.allclose(point.x, [0.6, 0.4], atol=1e-7)
    assert point.value == pytest.approx(best, abs=1e-7)
    assert point.bound <= point.value + 1e-9
    assert point.bound == pytest.approx(point.value, abs=1e-6)
    for _ in range(100):
        bound, _rest = proven(program, RNG.normal(size=2), RNG.normal(size=1), RNG.normal(size=1))
        assert bound <= point.value + 1e-6


@pytest.fixture(scope="module")
def ieee13():
    return market_of("ieee13")


def market_of(name):
    feeder = read_feeder(name)
    network = three_phase_network(feeder, feeder.regulators.published_tap, v_min_pu=0.9, v_max_pu=1.1)
    loads = network.loads
    touched = abs(loads.across) > 0
    share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T.astype(float))
    p = (loads.s_power + loads.s_current + loads.s_impedance).real
    rng = np.random.default_rng(1)
    zero = np.zeros_like(p)
    high = np.stack([p * rng.uniform(0.1, 0.4, len(p)), 0.2 * p, 0.3 * p * rng.random(len(p))])
    weight = 0.1 * np.stack([6.0 / p, 2.0 / p, 3.0 / p])
    bids = ScaledBids(
        np.stack([zero, -0.2 * p, zero]), high, 0.0 * high, weight, 0.0 * high, 0.0, 0.1, 0.0, 0.0
    )
    return network, share, bids


def optimum(network, share, bids, weight=0.0):
    exact = ExactDispatch(network, check_share(network, share))
    outcome = exact.solve(network, ScaledProblem(bids, weight, 1.0), warm=False)
    assert max(outcome.v_slack, outcome.i_slack) < 1e-7
    return outcome.point


def test_response_is_what_the_admittance_says(ieee13):
    network, share, _ = ieee13
    terminals = build_terminals(network, share)
    response = build_response(terminals, network.v_source_pu)
    i = RNG.normal(size=terminals.count) + 1j * RNG.normal(size=terminals.count)
    v = response.idle + response.gain @ i
    assert np.allclose(v[:3], network.v_source_pu)
    # Admittances reach 1e3: twelve digits of them are left.
    assert np.allclose((terminals.y @ v - terminals.voltage.conj().T @ i)[3:], 0.0, atol=1e-9)


@pytest.mark.parametrize("method", ["mccormick", "mccormick+obbt", "cones", "auto"])
def test_the_gap_of_ieee13_is_certified(ieee13, method):
    network, share, bids = ieee13
    cost = optimum(network, share, bids).cost
    solver = BoundSolver(network, share)
    bound = solver.bound(bids, method=method, cut_off=cost)
    assert 0.0 <= (cost - bound.value) / cost <= 0.005
    assert all(stage.bound <= cost for stage in bound.stages)
    assert bound.method == method


def test_a_binding_upper_limit_and_a_voltage_target_are_certified(ieee13):
    network, share, bids = ieee13
    free = optimum(network, share, bids)
    tight = replace(network, v_max_pu=np.full(len(free.v), abs(free.v[3:]).max() - 0.01))
    cost = optimum(tight, share, bids, 0.05).cost
    target = VoltageTarget(0.05, 1.0)
    alone = lower_bound(tight, share, bids, target=target, method="cones")
    near = lower_bound(tight, share, bids, target=target, cut_off=cost)
    assert cost > free.cost
    assert alone.value <= cost
    assert 0.0 <= (cost - near.value) / cost <= 0.005


def test_tightening_cures_negative_losses_and_the_mismatch(ieee13):
    network, share, bids = ieee13
    point = optimum(network, share, bids)
    bound = BoundSolver(network, share).bound(bids, method="mccormick", cut_off=point.cost, gap_wanted=1e-5)
    first, last = bound.stages[0], bound.stages[-1]
    assert first.loss_pu < 0.0
    assert last.loss_pu == pytest.approx(point.loss, rel=0.05)
    assert last.mismatch < 0.01 < first.mismatch


@pytest.mark.parametrize("word", ["free", "upper", "lower"])
def test_the_relaxed_state_of_ieee34_at_full_load_is_within_a_percent(word):
    network, share, bids = market_of("ieee34")
    size = abs(optimum(network, share, bids).v[3:])
    if word == "upper":
        network = replace(network, v_max_pu=np.full(len(network.v_max_pu), size.max() - 0.005))
    elif word == "lower":
        network = replace(network, v_min_pu=np.full(len(network.v_min_pu), size.min() + 0.005))
    cost = optimum(network, share, bids).cost
    bound = lower_bound(network, share, bids, cut_off=cost, mismatch_wanted=0.01)
    assert bound.outcome == "reached"
    assert bound.mismatch <= 0.01
    assert bound.mismatch < 0.1 * bound.stages[0].mismatch
    assert 0.0 <= (cost - bound.value) / cost <= 0.005


def test_a_budget_ends_with_the_best_bound_so_far(ieee13):
    network, share, bids = ieee13
    cost = optimum(network, share, bids).cost
    solver = BoundSolver(network, share)
    # Nothing closes a gap of zero; 12 quadratic programs are too few for any cone program.
    small, large = (solver.bound(bids, cut_off=cost, gap_wanted=0.0, budget=budget) for budget in (12, 120))
    assert small.outcome == "budget"
    assert sum(stage.work for stage in small.stages) <= 12
    assert sum(stage.work for stage in large.stages) <= 120
    assert small.value <= large.value <= cost
    assert solver.bound(bids).outcome == "no goal"


def test_limits_that_no_dispatch_keeps_are_proven(ieee13):
    network, share, bids = ieee13
    low = replace(network, v_min_pu=np.full(network.y.shape[0], 1.08))
    for method in ("mccormick", "cones", "auto"):
        bound = lower_bound(low, share, bids, method=method)
        assert (bound.value, bound.outcome) == (np.inf, "infeasible")


def test_what_cannot_be_bounded_is_said(ieee13):
    network, share, bids = ieee13
    solver = BoundSolver(network, share)
    with pytest.raises(InputError, match="choose one of"):
        solver.bound(bids, method="simplex")
    with pytest.raises(InputError, match="1 boxes are empty"):
        high = bids.high.copy()
        high[0, 0] = -1.0
        solver.bound(replace(bids, high=high))
    with pytest.raises(InputError, match="price of losses"):
        solver.bound(replace(bids, loss_price=-0.1))
    with pytest.raises(InputError, match="phase nodes"):
        BoundSolver(network, share[:-1])
