"""Time the planner of whole houses, and compare its plans with those of a mixed-integer solver.

Run: .venv/bin/python benchmarks/bench_planning.py [--scip-seconds 20] [--scip-houses 10]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import fields

import numpy as np

from voltier.market.planning.household import (
    DeviceRows,
    HouseholdPlan,
    HouseholdProblem,
    plan_households,
    plan_printed,
)
from voltier.market.planning.household_reference import plan_households_reference

HOUSES = 1008
MANY_HOUSES = 10_000
NAIVE_HOUSES = 10  # naive loops are timed on the first houses and scaled up
PER_DEVICE = (
    "x0", "theta", "gain_g", "penalty", "w_ramp_usd_per_kw2", "w_spill_usd_per_kw2h", "w_flex_usd_per_kwh",
    "shares_meter",
)  # fmt: skip
SHARE = (0.3, 0.4, 1.0, 0.6, 0.4, 0.5)  # of houses that own each of the devices of equipment()


def equipment(rng: np.random.Generator, steps: int, w_flex: float) -> list[dict]:
    """Draw battery, vehicle, heat pump, water heater, PV and a load to be done by a deadline."""
    dt_h, hour = 24 / steps, (np.arange(steps) + 0.5) * 24 / steps
    sun = np.maximum(0, np.sin((hour - 6) / 12 * np.pi)) ** 1.2
    away, at = (hour > 8) & (hour < 17), np.arange(steps)
    size, power, car, both = rng.uniform(8, 15), rng.uniform(3, 6), rng.uniform(40, 80), rng.random() < 0.5
    resistance, air = rng.uniform(1.5, 3), rng.uniform(-5, 35) + 4 * np.sin((hour - 9) / 12 * np.pi)
    theta, tank = np.exp(-dt_h / (resistance * rng.uniform(5, 15))), np.exp(-dt_h / 120)
    draws, energy, inf = rng.exponential(0.35, steps) * dt_h / 0.22, rng.uniform(1, 3), np.inf
    free = dict.fromkeys(
        ("x0", "gain_c", "gain_g", "drift", "c_max_kw", "g_max_kw", "target", "w_state"), 0.0
    )
    free |= {"theta": 1.0, "x_min": -inf, "x_max": inf, "penalty": 1.0, "shares_meter": False}
    free |= {"w_ramp_usd_per_kw2": 0.0, "w_spill_usd_per_kw2h": 0.0, "w_flex_usd_per_kwh": w_flex}
    store = free | {"gain_c": 0.95 * dt_h, "w_ramp_usd_per_kw2": 1e-3, "shares_meter": True}
    return [
        store | {"x0": size * rng.uniform(0.1, 0.9), "gain_g": dt_h / 0.95, "c_max_kw": power, "g_max_kw": power,
                 "x_min": 0.1 * size, "x_max": 0.95 * size, "target": size / 2, "w_state": 0.02 * (at == steps - 1)},
        store | {"x0": car * rng.uniform(0.3, 0.9), "gain_g": dt_h / 0.95 * both, "c_max_kw": 7.0 * ~away,
                 "g_max_kw": 7.0 * ~away * both, "drift": -8.0 * (at == np.argmax(hour > 17)), "x_min": 0.1 * car,
                 "x_max": 0.95 * car, "target": 0.9 * car, "w_state": 0.05 * (at == np.argmax(hour > 8) - 1)},
        free | {"x0": rng.uniform(18, 25), "theta": theta, "drift": (1 - theta) * air, "c_max_kw": 4.0, "x_min": 19.0,
                "gain_c": np.where(air < 22, 3, -3) * resistance * (1 - theta), "x_max": 25.0, "target": 22.0,
                "w_state": 0.01 * dt_h},
        free | {"x0": rng.uniform(46, 58), "theta": tank, "gain_c": dt_h / 0.22, "drift": (1 - tank) * 20 - draws,
                "c_max_kw": 4.5, "x_min": 45.0, "x_max": 60.0, "target": 55.0, "w_state": 2e-4 * dt_h},
        free | {"g_max_kw": rng.uniform(2, 10) * sun, "w_spill_usd_per_kw2h": 2e-3, "shares_meter": True},
        free | {"gain_c": dt_h, "c_max_kw": 2.0 * (hour > 9), "x_max": energy,
                "x_min": np.where(hour > 20, energy, -inf)},
    ]  # fmt: skip


def homes(
    n: int, steps: int, *, noon_usd: float = 0.0, full: bool = False, w_flex: float = 2e-3
) -> HouseholdProblem:
    """Draw n houses under day-ahead prices that fall by noon_usd with the sun; full ones own everything."""
    rows, counts, prices, others = [], [], [], []
    hour = (np.arange(steps) + 0.5) * 24 / steps
    for i in range(n):
        rng = np.random.default_rng([1, i])
        drawn = equipment(rng, steps, w_flex)
        owned = [row for row, share in zip(drawn, SHARE, strict=True) if full or rng.random() < share]
        rows += owned
        counts.append(len(owned))
        price = 0.12 + 0.08 * np.sin((hour - 12) / 12 * np.pi) + rng.normal(0, 0.02, steps)
        prices.append(price - noon_usd * np.maximum(0, np.sin((hour - 6) / 12 * np.pi)))
        others.append(-rng.uniform(0.2, 1.5, steps))
    columns = {
        f.name: np.array(
            [row[f.name] if f.name in PER_DEVICE else np.broadcast_to(row[f.name], steps) for row in rows]
        )
        for f in fields(DeviceRows)
    }
    w_self = np.full((n, steps), 4e-3)
    offset = np.cumsum([0, *counts])
    return HouseholdProblem(
        offset, DeviceRows(**columns), np.array(prices), w_self, np.array(others), 24 / steps
    )


def first(problem: HouseholdProblem, n: int) -> HouseholdProblem:
    """The first n houses."""
    rows = problem.offset[n]
    devices = DeviceRows(**{f.name: getattr(problem.devices, f.name)[:rows] for f in fields(DeviceRows)})
    grid = (problem.price_usd_per_kwh[:n], problem.w_self_usd_per_kw2h[:n], problem.other_kw[:n])
    return HouseholdProblem(problem.offset[: n + 1], devices, *grid, problem.dt_h)


def seconds_of(run) -> tuple[float, float, HouseholdPlan]:
    """Median wall and processor time of three runs, and the last result."""
    wall, cpu = [], []
    for _ in range(3):
        start = time.perf_counter(), time.process_time()
        plan = run()
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return float(np.median(wall)), float(np.median(cpu)), plan


def print_times() -> None:
    """One row per horizon and price: ours, one cvxpy problem a house, one SCIP problem a house, ratios, gaps."""
    print(f"{HOUSES} houses; cvxpy and SCIP (5 s each at most) timed on {NAIVE_HOUSES} and scaled")
    print(f"{'steps':>5} {'prices':<12}{'ours s':>7}{'cpu s':>7}{'cvxpy':>7}{'SCIP':>8}  (times ours)")
    for steps in (24, 96):
        for name, noon_usd in (("positive", 0.0), ("negative", 0.3)):
            problem = homes(HOUSES, steps, noon_usd=noon_usd)
            plan_households(first(problem, 1))
            wall, cpu, plan = seconds_of(lambda problem=problem: plan_households(problem))
            few = first(problem, NAIVE_HOUSES)
            start = time.perf_counter()
            twin = plan_households_reference(few)
            naive = (time.perf_counter() - start) * HOUSES / NAIVE_HOUSES
            whole = "-"
            if steps == 24:
                start = time.perf_counter()
                plan_households_reference(few, whole=True, seconds=5)
                whole = f"{(time.perf_counter() - start) * HOUSES / NAIVE_HOUSES / wall:.0f}"
            gap, exact = plan.objective_usd - plan.bound_usd, ~plan.binary
            print(f"{steps:>5} {name:<12}{wall:>7.2f}{cpu:>7.2f}{naive / wall:>7.0f}{whole:>8}", end="  ")
            print(
                f"bound differs by {np.abs(plan.bound_usd[:NAIVE_HOUSES] - twin.objective_usd).max():.0e} $ at most;"
            )
            chosen = gap[plan.binary].sum() / max(plan.binary.sum(), 1)
            print(
                f"{'':12}{plan.binary.sum()} houses needed directions (gap {chosen:.3f} $ on average),"
                f" largest gap of the others {gap[exact].max(initial=0):.0e} $, {(~plan.converged).sum()} not converged"
            )


def print_many() -> None:
    """Ten thousand houses, and how their time compares with that of as many times the usual number."""
    usual, many = homes(HOUSES, 24), homes(MANY_HOUSES, 24)
    plan_households(first(usual, 1))
    one, all_of_them = seconds_of(lambda: plan_households(usual)), seconds_of(lambda: plan_households(many))
    grown = all_of_them[1] / one[1] * HOUSES / MANY_HOUSES
    print(f"{MANY_HOUSES} houses, 24 steps: {all_of_them[0]:.2f} s, cpu {all_of_them[1]:.2f} s,", end=" ")
    print(
        f"{grown:.2f} times the time a house of {HOUSES}; {(~all_of_them[2].converged).sum()} not converged"
    )


def print_two_hundred() -> None:
    """Whether the convex form equals the mixed-integer optimum: bounds from below and from above."""
    print("200 houses with every device, 24 steps: relaxation against a plan with one direction per step")
    for name, noon_usd in (("positive prices", 0.0), ("near zero at noon", 0.1), ("-0.18 $ at noon", 0.3)):
        for w_flex in (0.0, 2e-3, 2e-2):
            plan = plan_households(homes(200, 24, noon_usd=noon_usd, full=True, w_flex=w_flex), search=0)
            better = plan_households(homes(200, 24, noon_usd=noon_usd, full=True, w_flex=w_flex), search=200)
            gap = plan.objective_usd - plan.bound_usd
            print(
                f"  {name:<18} reward {w_flex:.3f} $/kWh: {(gap <= 1e-4).sum():>3} equal to 1e-4 $,"
                f" {plan.binary.sum():>3} chose directions, gap {gap.mean():.4f} $ on average,"
                f" {(better.objective_usd - better.bound_usd).mean():.4f} $ after 200 more solves"
            )


def print_forms(houses: int, seconds: float) -> None:
    """Headroom against |P|: ours, SCIP's incumbent and bounds, on houses with every device."""
    print(
        f"{houses} houses with every device, 24 steps, SCIP {seconds:g} s of processor time a house;"
        " ours with 300 more solves"
    )
    for noon_usd, w_flex in ((0.0, 2e-2), (0.3, 2e-3), (0.3, 2e-2)):
        problem = homes(houses, 24, noon_usd=noon_usd, full=True, w_flex=w_flex)
        for name, planner, printed in (("headroom", plan_households, False), ("|P|", plan_printed, True)):
            start = time.perf_counter()
            plan = planner(problem, search=300)
            ours = (time.perf_counter() - start) / houses
            start = time.perf_counter()
            twin = plan_households_reference(problem, whole=True, printed=printed, seconds=seconds)
            theirs = (time.perf_counter() - start) / houses
            relaxed = plan_households_reference(problem, printed=printed)
            excess = plan.objective_usd - twin.objective_usd
            size = 1 + np.abs(twin.objective_usd)
            gap = (plan.objective_usd - relaxed.objective_usd).mean()
            print(
                f"  noon {0.12 - noon_usd:+.2f} $/kWh, reward {w_flex:.3f}, {name:<9}"
                f" as good as SCIP in {(excess <= 1e-6 * size).sum()} of {houses} (worst {excess.max():+.5f},"
                f" best {excess.min():+.5f} $); above its relaxation by {gap:.4f} $,"
                f" SCIP's own gap {(twin.objective_usd - twin.bound_usd).mean():.4f} $;"
                f" {1e3 * ours:.1f} ms against {theirs:.1f} s"
            )


def main() -> None:
    """Print times, exactness, and the two forms of flexibility."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scip-seconds", type=float, default=5.0)
    parser.add_argument("--scip-houses", type=int, default=4)
    asked = parser.parse_args()
    print_times()
    print_many()
    print_two_hundred()
    print_forms(asked.scip_houses, asked.scip_seconds)


if __name__ == "__main__":
    main()
