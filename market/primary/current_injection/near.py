"""What a known dispatch's cost says of every better one.

A dispatch no dearer than the cut-off is near the relaxation's optimum: the dual certificate leaves
cost - bound >= ½ Σ w (u - û)² + Σ z·(distance from the range whose multiplier is z), so that the gap bounds each
distance and, for the squares, all of them together.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from voltier.market.primary.current_injection.bounds import Near
from voltier.market.primary.problem import ScaledBids

Array = NDArray[np.float64]

# The cut-off itself must stay inside, whatever rounding made of its cost.
COST_MARGIN = 1e-8
RANGE_MARGIN_PU = 1e-7


def margin(cut_off: float) -> float:
    """Return the room left above a cut-off."""
    return COST_MARGIN * max(1.0, abs(cut_off))


def near_optimum(
    bids: ScaledBids, u: Array, prices: tuple[Array, Array], bound: float, cut_off: float
) -> tuple[ScaledBids, Near]:
    """Return the bids' ranges cut to what dispatches no dearer than cut_off can use, and what these share.

    u : (3, n_smo) optimum of the relaxation ; prices : multipliers of the lower and upper ends of the ranges
    """
    gap = max(cut_off - bound, 0.0) + margin(cut_off)
    free = (bids.weight > 0.0) & (bids.high > bids.low)
    radius = np.full(bids.low.shape, np.inf)
    radius[free] = np.sqrt(2.0 * gap / bids.weight[free])
    below, above = (room(gap, price) for price in prices)
    high = np.minimum(np.minimum(bids.high, u + radius), bids.low + below)
    low = np.maximum(np.maximum(bids.low, u - radius), bids.high - above)
    # Rounding may cross the ends of what is a point.
    low, high = np.minimum(low, high), np.maximum(low, high)
    low, high = np.maximum(low - RANGE_MARGIN_PU, bids.low), np.minimum(high + RANGE_MARGIN_PU, bids.high)
    return replace(bids, low=low, high=high), Near(u, radius, low, high)


def room(gap: float, price: Array) -> Array:
    """Return how far from an end of its range a quantity can be, whose multiplier there is price."""
    out = np.full(price.shape, np.inf)
    pays = price > 1e-9
    out[pays] = gap / price[pays]
    return out
