"""What lives in GridLAB-D beside the market: power by kind, indoor temperatures, charge."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from voltier.scenarios.report.panel import Array
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import CASE_COLORS, Section, band, dress, embed, line, number

KINDS = {"house": "houses", "battery": "batteries", "pv": "arrays"}


def section(run: Run) -> Section | None:
    """Power of each kind, and the spread of temperatures and charge; None for a run without premises."""
    panel = run.panel("gridlabd", "object")
    if panel is None:
        return None
    kind = [name.split("_")[1] for name in panel.names]
    here = {key: [k for k, its in enumerate(kind) if its == key] for key in KINDS}
    here = {key: columns for key, columns in here.items() if columns}
    inside = [key for key in ("house", "battery") if key in here]
    titles = {"house": "indoors [°C]", "battery": "state of charge"}
    rows = ["injection [kW]", *(titles[key] for key in inside)]
    figure = make_subplots(len(rows), 1, shared_xaxes=True, vertical_spacing=0.06)
    for (key, columns), color in zip(here.items(), CASE_COLORS, strict=False):
        power_kw = panel["p_kw"][:, columns].sum(axis=1)
        figure.add_trace(line(KINDS[key], panel.t_s, power_kw, color, hover="%{y:,.1f} kW"), 1, 1)
    for row, key in enumerate(inside, start=2):
        column = "temp_indoor_c" if key == "house" else "soc"
        color = CASE_COLORS[list(here).index(key)]
        _spread(figure, panel.t_s, panel[column][:, here[key]], color, row)
    dress(figure, 120 + 190 * len(rows), span_s=float(panel.t_s[-1] - panel.t_s[0]))
    for row, title in enumerate(rows, start=1):
        figure.update_yaxes(title_text=title, zeroline=False, row=row, col=1)
    note = '<p class="note">No market knows them: it meets their power as load that it did not plan.</p>'
    return Section(
        "premises", "Premises in GridLAB-D", _finding(run, here), embed(figure, "premises-figure") + note
    )


def _spread(figure: go.Figure, t_s: NDArray[np.int64], values: Array, color: str, row: int) -> None:
    """Draw the mean of some columns in the band from their lowest to their highest."""
    for trace in band("all of them", t_s, values.min(axis=1), values.max(axis=1), color, showlegend=False):
        figure.add_trace(trace, row, 1)
    mean = line("mean", t_s, values.mean(axis=1), color, hover="mean %{y:.2f}", showlegend=False)
    figure.add_trace(mean, row, 1)


def _finding(run: Run, here: dict[str, list[int]]) -> str:
    counted = ", ".join(f"{len(columns)} {KINDS[key]}" for key, columns in here.items())
    text = f"In the power-flow engine live, unknown to the market: {counted}"
    daily_kwh, inside_c = (
        run.kpis.get(f"gridlabd.{name}") for name in ("house_kwh_per_day", "indoor_mean_c")
    )
    if daily_kwh is None or inside_c is None:
        return text
    return f"{text}; a house uses {number(float(daily_kwh))} kWh a day and is at {inside_c:.1f} °C on average"
