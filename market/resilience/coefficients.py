"""Re-weighting of the primary market's cost coefficients when the feeder's import leaves its schedule.

With Δ the import beyond what was meant [p.u.], RS the resilience scores and δ a cost over its mean,

    Z_i(δ) = 1 + RS_i·Δ·δ_i / (μ·ΣRS),   γ = 1/Z,   α' = γ_α α,   β' = γ_β β,   ξ' = ξ / mean(γ)

(Nair, PhD thesis, MIT 2025; Nair et al., PNAS 2025, arXiv 2406.14861). Published, δ is the coefficient itself. Here it
is coefficient × room, the marginal cost at full use of what an operator has to give, over its mean among those that
have room: so γ is free of the units of α and β, and an operator is not thought dear for being small (a coefficient
alone grows as the room shrinks). Z is kept in [0.2, 50] so that no cost turns negative or vanishes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from voltier.market.primary.problem import PrimaryBids, PrimaryPrices

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

Z_MIN, Z_MAX = 0.2, 50.0


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Cost coefficients of the primary market, as bid or re-weighted.

    alpha, beta_p : (n,) [$/kW²h]; xi : price of losses [$/kWh]; gamma_alpha, gamma_beta : (n,) weights they
    carry
    gen_room_kw, load_room_kw : (n,) what an operator's generator and its flexible load have to give, the size of
    the box [kW]. The coefficients of those without room decide nothing and stay out of every mean.
    """

    alpha: Array
    beta_p: Array
    xi: float
    gamma_alpha: Array
    gamma_beta: Array
    gen_room_kw: Array
    load_room_kw: Array


def unweighted(bids: PrimaryBids, prices: PrimaryPrices) -> Coefficients:
    """Return the coefficients as bid, every weight one."""
    one = np.ones(len(bids.p0_kw))
    return Coefficients(
        alpha=bids.alpha_usd_per_kw2h,
        beta_p=bids.beta_p_usd_per_kw2h,
        xi=prices.loss_usd_per_kwh,
        gamma_alpha=one,
        gamma_beta=one,
        gen_room_kw=bids.gen_max_kw,
        load_room_kw=bids.p_max_kw - bids.p_min_kw,
    )


def reweight(base: Coefficients, rs: Array, delta_kw: float, mu: float, s_base_kva: float) -> Coefficients:
    """Return the coefficients that make resilient operators cheaper to call on when import rises.

    base : coefficients as bid; rs : (n,) resilience scores, 0 to 1; delta_kw : import beyond the schedule (positive:
    more import, γ < 1); mu > 0 : the smaller, the stronger. No scores, no effect.
    """
    total = float(rs.sum())
    pull = rs * (delta_kw / s_base_kva) / (mu * total) if total > 0.0 else np.zeros_like(rs)
    gamma_alpha, alpha_counts = _weights(base.alpha, base.gen_room_kw, pull)
    gamma_beta, beta_counts = _weights(base.beta_p, base.load_room_kw, pull)
    counted = np.concatenate([gamma_alpha[alpha_counts], gamma_beta[beta_counts]])
    mean = float(counted.mean()) if counted.size else 1.0
    return replace(
        base,
        alpha=gamma_alpha * base.alpha,
        beta_p=gamma_beta * base.beta_p,
        xi=base.xi / mean,
        gamma_alpha=gamma_alpha,
        gamma_beta=gamma_beta,
    )


def faded(base: Coefficients, weighted: Coefficients, share: float) -> Coefficients:
    """Return what is left of a re-weighting on its way back to normal: its weights to the power of share, 1 to 0.

    base : coefficients as bid; the price of losses is normal at once.
    """
    gamma_alpha, gamma_beta = weighted.gamma_alpha**share, weighted.gamma_beta**share
    return replace(
        base,
        alpha=base.alpha * gamma_alpha,
        beta_p=base.beta_p * gamma_beta,
        gamma_alpha=gamma_alpha,
        gamma_beta=gamma_beta,
    )


def full_use_cost(coefficient: Array, room_kw: Array) -> tuple[Array, Mask]:
    """Return the marginal cost of using all the room over its mean, and who has room and so counts; 0 elsewhere."""
    cost = coefficient * room_kw
    counts = cost > 0.0
    mean = float(cost[counts].mean()) if counts.any() else 1.0
    return cost / mean, counts


def _weights(coefficient: Array, room_kw: Array, pull: Array) -> tuple[Array, Mask]:
    """Return γ = 1/Z of one coefficient and the mask of operators that count; γ = 1 elsewhere."""
    cost, counts = full_use_cost(coefficient, room_kw)
    return 1.0 / np.clip(np.where(counts, 1.0 + pull * cost, 1.0), Z_MIN, Z_MAX), counts
