"""Tidy tables as matrices: one row per simulated time, one column per name."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Panel:
    """Matrices of one table.

    t_s : (n_t,) times, increasing [s]. names : (n_name,) keys, parts joined by a dot.
    values : column → (n_t, n_name), NaN where the table has no row or no number.
    """

    t_s: NDArray[np.int64]
    names: tuple[str, ...]
    values: dict[str, Array]

    def __contains__(self, column: str) -> bool:
        return column in self.values

    def __getitem__(self, column: str) -> Array:
        return self.values[column]

    def total(self, column: str) -> Array:
        """Sum over the names at each time; NaN where no name has a number."""
        values = self.values[column]
        return np.where(np.isfinite(values).any(axis=1), np.nansum(values, axis=1), np.nan)

    def quantiles(self, column: str, percent: Sequence[float]) -> Array:
        """Percentiles over the names: (len(percent), n_t)."""
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", RuntimeWarning
            )  # a time without any number gives NaN, as it should
            return np.asarray(np.nanpercentile(self.values[column], percent, axis=1))

    def mean(self, column: str) -> Array:
        """Mean over the names at each time."""
        return _nanmean(self.values[column], axis=1)

    def thin(self, step_s: int) -> Panel:
        """Average over steps of step_s on a gapless time grid; steps without data are NaN."""
        bins = self.t_s // step_s
        grid = np.arange(bins[0], bins[-1] + 1)
        place = bins - bins[0]
        values = {name: _bin_mean(column, place, len(grid)) for name, column in self.values.items()}
        return Panel(grid * step_s, self.names, values)

    def held(self) -> Panel:
        """Repeat the last row one step later, that a picture of steps shows it to its end."""
        step_s = self.t_s[-1] - self.t_s[-2] if len(self.t_s) > 1 else 300
        t_s = np.append(self.t_s, self.t_s[-1] + step_s)
        return Panel(t_s, self.names, {k: np.concatenate([v, v[-1:]]) for k, v in self.values.items()})

    def at(self, t_s: NDArray[np.int64]) -> Panel:
        """Snapshots: the last row at or before each time of t_s; none may precede the first row."""
        rows = np.searchsorted(self.t_s, t_s, side="right") - 1
        return Panel(np.asarray(t_s), self.names, {k: v[rows] for k, v in self.values.items()})

    def between(self, start_s: float, end_s: float) -> Panel:
        """Rows with start_s <= t_s < end_s."""
        keep = (self.t_s >= start_s) & (self.t_s < end_s)
        return Panel(self.t_s[keep], self.names, {k: v[keep] for k, v in self.values.items()})

    def select(self, columns: Sequence[str]) -> Panel:
        """Keep some of the columns."""
        return Panel(self.t_s, self.names, {k: self.values[k] for k in columns if k in self.values})


def pivot(table: pa.Table, *key: str) -> Panel:
    """Turn a tidy table into matrices. key : the columns that name a row; none for one row per time.

    Rows may come in any order and some may be missing, as at the end of a run that broke off.
    """
    t_s, row = np.unique(table["t_s"].to_numpy().astype(np.int64), return_inverse=True)
    names, column = _names(table, key)
    values = {}
    for field in table.schema:
        numeric = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        if field.name == "t_s" or field.name in key or not numeric:
            continue
        matrix = np.full((len(t_s), len(names)), np.nan)
        matrix[row, column] = table[field.name].to_numpy().astype(np.float64)
        values[field.name] = matrix
    return Panel(t_s, names, values)


def _names(table: pa.Table, key: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Name of each column of the matrices (in order of first appearance) and the column of each row."""
    code = np.zeros(table.num_rows, dtype=np.int64)
    parts: list[list[str]] = []
    for name in key:
        column = table[name].combine_chunks()
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        texts = [_phase_text(name, text) for text in encoded.dictionary.to_pylist()]
        code = code * len(texts) + encoded.indices.to_numpy(zero_copy_only=False)
        parts.append(texts)
    codes, first, column_of = np.unique(code, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    names = []
    for value in codes[order]:
        pieces = []
        for texts in reversed(parts):
            value, index = divmod(value, len(texts))
            pieces.append(texts[index])
        names.append(".".join(reversed(pieces)))
    return tuple(names), rank[column_of]


def _phase_text(column: str, value: object) -> str:
    return "abc"[value] if column == "phase" and isinstance(value, int) else str(value)


def _bin_mean(values: Array, place: NDArray[np.int64], n: int) -> Array:
    known = np.isfinite(values)
    total, count = np.zeros((n, values.shape[1])), np.zeros((n, values.shape[1]))
    np.add.at(total, place, np.where(known, values, 0.0))
    np.add.at(count, place, known)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _nanmean(values: Array, axis: int) -> Array:
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    return np.where(count > 0, np.where(known, values, 0.0).sum(axis=axis) / np.maximum(count, 1), np.nan)
