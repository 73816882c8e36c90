"""Which phases of which buses are one electrical node: ideal switches and regulators join them, branches do not."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import Feeder

Index = NDArray[np.int64]
Mask = NDArray[np.bool_]
Exponents = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class PhaseNodes:
    """Phase nodes of a feeder, numbered from the source outwards; a place is 3·bus + phase.

    bus_node : (n_bus, 3) node of each place, -1 where nothing feeds it
    node_bus, node_phase : (n,) the bus and phase whose voltage is the node's; the source's phases come first
    moved_place : (q,) places whose ratio to their node depends on taps
    moved_by : (q, n_reg) power of each regulator's ratio in the ratio of the place: 1, 0 or -1
    loop_by : (l, n_reg) the same around each loop of ideal elements, where the product must be 1
    loop_name : (l,) switches and regulators of the loop
    """

    bus_node: Index
    node_bus: Index
    node_phase: Index
    moved_place: Index
    moved_by: Exponents
    loop_by: Exponents
    loop_name: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Joint:
    """An ideal element on one phase, between two places; regulator is its row, -1 for a switch."""

    name: str
    from_place: int
    to_place: int
    regulator: int


@dataclass(slots=True)
class _Walk:
    """What is known so far: node and way to each place, each as the joint crossed last and the place before."""

    node: Index
    by: dict[int, Exponents]
    came: dict[int, tuple[_Joint, int]] = field(default_factory=dict)
    entry: list[int] = field(default_factory=list)
    members: list[list[int]] = field(default_factory=list)
    loops: dict[_Joint, tuple[Exponents, str]] = field(default_factory=dict)


def phase_nodes(feeder: Feeder, closed: Mask) -> PhaseNodes:
    """Join and number the phases that the source feeds with a ground reference, breadth first in table order.

    closed : (n_switch,) which switches are closed. Delta windings are not crossed: behind them alone, voltages to
    ground float. Raises InputError where an ideal element does not fit its buses.
    """
    joints = _joints(feeder, closed)
    branches = _branches_at(feeder)
    walk = _Walk(np.full(3 * len(feeder.bus), -1, dtype=np.int64), {})
    n_reg = len(feeder.regulators.name)
    for phase in range(3):
        _enter(walk, joints, 3 * feeder.source_bus + phase, n_reg)
    queue = deque(range(3))
    while queue:
        for place in walk.members[queue.popleft()]:
            bus, phase = divmod(place, 3)
            for far, has_phase in branches[bus]:
                if not has_phase[phase]:
                    continue
                # all phases at once, so that the phases of a bus are neighbours in the numbering
                for other in np.flatnonzero(has_phase).tolist():
                    if walk.node[3 * bus + other] >= 0 and walk.node[3 * far + other] < 0:
                        queue.append(_enter(walk, joints, 3 * far + other, n_reg))
    moved = [place for place in sorted(walk.by) if walk.by[place].any()]
    empty = np.zeros((0, n_reg), dtype=np.int8)
    entry = np.array(walk.entry, dtype=np.int64)
    return PhaseNodes(
        bus_node=walk.node.reshape(-1, 3),
        node_bus=entry // 3,
        node_phase=entry % 3,
        moved_place=np.array(moved, dtype=np.int64),
        moved_by=np.array([walk.by[place] for place in moved]) if moved else empty,
        loop_by=np.array([by for by, _ in walk.loops.values()]) if walk.loops else empty,
        loop_name=tuple(name for _, name in walk.loops.values()),
    )


def _enter(walk: _Walk, joints: dict[int, list[_Joint]], place: int, n_reg: int) -> int:
    """Open a node at a place and take in all that ideal elements join to it; give its number."""
    node = len(walk.entry)
    walk.entry.append(place)
    walk.members.append([place])
    walk.node[place] = node
    walk.by[place] = np.zeros(n_reg, dtype=np.int8)
    for near in walk.members[node]:
        for joint in joints.get(near, []):
            forward = joint.from_place == near
            far = joint.to_place if forward else joint.from_place
            by = walk.by[near].copy()
            if joint.regulator >= 0:
                by[joint.regulator] += 1 if forward else -1
            if walk.node[far] < 0:
                walk.node[far] = node
                walk.by[far], walk.came[far] = by, (joint, near)
                walk.members[node].append(far)
            elif walk.came.get(near, (None, -1))[0] is not joint and (by != walk.by[far]).any():
                walk.loops.setdefault(joint, (by - walk.by[far], _loop_name(walk, joint, near, far)))
    return node


def _loop_name(walk: _Walk, joint: _Joint, near: int, far: int) -> str:
    """Name the ideal elements on the loop that a joint closes."""
    ways = [list(_way_back(walk, place)) for place in (near, far)]
    shared = set(ways[0]) & set(ways[1])
    names = [step.name for way in ways for step in way if step not in shared]
    return ", ".join(dict.fromkeys([*names, joint.name]))


def _way_back(walk: _Walk, place: int) -> Iterator[_Joint]:
    while place in walk.came:
        joint, place = walk.came[place]
        yield joint


def _joints(feeder: Feeder, closed: Mask) -> dict[int, list[_Joint]]:
    """Give the ideal elements at each place, switches first."""
    found: list[_Joint] = []
    problems: list[Problem] = []
    switches, regulators = feeder.switches, feeder.regulators
    for k in np.flatnonzero(closed).tolist():
        i, j = int(switches.from_bus[k]), int(switches.to_bus[k])
        problems += _misfits(feeder, f"switches, {switches.name[k]}", i, j, switches.has_phase[k])
        phases = np.flatnonzero(switches.has_phase[k]).tolist()
        found += [_Joint(switches.name[k], 3 * i + phase, 3 * j + phase, -1) for phase in phases]
    for k, phase in enumerate(regulators.phase.tolist()):
        i, j = int(regulators.from_bus[k]), int(regulators.to_bus[k])
        problems += _misfits(feeder, f"regulators, {regulators.name[k]}", i, j, np.arange(3) == phase)
        found.append(_Joint(regulators.name[k], 3 * i + phase, 3 * j + phase, k))
    if problems:
        raise InputError(problems)
    around: dict[int, list[_Joint]] = {}
    for joint in found:
        around.setdefault(joint.from_place, []).append(joint)
        around.setdefault(joint.to_place, []).append(joint)
    return around


def _misfits(feeder: Feeder, where: str, i: int, j: int, has_phase: Mask) -> Iterator[Problem]:
    for bus in (i, j):
        if (has_phase & ~feeder.has_phase[bus]).any():
            yield Problem(where, "phases", feeder.bus[bus], "close it only on phases that both buses have")
    if feeder.kv_ll[i] != feeder.kv_ll[j]:
        pair = (float(feeder.kv_ll[i]), float(feeder.kv_ll[j]))
        yield Problem(where, "nominal_kv_ll", pair, "join buses of the same nominal voltage")


def _branches_at(feeder: Feeder) -> list[list[tuple[int, Mask]]]:
    """Give the far bus and the phases of each line and grounded transformer at each bus."""
    around: list[list[tuple[int, Mask]]] = [[] for _ in feeder.bus]
    lines, transformers = feeder.lines, feeder.transformers
    edges = list(zip(lines.from_bus.tolist(), lines.to_bus.tolist(), lines.has_phase, strict=True))
    for k, conn in enumerate(transformers.conn_low):
        if conn != "delta":
            ends = int(transformers.from_bus[k]), int(transformers.to_bus[k])
            edges.append((*ends, np.ones(3, dtype=np.bool_)))
    for i, j, has_phase in edges:
        around[i].append((j, has_phase))
        around[j].append((i, has_phase))
    return around
