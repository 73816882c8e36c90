"""Primary market on IEEE-123 with 85 operators: ours, the same in cvxpy, and how far the answers differ.

Run with OMP_NUM_THREADS=1. Times are medians after one warm-up.
"""

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

import cvxpy as cp
import numpy as np

from voltier.grid.feeder import read_feeder
from voltier.grid.network import BalancedNetwork, balanced_network
from voltier.market.primary.branch_flow import dispatch_branch_flow
from voltier.market.primary.market import PrimaryMarket
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices, scale_bids
from voltier.market.primary.relaxation import Relaxation

PRICES = PrimaryPrices(0.10, 0.0, 0.10)


def build_case() -> tuple[BalancedNetwork, np.ndarray, PrimaryBids]:
    """Return the feeder with every spot load flexible by 20 %, one in eight with a generator."""
    feeder = read_feeder("ieee123")
    # At the published taps 1.05 binds, and the relaxation is then not tight; with 1.08 all must agree.
    network = balanced_network(feeder, feeder.regulators.published_tap, v_max_pu=1.08)
    rows = feeder.load_buses
    p = np.bincount(feeder.spot_loads.bus, feeder.spot_loads.p_kw, len(feeder.bus))[rows]
    gen = np.where(np.arange(len(p)) % 8 == 0, 30.0, 0.0)
    bids = PrimaryBids(
        p0_kw=-p, p_min_kw=-1.1 * p, p_max_kw=-0.8 * p,
        beta_p_usd_per_kw2h=0.2 / p, q0_kvar=-0.5 * p, q_min_kvar=-0.6 * p, q_max_kvar=-0.4 * p,
        beta_q_usd_per_kvar2h=0.05 / p, gen_max_kw=gen, alpha_usd_per_kw2h=np.full(len(p), 0.12 / 30.0),
    )  # fmt: skip
    return network, network.node_of_bus[rows], bids


def dispatch_by_loops(
    network: BalancedNetwork, node: np.ndarray, bids: PrimaryBids, prices: PrimaryPrices
) -> tuple[float, np.ndarray]:
    """Clear the relaxation written the way one writes it first: scalar constraints in a Python loop."""
    n, base = len(network.parent), network.s_base_kva
    P, Q, l, v = (cp.Variable(n) for _ in range(4))  # noqa: E741
    p, q, gen = (cp.Variable(len(node)) for _ in range(3))
    children = [[k for k in range(1, n) if network.parent[k] == j] for j in range(n)]
    members = [np.flatnonzero(node == j) for j in range(n)]
    rules, balance = [v[0] == network.v_root_pu**2, l[0] == 0], []
    cost = prices.import_usd_per_kwh * P[0] + prices.loss_usd_per_kwh * sum(
        network.r_pu[j] * l[j] for j in range(n)
    )
    for j in range(n):
        injected_p = sum(p[k] + gen[k] for k in members[j]) if len(members[j]) else 0
        injected_q = sum(q[k] for k in members[j]) if len(members[j]) else 0
        onward_p = sum(P[k] for k in children[j]) if children[j] else 0
        onward_q = sum(Q[k] for k in children[j]) if children[j] else 0
        balance.append(P[j] - network.r_pu[j] * l[j] + injected_p - onward_p == 0)
        rules.append(Q[j] - network.x_pu[j] * l[j] + injected_q + network.b_pu[j] * v[j] - onward_q == 0)
        if j == 0:
            continue
        r, x, sent = network.r_pu[j], network.x_pu[j], network.ratio[j] ** 2 * v[network.parent[j]]
        rules.append(v[j] == sent - 2 * (r * P[j] + x * Q[j]) + (r**2 + x**2) * l[j])
        rules.append(cp.SOC(sent + l[j], cp.hstack([2 * P[j], 2 * Q[j], sent - l[j]])))
        rules += [v[j] >= network.v_min_pu[j] ** 2, v[j] <= network.v_max_pu[j] ** 2]
        if np.isfinite(network.i_max_pu[j]):
            rules.append(l[j] <= network.i_max_pu[j] ** 2)
    for k in range(len(node)):
        rules += [p[k] >= bids.p_min_kw[k] / base, p[k] <= bids.p_max_kw[k] / base]
        rules += [q[k] >= bids.q_min_kvar[k] / base, q[k] <= bids.q_max_kvar[k] / base]
        rules += [gen[k] >= 0, gen[k] <= bids.gen_max_kw[k] / base]
        cost += base * bids.beta_p_usd_per_kw2h[k] * cp.square(p[k] - bids.p0_kw[k] / base)
        cost += base * bids.beta_q_usd_per_kvar2h[k] * cp.square(q[k] - bids.q0_kvar[k] / base)
        cost += base * 0.5 * bids.alpha_usd_per_kw2h[k] * cp.square(gen[k])
    problem = cp.Problem(cp.Minimize(cost), balance + rules)
    problem.solve(solver="CLARABEL")
    return float(problem.value) * base, -np.array([row.dual_value for row in balance])


def median_ms(work: Callable[[], object], repeats: int) -> float:
    """Return the median wall time of repeated calls after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        began = perf_counter()
        work()
        seconds.append(perf_counter() - began)
    return 1e3 * float(np.median(seconds))


def scaled_day(bids: PrimaryBids, steps: int = 288) -> list[PrimaryBids]:
    """Return the bids of a day: a smooth profile with 2 % noise per operator, one every five minutes."""
    rng = np.random.default_rng(5)
    day = []
    for k in range(steps):
        size = (0.85 + 0.15 * np.sin(2 * np.pi * k / steps)) * rng.normal(1.0, 0.02, len(bids.p0_kw))
        names = ("p0_kw", "p_min_kw", "p_max_kw", "q0_kvar", "q_min_kvar", "q_max_kvar")
        day.append(replace(bids, **{name: getattr(bids, name) * size for name in names}))
    return day


def main() -> None:
    """Print the comparison."""
    network, node, bids = build_case()
    market, cone = PrimaryMarket(network, node), Relaxation(network, node)
    scaled = scale_bids(bids, PRICES, network.s_base_kva)
    ours = market.clear(bids, PRICES)
    loop_cost, loop_price = dispatch_by_loops(network, node, bids, PRICES)
    plain = dispatch_branch_flow(network, node, bids, PRICES)
    relaxed = cone.solve(network, scaled)
    loop_ms = median_ms(lambda: dispatch_by_loops(network, node, bids, PRICES), 3)
    day = scaled_day(bids)
    warm_s = [market.clear(each, PRICES, bound=False).solve_s for each in day]
    both_s = [market.clear(each, PRICES).solve_s for each in day]
    rows = [
        ("cvxpy, scalar loops (SOCP)", loop_ms, loop_cost, loop_price),
        ("cvxpy, vectorised (SOCP)", median_ms(lambda: dispatch_branch_flow(network, node, bids, PRICES), 10),
         plain.cost_usd_per_h, plain.dlmp_node_p_usd_per_kwh),
        ("Clarabel in place (SOCP)", median_ms(lambda: cone.solve(network, scaled), 50),
         relaxed.value * network.s_base_kva, -relaxed.y[0]),
        ("AC-exact, cold", median_ms(lambda: market.clear(bids, PRICES, bound=False, warm=False), 50),
         ours.cost_usd_per_h, ours.dlmp_node_p_usd_per_kwh),
    ]  # fmt: skip
    print(f"IEEE-123: {len(network.parent)} nodes, {len(node)} operators; gap {ours.gap:.1e}, "
          f"AC residual {ours.ac_residual_pu:.1e} p.u., KKT {ours.kkt_residual:.1e}")  # fmt: skip
    print(f"{'':30}{'ms':>9}{'ratio':>9}{'cost diff (rel)':>18}{'price diff $/kWh':>18}")
    for name, ms, cost, price in rows:
        cost_off, price_off = abs(cost / loop_cost - 1.0), np.abs(price - loop_price).max()
        print(f"{name:30}{ms:9.2f}{loop_ms / ms:9.0f}{cost_off:18.1e}{price_off:18.1e}")
    for name, seconds in (("AC-exact, warm, day of 288", warm_s), ("  with the bound (repeated)", both_s)):
        ms = 1e3 * float(np.median(seconds))
        print(f"{name:30}{ms:9.2f}{loop_ms / ms:9.0f}   (sum {sum(seconds):.2f} s)")


if __name__ == "__main__":
    main()
