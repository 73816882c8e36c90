"""What a scenario of the duck-curve study leaves: its day, its key figures, its rows of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voltier.market.primary.distributed.ramp import total_ramp
from voltier.scenarios.studies.duck_curve_case import BATTERY_NODES, CAPACITY_KWH, HOURS
from voltier.scenarios.studies.duck_curve_flow import DayFlow

Array = NDArray[np.float64]

EVENING = slice(12, 22)
"""Hours, standard time, in which the evening's ramp is sought: from each to the next."""


@dataclass(frozen=True, slots=True)
class Result:
    """A scenario's day. net_kw : (T,) consumption less generation without losses ; energy_kwh : (T + 1, k) or None.

    flow : its power flow by OpenDSS ; figures : key figures of its own
    """

    net_kw: Array
    battery_kw: Array
    energy_kwh: Array | None
    flow: DayFlow
    figures: dict[str, Any]


def evening_hour(net_kw: Array) -> int:
    """Return the hour after which consumption rises most in the evening."""
    return int(EVENING.start + np.argmax(np.diff(net_kw)[EVENING]))


def ramp_figures(a_kw: Array, net_kw: Array) -> dict[str, float]:
    """Return the ramping of a day beside that of the day without control, a_kw; (T,) both."""
    hour = evening_hour(a_kw)
    before, now = float(np.diff(a_kw)[hour]), abs(float(np.diff(net_kw)[hour]))
    base, total = total_ramp(a_kw, cyclic=True), total_ramp(net_kw, cyclic=True)
    return {
        "ramping.total_kw": total,
        "ramping.reduction_percent": 100.0 * (1.0 - total / base),
        "ramping.within_day_kw": total_ramp(net_kw, cyclic=False),
        "ramping.evening_hour": hour + 1,
        "ramping.evening_peak_kw": now,
        "ramping.evening_reduction_percent": 100.0 * (1.0 - now / before),
        "ramping.evening_largest_kw": float(np.diff(net_kw)[EVENING].max()),
        "energy.peak_kw": float(net_kw.max()),
    }


def case_kpis(a: Result, one: Result) -> dict[str, Any]:
    """Return all key figures of a scenario; a : the one without control."""
    head = total_ramp(one.flow.head_kw, cyclic=True)
    kpis: dict[str, Any] = ramp_figures(a.net_kw, one.net_kw)
    kpis |= {
        "ramping.head_total_kw": head,
        "ramping.head_reduction_percent": 100.0 * (1.0 - head / total_ramp(a.flow.head_kw, cyclic=True)),
        "losses.energy_kwh": float(one.flow.loss_kw.sum()),
        "voltage.min_pu": float(np.nanmin(one.flow.v_pu)),
        "voltage.max_pu": float(np.nanmax(one.flow.v_pu)),
    }
    if one.energy_kwh is not None:
        share = one.energy_kwh[-1] / CAPACITY_KWH
        kpis["storage.final_soc_min"] = float(share.min())
        for node, kwh in zip(BATTERY_NODES, one.energy_kwh[-1], strict=True):
            kpis[f"storage.final_node_{node}_kwh"] = float(kwh)
    return kpis | one.figures


def write_series(path: Path, results: Mapping[str, Result]) -> None:
    """Write the hours of all cases: net load, import, ramp into the hour, losses, voltages, batteries."""
    header = ["case", "hour", "net_kw", "import_kw", "ramp_kw", "loss_kw", "v_min_pu", "v_max_pu"]
    header += [f"battery_{node}_kw" for node in BATTERY_NODES]
    header += [f"stored_{node}_kwh" for node in BATTERY_NODES]
    lines = [",".join(header)]
    for name, one in results.items():
        ramp = one.net_kw - np.roll(one.net_kw, 1)
        for t in range(HOURS):
            v = one.flow.v_pu[t]
            values = [one.net_kw[t], one.flow.head_kw[t], ramp[t], one.flow.loss_kw[t]]
            cells = [f"{x:.3f}" for x in values] + [f"{np.nanmin(v):.5f}", f"{np.nanmax(v):.5f}"]
            cells += [f"{x:.3f}" for x in one.battery_kw[t]]
            cells += [""] * 3 if one.energy_kwh is None else [f"{x:.3f}" for x in one.energy_kwh[t + 1]]
            lines.append(",".join([name, str(t), *cells]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
