"""The part of a feeder that a GridLAB-D model holds, and its nodes, lines and switches as GLM text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import FEET_PER_MILE, Feeder
from voltier.grid.perunit import PerUnit
from voltier.grid.threephase import ANGLE_RAD
from voltier.grid.topology import closed_edges, reached

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

FREQUENCY_HZ = 60.0
DIGITS = 12  # GridLAB-D reads doubles; more digits would tell equal configurations apart by rounding


@dataclass(frozen=True, slots=True)
class PhaseInjections:
    """Constant-power injections to ground, load negative; those of one place add up.

    bus : (k,) rows of the feeder's bus table ; phase : (k,) 0 to 2 ; p_kw, q_kvar : (k,) [kW, kvar]
    """

    bus: Index
    phase: Index
    p_kw: Array
    q_kvar: Array


@dataclass(frozen=True, slots=True)
class GlmFeeder:
    """A feeder with what its model needs to know.

    name : of each bus in the model ; fed : (n_bus, 3) phases that the model holds ; depth : (n_bus,) links from the
    source, -1 where no link leads ; v_base_v : (n_bus,) nominal voltage to ground [V]
    keeps_open : whether open switches between fed buses are written
    """

    feeder: Feeder
    name: tuple[str, ...]
    fed: Mask
    depth: Index
    v_base_v: Array
    keeps_open: bool

    @classmethod
    def of(cls, feeder: Feeder, *, keeps_open: bool) -> GlmFeeder:
        """Find names, fed phases and distances from the source; raises InputError for names that become equal."""
        graph = nx.Graph((edge.from_bus, edge.to_bus) for edge in closed_edges(feeder))
        graph.add_node(feeder.source_bus)
        depth = np.full(len(feeder.bus), -1, dtype=np.int64)
        for bus, links in nx.single_source_shortest_path_length(graph, feeder.source_bus).items():
            depth[bus] = links
        return cls(
            feeder=feeder,
            name=gridlabd_bus_names(feeder),
            fed=reached(feeder, through_delta=False),
            depth=depth,
            v_base_v=np.asarray(PerUnit(1.0, feeder.kv_ll).v_base_v),
            keeps_open=keeps_open,
        )

    def phases(self, *buses: int, of: Mask | None = None) -> str:
        """Give the letters of the phases that all these buses are fed on, and that the element has."""
        there: Mask = np.logical_and.reduce(self.fed[list(buses)], axis=0)
        return letters(there if of is None else there & of)

    def outward(self, one: int, other: int) -> tuple[int, int]:
        """Put the bus nearer to the source first; a sweep needs links to point away from it."""
        return (one, other) if self.depth[one] <= self.depth[other] else (other, one)


def gridlabd_bus_names(feeder: Feeder) -> tuple[str, ...]:
    """Give the name of each bus in the model: bus_ and its name in the table, with _ for all but letters and digits.

    Raises InputError where two buses would have one name.
    """
    names = tuple(clean("bus", bus) for bus in feeder.bus)
    first: dict[str, str] = {}
    for name, bus in zip(names, feeder.bus, strict=True):
        first.setdefault(name, bus)
    problems = [
        Problem(f"feeder {feeder.name}", "bus", bus, f"rename it: it cannot be told from bus {first[name]}")
        for name, bus in zip(names, feeder.bus, strict=True)
        if first[name] != bus
    ]
    if problems:
        raise InputError(problems)
    return names


def clean(prefix: str, name: str, row: int | None = None) -> str:
    """Give a name that GridLAB-D accepts: it may hold neither blanks nor dots, nor begin with a digit.

    row : its number at the end keeps names of one table apart that differ in such letters only
    """
    plain = re.sub(r"[^A-Za-z0-9]", "_", name)
    plain = plain if row is not None and plain.startswith(f"{prefix}_") else f"{prefix}_{plain}"
    return plain if row is None else f"{plain}_{row + 1}"


def letters(there: Mask) -> str:
    """Name phases the GridLAB-D way."""
    return "".join(letter for letter, has in zip("ABC", there, strict=True) if has)


def number(value: complex) -> str:
    """Write a real number, or a complex one as 1+2j."""
    if isinstance(value, complex):
        return f"{value.real:.{DIGITS}g}{value.imag:+.{DIGITS}g}j"
    return f"{value:.{DIGITS}g}"


def block(kind: str, properties: Mapping[str, str]) -> str:
    """Write one object."""
    lines = "".join(f"    {key} {value};\n" for key, value in properties.items())
    return f"object {kind} {{\n{lines}}}\n"


def node_objects(model: GlmFeeder) -> Iterator[str]:
    """Write every fed bus as a node; the source is a meter, which shows the feeder's power, and holds its voltages."""
    for bus in np.flatnonzero(model.fed.any(axis=1)).tolist():
        volts = float(model.v_base_v[bus])
        properties = {
            "name": model.name[bus],
            "phases": model.phases(bus) + "N",
            "nominal_voltage": number(volts),
        }
        if bus == model.feeder.source_bus:
            properties["bustype"] = "SWING"
            for letter, degrees in zip("ABC", np.rad2deg(ANGLE_RAD).round(9).tolist(), strict=True):
                held_v = model.feeder.source_v_pu * volts
                properties[f"voltage_{letter}"] = f"{number(held_v)}{degrees:+.6g}d"
        yield block("meter" if bus == model.feeder.source_bus else "node", properties)


def line_objects(model: GlmFeeder) -> Iterator[str]:
    """Write lines with their impedance and capacitance per mile; lines of equal matrices share a configuration."""
    lines, known = model.feeder.lines, dict[tuple[tuple[str, str], ...], str]()
    for k, ends in enumerate(zip(lines.from_bus.tolist(), lines.to_bus.tolist(), strict=True)):
        phases = model.phases(*ends, of=lines.has_phase[k])
        if not phases:
            continue
        matrices = _per_mile(model, k, phases)
        key = tuple(matrices.items())
        if key not in known:
            known[key] = f"lineconfiguration_{len(known) + 1}"
            yield block("line_configuration", {"name": known[key], **matrices})
        near, far = model.outward(*ends)
        properties = {
            "name": clean("line", lines.name[k], k),
            "phases": phases,
            "from": model.name[near],
            "to": model.name[far],
            "length": f"{number(float(lines.length_ft[k]))} ft",
            "configuration": known[key],
        }
        yield block("overhead_line", properties)


def _per_mile(model: GlmFeeder, line: int, phases: str) -> dict[str, str]:
    """Give z11 ... z33 [ohm/mile], c11 ... c33 [nF/mile] and the rating [A] of a line."""
    lines = model.feeder.lines
    miles = float(lines.length_ft[line]) / FEET_PER_MILE
    z_ohm = (lines.r_ohm[line] + 1j * lines.x_ohm[line]) / miles
    c_nf = lines.b_us[line] * 1e3 / (2.0 * np.pi * FREQUENCY_HZ) / miles
    used = ["ABC".index(letter) for letter in phases]
    pairs = [(i, j) for i in used for j in used]
    properties = {f"z{i + 1}{j + 1}": number(complex(z_ohm[i, j])) for i, j in pairs}
    properties |= {f"c{i + 1}{j + 1}": number(float(c_nf[i, j])) for i, j in pairs}
    if np.isfinite(lines.i_max_a[line]):
        properties["rating.summer.continuous"] = number(float(lines.i_max_a[line]))
    return properties


def switch_objects(model: GlmFeeder) -> Iterator[str]:
    """Write switches between fed buses, closed or open."""
    switches = model.feeder.switches
    for k, ends in enumerate(zip(switches.from_bus.tolist(), switches.to_bus.tolist(), strict=True)):
        phases, closed = model.phases(*ends, of=switches.has_phase[k]), bool(switches.closed[k])
        if not phases or not (closed or model.keeps_open):
            continue
        near, far = model.outward(*ends)
        properties = {
            "name": clean("switch", switches.name[k], k),
            "phases": phases,
            "from": model.name[near],
            "to": model.name[far],
            "status": "CLOSED" if closed else "OPEN",
        }
        yield block("switch", properties)
