"""What is joined to what: the closed edges of a feeder, and the checks of its structure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import networkx as nx
import numpy as np
from networkx.utils import UnionFind
from numpy.typing import NDArray

from voltier.grid.errors import Problem
from voltier.grid.tables import Table

if TYPE_CHECKING:
    from voltier.grid.feeder import Feeder

Mask = NDArray[np.bool_]
BUS_COLUMNS = {
    "lines": ("from_bus", "to_bus"),
    "switches": ("from_bus", "to_bus"),
    "regulators": ("from_bus", "to_bus"),
    "transformers": ("from_bus", "to_bus"),
    "spot_loads": ("bus",),
    "capacitors": ("bus",),
    "source": ("bus",),
}


@dataclass(frozen=True, slots=True)
class Edge:
    """A closed connection of two buses.

    table, row : where it stands; a regulator with several rows is one edge, at its first row
    has_phase : (3,) phases carried
    """

    table: Literal["lines", "switches", "regulators", "transformers"]
    row: int
    from_bus: int
    to_bus: int
    has_phase: Mask


def closed_edges(feeder: Feeder) -> Iterator[Edge]:
    """Yield lines, closed switches, regulators and transformers, each in table order."""
    lines, switches = feeder.lines, feeder.switches
    for k in range(len(lines.name)):
        yield Edge("lines", k, int(lines.from_bus[k]), int(lines.to_bus[k]), lines.has_phase[k])
    for k in np.flatnonzero(switches.closed).tolist():
        i, j = int(switches.from_bus[k]), int(switches.to_bus[k])
        yield Edge("switches", k, i, j, switches.has_phase[k])
    for rows in gangs(feeder):
        regulators, first = feeder.regulators, rows[0]
        has_phase = np.isin(np.arange(3), regulators.phase[rows])
        yield Edge(
            "regulators", first, int(regulators.from_bus[first]), int(regulators.to_bus[first]), has_phase
        )
    transformers = feeder.transformers
    for k in range(len(transformers.name)):
        i, j = int(transformers.from_bus[k]), int(transformers.to_bus[k])
        yield Edge("transformers", k, i, j, np.ones(3, dtype=np.bool_))


def gangs(feeder: Feeder) -> list[list[int]]:
    """Group the rows of the regulator table that stand between the same two buses."""
    groups: dict[tuple[int, int], list[int]] = {}
    for k, ends in enumerate(zip(feeder.regulators.from_bus, feeder.regulators.to_bus, strict=True)):
        groups.setdefault((int(ends[0]), int(ends[1])), []).append(k)
    return list(groups.values())


def merged_buses(feeder: Feeder) -> NDArray[np.int64]:
    """Give each bus the first bus, in table order, that closed switches join it to; (n_bus,)."""
    joined = UnionFind(range(len(feeder.bus)))
    switches = feeder.switches
    for k in np.flatnonzero(switches.closed):
        joined.union(int(switches.from_bus[k]), int(switches.to_bus[k]))
    first: dict[int, int] = {}
    return np.array([first.setdefault(joined[bus], bus) for bus in range(len(feeder.bus))])


def reached(feeder: Feeder, *, through_delta: bool = True) -> Mask:
    """Say which phase of which bus is joined to the source, (n_bus, 3).

    through_delta : also across delta windings; without them, what is reached has a ground reference
    """
    graph = nx.Graph()
    source = [(feeder.source_bus, int(p)) for p in np.flatnonzero(feeder.has_phase[feeder.source_bus])]
    nx.add_path(graph, source)
    graph.add_nodes_from(source)
    for edge in closed_edges(feeder):
        if (
            edge.table == "transformers"
            and not through_delta
            and feeder.transformers.conn_low[edge.row] == "delta"
        ):
            continue
        phases = np.flatnonzero(edge.has_phase)
        graph.add_edges_from(((edge.from_bus, int(p)), (edge.to_bus, int(p))) for p in phases)
    mask = np.zeros((len(feeder.bus), 3), dtype=np.bool_)
    for bus, phase in nx.node_connected_component(graph, source[0]):
        mask[bus, phase] = True
    return mask


def check_references(tables: Mapping[str, Table]) -> list[Problem]:
    """Find buses and configurations named but not in their table, and a source that is not one row."""
    problems = []
    known = set(tables["buses"].cells["bus"])
    for name, columns in BUS_COLUMNS.items():
        for column in columns:
            table = tables[name]
            problems += [
                table.problem(row, column, "name a bus of buses.csv")
                for row, bus in enumerate(table.cells[column])
                if bus not in known
            ]
    configs, lines = set(tables["line_configs"].cells["config"]), tables["lines"]
    problems += [
        lines.problem(row, "config", "name a configuration of line_configs.csv")
        for row, config in enumerate(lines.cells["config"])
        if config not in configs
    ]
    source = tables["source"]
    if source.sound and len(source) != 1:
        problems.append(Problem(source.name, "rows", len(source), "write exactly one row"))
    return problems


def check_feeder(feeder: Feeder, tables: Mapping[str, Table]) -> list[Problem]:
    """Find phases that are not there, wrong ends, loops, and loads that nothing feeds."""
    problems = [
        *_check_edges(feeder, tables),
        *_check_terminals(feeder, tables),
        *_check_devices(feeder, tables),
    ]
    loops = _check_radial(feeder, tables)
    return [*problems, *loops, *_check_fed(feeder, tables, tree=not loops)]


def _letters(mask: Mask) -> str:
    return "".join(letter for letter, there in zip("abc", mask, strict=True) if there) or "none"


def _check_edges(feeder: Feeder, tables: Mapping[str, Table]) -> Iterator[Problem]:
    """Every edge fits the phases and the nominal voltage of both its buses."""
    configs, lines = tables["line_configs"], tables["lines"]
    letters = dict(zip(configs.text("config"), configs.text("phases"), strict=True))
    for row, (config, phases) in enumerate(zip(lines.text("config"), lines.text("phases"), strict=True)):
        if set(phases) != set(letters[config]):
            yield lines.problem(row, "phases", f"configuration {config} is of phases {letters[config]}")
    for edge in closed_edges(feeder):
        table = tables[edge.table]
        for column, bus in (("from_bus", edge.from_bus), ("to_bus", edge.to_bus)):
            if (edge.has_phase & ~feeder.has_phase[bus]).any():
                has, wants = _letters(feeder.has_phase[bus]), _letters(edge.has_phase)
                yield table.problem(edge.row, column, f"the bus has phases {has}, the row needs {wants}")
        step_kv = abs(feeder.kv_ll[edge.from_bus] - feeder.kv_ll[edge.to_bus])
        if edge.table != "transformers" and step_kv > 0:
            yield table.problem(
                edge.row, "to_bus", "join buses of the same nominal voltage, or use a transformer"
            )
        common = feeder.has_phase[edge.from_bus] & feeder.has_phase[edge.to_bus]
        if edge.table == "switches" and (common & ~edge.has_phase).any():
            remedy = f"a closed switch carries every phase that both buses have ({_letters(common)})"
            yield table.problem(edge.row, "phases", remedy)


def _check_terminals(feeder: Feeder, tables: Mapping[str, Table]) -> Iterator[Problem]:
    """Loads, capacitors and the source stand on phases that their bus has."""
    for name in ("spot_loads", "capacitors"):
        table = tables[name]
        index = {bus: k for k, bus in enumerate(feeder.bus)}
        for row, (bus, phases) in enumerate(zip(table.text("bus"), table.text("phase"), strict=True)):
            has = feeder.has_phase[index[bus]]
            if not all(has["abc".index(letter)] for letter in phases):
                yield table.problem(row, "phase", f"bus {bus} has phases {_letters(has)}")
    loads = tables["spot_loads"]
    for row, (kind, phases) in enumerate(zip(loads.text("connection"), loads.text("phase"), strict=True)):
        if len(phases) != (2 if kind == "delta" else 1):
            yield loads.problem(row, "phase", "wye loads stand on one phase, delta loads between two")
    if not feeder.has_phase[feeder.source_bus].all():
        yield tables["source"].problem(0, "bus", "choose a bus with phases abc")


def _check_devices(feeder: Feeder, tables: Mapping[str, Table]) -> Iterator[Problem]:
    """Regulators are wired once per phase within their tap range; transformers fit the buses' voltages."""
    table, regulators = tables["regulators"], feeder.regulators
    for row in np.flatnonzero(np.abs(regulators.published_tap) > regulators.max_tap).tolist():
        yield table.problem(row, "published_tap", f"stay within ±{regulators.max_tap[row]}")
    for rows in gangs(feeder):
        for row in rows:
            if (regulators.phase[rows[: rows.index(row)]] == regulators.phase[row]).any():
                yield table.problem(row, "phase", "regulate each phase once")
            if regulators.sensed_phase[row] not in regulators.phase[rows]:
                yield table.problem(row, "sensed_phase", "sense a phase that this regulator regulates")
    table, transformers = tables["transformers"], feeder.transformers
    high = ("v_high_kv_ll", transformers.v_high_kv_ll, transformers.from_bus)
    low = ("v_low_kv_ll", transformers.v_low_kv_ll, transformers.to_bus)
    for column, kv_ll, bus in (high, low):
        for row in np.flatnonzero(np.abs(kv_ll - feeder.kv_ll[bus]) > 0).tolist():
            remedy = f"write the bus's nominal voltage, {feeder.kv_ll[bus[row]]:g} kV"
            yield table.problem(row, column, remedy)
    for row, sides in enumerate(zip(transformers.conn_high, transformers.conn_low, strict=True)):
        if sides[0] != sides[1]:
            yield table.problem(row, "conn_low", "connect both sides alike; phase shifts are not modelled")


def _check_radial(feeder: Feeder, tables: Mapping[str, Table]) -> list[Problem]:
    """Name each edge that closes a loop with those before it; switches come last, being the usual cause."""
    graph = nx.Graph()
    graph.add_nodes_from(range(len(feeder.bus)))
    problems = []
    for edge in sorted(closed_edges(feeder), key=lambda edge: edge.table == "switches"):
        if nx.has_path(graph, edge.from_bus, edge.to_bus):
            way = nx.shortest_path(graph, edge.from_bus, edge.to_bus)
            names = ", ".join(feeder.bus[bus] for bus in way)
            remedy = f"the row closes the loop {names}; open a switch in it or remove the row"
            problems.append(tables[edge.table].problem(edge.row, "to_bus", remedy))
        graph.add_edge(edge.from_bus, edge.to_bus)
    return problems


def _check_fed(feeder: Feeder, tables: Mapping[str, Table], *, tree: bool) -> Iterator[Problem]:
    """Whatever draws power is joined to the source on its phases; regulators face away from the source."""
    fed = reached(feeder)
    for name in ("spot_loads", "capacitors"):
        table = tables[name]
        index = {bus: k for k, bus in enumerate(feeder.bus)}
        for row, (bus, phases) in enumerate(zip(table.text("bus"), table.text("phase"), strict=True)):
            dark = [
                p
                for p in phases
                if not fed[index[bus], "abc".index(p)] and feeder.has_phase[index[bus], "abc".index(p)]
            ]
            if dark:
                yield table.problem(
                    row,
                    "bus",
                    f"phase {''.join(dark)} is not joined to the source; add the line or close a switch",
                )
    if not tree:
        return
    graph = nx.Graph((edge.from_bus, edge.to_bus) for edge in closed_edges(feeder))
    graph.add_node(feeder.source_bus)
    depth = nx.single_source_shortest_path_length(graph, feeder.source_bus)
    for edge in closed_edges(feeder):
        if edge.table == "regulators" and depth.get(edge.from_bus, 0) > depth.get(edge.to_bus, 0):
            yield tables["regulators"].problem(edge.row, "from_bus", "name the bus towards the source first")
