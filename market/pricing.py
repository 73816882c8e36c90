"""Local tariffs of one secondary market: as near as possible to the dLMP, and its budget closed.

For each market: min sum (mu_j - lambda)^2 + kappa sum (mu_j - mu_j,previous)^2
subject to sum mu_j P_j + tau sum |P_j - P_j0| + rho sum delta_j = lambda sum P_j and the limits on mu.
Powers are injections: a load's tariff term is money it pays. So the energy tariff carries the payments for
moved power (tau) and for flexibility held ready (rho). The published joint choice of tariffs and quantities
is bilinear and leaves the tariffs undetermined (Nair, PhD thesis, MIT 2025); this second step determines
them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from voltier.market.secondary import SecondaryBids, SecondaryDispatch, sum_by_market
from voltier.market.water_filling import water_fill

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

BUDGET_TOLERANCE = 1e-9
"""Residual relative to the market's turnover at the caps that still counts as a closed budget."""


@dataclass(frozen=True, slots=True)
class TariffRules:
    """Rules of local pricing.

    flexibility_usd_per_kwh : tau, pay for each kW moved away from the wish
    reserve_usd_per_kwh : rho, pay for each kW of flexibility left
    cap_usd_per_kwh : highest tariff
    q_cap_fraction : reactive tariffs lie within -/+ this fraction of the cap
    smoothing : kappa >= 0, weight of the previous tariff
    """

    flexibility_usd_per_kwh: float
    reserve_usd_per_kwh: float
    cap_usd_per_kwh: float
    q_cap_fraction: float = 0.1
    smoothing: float = 0.0


@dataclass(frozen=True, slots=True)
class Tariffs:
    """Tariffs of all agents.

    p_usd_per_kwh, q_usd_per_kvarh : (n_sma,)
    budget_residual_usd_per_h : (n_smo,) lambda sum P minus all that the market credits for active power, what
    the limits leave open (positive: money stays with the operator); 0 to rounding unless capped
    q_budget_residual_usd_per_h : (n_smo,) the same for reactive power
    capped, q_capped : (n_smo,) True where a limit keeps the active, the reactive budget from closing
    """

    p_usd_per_kwh: Array
    q_usd_per_kvarh: Array
    budget_residual_usd_per_h: Array
    q_budget_residual_usd_per_h: Array
    capped: Flags
    q_capped: Flags


def price_secondary(
    bids: SecondaryBids,
    dispatch: SecondaryDispatch,
    dlmp_p_usd_per_kwh: Array,
    dlmp_q_usd_per_kvarh: Array,
    previous_tariff_usd_per_kwh: Array,
    rules: TariffRules,
) -> Tariffs:
    """Set every agent's tariffs from the market's dLMP and its schedule.

    dlmp_p_usd_per_kwh, dlmp_q_usd_per_kvarh : (n_smo,) ; previous_tariff_usd_per_kwh : (n_sma,)
    Limits: 0 <= mu <= cap while lambda >= 0. Under a negative dLMP loads are paid to consume: the lower limit
    becomes -max(cap, 2 |lambda|), so that such a price alone never opens the budget. Reactive tariffs have no
    flexibility payment and no smoothing, and lie within -/+ q_cap_fraction cap. The energy is the scheduled
    one (a shortage against the primary set-point is not charged here). An agent without power gets the
    reference (lambda + kappa mu_previous)/(1 + kappa), clipped; if none has power the residual is what
    flexibility costs.
    """
    offset, cap = bids.offset, rules.cap_usd_per_kwh
    moved = np.abs(dispatch.p_kw - bids.p0_kw)
    flexibility = rules.flexibility_usd_per_kwh * moved + rules.reserve_usd_per_kwh * dispatch.dp_kw
    due = dlmp_p_usd_per_kwh * sum_by_market(offset, dispatch.p_kw) - sum_by_market(offset, flexibility)
    lambda_p = np.repeat(dlmp_p_usd_per_kwh, np.diff(offset))
    reference = (lambda_p + rules.smoothing * previous_tariff_usd_per_kwh) / (1.0 + rules.smoothing)
    low = np.where(lambda_p < 0.0, -np.maximum(cap, -2.0 * lambda_p), 0.0)
    p_tariff = _close_budget(offset, dispatch.p_kw, reference, low, np.full_like(low, cap), due)
    q_cap = np.full_like(low, rules.q_cap_fraction * cap)
    q_reference = np.repeat(dlmp_q_usd_per_kvarh, np.diff(offset))
    q_due = dlmp_q_usd_per_kvarh * sum_by_market(offset, dispatch.q_kvar)
    q_tariff = _close_budget(offset, dispatch.q_kvar, q_reference, -q_cap, q_cap, q_due)
    residual = due - sum_by_market(offset, p_tariff * dispatch.p_kw)
    q_residual = q_due - sum_by_market(offset, q_tariff * dispatch.q_kvar)
    turnover = sum_by_market(offset, cap * np.abs(dispatch.p_kw) + flexibility) + np.abs(due)
    q_turnover = sum_by_market(offset, q_cap * np.abs(dispatch.q_kvar)) + np.abs(q_due)
    return Tariffs(
        p_usd_per_kwh=p_tariff,
        q_usd_per_kvarh=q_tariff,
        budget_residual_usd_per_h=residual,
        q_budget_residual_usd_per_h=q_residual,
        capped=np.abs(residual) > BUDGET_TOLERANCE * turnover,
        q_capped=np.abs(q_residual) > BUDGET_TOLERANCE * q_turnover,
    )


def _close_budget(
    offset: NDArray[np.int64], power: Array, reference: Array, low: Array, high: Array, due: Array
) -> Array:
    """Return, per market, the prices within limits nearest to the reference with sum price x power = due."""
    price = np.empty_like(power)
    _close_budgets(offset, power, reference, low, high, due, price)
    return price


@njit(cache=True)
def _close_budgets(
    offset: NDArray[np.int64],
    power: Array,
    reference: Array,
    low: Array,
    high: Array,
    due: Array,
    price: Array,
) -> None:
    """Water-fill the payments price x power with weights 1/power^2: one multiplier moves every price."""
    for i in range(offset.size - 1):
        a, b = offset[i], offset[i + 1]
        n = b - a
        wish, least, most, c, payment = np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n)
        for k in range(n):
            p = power[a + k]
            wish[k] = p * reference[a + k]
            least[k] = min(p * low[a + k], p * high[a + k])
            most[k] = max(p * low[a + k], p * high[a + k])
            c[k] = p * p
        step = water_fill(wish, least, most, c, 0.0, due[i], 0.0, payment)
        for k in range(n):
            value = reference[a + k] + step * power[a + k]
            price[a + k] = min(max(value, low[a + k]), high[a + k])
