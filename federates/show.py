"""What a person at the terminal sees of runs and scenarios."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from voltier.federates.foreign import wide
from voltier.federates.progress import ProgressLine, Watch, unwatched
from voltier.scenarios.report.key_figures import readable, split_key
from voltier.scenarios.schema import Scenario

console = Console(highlight=False)


@contextmanager
def following(scenario: Scenario, *, quiet: bool) -> Iterator[Watch]:
    """Show a run's progress while the context lasts, on a terminal only."""
    if quiet or not console.is_terminal:
        yield unwatched
        return
    with ProgressLine(console, scenario.name, scenario.end_s) as line:
        yield line


@contextmanager
def saying(name: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show what a study says it is doing while the context lasts, on a terminal only."""
    if quiet or not console.is_terminal:
        yield lambda text: None
        return
    with console.status(f"[bold]{name}[/bold]") as status:
        yield lambda text: status.update(f"[bold]{name}[/bold]  {text}")


@contextmanager
def counting(*, quiet: bool) -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """Show a bar for each part of a long work, on a terminal only; see scenarios.studies.crosscheck.Progress."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bars:

        def begin(name: str, steps: int) -> Callable[[], None]:
            task = bars.add_task(name, total=steps)
            return lambda: bars.advance(task)

        yield begin


def show_crosscheck(to: Console, found: Mapping[str, Mapping[str, object]], folder: Path) -> None:
    """Print how far each engine is from the run."""
    columns = {
        "largest\nΔ|v| [p.u.]": "voltage.max_difference_pu",
        "at": "voltage.worst_node",
        "losses\n[%]": "losses.difference_percent",
        "import\n[%]": "import.difference_percent",
        "[s]": "solve_s",
    }
    table = Table("engine", "limits", *map(escape, columns), box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.no_wrap = True
    for name, kpis in found.items():
        verdict = "within" if kpis["within_limits"] else "[red]beyond[/red]"
        row = dict(kpis) | ({} if kpis.get("voltage.max_difference_pu") else {"voltage.worst_node": "–"})
        table.add_row(name, verdict, *(readable(row.get(key), "") for key in columns.values()))
    wide(to).print(table)
    to.print(f"\npage    {folder / 'crosscheck.html'}", soft_wrap=True, markup=False)


def show_result(to: Console, run_dir: Path) -> None:
    """Print the key figures of a run and where its results lie."""
    kpis = json.loads((run_dir / "kpis.json").read_text(encoding="utf-8"))
    table = Table("", "key figure", "value", box=None, pad_edge=False, header_style="bold")
    table.columns[2].justify = "right"
    last = ""
    for key in sorted(kpis):
        group, label, unit = split_key(key)
        table.add_row(group if group != last else "", label, readable(kpis[key], unit))
        last = group
    to.print(table)
    to.print(f"\nrun     {run_dir}\nreport  {run_dir / 'report.html'}", soft_wrap=True, markup=False)


def show_scenarios(to: Console, titles: Mapping[str, str]) -> None:
    """Print the names and titles of the library."""
    width = max(map(len, titles), default=0)
    for name, title in titles.items():
        to.print(f"[bold]{name:{width}}[/bold]  {title}", soft_wrap=True)
    to.print(
        "\n`voltier run NAME` runs one; a file with `extends: NAME` changes what you like.", soft_wrap=True
    )
