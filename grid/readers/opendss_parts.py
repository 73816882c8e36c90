"""Elements of a solved OpenDSS circuit as plain arrays: terminals, admittances, powers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from voltier.grid.errors import Problem
from voltier.grid.readers.circuit import Complex, Element, Terminal

LINEAR = ("line", "transformer", "autotrans", "reactor", "capacitor")
DRAWING = ("load", "generator", "pvsystem", "storage")
IGNORED = (
    *("regcontrol", "capcontrol", "swtcontrol", "fuse", "relay", "recloser", "invcontrol", "expcontrol"),
    *("energymeter", "monitor", "sensor", "storagecontroller", "gendispatcher"),
)
DEFAULT_RATING_A = 400.0  # what OpenDSS takes for a line whose rating the file does not say


@dataclass(frozen=True, slots=True)
class Part:
    """An enabled element as OpenDSS gives it, name and bus names in lower case.

    kind : class ; ends : bus and phase of each conductor, terminal by terminal, None at ground
    y_siemens : (c, c) admittance of the conductors, empty for what draws power ; v_v, s_va : (c,) complex solved
    voltage of each conductor and power into it
    """

    name: str
    kind: str
    ends: tuple[Terminal | None, ...]
    y_siemens: Complex
    v_v: Complex
    s_va: Complex
    phases: int
    rating_a: float


def read_parts(context: Any, file: str, problems: list[Problem]) -> list[Part]:
    """Read all enabled elements of the active circuit, controls and meters aside; append what has no place here."""
    parts = []
    for name in context.Circuit.AllElementNames():
        kind = name.partition(".")[0].lower()
        context.Circuit.SetActiveElement(name)
        if kind in IGNORED or not context.CktElement.Enabled():
            continue
        if kind not in (*LINEAR, *DRAWING, "vsource"):
            known = ", ".join((*LINEAR, *DRAWING))
            remedy = f"the class is not supported; disable the element or write it as one of {known}"
            problems.append(Problem(f"{file}: {name}", "class", kind, remedy))
            continue
        part = _part(context.CktElement, name.lower(), kind)
        if isinstance(part, int):
            remedy = "reduce neutral conductors into the phase impedances (Kron); nodes 0 to 3 are read"
            problems.append(Problem(f"{file}: {name}", "node", part, remedy))
        else:
            parts.append(part)
    return parts


def _part(element: Any, name: str, kind: str) -> Part | int:
    """Read the active element; a node number that has no place here is returned instead."""
    buses = [bus.partition(".")[0].lower() for bus in element.BusNames()]
    numbers, conductors = element.NodeOrder(), element.NumConductors()
    strange = [number for number in numbers if number > 3]
    if strange:
        return int(strange[0])
    ends = tuple((buses[k // conductors], number - 1) if number else None for k, number in enumerate(numbers))
    count = 0 if kind in DRAWING else len(ends)
    y = np.array(element.YPrim()).view(np.complex128) if count else np.zeros(0, dtype=np.complex128)
    return Part(
        name=name,
        kind=kind,
        ends=ends,
        y_siemens=y.reshape(count, count).T,  # handed over column by column
        v_v=np.array(element.Voltages()).view(np.complex128),
        s_va=1000.0 * np.array(element.Powers()).view(np.complex128),
        phases=int(element.NumPhases()),
        rating_a=float(element.NormalAmps()),
    )


def element_of(file: str, part: Part, problems: list[Problem]) -> Element | None:
    """Merge the conductors that stand on one node, drop those at ground; None where nothing is left."""
    terminals = list(dict.fromkeys(end for end in part.ends if end is not None))
    buses = list(dict.fromkeys(bus for bus, _ in terminals))
    if len(buses) > 2:
        remedy = (
            "an element joins at most two buses here; write a three-winding transformer as two-winding ones"
        )
        problems.append(Problem(f"{file}: {part.name}", "buses", ", ".join(buses), remedy))
        return None
    if not terminals:
        return None
    terminals.sort(key=lambda terminal: (buses.index(terminal[0]), terminal[1]))
    merge = np.array([[float(end == terminal) for end in part.ends] for terminal in terminals])
    known = part.rating_a > 0 and not (part.kind == "line" and part.rating_a == DEFAULT_RATING_A)
    return Element(
        name=part.name,
        from_terminals=tuple(terminal for terminal in terminals if terminal[0] == buses[0]),
        to_terminals=tuple(terminal for terminal in terminals if terminal[0] != buses[0]),
        y_siemens=merge @ part.y_siemens @ merge.T,
        i_max_a=part.rating_a if known else np.inf,
    )


def source_of(
    context: Any, file: str, part: Part, bus: str, problems: list[Problem]
) -> tuple[float, float, Element] | None:
    """Give the voltage behind the source impedance [V], its angle [rad], and the impedance from the new bus on."""
    near, far = part.ends[:3], part.ends[3:]
    terminals = tuple(end for end in near if end is not None)
    if len(far) != 3 or any(far) or sorted(phase for _, phase in terminals) != [0, 1, 2]:
        remedy = "let the source feed nodes 1, 2, 3 of one bus against ground"
        problems.append(Problem(f"{file}: {part.name}", "bus1", ", ".join(map(str, part.ends)), remedy))
        return None
    context.Vsources.Name(part.name.partition(".")[2])
    kv, pu, degrees = context.Vsources.BasekV(), context.Vsources.PU(), context.Vsources.AngleDeg()
    y = part.y_siemens[:3, :3]
    element = Element(
        name=part.name,
        from_terminals=tuple((bus, phase) for _, phase in terminals),
        to_terminals=terminals,
        y_siemens=np.block([[y, -y], [-y, y]]),
    )
    return float(1000.0 * kv * pu / np.sqrt(3.0)), float(np.deg2rad(degrees)), element
