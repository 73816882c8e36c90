"""The look of the report: colours by quantity, clock axes, figures as HTML, readable numbers."""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
INK, MUTED, GRID = "#22303c", "#66737f", "#e6eaee"
ACCENT = "#1f5fa8"
COLOR = {
    "import": ACCENT,
    "scheduled": "#7f93a8",
    "demand": "#3d4852",
    "base": "#a9b4bf",
    "hvac": "#c8643a",
    "water_heater": "#8b6bb1",
    "ev": "#2f9c95",
    "battery": "#3f8f5b",
    "pv": "#e3aa1f",
    "generator": "#7d8b2e",
    "losses": "#a8434b",
    "wholesale": "#7f8c98",
    "dlmp": ACCENT,
    "tariff": "#c8643a",
    "retail": "#3d4852",
    "curtailment": "#8b6bb1",
    "limit": "#b03a3a",
}
PHASE_COLOR = {"a": "#b4453c", "b": "#2f7d4f", "c": "#2b5fa8"}
CASE_COLORS = (ACCENT, "#c8643a", "#3f8f5b", "#8b6bb1", "#e3aa1f", "#2f9c95", "#a8434b", "#3d4852")
VOLTAGE_SCALE = (
    (0.0, "#7a2d8f"),
    (0.0833, "#3b6fb6"),
    (0.5, "#e9ecef"),
    (0.9167, "#d97a3a"),
    (1.0, "#a11d2b"),
)
"""Voltage from 0.94 to 1.06 p.u.: near white at 1, the outermost twelfths lie outside 0.95 to 1.05."""
PRICE_SCALE = (
    (0.0, "#f3e9c4"),
    (0.25, "#c5dcae"),
    (0.5, "#6bb59a"),
    (0.75, "#2c7f9b"),
    (1.0, "#1b2f66"),
)
SPREAD_SCALE = ((0.0, "#2b6f77"), (0.5, "#f0efe9"), (1.0, "#a3482c"))
MODEBAR = {"bgcolor": "rgba(0,0,0,0)", "color": "#b4bec7", "activecolor": ACCENT}
DAY_S = 86400


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the page. finding : the result in a sentence, computed from the data; body : HTML."""

    anchor: str
    title: str
    finding: str
    body: str


def absent(anchor: str, title: str, reason: str) -> Section:
    """Return a section that says in a sentence why it has nothing to show."""
    return Section(anchor, title, "", f'<p class="absent">{html.escape(reason)}</p>')


def clock(t_s: float) -> str:
    """Simulated clock time HH:MM; days after the first carry their number."""
    if t_s == DAY_S:
        return "24:00"
    day, rest = divmod(int(t_s), DAY_S)
    text = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}"
    return text if day == 0 else f"day {day + 1} {text}"


def number(value: float, digits: int = 3) -> str:
    """Write a number with about this many significant digits, thousands set apart: 12,345, 0.0637."""
    if not np.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 100 or value == 0:
        return f"{value:,.0f}".replace("-", "−")
    if size < 1e-4:
        mantissa, _, exponent = f"{value:.{digits - 2}e}".partition("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    decimals = max(digits - 1 - int(np.floor(np.log10(size))), 0)
    return f"{value:,.{decimals}f}".replace("-", "−")


def money(value: float) -> str:
    """Write an amount of $ to the cent."""
    return f"{round(value, 2) + 0.0:,.2f}".replace("-", "−")


def share(part: float, whole: float) -> str:
    """Write part of whole in per cent."""
    return f"{100 * part / whole:.0f} %" if whole else "–"


def rate(part: float) -> str:
    """Write a share of one in per cent with about three significant digits: 0.00710 %, 1.25 %."""
    return f"{number(100 * part)}\u00a0%"


def stamp(t_s: float) -> str:
    """Date-time text that the figures' clock axes understand; the run starts on day 1."""
    day, rest = divmod(int(t_s), DAY_S)
    return f"2000-01-{1 + day:02d}T{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"


def percent(ratio: float, digits: int = 0) -> str:
    """Write a relative change with its sign: +37 %."""
    return f"{100 * ratio:+.{digits}f} %".replace("-", "−")


def spaced(t_s: NDArray[np.int64]) -> dict[str, object]:
    """Start and step of an even time grid, in place of its list of times."""
    step_s = int(t_s[1] - t_s[0]) if len(t_s) > 1 else 60
    return {"x0": stamp(t_s[0]), "dx": step_s * 1000}


def small(values: ArrayLike) -> NDArray[np.float32]:
    """Single precision: plenty for a picture and half the size."""
    return np.asarray(values, dtype=np.float32)


def line(name: str, t_s: NDArray[np.int64], y: ArrayLike, color: str, **options: object) -> go.Scatter:
    """A line over simulated time; unit and format of the hover text come from `hover`."""
    hover = options.pop("hover", "%{y:,.0f} kW")
    style = {"color": color, "width": options.pop("width", 1.8), "dash": options.pop("dash", "solid")}
    if options.pop("step", False):
        style["shape"] = "hv"
    return go.Scatter(
        name=name, y=small(y), mode="lines", line=style, hovertemplate=f"{hover}", **spaced(t_s), **options
    )


def band(
    name: str, t_s: NDArray[np.int64], low: ArrayLike, high: ArrayLike, color: str, **options: object
) -> list[go.Scatter]:
    """A shaded band between two lines over simulated time; step: each value holds until the next."""
    look = {"width": 0, "shape": "hv" if options.pop("step", False) else "linear"}
    quiet = {"mode": "lines", "line": look, "hoverinfo": "skip", **spaced(t_s), **options}
    fill = faded(color, 0.18)
    return [
        go.Scatter(y=small(low), **(quiet | {"showlegend": False})),
        go.Scatter(y=small(high), fill="tonexty", fillcolor=fill, name=name, **quiet),
    ]


def area(
    name: str, t_s: NDArray[np.int64], y: ArrayLike, color: str, stack: str, **options: object
) -> go.Scatter:
    """One layer of stacked areas over simulated time; stack names the pile; step: each value holds until the next."""
    edge = (
        {"mode": "lines", "line": {"width": 0.6, "color": color, "shape": "hv"}}
        if options.pop("step", False)
        else {"mode": "none"}
    )
    return go.Scatter(
        name=name,
        y=small(y),
        stackgroup=stack,
        fillcolor=faded(color, 0.75),
        hovertemplate=options.pop("hover", "%{y:,.0f} kW"),
        **edge,
        **spaced(t_s),
        **options,
    )


def faded(color: str, opacity: float) -> str:
    """A colour of the palette, made translucent."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def dress(figure: go.Figure, height: int, y_title: str = "", *, span_s: float = DAY_S) -> go.Figure:
    """Give a figure the report's fonts, margins, grid and clock axis. span_s : simulated time shown."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 64, "r": 24, "t": 36, "b": 40},
        font={"family": FONT, "size": 13, "color": INK},
        legend={
            "orientation": "h",
            "traceorder": "normal",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 12.5},
        },
        hovermode="x unified",
        modebar=MODEBAR,
        hoverlabel={"font": {"family": FONT, "size": 12.5}},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    ticks = "%H:%M" if span_s <= 1.1 * DAY_S else "day %-d<br>%H:%M"
    figure.update_annotations(font={"size": 13, "color": INK})
    figure.update_xaxes(
        type="date",
        tickformat=ticks,
        hoverformat=ticks.replace("<br>", " "),
        gridcolor=GRID,
        zeroline=False,
        linecolor="#c3ccd4",
        ticks="outside",
        tickcolor="#c3ccd4",
        tickfont={"color": MUTED},
    )
    figure.update_yaxes(
        gridcolor=GRID,
        zeroline=True,
        zerolinecolor="#b8c2cb",
        zerolinewidth=1,
        tickfont={"color": MUTED},
        title_font={"size": 12.5, "color": MUTED},
        title_standoff=8,
        separatethousands=True,
    )
    if y_title:
        figure.update_layout(yaxis_title_text=y_title)
    return figure


def embed(figure: go.Figure, anchor: str) -> str:
    """HTML that report.js turns into the drawn figure."""
    height = figure.layout.height
    data = (figure.to_json() or "").replace("</", "<\\/")
    return (
        f'<div class="figure" id="{anchor}" style="height:{height}px"></div>'
        f'<script type="application/json" class="figure-data" data-for="{anchor}">{data}</script>'
    )


def rows_html(header: list[str], rows: list[list[str]], *, numeric_from: int = 1, css: str = "") -> str:
    """An HTML table; cells are HTML already. Columns from `numeric_from` on are right-aligned."""

    def cells(tag: str, row: list[str]) -> str:
        return "".join(
            f"<{tag}{' class=num' if i >= numeric_from else ''}>{cell}</{tag}>" for i, cell in enumerate(row)
        )

    head = f"<thead><tr>{cells('th', header)}</tr></thead>" if header else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<table class="{css}">{head}<tbody>{body}</tbody></table>'
