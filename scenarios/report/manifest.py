"""What the run was made of: manifest and resolved scenario."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping

import yaml

from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import Section, absent, rows_html


def section(run: Run) -> Section:
    """Manifest as a table, the scenario to unfold."""
    if not run.manifest and not run.config:
        return absent("manifest", "Manifest", "This directory holds neither a manifest nor a scenario.")
    rows = [[html.escape(key), html.escape(text)] for key, text in flat(run.manifest)]
    body = rows_html([], rows, numeric_from=9, css="manifest")
    if run.config:
        text = html.escape(yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True))
        body += f"<details><summary>Resolved scenario</summary><pre>{text}</pre></details>"
    return Section("manifest", "Manifest", "", body)


def flat(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as dotted key and text."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        yield prefix, ", ".join(str(item) for item in value)
    else:
        yield prefix, str(value)
