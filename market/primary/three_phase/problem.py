"""What the three-phase market is asked and answers: weights, clearing, and the objective of a dispatch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.errors import InputError, Problem
from voltier.grid.flow.derivative import N_SOURCE
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.problem import PrimaryBids, PrimaryClearing, PrimaryPrices, ScaledBids, scale_bids

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

# Shares of an operator are rounded decimals of input tables; their sum is 1 but for that.
SHARE_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class SocialWeights:
    """Weights of the parts of social welfare (after Nair, PhD thesis, MIT 2025).

    cost = disutility·(leaving the forecast) + generation·(generation and import) + loss·(losses)
    + voltage_usd_per_pu2h·Σ |v - v_target|² over the phase nodes but the source's, v in the rotated frame.
    v_target_pu below 1 asks for conservation voltage reduction.
    """

    disutility: float = 1.0
    generation: float = 1.0
    loss: float = 1.0
    voltage_usd_per_pu2h: float = 0.0
    v_target_pu: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreePhaseClearing(PrimaryClearing):
    """A cleared three-phase market; what PrimaryClearing has per node is per phase node here.

    Prices and multipliers are derivatives of the weighted objective; divide by weights.generation for money.
    An operator's price is the mean over its phase nodes, weighted by its shares. loss_kw is what branches lose.

    dlmp_node_q_usd_per_kvarh : (n,) cost of one more kvar of load at each phase node
    v : (n,) complex voltages, rotated frame [p.u.]; v_pu is their magnitude
    p_phase_kw, q_phase_kvar : (3,) import of each phase
    load_kw : what the voltage-dependent loads consume
    v_price_usd_per_puh : (n,) worth of a little more room at the voltage limit that binds: positive at the
    upper, negative at the lower limit, zero elsewhere [$/h per p.u.]
    i_price_usd_per_puh : (n_wire,) the same for the rated wires' ends, in the order of physics.rated_wires
    weights : those the market was cleared with
    """

    dlmp_node_q_usd_per_kvarh: Array
    v: Complex
    p_phase_kw: Array
    q_phase_kvar: Array
    load_kw: float
    v_price_usd_per_puh: Array
    i_price_usd_per_puh: Array
    weights: SocialWeights


@dataclass(frozen=True, slots=True)
class ScaledProblem:
    """Bids and weights per unit of the phase base, so that every dual of a power balance is in $/kWh.

    bids : with the weights applied ; voltage_weight, v_target : of the voltage part
    """

    bids: ScaledBids
    voltage_weight: float
    v_target: float


def scale_problem(
    bids: PrimaryBids, prices: PrimaryPrices, weights: SocialWeights, s_phase_kva: float
) -> ScaledProblem:
    """Apply the weights and divide by the base; cost in $/h is s_phase_kva times the scaled objective."""
    plain = scale_bids(bids, prices, s_phase_kva)
    factor = np.array([weights.disutility, weights.disutility, weights.generation])[:, None]
    scaled = replace(
        plain,
        weight=factor * plain.weight,
        linear=factor * plain.linear,
        constant=weights.disutility * plain.constant,
        import_price=weights.generation * plain.import_price,
        import_curvature=weights.generation * plain.import_curvature,
        loss_price=weights.loss * plain.loss_price,
    )
    return ScaledProblem(scaled, weights.voltage_usd_per_pu2h / s_phase_kva, weights.v_target_pu)


def weight_problems(weights: SocialWeights) -> str:
    """Say what makes weights unusable, or "" when they are sound."""
    parts = weights.disutility, weights.generation, weights.loss, weights.voltage_usd_per_pu2h
    if not all(np.isfinite((*parts, weights.v_target_pu))):
        return "a weight is not finite"
    return "a weight is negative" if min(parts) < 0.0 else ""


def scaled_cost(problem: ScaledProblem, u: Array, v: Complex, head: float, loss: float) -> float:
    """Return the scaled objective; u : (3, n_smo), v : (n,), head : import, loss : of the network [p.u.]."""
    bids = problem.bids
    cost = float(np.sum((0.5 * bids.weight * u + bids.linear) * u)) + bids.constant
    cost += bids.import_price * head + 0.5 * bids.import_curvature * head**2 + bids.loss_price * loss
    away = v[N_SOURCE:] - problem.v_target
    return cost + problem.voltage_weight * float(np.sum(away.real**2 + away.imag**2))


def check_share(network: ThreePhaseNetwork, share: sparse.spmatrix) -> sparse.csc_matrix:
    """Return the shares as a sorted matrix; raise InputError for operators whose shares are no distribution."""
    n = network.y.shape[0]
    if share.shape[0] != n:
        remedy = f"one row for each of the network's {n} phase nodes"
        raise InputError([Problem(where="share", field="shape", value=share.shape, remedy=remedy)])
    out = sparse.csc_matrix(share, dtype=float)
    out.sum_duplicates()
    total = np.asarray(out.sum(axis=0)).ravel()
    least = np.array(
        [out.data[a:b].min(initial=0.0) for a, b in zip(out.indptr, out.indptr[1:], strict=False)]
    )
    problems = [
        Problem(
            where=f"operator {k}", field="share", value=float(total[k]), remedy="shares >= 0 that sum to 1"
        )
        for k in np.flatnonzero(~((np.abs(total - 1.0) <= SHARE_TOLERANCE) & (least >= 0.0)))
    ]
    if problems:
        raise InputError(problems)
    return out
