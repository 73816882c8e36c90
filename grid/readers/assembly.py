"""From a circuit in siemens, volt and watt to a three-phase network in per unit and in the rotated frame."""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from voltier.grid.errors import InputError, Problem
from voltier.grid.readers.circuit import Circuit, Link, Terminal
from voltier.grid.threephase import (
    ANGLE_RAD,
    Array,
    Branches,
    Complex,
    Index,
    ThreePhaseNetwork,
    VoltageLoads,
)

ANGLE_STEP_RAD = np.pi / 6.0  # what transformer windings shift by
RATIO_TOLERANCE = 1e-9  # ratios are products of a few numbers near 1
PLAUSIBLE_PU = (0.3, 3.0)  # without load, farther from nominal means a wrong base or a floating winding


def assemble(
    circuit: Circuit, *, s_base_kva: float = 1000.0, v_min_pu: float = 0.95, v_max_pu: float = 1.05
) -> ThreePhaseNetwork:
    """Build the network of all that is joined to the source; s_base_kva is the three-phase base.

    What nothing feeds is left out: such buses have node -1. Each node is rotated by the angle of the source's phase
    a plus the multiple of 30 degrees nearest to where its voltage stands without load: the nominal angle of its
    phase, shifted where delta-wye windings and split-phase secondaries shift it.

    Raises InputError with all problems: a draw that nothing feeds, links around a loop whose ratios disagree, buses
    whose voltage without load is far from their base.
    """
    places = _Places(circuit, 1000.0 * s_base_kva / 3.0)
    places.check_draws(circuit)
    y = places.nodal(circuit)
    angle_rad = _angles(circuit, places, y)
    turn = np.exp(1j * angle_rad)
    count, fed = len(places.first), np.flatnonzero(places.node >= 0)
    v_min, v_max = np.full(count, -np.inf), np.full(count, np.inf)
    np.maximum.at(v_min, places.node[fed], v_min_pu / places.ratio[fed])
    np.minimum.at(v_max, places.node[fed], v_max_pu / places.ratio[fed])
    return ThreePhaseNetwork(
        bus=tuple(circuit.v_base_v),
        node_bus=places.first // 3,
        node_phase=places.first % 3,
        bus_node=places.node.reshape(-1, 3),
        bus_ratio=places.ratio.reshape(-1, 3),
        y=sparse.csr_matrix(sparse.diags(turn.conj()) @ y @ sparse.diags(turn)),
        branches=_branches(circuit, places, turn),
        loads=_loads(circuit, places, turn),
        v_source_pu=circuit.source_v / float(places.v_base_v[places.first[0]]),
        v_min_pu=v_min,
        v_max_pu=v_max,
        s_phase_kva=s_base_kva / 3.0,
        kv_ll=places.v_base_v[::3] * np.sqrt(3.0) / 1000.0,
        angle_rad=angle_rad,
    )


class _Places:
    """Every bus and phase (a place is 3·bus + phase), which of them are one node, and which are fed.

    row : bus → position ; v_base_v : (p,) ; node : (p,) phase node, -1 unfed ; ratio : (p,) v_place = ratio·v_node
    per unit, 1 unfed ; first : (n,) the place whose voltage is the node's, nodes numbered from the source outwards
    """

    def __init__(self, circuit: Circuit, s_phase_va: float) -> None:
        self.row = {name: k for k, name in enumerate(circuit.v_base_v)}
        self.v_base_v: Array = np.repeat(np.array(list(circuit.v_base_v.values())), 3)
        self.s_phase_va = s_phase_va
        self.node: Index = np.full(3 * len(self.row), -1, dtype=np.int64)
        self.ratio: Array = np.ones(3 * len(self.row))
        self.first: Index = np.zeros(0, dtype=np.int64)
        self._number(circuit)

    def at(self, terminals: tuple[Terminal, ...]) -> Index:
        """Give the places of terminals."""
        return np.array([3 * self.row[bus] + phase for bus, phase in terminals], dtype=np.int64)

    def check_draws(self, circuit: Circuit) -> None:
        """Raise InputError naming the draws that nothing feeds."""
        remedy = "nothing joins this phase to the source; close a switch, add the line, or remove the load"
        dark = [
            Problem(f"{circuit.file}: {draw.name}", "bus", f"{bus}, phase {'abc'[phase]}", remedy)
            for draw in circuit.draws
            for bus, phase in (draw.plus, *([draw.minus] if draw.minus else []))
            if self.node[3 * self.row[bus] + phase] < 0
        ]
        if dark:
            raise InputError(dark)

    def nodal(self, circuit: Circuit) -> sparse.csc_matrix:
        """Give the nodal admittance of all elements per unit, angles as they are."""
        rows, columns, values = [], [], []
        for element in circuit.elements:
            place = self.at(element.from_terminals + element.to_terminals)
            alive = self.node[place] >= 0
            place = place[alive]
            scale = self.v_base_v[place] * self.ratio[place]
            y_pu = element.y_siemens[np.ix_(alive, alive)] * np.outer(scale, scale) / self.s_phase_va
            node = self.node[place]
            rows.append(np.repeat(node, len(node)))
            columns.append(np.tile(node, len(node)))
            values.append(y_pu.ravel())
        where = (np.concatenate(rows), np.concatenate(columns))
        count = len(self.first)
        return sparse.csc_matrix((np.concatenate(values), where), (count, count))

    def _number(self, circuit: Circuit) -> None:
        """Walk outwards from the source, links first, so that a node is whole before the next one is met."""
        links, coupled = self._neighbours(circuit)
        first: list[int] = []
        queue = deque(self.at(tuple((circuit.source_bus, phase) for phase in range(3))).tolist())
        problems: list[Problem] = []
        while queue:
            start = queue.popleft()
            if self.node[start] >= 0:
                continue
            self.node[start] = len(first)
            first.append(start)
            members = [start]
            for place in members:
                for other, ratio, link in links.get(place, []):
                    wanted = self.ratio[place] * ratio
                    if self.node[other] < 0:
                        self.node[other], self.ratio[other] = self.node[start], wanted
                        members.append(other)
                    elif abs(self.ratio[other] / wanted - 1.0) > RATIO_TOLERANCE:
                        problems.append(_loop_problem(circuit, link, float(wanted / self.ratio[other])))
            queue.extend(other for place in members for other in coupled.get(place, []))
        self.first = np.array(first, dtype=np.int64)
        if problems:
            raise InputError(problems)

    def _neighbours(
        self, circuit: Circuit
    ) -> tuple[dict[int, list[tuple[int, float, Link]]], dict[int, list[int]]]:
        links: dict[int, list[tuple[int, float, Link]]] = {}
        for link in circuit.links:
            i, j = self.at((link.from_terminal, link.to_terminal)).tolist()
            ratio = link.ratio * float(self.v_base_v[i] / self.v_base_v[j])
            links.setdefault(i, []).append((j, ratio, link))
            links.setdefault(j, []).append((i, 1.0 / ratio, link))
        coupled: dict[int, list[int]] = {}
        for element in circuit.elements:
            place = self.at(element.from_terminals + element.to_terminals).tolist()
            for i, j in zip(*np.nonzero(element.y_siemens), strict=True):
                coupled.setdefault(place[i], []).append(place[j])
        return links, coupled


def _loop_problem(circuit: Circuit, link: Link, around: float) -> Problem:
    remedy = "open a switch of the loop that it closes, or set the regulators in it to equal taps"
    return Problem(f"{circuit.file}: {link.name}", "ratio around the loop", around, remedy)


def _angles(circuit: Circuit, places: _Places, y: sparse.csc_matrix) -> Array:
    """Solve without draws, and give each node the standing angle nearest to its voltage's, (n,) [rad]."""
    count = len(places.first)
    source = (
        circuit.source_v
        / places.v_base_v[places.first[0]]
        * np.exp(1j * (circuit.source_angle_rad + ANGLE_RAD))
    )
    v_pu = np.concatenate([source, np.zeros(count - 3)]).astype(np.complex128)
    if count > 3:
        try:
            v_pu[3:] = splu(sparse.csc_matrix(y[3:, 3:])).solve(-(y[3:, :3] @ source))
        except RuntimeError as error:
            remedy = "give every part of the network a path to ground, such as a grounded winding or a shunt"
            raise InputError([Problem(circuit.file, "admittance matrix", "singular", remedy)]) from error
    magnitude = np.abs(v_pu)
    names = list(circuit.v_base_v)
    remedy = "state the base voltage of the bus, or ground the winding that feeds it"
    problems = [
        Problem(
            f"{circuit.file}: bus {names[places.first[k] // 3]}, phase {'abc'[places.first[k] % 3]}",
            "voltage without load, p.u.",
            float(magnitude[k]),
            remedy,
        )
        for k in np.flatnonzero(~((magnitude > PLAUSIBLE_PU[0]) & (magnitude < PLAUSIBLE_PU[1]))).tolist()
    ]
    if problems:
        raise InputError(problems)
    step = np.round((np.angle(v_pu) - circuit.source_angle_rad) / ANGLE_STEP_RAD)
    wrapped = (step + 5) % 12 - 5  # -150 to 180 degrees
    angle_rad: Array = circuit.source_angle_rad + wrapped * ANGLE_STEP_RAD
    return angle_rad


def _branches(circuit: Circuit, places: _Places, turn: Complex) -> Branches:
    """Lay the two-bus elements out on three phases; shunts are in the nodal admittance alone."""
    kept = [element for element in circuit.elements if element.to_terminals]
    count = len(kept)
    node = np.full((count, 2, 3), -1, dtype=np.int64)
    ratio = np.ones((count, 2, 3))
    y = np.zeros((count, 6, 6), dtype=np.complex128)
    i_max_pu = np.full(count, np.inf)
    for k, element in enumerate(kept):
        place = places.at(element.from_terminals + element.to_terminals)
        alive = places.node[place] >= 0
        i_max_pu[k] = element.i_max_a * places.v_base_v[place[0]] / places.s_phase_va
        place = place[alive]
        slot = place % 3 + np.where(np.arange(len(alive)) < len(element.from_terminals), 0, 3)[alive]
        node[k].reshape(6)[slot] = places.node[place]
        ratio[k].reshape(6)[slot] = places.ratio[place]
        v_base, spin = places.v_base_v[place], turn[places.node[place]]
        scale = np.outer(v_base * spin.conj(), v_base * spin) / places.s_phase_va
        y[k][np.ix_(slot, slot)] = element.y_siemens[np.ix_(alive, alive)] * scale
    live = (node >= 0).any(axis=(1, 2))
    return Branches(
        name=tuple(kept[k].name for k in np.flatnonzero(live).tolist()),
        from_node=node[live, 0],
        to_node=node[live, 1],
        from_ratio=ratio[live, 0],
        to_ratio=ratio[live, 1],
        y_ff=y[live, :3, :3],
        y_ft=y[live, :3, 3:],
        y_tf=y[live, 3:, :3],
        y_tt=y[live, 3:, 3:],
        i_max_pu=i_max_pu[live],
    )


def _loads(circuit: Circuit, places: _Places, turn: Complex) -> VoltageLoads:
    """Write each draw as a voltage across nodes; a single node needs no rotation, a difference of two does."""
    row, column, value = [], [], []
    base_v = np.zeros(len(circuit.draws))
    for k, draw in enumerate(circuit.draws):
        ends = places.at((draw.plus, draw.minus) if draw.minus else (draw.plus,))
        base_v[k] = places.v_base_v[ends[0]]
        spin = turn[places.node[ends]] if draw.minus else np.ones(1)
        row += [k] * len(ends)
        column += places.node[ends].tolist()
        value += (np.array([1.0, -1.0])[: len(ends)] * spin * places.ratio[ends]).tolist()
    shape = (len(circuit.draws), len(places.first))
    s = np.array(
        [(draw.s_power_va, draw.s_current_va, draw.s_impedance_va) for draw in circuit.draws],
        dtype=np.complex128,
    ).reshape(-1, 3)
    v_nominal_v = np.array([draw.v_nominal_v for draw in circuit.draws])
    return VoltageLoads(
        across=sparse.csr_matrix((np.array(value, dtype=np.complex128), (row, column)), shape),
        v_nominal_pu=v_nominal_v / base_v,
        s_power=s[:, 0] / places.s_phase_va,
        s_current=s[:, 1] / places.s_phase_va,
        s_impedance=s[:, 2] / places.s_phase_va,
    )
