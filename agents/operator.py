"""What every operator looks like: mail comes in, the operator decides, mail and table rows go out.

An operator knows nothing of processes or HELICS. The same object is driven by the in-process loop and by a
federate, which is why both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from voltier.agents.messages import Message


@dataclass(frozen=True, slots=True)
class Mail:
    """A message on its way. sender, receiver : operator names such as "pmo", "smo.0"."""

    sender: str
    receiver: str
    body: Message


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows for one results table at one time, in the table's fixed row order (see scenarios.results).

    columns : column name → (n_rows,) array, or list of text; the key columns (bus, smo, ...) are given only by
    tables without a fixed row order (events).
    """

    table: str
    t_s: int
    columns: Mapping[str, NDArray[np.float64] | Sequence[float | str]]


@dataclass(slots=True)
class Outbox:
    """What one decision sends: mail to other operators and rows to the recorder.

    confers : it wants to decide again at the next slot of this instant, on the answers to its mail
    """

    mail: list[Mail] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    confers: bool = False


class Operator(Protocol):
    """A market operator, a fleet of agents, a grid: anything that acts at its instants of the market clock."""

    name: str

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Act at simulated time now_s on the mail since the last instant, ordered by sender, then sent time."""
        ...
