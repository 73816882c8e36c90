"""The page of the study of the transmission grid: frequencies, flows, and the published figures beside ours."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from voltier.grid.bulk import BulkSeconds
from voltier.scenarios.report.bulk import seconds_figure
from voltier.scenarios.report.key_figures import case_table
from voltier.scenarios.report.page import render
from voltier.scenarios.report.panel import Panel
from voltier.scenarios.report.style import Section, embed, rows_html
from voltier.scenarios.studies.cases import CaseKpis

FIRST_S = (5.0, 60.0)
"""Time before and after the step that is shown large [s]."""
PUBLISHED: tuple[tuple[str, str, str, str], ...] = (
    ("power missing, settled [MW]", "bulk.feeders_rise_mw", "359", "2 (3 kW of import remain)"),
    ("power missing, largest [MW]", "bulk.feeders_largest_rise_mw", "359", "359"),
    ("settling deviation [Hz]", "bulk.settling_deviation_hz", "about −0.30", "below 0.05 in size"),
    ("lowest, against before [Hz]", "bulk.nadir_deviation_hz", "–", "–"),
    ("largest rate of change, half a second [Hz/s]", "bulk.rocof_hz_per_s", "–", "–"),
    ("settled after [s]", "bulk.settling_time_s", "–", "–"),
    ("largest swing of the tie flow [MW]", "bulk.tie_swing_mw", "–", "–"),
)
"""Title, key figure, published without the market, published with it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One case. start_s, end_s : of the disturbance; clock_s : wall-clock second of the day at simulated second 0."""

    seconds: BulkSeconds
    start_s: float
    end_s: float
    clock_s: int


def write_page(out: Path, shown: Mapping[str, Shown], kpis: CaseKpis, what: str, ticks: str) -> Path:
    """Write out/index.html. what : says in words what was played; ticks : format of the time axis."""
    panels = {case: _panel(one) for case, one in shown.items()}
    whole = seconds_figure(panels, height=640, ticks=ticks)
    sections = [
        _published(kpis),
        Section("course", "The whole course", _course(kpis), embed(whole, "course-figure")),
        _first_minute(shown, panels),
        Section("figures", "All figures", "", case_table(kpis) + _note()),
    ]
    text = render(
        title="An attack seen from the transmission grid",
        subtitle=html.escape(f"Kundur's two-area system · {what} · with the market (mitigated) and without"),
        banner="",
        tiles="",
        sections=sections,
    )
    path = out / "index.html"
    path.write_text(text, encoding="utf-8")
    return path


def _panel(one: Shown) -> Panel:
    """The seconds as the report's figures take them, on the clock."""
    names = [field.name for field in fields(BulkSeconds) if field.name != "t_s"]
    t_s = one.seconds.t_s + one.clock_s
    return Panel(t_s, ("1", "2"), {name: getattr(one.seconds, name) for name in names})


def _published(kpis: CaseKpis) -> Section:
    rows = []
    for title, key, without, with_market in PUBLISHED:
        ours = [_cell(kpis[case].get(key)) for case in ("unmitigated", "mitigated")]
        rows.append([html.escape(title), without, ours[0], with_market, ours[1]])
    header = [
        "",
        "published, without",
        "ours, without",
        "published, with the market",
        "ours, with the market",
    ]
    note = (
        '<p class="note">Published: V. J. Nair, PhD thesis, MIT 2025; its plots cannot be read, and the deviations are '
        "what its power and the machines' droop give: 359 MW over 1,200 MW/Hz.</p>"
    )
    deviations = [kpis[case]["bulk.settling_deviation_hz"] for case in ("unmitigated", "mitigated")]
    without, with_market = (_cell(value) for value in deviations)
    finding = f"Without the market the frequency settles {without} Hz off, with it {with_market} Hz"
    return Section("published", "Published and ours", finding, rows_html(header, rows) + note)


def _cell(value: float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,d}"
    return (f"{value:,.0f}" if abs(value) >= 20.0 else f"{value:.3f}").replace("-", "−")


def _course(kpis: CaseKpis) -> str:
    rebound = kpis["mitigated"].get("bulk.rebound_hz")
    text = f"Lowest: {kpis['unmitigated']['bulk.frequency_nadir_hz']:.2f} Hz"
    if rebound is None:
        return text
    return f"{text}; when the attack ends and the market still answers, the frequency rises by up to {rebound:.2f} Hz"


def _first_minute(shown: Mapping[str, Shown], panels: Mapping[str, Panel]) -> Section:
    """The step itself, large."""
    near = {}
    for case, panel in panels.items():
        at_s = shown[case].start_s + shown[case].clock_s
        near[case] = panel.between(at_s - FIRST_S[0], at_s + FIRST_S[1])
    one = next(iter(shown.values()))
    here = (one.seconds.t_s >= one.start_s) & (one.seconds.t_s < one.start_s + FIRST_S[1])
    lowest = one.seconds.t_s[here][int(np.argmin(one.seconds.frequency_min_hz[here].min(axis=1)))]
    figure = seconds_figure(near, height=560, ticks="%H:%M:%S" if one.clock_s else "%M:%S")
    finding = f"Without the market the frequency is lowest {lowest - one.start_s:.0f} s after the step"
    return Section("step", "The first minute", finding, embed(figure, "step-figure"))


def _note() -> str:
    return (
        '<p class="note">Only governors act, so that lasting changes of load leave lasting deviations. The feeders '
        "draw constant power, other loads constant current. The shaded band spans both areas and all of each second. "
        "Real grids shed load near 59.5 Hz; none is shed here.</p>"
    )
