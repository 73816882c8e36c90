"""One house's day: its devices, temperature, stored energy, flexibility and bill; telling houses by drop-down."""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from voltier.agents.devices.device import DAY_MIN
from voltier.scenarios.households import (
    Households,
    bills_usd,
    departures,
    excursion_c,
    self_use_share,
)
from voltier.scenarios.report.choice import with_choice
from voltier.scenarios.report.kinds import kinds_of
from voltier.scenarios.report.panel import Array
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    ACCENT,
    COLOR,
    INK,
    MUTED,
    Section,
    absent,
    clock,
    dress,
    faded,
    line,
    money,
    number,
    share,
)

TITLE = "One house's day"
MOST_POINTS = 400
LEAST_USD = 0.005
"""Smaller amounts read as nothing."""
HEIGHTS = (0.30, 0.18, 0.16, 0.18, 0.18)
AXES = ("injection [kW]", "temperature [°C]", "charge [%]", "flexibility [kW]", "bill so far [$]")
KW, USD = "%{y:,.2f} kW", "%{y:,.2f} $"


@dataclass(frozen=True, slots=True)
class Curve:
    """One trace of the figure: row, name, colour, values of the chosen houses (n, n_t), and how it is drawn."""

    row: int
    name: str
    color: str
    values: Array
    look: dict[str, object]


def section(run: Run) -> Section:
    """The day of a house with as many kinds of device as any; others by drop-down."""
    houses = run.houses
    if isinstance(houses, str):
        return absent("house", TITLE, houses)
    chosen = telling(houses)
    at = np.array(list(chosen))
    every = slice(None, None, -(-len(houses.t_s) // MOST_POINTS))
    curves = _curves(run, houses, at)
    figure = _figure(houses.t_s[every], [_cut(curve, every) for curve in curves])
    series = {f"{curve.row} {curve.name} {i}": curve.values[:, every] for i, curve in enumerate(curves)}
    names = [f"{houses.name[i]}: {why}" for i, why in chosen.items()]
    texts = [_facts(houses, i) for i in at]
    note = (
        '<p class="note">Injection is positive, consumption negative. Powers are those of one minute out of '
        f"{round(houses.period_h * 60)}. The bill counts every minute: metered energy at the tariff, less what "
        "the consumer market pays beyond the tariff. Flexibility counts from what the house wished.</p>"
    )
    body = with_choice(figure, "house", "House", names, 0, series, texts) + note
    return Section("house", TITLE, _finding(houses, at[0]), body)


def telling(houses: Households) -> dict[int, str]:
    """Return positions of houses worth a look and why: a usual one of each equipment, and the extremes."""
    kind, bill = houses.equipment.kind, bills_usd(houses)
    given = houses.given_usd.sum(axis=0)
    found: dict[int, str] = {}
    for name in sorted(set(kind), key=lambda text: (text == "none", -text.count("+"), text)):
        members = np.flatnonzero(kind == name)
        usual = members[np.argsort(bill[members], kind="stable")[len(members) // 2]]
        found[int(usual)] = f"{name}, usual bill" if name != "none" else "no PV, battery or EV, usual bill"
    asked = np.abs(houses.p_kw - houses.p0_kw).sum(axis=0)
    left = departures(houses)
    missing = np.bincount(left.house, left.missing_kwh, len(bill))
    extremes = (
        ("highest bill", bill), ("lowest bill", -bill), ("most asked for", asked),
        ("gains most by the consumer market", given), ("loses most by the consumer market", -given),
        ("longest outside its comfort limits", excursion_c(houses).sum(axis=0)),
        ("car lacks most when it leaves", missing),
    )  # fmt: skip
    for why, value in extremes:
        if value.max() > value.min():
            found.setdefault(int(np.argmax(value)), f"{why} ({kind[np.argmax(value)]})")
    return found


def _curves(run: Run, houses: Households, at: Array) -> list[Curve]:
    """All traces, for all chosen houses."""
    return [
        *_devices(houses, at),
        *_temperatures(run, houses, at),
        *_charge(houses, at),
        *_flexibility(houses, at),
        *_bill(houses, at),
    ]


def _devices(houses: Households, at: Array) -> list[Curve]:
    curves = []
    for column, (name, color) in kinds_of(houses.device_kw).items():
        power = houses.device_kw[column][:, at].T
        sides = [("up", np.maximum(power, 0.0)), ("down", np.minimum(power, 0.0))]
        sides = [(side, values) for side, values in sides if values.any()]
        for i, (side, values) in enumerate(sides):
            lacks = ~values.any(axis=1)
            look = {
                "stackgroup": side, "fillcolor": faded(color, 0.75), "width": 0.5, "legendgroup": column,
                "showlegend": i == 0, "hover": KW,
            }  # fmt: skip
            curves.append(Curve(1, name, color, np.where(lacks[:, None], np.nan, values), look))
    asked = {"dash": "dot", "hover": KW, "width": 1.6}
    return [
        *curves,
        Curve(1, "asked for", ACCENT, houses.p_kw[:, at].T, asked),
        Curve(1, "meter", INK, houses.p_meter_kw[:, at].T, {"hover": KW, "width": 1.8}),
    ]


def _temperatures(run: Run, houses: Households, at: Array) -> list[Curve]:
    shape, equipment = (len(at), len(houses.t_s)), houses.equipment
    limits = [np.broadcast_to(values[at, None], shape) for values in (equipment.min_c, equipment.max_c)]
    wanted = np.broadcast_to(equipment.set_c[at, None], shape)
    hover = "%{y:.1f} °C"
    curves = [
        *_band(2, "comfort", COLOR["battery"], limits[0], limits[1]),
        Curve(2, "wanted", COLOR["battery"], wanted, {"dash": "dot", "width": 1.2, "hover": hover}),
        Curve(2, "indoors", COLOR["hvac"], houses.temp_c[:, at].T, {"hover": hover}),
    ]
    system = run.panel("system")
    if system is not None and "temp_air_c" in system:
        outdoors = np.interp(houses.t_s, system.t_s, system["temp_air_c"][:, 0])
        look = {"width": 1.2, "hover": hover}
        curves.append(Curve(2, "outdoors", COLOR["scheduled"], np.broadcast_to(outdoors, shape), look))
    return curves


def _charge(houses: Households, at: Array) -> list[Curve]:
    """State of charge of battery and car, when the car is away, and what it wants to leave with."""
    equipment, curves = houses.equipment, []
    minute = (houses.start_minute + houses.t_s // 60) % DAY_MIN
    for energy, capacity, name, color in (
        (houses.battery_kwh, equipment.battery_kwh, "battery", COLOR["battery"]),
        (houses.ev_kwh, equipment.ev_kwh, "EV", COLOR["ev"]),
    ):
        with np.errstate(invalid="ignore", divide="ignore"):
            soc = np.where(capacity[at] > 0.0, 100.0 * energy[:, at] / capacity[at], np.nan).T
        curves.append(Curve(3, name, color, soc, {"hover": "%{y:.0f} %"}))
    has = equipment.ev_kwh[at] > 0.0
    if not has.any():
        return curves
    away_min, home_min = equipment.ev_away_min[at, None], equipment.ev_home_min[at, None]
    away = (minute - away_min) % DAY_MIN < (home_min - away_min) % DAY_MIN
    shade = np.where(has[:, None] & away, 100.0, 0.0)
    left = departures(houses)
    target = np.full(shade.shape, np.nan)
    position = {int(house): i for i, house in enumerate(at)}
    for house, record in zip(left.house, left.record, strict=True):
        if int(house) in position:
            wished = equipment.ev_target_kwh[house] / equipment.ev_kwh[house]
            target[position[int(house)], record] = 100.0 * wished
    fill = {"fill": "tozeroy", "fillcolor": faded(MUTED, 0.15), "width": 0, "step": True, "hoverinfo": "skip"}
    mark = {"mode": "markers", "marker": {"symbol": "star", "size": 11, "color": COLOR["limit"]}}
    return [
        *curves,
        Curve(3, "car away", MUTED, shade, fill),
        Curve(3, "wanted at departure", COLOR["limit"], target, {**mark, "hover": "%{y:.0f} %"}),
    ]


def _flexibility(houses: Households, at: Array) -> list[Curve]:
    p0 = houses.p0_kw
    low, high, asked, moved = (
        (power - p0)[:, at].T for power in (houses.p_min_kw, houses.p_max_kw, houses.p_kw, houses.p_meter_kw)
    )
    return [
        *_band(4, "offered", ACCENT, low, high),
        Curve(4, "requested", ACCENT, asked, {"hover": KW, "step": True}),
        Curve(4, "delivered", INK, moved, {"hover": KW, "width": 1.2}),
    ]


def _bill(houses: Households, at: Array) -> list[Curve]:
    bill, given = (usd[:, at].cumsum(axis=0).T for usd in (houses.paid_usd, houses.given_usd))
    return [
        Curve(
            5,
            "without the consumer market's payments",
            COLOR["tariff"],
            bill + given,
            {"hover": USD, "dash": "dot"},
        ),
        Curve(5, "bill", COLOR["retail"], bill, {"hover": USD}),
    ]


def _band(row: int, name: str, color: str, low: Array, high: Array) -> list[Curve]:
    quiet = {"width": 0, "hoverinfo": "skip"}
    fill = {"fill": "tonexty", "fillcolor": faded(color, 0.15)}
    return [
        Curve(row, name, color, low, {**quiet, "showlegend": False}),
        Curve(row, name, color, high, {**quiet, **fill}),
    ]


def _cut(curve: Curve, every: slice) -> Curve:
    return Curve(curve.row, curve.name, curve.color, curve.values[:, every], curve.look)


def _figure(t_s: Array, curves: list[Curve]) -> go.Figure:
    """The first of the chosen houses; every row of the figure has its legend above it."""
    rows = len(HEIGHTS)
    figure = make_subplots(rows, 1, shared_xaxes=True, row_heights=HEIGHTS, vertical_spacing=0.05)
    for curve in curves:
        options = dict(curve.look)
        mode = options.pop("mode", "lines")
        trace = line(curve.name, t_s, curve.values[0], curve.color, **options)
        trace.update(mode=mode, legend="legend" if curve.row == 1 else f"legend{curve.row}")
        figure.add_trace(trace, curve.row, 1)
    dress(figure, 1060, span_s=float(t_s[-1] - t_s[0]))
    for row, title in enumerate(AXES, start=1):
        axis = "yaxis" if row == 1 else f"yaxis{row}"
        figure.update_yaxes(title_text=title, row=row, col=1)
        top = figure.layout[axis].domain[1]
        legend = {
            "orientation": "h",
            "traceorder": "normal",
            "x": 0,
            "y": top,
            "yanchor": "bottom",
            "font": {"size": 12.5},
        }
        figure.update_layout({"legend" if row == 1 else f"legend{row}": legend})
    figure.update_yaxes(range=[0, 102], row=3, col=1)
    return figure


def _facts(houses: Households, i: int) -> str:
    """What a house has, pays, and does with its PV, as HTML."""
    has, parts = houses.equipment, [f"agent {houses.market[i]}"]
    if has.pv_kva[i] > 0.0:
        parts.append(f"PV {number(has.pv_kva[i])} kVA")
        used = self_use_share(houses)[i]
        parts[-1] += f", {share(used, 1.0)} of it used behind the meter" if np.isfinite(used) else ""
    if has.battery_kwh[i] > 0.0:
        parts.append(f"battery {number(has.battery_kwh[i])} kWh")
    if has.ev_kwh[i] > 0.0:
        away, home = (clock(60 * (int(m[i]) % DAY_MIN)) for m in (has.ev_away_min, has.ev_home_min))
        target = has.ev_target_kwh[i]
        parts.append(
            f"EV {number(has.ev_kwh[i])} kWh, away from {away} to {home}, wants {number(target)} kWh then"
        )
    parts.append(f"pays {money(bills_usd(houses)[i])} $")
    return html.escape("; ".join(parts))


def _finding(houses: Households, i: int) -> str:
    bill = bills_usd(houses)
    given = houses.given_usd.sum(axis=0)
    asked = houses.p_kw - houses.p0_kw
    text = f"{houses.name[i]} ({houses.equipment.kind[i]}) pays {money(bill[i])} $"
    if abs(given[i]) >= LEAST_USD:
        word = "less" if given[i] >= 0.0 else "more"
        text += f", {money(abs(given[i]))} $ {word} by the consumer market's payments"
    if np.any(asked[:, i]):
        moved = np.sign(asked[:, i]) * (houses.p_meter_kw - houses.p0_kw)[:, i]
        size = float(np.abs(asked[:, i]).sum())
        text += f"; it is asked to move {number(size * houses.period_h)} kWh and delivers "
        text += share(float(moved[asked[:, i] != 0.0].sum()), size)
    return text
