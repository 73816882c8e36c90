"""From the tables of a feeder to its three-phase network, and the same network at other taps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import Feeder
from voltier.grid.perunit import PerUnit
from voltier.grid.phase_nodes import PhaseNodes, phase_nodes
from voltier.grid.threephase import (
    ANGLE_RAD,
    Array,
    Branches,
    Complex,
    Index,
    TapLayout,
    ThreePhaseNetwork,
    VoltageLoads,
)
from voltier.grid.topology import reached

Mask = NDArray[np.bool_]
ROTATION = np.exp(1j * (ANGLE_RAD[None, :] - ANGLE_RAD[:, None]))
"""(3, 3) turns a phase admittance into the rotated frame, entry by entry."""
LOOP_TOLERANCE = 1e-12  # ratios are products of a few numbers near 1, so equal ones differ by rounding alone


def three_phase_network(
    feeder: Feeder,
    tap: Index,
    *,
    loads: bool = True,
    load_scale: float = 1.0,
    v_min_pu: float = 0.95,
    v_max_pu: float = 1.05,
    s_base_kva: float = 1000.0,
    closed: tuple[str, ...] | None = None,
) -> ThreePhaseNetwork:
    """Reduce a feeder to phase nodes and admittances at the given taps.

    tap : (n_reg,) positions, rows of feeder.regulators; loads : take in the spot loads, times load_scale
    closed : names of the switches that are closed, all others open; None for the states of the table. Loops are
    allowed. s_base_kva : three-phase base; a phase has a third of it.

    Switches and regulators are ideal and join buses into nodes, phase by phase. Lines keep their phase matrices,
    half of the charging at each end; transformers are series impedances per phase (both sides wye grounded) or
    without a path for the sum of the phases (both sides delta). What hangs on delta windings alone floats and is
    left out, lines and their charging included. A phase is alive where it is joined to the source.

    Raises InputError with all problems: unknown switch names, loads or capacitors that nothing feeds or that float,
    a loop of ideal elements whose ratios disagree.
    """
    states = _switch_states(feeder, closed)
    nodes = phase_nodes(feeder, states)
    fed = nodes.bus_node >= 0
    _check_served(feeder, fed, states, loads)
    parts = _branch_parts(feeder, fed, s_base_kva)
    count = len(nodes.node_bus)
    y, tap_layout = _wire(nodes, parts, _capacitor_pu(feeder, s_base_kva), (v_min_pu, v_max_pu))
    spot, across_unit, across_place = _loads(feeder, nodes, load_scale if loads else None, s_base_kva / 3.0)
    ones = np.ones(nodes.bus_node.shape)
    network = ThreePhaseNetwork(
        bus=feeder.bus,
        node_bus=nodes.node_bus,
        node_phase=nodes.node_phase,
        bus_node=nodes.bus_node,
        bus_ratio=ones,
        y=y,
        branches=_branches(nodes, parts),
        loads=spot,
        v_source_pu=feeder.source_v_pu,
        v_min_pu=np.full(count, v_min_pu),
        v_max_pu=np.full(count, v_max_pu),
        s_phase_kva=s_base_kva / 3.0,
        kv_ll=feeder.kv_ll,
        tap_layout=replace(tap_layout, across_unit=across_unit, across_place=across_place),
    )
    return retap_three_phase(network, feeder, tap)


def retap_three_phase(network: ThreePhaseNetwork, feeder: Feeder, tap: Index) -> ThreePhaseNetwork:
    """Give the same network at other taps: ratios, admittances, load ratios and voltage limits change in number only.

    network : built by three_phase_network from the same feeder; it is left as it is. Raises InputError where ratios
    around a loop of ideal elements disagree.
    """
    tap_layout = network.tap_layout
    if tap_layout is None or tap_layout.moved_by.shape[1] != len(tap):
        raise InputError(
            [
                Problem(
                    f"feeder {feeder.name}",
                    "tap",
                    len(tap),
                    "retap a network built from this feeder's tables",
                )
            ]
        )
    regulator = 1.0 + feeder.regulators.tap_step_pu * tap
    _check_loops(tap_layout, regulator)
    ratio = np.ones(network.bus_node.size)
    # integer powers one by one, so that the ratio of a single regulator keeps every bit
    ratio[tap_layout.moved_place] = (regulator[None, :] ** tap_layout.moved_by).prod(axis=1)
    part = tap_layout.part * (ratio[tap_layout.row_place] * ratio[tap_layout.column_place])
    y = sparse.csr_matrix(
        (_gather(part, tap_layout.slot, network.y.nnz), network.y.indices, network.y.indptr), network.y.shape
    )
    loads, branches = network.loads, network.branches
    data = tap_layout.across_unit * ratio[tap_layout.across_place]
    across = sparse.csr_matrix((data, loads.across.indices, loads.across.indptr), loads.across.shape)
    v_min_pu, v_max_pu = np.full(len(network.node_bus), -np.inf), np.full(len(network.node_bus), np.inf)
    np.maximum.at(v_min_pu, tap_layout.node, tap_layout.v_limit_pu[0] / ratio[tap_layout.node_place])
    np.minimum.at(v_max_pu, tap_layout.node, tap_layout.v_limit_pu[1] / ratio[tap_layout.node_place])
    return replace(
        network,
        bus_ratio=ratio.reshape(-1, 3),
        y=y,
        branches=replace(
            branches, from_ratio=ratio[tap_layout.from_place], to_ratio=ratio[tap_layout.to_place]
        ),
        loads=replace(loads, across=across),
        v_min_pu=v_min_pu,
        v_max_pu=v_max_pu,
    )


def _gather(part: Complex, slot: Index, count: int) -> Complex:
    """Sum parts by slot, in their order."""
    total: Complex = np.bincount(slot, part.real, count) + 1j * np.bincount(slot, part.imag, count)
    return total


def _check_loops(tap_layout: TapLayout, regulator: Array) -> None:
    around = (regulator[None, :] ** tap_layout.loop_by).prod(axis=1)
    remedy = "open a switch of the loop, or set its regulators to taps whose ratios agree"
    problems = [
        Problem(f"loop of {tap_layout.loop_name[k]}", "ratio around the loop", float(around[k]), remedy)
        for k in np.flatnonzero(np.abs(around - 1.0) > LOOP_TOLERANCE).tolist()
    ]
    if problems:
        raise InputError(problems)


def _switch_states(feeder: Feeder, closed: tuple[str, ...] | None) -> Mask:
    switches = feeder.switches
    if closed is None:
        return switches.closed
    known = ", ".join(switches.name) or "none"
    strangers = [name for name in closed if name not in switches.name]
    if strangers:
        remedy = f"name switches of the feeder: {known}"
        raise InputError([Problem(f"feeder {feeder.name}", "closed", name, remedy) for name in strangers])
    return np.isin(np.array(switches.name, dtype=object), closed)


def _check_served(feeder: Feeder, fed: Mask, states: Mask, loads: bool) -> None:
    """Find loads and capacitors on places without voltage to ground, and say which kind of place it is."""
    spot, capacitors = feeder.spot_loads, feeder.capacitors
    places = zip(capacitors.bus.tolist(), capacitors.phase.tolist(), strict=True)
    drawn = [("capacitors", bus, [phase]) for bus, phase in places]
    if loads:
        phases = [["abc".index(letter) for letter in letters] for letters in spot.phase]
        drawn += [("spot_loads", bus, where) for bus, where in zip(spot.bus.tolist(), phases, strict=True)]
    dark = [(table, bus, phases) for table, bus, phases in drawn if not fed[bus, phases].all()]
    if not dark:
        return
    switched = replace(feeder, switches=replace(feeder.switches, closed=states))
    floats = reached(switched)
    raise InputError(
        [
            Problem(
                f"{table}, bus {feeder.bus[bus]}",
                "phase",
                "".join("abc"[phase] for phase in phases),
                "behind delta windings voltages to ground float; give the transformer a grounded wye side"
                if floats[bus, phases].all()
                else "not joined to the source; close a switch or add the line",
            )
            for table, bus, phases in dark
        ]
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """Branches between fed places, at bus voltages in the rotated frame; places are -1 where absent."""

    name: tuple[str, ...]
    from_place: Index
    to_place: Index
    series: Complex
    shunt: Complex
    i_max_pu: Array


def _branch_parts(feeder: Feeder, fed: Mask, s_base_kva: float) -> _Parts:
    lines, transformers = feeder.lines, feeder.transformers
    alive = lines.has_phase & fed[lines.from_bus] & fed[lines.to_bus]
    base = PerUnit(s_base_kva, feeder.kv_ll[lines.from_bus])
    z_base = np.asarray(base.z_base_ohm)[:, None, None]
    both = alive[:, :, None] & alive[:, None, :]
    y_line = _inverse((lines.r_ohm + 1j * lines.x_ohm) / z_base, alive)
    shunt = np.where(both, 0.5j * lines.b_us * 1e-6 * z_base, 0.0)
    y_transformer, wound = _transformer_pu(feeder, fed, s_base_kva)
    has_phase = np.concatenate([alive, wound])
    kept = has_phase.any(axis=1)
    ends = [
        np.where(has_phase, 3 * np.concatenate(side)[:, None] + np.arange(3), -1)[kept]
        for side in ((lines.from_bus, transformers.from_bus), (lines.to_bus, transformers.to_bus))
    ]
    names = lines.name + transformers.name
    rating = np.concatenate([lines.i_max_a / base.i_base_a, transformers.s_kva / s_base_kva])
    return _Parts(
        name=tuple(names[k] for k in np.flatnonzero(kept).tolist()),
        from_place=ends[0],
        to_place=ends[1],
        series=np.concatenate([y_line, y_transformer])[kept] * ROTATION,
        shunt=np.concatenate([shunt, np.zeros_like(y_transformer)])[kept] * ROTATION,
        i_max_pu=rating[kept],
    )


def _inverse(z_pu: Complex, has_phase: Mask) -> Complex:
    """Invert each matrix on the phases it has; (m, 3, 3)."""
    y_pu = np.zeros_like(z_pu)
    kind = has_phase @ np.array([1, 2, 4])
    for code in range(1, 8):
        rows = np.flatnonzero(kind == code)
        phases = np.flatnonzero([code & 1, code & 2, code & 4])
        pick = np.ix_(rows, phases, phases)
        y_pu[pick] = np.linalg.inv(z_pu[pick])
    return y_pu


def _transformer_pu(feeder: Feeder, fed: Mask, s_base_kva: float) -> tuple[Complex, Mask]:
    """Give series admittances (k, 3, 3) and the phases in use (k, 3); none where a delta side floats."""
    transformers = feeder.transformers
    alive = fed[transformers.from_bus] & fed[transformers.to_bus]
    delta = np.array([conn == "delta" for conn in transformers.conn_low], dtype=np.bool_)
    mixed = [
        Problem(
            f"transformers, {transformers.name[k]}",
            "conn_low",
            "delta",
            "feed all three phases of it or none",
        )
        for k in np.flatnonzero(delta & alive.any(axis=1) & ~alive.all(axis=1)).tolist()
    ]
    mixed += [
        Problem(f"transformers, {name}", "conn_low", low, f"connect it like the other side, {high}")
        for name, high, low in zip(
            transformers.name, transformers.conn_high, transformers.conn_low, strict=True
        )
        if high != low
    ]
    if mixed:
        raise InputError(mixed)
    percent = transformers.r_percent + 1j * transformers.x_percent
    y_pu = transformers.s_kva / s_base_kva * 100.0 / percent
    sum_blocked = np.eye(3) - delta[:, None, None] / 3.0
    both = alive[:, :, None] & alive[:, None, :]
    return np.where(both, y_pu[:, None, None] * sum_blocked, 0.0), alive


def _branches(nodes: PhaseNodes, parts: _Parts) -> Branches:
    node = nodes.bus_node.ravel()
    ones = np.ones(parts.from_place.shape)
    return Branches(
        name=parts.name,
        from_node=np.where(parts.from_place >= 0, node[parts.from_place], -1),
        to_node=np.where(parts.to_place >= 0, node[parts.to_place], -1),
        from_ratio=ones,
        to_ratio=ones,
        y_ff=parts.series + parts.shunt,
        y_ft=-parts.series,
        y_tf=-parts.series,
        y_tt=parts.series + parts.shunt,
        i_max_pu=parts.i_max_pu,
    )


def _capacitor_pu(feeder: Feeder, s_base_kva: float) -> tuple[Index, Array]:
    """Give place and susceptance at the bus voltage of each capacitor."""
    capacitors = feeder.capacitors
    at_nominal = (feeder.kv_ll[capacitors.bus] / capacitors.kv_ll) ** 2
    return 3 * capacitors.bus + capacitors.phase, capacitors.q_kvar * at_nominal / (s_base_kva / 3.0)


def _wire(
    nodes: PhaseNodes, parts: _Parts, capacitors: tuple[Index, Array], v_limit_pu: tuple[float, float]
) -> tuple[sparse.csr_matrix, TapLayout]:
    """Lay out the nodal admittance matrix and say which part adds where."""
    own, mutual = parts.series + parts.shunt, -parts.series
    near, far = parts.from_place, parts.to_place
    row, column, part = [capacitors[0]], [capacitors[0]], [1j * capacitors[1]]
    for i, j, block in ((near, near, own), (near, far, mutual), (far, near, mutual), (far, far, own)):
        there = (i >= 0)[:, :, None] & (j >= 0)[:, None, :]
        row.append(np.broadcast_to(i[:, :, None], there.shape)[there])
        column.append(np.broadcast_to(j[:, None, :], there.shape)[there])
        part.append(block[there])
    row_place, column_place = np.concatenate(row), np.concatenate(column)
    node, count = nodes.bus_node.ravel(), len(nodes.node_bus)
    key, slot = np.unique(node[row_place] * count + node[column_place], return_inverse=True)
    start = np.searchsorted(key, np.arange(count + 1) * count)
    y = sparse.csr_matrix((np.zeros(len(key), dtype=np.complex128), key % count, start), (count, count))
    place = np.flatnonzero(node >= 0)
    return y, TapLayout(
        moved_place=nodes.moved_place,
        moved_by=nodes.moved_by,
        loop_by=nodes.loop_by,
        loop_name=nodes.loop_name,
        from_place=near,
        to_place=far,
        part=np.concatenate(part),
        row_place=row_place,
        column_place=column_place,
        slot=slot.astype(np.int64),
        across_unit=np.zeros(0, dtype=np.complex128),
        across_place=np.zeros(0, dtype=np.int64),
        node=node[place],
        node_place=place,
        v_limit_pu=v_limit_pu,
    )


def _loads(
    feeder: Feeder, nodes: PhaseNodes, scale: float | None, s_phase_kva: float
) -> tuple[VoltageLoads, Complex, Index]:
    """Give the spot loads (none if scale is None), and unit and place of each entry of across."""
    spot = feeder.spot_loads
    count = 0 if scale is None else len(spot.phase)
    start, unit, place = [0], [], []
    node = nodes.bus_node.ravel()
    for k in range(count):
        phases = ["abc".index(letter) for letter in spot.phase[k]]
        turn = np.exp(1j * ANGLE_RAD[phases]) * (1.0, -1.0)[: len(phases)] if len(phases) > 1 else np.ones(1)
        ends = [3 * int(spot.bus[k]) + phase for phase in phases]
        order = np.argsort(node[ends])
        unit += turn[order].tolist()
        place += [ends[i] for i in order.tolist()]
        start.append(len(place))
    unit_array, place_array = np.array(unit, dtype=np.complex128), np.array(place, dtype=np.int64)
    across = sparse.csr_matrix((unit_array, node[place_array], start), (count, len(nodes.node_bus)))
    s_nominal = (spot.p_kw + 1j * spot.q_kvar)[:count] * (scale or 0.0) / s_phase_kva
    model = np.array(spot.model[:count], dtype=object)
    delta = np.array([kind == "delta" for kind in spot.connection[:count]], dtype=np.bool_)
    loads = VoltageLoads(
        across=across,
        v_nominal_pu=np.where(delta, np.sqrt(3.0), 1.0),
        s_power=np.where(model == "PQ", s_nominal, 0.0),
        s_current=np.where(model == "I", s_nominal, 0.0),
        s_impedance=np.where(model == "Z", s_nominal, 0.0),
    )
    return loads, unit_array, place_array
