"""A price on how fast the import changes from one period to the next, as columns and rows of a program of atoms.

    minimise cost + price · Σ_t (up_t + down_t)    with    head_t - head_(t-1) = up_t - down_t,   up, down ≥ 0

so that up + down is |head_t - head_(t-1)| wherever the price is above zero. Both columns and the row of a step are of
the place that owns the import: the steps tie nobody but the source to itself, and no atom sends or copies more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.errors import InputError, Problem
from voltier.market.primary.distributed.horizon import HorizonTangents
from voltier.market.primary.distributed.program import ConvexProgram
from voltier.market.primary.distributed.tangent_current import CurrentPoint

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RampPrice:
    """What a change of the import costs. usd_per_kw : of every kW, up or down ; cyclic : the day repeats itself.

    A cyclic day has as many steps as periods, the first from its own last period; else there is one step less.
    """

    usd_per_kw: float
    cyclic: bool

    def steps(self, n_period: int) -> tuple[Index, Index]:
        """Return the period before and the period after each step."""
        after = np.arange(0 if self.cyclic else 1, n_period, dtype=np.int64)
        return (after - 1) % n_period, after


def total_ramp(p: Array, *, cyclic: bool) -> float:
    """Return the sum of |p_t - p_(t-1)| along the first axis, with the step from the last to the first if cyclic."""
    change = np.abs(np.diff(p, axis=0)).sum()
    return float(change + (np.abs(p[0] - p[-1]).sum() if cyclic else 0.0))


def with_ramp(program: ConvexProgram, head: Index, price: RampPrice) -> ConvexProgram:
    """Add the price of ramps to a program; head : (T,) columns of the import of each period, of one place.

    Objective and import have the same base, so the price needs none. The new columns come last, the ups before the
    downs, and so do the rows. Raises InputError for a price that is not above zero and for less than two periods.
    """
    if not (np.isfinite(price.usd_per_kw) and price.usd_per_kw > 0.0 and len(head) > 1):
        value, remedy = (price.usd_per_kw, len(head)), "a finite price above zero, and two periods at least"
        raise InputError([Problem("ramp", "usd_per_kw, periods", value, remedy)])
    before, after = price.steps(len(head))
    n, m = len(program.linear), len(after)
    row = np.arange(m)
    place = (np.tile(row, 4), np.concatenate([head[after], head[before], n + row, n + m + row]))
    sign = np.repeat([1.0, -1.0, -1.0, 1.0], m)
    steps = sparse.csr_matrix((sign, place), shape=(m, n + 2 * m))
    wide = sparse.hstack([program.matrix, sparse.csr_matrix((len(program.rhs), 2 * m))])
    owner = np.full(m, program.column_place[head[0]], dtype=np.int64)
    return replace(
        program,
        curvature=np.append(program.curvature, np.zeros(2 * m)),
        linear=np.append(program.linear, np.full(2 * m, price.usd_per_kw)),
        matrix=sparse.csr_matrix(sparse.vstack([wide, steps])),
        rhs=np.append(program.rhs, np.zeros(m)),
        low=np.append(program.low, np.zeros(2 * m)),
        high=np.append(program.high, np.full(2 * m, np.inf)),
        column_place=np.append(program.column_place, np.tile(owner, 2)),
        row_place=np.append(program.row_place, owner),
        column_period=np.append(program.column_period, np.tile(after, 2)),
        row_period=np.append(program.row_period, after),
        stiffness=np.append(program.stiffness, np.ones(2 * m)),
    )


class RampTangents:
    """Tangent programs of a horizon whose import is to change little; a point is one CurrentPoint for each period."""

    def __init__(self, horizon: HorizonTangents, price: RampPrice) -> None:
        self.horizon, self.price = horizon, price
        layout, count = horizon.layout, len(horizon.tangents)
        self.head: Index = np.arange(count, dtype=np.int64) * layout.n_column + layout.head

    def at(self, point: Sequence[CurrentPoint]) -> ConvexProgram:
        """Return the program tangent at a point."""
        return with_ramp(self.horizon.at(point), self.head, self.price)

    def start(self, point: Sequence[CurrentPoint], u: Sequence[Array], head: Sequence[float]) -> Array:
        """Return the unknowns at a point; see HorizonTangents.start."""
        x = self.horizon.start(point, u, head)
        before, after = self.price.steps(len(self.head))
        change = x[self.head[after]] - x[self.head[before]]
        return np.concatenate([x, np.maximum(change, 0.0), np.maximum(-change, 0.0)])

    def moved(self, point: Sequence[CurrentPoint], x: Array, y: Array) -> list[CurrentPoint]:
        """Return the points that a solution describes."""
        return self.horizon.moved(point, x, y)

    def bend(self, point: Sequence[CurrentPoint], x: Array) -> float:
        """Return the largest power that linearising has left [p.u.]."""
        return self.horizon.bend(point, x)
