"""What the shell expects of its surroundings: a case to run, a sink for rows, a bus between operators."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from voltier.agents.clock import MarketClock
from voltier.agents.operator import Mail, Operator, Rows
from voltier.federates.part import ExternalPart
from voltier.grid.errors import FederationError, InputError, Problem

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


@dataclass(frozen=True, slots=True)
class Channel:
    """Disturbances of mail: the share that is lost, how late it comes, and how much later at most.

    cut : operators of whose mail nothing arrives from cut_start_s until cut_end_s (None: never again)
    """

    loss: float = 0.0
    delay_slots: int = 0
    jitter_slots: int = 0
    cut: tuple[str, ...] = ()
    cut_start_s: int = 0
    cut_end_s: int | None = None

    def loses(self, name: str) -> bool:
        """Say whether an operator's mail may be lost at any time."""
        return self.loss > 0.0 or name in self.cut

    def loss_at(self, name: str, now_s: int) -> float:
        """Return the share of an operator's mail that is lost at simulated time now_s."""
        ended = self.cut_end_s is not None and now_s >= self.cut_end_s
        return 1.0 if name in self.cut and now_s >= self.cut_start_s and not ended else self.loss


SOUND = Channel()
"""Mail arrives, in order, at the next slot."""


@dataclass(frozen=True, slots=True)
class Pacing:
    """How a run follows the wall clock. factor : simulated seconds in a second of it.

    lag_budget_ms : how late an operator may act before that is an event
    """

    factor: float
    lag_budget_ms: float = 100.0


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

    def channel(self) -> Channel:
        """Say what the mail between operators that confer suffers on its way."""
        ...

    def pacing(self) -> Pacing | None:
        """Say how the run follows the wall clock; None: as fast as it goes."""
        ...

    def external_part(self, name: str) -> ExternalPart:
        """Say what a federate from outside must know and keep to in the place of an operator."""
        ...


class OutsiderError(FederationError):
    """A federate from outside is wired wrongly, says what cannot be, or is missing; the text is for its author."""


class OutsiderLostError(OutsiderError):
    """A federate from outside is silent, dead, or has left."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where and how long a federate from outside is waited for.

    interface : own address that it can reach; port : of its broker, 0 for any free one; address : of a broker that is
    there already, to take instead of an own one; bus : of the one operator of a shard that it plays, "" for all of
    them; join_s, answer_s : wall time
    until it must have joined, and must have answered at an instant [s].
    """

    transport: str
    key: str
    interface: str = "127.0.0.1"
    port: int = 0
    join_s: float = 120.0
    answer_s: float = 60.0
    address: str = ""
    bus: str = ""


class Bus(Protocol):
    """An operator's connection to the others."""

    def join(self) -> None:
        """Take part; returns when everybody is there and every input has its source, in the right unit."""
        ...

    def advance(self, now_s: int, slot: int = 0) -> None:
        """Wait until a slot of simulated time now_s, when all mail sent before it has arrived."""
        ...

    def collect(self) -> list[Mail]:
        """Return the mail that arrived since the last call, ordered by sender, then sent time."""
        ...

    def post(self, now_s: int, mail: Sequence[Mail], rows: Sequence[Rows], slot: int = 0) -> None:
        """Send mail to others and rows to the recorder."""
        ...

    def origin_unix_s(self) -> float:
        """Return the wall-clock time of simulated second 0 of a paced run, once the warm-up is over."""
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
