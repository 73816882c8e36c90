"""Key figures of the transmission grid: how far its frequency falls, how fast, and where it settles."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from voltier.grid.bulk import BulkSeconds
from voltier.scenarios.panels import Array, Block
from voltier.scenarios.schema import Scenario

Kpis = dict[str, float | int | None]

SETTLED_HZ = 0.05
"""Band around where the frequency settles, the published bound of what is left with the market."""
_SETTLING_S = 1800.0


def bulk_kpis(bulk: Block | None, scenario: Scenario) -> Kpis:
    """Return the figures of a run's transmission grid; empty without one.

    With an attack they are about the attack, against what was before it; else about the whole, against its beginning.
    """
    if bulk is None:
        return {}
    columns = {field.name: bulk[field.name] for field in fields(BulkSeconds) if field.name != "t_s"}
    seconds = BulkSeconds(t_s=bulk.t_s, **columns)
    if scenario.attack_window_s is None:
        return frequency_kpis(seconds, int(bulk.t_s[0]) + 60, int(bulk.t_s[-1]) + 1)
    start_s, end_s = scenario.attack_window_s
    return frequency_kpis(seconds, start_s, min(end_s or scenario.end_s, scenario.end_s))


def frequency_kpis(seconds: BulkSeconds, start_s: float, end_s: float, *, mean_s: int = 60) -> Kpis:
    """Return the figures of a disturbance from start_s to end_s; what comes earlier is the state before it.

    The frequency settles at its mean over the last half of the disturbance, half an hour at most; it has settled once
    means over mean_s seconds stay within SETTLED_HZ of that. The rate of change is the largest by size of either area,
    over half a second. The tie flow is from area 1 to area 2. A rebound is how far the frequency rises afterwards.
    """
    t_s, system_hz = seconds.t_s, seconds.frequency_hz.mean(axis=1)
    before, during, after = t_s < start_s, (t_s >= start_s) & (t_s < end_s), t_s >= end_s
    if not before.any() or not during.any():
        return {}
    late = during & (t_s >= end_s - min(_SETTLING_S, (end_s - start_s) / 2.0))
    before_hz, settling_hz = float(system_hz[before].mean()), float(system_hz[late].mean())
    rocof = seconds.rocof_hz_per_s[during].ravel()
    tie_mw, feeder_mw = seconds.export_mw[:, 0], seconds.feeder_mw[:, 1]
    tie_before_mw, feeder_before_mw = float(tie_mw[before].mean()), float(feeder_mw[before].mean())
    swing_mw = tie_mw[during] - tie_before_mw
    nadir_hz = float(seconds.frequency_min_hz[during].min())
    return {
        "bulk.frequency_before_hz": before_hz,
        "bulk.frequency_nadir_hz": nadir_hz,
        "bulk.nadir_deviation_hz": nadir_hz - before_hz,
        "bulk.rocof_hz_per_s": float(rocof[np.argmax(np.abs(rocof))]),
        "bulk.settling_hz": settling_hz,
        "bulk.settling_deviation_hz": settling_hz - before_hz,
        "bulk.settling_time_s": _settled_after(system_hz[during], settling_hz, mean_s),
        "bulk.rebound_hz": float(seconds.frequency_max_hz[after].max()) - before_hz if after.any() else None,
        "bulk.feeders_before_mw": feeder_before_mw,
        "bulk.feeders_rise_mw": float(feeder_mw[late].mean()) - feeder_before_mw,
        "bulk.feeders_largest_rise_mw": float(feeder_mw[during].max()) - feeder_before_mw,
        "bulk.tie_before_mw": tie_before_mw,
        "bulk.tie_swing_mw": float(swing_mw[np.argmax(np.abs(swing_mw))]),
        "bulk.tie_settling_rise_mw": float(tie_mw[late].mean()) - tie_before_mw,
    }


def _settled_after(system_hz: Array, settling_hz: float, mean_s: int) -> int | None:
    """Seconds until means stay in the band to the end, or None."""
    n = len(system_hz) // mean_s
    outside = np.flatnonzero(
        np.abs(system_hz[: n * mean_s].reshape(n, mean_s).mean(axis=1) - settling_hz) > SETTLED_HZ
    )
    settled = int(outside[-1]) + 1 if len(outside) else 0
    return settled * mean_s if settled < n else None
