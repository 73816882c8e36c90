"""Readable twin of `mccormick`: the same relaxation, terminal by terminal, solved by cvxpy; for tests and readers."""

from __future__ import annotations

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import NotConvergedError
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.current_injection.case import Case
from voltier.market.primary.current_injection.intervals import polar
from voltier.market.primary.current_injection.mccormick import MARGIN_PU
from voltier.market.primary.current_injection.terminals import N_SOURCE, Terminals

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReferencePoint:
    """Optimal value, dispatch (3, n_smo) and import of the relaxation."""

    value: float
    u: Array
    head: float


def solve_mccormick_reference(network: ThreePhaseNetwork, terminals: Terminals, case: Case) -> ReferencePoint:
    """Do what McCormick does, without tangents of losses and without ratings. Raises NotConvergedError."""
    t, bids, bounds, n = terminals, case.bids, case.bounds, terminals.n_node
    p, q, g = u = [cp.Variable(t.share.shape[1]) for _ in range(3)]
    re, im = cp.Variable(n), cp.Variable(n)
    ir, ii = cp.Variable(t.count), cp.Variable(t.count)
    size, head = cp.Variable(t.count), cp.Variable()
    room = MARGIN_PU
    rules = [re[:N_SOURCE] == network.v_source_pu, im[:N_SOURCE] == 0.0]
    for k in range(3):
        rules += [u[k] >= bids.low[k] - room, u[k] <= bids.high[k] + room]
    y, into, across = t.y.toarray(), t.voltage.conj().T.toarray(), t.voltage.toarray()
    drawn = (y.real @ re - y.imag @ im, y.imag @ re + y.real @ im)
    given = (into.real @ ir - into.imag @ ii, into.imag @ ir + into.real @ ii)
    rules += [drawn[k][N_SOURCE:] == given[k][N_SOURCE:] for k in range(2)]
    rules.append(head == network.v_source_pu * cp.sum((drawn[0] - given[0])[:N_SOURCE]))
    wr, wi = across.real @ re - across.imag @ im, across.imag @ re + across.real @ im
    w, i = bounds.w, bounds.i
    ranges = {
        "wr": (w.low.real - room, w.high.real + room), "wi": (w.low.imag - room, w.high.imag + room),
        "ir": (i.low.real - room, i.high.real + room), "ii": (i.low.imag - room, i.high.imag + room),
    }  # fmt: skip
    value = {"wr": wr, "wi": wi, "ir": ir, "ii": ii}
    products = {}
    for x, c in (("wr", "ir"), ("wi", "ii"), ("wr", "ii"), ("wi", "ir")):
        products[x, c] = cp.Variable(t.count)
        rules += _envelope(products[x, c], value[x], value[c], ranges[x], ranges[c])
    power = products["wr", "ir"] + products["wi", "ii"], products["wi", "ir"] - products["wr", "ii"]
    rules += [
        power[0] == t.share @ (p + g) - t.s_power.real - cp.multiply(t.s_current.real, size),
        power[1] == t.share @ q - t.s_power.imag - cp.multiply(t.s_current.imag, size),
        *_inside(re, im, bounds.v.low - room * (1 + 1j), bounds.v.high + room * (1 + 1j), N_SOURCE),
        *_inside(ir, ii, i.low - room * (1 + 1j), i.high + room * (1 + 1j), 0),
        size >= bounds.w_low - room,
        size <= bounds.w_high + room,
        *_rings(re, im, case),
        *_magnitudes(wr, wi, size, case),
    ]
    problem = cp.Problem(cp.Minimize(_cost(case, t, u, head, re, im)), rules)
    problem.solve(solver=cp.CLARABEL)
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        raise NotConvergedError(f"cvxpy: {problem.status}")
    return ReferencePoint(float(problem.value), np.stack([part.value for part in u]), float(head.value))


def _envelope(
    product: cp.Variable,
    x: cp.Expression,
    y: cp.Expression,
    x_range: tuple[Array, Array],
    y_range: tuple[Array, Array],
) -> list[cp.Constraint]:
    (xl, xh), (yl, yh) = x_range, y_range
    corner = np.stack([xl * yl, xl * yh, xh * yl, xh * yh])
    return [
        product >= cp.multiply(xl, y) + cp.multiply(yl, x) - xl * yl,
        product >= cp.multiply(xh, y) + cp.multiply(yh, x) - xh * yh,
        product <= cp.multiply(xl, y) + cp.multiply(yh, x) - xl * yh,
        product <= cp.multiply(xh, y) + cp.multiply(yl, x) - xh * yl,
        product >= corner.min(axis=0) - MARGIN_PU,
        product <= corner.max(axis=0) + MARGIN_PU,
    ]


def _inside(
    re: cp.Variable, im: cp.Variable, low: NDArray[np.complex128], high: NDArray[np.complex128], first: int
) -> list[cp.Constraint]:
    return [
        re[first:] >= low.real[first:], re[first:] <= high.real[first:],
        im[first:] >= low.imag[first:], im[first:] <= high.imag[first:],
    ]  # fmt: skip


def _rings(re: cp.Variable, im: cp.Variable, case: Case) -> list[cp.Constraint]:
    bounds = case.bounds
    sector = polar(bounds.v)
    out = []
    for part in (0.0, 0.5, 1.0):
        turn = (1.0 - part) * sector.angle_low + part * sector.angle_high
        along = cp.multiply(np.cos(turn), re) + cp.multiply(np.sin(turn), im)
        out.append(along[N_SOURCE:] <= (bounds.size_high + MARGIN_PU)[N_SOURCE:])
        if part == 0.5:
            ahead = np.cos(0.5 * (sector.angle_high - sector.angle_low))
            least = np.where(ahead >= 0.0, bounds.size_low, bounds.size_high) * ahead - MARGIN_PU
            out.append(along[N_SOURCE:] >= least[N_SOURCE:])
    return out


def _magnitudes(wr: cp.Expression, wi: cp.Expression, size: cp.Variable, case: Case) -> list[cp.Constraint]:
    sector = polar(case.bounds.w)
    out = []
    for part in (0.1, 0.5, 0.9):
        turn = (1.0 - part) * sector.angle_low + part * sector.angle_high
        along = cp.multiply(np.cos(turn), wr) + cp.multiply(np.sin(turn), wi)
        out.append(along <= size + MARGIN_PU)
        if part == 0.5:
            ahead = np.cos(0.5 * (sector.angle_high - sector.angle_low))
            out.append(cp.multiply(ahead, size) <= along + MARGIN_PU)
    return out


def _cost(
    case: Case,
    terminals: Terminals,
    u: list[cp.Variable],
    head: cp.Variable,
    re: cp.Variable,
    im: cp.Variable,
) -> cp.Expression:
    bids, target = case.bids, case.target
    own = sum(
        cp.sum(cp.multiply(0.5 * bids.weight[k], cp.square(u[k])) + cp.multiply(bids.linear[k], u[k]))
        for k in range(3)
    )
    y = terminals.y_network.toarray()
    hermitian = 0.5 * (y + y.conj().T)
    both = np.block([[hermitian.real, -hermitian.imag], [hermitian.imag, hermitian.real]])
    loss = cp.quad_form(cp.hstack([re, im]), cp.psd_wrap(both))
    away = cp.sum_squares(re[N_SOURCE:] - target.target) + cp.sum_squares(im[N_SOURCE:])
    bought = bids.import_price * head + 0.5 * bids.import_curvature * cp.square(head)
    return own + bids.constant + bought + bids.loss_price * loss + target.weight * away
