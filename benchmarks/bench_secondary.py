"""Time the secondary markets, their prices and the consumer markets against a loop of cvxpy problems.

Run: .venv/bin/python benchmarks/bench_secondary.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np

from voltier.market.consumer import play_game
from voltier.market.pricing import TariffRules, price_secondary
from voltier.market.secondary import SecondaryBids, clear_secondary, sum_by_market
from voltier.market.secondary_reference import clear_secondary_reference

MARKETS = 85


def markets(seed: int = 1) -> tuple[SecondaryBids, np.ndarray, np.ndarray]:
    """Draw 85 markets of 3 to 7 agents with requests of up to 80 % of their flexibility."""
    rng = np.random.default_rng(seed)
    offset = np.concatenate([[0], np.cumsum(rng.integers(3, 8, MARKETS))])
    n = int(offset[-1])
    boxes, targets = [], []
    for size in (1.0, 0.4):
        wish = size * rng.uniform(-15, 5, n)
        low, high = wish - size * rng.uniform(0, 4, n), wish + size * rng.uniform(0, 4, n)
        share = rng.uniform(-0.8, 0.8, MARKETS)
        side = np.where(share > 0, sum_by_market(offset, high - wish), sum_by_market(offset, wish - low))
        boxes += [wish, low, high]
        targets.append(sum_by_market(offset, wish) + share * side)
    beta = rng.uniform(0.005, 0.1, n), rng.uniform(0.001, 0.02, n)
    return SecondaryBids(offset, *boxes, *beta, rng.uniform(0.3, 1, n)), targets[0], targets[1]


def median_ms(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the median time of a call [ms] and its last result; one call warms up."""
    if repeats > 1:
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times)), result


def naive_prices(
    bids: SecondaryBids, p: np.ndarray, due: np.ndarray, lam: np.ndarray, cap: float
) -> np.ndarray:
    """Price each market by one cvxpy problem."""
    price = np.empty_like(p)
    for i in range(MARKETS):
        rows = slice(bids.offset[i], bids.offset[i + 1])
        mu = cp.Variable(rows.stop - rows.start)
        limits = [mu @ p[rows] == due[i], mu >= 0, mu <= cap]
        cp.Problem(cp.Minimize(cp.sum_squares(mu - lam[i])), limits).solve(cp.CLARABEL)
        price[rows] = mu.value
    return price


def naive_game(bids: SecondaryBids, gamma: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Split each consumer market's target by one cvxpy problem."""
    power = np.empty_like(gamma)
    for i in range(MARKETS):
        rows = slice(bids.offset[i], bids.offset[i + 1])
        p = cp.Variable(rows.stop - rows.start)
        cost = cp.sum_squares(cp.multiply(np.sqrt(gamma[rows]), p - bids.p0_kw[rows]))
        limits = [cp.sum(p) == target[i], p >= bids.p_min_kw[rows], p <= bids.p_max_kw[rows]]
        cp.Problem(cp.Minimize(cost), limits).solve(cp.CLARABEL)
        power[rows] = p.value
    return power


def main() -> None:
    """Print one row per kernel: ours, naive, ratio, largest difference."""
    bids, p_target, q_target = markets()
    print(f"{MARKETS} markets, {bids.p0_kw.size} agents; naive = one cvxpy problem per market and stage")
    print(f"{'kernel':<30}{'ours ms':>10}{'naive ms':>11}{'ratio':>9}  largest difference")
    for epsilon in (0.0, 0.05):
        ours, got = median_ms(lambda e=epsilon: clear_secondary(bids, p_target, q_target, epsilon=e), 50)
        naive, twin = median_ms(
            lambda e=epsilon: clear_secondary_reference(bids, p_target, q_target, epsilon=e), 1
        )
        level = np.abs(got.level_value / twin.level_value - 1).max()
        power = np.abs(got.p_kw - twin.p_kw).max()
        row(f"clear_secondary, epsilon {epsilon}", ours, naive, f"levels {level:.1e}, {power:.1e} kW")

    dispatch = clear_secondary(bids, p_target, q_target)
    lam = np.random.default_rng(2).uniform(0.03, 0.09, MARKETS)
    rules, previous = TariffRules(0.05, 0.01, 0.258), np.repeat(lam, np.diff(bids.offset))
    ours, tariffs = median_ms(lambda: price_secondary(bids, dispatch, lam, 0 * lam, previous, rules), 50)
    # the capped markets have no feasible point: both price for the budget that can be reached
    due = sum_by_market(bids.offset, tariffs.p_usd_per_kwh * dispatch.p_kw)
    naive, price = median_ms(lambda: naive_prices(bids, dispatch.p_kw, due, lam, 0.258), 1)
    row("price_secondary", ours, naive, f"{np.abs(tariffs.p_usd_per_kwh - price).max():.1e} $/kWh")

    gamma = np.random.default_rng(3).uniform(0.1, 1.0, bids.p0_kw.size)
    boxes = bids.p0_kw, bids.p_min_kw, bids.p_max_kw
    ours, game = median_ms(lambda: play_game(bids.offset, *boxes, gamma, p_target, lam), 50)
    naive, power = median_ms(lambda: naive_game(bids, gamma, p_target), 1)
    row("play_game", ours, naive, f"{np.abs(game.p_kw - power).max():.1e} kW")


def row(name: str, ours_ms: float, naive_ms: float, difference: str) -> None:
    """Print one row."""
    print(f"{name:<30}{ours_ms:>10.3f}{naive_ms:>11.1f}{naive_ms / ours_ms:>9.0f}  {difference}")


if __name__ == "__main__":
    main()
