"""Choose whether a device consumes or generates, where the relaxation would do both at once.

Symbols as in voltier.market.planning.household_terms. A chosen direction closes the other box. Steps that waste energy
are closed by the sign of p, the block is solved again until none is left, and a local search then turns one step after
the other as long as solves may be spent.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from voltier.market.planning.household_kernel import solve_block
from voltier.market.planning.household_terms import (
    BASE,
    BEND,
    C_FULL,
    C_MAX,
    FIXED_KW,
    G_FULL,
    G_MAX,
    KINK,
    REWARD,
    SLOPE,
    Block,
    C,
    G,
    Point,
    objective,
    simulate,
)

Array = NDArray[np.float64]
Ways = NDArray[np.int8]

TIGHT_USD = 1e-6  # cost above the bound, per dollar of size, up to which a plan counts as the optimum
BOTH_KW = 1e-6  # consumption and generation above which a step counts as using both
MAX_ROUNDS = 20  # solves that close steps one after the other; then all that are left are closed at once


class Share(NamedTuple):
    """Least and most flexibility as a share of |P|; both zero for plain headroom."""

    least: float
    most: float


@nb.njit(cache=True, error_model="numpy")
def _set_ways(block: Block, ways: Ways, share: Share) -> None:
    """Let each device consume (-1), generate (1) or do either (0) in each step, and set its flexibility."""
    given = block.given
    for t in range(given.shape[0]):
        for r in range(given.shape[1]):
            c_full, g_full, worth = given[t, r, C_FULL], given[t, r, G_FULL], given[t, r, REWARD]
            way = ways[t, r]
            if share.most > 0.0 and way == 0 and min(c_full, g_full) <= FIXED_KW:
                way = 1 if g_full > c_full else -1
            given[t, r, C_MAX] = c_full / (1.0 + share.least) if way <= 0 else 0.0
            given[t, r, G_MAX] = g_full / (1.0 + share.least) if way >= 0 else 0.0
            given[t, r, BASE], given[t, r, SLOPE] = -worth * c_full, -worth
            if share.most == 0.0 or way == 0:  # worth times the distance to the nearer end of the box
                given[t, r, BEND], given[t, r, KINK] = 2.0 * worth, 0.5 * (g_full - c_full)
                continue
            # the smaller of a share of |p| and of the room left in the chosen direction
            given[t, r, BEND] = worth * (1.0 + share.most)
            if way < 0:
                given[t, r, KINK] = -c_full / (1.0 + share.most)
            else:
                given[t, r, BASE], given[t, r, SLOPE] = 0.0, -worth * share.most
                given[t, r, KINK] = g_full / (1.0 + share.most)


@nb.njit(cache=True, error_model="numpy")
def _close(block: Block, point: Point, ways: Ways, least_kw: float) -> bool:
    """Choose the sign of p where more than that is both consumed and generated; return whether it was anywhere."""
    given, row, found = block.given, point.row, False
    for t in range(given.shape[0]):
        for r in range(given.shape[1]):
            if (
                min(given[t, r, C_MAX], given[t, r, G_MAX]) > FIXED_KW
                and min(row[t, r, C], row[t, r, G]) > least_kw
            ):
                ways[t, r] = 1 if row[t, r, G] >= row[t, r, C] else -1
                found = True
    return found


@nb.njit(cache=True, error_model="numpy")
def _net(block: Block, point: Point) -> float:
    """Replace consumption and generation by their difference; return the cost."""
    row = point.row
    for t in range(block.given.shape[0]):
        for r in range(block.given.shape[1]):
            p = row[t, r, G] - row[t, r, C]
            row[t, r, C], row[t, r, G] = max(-p, 0.0), max(p, 0.0)
    simulate(block, point)
    return objective(block, point)


@nb.njit(cache=True, error_model="numpy")
def _next_turn(block: Block, k: int) -> int:
    """Return the next step of a device that can do both, counted on from k; at most one round later."""
    given = block.given
    steps, count = given.shape[0], given.shape[1]
    for _ in range(steps * count):
        k += 1
        t, r = k % steps, (k // steps) % count
        if min(given[t, r, C_FULL], given[t, r, G_FULL]) > FIXED_KW:
            break
    return k


@nb.njit(cache=True, error_model="numpy")
def _copy(ways: Ways, inputs: Array, to_ways: Ways, to_inputs: Array) -> None:
    """Copy directions and the inputs of rows."""
    for t in range(ways.shape[0]):
        for r in range(ways.shape[1]):
            to_ways[t, r] = ways[t, r]
            to_inputs[t, r, C], to_inputs[t, r, G] = inputs[t, r, C], inputs[t, r, G]


@nb.njit(cache=True, error_model="numpy")
def plan_block(block: Block, point: Point, share: Share, search: int) -> tuple[float, float, bool, bool]:
    """Plan a block; return its cost, a lower bound, whether directions were chosen and whether it converged.

    Leaves the best plan in the point.
    """
    row, (steps, count, _) = point.row, block.given.shape
    trial, ways = np.zeros((steps, count), np.int8), np.zeros((steps, count), np.int8)
    inputs, printed = np.zeros((steps, count, G + 1)), share.most > 0.0
    best, bound, converged, binary = np.inf, -np.inf, False, False
    solves, searched, rounds, k, last = 0, 0, 0, -1, steps * count
    while True:
        _set_ways(block, trial, share)
        _, low, met = solve_block(block, point)
        if solves == 0:
            bound, converged = low, met
        solves, rounds = solves + 1, rounds + 1
        searched += 1 if binary and best < np.inf else 0
        found = _close(block, point, trial, -1.0 if printed or rounds >= MAX_ROUNDS else BOTH_KW)
        cost = _net(block, point)
        real = not found or (not printed and cost - low <= TIGHT_USD * (1.0 + abs(cost)))
        if not real and low < best:
            binary = True
            continue
        if real and cost < best - 0.1 * TIGHT_USD * (1.0 + abs(cost)):
            best, last = cost, k + steps * count
            _copy(trial, row, ways, inputs)
        k = _next_turn(block, k)
        if not binary or searched >= search or k > last:
            break
        _copy(ways, inputs, trial, row)
        t, r, rounds = k % steps, (k // steps) % count, 0
        trial[t, r] = -1 if row[t, r, G] > 0.0 or ways[t, r] > 0 else 1
    _copy(ways, inputs, ways, row)
    simulate(block, point)
    return best, bound, binary, converged
