"""Bills, comfort and use of own PV of all houses: how they spread, by what the houses have."""

from __future__ import annotations

import html
from collections.abc import Mapping
from textwrap import wrap

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from voltier.scenarios.households import (
    OUTSIDE_C,
    Households,
    bills_usd,
    departures,
    excursion_c,
    rms_from_wanted_c,
    self_use_share,
)
from voltier.scenarios.report.panel import Array
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    CASE_COLORS,
    GRID,
    Section,
    absent,
    dress,
    embed,
    money,
    number,
    rows_html,
    share,
    small,
)

TITLE = "Bills, comfort and own PV by equipment"
DAY_H = 24.0
ROW_PX, REST_PX, LABEL_WIDTH = 40, 110, 22
OUTSIDE = "outside comfort limits [°C h]"
HEADER = [
    "means by equipment", "houses", "bill [$]", "energy [$]", "market gives [$]", "lose by it", "rms [°C]",
    "outside [°C h]", "own PV", "cars short",
]  # fmt: skip
NOTE = (
    "In brackets: number of houses. Box: quartiles and median; whiskers: at most 1.5 box lengths; points: beyond. "
    "Energy: at the tariff; market: what the payments of the consumer market give, and how many houses lose by them; "
    "rms: distance from the wanted temperature; outside: of the comfort limits; cars short: departures with less "
    "energy than wanted, of all departures."
)
NOTHING_C_H = 0.1
"""Excursions add up to this at least on their axis, lest rounding fill it."""
Measures = Mapping[str, Array]
"""Title with unit → value of each house (n_house,), nan where it has none."""


def section(run: Run) -> Section:
    """Box plots over the houses of each equipment, and a table of their means."""
    houses = run.houses
    if isinstance(houses, str):
        return absent("fleet", TITLE, houses)
    kind, values = houses.equipment.kind, measures(houses)
    names = sorted(set(kind), key=lambda text: (text != "none", text.count("+"), text))
    groups = {
        f"{name} ({(kind == name).sum():,})": {
            title: column[kind == name] for title, column in values.items()
        }
        for name in names
    }
    body = embed(boxes(groups), "fleet-figure") + _table(houses, names)
    body += f'<p class="note">{NOTE} Bills count every minute, the rest one out of {round(houses.period_h * 60)}.</p>'
    return Section("fleet", TITLE, _finding(houses, values), body)


def measures(houses: Households) -> Measures:
    """Return what the boxes show of each house; bills a day where the run lasts whole days."""
    hours = len(houses.t_s) * houses.period_h
    days = hours / DAY_H if hours % DAY_H == 0.0 else 1.0
    unit = "$/day" if hours % DAY_H == 0.0 else f"$ in {hours:g} h"
    given = houses.given_usd.sum(axis=0)
    return {
        f"bill [{unit}]": bills_usd(houses) / days,
        f"given by consumer market [{unit}]": given / days,
        "from wanted temperature, rms [°C]": rms_from_wanted_c(houses),
        OUTSIDE: excursion_c(houses).sum(axis=0) * houses.period_h,
        "own use of PV [%]": 100.0 * self_use_share(houses),
    }


def boxes(groups: Mapping[str, Measures]) -> go.Figure:
    """One column a measure, one box a group; the first group on top."""
    titles = list(dict.fromkeys(title for values in groups.values() for title in values))
    figure = make_subplots(
        1,
        len(titles),
        shared_yaxes=True,
        horizontal_spacing=0.025,
        subplot_titles=[t.replace(" [", "<br>[") for t in titles],
    )
    labels = {name: "<br>".join(wrap(name, LABEL_WIDTH)) for name in groups}
    for i, (name, values) in enumerate(groups.items()):
        for column, title in enumerate(titles, start=1):
            if title not in values:
                continue
            known = values[title][np.isfinite(values[title])]
            trace = go.Box(
                x=small(known), y=np.full(len(known), labels[name], dtype=object), name=name, orientation="h",
                marker={"size": 3}, line={"width": 1.4, "color": CASE_COLORS[i % len(CASE_COLORS)]},
                showlegend=False,
            )  # fmt: skip
            figure.add_trace(trace, 1, column)
    dress(figure, REST_PX + ROW_PX * len(groups))
    figure.update_xaxes(type="linear", tickformat=None, hoverformat=".3g", showgrid=True, gridcolor=GRID)
    if OUTSIDE in titles:
        most = max(float(values[OUTSIDE].max(initial=0.0)) for values in groups.values() if OUTSIDE in values)
        reach = 1.05 * max(most, NOTHING_C_H)
        figure.update_xaxes(range=[-0.05 * reach, reach], col=titles.index(OUTSIDE) + 1)
    figure.update_yaxes(categoryorder="array", categoryarray=list(labels.values())[::-1], showgrid=False)
    figure.update_layout(hovermode="closest", margin={"l": 150, "t": 62, "b": 30}, boxgap=0.35)
    return figure


def _table(houses: Households, names: list[str]) -> str:
    """Means by equipment, and how many houses the consumer market costs money."""
    kind, bill, excursion = houses.equipment.kind, bills_usd(houses), excursion_c(houses).sum(axis=0)
    given = houses.given_usd.sum(axis=0)
    left, rms, used = departures(houses), rms_from_wanted_c(houses), self_use_share(houses)
    rows = []
    for name in names:
        here = kind == name
        cars = np.isin(left.house, np.flatnonzero(here))
        short = f"{(left.missing_kwh[cars] > 0.0).sum():,} of {cars.sum():,}" if cars.any() else "–"
        own = used[here][np.isfinite(used[here])]
        cells = [
            f"{here.sum():,}",
            money(float(bill[here].mean())),
            money(float((bill + given)[here].mean())),
            f"{given[here].mean():+.3f}".replace("-", "−"),
            share(float((given[here] < 0.0).sum()), float(here.sum())),
            number(float(rms[here].mean())),
            f"{excursion[here].mean() * houses.period_h:.2f}",
            f"{100 * own.mean():.0f} %" if own.size else "–",
            short,
        ]
        rows.append([html.escape(name), *cells])
    return rows_html(HEADER, rows)


def _finding(houses: Households, values: Measures) -> str:
    """Spread of the bills, comfort, own PV."""
    title, bill = next(iter(values.items()))
    low, middle, high = np.quantile(bill, (0.05, 0.5, 0.95))
    unit = title[title.index("[") + 1 : -1]
    text = (
        f"Nine in ten houses pay {money(low)} to {money(high)} {unit}, half of them less than {money(middle)}"
    )
    worst = float(excursion_c(houses).max())
    text += "; temperatures " + (
        f"leave the comfort limits by up to {number(worst)} °C"
        if worst > OUTSIDE_C
        else "stay within the comfort limits"
    )
    made = houses.device_kw["pv_kw"].sum(axis=0)
    if made.any():
        used = float(np.nansum(self_use_share(houses) * made))
        text += f"; {share(used, float(made.sum()))} of the PV energy is used behind the same meter"
    return text
