"""Prices taken apart at the AC-exact point: parts add up, and each is the derivative of its own term."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from voltier.grid.feeder import read_feeder
from voltier.grid.flow.nodal import injection_needed, load_power, losses_pu
from voltier.grid.flow.threephase import ThreePhaseFlow
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices
from voltier.market.primary.three_phase.bundled import bundled_tariff, support_payment, support_worth
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.market.primary.three_phase.physics import rated_wires
from voltier.market.primary.three_phase.price_parts import (
    PART_NAMES,
    loss_gradient,
    parts_by_operator,
    price_parts,
)
from voltier.market.primary.three_phase.problem import SocialWeights, ThreePhaseClearing

SLOPED = PrimaryPrices(0.10, 5e-6, 0.05)
# Share of the spot loads that follow their voltage; operators bid the rest.
SOFT = 0.4
WEIGHTED = SocialWeights(0.2, 0.5, 2.0, 40.0, 0.98)


def case(name: str) -> tuple[ThreePhaseNetwork, sparse.csc_matrix, np.ndarray]:
    """Network at its published taps, one operator per spot load, and the loads' power [kW]."""
    feeder = read_feeder(name)
    net = three_phase_network(
        feeder, feeder.regulators.published_tap, loads=True, load_scale=SOFT, v_min_pu=0.8, v_max_pu=1.2
    )
    rated = net.loads.s_power + net.loads.s_current + net.loads.s_impedance
    touched = (abs(net.loads.across) > 0).astype(float)
    share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T)
    keep = rated.real > 0.0
    return net, share[:, keep], rated.real[keep] * net.s_phase_kva / SOFT


CASES = {name: case(name) for name in ("ieee13", "ieee34", "ieee123")}


def make_bids(p0: np.ndarray) -> PrimaryBids:
    width, n = 0.3 * np.abs(p0), len(p0)
    q0 = -0.3 * np.abs(p0)
    return PrimaryBids(
        p0_kw=p0, p_min_kw=p0 - width, p_max_kw=p0 + width, beta_p_usd_per_kw2h=0.3 / np.abs(p0),
        q0_kvar=q0, q_min_kvar=q0 - width, q_max_kvar=q0 + width, beta_q_usd_per_kvar2h=0.1 / np.abs(p0),
        gen_max_kw=np.where(np.arange(n) % 4 == 0, 20.0, 0.0), alpha_usd_per_kw2h=np.full(n, 3e-3),
    )  # fmt: skip


def clear(
    name: str, binding: str, weights: SocialWeights
) -> tuple[ThreePhaseNetwork, sparse.csc_matrix, ThreePhaseClearing]:
    """Clear with nothing binding, or with a limit a little inside what the free market would do."""
    net, share, load_kw = CASES[name]
    bids = make_bids(-0.6 * load_kw)
    free = ThreePhaseMarket(net, share).clear(bids, SLOPED, weights=weights)
    if binding == "voltage":
        low = free.v_pu[3:].min() + 0.003
        net = replace(net, v_min_pu=np.full_like(net.v_min_pu, low))
    elif binding == "wire":
        every = replace(net.branches, i_max_pu=np.full(len(net.branches.name), 1e3))
        wire, _ = rated_wires(replace(net, branches=every))
        current = np.abs(wire @ free.v).max()
        rating = np.full(len(net.branches.name), 0.99 * current)
        net = replace(net, branches=replace(net.branches, i_max_pu=rating))
    elif binding:
        raise ValueError(binding)
    else:
        return net, share, free
    return net, share, ThreePhaseMarket(net, share).clear(bids, SLOPED, weights=weights)


SITUATIONS = [
    (name, binding, weights)
    for name in CASES
    for binding, weights in (("", SocialWeights()), ("voltage", WEIGHTED), ("wire", SocialWeights()))
]


def nodal_prices(c: ThreePhaseClearing) -> np.ndarray:
    return np.stack([c.dlmp_node_p_usd_per_kwh, c.dlmp_node_q_usd_per_kvarh])


@pytest.mark.parametrize(("name", "binding", "weights"), SITUATIONS)
def test_parts_add_up_to_the_price_at_every_node_and_phase(name, binding, weights) -> None:
    net, share, c = clear(name, binding, weights)
    assert c.status == "optimal"
    parts = price_parts(net, c, SLOPED)
    # Both sides are solves at one point, with different factors and a different form of the same balance.
    np.testing.assert_allclose(parts.total, nodal_prices(c), atol=1e-9)
    size = dict(zip(PART_NAMES, np.abs(parts.stack).max(axis=(1, 2)), strict=True))
    assert size["loss"] > 1e-3
    assert size["load_response"] > 1e-5
    # A multiplier that does not bind is no larger than the market's optimality residual.
    assert (size["voltage"] > 1e-4) == (binding == "voltage")
    assert (size["congestion"] > 1e-4) == (binding == "wire")
    assert (size["regulation"] > 1e-5) == (weights is WEIGHTED)
    marginal = weights.generation * (0.10 + 5e-6 * c.p_import_kw)
    np.testing.assert_allclose(parts.energy, np.outer([marginal, 0.0], np.ones(len(c.v))), atol=1e-15)
    by_operator = parts_by_operator(parts, share)
    assert by_operator.shape == (len(PART_NAMES), share.shape[1])
    np.testing.assert_allclose(by_operator.sum(axis=0), c.dlmp_p_usd_per_kwh, atol=1e-9)
    reactive = parts_by_operator(parts, share, reactive=True).sum(axis=0)
    np.testing.assert_allclose(reactive, c.dlmp_q_usd_per_kvarh, atol=1e-9)


def terms(net: ThreePhaseNetwork, c: ThreePhaseClearing, v: np.ndarray) -> np.ndarray:
    """What each part but energy is the derivative of, priced per phase base."""
    weights, base = c.weights, net.s_phase_kva
    energy = weights.generation * (
        SLOPED.import_usd_per_kwh + SLOPED.import_slope_usd_per_kw2h * c.p_import_kw
    )
    wire, _ = rated_wires(net)
    return np.array(
        [
            (energy + weights.loss * SLOPED.loss_usd_per_kwh) * losses_pu(net, v),
            energy * load_power(net, v).real.sum(),
            c.v_price_usd_per_puh @ np.abs(v) / base,
            c.i_price_usd_per_puh @ np.abs(wire @ v) / base,
            weights.voltage_usd_per_pu2h * (np.abs(v[3:] - weights.v_target_pu) ** 2).sum() / base,
        ]
    )


@pytest.mark.parametrize(("name", "binding", "weights"), SITUATIONS)
def test_each_part_is_the_derivative_of_its_own_term(name, binding, weights) -> None:
    net, share, c = clear(name, binding, weights)
    parts = price_parts(net, c, SLOPED)
    injected = share @ (c.p_kw + c.gen_kw + 1j * c.q_kvar) / net.s_phase_kva
    flow, step = ThreePhaseFlow(net), 1e-3
    for node in range(0, len(c.v), max(1, len(c.v) // 12)):
        for kind, unit in enumerate((1.0, 1j)):
            at, head = [], []
            for sign in (1.0, -1.0):
                s = injected.copy()
                s[node] -= sign * step * unit
                v = flow.solve(s, c.v, tol=1e-13).v
                at.append(terms(net, c, v))
                head.append((injection_needed(net, v) - s)[:3].real)
            slope, phase = ((x[0] - x[1]) / (2.0 * step) for x in (at, head))
            # Third derivatives times step² and the power flow's 1e-12 over the step, of prices below 1 $/kWh.
            np.testing.assert_allclose(parts.stack[1:, kind, node], slope, atol=1e-6, err_msg=f"node {node}")
            np.testing.assert_allclose(parts.import_phase[:, kind, node], phase, atol=2e-6)


def test_import_of_the_phases_is_load_and_losses_and_response() -> None:
    net, _, c = clear("ieee34", "", SocialWeights())
    parts = price_parts(net, c, SLOPED)
    marginal = 0.10 + 5e-6 * c.p_import_kw
    added = parts.loss / (marginal + 0.05) + parts.load_response / marginal
    added[0] += 1.0
    np.testing.assert_allclose(parts.import_phase.sum(axis=0), added, atol=1e-9)
    # A load draws on its own phase first.
    own = parts.import_phase[net.node_phase, 0, np.arange(len(c.v))]
    assert np.all(own > 0.5)


def test_penalties_of_a_relaxed_clearing_are_parts_too() -> None:
    net, share, load_kw = CASES["ieee13"]
    net = replace(net, v_min_pu=np.full_like(net.v_min_pu, 1.08))
    c = ThreePhaseMarket(net, share).clear(make_bids(-0.6 * load_kw), SLOPED)
    assert c.status == "relaxed"
    parts = price_parts(net, c, SLOPED)
    # Penalties are 1e4 times a price of energy.
    assert np.abs(parts.voltage).max() > 10.0
    np.testing.assert_allclose(parts.total, nodal_prices(c), atol=1e-9)


def test_a_failed_clearing_has_no_parts() -> None:
    net, share, load_kw = CASES["ieee13"]
    bids = replace(make_bids(-load_kw), q0_kvar=np.full(len(load_kw), np.nan))
    parts = price_parts(net, ThreePhaseMarket(net, share).clear(bids, SLOPED), SLOPED)
    assert np.all(np.isnan(parts.stack))
    assert np.all(np.isnan(parts.import_phase))


def test_bundled_tariff_is_never_divided_by_next_to_nothing() -> None:
    _, share, c = clear("ieee13", "", SocialWeights())
    p, gen = c.p_kw.copy(), np.zeros_like(c.p_kw)
    p[:3] = (0.0, 0.1, -0.05)  # at most 0.1 kW: no tariff
    p[3], gen[3] = -60.0, 60.0  # generation counts
    p[4] = 50.0  # an operator that injects
    c = replace(c, p_kw=p, gen_kw=gen)
    worth = np.linspace(-5.0, 5.0, len(c.v)) + 2.0j
    support = support_payment(c.v, worth, share)
    assert np.all(support >= 0.0)
    # By hand, for an operator on a single phase node.
    alone = int(np.flatnonzero(np.diff(share.indptr) == 1)[0])
    node = share.indices[share.indptr[alone]]
    hand = abs(worth[node].real) * abs(c.v[node].real - 1.0) + 2.0 * abs(c.v[node].imag)
    assert support[alone] == pytest.approx(hand, rel=1e-12)
    bundle = bundled_tariff(c, support)
    assert bundle.defined.tolist() == [False] * 4 + [True] * (len(p) - 4)
    assert np.all(np.isnan(bundle.tariff_usd_per_kwh[:4]))
    paid = bundle.active_usd_per_h + bundle.reactive_usd_per_h + bundle.support_usd_per_h
    assert np.all(np.isfinite(paid))
    np.testing.assert_allclose(bundle.tariff_usd_per_kwh[4:] * -p[4:], paid[4:], rtol=1e-12)
    assert bundle.active_usd_per_h[4] < 0.0 < bundle.tariff_usd_per_kwh[4]
    np.testing.assert_allclose(bundle.reactive_usd_per_h, c.dlmp_q_usd_per_kvarh * -c.q_kvar, rtol=1e-12)
    own = bundled_tariff(c, support, dlmp_gen_usd_per_kwh=np.full_like(p, 0.5))
    # Generation has a price of its own.
    at_own_price = (0.5 - c.dlmp_p_usd_per_kwh) * gen
    np.testing.assert_allclose(
        own.active_usd_per_h, bundle.active_usd_per_h - at_own_price, rtol=1e-12, atol=1e-12
    )
    twice = support_payment(c.v, worth, share, np.full(share.nnz, 2.0))
    hand = abs(worth[node].real / 2.0) * abs(2.0 * c.v[node].real - 1.0) + abs(2.0 * c.v[node].imag)
    assert twice[alone] == pytest.approx(hand, rel=1e-12)


@pytest.mark.parametrize("binding", ["", "v_min"])
def test_worth_of_voltage_is_support_less_that_of_power_and_limits(binding: str) -> None:
    net, share, load_kw = CASES["ieee13"]
    weights = SocialWeights(0.2, 1.0, 2.0, 40.0, 0.98)
    # Operators alone: loads across two phases would give voltages a worth of their own.
    none = 0.0 * net.loads.s_power
    net = replace(net, loads=replace(net.loads, s_power=none, s_current=none, s_impedance=none))
    bids = make_bids(-0.6 * load_kw)
    c = ThreePhaseMarket(net, share).clear(bids, SLOPED, weights=weights)
    if binding:
        net = replace(net, v_min_pu=np.full(len(net.v_min_pu), c.v_pu[3:].min() + 0.003))
        c = ThreePhaseMarket(net, share).clear(bids, SLOPED, weights=weights)
    assert c.status == "optimal"
    base, v = net.s_phase_kva, c.v
    assert (np.abs(c.v_price_usd_per_puh).max() > 1.0) == bool(binding)
    slope = base * weights.loss * SLOPED.loss_usd_per_kwh * loss_gradient(net, v)
    slope += 2.0 * weights.voltage_usd_per_pu2h * (v - weights.v_target_pu)
    price = c.dlmp_node_p_usd_per_kwh + 1j * c.dlmp_node_q_usd_per_kvarh
    power = base * price * (net.y @ v)
    limits = c.v_price_usd_per_puh * v / np.abs(v)
    support = support_worth(net, c)
    off = slope - (support - power - limits)
    # Prices solve the adjoint equations to rounding: 1e-15 of admittances of 1e4 p.u. at 0.1 $/kWh and 1,000 kVA.
    assert np.abs(off[3:]).max() < 1e-6
    assert np.abs(support[3:]).max() > 1.0
