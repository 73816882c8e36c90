"""The balanced equivalent of a feeder: a per-unit tree that the primary market clears on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from networkx.utils import UnionFind
from numpy.typing import NDArray

from voltier.grid.feeder import Feeder
from voltier.grid.perunit import PerUnit
from voltier.grid.topology import Edge, closed_edges, gangs

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]
LateralImpedance = Literal["true_drop", "self"]
IDEAL = ("switches", "regulators")


@dataclass(frozen=True, slots=True)
class BalancedNetwork:
    """A radial network of one phase, per unit on three-phase bases, parents numbered before children.

    Closed switches and regulators have no impedance: the buses they join are members of one node, and
    v_bus = ratio_of_bus·v_node. The branch of node j goes from its parent i with v_send = ratio[j]·v_i and
    is a series impedance r_pu + j·x_pu: its current is i = (v_send − v_j)/z, and ratio[j]·i leaves node i.

    bus : names; node_of_bus : (n_bus,) node, −1 where nothing feeds the bus; ratio_of_bus : (n_bus,)
    parent : (n_node,) −1 at node 0, the slack; r_pu, x_pu, ratio : (n_node,), 0, 0, 1 at node 0
    b_pu : (n_node,) shunt susceptance of capacitors and line charging; it injects b·v² of reactive power
    v_min_pu, v_max_pu : (n_node,) limits that keep every member bus within its own
    i_max_pu : (n_node,) rating of the branch as balanced current, infinite where none is known
    s_base_kva, v_root_pu : three-phase power base [kVA], voltage of the source bus
    send_bus : (n_node,) bus at the sending end of the branch, −1 at node 0
    line : (n_node,) row of feeder.lines that the branch is, −1 for a transformer and at node 0

    The rest serves retap: gang_above (n_bus, n_gang) regulators between the bus and its node's first bus;
    gang_of_row (n_reg,); b_bus_pu (n_bus,) shunts at the bus voltage; v_min_bus_pu, v_max_bus_pu bus limits.
    """

    bus: tuple[str, ...]
    node_of_bus: Index
    ratio_of_bus: Array
    parent: Index
    r_pu: Array
    x_pu: Array
    ratio: Array
    b_pu: Array
    v_min_pu: Array
    v_max_pu: Array
    i_max_pu: Array
    s_base_kva: float
    v_root_pu: float
    send_bus: Index
    line: Index
    gang_above: Mask
    gang_of_row: Index
    b_bus_pu: Array
    v_min_bus_pu: float
    v_max_bus_pu: float


def balanced_network(
    feeder: Feeder,
    tap: Index,
    *,
    lateral_impedance: LateralImpedance = "true_drop",
    v_min_pu: float = 0.95,
    v_max_pu: float = 1.05,
    s_base_kva: float = 1000.0,
) -> BalancedNetwork:
    """Reduce a feeder to its balanced equivalent at the given taps.

    tap : (n_reg,) positions, rows of feeder.regulators. A regulator is an ideal ratio, the mean of its
    phases.
    lateral_impedance : a lateral of n phases carries 3/n times the balanced current in each wire. "true_drop"
        scales its impedance by 3/n, so that its own voltage drop and losses are right; "self" does not, which
        is common and shows one third (n = 1) or two thirds (n = 2) of the drop.

    The positive sequence of a line is z = z_self − z_mutual (means) with three phases, z_self − z_mutual/2
    with two, z_self with one; of its charging likewise, times n/3, half at each end.
    """
    node_of_bus, entry, tree = _walk(feeder)
    gang_rows = gangs(feeder)
    gang_of_row = np.zeros(len(feeder.regulators.name), dtype=np.int64)
    for k, rows in enumerate(gang_rows):
        gang_of_row[rows] = k
    n_node = len(entry)
    r_pu, x_pu, i_max_pu = np.zeros(n_node), np.zeros(n_node), np.full(n_node, np.inf)
    parent, send_bus, line = (np.full(n_node, -1, dtype=np.int64) for _ in range(3))
    for edge, near, far in tree:
        node = node_of_bus[far]
        parent[node], send_bus[node] = node_of_bus[near], near
        line[node] = edge.row if edge.table == "lines" else -1
        r_pu[node], x_pu[node], i_max_pu[node] = _branch(feeder, edge, lateral_impedance, s_base_kva)
    network = BalancedNetwork(
        bus=feeder.bus,
        node_of_bus=node_of_bus,
        ratio_of_bus=np.ones(len(feeder.bus)),
        parent=parent,
        r_pu=r_pu,
        x_pu=x_pu,
        ratio=np.ones(n_node),
        b_pu=np.zeros(n_node),
        v_min_pu=np.full(n_node, v_min_pu),
        v_max_pu=np.full(n_node, v_max_pu),
        i_max_pu=i_max_pu,
        s_base_kva=s_base_kva,
        v_root_pu=feeder.source_v_pu,
        send_bus=send_bus,
        line=line,
        gang_above=_gang_above(feeder, gang_rows, node_of_bus, entry),
        gang_of_row=gang_of_row,
        b_bus_pu=_shunts(feeder, s_base_kva),
        v_min_bus_pu=v_min_pu,
        v_max_bus_pu=v_max_pu,
    )
    return retap(network, feeder, tap)


def retap(network: BalancedNetwork, feeder: Feeder, tap: Index) -> BalancedNetwork:
    """Give the same network at other taps: only ratio, ratio_of_bus, voltage limits and b_pu change."""
    regulators = feeder.regulators
    n_gang, n_node = network.gang_above.shape[1], len(network.parent)
    raise_pu = np.bincount(network.gang_of_row, regulators.tap_step_pu * tap, minlength=n_gang)
    rows = np.bincount(network.gang_of_row, minlength=n_gang)
    ratio_of_bus = np.where(network.gang_above, 1.0 + raise_pu / np.maximum(rows, 1), 1.0).prod(axis=1)
    live = network.node_of_bus >= 0
    node, member = network.node_of_bus[live], ratio_of_bus[live]
    v_min_pu, v_max_pu = np.full(n_node, -np.inf), np.full(n_node, np.inf)
    np.maximum.at(v_min_pu, node, network.v_min_bus_pu / member)
    np.minimum.at(v_max_pu, node, network.v_max_bus_pu / member)
    ratio = np.ones(n_node)
    ratio[1:] = ratio_of_bus[network.send_bus[1:]]
    return replace(
        network,
        ratio_of_bus=ratio_of_bus,
        ratio=ratio,
        b_pu=np.bincount(node, network.b_bus_pu[live] * member**2, minlength=n_node).astype(np.float64),
        v_min_pu=v_min_pu,
        v_max_pu=v_max_pu,
    )


def _walk(feeder: Feeder) -> tuple[Index, list[int], list[tuple[Edge, int, int]]]:
    """Number the nodes from the source outwards, breadth first in table order.

    Returns the node of each bus, the first bus of each node, and the branches as (edge, near bus, far bus).
    """
    joined = UnionFind(range(len(feeder.bus)))
    around: list[list[tuple[Edge, int, int]]] = [[] for _ in feeder.bus]
    for edge in closed_edges(feeder):
        if edge.table in IDEAL:
            joined.union(edge.from_bus, edge.to_bus)
        around[edge.from_bus].append((edge, edge.from_bus, edge.to_bus))
        around[edge.to_bus].append((edge, edge.to_bus, edge.from_bus))
    members: dict[int, list[int]] = {}
    for bus in range(len(feeder.bus)):
        members.setdefault(joined[bus], []).append(bus)
    node_of_bus = np.full(len(feeder.bus), -1, dtype=np.int64)
    entry, tree, queue = [feeder.source_bus], [], deque([feeder.source_bus])
    node_of_bus[members[joined[feeder.source_bus]]] = 0
    while queue:
        for member in members[joined[queue.popleft()]]:
            for edge, near, far in around[member]:
                if node_of_bus[far] < 0:
                    node_of_bus[members[joined[far]]] = len(entry)
                    entry.append(far)
                    tree.append((edge, near, far))
                    queue.append(far)
    return node_of_bus, entry, tree


def _gang_above(feeder: Feeder, gang_rows: list[list[int]], node_of_bus: Index, entry: list[int]) -> Mask:
    """Mark, for each bus, the regulators on the way to it from the first bus of its node."""
    gang_of_first_row = {rows[0]: k for k, rows in enumerate(gang_rows)}
    around: dict[int, list[tuple[int, int]]] = {}
    for edge in closed_edges(feeder):
        if edge.table in IDEAL:
            gang = gang_of_first_row[edge.row] if edge.table == "regulators" else -1
            around.setdefault(edge.from_bus, []).append((edge.to_bus, gang))
            around.setdefault(edge.to_bus, []).append((edge.from_bus, gang))
    above = np.zeros((len(feeder.bus), len(gang_rows)), dtype=np.bool_)
    seen = np.zeros(len(feeder.bus), dtype=np.bool_)
    stack = list(entry)
    seen[stack] = True
    while stack:
        bus = stack.pop()
        for other, gang in around.get(bus, []):
            if not seen[other]:
                seen[other] = True
                above[other] = above[bus]
                if gang >= 0:
                    above[other, gang] = True
                stack.append(other)
    return above


def sequence_equivalent(matrix: Array, has_phase: Mask) -> float:
    """Reduce a phase matrix to what a balanced set of currents sees, on the mean of the phases present.

    With unit currents 120 degrees apart, the others add the factor −1/2 each (the quadrature parts cancel in
    the mean): z = z_self − z_mutual (n − 1)/2.
    """
    n = int(has_phase.sum())
    present = matrix[np.ix_(has_phase, has_phase)]
    mutual_sum = present.sum() - np.trace(present)
    return float((np.trace(present) - mutual_sum / 2.0) / n)


def _branch(
    feeder: Feeder, edge: Edge, lateral_impedance: LateralImpedance, s_base_kva: float
) -> tuple[float, float, float]:
    """Give r, x and current rating of a line or transformer in per unit."""
    if edge.table == "transformers":
        transformers, k = feeder.transformers, edge.row
        scale = s_base_kva / transformers.s_kva[k] / 100.0
        rating = transformers.s_kva[k] / s_base_kva
        return transformers.r_percent[k] * scale, transformers.x_percent[k] * scale, rating
    lines, k, n = feeder.lines, edge.row, int(edge.has_phase.sum())
    base = PerUnit(s_base_kva, float(feeder.kv_ll[edge.from_bus]))
    scale = (3.0 / n if lateral_impedance == "true_drop" else 1.0) / base.z_base_ohm
    r_ohm = float(sequence_equivalent(lines.r_ohm[k], edge.has_phase))
    x_ohm = float(sequence_equivalent(lines.x_ohm[k], edge.has_phase))
    return float(r_ohm * scale), float(x_ohm * scale), float(lines.i_max_a[k] * n / 3.0 / base.i_base_a)


def _shunts(feeder: Feeder, s_base_kva: float) -> Array:
    """Give the susceptance of capacitors and of half of each line's charging at every bus, per unit."""
    capacitors, lines = feeder.capacitors, feeder.lines
    kvar = capacitors.q_kvar * (feeder.kv_ll[capacitors.bus] / capacitors.kv_ll) ** 2
    b_pu = np.zeros(len(feeder.bus))
    np.add.at(b_pu, capacitors.bus, kvar / s_base_kva)
    for k, has_phase in enumerate(lines.has_phase):
        share = has_phase.sum() / 3.0
        half_us = sequence_equivalent(lines.b_us[k], has_phase) * share / 2.0
        for bus in (lines.from_bus[k], lines.to_bus[k]):
            b_pu[bus] += half_us * 1e-6 * PerUnit(s_base_kva, float(feeder.kv_ll[bus])).z_base_ohm
    return b_pu
