"""The three-phase view of a feeder: phase nodes, admittances, branches and voltage-dependent loads, per unit.

Every phase is rotated by its nominal angle (0, -120, +120 degrees; ThreePhaseNetwork.rotation_rad holds the angle of
each node): v = e^(-j·angle) times the phasor. So 1 + 0j is the nominal voltage of every phase, products of voltage
and conjugate current are unchanged, and mutual admittances take up the factor e^(j(angle_to - angle_from)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

ANGLE_RAD = np.array([0.0, -2.0, 2.0]) * np.pi / 3.0
"""Nominal angle of phases a, b, c."""


@dataclass(frozen=True, slots=True)
class Branches:
    """Lines and transformers between phase nodes; absent phases have node -1 and zero rows.

    name : (m,) ; from_node, to_node : (m, 3) phase node or -1
    from_ratio, to_ratio : (m, 3) voltage at the branch's end over that of its phase node (ideal regulators and
    switches join buses into one node; a bus behind a regulator has another voltage than its node)
    y_ff, y_ft, y_tf, y_tt : (m, 3, 3) i_from = y_ff (from_ratio v_from) + y_ft (to_ratio v_to), likewise i_to;
    currents flow from the node into the branch; line charging is in y_ff and y_tt
    i_max_pu : (m,) rating of a wire, inf where none is known
    """

    name: tuple[str, ...]
    from_node: Index
    to_node: Index
    from_ratio: Array
    to_ratio: Array
    y_ff: Complex
    y_ft: Complex
    y_tf: Complex
    y_tt: Complex
    i_max_pu: Array


@dataclass(frozen=True, slots=True)
class VoltageLoads:
    """Loads that follow their voltage: they take s(u) = s_power + s_current·u + s_impedance·u², u = |v_load|/v_nominal.

    across : (k, n) complex, sparse; v_load = across @ v: one entry for a wye load (the ratio of its bus to its node),
    two for a delta load (e^(j·angle_a)·ratio, -e^(j·angle_b)·ratio)
    v_nominal_pu : (k,) 1 for wye, sqrt(3) for delta
    s_power, s_current, s_impedance : (k,) complex consumption at nominal voltage [p.u., load positive]

    A load draws i = conj(s/v_load) and so injects -across^H i into the nodes.
    """

    across: sparse.csr_matrix
    v_nominal_pu: Array
    s_power: Complex
    s_current: Complex
    s_impedance: Complex


@dataclass(frozen=True, slots=True)
class TapLayout:
    """What turns regulator taps into the numbers of a network; a place is 3·bus + phase.

    moved_place : (q,), moved_by : (q, n_reg) power of each regulator's ratio 1 + tap·step in the ratio of these places;
    all others keep ratio 1 ; loop_by : (l, n_reg) powers whose product around a loop of ideal elements must be 1 ;
    loop_name : (l,)
    from_place, to_place : (m, 3) ends of the branches, -1 where absent
    part : (w,) admittances at bus voltages; part·ratio[row_place]·ratio[column_place] adds to y.data[slot]
    across_unit, across_place : (a,) across.data = across_unit·ratio[across_place]
    node, node_place : (p,) each fed place and its node ; v_limit_pu : lowest and highest voltage of a bus
    """

    moved_place: Index
    moved_by: NDArray[np.int8]
    loop_by: NDArray[np.int8]
    loop_name: tuple[str, ...]
    from_place: Index
    to_place: Index
    part: Complex
    row_place: Index
    column_place: Index
    slot: Index
    across_unit: Complex
    across_place: Index
    node: Index
    node_place: Index
    v_limit_pu: tuple[float, float]


@dataclass(frozen=True, slots=True)
class ThreePhaseNetwork:
    """A network of phase nodes, radial or meshed, in the rotated frame. Nodes 0 to 2 are the source's phases a, b, c.

    bus : names ; node_bus, node_phase : (n,) first bus joined in the node, and its phase 0 to 2
    bus_node : (n_bus, 3) phase node of each bus, -1 where nothing feeds it
    bus_ratio : (n_bus, 3) v_bus = ratio·v_node
    y : (n, n) sparse complex nodal admittance: branches and capacitors (constant susceptance), so i_injected = y @ v
    v_source_pu : magnitude held at nodes 0 to 2, at angle 0 in the rotated frame
    v_min_pu, v_max_pu : (n,) limits that keep every bus of the node within its own (not applied to the source)
    s_phase_kva : power base of a phase, a third of the three-phase base ; kv_ll : (n_bus,)
    tap_layout : what a move of taps needs; None for a network of fixed ratios
    angle_rad : (n,) angle taken out of each node's phasor [rad]; None where it is the nominal angle of node_phase (read
    rotation_rad: behind delta-wye windings and on split-phase secondaries a node has another angle than its phase)
    """

    bus: tuple[str, ...]
    node_bus: Index
    node_phase: Index
    bus_node: Index
    bus_ratio: Array
    y: sparse.csr_matrix
    branches: Branches
    loads: VoltageLoads
    v_source_pu: float
    v_min_pu: Array
    v_max_pu: Array
    s_phase_kva: float
    kv_ll: Array
    tap_layout: TapLayout | None = None
    angle_rad: Array | None = None

    @property
    def rotation_rad(self) -> Array:
        """Angle taken out of each node's phasor, (n,) [rad]: the phasor is e^(j·rotation_rad)·v."""
        return ANGLE_RAD[self.node_phase] if self.angle_rad is None else self.angle_rad
