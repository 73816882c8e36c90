"""The page of the study of voltage regulation: prices over the feeder and the day, voltages along it, sensitivity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from voltier.scenarios.report.along import distance_km
from voltier.scenarios.report.energy import import_kw, step_for
from voltier.scenarios.report.feeder_map import segments
from voltier.scenarios.report.key_figures import case_table
from voltier.scenarios.report.page import render
from voltier.scenarios.report.panel import Array, Panel
from voltier.scenarios.report.price_stack import priced
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    CASE_COLORS,
    COLOR,
    MUTED,
    PRICE_SCALE,
    SPREAD_SCALE,
    Section,
    absent,
    clock,
    dress,
    embed,
    number,
    small,
    stamp,
)
from voltier.scenarios.report.voltage import limits_pu
from voltier.scenarios.studies.cases import CaseKpis

PHASES = "abc"
DLMP = "dlmp_usd_per_kwh"
GROUPS = ("voltage.", "losses.", "energy.", "prices.")
MEASURES: tuple[tuple[str, str, float], ...] = (
    ("mean abs(V − 1) [p.u.]", "voltage.mean_abs_deviation_pu", 1.0),
    ("lowest voltage [p.u.]", "voltage.min_pu", 1.0),
    ("highest voltage [p.u.]", "voltage.max_pu", 1.0),
    ("largest unbalance [%]", "voltage.max_unbalance_share", 100.0),
    ("losses [kWh]", "losses.energy_kwh", 1.0),
    ("mean dLMP [$/kWh]", "prices.mean_dlmp_usd_per_kwh", 1.0),
)


def write_page(out: Path, runs: Mapping[str, Path], kpis: CaseKpis, base: str) -> Path:
    """Write out/voltage_regulation.html from the runs of the designs and the figures of all cases."""
    opened = {name: Run(path) for name, path in runs.items()}
    sections = [_figures(opened, kpis), *_heat_maps(opened), _profiles(opened)]
    sensitivity = _sensitivity(kpis, [name for name in kpis if name not in runs])
    sections += [] if sensitivity is None else [sensitivity]
    subtitle = "every phase cleared by itself: " + ", ".join(_words(name) for name in runs)
    text = render(
        title=f"Voltage regulation on {base}", subtitle=subtitle, banner="", tiles="", sections=sections
    )
    path = out / "voltage_regulation.html"
    path.write_text(text, encoding="utf-8")
    return path


def _figures(runs: Mapping[str, Run], kpis: CaseKpis) -> Section:
    shown = {
        name: {key: value for key, value in kpis[name].items() if key.startswith(GROUPS)} for name in runs
    }
    finding = "Mean distance from 1 p.u.: " + ", ".join(
        f"{number(float(kpis[name]['voltage.mean_abs_deviation_pu']))} with {_words(name)}" for name in runs
    )
    reference = next(iter(runs))
    return Section("designs", "Designs side by side", finding, case_table(shown, reference=reference))


def _words(case: str) -> str:
    return case.replace("_", " ")


# ---------------------------------------------------------------------- prices over space and time


def _heat_maps(runs: Mapping[str, Run]) -> list[Section]:
    """One section for each run that has prices by phase."""
    panels = {
        name: priced(panel.select([DLMP]))
        for name, run in runs.items()
        if (panel := run.panel("dlmp", "bus", "phase"))
    }
    if not panels:
        return [absent("dlmp", "dLMP over space and time", "No run wrote prices by phase.")]
    return [_heat_map(name, runs[name], panel.thin(_step_s(panel))) for name, panel in panels.items()]


def _step_s(panel: Panel) -> int:
    """Return the panel's own period for up to six hours, else a quarter of an hour at least."""
    return max(step_for(panel.t_s), 0 if panel.t_s[-1] - panel.t_s[0] <= 6 * 3600 else 900)


def _spread(dlmp: Array) -> Array:
    """Distance of each node's price from the mean of all nodes and phases at its time."""
    return np.asarray(dlmp - np.nanmean(dlmp, axis=1, keepdims=True))


def _heat_map(case: str, run: Run, panel: Panel) -> Section:
    """Price above, its distance from the feeder's mean below, a column for each phase."""
    feeder = run.feeder
    assert feeder is not None
    km = dict(zip(feeder.bus, distance_km(feeder), strict=True))
    figure = make_subplots(
        2, 3, shared_xaxes=True, vertical_spacing=0.06, horizontal_spacing=0.045,
        subplot_titles=[f"phase {phase}" for phase in PHASES],
    )  # fmt: skip
    # One more than there are columns: the edges of the cells.
    x = [stamp(t) for t in panel.held().t_s]
    for column, phase in enumerate(PHASES, start=1):
        rows = _by_distance(panel.names, phase, km)
        label = [f"{panel.names[i]} · {km[panel.names[i].rpartition('.')[0]]:.2f} km" for i in rows]
        for row, (values, axis) in enumerate(
            ((panel[DLMP], "coloraxis"), (_spread(panel[DLMP]), "coloraxis2")), start=1
        ):
            heat = go.Heatmap(
                x=x, y=label, z=small(values[:, rows].T), coloraxis=axis,
                hovertemplate="%{y}<br>%{x|%H:%M}: %{z:.4f} $/kWh<extra></extra>",
            )  # fmt: skip
            figure.add_trace(heat, row, column)
            ticks = _ticks(label)
            texts = [text.split("· ")[1].removesuffix(" km") for text in ticks]
            figure.update_yaxes(tickvals=ticks, ticktext=texts, row=row, col=column)
    dress(figure, 760, span_s=float(panel.t_s[-1] - panel.t_s[0]))
    bar = {"thickness": 12, "outlinewidth": 0, "len": 0.46, "exponentformat": "none"}
    low, high = (float(x) for x in np.nanpercentile(panel[DLMP], (0.5, 99.5)))
    half = float(np.nanpercentile(np.abs(_spread(panel[DLMP])), 99.0))
    level_bar = {**bar, "y": 0.77, "title": {"text": "$/kWh"}}
    spread_bar = {**bar, "y": 0.23, "title": {"text": "$/kWh"}}
    figure.update_layout(
        hovermode="closest",
        coloraxis={"colorscale": _scale(PRICE_SCALE), "cmin": low, "cmax": high, "colorbar": level_bar},
        coloraxis2={"colorscale": _scale(SPREAD_SCALE), "cmin": -half, "cmax": half, "colorbar": spread_bar},
    )  # fmt: skip
    figure.update_yaxes(showgrid=False, title_text="from the substation [km]", col=1)
    note = (
        '<p class="note">Rows are nodes, by length of wire from the substation. Above: the price; below: its '
        "distance from the mean of all nodes and phases at that time. Each case has colours of its own.</p>"
    )
    anchor = f"dlmp-{case.replace('_', '-')}"
    return Section(
        anchor,
        f"dLMP over space and time: {_words(case)}",
        _heat_finding(panel),
        embed(figure, f"{anchor}-figure") + note,
    )


def _scale(stops: Sequence[tuple[float, str]]) -> list[list[object]]:
    return [list(stop) for stop in stops]


def _by_distance(names: Sequence[str], phase: str, km: Mapping[str, float]) -> list[int]:
    """Positions of the nodes of a phase, nearest to the substation first; nodes out of reach are left out."""
    reached = [
        (km[bus], i)
        for i, name in enumerate(names)
        for bus, _, here in (name.rpartition("."),)
        if here == phase and np.isfinite(km.get(bus, np.nan))
    ]
    return [i for _, i in sorted(reached)]


def _ticks(label: Sequence[str]) -> list[str]:
    """Some six rows to write the distance at, the first and the last among them."""
    if not label:
        return []
    places = np.unique(np.linspace(0, len(label) - 1, 6).round().astype(int))
    return [label[i] for i in places]


def _heat_finding(panel: Panel) -> str:
    dlmp, spread = panel[DLMP], _spread(panel[DLMP])
    t, i = np.unravel_index(int(np.nanargmax(dlmp)), dlmp.shape)
    over_nodes = float(np.nanmean(np.nanmax(dlmp, axis=1) - np.nanmin(dlmp, axis=1)))
    by_phase = ", ".join(
        f"{number(1e3 * float(np.nanmean(spread[:, [n.endswith('.' + phase) for n in panel.names]])))} on {phase}"
        for phase in PHASES
    )
    return (
        f"dLMPs lie between {number(float(np.nanmin(dlmp)))} and {number(float(dlmp[t, i]))} $/kWh, the highest at "
        f"{panel.names[i]} at {clock(panel.t_s[t])}; at one time they differ by {number(over_nodes, 2)} $/kWh; "
        f"phases lie off the mean by {by_phase} $/MWh"
    )


# ---------------------------------------------------------------------- voltages along the feeder


def _profiles(runs: Mapping[str, Run]) -> Section:
    """Voltage of each phase against distance, where the import of the first run is highest and lowest."""
    title = "Voltages along the feeder"
    first = next(iter(runs.values()))
    imported = import_kw(first)
    if imported is None or first.feeder is None:
        return absent("profiles", title, "The runs wrote no substation table.")
    moments = {
        "highest": int(imported[0][np.nanargmax(imported[1])]),
        "lowest": int(imported[0][np.nanargmin(imported[1])]),
    }
    figure = make_subplots(
        2, 3, shared_xaxes=True, shared_yaxes=True, vertical_spacing=0.06, horizontal_spacing=0.02,
        subplot_titles=[f"phase {phase}" for phase in PHASES],
    )  # fmt: skip
    for i, (name, run) in enumerate(runs.items()):
        for row, t_s in enumerate(moments.values(), start=1):
            for column, (x, y) in enumerate(_profile(run, t_s), start=1):
                trace = go.Scatter(
                    x=x, y=y, mode="lines", name=_words(name), legendgroup=name, showlegend=row == column == 1,
                    line={"color": CASE_COLORS[i], "width": 1.5 if i else 4.0}, opacity=1.0 if i else 0.4,
                    hovertemplate="%{x:.2f} km: %{y:.4f} p.u.",
                )  # fmt: skip
                figure.add_trace(trace, row, column)
    dress(figure, 620)
    _plain_axis(figure)
    for limit in limits_pu(first):
        figure.add_hline(y=limit, line={"color": COLOR["limit"], "dash": "dash", "width": 1})
    figure.update_yaxes(zeroline=False, tickformat=".2f")
    for row, (word, t_s) in enumerate(moments.items(), start=1):
        figure.update_yaxes(title_text=f"{clock(t_s)}, {word} import [p.u.]", row=row, col=1)
    figure.update_xaxes(
        title_text="distance from the substation [km]", title_font={"size": 12.5, "color": MUTED}, row=2
    )
    figure.update_layout(hovermode="closest", margin={"t": 60, "b": 52}, legend={"y": 1.06})
    finding = f"At {clock(moments['highest'])}, the highest import of the first case, voltages lie within "
    finding += ", ".join(
        f"{_reach(run, moments['highest'])} p.u. with {_words(name)}" for name, run in runs.items()
    )
    return Section("profiles", title, finding, embed(figure, "profiles-figure"))


def _reach(run: Run, t_s: int) -> str:
    """Lowest and highest voltage at a time."""
    grid = run.panel("grid", "bus", "phase")
    assert grid is not None
    v_pu = grid.at(np.array([t_s]))["v_pu"]
    return f"{np.nanmin(v_pu):.3f}–{np.nanmax(v_pu):.3f}"


def _profile(run: Run, t_s: int) -> list[tuple[Array, Array]]:
    """Lines of distance and voltage along the closed branches, one pair for each phase."""
    feeder, grid = run.feeder, run.panel("grid", "bus", "phase")
    assert feeder is not None and grid is not None
    v_pu = dict(zip(grid.names, grid.at(np.array([t_s]))["v_pu"][0], strict=True))
    wires, km = segments(feeder), distance_km(feeder)
    lines = []
    for phase in PHASES:
        v = np.array([v_pu.get(f"{bus}.{phase}", np.nan) for bus in feeder.bus])
        here = np.isfinite(v[wires.start]) & np.isfinite(v[wires.stop])
        lines.append(wires.only(here).polyline(np.column_stack([km, v]), closed=True))
    return lines


# ---------------------------------------------------------------------- sensitivity


def _sensitivity(kpis: CaseKpis, names: Sequence[str]) -> Section | None:
    """Key figures against the level of size, a line for each kind of device."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kind, _, level = name.rpartition("_")
        if kind:
            kinds.setdefault(kind, []).append(level)
    if not kinds:
        return None
    reference = kpis[names[0] if not names[0].rpartition("_")[0] else "hierarchical"]
    figure = make_subplots(
        2, 3, vertical_spacing=0.16, horizontal_spacing=0.08, subplot_titles=[title for title, *_ in MEASURES]
    )
    for j, (_, key, factor) in enumerate(MEASURES):
        row, column = j // 3 + 1, j % 3 + 1
        for i, (kind, levels) in enumerate(kinds.items()):
            values = [kpis[f"{kind}_{level}"].get(key) for level in levels]
            trace = go.Scatter(
                x=levels, y=[None if value is None else factor * value for value in values], name=_kind(kind),
                legendgroup=kind, showlegend=j == 0, mode="lines+markers",
                line={"color": CASE_COLORS[i], "width": 2}, hovertemplate="%{y:.5g}",
            )  # fmt: skip
            figure.add_trace(trace, row, column)
        if reference.get(key) is not None:
            rule = {"color": MUTED, "dash": "dot", "width": 1.2}
            figure.add_hline(y=factor * reference[key], line=rule, row=row, col=column)
    dress(figure, 560)
    _plain_axis(figure, "category")
    figure.update_yaxes(zeroline=False)
    figure.update_layout(margin={"t": 76}, legend={"y": 1.08})
    base = float(reference["voltage.mean_abs_deviation_pu"])
    worst = max((f"{kind}_{level}" for kind, levels in kinds.items() for level in levels),
                key=lambda name: abs(float(kpis[name]["voltage.mean_abs_deviation_pu"]) - base))  # fmt: skip
    value = float(kpis[worst]["voltage.mean_abs_deviation_pu"])
    kind, _, level = worst.rpartition("_")
    finding = (
        f"The mean distance from 1 p.u. moves most with {_kind(kind)} of {level} size: "
        f"from {number(base)} to {number(value)} p.u."
    ).removesuffix(".")
    note = '<p class="note">Dotted: the fleet as the scenario has it, over the same hours.</p>'
    return Section(
        "sensitivity",
        "Sensitivity to the size of devices",
        finding,
        embed(figure, "sensitivity-figure") + note,
    )


def _kind(kind: str) -> str:
    return {"pv": "PV", "evs": "EVs"}.get(kind, _words(kind))


def _plain_axis(figure: go.Figure, kind: str = "linear") -> None:
    """Take back the clock that every figure of the report has below it."""
    figure.update_xaxes(type=kind, tickformat=None, hoverformat=None)
