"""Interval arithmetic on rectangles of the complex plane, vectorised; every result contains the exact range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.market.primary.current_injection.collect import parts

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Matrix: TypeAlias = Complex | sparse.csr_matrix

# Two computations of one interval differ by rounding; a smaller overlap of the two is not emptiness.
ROUNDING_PU = 1e-9


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Rectangles low.real <= re <= high.real, low.imag <= im <= high.imag; low, high : (n,) complex."""

    low: Complex
    high: Complex

    @property
    def centre(self) -> Complex:
        """Midpoints."""
        return 0.5 * (self.low + self.high)

    @property
    def radius(self) -> Complex:
        """Half widths of the real and of the imaginary part."""
        return 0.5 * (self.high - self.low)

    def __getitem__(self, at: Any) -> Rectangle:
        return Rectangle(self.low[at], self.high[at])


@dataclass(frozen=True, slots=True)
class Polar:
    """Sectors of rings; low, high : (n,) modulus; angle_low, angle_high : (n,) radians within (-π, π)."""

    low: Array
    high: Array
    angle_low: Array
    angle_high: Array


def join(first: Rectangle, second: Rectangle) -> Rectangle:
    """Return the rectangles of both, one after the other."""
    return Rectangle(np.concatenate([first.low, second.low]), np.concatenate([first.high, second.high]))


def meet(first: Rectangle, second: Rectangle) -> tuple[Rectangle, bool]:
    """Return the common part and whether every one is non-empty (but for rounding)."""
    low = np.maximum(first.low.real, second.low.real) + 1j * np.maximum(first.low.imag, second.low.imag)
    high = np.minimum(first.high.real, second.high.real) + 1j * np.minimum(first.high.imag, second.high.imag)
    gap = max((low.real - high.real).max(initial=-1.0), (low.imag - high.imag).max(initial=-1.0))
    return Rectangle(_min(low, high), _max(low, high)), bool(gap <= ROUNDING_PU)


def linear(matrix: Matrix, size: tuple[Matrix, Matrix], box: Rectangle) -> Rectangle:
    """Return the range of matrix @ box; size : entrywise |real| and |imaginary| part of the matrix."""
    centre, radius = matrix @ box.centre, box.radius
    re, im = size
    spread = (re @ radius.real + im @ radius.imag) + 1j * (re @ radius.imag + im @ radius.real)
    return Rectangle(centre - spread, centre + spread)


def sizes(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """Return entrywise |real| and |imaginary| parts, what `linear` needs."""
    re, im = parts(matrix) if sparse.issparse(matrix) else (matrix.real, matrix.imag)
    return abs(re), abs(im)


def polar(box: Rectangle) -> Polar:
    """Return modulus and angle of rectangles; the angle is (-π, π) where the rectangle is not right of the origin."""
    near = _outside(box.low.real, box.high.real) + 1j * _outside(box.low.imag, box.high.imag)
    far = np.maximum(abs(box.low.real), abs(box.high.real)) + 1j * np.maximum(
        abs(box.low.imag), abs(box.high.imag)
    )
    angle = np.angle(np.stack(_corners(box)))
    right = (box.low.real > 0.0) | (box.low.imag > 0.0) | (box.high.imag < 0.0)
    angle_low = np.where(right, angle.min(axis=0), -np.pi)
    angle_high = np.where(right, angle.max(axis=0), np.pi)
    return Polar(np.abs(near), np.abs(far), angle_low, angle_high)


def rectangle(sector: Polar) -> Rectangle:
    """Return the smallest rectangles around sectors of rings."""
    cos_low, cos_high = unit_range(sector.angle_low, sector.angle_high, 0.0)
    sin_low, sin_high = unit_range(sector.angle_low, sector.angle_high, 0.5 * np.pi)
    re = np.stack(
        [sector.low * cos_low, sector.high * cos_low, sector.low * cos_high, sector.high * cos_high]
    )
    im = np.stack(
        [sector.low * sin_low, sector.high * sin_low, sector.low * sin_high, sector.high * sin_high]
    )
    return Rectangle(re.min(axis=0) + 1j * im.min(axis=0), re.max(axis=0) + 1j * im.max(axis=0))


def unit_range(low: Array, high: Array, peak: float | Array) -> tuple[Array, Array]:
    """Return the range of cos(δ - peak) for δ in [low, high]."""
    ends = np.stack([np.cos(low - peak), np.cos(high - peak)])
    top = np.where(_holds(low, high, peak), 1.0, ends.max(axis=0))
    bottom = np.where(_holds(low, high, peak + np.pi), -1.0, ends.min(axis=0))
    return bottom, top


def quotient(power: Rectangle, voltage: Polar) -> Rectangle:
    """Return the range of conj(S/w), the current of a power S at voltage w.

    For a fixed S and angle the current is proportional to 1/|w|, and for fixed w linear in S, so the extremes lie
    at corners of S and ends of |w|; in the angle, at its ends or where S/w is real or imaginary.
    """
    ranges = []
    for s in _corners(power):
        # conj(S/w) = |S|/|w| · e^{j(δ - arg S)}
        turn = np.angle(s)
        ring = Polar(
            abs(s) / voltage.high, abs(s) / voltage.low, voltage.angle_low - turn, voltage.angle_high - turn
        )
        ranges.append(rectangle(ring))
    low_all, high_all = np.stack([r.low for r in ranges]), np.stack([r.high for r in ranges])
    return Rectangle(
        low_all.real.min(axis=0) + 1j * low_all.imag.min(axis=0),
        high_all.real.max(axis=0) + 1j * high_all.imag.max(axis=0),
    )


def product(first: Rectangle, second: Rectangle) -> Rectangle:
    """Return a rectangle around the products of two rectangles' points."""
    a, b = (first.low.real, first.high.real), (first.low.imag, first.high.imag)
    c, d = (second.low.real, second.high.real), (second.low.imag, second.high.imag)
    (ac_low, ac_high), (bd_low, bd_high) = _times(a, c), _times(b, d)
    (ad_low, ad_high), (bc_low, bc_high) = _times(a, d), _times(b, c)
    return Rectangle(ac_low - bd_high + 1j * (ad_low + bc_low), ac_high - bd_low + 1j * (ad_high + bc_high))


def _times(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
    corners = np.stack([a * b for a in first for b in second])
    return corners.min(axis=0), corners.max(axis=0)


def _corners(box: Rectangle) -> tuple[Complex, ...]:
    low, high = box.low, box.high
    return low, high, low.real + 1j * high.imag, high.real + 1j * low.imag


def _outside(low: Array, high: Array) -> Array:
    """Return the distance of the origin from intervals."""
    return np.maximum(np.maximum(low, -high), 0.0)


def _holds(low: Array, high: Array, angle: float | Array) -> NDArray[np.bool_]:
    """Say whether [low, high] holds the angle or one of its turns by 2π."""
    return np.ceil((low - angle) / (2.0 * np.pi)) <= np.floor((high - angle) / (2.0 * np.pi))


def _min(first: Complex, second: Complex) -> Complex:
    return np.minimum(first.real, second.real) + 1j * np.minimum(first.imag, second.imag)


def _max(first: Complex, second: Complex) -> Complex:
    return np.maximum(first.real, second.real) + 1j * np.maximum(first.imag, second.imag)
