"""Where the buses lie along the wires: their distance from the substation."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

from voltier.grid.feeder import Feeder
from voltier.scenarios.report.panel import Array

KM_PER_FT = 0.3048e-3


def distance_km(feeder: Feeder) -> Array:
    """Return the shortest length of wire from the source to each bus [km], nan where no closed path leads."""
    neighbours: list[list[tuple[int, float]]] = [[] for _ in feeder.bus]
    for a, b, length_km in _closed(feeder):
        neighbours[a].append((b, length_km))
        neighbours[b].append((a, length_km))
    distance = np.full(len(feeder.bus), np.nan)
    reached = [(0.0, feeder.source_bus)]
    while reached:
        at_km, bus = heappop(reached)
        if np.isnan(distance[bus]):
            distance[bus] = at_km
            for other, length_km in neighbours[bus]:
                heappush(reached, (at_km + length_km, other))
    return distance


def _closed(feeder: Feeder) -> list[tuple[int, int, float]]:
    """Ends and length of all that conducts; only lines have a length."""
    lines = feeder.lines
    branches = [
        (int(a), int(b), float(feet) * KM_PER_FT)
        for a, b, feet in zip(lines.from_bus, lines.to_bus, lines.length_ft, strict=True)
    ]
    for table in (feeder.transformers, feeder.regulators):
        branches += [(int(a), int(b), 0.0) for a, b in zip(table.from_bus, table.to_bus, strict=True)]
    switches = feeder.switches
    branches += [
        (int(a), int(b), 0.0)
        for a, b, closed in zip(switches.from_bus, switches.to_bus, switches.closed, strict=True)
        if closed
    ]
    return branches
