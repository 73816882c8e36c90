"""Interior point method for one-state devices, one after the other.

Symbols as in voltier.market.planning.storage. The Newton system of a device is a scalar
Riccati recursion, so that an iteration costs O(H).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

REGULARISATION_USD_PER_KW2H = 1e-5  # eps: makes powers unique; at 10 kW it moves a price by 0.0002 $/kWh
FIXED_KW = 1e-9  # a narrower box holds its variable at zero
GAP_USD = 1e-10  # duality gap at which a plan is finished, per dollar of its size
MAX_ITERATIONS = 80
INNER = 0.1  # share of a box that the start keeps from its ends


class _Row(NamedTuple):
    """One device: scalars and (H,) arrays, names as in StorageProblem."""

    dt: float
    x0: float
    theta: float
    gain_c: Array
    gain_g: float
    drift: Array
    c_max: Array
    g_max: Array
    x_min: Array
    x_max: Array
    price: Array
    other: Array
    w_self: float
    target: Array
    w_state: Array
    penalty: float


class _Point(NamedTuple):
    """The iterate and its Newton step.

    c, g, x, dx : (H,). slack, dual, d_slack, d_dual, bend : (H, 8), eight complementary pairs per step:
    c >= 0, c <= c_max, g >= 0, g <= g_max, then for the upper and for the lower state limit the margin
    v = x_max + s - x (v = x - x_min + s) and the violation s itself, whose duals add up to the penalty.
    A pair that does not exist has slack 1 and dual 0. bend is the second-order product of the predictor,
    inverse is 1 / slack.
    newton : (H, 7): the inverse of the 2x2 input Hessian (cc, cg, gg), S = b' inv b with b =
    (gain_c, -gain_g), the curvature P of the cost to go, 1 / (1 + S P), and b' inv r
    slope : (H,) slope of the cost to go
    """

    c: Array
    g: Array
    x: Array
    dx: Array
    slack: Array
    dual: Array
    d_slack: Array
    d_dual: Array
    bend: Array
    inverse: Array
    newton: Array
    slope: Array


@nb.njit(cache=True)
def _self_weight(row: _Row, t: int) -> float:
    """Curvature of the self-use cost in c - g."""
    return 2.0 * row.dt * row.w_self if row.other[t] > 0.0 else 0.0


@nb.njit(cache=True)
def _simulate(row: _Row, c: Array, g: Array, x: Array) -> None:
    """Fill the states that follow from the inputs."""
    state = row.x0
    for t in range(c.size):
        state = row.theta * state + row.gain_c[t] * c[t] - row.gain_g * g[t] + row.drift[t]
        x[t] = state


@nb.njit(cache=True)
def _objective(row: _Row, c: Array, g: Array, x: Array) -> float:
    """Cost of a plan [$]."""
    total = 0.0
    for t in range(c.size):
        drawn = c[t] - g[t]
        total += row.dt * (row.price[t] * drawn + REGULARISATION_USD_PER_KW2H * (c[t] ** 2 + g[t] ** 2))
        total += 0.5 * _self_weight(row, t) * (row.other[t] - drawn) ** 2
        total += row.w_state[t] * (x[t] - row.target[t]) ** 2
        total += row.penalty * (max(0.0, x[t] - row.x_max[t]) + max(0.0, row.x_min[t] - x[t]))
    return total


@nb.njit(cache=True)
def _input_slope(row: _Row, c: float, g: float, t: int) -> tuple[float, float]:
    """Marginal cost of c and of g without the state's worth."""
    eps = 2.0 * row.dt * REGULARISATION_USD_PER_KW2H
    pull = row.dt * row.price[t] - _self_weight(row, t) * (row.other[t] + g - c)
    return pull + eps * c, -pull + eps * g


@nb.njit(cache=True)
def _marginal_scale(row: _Row, point: _Point) -> float:
    """Largest marginal cost of an input at the start, broken state limits included [$/kW]."""
    worth, scale = 0.0, 1e-6 * row.dt
    for t in range(point.c.size - 1, -1, -1):
        worth = 2.0 * row.w_state[t] * (point.x[t] - row.target[t]) + row.theta * worth
        if point.x[t] > row.x_max[t]:
            worth += row.penalty
        elif point.x[t] < row.x_min[t]:
            worth -= row.penalty
        slope_c, slope_g = _input_slope(row, point.c[t], point.g[t], t)
        if row.c_max[t] > FIXED_KW:
            scale = max(scale, abs(slope_c + row.gain_c[t] * worth))
        if row.g_max[t] > FIXED_KW:
            scale = max(scale, abs(slope_g - row.gain_g * worth))
    return scale


@nb.njit(cache=True)
def _centre_limit(point: _Point, t: int, k: int, margin: float, penalty: float, tau: float) -> None:
    """Put the pairs k, k + 1 of a soft limit on the central path, duals adding to penalty, v - s = margin."""
    reach = abs(margin) * penalty
    small = 2.0 * tau * penalty / (reach + 2.0 * tau + np.sqrt(reach * reach + 4.0 * tau * tau))
    near, far = (k, k + 1) if margin >= 0.0 else (k + 1, k)
    point.dual[t, near] = small
    point.dual[t, far] = penalty - small
    point.slack[t, far] = tau / (penalty - small)
    point.slack[t, near] = abs(margin) + point.slack[t, far]


@nb.njit(cache=True)
def _inner(wish: float, gain: float, width: float) -> float:
    """Input that moves the state by a wish, kept well inside its box."""
    if width <= FIXED_KW:
        return 0.0
    if gain == 0.0:
        return 0.5 * width
    return min(max(wish / gain, INNER * width), (1.0 - INNER) * width)


@nb.njit(cache=True)
def _hold(row: _Row, point: _Point) -> None:
    """Set inputs inside their boxes that keep the state near the middle of its limits."""
    state = row.x0
    for t in range(point.c.size):
        middle = 0.5 * (row.x_min[t] + row.x_max[t])
        free = row.theta * state + row.drift[t]
        wish = middle - free if np.isfinite(middle) else 0.0
        point.g[t] = _inner(-wish, row.gain_g, row.g_max[t])
        point.c[t] = _inner(wish + row.gain_g * point.g[t], row.gain_c[t], row.c_max[t])
        state = free + row.gain_c[t] * point.c[t] - row.gain_g * point.g[t]
        point.x[t] = state


@nb.njit(cache=True)
def _start(row: _Row, point: _Point) -> int:
    """Set a point inside all limits, on their central path; return the number of pairs."""
    steps = point.c.size
    _hold(row, point)
    widest = 0.5 * max(row.c_max.max(), row.g_max.max())
    tau = max(_marginal_scale(row, point) * widest, 1e-6)
    point.slack[:] = 1.0
    point.dual[:] = 0.0
    point.d_slack[:] = 0.0
    point.d_dual[:] = 0.0
    pairs = 0
    for t in range(steps):
        for k, value, width in ((0, point.c[t], row.c_max[t]), (2, point.g[t], row.g_max[t])):
            if value > 0.0:
                pairs += 2
                point.slack[t, k], point.slack[t, k + 1] = value, width - value
                point.dual[t, k], point.dual[t, k + 1] = tau / value, tau / (width - value)
        for k, margin in ((4, row.x_max[t] - point.x[t]), (6, point.x[t] - row.x_min[t])):
            if np.isfinite(margin):
                pairs += 2
                _centre_limit(point, t, k, margin, row.penalty, tau)
    return pairs


@nb.njit(cache=True)
def _gaps(row: _Row, point: _Point) -> tuple[float, float]:
    """Return the sum of slack times dual and the duality gap it leaves, stationarity errors included [$].

    An error r in the marginal cost of an input can hide at most |r| times the width of its box.
    """
    worth, products, slip = 0.0, 0.0, 0.0
    for t in range(point.c.size - 1, -1, -1):
        y = point.dual[t]
        worth = row.theta * worth + 2.0 * row.w_state[t] * (point.x[t] - row.target[t]) + y[4] - y[6]
        slope_c, slope_g = _input_slope(row, point.c[t], point.g[t], t)
        if y[0] > 0.0:
            slip += row.c_max[t] * abs(slope_c + row.gain_c[t] * worth - y[0] + y[1])
        if y[2] > 0.0:
            slip += row.g_max[t] * abs(slope_g - row.gain_g * worth - y[2] + y[3])
        for k in range(8):
            products += point.slack[t, k] * y[k]
    return products, products + slip


@nb.njit(cache=True)
def _factor(row: _Row, point: _Point) -> None:
    """Fill the part of the Newton system that predictor and corrector share."""
    eps = 2.0 * row.dt * REGULARISATION_USD_PER_KW2H
    curve = 0.0  # of the cost to go behind this step
    for t in range(point.c.size - 1, -1, -1):
        s, y, z, out = point.slack[t], point.dual[t], point.inverse[t], point.newton[t]
        for k in range(8):
            z[k] = 1.0 / s[k]
        # 1 / diagonal; a fixed input has an infinite diagonal
        inv_c = 1.0 / (eps + y[0] * z[0] + y[1] * z[1]) if y[0] > 0.0 else 0.0
        inv_g = 1.0 / (eps + y[2] * z[2] + y[3] * z[3]) if y[2] > 0.0 else 0.0
        w = _self_weight(row, t)
        share = 1.0 / (1.0 + w * (inv_c + inv_g))
        out[0] = inv_c * (1.0 + w * inv_g) * share
        out[1] = w * inv_c * inv_g * share
        out[2] = inv_g * (1.0 + w * inv_c) * share
        gains = row.gain_c[t] ** 2 * inv_c + row.gain_g**2 * inv_g
        out[3] = (gains + w * inv_c * inv_g * (row.gain_c[t] - row.gain_g) ** 2) * share
        curve += 2.0 * row.w_state[t]
        for k in (4, 6):
            if y[k] > 0.0:
                curve += y[k] * y[k + 1] / (y[k] * s[k + 1] + y[k + 1] * s[k])
        out[4] = curve
        out[5] = 1.0 / (1.0 + out[3] * curve)
        curve *= row.theta**2 * out[5]


@nb.njit(cache=True)
def _backward(row: _Row, point: _Point, tau: float) -> None:
    """Fill b' inv r and the slope of the cost to go of every step for the barrier weight tau."""
    slope = 0.0
    for t in range(point.c.size - 1, -1, -1):
        y, z, bend, out = point.dual[t], point.inverse[t], point.bend[t], point.newton[t]
        slope += 2.0 * row.w_state[t] * (point.x[t] - row.target[t])
        for k, sign in ((4, 1.0), (6, -1.0)):
            if y[k] > 0.0:
                aim_v, aim_s = (tau - bend[k]) * z[k], (tau - bend[k + 1]) * z[k + 1]
                share = y[k] * z[k] / (y[k] * z[k] + y[k + 1] * z[k + 1])
                slope += sign * (aim_v - share * (aim_v + aim_s - row.penalty))
        point.slope[t] = slope
        r_c, r_g = _barrier_slope(row, point, t, tau)
        held = row.gain_c[t] * (out[0] * r_c + out[1] * r_g) - row.gain_g * (out[1] * r_c + out[2] * r_g)
        out[6] = held
        slope = row.theta * (slope - out[4] * held) * out[5]


@nb.njit(cache=True)
def _barrier_slope(row: _Row, point: _Point, t: int, tau: float) -> tuple[float, float]:
    """Marginal cost of c and g with the aimed duals of their boxes."""
    z, bend = point.inverse[t], point.bend[t]
    slope_c, slope_g = _input_slope(row, point.c[t], point.g[t], t)
    r_c = slope_c - (tau - bend[0]) * z[0] + (tau - bend[1]) * z[1]
    r_g = slope_g - (tau - bend[2]) * z[2] + (tau - bend[3]) * z[3]
    return r_c, r_g


@nb.njit(cache=True)
def _forward(row: _Row, point: _Point, tau: float) -> None:
    """Fill the Newton step of states, slacks and duals."""
    before = 0.0
    for t in range(point.c.size):
        y, z, ds, dy = point.dual[t], point.inverse[t], point.d_slack[t], point.d_dual[t]
        bend, out = point.bend[t], point.newton[t]
        moved = row.theta * before - out[6]
        dx = (moved - out[3] * point.slope[t]) * out[5]
        worth = (out[4] * moved + point.slope[t]) * out[5]
        r_c, r_g = _barrier_slope(row, point, t, tau)
        r_c, r_g = r_c + row.gain_c[t] * worth, r_g - row.gain_g * worth
        if y[0] > 0.0:
            ds[0] = -(out[0] * r_c + out[1] * r_g)
            ds[1] = -ds[0]
        if y[2] > 0.0:
            ds[2] = -(out[1] * r_c + out[2] * r_g)
            ds[3] = -ds[2]
        for k, sign in ((4, 1.0), (6, -1.0)):
            if y[k] > 0.0:
                a, b = y[k] * z[k], y[k + 1] * z[k + 1]
                short = (tau - bend[k]) * z[k] + (tau - bend[k + 1]) * z[k + 1] - row.penalty
                share = 1.0 / (a + b)
                ds[k] = (short - sign * b * dx) * share
                ds[k + 1] = (short + sign * a * dx) * share
        for k in range(8):
            if y[k] > 0.0:
                dy[k] = (tau - bend[k] - y[k] * ds[k]) * z[k] - y[k]
        point.dx[t] = dx
        before = dx


@nb.njit(cache=True)
def _longest_step(point: _Point) -> float:
    """Step to the nearest limit of a slack or dual, at most a large number."""
    inverse = 1e-3
    for t in range(point.c.size):
        for k in range(8):
            inverse = max(inverse, -point.d_slack[t, k] * point.inverse[t, k])
            # a division only where the dual becomes the nearest limit
            if -point.d_dual[t, k] > inverse * point.dual[t, k]:
                inverse = -point.d_dual[t, k] / point.dual[t, k]
    return 1.0 / inverse


@nb.njit(cache=True)
def _predict(row: _Row, point: _Point, gap: float) -> float:
    """Set bend from the pure Newton step and return the centring share (Mehrotra's cube)."""
    point.bend[:] = 0.0
    _backward(row, point, 0.0)
    _forward(row, point, 0.0)
    step = min(1.0, _longest_step(point))
    reached = 0.0
    for t in range(point.c.size):
        for k in range(8):
            ds, dy = point.d_slack[t, k], point.d_dual[t, k]
            reached += (point.slack[t, k] + step * ds) * (point.dual[t, k] + step * dy)
            point.bend[t, k] = step * ds * dy
    return (reached / gap) ** 3


@nb.njit(cache=True)
def _advance(point: _Point, step: float) -> None:
    """Take the step."""
    for t in range(point.c.size):
        point.c[t] += step * point.d_slack[t, 0]
        point.g[t] += step * point.d_slack[t, 2]
        point.x[t] += step * point.dx[t]
        for k in range(8):
            point.slack[t, k] += step * point.d_slack[t, k]
            point.dual[t, k] += step * point.d_dual[t, k]


@nb.njit(cache=True)
def _plan_row(row: _Row, point: _Point) -> tuple[float, int, bool]:
    """Plan one device; return the gap, the Newton steps and whether they met the tolerances."""
    pairs = _start(row, point)
    for iteration in range(MAX_ITERATIONS + 1):
        products, gap = _gaps(row, point)
        size = 1.0 + abs(_objective(row, point.c, point.g, point.x))
        if gap <= GAP_USD * size:
            return gap, iteration, True
        if iteration == MAX_ITERATIONS:
            break
        _factor(row, point)
        tau = _predict(row, point, products) * products / pairs
        _backward(row, point, tau)
        _forward(row, point, tau)
        _advance(point, min(1.0, 0.995 * _longest_step(point)))
    return gap, MAX_ITERATIONS, False


@nb.njit(cache=True)
def plan_rows(
    dt: float, x0: Array, theta: Array, gain_c: Array, gain_g: Array, drift: Array, c_max: Array,
    g_max: Array, x_min: Array, x_max: Array, price: Array, other: Array, w_self: Array, target: Array,
    w_state: Array, penalty: Array,
) -> tuple[Any, ...]:  # fmt: skip
    """Plan every row on its own; returns c, g, x, objective, gap, iterations, converged."""
    n, steps = drift.shape
    c, g, x = np.zeros((n, steps)), np.zeros((n, steps)), np.zeros((n, steps))
    objective, gap = np.zeros(n), np.zeros(n)
    iterations, converged = np.zeros(n, np.int64), np.zeros(n, np.bool_)
    pairs = np.zeros((6, steps, 8))
    newton, vectors = np.zeros((steps, 7)), np.zeros((2, steps))
    for i in range(n):
        row = _Row(
            dt, x0[i], theta[i], gain_c[i], gain_g[i], drift[i], c_max[i], g_max[i], x_min[i], x_max[i],
            price[i], other[i], w_self[i], target[i], w_state[i], penalty[i],
        )  # fmt: skip
        point = _Point(
            c[i], g[i], x[i], vectors[0], pairs[0], pairs[1], pairs[2], pairs[3], pairs[4], pairs[5],
            newton, vectors[1],
        )  # fmt: skip
        gap[i], iterations[i], converged[i] = _plan_row(row, point)
        _simulate(row, c[i], g[i], x[i])
        objective[i] = _objective(row, c[i], g[i], x[i])
    return c, g, x, objective, gap, iterations, converged
