"""McCormick envelopes of the terminals' powers inside the cone program, in first moments of voltages and currents.

Moments know losses well and may still spread over many states where a voltage limit binds; envelopes hold mean
voltages, mean currents and powers together there. With w_r i_r >= f_1, f_2 and <= g_1, g_2 and so for the other three
products, P >= f(w_r i_r) + f(w_i i_i) for each choice of facets, likewise above, and for Q.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.market.primary.current_injection.bounds import Bounds
from voltier.market.primary.current_injection.collect import Sums
from voltier.market.primary.current_injection.intervals import Rectangle
from voltier.market.primary.current_injection.layout import Block, Layout, Scaling, expand_sums
from voltier.market.primary.current_injection.load_moments import MARGIN_PU, LoadMoments, terminal_powers
from voltier.market.primary.current_injection.terminals import Terminals

Array = NDArray[np.float64]
Facet = tuple[sparse.csr_matrix, Array]
Pair = tuple[Array, Array]


def envelope_rows(
    terminals: Terminals, loads: LoadMoments, bounds: Bounds, layout: Layout, scaling: Scaling
) -> list[Block]:
    """Return the envelopes of the terminals' powers."""
    active, count = loads.active, len(loads.active)
    w = expand_sums(loads.mean, count, layout, scaling)
    i = expand_sums(Sums(np.arange(count), loads.current, np.ones(count, complex)), count, layout, scaling)
    wr, wi = (w.real, w.constant.real), (w.imaginary, w.constant.imag)
    ir, ii = (i.real, i.constant.real), (i.imaginary, i.constant.imag)
    i_box, w_box = _wider(bounds.i[active]), _wider(bounds.w[active])
    a = _facets(wr, ir, (w_box.low.real, w_box.high.real), (i_box.low.real, i_box.high.real))
    b = _facets(wi, ii, (w_box.low.imag, w_box.high.imag), (i_box.low.imag, i_box.high.imag))
    c = _facets(wr, ii, (w_box.low.real, w_box.high.real), (i_box.low.imag, i_box.high.imag))
    d = _facets(wi, ir, (w_box.low.imag, w_box.high.imag), (i_box.low.real, i_box.high.real))
    power = terminal_powers(terminals, loads, layout)
    p, q = (power.real, power.constant.real), (power.imaginary, power.constant.imag)
    rows: list[Block] = []
    for k in range(2):
        for j in range(2):
            rows.append(_above(p, a[0][k], b[0][j], 1.0))
            rows.append(_above(_minus(p), _minus(a[1][k]), _minus(b[1][j]), 1.0))
            # Q = w_i i_r - w_r i_i
            rows.append(_above(q, d[0][k], c[1][j], -1.0))
            rows.append(_above(_minus(q), _minus(d[1][k]), _minus(c[0][j]), -1.0))
    return rows


def _facets(
    x: Facet, y: Facet, x_range: Pair, y_range: Pair
) -> tuple[tuple[Facet, Facet], tuple[Facet, Facet]]:
    """Return the two facets below and the two above the product of two affine forms."""
    (xl, xh), (yl, yh) = x_range, y_range
    return (
        (_plane(x, y, xl, yl), _plane(x, y, xh, yh)),
        (_plane(x, y, xl, yh), _plane(x, y, xh, yl)),
    )


def _plane(x: Facet, y: Facet, x0: Array, y0: Array) -> Facet:
    """Return x0·y + y0·x - x0·y0."""
    return sparse.diags(x0) @ y[0] + sparse.diags(y0) @ x[0], x0 * y[1] + y0 * x[1] - x0 * y0


def _minus(form: Facet) -> Facet:
    return -form[0], -form[1]


def _above(power: Facet, first: Facet, second: Facet, sign: float) -> Block:
    """Return first + sign·second <= power as rows."""
    matrix = first[0] + sign * second[0] - power[0]
    return sparse.csr_matrix(matrix), power[1] - first[1] - sign * second[1] + MARGIN_PU


def _wider(box: Rectangle) -> Rectangle:
    room = MARGIN_PU * (1.0 + 1.0j)
    return Rectangle(box.low - room, box.high + room)
