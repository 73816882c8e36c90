"""The primary market on random trees, bids and prices: what holds whatever the case."""

from dataclasses import fields

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from voltier.grid.network import BalancedNetwork
from voltier.market.primary.market import PrimaryMarket
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices


def random_tree(rng: np.random.Generator, n: int) -> BalancedNetwork:
    parent = np.array([-1, *(int(rng.integers(0, j)) for j in range(1, n))])
    r = np.where(np.arange(n) == 0, 0.0, rng.uniform(0.0, 0.02, n))
    rating = np.where(rng.random(n) < 0.3, rng.uniform(0.3, 3.0, n), np.inf)
    values = {
        "parent": parent, "r_pu": r, "x_pu": r * rng.uniform(0.5, 2.0),
        "ratio": np.where(rng.random(n) < 0.1, 1.02, 1.0), "b_pu": rng.uniform(0.0, 0.05, n),
        "v_min_pu": np.full(n, 0.9), "v_max_pu": np.full(n, 1.06), "i_max_pu": rating,
        "s_base_kva": 1000.0, "v_root_pu": 1.0,
    }  # fmt: skip
    # The other fields tie the tree to a feeder's buses; the market never reads them.
    return BalancedNetwork(**(dict.fromkeys(field.name for field in fields(BalancedNetwork)) | values))


def random_bids(rng: np.random.Generator, n: int, solar: float) -> PrimaryBids:
    p0 = rng.uniform(-100.0, 100.0 * solar, n)
    q0 = rng.uniform(-40.0, 10.0, n)
    up, down = rng.uniform(0.0, 50.0, (2, n)) * (rng.random(n) < 0.8)
    gen = np.where(rng.random(n) < 0.3, rng.uniform(1.0, 80.0, n), 0.0)
    return PrimaryBids(
        p0_kw=p0, p_min_kw=p0 - down, p_max_kw=p0 + up,
        beta_p_usd_per_kw2h=rng.uniform(0.0, 0.01, n), q0_kvar=q0, q_min_kvar=q0 - up, q_max_kvar=q0 + down,
        beta_q_usd_per_kvar2h=rng.uniform(1e-5, 0.01, n), gen_max_kw=gen,
        alpha_usd_per_kw2h=rng.uniform(1e-4, 0.01, n),
    )  # fmt: skip


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 25),
    solar=st.sampled_from([0.0, 1.0, 3.0]),
    price=st.sampled_from([-0.05, 0.0, 0.03, 0.10, 0.50]),
    loss_price=st.sampled_from([0.0, 0.1]),
)
def test_every_clearing_is_physical_certified_and_within_its_boxes(seed, n, solar, price, loss_price) -> None:
    rng = np.random.default_rng(seed)
    network = random_tree(rng, n)
    node = rng.integers(0, n, int(rng.integers(1, 2 * n)))
    bids = random_bids(rng, len(node), solar)
    clearing = PrimaryMarket(network, node).clear(bids, PrimaryPrices(price, 0.0, loss_price))
    assert clearing.status in ("optimal", "relaxed"), clearing.note
    assert clearing.ac_residual_pu < 1e-9
    assert clearing.kkt_residual <= 1e-4  # what the solver itself calls acceptable
    for value, low, high in (
        (clearing.p_kw, bids.p_min_kw, bids.p_max_kw),
        (clearing.q_kvar, bids.q_min_kvar, bids.q_max_kvar),
        (clearing.gen_kw, 0.0, bids.gen_max_kw),
    ):
        # Boxes hold to the rounding of kW → p.u. → kW.
        assert np.all(value >= low - 1e-9)
        assert np.all(value <= high + 1e-9)
    injected = clearing.p_kw.sum() + clearing.gen_kw.sum() + clearing.p_import_kw
    assert abs(injected - clearing.loss_kw) < 1e-6
    # The cost is never below a certified bound, but for limits kept only to 1e-6 p.u.
    traded = 0.1 * (np.abs(clearing.p_kw).sum() + clearing.gen_kw.sum() + abs(clearing.p_import_kw))
    assert clearing.cost_usd_per_h - clearing.lower_bound_usd_per_h > -1e-5 * max(traded, 1.0)
    if clearing.status == "optimal":
        assert clearing.v_slack_pu < 1e-6
        assert clearing.i_slack_pu < 1e-5
