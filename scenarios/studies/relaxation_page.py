"""The page of the study of the relaxation: losses by step, distance from the exact cost, time."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.subplots import make_subplots

from voltier.market.primary.current_injection.stages import StageResult
from voltier.scenarios.report.page import render
from voltier.scenarios.report.panel import Array
from voltier.scenarios.report.style import (
    ACCENT,
    CASE_COLORS,
    COLOR,
    INK,
    Section,
    dress,
    embed,
    number,
    rate,
    rows_html,
)

Found = Mapping[str, Sequence[StageResult]]

STEPS = {
    "not tightened": ("plain McCormick", "McCormick envelopes over ranges that were evaluated once"),
    "envelopes": ("closed-form ranges", "the same after closed-form tightening of all ranges"),
    "loss tangents": ("loss tangents", "and with tangents of the convex losses below the model's losses"),
    "cut-off": (
        "around the optimum",
        "and with ranges cut to what can cost less than the exact dispatch, the worst of them by probing",
    ),
    "cones": ("cones alone", "the semidefinite relaxation by itself, without the exact cost as a cut-off"),
    "exact": (
        "exact dispatch",
        "the search for an AC-exact dispatch, the only one of these that is a power flow",
    ),
}
"""Label and description of each step; a step that is not named here shows its own name."""
LINEAR_KW = 10.0
"""Losses beyond this are drawn on a logarithmic scale, to both sides."""
TICKS_KW = (-10000.0, -1000.0, -100.0, -10.0, 0.0, 10.0, 100.0, 1000.0)
MEASURES = (
    ("distance from the exact cost [%]", "gap", 100.0),
    ("mean mismatch of powers [%]", "mismatch", 100.0),
    ("time of the step [s]", "seconds", 1.0),
)
SMALLEST_SHOWN = 1e-4
"""Per cent or seconds; what is smaller stands at the lower edge of a logarithmic axis."""


def write_page(out: Path, found: Found, load: float) -> Path:
    """Write out/index.html; found : steps by feeder."""
    subtitle = f"spot loads times {load:g}, every load a bidder that may shed and generate, published taps"
    text = render(
        title="From McCormick envelopes to a power flow",
        subtitle=html.escape(subtitle),
        banner="",
        tiles="",
        sections=[_losses(found), _closeness(found), _table(found)],
    )
    path = out / "index.html"
    path.write_text(text, encoding="utf-8")
    return path


def _label(name: str) -> str:
    return STEPS.get(name, (name, ""))[0]


def _signed_log(kw: ArrayLike) -> Array:
    """Linear near zero, logarithmic far from it, to both sides."""
    value = np.asarray(kw, dtype=np.float64)
    return np.asarray(np.sign(value) * np.log10(1.0 + np.abs(value) / LINEAR_KW))


def _losses(found: Found) -> Section:
    """Bars of each step's losses; below zero the model makes power out of nothing."""
    figure = make_subplots(
        1, len(found), shared_yaxes=True, horizontal_spacing=0.03,
        subplot_titles=[f"{name}: {number(stages[-1].loss_kw)} kW are lost" for name, stages in found.items()],
    )  # fmt: skip
    for column, stages in enumerate(found.values(), start=1):
        loss_kw = np.array([stage.loss_kw for stage in stages])
        bars = go.Bar(
            x=[_label(stage.name) for stage in stages], y=_signed_log(loss_kw),
            text=[number(x) for x in loss_kw.tolist()], textposition="outside", cliponaxis=False, constraintext="none",
            marker={"color": [COLOR["losses"] if x < 0.0 else ACCENT for x in loss_kw.tolist()]},
            customdata=loss_kw, hovertemplate="%{x}: %{customdata:,.2f} kW<extra></extra>", showlegend=False,
        )  # fmt: skip
        figure.add_trace(bars, 1, column)
        true = float(_signed_log(loss_kw[-1]))
        figure.add_hline(y=true, line={"color": INK, "dash": "dash", "width": 1.2}, row=1, col=column)
    dress(figure, 470)
    figure.update_xaxes(type="category", tickformat=None, hoverformat=None, tickangle=-35, showgrid=False)
    every = np.array([stage.loss_kw for stages in found.values() for stage in stages])
    reach = _signed_log([min(0.0, np.nanmin(every)), np.nanmax(every)])
    ticks = [t for t in TICKS_KW if reach[0] - 0.5 <= _signed_log(t) <= reach[1] + 0.3]
    figure.update_yaxes(
        tickvals=_signed_log(ticks),
        ticktext=[f"{t:,.0f}" for t in ticks],
        range=[reach[0] - 0.35, reach[1] + 0.35],
    )
    figure.update_yaxes(title_text="losses in the step's model [kW]", col=1)
    figure.update_layout(hovermode="closest", margin={"t": 40, "b": 110}, bargap=0.35)
    note = (
        '<p class="note">Dashed: the losses of the exact dispatch. The scale is logarithmic beyond '
        f"{LINEAR_KW:g} kW to both sides. Below zero a model creates power in the wires.</p>"
    )
    return Section("losses", "Losses by step", _loss_finding(found), embed(figure, "losses-figure") + note)


def _loss_finding(found: Found) -> str:
    texts = []
    for name, stages in found.items():
        steps = " → ".join(number(stage.loss_kw) for stage in stages if stage.name != "cones")
        texts.append(f"{name}: {steps}")
    return "Losses [kW] from the plain envelopes to the exact dispatch, " + "; ".join(texts)


def _closeness(found: Found) -> Section:
    """Gap, mismatch and time of each step, a line for each feeder."""
    figure = make_subplots(
        1, len(MEASURES), horizontal_spacing=0.07, subplot_titles=[title for title, *_ in MEASURES]
    )
    for column, (_, field, factor) in enumerate(MEASURES, start=1):
        for i, (name, stages) in enumerate(found.items()):
            shown = [stage for stage in stages if field == "seconds" or stage.name != "exact"]
            values = np.array([factor * getattr(stage, field) for stage in shown])
            trace = go.Scatter(
                x=[_label(stage.name) for stage in shown], y=np.maximum(values, SMALLEST_SHOWN), name=name,
                legendgroup=name, showlegend=column == 1, mode="lines+markers", customdata=values,
                line={"color": CASE_COLORS[i], "width": 2}, marker={"size": 8},
                hovertemplate=f"{name}, %{{x}}: %{{customdata:.4g}}<extra></extra>",
            )  # fmt: skip
            figure.add_trace(trace, 1, column)
    dress(figure, 440)
    order = [_label(stage.name) for stage in max(found.values(), key=len)]
    figure.update_xaxes(
        type="category", tickformat=None, hoverformat=None, tickangle=-35, categoryorder="array",
        categoryarray=order,
    )  # fmt: skip
    figure.update_yaxes(type="log", exponentformat="none", zeroline=False, dtick=1, separatethousands=False)
    figure.update_layout(hovermode="closest", margin={"l": 84, "t": 70, "b": 110}, legend={"y": 1.1})
    last = {name: _bound(stages) for name, stages in found.items()}
    finding = "The best bound is below the exact cost by " + ", ".join(
        f"{rate(stage.gap)} on {name}" for name, stage in last.items()
    )
    note = (
        '<p class="note">The mismatch compares the power that a terminal is to inject with the product of its voltage '
        "and current, before any recovery.</p>"
    )
    return Section(
        "closeness", "Distance and time by step", finding, embed(figure, "closeness-figure") + note
    )


def _bound(stages: Sequence[StageResult]) -> StageResult:
    return max((stage for stage in stages if stage.name != "exact"), key=lambda stage: stage.bound_usd_per_h)


def _table(found: Found) -> Section:
    header = [
        "feeder",
        "step",
        "losses [kW]",
        "bound or cost [$/h]",
        "gap",
        "mismatch",
        "programs",
        "time [s]",
    ]
    rows = [
        [
            html.escape(name),
            f'<span title="{html.escape(STEPS.get(stage.name, ("", ""))[1])}">{html.escape(_label(stage.name))}</span>',
            f"{stage.loss_kw:,.2f}".replace("-", "−"),
            f"{stage.bound_usd_per_h:,.3f}",
            rate(stage.gap),
            rate(stage.mismatch),
            f"{stage.programs:d}" if stage.programs else "",
            number(stage.seconds),
        ]
        for name, stages in found.items()
        for stage in stages
    ]
    described = "".join(f"<li><b>{label}</b>: {text}</li>" for label, text in STEPS.values())
    body = rows_html(header, rows, numeric_from=2, css="cases") + f'<ul class="note">{described}</ul>'
    return Section("steps", "All figures", "", body)
