"""Step-voltage regulators: which way their taps move, from the voltages and currents of a power flow."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from voltier.grid.feeder import Feeder
from voltier.grid.flow.port import Flow
from voltier.grid.perunit import PerUnit
from voltier.grid.topology import closed_edges

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def regulators_above(feeder: Feeder, bus: int, phase: int) -> Index:
    """Give the rows of the regulators that set the voltage of a bus on a phase, from the source outwards."""
    graph = nx.Graph((edge.from_bus, edge.to_bus) for edge in closed_edges(feeder))
    way = nx.shortest_path(graph, feeder.source_bus, bus)
    steps = set(itertools.pairwise(way))
    regulators = feeder.regulators
    ends = zip(regulators.from_bus.tolist(), regulators.to_bus.tolist(), strict=True)
    on_way = np.array([pair in steps for pair in ends], dtype=np.bool_)
    rows = np.flatnonzero(on_way & (regulators.phase == phase))
    return rows[np.argsort([way.index(at) for at in regulators.to_bus[rows].tolist()], kind="stable")]


def initial_taps(feeder: Feeder) -> Index:
    """Give the taps of the published solution, (n_reg,)."""
    return feeder.regulators.published_tap.copy()


def neutral_taps(feeder: Feeder) -> Index:
    """Give taps without boost or buck, (n_reg,)."""
    return np.zeros_like(feeder.regulators.published_tap)


def relay_voltage_v(feeder: Feeder, flow: Flow) -> Array:
    """Give what each regulator's relay sees: the voltage at the compensated load centre, (n_reg,) [V].

    |V/pt_ratio − (R + jX)·I/ct_primary| on the sensed phase, with R and X in volts at the rated current of
    the current transformer (Kersting, Distribution System Modeling and Analysis, line drop compensator).
    """
    regulators = feeder.regulators
    v_base_v = np.asarray(PerUnit(1.0, feeder.kv_ll[regulators.to_bus]).v_base_v)
    sensed = _sensed_row(feeder)
    volts = flow.v_pu[regulators.to_bus, regulators.sensed_phase] * v_base_v / regulators.pt_ratio
    drop = (regulators.r_comp_v + 1j * regulators.x_comp_v) / regulators.ct_primary_a
    return np.abs(volts - drop * flow.i_regulator_a[sensed])


def next_taps(feeder: Feeder, flow: Flow, tap: Index) -> Index:
    """Move the taps of regulators whose relay voltage left its band, (n_reg,).

    Outside v_set_v ± bandwidth_v/2 a regulator moves by as many whole taps as fit into its distance from
    v_set_v, at least one, within ±max_tap; inside it stays. A tap counts tap_step_pu of the nominal relay
    voltage. Rows of one regulator that sense the same phase move alike (a ganged regulator).
    """
    regulators = feeder.regulators
    short_v = regulators.v_set_v - relay_voltage_v(feeder, flow)
    v_base_v = np.asarray(PerUnit(1.0, feeder.kv_ll[regulators.to_bus]).v_base_v)
    step_v = regulators.tap_step_pu * v_base_v / regulators.pt_ratio
    steps = np.sign(short_v) * np.maximum(np.floor(np.abs(short_v) / step_v), 1.0)
    outside = np.abs(short_v) > regulators.bandwidth_v / 2.0
    moved = np.asarray(tap) + np.where(outside, steps, 0.0).astype(np.int64)
    return np.clip(moved, -regulators.max_tap, regulators.max_tap)


def _sensed_row(feeder: Feeder) -> Index:
    """Find, for each row, the row of the same regulator that regulates the phase it senses."""
    regulators = feeder.regulators
    same = (regulators.from_bus[:, None] == regulators.from_bus) & (
        regulators.to_bus[:, None] == regulators.to_bus
    )
    sensed = same & (regulators.sensed_phase[:, None] == regulators.phase)
    # A feeder may have no regulator at all, and argmax does not take nothing.
    return np.argmax(sensed, axis=1) if len(sensed) else np.zeros(0, dtype=np.int64)
