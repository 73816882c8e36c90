"""Mitigation of a detected loss: how strongly to re-weight so that the import comes back.

The strength μ of the re-weighting is not published; it is found by bisection on the import of the
re-cleared market, which falls steadily as μ falls (Nair et al., PNAS 2025, arXiv 2406.14861 give the
weights).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from voltier.market.primary.problem import PrimaryClearing
from voltier.market.resilience.coefficients import Z_MAX, Coefficients, full_use_cost, reweight

Array = NDArray[np.float64]

# Import is met when it is this near [kW], far below what a substation meter resolves.
IMPORT_TOLERANCE_KW = 0.1
CLEARING_LIMIT = 60


class Mitigation(NamedTuple):
    """Outcome of a mitigation.

    coefficients : those of the clearing; mu : their strength (inf: as bid); reached : the import is at or
    better than the target; otherwise this is the strongest re-weighting, the resources having run out.
    """

    coefficients: Coefficients
    clearing: PrimaryClearing
    mu: float
    reached: bool


def restore_import(
    clear: Callable[[Coefficients], PrimaryClearing],
    base: Coefficients,
    rs: Array,
    delta_kw: float,
    target_import_kw: float,
    s_base_kva: float,
    *,
    tolerance_kw: float = IMPORT_TOLERANCE_KW,
) -> Mitigation:
    """Find the weakest re-weighting whose cleared import equals the target.

    clear : coefficients → clearing; base : coefficients as bid; rs : (n,) resilience scores; delta_kw :
    import beyond the schedule, which sets the direction (positive: bring import down). A clearing that
    fails ends the search, and the best one so far is returned with reached False.
    """

    def weigh(mu: float) -> Coefficients:
        return reweight(base, rs, delta_kw, mu, s_base_kva)

    def excess_kw(clearing: PrimaryClearing) -> float:
        return float(np.sign(delta_kw)) * (clearing.p_import_kw - target_import_kw)

    first = Mitigation(base, clear(base), np.inf, False)
    if first.clearing.status == "failed" or delta_kw == 0.0:
        return first._replace(reached=abs(first.clearing.p_import_kw - target_import_kw) <= tolerance_kw)
    if excess_kw(first.clearing) <= tolerance_kw:
        return first._replace(reached=True)
    strong = _strongest(base, rs, delta_kw, s_base_kva)
    if not np.isfinite(strong):
        return first
    weights = weigh(strong)
    last = Mitigation(weights, clear(weights), strong, False)
    if last.clearing.status == "failed":
        return first
    if excess_kw(last.clearing) > -tolerance_kw:
        return last._replace(reached=excess_kw(last.clearing) <= tolerance_kw)
    return _bisect(clear, weigh, excess_kw, last, tolerance_kw)


def _bisect(
    clear: Callable[[Coefficients], PrimaryClearing],
    weigh: Callable[[float], Coefficients],
    excess_kw: Callable[[PrimaryClearing], float],
    strong: Mitigation,
    tolerance_kw: float,
) -> Mitigation:
    """Bisect on log μ between a strength that overshoots and ever weaker ones."""
    low, high = strong.mu, np.inf
    best = strong
    for _ in range(CLEARING_LIMIT):
        mu = 10.0 * low if np.isinf(high) else float(np.sqrt(low * high))
        weights = weigh(mu)
        trial = Mitigation(weights, clear(weights), mu, False)
        if trial.clearing.status == "failed":
            return best
        excess = excess_kw(trial.clearing)
        if abs(excess) <= tolerance_kw:
            return trial._replace(reached=True)
        if excess < 0.0:
            low, best = mu, trial
        else:
            high = mu
        if high / low < 1.0 + 1e-12:
            break
    return best._replace(reached=True)


def _strongest(base: Coefficients, rs: Array, delta_kw: float, s_base_kva: float) -> float:
    """Return the μ at which every operator with a score is at the limit of its weight; inf for none."""
    smallest = np.inf
    for coefficient, room_kw in ((base.alpha, base.gen_room_kw), (base.beta_p, base.load_room_kw)):
        cost, counts = full_use_cost(coefficient, room_kw)
        use = counts & (rs > 0.0)
        if use.any():
            smallest = min(smallest, float((rs[use] * cost[use]).min() / rs.sum()))
    return abs(delta_kw) / s_base_kva * smallest / Z_MAX if np.isfinite(smallest) else np.inf
