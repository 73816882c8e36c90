"""The AC-exact three-phase market: physics, prices as derivatives, limits, voltage reduction, honest failure."""

from dataclasses import fields, replace

import numpy as np
import pytest
from scipy import sparse

from voltier.grid.errors import InputError
from voltier.grid.feeder import Feeder, read_feeder
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.grid.threephase_build import retap_three_phase, three_phase_network
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.market.primary.three_phase.physics import rated_wires
from voltier.market.primary.three_phase.problem import SocialWeights, ThreePhaseClearing

NORMAL = PrimaryPrices(0.10, 0.0, 0.10)
UNWEIGHTED = SocialWeights()
FEEDER: Feeder = read_feeder("ieee13")


def network(v=(0.9, 1.1), *, loads: float = 0.0) -> ThreePhaseNetwork:
    """IEEE-13 at its published taps; loads : share of the spot loads that follow their voltage there."""
    tap = FEEDER.regulators.published_tap
    return three_phase_network(
        FEEDER, tap, loads=loads > 0.0, load_scale=max(loads, 1e-6), v_min_pu=v[0], v_max_pu=v[1]
    )


def spot_shares(feeder: Feeder) -> tuple[sparse.csc_matrix, np.ndarray]:
    """One operator per spot load, at the phase nodes its load touches; and the loads' power [kW]."""
    full = three_phase_network(feeder, feeder.regulators.published_tap)
    touched = (abs(full.loads.across) > 0).astype(float)
    share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T)
    rated = full.loads.s_power + full.loads.s_current + full.loads.s_impedance
    return share, rated.real * full.s_phase_kva


SHARE, LOAD_KW = spot_shares(FEEDER)
N_NODE, N_SMO = SHARE.shape


def make_bids(p0, *, flex=0.3, gen=0.0, q=0.4) -> PrimaryBids:
    width, n = flex * np.abs(p0), len(p0)
    q0 = -q * np.abs(p0)
    return PrimaryBids(
        p0_kw=p0, p_min_kw=p0 - width, p_max_kw=p0 + width, beta_p_usd_per_kw2h=0.3 / np.abs(p0),
        q0_kvar=q0, q_min_kvar=q0 - width, q_max_kvar=q0 + width, beta_q_usd_per_kvar2h=0.1 / np.abs(p0),
        gen_max_kw=np.where(np.arange(n) % 4 == 0, gen, 0.0), alpha_usd_per_kw2h=np.full(n, 3e-3),
    )  # fmt: skip


LOADS = make_bids(-0.7 * LOAD_KW, gen=40.0)
SOLAR = make_bids(np.where(np.arange(N_SMO) % 3 == 1, 1.5, -0.2) * LOAD_KW, flex=0.6, q=0.2)


def rated_at(value: float, name: str) -> ThreePhaseNetwork:
    """IEEE-13 with another rating of one branch, and none elsewhere."""
    base = network()
    rating = np.where(np.array(base.branches.name) == name, value, np.inf)
    return replace(base, branches=replace(base.branches, i_max_pu=rating))


# Each situation: network, bids, prices, weights, and the limit that must bind there.
SITUATIONS: dict[str, tuple[ThreePhaseNetwork, PrimaryBids, PrimaryPrices, SocialWeights, str]] = {
    "normal": (network(), LOADS, NORMAL, UNWEIGHTED, ""),
    "import slope": (network(), LOADS, PrimaryPrices(0.05, 1e-5, 0.0), UNWEIGHTED, ""),
    "low voltage": (network((1.034, 1.1)), LOADS, NORMAL, UNWEIGHTED, "v_min"),
    "high voltage": (network((0.9, 1.0625)), SOLAR, NORMAL, UNWEIGHTED, "v_max"),
    "full wire": (rated_at(1.85, "line_650r_632"), LOADS, NORMAL, UNWEIGHTED, "i_max"),
    "free energy": (network(), LOADS, PrimaryPrices(0.0, 0.0, 0.0), UNWEIGHTED, ""),
    "negative price": (network(), SOLAR, PrimaryPrices(-0.05, 0.0, 0.0), UNWEIGHTED, ""),
    "voltage-led": (network(loads=0.4), make_bids(-0.2 * LOAD_KW), NORMAL, UNWEIGHTED, ""),
    "weighted": (network(loads=0.4), make_bids(-0.2 * LOAD_KW), NORMAL, SocialWeights(0.2, 0.5, 2.0, 40.0, 0.98), ""),
}  # fmt: skip


def clear(net, bids, prices=NORMAL, weights=UNWEIGHTED, share=SHARE, **options) -> ThreePhaseClearing:
    return ThreePhaseMarket(net, share).clear(bids, prices, weights=weights, **options)


def injected_current(net: ThreePhaseNetwork, c: ThreePhaseClearing, share=SHARE) -> np.ndarray:
    """Currents that operators and loads put into every node, written apart from the market's own equations."""
    power = share @ (c.p_kw + c.gen_kw + 1j * c.q_kvar) / net.s_phase_kva
    w = net.loads.across @ c.v
    u = np.abs(w) / net.loads.v_nominal_pu
    drawn = np.conj((net.loads.s_power + net.loads.s_current * u + net.loads.s_impedance * u**2) / w)
    return np.conj(power / c.v) - net.loads.across.conj().T @ drawn


@pytest.mark.parametrize("name", SITUATIONS)
def test_clearing_is_an_ac_point_within_every_limit(name: str) -> None:
    net, bids, prices, weights, binding = SITUATIONS[name]
    c = clear(net, bids, prices, weights)
    assert c.status == "optimal"
    assert c.kkt_residual < 1e-6
    assert c.ac_residual_pu < 1e-8
    off = net.y @ c.v - injected_current(net, c)
    # Newton stops at 1e-10 p.u. of power, or where admittances of 1e4 p.u. leave no better rounding.
    assert np.abs(off[3:]).max() < 1e-8
    head = c.v[:3] * np.conj(off[:3]) * net.s_phase_kva
    np.testing.assert_allclose(c.p_phase_kw + 1j * c.q_phase_kvar, head, atol=1e-6)
    assert np.all(c.p_kw >= bids.p_min_kw - 1e-9)
    assert np.all(c.p_kw <= bids.p_max_kw + 1e-9)
    balance = c.p_import_kw + c.p_kw.sum() + c.gen_kw.sum() - c.load_kw - c.loss_kw
    assert balance == pytest.approx(0.0, abs=1e-6)
    # 1e-6 p.u. is what LIMIT_TOLERANCE_PU calls rounding.
    assert max(c.v_slack_pu, c.i_slack_pu) < 1e-6
    wire, i_max = rated_wires(net)
    room = {
        "": 0.0,
        "v_min": np.min(c.v_pu[3:] - net.v_min_pu[3:]),
        "v_max": np.min(net.v_max_pu[3:] - c.v_pu[3:]),
        "i_max": np.min(i_max - np.abs(wire @ c.v)),
    }
    assert abs(room[binding]) < 1e-6
    at_v, at_i = c.v_price_usd_per_puh, c.i_price_usd_per_puh
    assert (at_v.min() < -1.0) == (binding == "v_min")
    assert (at_i.max() > 1.0) == (binding == "i_max")


def with_probes(
    bids: PrimaryBids, node: int | None = None, p_kw: float = 0.0, q_kvar: float = 0.0
) -> PrimaryBids:
    """Add one operator per phase node that takes nothing, except at one node what is said."""
    zero = np.zeros(N_NODE)
    p, q = zero.copy(), zero.copy()
    if node is not None:
        p[node], q[node] = -p_kw, -q_kvar
    load = {"p0_kw": p, "p_min_kw": p, "p_max_kw": p, "q0_kvar": q, "q_min_kvar": q, "q_max_kvar": q}
    names = [field.name for field in fields(PrimaryBids)]
    return PrimaryBids(*(np.concatenate([getattr(bids, name), load.get(name, zero)]) for name in names))


@pytest.mark.parametrize("name", SITUATIONS)
def test_prices_are_derivatives_of_the_optimal_cost_at_every_phase_node(name: str) -> None:
    net, bids, prices, weights, binding = SITUATIONS[name]
    market = ThreePhaseMarket(net, sparse.hstack([SHARE, sparse.eye(N_NODE)]))
    base = market.clear(with_probes(bids), prices, weights=weights)
    # Where a limit binds, its price bends fast with load; half a kW keeps that below the tolerance.
    step = 0.05 if binding else 0.5
    scale = max(1.0, float(np.abs(base.dlmp_node_p_usd_per_kwh).max()) / 0.1)
    for price, kind in ((base.dlmp_node_p_usd_per_kwh, "p_kw"), (base.dlmp_node_q_usd_per_kvarh, "q_kvar")):
        for node in range(0, N_NODE, 3):
            up, down = (
                market.clear(with_probes(bids, node, **{kind: d}), prices, weights=weights).cost_usd_per_h
                for d in (step, -step)
            )
            # 1e-5 of a price of 0.1 $/kWh; costs are exact to about 1e-8 $/h.
            assert price[node] == pytest.approx((up - down) / (2.0 * step), abs=1e-6 * scale), (kind, node)


def test_multiplier_of_a_limit_is_the_worth_of_a_little_more_room() -> None:
    step = 1e-4
    for name, sign in (("low voltage", -1.0), ("high voltage", 1.0)):
        net, bids, prices, weights, _ = SITUATIONS[name]
        price = clear(net, bids, prices, weights).v_price_usd_per_puh
        node = int(np.argmax(np.abs(price)))
        limit = "v_max_pu" if sign > 0 else "v_min_pu"
        move = step * (np.arange(N_NODE) == node)
        low, high = (
            clear(
                replace(net, **{limit: getattr(net, limit) + d * move}), bids, prices, weights
            ).cost_usd_per_h
            for d in (-1.0, 1.0)
        )
        assert np.sign(price[node]) == sign
        # The multiplier itself moves by some 1e-4 of its size over the step.
        assert price[node] == pytest.approx((low - high) / (2.0 * step), rel=2e-3)
    rate = 1.85
    base = rated_at(rate, "line_650r_632")
    total = clear(base, LOADS).i_price_usd_per_puh.sum()
    low, high = (clear(rated_at(rate + d, "line_650r_632"), LOADS).cost_usd_per_h for d in (-step, step))
    assert total == pytest.approx((low - high) / (2.0 * step), rel=2e-3)


def test_operator_price_is_the_mean_over_its_phase_nodes() -> None:
    c = clear(network(), LOADS)
    np.testing.assert_allclose(c.dlmp_p_usd_per_kwh, SHARE.T @ c.dlmp_node_p_usd_per_kwh, atol=1e-12)
    assert np.ptp(c.dlmp_node_p_usd_per_kwh[:3]) < 1e-12  # the source's phases trade at one price
    assert c.dlmp_node_p_usd_per_kwh[0] == pytest.approx(0.10, abs=1e-12)


def test_prices_do_not_depend_on_the_power_base() -> None:
    net, bids, prices, weights, _ = SITUATIONS["weighted"]
    b, k = net.branches, 0.1
    y = {name: getattr(b, name) * k for name in ("y_ff", "y_ft", "y_tf", "y_tt", "i_max_pu")}
    loads = {name: getattr(net.loads, name) * k for name in ("s_power", "s_current", "s_impedance")}
    larger = replace(
        net,
        s_phase_kva=net.s_phase_kva / k,
        y=net.y * k,
        branches=replace(b, **y),
        loads=replace(net.loads, **loads),
    )
    one, ten = clear(net, bids, prices, weights), clear(larger, bids, prices, weights)
    # Both are optimal to 1e-6 of the price scale; nothing else may differ.
    np.testing.assert_allclose(one.dlmp_node_p_usd_per_kwh, ten.dlmp_node_p_usd_per_kwh, atol=1e-6)
    np.testing.assert_allclose(one.v, ten.v, atol=1e-6)
    assert one.cost_usd_per_h == pytest.approx(ten.cost_usd_per_h, rel=1e-8)


def test_conservation_voltage_reduction_lowers_consumption() -> None:
    # Loads of constant impedance, and operators free to absorb reactive power.
    net = network((0.92, 1.1), loads=0.5)
    rated = net.loads.s_power + net.loads.s_current + net.loads.s_impedance
    none = 0.0 * rated
    soft = replace(net, loads=replace(net.loads, s_power=none, s_current=none, s_impedance=rated))
    stiff = replace(net, loads=replace(net.loads, s_power=rated, s_current=none, s_impedance=none))
    free = {"q_min_kvar": -LOAD_KW, "q_max_kvar": LOAD_KW, "beta_q_usd_per_kvar2h": np.full(N_SMO, 1e-6)}
    bids = replace(make_bids(-0.1 * LOAD_KW), **free)
    hold = SocialWeights(voltage_usd_per_pu2h=2e4, v_target_pu=1.04)
    down = replace(hold, v_target_pu=0.95)
    plain, reduced, rigid = (
        clear(soft, bids),
        clear(soft, bids, weights=down),
        clear(stiff, bids, weights=down),
    )
    assert plain.status == reduced.status == rigid.status == "optimal"
    # Each load takes its rated power times the square of its own voltage.
    power = rated.real * net.s_phase_kva
    squares = [(np.abs(net.loads.across @ c.v) / net.loads.v_nominal_pu) ** 2 for c in (plain, reduced)]
    assert plain.load_kw == pytest.approx(power @ squares[0], rel=1e-12)
    assert reduced.load_kw == pytest.approx(power @ squares[1], rel=1e-12)
    assert np.mean(np.sqrt(squares[1])) < 0.997 * np.mean(np.sqrt(squares[0]))
    assert reduced.load_kw < 0.994 * plain.load_kw
    # Loads of constant power stay where they are.
    assert rigid.load_kw == pytest.approx(rated.real.sum() * net.s_phase_kva, abs=1e-6)


def test_weights_scale_their_parts_of_the_cost() -> None:
    bids = make_bids(-0.5 * LOAD_KW)
    one = clear(network(), bids, weights=SocialWeights(1.0, 1.0, 1.0))
    two = clear(network(), bids, weights=SocialWeights(2.0, 2.0, 2.0))
    assert two.cost_usd_per_h == pytest.approx(2.0 * one.cost_usd_per_h, rel=1e-7)
    np.testing.assert_allclose(two.dlmp_node_p_usd_per_kwh, 2.0 * one.dlmp_node_p_usd_per_kwh, atol=1e-6)
    frugal = clear(network(), bids, weights=SocialWeights(loss=20.0))
    assert frugal.loss_kw < one.loss_kw


def test_limits_beyond_reach_give_a_relaxed_dispatch_with_its_slack() -> None:
    c = clear(network((1.06, 1.1)), LOADS)
    assert c.status == "relaxed"
    assert c.v_slack_pu == pytest.approx(1.06 - c.v_pu[3:].min(), abs=1e-12)
    assert c.v_slack_pu > 1e-3
    assert c.ac_residual_pu < 1e-8
    assert c.lower_bound_usd_per_h == -np.inf
    tight = clear(rated_at(0.5, "line_650r_632"), LOADS)
    assert tight.status == "relaxed"
    assert tight.i_slack_pu > 0.1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"p_min_kw": LOADS.p_max_kw + 1.0}, "empty"),
        ({"q0_kvar": np.full(N_SMO, np.nan)}, "finite"),
        ({"alpha_usd_per_kw2h": np.full(N_SMO, -1.0)}, "negative"),
        ({"beta_p_usd_per_kw2h": np.full(N_SMO, np.inf)}, "finite"),
        ({field.name: getattr(LOADS, field.name)[:4] for field in fields(LOADS)}, "4 bids"),
    ],
)
def test_unusable_bids_fail_with_a_reason_and_without_numbers(change, word: str) -> None:
    market = ThreePhaseMarket(network(), SHARE)
    c = market.clear(replace(LOADS, **change), NORMAL)
    assert c.status == "failed"
    assert word in c.note
    assert np.all(np.isnan(c.p_kw))
    assert market.clear(LOADS, NORMAL).status == "optimal"  # and leaves the market usable


@pytest.mark.parametrize(
    ("prices", "word"),
    [
        (PrimaryPrices(np.inf, 0.0, 0.0), "price is not finite"),
        (PrimaryPrices(np.nan, 0.0, 0.1), "price is not finite"),
        (PrimaryPrices(0.1, np.nan, 0.1), "price is not finite"),
        (PrimaryPrices(0.1, 0.0, np.nan), "price is not finite"),
        (PrimaryPrices(0.1, 0.0, -1.0), "price of losses is negative"),
        (PrimaryPrices(0.1, -1e-5, 0.0), "curvature is negative"),
    ],
)
def test_unusable_prices_fail_with_a_reason(prices: PrimaryPrices, word: str) -> None:
    c = clear(network(), LOADS, prices)
    assert c.status == "failed"
    assert word in c.note


@pytest.mark.parametrize(
    ("weights", "word"),
    [
        (SocialWeights(disutility=-1.0), "weight is negative"),
        (SocialWeights(voltage_usd_per_pu2h=np.inf), "weight is not finite"),
        (SocialWeights(v_target_pu=np.nan), "weight is not finite"),
    ],
)
def test_unusable_weights_fail_with_a_reason(weights: SocialWeights, word: str) -> None:
    c = clear(network(), LOADS, weights=weights)
    assert c.status == "failed"
    assert word in c.note


def test_collapse_fails_with_a_reason() -> None:
    c = clear(network(), make_bids(-30.0 * LOAD_KW, flex=0.01))
    assert c.status == "failed"
    assert "collapse" in c.note


def test_shares_that_are_no_distribution_are_input_errors() -> None:
    with pytest.raises(InputError, match="operator 0") as caught:
        ThreePhaseMarket(network(), SHARE * 0.5)
    assert len(caught.value.problems) == N_SMO
    with pytest.raises(InputError, match="phase nodes"):
        ThreePhaseMarket(network(), SHARE[:-1])
    unknown = SHARE.copy()
    unknown.data = np.where(np.arange(unknown.nnz) == 0, np.nan, unknown.data)
    with pytest.raises(InputError, match="operator 0"):
        ThreePhaseMarket(network(), unknown)


def test_fixed_bids_are_served_as_they_are() -> None:
    fixed = replace(
        LOADS, p_min_kw=LOADS.p0_kw, p_max_kw=LOADS.p0_kw, q_min_kvar=LOADS.q0_kvar, q_max_kvar=LOADS.q0_kvar
    )
    c = clear(network(), fixed)
    # Only the rounding of kW → p.u. → kW.
    np.testing.assert_allclose(c.p_kw, LOADS.p0_kw, rtol=1e-14)
    # 3e-3·G is the generators' marginal cost: they run where that meets their price.
    running = (c.gen_kw > 0.1) & (c.gen_kw < fixed.gen_max_kw - 0.1)
    assert running.any()
    np.testing.assert_allclose(3e-3 * c.gen_kw[running], c.dlmp_p_usd_per_kwh[running], atol=1e-6)


def test_warm_start_and_other_taps_equal_a_fresh_market() -> None:
    net, bids, prices, weights, _ = SITUATIONS["high voltage"]
    market = ThreePhaseMarket(net, SHARE)
    market.clear(replace(bids, p0_kw=0.8 * bids.p0_kw), PrimaryPrices(0.2, 0.0, 0.1), weights=weights)
    warm, cold = market.clear(bids, prices, weights=weights), clear(net, bids, prices, weights)
    np.testing.assert_allclose(warm.dlmp_p_usd_per_kwh, cold.dlmp_p_usd_per_kwh, atol=1e-6)
    # The limit is worth 13,000 $/h per p.u. here and is kept to some 1e-9 p.u.
    assert warm.cost_usd_per_h == pytest.approx(cold.cost_usd_per_h, rel=1e-6)
    assert warm.iterations <= cold.iterations
    lower = retap_three_phase(net, FEEDER, FEEDER.regulators.published_tap - 2)
    again, fresh = market.clear(bids, prices, network=lower), clear(lower, bids, prices)
    assert again.v_pu[3:].mean() < warm.v_pu[3:].mean()
    np.testing.assert_allclose(again.v, fresh.v, atol=1e-6)
    np.testing.assert_allclose(again.dlmp_p_usd_per_kwh, fresh.dlmp_p_usd_per_kwh, atol=1e-6)


def test_lower_bound_is_asked_for_only_when_it_says_something() -> None:
    asked = []

    def bound(net, bids, prices, weights, clearing) -> float:
        asked.append(clearing.status)
        return 0.99 * clearing.cost_usd_per_h

    market = ThreePhaseMarket(network(), SHARE, lower_bound=bound)
    assert market.clear(LOADS, NORMAL).gap == pytest.approx(0.01)
    assert market.clear(LOADS, NORMAL, bound=False).gap == np.inf
    ThreePhaseMarket(network((1.06, 1.1)), SHARE, lower_bound=bound).clear(LOADS, NORMAL)
    assert asked == ["optimal"]
