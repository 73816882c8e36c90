"""The report page: all sections in order, plotly.js inlined once, no network."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from voltier.scenarios.report import (
    areas,
    attack,
    bulk,
    clearings,
    devices,
    energy,
    events,
    feeder_map,
    fleet,
    hardware,
    house,
    key_figures,
    manifest,
    node,
    premises,
    price_stack,
    prices,
    scores,
    settlement,
    voltage,
)
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import ACCENT, FONT, GRID, INK, MUTED, Section, clock

SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    key_figures.section,
    attack.section,
    bulk.section,
    energy.section,
    prices.section,
    price_stack.section,
    feeder_map.section,
    voltage.section,
    node.section,
    devices.section,
    house.section,
    fleet.section,
    premises.section,
    scores.section,
    clearings.section,
    areas.section,
    hardware.section,
    settlement.section,
    events.section,
    manifest.section,
)
SCRIPTS = ("report.js", "feeder_map.js", "choice.js", "price_stack.js")
TILES = (
    ("energy.import_kwh", "imported"),
    ("energy.peak_import_kw", "peak import"),
    ("prices.mean_dlmp_usd_per_kwh", "mean dLMP"),
    ("prices.mean_tariff_usd_per_kwh", "mean local tariff"),
    ("bills.house_mean_usd", "mean bill of a house"),
    ("voltage.violations", "voltage violations"),
    ("performance.wall_s", "wall time"),
)
"""Key figures at the head of the page, as far as the run has them."""


def write_report(run_dir: Path) -> Path:
    """Write run_dir/report.html from what the run left, however far it came, and return its path."""
    run = Run(run_dir)
    sections = [section for section in (make(run) for make in SECTIONS) if section is not None]
    text = render(
        title=str(run.setting("title") or run.name),
        subtitle=_subtitle(run),
        banner=banner_of(run),
        tiles=_tiles(run.kpis),
        sections=sections,
    )
    path = Path(run_dir) / "report.html"
    path.write_text(text, encoding="utf-8")
    return path


def render(*, title: str, subtitle: str, banner: str, tiles: str, sections: Sequence[Section]) -> str:
    """Fill the page template. subtitle, banner and tiles are HTML."""
    contents = "".join(f'<a href="#{s.anchor}">{html.escape(s.title)}</a>' for s in sections)
    return Template(_asset("page.html")).substitute(
        title=html.escape(title),
        subtitle=subtitle,
        banner=banner,
        tiles=tiles,
        contents=contents,
        sections="".join(_section_html(section) for section in sections),
        style=Template(_asset("page.css")).substitute(
            font=FONT, ink=INK, muted=MUTED, grid=GRID, accent=ACCENT
        ),
        plotly=get_plotlyjs(),
        script="\n".join(_asset(name) for name in SCRIPTS),
    )


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _section_html(section: Section) -> str:
    finding = f'<p class="finding">{html.escape(section.finding)}.</p>' if section.finding else ""
    title = html.escape(section.title)
    return f'<section id="{section.anchor}"><h2>{title}</h2>{finding}{section.body}</section>'


def _subtitle(run: Run) -> str:
    parts = [run.name]
    if run.start is not None:
        parts.append(f"{run.start:%A, %-d %B %Y, from %H:%M}")
    if run.setting("hours") is not None:
        what = "simulated" if run.manifest.get("status") == "done" else "planned"
        parts.append(f"{run.setting('hours'):g} h {what}")
    design = run.setting("design")
    if design is not None:
        parts.append(f"design: {str(design).replace('_', ' ')}")
    if run.setting("feeder", "name") is not None:
        parts.append(f"feeder {Path(run.setting('feeder', 'name')).name}")
    return " · ".join(html.escape(part) for part in parts)


def banner_of(run: Run) -> str:
    """Say at the top when a run did not end well, and how far it came."""
    status = str(run.manifest.get("status", "unknown"))
    if status == "done":
        return ""
    substation = run.table("substation")
    reach = (
        "no time step was committed"
        if substation is None
        else f"its tables reach to {clock(substation['t_s'][-1].as_py())}"
    )
    message = str(run.manifest.get("message", ""))
    text = f"The run {run.dir.name} has the status “{status}”; {reach}."
    return f'<p class="banner">{html.escape(text)} {html.escape(message)}</p>'


def _tiles(kpis: Mapping[str, object]) -> str:
    tiles = []
    for key, label in TILES:
        if key in kpis:
            value = html.escape(key_figures.readable(kpis[key], key_figures.split_key(key)[2]))
            tiles.append(f'<div class="tile"><b>{value}</b><span>{label}</span></div>')
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""
