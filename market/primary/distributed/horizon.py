"""The three-phase market over many periods with batteries as a program of atoms.

Periods stand side by side; a battery is a place of its own that owns what it charges, discharges and stores, and its
bus copies the first two. Energy obeys e_t = e_(t-1) - charge·p - discharge·g with p <= 0 what it charges at the grid
and g what it discharges, charge = hours·efficiency, discharge = hours/efficiency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.distributed.program import ConvexProgram, stack_periods
from voltier.market.primary.distributed.tangent_current import CurrentPoint, CurrentTangent
from voltier.market.primary.three_phase.batteries import Batteries, check_batteries
from voltier.market.primary.three_phase.problem import ScaledProblem

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Storage:
    """Batteries in the program's units [p.u. h], (k,) each but low and high, (T, k), of the end of each period."""

    charge: Array
    discharge: Array
    start: Array
    low: Array
    high: Array


def scaled_storage(batteries: Batteries, hours: float, n_period: int, s_phase_kva: float) -> Storage:
    """Return batteries per unit; raises InputError for batteries that cannot be."""
    check_batteries(batteries, len(batteries.charge_max_kw))
    low = np.tile(batteries.energy_min_kwh / s_phase_kva, (n_period, 1))
    low[-1] = np.maximum(low[-1], batteries.energy_end_kwh / s_phase_kva)
    return Storage(
        charge=hours * batteries.charge_efficiency,
        discharge=hours / batteries.discharge_efficiency,
        start=batteries.energy_start_kwh / s_phase_kva,
        low=low,
        high=np.tile(batteries.energy_max_kwh / s_phase_kva, (n_period, 1)),
    )


class HorizonTangents:
    """Tangent programs of a horizon; a point is one CurrentPoint for each period.

    tangent : made with the batteries as its last operators and places, one of all periods or, where taps move, one for
    each ; network : the same ; problems : one for each period, batteries among the bids (see
    three_phase.batteries.with_batteries)
    """

    def __init__(
        self,
        tangent: CurrentTangent | Sequence[CurrentTangent],
        network: ThreePhaseNetwork | Sequence[ThreePhaseNetwork],
        problems: Sequence[ScaledProblem],
        storage: Storage,
    ) -> None:
        count = len(problems)
        self.tangents = (tangent,) * count if isinstance(tangent, CurrentTangent) else tuple(tangent)
        self._networks = (network,) * count if isinstance(network, ThreePhaseNetwork) else tuple(network)
        self._problems, self._storage = problems, storage
        self.layout = self.tangents[0].layout

    def at(self, point: Sequence[CurrentPoint]) -> ConvexProgram:
        """Return the program of all periods, tied by what is stored."""
        periods = [
            tangent.at(network, problem, one)
            for tangent, network, problem, one in zip(
                self.tangents, self._networks, self._problems, point, strict=True
            )
        ]
        return _tied(stack_periods(periods), self.tangents[0], self._storage)

    def start(self, point: Sequence[CurrentPoint], u: Sequence[Array], head: Sequence[float]) -> Array:
        """Return the unknowns at a point with controls u, (3, n_smo) for each period, and idle batteries."""
        parts = zip(self.tangents, point, u, head, strict=True)
        own = [tangent.start(one, c, h) for tangent, one, c, h in parts]
        return np.concatenate([*own, np.tile(self._storage.start, len(own))])

    def split(self, x: Array) -> Array:
        """Return the unknowns of each period, (T, columns of one)."""
        count, width = len(self._problems), self.layout.n_column
        return x[: count * width].reshape(count, width)

    def stored(self, x: Array) -> Array:
        """Return the energy at the end of each period, (T, k) [p.u. h]."""
        first, (count, k) = len(self._problems) * self.layout.n_column, self._storage.low.shape
        return x[first : first + count * k].reshape(count, k)

    def moved(self, point: Sequence[CurrentPoint], x: Array, y: Array) -> list[CurrentPoint]:
        """Return the points that a solution describes."""
        height, f = self.layout.n_row, self.layout.n_free
        price = [float(np.mean(y[t * height : t * height + f])) for t in range(len(self._problems))]
        rows = zip(self.tangents, point, self.split(x), self._problems, price, strict=True)
        return [
            tangent.moved(one, part, p - problem.bids.loss_price) for tangent, one, part, problem, p in rows
        ]

    def bend(self, point: Sequence[CurrentPoint], x: Array) -> float:
        """Return the largest power that linearising has left [p.u.]."""
        return float(self.bends(point, x).max())

    def bends(self, point: Sequence[CurrentPoint], x: Array) -> Array:
        """Return the largest power that linearising has left at each place, (n_place,) [p.u.]."""
        rows = zip(self.tangents, point, self.split(x), strict=True)
        every = [tangent.bends(one, part) for tangent, one, part in rows]
        return np.asarray(np.max(every, axis=0))


def _tied(program: ConvexProgram, tangent: CurrentTangent, storage: Storage) -> ConvexProgram:
    """Return the program with stored energies as columns and their balances as rows."""
    count, k = storage.low.shape
    layout, n = tangent.layout, len(program.linear)
    when, battery = np.divmod(np.arange(count * k), k)
    row = np.arange(count * k)
    own = when * layout.n_column + layout.control + layout.n_smo - k + battery
    later = when > 0
    place = (
        np.concatenate([row, row, row, row[later]]),
        np.concatenate([own, own + 2 * layout.n_smo, n + row, (n + row - k)[later]]),
    )
    tail = [
        np.tile(storage.charge, count),
        np.tile(storage.discharge, count),
        np.ones(count * k),
        -np.ones(int(later.sum())),
    ]
    energy = sparse.csr_matrix((np.concatenate(tail), place), shape=(count * k, n + count * k))
    wide = sparse.hstack([program.matrix, sparse.csr_matrix((len(program.rhs), count * k))])
    rhs = np.where(later, 0.0, storage.start[battery])
    where = tangent.battery_place[battery]
    zero = np.zeros(count * k)
    return replace(
        program,
        curvature=np.append(program.curvature, zero),
        linear=np.append(program.linear, zero),
        matrix=sparse.csr_matrix(sparse.vstack([wide, energy])),
        rhs=np.append(program.rhs, rhs),
        low=np.append(program.low, storage.low.ravel()),
        high=np.append(program.high, storage.high.ravel()),
        column_place=np.append(program.column_place, where),
        row_place=np.append(program.row_place, where),
        column_period=np.append(program.column_period, when),
        row_period=np.append(program.row_period, when),
        stiffness=np.append(program.stiffness, zero + 1.0),
    )
