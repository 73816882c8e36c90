"""The transmission grid above the feeder: its frequency, the flow between its areas, what the feeders draw."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from voltier.scenarios.report.attack import acts, happened, mark
from voltier.scenarios.report.panel import Array, Panel
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import CASE_COLORS, Section, band, clock, dress, embed, line, number

ROWS = ("frequency [Hz]", "tie flow [MW]", "feeders [MW]")


def section(run: Run) -> Section | None:
    """Frequency, tie flow and load; None for a run without a transmission grid."""
    seconds = run.panel("bulk", "area")
    if seconds is None:
        return None
    figure = seconds_figure({"mean of both areas": seconds}, height=640)
    story = [act for act in acts(run) if seconds.t_s[0] <= act.t_s <= seconds.t_s[-1]]
    if happened(story):
        mark(figure, story)
    note = (
        '<p class="note">Governors alone hold the frequency: nothing brings it back after a lasting change of load. '
        "The shaded band spans both areas and all of each second.</p>"
    )
    return Section("bulk", "Transmission grid", _finding(run, seconds), embed(figure, "bulk-figure") + note)


def seconds_figure(cases: Mapping[str, Panel], *, height: int, ticks: str | None = None) -> go.Figure:
    """Frequency, flow from area 1 to area 2 and the feeders' load of some cases over one time axis.

    cases : name → panel of the columns of the table bulk, names "1" and "2". ticks : format of the times.
    """
    figure = make_subplots(3, 1, shared_xaxes=True, row_heights=[0.5, 0.25, 0.25], vertical_spacing=0.05)
    for (name, seconds), color in zip(cases.items(), CASE_COLORS, strict=False):
        low, high = seconds["frequency_min_hz"].min(axis=1), seconds["frequency_max_hz"].max(axis=1)
        for trace in band(name, seconds.t_s, low, high, color, showlegend=False, legendgroup=name):
            figure.add_trace(trace, 1, 1)
        series = (
            (seconds.mean("frequency_hz"), "%{y:.3f} Hz"),
            (tie_mw(seconds), "%{y:,.0f} MW"),
            (seconds.total("feeder_mw"), "%{y:,.0f} MW"),
        )
        for row, (values, hover) in enumerate(series, start=1):
            figure.add_trace(
                line(name, seconds.t_s, values, color, hover=hover, legendgroup=name, showlegend=row == 1),
                row,
                1,
            )
    spans = [float(seconds.t_s[-1] - seconds.t_s[0]) for seconds in cases.values()]
    dress(figure, height, span_s=max(spans))
    for row, title in enumerate(ROWS, start=1):
        figure.update_yaxes(title_text=title, zeroline=False, row=row, col=1)
    if ticks is not None:
        figure.update_xaxes(tickformat=ticks, hoverformat=ticks)
    return figure


def tie_mw(seconds: Panel) -> Array:
    """Flow from area 1 towards area 2, at area 1's end: (n_t,)."""
    return np.asarray(seconds["export_mw"][:, seconds.names.index("1")])


def _finding(run: Run, seconds: Panel) -> str:
    low = seconds["frequency_min_hz"].min(axis=1)
    lowest = int(np.argmin(low))
    text = f"The frequency is lowest at {clock(seconds.t_s[lowest])}, at {low[lowest]:.2f} Hz"
    deviation = run.kpis.get("bulk.settling_deviation_hz")
    if deviation is None:
        return text
    rise = float(run.kpis["bulk.feeders_rise_mw"])
    return (
        f"{text}; it settles {abs(deviation):.3f} Hz {'below' if deviation < 0 else 'above'} where it was, the feeders "
        f"drawing {number(abs(rise))} MW {'more' if rise > 0 else 'less'}"
    )
