"""What the price of one node and phase is made of over the day, any of them by drop-down."""

from __future__ import annotations

import html
import json

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from voltier.scenarios.report.panel import Array, Panel
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    ACCENT,
    INK,
    Section,
    absent,
    area,
    clock,
    dress,
    embed,
    line,
    number,
    share,
)

PARTS: dict[str, tuple[str, str]] = {
    "energy": ("energy", "#9fb4c9"),
    "loss": ("losses", "#a8434b"),
    "load_response": ("response of loads", "#7d8b2e"),
    "voltage": ("voltage limits", "#8b6bb1"),
    "congestion": ("congestion", "#c8643a"),
    "regulation": ("voltage regulation", "#2f9c95"),
}
"""Parts of a price in the order in which they are stacked: label and colour."""
SIDES = (("", "usd_per_kwh", "$/kWh"), ("_q", "usd_per_kvarh", "$/kvarh"))
"""Active and reactive price: infix and unit of their columns, unit as shown."""
LONG_S, MIDDLE_S = 6 * 3600, 2 * 3600
NEGLIGIBLE = 1e-9


def section(run: Run) -> Section | None:
    """Active price as stacked areas, reactive price below it; None where no market priced each phase."""
    table = run.table("dlmp")
    if table is None:
        return None
    title = "What a node's price is made of"
    panel = run.panel("dlmp", "bus", "phase")
    if panel is None or not parts_of(panel, *SIDES[0][:2]):
        return absent("price-stack", title, "The table of prices by phase lacks their parts.")
    panel = priced(panel)
    if not panel.names:
        return absent("price-stack", title, "No clearing of this run has prices.")
    thin = panel.thin(step_s(panel)).held()
    first = _widest(thin)
    series = [values for _, values in _series(thin)]
    figure = _figure(thin, [values[:, first] for values in series])
    options = "".join(
        f'<option value="{i}"{" selected" if i == first else ""}>bus {html.escape(name)}</option>'
        for i, name in enumerate(thin.names)
    )
    data = json.dumps([_compact(values) for values in series], separators=(",", ":"))
    every = {3600: "an hour", 900: "a quarter of an hour"}.get(
        step_s(panel), f"{step_s(panel) // 60} minutes"
    )
    body = (
        f'<p class="controls"><label>Node <select id="stack-choice">{options}</select></label></p>'
        + embed(figure, "price-stack-figure")
        + f'<script type="application/json" id="stack-data">{data}</script>'
        + f'<p class="note">Means over {every}. Parts below zero lower the price; the line is their sum.'
        + f"{_bundled(panel)}</p>"
    )
    return Section("price-stack", title, _finding(panel), body)


def parts_of(panel: Panel, infix: str, unit: str) -> list[str]:
    """Parts of a price that the table has, in the order of PARTS."""
    return [part for part in PARTS if f"{part}{infix}_{unit}" in panel]


def priced(panel: Panel) -> Panel:
    """Keep the nodes that ever have a price; those that nothing feeds have none."""
    keep = np.flatnonzero(np.isfinite(panel["dlmp_usd_per_kwh"]).any(axis=0))
    values = {name: column[:, keep] for name, column in panel.values.items()}
    return Panel(panel.t_s, tuple(panel.names[i] for i in keep), values)


def step_s(panel: Panel) -> int:
    """Length of a step of the picture: an hour for a day, shorter for a few hours."""
    span_s = panel.t_s[-1] - panel.t_s[0]
    period_s = int(np.median(np.diff(panel.t_s))) if len(panel.t_s) > 1 else 300
    return max(period_s, 3600 if span_s > LONG_S else 900 if span_s > MIDDLE_S else 300)


def _widest(panel: Panel) -> int:
    """Position of the node whose price has most of other parts than energy, on average."""
    parts = [part for part in parts_of(panel, *SIDES[0][:2]) if part != "energy"]
    other = sum(np.abs(panel[f"{part}_usd_per_kwh"]) for part in parts)
    return int(np.argmax(np.nan_to_num(np.atleast_2d(other)).mean(axis=0)))


def _series(panel: Panel) -> list[tuple[str, Array]]:
    """What the figure shows, by trace: for each side its parts above zero, below zero, and the price itself."""
    shown: list[tuple[str, Array]] = []
    for infix, unit, _ in SIDES:
        parts = parts_of(panel, infix, unit)
        for bound in (np.maximum, np.minimum):
            shown += [(part, bound(panel[f"{part}{infix}_{unit}"], 0.0)) for part in parts]
        shown.append(("total", panel[f"dlmp{infix}_{unit}"]))
    return shown


def _figure(panel: Panel, values: list[Array]) -> go.Figure:
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.66, 0.34], vertical_spacing=0.06)
    rest = iter(values)
    for row, (infix, unit, shown) in enumerate(SIDES, start=1):
        parts = parts_of(panel, infix, unit)
        for side in ("above", "below"):
            for part in parts:
                name, color = PARTS[part]
                trace = area(
                    name, panel.t_s, next(rest), color, f"{row}-{side}", step=True, legendgroup=part,
                    # Both halves of a part are one entry of the legend; the lower figure has the same parts.
                    showlegend=row == 1 and side == "above", hover=f"{name} %{{y:.5f}} {shown}<extra></extra>",
                )  # fmt: skip
                figure.add_trace(trace, row, 1)
        total = line(
            "price", panel.t_s, next(rest), INK if parts else ACCENT,
            hover=f"price %{{y:.5f}} {shown}<extra></extra>", step=True, width=1.8, showlegend=row == 1,
        )  # fmt: skip
        figure.add_trace(total, row, 1)
    dress(figure, 520, span_s=float(panel.t_s[-1] - panel.t_s[0]))
    figure.update_layout(margin={"l": 84})
    figure.update_yaxes(title_text="active [$/kWh]", exponentformat="none", row=1, col=1)
    figure.update_yaxes(title_text="reactive [$/kvarh]", exponentformat="none", row=2, col=1)
    return figure


def _bundled(panel: Panel) -> str:
    """Say what operators pay in all, where the table has it; the median, as little energy makes large quotients."""
    if "bundled_usd_per_kwh" not in panel or not np.isfinite(panel["bundled_usd_per_kwh"]).any():
        return ""
    middle = float(np.nanmedian(panel["bundled_usd_per_kwh"]))
    return (
        " With reactive power and voltage support in the price of energy, "
        f"an operator would pay {number(middle)} $/kWh (median)."
    )


def _compact(values: Array) -> list[list[float | None]]:
    """By node and time, to 1e-6 $; NaN becomes null and zero stays short."""
    return [[round(x, 6) or 0 if np.isfinite(x) else None for x in column] for column in values.T.tolist()]


def _finding(panel: Panel) -> str:
    """Say what part of the price is energy, which other part is largest, and that the parts add up."""
    parts = parts_of(panel, *SIDES[0][:2])
    dlmp = panel["dlmp_usd_per_kwh"]
    mean = {part: float(np.nanmean(panel[f"{part}_usd_per_kwh"])) for part in parts}
    whole = float(np.nanmean(dlmp))
    text = f"Of a mean price of {number(whole)} $/kWh, "
    text += (
        f"{share(mean.get('energy', 0.0), whole)} is energy and {share(mean.get('loss', 0.0), whole)} losses"
    )
    others = {part: np.abs(panel[f"{part}_usd_per_kwh"]) for part in parts if part not in ("energy", "loss")}
    largest = max(others, key=lambda part: float(np.nanmax(others[part])), default=None)
    if largest is None or np.nanmax(others[largest]) < NEGLIGIBLE:
        return text + "; no limit binds anywhere"
    t, i = np.unravel_index(int(np.nanargmax(others[largest])), dlmp.shape)
    value = float(panel[f"{largest}_usd_per_kwh"][t, i])
    where = f"{panel.names[i]} at {clock(panel.t_s[t])}"
    return f"{text}; the part of {PARTS[largest][0]} reaches {number(value)} $/kWh, at {where}"
