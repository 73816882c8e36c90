"""The page of the duck-curve study: the published table beside ours, net load, ramps, stored energy, readings."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from voltier.scenarios.report.page import render
from voltier.scenarios.report.style import (
    CASE_COLORS,
    MUTED,
    Section,
    clock,
    dress,
    embed,
    line,
    number,
    rows_html,
    stamp,
)
from voltier.scenarios.studies.cases import CaseKpis
from voltier.scenarios.studies.duck_curve_case import (
    BATTERY_NODES,
    CAPACITY_KWH,
    HOURS,
    NODES,
    PV_SHARE,
    DuckCase,
    Reading,
)
from voltier.scenarios.studies.duck_curve_readings import READINGS
from voltier.scenarios.studies.duck_curve_results import Result

Array = NDArray[np.float64]

SCENARIOS = {"a": "A, no control", "b": "B, agents for themselves", "c": "C, network-aware"}
COLORS = dict(zip(SCENARIOS, (MUTED, CASE_COLORS[1], CASE_COLORS[0]), strict=True))
PUBLISHED: tuple[tuple[str, str, str, tuple[str, str, str]], ...] = (
    ("total ramping [kW]", "ramping.total_kw", ".1f", ("3923.7", "3941.0", "2839.4")),
    ("reduction of total ramping [%]", "ramping.reduction_percent", "+.2f", ("", "−0.44", "+27.63")),
    ("reduction of the evening ramp [%]", "ramping.evening_reduction_percent", "+.1f", ("", "", "+23")),
    (
        "run time per agent [s], ours of the processor",
        "performance.run_time_per_agent_s",
        ".4f",
        ("", "0.0947", "16.97"),
    ),
)
OURS: tuple[tuple[str, str, str], ...] = (
    ("evening ramp [kW]", "ramping.evening_peak_kw", ".1f"),
    ("peak net load [kW]", "energy.peak_kw", ".0f"),
    ("total ramping of the import, with losses [kW]", "ramping.head_total_kw", ".1f"),
    ("its reduction [%]", "ramping.head_reduction_percent", "+.2f"),
    ("total ramping without the step at midnight [kW]", "ramping.within_day_kw", ".1f"),
    ("losses [kWh]", "losses.energy_kwh", ".0f"),
    ("lowest voltage [p.u.]", "voltage.min_pu", ".4f"),
    ("highest voltage [p.u.]", "voltage.max_pu", ".4f"),
    ("load shed [kWh]", "shed.energy_kwh", ".0f"),
    ("lowest final state of charge [%]", "storage.final_soc_min", ".0%"),
    ("run time of all agents [s]", "performance.run_time_s", ".2f"),
)
AGREEMENT: tuple[tuple[str, str, str], ...] = (
    ("cost above the central optimum [%]", "distributed.cost_gap_percent", "+.4f"),
    ("largest difference of a bus's power [kW]", "distributed.setpoint_difference_kw", ".2f"),
    ("of reactive power [kvar]", "distributed.reactive_difference_kvar", ".2f"),
    ("of a battery's power [kW]", "distributed.battery_difference_kw", ".2f"),
    ("of the import [kW]", "distributed.import_difference_kw", ".2f"),
    (
        "largest difference of a price over the largest price [%]",
        "distributed.dlmp_difference_percent",
        ".2f",
    ),
    ("stopping rule met", "distributed.converged", ""),
    ("iterations", "distributed.iterations", ".0f"),
    ("atoms", "performance.agents", ".0f"),
    ("processor time of all atoms [s]", "performance.run_time_s", ".2f"),
    ("of the central solver [s]", "central.solve_s", ".2f"),
    ("import of the program against OpenDSS [kW]", "flow.import_difference_kw", ".4f"),
    ("reduction of total ramping [%]", "ramping.reduction_percent", "+.2f"),
    ("lowest voltage [p.u.]", "voltage.min_pu", ".4f"),
    ("highest voltage [p.u.]", "voltage.max_pu", ".4f"),
)


def write_page(
    out: Path,
    case: DuckCase,
    results: Mapping[str, Result],
    kpis: CaseKpis,
    reading: Reading,
    starts: Sequence[str],
) -> Path:
    """Write out/index.html; results : days by case ; kpis : figures by case, other readings among them."""
    sections = [_published(kpis), _net_load(results, kpis), _ramps(results), _stored(results, starts)]
    sections += [_agreement(kpis), _starts(kpis, starts)]
    sections += [_other(kpis)] if any(name.startswith("reading_") for name in kpis) else []
    sections += [_readings(case)]
    text = render(
        title="The duck curve on IEEE 34",
        subtitle=html.escape(
            f"San Francisco, {reading.month_day} of the typical year, 38 % photovoltaics, three batteries; after "
            "Haider, Ferro, Robba and Annaswamy, IEEE PES General Meeting 2022"
        ),
        banner="",
        tiles="",
        sections=sections,
    )
    path = out / "index.html"
    path.write_text(text, encoding="utf-8")
    return path


def _cell(figures: Mapping[str, Any], key: str, form: str) -> str:
    value = figures.get(key)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else format(value, form).replace("-", "−")


def _published(kpis: CaseKpis) -> Section:
    header = [
        "",
        *(f"{name}<br>published" for name in SCENARIOS.values()),
        *(f"{n}<br>ours" for n in SCENARIOS.values()),
    ]
    rows = [
        [title, *values, *(_cell(kpis[name], key, form) if name != "a" or key == "ramping.total_kw" else ""
                           for name in SCENARIOS)]
        for title, key, form, values in PUBLISHED
    ]  # fmt: skip
    rows += [
        [title, "", "", "", *(_cell(kpis[name], key, form) for name in SCENARIOS)]
        for title, key, form in OURS
    ]
    b, c = (float(kpis[name]["ramping.reduction_percent"]) for name in ("b", "c"))
    finding = (
        f"Total ramping falls by {number(b)} % where agents lower their own peaks and by {number(c)} % with "
        "network-aware control; the paper has −0.44 % and 27.63 %"
    )
    note = (
        '<p class="note">The paper\'s loads, suns and flexible shares are not public, so levels differ. Its '
        "reduction in C is far from what its own batteries allow, here and in every other reading below, and "
        "stopping after 1,000 iterations does not explain it: see “Distributed against central”. Each agent of the "
        "paper is a computer of its own; ours share one, and run time per agent is that of all over their "
        "number.</p>"
    )
    return Section(
        "published", "The published table beside ours", finding, rows_html(header, rows, css="cases") + note
    )


def _hours(values: Array) -> tuple[NDArray[np.int64], Array]:
    """Return times and values of steps that hold for their hours."""
    return np.arange(HOURS + 1) * 3600, np.append(values, values[-1])


def _net_load(results: Mapping[str, Result], kpis: CaseKpis) -> Section:
    figure = go.Figure()
    for name, title in SCENARIOS.items():
        t_s, kw = _hours(results[name].net_kw)
        figure.add_trace(line(title, t_s, kw, COLORS[name], step=True, width=2.4))
    if "c_1000" in results:
        t_s, kw = _hours(results["c_1000"].net_kw)
        figure.add_trace(
            line("C after 1,000 iterations", t_s, kw, COLORS["c"], step=True, dash="dot", width=1.4)
        )
    dress(figure, 420, "net load without losses [kW]")
    hour = int(kpis["a"]["ramping.evening_hour"])
    figure.add_vline(x=stamp(hour * 3600), line={"color": MUTED, "dash": "dot", "width": 1})
    before, now = (float(kpis[name]["ramping.evening_peak_kw"]) for name in ("a", "c"))
    finding = (
        f"The evening ramp at {clock(hour * 3600)} falls from {number(before)} to {number(now)} kW with C"
    )
    return Section("net-load", "Net load of the bulk system", finding, embed(figure, "net-load-figure"))


def _ramps(results: Mapping[str, Result]) -> Section:
    figure = go.Figure()
    for name, title in SCENARIOS.items():
        kw = results[name].net_kw
        bars = go.Bar(
            name=title, x=[stamp(t * 3600) for t in range(HOURS)], y=np.abs(kw - np.roll(kw, 1)),
            marker={"color": COLORS[name]}, hovertemplate="%{y:,.0f} kW",
        )  # fmt: skip
        figure.add_trace(bars)
    dress(figure, 360, "change from the hour before [kW]")
    figure.update_layout(barmode="group", bargap=0.25)
    note = '<p class="note">The bar at midnight is the step from the last hour of the day to the first of the next.</p>'
    return Section("ramps", "Magnitude of ramping", "", embed(figure, "ramps-figure") + note)


def _stored(results: Mapping[str, Result], starts: Sequence[str]) -> Section:
    titles = [
        f"node {node} ({NODES[node - 1]}), {kwh:.0f} kWh"
        for node, kwh in zip(BATTERY_NODES, CAPACITY_KWH, strict=True)
    ]
    figure = make_subplots(1, len(titles), subplot_titles=titles, horizontal_spacing=0.06)
    for i, start in enumerate(starts):
        energy = results["c" if i == 0 else f"c_{start}"].energy_kwh
        assert energy is not None
        for k in range(len(titles)):
            trace = line(
                f"begins {start}", np.arange(HOURS + 1) * 3600, energy[:, k], CASE_COLORS[i], hover="%{y:,.0f} kWh",
                legendgroup=start, showlegend=k == 0, width=2.2,
            )  # fmt: skip
            figure.add_trace(trace, 1, k + 1)
    dress(figure, 380)
    figure.update_xaxes(dtick=6 * 3600 * 1000)
    figure.update_yaxes(title_text="stored [kWh]", col=1)
    figure.update_layout(legend={"y": 1.12}, margin={"t": 76})
    return Section("stored", "State of charge with network-aware control", "", embed(figure, "stored-figure"))


def _agreement(kpis: CaseKpis) -> Section:
    names = [name for name in kpis if name == "c" or name.startswith("c_")]
    words = {"c": "our stopping rule", "c_1000": "1,000 iterations"}
    header = ["C by NST-PAC", *(words.get(name, f"begins {name[2:]}") for name in names)]
    rows = [[title, *(_cell(kpis[name], key, form) for name in names)] for title, key, form in AGREEMENT]
    gap = float(kpis["c"]["distributed.cost_gap_percent"])
    finding = f"The atoms end {number(abs(gap))} % {'above' if gap >= 0 else 'below'} the cost of the central optimum"
    return Section("atoms", "Distributed against central", finding, rows_html(header, rows, css="cases"))


def _starts(kpis: CaseKpis, starts: Sequence[str]) -> Section:
    header = ["begins", *(f"B, node {n} [kWh]" for n in BATTERY_NODES), "B [%]"]
    header += [*(f"C, node {n} [kWh]" for n in BATTERY_NODES), "C [%]"]
    rows = []
    for i, start in enumerate(starts):
        row = [start]
        for scenario in "bc":
            figures = kpis[scenario if i == 0 else f"{scenario}_{start}"]
            row += [_cell(figures, f"storage.final_node_{n}_kwh", ".0f") for n in BATTERY_NODES]
            row.append(_cell(figures, "ramping.reduction_percent", "+.2f"))
        rows.append(row)
    note = '<p class="note">Energy at the end of the day, and the reduction of total ramping.</p>'
    least = min(
        float(kpis["c" if i == 0 else f"c_{s}"]["storage.final_soc_min"]) for i, s in enumerate(starts)
    )
    finding = f"No battery ends below {100.0 * least:.0f} % of its capacity with C"
    return Section("starts", "Initial states of charge", finding, rows_html(header, rows, css="cases") + note)


def _other(kpis: CaseKpis) -> Section:
    header = ["reading", "A [kW]", "B [kW]", "B [%]", "least possible [kW]", "least possible [%]"]
    keys = (("ramping.a_total_kw", ".0f"), ("ramping.b_total_kw", ".0f"), ("ramping.b_reduction_percent", "+.1f"),
            ("ramping.least_total_kw", ".0f"), ("ramping.least_reduction_percent", "+.1f"))  # fmt: skip
    rows = [
        [name.removeprefix("reading_").replace("_", " "), *(_cell(figures, key, form) for key, form in keys)]
        for name, figures in kpis.items()
        if name.startswith("reading_")
    ]
    shown = {name: figures for name, figures in kpis.items() if name.startswith("reading_")}
    least = {name: float(figures["ramping.least_reduction_percent"]) for name, figures in shown.items()}
    without = least.pop("reading_no_batteries")
    finding = (
        f"The least ramping that is possible is {min(least.values()):.0f} to {max(least.values()):.0f} % below that of "
        f"A, and {without:.0f} % below without batteries"
    )
    note = (
        '<p class="note">“Least possible” is the least total ramping of net load with all devices and no network: '
        "an upper limit of what any control can do. “Printed units” takes 120, 200 and 185 kWh at 450, 540 and 800 "
        "kW; “open day” leaves out the step at midnight.</p>"
    )
    return Section(
        "other", "Other days and other readings", finding, rows_html(header, rows, css="cases") + note
    )


def _readings(case: DuckCase) -> Section:
    items = "".join(f"<li><b>{html.escape(title)}.</b> {html.escape(text)}</li>" for title, text in READINGS)
    names = [case.feeder.bus[b] for b in case.bus]
    numbers = {bus: k + 1 for k, bus in enumerate(NODES)}
    header = ["node", "bus", "building", "average load [kW]", "PV [kW]", "shed at most [kWh]"]
    rows = [
        [
            str(numbers[name]), name, kind.replace("_", " "), f"{case.load_kw[:, k].mean():.1f}",
            f"{PV_SHARE * case.load_kw[:, k].mean():.1f}", f"{case.shed_max_kw[:, k].sum():.1f}",
        ]
        for k, (name, kind) in enumerate(zip(names, case.kind, strict=True))
    ]  # fmt: skip
    rows.sort(key=lambda row: int(row[0]))
    table = rows_html(header, rows, numeric_from=3, css="cases")
    return Section("readings", "How we read the source", "", f"<ul>{items}</ul>{table}")
