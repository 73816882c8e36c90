"""Table rows on their way to the recorder, as MessagePack: numbers as little-endian bytes, texts as lists."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from voltier.agents.operator import Rows
from voltier.grid.errors import FederationError


class _Numbers(msgspec.Struct, tag=True, array_like=True):
    dtype: str
    data: bytes


class _Texts(msgspec.Struct, tag=True, array_like=True):
    values: list[str | float]


class _Rows(msgspec.Struct, array_like=True):
    table: str
    t_s: int
    columns: dict[str, _Numbers | _Texts]


class _PlainRows(msgspec.Struct, forbid_unknown_fields=True):
    table: str
    t_s: int
    columns: dict[str, list[float | str | None]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_Rows])


def encode_rows(rows: Sequence[Rows]) -> bytes:
    """Pack all rows of one decision."""
    return _encoder.encode(
        [
            _Rows(item.table, item.t_s, {key: _pack(values) for key, values in item.columns.items()})
            for item in rows
        ]
    )


def decode_rows(data: bytes) -> list[Rows]:
    """Unpack what encode_rows packed; arrays keep their type and every bit."""
    return [
        Rows(item.table, item.t_s, {key: _unpack(column) for key, column in item.columns.items()})
        for item in _decoder.decode(data)
    ]


def read_json_rows(sender: str, data: bytes) -> list[Rows]:
    """Unpack the rows of somebody who has no MessagePack: a JSON list of {"table", "t_s", "columns"}; null is nan.

    Raises FederationError if it is something else.
    """
    try:
        given = msgspec.json.decode(data, type=list[_PlainRows])
    except msgspec.DecodeError as error:
        raise FederationError(f"{sender} sent table rows that cannot be read: {error}") from error
    return [
        Rows(item.table, item.t_s, {key: _column(values) for key, values in item.columns.items()})
        for item in given
    ]


def _column(values: list[float | str | None]) -> np.ndarray | list[str | float]:
    if values and isinstance(values[0], str):
        return [str(value) for value in values]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _pack(values: np.ndarray | Sequence[float | str]) -> _Numbers | _Texts:
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        array = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        return _Numbers(array.dtype.str, array.tobytes())
    return _Texts(np.asarray(values, dtype=object).tolist())


def _unpack(column: _Numbers | _Texts) -> np.ndarray | list[str | float]:
    if isinstance(column, _Texts):
        return column.values
    return np.frombuffer(column.data, dtype=column.dtype)
