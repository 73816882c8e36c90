"""Several runs on one page: key figures side by side, import, prices and voltages laid over each other."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from voltier.grid.errors import InputError, Problem
from voltier.scenarios.report import comparison_sections, energy, fleet, key_figures
from voltier.scenarios.report.comparison_sections import kpis_of
from voltier.scenarios.report.page import banner_of, render
from voltier.scenarios.report.panel import Panel
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    CASE_COLORS,
    COLOR,
    Section,
    absent,
    dress,
    embed,
    line,
    money,
    number,
)
from voltier.scenarios.report.voltage import limits_pu


def write_comparison(
    run_dirs: Sequence[Path] | Mapping[str, Path], path: Path, *, title: str = "Runs compared"
) -> Path:
    """Write a page that compares runs, the first being the reference, and its key figures as .csv; return its path.

    run_dirs : the runs, or name → run to name them otherwise than by scenario, design or directory.
    Raises InputError if the page cannot be written there.
    """
    if isinstance(run_dirs, Mapping):
        runs = {name: Run(run_dir) for name, run_dir in run_dirs.items()}
    else:
        runs = label([Run(run_dir) for run_dir in run_dirs])
    comparison_sections.share_clock(runs)
    cases = {name: kpis_of(run) for name, run in runs.items()}
    cases = {name: kpis for name, kpis in cases.items() if kpis and not key_figures.is_study(kpis)}
    overlays = [_overlay(runs, *parts) for parts in OVERLAYS]
    physics = [_voltages(runs), comparison_sections.ansi(runs), comparison_sections.thermal(runs)]
    bills = [_houses(runs), comparison_sections.agents_bills(runs)]
    sections = [
        _figures_table(cases), *overlays, *physics, comparison_sections.interruptions(cases), *bills,
    ]  # fmt: skip
    legend = " · ".join(
        f'<span style="color:{_color(i)}">■</span> {html.escape(name)}' for i, name in enumerate(runs)
    )
    banner = comparison_sections.notes(runs)
    banner += "".join(banner_of(run) for run in runs.values() if run.manifest)
    text = render(title=title, subtitle=legend, banner=banner, tiles="", sections=sections)
    try:
        Path(path).write_text(text, encoding="utf-8")
        comparison_sections.write_csv(cases, Path(path).with_suffix(".csv"))
    except OSError as error:
        remedy = f"cannot be written ({error.strerror}); choose another file"
        raise InputError([Problem("comparison", "--out", str(path), remedy)]) from error
    return Path(path)


def label(runs: Sequence[Run]) -> dict[str, Run]:
    """Give each run a short name of its own: scenario, with design or directory where that is needed."""
    names = [run.name for run in runs]
    for extra in (
        [str(run.setting("design", default="")).replace("_", " ") for run in runs],
        [run.dir.name for run in runs],
    ):
        count = Counter(names)
        names = [
            f"{name} ({more})" if count[name] > 1 and more else name
            for name, more in zip(names, extra, strict=True)
        ]
    count = Counter(names)
    return {
        f"{name} #{i}" if count[name] > 1 else name: run
        for i, (name, run) in enumerate(zip(names, runs, strict=True), 1)
    }


def _color(i: int) -> str:
    return CASE_COLORS[i % len(CASE_COLORS)]


def _figures_table(cases: Mapping[str, Mapping[str, object]]) -> Section:
    if not cases:
        return absent("key-figures", "Key figures", "None of these runs wrote key figures.")
    reference = next(iter(cases))
    finding = ""
    if len(cases) > 1:
        finding = f"Per cent in brackets: against {reference}"
    return Section("key-figures", "Key figures", finding, key_figures.case_table(cases, reference=reference))


def _houses(runs: dict[str, Run]) -> Section:
    """Bills, comfort and own PV of all houses, a box a run."""
    title, groups, reasons = "Bills, comfort and own PV of the houses", {}, []
    for name, run in runs.items():
        if isinstance(run.houses, str):
            reasons.append(f"{name}: {run.houses}")
        else:
            groups[name] = fleet.measures(run.houses)
    if not groups:
        return absent("houses", title, " ".join(reasons))
    bill = next(iter(next(iter(groups.values()))))
    finding = "On average a house pays " + ", ".join(
        f"{money(float(next(iter(values.values())).mean()))} in {name}" for name, values in groups.items()
    )
    note = "".join(f'<p class="note">{html.escape(reason)}</p>' for reason in reasons)
    body = embed(fleet.boxes(groups), "houses-figure") + note
    return Section("houses", title, f"{finding} ({bill[bill.index('[') + 1 : -1]})", body)


def _import(run: Run) -> tuple[np.ndarray, np.ndarray] | None:
    imported = energy.import_kw(run)
    if imported is None:
        return None
    thin = Panel(imported[0], ("feeder",), {"p": imported[1][:, None]}).thin(300)
    return thin.t_s, thin["p"][:, 0]


def _mean(table: str, key: str, column: str) -> energy.SeriesOf:
    def series(run: Run) -> tuple[np.ndarray, np.ndarray] | None:
        panel = run.panel(table, key)
        if panel is None or column not in panel:
            return None
        thin = panel.select([column]).thin(max(300, energy.step_for(panel.t_s)))
        return thin.t_s, thin.mean(column)

    return series


def _net_load(run: Run) -> tuple[np.ndarray, np.ndarray] | None:
    """What all nodes together take from the feeder, losses aside."""
    panel = run.panel("grid", "bus", "phase")
    if panel is None or "p_kw" not in panel:
        return None
    thin = Panel(panel.t_s, ("feeder",), {"p": -panel.total("p_kw")[:, None]}).thin(300)
    return thin.t_s, thin["p"][:, 0]


OVERLAYS = (
    ("net-load", "Net load", "net load [kW]", "kW", _net_load),
    ("import", "Import", "import [kW]", "kW", _import),
    ("dlmp", "Mean dLMP", "dLMP [$/kWh]", "$/kWh", _mean("primary", "bus", "dlmp_usd_per_kwh")),
    (
        "tariff",
        "Mean local tariff",
        "tariff [$/kWh]",
        "$/kWh",
        _mean("secondary", "sma", "tariff_usd_per_kwh"),
    ),
)


def _overlay(
    runs: dict[str, Run], anchor: str, title: str, y_title: str, unit: str, series: energy.SeriesOf
) -> Section:
    figure, means, span_s = go.Figure(), {}, 0.0
    for i, (name, run) in enumerate(runs.items()):
        found = series(run)
        if found is not None:
            t_s, values = found
            hover = "%{y:,.0f} kW" if unit == "kW" else "%{y:.4f} $/kWh"
            means[name] = float(np.nanmean(values))
            if unit != "kW":
                shown = Panel(t_s, ("mean",), {"y": values[:, None]}).held()
                t_s, values = shown.t_s, shown["y"][:, 0]
            figure.add_trace(line(name, t_s, values, _color(i), hover=hover, step=unit != "kW"))
            span_s = max(span_s, float(t_s[-1] - t_s[0]))
    if not means:
        return absent(anchor, title, "None of these runs has this table.")
    dress(figure, 340, y_title, span_s=span_s)
    figure.update_layout(showlegend=True)
    finding = "On average " + ", ".join(f"{number(mean)} {unit} in {name}" for name, mean in means.items())
    return Section(anchor, title, finding, embed(figure, f"{anchor}-figure"))


def _voltages(runs: dict[str, Run]) -> Section:
    """Lowest and highest voltage of the feeder over time."""
    figure, spread, span_s = go.Figure(), {}, 0.0
    for i, (name, run) in enumerate(runs.items()):
        panel = run.panel("grid", "bus", "phase")
        if panel is None:
            continue
        thin = panel.select(["v_pu"]).thin(300)
        low, high = thin.quantiles("v_pu", (0, 100))
        options = {"hover": "%{y:.4f} p.u.", "legendgroup": name}
        figure.add_trace(line(name, thin.t_s, high, _color(i), **options))
        figure.add_trace(line(f"{name}, lowest", thin.t_s, low, _color(i), showlegend=False, **options))
        spread[name] = float(np.nanmean(np.abs(panel["v_pu"] - 1.0)))
        span_s = max(span_s, float(thin.t_s[-1] - thin.t_s[0]))
    if not spread:
        return absent("voltage", "Voltages", "None of these runs has a grid table.")
    dress(figure, 340, "highest and lowest [p.u.]", span_s=span_s)
    for limit in limits_pu(next(iter(runs.values()))):
        figure.add_hline(y=limit, line={"color": COLOR["limit"], "dash": "dash", "width": 1})
    figure.update_yaxes(zeroline=False, tickformat=".2f")
    figure.update_layout(showlegend=True)
    finding = "Mean distance from 1 p.u.: " + ", ".join(
        f"{value:.4f} in {name}" for name, value in spread.items()
    )
    return Section("voltage", "Voltages", finding, embed(figure, "voltage-figure"))
