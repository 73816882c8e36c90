"""GridLAB-D models (.glm): the power-flow part, read without GridLAB-D."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from voltier.grid.errors import InputError, Problem
from voltier.grid.readers.assembly import assemble
from voltier.grid.readers.circuit import Circuit, Draw, Element, Link
from voltier.grid.readers.glm_devices import (
    SWITCH_STATES,
    capacitor_element,
    load_draws,
    regulator_links,
    switch_links,
    transformer_element,
)
from voltier.grid.readers.glm_lines import LineSettings, line_element
from voltier.grid.readers.glm_properties import (
    CONFIGURATIONS,
    LINES,
    LINKS,
    NODES,
    SWITCHES,
    repeated_names,
    unread_properties,
)
from voltier.grid.readers.glm_syntax import GlmModel, GlmObject, parse_glm
from voltier.grid.readers.glm_values import Values
from voltier.grid.threephase import ANGLE_RAD, ThreePhaseNetwork

OBSERVERS = (
    *(
        "recorder",
        "multi_recorder",
        "group_recorder",
        "collector",
        "histogram",
        "voltdump",
        "currdump",
        "billdump",
    ),
    *("impedance_dump", "jsondump", "assert", "complex_assert", "double_assert", "enum_assert", "int_assert"),
    *(
        "powermetrics",
        "fault_check",
        "metrics_collector",
        "metrics_collector_writer",
        "climate",
        "csv_reader",
    ),
)
FREQUENCIES_HZ = {"60": 60.0, "60.0": 60.0, "50": 50.0, "50.0": 50.0}
BUS_TYPES = {"PQ": "load", "SWING": "swing"}
UNBALANCE = 1e-3  # published models print the swing voltages to four to seven digits


@dataclass(slots=True)
class _Reading:
    """What has been read so far; bus_of : key of a node object → the bus it stands at."""

    file: str
    values: Values
    bus_of: dict[str, str] = field(default_factory=dict)
    elements: list[Element] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    draws: list[Draw] = field(default_factory=list)
    steps: dict[str, list[tuple[str, float]]] = field(default_factory=dict)


def read_gridlabd(
    path: Path, *, s_base_kva: float = 1000.0, v_min_pu: float = 0.95, v_max_pu: float = 1.05
) -> ThreePhaseNetwork:
    """Read the power-flow model of a .glm file as it stands at the start.

    Read are node, meter, load (constant and ZIP, wye and delta), capacitor, overhead_line and underground_line (by
    geometry or by matrices), transformer (WYE_WYE, SINGLE_PHASE, DELTA_DELTA, DELTA_GWYE), regulator at its taps,
    switch, fuse, recloser, sectionalizer (ideal, open or closed). Capacitors stand as their switches say, whatever
    controls would do later. Recorders, dumps and asserts are passed over, and so are properties that do not act at the
    start: places, prices, ageing, settings of controls. Nodes with a parent are the parent's bus. Base voltages follow
    from the swing node's nominal voltage and the transformers' ratings, whatever nominal_voltage says elsewhere. Lines
    have capacitance if the powerflow module says line_capacitance. The swing node holds its voltage_A, balanced. A
    delta secondary is tied to ground by a millionth of its short-circuit admittance. Transformers are those of
    GridLAB-D's forward-backward sweep; its Newton method leaves no-load branches out and lets delta primaries carry
    zero sequence, so its voltages differ behind them.

    s_base_kva : three-phase base ; v_min_pu, v_max_pu : limits of every bus. Raises InputError with all problems, each
    with file, line, object, property and remedy: syntax, missing includes and references, repeated names, values,
    properties and classes that are not supported (houses, triplex lines, players, schedules, generators).
    """
    circuit = read_glm_circuit(path).circuit
    return assemble(circuit, s_base_kva=s_base_kva, v_min_pu=v_min_pu, v_max_pu=v_max_pu)


@dataclass(frozen=True, slots=True)
class GlmCircuit:
    """The circuit of a model, and where it comes from. objects : in file order ; bus_of : key of a node → its bus"""

    circuit: Circuit
    values: Values
    objects: tuple[GlmObject, ...]
    bus_of: dict[str, str]


def read_glm_circuit(path: Path) -> GlmCircuit:
    """Read a model as read_gridlabd does, in siemens, volt and watt, without joining it to a network."""
    model = parse_glm(Path(path))
    problems: list[Problem] = []
    reading = _Reading(Path(path).name, Values(model.objects, problems))
    _check_classes(model, problems)
    problems += [*repeated_names(model.objects), *unread_properties(model.objects)]
    nodes = {item.name: item for item in model.objects if item.kind in NODES}
    for item in nodes.values():
        reading.bus_of.update(dict.fromkeys(item.keys, _bus(reading, item)))
    swing = _swing(reading, nodes, problems)
    settings = _line_settings(reading.file, model, problems)
    for item in model.objects:
        if item.kind in LINKS:
            _read_link(reading, item, settings)
    if swing is None or problems:
        raise InputError(problems)
    base_v = _bases(reading, nodes, swing[0], swing[1])
    for item in nodes.values():
        _read_shunts(reading, item, base_v)
    if problems:
        raise InputError(problems)
    circuit = Circuit(
        file=reading.file,
        v_base_v=base_v,
        source_bus=swing[0],
        source_v=swing[2],
        source_angle_rad=swing[3],
        elements=reading.elements,
        links=reading.links,
        draws=reading.draws,
    )
    return GlmCircuit(circuit, reading.values, tuple(model.objects), reading.bus_of)


def _check_classes(model: GlmModel, problems: list[Problem]) -> None:
    known = (*NODES, *LINKS, *CONFIGURATIONS, *OBSERVERS)
    remedy = "the class is not supported; remove the object or replace it by a load with constant power"
    problems += [item.problem("class", remedy, item.kind) for item in model.objects if item.kind not in known]


def _line_settings(file: str, model: GlmModel, problems: list[Problem]) -> LineSettings:
    capacitance = model.settings.get("powerflow.line_capacitance", "false").lower() in ("true", "1")
    text = model.settings.get("powerflow.nominal_frequency", "60").partition(" ")[0]
    if text not in FREQUENCIES_HZ:
        problems.append(Problem(f"{file}: module powerflow", "nominal_frequency", text, "write 50 or 60"))
    return LineSettings(FREQUENCIES_HZ.get(text, 60.0), capacitance)


def _bus(reading: _Reading, item: GlmObject) -> str:
    """Follow parents to the node that stands alone."""
    seen = [item]
    while seen[-1].owner is not None:
        parent = reading.values.find(seen[-1].owner)
        if parent is None or parent.kind not in NODES or parent in seen:
            remedy = "name a node, meter or load as parent, without a circle"
            reading.values.problems.append(seen[-1].problem("parent", remedy, seen[-1].owner))
            break
        seen.append(parent)
    return seen[-1].name


def _swing(
    reading: _Reading, nodes: dict[str, GlmObject], problems: list[Problem]
) -> tuple[str, float, float, float] | None:
    """Give the swing node's bus, nominal voltage [V], held voltage [V] and angle [rad]."""
    kinds = {name: reading.values.word(item, "bustype", BUS_TYPES, "PQ") for name, item in nodes.items()}
    found = [item for name, item in nodes.items() if kinds[name] == "swing"]
    if len(found) != 1:
        names = ", ".join(item.name for item in found) or "none"
        problems.append(Problem(reading.file, "bustype SWING", names, "give exactly one node bustype SWING"))
        return None
    item, values = found[0], reading.values
    nominal_v = values.real(item, "nominal_voltage", "V")
    held = np.array(
        [
            values.complex(item, f"voltage_{letter}", "V", nominal_v * np.exp(1j * angle))
            for letter, angle in zip("ABC", ANGLE_RAD, strict=True)
        ]
    )
    unrotated = held * np.exp(-1j * ANGLE_RAD)
    if not nominal_v > 0 or not abs(unrotated[0]) > 0:
        problems.append(item.problem("nominal_voltage", "write a voltage above zero"))
        return None
    if np.abs(unrotated - unrotated[0]).max() > UNBALANCE * abs(unrotated[0]):
        remedy = "hold three equal voltages, b and c 120 degrees behind and ahead of a"
        problems.append(item.problem("voltage_A", remedy))
    return _bus(reading, item), nominal_v, float(abs(unrotated.mean())), float(np.angle(unrotated.mean()))


def _read_link(reading: _Reading, item: GlmObject, settings: LineSettings) -> None:
    """Read a line, transformer, regulator or switch, and how base voltages step across it."""
    values = reading.values
    near, far = values.refer(item, "from", NODES), values.refer(item, "to", NODES)
    phases = values.phases(item)
    if near is None or far is None:
        return
    if item.kind not in SWITCHES and values.word(item, "status", SWITCH_STATES, "CLOSED") == "open":
        # GridLAB-D finds voltages of several p.u. with a line open beside a closed one: there is no law to follow
        remedy = "remove the object, or put an open switch in series; lines, regulators and transformers are closed"
        values.problems.append(item.problem("status", remedy))
    ends, step = (reading.bus_of[near.name], reading.bus_of[far.name]), 1.0
    if item.kind in LINES:
        element = line_element(values, item, ends, phases, settings)
        reading.elements += [element] if element else []
    elif item.kind == "transformer":
        wound = transformer_element(values, item, ends, phases)
        if wound is not None:
            reading.elements.append(wound[0])
            step = wound[1]
    else:
        links = (regulator_links if item.kind == "regulator" else switch_links)(values, item, ends, phases)
        reading.links += links
        if not links:
            return
    reading.steps.setdefault(ends[0], []).append((ends[1], step))
    reading.steps.setdefault(ends[1], []).append((ends[0], 1.0 / step))


def _bases(reading: _Reading, nodes: dict[str, GlmObject], swing: str, nominal_v: float) -> dict[str, float]:
    """Carry the swing's base voltage through the transformers; what nothing feeds keeps its own nominal voltage."""
    known, queue = {swing: nominal_v}, deque([swing])
    while queue:
        bus = queue.popleft()
        for other, step in reading.steps.get(bus, []):
            if other not in known:
                known[other] = known[bus] * step
                queue.append(other)
    buses = dict.fromkeys(reading.bus_of[name] for name in nodes)
    return {
        bus: known.get(bus, reading.values.real(nodes[bus], "nominal_voltage", "V", nominal_v))
        for bus in buses
    }


def _read_shunts(reading: _Reading, item: GlmObject, base_v: dict[str, float]) -> None:
    """Read what draws at a node: a load's constants, a capacitor's phases."""
    bus = reading.bus_of[item.name]
    if item.kind == "load":
        reading.draws += load_draws(reading.values, item, bus, base_v[bus])
    elif item.kind == "capacitor":
        element = capacitor_element(reading.values, item, bus, base_v[bus])
        reading.elements += [element] if element else []
