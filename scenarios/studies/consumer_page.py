"""The page of the study of the consumer market."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from voltier.scenarios.report.key_figures import readable, split_key
from voltier.scenarios.report.kinds import kinds_of
from voltier.scenarios.report.page import render
from voltier.scenarios.report.style import (
    CASE_COLORS,
    COLOR,
    INK,
    MUTED,
    Section,
    band,
    clock,
    dress,
    embed,
    faded,
    line,
    number,
    rows_html,
    small,
    spaced,
)
from voltier.scenarios.schema import Scenario
from voltier.scenarios.studies.consumer_day import DEVICES, Day
from voltier.scenarios.studies.consumer_findings import ConsumerStudy
from voltier.scenarios.studies.consumer_fleet import CMAS, HOUSES
from voltier.scenarios.studies.consumer_incentives_page import incentives, money

Array = NDArray[np.float64]

TILES = (
    ("game.max_tracking_error_kw", "largest tracking error"),
    ("game.max_budget_error_usd", "largest budget error"),
    ("game.infeasible_share", "requests beyond reach"),
    ("prices.max_mu_tilde_over_grid", "largest μ̃ over grid price"),
    ("day.published.losers_share", "agents that lose, published"),
    ("random.vcg.gain_gamma_max_usd_per_h", "largest gain by a false γ, VCG"),
)


def write_page(
    path: Path, found: ConsumerStudy, kpis: Mapping[str, Any], scenario: Scenario, step_min: int
) -> None:
    """Write the page at a path."""
    day = found.day
    sections = [
        _injections(day),
        _coordination(day),
        _prices(day, kpis),
        _tracking(day, kpis),
        incentives(found),
        money(found),
        _checks(found, kpis),
        _set_up(),
    ]
    subtitle = (
        f"{scenario.start:%A, %-d %B %Y} · one operator, {len(CMAS)} agents of {HOUSES} houses each · "
        f"periods of {step_min} min · seed {scenario.seed}"
    )
    tiles = "".join(
        f'<div class="tile"><b>{html.escape(readable(kpis[key], split_key(key)[2]))}</b>'
        f"<span>{html.escape(label)}</span></div>"
        for key, label in TILES
    )
    text = render(
        title="Consumer market: a Stackelberg game on device flexibility",
        subtitle=subtitle,
        banner="",
        tiles=f'<div class="tiles">{tiles}</div>',
        sections=sections,
    )
    path.write_text(text, encoding="utf-8")


def _t_s(day: Day) -> NDArray[np.int64]:
    """Beginnings of the periods, and the end of the last, to which `_held` values last."""
    return np.append(day.minute, day.minute[-1] + day.minute[1] - day.minute[0]) * 60


def _held(values: Array) -> Array:
    return np.append(values, values[-1:], axis=0)


def _steps(name: str, day: Day, values: Array, color: str, **options: object) -> go.Scatter:
    return line(name, _t_s(day), _held(values), color, step=True, **options)


def _sums(day: Day) -> tuple[Array, Array]:
    """Return what the agents wish together and what they inject, (T,)."""
    first = day.markets.offset[:-1]
    return np.add.reduceat(day.markets.p0_kw, first), np.add.reduceat(day.game.p_kw, first)


def _injections(day: Day) -> Section:
    wished, total = _sums(day)
    p0, p = (x.reshape(-1, len(CMAS)) for x in (day.markets.p0_kw, day.game.p_kw))
    figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.07,
                           subplot_titles=["agents", "operator: all agents together"])  # fmt: skip
    kw = "%{y:,.2f} kW"
    for i, cma in enumerate(CMAS):
        color = CASE_COLORS[i]
        figure.add_trace(_steps(cma.name, day, p[:, i], color, hover=kw, legendgroup=cma.name), 1, 1)
        wish = _steps(f"{cma.name}, wish", day, p0[:, i], color, hover=kw, dash="dot", width=1.2,
                      legendgroup=cma.name, showlegend=False)  # fmt: skip
        figure.add_trace(wish, 1, 1)
    low, high = wished - day.offered_down_kw, wished + day.offered_up_kw
    for trace in band("offered", _t_s(day), _held(low), _held(high), MUTED, step=True):
        figure.add_trace(trace, 2, 1)
    figure.add_trace(_steps("operator", day, total, INK, hover=kw), 2, 1)
    figure.add_trace(_steps("wish", day, wished, MUTED, hover=kw, dash="dot", width=1.4), 2, 1)
    dress(figure, 620)
    figure.update_yaxes(title_text="injection [kW]")
    figure.update_layout(legend={"y": 1.06}, margin={"t": 64})
    least, most = int(wished.argmax()), int(total.argmax())
    kind = "is a net load all day" if total[most] < 0.0 else f"exports up to {number(float(total[most]))} kW"
    finding = (
        f"The operator {kind}; its agents wish to draw least, {number(float(-wished[least]))} kW, "
        f"at {clock(day.minute[least] * 60)}"
    )
    note = '<p class="note">Injection into the grid is positive. Dotted: what agents plan without the market.</p>'
    return Section("injections", "Injections", finding, embed(figure, "injections-figure") + note)


def _coordination(day: Day) -> Section:
    """Devices of the first agent: what they do, and what the market moved."""
    own, moved = day.device_kw[:, :, 0], (day.device_kw - day.wished_kw)[:, :, 0]
    titles = ["injection", "moved by the market"]
    figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.07, subplot_titles=titles)
    for row, values in ((1, own), (2, moved)):
        for device in _kinds():
            d = DEVICES.index(device)
            if np.abs(own[:, d]).max() < 1e-9:
                continue
            # A stack for each sign: a battery that charges lies below zero, one that discharges above.
            for sign, part in (
                ("up", np.maximum(values[:, d], 0.0)),
                ("down", np.minimum(values[:, d], 0.0)),
            ):
                if np.abs(part).max() < 1e-9:
                    continue
                figure.add_trace(_area(device, day, part, f"{sign}{row}"), row, 1)
        net = _steps("net", day, values.sum(axis=1), INK, hover="%{y:,.2f} kW", showlegend=row == 1)
        figure.add_trace(net, row, 1)
    _one_legend(figure)
    dress(figure, 640)
    figure.update_yaxes(title_text="[kW]")
    figure.update_layout(legend={"y": 1.06}, margin={"t": 64})
    energy = np.abs(moved).sum(axis=0)
    order = [_kinds()[DEVICES[d]][0] for d in energy.argsort()[::-1] if energy[d] > 0.0]
    shares = energy[energy.argsort()[::-1]] / max(energy.sum(), 1e-12)
    finding = (
        "Of all that the market moves at "
        + CMAS[0].name
        + ", "
        + ", ".join(
            f"{100 * share:.0f} % is moved by {name}" for name, share in zip(order, shares, strict=False)
        )
    )
    note = (
        '<p class="note">A move is split over houses and devices in proportion to what each offered for the whole '
        "period, so what is scheduled is delivered.</p>"
    )
    return Section(
        "coordination", f"Devices of {CMAS[0].name}", finding, embed(figure, "coordination-figure") + note
    )


def _area(device: str, day: Day, values: Array, group: str) -> go.Scatter:
    return go.Scatter(
        name=_kinds()[device][0],
        y=small(_held(values)),
        stackgroup=group,
        legendgroup=device,
        mode="none",
        line={"shape": "hv"},
        fillcolor=faded(_kinds()[device][1], 0.75),
        hovertemplate="%{y:,.2f} kW",
        **spaced(_t_s(day)),
    )


def _one_legend(figure: go.Figure) -> None:
    """Show every name once."""
    seen: set[str] = set()
    for trace in figure.data:
        if trace.name in seen:
            trace.showlegend = False
        seen.add(trace.name)


def _prices(day: Day, kpis: Mapping[str, Any]) -> Section:
    game, usd = day.game, "%{y:.4f} $/kWh"
    figure = go.Figure(
        [
            _steps("grid price π", day, day.price_usd_per_kwh, COLOR["wholesale"], hover=usd, width=2.4),
            _steps("energy price μ", day, game.mu_usd_per_kwh, COLOR["dlmp"], hover=usd),
            _steps("flexibility price μ̃", day, game.mu_tilde_usd_per_kwh, COLOR["tariff"], hover=usd),
            _steps("marginal pay s = μ + μ̃", day, game.s_usd_per_kwh, INK, hover=usd, dash="dot", width=1.3),
        ]
    )
    dress(figure, 380, "[$/kWh]")
    over = {key: kpis[f"prices.max_{key}_over_grid"] for key in ("mu", "mu_tilde", "pay")}
    known = all(value is not None for value in over.values())
    finding = (
        f"At the strongest requests μ reaches {number(over['mu'], 2)} times the grid price, "
        f"μ̃ {number(over['mu_tilde'], 2)} times and their sum {number(over['pay'], 2)} times"
        if known
        else "The grid price is nowhere above zero"
    )
    note = (
        '<p class="note">Common prices. μ̃ is above zero just where s exceeds π: a small request, which agents would '
        "exceed at the price π alone, needs a negative flexibility price.</p>"
    )
    return Section("prices", "Prices", finding, embed(figure, "prices-figure") + note)


def _tracking(day: Day, kpis: Mapping[str, Any]) -> Section:
    wished, total = _sums(day)
    kw = "%{y:,.3f} kW"
    figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.08, row_heights=[0.68, 0.32],
                           subplot_titles=["change of the total", "missed: total minus target"])  # fmt: skip
    for trace in band(
        "offered", _t_s(day), _held(-day.offered_down_kw), _held(day.offered_up_kw), MUTED, step=True
    ):
        figure.add_trace(trace, 1, 1)
    figure.add_trace(_steps("asked for", day, day.asked_kw, COLOR["tariff"], hover=kw, width=3.5), 1, 1)
    figure.add_trace(_steps("delivered", day, total - wished, COLOR["dlmp"], hover=kw, width=1.4), 1, 1)
    figure.add_trace(
        _steps("missed", day, day.game.tracking_error_kw, COLOR["limit"], hover="%{y:.2e} kW"), 2, 1
    )
    beyond = ~day.game.feasible
    if beyond.any():
        step_s = 60.0 * float(day.minute[1] - day.minute[0])
        marks = go.Scatter(
            name="beyond reach, met as far as possible",
            x=[_stamp(60.0 * m + step_s / 2.0) for m in day.minute[beyond]],
            y=small(day.asked_kw[beyond]),
            mode="markers",
            marker={"symbol": "x", "size": 9, "color": COLOR["limit"]},
            hovertemplate=kw,
        )
        figure.add_trace(marks, 1, 1)
    dress(figure, 520)
    # The whole offer downwards is many times what is asked for.
    reach = 1.15 * max(float(np.abs(day.asked_kw).max()), 1e-3)
    figure.update_yaxes(title_text="[kW]")
    figure.update_yaxes(range=[-reach, reach], row=1)
    figure.update_layout(legend={"y": 1.07}, margin={"t": 64})
    error, money_error = kpis["game.max_tracking_error_kw"], kpis["game.max_budget_error_usd"]
    finding = (
        f"Where the request is within reach it is met to {number(error)} kW and the budget closes to "
        f"{number(money_error)} $; {int(beyond.sum())} of {len(beyond)} requests are beyond reach, by up to "
        f"{number(kpis['game.max_shortfall_kw'])} kW"
    )
    return Section("tracking", "Tracking of the request", finding, embed(figure, "tracking-figure"))


def _stamp(t_s: float) -> str:
    return f"2000-01-01T{int(t_s) // 3600:02d}:{int(t_s) % 3600 // 60:02d}:{int(t_s) % 60:02d}"


def _checks(found: ConsumerStudy, kpis: Mapping[str, Any]) -> Section:
    rows = [
        (
            "Most an agent gains by any other injection of a grid over its box",
            "equilibrium.max_follower_gain_usd_per_h",
        ),
        ("Prices: closed form against search on a grid", "equilibrium.brute_force_gap_usd_per_kwh"),
        (
            "Prices: closed form against where adjustment from random starts ends",
            "equilibrium.start_gap_usd_per_kwh",
        ),
        ("Largest difference between scheduled and delivered", "game.max_delivery_error_kw"),
    ]
    cells = [[html.escape(text), html.escape(readable(kpis[key], split_key(key)[2]))] for text, key in rows]
    interior, settled = int(found.check.interior.sum()), int(found.check.settled[found.check.interior].sum())
    finding = (
        f"One equilibrium is found in each of the {interior} periods whose target lies within reach: "
        f"{settled} of them come to rest at it from all starts"
    )
    note = (
        '<p class="note">Where the target is at the end of what is offered, or beyond, every s further out has the '
        "same answers, and prices are a choice: the least s is taken.</p>"
    )
    return Section("equilibrium", "Equilibrium, checked by brute force", finding,
                   rows_html([], cells) + note)  # fmt: skip


def _set_up() -> Section:
    kinds = {key: name for key, (name, _) in _kinds().items() if any(key in cma.devices for cma in CMAS)}
    titles = ["", "houses", *kinds.values(), "full flexibility [$/kWh]"]
    rows = [
        [
            cma.name,
            str(HOUSES),
            *(str(cma.devices.get(key, 0)) for key in kinds),
            f"{cma.flex_price_usd_per_kwh:.2f}",
        ]
        for cma in CMAS
    ]
    note = (
        '<p class="note">The operator asks for more injection when the grid price is above its median of the day, in '
        "proportion and beyond the offer in the dearest hour, and for less when it is below, with noise. Houses plan "
        "24 h ahead every hour at the grid price; what they then offer can be held for the whole period. γ of an agent "
        "is its price of full flexibility over twice its room on the side asked for.</p>"
    )
    return Section("set-up", "Agents", "", rows_html(titles, rows) + note)


def _kinds() -> dict[str, tuple[str, str]]:
    """Name and colour of every kind of device, in the order in which they are stacked."""
    named = kinds_of([f"{key}_kw" for key in DEVICES])
    return {column.removesuffix("_kw"): look for column, look in named.items()}
