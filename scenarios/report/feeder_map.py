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
    """What connects the buses: rows of the two ends, and whether current can flow (False: an open switch)."""

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    closed: NDArray[np.bool_]

    def polyline(self, xy: Array, *, closed: bool) -> tuple[Array, Array]:
        """Coordinates of the closed or the open segments in one line with gaps (NaN)."""
        here = self.closed == closed
        start, stop, gap = self.start[here], self.stop[here], np.full(int(here.sum()), np.nan)
        x = np.column_stack([xy[start, 0], xy[stop, 0], gap]).ravel()
        y = np.column_stack([xy[start, 1], xy[stop, 1], gap]).ravel()
        return x, y


def segments(feeder: Feeder) -> Segments:
    """Gather lines, transformers, switches and regulators (these once, not once a phase)."""
    pairs = {
        (int(a), int(b)): True
        for table in (feeder.lines, feeder.transformers, feeder.regulators)
        for a, b in zip(table.from_bus, table.to_bus, strict=True)
    }
    switches = feeder.switches
    for a, b, closed in zip(switches.from_bus, switches.to_bus, switches.closed, strict=True):
        pairs[int(a), int(b)] = bool(closed)
    ends = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    return Segments(ends[:, 0], ends[:, 1], np.array(list(pairs.values()), dtype=bool))


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
    primary = run.panel("primary", "bus")
    times = frame_times(grid.t_s)
    data = _frames(grid, primary, feeder, times)
    first = _first_frame(run, times)
    wires, load_kw = segments(feeder), mean_load_kw(grid, feeder.bus)
    voltages = _map_figure(feeder, wires, marker_px(load_kw), _voltage_bar(), np.arange(len(feeder.bus)))
    maps = [f"<div><h3>Voltage</h3>{embed(voltages, 'map-voltage')}</div>"]
    if data["smo"]:
        smo = np.array(data["smo"])
        prices = _map_figure(feeder, wires, marker_px(load_kw)[smo], _level_scale(data["dlmp"]), smo)
        maps.append(f"<div><h3>dLMP</h3>{embed(prices, 'map-dlmp')}</div>")
        data["scales"] = {"level": _level_scale(data["dlmp"]), "spread": _spread_scale(data["dlmp"])}
    body = (
        _controls(len(times), first)
        + f'<div class="maps">{"".join(maps)}</div>'
        + f'<script type="application/json" id="map-data">{json.dumps(data)}</script>'
        + '<p class="note">Node size grows with mean net power; dashed: open switches; square: substation. '
        "The colour scales stay fixed over time.</p>"
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
    grid: Panel, primary: Panel | None, feeder: Feeder, times: NDArray[np.int64]
) -> dict[str, object]:
    """All that the slider needs: 1e-4 p.u. by phase, 0.1 kW by bus, 1e-5 $/kWh by SMO, in whole numbers."""
    shot = grid.at(times)
    v_pu = _by_bus(shot, "v_pu", feeder.bus, np.nan)
    p_kw = _by_bus(shot, "p_kw", feeder.bus).sum(axis=2) if "p_kw" in shot else np.zeros(v_pu.shape[:2])
    smo: list[int] = []
    dlmp: list[list[int | None]] = []
    if primary is not None and "dlmp_usd_per_kwh" in primary:
        row = {name: i for i, name in enumerate(feeder.bus)}
        known = [i for i, name in enumerate(primary.names) if name in row]
        smo = [row[primary.names[i]] for i in known]
        late = np.maximum(times, primary.t_s[0])
        dlmp = _whole(primary.at(late)["dlmp_usd_per_kwh"][:, known], 1e5)
    return {
        "clock": [clock(t) for t in times],
        "bus": list(feeder.bus),
        "v": {phase: _whole(v_pu[:, :, k], 1e4) for k, phase in enumerate("abc")},
        "p": _whole(p_kw, 10),
        "smo": smo,
        "dlmp": dlmp,
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
    """Wires, open switches, nodes (third trace, recoloured by feeder_map.js) and the substation."""
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


def _controls(count: int, first: int) -> str:
    choices = (
        ("mean", "mean of phases"),
        ("min", "lowest phase"),
        ("max", "highest phase"),
        ("a", "phase a"),
        ("b", "phase b"),
        ("c", "phase c"),
    )
    options = "".join(f'<option value="{value}">{text}</option>' for value, text in choices)
    return (
        '<p class="controls"><button id="map-play" type="button">Play</button>'
        f'<input id="map-time" type="range" min="0" max="{count - 1}" value="{first}" title="time">'
        '<output id="map-clock"></output>'
        f'<label>Voltage <select id="map-phase">{options}</select></label>'
        '<label>dLMP <select id="map-price"><option value="level">level</option>'
        '<option value="spread">against the feeder\'s mean</option></select></label></p>'
    )
