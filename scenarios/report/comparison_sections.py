"""Sections of a comparison that set physics and money of runs side by side."""

from __future__ import annotations

import csv
import html
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from voltier.grid.errors import InputError
from voltier.scenarios.metrics_loading import Loading, loading
from voltier.scenarios.metrics_public import public_kpis
from voltier.scenarios.metrics_voltage import RANGES_PU, excess_pu, longest_run
from voltier.scenarios.metrics_welfare import sma_bills_usd
from voltier.scenarios.panels import as_block
from voltier.scenarios.report.panel import Panel
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import (
    CASE_COLORS,
    COLOR,
    Section,
    absent,
    clock,
    dress,
    embed,
    money,
    number,
    rate,
    rows_html,
)

Runs = Mapping[str, Run]
Kpis = Mapping[str, object]


def kpis_of(run: Run) -> Kpis:
    """Return a run's key figures; those that its tables tell, for one that came without."""
    return run.kpis or public_kpis(run.dir)


def share_clock(runs: Runs) -> None:
    """Let runs that do not say when they start begin with the first that does, so that curves lie over each other."""
    known = next((run.start for run in runs.values() if run.start is not None), None)
    for run in runs.values():
        if run.start is None:
            run.start = known


def write_csv(cases: Mapping[str, Kpis], path: Path) -> None:
    """Write the key figures, a row a key and a column a run; empty where a run has none."""
    keys = list(dict.fromkeys(key for kpis in cases.values() for key in kpis))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["key", *cases])
        for key in keys:
            values = (kpis.get(key) for kpis in cases.values())
            writer.writerow([key, *("" if value is None else value for value in values)])


def notes(runs: Runs) -> str:
    """Say what a reader must know before comparing: tables without a scenario, feeders or times that differ."""
    words = [
        f"{name} came without a manifest: its figures are those that its tables tell, and it is drawn as if it began "
        "with the first run that says when."
        for name, run in runs.items()
        if not run.manifest
    ]
    panels = {name: panel for name, run in runs.items() if (panel := run.panel("grid", "bus", "phase"))}
    if panels:
        first, reference = next(iter(panels.items()))
        for name, panel in panels.items():
            apart = set(panel.names) ^ set(reference.names)
            if apart:
                some = ", ".join(sorted(apart)[:4])
                words.append(
                    f"{name} is on another feeder than {first}: {len(apart)} nodes are in one of them only ({some}, …)."
                )
            elif not np.array_equal(panel.t_s, reference.t_s):
                words.append(f"{name} covers other times than {first}: totals and peaks do not compare.")
    for name, run in runs.items():
        if name not in panels and run.table("grid") is not None:
            words.append(f"{name} has no phases in its table grid: its voltages are not drawn.")
    return "".join(f'<p class="banner">{html.escape(text)}</p>' for text in words)


# ---------------------------------------------------------------------- voltage


def ansi(runs: Runs) -> Section:
    """Node-minutes outside the ranges of ANSI C84.1, and the worst case with its place and time."""
    title, rows, found = "Voltage quality, ANSI C84.1", [], {}
    for name, run in runs.items():
        panel = run.panel("grid", "bus", "phase")
        if panel is None or "v_pu" not in panel:
            continue
        for label, limits in (("A", RANGES_PU["range_a"]), ("B", RANGES_PU["range_b"])):
            share, cells = _range(panel, limits)
            found.setdefault(name, share)
            span = f"{label}, {limits[0]:g} to {limits[1]:g} p.u."
            rows.append([html.escape(name), span, *cells])
    if not rows:
        return absent("ansi", title, "None of these runs has voltages by phase.")
    header = ["run", "range", "node-minutes outside", "worst excess [p.u.]", "where, when", "longest [min]"]
    finding = "Outside range A: " + ", ".join(f"{rate(share)} in {name}" for name, share in found.items())
    return Section("ansi", title, finding, rows_html(header, rows, numeric_from=2))


def _range(panel: Panel, limits: tuple[float, float]) -> tuple[float, list[str]]:
    v_pu = panel["v_pu"]
    excess = excess_pu(v_pu, *limits)
    share = float((excess > 0.0).sum() / max(np.isfinite(v_pu).sum(), 1))
    if share == 0.0:
        return share, [rate(0.0), "none", "–", "0"]
    k, node = np.unravel_index(int(np.argmax(excess)), excess.shape)
    place = f"{panel.names[node]}, {clock(panel.t_s[k])}"
    return share, [
        rate(share), f"{excess[k, node]:.4f}", html.escape(place), f"{longest_run(excess > 0.0):,}"
    ]  # fmt: skip


# ---------------------------------------------------------------------- loading


def thermal(runs: Runs) -> Section:
    """Percentiles of branch loading over all branches and times."""
    title, figure, worst, reasons = "Thermal loading of lines and transformers", go.Figure(), {}, []
    for i, (name, run) in enumerate(runs.items()):
        found = _loading(run)
        if isinstance(found, str):
            reasons.append(f"{name}: {found}")
            continue
        percent = np.concatenate([np.arange(0.0, 99.0), np.arange(99.0, 100.01, 0.05)]).clip(max=100.0)
        values = 100.0 * np.percentile(found.share, percent)
        figure.add_scatter(
            x=percent, y=values, mode="lines", name=name, line={"color": CASE_COLORS[i % len(CASE_COLORS)]},
            hovertemplate="%{y:.1f} %",
        )  # fmt: skip
        k, branch = np.unravel_index(int(np.argmax(found.share)), found.share.shape)
        worst[name] = (
            f"{rate(found.share[k, branch])} at {found.name[branch]} ({clock(found.t_s[k] + run.start_s)}) in {name}"
        )
    note = "".join(f'<p class="note">{html.escape(reason)}</p>' for reason in reasons)
    if not worst:
        return Section("loading", title, "", note)
    dress(figure, 340, "loading [%]")
    figure.update_xaxes(
        type="linear", tickformat=None, hoverformat=".1f", title_text="percentile of branches and times"
    )
    figure.add_hline(y=100.0, line={"color": COLOR["limit"], "dash": "dash", "width": 1})
    figure.update_layout(showlegend=True, margin_b=56)
    body = embed(figure, "loading-figure") + note
    return Section("loading", title, "Highest: " + ", ".join(worst.values()), body)


def _loading(run: Run) -> Loading | str:
    try:
        feeder = run.feeder
    except InputError as error:
        return str(error)
    if feeder is None:
        return "no scenario says on which feeder it was, and so with which ratings."
    return loading(run.dir, feeder)


# ---------------------------------------------------------------------- supply and money

INTERRUPTIONS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "interruptions.customers": ("customers", lambda value: f"{value:,.0f}"),
    "interruptions.saidi_min": ("SAIDI [min]", number),
    "interruptions.saifi": ("SAIFI", number),
    "interruptions.maifi": ("MAIFI", number),
    "interruptions.energy_not_served_kwh": ("energy not served [kWh]", number),
}


def interruptions(cases: Mapping[str, Kpis]) -> Section:
    """Interruptions of supply by run."""
    title, rows, hit = "Interruptions", [], []
    for name, kpis in cases.items():
        values = [kpis.get(key) for key in INTERRUPTIONS]
        if values[0] is None:
            continue
        rows.append(
            [
                html.escape(name),
                *(
                    write(float(value)) if isinstance(value, int | float) else "–"
                    for value, (_, write) in zip(values, INTERRUPTIONS.values(), strict=True)
                ),
            ]
        )
        if any(isinstance(value, int | float) and value > 0 for value in values[1:]):
            hit.append(name)
    if not rows:
        return absent("interruptions", title, "None of these runs has figures of interruptions.")
    finding = (
        f"Supply failed in {', '.join(hit)}" if hit else "None: every customer had voltage in every minute"
    )
    note = (
        '<p class="note">Interrupted: below 0.1 p.u. or without voltage. SAIDI and SAIFI count interruptions of more '
        "than five minutes, MAIFI the others (IEEE 1366); energy not served is what a node drew just before.</p>"
    )
    header = ["run", *(label for label, _ in INTERRUPTIONS.values())]
    return Section("interruptions", title, finding, rows_html(header, rows) + note)


def agents_bills(runs: Runs) -> Section:
    """Bills of the secondary agents over the run, a box a run."""
    title, figure, means = "Bills of the secondary agents", go.Figure(), {}
    for i, (name, run) in enumerate(runs.items()):
        tables = [run.table("settlement"), run.table("secondary")]
        if tables[0] is None or tables[1] is None:
            continue
        settlement = as_block(tables[0], f"{run.dir}: table settlement")
        agents = tuple(dict.fromkeys(tables[1]["sma"].to_pylist()))
        if settlement is None or "market" not in settlement.keys:
            continue
        bills = sma_bills_usd(settlement, agents)
        if len(bills):
            means[name] = float(bills.mean())
            figure.add_box(
                y=np.round(bills, 4), name=name, boxpoints="outliers",
                marker={"color": CASE_COLORS[i % len(CASE_COLORS)], "size": 4},
            )  # fmt: skip
    if not means:
        return absent("agents", title, "None of these runs has settlements of secondary agents.")
    dress(figure, 340, "bill of an agent [$]")
    figure.update_xaxes(type="category", tickformat=None, hoverformat=None)
    figure.update_layout(showlegend=False, hovermode="closest")
    finding = "An agent pays on average " + ", ".join(
        f"${money(value)} in {name}" for name, value in means.items()
    )
    return Section("agents", title, finding, embed(figure, "agents-figure"))
