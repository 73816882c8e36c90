"""Loads of constant power and current in moments.

A load of constant current needs its voltage's magnitude |w|: not below E[w] in any direction, nor below the chord of
√E|w|², nor above tangents of it. How a delta load divides its power between its nodes: delta_loads.py.
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
    """Loads that are neither constant impedance nor known beforehand.

    sized : terminals whose magnitude |w| is a column
    steady : (n,) power drawn at each node, whatever the state ; slope : (n, n_sized) and per unit of magnitudes
    square, mean : E|w|² and E[w] of the sized terminals
    delta : terminals of delta loads ; first, second : their nodes ; across : (k, 2) their entries of T
    power, current : their s_power and s_current ; delta_size : place in sized, -1 without constant current
    """

    sized: Index
    steady: Complex
    slope: sparse.csr_matrix
    square: Products
    mean: Sums
    delta: Index
    first: Index
    second: Index
    across: Complex
    power: Complex
    current: Complex
    delta_size: Index


def build_load_moments(terminals: Terminals, v_source_pu: float) -> LoadMoments:
    """Lay out the loads."""
    wye = len(terminals.node)
    at_source = np.zeros(terminals.count, dtype=np.bool_)
    at_source[:wye] = terminals.node < N_SOURCE
    follows = terminals.s_current != 0.0
    sized = np.flatnonzero(follows & ~at_source)
    steady = np.zeros(terminals.n_node, dtype=np.complex128)
    np.add.at(steady, terminals.node, terminals.s_power[:wye])
    known = np.flatnonzero(at_source & follows)
    np.add.at(steady, terminals.node[known], terminals.s_current[known] * v_source_pu)
    free = np.flatnonzero(sized < wye)
    place = (terminals.node[sized[free]], free)
    slope = sparse.csr_matrix(
        (terminals.s_current[sized[free]], place), shape=(terminals.n_node, len(sized)), dtype=np.complex128
    )
    delta = np.arange(wye, terminals.count)
    node, across = _ends(terminals, delta)
    at = np.minimum(np.searchsorted(sized, delta), max(len(sized) - 1, 0))
    return LoadMoments(
        sized=sized,
        steady=steady,
        slope=slope,
        square=_squares(terminals, sized),
        mean=_means(terminals, sized),
        delta=delta,
        first=node[:, 0],
        second=node[:, 1],
        across=across,
        power=terminals.s_power[delta],
        current=terminals.s_current[delta],
        delta_size=np.where(follows[delta], at, -1),
    )


def magnitude_rows(loads: LoadMoments, bounds: Bounds, layout: Layout, scaling: Scaling) -> list[Block]:
    """Return rows around |w| of the sized terminals."""
    count, columns = len(loads.sized), layout.n_column
    if count == 0:
        return []
    m = pick(layout.size + np.arange(count), np.ones(1), columns)
    square = expand(loads.square, count, layout, scaling)
    mean = expand_sums(loads.mean, count, layout, scaling)
    low, high = bounds.w_low[loads.sized], bounds.w_high[loads.sized]
    u = square.constant.real
    slope = 1.0 / (low + high)
    rows = [(sparse.diags(slope) @ square.real - m, MARGIN_PU - slope * (low * high + u))]
    for at in (low, 0.5 * (low + high), high):
        slope = 0.5 / at
        rows.append((m - sparse.diags(slope) @ square.real, MARGIN_PU + slope * (at**2 + u)))
    sector = polar(bounds.w[loads.sized])
    for part in (0.1, 0.5, 0.9):
        turn = np.exp(-1j * ((1.0 - part) * sector.angle_low + part * sector.angle_high))
        ahead = sparse.diags(turn.real) @ mean.real - sparse.diags(turn.imag) @ mean.imaginary
        rows.append((ahead - m, MARGIN_PU - (turn * mean.constant).real))
    return rows


def _entries(terminals: Terminals, k: int) -> tuple[Index, Complex]:
    t = terminals.voltage
    part = slice(t.indptr[k], t.indptr[k + 1])
    return t.indices[part].astype(np.int64), t.data[part]


def _ends(terminals: Terminals, delta: Index) -> tuple[Index, Complex]:
    entries = [_entries(terminals, k) for k in delta.tolist()]
    node = np.array([node for node, _ in entries], dtype=np.int64).reshape(-1, 2)
    return node, np.array([a for _, a in entries], dtype=np.complex128).reshape(-1, 2)


def _squares(terminals: Terminals, which: Index) -> Products:
    out = Collector()
    for row, k in enumerate(which.tolist()):
        node, a = _entries(terminals, k)
        out.add(row, node[:, None], node[None, :], np.outer(a, a.conj()))
    return out.products()


def _means(terminals: Terminals, which: Index) -> Sums:
    out = Collector()
    for row, k in enumerate(which.tolist()):
        node, a = _entries(terminals, k)
        out.add(row, node, 0, a)
    return out.sums()
