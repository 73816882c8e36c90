"""The page of the study of distributed clearing: accuracy by round, differences, what is told to whom, size."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from voltier.scenarios.report.page import render
from voltier.scenarios.report.style import (
    CASE_COLORS,
    COLOR,
    INK,
    MUTED,
    Section,
    absent,
    dress,
    embed,
    number,
    rate,
    rows_html,
)
from voltier.scenarios.studies.distributed_cases import TITLE
from voltier.scenarios.studies.distributed_privacy import privacy
from voltier.scenarios.studies.distributed_scaling import LARGE_NAME, ScalingPoint

if TYPE_CHECKING:
    from voltier.scenarios.studies.distributed_clearing import CaseFound

Array = NDArray[np.float64]

METHOD_TITLE = {"pac": "PAC", "nst-pac": "NST-PAC", "admm": "ADMM"}
METHOD_COLOR = dict(zip(METHOD_TITLE, CASE_COLORS, strict=False))
SMALLEST_SHOWN = 1e-8
SHORT = {"branch_flow": "branch flow", "current_injection": "three-phase"}
MEASURES = ("largest of the three", "relative cost error", "consensus [p.u.]", "equations [p.u.]")


def write_page(
    path: Path, cases: Sequence[CaseFound], points: Sequence[ScalingPoint], targets: Mapping[str, float]
) -> None:
    """Write the page at a path. targets : largest difference from the central clearing that is allowed."""
    feeders = list(dict.fromkeys(case.market.key.split(".")[0] for case in cases))
    text = render(
        title="Distributed clearing of the primary market",
        subtitle=html.escape(
            f"{', '.join(feeders)}: an atom at every node, each tells its neighbours alone; default options"
        ),
        banner="",
        tiles="",
        sections=[
            _accuracy(cases),
            _rounds(cases),
            _clearings(cases, targets),
            privacy(cases, METHOD_TITLE),
            _scaling(points),
        ],
    )
    path.write_text(text, encoding="utf-8")


def _accuracy(cases: Sequence[CaseFound]) -> Section:
    """Lines of accuracy by round, a panel for each market; a menu changes the measure."""
    keys = list(dict.fromkeys(case.market.key for case in cases))
    rows = list(dict.fromkeys(key.split(".")[1] for key in keys))
    columns = list(dict.fromkeys(key.split(".")[0] for key in keys))
    titles = [f"{feeder}, {TITLE[row]}" for row in rows for feeder in columns]
    figure = make_subplots(
        len(rows), len(columns), shared_yaxes=True, horizontal_spacing=0.03, vertical_spacing=0.14,
        subplot_titles=titles,
    )  # fmt: skip
    shown: set[str] = set()
    every: list[tuple[Array, ...]] = []
    for case in cases:
        feeder, formulation = case.market.key.split(".")
        h = case.traced.history
        every.append((case.worst, case.cost_error, h.consensus_pu, h.rows_pu))
        trace = go.Scatter(
            x=h.rounds, y=_drawn(case.worst), name=METHOD_TITLE[case.method], legendgroup=case.method,
            showlegend=case.method not in shown, mode="lines",
            line={"color": METHOD_COLOR[case.method], "width": 2},
            hovertemplate=f"{METHOD_TITLE[case.method]}, round %{{x:,}}: %{{y:.1e}}<extra></extra>",
        )  # fmt: skip
        shown.add(case.method)
        figure.add_trace(trace, rows.index(formulation) + 1, columns.index(feeder) + 1)
    for goal in (1e-3, 1e-4):
        figure.add_hline(y=goal, line={"color": MUTED, "dash": "dot", "width": 1.2})
    dress(figure, 330 * len(rows) + 90)
    figure.update_xaxes(type="log", tickformat=None, hoverformat=None, dtick=1, exponentformat="none")
    figure.update_yaxes(type="log", exponentformat="power", zeroline=False, dtick=1)
    figure.update_yaxes(title_text="accuracy", col=1)
    figure.update_xaxes(title_text="rounds", row=len(rows))
    buttons = [
        {"label": name, "method": "restyle", "args": [{"y": [_drawn(values[k]) for values in every]}]}
        for k, name in enumerate(MEASURES)
    ]
    menu = {
        "buttons": buttons,
        "x": 1.0,
        "xanchor": "right",
        "y": 1.0 + 30 / (330 * len(rows)),
        "yanchor": "bottom",
    }
    figure.update_layout(
        hovermode="closest", margin={"t": 96, "b": 56}, legend={"y": 1.0 + 30 / (330 * len(rows))},
        updatemenus=[menu],
    )  # fmt: skip
    note = (
        '<p class="note">The program is tangent at the central optimum, the start is flat: no flow, voltages of the '
        "source, nobody informed. Accuracy is the largest of relative cost error, of the difference between a copy and "
        "its owner, and of the residual of an equation, the last two in p.u.; the menu shows each by itself. Dotted: "
        "1e-3 and 1e-4. PAC and NST-PAC mask what they send, as they do by default.</p>"
    )
    return Section("accuracy", "Accuracy by round", _lead(cases), embed(figure, "accuracy-figure") + note)


def _drawn(values: Array) -> list[float]:
    return [round(float(v), 12) for v in np.maximum(values, SMALLEST_SHOWN)]


def _lead(cases: Sequence[CaseFound]) -> str:
    """Say which method needs the fewest rounds to 1e-4 on how many markets."""
    wins: dict[str, int] = {}
    keys = list(dict.fromkeys(case.market.key for case in cases))
    for key in keys:
        there = {c.method: c.kpis["rounds_to_1e-04"] for c in cases if c.market.key == key}
        done = {method: rounds for method, rounds in there.items() if rounds is not None}
        if done:
            best = min(done, key=lambda method: done[method])
            wins[best] = wins.get(best, 0) + 1
    texts = [f"{METHOD_TITLE[name]} on {count} of {len(keys)}" for name, count in wins.items()]
    return f"Fewest rounds to 1e-4: {', '.join(texts)}" if texts else "No method came to 1e-4"


def _rounds(cases: Sequence[CaseFound]) -> Section:
    header = [
        "market", "method", "atoms", "rounds to 1e-3", "to 1e-4", "until the rule", "cost error", "set-points [p.u.]",
        "dLMP", "consensus [p.u.]", "equations [p.u.]", "s per 1,000 rounds",
    ]  # fmt: skip
    body = []
    for case in cases:
        k = case.kpis
        ended = f"{k['rounds']:,}" + ("" if k["converged"] else " not met")
        body.append(
            [
                _market(case), METHOD_TITLE[case.method], f"{k['atoms']:,}", _count(k["rounds_to_1e-03"]),
                _count(k["rounds_to_1e-04"]), ended, _rate(k["cost_error"]), f"{k['set_point_error_pu']:.1e}",
                _rate(k["dlmp_error"]), f"{k['consensus_pu']:.1e}", f"{k['equations_pu']:.1e}",
                number(k["s_per_1000_rounds"]),
            ]
        )  # fmt: skip
    note = (
        '<p class="note">Rounds after which cost, consensus and equations stay within that. Differences are those '
        "where the stopping rule ends; dLMP of the largest price. Seconds are of the process, all atoms on a core.</p>"
    )
    return Section(
        "rounds", "Rounds and differences", "", rows_html(header, body, numeric_from=2, css="cases") + note
    )


def _rate(part: float) -> str:
    """Write a share in per cent, down to a thousandth of one."""
    return f"{100.0 * part:.3f}\u00a0%" if part >= 5e-6 else "<\u00a00.001\u00a0%"


def _count(rounds: int | None) -> str:
    return "–" if rounds is None else f"{rounds:,}"


def _market(case: CaseFound) -> str:
    feeder, formulation = case.market.key.split(".")
    return html.escape(f"{feeder}, {SHORT[formulation]}")


def _clearings(cases: Sequence[CaseFound], targets: Mapping[str, float]) -> Section:
    """A table of whole clearings, cold and warm, beside the targets."""
    header = ["market", "method"]
    for name in ("cold", "warm"):
        header += [f"{name}: rounds", "programs", "cost error", "set-points [p.u.]", "dLMP"]
    body = [
        [_market(case), METHOD_TITLE[case.method], *_one(case.kpis, "cold", targets), *_one(case.kpis, "warm", targets)]
        for case in cases
    ]  # fmt: skip
    allowed = [
        f"cost {rate(targets['cost_error'])}",
        f"set-points {targets['set_point_error_pu']:g} p.u.",
        f"dLMP {rate(targets['dlmp_error'])}",
    ]
    names = [(c, n) for c in cases for n in ("cold", "warm")]
    kept = sum(all(c.kpis[f"{n}.{key}"] <= most for key, most in targets.items()) for c, n in names)
    met = sum(bool(c.kpis[f"{n}.converged"]) for c, n in names)
    finding = (
        f"{kept} of {len(names)} clearings are within the targets ({', '.join(allowed)}), "
        f"{met} ended by the stopping rule"
    )
    note = (
        '<p class="note">A whole clearing moves the point at which equations are linearised until nothing is left of '
        "that. Cold from a flat start; warm from the end of the cold one, with loads 2 % and the import price 5 % "
        "higher. Red: beyond the target; *: the stopping rule was not met.</p>"
    )
    return Section(
        "clearings", "Whole clearings", finding, rows_html(header, body, numeric_from=2, css="cases") + note
    )


def _one(kpis: Mapping[str, Any], name: str, targets: Mapping[str, float]) -> list[str]:
    cells = [
        f"{kpis[f'{name}.rounds']:,}" + ("" if kpis[f"{name}.converged"] else " *"),
        str(kpis[f"{name}.points"]),
    ]
    for key, most in targets.items():
        value = kpis[f"{name}.{key}"]
        text = f"{value:.1e}" if key.endswith("_pu") else _rate(value)
        cells.append(text if value <= most else f'<b style="color:{COLOR["limit"]}">{text}</b>')
    return cells


def _scaling(points: Sequence[ScalingPoint]) -> Section:
    """Time of a round by number of atoms."""
    if not points:
        return absent("scaling", "Size", "No sizes were measured; --copies gives them.")
    figure = go.Figure()
    methods = list(points[0].s_per_round)
    atoms = np.array([point.atoms for point in points])
    order = np.argsort(atoms)
    slopes = []
    for method in methods:
        ms = 1e3 * np.array([point.s_per_round[method] for point in points])
        slopes.append(float(np.polyfit(np.log(atoms), np.log(ms), 1)[0]) if len(points) > 1 else np.nan)
        figure.add_trace(
            go.Scatter(
                x=atoms[order], y=ms[order], name=METHOD_TITLE[method], mode="lines+markers",
                customdata=[points[i].label for i in order], marker={"size": 8},
                line={"color": METHOD_COLOR[method], "width": 2},
                hovertemplate="%{customdata}, %{x:,} atoms: %{y:.3g} ms<extra></extra>",
            )
        )  # fmt: skip
    dress(figure, 440, "one round of all atoms, one core [ms]")
    figure.update_xaxes(
        type="log", tickformat=None, hoverformat=None, exponentformat="none", title_text="atoms"
    )
    figure.update_xaxes(dtick="D1" if len(points) < 4 else 1)
    figure.update_yaxes(type="log", exponentformat="none", zeroline=False, dtick=1)
    figure.update_layout(hovermode="closest", margin={"b": 56})
    for i in order:
        top = max(points[i].s_per_round.values())
        figure.add_annotation(
            x=np.log10(atoms[i]), y=np.log10(1e3 * top), text=html.escape(points[i].label), showarrow=False, yshift=16,
            font={"size": 11.5, "color": INK},
        )  # fmt: skip
    header = [
        "network",
        "atoms",
        "unknowns",
        "copied",
        *(f"{METHOD_TITLE[m]} [ms]" for m in methods),
        "µs per atom",
    ]
    body = [
        [
            html.escape(p.label), f"{p.atoms:,}", f"{p.unknowns:,}", f"{p.copies:,}",
            *(number(1e3 * p.s_per_round[m]) for m in methods),
            " / ".join(number(1e6 * p.s_per_round[m] / p.atoms, 2) for m in methods),
        ]
        for p in (points[i] for i in order)
    ]  # fmt: skip
    grows = ", ".join(f"{METHOD_TITLE[m]} {s:.2f}" for m, s in zip(methods, slopes, strict=True))
    real = any(p.label == LARGE_NAME for p in points)
    missing = "" if real else " Files of the IEEE 8500-node feeder were not at hand."
    note = (
        '<p class="note">Three-phase current injection. "ieee123 x4" is four copies of IEEE 123 side by side at one '
        f"substation: it tells what size costs in a round, not how rounds grow with depth.{missing}</p>"
    )
    finding = f"The time of a round grows with atoms to the power of: {grows}" if len(points) > 1 else ""
    table = rows_html(header, body, numeric_from=1, css="cases")
    # one size makes no curve: the table says it all
    picture = embed(figure, "scaling-figure") if len(points) > 1 else ""
    return Section("scaling", "Size", finding, picture + table + note)
