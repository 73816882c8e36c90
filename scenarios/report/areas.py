"""How the areas of a federated primary market came to agree: rounds, slots and what they sent."""

from __future__ import annotations

import html

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    CASE_COLORS,
    COLOR,
    INK,
    MUTED,
    Section,
    dress,
    embed,
    number,
    rows_html,
    small,
    stamp,
)


def section(run: Run) -> Section | None:
    """Rounds and slots of each clearing, kilobytes that each area sent; None where no areas cleared."""
    table = run.table("areas")
    if table is None or not len(table):
        return None
    t_s, area = table["t_s"].to_numpy(), np.array(table["area"].to_pylist(), dtype=object)
    values = {
        name: table[name].to_numpy().astype(float) for name in ("rounds", "slots", "sent_bytes", "solve_s")
    }
    failed = np.array([bool(text) for text in table["failure"].to_pylist()])
    body = embed(_figure(t_s, area, values, failed), "areas-figure") + _table(area, values, failed)
    return Section("areas", "Areas that clear together", _finding(t_s, area, values, failed), body)


def _figure(
    t_s: np.ndarray, area: np.ndarray, values: dict[str, np.ndarray], failed: np.ndarray
) -> go.Figure:
    titles = ["until the areas agree", "sent in a clearing [kB]"]
    figure = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.08)
    first = area == area[0]
    for key, label, color in (("rounds", "rounds", INK), ("slots", "slots", MUTED)):
        shown = np.where(failed[first], np.nan, values[key][first])
        figure.add_trace(_points(label, t_s[first], shown, color), 1, 1)
    if failed[first].any():
        lost = np.where(failed[first], values["slots"][first], np.nan)
        figure.add_trace(_points("not agreed, slots", t_s[first], lost, COLOR["losses"], symbol="x"), 1, 1)
    for k, name in enumerate(dict.fromkeys(area.tolist())):
        here = area == name
        color = CASE_COLORS[k % len(CASE_COLORS)]
        figure.add_trace(_points(name, t_s[here], values["sent_bytes"][here] / 1e3, color), 1, 2)
    dress(figure, 320, span_s=float(t_s[-1] - t_s[0]))
    figure.update_yaxes(rangemode="tozero")
    figure.update_layout(margin={"t": 56, "l": 56}, legend={"y": 1.18})
    return figure


def _points(name: str, t_s: np.ndarray, y: np.ndarray, color: str, symbol: str = "circle") -> go.Scatter:
    marker = {"size": 6, "color": color, "symbol": symbol}
    x = [stamp(t) for t in t_s]
    return go.Scatter(name=name, x=x, y=small(y), mode="lines+markers", marker=marker, line={"width": 1})


def _table(area: np.ndarray, values: dict[str, np.ndarray], failed: np.ndarray) -> str:
    rows = []
    for name in dict.fromkeys(area.tolist()):
        here = area == name
        rows.append(
            [
                html.escape(name),
                f"{here.sum() - failed[here].sum():,} of {here.sum():,}",
                number(float(np.median(values["rounds"][here]))),
                number(float(np.median(values["slots"][here]))),
                number(float(values["sent_bytes"][here].mean() / 1e3)),
                number(float(np.median(values["solve_s"][here]) * 1e3)),
            ]
        )
    header = [
        "area",
        "agreed",
        "rounds, median",
        "slots, median",
        "sent [kB a clearing]",
        "own work, median [ms]",
    ]
    return rows_html(header, rows)


def _finding(t_s: np.ndarray, area: np.ndarray, values: dict[str, np.ndarray], failed: np.ndarray) -> str:
    count, clearings = len(set(area.tolist())), len(np.unique(t_s))
    lost = len(np.unique(t_s[failed]))
    text = f"{count} areas never agree"
    if not failed.all():
        text = f"{count} areas agree in {number(float(np.median(values['rounds'][~failed])))} rounds in the median"
    if lost:
        text += f"; {lost} of {clearings} clearings fail"
    return text + ". Bids, costs and flows stay within an area: only border values are sent"
