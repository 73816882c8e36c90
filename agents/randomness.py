"""One seed a scenario; one stream an agent, found by the agent's name and so independent of process and order."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, *name: str | int) -> np.random.Generator:
    """Return the random stream of a named agent, the same in whatever process it is asked for."""
    key = tuple(zlib.crc32(str(part).encode()) for part in name)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))
