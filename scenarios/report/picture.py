"""A picture of a run as a small SVG: dLMPs on the feeder at the evening peak, power and prices of the day."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from voltier.grid.errors import InputError, Problem
from voltier.scenarios.report.energy import demand_kw, import_kw
from voltier.scenarios.report.feeder_map import marker_px, mean_load_kw, segments
from voltier.scenarios.report.panel import Array, Panel
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import COLOR, FONT, GRID, INK, MUTED, PRICE_SCALE, clock
from voltier.scenarios.results import table_names

WIDTH, HEIGHT = 1200, 520
EVENING_S = 16 * 3600


def write_picture(run_dir: Path, path: Path) -> Path:
    """Write the picture of a run that has a primary market, and return its path.

    Raises InputError when the run lacks the tables or the feeder that the picture shows.
    """
    run = Run(run_dir)
    grid, primary, imported = run.panel("grid", "bus", "phase"), run.panel("primary", "bus"), import_kw(run)
    if run.feeder is None or grid is None or primary is None or imported is None:
        remedy = "give a run with a feeder and the tables grid, primary and substation"
        raise InputError([Problem(str(run_dir), "tables", table_names(run.dir), remedy)])
    late = imported[0] >= min(EVENING_S, imported[0][-1])
    peak_s = int(imported[0][late][np.nanargmax(imported[1][late])])
    title = str(run.setting("title") or run.name)
    parts = [
        _text(24, 34, title, 19, INK, weight=600),
        _text(24, 58, f"dLMP at the evening peak, {clock(peak_s)}", 14, MUTED),
        *_map(run, grid, primary, peak_s),
        *_power_chart(run, imported),
        *_price_chart(run, primary),
    ]
    box = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    space = 'xmlns="http://www.w3.org/2000/svg"'
    head = f'<svg {space} viewBox="0 0 {WIDTH} {HEIGHT}" font-family="{html.escape(FONT)}">'
    Path(path).write_text(head + box + "\n".join(parts) + "</svg>\n", encoding="utf-8")
    return Path(path)


# ---------------------------------------------------------------------- left: the feeder


def _map(run: Run, grid: Panel, primary: Panel, peak_s: int) -> list[str]:
    feeder = run.feeder
    assert feeder is not None
    xy = _fit(feeder.xy, left=30, top=80, width=590, height=370)
    dlmp = primary.at(np.array([peak_s]))["dlmp_usd_per_kwh"][0]
    low, high = np.nanmin(dlmp), max(np.nanmax(dlmp), np.nanmin(dlmp) + 1e-6)
    radius = marker_px(mean_load_kw(grid, feeder.bus)) / 2
    shapes = []
    row = {name: i for i, name in enumerate(feeder.bus)}
    drawn = np.array([row[name] for name in primary.names if name in row])
    wires = segments(feeder).towards(drawn, feeder.source_bus)
    for a, b in zip(wires.start[wires.closed], wires.stop[wires.closed], strict=True):
        ends = f'x1="{xy[a, 0]:.1f}" y1="{xy[a, 1]:.1f}" x2="{xy[b, 0]:.1f}" y2="{xy[b, 1]:.1f}"'
        shapes.append(f'<line {ends} stroke="#b3bdc6" stroke-width="1.6"/>')
    for name, price in zip(primary.names, dlmp, strict=True):
        if name in row and np.isfinite(price):
            x, y = xy[row[name]]
            fill = blend(PRICE_SCALE, (price - low) / (high - low))
            circle = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius[row[name]]:.1f}" fill="{fill}"'
            shapes.append(f'<circle {circle} stroke="#5b6770" stroke-width="0.6"/>')
    x, y = xy[feeder.source_bus]
    shapes.append(f'<rect x="{x - 6:.1f}" y="{y - 6:.1f}" width="12" height="12" fill="{INK}"/>')
    return shapes + _color_bar(30, 478, 280, float(low), float(high))


def _fit(xy: Array, *, left: float, top: float, width: float, height: float) -> Array:
    """Scale coordinates into a box, north up, proportions kept."""
    low, high = np.nanmin(xy, axis=0), np.nanmax(xy, axis=0)
    scale = min(width / (high[0] - low[0]), height / (high[1] - low[1]))
    x = left + (width - scale * (high[0] - low[0])) / 2 + scale * (xy[:, 0] - low[0])
    y = top + (height - scale * (high[1] - low[1])) / 2 + scale * (high[1] - xy[:, 1])
    return np.column_stack([x, y])


def blend(scale: Sequence[tuple[float, str]], place: float) -> str:
    """Colour at a place from 0 to 1 of a colour scale."""
    stops = np.array([stop for stop, _ in scale])
    channels = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for _, color in scale])
    red, green, blue = (round(float(np.interp(place, stops, channels[:, k]))) for k in range(3))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _color_bar(x: float, y: float, width: float, low: float, high: float) -> list[str]:
    stops = "".join(f'<stop offset="{stop}" stop-color="{color}"/>' for stop, color in PRICE_SCALE)
    return [
        f'<defs><linearGradient id="price">{stops}</linearGradient></defs>',
        f'<rect x="{x}" y="{y}" width="{width}" height="10" rx="2" fill="url(#price)"/>',
        _text(x, y + 26, f"{low:.4f}", 12.5, MUTED),
        _text(x + width, y + 26, f"{high:.4f} $/kWh", 12.5, MUTED, anchor="end"),
    ]


# ---------------------------------------------------------------------- right: the day


def _power_chart(run: Run, imported: tuple[np.ndarray, Array]) -> list[str]:
    thin = Panel(imported[0], ("feeder",), {"p": imported[1][:, None]}).thin(300)
    lines = [("import", COLOR["import"], thin.t_s, thin["p"][:, 0])]
    devices = run.devices()
    if devices is not None:
        fleet = devices.thin(900)
        lines.append(("demand", COLOR["demand"], fleet.t_s, demand_kw(fleet)))
        if "pv_kw" in fleet:
            lines.append(("PV", COLOR["pv"], fleet.t_s, fleet.total("pv_kw")))
    return _chart(lines, top=84, height=150, title="power [kW]", decimals=0)


def _price_chart(run: Run, primary: Panel) -> list[str]:
    thin = primary.select(["dlmp_usd_per_kwh"]).thin(300)
    lines = [("mean dLMP", COLOR["dlmp"], thin.t_s, thin.mean("dlmp_usd_per_kwh"))]
    secondary = run.panel("secondary", "sma")
    if secondary is not None:
        tariffs = secondary.select(["tariff_usd_per_kwh"]).thin(300)
        lines.append(("mean tariff", COLOR["tariff"], tariffs.t_s, tariffs.mean("tariff_usd_per_kwh")))
    system = run.panel("system")
    if system is not None:
        price = system.select(["price_usd_per_kwh"]).thin(300)
        lines.append(("wholesale", COLOR["wholesale"], price.t_s, price["price_usd_per_kwh"][:, 0]))
    return _chart(lines, top=312, height=150, title="price [$/kWh]", decimals=2, step=True)


Line = tuple[str, str, np.ndarray, Array]


def _chart(
    lines: list[Line], *, top: float, height: float, title: str, decimals: int, step: bool = False
) -> list[str]:
    """A small line chart at the right of the picture: grid, clock labels, legend, lines or steps."""
    left, right, bottom = 708.0, WIDTH - 30.0, top + height
    t0, t1 = float(min(t[0] for *_, t, _ in lines)), float(max(t[-1] for *_, t, _ in lines))
    ticks = _ticks(
        min(0.0, *(float(np.nanmin(y)) for *_, y in lines)), max(float(np.nanmax(y)) for *_, y in lines)
    )
    out = []
    for tick in ticks:
        y = bottom - height * (tick - ticks[0]) / (ticks[-1] - ticks[0])
        out.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
        out.append(_text(left - 8, y + 4, f"{tick:,.{decimals}f}".replace("-", "−"), 12, MUTED, anchor="end"))
    every = 3600.0 * next((h for h in (1, 2, 3, 4, 6, 12, 24) if (t1 - t0) / 3600 / h <= 6), 24)
    for t in np.arange(np.ceil(t0 / every) * every, t1 + 301, every):
        x = left + (right - left) * min((t - t0) / max(t1 - t0, 1.0), 1.0)
        out.append(_text(x, bottom + 18, clock(t), 12, MUTED, anchor="middle"))
    x_name = right
    for name, color, t, y in reversed(lines):
        out.append(
            _path(
                left + (right - left) * (t - t0) / max(t1 - t0, 1.0),
                bottom - height * (y - ticks[0]) / (ticks[-1] - ticks[0]),
                color,
                step=step,
            )
        )
        out.append(_text(x_name, top - 12, name, 13, color, anchor="end", weight=600))
        x_name -= 7.4 * len(name) + 22
    return [*out, _text(left - 50, top - 12, title, 13, MUTED)]


def _path(x: Array, y: Array, color: str, *, step: bool) -> str:
    known = np.isfinite(y)
    if step:  # each value holds until the next
        x, y, known = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1], np.repeat(known, 2)[:-1]
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[known], y[known], strict=True))
    return (
        f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2" stroke-linejoin="round"/>'
    )


def _ticks(low: float, high: float) -> Array:
    """Round numbers that span low to high, four or so."""
    raw = max(high - low, 1e-9) / 4
    size = 10 ** np.floor(np.log10(raw))
    step = size * next(m for m in (1, 2, 2.5, 5, 10) if m * size >= raw)
    return np.arange(np.floor(low / step), np.ceil(high / step) + 1) * step


def _text(
    x: float, y: float, text: str, size: float, color: str, *, anchor: str = "start", weight: int = 400
) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    look = f'font-size="{size}" font-weight="{weight}" fill="{color}"'
    return f"<text {place} {look}>{html.escape(text)}</text>"
