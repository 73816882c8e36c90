"""The page of a crosscheck: verdict, voltages over time and by node, losses and import, what each engine models."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from voltier.grid.feeder import Feeder
from voltier.scenarios.crosscheck import (
    Difference,
    Dispatch,
    Kpis,
    Replay,
    exceeded,
    limits_of,
)
from voltier.scenarios.report.page import render
from voltier.scenarios.report.style import (
    CASE_COLORS,
    COLOR,
    Section,
    clock,
    dress,
    embed,
    line,
    number,
    rows_html,
)
from voltier.scenarios.schema_sections import CrosscheckSection

MODELS = {
    "opendss": "Full phase matrices, regulators as transformers of next to no impedance. Where a run's own engine is "
    "OpenDSS, this shows that its tables hold all that is needed to repeat it.",
    "pandapower-three-phase": "Sequence impedances only: lines count as transposed, and impedances behind unequal taps "
    "are averaged over the phases. Its difference is that of the model, not an error of the run: up to 0.006 p.u. by "
    "transposition on IEEE 123, twice that on IEEE 13 and 34.",
    "power-grid-model": "Full phase matrices; regulators are ratios folded into them phase by phase, which is exact.",
    "gridlabd": "Full phase matrices of a written GLM model, solved by GridLAB-D.",
}
"""What an engine's difference may come from; an engine that is not named here goes without."""
MOST_NODES = 24
SMALLEST_PU = 1e-12
"""What differs by less is drawn at this on a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One engine's part of a crosscheck."""

    replay: Replay
    change: Difference
    kpis: Kpis


@dataclass(frozen=True, slots=True)
class Crosscheck:
    """All that the page shows.

    start_s : clock second at which the run starts ; engine : the run's own ; limits : what is allowed
    checked : by name of the engine
    """

    run: str
    engine: str
    start_s: int
    every_min: int
    feeder: Feeder
    dispatch: Dispatch
    limits: CrosscheckSection
    checked: Mapping[str, Checked]


def write_page(check: Crosscheck, path: Path) -> Path:
    """Write the page and return its path."""
    sections = [_verdict(check), _over_time(check), _by_node(check), _power(check), _models(check)]
    every = "every minute" if check.every_min == 1 else f"every {check.every_min} minutes"
    subtitle = html.escape(
        f"{len(check.dispatch.t_s):,} power flows of feeder {check.feeder.name}, {every}, in each of "
        f"{', '.join(check.checked)}; the run's own engine is {check.engine}"
    )
    text = render(
        title=f"{check.run}, crosschecked", subtitle=subtitle, banner="", tiles="", sections=sections
    )
    path.write_text(text, encoding="utf-8")
    return path


def _verdict(check: Crosscheck) -> Section:
    rows, outside = [], []
    for name, part in check.checked.items():
        kpis, words = part.kpis, exceeded(part.kpis, limits_of(name, check.limits))
        if not kpis["minutes"]:
            words = ["solved no minute"]
        outside += [name] if words else []
        rows.append(
            [
                html.escape(name),
                "within" if not words else html.escape("; ".join(words)),
                _number(kpis, "voltage.max_difference_pu"),
                _where(check, kpis),
                _number(kpis, "voltage.median_difference_pu"),
                _number(kpis, "losses.difference_percent"),
                _number(kpis, "import.difference_percent"),
                f"{kpis['minutes']} / {kpis['minutes_refused']} / {kpis['minutes_failed']}",
                number(1e3 * part.replay.solve_s / max(int(kpis["minutes"]), 1)),
            ]
        )
    header = [
        "engine", "verdict", "largest |Δ|v|| [p.u.]", "where, when", "median [p.u.]", "losses [%]",
        "import [%]", "minutes solved / refused / failed", "ms a minute",
    ]  # fmt: skip
    limits = check.limits
    note = (
        f'<p class="note">Allowed: {limits.v_pu:g} p.u. at any node and minute ({limits.sequence_v_pu:g} p.u. where '
        f"every line counts as transposed), {limits.loss_percent:g} % of the energy lost, "
        f"{limits.import_percent:g} % of the peak import in any minute.</p>"
    )
    finding = (
        "All engines are within the limits" if not outside else f"Outside the limits: {', '.join(outside)}"
    )
    return Section("verdict", "Verdict", finding, rows_html(header, rows, numeric_from=2) + note)


def _where(check: Crosscheck, kpis: Kpis) -> str:
    when = kpis.get("voltage.worst_t_s")
    if not isinstance(when, int) or not kpis["voltage.max_difference_pu"]:
        return "–"
    return html.escape(f"{kpis['voltage.worst_node']}, {clock(when + check.start_s)}")


def _number(kpis: Kpis, key: str) -> str:
    value = kpis.get(key)
    return number(float(value)) if isinstance(value, float) else "–"


def _over_time(check: Crosscheck) -> Section:
    figure, t_s = go.Figure(), check.dispatch.t_s + check.start_s
    largest = {}
    for i, (name, part) in enumerate(check.checked.items()):
        if not part.kpis["minutes"]:
            continue
        look = {"hover": "%{y:.2e} p.u.", "legendgroup": name}
        top, middle = (
            np.maximum(part.change.v_max_pu, SMALLEST_PU),
            np.maximum(part.change.v_median_pu, SMALLEST_PU),
        )
        figure.add_trace(_dotted(line(name, t_s, top, _color(i), **look)))
        figure.add_trace(line(f"{name}, median", t_s, middle, _color(i), dash="dot", width=1.2, **look))
        largest[name] = _number(part.kpis, "voltage.max_difference_pu")
    dress(figure, 380, "difference of |v| [p.u.]", span_s=float(t_s[-1] - t_s[0]))
    figure.update_yaxes(type="log", exponentformat="power")
    figure.update_layout(showlegend=True)
    allowed = _draw_limits(figure, check)
    finding = "Largest at any node: " + ", ".join(
        f"{value} p.u. in {name}" for name, value in largest.items()
    )
    note = (
        '<p class="note">Line: largest over the nodes; dotted: median; dashed: what is allowed, '
        f"{html.escape(allowed)}.</p>"
    )
    return Section("voltage", "Voltage difference over time", finding, embed(figure, "voltage-figure") + note)


def _by_node(check: Crosscheck) -> Section:
    feeder, worst = check.feeder, {}
    for name, part in check.checked.items():
        if part.kpis["minutes"]:
            size = np.abs(part.change.v_pu)
            worst[name] = np.where(np.isfinite(size), size, 0.0).max(axis=0)
    over_all = np.max(list(worst.values()), axis=0) if worst else np.zeros(feeder.has_phase.shape)
    first = np.argsort(-over_all, axis=None, kind="stable")[:MOST_NODES]
    bus, phase = np.unravel_index(first, over_all.shape)
    names = [f"{feeder.bus[i]}.{'abc'[k]}" for i, k in zip(bus, phase, strict=True)]
    figure = go.Figure()
    for i, (name, values) in enumerate(worst.items()):
        shown = np.maximum(values[bus, phase], SMALLEST_PU)
        marker = {"color": _color(list(check.checked).index(name)), "size": 9, "symbol": i}
        figure.add_scatter(x=names, y=shown, mode="markers", name=name, marker=marker)
    dress(figure, 360, "largest difference of |v| [p.u.]")
    figure.update_xaxes(type="category", tickangle=-45, tickformat=None, hoverformat=None)
    figure.update_yaxes(type="log", exponentformat="power")
    figure.update_layout(showlegend=True, margin_b=80)
    _draw_limits(figure, check)
    finding = "Worst node by engine: " + ", ".join(
        f"{part.kpis['voltage.worst_node']} in {name}"
        if part.kpis["voltage.max_difference_pu"]
        else f"none in {name}"
        for name, part in check.checked.items()
        if part.kpis["minutes"]
    )
    return Section("nodes", "Worst nodes", finding, embed(figure, "nodes-figure"))


def _power(check: Crosscheck) -> Section:
    t_s = check.dispatch.t_s + check.start_s
    figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.08)
    words = []
    for i, (name, part) in enumerate(check.checked.items()):
        if not part.kpis["minutes"]:
            continue
        look = {"hover": "%{y:.3g} kW", "legendgroup": name}
        loss, imported = part.change.loss_kw, part.change.import_kw
        figure.add_trace(_dotted(line(name, t_s, loss, _color(i), **look)), 1, 1)
        figure.add_trace(_dotted(line(name, t_s, imported, _color(i), showlegend=False, **look)), 2, 1)
        words.append(
            f"{name} {_number(part.kpis, 'losses.difference_percent')} % of the losses and "
            f"{_number(part.kpis, 'import.difference_percent')} % of the peak import"
        )
    dress(figure, 460, span_s=float(t_s[-1] - t_s[0]))
    figure.update_yaxes(title_text="losses [kW]", row=1, col=1)
    figure.update_yaxes(title_text="import [kW]", row=2, col=1)
    figure.update_layout(showlegend=True)
    finding = "Away from the run by: " + "; ".join(words)
    return Section("power", "Losses and import, engine less run", finding, embed(figure, "power-figure"))


def _models(check: Crosscheck) -> Section:
    taps = (
        "Taps are those that the run recorded."
        if check.dispatch.taps_recorded
        else "The run recorded no taps: they are read from the voltages on both sides of each regulator."
    )
    parts = [f"<p>{taps}</p>"]
    for name, part in check.checked.items():
        told = [MODELS.get(name, "")]
        told += [
            f"Cannot represent {count} minutes: {text}"
            for text, count in list(part.replay.refused.items())[:3]
        ]
        told += [
            f"No solution in {count} minutes: {text}" for text, count in list(part.replay.failed.items())[:3]
        ]
        parts.append(f"<p><b>{html.escape(name)}</b> {html.escape(' '.join(told))}</p>")
    return Section("models", "What the engines model", "", "".join(parts))


def _draw_limits(figure: go.Figure, check: Crosscheck) -> str:
    """Draw what is allowed for the engines, and say whose limit is which."""
    of: dict[float, list[str]] = {}
    for name in check.checked:
        of.setdefault(limits_of(name, check.limits).v_pu, []).append(name)
    for limit in of:
        figure.add_hline(y=limit, line={"color": COLOR["limit"], "dash": "dash", "width": 1})
    return "; ".join(f"{limit:g} p.u. for {', '.join(names)}" for limit, names in of.items())


def _dotted(trace: go.Scatter) -> go.Scatter:
    """Give a line with gaps a marker a value: one that stands between two gaps would not be seen."""
    if not np.isfinite(np.asarray(trace.y, dtype=float)).all():
        trace.update(mode="lines+markers", connectgaps=True, marker={"size": 6})
    return trace


def _color(i: int) -> str:
    return CASE_COLORS[i % len(CASE_COLORS)]
