"""Columns of the McCormick program."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Columns:
    """u (3·n_smo), import, Re v, Im v of the nodes but the source's, Re i, Im i of the terminals beyond the source,
    the products Re w Re i, Im w Im i, Re w Im i, Im w Re i, and magnitudes |w|.
    """

    n_smo: int
    n_free: int
    n_terminal: int
    n_size: int

    @property
    def head(self) -> int:
        """Column of the import."""
        return 3 * self.n_smo

    @property
    def v(self) -> int:
        """First column of the voltages."""
        return self.head + 1

    @property
    def i(self) -> int:
        """First column of the currents."""
        return self.v + 2 * self.n_free

    @property
    def product(self) -> int:
        """First column of the products."""
        return self.i + 2 * self.n_terminal

    @property
    def size(self) -> int:
        """First column of the magnitudes."""
        return self.product + 4 * self.n_terminal

    @property
    def count(self) -> int:
        """All columns."""
        return self.size + self.n_size
