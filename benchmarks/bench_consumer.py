"""Time the consumer market's mechanisms against cvxpy problems, one a market and one more for each agent left out.

Run: .venv/bin/python benchmarks/bench_consumer.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np

from voltier.market.consumer_incentives import measure_incentives
from voltier.market.consumer_mechanisms import MECHANISMS, Markets, play, random_markets

MANY, FEW, AGENTS = 10_000, 20, 3


def median_ms(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the median time of a call [ms] and its last result; one call warms up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times)), result


def cheapest(m: Markets, rows: np.ndarray, target: float, omega: float) -> tuple[float, np.ndarray]:
    """Return the least cost of a target, and the powers."""
    p, wish = cp.Variable(len(rows)), m.p0_kw[rows]
    cost = cp.sum(cp.multiply(m.gamma_usd_per_kw2h[rows], cp.square(p - wish))) + omega * cp.abs(
        target - cp.sum(p)
    )
    value = cp.Problem(cp.Minimize(cost), [p >= m.p_min_kw[rows], p <= m.p_max_kw[rows]]).solve(cp.CLARABEL)
    return float(value), p.value


def naive(m: Markets, *, payments: bool) -> np.ndarray:
    """Clear each market by a conic solver, and pay by one more problem for each agent."""
    result = np.empty_like(m.p0_kw)
    for i in range(len(m.target_kw)):
        rows, target, omega = (
            np.arange(m.offset[i], m.offset[i + 1]),
            m.target_kw[i],
            m.outside_usd_per_kwh[i],
        )
        value, p = cheapest(m, rows, target, omega)
        result[rows] = p
        if payments:
            for row, power in zip(rows, p, strict=True):
                own = m.gamma_usd_per_kw2h[row] * (power - m.p0_kw[row]) ** 2
                alone = cheapest(m, rows[rows != row], target - m.p0_kw[row], omega)[0]
                result[row] = m.price_usd_per_kwh[i] * m.p0_kw[row] + alone - (value - own)
    return result


def main() -> None:
    """Print microseconds a market and ratios."""
    many, few = (random_markets(np.random.default_rng(1), n, AGENTS) for n in (MANY, FEW))
    print(f"{MANY} markets of {AGENTS} agents; cvxpy and Clarabel on the first {FEW} drawn alike")
    slow = {}
    for payments in (False, True):
        start = time.perf_counter()
        slow[payments] = naive(few, payments=payments)
        slow_us = 1e6 * (time.perf_counter() - start) / FEW
        for mechanism in MECHANISMS:
            if (mechanism == "vcg") == payments:
                ours, _ = median_ms(lambda name=mechanism: play(name, many), 20)
                us = 1e3 * ours / MANY
                game = play(mechanism, few)
                gap = np.abs((game.paid_usd_per_h if payments else game.p_kw) - slow[payments]).max()
                print(f"{mechanism:12s} {us:8.2f} us a market   cvxpy {slow_us:9.0f} us   {slow_us / us:8.0f} x   "
                      f"largest difference {gap:.1e}")  # fmt: skip
    whole = random_markets(np.random.default_rng(2), 200, AGENTS)
    for mechanism in MECHANISMS:
        took, _ = median_ms(lambda name=mechanism: measure_incentives(name, whole), 3)
        print(f"incentives of {mechanism:12s} on 200 markets {took:8.0f} ms")


if __name__ == "__main__":
    main()
