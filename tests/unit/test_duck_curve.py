"""The duck-curve study: its readings, its ramps as a program of atoms, its batteries, and its power flows."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from voltier.grid.errors import InputError
from voltier.market.primary.distributed.atoms import atomise, per_node
from voltier.market.primary.distributed.options import Options, StoppingRule
from voltier.market.primary.distributed.program import ConvexProgram, solve_central
from voltier.market.primary.distributed.ramp import RampPrice, total_ramp, with_ramp
from voltier.market.primary.distributed.solve import solve_distributed
from voltier.scenarios.studies.duck_curve import for_themselves, study_duck_curve, without_control
from voltier.scenarios.studies.duck_curve_balance import local_agents, schedule
from voltier.scenarios.studies.duck_curve_case import (
    CAPACITY_KWH,
    EFFICIENCY,
    HOURS,
    NODES,
    START_KWH,
    Reading,
    batteries,
    build_case,
)  # fmt: skip
from voltier.scenarios.studies.duck_curve_flow import day_flow
from voltier.scenarios.studies.duck_curve_network import plan_day, until_agreed
from voltier.scenarios.studies.duck_curve_results import evening_hour, ramp_figures

# What linear programs of HiGHS leave of an equation or a limit.
LP_KW = 1e-5


@pytest.fixture(scope="module")
def case():
    return build_case(Reading())


@pytest.fixture(scope="module")
def planned(case):
    """The day with all its network, once: it takes seconds."""
    return plan_day(case, batteries("mid"), without_control(case).flow.tap)


def test_ramp_counts_both_ways_and_midnight_only_if_the_day_repeats():
    p = np.array([1.0, 4.0, 2.0, 2.0])
    assert total_ramp(p, cyclic=False) == 5.0
    assert total_ramp(p, cyclic=True) == 6.0


def holding(demand, store):
    """A head that must feed a demand in each period and can shift up to store from period to period."""
    n = len(demand)
    # Columns: head of each period, what is held back at the end of each.
    held = sparse.eye(n) - sparse.eye(n, k=-1)
    matrix = sparse.csr_matrix(sparse.hstack([sparse.eye(n), -held]))
    place = np.repeat([0, 1], n)
    return ConvexProgram(
        curvature=np.zeros(2 * n), linear=np.zeros(2 * n), matrix=matrix, rhs=np.array(demand),
        low=np.append(np.full(n, -np.inf), np.zeros(n)), high=np.append(np.full(n, np.inf), np.full(n, store)),
        column_place=place, row_place=np.zeros(n, dtype=int), column_period=np.tile(np.arange(n), 2),
        row_period=np.arange(n), edge=np.array([[0, 1]]), stiffness=np.ones(2 * n), price_row=np.arange(n),
    )  # fmt: skip


@pytest.mark.parametrize("cyclic", [False, True])
def test_price_of_ramps_is_paid_for_what_a_store_cannot_take(cyclic):
    demand = [1.0, 1.0, 3.0, 1.0]
    program = with_ramp(holding(demand, 1.0), np.arange(4), RampPrice(0.5, cyclic))
    found = solve_central(program)
    head = found.x[:4]
    # The two ahead of the peak carry half each of the one that fits: 1.5, 1.5, 2, 1, and the end may not fall below.
    assert found.cost == pytest.approx(0.5 * total_ramp(head, cyclic=cyclic), abs=1e-6)
    least = min(
        total_ramp(np.array(demand) + np.diff(np.append(0.0, held)), cyclic=cyclic)
        for held in np.array(np.meshgrid(*[np.linspace(0, 1, 9)] * 4)).reshape(4, -1).T
    )
    # A ninth of the store is the grid's step; the optimum lies on it here.
    assert found.cost == pytest.approx(0.5 * least, abs=1e-6)


def test_ramps_cost_atoms_what_they_cost_centrally_and_nobody_else_sees_them():
    plain = holding([1.0, 1.0, 3.0, 1.0], 1.0)
    program = with_ramp(replace(plain, curvature=np.full(8, 0.01)), np.arange(4), RampPrice(0.5, True))
    profile = per_node(program)
    assert atomise(program, profile).n_copy == atomise(plain, profile).n_copy
    central = solve_central(program)
    rule = StoppingRule(primal_pu=1e-6, price_change=1e-6)
    found = solve_distributed(program, profile, "nst-pac", Options(stop=rule), central_cost=central.cost)
    assert found.certificate.converged
    assert abs(found.certificate.gap) < 1e-4  # a hundred times the residuals that the rule leaves


@pytest.mark.parametrize(("price", "periods"), [(0.0, 4), (np.nan, 4), (0.1, 1)])
def test_ramps_without_price_or_steps_are_refused(price, periods):
    with pytest.raises(InputError, match="ramp"):
        with_ramp(holding([1.0] * periods, 1.0), np.arange(periods), RampPrice(price, True))


def test_the_feeder_is_read_as_the_paper_counts_it(case):
    assert len(case.agent) == 26
    assert len(set(NODES)) == 33
    names = [{case.feeder.bus[b] for b in agent} for agent in case.agent[:3]]
    assert names == [{"806", "808", "810", "812"}, {"852", "832", "888"}, {"844", "846"}]
    kind = dict(zip((case.feeder.bus[b] for b in case.bus), case.kind, strict=True))
    assert (kind["844"], kind["888"]) == ("hospital", "primary_school")
    assert all(kind[bus] == "home" for bus in ("806", "808", "810", "832"))
    assert sum(k != "home" for k in case.kind) == 7


def test_loads_have_the_published_average_and_the_stated_power_factor(case):
    # Spot and distributed loads of the published tables: 1,047 + 722 kW.
    assert case.load_kw.mean(axis=0).sum() == pytest.approx(1769.0)
    apparent = np.hypot(case.load_kw, case.load_kvar)
    np.testing.assert_allclose(case.load_kw / apparent, 0.95)
    np.testing.assert_allclose(case.phase_share.sum(axis=1), 1.0)


def test_suns_stay_below_their_nameplate_and_shine_by_day_only(case):
    nameplate = 0.38 * case.load_kw.mean(axis=0)
    assert (case.pv_kw <= nameplate + 1e-9).all()
    assert case.pv_kw[:5].max() == 0.0
    assert case.pv_kw[12].sum() > 0.5 * nameplate.sum()


def test_only_homes_shed_each_with_its_own_shift_and_the_same_seed_again(case):
    homes = np.array([kind == "home" for kind in case.kind])
    assert case.shed_max_kw[:, ~homes].max() == 0.0
    share = case.shed_max_kw[:, homes] / case.load_kw[:, homes]
    assert np.unique(share[15].round(12)).size > 10
    np.testing.assert_array_equal(build_case(Reading()).shed_max_kw, case.shed_max_kw)
    assert not np.array_equal(build_case(Reading(seed=2)).shed_max_kw, case.shed_max_kw)


def test_by_size_makes_more_businesses_than_matching():
    case = build_case(Reading(split="by_size"))
    average = case.load_kw.mean(axis=0)
    business = np.array([kind != "home" for kind in case.kind])
    assert average[business].min() > 30.0
    assert average[~business].max() <= 30.0


@pytest.mark.parametrize("day", ["02-29", "13-01", "soon"])
def test_a_date_that_is_none_is_refused(day):
    with pytest.raises(InputError, match="--day"):
        build_case(Reading(month_day=day))


def stored(start, charge, discharge):
    """Energy at the ends of hours by the corrected balance."""
    return start + np.cumsum(EFFICIENCY * charge - discharge / EFFICIENCY, axis=0)


@pytest.mark.parametrize("start", ["min", "mid", "full"])
@pytest.mark.parametrize("goal", ["peak", "ramp"])
def test_schedules_keep_the_batteries_energy_and_the_end_of_the_day(case, start, goal):
    devices = batteries(start)
    found = schedule(case.net_kw, case.shed_max_kw, devices, goal, "least_use")
    energy = stored(START_KWH[start], found.charge_kw, found.discharge_kw)
    np.testing.assert_allclose(found.energy_kwh, energy, atol=HOURS * LP_KW)
    assert (energy >= START_KWH["min"] - HOURS * LP_KW).all()
    assert (energy <= CAPACITY_KWH + HOURS * LP_KW).all()
    assert (energy[-1] >= START_KWH["mid"] - HOURS * LP_KW).all()
    assert np.minimum(found.charge_kw, found.discharge_kw).max() <= 1e-3
    assert (found.shed_kw <= case.shed_max_kw + LP_KW).all()


def test_an_agent_alone_gets_the_peak_that_its_own_load_allows():
    """One hour of 10 above 4: a battery of 3 kW takes 3 off, and charges 3/0.95² before; shedding takes one more."""
    net = np.full(4, 4.0)
    net[2] = 10.0
    shed = np.zeros((4, 1))
    shed[2] = 1.0
    one = np.ones(1)
    devices = replace(
        batteries("mid"), charge_max_kw=3 * one, discharge_max_kw=3 * one, energy_min_kwh=0 * one,
        energy_max_kwh=10 * one, energy_start_kwh=2 * one, energy_end_kwh=2 * one, charge_efficiency=0.95 * one,
        discharge_efficiency=0.95 * one, wear_usd_per_kwh=0 * one,
    )  # fmt: skip
    found = schedule(net, shed, devices, "peak", "least_use")
    after = net - found.shed_kw[:, 0] + (found.charge_kw - found.discharge_kw)[:, 0]
    assert after.max() == pytest.approx(6.0, abs=1e-4)
    assert found.charge_kw.sum() == pytest.approx(3.0 / 0.95**2, abs=1e-4)


def test_local_agents_know_nothing_but_their_own(case):
    found = local_agents(case, batteries("mid"), "least_use")
    net = case.load_kw - case.pv_kw
    for buses in case.agent:
        mine, own = np.isin(case.bus, buses), np.isin(case.battery_bus, buses)
        if not mine.any():
            continue
        before = net[:, mine].sum(axis=1)
        after = before - found.shed_kw[:, mine].sum(axis=1)
        after = after + (found.charge_kw - found.discharge_kw)[:, own].sum(axis=1)
        assert after.max() <= before.max() + LP_KW


def test_ramp_figures_are_of_the_hour_in_which_the_day_without_control_rises_most():
    a = np.concatenate([np.full(16, 100.0), np.full(8, 160.0)])
    b = np.concatenate([np.full(16, 110.0), np.full(8, 140.0)])
    assert evening_hour(a) == 15
    figures = ramp_figures(a, b)
    assert figures["ramping.evening_peak_kw"] == 30.0
    assert figures["ramping.evening_reduction_percent"] == pytest.approx(50.0)
    assert figures["ramping.total_kw"] == 60.0
    assert figures["ramping.reduction_percent"] == pytest.approx(50.0)


def test_network_control_keeps_limits_balances_and_agrees_with_opendss(case, planned):
    found = planned.dispatch
    energy = stored(START_KWH["mid"], found.charge_kw, found.discharge_kw)
    # Interior-point tolerance times hours and base.
    np.testing.assert_allclose(found.energy_kwh, energy, atol=1e-3)
    assert (energy[-1] >= START_KWH["mid"] - 1e-3).all()
    flow = day_flow(case, found.p_kw, found.q_kvar, found.discharge_kw - found.charge_kw, planned.tap)
    # Linearising leaves 1e-5 p.u. of 333 kW at a node; OpenDSS has 1e-4 % of reactance in its regulators.
    np.testing.assert_allclose(flow.head_kw, found.head_kw, atol=0.05)
    assert np.nanmin(flow.v_pu) >= 0.95 - 1e-4
    assert np.nanmax(flow.v_pu) <= 1.05 + 1e-4


def test_network_control_is_no_better_than_a_feeder_without_wires_nor_much_worse(case, planned):
    best = schedule(case.net_kw, case.shed_max_kw, batteries("mid"), "ramp", "least_use")
    bound = case.net_kw - best.shed_kw.sum(axis=1) + (best.charge_kw - best.discharge_kw).sum(axis=1)
    found = planned.dispatch
    own = -(found.p_kw.sum(axis=1) + (found.discharge_kw - found.charge_kw).sum(axis=1))
    least, total = total_ramp(bound, cyclic=True), total_ramp(own, cyclic=True)
    assert total >= least - 1.0
    # Losses are ramps too, and devices have their small cost: a quarter of the bound covers both.
    assert total <= 1.25 * least
    assert total < 0.5 * total_ramp(case.net_kw, cyclic=True)


@pytest.mark.slow
def test_atoms_reach_the_central_optimum(planned):
    atoms = planned.control.by_atoms(until_agreed(3000))
    assert atoms.last.converged
    cost = planned.optimum.solution.cost
    # The study's own targets: cost to 0.1 %, set-points to a thousandth of 1 MVA, prices to 2 %.
    assert atoms.last.solution.certificate.cost == pytest.approx(cost, rel=1e-3)
    solution = atoms.last.solution
    found = planned.control.dispatch(atoms.last.point, solution.x, solution.duals)
    np.testing.assert_allclose(found.p_kw, planned.dispatch.p_kw, atol=1.0)
    best = planned.dispatch.price
    assert np.abs(found.price - best).max() < 0.02 * np.abs(best).max()


def test_every_kwh_of_agents_for_themselves_is_found_again_in_opendss(case):
    found = for_themselves(case, "mid", "least_use")
    # What is drawn at the head is what is consumed plus what wires and transformers lose.
    np.testing.assert_allclose(found.flow.head_kw, found.net_kw + found.flow.loss_kw, atol=1e-2)


def test_options_that_cannot_be_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="--start"):
        study_duck_curve(tmp_path / "x", starts=("half",))
    with pytest.raises(InputError, match="--max-rounds"):
        study_duck_curve(tmp_path / "x", max_rounds=1)
    assert not (tmp_path / "x").exists()
