"""Water-filling: the separable quadratic problem with one balance that every local market here comes down to.

Symbols: x power, x0 wish, lo / hi / mid ends and middle of the box, room(x) = min(x - lo, hi - x),
c > 0 half the inverse weight, t >= 0 worth of room, lam multiplier of the balance.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]

NEWTON_STEPS = 8


@njit(cache=True)
def _place(x0: float, lo: float, hi: float, c: float, t: float, lam: float) -> tuple[float, float]:
    """Return argmin of (x-x0)^2/(2c) - t room(x) - lam x over [lo, hi], and its slope in lam."""
    mid = 0.5 * (lo + hi)
    x = x0 + c * (lam + t)
    if x < mid:
        return (x, c) if x > lo else (lo, 0.0)
    x = x0 + c * (lam - t)
    if x > mid:
        return (x, c) if x < hi else (hi, 0.0)
    return mid, 0.0


@njit(cache=True)
def _corner(i: int, x0: float, lo: float, hi: float, c: float, t: float) -> float:
    """Return the i-th of the four values of lam at which x(lam) has a kink, in rising order."""
    if i == 0:
        return (lo - x0) / c - t
    if i == 1:
        return (0.5 * (lo + hi) - x0) / c - t
    if i == 2:
        return (0.5 * (lo + hi) - x0) / c + t
    return (hi - x0) / c + t


@njit(cache=True)
def _ends(x0: Array, lo: Array, hi: Array, c: Array, t: float) -> tuple[float, float]:
    """Return the lam at which the last power has reached its lower end, and its upper end."""
    left, right = math.inf, -math.inf
    for k in range(x0.size):
        if hi[k] > lo[k]:
            left = min(left, _corner(0, x0[k], lo[k], hi[k], c[k], t))
            right = max(right, _corner(3, x0[k], lo[k], hi[k], c[k], t))
    return (left, right) if left <= right else (0.0, 0.0)


@njit(cache=True)
def _eliminate(
    x0: Array, lo: Array, hi: Array, c: Array, t: float, target: float, left: float, right: float, x: Array
) -> float:
    """Shrink [left, right] from kink to kink until the sum is linear in it, then interpolate; always ends."""
    n = x0.size
    for step in range(4 * n + 1):
        sum_left, sum_right = 0.0, 0.0
        for k in range(n):
            sum_left += _place(x0[k], lo[k], hi[k], c[k], t, left)[0]
            sum_right += _place(x0[k], lo[k], hi[k], c[k], t, right)[0]
        share = (target - sum_left) / (sum_right - sum_left) if sum_right > sum_left else 0.0
        share = min(max(share, 0.0), 1.0)
        guess = left + (share if step % 2 == 0 else 0.5) * (right - left)
        nearest, found = guess, False
        for k in range(n):
            if hi[k] > lo[k]:
                for i in range(4):
                    corner = _corner(i, x0[k], lo[k], hi[k], c[k], t)
                    inside = left < corner < right
                    if inside and (not found or abs(corner - guess) < abs(nearest - guess)):
                        nearest, found = corner, True
        if not found:
            for k in range(n):
                low = _place(x0[k], lo[k], hi[k], c[k], t, left)[0]
                high = _place(x0[k], lo[k], hi[k], c[k], t, right)[0]
                x[k] = low + share * (high - low)
            return left + share * (right - left)
        total = 0.0
        for k in range(n):
            total += _place(x0[k], lo[k], hi[k], c[k], t, nearest)[0]
        if total < target:
            left = nearest
        else:
            right = nearest
    return math.nan


@njit(cache=True)
def water_fill(
    x0: Array, lo: Array, hi: Array, c: Array, t: float, target: float, start: float, x: Array
) -> float:
    """Minimise sum (x-x0)^2/(2c) - t sum room(x) over the boxes with sum x = target; exact.

    Newton's method on the piecewise linear sum, kink elimination where it strays. A target outside the sums
    of the boxes leaves every x at that end. c : (n,) > 0 where hi > lo; start : guess of lam; x : (n,) is
    written. Returns lam = d cost / d target; at an end, where it is not unique, the one of least size.
    """
    n = x0.size
    sum_lo, sum_hi, size = 0.0, 0.0, 0.0
    for k in range(n):
        sum_lo += lo[k]
        sum_hi += hi[k]
        size += abs(lo[k]) + abs(hi[k])
    left, right = _ends(x0, lo, hi, c, t)
    if target <= sum_lo or target >= sum_hi:
        for k in range(n):
            x[k] = lo[k] if target <= sum_lo else hi[k]
        return left if target <= sum_lo else right
    lam = start if left < start < right else 0.5 * (left + right)
    for _ in range(NEWTON_STEPS):
        total, slope = 0.0, 0.0
        for k in range(n):
            x[k], rise = _place(x0[k], lo[k], hi[k], c[k], t, lam)
            total += x[k]
            slope += rise
        error = target - total
        if abs(error) <= 1e-15 * size:
            return lam
        if error > 0.0:
            left = lam
        else:
            right = lam
        if slope == 0.0 or not left < lam + error / slope < right:
            break
        lam += error / slope
    return _eliminate(x0, lo, hi, c, t, target, left, right, x)
