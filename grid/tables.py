"""Typed reading of small CSV tables, with every problem noted and none raised."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import Problem


@dataclass(frozen=True, slots=True)
class Column:
    """One required column of a table.

    kind : "text", "number", "integer", or "phases" (a subset of abc in order)
    low, high : limits of a number, both allowed; positive : the number must be above zero
    choices : allowed texts; unique : no value twice; optional : an empty cell is not-a-number
    """

    name: str
    kind: Literal["text", "number", "integer", "phases"] = "text"
    low: float = -math.inf
    high: float = math.inf
    positive: bool = False
    choices: tuple[str, ...] = ()
    unique: bool = False
    optional: bool = False


@dataclass(slots=True)
class Table:
    """Columns of one file.

    name : file name for messages; line : file line of each row; cells : column → values
    sound : every name, phase and choice could be read (numbers may still be wrong)
    """

    name: str
    line: list[int] = field(default_factory=list)
    cells: dict[str, list[Any]] = field(default_factory=dict)
    sound: bool = True

    def __len__(self) -> int:
        return len(self.line)

    def text(self, column: str) -> tuple[str, ...]:
        """Give a column of texts."""
        return tuple(self.cells[column])

    def number(self, column: str) -> NDArray[np.float64]:
        """Give a column of numbers."""
        return np.array(self.cells[column], dtype=np.float64)

    def integer(self, column: str) -> NDArray[np.int64]:
        """Give a column of integers."""
        return np.array(self.cells[column], dtype=np.int64)

    def phases(self, column: str) -> NDArray[np.bool_]:
        """Give a column of phase letters as an (n, 3) mask."""
        mask = [[letter in cell for letter in "abc"] for cell in self.cells[column]]
        return np.array(mask, dtype=np.bool_).reshape(-1, 3)

    def problem(self, row: int, column: str, remedy: str) -> Problem:
        """Describe what is wrong with one cell."""
        return Problem(f"{self.name}:{self.line[row]}", column, self.cells[column][row], remedy)


def read_table(path: Path, columns: Sequence[Column], problems: list[Problem]) -> Table:
    """Read the required columns of one file and append what is wrong with it to problems.

    Lines that start with # are comments. A wrong number is not-a-number (integer: 0) in the table returned.
    """
    table = Table(path.name, cells={column.name: [] for column in columns})
    if not path.is_file():
        remedy = f"provide {path.name} in the folder {path.parent.name}"
        problems.append(Problem(path.name, "file", "missing", remedy))
        table.sound = False
        return table
    rows = _split(path)
    header = [name.strip() for name in rows[0][1]] if rows else []
    missing = [column.name for column in columns if column.name not in header]
    remedy = f"add the column; the table needs {', '.join(column.name for column in columns)}"
    problems += [Problem(path.name, name, "missing", remedy) for name in missing]
    if missing:
        table.sound = False
        return table
    for number, row in rows[1:]:
        if len(row) != len(header):
            remedy = f"write {len(header)} cells, not {len(row)}"
            problems.append(Problem(f"{path.name}:{number}", "row", ",".join(row), remedy))
            table.sound = False
            continue
        table.line.append(number)
        for column in columns:
            problems += _take(table, column, row[header.index(column.name)].strip())
    return table


def _split(path: Path) -> list[tuple[int, list[str]]]:
    """Give the rows that are neither empty nor comments, each with its line number."""
    lines = enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1)
    kept = [(number, line) for number, line in lines if line.strip() and not line.startswith("#")]
    return [(number, next(csv.reader([line]))) for number, line in kept]


def _take(table: Table, column: Column, text: str) -> list[Problem]:
    """Append one cell to its column; return what is wrong with it."""
    where = f"{table.name}:{table.line[-1]}"
    values = table.cells[column.name]
    value, remedy = _parse(column, text)
    if not remedy and column.unique and value in values:
        remedy = "give every row a name of its own"
    values.append(value)
    if remedy and column.kind in ("text", "phases"):
        table.sound = False
    return [Problem(where, column.name, text, remedy)] if remedy else []


def _parse(column: Column, text: str) -> tuple[Any, str]:
    """Turn a cell into its value and a remedy; the remedy is empty when the cell is right."""
    if column.kind == "phases":
        right = text != "" and text in ("a", "b", "c", "ab", "ac", "bc", "abc")
        return (text, "") if right else ("", "write the phases present, as a, b, c, ab, ac, bc or abc")
    if column.kind == "text":
        if not text:
            return text, "fill in the cell"
        wrong = column.choices and text not in column.choices
        return text, f"choose one of {', '.join(column.choices)}" if wrong else ""
    if not text and column.optional:
        return math.nan, ""
    return _parse_number(column, text)


def _parse_number(column: Column, text: str) -> tuple[float | int, str]:
    fallback: float | int = 0 if column.kind == "integer" else math.nan
    try:
        value = int(text) if column.kind == "integer" else float(text)
    except ValueError:
        return fallback, "write a whole number" if column.kind == "integer" else "write a number"
    if not math.isfinite(value):
        return fallback, "write a finite number"
    if column.positive and value <= 0:
        return value, "write a number above zero"
    if not column.low <= value <= column.high:
        return value, f"write a number from {column.low:g} to {column.high:g}"
    return value, ""
