"""Costs, limits and the starting point of the household planner; symbols as in voltier.market.planning.household.

A block is a set of devices of one house that one term of the objective ties together: all that share the meter
where self-use counts, or one device alone. Flexibility enters as a cost with one bend in p,

    base + slope p + bend max(0, p - kink),

and state limits as penalty max(0, x - x_max) + penalty max(0, x_min - x); each such bend is a pair of slacks.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

REGULARISATION_USD_PER_KW2H = 1e-5  # eps: makes powers unique; at 10 kW it moves a price by 0.0002 $/kWh
FIXED_KW = 1e-9  # a narrower box holds its variable at zero
INNER = 0.1  # share of a box that the start keeps from its ends

# columns of Block.given: dynamics, boxes, the same before a direction was chosen, limits, curvatures, flexibility
THETA, GAIN_C, GAIN_G, DRIFT, C_MAX, G_MAX, C_FULL, G_FULL, X_MIN, X_MAX, TARGET, PENALTY = range(12)
STATE_CURVE, RAMP_CURVE, SPILL_CURVE, REWARD, BASE, SLOPE, BEND, KINK = range(12, 20)
GIVEN = 20
# columns of Block.meter: price times step, curvature of self-use, fixed injection, curvature of eps
ENERGY, SELF_CURVE, OTHER, EPS_CURVE = range(4)
METER = 4
# columns of Point.row: inputs, state and its step; marginal costs without what lies behind; with aimed duals;
# inverse input Hessian and its product with (-1, 1)
C, G, X, DX, MARGINAL_C, MARGINAL_G, AIMED_C, AIMED_G, CC, CG, GG, ALONG_C, ALONG_G = range(13)
ROW = 13
# rows of Point.pair; pairs: c >= 0, c <= c_max, g >= 0, g <= g_max, then of each bend its margin and its excess
SLACK, DUAL, D_SLACK, D_DUAL, SECOND, INVERSE = range(6)
UPPER, LOWER, FLEX = 4, 6, 8
PAIRS = 10
# rows of Point.square and of Point.line
SPREAD, COST, KEEP = range(3)
FORCED, PUSH, MOVE, WORTH = range(4)


class Block(NamedTuple):
    """Devices solved together.

    given : (H, d, 20), meter : (H, 4) ; the first state is part of the first drift, the ramp of a step is that from
    the step before, and curvatures are twice the weights
    ix, ip : (d,) place in the state of the x of each device that can move its own and of the p of the step before of
    each with a ramp cost, -1 for none ; size : how many coordinates there are
    """

    given: Array
    meter: Array
    ix: Index
    ip: Index
    size: int


class Point(NamedTuple):
    """The iterate, its Newton step and what that is made of; d stands for devices, k for coordinates of the state.

    row : (H, d, 13). pair : (H, d, 6, 10), slacks and duals, their steps, the product of the predictor and 1 / slack.
    The margin of a bend is v = x_max + s - x (v = x - x_min + s, v = kink + s - p) with the excess s; their duals add
    up to the penalty. A pair that does not exist has slack 1 and dual 0.
    tie : (H,) weight of the rank-one term that ties the devices together
    square : (H, 3, k, k) (I + S V)^-1 S, V (I + S V)^-1 and (I + S V)^-1, where S = B inv B'
    line : (H, 4, k) B inv times the aimed marginal costs, slopes of the states' own costs, and if the state before
    stays the step of the state and the slope of the cost to go
    scratch : (4, k, k)
    """

    row: Array
    pair: Array
    tie: Array
    square: Array
    line: Array
    scratch: Array


@nb.njit(cache=True, error_model="numpy")
def make_point(steps: int, devices: int, size: int) -> Point:
    """Return memory for a block of so many devices and coordinates."""
    row, pair = np.zeros((steps, devices, ROW)), np.zeros((steps, devices, 6, PAIRS))
    square, line = np.zeros((steps, 3, size, size)), np.zeros((steps, 4, size))
    return Point(row, pair, np.zeros(steps), square, line, np.zeros((4, size, size)))


@nb.njit(cache=True, error_model="numpy")
def simulate(block: Block, point: Point) -> None:
    """Fill the states that follow from the inputs."""
    given, row = block.given, point.row
    for r in range(given.shape[1]):
        state = 0.0
        for t in range(given.shape[0]):
            state = given[t, r, THETA] * state + given[t, r, DRIFT]
            state += given[t, r, GAIN_C] * row[t, r, C] - given[t, r, GAIN_G] * row[t, r, G]
            row[t, r, X] = state


@nb.njit(cache=True, error_model="numpy")
def objective(block: Block, point: Point) -> float:
    """Cost of a block [$]."""
    given, meter, row, total = block.given, block.meter, point.row, 0.0
    for t in range(given.shape[0]):
        at_meter, half_eps = meter[t, OTHER], 0.5 * meter[t, EPS_CURVE]
        for r in range(given.shape[1]):
            c, g, x = row[t, r, C], row[t, r, G], row[t, r, X]
            p = g - c
            at_meter += p
            total += half_eps * (c * c + g * g)
            total += 0.5 * given[t, r, SPILL_CURVE] * (given[t, r, G_FULL] - g) ** 2
            total += given[t, r, BASE] + (given[t, r, SLOPE] - meter[t, ENERGY]) * p
            total += given[t, r, BEND] * max(0.0, p - given[t, r, KINK])
            total += 0.5 * given[t, r, STATE_CURVE] * (x - given[t, r, TARGET]) ** 2
            total += given[t, r, PENALTY] * (
                max(0.0, x - given[t, r, X_MAX]) + max(0.0, given[t, r, X_MIN] - x)
            )
            if t > 0:
                total += 0.5 * given[t, r, RAMP_CURVE] * (p - row[t - 1, r, G] + row[t - 1, r, C]) ** 2
        total += 0.5 * meter[t, SELF_CURVE] * at_meter * at_meter
    return total


@nb.njit(cache=True, error_model="numpy")
def fill_marginals(block: Block, point: Point) -> None:
    """Fill the marginal costs of the inputs, the ramp to the step after and the worth of states left out."""
    given, meter, row = block.given, block.meter, point.row
    for t in range(given.shape[0]):
        energy, eps = meter[t, ENERGY], meter[t, EPS_CURVE]
        if meter[t, SELF_CURVE] > 0.0:
            at_meter = meter[t, OTHER]
            for r in range(given.shape[1]):
                at_meter += row[t, r, G] - row[t, r, C]
            energy -= meter[t, SELF_CURVE] * at_meter
        for r in range(given.shape[1]):
            c, g = row[t, r, C], row[t, r, G]
            pull = given[t, r, SLOPE] - energy
            if t > 0:
                pull += given[t, r, RAMP_CURVE] * (g - c - row[t - 1, r, G] + row[t - 1, r, C])
            row[t, r, MARGINAL_C] = eps * c - pull
            row[t, r, MARGINAL_G] = eps * g + pull - given[t, r, SPILL_CURVE] * (given[t, r, G_FULL] - g)


@nb.njit(cache=True, error_model="numpy")
def _marginal_scale(block: Block, point: Point) -> float:
    """Largest marginal cost of an input at the start, broken state limits included [$/kW]."""
    given, row, scale = block.given, point.row, 1e-6
    for r in range(given.shape[1]):
        worth = 0.0
        for t in range(given.shape[0] - 1, -1, -1):
            x = row[t, r, X]
            worth = given[t, r, STATE_CURVE] * (x - given[t, r, TARGET]) + given[t, r, THETA] * worth
            if x > given[t, r, X_MAX]:
                worth += given[t, r, PENALTY]
            elif x < given[t, r, X_MIN]:
                worth -= given[t, r, PENALTY]
            if given[t, r, C_MAX] > FIXED_KW:
                scale = max(scale, abs(row[t, r, MARGINAL_C] + given[t, r, GAIN_C] * worth))
            if given[t, r, G_MAX] > FIXED_KW:
                scale = max(scale, abs(row[t, r, MARGINAL_G] - given[t, r, GAIN_G] * worth))
    return scale


@nb.njit(cache=True, error_model="numpy")
def _centre_bend(pair: Array, k: int, margin: float, penalty: float, tau: float) -> None:
    """Put the pairs k, k + 1 of a bend on the central path, duals adding to penalty, v - s = margin."""
    reach = abs(margin) * penalty
    small = 2.0 * tau * penalty / (reach + 2.0 * tau + np.sqrt(reach * reach + 4.0 * tau * tau))
    near, far = (k, k + 1) if margin >= 0.0 else (k + 1, k)
    pair[DUAL, near] = small
    pair[DUAL, far] = penalty - small
    pair[SLACK, far] = tau / (penalty - small)
    pair[SLACK, near] = abs(margin) + pair[SLACK, far]


@nb.njit(cache=True, error_model="numpy")
def _inner(wish: float, gain: float, width: float) -> float:
    """Input that moves the state by a wish, kept well inside its box."""
    if width <= FIXED_KW:
        return 0.0
    if gain == 0.0:
        return 0.5 * width
    return min(max(wish / gain, INNER * width), (1.0 - INNER) * width)


@nb.njit(cache=True, error_model="numpy")
def _hold(block: Block, point: Point) -> float:
    """Set inputs inside their boxes that keep states near the middle of their limits; return the widest box."""
    given, row, widest = block.given, point.row, 0.0
    for r in range(given.shape[1]):
        state = 0.0
        for t in range(given.shape[0]):
            gain_c, gain_g = given[t, r, GAIN_C], given[t, r, GAIN_G]
            middle = 0.5 * (given[t, r, X_MIN] + given[t, r, X_MAX])
            free = given[t, r, THETA] * state + given[t, r, DRIFT]
            wish = middle - free if np.isfinite(middle) else 0.0
            g = _inner(-wish, gain_g, given[t, r, G_MAX])
            c = _inner(wish + gain_g * g, gain_c, given[t, r, C_MAX])
            state = free + gain_c * c - gain_g * g
            row[t, r, C], row[t, r, G], row[t, r, X] = c, g, state
            widest = max(widest, given[t, r, C_MAX], given[t, r, G_MAX])
    return widest


@nb.njit(cache=True, error_model="numpy")
def start(block: Block, point: Point) -> int:
    """Set a point inside all limits, on their central path; return the number of pairs."""
    given, row = block.given, point.row
    widest = _hold(block, point)
    fill_marginals(block, point)
    tau = max(0.5 * widest * _marginal_scale(block, point), 1e-6)
    pairs = 0
    for t in range(given.shape[0]):
        for r in range(given.shape[1]):
            pair = point.pair[t, r]
            for k in range(PAIRS):
                pair[SLACK, k] = 1.0
                pair[DUAL, k] = pair[D_SLACK, k] = pair[D_DUAL, k] = pair[SECOND, k] = 0.0
            for k in (0, 2):
                value = row[t, r, C] if k == 0 else row[t, r, G]
                width = given[t, r, C_MAX] if k == 0 else given[t, r, G_MAX]
                if value > 0.0:
                    pairs += 2
                    pair[SLACK, k], pair[SLACK, k + 1] = value, width - value
                    pair[DUAL, k], pair[DUAL, k + 1] = tau / value, tau / (width - value)
            x, p, penalty = row[t, r, X], row[t, r, G] - row[t, r, C], given[t, r, PENALTY]
            moves = block.ix[r] >= 0
            if moves and np.isfinite(given[t, r, X_MAX]):
                pairs += 2
                _centre_bend(pair, UPPER, given[t, r, X_MAX] - x, penalty, tau)
            if moves and np.isfinite(given[t, r, X_MIN]):
                pairs += 2
                _centre_bend(pair, LOWER, x - given[t, r, X_MIN], penalty, tau)
            if given[t, r, BEND] > 0.0 and (pair[DUAL, 0] > 0.0 or pair[DUAL, 2] > 0.0):
                pairs += 2
                _centre_bend(pair, FLEX, given[t, r, KINK] - p, given[t, r, BEND], tau)
    return pairs
