"""The event log as a table that can be searched."""

from __future__ import annotations

import html
from collections import Counter

import pyarrow as pa

from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import Section, absent, clock, rows_html

MOST_OF_A_KIND = 100
"""Rows shown of each kind, so that a frequent kind cannot hide a rare one."""


def section(run: Run) -> Section:
    """The events in order of time, the first hundred of each kind."""
    table = run.table("events")
    if table is None:
        return absent("events", "Events", "Nothing happened that an operator had to report.")
    count = Counter(table["kind"].to_pylist())
    finding = f"{table.num_rows:,} events: " + ", ".join(f"{n:,} {kind}" for kind, n in count.most_common(6))
    rows = _rows(table)
    note = "" if len(rows) == table.num_rows else f" Shown: the first {MOST_OF_A_KIND} of each kind."
    search = (
        '<p class="controls"><input id="event-search" type="search" placeholder="search">'
        f'<output id="event-count">{len(rows):,} of {table.num_rows:,} events.{note}</output></p>'
    )
    header = ["time", "source", "kind", "text"]
    body = search + f'<div class="scroll" id="event-table">{rows_html(header, rows, numeric_from=9)}</div>'
    return Section("events", "Events", finding, body)


def _rows(table: pa.Table) -> list[list[str]]:
    seen: Counter[str] = Counter()
    rows = []
    for event in table.sort_by("t_s").select(["t_s", "source", "kind", "text"]).to_pylist():
        seen[event["kind"]] += 1
        if seen[event["kind"]] <= MOST_OF_A_KIND:
            texts = [html.escape(str(event[name])) for name in ("source", "kind", "text")]
            rows.append([clock(event["t_s"]), *texts])
    return rows
