"""The operator's port to a market's physics: the balanced one as it is, and every phase by itself."""

import numpy as np
import pytest
from scipy import sparse

from voltier.agents.clock import MarketClock
from voltier.agents.messages import (
    Conditions,
    ImportSchedule,
    Measurement,
    PrimarySchedule,
    SmoBids,
    Taps,
)
from voltier.agents.operator import Mail
from voltier.agents.pmo import PrimaryOperator
from voltier.agents.primary_rules import PrimaryRules
from voltier.grid.errors import InputError
from voltier.grid.feeder import read_feeder
from voltier.grid.flow.threephase import solve_power_flow
from voltier.grid.network import balanced_network, retap
from voltier.grid.threephase_build import retap_three_phase, three_phase_network
from voltier.market.primary.formulation import BranchFlow
from voltier.market.primary.market import PrimaryMarket
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices
from voltier.market.primary.three_phase.formulation import PART_COLUMNS, CurrentInjection
from voltier.market.primary.three_phase.problem import SocialWeights
from voltier.market.primary.three_phase.shares import PhaseBaseline, phase_share

FEEDER = read_feeder("ieee123")
TAP = FEEDER.regulators.published_tap
MOVED = TAP + np.arange(len(TAP)) % 3 - 1
BUS = FEEDER.load_buses
N = len(BUS)
HAS_GENERATOR = np.arange(N) % 9 == 0
GEN_SMO = np.flatnonzero(HAS_GENERATOR)
LOADS = FEEDER.spot_loads
LOAD_KW = 0.6 * np.bincount(LOADS.bus, LOADS.p_kw, len(FEEDER.bus))[BUS]
PRICES = PrimaryPrices(0.05, 5.6e-5, 0.1)
PERIOD_S = 300


def shares(network):
    """Loads where the spot loads are, as many places as kilowatts; generators on all phases of their bus."""
    places = [
        (bus, "abc".index(letter))
        for bus, letters, kw in zip(LOADS.bus, LOADS.phase, LOADS.p_kw, strict=True)
        for letter in letters
        for _ in range(int(kw))
    ]
    bus, phase = np.array(places).T
    owner = np.searchsorted(BUS, bus)
    load = phase_share(network, bus, phase, owner, N)
    generator, on = np.nonzero(FEEDER.has_phase[BUS[GEN_SMO]])
    return load, phase_share(network, BUS[GEN_SMO][generator], on, generator, len(GEN_SMO))


def by_phase(v_min_pu=0.95, v_max_pu=1.10, weights=None):
    network = three_phase_network(FEEDER, TAP, loads=False, v_min_pu=v_min_pu, v_max_pu=v_max_pu)
    return CurrentInjection(FEEDER, network, BUS, *shares(network), GEN_SMO, weights or SocialWeights())


def offer(scale=1.0):
    p = scale * LOAD_KW
    return PrimaryBids(
        p0_kw=-p, p_min_kw=-1.1 * p, p_max_kw=-0.8 * p, beta_p_usd_per_kw2h=0.6 / (0.2 * LOAD_KW),
        q0_kvar=-0.3 * p, q_min_kvar=-0.32 * p, q_max_kvar=-0.28 * p, beta_q_usd_per_kvar2h=np.full(N, 1e-3),
        gen_max_kw=np.where(HAS_GENERATOR, 60.0, 0.0), alpha_usd_per_kw2h=np.full(N, 0.3 / 60.0),
    )  # fmt: skip


def clear(formulation, scale=1.0, tap=None, bound=False, baseline=None):
    return formulation.clear(offer(scale), PRICES, baseline=baseline, tap=tap, bound=bound)


def skewed(bids, seed=1):
    """Baselines by phase that the places do not tell of: some phases of a bus inject while others draw."""
    network = three_phase_network(FEEDER, TAP, loads=False)
    fed = network.bus_node[BUS] >= 0
    part = fed * np.random.default_rng(seed).uniform(-0.5, 1.5, fed.shape)
    part += fed * ((1.0 - part.sum(axis=1)) / fed.sum(axis=1))[:, None]
    return PhaseBaseline(part * bids.p0_kw[:, None], part * bids.q0_kvar[:, None])


def operator(formulation):
    rules = PrimaryRules("hierarchical", 0.1, 5.6e-5, False, "relax", PERIOD_S)
    clock = MarketClock(primary_period_s=PERIOD_S, end_s=12 * PERIOD_S)
    return PrimaryOperator(formulation, [np.arange(N)], HAS_GENERATOR, 1000, rules, clock)


def messages(k, scale=1.0, tap=None, import_kw=1000.0):
    """What the operator hears before period k."""
    bids, t_s = offer(scale), PERIOD_S * k
    baseline = skewed(bids)
    columns = {name: getattr(bids, name) for name in PrimaryBids.__slots__}
    body = SmoBids(
        t_s=t_s, smo=np.arange(N), **columns, p0_phase_kw=baseline.p0_kw, q0_phase_kvar=baseline.q0_kvar,
        resilience_score=np.ones(N), p_meter_kw=-LOAD_KW,
        q_meter_kvar=-0.3 * LOAD_KW, gen_meter_kw=np.where(HAS_GENERATOR, 11.0, 0.0),
    )  # fmt: skip
    mail = [Mail("smo.0", "pmo", body)]
    mail.append(
        Mail(
            "wholesale", "pmo", Conditions(t_s=t_s, price_usd_per_kwh=0.05, temp_air_c=20.0, pv_available=0.0)
        )
    )
    if k:
        meter = Measurement(t_s=t_s - 60, p_cc_kw=np.full(3, -import_kw / 3), q_cc_kvar=np.zeros(3))
        mail.append(Mail("grid", "pmo", meter))
    if tap is not None:
        mail.append(Mail("grid", "pmo", Taps(t_s=t_s, tap=tap)))
    return mail


def decide(pmo, k, **given):
    return pmo.decide(PERIOD_S * k + 1, messages(k, **given))


def rows_of(outbox, table):
    return [rows.columns for rows in outbox.rows if rows.table == table]


# ---------------------------------------------------------------------- branch flow


def test_behind_the_port_branch_flow_is_the_market_itself_to_the_last_bit():
    network = balanced_network(FEEDER, TAP, v_max_pu=1.10)
    port, market = BranchFlow(FEEDER, network, BUS), PrimaryMarket(network, network.node_of_bus[BUS])
    for tap, scale in ((None, 1.0), (MOVED, 0.9), (MOVED.copy(), 1.1), (TAP, 0.8)):
        at = network if tap is None else retap(network, FEEDER, tap)
        ours = clear(port, scale, tap, bound=True)
        theirs = market.clear(offer(scale), PRICES, network=at, bound=True)
        for name in type(theirs).__slots__:
            if name != "solve_s":  # wall time
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
        bus_v = at.ratio_of_bus[BUS] * theirs.v_pu[at.node_of_bus[BUS]]
        np.testing.assert_array_equal(port.v_at_operators(ours), bus_v)
        np.testing.assert_array_equal(port.generator_prices(ours), theirs.dlmp_p_usd_per_kwh)
        assert port.phase_columns(ours) is None


# ---------------------------------------------------------------------- current injection


@pytest.mark.parametrize("tap", [None, MOVED], ids=["as built", "moved"])
def test_the_dispatch_is_the_power_flow_of_its_own_injections(tap):
    port = by_phase()
    clearing = clear(port, tap=tap)
    assert clearing.status == "optimal"
    network = three_phase_network(FEEDER, TAP, loads=False)
    if tap is not None:
        network = retap_three_phase(network, FEEDER, tap)
    load, generation = shares(network)
    kva = load @ (clearing.p_kw + 1j * clearing.q_kvar) + generation @ clearing.gen_kw[GEN_SMO]
    flow = solve_power_flow(network, kva / network.s_phase_kva)
    # The market ends its power flows at 1e-10 p.u. of power; voltages per power are below ten here.
    np.testing.assert_allclose(np.abs(flow.v), clearing.v_pu, atol=1e-9)
    columns = port.phase_columns(clearing)
    bus, phase = np.nonzero(FEEDER.has_phase)
    node = network.bus_node[bus, phase]
    fed = node >= 0
    at_bus = np.abs(flow.v)[node[fed]] * network.bus_ratio[bus, phase][fed]
    np.testing.assert_allclose(columns["v_pu"][fed], at_bus, atol=1e-9)
    assert np.isnan(columns["v_pu"][~fed]).all()


def test_a_held_clearing_keeps_the_taps_it_was_made_for():
    port = by_phase()
    held = clear(port, tap=TAP)
    columns, at_operators = port.phase_columns(held), port.v_at_operators(held)
    later = clear(port, tap=MOVED)
    assert np.abs(later.bus_ratio - held.bus_ratio).max() > 1e-3
    np.testing.assert_array_equal(port.v_at_operators(held), at_operators)
    for name, column in port.phase_columns(held).items():
        np.testing.assert_array_equal(column, columns[name], err_msg=name)


def test_bundled_tariffs_are_all_payments_per_unit_of_energy():
    port = by_phase()
    clearing = clear(port, tap=MOVED)
    bundle = port.bundled(clearing)
    active = -clearing.dlmp_p_usd_per_kwh * clearing.p_kw
    # Generators stand on all phases of their bus and earn the price of those.
    active -= clearing.dlmp_gen_usd_per_kwh * clearing.gen_kw
    np.testing.assert_allclose(bundle.active_usd_per_h, active, rtol=1e-12)
    assert np.abs((clearing.dlmp_gen_usd_per_kwh - clearing.dlmp_p_usd_per_kwh) * clearing.gen_kw).max() > 0.0
    assert bundle.defined.all()
    paid = active - clearing.dlmp_q_usd_per_kvarh * clearing.q_kvar + bundle.support_usd_per_h
    tariff = paid / -(clearing.p_kw + clearing.gen_kw)
    np.testing.assert_allclose(bundle.tariff_usd_per_kwh, tariff, rtol=1e-12)
    assert np.all(bundle.support_usd_per_h >= 0.0)
    # By hand for an operator on one phase; no operator's bus is the one right behind a regulator.
    origin, (share, _) = clearing.origin, shares(clearing.origin.network)
    assert np.nanmax(np.abs(clearing.bus_ratio[BUS] - 1.0)) == 0.0
    alone = int(np.flatnonzero(np.diff(share.indptr) == 1)[0])
    node = share.indices[share.indptr[alone]]
    price = clearing.dlmp_node_p_usd_per_kwh - 1j * clearing.dlmp_node_q_usd_per_kvarh
    worth = -origin.network.s_phase_kva * (origin.network.y.conj().T @ (price * clearing.v))[node]
    v = clearing.v[node]
    hand = abs(worth.real) * abs(v.real - 1.0) + abs(worth.imag) * abs(v.imag)
    assert bundle.support_usd_per_h[alone] == pytest.approx(hand, rel=1e-9)
    # In the table every phase of an operator's bus has its tariff, and no other bus has one.
    column = port.phase_columns(clearing)["bundled_usd_per_kwh"]
    bus, _ = np.nonzero(FEEDER.has_phase)
    for k in range(N):
        here = column[bus == BUS[k]]
        np.testing.assert_allclose(here[np.isfinite(here)], tariff[k], rtol=1e-12)
        assert np.isfinite(here).any()
    assert not np.isfinite(column[~np.isin(bus, BUS)]).any()
    # At the import's price nobody's voltage is worth anything.
    flat = port.bundled(port.priced_as(clearing, None, PRICES))
    np.testing.assert_array_equal(flat.support_usd_per_h, 0.0)


def test_baselines_are_on_their_phases_and_moves_on_the_places():
    port = by_phase(v_min_pu=0.90)
    bids = offer(0.7)
    baseline = skewed(bids)
    clearing = clear(port, 0.7, baseline=baseline)
    assert clearing.status == "optimal"
    moved = clearing.p_kw - bids.p0_kw + 1j * (clearing.q_kvar - bids.q0_kvar)
    assert np.abs(moved).max() > 1.0
    network = three_phase_network(FEEDER, TAP, loads=False)
    load, generation = shares(network)
    kva = load @ moved + generation @ clearing.gen_kw[GEN_SMO]
    here, phase = np.nonzero(network.bus_node[BUS] >= 0)
    s_phase = (baseline.p0_kw + 1j * baseline.q0_kvar)[here, phase]
    np.add.at(kva, network.bus_node[BUS[here], phase], s_phase)
    flow = solve_power_flow(network, kva / network.s_phase_kva)
    # As above: flows that end at 1e-10 p.u. of power.
    np.testing.assert_allclose(np.abs(flow.v), clearing.v_pu, atol=1e-9)
    spread = clear(port, 0.7)
    assert np.abs(spread.v_pu - clearing.v_pu).max() > 1e-3, "places alone give other voltages"
    assert clearing.load_kw == pytest.approx(0.0, abs=1e-9), "only the division over phases changes"


def test_a_baseline_as_the_places_are_changes_nothing():
    port = by_phase()
    load, _ = shares(port._built)
    bids, part = offer(), np.zeros((N, 3))
    here, phase = np.nonzero(port._built.bus_node[BUS] >= 0)
    part[here, phase] = np.asarray(load[port._built.bus_node[BUS[here], phase], here]).ravel()
    same = PhaseBaseline(part * bids.p0_kw[:, None], part * bids.q0_kvar[:, None])
    with_it, without = clear(port, baseline=same), clear(port)
    # Both are within 1e-6 of optimal prices of 0.1 $/kWh; voltages move by 1e-2 p.u. from box to box.
    np.testing.assert_allclose(with_it.v_pu, without.v_pu, atol=1e-7)
    np.testing.assert_allclose(with_it.dlmp_p_usd_per_kwh, without.dlmp_p_usd_per_kwh, rtol=1e-6)


def test_the_bound_holds_for_baselines_by_phase():
    port = by_phase(v_min_pu=0.90)
    clearing = clear(port, 0.7, bound=True, baseline=skewed(offer(0.7)))
    assert clearing.status == "optimal"
    # Tightened around another market's injections, the bound would exclude the optimum: a gap of zero. Phases this
    # far apart leave a little more than the half per cent that the rounds aim at.
    assert 1e-6 < clearing.gap < 0.01


def test_baselines_that_cannot_be_are_input_errors():
    port, bids = by_phase(), offer()
    good = skewed(bids)
    dark = np.where(port._built.bus_node[BUS] < 0, -1.0, good.p0_kw)
    with pytest.raises(InputError, match=r"p0_phase_kw = '2\.a': leave out the phases that nothing"):
        clear(port, baseline=PhaseBaseline(dark, good.q0_kvar))
    with pytest.raises(InputError, match="sum up to the baseline"):
        clear(port, baseline=PhaseBaseline(1.1 * good.p0_kw, good.q0_kvar))


def test_parts_add_up_to_every_phase_price_and_shares_to_the_operators():
    port = by_phase()
    clearing = clear(port)
    columns = port.phase_columns(clearing)
    for names, price in zip(PART_COLUMNS, ("dlmp_usd_per_kwh", "dlmp_q_usd_per_kvarh"), strict=True):
        total = sum(columns[name] for name in names)
        # Adjoint solves of admittances up to 1e4 with refinement on both sides.
        np.testing.assert_allclose(total, columns[price], atol=1e-9)
        assert np.nanmax(np.abs(columns[price])) > 1e-4
    assert not np.nan_to_num(columns["energy_q_usd_per_kvarh"]).any(), (
        "reactive power is not imported at a price"
    )
    table = np.full((len(FEEDER.bus), 3), np.nan)
    table[np.nonzero(FEEDER.has_phase)] = columns["dlmp_usd_per_kwh"]
    kw = np.zeros_like(table)
    for bus, letters, p_kw in zip(LOADS.bus, LOADS.phase, LOADS.p_kw, strict=True):
        for letter in letters:
            kw[bus, "abc".index(letter)] += int(p_kw)
    mean = np.nansum(table[BUS] * kw[BUS], axis=1) / kw[BUS].sum(axis=1)
    np.testing.assert_allclose(mean, clearing.dlmp_p_usd_per_kwh, rtol=1e-12)  # the same sum in another order
    phases = FEEDER.has_phase[BUS[GEN_SMO]]
    evenly = np.nansum(np.where(phases, table[BUS[GEN_SMO]], 0.0), axis=1) / phases.sum(axis=1)
    np.testing.assert_allclose(port.generator_prices(clearing)[GEN_SMO], evenly, rtol=1e-12)


def test_a_generator_runs_to_where_its_cost_meets_the_price_of_its_own_phases():
    port = by_phase()
    clearing = clear(port)
    price = port.generator_prices(clearing)
    gen_kw = clearing.gen_kw[GEN_SMO]
    assert np.all((gen_kw > 1.0) & (gen_kw < 59.0))
    # optimality residual 1e-6 of prices of about 0.1 $/kWh, over a box of 60 kW
    np.testing.assert_allclose(0.3 / 60.0 * gen_kw, price[GEN_SMO], rtol=1e-5)
    assert not clearing.gen_kw[~HAS_GENERATOR].any()
    np.testing.assert_array_equal(price[~HAS_GENERATOR], clearing.dlmp_p_usd_per_kwh[~HAS_GENERATOR])
    assert np.abs(price - clearing.dlmp_p_usd_per_kwh).max() > 1e-4  # loads are on other phases


def test_prices_are_money_whatever_generation_weighs():
    plain, heavy = clear(by_phase()), clear(by_phase(weights=SocialWeights(3.0, 3.0, 3.0)))
    np.testing.assert_array_equal(plain.dlmp_p_usd_per_kwh, heavy.dlmp_p_usd_per_kwh)
    assert plain.cost_usd_per_h == heavy.cost_usd_per_h
    port = by_phase(weights=SocialWeights(generation=2.0, disutility=2.0, voltage_usd_per_pu2h=200.0))
    moved = clear(port)
    columns = port.phase_columns(moved)
    fed = np.isfinite(columns["v_pu"])
    assert np.abs(columns["v_pu"][fed] - 1.0).mean() < np.abs(plain.v_pu - 1.0).mean()
    marginal = 0.05 + 5.6e-5 * moved.p_import_kw
    np.testing.assert_allclose(columns["energy_usd_per_kwh"][fed], marginal, rtol=1e-9)
    assert np.abs(columns["regulation_usd_per_kwh"][fed]).max() > 1e-4


def test_the_bound_is_below_the_cost_and_near_it():
    clearing = clear(by_phase(), bound=True)
    assert clearing.status == "optimal"
    assert clearing.lower_bound_usd_per_h <= clearing.cost_usd_per_h
    assert 0.0 <= clearing.gap <= 0.005  # the gap at which rounds of tightening end
    assert clear(by_phase()).gap == np.inf


def test_generation_without_a_generator_and_loads_without_a_wire_are_refused():
    port = by_phase()
    bids = offer()
    bids.gen_max_kw[1] = 5.0
    with pytest.raises(InputError, match="operator 1"):
        port.clear(bids, PRICES, tap=None, bound=False)
    network = three_phase_network(FEEDER, TAP, loads=False)
    bus, phase = np.argwhere(network.bus_node < 0)[0]
    with pytest.raises(InputError, match="joined to the source"):
        phase_share(network, np.array([bus]), np.array([phase]), np.array([0]), 1)


def test_shares_count_the_places_of_each_owner():
    network = three_phase_network(FEEDER, TAP, loads=False)
    three = int(np.flatnonzero(FEEDER.has_phase.all(axis=1) & (network.bus_node >= 0).all(axis=1))[3])
    bus, phase, owner = np.full(5, three), np.array([0, 0, 2, 1, 0]), np.array([0, 0, 0, 1, 0])
    share = phase_share(network, bus, phase, owner, 2)
    node = network.bus_node[three]
    expected = sparse.csc_matrix(
        ([0.75, 0.25, 1.0], ([node[0], node[2], node[1]], [0, 0, 1])), shape=(len(network.node_bus), 2)
    )
    assert abs(share - expected).max() == 0.0


# ---------------------------------------------------------------------- the operator


def test_the_operator_sends_settles_and_records_by_phase():
    port = by_phase()
    pmo = operator(port)
    first = decide(pmo, 0)
    (row,), (phases,) = rows_of(first, "primary"), rows_of(first, "dlmp")
    assert {len(values) for values in phases.values()} == {int(FEEDER.has_phase.sum())}
    (sent,) = [mail.body for mail in first.mail if isinstance(mail.body, PrimarySchedule)]
    np.testing.assert_array_equal(sent.dlmp_p_usd_per_kwh, row["dlmp_usd_per_kwh"])
    assert np.all((row["p_kw"] >= row["p_min_kw"] - 1e-6) & (row["p_kw"] <= row["p_max_kw"] + 1e-6))
    (plan,) = [mail.body for mail in first.mail if isinstance(mail.body, ImportSchedule)]
    lost = -plan.p_cc_kw + row["p_kw"].sum() + row["gen_kw"].sum()
    assert 0.0 < lost < 0.05 * LOAD_KW.sum()
    price = port.generator_prices(clear(by_phase(), baseline=skewed(offer())))
    (book,) = rows_of(decide(pmo, 1), "settlement")
    paid = book["energy_usd"][N : N + len(GEN_SMO)]
    # one minute was measured; warm and cold starts end at other last digits of the same clearing
    np.testing.assert_allclose(paid, price[GEN_SMO] * 11.0 / 60.0, rtol=1e-6)
    assert abs(book["energy_usd"].sum()) < 1e-13  # rounding of some hundred transfers of a few dollars


def test_taps_move_the_voltages_of_the_phases_table():
    mean = []
    for step in (3, -3):
        outbox = decide(operator(by_phase(v_min_pu=0.8, v_max_pu=1.2)), 0, tap=np.full_like(TAP, step))
        mean.append(np.nanmean(rows_of(outbox, "dlmp")[0]["v_pu"]))
    # six steps of 0.625 % each on most of the feeder, twice over beyond the second regulator
    assert 0.02 < mean[0] - mean[1] < 0.09


def test_nobody_pays_penalties_at_any_phase():
    pmo = operator(by_phase(v_min_pu=1.0, v_max_pu=1.12))
    first = rows_of(decide(pmo, 0, scale=3.0), "dlmp")[0]
    flat = first["dlmp_usd_per_kwh"]
    assert np.nanmax(flat) == np.nanmin(flat)
    np.testing.assert_array_equal(first["energy_usd_per_kwh"], flat)
    assert np.nanmin(first["v_pu"]) < 0.99
    light = decide(pmo, 1, scale=0.3)
    sound = rows_of(light, "dlmp")[0]
    assert rows_of(light, "clearings")[0]["status"] == ["optimal"]
    heavy = decide(pmo, 2, scale=3.0)
    assert rows_of(heavy, "clearings")[0]["status"] == ["relaxed"]
    after = rows_of(heavy, "dlmp")[0]
    for name, values in after.items():
        # Voltages, and what is paid per kWh of them, are those of the dispatch.
        if name not in ("v_pu", "bundled_usd_per_kwh"):
            np.testing.assert_array_equal(values, sound[name], err_msg=name)
    assert np.nanmin(after["v_pu"]) < np.nanmin(sound["v_pu"]) - 0.01  # the dispatch is its own
