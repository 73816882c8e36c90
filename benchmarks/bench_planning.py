"""Time the storage planner against a loop of cvxpy problems.

Run: .venv/bin/python benchmarks/bench_planning.py
"""

from __future__ import annotations

import time
from dataclasses import fields, replace

import numpy as np

from voltier.market.planning.storage import StorageProblem, plan_storage
from voltier.market.planning.storage_reference import plan_storage_reference

ROWS = 1530
NAIVE_ROWS = 40  # the naive loop is timed on the first rows and scaled up


def homes(steps: int, seed: int = 1) -> StorageProblem:
    """Draw batteries, vehicles, heat pumps and water heaters by turns under day-ahead prices."""
    rng, dt_h, n = np.random.default_rng(seed), 24 / steps, ROWS
    kind, hour, grid = np.arange(n) % 4, np.arange(steps) * dt_h, np.ones((n, steps))
    pick = lambda *values: np.choose(kind, values)  # noqa: E731
    size = pick(rng.uniform(8, 15, n), rng.uniform(40, 80, n), 20, 50)
    theta = pick(1, 1, np.exp(-dt_h / 40), np.exp(-dt_h / 60))
    away = (kind == 1)[:, None] & (hour > 8) & (hour < 17)
    lost = pick(0, 0, (1 - theta) * rng.uniform(-5, 10, n), (1 - theta) * 20)[:, None] * grid
    lost = lost - 0.8 * dt_h * away - (kind == 3)[:, None] * rng.exponential(1, (n, steps)) * dt_h
    w_state = np.zeros((n, steps))
    w_state[:, -1] = pick(0.01, 0.05, 0.05, 0)
    return StorageProblem(
        x0=pick(0.5 * size, 0.6 * size, rng.uniform(19, 23, n), rng.uniform(48, 62, n)),
        theta=theta,
        gain_c=(pick(0.95, 0.95, 0.35, 8.0) * dt_h)[:, None] * grid,
        gain_g=np.full(n, dt_h / 0.95),
        drift=lost,
        c_max_kw=np.where(away, 0, pick(5.0, 7.0, 3.0, 4.5)[:, None]),
        g_max_kw=np.where(away, 0, pick(5.0, 7.0, 0.0, 0.0)[:, None]),
        x_min=pick(0.1 * size, 0.2 * size, 19, 48)[:, None] * grid,
        x_max=pick(size, size, 23, 62)[:, None] * grid,
        price_usd_per_kwh=0.12 + 0.08 * np.sin(hour / 12 * np.pi) + rng.normal(0, 0.02, (n, steps)),
        other_kw=np.maximum(0, rng.uniform(0, 8, (n, 1)) * np.sin((hour - 6) / 12 * np.pi)),
        w_self=pick(0.01, 0, 0, 0).astype(float),
        target=pick(0.5 * size, 0.8 * size, 21, 55)[:, None] * grid,
        w_state=w_state,
        penalty=np.full(n, 5.0),
        dt_h=dt_h,
    )


def main() -> None:
    """Print one row per horizon: ours, naive, ratio, largest difference."""
    print(f"{ROWS} devices; naive = one cvxpy problem each, timed on {NAIVE_ROWS} rows and scaled to all")
    print(f"{'steps':>5}{'ours ms':>10}{'steps/row':>11}{'naive ms':>11}{'ratio':>8}  largest difference")
    for steps in (24, 96):
        problem = homes(steps)
        plan = plan_storage(problem)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            plan = plan_storage(problem)
            times.append(time.perf_counter() - start)
        ours = 1e3 * float(np.median(times))
        columns = {f.name: getattr(problem, f.name) for f in fields(problem) if f.name != "dt_h"}
        part = replace(problem, **{name: column[:NAIVE_ROWS] for name, column in columns.items()})
        start = time.perf_counter()
        twin = plan_storage_reference(part)
        naive = 1e3 * (time.perf_counter() - start) * ROWS / NAIVE_ROWS
        power = np.abs(plan.p_kw[:NAIVE_ROWS] - twin.p_kw).max()
        cost = np.abs(plan.objective_usd[:NAIVE_ROWS] - twin.objective_usd).max()
        print(
            f"{steps:>5}{ours:>10.1f}{plan.iterations.mean():>11.1f}{naive:>11.0f}{naive / ours:>8.0f}"
            f"  {power:.1e} kW, {cost:.1e} $, {int((~plan.converged).sum())} not converged"
        )


if __name__ == "__main__":
    main()
