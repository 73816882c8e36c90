"""What the shell expects of its surroundings: a case to run, a sink for rows, a bus between operators."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from voltier.agents.clock import MarketClock
from voltier.agents.operator import Mail, Operator, Rows
from voltier.grid.errors import InputError, Problem

DEFAULT_BUILDER = "voltier.federates.case:scenario_case"


class Sink(Protocol):
    """Keeps rows. What was committed can be read whatever happens to the writer."""

    def write(self, rows: Rows) -> None:
        """Take rows of one table and time."""
        ...

    def commit(self, now_s: int) -> None:
        """Everything before simulated time now_s has been written."""
        ...

    def close(self) -> None:
        """Write what is left; called once, at the end or when the run is broken off."""
        ...


class Case(Protocol):
    """What a federation runs. Any process can build any operator of it, and gets the same one."""

    def operator_names(self) -> list[str]:
        """Name every operator: "pmo", "smo.0", "grid" ..."""
        ...

    def build_operator(self, name: str) -> Operator:
        """Build one operator."""
        ...

    def market_clock(self) -> MarketClock:
        """Return the clock of the run."""
        ...

    def open_sink(self, run_dir: Path) -> Sink:
        """Open the tables of the run for writing."""
        ...


class Bus(Protocol):
    """An operator's connection to the others."""

    def join(self) -> None:
        """Take part; returns when everybody is there and every input has its source, in the right unit."""
        ...

    def advance(self, now_s: int) -> None:
        """Wait until simulated time now_s, when all mail sent before it has arrived."""
        ...

    def collect(self) -> list[Mail]:
        """Return the mail that arrived since the last call, ordered by sender, then sent time."""
        ...

    def post(self, now_s: int, mail: Sequence[Mail], rows: Sequence[Rows]) -> None:
        """Send mail to others and rows to the recorder."""
        ...

    def leave(self) -> None:
        """Take part no more."""
        ...


Builder = Callable[[Path], Case]


def load_builder(reference: str) -> Builder:
    """Return the function that a "module:function" names; it makes a Case from the path of a configuration.

    Raises InputError if it cannot be imported.
    """
    module, _, function = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), function or "case")
    except (ImportError, AttributeError) as error:
        remedy = f"write module:function of something that can be imported ({error})"
        raise InputError([Problem("command line", "--builder", reference, remedy)]) from error
