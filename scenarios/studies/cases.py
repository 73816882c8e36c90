"""What studies share: run the cases, collect their key figures, write them down as JSON and as a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from voltier.grid.errors import InputError, Problem
from voltier.scenarios.manifest import read_json, write_json
from voltier.scenarios.schema import Scenario

Run = Callable[[Scenario, Path], Path]
"""Runs a scenario into a directory, which holds kpis.json afterwards, and returns that directory."""

CaseKpis = dict[str, dict[str, Any]]


def run_cases(cases: Mapping[str, Scenario], run: Run, out: Path) -> CaseKpis:
    """Run each case into its own folder of out; write and return out/kpis.json, one flat object a case."""
    new_directory(out)
    kpis: CaseKpis = {}
    for name, scenario in cases.items():
        path = run(scenario, out / name)
        kpis[name] = read_json(path / "kpis.json")
        # Written after each case: a long study that is cut short leaves what it has.
        write_json(out / "kpis.json", kpis)
    return kpis


def new_directory(out: Path) -> None:
    """Make the study's directory. Raises InputError where something is in it already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        remedy = "it is not empty; choose another directory or remove it"
        raise InputError([Problem("study", "--out", str(out), remedy)])
    out.mkdir(parents=True, exist_ok=True)


def ratio(a: float | None, b: float | None) -> float | None:
    """Return a / b where both are there."""
    return None if a is None or b is None or b == 0.0 else a / b


def number(value: float | None, digits: int = 3, sign: str = "") -> str:
    """Write a number for a table, or a dash for what is not there."""
    return "-" if value is None else f"{value:{sign},.{digits}f}"


def share(value: float | None, digits: int = 1) -> str:
    """Write a share as a change in per cent, or a dash."""
    return "-" if value is None else f"{100.0 * value:+.{digits}f} %"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with its columns padded to equal width, first column left, others right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def one(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|"
    return "\n".join([one(header), rule, *(one(row) for row in rows)]) + "\n"
