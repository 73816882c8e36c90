"""The attack, its detection and what the market does about it, on one time axis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from voltier.scenarios.report.energy import import_kw
from voltier.scenarios.report.panel import Array, Panel
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    COLOR,
    INK,
    Section,
    absent,
    clock,
    dress,
    embed,
    line,
    number,
    percent,
    stamp,
)

ACTS = {
    "attack": ("attack", "#b03a3a"),
    "alarm": ("alarm", "#c98a1b"),
    "mitigation": ("mitigation", "#2f7d4f"),
    "attack-over": ("attack over", "#7b8794"),
    "recovery": ("recovery", "#1f5fa8"),
    "all-clear": ("all clear", "#1f5fa8"),
}
ENDS = ("attack-over", "recovery", "all-clear")
BEFORE_S, AFTER_S = 3600, 3600
TOP_PX, LABEL_PX = 104, 15
"""Room above a marked figure, and the height of one of the three rows of labels in it."""
WINDOW_S = 900
"""Time over which a level of import is averaged."""


@dataclass(frozen=True, slots=True)
class Act:
    """A step of the story: kind of event, when, and what the log says."""

    kind: str
    t_s: int
    text: str


def acts(run: Run) -> list[Act]:
    """First event of each kind that belongs to an attack, in order of time."""
    table = run.table("events")
    if table is None:
        return []
    first: dict[str, Act] = {}
    for event in table.sort_by("t_s").select(["t_s", "kind", "text"]).to_pylist():
        if event["kind"] in ACTS:
            first.setdefault(event["kind"], Act(event["kind"], int(event["t_s"]), event["text"]))
    return sorted(first.values(), key=lambda act: act.t_s)


def happened(story: list[Act]) -> bool:
    """Say whether there was an attack."""
    return any(act.kind == "attack" for act in story)


def section(run: Run) -> Section | None:
    """Import, generation and curtailment around the attack; None when there was no attack."""
    story = acts(run)
    if not happened(story):
        return None
    imported = import_kw(run)
    if imported is None:
        return absent("attack", "Attack", "The run logged an attack but wrote no substation table.")
    start_s = next(act.t_s for act in story if act.kind == "attack")
    window = (start_s - BEFORE_S, max(act.t_s for act in story) + AFTER_S)
    measured = Panel(imported[0], ("feeder",), {"import": imported[1][:, None]}).between(*window)
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.55, 0.45], vertical_spacing=0.09)
    figure.add_trace(line("import", measured.t_s, measured["import"][:, 0], COLOR["import"], width=2.4), 1, 1)
    for row, trace in _others(run, window):
        figure.add_trace(trace, row, 1)
    dress(figure, 500, span_s=float(measured.t_s[-1] - measured.t_s[0]))
    figure.update_yaxes(title_text="import [kW]", row=1, col=1)
    figure.update_yaxes(title_text="answer [kW]", row=2, col=1)
    mark(figure, story)
    return Section(
        "attack", "Attack timeline", _finding(run, measured, story), embed(figure, "attack-figure")
    )


def curtailed_kw(secondary: Panel) -> Array:
    """Load that the agents give up against their own plans, summed over agents that move up: (n_t,)."""
    return np.nansum(np.maximum(secondary["p_kw"] - secondary["p0_kw"], 0.0), axis=1)


def _others(run: Run, window: tuple[float, float]) -> list[tuple[int, go.Scatter]]:
    traces = []
    system, primary, secondary = (
        run.panel("system"),
        run.panel("primary", "bus"),
        run.panel("secondary", "sma"),
    )
    if system is not None and "p_import_scheduled_kw" in system:
        part = system.between(*window)
        planned = part["p_import_scheduled_kw"][:, 0]
        traces.append(
            (1, line("scheduled import", part.t_s, planned, COLOR["scheduled"], dash="dot", step=True))
        )
    grid = run.panel("grid", "bus", "phase")
    if grid is not None and secondary is not None and "p_meter_kw" in secondary:
        part = _delivered(grid, secondary).between(*window)
        traces.append(
            (
                2,
                line(
                    "generators, delivered",
                    part.t_s,
                    part["kw"][:, 0],
                    COLOR["generator"],
                    step=True,
                    width=2.2,
                ),
            )
        )
    if primary is not None and "gen_kw" in primary:
        part = primary.between(*window)
        generated = part.total("gen_kw")
        traces.append(
            (2, line("generators, scheduled", part.t_s, generated, COLOR["generator"], step=True, dash="dot"))
        )
    if secondary is not None and "p0_kw" in secondary:
        part = secondary.between(*window)
        traces.append(
            (2, line("curtailment by SMAs", part.t_s, curtailed_kw(part), COLOR["curtailment"], width=2.2))
        )
    return traces


def _delivered(grid: Panel, secondary: Panel) -> Panel:
    """What the generators feed in: the injection into all buses less what the agents' meters saw."""
    t_s, in_grid, in_meter = np.intersect1d(grid.t_s, secondary.t_s, return_indices=True)
    generated = grid.total("p_kw")[in_grid] - secondary.total("p_meter_kw")[in_meter]
    return Panel(t_s, ("feeder",), {"kw": generated[:, None]})


def mark(figure: go.Figure, story: list[Act]) -> None:
    """Vertical lines through all panels; labels step up and down so that close ones do not overlap."""
    inner = figure.layout.height - TOP_PX - figure.layout.margin.b
    for i, act in enumerate(story):
        label, color = ACTS[act.kind]
        x = stamp(act.t_s)
        figure.add_shape(
            type="line",
            x0=x,
            x1=x,
            y0=0,
            y1=1,
            xref="x",
            yref="paper",
            line={"color": color, "width": 1.4, "dash": "dash"},
        )
        figure.add_annotation(
            x=x,
            y=1.0 + LABEL_PX * (i % 3) / inner,
            xref="x",
            yref="paper",
            text=f"{label} {clock(act.t_s)}",
            showarrow=False,
            yanchor="bottom",
            xanchor="left" if i == len(story) - 1 else "center",
            font={"color": color, "size": 12},
            bgcolor="rgba(255,255,255,0.8)",
            hovertext=act.text,
        )
    figure.update_layout(font_color=INK, legend={"y": 1.0 + 3.4 * LABEL_PX / inner}, margin={"t": TOP_PX})


def _finding(run: Run, measured: Panel, story: list[Act]) -> str:
    """How far the import rose, how soon it was noticed, where it ended up."""
    at = {act.kind: act.t_s for act in reversed(story)}
    answer_s = at.get("mitigation", at["attack"] + WINDOW_S)
    end_s = min((act.t_s for act in story if act.kind in ENDS), default=int(measured.t_s[-1]) + 60)
    before = _level(run, measured, "before", at["attack"] - WINDOW_S, at["attack"])
    attacked = _level(run, measured, "attacked", at["attack"], answer_s)
    text = (
        f"At {clock(at['attack'])} the attack lifts the import from {number(before)} to {number(attacked)} kW"
        f"{_against(before, attacked, 0)}"
    )
    if "alarm" not in at:
        return text + "; it raises no alarm"
    text += f"; the alarm comes {round((at['alarm'] - at['attack']) / 60)} min later"
    if "mitigation" not in at:
        return text
    late = _level(run, measured, "mitigated", max(answer_s, end_s - WINDOW_S), end_s)
    return f"{text} and the market brings it to {number(late)} kW{_against(before, late, 1)}"


def _level(run: Run, measured: Panel, state: str, from_s: float, to_s: float) -> float:
    """Mean import in a state: the run's own key figure, else the mean over the window."""
    known = run.kpis.get(f"attack.import_{state}_kw")
    return float(np.nanmean(measured.between(from_s, to_s)["import"])) if known is None else float(known)


def _against(before: float, now: float, digits: int) -> str:
    return f" ({percent(now / before - 1, digits)})" if before > 0 else ""
