"""Results of a run on disk: tables that grow by whole commits and stay readable, whatever befalls the writer.

A table under way is a folder of parquet parts, `tables/.parts/<table>/000001.parquet`; each part appears by
one rename, so a reader sees a commit whole or not at all. A finished table is one file,
`tables/<table>.parquet`.
"""

from __future__ import annotations

import fcntl
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from voltier.agents.operator import Rows
from voltier.grid.errors import InputError, Problem, VoltierError
from voltier.scenarios.tables import NUMBER, TABLES, TEXT, TableLayout, TableSpec, layout

__all__ = ["TABLES", "TableLayout", "TableSpec", "TableWriter", "layout", "read_table", "table_names"]

POSITION = "position"
_ARROW_TYPES = {"number": pa.float64(), "integer": pa.int64(), "text": pa.string()}
# Level 1: the recorder must keep up with the run; higher levels save a few per cent of the size.
_PARQUET: Mapping[str, Any] = {"compression": "zstd", "compression_level": 1}


class TableWriter:
    """Collects the operators' rows and commits them to parquet.

    Rows of one table and time may arrive in several pieces (one a shard), each naming its fixed rows by a
    column "position"; a piece without it covers all rows, or, in a table without fixed rows, as many as it
    likes. Within a time, rows are written by position, else by their texts, whatever the shards.

    A run has one writer at a time: it holds a lock until closed, which the system lifts should it die.
    Raises InputError while another writes, VoltierError for a table, column or length that the layout does not know,
    and when the disk fails.
    """

    def __init__(self, run_dir: Path, layouts: Mapping[str, TableLayout]) -> None:
        self._tables = Path(run_dir).absolute() / "tables"
        self._layouts = dict(layouts)
        self._schemas = {name: _schema(table) for name, table in self._layouts.items()}
        self._keys = {
            name: {key: pa.array(names, pa.string()) for key, names in table.keys.items()}
            for name, table in self._layouts.items()
        }
        self._pending: dict[str, dict[int, list[Rows]]] = defaultdict(lambda: defaultdict(list))
        self._parts = dict.fromkeys(self._layouts, 0)
        try:
            for name in self._layouts:
                self._folder(name).mkdir(parents=True, exist_ok=True)
            self._lock = (self._tables / ".parts" / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "the run is still going on; wait for its end"
            raise InputError([Problem("run directory", "tables", str(self._tables), remedy)]) from error
        except OSError as error:
            raise _disk_error(self._tables, error) from error

    def close(self) -> None:
        """Commit what is left and let others write."""
        try:
            self.commit()
        finally:
            self._lock.close()

    def add(self, rows: Rows) -> None:
        """Keep rows for a later commit."""
        if rows.table not in self._layouts:
            raise VoltierError(f"no table {rows.table!r} in this run; tables: {', '.join(self._layouts)}")
        given = set(rows.columns) - {POSITION}
        expected = set(self._layouts[rows.table].columns)
        if given != expected:
            raise VoltierError(
                f"rows for table {rows.table} at {rows.t_s} s: "
                f"missing {sorted(expected - given)}, unknown {sorted(given - expected)}"
            )
        self._pending[rows.table][rows.t_s].append(rows)

    def commit(self, before_s: int | None = None) -> None:
        """Write all rows of times before before_s (None: all) as one part a table.

        Commit with a margin: rows about a minute may be sent in the next one, and what misses its commit goes
        into a later part, which finalise then has to sort.
        """
        for name in self._layouts:
            pending = self._pending[name]
            due = sorted(t_s for t_s in pending if before_s is None or t_s < before_s)
            if due:
                table = self._merge(name, [piece for t_s in due for piece in pending.pop(t_s)])
                self._parts[name] += 1
                _write(self._folder(name) / f"{self._parts[name]:06d}.parquet", [table], self._schemas[name])

    def finalise(self) -> None:
        """Close, and join the parts of each table into one file, a row group a part."""
        try:
            self.commit()
            for name in self._layouts:
                join_parts(self._tables, name, self._schemas[name])
            Path(self._lock.name).unlink()
            _remove_empty(self._tables / ".parts")
        finally:
            self._lock.close()

    def _folder(self, name: str) -> Path:
        return self._tables / ".parts" / name

    def _merge(self, name: str, pieces: Sequence[Rows]) -> pa.Table:
        """Join pieces of any times and put their rows in the table's order."""
        kinds, n_rows = self._layouts[name].columns, self._layouts[name].n_rows
        arrays = [
            {column: _array(piece.columns[column], kind) for column, kind in kinds.items()}
            for piece in pieces
        ]
        sizes = [
            _same_length(name, piece.t_s, columns) for piece, columns in zip(pieces, arrays, strict=True)
        ]
        t_s = np.repeat(np.array([piece.t_s for piece in pieces], dtype=np.int64), sizes)
        columns = {column: np.concatenate([given[column] for given in arrays]) for column in kinds}
        keys: dict[str, pa.Array] = {}
        if n_rows is None:
            texts = [columns[column] for column, kind in kinds.items() if kind == TEXT]
            order = np.array(
                sorted(range(len(t_s)), key=lambda i: (t_s[i], *(text[i] for text in texts))), dtype=int
            )
        else:
            position = np.concatenate(
                [_positions(name, piece, size, n_rows) for piece, size in zip(pieces, sizes, strict=True)]
            )
            order = np.lexsort((position, t_s))
            if len(np.unique(t_s * n_rows + position)) != len(position):
                raise VoltierError(f"table {name}: a row came twice between {t_s.min()} s and {t_s.max()} s")
            keys = {key: names.take(pa.array(position[order])) for key, names in self._keys[name].items()}
        ordered = {"t_s": t_s[order], **keys, **{column: values[order] for column, values in columns.items()}}
        schema = self._schemas[name]
        return pa.table([pa.array(ordered[field.name], type=field.type) for field in schema], schema=schema)


def read_table(run_dir: Path | str, name: str) -> pa.Table:
    """Read a table of a finished, running or killed run, as far as it was committed; sorted by time.

    Raises InputError when the run has no such table.
    """
    tables = Path(run_dir).absolute() / "tables"
    final = tables / f"{name}.parquet"
    parts = _part_paths(tables, name)
    try:
        if final.is_file():
            return pq.read_table(final)
        if parts:
            return _in_time_order(pa.concat_tables(pq.read_table(path) for path in parts))
    except FileNotFoundError:
        # The run was finalised between the look and the reading.
        return pq.read_table(final)
    except pa.ArrowInvalid as error:
        remedy = f"the file cannot be read as parquet ({error}); copy or make it again"
        raise InputError([Problem(str(run_dir), "table", name, remedy)]) from error
    known = ", ".join(table_names(run_dir)) or "no table at all"
    raise InputError([Problem(str(run_dir), "table", name, f"nothing is committed; this run has {known}")])


def table_names(run_dir: Path | str) -> list[str]:
    """Return the names of the tables that have something to read, in alphabetical order."""
    tables = Path(run_dir).absolute() / "tables"
    final = {path.stem for path in tables.glob("*.parquet")}
    return sorted(final | {path.parent.name for path in tables.glob(".parts/*/*.parquet")})


def join_parts(tables: Path, name: str, schema: pa.Schema) -> None:
    """Join the committed parts of a table into its final file, a row group a part."""
    parts = _part_paths(tables, name)
    final = tables / f"{name}.parquet"
    if not final.is_file():
        if _parts_overlap(parts):
            whole = _in_time_order(pa.concat_tables(pq.read_table(path) for path in parts))
            _write(final, [whole.combine_chunks()], schema)
        else:
            _write(final, (pq.read_table(path) for path in parts), schema)
    for path in parts:
        path.unlink()
    _remove_empty(tables / ".parts" / name)


def _part_paths(tables: Path, name: str) -> list[Path]:
    return sorted((tables / ".parts" / name).glob("*.parquet"))


def _parts_overlap(parts: Iterable[Path]) -> bool:
    latest = -np.inf
    for path in parts:
        metadata = pq.read_metadata(path)
        # t_s is the first column; each part is one row group.
        times = metadata.row_group(0).column(0).statistics
        if times.min <= latest:
            return True
        latest = times.max
    return False


def _in_time_order(table: pa.Table) -> pa.Table:
    t_s = table["t_s"].to_numpy()
    if (np.diff(t_s) >= 0).all():
        return table
    return table.take(pa.array(np.argsort(t_s, kind="stable")))


def _schema(table: TableLayout) -> pa.Schema:
    columns = {**dict.fromkeys(table.keys, TEXT), **table.columns}
    return pa.schema([("t_s", pa.int64()), *((name, _ARROW_TYPES[kind]) for name, kind in columns.items())])


def _array(values: Any, kind: str) -> np.ndarray:
    if kind == TEXT:
        return np.asarray(list(values), dtype=object)
    return np.atleast_1d(np.asarray(values, dtype=np.float64 if kind == NUMBER else np.int64))


def _same_length(name: str, t_s: int, columns: Mapping[str, np.ndarray]) -> int:
    lengths = {column: len(values) for column, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise VoltierError(f"rows for table {name} at {t_s} s differ in length: {lengths}")
    return next(iter(lengths.values()))


def _positions(name: str, piece: Rows, size: int, n_rows: int) -> np.ndarray:
    """Return which fixed rows a piece is about; a piece that does not say is about all of them."""
    position = np.asarray(piece.columns.get(POSITION, np.arange(n_rows)), dtype=np.int64)
    if len(position) != size or (size and not 0 <= position.min() <= position.max() < n_rows):
        raise VoltierError(f"table {name} at {piece.t_s} s: {size} rows do not fit its {n_rows} fixed rows")
    return position


def _write(path: Path, pieces: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write a parquet file under a passing name and rename it: it appears whole or not at all."""
    passing = path.with_suffix(".parquet.tmp")
    try:
        # a file object, for the writer takes "~" in a name for the home folder
        with (
            passing.open("wb") as file,
            pq.ParquetWriter(file, schema, use_dictionary=_texts(schema), **_PARQUET) as writer,
        ):
            for piece in pieces:
                writer.write_table(piece, row_group_size=max(len(piece), 1))
        passing.replace(path)
    except OSError as error:
        passing.unlink(missing_ok=True)
        raise _disk_error(path, error) from error


def _texts(schema: pa.Schema) -> list[str]:
    """Columns worth a dictionary; numbers rarely repeat, and trying costs half of the writing time."""
    return [field.name for field in schema if field.type != pa.float64()]


def _disk_error(path: Path, error: OSError) -> VoltierError:
    reason = error.strerror or str(error)
    return VoltierError(f"cannot write {path}: {reason}; free space or choose another --out, then run again")


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
