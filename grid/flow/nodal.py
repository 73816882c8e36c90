"""What follows from the phase voltages of a three-phase network: currents, power, losses and their derivatives.

Voltages v are complex, per unit, (n,), in the rotated frame of the network; power is on the base of a phase. The
constant-power injections s that a state needs solve s = v·conj(i), i = y v + acrossᴴ i_load(v).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

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


def jacobian(
    network: ThreePhaseNetwork, v: Complex, s_injection_pu: Complex | None = None
) -> sparse.csr_matrix:
    """Differentiate current_needed, loads included: real (2n, 2n), rows Re i then Im i, columns Re v then Im v.

    s_injection_pu : (n,) if given, the derivative is that of the mismatch current_needed - conj(s/v) at constant s.
    """
    straight, crossed = _current_derivative(network, v)
    if s_injection_pu is not None:
        crossed = crossed + sparse.diags(np.conj(s_injection_pu / v**2))
    return _real(straight, crossed)


def power_jacobian(network: ThreePhaseNetwork, v: Complex) -> sparse.csr_matrix:
    """Differentiate injection_needed: real (2n, 2n), rows P then Q, columns Re v then Im v.

    Drop rows and columns 0-2 and n to n + 2 for the derivative at a fixed source: there the rest is square, and its
    inverse gives dv/ds.
    """
    straight, crossed = _current_derivative(network, v)
    turn = sparse.diags(v)
    # ds = conj(i) dv + v conj(di), and conj(di) = conj(straight) conj(dv) + conj(crossed) dv
    own = sparse.diags(np.conj(current_needed(network, v))) + turn @ crossed.conj()
    return _real(own, turn @ straight.conj())


def _current_derivative(
    network: ThreePhaseNetwork, v: Complex
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Give di/dv and di/dconj(v), complex (n, n), of current_needed."""
    loads = network.loads
    across, v_load = loads.across, loads.across @ v
    size = np.abs(v_load)
    by_current = np.conj(loads.s_current) / (2.0 * size * loads.v_nominal_pu)
    alpha = by_current + np.conj(loads.s_impedance) / loads.v_nominal_pu**2
    beta = -np.conj(loads.s_power / v_load**2) - by_current * (v_load / size) ** 2
    back = across.conj().T
    return network.y + back @ sparse.diags(alpha) @ across, back @ sparse.diags(beta) @ across.conj()


def _real(straight: sparse.csr_matrix, crossed: sparse.csr_matrix) -> sparse.csr_matrix:
    """Write dz = straight dv + crossed conj(dv) in real and imaginary parts."""
    plus, minus = straight + crossed, straight - crossed
    return sparse.bmat([[plus.real, -minus.imag], [plus.imag, minus.real]], format="csr")


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
