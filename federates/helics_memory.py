"""Vectors and messages between numpy and the memory of HELICS.

The Python layer of HELICS goes through a list for every vector and builds a C type for every length of
message that it has not seen yet; at a message a millisecond that is most of the work. Here numpy reads and
writes the memory.
"""

from __future__ import annotations

from typing import Any

import helics as h
import numpy as np
from helics.capi import ffi, lib
from numpy.typing import NDArray

from voltier.agents.messages import Array

_DOUBLE_BYTES = 8


def message_bytes(message: Any) -> bytes:
    """Return the content of a message."""
    n = h.helicsMessageGetByteCount(message)
    return bytes(ffi.buffer(h.helicsMessageGetBytesPointer(message), n)) if n else b""


def publish_vector(publication: Any, values: NDArray[Any]) -> None:
    """Publish an array as a vector of doubles."""
    array = np.ascontiguousarray(values, dtype=np.float64)
    h.helicsPublicationPublishVector(publication, ffi.from_buffer("double[]", array))


def read_vector(source: Any) -> Array:
    """Return the value of an input as a new array. Raises HelicsException."""
    n = h.helicsInputGetVectorSize(source)
    memory, size, error = ffi.new("double[]", max(n, 1)), ffi.new("int[1]"), h.helicsErrorInitialize()
    lib.helicsInputGetVector(source.handle, memory, n, size, error)
    if error.error_code != 0:
        raise h.HelicsException(ffi.string(error.message).decode())
    return np.frombuffer(ffi.buffer(memory, size[0] * _DOUBLE_BYTES), dtype=np.float64).copy()
