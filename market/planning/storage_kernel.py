"""Interior point method for one device's plan; the Newton steps are linear-quadratic regulators, O(H) each.

Primal i (consumption), o (injection), u = o - i, state x rolled out from them: the dynamics always hold. Bounds on
i, o have duals z; the soft ends of x have slack w and dual y with w = x_max - x + y/m (m = 2 dt M), which is the
optimality condition of the penalty m/2 viol^2. Mehrotra's predictor and corrector, one step length for all.
Newton steps carry the pair (dx, du of the step before) as state, since the ramp joins neighbouring steps.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]

SERIES = (
    "decay", "gain_in_per_kw", "gain_out_per_kw", "drift", "in_max_kw", "out_max_kw", "x_min", "x_max", "x_ref",
    "ref_usd_per_x2h", "price_usd_per_kwh", "other_kw", "self_use_usd_per_kw2h",
)  # fmt: skip
"""Rows of a device's series; the constants below are their positions."""
DECAY, GAIN_IN, GAIN_OUT, DRIFT, IN_MAX, OUT_MAX, X_MIN, X_MAX, X_REF, W_REF, PRICE, OTHER, W_USE = range(13)
X0, U0, STIFF, RAMP = range(4)
# Rows of a point and of a direction: powers, state, duals of 0 <= i, i <= max, 0 <= o, o <= max, slack and dual of
# the two ends of x. Pairs of primal distance and dual are numbered 0 to 5 in the same order.
I, O, X, ZI0, ZI1, ZO0, ZO1, W0, Y0, W1, Y1 = range(11)
# Rows of the factors: inverse of the 2 x 2 control Hessian and the feedback of both controls on dx and du before.
A_II, A_IO, A_OO, KX_I, KX_O, KU_I, KU_O = range(7)

MAX_ITERATIONS = 60
STEP_BACK = 0.995
BOTH_KW = 1e-4
"""Powers in both directions above this count as simultaneous."""


@njit(cache=True)
def _roll_out(s: Array, x0: float, v: Array) -> None:
    """Write the states that follow from the powers."""
    x = x0
    for t in range(s.shape[1]):
        x = s[DECAY, t] * x + s[GAIN_IN, t] * v[I, t] - s[GAIN_OUT, t] * v[O, t] + s[DRIFT, t]
        v[X, t] = x


@njit(cache=True)
def _start(dt: float, a: Array, s: Array, v: Array) -> float:
    """Begin in the middle of the power limits, with slacks no smaller than the state's range allows; return mu."""
    horizon = s.shape[1]
    mu = 0.0
    for t in range(horizon):
        v[I, t], v[O, t] = 0.5 * s[IN_MAX, t], 0.5 * s[OUT_MAX, t]
        mu = max(mu, dt * abs(s[PRICE, t]) * (s[IN_MAX, t] + s[OUT_MAX, t]))
    mu = max(0.1 * mu, 1e-4)
    _roll_out(s, a[X0], v)
    for t in range(horizon):
        for power, low, high, limit in ((I, ZI0, ZI1, IN_MAX), (O, ZO0, ZO1, OUT_MAX)):
            if s[limit, t] > 0.0:
                v[low, t] = mu / v[power, t]
                v[high, t] = v[low, t]
        width = s[X_MAX, t] - s[X_MIN, t]
        least = 0.1 * width if 0.0 < width < math.inf else 0.1
        v[W0, t] = max(v[X, t] - s[X_MIN, t], least)
        v[W1, t] = max(s[X_MAX, t] - v[X, t], least)
        v[Y0, t], v[Y1, t] = mu / v[W0, t], mu / v[W1, t]
    return mu


@njit(cache=True)
def _factor(dt: float, a: Array, s: Array, v: Array, f: Array) -> None:
    """Eliminate the controls backward in time; value function P = [xx, xu, uu] over (dx, du before)."""
    m, rho = 2.0 * dt * a[STIFF], 2.0 * a[RAMP]
    pxx, pxu, puu = 0.0, 0.0, 0.0
    for t in range(s.shape[1] - 1, -1, -1):
        pxx += 2.0 * dt * s[W_REF, t]
        if s[X_MIN, t] > -math.inf:
            pxx += v[Y0, t] / (v[W0, t] + v[Y0, t] / m)
        if s[X_MAX, t] < math.inf:
            pxx += v[Y1, t] / (v[W1, t] + v[Y1, t] / m)
        g_in, g_out = s[GAIN_IN, t], -s[GAIN_OUT, t]
        along = 2.0 * dt * s[W_USE, t] + rho + puu
        h_ii = along + pxx * g_in * g_in - 2.0 * pxu * g_in
        h_oo = along + pxx * g_out * g_out + 2.0 * pxu * g_out
        h_io = -along + pxx * g_in * g_out + pxu * (g_in - g_out)
        has_in, has_out = s[IN_MAX, t] > 0.0, s[OUT_MAX, t] > 0.0
        if has_in:
            h_ii += v[ZI0, t] / v[I, t] + v[ZI1, t] / (s[IN_MAX, t] - v[I, t])
        if has_out:
            h_oo += v[ZO0, t] / v[O, t] + v[ZO1, t] / (s[OUT_MAX, t] - v[O, t])
        f[A_II, t], f[A_IO, t], f[A_OO, t] = 0.0, 0.0, 0.0
        if has_in and has_out:
            scale = 1.0 / (h_ii * h_oo - h_io * h_io)
            f[A_II, t], f[A_IO, t], f[A_OO, t] = h_oo * scale, -h_io * scale, h_ii * scale
        elif has_in:
            f[A_II, t] = 1.0 / h_ii
        elif has_out:
            f[A_OO, t] = 1.0 / h_oo
        decay = s[DECAY, t]
        bx_i, bx_o = decay * (pxx * g_in - pxu), decay * (pxx * g_out + pxu)
        f[KX_I, t] = f[A_II, t] * bx_i + f[A_IO, t] * bx_o
        f[KX_O, t] = f[A_IO, t] * bx_i + f[A_OO, t] * bx_o
        f[KU_I, t] = rho * (f[A_II, t] - f[A_IO, t])
        f[KU_O, t] = rho * (f[A_IO, t] - f[A_OO, t])
        pxx = decay * decay * pxx - bx_i * f[KX_I, t] - bx_o * f[KX_O, t]
        pxu = -bx_i * f[KU_I, t] - bx_o * f[KU_O, t]
        puu = rho - rho * (f[KU_I, t] - f[KU_O, t])


@njit(cache=True)
def _direct(dt: float, a: Array, s: Array, v: Array, c: Array, f: Array, k: Array, d: Array) -> None:
    """Write the Newton step d towards the products c of the six pairs (primal distance times dual)."""
    horizon = s.shape[1]
    m, rho = 2.0 * dt * a[STIFF], 2.0 * a[RAMP]
    gx, gu = 0.0, 0.0
    for t in range(horizon - 1, -1, -1):
        gx += 2.0 * dt * s[W_REF, t] * (v[X, t] - s[X_REF, t])
        if s[X_MIN, t] > -math.inf:
            w, y = v[W0, t], v[Y0, t]
            r = v[X, t] - s[X_MIN, t] + y / m - w
            gx -= y + (c[4, t] - y * w - y * r) / (w + y / m)
        if s[X_MAX, t] < math.inf:
            w, y = v[W1, t], v[Y1, t]
            r = s[X_MAX, t] - v[X, t] + y / m - w
            gx += y + (c[5, t] - y * w - y * r) / (w + y / m)
        u = v[O, t] - v[I, t]
        u_before = v[O, t - 1] - v[I, t - 1] if t > 0 else a[U0]
        g = -dt * s[PRICE, t] + 2.0 * dt * s[W_USE, t] * (s[OTHER, t] + u) + rho * (u - u_before) + gu
        g_i, g_o = s[GAIN_IN, t] * gx - g, -s[GAIN_OUT, t] * gx + g
        if s[IN_MAX, t] > 0.0:
            g_i += c[1, t] / (s[IN_MAX, t] - v[I, t]) - c[0, t] / v[I, t]
        if s[OUT_MAX, t] > 0.0:
            g_o += c[3, t] / (s[OUT_MAX, t] - v[O, t]) - c[2, t] / v[O, t]
        k[0, t] = f[A_II, t] * g_i + f[A_IO, t] * g_o
        k[1, t] = f[A_IO, t] * g_i + f[A_OO, t] * g_o
        gx = s[DECAY, t] * gx - f[KX_I, t] * g_i - f[KX_O, t] * g_o
        gu = -rho * (u - u_before) - f[KU_I, t] * g_i - f[KU_O, t] * g_o
    dx, du = 0.0, 0.0
    for t in range(horizon):
        d[I, t] = -(f[KX_I, t] * dx + f[KU_I, t] * du + k[0, t])
        d[O, t] = -(f[KX_O, t] * dx + f[KU_O, t] * du + k[1, t])
        du = d[O, t] - d[I, t]
        dx = s[DECAY, t] * dx + s[GAIN_IN, t] * d[I, t] - s[GAIN_OUT, t] * d[O, t]
        d[X, t] = dx
    _direct_duals(m, s, v, c, d)


@njit(cache=True)
def _direct_duals(m: float, s: Array, v: Array, c: Array, d: Array) -> None:
    for t in range(s.shape[1]):
        if s[IN_MAX, t] > 0.0:
            d[ZI0, t] = (c[0, t] - v[ZI0, t] * (v[I, t] + d[I, t])) / v[I, t]
            room = s[IN_MAX, t] - v[I, t]
            d[ZI1, t] = (c[1, t] - v[ZI1, t] * (room - d[I, t])) / room
        if s[OUT_MAX, t] > 0.0:
            d[ZO0, t] = (c[2, t] - v[ZO0, t] * (v[O, t] + d[O, t])) / v[O, t]
            room = s[OUT_MAX, t] - v[O, t]
            d[ZO1, t] = (c[3, t] - v[ZO1, t] * (room - d[O, t])) / room
        if s[X_MIN, t] > -math.inf:
            w, y = v[W0, t], v[Y0, t]
            r = v[X, t] - s[X_MIN, t] + y / m - w
            d[Y0, t] = (c[4, t] - y * (w + r + d[X, t])) / (w + y / m)
            d[W0, t] = r + d[X, t] + d[Y0, t] / m
        if s[X_MAX, t] < math.inf:
            w, y = v[W1, t], v[Y1, t]
            r = s[X_MAX, t] - v[X, t] + y / m - w
            d[Y1, t] = (c[5, t] - y * (w + r - d[X, t])) / (w + y / m)
            d[W1, t] = r - d[X, t] + d[Y1, t] / m


@njit(cache=True)
def _pair(s: Array, v: Array, d: Array, j: int, t: int) -> tuple[bool, float, float, float, float]:
    """Return of pair j at step t: whether it exists, distance, dual, and their changes along d."""
    if j == 0:
        return s[IN_MAX, t] > 0.0, v[I, t], v[ZI0, t], d[I, t], d[ZI0, t]
    if j == 1:
        return s[IN_MAX, t] > 0.0, s[IN_MAX, t] - v[I, t], v[ZI1, t], -d[I, t], d[ZI1, t]
    if j == 2:
        return s[OUT_MAX, t] > 0.0, v[O, t], v[ZO0, t], d[O, t], d[ZO0, t]
    if j == 3:
        return s[OUT_MAX, t] > 0.0, s[OUT_MAX, t] - v[O, t], v[ZO1, t], -d[O, t], d[ZO1, t]
    if j == 4:
        return s[X_MIN, t] > -math.inf, v[W0, t], v[Y0, t], d[W0, t], d[Y0, t]
    return s[X_MAX, t] < math.inf, v[W1, t], v[Y1, t], d[W1, t], d[Y1, t]


@njit(cache=True)
def _longest_step(s: Array, v: Array, d: Array) -> float:
    """Return the longest step, at most 1, that keeps distances and duals non-negative."""
    alpha = 1.0
    for t in range(s.shape[1]):
        for j in range(6):
            here, p, z, dp, dz = _pair(s, v, d, j, t)
            if here:
                if p + alpha * dp < 0.0:
                    alpha = -p / dp
                if z + alpha * dz < 0.0:
                    alpha = -z / dz
    return alpha


@njit(cache=True)
def _mean_product(s: Array, v: Array, d: Array, alpha: float) -> float:
    """Return the mean of distance times dual over all pairs, a step alpha along d."""
    total, count = 0.0, 0
    for t in range(s.shape[1]):
        for j in range(6):
            here, p, z, dp, dz = _pair(s, v, d, j, t)
            if here:
                total += (p + alpha * dp) * (z + alpha * dz)
                count += 1
    return total / max(count, 1)


@njit(cache=True)
def _correct(s: Array, v: Array, d: Array, centre: float, c: Array) -> None:
    """Aim at the centre less the second-order error of the predictor d."""
    for t in range(s.shape[1]):
        for j in range(6):
            here, p, z, dp, dz = _pair(s, v, d, j, t)
            c[j, t] = centre - dp * dz if here else 0.0


@njit(cache=True)
def _solve(
    dt: float, a: Array, s: Array, tolerance: float, v: Array, d: Array, c: Array, f: Array, k: Array
) -> tuple[int, bool]:
    """Bring v to the optimum; return iterations and whether the tolerance was met."""
    horizon = s.shape[1]
    v[:], d[:] = 0.0, 0.0
    mu = _start(dt, a, s, v)
    # What is left of the stationarity error and of the slacks' initial error: both shrink by 1 - alpha a step.
    infeasible = 1.0
    for iteration in range(MAX_ITERATIONS):
        if mu < tolerance and infeasible < 1e-9:
            return iteration, True
        _factor(dt, a, s, v, f)
        c[:] = 0.0
        _direct(dt, a, s, v, c, f, k, d)
        alpha = _longest_step(s, v, d)
        share = _mean_product(s, v, d, alpha) / mu if mu > 0.0 else 0.0
        _correct(s, v, d, max(share, 0.0) ** 3 * mu, c)
        _direct(dt, a, s, v, c, f, k, d)
        alpha = min(1.0, STEP_BACK * _longest_step(s, v, d))
        for row in range(11):
            for t in range(horizon):
                v[row, t] += alpha * d[row, t]
        mu = _mean_product(s, v, d, 0.0)
        infeasible *= 1.0 - alpha
    return MAX_ITERATIONS, False


@njit(cache=True)
def _judge(dt: float, a: Array, s: Array, v: Array) -> tuple[float, float, float]:
    """Return objective, proven gap and largest violation of the range.

    For any y >= 0 the penalty m/2 max(e, 0)^2 is at least y e - y^2/(2 m). With that in its place the objective is
    a lower bound, convex in the powers, and so no lower on the box than its tangent at the plan.
    """
    m = 2.0 * dt * a[STIFF]
    _roll_out(s, a[X0], v)
    horizon = s.shape[1]
    cost, gap, worst, gx, gu = 0.0, 0.0, 0.0, 0.0, 0.0
    for t in range(horizon - 1, -1, -1):
        x, u = v[X, t], v[O, t] - v[I, t]
        before = v[O, t - 1] - v[I, t - 1] if t > 0 else a[U0]
        over, under = max(x - s[X_MAX, t], 0.0), max(s[X_MIN, t] - x, 0.0)
        off = x - s[X_REF, t]
        cost += dt * (-s[PRICE, t] * u + s[W_USE, t] * (s[OTHER, t] + u) ** 2 + s[W_REF, t] * off * off)
        cost += dt * a[STIFF] * (over * over + under * under) + a[RAMP] * (u - before) ** 2
        worst = max(worst, over, under)
        gx = s[DECAY, t + 1] * gx if t + 1 < horizon else 0.0
        gx += 2.0 * dt * s[W_REF, t] * off
        if s[X_MAX, t] < math.inf:
            y = v[Y1, t]
            gap += 0.5 * m * over * over - y * (x - s[X_MAX, t]) + 0.5 * y * y / m
            gx += y
        if s[X_MIN, t] > -math.inf:
            y = v[Y0, t]
            gap += 0.5 * m * under * under - y * (s[X_MIN, t] - x) + 0.5 * y * y / m
            gx -= y
        g = dt * (-s[PRICE, t] + 2.0 * s[W_USE, t] * (s[OTHER, t] + u)) + 2.0 * a[RAMP] * (u - before) + gu
        gu = -2.0 * a[RAMP] * (u - before)
        g_i, g_o = s[GAIN_IN, t] * gx - g, -s[GAIN_OUT, t] * gx + g
        gap += g_i * v[I, t] if g_i > 0.0 else g_i * (v[I, t] - s[IN_MAX, t])
        gap += g_o * v[O, t] if g_o > 0.0 else g_o * (v[O, t] - s[OUT_MAX, t])
    return cost, gap, worst


@njit(cache=True)
def _fix_directions(s: Array, v: Array) -> bool:
    """Close the direction against the net power where both are in use; return whether there was one."""
    both = False
    for t in range(s.shape[1]):
        both = both or min(v[I, t], v[O, t]) > BOTH_KW
    if both:
        for t in range(s.shape[1]):
            if v[O, t] > v[I, t]:
                s[IN_MAX, t] = 0.0
            else:
                s[OUT_MAX, t] = 0.0
    return both


@njit(cache=True)
def plan_devices(
    dt: float, scalar: Array, series: Array, tolerance: float, fix: bool, plan: Array, certificate: Array
) -> None:
    """Plan all devices, each for itself.

    scalar : (n, 4) x0, u0, stiffness, ramp; series : (n, 13, H) rows SERIES, power limits may be written to
    plan : (n, 3, H) p_in, p_out, x and certificate : (n, 7) cost, gap, relaxed cost, fixed, violation, converged,
    iterations are written
    """
    horizon = series.shape[2]
    v, d = np.empty((11, horizon)), np.empty((11, horizon))
    c, f, k = np.empty((6, horizon)), np.empty((7, horizon)), np.empty((2, horizon))
    for n in range(scalar.shape[0]):
        a, s = scalar[n], series[n]
        iterations, converged = _solve(dt, a, s, tolerance, v, d, c, f, k)
        cost, gap, worst = _judge(dt, a, s, v)
        relaxed, fixed = cost, False
        if fix and _fix_directions(s, v):
            fixed = True
            more, converged = _solve(dt, a, s, tolerance, v, d, c, f, k)
            iterations += more
            cost, gap, worst = _judge(dt, a, s, v)
        plan[n, 0], plan[n, 1], plan[n, 2] = v[I], v[O], v[X]
        certificate[n, 0], certificate[n, 1], certificate[n, 2] = cost, gap, relaxed
        certificate[n, 3], certificate[n, 4] = (1.0 if fixed else 0.0), worst
        certificate[n, 5], certificate[n, 6] = (1.0 if converged else 0.0), iterations
