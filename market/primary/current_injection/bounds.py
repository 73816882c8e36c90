"""Closed-form tightening: what voltages and currents can be, given what may be injected.

Repeats three steps until no width shrinks by 1 % any more: currents from powers, magnitudes and angles at the
corners and interior extremes of i = conj(S/w); voltages from currents through the inverse of the reduced
admittance (path impedances of a tree), v = v0 + K i, by interval arithmetic; intersection with the ring of
permitted magnitudes. After Nair, PhD thesis, MIT 2025, with the imaginary part's sign put right:
Im(Z i) = R Im(i) + X Re(i).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.market.primary.current_injection.intervals import (
    Polar,
    Rectangle,
    join,
    linear,
    meet,
    polar,
    product,
    quotient,
    rectangle,
    sizes,
)
from voltier.market.primary.current_injection.terminals import N_SOURCE, Response, Terminals
from voltier.market.primary.problem import ScaledBids

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

START_ANGLE_RAD = np.pi / 6.0
"""Angles from nominal that are considered at all; a distribution feeder stays within a few degrees."""

SMALLEST_GAIN = 0.01
MOST_ROUNDS = 40
# A dispatch within its limits but for rounding must not be cut off.
LIMIT_SLACK_PU = 1e-6


@dataclass(frozen=True, slots=True)
class Bounds:
    """What every feasible state satisfies; p.u., rotated frame.

    v : (n,) rectangles of node voltages; size_low, size_high : (n,) their magnitudes
    w : (t,) rectangles of terminal voltages; w_low, w_high : (t,) their magnitudes
    i : (t,) rectangles of terminal currents (into the network); power : (t,) of the operators' injection
    feasible : False where no state can keep all limits
    widths : (rounds, 2) mean width of voltage and current rectangles after each round
    """

    v: Rectangle
    size_low: Array
    size_high: Array
    w: Rectangle
    w_low: Array
    w_high: Array
    i: Rectangle
    power: Rectangle
    feasible: bool
    widths: Array


@dataclass(frozen=True, slots=True)
class Limits:
    """Permitted voltage magnitudes : (n,) each, the source's being its own [p.u.]."""

    low: Array
    high: Array


@dataclass(frozen=True, slots=True)
class Near:
    """Operators' dispatches near a centre: Σ ((u - centre)/radius)² <= 1 over those with a finite radius.

    centre, radius : (3, n_smo) of power, reactive power, generation ; box_low, box_high : (3, n_smo) their ranges
    """

    centre: Array
    radius: Array
    box_low: Array
    box_high: Array


class Tightening:
    """Bound tightening of one network; powers and limits may change from call to call."""

    def __init__(self, terminals: Terminals, response: Response) -> None:
        self._terminals, self._response = terminals, response
        self._gain = response.gain
        self._gain_size = sizes(self._gain)
        self._delta = terminals.voltage[len(terminals.node) :]
        self._delta_size = sizes(self._delta)
        self._delta_gain = np.asarray(self._delta @ self._gain)
        self._delta_gain_size = sizes(self._delta_gain)
        self._delta_idle = self._delta @ response.idle

    def run(
        self,
        power: Rectangle,
        limits: Limits,
        *,
        known: Bounds | None = None,
        near: Near | None = None,
        rounds: int = MOST_ROUNDS,
        angle_rad: float = START_ANGLE_RAD,
    ) -> Bounds:
        """Return bounds for operators' injections within `power` (of each terminal) and voltages within limits.

        known : bounds already proven, to start from; rounds : at most so many; 0 leaves the ring and one
        evaluation of the currents. near : what is known of the dispatch as a whole; angle_rad : angles considered.
        """
        angle = np.where(np.arange(len(limits.low)) < N_SOURCE, 0.0, angle_rad)
        v = rectangle(Polar(limits.low, limits.high, -angle, angle))
        feasible = bool(np.all(limits.low <= limits.high))
        about = None if near is None else _About(self._terminals, self._response, near)
        if known is not None:
            v, ok = meet(v, known.v)
            feasible &= ok
        w = self._terminal_box(v, None)
        if known is not None:
            w, ok = meet(w, known.w)
            feasible &= ok
        currents = self._currents(power, w, self._magnitudes(v, w, limits))
        if known is not None:
            currents, ok = meet(currents, known.i)
            feasible &= ok
        widths: list[Array] = []
        for k in range(rounds + 1):
            currents, ok = meet(currents, self._currents(power, w, self._magnitudes(v, w, limits)))
            feasible &= ok
            if k == rounds:
                break
            v, ok = meet(v, self._reached(self._response.idle, self._gain, self._gain_size, currents))
            feasible &= ok
            if about is not None:
                rest = about.rest(power, self._magnitudes(v, w, limits))
                v, ok = meet(v, about.range(self._response.idle, self._gain, self._gain_size, rest))
                feasible &= ok
            v, ok = _ring(v, limits)
            feasible &= ok
            w = self._terminal_box(v, currents)
            if about is not None:
                across = about.range(self._delta_idle, self._delta_gain, self._delta_gain_size, rest)
                wye = len(self._terminals.node)
                w = join(w[:wye], meet(w[wye:], across)[0])
            widths.append(np.array([_width(v[N_SOURCE:]), _width(currents)]))
            if not feasible or _settled(widths):
                break
        return self._bounds(power, limits, (v, w, currents), feasible, widths)

    def _bounds(
        self,
        power: Rectangle,
        limits: Limits,
        boxes: tuple[Rectangle, Rectangle, Rectangle],
        feasible: bool,
        widths: list[Array],
    ) -> Bounds:
        v, w, currents = boxes
        size, terminal = _sizes_within(v, limits), self._magnitudes(v, w, limits)
        return Bounds(
            v=v,
            size_low=size.low,
            size_high=size.high,
            w=w,
            w_low=terminal.low,
            w_high=terminal.high,
            i=currents,
            power=power,
            feasible=feasible,
            widths=np.array(widths).reshape(-1, 2),
        )

    def drops(self, matrix: sparse.csr_matrix, bounds: Bounds, near: Near | None = None) -> Rectangle:
        """Return the ranges of other linear functions of the voltages, matrix @ v, from the currents."""
        gain, idle = np.asarray(matrix @ self._gain), matrix @ self._response.idle
        size = sizes(gain)
        out = meet(self._reached(idle, gain, size, bounds.i), linear(matrix, sizes(matrix), bounds.v))[0]
        if near is None:
            return out
        about = _About(self._terminals, self._response, near)
        sector = polar(bounds.w)
        rest = about.rest(
            bounds.power, Polar(bounds.w_low, bounds.w_high, sector.angle_low, sector.angle_high)
        )
        return meet(out, about.range(idle, gain, size, rest))[0]

    def _reached(
        self, idle: Complex, gain: Complex, size: tuple[Complex, Complex], currents: Rectangle
    ) -> Rectangle:
        box = linear(gain, size, currents)
        return Rectangle(idle + box.low, idle + box.high)

    def _terminal_box(self, v: Rectangle, currents: Rectangle | None) -> Rectangle:
        across = linear(self._delta, self._delta_size, v)
        if currents is not None:
            through = self._reached(self._delta_idle, self._delta_gain, self._delta_gain_size, currents)
            across, _ = meet(across, through)
        node = self._terminals.node
        return Rectangle(
            np.concatenate([v.low[node], across.low]), np.concatenate([v.high[node], across.high])
        )

    def _magnitudes(self, v: Rectangle, w: Rectangle, limits: Limits) -> Polar:
        """Return modulus and angle of the terminals' voltages."""
        node, sector, ring = self._terminals.node, polar(w), _sizes_within(v, limits)
        low, high = sector.low.copy(), sector.high.copy()
        low[: len(node)], high[: len(node)] = ring.low[node], ring.high[node]
        return Polar(low, high, sector.angle_low, sector.angle_high)

    def _currents(self, power: Rectangle, w: Rectangle, sector: Polar) -> Rectangle:
        """Return the range of conj((S - s_power)/w) - conj(s_current) w/|w|."""
        s, c = self._terminals.s_power, self._terminals.s_current
        part, steady = quotient(Rectangle(power.low - s, power.high - s), sector), steady_current(c, sector)
        return Rectangle(part.low - steady.high, part.high - steady.low)


class _About:
    """Ranges from what is known of a dispatch as a whole.

    Terminal currents are i = conj(S)/conj(w0) + rest, with w0 the voltage without currents: linear in the dispatch,
    whose ellipsoid projects exactly, and a rest that is small of second order.
    """

    def __init__(self, terminals: Terminals, response: Response, near: Near) -> None:
        self._terminals, self._near = terminals, near
        self._y0 = 1.0 / np.conj(terminals.voltage @ response.idle)
        self._joint = np.isfinite(near.radius)

    def rest(self, power: Rectangle, sector: Polar) -> Rectangle:
        """Return the range of i - conj(S)/conj(w0)."""
        t, y0 = self._terminals, self._y0
        inverse = rectangle(Polar(1.0 / sector.high, 1.0 / sector.low, sector.angle_low, sector.angle_high))
        mirrored = Rectangle(power.low.real - 1j * power.high.imag, power.high.real - 1j * power.low.imag)
        own = product(mirrored, Rectangle(inverse.low - y0, inverse.high - y0))
        fixed = quotient(Rectangle(-t.s_power, -t.s_power), sector)
        steady = steady_current(t.s_current, sector)
        return Rectangle(own.low + fixed.low - steady.high, own.high + fixed.high - steady.low)

    def range(
        self, idle: Complex, gain: Complex, size: tuple[Complex, Complex], rest: Rectangle
    ) -> Rectangle:
        """Return the range of idle + gain @ i."""
        near, joint = self._near, self._joint
        slope = np.asarray((gain * self._y0) @ self._terminals.share)
        radius = np.where(joint, near.radius, 0.0)
        box = np.where(joint, 0.0, 0.5 * (near.box_high - near.box_low))
        centre = np.where(joint, near.centre, 0.5 * (near.box_high + near.box_low))
        middle = slope @ (centre[0] + centre[2] - 1j * centre[1])
        re, im = abs(slope.real), abs(slope.imag)
        own, cross = radius[0] ** 2 + radius[2] ** 2, radius[1] ** 2
        spread = np.sqrt(re**2 @ own + im**2 @ cross) + 1j * np.sqrt(im**2 @ own + re**2 @ cross)
        spread = spread + (re @ (box[0] + box[2]) + im @ box[1])
        spread = spread + 1j * (im @ (box[0] + box[2]) + re @ box[1])
        other = linear(gain, size, rest)
        return Rectangle(idle + middle - spread + other.low, idle + middle + spread + other.high)


def steady_current(s_current: Complex, sector: Polar) -> Rectangle:
    """Return the range of conj(s_current)·w/|w|."""
    size, turn = np.abs(s_current), np.asarray(np.angle(s_current), dtype=np.float64)
    return rectangle(Polar(size, size, sector.angle_low - turn, sector.angle_high - turn))


def operator_power(terminals: Terminals, bids: ScaledBids) -> Rectangle:
    """Return what the operators can inject at each terminal [p.u.]."""
    low = bids.low[0] + bids.low[2] + 1j * bids.low[1]
    high = bids.high[0] + bids.high[2] + 1j * bids.high[1]
    return linear_real(terminals.share, Rectangle(low, high))


def linear_real(matrix: sparse.csr_matrix, box: Rectangle) -> Rectangle:
    """Return the range of a real matrix times a box."""
    centre, radius = matrix @ box.centre, abs(matrix) @ box.radius
    return Rectangle(centre - radius, centre + radius)


def limits_of(v_min_pu: Array, v_max_pu: Array, v_source_pu: float) -> Limits:
    """Return the permitted magnitudes, a little wider than asked so that rounding cuts nothing off."""
    low, high = v_min_pu - LIMIT_SLACK_PU, v_max_pu + LIMIT_SLACK_PU
    low[:N_SOURCE] = high[:N_SOURCE] = v_source_pu
    return Limits(np.maximum(low, 0.0), high)


def _ring(v: Rectangle, limits: Limits) -> tuple[Rectangle, bool]:
    """Cut rectangles to the ring: to the smallest rectangle around the sector they share with it."""
    sector = polar(v)
    low, high = np.maximum(sector.low, limits.low), np.minimum(sector.high, limits.high)
    if np.any(low > high + LIMIT_SLACK_PU):
        return v, False
    within = rectangle(Polar(np.minimum(low, high), high, sector.angle_low, sector.angle_high))
    return meet(v, within)


def _sizes_within(v: Rectangle, limits: Limits) -> Polar:
    sector = polar(v)
    high = np.minimum(sector.high, limits.high)
    low = np.minimum(np.maximum(sector.low, limits.low), high)
    return Polar(low, high, sector.angle_low, sector.angle_high)


def _width(box: Rectangle) -> float:
    return float(np.mean(2.0 * (box.radius.real + box.radius.imag))) if len(box.low) else 0.0


def _settled(widths: list[Array]) -> bool:
    if len(widths) < 2:
        return False
    return bool(np.all(widths[-1] >= (1.0 - SMALLEST_GAIN) * widths[-2]))
