"""Options and small checks that several commands share."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from voltier.grid.errors import InputError, Problem

ScenarioArgument = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="Name from `voltier list`, or path of a scenario file.")
]
HoursOption = Annotated[float | None, typer.Option(help="Length of a run [h].")]
SeedOption = Annotated[int | None, typer.Option(help="Seed of everything random.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. primary.period_s=600."),
]
TransportOption = Annotated[
    str, typer.Option(help="zmq or tcp: a process per federate; inproc: threads; none: no HELICS at all.")
]
RealtimeOption = Annotated[
    float | None,
    typer.Option(
        metavar="[FACTOR]",
        help="Follow the wall clock: simulated seconds in a real one, e.g. 60; 1 if no number is given.",
    ),
]
JoinOption = Annotated[
    float, typer.Option(min=0.1, help="Wall time within which an external program must join [s].")
]
AnswerOption = Annotated[
    float, typer.Option(min=0.1, help="Wall time within which it must answer at each instant [s].")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]


class RealtimeCommand(TyperCommand):
    """A command whose --realtime may stand without a number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the number that is left out."""
        given: list[str] = []
        for argument, following in pairwise([*args, ""]):
            given.append(argument)
            if argument == "--realtime" and not _is_number(following):
                given.append("1")
        return super().parse_args(ctx, given)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def overrides(given: list[str] | None, **named: float | None) -> list[str]:
    """Return all overrides: named options are overrides too, and the last word."""
    return (given or []) + [f"{key}={value}" for key, value in named.items() if value is not None]


def fresh(folder: Path, name: str) -> Path:
    """Return a path for a new run that is not there yet."""
    from datetime import datetime

    stem = f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    path, n = folder / stem, 1
    while path.exists():
        n += 1
        path = folder / f"{stem}-{n}"
    return path


def require_run(path: Path) -> None:
    """Raise InputError for a directory that is not of a run."""
    if not (path / "manifest.json").is_file():
        refuse("DIR", str(path), "this is no run directory; `voltier run` makes one")


def require_tables(path: Path) -> None:
    """Raise InputError for a directory that has no tables: a run of another tool may have no manifest."""
    if not any((path / "tables").glob("**/*.parquet")) and not (path / "manifest.json").is_file():
        refuse(
            "DIR",
            str(path),
            "this is no run directory: it has no tables/NAME.parquet; `voltier run` makes one",
        )


def refuse(field: str, value: object, remedy: str) -> NoReturn:
    """Raise InputError for one argument."""
    raise InputError([Problem("command line", field, value, remedy)])
