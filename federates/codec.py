"""Table rows on their way to the recorder, as MessagePack: numbers as little-endian bytes, texts as lists."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from voltier.agents.operator import Rows


class _Numbers(msgspec.Struct, tag=True, array_like=True):
    dtype: str
    data: bytes


class _Texts(msgspec.Struct, tag=True, array_like=True):
    values: list[str | float]


class _Rows(msgspec.Struct, array_like=True):
    table: str
    t_s: int
    columns: dict[str, _Numbers | _Texts]


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


def _pack(values: np.ndarray | Sequence[float | str]) -> _Numbers | _Texts:
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        array = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        return _Numbers(array.dtype.str, array.tobytes())
    return _Texts(np.asarray(values, dtype=object).tolist())


def _unpack(column: _Numbers | _Texts) -> np.ndarray | list[str | float]:
    if isinstance(column, _Texts):
        return column.values
    return np.frombuffer(column.data, dtype=column.dtype)
