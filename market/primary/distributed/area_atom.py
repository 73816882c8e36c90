"""One area's atom at one tangent program: its halves of the rounds, and what it says and hears of shared unknowns."""

from __future__ import annotations

from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import FederationError, InputError, Problem
from voltier.market.primary.distributed.atoms import Profile, atomise
from voltier.market.primary.distributed.local import local_problem
from voltier.market.primary.distributed.nst_pac import Foreign, NstPac, Snapshot
from voltier.market.primary.distributed.options import Options
from voltier.market.primary.distributed.part import Link, Part, cut
from voltier.market.primary.distributed.program import ConvexProgram

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]
Point = TypeVar("Point")


class LocalTangents(Protocol[Point]):
    """Tangent programs of which an area reads its own places' entries only."""

    def at(self, point: Point) -> ConvexProgram:
        """Return the program tangent at a point; its structure is known to all."""

    def moved(self, point: Point, x: Array, y: Array) -> Point:
        """Return the point that a solution describes; y is zero for rows of other areas."""

    def bends(self, point: Point, x: Array) -> Array:
        """Return what linearising has left at x at each place, (n_place,) [p.u.]."""


class AreaAtom(Generic[Point]):
    """An area at a point; x : (n,) what it believes of all unknowns, of which only its own and its copies are used."""

    def __init__(
        self,
        tangents: LocalTangents[Point],
        point: Point,
        x: Array,
        profile: Profile,
        area: int,
        options: Options,
    ) -> None:
        self._tangents, self._x = tangents, x
        self.point, self.program = point, tangents.at(point)
        atoms = atomise(self.program, profile)
        count = int(profile.atom_of_place.max()) + 1
        if atoms.n_atom != count:
            remedy = "areas that own something each"
            raise InputError([Problem("profile", "atom_of_place", count - atoms.n_atom, remedy)])
        self.part: Part = cut(atoms, area)
        self._local = local_problem(self.part.atoms)
        stiffness = self.program.stiffness[self.part.tie_column] * options.scale
        if not options.precondition:
            stiffness = np.full(len(self.part.tie_column), options.rho * options.gamma)
        foreign = Foreign(len(self.part.tie_column), self.part.mine, area)
        self._method = NstPac(self._local, options, stiffness, foreign)
        self._places = np.flatnonzero(profile.atom_of_place == area)
        self._kept: Snapshot | None = None
        self._before = np.zeros(0)

    @property
    def column(self) -> Index:
        """The program's columns of own unknowns and foreign ends."""
        return np.concatenate([self.part.atoms.column, self.part.tie_column])

    @property
    def rounds(self) -> int:
        """Rounds made at this point."""
        return self._method.rounds

    def begin_at(self, x: Array) -> None:
        """Start where everybody knows everything that is shared."""
        inside = np.clip(x, self.program.low, self.program.high)
        self._start(
            inside[self.column], np.zeros(len(self._local.rows.rhs)), np.zeros(len(self.part.tie_column))
        )

    def begin(self, a: Array, duals: Array, nu: Array) -> None:
        """Start from what another program's atom held."""
        self._start(a, self._local.local_duals(np.nan_to_num(duals)), nu)

    def _start(self, a: Array, eta: Array, nu: Array) -> None:
        self._method.begin(a, eta, nu)
        self._before = self._prices()

    # ------------------------------------------------------------------ halves of a round

    def primal(self) -> list[Array]:
        """Make the first half of a round; return what each neighbour is told of it."""
        self._method.primal()
        return [self._method.sent[link.give] for link in self.part.links]

    def dual(self) -> list[Array]:
        """Make the second half."""
        self._method.dual()
        return [self._method.nu_hat[link.give_dual] for link in self.part.links]

    def hear(self, told: Literal["primal", "dual"], link: Link, values: Array) -> None:
        """Take in what a neighbour told after its half. Raises FederationError where it is not what the two share."""
        place = link.take if told == "primal" else link.take_dual
        if len(values) != len(place):
            raise FederationError(
                f"area {link.neighbour} sent {len(values)} values to area {self.part.number}, which shares "
                f"{len(place)} with it: the two have different networks or profiles"
            )
        (self._method.sent if told == "primal" else self._method.nu_hat)[place] = values

    # ------------------------------------------------------------------ looks

    def look(self) -> tuple[float, float, float, float, float]:
        """Return this area's consensus, rows, change and size of prices, and bend; inf for what is no number."""
        method, atoms, local = self._method, self.part.atoms, self._local
        mine = slice(0, self.part.mine)
        prices = self._prices()
        rows = local.matrix @ method.a - local.rows.rhs
        bends = self._tangents.bends(self.point, self.agreed())[self._places]
        all_of_it = (
            method.a[atoms.copy[mine]] - method.sent[atoms.own[mine]], rows * local.norm, prices - self._before,
            prices, bends,
        )  # fmt: skip
        self._before = prices
        largest = (float(np.abs(part).max(initial=0.0)) for part in all_of_it)
        one, two, three, four, five = (value if np.isfinite(value) else np.inf for value in largest)
        return one, two, three, four, five

    def _prices(self) -> Array:
        row = self.program.price_row
        return self.duals()[row[self.masks()[1][row]]]

    def keep(self) -> None:
        """Remember this round."""
        self._kept = self._method.snapshot()

    def rewind(self) -> None:
        """Return to the round that was kept."""
        assert self._kept is not None
        self._method.rewind(self._kept)

    def restart(self) -> None:
        """Go on without momentum."""
        self._method.restart()

    # ------------------------------------------------------------------ what it holds

    def agreed(self) -> Array:
        """Return all unknowns as far as this area has heard, (n,): of shared ones what the owner has told."""
        x, size = self._x.copy(), self.part.size
        x[self.part.own_column] = self._method.sent[self.part.atoms.owner]
        mine = slice(0, self.part.mine)
        x[self.part.tie_column[mine]] = self._method.sent[size : size + self.part.mine]
        return x

    def held(self) -> tuple[Array, Array, Array]:
        """Return a start for another program: own unknowns and foreign ends, duals of the program's rows, and ν̂."""
        a, _, nu = self._method.held()
        return a, self.duals(), nu

    def x(self) -> Array:
        """Return own unknowns within their limits, (n,), nan where they are not this area's."""
        x, own = np.full(len(self._x), np.nan), self.part.own_column
        x[own] = np.clip(self._method.a[self.part.atoms.owner], self.program.low[own], self.program.high[own])
        return x

    def duals(self) -> Array:
        """Return multipliers of own rows, (m,), nan where they are not this area's."""
        y = np.full(len(self.program.rhs), np.nan)
        y[self._local.atoms.row[self._local.order]] = self._method.eta / self._local.norm
        return y

    def masks(self) -> tuple[Mask, Mask]:
        """Return whether columns, (n,), and rows, (m,), are this area's own."""
        column, row = np.zeros(len(self._x), dtype=bool), np.zeros(len(self.program.rhs), dtype=bool)
        column[self.part.own_column] = True
        row[self.part.atoms.row] = True
        return column, row
