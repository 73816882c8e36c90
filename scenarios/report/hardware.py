"""Runs that follow the wall clock: how late operators were, and how devices outside followed the market."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    ACCENT,
    CASE_COLORS,
    COLOR,
    Section,
    dress,
    embed,
    number,
    rows_html,
    small,
    stamp,
)


def section(run: Run) -> Section | None:
    """Lag of every instant, power asked for and measured, dead times; None for a run that follows no clock."""
    realtime = run.table("realtime")
    if realtime is None or not len(realtime):
        return None
    lag, hardware = realtime.to_pandas(), run.table("hardware")
    devices = None if hardware is None or not len(hardware) else hardware.to_pandas()
    body = embed(_figure(lag, devices), "hardware-figure") + (_table(devices) if devices is not None else "")
    return Section("hardware", "The wall clock, and devices outside", _finding(run, lag, devices), body)


def _figure(lag: pd.DataFrame, devices: pd.DataFrame | None) -> go.Figure:
    titles = ["later than due [ms]"]
    if devices is not None:
        titles += ["devices outside, injection together [kW]", "clearing to measured change [s]"]
    figure = make_subplots(1, len(titles), subplot_titles=titles, horizontal_spacing=0.08)
    for k, (name, here) in enumerate(lag.groupby("operator")):
        color = CASE_COLORS[k % len(CASE_COLORS)]
        figure.add_trace(_points(str(name), here.t_s, here.lag_ms, color, "markers"), 1, 1)
    figure.update_yaxes(type="log", row=1, col=1)
    if devices is not None:
        together = devices.groupby("t_s")[["set_kw", "measured_kw"]].sum(min_count=1)
        for column, label, color in (
            ("set_kw", "asked for", COLOR["losses"]),
            ("measured_kw", "measured", ACCENT),
        ):
            figure.add_trace(_points(label, together.index, together[column], color, "lines+markers"), 1, 2)
        dead = devices.dropna(subset="dead_time_s")
        figure.add_trace(_points("dead time", dead.t_s, dead.dead_time_s, CASE_COLORS[2], "markers"), 1, 3)
        figure.update_yaxes(rangemode="tozero", row=1, col=3)
    dress(figure, 340, span_s=float(lag.t_s.max() - lag.t_s.min()))
    figure.update_layout(margin={"t": 56, "l": 56}, legend={"y": 1.18})
    return figure


def _points(name: str, t_s: pd.Index | pd.Series, y: pd.Series, color: str, mode: str) -> go.Scatter:
    x, marker = [stamp(t) for t in t_s], {"size": 5, "color": color}
    return go.Scatter(name=name, x=x, y=small(y.to_numpy()), mode=mode, marker=marker, line={"width": 1})


def _table(devices: pd.DataFrame) -> str:
    rows = []
    for (house, kind), here in devices.groupby(["house", "device"], sort=False):
        error_kw, dead_s = (here.measured_kw - here.set_kw).abs().mean(), here.dead_time_s.dropna()
        dead = [number(float(dead_s.median())), number(float(dead_s.max()))] if len(dead_s) else ["–", "–"]
        rows.append(
            [
                html.escape(f"{house}, {kind}"),
                number(float(here.measured_kw.mean())),
                number(float(error_kw)),
                str(len(dead_s)),
                *dead,
                number(float(here.age_s.max())),
            ]
        )
    header = [
        "device",
        "mean injection [kW]",
        "mean error [kW]",
        "changes seen",
        "dead time, median [s]",
        "longest [s]",
        "oldest reading [s]",
    ]
    return rows_html(header, rows)


def _finding(run: Run, lag: pd.DataFrame, devices: pd.DataFrame | None) -> str:
    factor = float(run.setting("federation", "realtime"))
    p99 = float(np.percentile(lag.lag_ms, 99.0))
    text = f"At {number(factor)} simulated seconds a second, operators act {number(p99)} ms late at the 99th percentile"
    if devices is None:
        return text
    dead_s = devices.dead_time_s.dropna()
    count = devices.groupby(["house", "device"]).ngroups
    if not len(dead_s):
        return f"{text}; {count} devices outside, no change of power was asked for and seen"
    late = int((dead_s > 60.0).sum())
    within = "all within a minute" if not late else f"{late} of {len(dead_s)} later than a minute"
    return (
        f"{text}; {count} devices outside follow the market in {number(float(dead_s.median()))} s, {within}"
    )
