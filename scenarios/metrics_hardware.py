"""Key figures of runs that follow the wall clock, and of the devices outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from voltier.scenarios.results import read_table, table_names


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
