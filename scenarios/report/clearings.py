"""Certificates of the clearings: optimality gap, AC residual, solve time, status."""

from __future__ import annotations

import html
from collections import Counter

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    ACCENT,
    CASE_COLORS,
    Section,
    absent,
    dress,
    embed,
    number,
    rows_html,
    small,
    stamp,
)

MEASURES = (
    ("gap", "optimality gap", "relative"),
    ("ac_residual_pu", "AC residual", "p.u."),
    ("solve_s", "solve time", "ms"),
)
MOST_POINTS = 1500
FLOOR = 1e-14
"""Smallest value that the logarithmic axes show."""


def section(run: Run) -> Section:
    """Gap, residual and solve time over the day by market, and a table of their worst."""
    table = run.table("clearings")
    if table is None:
        return absent("clearings", "Clearing certificates", "No market cleared in this run.")
    market = np.array(table["market"].to_pylist(), dtype=object)
    status = np.array(table["status"].to_pylist(), dtype=object)
    t_s = table["t_s"].to_numpy()
    values = {
        name: table[name].to_numpy().astype(float) for name, *_ in MEASURES if name in table.column_names
    }
    if "solve_s" in values:
        values["solve_s"] = values["solve_s"] * 1e3
    markets = list(dict.fromkeys(market.tolist()))
    figure = _figure(markets, market, t_s, values)
    body = embed(figure, "clearings-figure") + _worst_table(markets, market, status, values)
    return Section("clearings", "Clearing certificates", _finding(markets, market, status, values), body)


def _figure(
    markets: list[str], market: np.ndarray, t_s: np.ndarray, values: dict[str, np.ndarray]
) -> go.Figure:
    shown = [measure for measure in MEASURES if np.isfinite(values.get(measure[0], np.nan)).any()]
    titles = [f"{title} [{unit}]" for _, title, unit in shown]
    figure = make_subplots(1, len(shown), subplot_titles=titles, horizontal_spacing=0.07)
    for i, name in enumerate(markets):
        rows = np.flatnonzero(market == name)
        rows = rows[:: -(-len(rows) // MOST_POINTS)]
        color = ACCENT if i == 0 else CASE_COLORS[i % len(CASE_COLORS)]
        x = [stamp(t) for t in t_s[rows]]
        for column, (key, _, unit) in enumerate(shown, start=1):
            trace = go.Scatter(
                x=x,
                y=small(np.maximum(np.abs(values[key][rows]), FLOOR)),
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                marker={"size": 4, "color": color, "opacity": 0.65},
                hovertemplate="%{x|%H:%M}: %{y:.2e} " + unit,
            )
            figure.add_trace(trace, 1, column)
    dress(figure, 300, span_s=float(t_s[-1] - t_s[0]))
    for column, (key, *_) in enumerate(shown, start=1):
        known = np.maximum(np.abs(values[key][np.isfinite(values[key])]), FLOOR)
        decades = np.log10(known.max() / known.min()) if known.size else 1.0
        figure.update_yaxes(
            type="log", exponentformat="power", dtick=max(1, np.ceil(decades / 6)), col=column
        )
    figure.update_layout(hovermode="closest", margin={"t": 56, "l": 56}, legend={"y": 1.12})
    return figure


def _worst_table(
    markets: list[str], market: np.ndarray, status: np.ndarray, values: dict[str, np.ndarray]
) -> str:
    rows = []
    for name in markets:
        here = market == name
        count = Counter(status[here].tolist())
        rows.append(
            [
                html.escape(name),
                f"{here.sum():,}",
                html.escape(", ".join(f"{n:,} {text}" for text, n in count.most_common())),
                *(
                    f"{_reading(values, key, here, np.nanmedian)} / {_reading(values, key, here, np.nanmax)}"
                    for key, *_ in MEASURES
                ),
            ]
        )
    header = [
        "market",
        "clearings",
        "status",
        "gap: median / largest",
        "AC residual [p.u.]",
        "solve time [ms]",
    ]
    return rows_html(header, rows)


def _reading(values: dict[str, np.ndarray], key: str, here: np.ndarray, measure: object) -> str:
    known = values[key][here] if key in values else np.array([])
    known = np.abs(known[np.isfinite(known)])
    return number(float(measure(known))) if known.size else "–"  # type: ignore[operator]


def _finding(
    markets: list[str], market: np.ndarray, status: np.ndarray, values: dict[str, np.ndarray]
) -> str:
    good = int(np.isin(status, ("optimal", "solved", "ok")).sum())
    text = (
        f"All {good:,} clearings are optimal"
        if good == len(status)
        else f"{good:,} of {len(status):,} clearings are optimal"
    )
    main = market == ("primary" if "primary" in markets else markets[0])
    if "gap" in values:
        bounded = np.isfinite(values["gap"][main]).any()
        unbounded = int((~np.isfinite(values["gap"][main])).sum())
        if unbounded:
            text += f", {unbounded:,} of them without a certified bound"
        if bounded:
            text += f"; the largest {market[main][0]} gap is {_reading(values, 'gap', main, np.nanmax)}"
    if "solve_s" in values:
        text += f", the median solve takes {_reading(values, 'solve_s', main, np.nanmedian)} ms"
    return text
