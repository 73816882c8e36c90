"""Interior point method for one block of devices.

Symbols as in voltier.market.planning.household_terms. A primal-dual method with a predictor and a corrector (Mehrotra,
SIAM Journal on Optimization 2(4), 1992) that starts inside all limits, so that only optimality is left to reach; an
iteration costs O(H k^3) for k coordinates of the block's state.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from voltier.market.planning.household_newton import backward, factor, forward
from voltier.market.planning.household_terms import (
    C_MAX,
    D_DUAL,
    D_SLACK,
    DUAL,
    DX,
    FLEX,
    G_MAX,
    GAIN_C,
    GAIN_G,
    INVERSE,
    LOWER,
    MARGINAL_C,
    MARGINAL_G,
    PAIRS,
    RAMP_CURVE,
    SECOND,
    SLACK,
    STATE_CURVE,
    TARGET,
    THETA,
    UPPER,
    Block,
    C,
    G,
    Point,
    X,
    fill_marginals,
    objective,
    simulate,
    start,
)

GAP_USD = 1e-9  # duality gap at which a plan is finished, per dollar of its size
ENOUGH_USD = 1e-6  # gap of a plan that counts as converged where rounding keeps it from being finished
MAX_ITERATIONS = 100


@nb.njit(cache=True, error_model="numpy")
def _gaps(block: Block, point: Point) -> tuple[float, float]:
    """Return the sum of slack times dual and the duality gap it leaves, stationarity errors included [$].

    An error r in the marginal cost of an input can hide at most |r| times the width of its box. Fills the marginals.
    """
    fill_marginals(block, point)
    given, row = block.given, point.row
    products, slip, last = 0.0, 0.0, given.shape[0] - 1
    for r in range(given.shape[1]):
        worth = 0.0
        for t in range(last, -1, -1):
            pair = point.pair[t, r]
            if block.ix[r] >= 0:
                pull = given[t, r, STATE_CURVE] * (row[t, r, X] - given[t, r, TARGET])
                worth = given[t, r, THETA] * worth if t < last else 0.0
                worth += pull + pair[DUAL, UPPER] - pair[DUAL, LOWER]
            pull = pair[DUAL, FLEX]
            if t < last:
                change = row[t + 1, r, G] - row[t + 1, r, C] - row[t, r, G] + row[t, r, C]
                pull -= given[t + 1, r, RAMP_CURVE] * change
            if pair[DUAL, 0] > 0.0:
                wrong = row[t, r, MARGINAL_C] - pull + given[t, r, GAIN_C] * worth
                slip += given[t, r, C_MAX] * abs(wrong - pair[DUAL, 0] + pair[DUAL, 1])
            if pair[DUAL, 2] > 0.0:
                wrong = row[t, r, MARGINAL_G] + pull - given[t, r, GAIN_G] * worth
                slip += given[t, r, G_MAX] * abs(wrong - pair[DUAL, 2] + pair[DUAL, 3])
            for k in range(PAIRS):
                products += pair[SLACK, k] * pair[DUAL, k]
    return products, products + slip


@nb.njit(cache=True, error_model="numpy")
def _longest_step(block: Block, point: Point) -> float:
    """Step to the nearest limit of a slack or dual, at most a large number."""
    inverse = 1e-3
    for t in range(block.given.shape[0]):
        for r in range(block.given.shape[1]):
            pair = point.pair[t, r]
            for k in range(PAIRS):
                inverse = max(inverse, -pair[D_SLACK, k] * pair[INVERSE, k])
                # a division only where the dual becomes the nearest limit
                if -pair[D_DUAL, k] > inverse * pair[DUAL, k]:
                    inverse = -pair[D_DUAL, k] / pair[DUAL, k]
    return 1.0 / inverse


@nb.njit(cache=True, error_model="numpy")
def _forecast(block: Block, point: Point, step: float) -> float:
    """Set the second-order products from the pure Newton step; return the slack times dual that it reaches."""
    reached = 0.0
    for t in range(block.given.shape[0]):
        for r in range(block.given.shape[1]):
            pair = point.pair[t, r]
            for k in range(PAIRS):
                ds, dy = pair[D_SLACK, k], pair[D_DUAL, k]
                reached += (pair[SLACK, k] + step * ds) * (pair[DUAL, k] + step * dy)
                pair[SECOND, k] = step * ds * dy
    return reached


@nb.njit(cache=True, error_model="numpy")
def _advance(block: Block, point: Point, step: float) -> None:
    """Take the step."""
    for t in range(block.given.shape[0]):
        for r in range(block.given.shape[1]):
            pair, row = point.pair[t, r], point.row[t, r]
            row[C] += step * pair[D_SLACK, 0]
            row[G] += step * pair[D_SLACK, 2]
            if block.ix[r] >= 0:
                row[X] += step * row[DX]
            for k in range(PAIRS):
                pair[SLACK, k] += step * pair[D_SLACK, k]
                pair[DUAL, k] += step * pair[D_DUAL, k]
                pair[SECOND, k] = 0.0


@nb.njit(cache=True, error_model="numpy")
def solve_block(block: Block, point: Point) -> tuple[float, float, bool]:
    """Solve the convex problem of a block; return its cost, a lower bound of it and whether they met the tolerance."""
    pairs, size, gap, step = start(block, point), 0.0, np.inf, 0.0
    for _ in range(MAX_ITERATIONS):
        size = 1.0 + abs(objective(block, point))
        before = gap
        products, gap = _gaps(block, point)
        if (
            gap > 2.0 * before and before <= ENOUGH_USD * size
        ):  # rounding has taken over: the last step goes back
            _advance(block, point, -step)
            gap = before
            break
        # only rounding is left where the products are small and the gap no longer falls
        if gap <= GAP_USD * size or (products <= GAP_USD * size and gap >= 0.5 * before):
            break
        factor(block, point)
        tau = 0.0
        for stage in range(2):  # predictor, corrector: one call each keeps the compiled code small
            backward(block, point, tau)
            forward(block, point, tau)
            step = _longest_step(block, point)
            if stage == 0:
                reached = _forecast(block, point, min(1.0, step))
                # Mehrotra's cube, but no closer to the limits than the tolerance asks for: there digits are lost
                tau = max((reached / products) ** 3 * products, 0.1 * GAP_USD * size) / pairs
        step = min(1.0, 0.995 * step)
        _advance(block, point, step)
    low = objective(block, point) - gap
    simulate(block, point)
    cost = objective(block, point)
    return cost, min(cost, low), gap <= ENOUGH_USD * size
