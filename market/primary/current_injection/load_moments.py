"""Terminals in moments: the currents of operators and loads beside the voltages they enter at.

A terminal at w = T v with current i injects E[w conj(i)], and the part E[T_n v_n conj(i)] of it at each of its nodes:
linear in moments, for wye and delta alike, and held together by a positive semidefinite matrix of (1, v, i). Where
the voltages are those of one state, so is the division of a delta load between its nodes (after Zhao, Dall'Anese and
Low, IREP Symposium 2017). A load of constant current needs its voltage's magnitude |w|: not below E[w] in any
direction, nor below the chord of √E|w|², nor above tangents of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.market.primary.current_injection.bounds import Bounds
from voltier.market.primary.current_injection.collect import Collector, Products, Sums
from voltier.market.primary.current_injection.intervals import polar
from voltier.market.primary.current_injection.layout import (
    Affine,
    Block,
    Layout,
    Scaling,
    expand,
    expand_sums,
    pick,
)
from voltier.market.primary.current_injection.terminals import N_SOURCE, Terminals

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

# Room added to every range [p.u.], so that the program has an inside where a range is a point.
MARGIN_PU = 1e-7


@dataclass(frozen=True, slots=True)
class LoadMoments:
    """What enters at terminals beyond the source (active ones), in moments.

    active : (k,) terminals beyond the source ; current : (k,) the quantities that are their currents
    bases : quantities of each active terminal, its nodes and its current
    sized : terminals whose magnitude |w| is a column
    square : E|w|² and mean : E[w] of the active terminals ; power : E[w conj(i)] of them
    injected : power that they inject at each node ; entering : Σ conj(T) E[i] at each node
    """

    active: Index
    current: Index
    bases: tuple[Index, ...]
    sized: Index
    square: Products
    mean: Sums
    power: Products
    injected: Products
    entering: Sums


def build_load_moments(terminals: Terminals, first_current: int) -> LoadMoments:
    """Lay out the terminals; first_current : the quantity that is the first one's current."""
    active = np.arange(np.count_nonzero(terminals.node < N_SOURCE), terminals.count, dtype=np.int64)
    current = first_current + np.arange(len(active))
    square, mean, power = Collector(), Collector(), Collector()
    injected, entering = Collector(), Collector()
    bases = []
    for row, k in enumerate(active.tolist()):
        t = terminals.voltage
        part = slice(t.indptr[k], t.indptr[k + 1])
        node, a, i = t.indices[part].astype(np.int64), t.data[part], current[row]
        bases.append(np.append(node, i))
        square.add(row, node[:, None], node[None, :], np.outer(a, a.conj()))
        mean.add(row, node, 0, a)
        power.add(row, node, i, a)
        injected.add(node, node, i, a)
        entering.add(node, i, 0, a.conj())
    return LoadMoments(
        active=active,
        current=current,
        bases=tuple(bases),
        sized=active[terminals.s_current[active] != 0.0],
        square=square.products(),
        mean=mean.sums(),
        power=power.products(),
        injected=injected.products(),
        entering=entering.sums(),
    )


def terminal_powers(terminals: Terminals, loads: LoadMoments, layout: Layout) -> Affine:
    """Return what operators and loads inject at each active terminal."""
    active = loads.active
    share = terminals.share[active]
    rest = sparse.csr_matrix((len(active), layout.n_column - 3 * layout.n_smo))
    none = sparse.csr_matrix(share.shape)
    real = sparse.hstack([share, none, share, rest], format="csr")
    imaginary = sparse.hstack([none, share, none, rest], format="csr")
    at = np.searchsorted(active, loads.sized)
    current = terminals.s_current[loads.sized]
    place = (at, layout.size + np.arange(len(at)))
    shape = (len(active), layout.n_column)
    real = real - sparse.csr_matrix((current.real, place), shape=shape)
    imaginary = imaginary - sparse.csr_matrix((current.imag, place), shape=shape)
    return Affine(sparse.csr_matrix(real), sparse.csr_matrix(imaginary), -terminals.s_power[active])


def power_rows(terminals: Terminals, loads: LoadMoments, layout: Layout, scaling: Scaling) -> list[Block]:
    """Return rows: E[w conj(i)] of each active terminal is what operators and loads inject there."""
    form = expand(loads.power, len(loads.active), layout, scaling)
    power = terminal_powers(terminals, loads, layout)
    side = power.constant - form.constant
    return [(form.real - power.real, side.real), (form.imaginary - power.imaginary, side.imag)]


def current_rows(
    terminals: Terminals, loads: LoadMoments, drawn: Sums, layout: Layout, scaling: Scaling
) -> list[Block]:
    """Return rows: E of what the network draws at each node beyond the source equals the terminals' currents."""
    network = expand_sums(drawn, terminals.n_node, layout, scaling)
    into = expand_sums(loads.entering, terminals.n_node, layout, scaling)
    side = (into.constant - network.constant)[N_SOURCE:]
    return [
        ((network.real - into.real)[N_SOURCE:], side.real),
        ((network.imaginary - into.imaginary)[N_SOURCE:], side.imag),
    ]


def square_rows(
    terminals: Terminals, loads: LoadMoments, bounds: Bounds, layout: Layout, scaling: Scaling
) -> list[Block]:
    """Return rows: E|i|² stays below |S|²/|w|², with |S|² below its secant and 1/|w|² below its chord.

    X = (p_low + p_high) P - p_low p_high + likewise in Q, and Y = (u_low + u_high - u)/(u_low u_high) with u = |w|²,
    are linear, and so are the two McCormick facets above X Y.
    """
    k, active = np.arange(len(loads.active)), loads.active
    current = Products(k, loads.current, loads.current, np.ones(len(k), dtype=np.complex128))
    i = expand(current, len(k), layout, scaling)
    u = expand(loads.square, len(k), layout, scaling)
    power = terminal_powers(terminals, loads, layout)
    low, high = _power_range(terminals, bounds, active)
    slope = low + high
    x = sparse.diags(slope.real) @ power.real + sparse.diags(slope.imag) @ power.imaginary
    x0 = _dot(slope, power.constant) - _dot(low, high)
    square = np.stack([low.real**2, high.real**2]), np.stack([low.imag**2, high.imag**2])
    x_low, x_high = (end(square[0], 0) + end(square[1], 0) for end in (np.min, np.max))
    u_low, u_high = bounds.w_low[active] ** 2, bounds.w_high[active] ** 2
    y_low, y_high = 1.0 / u_high, 1.0 / u_low
    y0, fall = y_low + y_high - y_low * y_high * u.constant.real, y_low * y_high
    rows: list[Block] = []
    for x_at, y_at in ((x_low, y_high), (x_high, y_low)):
        above = sparse.diags(y_at) @ x - sparse.diags(x_at * fall) @ u.real
        side = y_at * x0 + x_at * y0 - x_at * y_at - i.constant.real + MARGIN_PU
        rows.append((sparse.csr_matrix(i.real - above), side))
    return rows


def _power_range(terminals: Terminals, bounds: Bounds, active: Index) -> tuple[Complex, Complex]:
    """Return the least and greatest that terminals inject, real and imaginary parts by themselves."""
    steady = terminals.s_current[active]
    drawn = np.stack([steady * bounds.w_low[active], steady * bounds.w_high[active]])
    part = bounds.power[active]
    room = MARGIN_PU * (1.0 + 1.0j)
    low = part.low - (drawn.real.max(axis=0) + 1j * drawn.imag.max(axis=0)) - room
    high = part.high - (drawn.real.min(axis=0) + 1j * drawn.imag.min(axis=0)) + room
    return low - terminals.s_power[active], high - terminals.s_power[active]


def _dot(first: Complex, second: Complex) -> Array:
    return np.asarray(first.real * second.real + first.imag * second.imag)


def magnitude_rows(loads: LoadMoments, bounds: Bounds, layout: Layout, scaling: Scaling) -> list[Block]:
    """Return rows around |w| of the sized terminals."""
    count, columns = len(loads.sized), layout.n_column
    if count == 0:
        return []
    at = np.searchsorted(loads.active, loads.sized)
    m = pick(layout.size + np.arange(count), np.ones(1), columns)
    square, mean = (
        _of(expand(loads.square, len(loads.active), layout, scaling), at),
        _of(expand_sums(loads.mean, len(loads.active), layout, scaling), at),
    )
    low, high = bounds.w_low[loads.sized], bounds.w_high[loads.sized]
    u = square.constant.real
    slope = 1.0 / (low + high)
    rows = [(sparse.diags(slope) @ square.real - m, MARGIN_PU - slope * (low * high + u))]
    for touched in (low, 0.5 * (low + high), high):
        slope = 0.5 / touched
        rows.append((m - sparse.diags(slope) @ square.real, MARGIN_PU + slope * (touched**2 + u)))
    sector = polar(bounds.w[loads.sized])
    for part in (0.1, 0.5, 0.9):
        turn = np.exp(-1j * ((1.0 - part) * sector.angle_low + part * sector.angle_high))
        ahead = sparse.diags(turn.real) @ mean.real - sparse.diags(turn.imag) @ mean.imaginary
        rows.append((ahead - m, MARGIN_PU - (turn * mean.constant).real))
    return rows


def _of(form: Affine, at: Index) -> Affine:
    return Affine(form.real[at], form.imaginary[at], form.constant[at])
