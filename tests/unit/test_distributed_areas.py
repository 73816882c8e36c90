"""Areas that know only their own bids clear as one process does, whatever their channel loses, delays or repeats."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from scipy import sparse

from voltier.grid.errors import FederationError, InputError
from voltier.grid.feeder import read_feeder
from voltier.grid.network import balanced_network
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.distributed.area import AreaSolver
from voltier.market.primary.distributed.atoms import atomise, per_area
from voltier.market.primary.distributed.exchange import NOTHING, Exchange, Packet, Transport
from voltier.market.primary.distributed.families import BranchFlowFamily, CurrentFamily
from voltier.market.primary.distributed.options import Options, StoppingRule
from voltier.market.primary.distributed.part import cut
from voltier.market.primary.distributed.program import CentralSolution, solve_central
from voltier.market.primary.distributed.successive import solve_successive
from voltier.market.primary.distributed.tangent_branch_flow import BranchFlowPoint, BranchFlowTangent
from voltier.market.primary.distributed.tangent_current import CurrentTangent
from voltier.market.primary.market import PrimaryMarket
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices, scale_bids
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.market.primary.three_phase.problem import SocialWeights, scale_problem

PRICES = PrimaryPrices(0.10, 1e-5, 0.10)
# What a reader may ask of a distributed market: cost 0.1 %, set-points 1e-3 p.u., prices 2 %.
COST, SET_POINT, PRICE = 1e-3, 1e-3, 0.02
TIGHT = Options(stop=StoppingRule(primal_pu=2e-5, price_change=1e-4, look_every=20))
LOOSE = Options(stop=StoppingRule(primal_pu=1e-3, price_change=1e-2, look_every=10))
OWN = ("p0_kw", "p_min_kw", "p_max_kw", "beta_p_usd_per_kw2h", "q0_kvar", "q_min_kvar", "q_max_kvar",
       "beta_q_usd_per_kvar2h", "gen_max_kw", "alpha_usd_per_kw2h")  # fmt: skip


class Market:
    """A feeder whose spot loads bid. family(bids) : tangent programs that know these bids."""

    def __init__(self, kind, name, v_min=0.9):
        feeder = read_feeder(name)
        tap = feeder.regulators.published_tap
        if kind == "balanced":
            self.network = balanced_network(feeder, tap, v_min_pu=v_min, v_max_pu=1.1)
            rows = feeder.load_buses
            p = 0.8 * np.bincount(feeder.spot_loads.bus, feeder.spot_loads.p_kw, len(feeder.bus))[rows]
            self.node = self.network.node_of_bus[rows]
            self.tangent = BranchFlowTangent(self.network, self.node)
            self.controls = slice(self.tangent.size.control, self.tangent.size.head)
            self.balances = slice(0, self.tangent.size.n_node)
        else:
            full = three_phase_network(feeder, tap)
            self.network = three_phase_network(feeder, tap, loads=False, v_min_pu=v_min, v_max_pu=1.1)
            touched = (abs(full.loads.across) > 0).astype(float)
            self.share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T)
            s = full.loads.s_power + full.loads.s_current + full.loads.s_impedance
            p = 0.8 * s.real * full.s_phase_kva
            self.tangent = CurrentTangent(self.network, self.share)
            layout = self.tangent.layout
            self.controls, self.balances = slice(layout.control, layout.head), slice(0, layout.n_free)
        self.kind = kind
        self.bids = PrimaryBids(
            p0_kw=-p, p_min_kw=-1.1 * p, p_max_kw=-0.75 * p, beta_p_usd_per_kw2h=0.2 / p, q0_kvar=-0.4 * p,
            q_min_kvar=-0.6 * p, q_max_kvar=-0.2 * p, beta_q_usd_per_kvar2h=0.05 / p,
            gen_max_kw=np.where(np.arange(len(p)) % 8 == 0, 30.0, 0.0),
            alpha_usd_per_kw2h=np.full(len(p), 0.12 / 30.0),
        )  # fmt: skip
        self.whole = self.family(self.bids)
        self.point, self.x = self.whole.flat()

    def family(self, bids):
        if self.kind == "balanced":
            return BranchFlowFamily(
                self.tangent, self.network, scale_bids(bids, PRICES, self.network.s_base_kva)
            )
        problem = scale_problem(bids, PRICES, SocialWeights(), self.network.s_phase_kva)
        return CurrentFamily(self.tangent, self.network, problem)

    def profile(self, n):
        return per_area(self.whole.at(self.point), n)

    def own(self, profile, area, bids=None):
        """Return what one area knows: its own operators' bids, nothing of others'."""
        program, bids = self.whole.at(self.point), bids or self.bids
        place = program.column_place[self.controls][: len(bids.p0_kw)]
        mine = profile.atom_of_place[place] == area
        return self.family(replace(bids, **{name: np.where(mine, getattr(bids, name), 0.0) for name in OWN}))

    def areas(self, profile, options, *, bids=None, warm=None, **transport):
        solvers = []
        for area in range(profile.atom_of_place.max() + 1):
            family = self.own(profile, area, bids)
            solvers.append(
                AreaSolver(
                    family, *family.flat(), profile, area, options, transport=Transport(**transport),
                    warm=None if warm is None else warm[area],
                )
            )  # fmt: skip
        return solvers

    def central(self) -> CentralSolution:
        """Return the tangent program's optimum at the AC-exact central market's."""
        if self.kind == "balanced":
            market = PrimaryMarket(self.network, self.node)
            assert market.clear(self.bids, PRICES, bound=False).status == "optimal"
            last = market.dispatch._warm
            point = BranchFlowPoint(last.state, last.y[self.tangent.size.current :])
        else:
            phases = ThreePhaseMarket(self.network, self.share)
            assert phases.clear(self.bids, PRICES, bound=False).status == "optimal"
            point = self.tangent.point(phases.dispatch._warm.v, 0.1)
        return solve_central(self.whole.at(point))


@pytest.fixture(scope="module")
def markets():
    return {
        (k, n): Market(k, n)
        for k, n in (("balanced", "ieee13"), ("balanced", "ieee34"), ("phases", "ieee13"))
    }


class Channel:
    """A channel with faults; cut : area from whom nothing arrives after a slot."""

    def __init__(self, loss=0.0, delay=0, repeat=0.0, seed=0, cut=None):
        self.loss, self.delay, self.repeat, self.cut = loss, delay, repeat, cut
        self.random, self.under_way, self.seen = np.random.default_rng(seed), [], []

    def send(self, packets, now):
        for packet in packets:
            self.seen.append(packet)
            if self.cut is not None and packet.sender == self.cut[0] and now >= self.cut[1]:
                continue
            for _ in range(2 if self.random.random() < self.repeat else 1):
                if self.random.random() >= self.loss:
                    late = int(self.random.integers(self.delay + 1))
                    self.under_way.append((now + 1 + late, packet))

    def arriving(self, now):
        here = [p for when, p in self.under_way if when <= now]
        self.under_way = [w for w in self.under_way if w[0] > now]
        return [here[k] for k in self.random.permutation(len(here))]


class Cleared(NamedTuple):
    x: np.ndarray
    duals: np.ndarray
    slots: int
    solutions: list
    channel: Channel


def run(solvers, channel=None, limit=20_000):
    """Run areas to their end; return the slots it took."""
    channel = channel or Channel()
    for now in range(1, limit):
        inbox = [[] for _ in solvers]
        for packet in channel.arriving(now):
            inbox[packet.receiver].append(packet)
        for solver, packets in zip(solvers, inbox, strict=True):
            channel.send(solver.slot(packets), now)
        if all(solver.done for solver in solvers):
            return now
    raise AssertionError("the areas do not end")


def clear(solvers, channel=None):
    channel = channel or Channel()
    slots = run(solvers, channel)
    assert [s.failure for s in solvers] == [""] * len(solvers)
    solutions = [s.solution() for s in solvers]
    x, duals = np.full_like(solutions[0].x, np.nan), np.full_like(solutions[0].duals, np.nan)
    owners = np.zeros(len(x))
    for solution in solutions:
        x[solution.own_column] = solution.x[solution.own_column]
        duals[solution.own_row] = solution.duals[solution.own_row]
        owners += solution.own_column
    # Every unknown is one area's and no more.
    assert np.all(owners == 1.0)
    return Cleared(x, duals, slots, solutions, channel)


# ---------------------------------------------------------------------- the algorithm


@pytest.mark.parametrize(
    ("kind", "name", "n"),
    [("balanced", "ieee13", 4), ("balanced", "ieee34", 8), ("phases", "ieee13", 2), ("phases", "ieee13", 4)],
)
def test_areas_make_the_iterates_of_one_process(markets, kind, name, n):
    market = markets[kind, name]
    profile = market.profile(n)
    one = solve_successive(market.whole, market.point, market.x, profile, "nst-pac", LOOSE)
    cleared = clear(market.areas(profile, LOOSE))
    assert one.converged
    for solution in cleared.solutions:
        assert (solution.rounds, solution.points) == (one.rounds, one.points)
        assert solution.looks[-len(one.solution.history.rounds) :, 1:] == pytest.approx(
            _looks(one), rel=1e-6, abs=1e-12
        )
    # The same operations; only the order of elimination within an area may differ.
    assert cleared.x == pytest.approx(one.solution.x, abs=1e-9)
    assert cleared.duals == pytest.approx(one.solution.duals, abs=1e-8)


def _looks(one):
    history = one.solution.history
    return np.stack([history.consensus_pu, history.rows_pu, history.price_change], axis=1)


def test_areas_restart_together_as_one_process_does(markets):
    market = markets["balanced", "ieee13"]
    profile = market.profile(4)
    wild = replace(LOOSE, extrapolation=(0.0, 1.0, 1.0), mask=0.1, restart_growth=1.5)
    tame = replace(wild, restart_growth=1e30)
    one = solve_successive(market.whole, market.point, market.x, profile, "nst-pac", wild)
    other = solve_successive(market.whole, market.point, market.x, profile, "nst-pac", tame)
    # There has been a restart.
    assert one.rounds != other.rounds
    cleared = clear(market.areas(profile, wild))
    assert cleared.solutions[0].rounds == one.rounds
    assert cleared.x == pytest.approx(one.solution.x, abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "name", "n"),
    [
        ("balanced", "ieee13", 4),
        ("balanced", "ieee34", 4),
        ("balanced", "ieee123", 4),
        ("phases", "ieee13", 4),
        pytest.param("phases", "ieee34", 4, marks=pytest.mark.slow),
    ],
)
def test_the_areas_reach_the_central_optimum(markets, kind, name, n):
    market = markets.get((kind, name)) or Market(kind, name)
    profile = market.profile(n)
    cleared = clear(market.areas(profile, TIGHT))
    central, last = market.central(), cleared.solutions[0]
    # The areas' points agree where they meet, and what each knows of its own is all there is.
    point = _whole_point(market, cleared)
    cost = market.whole.at(point).cost(cleared.x)
    assert last.rounds > 0
    assert abs(cost - central.cost) <= COST * abs(central.cost)
    assert np.abs(cleared.x - central.x)[market.controls].max() <= SET_POINT
    price, true = cleared.duals[market.balances], central.y[market.balances]
    assert np.abs(price - true).max() <= PRICE * np.abs(true).max()


def _whole_point(market, cleared):
    """Return the point that all areas' own entries make up."""
    points = [s.point for s in cleared.solutions]
    if market.kind == "balanced":
        state, y = points[0].state.copy(), points[0].y.copy()
        m = market.tangent.size.n_branch
        for p, s in zip(points, cleared.solutions, strict=True):
            mine = np.flatnonzero(s.own_column[:m])
            state[:, 1 + mine], y[mine] = p.state[:, 1 + mine], p.y[mine]
        return BranchFlowPoint(state, y)
    layout = market.tangent.layout
    v, i = points[0].v.copy(), points[0].i.copy()
    for p, s in zip(points, cleared.solutions, strict=True):
        bus, wire = (
            s.own_column[: layout.n_free],
            s.own_column[layout.current : layout.current + layout.n_wire],
        )
        v[3:][bus], i[wire] = p.v[3:][bus], p.i[wire]
    return replace(points[0], v=v, i=i)


def test_the_optimum_does_not_depend_on_the_price_that_bends_losses(markets):
    market = markets["phases", "ieee13"]
    profile = market.profile(2)
    point = replace(market.point, price_usd_per_kwh=3.0 * market.point.price_usd_per_kwh)
    one, other = (
        solve_successive(market.whole, p, market.x, profile, "nst-pac", TIGHT) for p in (market.point, point)
    )
    assert one.converged
    assert other.converged
    assert np.abs(one.solution.x - other.solution.x)[market.controls].max() <= SET_POINT
    assert one.solution.certificate.cost == pytest.approx(other.solution.certificate.cost, rel=COST)


# ---------------------------------------------------------------------- the channel


@pytest.mark.parametrize(("kind", "n"), [("balanced", 4), ("phases", 2)])
def test_no_fault_of_the_channel_changes_a_bit(markets, kind, n):
    market = markets[kind, "ieee13"]
    profile = market.profile(n)
    clean = clear(market.areas(profile, LOOSE))
    faults = (
        Channel(loss=0.05, seed=1),
        Channel(loss=0.2, seed=2),
        Channel(delay=3, repeat=0.2, seed=3),
        Channel(loss=0.2, delay=3, repeat=0.2, seed=4),
    )
    slots = []
    for channel in faults:
        cleared = clear(market.areas(profile, LOOSE), channel)
        assert cleared.x.tobytes() == clean.x.tobytes()
        assert cleared.duals.tobytes() == clean.duals.tobytes()
        slots.append(cleared.slots)
    assert clean.slots < slots[0] < slots[1]


def test_a_clean_channel_takes_two_slots_a_round_and_no_packet_twice(markets):
    market = markets["balanced", "ieee34"]
    solvers = market.areas(market.profile(4), LOOSE)
    cleared = clear(solvers)
    first, reach = cleared.solutions[0], 3
    # Two slots a round, the way of the maxima at every point, and two to see each other end.
    assert cleared.slots <= 2 * first.rounds + first.points * reach + 2
    content = [(p.sender, p.receiver, p.half_round) for p in cleared.channel.seen if p.half_round]
    assert len(content) == len(set(content))
    assert sum(s.packets_sent for s in solvers) == len(cleared.channel.seen)
    assert sum(s.bytes_sent for s in solvers) == 8 * sum(
        len(p.values) + len(p.verdict) for p in cleared.channel.seen
    )


def test_a_silent_neighbour_is_named_by_its_neighbours_and_all_end(markets):
    market = markets["balanced", "ieee34"]
    profile = market.profile(8)
    solvers = market.areas(profile, TIGHT, patience_slots=30)
    dead = 3
    run([*solvers], Channel(cut=(dead, 40)), limit=400)
    near = solvers[dead].neighbours
    assert near
    for solver in solvers:
        if solver.area == dead:
            continue
        assert f"area {dead}" in solver.failure
        assert "round" in solver.failure
        if solver.area in near:
            assert "not heard of for 30 slots" in solver.failure or "no longer hear" in solver.failure
        assert solver.solution().warm is None
        # The patience, the way of the news, and the farewell.
        assert solver.slots < 40 + 30 + 8 + 15
    assert any("not heard of for 30 slots" in solver.failure for solver in solvers)


def test_slots_are_limited(markets):
    market = markets["balanced", "ieee13"]
    solvers = market.areas(market.profile(4), TIGHT, slot_limit=50)
    run(solvers, limit=100)
    assert all("slots" in solver.failure for solver in solvers)


def test_whoever_waits_for_a_last_word_ends_without_failure(markets):
    market = markets["balanced", "ieee13"]
    profile = market.profile(2)
    solvers = market.areas(profile, LOOSE)
    total = clear(solvers).slots
    # Nothing of area 0 arrives after it has all it needs and has told all.
    solvers = market.areas(profile, LOOSE, patience_slots=20)
    run(solvers, Channel(cut=(0, total - 1)), limit=total + 60)
    assert [s.failure for s in solvers] == ["", ""]


def test_late_packets_of_another_clearing_are_left_aside(markets):
    market = markets["balanced", "ieee13"]
    profile = market.profile(2)
    first = clear(market.areas(profile, LOOSE, clearing=1))
    channel = Channel()
    channel.under_way = [(k, p) for k, p in enumerate(first.channel.seen[:50], 1)]
    second = clear(market.areas(profile, LOOSE, clearing=2), channel)
    assert second.x.tobytes() == first.x.tobytes()
    assert second.slots == first.slots


# ---------------------------------------------------------------------- what is sent


@pytest.mark.parametrize("kind", ["balanced", "phases"])
def test_packets_hold_the_boundary_and_nothing_else(markets, kind):
    market = markets[kind, "ieee13"]
    profile, program = market.profile(4), market.whole.at(market.point)
    cleared = clear(market.areas(profile, LOOSE))
    atoms = atomise(program, profile)
    for packet in cleared.channel.seen:
        link = _link(atoms, packet.sender, packet.receiver)
        if packet.half_round == 0:
            assert len(packet.values) == len(packet.verdict) == 0
            continue
        assert len(packet.values) in (len(link.give), len(link.give_dual))
        assert len(packet.verdict) in (0, 2, 5)
    for number in range(atoms.n_atom):
        part = cut(atoms, number)
        # What is shared are flows and voltages of the branches between two areas, no operator's power and no import.
        assert part.tie_column.max() < market.controls.start
        ends = program.edge[(profile.atom_of_place[program.edge] == number).sum(axis=1) == 1]
        assert set(program.column_place[part.tie_column]) <= set(ends.ravel())
        if kind == "balanced":
            # P and Q of the branch down and v of the node above, but for the source's, which is fixed.
            assert len(part.tie_column) == 3 * len(ends) - (ends[:, 0] == 0).sum()


def test_what_is_said_at_last_is_the_value_at_the_boundary(markets):
    market = markets["balanced", "ieee13"]
    profile = market.profile(2)
    solvers = market.areas(profile, TIGHT)
    cleared = clear(solvers)
    last = max(p.half_round for p in cleared.channel.seen)
    atoms = atomise(market.whole.at(market.point), profile)
    for sender, receiver in ((0, 1), (1, 0)):
        link, part = _link(atoms, sender, receiver), cut(atoms, sender)
        said = next(
            p.values
            for p in reversed(cleared.channel.seen)
            if p.half_round in (last, last - 1) and p.sender == sender and len(p.values) == len(link.give)
        )
        # Copies and owners agree to the stopping rule, and a round moves less than that.
        assert said == pytest.approx(cleared.x[part.atoms.column[link.give]], abs=5e-5)


def _link(atoms, sender, receiver):
    return next(link for link in cut(atoms, sender).links if link.neighbour == receiver)


def test_an_area_reads_nothing_of_others_bids(markets):
    for kind in ("balanced", "phases"):
        market = markets[kind, "ieee13"]
        profile = market.profile(4)
        blind = clear(market.areas(profile, LOOSE))
        seeing = [
            AreaSolver(market.whole, market.point, market.x, profile, k, LOOSE)
            for k in range(profile.atom_of_place.max() + 1)
        ]
        assert clear(seeing).x.tobytes() == blind.x.tobytes()


# ---------------------------------------------------------------------- starts and ends


@pytest.mark.parametrize("kind", ["balanced", "phases"])
def test_a_warm_clearing_takes_fewer_rounds_and_one_that_forgot_makes_all_start_anew(markets, kind):
    market = markets[kind, "ieee13"]
    profile = market.profile(4)
    first = clear(market.areas(profile, LOOSE))
    warm = [s.warm for s in first.solutions]
    assert len({w.mark for w in warm}) == 1
    names = ("p0_kw", "p_min_kw", "p_max_kw")
    bids = replace(market.bids, **{n: 1.01 * getattr(market.bids, n) for n in names})
    cold = clear(market.areas(profile, LOOSE, bids=bids))
    again = clear(market.areas(profile, LOOSE, bids=bids, warm=warm))
    assert again.solutions[0].rounds < cold.solutions[0].rounds
    forgot = clear(market.areas(profile, LOOSE, bids=bids, warm=[None, *warm[1:]]), Channel(loss=0.1))
    assert forgot.x.tobytes() == cold.x.tobytes()
    assert forgot.solutions[0].rounds == cold.solutions[0].rounds


def test_limits_that_nobody_can_keep_are_a_failure_that_all_tell_alike():
    market = Market("phases", "ieee13", v_min=1.09)
    options = Options(stop=StoppingRule(max_rounds=120, look_every=20))
    solvers = market.areas(market.profile(4), options)
    run(solvers)
    assert len({solver.failure for solver in solvers}) == 1
    assert "areas not agreed after" in solvers[0].failure
    assert all(solver.solution().warm is None for solver in solvers)


def test_one_area_alone_clears_without_a_channel(markets):
    market = markets["balanced", "ieee13"]
    solver = AreaSolver(market.whole, market.point, market.x, market.profile(1), 0, LOOSE)
    while not solver.done:
        assert solver.slot([]) == []
    one = solve_successive(market.whole, market.point, market.x, market.profile(1), "nst-pac", LOOSE)
    assert solver.failure == ""
    assert solver.solution().x == pytest.approx(one.solution.x, abs=1e-9)


def test_a_number_that_is_none_ends_it_for_all(markets):
    market = markets["balanced", "ieee13"]
    solvers = market.areas(market.profile(4), LOOSE)
    out = [solver.slot([]) for solver in solvers]
    bad = out[0][0]
    inbox = [[] for _ in solvers]
    for packets in out:
        for p in packets:
            q = replace(p, values=p.values * np.nan) if p is bad else p
            inbox[q.receiver].append(q)
    channel = Channel()
    for solver, packets in zip(solvers, inbox, strict=True):
        channel.send(solver.slot(packets), 0)
    run(solvers, channel)
    assert all("not agreed" in solver.failure for solver in solvers)


def test_what_cannot_be_is_refused(markets):
    market = markets["balanced", "ieee13"]
    profile = market.profile(4)

    def make(area=0, options=LOOSE, **more):
        return AreaSolver(
            market.whole, market.point, market.x, more.pop("profile", profile), area, options, **more
        )

    for method in ("admm", "pac"):
        with pytest.raises(InputError, match="not built for federated transport"):
            make(method=method)
    with pytest.raises(InputError, match="anderson"):
        make(options=Options(anderson=5, mask=0.0))
    with pytest.raises(InputError, match="by_period"):
        make(profile=replace(profile, by_period=True))
    with pytest.raises(InputError, match="one of areas 0 to 3"):
        make(area=7)
    with pytest.raises(InputError, match="patience_slots"):
        make(transport=Transport(patience_slots=0))
    solver = make()
    with pytest.raises(FederationError, match="has no solution yet"):
        solver.solution()
    with pytest.raises(FederationError, match="given a packet from area 9"):
        solver.slot([Packet(9, 0, 1, 0, NOTHING, NOTHING)])
    solver.slot([])
    with pytest.raises(FederationError, match="different networks or profiles"):
        solver.slot([Packet(k, 0, 1, 0, np.zeros(99), np.zeros(2)) for k in solver.neighbours])


def test_the_last_two_packets_are_kept_and_sent_until_confirmed():
    line = Exchange(0, [1], Transport(resend_slots=2))
    line.take([])
    line.put([np.array([1.0])], NOTHING)
    assert [p.half_round for p in line.outgoing(0)] == [1]
    line.take([])
    assert [p.half_round for p in line.outgoing(0)] == [0]
    line.take([Packet(1, 0, 1, 0, np.array([5.0]), NOTHING)])
    assert line.ready
    assert line.inputs()[0].values.tolist() == [5.0]
    line.put([np.array([2.0])], NOTHING)
    # The first is overdue, the second new.
    assert [(p.half_round, p.seen) for p in line.outgoing(0)] == [(1, 1), (2, 1)]
    line.take([Packet(1, 0, 2, 2, np.array([6.0]), NOTHING)])
    assert line.settled
    assert [p.half_round for p in line.outgoing(0)] == [0]
