"""Atoms that exchange little reach the optimum of the program that none of them sees."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from scipy import sparse

from voltier.grid.errors import InputError
from voltier.grid.feeder import read_feeder
from voltier.grid.network import balanced_network
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.distributed.atoms import Profile, atomise, per_area, per_lateral, per_node
from voltier.market.primary.distributed.factor import factorise_all
from voltier.market.primary.distributed.local import local_problem, minimise
from voltier.market.primary.distributed.options import Options, StoppingRule
from voltier.market.primary.distributed.pac import Pac
from voltier.market.primary.distributed.program import ConvexProgram, solve_central
from voltier.market.primary.distributed.solve import build_method, certify, solve_distributed
from voltier.market.primary.distributed.step_rule import squared_norm
from voltier.market.primary.distributed.tangent_branch_flow import BranchFlowPoint, BranchFlowTangent
from voltier.market.primary.distributed.tangent_current import CurrentTangent
from voltier.market.primary.market import PrimaryMarket
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices, scale_bids
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.market.primary.three_phase.problem import SocialWeights, scale_problem

PRICES = PrimaryPrices(0.10, 1e-5, 0.10)
# What a reader may ask where the default rule stops: cost 0.1 %, set-points 1e-3 p.u., prices 2 %.
COST, SET_POINT, PRICE = 1e-3, 1e-3, 0.02
RULE = StoppingRule()


class Case(NamedTuple):
    """A program, the AC point's unknowns, rows of active balances, columns of set-points."""

    program: ConvexProgram
    x: np.ndarray
    balances: slice
    controls: slice


def bids_of(p, *, least=0.75):
    return PrimaryBids(
        p0_kw=-p, p_min_kw=-1.1 * p, p_max_kw=-least * p, beta_p_usd_per_kw2h=0.2 / p,
        q0_kvar=-0.4 * p, q_min_kvar=-0.6 * p, q_max_kvar=-0.2 * p, beta_q_usd_per_kvar2h=0.05 / p,
        gen_max_kw=np.where(np.arange(len(p)) % 8 == 0, 30.0, 0.0),
        alpha_usd_per_kw2h=np.full(len(p), 0.12 / 30.0),
    )  # fmt: skip


def balanced_case(name):
    """Return the balanced feeder's program at its AC optimum."""
    feeder = read_feeder(name)
    network = balanced_network(feeder, feeder.regulators.published_tap, v_min_pu=0.9, v_max_pu=1.1)
    rows = feeder.load_buses
    p = 0.8 * np.bincount(feeder.spot_loads.bus, feeder.spot_loads.p_kw, len(feeder.bus))[rows]
    node, bids = network.node_of_bus[rows], bids_of(p)
    market = PrimaryMarket(network, node)
    assert market.clear(bids, PRICES, bound=False).status == "optimal"
    last = market.dispatch._warm
    tangent = BranchFlowTangent(network, node)
    point = BranchFlowPoint(last.state, last.y[tangent.size.current :])
    program = tangent.at(network, scale_bids(bids, PRICES, network.s_base_kva), point)
    return Case(
        program, tangent.start(point, last.u), slice(0, tangent.size.n_node),
        slice(tangent.size.control, tangent.size.head),
    )  # fmt: skip


def phase_case(name):
    """Return the three-phase feeder's program at its AC optimum."""
    feeder = read_feeder(name)
    tap = feeder.regulators.published_tap
    full = three_phase_network(feeder, tap)
    network = three_phase_network(feeder, tap, loads=False, v_min_pu=0.9, v_max_pu=1.1)
    touched = (abs(full.loads.across) > 0).astype(float)
    share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T)
    p = 0.8 * (full.loads.s_power + full.loads.s_current + full.loads.s_impedance).real * full.s_phase_kva
    market, bids = ThreePhaseMarket(network, share), bids_of(p)
    assert market.clear(bids, PRICES, bound=False).status == "optimal"
    last = market.dispatch._warm
    tangent = CurrentTangent(network, share)
    point = tangent.point(last.v, 0.1)
    program = tangent.at(network, scale_problem(bids, PRICES, SocialWeights(), network.s_phase_kva), point)
    layout = tangent.layout
    x = tangent.start(point, last.u, last.head)
    return Case(program, x, slice(0, layout.n_free), slice(layout.control, layout.head))


@pytest.fixture(scope="module")
def cases():
    made = {("balanced", n): balanced_case(n) for n in ("ieee13", "ieee34")}
    return made | {("phases", n): phase_case(n) for n in ("ieee13", "ieee34")}


def far(program):
    """Return unknowns without flow, far from the optimum."""
    return np.clip(np.where(program.low > 0.0, 1.0, 0.0), program.low, program.high)


def assert_optimal(case, solution):
    program, balances = case.program, case.balances
    central = solve_central(program)
    assert solution.certificate.converged
    assert abs(solution.certificate.cost - central.cost) <= COST * abs(central.cost)
    assert np.abs(solution.x - central.x)[case.controls].max() <= SET_POINT
    price, true = solution.duals[balances], central.y[balances]
    assert np.abs(price - true).max() <= PRICE * np.abs(true).max()


def test_the_tangent_program_has_the_market_s_optimum(cases):
    for program, x, _, _ in cases.values():
        central = solve_central(program)
        # The AC point satisfies the tangent equations but for rounding of short lines' admittances.
        assert np.abs(program.matrix @ x - program.rhs).max() < 1e-8
        assert central.cost == pytest.approx(program.cost(x), rel=1e-6)


@pytest.mark.parametrize("kind", ["balanced", "phases"])
@pytest.mark.parametrize("name", ["ieee13", "ieee34"])
@pytest.mark.parametrize("method", ["pac", "nst-pac", "admm"])
def test_the_central_optimum_is_reached(cases, kind, name, method):
    case = cases[kind, name]
    program = case.program
    options = Options(stop=RULE)
    solution = solve_distributed(program, per_node(program), method, options, start=far(program))
    assert_optimal(case, solution)


@pytest.mark.slow
@pytest.mark.parametrize("case", [balanced_case, phase_case])
@pytest.mark.parametrize("method", ["pac", "nst-pac", "admm"])
def test_ieee_123_is_solved_too(case, method):
    made = case("ieee123")
    program = made.program
    solution = solve_distributed(program, per_node(program), method, Options(stop=RULE), start=far(program))
    assert_optimal(made, solution)


def test_every_profile_gives_the_same_optimum(cases):
    case = cases["balanced", "ieee34"]
    program = case.program
    for profile in (per_lateral(program), per_area(program, 4), per_area(program, 1)):
        solution = solve_distributed(program, profile, "nst-pac", Options(stop=RULE), start=far(program))
        assert_optimal(case, solution)


def test_anderson_acceleration_leads_to_the_same_optimum_in_fewer_rounds(cases):
    case = cases["phases", "ieee34"]
    program, x = case.program, case.x
    plain = Options(stop=RULE, mask=0.0, extrapolation=(0.0, 0.0, 0.0))
    one = solve_distributed(program, per_node(program), "nst-pac", plain, start=x)
    two = solve_distributed(program, per_node(program), "nst-pac", replace(plain, anderson=15), start=x)
    assert_optimal(case, two)
    assert two.rounds < one.rounds


# ---------------------------------------------------------------------- decomposition


def test_copies_are_the_foreign_unknowns_an_atom_s_rows_name(cases):
    case = cases["balanced", "ieee13"]
    program, x = case.program, case.x
    profile = per_node(program)
    atoms = atomise(program, profile)
    atom = np.repeat(np.arange(atoms.n_atom), np.diff(atoms.first))
    place = profile.atom_of_place
    needed = {
        (int(place[program.row_place[r]]), int(c))
        for r, c in zip(*program.matrix.nonzero(), strict=True)
        if place[program.row_place[r]] != place[program.column_place[c]]
    }
    names = np.unique(np.concatenate([program.column_place, program.row_place]))
    assert needed == {(int(names[atom[k]]), int(atoms.column[k])) for k in atoms.copy}
    assert np.array_equal(atoms.column[atoms.own], atoms.column[atoms.copy])
    # Local rows say of local unknowns what the program's rows say of its own.
    assert atoms.matrix @ atoms.spread(x) == pytest.approx((program.matrix @ x)[atoms.row], abs=1e-12)
    assert np.array_equal(atoms.gathered(atoms.spread(x)), x)


def test_one_atom_copies_nothing_and_areas_copy_less_than_nodes(cases):
    case = cases["phases", "ieee34"]
    program = case.program
    count = [
        atomise(program, p).n_copy for p in (per_node(program), per_lateral(program), per_area(program, 4))
    ]
    assert count[0] > count[1] > count[2] > 0
    assert atomise(program, per_area(program, 1)).n_copy == 0


def test_a_profile_must_give_every_place_an_atom(cases):
    case = cases["balanced", "ieee13"]
    program = case.program
    with pytest.raises(InputError, match="atom_of_place"):
        atomise(program, Profile(np.zeros(3, dtype=np.int64)))


def test_an_atom_s_own_minimisation_is_the_quadratic_program_s(cases):
    case = cases["balanced", "ieee34"]
    program = case.program
    atoms = atomise(program, per_area(program, 4))
    local = local_problem(atoms)
    rng = np.random.default_rng(3)
    size, m, weight = len(atoms.column), len(atoms.rhs), 50.0
    diagonal, r = rng.uniform(0.1, 2.0, size), rng.normal(size=size)
    eta, a, y = rng.normal(size=m), np.zeros(size), np.zeros(m)
    blocks, inverse = local.blocks(np.full(m, 1.0 / weight)), 1.0 / diagonal
    factorise_all(blocks, inverse)
    minimise(local.rows, blocks, r, diagonal, inverse, np.zeros(size, np.int8), eta, a, y, np.zeros(m))
    slope = diagonal * a - r + local.matrix.T @ y
    assert y == pytest.approx(eta + weight * (local.matrix @ a - local.rows.rhs), abs=1e-6)
    inside = (a > atoms.low) & (a < atoms.high)
    # Stationary inside, pushed outwards at limits: the optimality conditions of each atom's box program.
    assert np.abs(slope[inside]).max() < 1e-8
    assert np.all(slope[(a == atoms.low) & (atoms.low < atoms.high)] >= -1e-8)
    assert np.all(slope[(a == atoms.high) & (atoms.low < atoms.high)] <= 1e-8)


# ---------------------------------------------------------------------- steps, masks, restart


def test_one_step_for_all_is_cut_to_the_rule(cases):
    case = cases["phases", "ieee13"]
    program = case.program
    local = local_problem(atomise(program, per_node(program)))
    options = Options(rho=50.0, gamma=3.0, precondition=False)
    worker = build_method("pac", local, options, program.stiffness)
    assert isinstance(worker, Pac)
    n = worker._numbers
    both = sparse.vstack([local.matrix, local.atoms.consensus()]).toarray()
    rows = np.concatenate([n.row_step, n.tie_step])
    true = np.linalg.norm(np.sqrt(rows)[:, None] * both / np.sqrt(n.near), 2) ** 2
    assert 0.5 < true <= 1.0
    assert worker.norm <= 1.0
    assert squared_norm(sparse.csr_matrix(both), rows, 1.0 / n.near) >= true


@pytest.mark.parametrize("kind", ["balanced", "phases"])
@pytest.mark.parametrize("row_share", [0.2, 0.5])
def test_every_atom_s_own_steps_keep_the_rule_of_all(cases, kind, row_share):
    case = cases[kind, "ieee34"]
    program = case.program
    local = local_problem(atomise(program, per_node(program)))
    worker = build_method("pac", local, Options(row_share=row_share), program.stiffness)
    assert isinstance(worker, Pac)
    n = worker._numbers
    own = local.matrix.toarray() / np.sqrt(n.near)
    ties = np.sqrt(n.tie_step)[:, None] * local.atoms.consensus().toarray() / np.sqrt(n.near)
    # ‖√Σ[G; B]√ρ‖² with Σ = σ(GρGᵀ)⁻¹ : a projection for own rows, and the ties beside it.
    whole = row_share * own.T @ np.linalg.solve(own @ own.T, own) + ties.T @ ties
    assert 0.5 < np.linalg.norm(whole, 2) <= 1.0 + 1e-6


def test_a_multiplier_that_is_no_price_may_drift(cases):
    case = cases["phases", "ieee34"]
    program = case.program
    solution = solve_distributed(program, per_node(program), "admm", start=far(program))
    assert_optimal(case, solution)
    # Ohm's law's multipliers are still on their way when the prices have arrived.
    every = replace(program, price_row=np.arange(len(program.rhs)))
    strict = solve_distributed(every, per_node(program), "admm", start=far(program))
    assert strict.rounds > 2 * solution.rounds
    assert np.abs(strict.duals - solution.duals)[case.balances].max() < PRICE * np.abs(strict.duals).max()


def test_masked_duals_hide_the_true_ones_and_change_no_optimum(cases):
    case = cases["balanced", "ieee13"]
    program = case.program
    local = local_problem(atomise(program, per_node(program)))
    sent, true = {}, {}
    for seed in (1, 2):
        worker = build_method("pac", local, Options(mask=0.8, seed=seed), program.stiffness)
        worker.begin(
            local.atoms.spread(far(program)), np.zeros(len(program.rhs)), np.zeros(local.atoms.n_copy)
        )
        worker.advance(40)
        sent[seed], true[seed] = worker.nu_hat.copy(), worker.nu.copy()
    step = np.abs(sent[1] - true[1])
    # Half-way, messages are off the true duals by a good part of a step, and by another one for each private seed.
    assert np.median(step) > 1e-6
    assert np.median(np.abs((sent[1] - true[1]) - (sent[2] - true[2]))) > 0.05 * np.median(step)
    options = Options(stop=RULE, mask=0.8)
    for method in ("pac", "nst-pac"):
        assert_optimal(
            case, solve_distributed(program, per_node(program), method, options, start=far(program))
        )


def test_extrapolation_that_diverges_is_restarted_without(cases):
    case = cases["balanced", "ieee13"]
    program = case.program
    wild = Options(stop=replace(RULE, look_every=10), extrapolation=(0.6, 0.6, 0.6), mask=0.0)
    never = replace(wild, restart_growth=1e30, stop=replace(wild.stop, max_rounds=2000))
    assert not solve_distributed(
        program, per_node(program), "nst-pac", never, start=far(program)
    ).certificate.converged
    assert_optimal(case, solve_distributed(program, per_node(program), "nst-pac", wild, start=far(program)))


def test_the_same_seed_gives_the_same_bytes(cases):
    case = cases["phases", "ieee13"]
    program = case.program
    one, two = (solve_distributed(program, per_node(program), "nst-pac") for _ in range(2))
    assert one.x.tobytes() == two.x.tobytes()
    assert one.rounds == two.rounds


# ---------------------------------------------------------------------- verdicts


def test_running_out_of_rounds_is_said(cases):
    case = cases["phases", "ieee34"]
    program = case.program
    options = Options(stop=StoppingRule(max_rounds=30, look_every=25))
    solution = solve_distributed(program, per_node(program), "pac", options, central_cost=1.0)
    assert solution.rounds == 30
    assert solution.history.rounds.tolist() == [25, 30]
    assert not solution.certificate.converged
    assert solution.certificate.gap == pytest.approx(solution.certificate.cost - 1.0)


def test_the_certificate_is_zero_at_the_optimum_and_sees_a_wrong_price(cases):
    case = cases["balanced", "ieee13"]
    program = case.program
    solution = solve_distributed(program, per_area(program, 1), "nst-pac", Options(stop=RULE))
    assert solution.certificate.primal_pu < 1e-6
    assert solution.certificate.dual_usd_per_kwh < 1e-3
    atoms = atomise(program, per_area(program, 1))
    wrong = certify(program, atoms, atoms.spread(solution.x), solution.duals + 0.05, None, converged=True)
    assert wrong.dual_usd_per_kwh > 1e-3


def test_what_cannot_be_is_refused():
    program = ConvexProgram(
        curvature=np.array([-1.0]), linear=np.zeros(1), matrix=sparse.csr_matrix([[1.0]]), rhs=np.zeros(1),
        low=np.zeros(1), high=np.ones(1), column_place=np.zeros(1, int), row_place=np.zeros(1, int),
        column_period=np.zeros(1, int), row_period=np.zeros(1, int), edge=np.zeros((0, 2), int),
        stiffness=np.ones(1), price_row=np.zeros(1, int),
    )  # fmt: skip
    with pytest.raises(InputError, match="curvature"):
        solve_distributed(program, Profile(np.zeros(1, dtype=np.int64)))
    convex = replace(program, curvature=np.ones(1))
    for bad in ({"rho": 0.0}, {"relaxation": 2.0}, {"anderson": 5}, {"extrapolation": (0.0, 2.0, 0.0)}):
        with pytest.raises(InputError, match=next(iter(bad))):
            solve_distributed(convex, Profile(np.zeros(1, dtype=np.int64)), "pac", Options(**bad))
