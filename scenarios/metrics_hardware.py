"""Key figures of runs that follow the wall clock, and of the devices outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from voltier.scenarios.results import read_table, table_names

_MINUTE_S = 60.0


def realtime_kpis(run_dir: Path) -> dict[str, float | int | None]:
    """Return how late operators began to decide, over all instants of a paced run."""
    if "realtime" not in table_names(run_dir):
        return {}
    lag_ms = read_table(run_dir, "realtime")["lag_ms"].to_numpy()
    if not len(lag_ms):
        return {}
    return {
        "realtime.instants": len(lag_ms),
        "realtime.lag_median_ms": float(np.median(lag_ms)),
        "realtime.lag_p99_ms": float(np.percentile(lag_ms, 99.0)),
        "realtime.lag_max_ms": float(lag_ms.max()),
    }


def hardware_kpis(run_dir: Path) -> dict[str, float | int | None]:
    """Return how fast devices outside followed the market, and how far their power was from what it asked for."""
    if "hardware" not in table_names(run_dir):
        return {}
    table = read_table(run_dir, "hardware").to_pandas()
    dead_s = table["dead_time_s"].dropna().to_numpy()
    error_kw = (table["measured_kw"] - table["set_kw"]).dropna().to_numpy()
    return {
        "hardware.devices": int(table.groupby(["house", "device"]).ngroups),
        "hardware.changes_seen": len(dead_s),
        "hardware.dead_time_median_s": float(np.median(dead_s)) if len(dead_s) else None,
        "hardware.dead_time_max_s": float(dead_s.max()) if len(dead_s) else None,
        "hardware.dead_time_over_a_minute": int((dead_s > _MINUTE_S).sum()),
        "hardware.mean_abs_error_kw": float(np.abs(error_kw).mean()) if len(error_kw) else None,
    }
