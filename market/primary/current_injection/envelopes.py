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
from voltier.market.primary.current_injection.collect import Collector, Sums, parts
from voltier.market.primary.current_injection.intervals import Rectangle
from voltier.market.primary.current_injection.layout import Affine, Block, Layout, Scaling, expand_sums, pick
from voltier.market.primary.current_injection.load_moments import MARGIN_PU, LoadMoments
from voltier.market.primary.current_injection.terminals import N_SOURCE, Terminals

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Facet = tuple[sparse.csr_matrix, Array]
Pair = tuple[Array, Array]


def active_terminals(terminals: Terminals) -> Index:
    """Return the terminals beyond the source."""
    return np.arange(int(np.count_nonzero(terminals.node < N_SOURCE)), terminals.count)


def voltage_sums(terminals: Terminals) -> Sums:
    """Return E[w] of the terminals beyond the source."""
    out = Collector()
    entry = sparse.coo_matrix(terminals.voltage[active_terminals(terminals)])
    out.add(entry.row, entry.col, 0, entry.data)
    return out.sums()


def current_rows(terminals: Terminals, drawn: Sums, layout: Layout, scaling: Scaling) -> list[Block]:
    """Return rows: E of what the network draws at each node beyond the source equals the terminals' currents."""
    active = active_terminals(terminals)
    network = expand_sums(drawn, terminals.n_node, layout, scaling)
    re, im = parts(terminals.voltage[active].conj().T)
    before = sparse.csr_matrix((terminals.n_node, layout.current))
    real = network.real - sparse.hstack([before, re, -im], format="csr")
    imaginary = network.imaginary - sparse.hstack([before, im, re], format="csr")
    return [
        (real[N_SOURCE:], -network.constant.real[N_SOURCE:]),
        (imaginary[N_SOURCE:], -network.constant.imag[N_SOURCE:]),
    ]


def envelope_rows(
    terminals: Terminals, loads: LoadMoments, bounds: Bounds, layout: Layout, scaling: Scaling
) -> list[Block]:
    """Return the ranges of the terminals' currents and the envelopes of their powers."""
    active = active_terminals(terminals)
    count, columns = len(active), layout.n_column
    w = expand_sums(voltage_sums(terminals), count, layout, scaling)
    ir = pick(layout.current + np.arange(count), np.ones(1), columns)
    ii = pick(layout.current + count + np.arange(count), np.ones(1), columns)
    i_box, w_box = _wider(bounds.i[active]), _wider(bounds.w[active])
    wr, wi = (w.real, w.constant.real), (w.imaginary, w.constant.imag)
    a = _facets(wr, ir, (w_box.low.real, w_box.high.real), (i_box.low.real, i_box.high.real))
    b = _facets(wi, ii, (w_box.low.imag, w_box.high.imag), (i_box.low.imag, i_box.high.imag))
    c = _facets(wr, ii, (w_box.low.real, w_box.high.real), (i_box.low.imag, i_box.high.imag))
    d = _facets(wi, ir, (w_box.low.imag, w_box.high.imag), (i_box.low.real, i_box.high.real))
    power = terminal_powers(terminals, loads, layout)
    p, q = (power.real, power.constant.real), (power.imaginary, power.constant.imag)
    rows = [
        (ir, i_box.high.real),
        (-ir, -i_box.low.real),
        (ii, i_box.high.imag),
        (-ii, -i_box.low.imag),
    ]
    for k in range(2):
        for j in range(2):
            rows.append(_above(p, a[0][k], b[0][j], 1.0))
            rows.append(_above(_minus(p), _minus(a[1][k]), _minus(b[1][j]), 1.0))
            # Q = w_i i_r - w_r i_i
            rows.append(_above(q, d[0][k], c[1][j], -1.0))
            rows.append(_above(_minus(q), _minus(d[1][k]), _minus(c[0][j]), -1.0))
    return rows


def terminal_powers(terminals: Terminals, loads: LoadMoments, layout: Layout) -> Affine:
    """Return what each terminal beyond the source injects."""
    active = active_terminals(terminals)
    share = terminals.share[active]
    rest = sparse.csr_matrix((len(active), layout.n_column - 3 * layout.n_smo))
    none = sparse.csr_matrix(share.shape)
    real = sparse.hstack([share, none, share, rest], format="csr")
    imaginary = sparse.hstack([none, share, none, rest], format="csr")
    at = loads.sized - active[0] if len(active) else loads.sized
    current = terminals.s_current[loads.sized]
    place = (at, layout.size + np.arange(len(at)))
    shape = (len(active), layout.n_column)
    real = real - sparse.csr_matrix((current.real, place), shape=shape)
    imaginary = imaginary - sparse.csr_matrix((current.imag, place), shape=shape)
    return Affine(sparse.csr_matrix(real), sparse.csr_matrix(imaginary), -terminals.s_power[active])


def _facets(
    x: Facet, y: sparse.csr_matrix, x_range: Pair, y_range: Pair
) -> tuple[tuple[Facet, Facet], tuple[Facet, Facet]]:
    """Return the two facets below and the two above the product of an affine x and a column y."""
    (xl, xh), (yl, yh) = x_range, y_range
    return (
        (_plane(x, y, xl, yl), _plane(x, y, xh, yh)),
        (_plane(x, y, xl, yh), _plane(x, y, xh, yl)),
    )


def _plane(x: Facet, y: sparse.csr_matrix, x0: Array, y0: Array) -> Facet:
    """Return x0·y + y0·x - x0·y0."""
    return sparse.diags(x0) @ y + sparse.diags(y0) @ x[0], y0 * x[1] - x0 * y0


def _minus(form: Facet) -> Facet:
    return -form[0], -form[1]


def _above(power: Facet, first: Facet, second: Facet, sign: float) -> Block:
    """Return first + sign·second <= power as rows."""
    matrix = first[0] + sign * second[0] - power[0]
    return sparse.csr_matrix(matrix), power[1] - first[1] - sign * second[1] + MARGIN_PU


def _wider(box: Rectangle) -> Rectangle:
    room = MARGIN_PU * (1.0 + 1.0j)
    return Rectangle(box.low - room, box.high + room)
