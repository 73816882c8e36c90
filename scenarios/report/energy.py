"""Demand, local supply, import and losses over the day."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from voltier.scenarios.report.panel import Array, Panel
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    COLOR,
    Section,
    absent,
    band,
    clock,
    dress,
    embed,
    line,
    number,
    share,
)

SeriesOf = Callable[[Run], tuple[NDArray[np.int64], Array] | None]
"""A time series taken from a run: (t_s, values), or None when the run does not have it."""

NO_LOADS = ("pv_kw", "battery_kw")


def import_kw(run: Run) -> tuple[NDArray[np.int64], Array] | None:
    """Power drawn from the bulk grid at each minute, import positive: (t_s, kW)."""
    panel = run.panel("substation", "phase")
    return None if panel is None or "p_kw" not in panel else (panel.t_s, -panel.total("p_kw"))


def demand_kw(devices: Panel) -> Array:
    """Power that the loads consume at each time, consumption positive, without batteries and PV."""
    return -np.sum([devices.total(column) for column in devices.values if column not in NO_LOADS], axis=0)


def section(run: Run) -> Section:
    """Import, demand, PV, generators and losses."""
    imported = import_kw(run)
    if imported is None:
        return absent("energy", "Load and import", "This run wrote no substation table.")
    t_s, p_import = imported
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.76, 0.24], vertical_spacing=0.06)
    substation = run.panel("substation", "phase")
    assert substation is not None
    step_s = step_for(t_s)
    thin = Panel(t_s, ("feeder",), {"import": p_import[:, None]}).thin(step_s)
    supply, words = _supply(run)
    for trace in (*_import_traces(run, thin), *supply):
        figure.add_trace(trace, 1, 1)
    if "loss_kw" in substation:
        losses = Panel(t_s, ("feeder",), {"loss": substation["loss_kw"].sum(axis=1)[:, None]}).thin(step_s)
        figure.add_trace(
            line("losses", losses.t_s, losses["loss"][:, 0], COLOR["losses"], hover="%{y:,.1f} kW"), 2, 1
        )
    dress(figure, 480, span_s=float(t_s[-1] - t_s[0]))
    figure.update_yaxes(title_text="power [kW]", row=1, col=1)
    figure.update_yaxes(title_text="losses [kW]", row=2, col=1)
    peak = int(np.nanargmax(p_import))
    finding = f"Import peaks at {number(p_import[peak])} kW at {clock(t_s[peak])}" + words
    low = int(np.nanargmin(p_import))
    if p_import[low] < 0:
        finding += f"; the feeder exports up to {number(-p_import[low])} kW at {clock(t_s[low])}"
    return Section("energy", "Load and import", finding, embed(figure, "energy-figure"))


def step_for(t_s: NDArray[np.int64]) -> int:
    """Averaging step of the line figures: 5 minutes, 1 for a few hours; never finer than the rows at t_s."""
    if len(t_s) < 2:
        return 60
    return max(60 if t_s[-1] - t_s[0] <= 4 * 3600 else 300, int(np.median(np.diff(t_s))))


def _import_traces(run: Run, thin: Panel) -> list[go.Scatter]:
    p_import = thin["import"][:, 0]
    traces = band("", thin.t_s, np.zeros(len(p_import)), p_import, COLOR["import"], showlegend=False)
    traces.append(line("import", thin.t_s, p_import, COLOR["import"], width=2.4))
    system = run.panel("system")
    if system is not None and "p_import_scheduled_kw" in system:
        planned = system.thin(step_for(system.t_s))
        traces.append(
            line(
                "scheduled import",
                planned.t_s,
                planned["p_import_scheduled_kw"][:, 0],
                COLOR["scheduled"],
                dash="dot",
                step=True,
            )
        )
    return traces


def _supply(run: Run) -> tuple[list[go.Scatter], str]:
    """Lines of demand, PV and generators, and what PV covers, in words."""
    traces, words = [], ""
    devices, primary = run.devices(), run.panel("primary", "bus")
    if devices is not None:
        thin = devices.thin(step_for(devices.t_s))
        demand = demand_kw(thin)
        traces.append(line("demand", thin.t_s, demand, COLOR["demand"]))
        if "pv_kw" in thin:
            pv = thin.total("pv_kw")
            traces.append(line("PV", thin.t_s, pv, COLOR["pv"]))
            words = (
                f"; PV delivers {share(float(np.nansum(pv)), float(np.nansum(demand)))} of the energy used"
            )
        if "battery_kw" in thin and np.nanmax(np.abs(thin.total("battery_kw")), initial=0) > 1e-9:
            traces.append(line("batteries", thin.t_s, thin.total("battery_kw"), COLOR["battery"]))
    if primary is not None and "gen_kw" in primary and np.nanmax(primary["gen_kw"], initial=0) > 0:
        thin = primary.select(["gen_kw"]).thin(step_for(primary.t_s))
        traces.append(
            line("generators (scheduled)", thin.t_s, thin.total("gen_kw"), COLOR["generator"], step=True)
        )
    return traces, words
