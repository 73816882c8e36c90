"""The error family of voltier; it stands in the lowest room so that every room can raise it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an input, said so that the user can mend it.

    where : file (and row) or scenario; field : column or key; value : what stands there; remedy : what to write.
    """

    where: str
    field: str
    value: object
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.field} = {self.value!r}: {self.remedy}"


class VoltierError(Exception):
    """Base of every error that voltier raises on purpose."""


class InputError(VoltierError):
    """The input is wrong; carries every problem found, not only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class NotConvergedError(VoltierError):
    """An iteration ended without meeting its tolerance."""


class PowerFlowError(NotConvergedError):
    """No voltages were found that carry the injections."""


class FederationError(VoltierError):
    """A federate is missing, silent, dead or wired wrongly."""


class ClearingAborted(VoltierError):
    """A clearing failed and the scenario's policy is to abort the run."""
