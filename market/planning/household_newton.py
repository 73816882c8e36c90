"""The Newton system of a block of devices: a Riccati recursion over their joint state.

Symbols as in voltier.market.planning.household_terms. At each step the inputs u = (c, g) of the devices move the
coordinates o = (x after the step, p) by B u. Their Hessian is 2x2 per device plus one rank-one term, inverted in closed
form. With S = B inv B' and V the curvature of the cost to go, (I + S V)^-1 eliminates the step.
"""

from __future__ import annotations

import numba as nb
import numpy as np
from numpy.typing import NDArray

from voltier.market.planning.household_terms import (
    AIMED_C,
    AIMED_G,
    ALONG_C,
    ALONG_G,
    BEND,
    CC,
    CG,
    COST,
    D_DUAL,
    D_SLACK,
    DUAL,
    DX,
    EPS_CURVE,
    FLEX,
    FORCED,
    GAIN_C,
    GAIN_G,
    GG,
    INVERSE,
    KEEP,
    LOWER,
    MARGINAL_C,
    MARGINAL_G,
    MOVE,
    PAIRS,
    PENALTY,
    PUSH,
    RAMP_CURVE,
    SECOND,
    SELF_CURVE,
    SLACK,
    SPILL_CURVE,
    SPREAD,
    STATE_CURVE,
    TARGET,
    THETA,
    UPPER,
    WORTH,
    Block,
    C,
    G,
    Point,
    X,
)

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@nb.njit(cache=True, error_model="numpy")
def factor(block: Block, point: Point) -> None:
    """Fill the part of the Newton system that predictor and corrector share."""
    _invert_inputs(block, point)
    _fill_spread(block, point)
    given, pair, square, curve, size = block.given, point.pair, point.square, point.scratch[0], block.size
    for i in range(size):
        for j in range(size):
            curve[i, j] = 0.0
    for t in range(given.shape[0] - 1, -1, -1):
        for r in range(given.shape[1]):
            j = block.ix[r]
            if j >= 0:
                curve[j, j] += given[t, r, STATE_CURVE]
                curve[j, j] += _bend_curve(pair[t, r], UPPER) + _bend_curve(pair[t, r], LOWER)
        if size == 1:
            keep = 1.0 / (1.0 + square[t, SPREAD, 0, 0] * curve[0, 0])
            square[t, KEEP, 0, 0] = keep
            square[t, COST, 0, 0] = curve[0, 0] * keep
            square[t, SPREAD, 0, 0] *= keep
        elif size > 1:
            _condense(square[t], point.scratch, size)
        if t > 0 and size > 0:
            _carry(given[t], square[t], curve, block.ix, block.ip)


@nb.njit(cache=True, error_model="numpy")
def _bend_curve(pair: Array, k: int) -> float:
    """Curvature of the barrier of a bend with its pairs k and k + 1."""
    v, s = pair[DUAL, k], pair[DUAL, k + 1]
    return v * s / (v * pair[SLACK, k + 1] + s * pair[SLACK, k]) if v > 0.0 else 0.0


@nb.njit(cache=True, error_model="numpy")
def _invert_inputs(block: Block, point: Point) -> None:
    """Fill the inverse input Hessians and ties."""
    given, meter, alone = block.given, block.meter, block.given.shape[1] == 1
    for t in range(given.shape[0]):
        eps, w, total = meter[t, EPS_CURVE], meter[t, SELF_CURVE], 0.0
        for r in range(given.shape[1]):
            pair, out = point.pair[t, r], point.row[t, r]
            for k in range(PAIRS):
                pair[INVERSE, k] = 1.0 / pair[SLACK, k]
            # 1 / diagonal; a fixed input has an infinite diagonal
            inv_c, inv_g = 0.0, 0.0
            if pair[DUAL, 0] > 0.0:
                inv_c = pair[DUAL, 0] * pair[INVERSE, 0] + pair[DUAL, 1] * pair[INVERSE, 1]
                inv_c = 1.0 / (eps + inv_c)
            if pair[DUAL, 2] > 0.0:
                inv_g = pair[DUAL, 2] * pair[INVERSE, 2] + pair[DUAL, 3] * pair[INVERSE, 3]
                inv_g = 1.0 / (eps + given[t, r, SPILL_CURVE] + inv_g)
            curve = _bend_curve(pair, FLEX)  # in p
            if alone:
                curve += w
            if t > 0:
                curve += given[t, r, RAMP_CURVE]
            share = 1.0 / (1.0 + curve * (inv_c + inv_g))
            out[CC] = inv_c * (1.0 + curve * inv_g) * share
            out[CG] = curve * inv_c * inv_g * share
            out[GG] = inv_g * (1.0 + curve * inv_c) * share
            out[ALONG_C] = -inv_c * share
            out[ALONG_G] = inv_g * share
            total += out[ALONG_G] - out[ALONG_C]
        point.tie[t] = 0.0 if alone else w / (1.0 + w * total)


@nb.njit(cache=True, error_model="numpy")
def _fill_spread(block: Block, point: Point) -> None:
    """Fill S: a block per device less the rank-one tie."""
    given, row, size = block.given, point.row, block.size
    along = point.scratch[1, 0]
    for t in range(given.shape[0] if size > 0 else 0):
        spread = point.square[t, SPREAD]
        if size > 1:
            for j in range(size):
                for k in range(size):
                    spread[j, k] = 0.0
        for r in range(given.shape[1]):
            j, k, gain_c, gain_g = block.ix[r], block.ip[r], given[t, r, GAIN_C], given[t, r, GAIN_G]
            along_c, along_g = row[t, r, ALONG_C], row[t, r, ALONG_G]
            moved = gain_c * along_c - gain_g * along_g
            if j >= 0:
                # cc gain_c^2 - 2 cg gain_c gain_g + gg gain_g^2 without cancellation
                spread[j, j] = (
                    row[t, r, CG] * (gain_c - gain_g) ** 2
                    - gain_c * gain_c * along_c
                    + gain_g * gain_g * along_g
                )
                along[j] = moved
            if k >= 0:
                spread[k, k] = along[k] = along_g - along_c
                if j >= 0:
                    spread[j, k] = spread[k, j] = moved
        if point.tie[t] > 0.0:
            for j in range(size):
                for k in range(size):
                    spread[j, k] -= point.tie[t] * along[j] * along[k]


@nb.njit(cache=True, error_model="numpy")
def _condense(square: Array, scratch: Array, size: int) -> None:
    """Fill keep = (I + S V)^-1, cost = V keep and spread = keep S of a step from V (scratch 0) and S (spread)."""
    curve, full, work = scratch[0], scratch[1], scratch[2]
    spread, cost, keep = square[SPREAD], square[COST], square[KEEP]
    for i in range(size):
        for j in range(size):
            total = 1.0 if i == j else 0.0
            for k in range(size):
                total += spread[i, k] * curve[k, j]
            full[i, j] = total
    _invert(full, keep, size)
    for i in range(size):
        for j in range(size):
            bent, moved = 0.0, 0.0
            for k in range(size):
                bent += curve[i, k] * keep[k, j]
                moved += keep[i, k] * spread[k, j]
            cost[i, j], work[i, j] = bent, moved
    for i in range(size):
        for j in range(i + 1):
            cost[i, j] = cost[j, i] = 0.5 * (cost[i, j] + cost[j, i])
            # the row held more firmly has lost nothing to cancellation
            firm = work[i, j] if keep[i, i] < keep[j, j] else work[j, i]
            spread[i, j] = spread[j, i] = firm


@nb.njit(cache=True, error_model="numpy")
def _invert(a: Array, inverse: Array, size: int) -> None:
    """Invert a by Gauss and Jordan with row pivots; a is lost.

    Scaling a column of a scales a row of the inverse and nothing else, so that rows of coordinates which large costs
    hold in place are small and as accurate as the others.
    """
    for i in range(size):
        for j in range(size):
            inverse[i, j] = 1.0 if i == j else 0.0
    for j in range(size):
        best = j
        for i in range(j + 1, size):
            if abs(a[i, j]) > abs(a[best, j]):
                best = i
        if best != j:
            for k in range(size):
                a[j, k], a[best, k] = a[best, k], a[j, k]
                inverse[j, k], inverse[best, k] = inverse[best, k], inverse[j, k]
        share = 1.0 / a[j, j]
        for k in range(size):
            a[j, k] *= share
            inverse[j, k] *= share
        for i in range(size):
            if i != j and a[i, j] != 0.0:
                part = a[i, j]
                for k in range(size):
                    a[i, k] -= part * a[j, k]
                    inverse[i, k] -= part * inverse[j, k]


@nb.njit(cache=True, error_model="numpy")
def _carry(given: Array, square: Array, curve: Array, ix: Index, ip: Index) -> None:
    """Replace V by the curvature of the cost to go in the state before a step (not the first)."""
    spread, cost, keep = square[SPREAD], square[COST], square[KEEP]
    for q in range(ix.size):
        theta_q, ramp_q = given[q, THETA], given[q, RAMP_CURVE]
        j, k = ix[q], ip[q]
        for r in range(ix.size):
            theta_r, ramp_r = given[r, THETA], given[r, RAMP_CURVE]
            m, n = ix[r], ip[r]
            if j >= 0 and m >= 0:
                curve[j, m] = theta_q * theta_r * cost[j, m]
            if j >= 0 and n >= 0:
                curve[j, n] = curve[n, j] = -theta_q * ramp_r * keep[n, j]
            if k >= 0 and n >= 0:
                curve[k, n] = (ramp_q if q == r else 0.0) - ramp_q * ramp_r * spread[k, n]


@nb.njit(cache=True, error_model="numpy")
def backward(block: Block, point: Point, tau: float) -> None:
    """Fill the slopes of the cost to go for the barrier weight tau."""
    _push(block, point, tau)
    given, row, size, before = block.given, point.row, block.size, point.scratch[1, 0]
    for j in range(size):
        before[j] = 0.0
    for t in range(given.shape[0] - 1 if size > 0 else -1, -1, -1):
        square, line = point.square[t], point.line[t]
        for j in range(size):
            before[j] += line[PUSH, j]
        for i in range(size):
            move, slope = 0.0, 0.0
            for j in range(size):
                move -= square[KEEP, i, j] * line[FORCED, j] + square[SPREAD, i, j] * before[j]
                slope += square[KEEP, j, i] * before[j] - square[COST, i, j] * line[FORCED, j]
            line[MOVE, i], line[WORTH, i] = move, slope
        for r in range(given.shape[1]):
            j, k = block.ix[r], block.ip[r]
            if j >= 0:
                before[j] = given[t, r, THETA] * line[WORTH, j]
            if k >= 0 and t > 0:
                change = row[t, r, G] - row[t, r, C] - row[t - 1, r, G] + row[t - 1, r, C]
                before[k] = -given[t, r, RAMP_CURVE] * (change + line[MOVE, k])


@nb.njit(cache=True, error_model="numpy")
def _push(block: Block, point: Point, tau: float) -> None:
    """Fill the slopes of the states' own costs, the aimed marginal costs, and B inv times these."""
    given, row = block.given, point.row
    for t in range(given.shape[0]):
        total, line = 0.0, point.line[t]
        for r in range(given.shape[1]):
            j, k, pair, out = block.ix[r], block.ip[r], point.pair[t, r], row[t, r]
            if j >= 0:
                slope = given[t, r, STATE_CURVE] * (out[X] - given[t, r, TARGET])
                slope += _bend_slope(pair, UPPER, tau, given[t, r, PENALTY])
                line[PUSH, j] = slope - _bend_slope(pair, LOWER, tau, given[t, r, PENALTY])
            if k >= 0:
                line[PUSH, k] = 0.0
            pull = _bend_slope(pair, FLEX, tau, given[t, r, BEND])
            out[AIMED_C] = out[MARGINAL_C] - _aim(pair, 0, tau) + _aim(pair, 1, tau) - pull
            out[AIMED_G] = out[MARGINAL_G] - _aim(pair, 2, tau) + _aim(pair, 3, tau) + pull
            total += out[ALONG_C] * out[AIMED_C] + out[ALONG_G] * out[AIMED_G]
        tied = point.tie[t] * total
        for r in range(given.shape[1]):
            j, k, out = block.ix[r], block.ip[r], row[t, r]
            u_c = out[CC] * out[AIMED_C] + out[CG] * out[AIMED_G] - out[ALONG_C] * tied
            u_g = out[CG] * out[AIMED_C] + out[GG] * out[AIMED_G] - out[ALONG_G] * tied
            if j >= 0:
                line[FORCED, j] = given[t, r, GAIN_C] * u_c - given[t, r, GAIN_G] * u_g
            if k >= 0:
                line[FORCED, k] = u_g - u_c


@nb.njit(cache=True, error_model="numpy")
def _aim(pair: Array, k: int, tau: float) -> float:
    """Dual that a pair aims at before its slack moves."""
    return (tau - pair[SECOND, k]) * pair[INVERSE, k]


@nb.njit(cache=True, error_model="numpy")
def _bend_slope(pair: Array, k: int, tau: float, penalty: float) -> float:
    """Slope of a bend in its own variable with aimed duals."""
    if pair[DUAL, k] <= 0.0:
        return 0.0
    a, b = pair[DUAL, k] * pair[INVERSE, k], pair[DUAL, k + 1] * pair[INVERSE, k + 1]
    aim_v, aim_s = _aim(pair, k, tau), _aim(pair, k + 1, tau)
    return aim_v - a / (a + b) * (aim_v + aim_s - penalty)


@nb.njit(cache=True, error_model="numpy")
def forward(block: Block, point: Point, tau: float) -> None:
    """Fill the Newton step of inputs, states, slacks and duals."""
    given, row, size = block.given, point.row, block.size
    kept, pulled = point.scratch[1, 0], point.scratch[2, 0]
    for t in range(given.shape[0]):
        square, line = point.square[t], point.line[t]
        for r in range(given.shape[1] if t > 0 else 0):
            j, k = block.ix[r], block.ip[r]
            if j >= 0:
                kept[j], pulled[j] = given[t, r, THETA] * row[t - 1, r, DX], 0.0
            if k >= 0:
                d_slack = point.pair[t - 1, r, D_SLACK]
                kept[k], pulled[k] = 0.0, given[t, r, RAMP_CURVE] * (d_slack[2] - d_slack[0])
        total = 0.0
        for r in range(given.shape[1]):
            j, k, out = block.ix[r], block.ip[r], row[t, r]
            if j >= 0:
                move, slope = line[MOVE, j], line[WORTH, j]
                for m in range(size if t > 0 else 0):
                    move += square[KEEP, j, m] * kept[m] + square[SPREAD, j, m] * pulled[m]
                    slope += square[COST, j, m] * kept[m] - square[KEEP, m, j] * pulled[m]
                out[DX] = move
                out[AIMED_C] += given[t, r, GAIN_C] * slope
                out[AIMED_G] -= given[t, r, GAIN_G] * slope
            if k >= 0:  # the ramp's own pull is part of the slope
                slope = line[WORTH, k]
                for m in range(size if t > 0 else 0):
                    slope += square[COST, k, m] * kept[m] - square[KEEP, m, k] * pulled[m]
                out[AIMED_C] -= slope
                out[AIMED_G] += slope
            total += out[ALONG_C] * out[AIMED_C] + out[ALONG_G] * out[AIMED_G]
        tied = point.tie[t] * total
        for r in range(given.shape[1]):
            out, d_slack = row[t, r], point.pair[t, r, D_SLACK]
            d_slack[0] = out[ALONG_C] * tied - out[CC] * out[AIMED_C] - out[CG] * out[AIMED_G]
            d_slack[2] = out[ALONG_G] * tied - out[CG] * out[AIMED_C] - out[GG] * out[AIMED_G]
    _move_pairs(block, point, tau)


@nb.njit(cache=True, error_model="numpy")
def _move_pairs(block: Block, point: Point, tau: float) -> None:
    """Fill the steps of the other slacks and of the duals."""
    given, row = block.given, point.row
    for t in range(given.shape[0]):
        for r in range(given.shape[1]):
            pair = point.pair[t, r]
            if pair[DUAL, 0] > 0.0:
                pair[D_SLACK, 1] = -pair[D_SLACK, 0]
            if pair[DUAL, 2] > 0.0:
                pair[D_SLACK, 3] = -pair[D_SLACK, 2]
            _move_bend(pair, UPPER, tau, row[t, r, DX], given[t, r, PENALTY])
            _move_bend(pair, LOWER, tau, -row[t, r, DX], given[t, r, PENALTY])
            _move_bend(pair, FLEX, tau, pair[D_SLACK, 2] - pair[D_SLACK, 0], given[t, r, BEND])
            for k in range(PAIRS):
                y = pair[DUAL, k]
                pair[D_DUAL, k] = (tau - pair[SECOND, k] - y * pair[D_SLACK, k]) * pair[INVERSE, k] - y
                if y <= 0.0:
                    pair[D_DUAL, k] = 0.0


@nb.njit(cache=True, error_model="numpy")
def _move_bend(pair: Array, k: int, tau: float, moved: float, penalty: float) -> None:
    """Fill the steps of margin and excess of a bend whose variable moves."""
    if pair[DUAL, k] > 0.0:
        a, b = pair[DUAL, k] * pair[INVERSE, k], pair[DUAL, k + 1] * pair[INVERSE, k + 1]
        short = _aim(pair, k, tau) + _aim(pair, k + 1, tau) - penalty
        share = 1.0 / (a + b)
        pair[D_SLACK, k] = (short - b * moved) * share
        pair[D_SLACK, k + 1] = (short + a * moved) * share
