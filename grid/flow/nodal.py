"""What follows from the phase voltages of a three-phase network: currents, power and losses.

Voltages v are complex, per unit, (n,), in the rotated frame of the network; power is on the base of a phase. The
constant-power injections s that a state needs solve s = v·conj(i), i = y v + acrossᴴ i_load(v).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voltier.grid.threephase import ThreePhaseNetwork

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


def load_current(network: ThreePhaseNetwork, v: Complex) -> Complex:
    """Give the current that each voltage-dependent load draws, (k,)."""
    loads = network.loads
    v_load = loads.across @ v
    u = np.abs(v_load) / loads.v_nominal_pu
    current: Complex = np.conj((loads.s_power + u * (loads.s_current + u * loads.s_impedance)) / v_load)
    return current


def load_power(network: ThreePhaseNetwork, v: Complex) -> Complex:
    """Give the consumption of each voltage-dependent load at its voltage, (k,)."""
    power: Complex = (network.loads.across @ v) * np.conj(load_current(network, v))
    return power


def current_needed(network: ThreePhaseNetwork, v: Complex) -> Complex:
    """Give the current that must be injected at each node besides the network's own loads, (n,)."""
    current: Complex = network.y @ v
    loads = network.loads
    if len(loads.s_power):
        draw = load_current(network, v)[
            np.repeat(np.arange(len(loads.s_power)), np.diff(loads.across.indptr))
        ]
        terms, count = np.conj(loads.across.data) * draw, len(v)
        current += np.bincount(loads.across.indices, terms.real, count)
        current += 1j * np.bincount(loads.across.indices, terms.imag, count)
    return current


def injection_needed(network: ThreePhaseNetwork, v: Complex) -> Complex:
    """Give the power that must be injected at each node besides the network's own loads, (n,), injection positive.

    At nodes 0 to 2 it is what the source delivers, its own injections there included.
    """
    power: Complex = v * np.conj(current_needed(network, v))
    return power


def branch_currents(network: ThreePhaseNetwork, v: Complex) -> tuple[Complex, Complex]:
    """Give the currents into each branch at its from and to end, (m, 3) each, zero at absent phases.

    They are those of the wire: the node behind a ratio sees ratio·current.
    """
    branches = network.branches
    v_from, v_to = _end_voltages(network, v)
    i_from = np.einsum("mij,mj->mi", branches.y_ff, v_from) + np.einsum("mij,mj->mi", branches.y_ft, v_to)
    i_to = np.einsum("mij,mj->mi", branches.y_tf, v_from) + np.einsum("mij,mj->mi", branches.y_tt, v_to)
    return i_from, i_to


def branch_power(network: ThreePhaseNetwork, v: Complex) -> tuple[Complex, Complex]:
    """Give the power into each branch at its from and to end, (m, 3) each."""
    (v_from, v_to), (i_from, i_to) = _end_voltages(network, v), branch_currents(network, v)
    return v_from * np.conj(i_from), v_to * np.conj(i_to)


def branch_losses_pu(network: ThreePhaseNetwork, v: Complex) -> Array:
    """Give the active power that each branch keeps, (m,)."""
    s_from, s_to = branch_power(network, v)
    lost: Array = (s_from.real + s_to.real).sum(axis=1)
    return lost


def losses_pu(network: ThreePhaseNetwork, v: Complex) -> float:
    """Sum the active power lost in all branches, on the base of a phase; capacitors lose none."""
    return float(branch_losses_pu(network, v).sum())


def bus_voltages(network: ThreePhaseNetwork, v: Complex) -> Complex:
    """Give the voltage of each bus and phase in the rotated frame, (n_bus, 3), nan where nothing feeds it."""
    missing = complex(np.nan, np.nan)
    at_bus: Complex = np.where(network.bus_node >= 0, network.bus_ratio * v[network.bus_node], missing)
    return at_bus


def _end_voltages(network: ThreePhaseNetwork, v: Complex) -> tuple[Complex, Complex]:
    branches = network.branches
    v_from = np.where(branches.from_node >= 0, branches.from_ratio * v[branches.from_node], 0.0)
    return v_from, np.where(branches.to_node >= 0, branches.to_ratio * v[branches.to_node], 0.0)
