"""What a three-phase price is made of: energy, losses, load response, limits and voltage regulation.

At the AC-exact dispatch one more unit of load at a node moves the voltages by dv = -J⁻¹ ds, with J the derivative of
the nodal power balance. Every term of the Lagrangian beside the operators' own costs is a function of the voltages;
its derivative g asks for one solve with the transposed factor, -J⁻ᵀ g, and so gives its part of all prices at once.
By the balance of the whole feeder, import = load + losses + consumption of voltage-dependent loads, the import's
price is the same at every node (energy) plus what losses and those loads add to the import.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.flow.derivative import N_SOURCE, PowerJacobian, balance_of
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.problem import PrimaryPrices
from voltier.market.primary.three_phase.physics import rated_wires
from voltier.market.primary.three_phase.problem import ThreePhaseClearing

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

PART_NAMES = ("energy", "loss", "load_response", "voltage", "congestion", "regulation")
"""Parts of a price, in the order in which they are stacked."""


@dataclass(frozen=True, slots=True)
class PriceParts:
    """Parts of the prices of load at every phase node; each (2, n_node): active [$/kWh], reactive [$/kvarh].

    energy : marginal price of import, the same at every node, none for reactive power
    loss : losses at their own price and as import ; load_response : import that voltage-dependent loads take more
    when a node's load moves their voltages, zero where loads are of constant power
    voltage, congestion : binding limits of voltage magnitudes and of wires ; regulation : distance to the target
    voltage, zero at weight 0
    import_phase : (3, 2, n_node) import of each phase of the head per unit of load [kW/kW, kW/kvar]

    Like the prices they add up to, they are derivatives of the weighted objective.
    """

    energy: Array
    loss: Array
    load_response: Array
    voltage: Array
    congestion: Array
    regulation: Array
    import_phase: Array

    @property
    def stack(self) -> Array:
        """All parts, (n_part, 2, n_node), in the order of PART_NAMES."""
        return np.stack([getattr(self, name) for name in PART_NAMES])

    @property
    def total(self) -> Array:
        """Their sum, (2, n_node): the price."""
        return np.asarray(self.stack.sum(axis=0))


def price_parts(
    network: ThreePhaseNetwork, clearing: ThreePhaseClearing, prices: PrimaryPrices
) -> PriceParts:
    """Take the prices of an AC-exact clearing apart.

    network : the one that was cleared, at its taps ; prices : those of the clearing. Of a "relaxed" clearing the
    penalties on violated limits are part of voltage and congestion; of a "failed" one every part is nan.
    """
    n = len(clearing.v)
    if clearing.status == "failed":
        nothing = np.full((2, n), np.nan)
        each = dict.fromkeys(PART_NAMES, nothing)
        return PriceParts(**each, import_phase=np.full((N_SOURCE, 2, n), np.nan))
    weights, base = clearing.weights, network.s_phase_kva
    import_price = weights.generation * (
        prices.import_usd_per_kwh + prices.import_slope_usd_per_kw2h * clearing.p_import_kw
    )
    loss_price = import_price + weights.loss * prices.loss_usd_per_kwh
    v = clearing.v
    wire, _ = rated_wires(network)
    away = np.where(np.arange(n) < N_SOURCE, 0.0, v - weights.v_target_pu)
    pulls = (
        loss_price * loss_gradient(network, v),
        import_price * load_gradient(network, v),
        clearing.v_price_usd_per_puh / base * v / np.abs(v),
        wire_gradient(wire, v, clearing.i_price_usd_per_puh / base),
        2.0 * weights.voltage_usd_per_pu2h / base * away,
    )
    response = load_sensitivity(network, v, np.stack(pulls))
    energy = np.zeros((2, n))
    energy[0] = import_price
    loss, load, voltage, congestion, regulation = response[: len(pulls)]
    return PriceParts(energy, loss, load, voltage, congestion, regulation, response[len(pulls) :])


def load_sensitivity(network: ThreePhaseNetwork, v: Complex, gradient: Complex) -> Array:
    """Return how functions of the voltages, and the import of each phase after them, move with load.

    gradient : (m, n) g of each function, df = Re(conj(g)·dv) [per p.u.]
    Returns (m + 3, 2, n): per p.u. of active and reactive load at each node [p.u.]; a load at the source's nodes
    moves no voltage. Raises RuntimeError at the nose of the power-flow curve, where nothing is defined.
    """
    n, m = len(v), len(gradient)
    balance = balance_of(network)
    tangent = PowerJacobian(balance)
    tangent.fill(balance, v)
    own = (np.conj(tangent.frame) * gradient)[:, N_SOURCE:]
    right = np.vstack([np.hstack([own.real, own.imag]), tangent.source]).T
    factor = tangent.factor()
    moved = factor.solve(right, trans="T")
    # Admittances of short lines are some 1e4: one refinement gives back the digits they cost.
    moved += factor.solve(right - tangent.matrix.T @ moved, trans="T")
    out = np.zeros((m + N_SOURCE, 2, n))
    out[:, :, N_SOURCE:] = -moved.T.reshape(m + N_SOURCE, 2, n - N_SOURCE)
    phase = np.arange(N_SOURCE)
    out[m + phase, 0, phase] = 1.0
    return out


def loss_gradient(network: ThreePhaseNetwork, v: Complex) -> Complex:
    """Return g, (n,), of the losses Re(vᴴ y v): their change is Re(conj(g)·dv)."""
    return np.asarray(network.y @ v + network.y.conj().T @ v)


def load_gradient(network: ThreePhaseNetwork, v: Complex) -> Complex:
    """Return g, (n,), of what the voltage-dependent loads consume."""
    loads = network.loads
    across = sparse.csr_matrix(loads.across, dtype=np.complex128)
    w = across @ v
    u = np.abs(w) / loads.v_nominal_pu
    steepness = (loads.s_current.real + 2.0 * u * loads.s_impedance.real) / loads.v_nominal_pu
    return np.asarray(across.conj().T @ (steepness * w / np.abs(w)))


def wire_gradient(wire: sparse.csr_matrix, v: Complex, weight: Array) -> Complex:
    """Return g, (n,), of Σ weight·|i| with i = wire @ v; wires without weight take no part."""
    used = np.flatnonzero(weight)
    current = wire[used] @ v
    return np.asarray(wire[used].conj().T @ (weight[used] * current / np.abs(current)))


def parts_by_operator(parts: PriceParts, share: sparse.spmatrix, *, reactive: bool = False) -> Array:
    """Return the parts of each operator's price, (n_part, n_smo), in the order of PART_NAMES.

    share : (n_node, n_smo) how each operator's injection is spread; an operator's price is the mean over its phase
    nodes, weighted by its shares. reactive : the parts of the price of reactive power instead [$/kvarh].
    """
    return np.asarray((sparse.csc_matrix(share).T @ parts.stack[:, int(reactive)].T).T)
