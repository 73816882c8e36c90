"""Envelope of the voltages of each phase."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from voltier.scenarios.report.energy import step_for
from voltier.scenarios.report.panel import Panel
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    COLOR,
    PHASE_COLOR,
    Section,
    absent,
    clock,
    dress,
    embed,
    faded,
    rate,
    small,
    spaced,
)

HOVER = "%{y:.4f}"


def limits_pu(run: Run) -> tuple[float, float]:
    """Voltage limits of the scenario [p.u.]."""
    return (
        float(run.setting("feeder", "v_min_pu", default=0.95)),
        float(run.setting("feeder", "v_max_pu", default=1.05)),
    )


def section(run: Run) -> Section:
    """Highest, mean and lowest voltage over the buses, by phase, with the limits."""
    panel = run.panel("grid", "bus", "phase")
    if panel is None:
        return absent("voltage", "Voltages", "This run wrote no grid table.")
    limits = limits_pu(run)
    figure = make_subplots(
        1, 3, shared_yaxes=True, horizontal_spacing=0.02, subplot_titles=["phase a", "phase b", "phase c"]
    )
    step_s = step_for(panel.t_s)
    for column, phase in enumerate("abc", start=1):
        member = np.array([name.endswith("." + phase) for name in panel.names])
        if member.any():
            for trace in _envelope(panel.t_s, panel["v_pu"][:, member], PHASE_COLOR[phase], step_s):
                figure.add_trace(trace, 1, column)
        for limit in limits:
            figure.add_hline(
                y=limit, line={"color": COLOR["limit"], "dash": "dash", "width": 1}, row=1, col=column
            )
    dress(figure, 320, "voltage [p.u.]", span_s=float(panel.t_s[-1] - panel.t_s[0]))
    low, high = np.nanmin(panel["v_pu"]), np.nanmax(panel["v_pu"])
    figure.update_yaxes(
        range=[min(low, limits[0]) - 0.005, max(high, limits[1]) + 0.005], zeroline=False, tickformat=".2f"
    )
    figure.update_layout(showlegend=False)
    note = '<p class="note">Shaded: lowest to highest bus; line: mean over the buses; dashed: limits.</p>'
    return Section(
        "voltage", "Voltages by phase", finding(panel, limits), embed(figure, "voltage-figure") + note
    )


def finding(panel: Panel, limits: tuple[float, float]) -> str:
    """Say how far the voltages reach, where, and how many leave the limits."""
    v_pu = panel["v_pu"]
    low, high = (np.unravel_index(pick(v_pu), v_pu.shape) for pick in (np.nanargmin, np.nanargmax))
    reach = (
        f"from {v_pu[low]:.3f} p.u. at {panel.names[low[1]]} ({clock(panel.t_s[low[0]])}) "
        f"to {v_pu[high]:.3f} p.u. at {panel.names[high[1]]} ({clock(panel.t_s[high[0]])})"
    )
    outside = int(np.sum((v_pu < limits[0]) | (v_pu > limits[1])))
    if outside == 0:
        return f"All voltages stay within {limits[0]:g}–{limits[1]:g} p.u.: {reach}"
    known = int(np.isfinite(v_pu).sum())
    return f"{outside:,} of {known:,} voltage readings ({rate(outside / known)}) leave the limits: {reach}"


def _envelope(t_s: np.ndarray, v_pu: np.ndarray, color: str, step_s: int) -> list[go.Scatter]:
    """Lowest and highest value over bus and time of each step, and the mean."""
    start = np.flatnonzero(np.diff(t_s // step_s, prepend=-1))
    with np.errstate(invalid="ignore"):
        low = np.fmin.reduceat(np.fmin.reduce(v_pu, axis=1), start)
        high = np.fmax.reduceat(np.fmax.reduce(v_pu, axis=1), start)
    mean = np.add.reduceat(np.nanmean(v_pu, axis=1), start) / np.diff(start, append=len(t_s))
    grid = spaced(t_s[start] // step_s * step_s)
    edge = {"color": faded(color, 0.5), "width": 0.8}
    return [
        go.Scatter(y=small(low), mode="lines", line=edge, name="lowest", hovertemplate=HOVER, **grid),
        go.Scatter(
            y=small(high),
            mode="lines",
            line=edge,
            fill="tonexty",
            fillcolor=faded(color, 0.18),
            name="highest",
            hovertemplate=HOVER,
            **grid,
        ),
        go.Scatter(
            y=small(mean),
            mode="lines",
            line={"color": color, "width": 2},
            name="mean",
            hovertemplate=HOVER,
            **grid,
        ),
    ]
