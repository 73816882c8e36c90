"""Key figures of voltage: deviation, limits, the ranges of ANSI C84.1, unbalance between the phases."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from voltier.scenarios.panels import Array, Block

Kpis = dict[str, float | int | None]

RANGES_PU: Mapping[str, tuple[float, float]] = {"range_a": (0.95, 1.05), "range_b": (0.917, 1.058)}
"""Service voltages of ANSI C84.1: A is where systems are to be held, B where they may be for a short time."""
UNBALANCE_LIMIT = 0.03
"""Largest unbalance that ANSI C84.1 recommends (its annex on polyphase voltage unbalance)."""


def voltage_kpis(grid: Block, limits_pu: tuple[float, float]) -> Kpis:
    """Return the voltage figures of a run.

    grid : v_pu by time and node, keys bus and phase ; limits_pu : the scenario's own limits. A violation is one node
    in one minute outside them. Nodes behind open switches carry no voltage (nan) and do not count.
    """
    v_pu = grid["v_pu"]
    known = v_pu[np.isfinite(v_pu)]
    outside = (known < limits_pu[0]) | (known > limits_pu[1])
    kpis: Kpis = {
        "voltage.mean_abs_deviation_pu": float(np.abs(known - 1.0).mean()),
        "voltage.std_pu": float(known.std()),
        "voltage.min_pu": float(known.min()),
        "voltage.max_pu": float(known.max()),
        "voltage.violations": int(outside.sum()),
        "voltage.violations_share": float(outside.mean()),
    }
    for name, (low_pu, high_pu) in RANGES_PU.items():
        excess = excess_pu(v_pu, low_pu, high_pu)
        out = excess > 0.0
        kpis[f"voltage.{name}_outside_share"] = float(out.sum() / known.size)
        kpis[f"voltage.{name}_worst_excess_pu"] = float(excess.max())
        kpis[f"voltage.{name}_longest_min"] = longest_run(out)
    return kpis | _unbalance_kpis(grid)


def excess_pu(v_pu: Array, low_pu: float, high_pu: float) -> Array:
    """Return how far each voltage lies outside a range, zero within it and where there is no voltage."""
    return np.nan_to_num(np.maximum(np.maximum(low_pu - v_pu, v_pu - high_pu), 0.0), nan=0.0)


def longest_run(flags: NDArray[np.bool_]) -> int:
    """Return the largest number of successive times, at any one column, that are true: (n_t, n) → count."""
    if not flags.any():
        return 0
    row = np.arange(1, len(flags) + 1)[:, None]
    last_false = np.maximum.accumulate(np.where(flags, 0, row), axis=0)
    return int((row - last_false).max())


def unbalance(v_pu: Array) -> Array:
    """Return the largest deviation of a phase from the mean of the three, over that mean: (..., 3) → (...).

    The formula of NEMA MG 1 and ANSI C84.1, here of the voltages to neutral: those between phases would need angles.
    """
    mean = v_pu.mean(axis=-1)
    return np.asarray(np.abs(v_pu - mean[..., None]).max(axis=-1) / mean)


def _unbalance_kpis(grid: Block) -> Kpis:
    """Figures of all three-phase buses and minutes; none where there is no such bus, or no phases in the table."""
    if "phase" not in grid.keys:
        return {}
    value = unbalance(by_phase(grid))
    value = value[np.isfinite(value)]
    if not value.size:
        return {}
    return {
        "voltage.mean_unbalance_share": float(value.mean()),
        "voltage.max_unbalance_share": float(value.max()),
        "voltage.unbalance_above_limit_share": float((value > UNBALANCE_LIMIT).mean()),
    }


def by_phase(grid: Block) -> Array:
    """Return the voltages of the buses that have all three phases: (n_t, n_bus, 3)."""
    column: dict[str, dict[str, int]] = {}
    for i, (bus, phase) in enumerate(zip(grid.keys["bus"], grid.keys["phase"], strict=True)):
        column.setdefault(bus, {})[phase] = i
    whole = [[here[phase] for phase in "abc"] for here in column.values() if len(here) == 3]
    return grid["v_pu"][:, np.array(whole, dtype=np.int64).reshape(-1, 3)]
