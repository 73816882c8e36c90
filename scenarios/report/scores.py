"""Commitment scores of all SMAs over the day."""

from __future__ import annotations

import html

import numpy as np
import plotly.graph_objects as go

from voltier.scenarios.report.panel import Panel
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    Section,
    absent,
    dress,
    embed,
    rows_html,
    small,
    spaced,
)

SCALE = ((0, "#a11d2b"), (0.5, "#eab464"), (0.8, "#e8ecd0"), (1, "#1f7a6b"))
STEP_S = 900


def section(run: Run) -> Section:
    """Heat map of the commitment score, SMAs sorted by their last score; the best and the worst named."""
    panel = run.panel("secondary", "sma")
    if panel is None or "cs" not in panel:
        return absent("scores", "Commitment scores", "No secondary market ran, so nobody was scored.")
    last = np.array(
        [column[np.isfinite(column)][-1] if np.isfinite(column).any() else np.nan for column in panel["cs"].T]
    )
    order = np.argsort(last, kind="stable")
    thin = panel.select(["cs"]).thin(_step(panel))
    best, worst = order[np.isfinite(last[order])][-1], order[0]
    finding = (
        f"{panel.names[best]} ends with the highest score ({last[best]:.2f}), "
        f"{panel.names[worst]} with the lowest ({last[worst]:.2f})"
    )
    body = embed(_figure(thin, order), "scores-figure") + _extremes(panel, last, order)
    return Section("scores", "Commitment scores", finding, body)


def _step(panel: Panel) -> int:
    span_h = (panel.t_s[-1] - panel.t_s[0]) / 3600
    return 60 if span_h <= 2 else 300 if span_h <= 8 else STEP_S


def _figure(thin: Panel, order: np.ndarray) -> go.Figure:
    scores = thin["cs"][:, order].T
    figure = go.Figure(
        go.Heatmap(
            z=small(scores),
            zmin=0,
            zmax=1,
            colorscale=[list(stop) for stop in SCALE],
            y=[thin.names[i] for i in order],
            **spaced(thin.t_s),
            hovertemplate="%{y}, %{x|%H:%M}: score %{z:.3f}<extra></extra>",
            colorbar={"title": {"text": "score", "side": "top"}, "thickness": 14, "outlinewidth": 0},
        )
    )
    dress(figure, 400, f"{len(order)} SMAs, worst at the bottom", span_s=float(thin.t_s[-1] - thin.t_s[0]))
    figure.update_layout(hovermode="closest", margin={"t": 36})
    figure.update_yaxes(showticklabels=False, ticks="", showgrid=False, zeroline=False)
    return figure


def _extremes(panel: Panel, last: np.ndarray, order: np.ndarray) -> str:
    """Small tables of the five best and the five worst, with their mean score and trust."""
    known = order[np.isfinite(last[order])]
    means = {column: np.nanmean(panel[column], axis=0) for column in ("cs", "ts", "rs") if column in panel}

    def table(title: str, members: np.ndarray) -> str:
        header = [title, "last score", *(f"mean {column.upper()}" for column in means)]
        rows = [
            [html.escape(panel.names[i]), f"{last[i]:.3f}", *(f"{mean[i]:.3f}" for mean in means.values())]
            for i in members
        ]
        return f'<div class="card">{rows_html(header, rows)}</div>'

    count = min(5, len(known))
    note = '<p class="note">CS commitment score, TS trust score, RS resilience score; 1 is best.</p>'
    tables = table("best", known[::-1][:count]) + table("worst", known[:count])
    return f'<div class="cards two">{tables}</div>{note}'
