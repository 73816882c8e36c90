"""Compiled kernel of the secondary market: three lexicographic stages, one market at a time.

Symbols as in `voltier.market.water_filling`, over the components of one market: active powers first, reactive
after them. Every stage is separable but for the two balances and the bounds of earlier stages, so it is
solved through multipliers: t for the room, nu for the bound on f1; given (t, nu), water-filling gives the
powers exactly.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from voltier.market.water_filling import water_fill

Array = NDArray[np.float64]

STILL_KW = 1e-6
"""Deviations below a milliwatt are rounding of the target: nothing for later stages to share out."""

EPSILON_MIN = 1e-9
"""Below this the bound of stage 1 leaves less room than double precision resolves; it counts as zero."""

BETA_FLOOR = 1e-6
"""Smallest disutility relative to the market's largest: without a floor stage 3 is not strictly convex."""

ROOT_TOLERANCE = 1e-11
BALANCE_TOLERANCE = 1e-9
MAX_STEPS = 200


class Market(NamedTuple):
    """One market. n : agents; x0, lo, hi : (2n,) wish and box; target : (2,) active and reactive balance."""

    n: int
    x0: Array
    lo: Array
    hi: Array
    target: Array


class Reliability(NamedTuple):
    """The objective f1 = sum weight (x - x0)^2, its minimum and the bound it becomes."""

    weight: Array
    best: float
    bound: float


@njit(cache=True)
def _fill(market: Market, c: Array, t: float, lam: Array, x: Array) -> None:
    """Fill active and reactive powers; lam : (2,) holds the last multipliers as a start and is updated."""
    n, target = market.n, market.target
    x0, lo, hi = market.x0, market.lo, market.hi
    lam[0] = water_fill(x0[:n], lo[:n], hi[:n], c[:n], t, target[0], lam[0], x[:n])
    lam[1] = water_fill(x0[n:], lo[n:], hi[n:], c[n:], t, target[1], lam[1], x[n:])


@njit(cache=True)
def _square(market: Market, weight: Array, x: Array) -> float:
    total = 0.0
    for k in range(x.size):
        total += weight[k] * (x[k] - market.x0[k]) ** 2
    return total


@njit(cache=True)
def _room(market: Market, x: Array) -> float:
    total = 0.0
    for k in range(x.size):
        total += max(0.0, min(x[k] - market.lo[k], market.hi[k] - x[k]))
    return total


@njit(cache=True)
def _narrow(bracket: Array, x: float, f: float) -> float:
    """Take in f(x), return the next trial for the root (Chandrupatla 1997: safeguarded inverse quadratic).

    bracket : (6,) newest point and value, opposite point and value, third point and value; is updated.
    """
    a, fa, b, fb = bracket[0], bracket[1], bracket[2], bracket[3]
    if (f > 0.0) == (fa > 0.0):
        c, fc = a, fa
    else:
        c, fc, b, fb = b, fb, a, fa
    a, fa = x, f
    bracket[0], bracket[1], bracket[2], bracket[3], bracket[4], bracket[5] = a, fa, b, fb, c, fc
    share = 0.5
    if fc not in (fa, fb):
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        if phi * phi < xi and (1.0 - phi) ** 2 < 1.0 - xi:
            share = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
    return a + min(max(share, 1e-12), 1.0 - 1e-12) * (b - a)


@njit(cache=True)
def _open_bracket(bracket: Array, a: float, fa: float, b: float, fb: float) -> float:
    """Start a bracket from two points of opposite sign and return the first trial between them."""
    bracket[0], bracket[1], bracket[2], bracket[3], bracket[4], bracket[5] = a, fa, b, fb, b, fb
    return a + (b - a) * min(max(fa / (fa - fb), 1e-3), 1.0 - 1e-3)


@njit(cache=True)
def _is_found(bracket: Array, f: float) -> bool:
    """Say whether f is a root, or the bracket cannot shrink any more."""
    width = abs(bracket[2] - bracket[0])
    return abs(f) <= ROOT_TOLERANCE or width <= 1e-15 * max(abs(bracket[0]), abs(bracket[2]))


@njit(cache=True)
def _most_room(market: Market, weight: Array, lam: Array, x: Array) -> None:
    """Write, among the powers of greatest total room, those of least f1.

    Beyond the middles the room falls one for one, so every x on the target's side of its middle is optimal.
    """
    n, low, high = market.n, market.lo.copy(), market.hi.copy()
    mid = 0.5 * (low + high)
    for part in range(2):
        rows = slice(part * n, (part + 1) * n)
        if market.target[part] >= mid[rows].sum():
            low[rows] = mid[rows]
        else:
            high[rows] = mid[rows]
    _fill(Market(n, market.x0, low, high, market.target), 0.5 / weight, 0.0, lam, x)


@njit(cache=True)
def _stage_room(market: Market, f1: Reliability, x: Array) -> bool:
    """Maximise the room with f1 within its bound; write x, say if it converged.

    The root in t is sought on the square root of the excess of f1, which is nearly linear in t.
    """
    lam = np.zeros(2)
    _most_room(market, f1.weight, lam, x)
    if _square(market, f1.weight, x) <= f1.bound:
        return True
    c, slack = 0.5 / f1.weight, f1.bound - f1.best
    t, below, f_below = math.sqrt(2.0 * slack / c.sum()), 0.0, -1.0
    bracket, bracketed = np.empty(6), False
    for _ in range(MAX_STEPS):
        _fill(market, c, t, lam, x)
        f = math.sqrt(max(0.0, _square(market, f1.weight, x) - f1.best) / slack) - 1.0
        if abs(f) <= ROOT_TOLERANCE or (bracketed and _is_found(bracket, f)):
            return True
        if bracketed:
            t = _narrow(bracket, t, f)
        elif f > 0.0:
            bracketed, t = True, _open_bracket(bracket, below, f_below, t, f)
        else:
            below, f_below, t = t, f, 3.0 * t
    return False


@njit(cache=True)
def _slack_left(market: Market, f1: Reliability, x: Array) -> float:
    """Return a measure, negative beyond the bound on f1, almost linear in nu (as in trust regions)."""
    slack = f1.bound - f1.best
    over = max(_square(market, f1.weight, x) - f1.best, 1e-14 * slack)
    return math.sqrt(slack / over) - 1.0


@njit(cache=True)
def _bounded_fill(
    market: Market, f1: Reliability, beta: Array, t: float, nu: float, lam: Array, x: Array
) -> float:
    """Minimise sum beta d^2 - t room with f1 bounded, from a guess of nu; write x, return nu or nan."""
    bracket, bracketed = np.empty(6), False
    below, f_below = -1.0, -1.0
    for _ in range(MAX_STEPS):
        _fill(market, 0.5 / (beta + nu * f1.weight), t, lam, x)
        f = _slack_left(market, f1, x)
        if (nu == 0.0 and f >= 0.0) or abs(f) <= ROOT_TOLERANCE or (bracketed and _is_found(bracket, f)):
            return nu
        if bracketed:
            nu = _narrow(bracket, nu, f)
        elif f < 0.0:
            below, f_below, nu = nu, f, max(10.0 * nu, 1e-4)
        else:
            above, f_above = nu, f
            if below < 0.0:
                _fill(market, 0.5 / beta, t, lam, x)
                below, f_below = 0.0, _slack_left(market, f1, x)
                if f_below >= 0.0:
                    return 0.0
            bracketed, nu = True, _open_bracket(bracket, below, f_below, above, f_above)
    return math.nan


@njit(cache=True)
def _stage_cost(
    market: Market, f1: Reliability, beta: Array, room_best: float, room_bound: float, x: Array
) -> bool:
    """Minimise sum beta d^2 with f1 and the room bounded; x comes in as the point of greatest room."""
    lam, roomiest = np.zeros(2), x.copy()
    nu = _bounded_fill(market, f1, beta, 0.0, 0.0, lam, x)
    slack = room_best - room_bound
    if math.isnan(nu) or slack <= 0.0:
        return not math.isnan(nu)
    f = (_room(market, x) - room_bound) / slack
    if f >= -ROOT_TOLERANCE:
        return True
    # weak duality: t (room_best - room_bound) <= cost at the roomiest point - least cost
    highest = (_square(market, beta, roomiest) - _square(market, beta, x)) / slack
    if highest <= 0.0:
        x[:] = roomiest
        return True
    bracket = np.empty(6)
    t = _open_bracket(bracket, 0.0, f, 1.001 * highest, 1.0)
    for _ in range(MAX_STEPS):
        nu = _bounded_fill(market, f1, beta, t, nu, lam, x)
        if math.isnan(nu):
            return False
        f = (_room(market, x) - room_bound) / slack
        if _is_found(bracket, f):
            return True
        t = _narrow(bracket, t, f)
    return False


@njit(cache=True)
def _clear_one(
    market: Market, score: Array, beta: Array, epsilon: float, x: Array, level: Array
) -> tuple[bool, float]:
    """Clear one market; write x : (2n,), level : (3,) optima. Return converged, excess over the bounds."""
    weight, lam = 1.0 / score, np.zeros(2)
    _fill(market, 0.5 * score, 0.0, lam, x)
    best = _square(market, weight, x)
    level[0], level[1], level[2] = best, -_room(market, x), _square(market, beta, x)
    if epsilon < EPSILON_MIN or np.abs(x - market.x0).max() <= STILL_KW:
        return True, 0.0
    f1 = Reliability(weight, best, best * (1.0 + epsilon))
    if not _stage_room(market, f1, x):
        return False, math.inf
    room_best = _room(market, x)
    room_bound = max(0.0, room_best * (1.0 - epsilon))
    level[1] = -room_best
    dearest = beta.max()
    if dearest > 0.0:
        scaled = np.maximum(beta / dearest, BETA_FLOOR)
        if not _stage_cost(market, f1, scaled, room_best, room_bound, x):
            return False, math.inf
    level[2] = _square(market, beta, x)
    excess = _square(market, weight, x) / f1.bound - 1.0
    if room_bound > 0.0:
        excess = max(excess, 1.0 - _room(market, x) / room_bound)
    return True, max(0.0, excess)


@njit(cache=True)
def clear_markets(
    offset: NDArray[np.int64],
    p: Array,
    q: Array,
    score: Array,
    target: Array,
    epsilon: float,
    x: Array,
    level: Array,
    residual: Array,
    converged: NDArray[np.bool_],
) -> None:
    """Clear each market on its own, so that a subset of markets gives the same bits.

    p, q : (4, n_sma) rows wish, lower end, upper end, disutility; target : (2, n_smo) within the boxes' sums.
    x : (2, n_sma), level : (n_smo, 3), residual, converged : (n_smo,) are written.
    """
    for i in range(offset.size - 1):
        a, b = offset[i], offset[i + 1]
        n = b - a
        if n == 0:
            level[i, :], residual[i], converged[i] = 0.0, 0.0, True
            continue
        both = np.empty((5, 2 * n))
        both[:4, :n], both[:4, n:] = p[:, a:b], q[:, a:b]
        both[4, :n], both[4, n:] = score[a:b], score[a:b]
        market = Market(n, both[0], both[1], both[2], target[:, i].copy())
        power = np.empty(2 * n)
        converged[i], excess = _clear_one(market, both[4], both[3], epsilon, power, level[i])
        x[0, a:b], x[1, a:b] = power[:n], power[n:]
        error = max(abs(power[:n].sum() - target[0, i]), abs(power[n:].sum() - target[1, i]))
        residual[i] = max(error, excess)
        balanced = error <= BALANCE_TOLERANCE * (1.0 + np.abs(market.target).max())
        converged[i] &= balanced and np.isfinite(level[i]).all()  # a nan among the bids ends here
