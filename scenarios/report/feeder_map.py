"""The feeder drawn twice, coloured by voltage and by dLMP, with one time slider for both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from voltier.grid.errors import InputError
from voltier.grid.feeder import Feeder
from voltier.scenarios.report import voltage
from voltier.scenarios.report.energy import import_kw
from voltier.scenarios.report.panel import Array, Panel
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    FONT,
    INK,
    MODEBAR,
    PHASE_COLOR,
    PRICE_SCALE,
    SPREAD_SCALE,
    VOLTAGE_SCALE,
    Section,
    absent,
    clock,
    embed,
    number,
)

HOVER = "%{text}<extra></extra>"
MOST_FRAMES = 97
STEPS_S = (60, 300, 900, 1800, 3600, 7200, 14400, 86400)
EMPTY_BUS_PX, SMALLEST_PX, LARGEST_PX = 5.0, 7.0, 19.0


@dataclass(frozen=True, slots=True)
class Segments:
    """What connects the buses.

    start, stop : (n,) rows of the two ends ; closed : (n,) False for an open switch ; phases : (n, 3)
    """

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    closed: NDArray[np.bool_]
    phases: NDArray[np.bool_]

    def only(self, keep: NDArray[np.bool_]) -> Segments:
        """Keep some of the segments."""
        return Segments(self.start[keep], self.stop[keep], self.closed[keep], self.phases[keep])

    def towards(self, buses: NDArray[np.int64], source_bus: int) -> Segments:
        """Leave out wires and open switches that lead to none of these buses: bare ends, again and again."""
        kept = self
        n = int(max(self.start.max(initial=0), self.stop.max(initial=0))) + 1
        while True:
            on = kept.closed
            degree = np.bincount(np.concatenate([kept.start[on], kept.stop[on]]), minlength=n)
            bare = np.setdiff1d(np.flatnonzero(degree <= 1), [*buses, source_bus])
            loose = np.isin(kept.start, bare) | np.isin(kept.stop, bare)
            if not loose.any():
                return kept
            kept = kept.only(~loose)

    def polyline(self, xy: Array, *, closed: bool) -> tuple[Array, Array]:
        """Coordinates of the closed or the open segments in one line with gaps (NaN)."""
        here = self.closed == closed
        start, stop, gap = self.start[here], self.stop[here], np.full(int(here.sum()), np.nan)
        x = np.column_stack([xy[start, 0], xy[stop, 0], gap]).ravel()
        y = np.column_stack([xy[start, 1], xy[stop, 1], gap]).ravel()
        return x, y


def segments(feeder: Feeder) -> Segments:
    """Gather lines, transformers, switches and regulators (these once, not once a phase)."""
    closed: dict[tuple[int, int], bool] = {}
    phases: dict[tuple[int, int], NDArray[np.bool_]] = {}
    whole = np.ones((len(feeder.transformers.from_bus), 3), dtype=bool)
    regulated = np.arange(3) == feeder.regulators.phase[:, None]
    for table, carried, on in (
        (feeder.lines, feeder.lines.has_phase, None),
        (feeder.transformers, whole, None),
        (feeder.regulators, regulated, None),
        (feeder.switches, feeder.switches.has_phase, feeder.switches.closed),
    ):
        for i, pair in enumerate(zip(table.from_bus.tolist(), table.to_bus.tolist(), strict=True)):
            closed[pair] = True if on is None else bool(on[i])
            phases[pair] = phases.get(pair, np.zeros(3, dtype=bool)) | carried[i]
    ends = np.array(list(closed), dtype=np.int64).reshape(-1, 2)
    carries = np.array(list(phases.values()), dtype=bool).reshape(-1, 3)
    return Segments(ends[:, 0], ends[:, 1], np.array(list(closed.values()), dtype=bool), carries)


def marker_px(load_kw: Array) -> Array:
    """Diameter of a node by its mean load: area grows with the load."""
    largest = max(float(load_kw.max(initial=0.0)), 1e-9)
    return np.where(
        load_kw > 1e-6, SMALLEST_PX + (LARGEST_PX - SMALLEST_PX) * np.sqrt(load_kw / largest), EMPTY_BUS_PX
    )


def mean_load_kw(grid: Panel, buses: tuple[str, ...]) -> Array:
    """Mean magnitude of the net injection of each bus over the run: (n_bus,)."""
    total = _by_bus(grid, "p_kw", buses).sum(axis=2) if "p_kw" in grid else np.zeros((1, len(buses)))
    return np.abs(total).mean(axis=0)


def _by_bus(grid: Panel, column: str, buses: tuple[str, ...], absent_value: float = 0.0) -> Array:
    """Values by time, bus and phase: (n_t, n_bus, 3); absent phases hold absent_value."""
    row = {name: i for i, name in enumerate(buses)}
    out = np.full((len(grid.t_s), len(buses), 3), absent_value)
    for i, name in enumerate(grid.names):
        bus, _, phase = name.rpartition(".")
        if bus in row:
            out[:, row[bus], "abc".index(phase)] = grid[column][:, i]
    return out


def frame_times(t_s: NDArray[np.int64]) -> NDArray[np.int64]:
    """Times of the slider: at most 97, on round steps (15 minutes for a day)."""
    span = int(t_s[-1] - t_s[0])
    step = next(
        (s for s in STEPS_S if span // s + 1 <= MOST_FRAMES), max(STEPS_S[-1], span // MOST_FRAMES + 1)
    )
    return np.arange(-(-t_s[0] // step) * step, t_s[-1] + 1, step)


def section(run: Run) -> Section:
    """Both maps, drawn at the peak of import."""
    title, grid = "Feeder map", run.panel("grid", "bus", "phase")
    try:
        feeder = run.feeder
    except InputError as error:
        return absent("map", title, f"The feeder of this run cannot be read any more: {error}")
    if feeder is None or grid is None:
        return absent(
            "map", title, "A map needs the grid table and the scenario's feeder; this run has not both."
        )
    primary, by_phase = run.panel("primary", "bus"), run.panel("dlmp", "bus", "phase")
    times = frame_times(grid.t_s)
    data = _frames(grid, primary, by_phase, feeder, times)
    first = _first_frame(run, times)
    wires, load_kw = segments(feeder), mean_load_kw(grid, feeder.bus)
    everywhere = np.arange(len(feeder.bus))
    voltages = _map_figure(feeder, wires, marker_px(load_kw), _voltage_bar(), everywhere)
    maps = [f"<div><h3>Voltage</h3>{embed(voltages, 'map-voltage')}</div>"]
    if data["smo"]:
        smo = np.array(data["smo"])
        there = wires.towards(smo, feeder.source_bus)
        prices = _map_figure(feeder, there, marker_px(load_kw)[smo], _level_scale(data["dlmp"]), smo)
        maps.append(f"<div><h3>dLMP</h3>{embed(prices, 'map-dlmp')}</div>")
        data["scales"] = {"level": _level_scale(data["dlmp"]), "spread": _spread_scale(data["dlmp"])}
    body = (
        _controls(len(times), first, "dlmp_by" in data)
        + f'<div class="maps">{"".join(maps)}</div>'
        + f'<script type="application/json" id="map-data">{json.dumps(data)}</script>'
        + '<p class="note">Node size grows with mean net power; dashed: open switches; square: substation. '
        "A phase by itself shows the wires that carry it. The colour scales stay fixed over time.</p>"
    )
    return Section("map", title, _finding(run, grid, primary), body)


def _finding(run: Run, grid: Panel, primary: Panel | None) -> str:
    text = voltage.finding(grid, voltage.limits_pu(run)).split(":")[0]
    if primary is not None and "dlmp_usd_per_kwh" in primary:
        dlmp = primary["dlmp_usd_per_kwh"]
        spread = np.nanmax(dlmp, axis=1) - np.nanmin(dlmp, axis=1)
        widest = int(np.nanargmax(spread))
        text += (
            f"; dLMPs differ across the feeder by {number(float(np.nanmean(spread)), 2)} $/kWh on average, "
            f"by {number(float(spread[widest]), 2)} at most ({clock(primary.t_s[widest])})"
        )
    return text


def _first_frame(run: Run, times: NDArray[np.int64]) -> int:
    imported = import_kw(run)
    if imported is None:
        return 0
    peak_s = imported[0][int(np.nanargmax(imported[1]))]
    return int(np.clip(np.searchsorted(times, peak_s, side="right") - 1, 0, len(times) - 1))


def _frames(
    grid: Panel, primary: Panel | None, by_phase: Panel | None, feeder: Feeder, times: NDArray[np.int64]
) -> dict[str, Any]:
    """All that the slider needs: 1e-4 p.u. by phase, 0.1 kW by bus, 1e-5 $/kWh by priced bus, in whole numbers."""
    shot = grid.at(times)
    v_pu = _by_bus(shot, "v_pu", feeder.bus, np.nan)
    p_kw = _by_bus(shot, "p_kw", feeder.bus).sum(axis=2) if "p_kw" in shot else np.zeros(v_pu.shape[:2])
    prices: dict[str, Any] = {"smo": [], "dlmp": []}
    if by_phase is not None and "dlmp_usd_per_kwh" in by_phase:
        prices = _prices_by_phase(by_phase, feeder, times)
    elif primary is not None and "dlmp_usd_per_kwh" in primary:
        row = {name: i for i, name in enumerate(feeder.bus)}
        known = [i for i, name in enumerate(primary.names) if name in row]
        dlmp = primary.at(np.maximum(times, primary.t_s[0]))["dlmp_usd_per_kwh"][:, known]
        prices = {"smo": [row[primary.names[i]] for i in known], "dlmp": _whole(dlmp, 1e5)}
    return {
        "clock": [clock(t) for t in times],
        "bus": list(feeder.bus),
        "v": {phase: _whole(v_pu[:, :, k], 1e4) for k, phase in enumerate("abc")},
        "p": _whole(p_kw, 10),
        **prices,
    }


def _prices_by_phase(by_phase: Panel, feeder: Feeder, times: NDArray[np.int64]) -> dict[str, Any]:
    """Prices of the buses that ever have one: the mean of their phases, and each phase."""
    shot = by_phase.at(np.maximum(times, by_phase.t_s[0])).select(["dlmp_usd_per_kwh"])
    dlmp = _by_bus(shot, "dlmp_usd_per_kwh", feeder.bus, np.nan)
    bus = np.flatnonzero(np.isfinite(dlmp).any(axis=(0, 2)))
    dlmp = dlmp[:, bus]
    known = np.isfinite(dlmp)
    count = known.sum(axis=2)
    mean = np.where(count > 0, np.where(known, dlmp, 0.0).sum(axis=2) / np.maximum(count, 1), np.nan)
    return {
        "smo": bus.tolist(),
        "dlmp": _whole(mean, 1e5),
        "dlmp_by": {phase: _whole(dlmp[:, :, k], 1e5) for k, phase in enumerate("abc")},
    }


def _whole(values: Array, scale: float) -> list[list[int | None]]:
    return [[round(x * scale) if np.isfinite(x) else None for x in row] for row in values.tolist()]


def _voltage_bar() -> dict[str, Any]:
    ticks = [0.94, 0.95, 0.97, 1.0, 1.03, 1.05, 1.06]
    texts = ["0.94", "<b>0.95 limit</b>", "0.97", "1.00", "1.03", "<b>1.05 limit</b>", "1.06"]
    return {
        "cmin": 0.94,
        "cmax": 1.06,
        "colorscale": VOLTAGE_SCALE,
        "tickvals": ticks,
        "ticktext": texts,
        "unit": "p.u.",
    }


def _level_scale(dlmp: object) -> dict[str, Any]:
    """Colours by the price itself, over the range of the whole run."""
    values = np.array(dlmp, dtype=np.float64) / 1e5
    low, high = np.nanpercentile(values, (0.5, 99.5))
    middle, half = (low + high) / 2, max((high - low) / 2, 0.0005)
    return {"cmin": middle - half, "cmax": middle + half, "colorscale": PRICE_SCALE, "unit": "$/kWh"}


def _spread_scale(dlmp: object) -> dict[str, Any]:
    """Colours by the price's distance from the feeder's mean, over the range of the whole run."""
    values = np.array(dlmp, dtype=np.float64) / 1e5
    half = max(
        float(np.nanpercentile(np.abs(values - np.nanmean(values, axis=1, keepdims=True)), 99.5)), 0.0001
    )
    return {"cmin": -half, "cmax": half, "colorscale": SPREAD_SCALE, "unit": "$/kWh"}


def _map_figure(
    feeder: Feeder, wires: Segments, px: Array, bar: dict[str, Any], nodes: NDArray[np.int64]
) -> go.Figure:
    """Wires, open switches, the wires of each phase (hidden), nodes and the substation.

    feeder_map.js shows the wires of a phase and recolours the nodes, by the places of their traces.
    """
    x, y = wires.polyline(feeder.xy, closed=True)
    open_x, open_y = wires.polyline(feeder.xy, closed=False)
    wire = {"mode": "lines", "hoverinfo": "skip"}
    source = feeder.xy[feeder.source_bus]
    square = {"symbol": "square", "size": 13, "color": INK}
    names = [feeder.bus[i] for i in nodes]
    at = {"x": feeder.xy[nodes, 0], "y": feeder.xy[nodes, 1]}
    figure = go.Figure(
        [
            go.Scatter(x=x, y=y, line={"color": "#aeb8c1", "width": 1.6}, **wire),
            go.Scatter(x=open_x, y=open_y, line={"color": "#aeb8c1", "width": 1.4, "dash": "dot"}, **wire),
            *(_layer(feeder, wires, k) for k in range(3)),
            go.Scatter(**at, mode="markers", marker=_marker(px, bar), hovertemplate=HOVER, text=names),
            go.Scatter(
                x=source[:1],
                y=source[1:],
                mode="markers",
                marker=square,
                hovertemplate=HOVER,
                text=["substation"],
            ),
        ]
    )
    axis = {"visible": False}
    figure.update_layout(
        template="none",
        height=430,
        margin={"l": 4, "r": 4, "t": 8, "b": 4},
        font={"family": FONT, "size": 12, "color": INK},
        xaxis=axis,
        yaxis={**axis, "scaleanchor": "x", "scaleratio": 1},
        dragmode="pan",
        showlegend=False,
        modebar=MODEBAR,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    return figure


def _layer(feeder: Feeder, wires: Segments, k: int) -> go.Scatter:
    """Wires that carry a phase, in its colour."""
    x, y = wires.only(wires.phases[:, k]).polyline(feeder.xy, closed=True)
    look = {"color": PHASE_COLOR["abc"[k]], "width": 2.4}
    return go.Scatter(x=x, y=y, line=look, mode="lines", hoverinfo="skip", visible=False)


def _marker(px: Array, bar: dict[str, Any]) -> dict[str, Any]:
    """Look of the nodes and the colour bar beside them."""
    ticks = {key: bar[key] for key in ("tickvals", "ticktext") if key in bar}
    colorbar: dict[str, Any] = {
        "title": {"text": bar["unit"], "side": "top"},
        "thickness": 12,
        "len": 0.9,
        "outlinewidth": 0,
        "x": 1.0,
        "tickfont": {"size": 11},
    }
    return {
        "size": px,
        "color": np.zeros(len(px)),
        "cmin": bar["cmin"],
        "cmax": bar["cmax"],
        "line": {"color": "#5b6770", "width": 0.7},
        "colorscale": [list(stop) for stop in bar["colorscale"]],
        "colorbar": colorbar | ticks,
        "opacity": 1,
    }


def _controls(count: int, first: int, priced_by_phase: bool) -> str:
    choices = (
        ("mean", "mean of phases"),
        ("min", "lowest phase"),
        ("max", "highest phase"),
        ("a", "phase a"),
        ("b", "phase b"),
        ("c", "phase c"),
    )
    options = "".join(f'<option value="{value}">{text}</option>' for value, text in choices)
    what = "Voltage and dLMP" if priced_by_phase else "Voltage"
    return (
        '<p class="controls"><button id="map-play" type="button">Play</button>'
        f'<input id="map-time" type="range" min="0" max="{count - 1}" value="{first}" title="time">'
        '<output id="map-clock"></output>'
        f'<label>{what} <select id="map-phase">{options}</select></label>'
        '<label>dLMP <select id="map-price"><option value="level">level</option>'
        '<option value="spread">against the feeder\'s mean</option></select></label></p>'
    )
