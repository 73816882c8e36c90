"""How delta loads divide their power between their two nodes, in first moments with bounded remainders.

A delta load at w = A_1 v_1 + A_2 v_2 draws the part r = A_1 v_1/w of its power from its first node. For any r0, w0, m0,

    r = r0 + (A_1 v_1 - r0 w)/w0 + e,     e = -(r - r0)(w - w0)/w0,
    r|w| = r0 |w| + m0 (r - r0) + f,      f = (r - r0)(|w| - m0).

What A_1 v_1 - r0 w can be follows from the currents, and then the common part of the two voltages cancels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.market.primary.current_injection.bounds import Bounds, Near, Tightening
from voltier.market.primary.current_injection.collect import Sums, parts
from voltier.market.primary.current_injection.intervals import (
    Polar,
    Rectangle,
    meet,
    polar,
    product,
    rectangle,
)
from voltier.market.primary.current_injection.layout import Affine, Layout, Scaling, expand_sums, pick
from voltier.market.primary.current_injection.load_moments import MARGIN_PU, LoadMoments

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

# Stands for "unknown" where a load's voltage could be as small as its uncertainty; shares are of order one.
LARGEST_SHARE = 1e3


@dataclass(frozen=True, slots=True)
class Expansion:
    """Where the delta loads are linearised and how far the remainders reach.

    r0, m0 : (k,) as in the module's equations ; slope : (k, n) of r in the voltages
    reach : (4k,) bounds of |Re e|, |Im e|, |Re f|, |Im f|
    """

    r0: Complex
    m0: Array
    slope: sparse.csr_matrix
    reach: Array


def expand_loads(loads: LoadMoments, tightening: Tightening, bounds: Bounds, near: Near | None) -> Expansion:
    """Choose the points of expansion and bound the remainders."""
    k, w = len(loads.delta), bounds.w[loads.delta]
    w0 = w.centre
    r0 = loads.across[:, 0] * bounds.v.centre[loads.first] / w0
    value = np.concatenate([(1.0 - r0) * loads.across[:, 0] / w0, -r0 * loads.across[:, 1] / w0])
    place = (np.tile(np.arange(k), 2), np.concatenate([loads.first, loads.second]))
    slope = sparse.csr_matrix((value, place), shape=(k, len(loads.steady)))
    found = tightening.drops(slope, bounds, near)
    away = product(Rectangle(w.low - w0, w.high - w0), Rectangle(1.0 / w0, 1.0 / w0))
    part = np.hypot(*_sizes(away))
    # |r - r0| <= farthest + part·|r - r0|
    known = part < 0.99
    far = np.where(known, np.hypot(*_sizes(found)) / np.where(known, 1.0 - part, 1.0), LARGEST_SHARE)
    slack = np.minimum(part * far, LARGEST_SHARE) * (1.0 + 1.0j)
    direct = _quotient(loads, bounds)
    share, _ = meet(
        Rectangle(found.low - slack, found.high + slack), Rectangle(direct.low - r0, direct.high - r0)
    )
    m_low, m_high = bounds.w_low[loads.delta], bounds.w_high[loads.delta]
    reach = [*_sizes(product(share, away)), *(0.5 * (m_high - m_low) * size for size in _sizes(share))]
    return Expansion(r0, 0.5 * (m_low + m_high), slope, np.concatenate(reach) + MARGIN_PU)


def _quotient(loads: LoadMoments, bounds: Bounds) -> Rectangle:
    """Return the range of A_1 v_1/w from the ranges of both."""
    top, bottom = polar(bounds.v[loads.first]), polar(bounds.w[loads.delta])
    ratio, turn = np.abs(loads.across[:, 0]), np.angle(loads.across[:, 0])
    low, high = bounds.size_low[loads.first], bounds.size_high[loads.first]
    ring = Polar(
        ratio * low / bounds.w_high[loads.delta],
        ratio * high / np.maximum(bounds.w_low[loads.delta], 1.0 / LARGEST_SHARE),
        top.angle_low + turn - bottom.angle_high,
        top.angle_high + turn - bottom.angle_low,
    )
    return rectangle(ring)


def drawn_power(loads: LoadMoments, expansion: Expansion, layout: Layout, scaling: Scaling) -> Affine:
    """Return the power that all loads of constant power and current draw from each node."""
    n, columns, k = len(loads.steady), layout.n_column, len(loads.delta)
    before = sparse.csr_matrix((n, layout.size))
    after = sparse.csr_matrix((n, columns - layout.size - layout.n_size))
    total = sparse.hstack([before, loads.slope, after], format="csr")
    constant = loads.steady.copy()
    own, own_constant = _first_part(loads, expansion, layout, scaling)
    other = sparse.diags(loads.current) @ _sizes_of(loads, layout) - own
    for node, part, fixed in (
        (loads.first, own, own_constant),
        (loads.second, other, loads.power - own_constant),
    ):
        total = total + sparse.csr_matrix((np.ones(k), (node, np.arange(k))), shape=(n, k)) @ part
        np.add.at(constant, node, fixed)
    return Affine(*parts(total), constant)


def _first_part(
    loads: LoadMoments, expansion: Expansion, layout: Layout, scaling: Scaling
) -> tuple[sparse.csr_matrix, Complex]:
    """Return the power of each delta load drawn from its first node: rows and constants."""
    k, columns = len(loads.delta), layout.n_column
    e_re, e_im, f_re, f_im = (
        pick(layout.rest + part * k + np.arange(k), np.ones(1), columns) for part in range(4)
    )
    entry = sparse.coo_matrix(expansion.slope)
    rise = expand_sums(Sums(entry.row, entry.col, entry.data), k, layout, scaling)
    away = rise.real + 1j * rise.imaginary + e_re + 1j * e_im
    r0, m0 = expansion.r0, expansion.m0
    steady = sparse.diags(r0) @ _sizes_of(loads, layout) + sparse.diags(m0) @ away + f_re + 1j * f_im
    rows = sparse.diags(loads.power) @ away + sparse.diags(loads.current) @ steady
    constant = loads.power * (r0 + rise.constant) + loads.current * m0 * rise.constant
    return sparse.csr_matrix(rows), constant


def _sizes_of(loads: LoadMoments, layout: Layout) -> sparse.csr_matrix:
    """Return rows that pick |w| of the delta loads with constant current, zero rows for the others."""
    row = np.flatnonzero(loads.delta_size >= 0)
    place = (row, layout.size + loads.delta_size[row])
    return sparse.csr_matrix((np.ones(len(row)), place), shape=(len(loads.delta), layout.n_column))


def _sizes(box: Rectangle) -> tuple[Array, Array]:
    """Return the largest |Re| and |Im| of rectangles."""
    re = np.maximum(abs(box.low.real), abs(box.high.real))
    return re, np.maximum(abs(box.low.imag), abs(box.high.imag))
