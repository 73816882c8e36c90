"""A GridLAB-D model as feeder tables, row by row, with everything noted that a table cannot hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import FEET_PER_MILE, PAIRS
from voltier.grid.readers.circuit import Circuit, Draw, Element
from voltier.grid.readers.glm_devices import TRANSFORMER_KINDS
from voltier.grid.readers.glm_properties import LINES, NODES, SWITCHES
from voltier.grid.readers.glm_regulators import regulator_table
from voltier.grid.readers.glm_syntax import GlmObject
from voltier.grid.readers.glm_values import Values
from voltier.grid.readers.gridlabd import GlmCircuit, read_glm_circuit, read_gridlabd

Row = dict[str, str]
UNRATED_A = 1e6
"""Written where a model gives no rating: a current that no feeder reaches, since a table has no empty rating."""
BALANCE = 1e-6  # how far what a table cannot hold may stray from it, as a share


@dataclass(slots=True)
class GlmTables:
    """Rows of every feeder table, and the objects behind them.

    label : table → object of each row ; notes : what was decided on the way, for the reader of the tables
    load_places : (object, letter of its properties, bus, phases) of every draw
    """

    file: str
    rows: dict[str, list[Row]] = field(default_factory=dict)
    label: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    load_places: list[tuple[str, str, str, str]] = field(default_factory=list)

    def add(self, table: str, label: str, row: Row) -> None:
        """Append a row of an object."""
        self.rows.setdefault(table, []).append(row)
        self.label.setdefault(table, []).append(label)


def read_glm_tables(path: Path) -> GlmTables:
    """Read a model into the rows of feeder tables; see voltier.grid.readers.gridlabd for what is understood.

    Raises InputError with all problems, each with file, object, property and remedy: what the reader refuses, and what
    tables cannot hold: transformers of one phase or from delta to wye, no-load losses, delta capacitors, generators
    among the loads.
    """
    # whether everything that draws is fed, and ratios around loops agree
    read_gridlabd(path)
    glm = read_glm_circuit(path)
    circuit, problems = glm.circuit, list[Problem]()
    tables = GlmTables(circuit.file)
    elements = {element.name: element for element in circuit.elements}
    carried: dict[str, set[int]] = {bus: set() for bus in circuit.v_base_v}
    for item in glm.objects:
        if item.kind in LINES:
            _line(tables, item, elements[item.name], glm.values)
        elif item.kind == "transformer":
            _transformer(tables, glm, item, elements[item.name], problems)
        elif item.kind in SWITCHES:
            _switch(tables, glm, item)
        elif item.kind == "capacitor" and item.name in elements:
            _capacitor(tables, item, elements[item.name], circuit, problems)
    regulator_table(tables, glm)
    for draw in circuit.draws:
        _load(tables, draw, circuit, problems)
    if problems:
        raise InputError(problems)
    _buses(tables, glm, carried)
    _source(tables, circuit)
    unrated = [
        row["config"] for row in tables.rows.get("line_configs", []) if float(row["ampacity_a"]) == UNRATED_A
    ]
    if unrated:
        tables.notes.append(f"no rating, {UNRATED_A:g} A written: {', '.join(unrated)}")
    return tables


def text(value: float) -> str:
    """Write a number so that it is read back to the bit."""
    return repr(float(value))


def phase_letters(phases: Collection[int]) -> str:
    """Name phases 0 to 2 in order."""
    return "".join(letter for k, letter in enumerate("abc") if k in phases)


def _ends(element: Element) -> Row:
    return {"from_bus": element.from_terminals[0][0], "to_bus": element.to_terminals[0][0]}


def _line(tables: GlmTables, item: GlmObject, element: Element, values: Values) -> None:
    """Turn a line's admittance into impedance and susceptance per mile; lines alike share a configuration."""
    used = [phase for _, phase in element.from_terminals]
    n, length_ft = len(used), values.real(item, "length", "ft")
    miles = length_ft / FEET_PER_MILE
    z = np.zeros((3, 3), dtype=np.complex128)
    b = np.zeros((3, 3))
    z[np.ix_(used, used)] = -np.linalg.inv(element.y_siemens[:n, n:]) / miles
    total = element.y_siemens[:n, :n] + element.y_siemens[:n, n:]
    b[np.ix_(used, used)] = 2e6 * total.imag / miles
    row: Row = {"phases": phase_letters(used)}
    for name, matrix in (("r", z.real), ("x", z.imag)):
        row |= {f"{name}_{pair}_ohm_per_mile": f"{matrix[i, j]:.12g}" for i, j, pair in PAIRS}
    # capacitances come out of a sum in which the far larger series admittance cancels
    row |= {f"b_{pair}_us_per_mile": f"{round(b[i, j], 6):.9g}" for i, j, pair in PAIRS}
    rated = np.isfinite(element.i_max_a)
    row["ampacity_a"] = text(element.i_max_a if rated else UNRATED_A)
    known = tables.rows.setdefault("line_configs", [])
    match = next((old for old in known if {**row, "config": old["config"]} == old), None)
    if match is None:
        match = {"config": f"config_{len(known) + 1}", **row}
        tables.add("line_configs", item.name, match)
    line = {"line": item.name, **_ends(element), "phases": row["phases"], "config": match["config"]}
    tables.add("lines", item.name, {**line, "length_ft": text(length_ft)})


def _transformer(
    tables: GlmTables, glm: GlmCircuit, item: GlmObject, element: Element, problems: list[Problem]
) -> None:
    values = glm.values
    config = values.refer(item, "configuration")
    assert config is not None
    kind = values.word(config, "connect_type", TRANSFORMER_KINDS)
    if kind not in ("wye", "delta") or len(element.from_terminals) < 3:
        remedy = (
            "feeder tables hold three-phase units, both sides wye or both delta; replace it by one of these"
        )
        problems.append(config.problem("connect_type", remedy))
        return
    shunts = [key for key in config.text if key.startswith("shunt_")]
    problems += [
        config.problem(key, "feeder tables hold no no-load branch; remove the property") for key in shunts
    ]
    z_pu = values.complex(config, "impedance", "pu", 0.0) + complex(
        values.real(config, "resistance", "pu", 0.0), values.real(config, "reactance", "pu", 0.0)
    )
    for key, part in (("resistance", z_pu.real), ("reactance", z_pu.imag)):
        if not part > 0:
            problems.append(config.problem(key, "feeder tables need a number above zero"))
    connection = {"wye": "wye_grounded", "delta": "delta"}[kind]
    row = {
        "transformer": item.name,
        **_ends(element),
        "s_kva": text(values.real(config, "power_rating", "kVA")),
        "conn_high": connection,
        "conn_low": connection,
        "r_percent": text(100.0 * z_pu.real),
        "x_percent": text(100.0 * z_pu.imag),
    }
    for key, bus in (("v_high_kv_ll", row["from_bus"]), ("v_low_kv_ll", row["to_bus"])):
        row[key] = text(_kv_ll(glm.circuit, bus))
    # impedances are in percent of the buses' voltages, which may differ from the ratings by what is upstream
    rated_v = values.real(config, "secondary_voltage", "V")
    share = (rated_v / (1000.0 * _kv_ll(glm.circuit, row["to_bus"]))) ** 2
    row |= {key: text(float(row[key]) * share) for key in ("r_percent", "x_percent")}
    tables.add("transformers", item.name, row)


def _switch(tables: GlmTables, glm: GlmCircuit, item: GlmObject) -> None:
    """Write closed phases as a closed switch; without any, its phases as an open one."""
    values = glm.values
    near, far = values.refer(item, "from"), values.refer(item, "to")
    assert near is not None
    assert far is not None
    closed = {link.from_terminal[1] for link in glm.circuit.links if link.name == item.name}
    tables.add(
        "switches",
        item.name,
        {
            "switch": item.name,
            "from_bus": glm.bus_of[near.name],
            "to_bus": glm.bus_of[far.name],
            "phases": phase_letters(closed or values.phases(item)),
            "normal_state": "closed" if closed else "open",
        },
    )


def _capacitor(
    tables: GlmTables, item: GlmObject, element: Element, circuit: Circuit, problems: list[Problem]
) -> None:
    y = element.y_siemens
    if np.abs(y - np.diag(np.diag(y))).max() > 0:
        remedy = "feeder tables hold capacitors from phase to ground; connect it so"
        problems.append(item.problem("phases_connected", remedy))
        return
    for k, (bus, phase) in enumerate(element.from_terminals):
        row = {
            "bus": bus,
            "phase": "abc"[phase],
            "q_kvar": text(y[k, k].imag * circuit.v_base_v[bus] ** 2 / 1000.0),
            "nominal_kv_ll": text(_kv_ll(circuit, bus)),
        }
        tables.add("capacitors", item.name, row)


def _load(tables: GlmTables, draw: Draw, circuit: Circuit, problems: list[Problem]) -> None:
    """Write each part of a draw that is not zero, at the nominal voltage of its bus."""
    bus, first = draw.plus
    phase = "abc"[first] if draw.minus is None else "abc"[first] + "abc"[draw.minus[1]]
    nominal_v = circuit.v_base_v[bus] * (1.0 if draw.minus is None else np.sqrt(3.0))
    parts = (("PQ", draw.s_power_va, 0), ("I", draw.s_current_va, 1), ("Z", draw.s_impedance_va, 2))
    for model, at_own_v, power in parts:
        va = at_own_v * (nominal_v / draw.v_nominal_v) ** power
        if not va:
            continue
        if va.real < 0:
            remedy = "spot loads consume; write what generates as a generator of the scenario"
            where = f"{tables.file}: {draw.name}"
            problems.append(Problem(where, f"power, phase {phase}", va, remedy))
            continue
        row = {
            "bus": bus,
            "connection": "wye" if draw.minus is None else "delta",
            "phase": phase,
            "model": model,
            "p_kw": text(va.real / 1000.0),
            "q_kvar": text(va.imag / 1000.0),
        }
        tables.add("spot_loads", draw.name, row)
    tables.load_places.append((draw.name, "ABC"[first], bus, phase))


def _buses(tables: GlmTables, glm: GlmCircuit, carried: dict[str, set[int]]) -> None:
    """Give each bus the phases of what is joined to it; one that nothing joins keeps those of its node."""
    for table in ("lines", "switches", "transformers", "regulators"):
        for row in tables.rows.get(table, []):
            letters = row.get("phases", row.get("phase", "abc"))
            for bus in (row["from_bus"], row["to_bus"]):
                carried[bus] |= {"abc".index(letter) for letter in letters}
    nodes = {item.name: item for item in glm.objects if item.kind in NODES}
    for bus, phases in carried.items():
        held = phases or set(glm.values.phases(nodes[bus]))
        row = {
            "bus": bus,
            "phases": phase_letters(held),
            "nominal_kv_ll": text(_kv_ll(glm.circuit, bus)),
            **dict(zip(("x", "y"), _place(nodes[bus]), strict=True)),
        }
        tables.add("buses", bus, row)


def _place(node: GlmObject) -> Iterator[str]:
    """Give longitude and latitude where they are plain numbers."""
    for key in ("longitude", "latitude"):
        try:
            yield text(float(node.text.get(key, "")))
        except ValueError:
            yield ""


def _source(tables: GlmTables, circuit: Circuit) -> None:
    v_pu = circuit.source_v / circuit.v_base_v[circuit.source_bus]
    tables.add("source", circuit.source_bus, {"bus": circuit.source_bus, "v_pu": text(v_pu)})
    if abs(circuit.source_angle_rad) > BALANCE:
        degrees = np.rad2deg(circuit.source_angle_rad)
        tables.notes.append(
            f"{circuit.source_bus}: its angle of {degrees:g} degrees is taken off all voltages"
        )


def _kv_ll(circuit: Circuit, bus: str) -> float:
    """Nominal voltage line to line [kV], without the last bits that a product of ratios leaves."""
    return float(f"{circuit.v_base_v[bus] * np.sqrt(3.0) / 1000.0:.12g}")
