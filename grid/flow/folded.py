"""A feeder as a tree without ratios: what the engines share whose tools have none, or one for all three phases.

With s_j the product of all ratios from the root to node j, phase by phase, u_j = v_j/s_j and currents s_j·i_j obey
the same equations on impedances z_pq/(s_p s_q) and susceptances s_p s_q b_pq, and no power changes. Full phase
matrices take this exactly, whatever the taps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import Feeder
from voltier.grid.flow.port import Array, Complex, Index, Mask
from voltier.grid.network import BalancedNetwork
from voltier.grid.perunit import PerUnit
from voltier.grid.topology import reached


@dataclass(frozen=True, slots=True)
class Fold:
    """Ratios at given taps.

    scale : (n_node, 3) ratios multiplied from the root down to each node
    factor : (n_bus, 3) voltage of each bus over the folded voltage u of its node
    """

    scale: Array
    factor: Array


def fold(feeder: Feeder, network: BalancedNetwork, tap: Index) -> Fold:
    """Multiply the regulators' ratios down the tree, phase by phase; tap : (n_reg,)."""
    regulators = feeder.regulators
    ratio = np.ones((len(feeder.bus), 3))
    for k, phase in enumerate(regulators.phase):
        above = network.gang_above[:, network.gang_of_row[k]]
        ratio[above, phase] *= 1.0 + tap[k] * regulators.tap_step_pu[k]
    sent = np.ones((len(network.parent), 3))
    sent[1:] = ratio[network.send_bus[1:]]
    scale = scale_of(network.parent, sent)
    return Fold(scale, ratio * scale[network.node_of_bus])


def scale_of(parent: Index, ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply the ratios from the root down to each node, (n_node, ...)."""
    scale = np.ones_like(ratio)
    for node in range(1, len(parent)):
        scale[node] = scale[parent[node]] * ratio[node]
    return scale


def wires_of(feeder: Feeder, network: BalancedNetwork) -> Mask:
    """Say which phases the branch above each node has, (n_node, 3)."""
    wires = np.ones((len(network.parent), 3), dtype=np.bool_)
    lines = network.line >= 0
    wires[lines] = feeder.lines.has_phase[network.line[lines]]
    return wires


def branch_impedance(feeder: Feeder, network: BalancedNetwork) -> Complex:
    """Give the phase matrix of the branch above each node per unit, zero at absent phases, (n_node, 3, 3)."""
    z_pu = (network.r_pu + 1j * network.x_pu)[:, None, None] * np.eye(3)
    rows = np.flatnonzero(network.line >= 0)
    line = network.line[rows]
    base = np.asarray(PerUnit(network.s_base_kva, feeder.kv_ll[network.send_bus[rows]]).z_base_ohm)
    z_pu[rows] = (feeder.lines.r_ohm[line] + 1j * feeder.lines.x_ohm[line]) / base[:, None, None]
    return np.asarray(z_pu, dtype=np.complex128)


def shunt_matrix(feeder: Feeder) -> Array:
    """Give the susceptance of capacitors and half of each line's charging at each bus, (n_bus, 3, 3) [S]."""
    matrix = capacitor_matrix(feeder)
    lines = feeder.lines
    np.add.at(matrix, lines.from_bus, lines.b_us * 0.5e-6)
    np.add.at(matrix, lines.to_bus, lines.b_us * 0.5e-6)
    return matrix


def capacitor_matrix(feeder: Feeder) -> Array:
    """Give the susceptance of capacitors at each bus, (n_bus, 3, 3) [S]."""
    matrix, capacitors = np.zeros((len(feeder.bus), 3, 3)), feeder.capacitors
    siemens = capacitors.q_kvar * 1e-3 * 3.0 / capacitors.kv_ll**2
    np.add.at(matrix, (capacitors.bus, capacitors.phase, capacitors.phase), siemens)
    return matrix


def phase_volts(feeder: Feeder) -> Array:
    """Give the nominal phase-to-neutral voltage of each bus, (n_bus,) [V]."""
    return np.asarray(PerUnit(1.0, feeder.kv_ll).v_base_v)


def through_regulators(
    feeder: Feeder, network: BalancedNetwork, inject_kva: Complex, send_kva: Complex
) -> Complex:
    """Add up what passes each regulator: draws and branches at the buses beyond it in its node, (n_reg,) [kVA].

    inject_kva : (n_bus, 3) injections, shunts included ; send_kva : (n_node, 3) into the branch above each node
    """
    draw_kva = -inject_kva
    np.add.at(draw_kva, network.send_bus[1:], send_kva[1:])
    beyond: Complex = (network.gang_above.T @ draw_kva)[network.gang_of_row, feeder.regulators.phase]
    return beyond


def regulator_current(feeder: Feeder, v_pu: Complex, beyond_kva: Complex) -> Complex:
    """Turn the power that passes each regulator into its current at to_bus, (n_reg,) [A]."""
    regulators = feeder.regulators
    volts = v_pu[regulators.to_bus, regulators.phase] * phase_volts(feeder)[regulators.to_bus]
    return np.conj(1000.0 * beyond_kva / volts)


def refuse_floating_capacitors(feeder: Feeder) -> None:
    """Raise InputError for capacitors behind a delta winding, where these engines have no ground."""
    capacitors, grounded = feeder.capacitors, reached(feeder, through_delta=False)
    remedy = "use the engine opendss: behind a delta winding this one has no ground"
    floating = capacitors.bus[~grounded[capacitors.bus, capacitors.phase]]
    problems = [Problem("capacitors", "bus", feeder.bus[bus], remedy) for bus in np.unique(floating)]
    if problems:
        raise InputError(problems)


def without_zero_sequence(v_pu: Complex, floating: Mask) -> Complex:
    """Take the mean of the phases out of voltages behind delta windings, which pass none; floating : (n_bus, 3)."""
    return np.where(floating, v_pu - v_pu.mean(axis=1, keepdims=True), v_pu)
