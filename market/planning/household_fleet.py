"""Split houses into blocks of devices and plan one after the other."""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from voltier.market.planning.household_directions import Share, plan_block
from voltier.market.planning.household_terms import (
    C_FULL,
    DRIFT,
    ENERGY,
    EPS_CURVE,
    FIXED_KW,
    G_FULL,
    GAIN_C,
    GAIN_G,
    GIVEN,
    METER,
    OTHER,
    PENALTY,
    RAMP_CURVE,
    REGULARISATION_USD_PER_KW2H,
    REWARD,
    SELF_CURVE,
    SPILL_CURVE,
    STATE_CURVE,
    TARGET,
    THETA,
    X_MAX,
    X_MIN,
    Block,
    C,
    G,
    X,
    make_point,
)

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Fleet(NamedTuple):
    """All devices, arrays named as in DeviceRows, and their houses; dt in hours."""

    dt: float
    x0: Array
    theta: Array
    gain_c: Array
    gain_g: Array
    drift: Array
    c_max: Array
    g_max: Array
    x_min: Array
    x_max: Array
    target: Array
    w_state: Array
    penalty: Array
    w_ramp: Array
    w_spill: Array
    w_flex: Array
    price: Array
    w_self: Array
    other: Array


@nb.njit(cache=True, error_model="numpy")
def _make_block(fleet: Fleet, rows: Index, house: int, shared: bool) -> Block:
    """Lay out a block and find the coordinates that its devices need."""
    steps, dt = fleet.drift.shape[1], fleet.dt
    given, meter = np.zeros((steps, rows.size, GIVEN)), np.zeros((steps, METER))
    ix, ip, size = np.full(rows.size, -1), np.full(rows.size, -1), 0
    for t in range(steps):
        meter[t, ENERGY] = dt * fleet.price[house, t]
        meter[t, EPS_CURVE] = 2.0 * dt * REGULARISATION_USD_PER_KW2H
        if shared:
            meter[t, SELF_CURVE] = 2.0 * dt * fleet.w_self[house, t]
            meter[t, OTHER] = fleet.other[house, t]
    for r in range(rows.size):
        i, moves, free = rows[r], False, False
        for t in range(steps):
            row = given[t, r]
            row[THETA], row[GAIN_C], row[GAIN_G] = fleet.theta[i], fleet.gain_c[i, t], fleet.gain_g[i]
            row[DRIFT] = fleet.drift[i, t] + (fleet.theta[i] * fleet.x0[i] if t == 0 else 0.0)
            row[C_FULL], row[G_FULL] = fleet.c_max[i, t], fleet.g_max[i, t]
            row[X_MIN], row[X_MAX] = fleet.x_min[i, t], fleet.x_max[i, t]
            row[TARGET], row[PENALTY] = fleet.target[i, t], fleet.penalty[i]
            row[STATE_CURVE] = 2.0 * fleet.w_state[i, t]
            row[RAMP_CURVE] = 2.0 * fleet.w_ramp[i] if t > 0 else 0.0
            row[SPILL_CURVE] = 2.0 * dt * fleet.w_spill[i]
            row[REWARD] = dt * fleet.w_flex[i]
            consumes, generates = fleet.c_max[i, t] > FIXED_KW, fleet.g_max[i, t] > FIXED_KW
            free = free or consumes or generates
            moves = (
                moves or (consumes and fleet.gain_c[i, t] != 0.0) or (generates and fleet.gain_g[i] != 0.0)
            )
        if moves:
            ix[r], size = size, size + 1
        if free and fleet.w_ramp[i] > 0.0:
            ip[r], size = size, size + 1
    return Block(given, meter, ix, ip, size)


@nb.njit(cache=True, error_model="numpy")
def _split(fleet: Fleet, first: int, last: int, house: int, shares: Mask) -> tuple[Index, Index]:
    """Return the devices of a house in the order of their blocks, and where each block ends.

    The devices that share the meter stand together in front, where the self-use term acts.
    """
    acts = False
    for t in range(fleet.drift.shape[1]):
        acts = acts or fleet.w_self[house, t] > 0.0
    rows, ends, count, blocks = np.zeros(last - first, np.int64), np.zeros(last - first, np.int64), 0, 0
    for i in range(first, last):
        if acts and shares[i]:
            rows[count], count = i, count + 1
    if count > 0:
        ends[0], blocks = count, 1
    for i in range(first, last):
        if not (acts and shares[i]):
            rows[count], count = i, count + 1
            ends[blocks], blocks = count, blocks + 1
    return rows, ends[:blocks]


@nb.njit(cache=True, error_model="numpy")
def plan_fleet(
    fleet: Fleet, offset: Index, shares: Mask, share: Share, search: int
) -> tuple[Array, Array, Array, Array, Array, Mask, Mask]:
    """Plan every house; returns c, g, x, objective, bound, binary, converged."""
    (n, steps), houses = fleet.drift.shape, offset.size - 1
    c, g, x = np.zeros((n, steps)), np.zeros((n, steps)), np.zeros((n, steps))
    cost, bound = np.zeros(houses), np.zeros(houses)
    binary, converged = np.zeros(houses, np.bool_), np.ones(houses, np.bool_)
    for h in range(houses):
        rows, ends = _split(fleet, offset[h], offset[h + 1], h, shares)
        begin = 0
        if ends.size == 0 or not shares[rows[0]]:  # nobody who could use what the house injects
            for t in range(steps):
                cost[h] += fleet.dt * fleet.w_self[h, t] * fleet.other[h, t] ** 2
            bound[h] = cost[h]
        for end in ends:
            block = _make_block(fleet, rows[begin:end], h, shares[rows[begin]])
            point = make_point(steps, end - begin, max(block.size, 1))
            part, low, chosen, done = plan_block(block, point, share, search)
            cost[h] += part
            bound[h] += low
            binary[h] |= chosen
            converged[h] &= done
            for r in range(end - begin):
                i = rows[begin + r]
                for t in range(steps):
                    c[i, t], g[i, t], x[i, t] = point.row[t, r, C], point.row[t, r, G], point.row[t, r, X]
            begin = end
    return c, g, x, cost, bound, binary, converged
