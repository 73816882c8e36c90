"""A table with fixed rows as a block of numbers: times down, rows across."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from voltier.grid.errors import InputError, Problem
from voltier.scenarios.results import read_table, table_names

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Block:
    """Numbers of a table with fixed rows.

    t_s : (n_t,) simulated seconds; keys : key column → (n_rows,) texts;
    values : column → (n_t, n_rows) array.
    """

    t_s: NDArray[np.int64]
    keys: Mapping[str, NDArray[np.object_]]
    values: Mapping[str, Array]

    def __getitem__(self, column: str) -> Array:
        return self.values[column]

    def sum(self, column: str) -> Array:
        """Return the sum over the rows at each time."""
        return self.values[column].sum(axis=1)


def read_block(run_dir: Path, name: str) -> Block | None:
    """Read a table with fixed rows; None if the run wrote nothing to it.

    A run that was broken off may have left its last times incomplete: they are left out. Raises InputError if
    other times do not have the same rows (the file is not one of ours).
    """
    if name not in table_names(run_dir):
        return None
    return as_block(read_table(run_dir, name), f"{run_dir}: table {name}")


def as_block(table: pa.Table, where: str) -> Block | None:
    """Fold a table whose times, but for the last, all have the same rows in the same order."""
    if len(table) == 0:
        return None
    times, counts = np.unique(table["t_s"].to_numpy(), return_counts=True)
    whole = counts == counts.max()
    if np.any(whole[1:] & ~whole[:-1]):
        n = f"{counts.min()} to {counts.max()} rows"
        raise InputError([Problem(where, "rows", n, "every time must have the same rows; repeat the run")])
    times = times[whole]
    table = table.slice(0, len(times) * counts[0])
    keys, values = {}, {}
    for field in table.schema:
        if field.name == "t_s":
            continue
        column = table[field.name]
        if pa.types.is_string(field.type):
            keys[field.name] = np.asarray(column.slice(0, counts[0]).to_pylist(), dtype=object)
        else:
            values[field.name] = column.to_numpy().astype(np.float64).reshape(len(times), counts[0])
    return Block(times.astype(np.int64), keys, values)
