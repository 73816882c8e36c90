"""Markets cleared by atoms: the same dispatch and prices as the central ones, from outside the same port."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from voltier.grid.feeder import read_feeder
from voltier.grid.network import balanced_network
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.distributed.atoms import per_area, per_node
from voltier.market.primary.distributed.dispatch import Plan
from voltier.market.primary.distributed.horizon import HorizonTangents, scaled_storage
from voltier.market.primary.distributed.options import Options, StoppingRule
from voltier.market.primary.distributed.successive import solve_successive
from voltier.market.primary.distributed.tangent_current import CurrentTangent
from voltier.market.primary.formulation import BranchFlow
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices
from voltier.market.primary.three_phase.batteries import Batteries, with_batteries
from voltier.market.primary.three_phase.formulation import CurrentInjection
from voltier.market.primary.three_phase.multi_period import DaySearch, ThreePhaseDay
from voltier.market.primary.three_phase.problem import SocialWeights, scale_problem
from voltier.market.primary.three_phase.shares import PhaseBaseline, phase_share

PRICES = PrimaryPrices(0.10, 1e-5, 0.10)


def case(name):
    """Return the feeder and bids at its load buses."""
    feeder = read_feeder(name)
    rows = feeder.load_buses
    p = 0.8 * np.bincount(feeder.spot_loads.bus, feeder.spot_loads.p_kw, len(feeder.bus))[rows]
    bids = PrimaryBids(
        p0_kw=-p, p_min_kw=-1.1 * p, p_max_kw=-0.75 * p, beta_p_usd_per_kw2h=0.2 / p,
        q0_kvar=-0.4 * p, q_min_kvar=-0.6 * p, q_max_kvar=-0.2 * p, beta_q_usd_per_kvar2h=0.05 / p,
        gen_max_kw=np.zeros(len(p)), alpha_usd_per_kw2h=np.full(len(p), 0.004),
    )  # fmt: skip
    return feeder, bids


def balanced(feeder, plan=None):
    network = balanced_network(feeder, feeder.regulators.published_tap, v_min_pu=0.9, v_max_pu=1.1)
    how = {} if plan is None else {"dispatcher": plan.branch_flow}
    return BranchFlow(feeder, network, feeder.load_buses, **how)


def phases(feeder, plan=None, v_min=0.9):
    tap = feeder.regulators.published_tap
    network = three_phase_network(feeder, tap, loads=False, v_min_pu=v_min, v_max_pu=1.1)
    rows = feeder.load_buses
    place = [(b, p, k) for k, b in enumerate(rows) for p in range(3) if feeder.has_phase[b, p]]
    bus, phase, owner = (np.array(column) for column in zip(*place, strict=True))
    share = phase_share(network, bus, phase, owner, len(rows))
    none = sparse.csc_matrix((share.shape[0], 0))
    how = {} if plan is None else {"dispatcher": plan.current_injection}
    return CurrentInjection(
        feeder, network, rows, share, none, np.zeros(0, dtype=np.int64), SocialWeights(), **how
    )


@pytest.mark.parametrize("make", [balanced, phases])
@pytest.mark.parametrize("method", ["nst-pac", "admm"])
def test_atoms_clear_as_the_central_market_does(make, method):
    feeder, bids = case("ieee13")
    central = make(feeder).clear(bids, PRICES, tap=None, bound=False)
    market = make(feeder, Plan(method, Options()))
    clearing = market.clear(bids, PRICES, tap=None, bound=False)
    assert clearing.status == "optimal"
    # The tolerances a reader may ask for: 0.1 %, 1e-3 p.u. of the base, 2 %.
    assert clearing.cost_usd_per_h == pytest.approx(central.cost_usd_per_h, rel=1e-3)
    assert np.abs(clearing.p_kw - central.p_kw).max() <= 1e-3 * market.s_base_kva / 3.0
    assert clearing.dlmp_node_p_usd_per_kwh == pytest.approx(central.dlmp_node_p_usd_per_kwh, rel=0.02)
    assert np.abs(clearing.dlmp_q_usd_per_kvarh - central.dlmp_q_usd_per_kvarh).max() <= 0.02 * 0.2
    # What is reported is a power flow of the set points, not what the atoms believe.
    assert clearing.ac_residual_pu < 1e-8
    assert market._market.dispatch.last is not None
    assert market.v_at_operators(clearing) == pytest.approx(make(feeder).v_at_operators(central), abs=1e-3)


def test_the_prices_are_the_atoms_multipliers_of_their_balances():
    feeder, bids = case("ieee13")
    market = balanced(feeder, Plan("nst-pac", Options()))
    clearing = market.clear(bids, PRICES, tap=None, bound=False)
    n = len(clearing.dlmp_node_p_usd_per_kwh)
    assert np.array_equal(clearing.dlmp_node_p_usd_per_kwh, -market._market.dispatch.last.duals[:n])


def test_a_warm_clearing_takes_fewer_rounds():
    feeder, bids = case("ieee13")
    market = phases(feeder, Plan("nst-pac", Options(), lambda program: per_area(program, 3)))
    first = market.clear(bids, PRICES, tap=None, bound=False)
    names = ("p0_kw", "p_min_kw", "p_max_kw")
    second = market.clear(
        replace(bids, **{n: 1.01 * getattr(bids, n) for n in names}), PRICES, tap=None, bound=False
    )
    assert second.status == "optimal"
    assert second.iterations < first.iterations


def test_limits_that_nobody_can_keep_are_a_failure_that_says_why():
    feeder, bids = case("ieee13")
    options = Options(stop=StoppingRule(max_rounds=500))
    market = phases(feeder, Plan("nst-pac", options), v_min=1.09)
    clearing = market.clear(bids, PRICES, tap=None, bound=False)
    assert clearing.status == "failed"
    assert "not agreed after 500 rounds" in clearing.note
    assert np.all(np.isnan(clearing.p_kw))


def test_atoms_clear_the_baseline_of_each_clearing():
    feeder, bids = case("ieee13")
    market, central = phases(feeder, Plan("nst-pac", Options())), phases(feeder)
    fed = central._built.bus_node[feeder.load_buses] >= 0
    even, first = fed / fed.sum(axis=1, keepdims=True), np.zeros(fed.shape)
    first[np.arange(len(fed)), fed.argmax(axis=1)] = 1.0
    voltages = []
    # One network after the other: the same wires, other loads.
    for lean in (0.0, 0.3):
        part = (1.0 - lean) * even + lean * first
        baseline = PhaseBaseline(bids.p0_kw[:, None] * part, bids.q0_kvar[:, None] * part)
        true = central.clear(bids, PRICES, baseline=baseline, tap=None, bound=False)
        found = market.clear(bids, PRICES, baseline=baseline, tap=None, bound=False)
        assert found.status == true.status == "optimal"
        assert found.cost_usd_per_h == pytest.approx(true.cost_usd_per_h, rel=1e-3)
        assert found.dlmp_node_p_usd_per_kwh == pytest.approx(true.dlmp_node_p_usd_per_kwh, rel=0.02)
        assert found.v_pu == pytest.approx(true.v_pu, abs=1e-3)
        voltages.append(true.v_pu)
    assert np.abs(voltages[1] - voltages[0]).max() > 5e-3


def test_a_rating_that_binds_binds_the_atoms_too():
    feeder, bids = case("ieee13")
    # Dear enough that there is flexibility left for the rating.
    bids = replace(bids, beta_p_usd_per_kw2h=4.0 * bids.beta_p_usd_per_kw2h)
    market = phases(feeder)
    free = market.clear(bids, PRICES, tap=None, bound=False)
    branch, current = _trunk_current(market, free)
    i_max = market._built.branches.i_max_pu.copy()
    i_max[branch] = 0.95 * current
    central = _rated(feeder, i_max).clear(bids, PRICES, tap=None, bound=False)
    clearing = _rated(feeder, i_max, Plan("nst-pac", Options())).clear(bids, PRICES, tap=None, bound=False)
    assert clearing.status == central.status == "optimal"
    assert clearing.cost_usd_per_h > free.cost_usd_per_h * (1.0 + 1e-4)
    assert clearing.cost_usd_per_h == pytest.approx(central.cost_usd_per_h, rel=1e-3)
    assert clearing.dlmp_node_p_usd_per_kwh == pytest.approx(central.dlmp_node_p_usd_per_kwh, rel=0.02)


def _rated(feeder, i_max, plan=None):
    made = phases(feeder)
    how = {} if plan is None else {"dispatcher": plan.current_injection}
    network = replace(made._built, branches=replace(made._built.branches, i_max_pu=i_max))
    return CurrentInjection(
        feeder, network, feeder.load_buses, made._load_share, sparse.csc_matrix((len(network.node_bus), 0)),
        np.zeros(0, dtype=np.int64), SocialWeights(), **how,
    )  # fmt: skip


def _trunk_current(formulation, clearing):
    """Return the branch with the largest current and that current [p.u.]."""
    network = formulation._built
    tangent = CurrentTangent(network, sparse.csc_matrix(formulation._load_share))
    wire = np.abs(tangent.point(clearing.v, 0.1).i)
    branch = np.repeat(
        np.arange(len(network.branches.i_max_pu)), (network.branches.from_node >= 0).sum(axis=1)
    )
    most = int(np.argmax(wire))
    return int(branch[most]), float(wire[most])


def test_a_horizon_with_storage_costs_what_it_costs_centrally():
    feeder, bids = case("ieee13")
    formulation, n_period, k = phases(feeder), 4, 2
    network, share = formulation._built, formulation._load_share
    at = np.array([5, 9])
    places = sparse.csc_matrix((np.ones(k), (at, np.arange(k))), shape=(share.shape[0], k))
    one = np.ones(k)
    batteries = Batteries(
        30 * one, 30 * one, 5 * one, 80 * one, 40 * one, 40 * one, 0.95 * one, 0.95 * one, 0.005 * one
    )
    prices = [PrimaryPrices(p, 1e-5, 0.1) for p in (0.05, 0.08, 0.2, 0.25)]
    day = ThreePhaseDay(network, share, places, hours=1.0, n_period=n_period)
    central = day.clear([bids] * n_period, prices, batteries)
    base = network.s_phase_kva
    problems = [
        with_batteries(scale_problem(bids, p, SocialWeights(), base), batteries, base) for p in prices
    ]
    both = sparse.csc_matrix(sparse.hstack([share, places]))
    tangent = CurrentTangent(network, both, batteries=k)
    horizon = HorizonTangents(tangent, network, problems, scaled_storage(batteries, 1.0, n_period, base))
    search = DaySearch(day, problems, batteries).start()
    point = [tangent.point(p.v, 0.1) for p in search.points]
    x = horizon.start(point, [p.u for p in search.points], [p.head for p in search.points])
    program = horizon.at(point)
    for by_period in (False, True):
        found = solve_successive(
            horizon, point, x, per_node(program, by_period=by_period), "nst-pac", Options()
        )
        assert found.converged
        assert base * found.solution.certificate.cost == pytest.approx(central.cost_usd, rel=1e-3)
        stored = horizon.stored(found.solution.x) * base
        # Prices differ fourfold: what to store is no matter of taste, to a hundredth of the capacity.
        assert np.abs(stored - central.energy_kwh).max() < 0.8
