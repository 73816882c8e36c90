"""One front for the distributed methods: rounds, stopping rule, restart, history, certificate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from voltier.market.primary.distributed.admm import Admm
from voltier.market.primary.distributed.anderson import Anderson
from voltier.market.primary.distributed.atoms import Atoms, Profile, atomise
from voltier.market.primary.distributed.judge import Judge, Look, Verdict
from voltier.market.primary.distributed.local import LocalProblem, local_problem
from voltier.market.primary.distributed.nst_pac import NstPac
from voltier.market.primary.distributed.options import MethodName, Options, check_options
from voltier.market.primary.distributed.pac import Pac
from voltier.market.primary.distributed.program import ConvexProgram, check_program

Array = NDArray[np.float64]

DEFAULT_OPTIONS = Options()


class Method(Protocol):
    """A method at work: a, eta, nu are what its atoms hold now; flat is all that the next round depends on.

    metric : (len(flat),) weights in which a step's size is measured
    """

    flat: Array
    metric: Array
    a: Array
    eta: Array

    @property
    def nu(self) -> Array:
        """Multipliers of the rows of B."""

    def begin(self, a: Array, eta: Array, nu: Array) -> None:
        """Start from local unknowns and multipliers."""

    def advance(self, count: int) -> None:
        """Advance by count rounds."""

    def held(self) -> tuple[Array, Array, Array]:
        """Return local unknowns, η and ν from which to begin at another program."""

    def restart(self) -> None:
        """Forget the momentum."""


@dataclass(frozen=True, slots=True)
class History:
    """One entry for each look.

    rounds ; consensus_pu ‖Ba‖∞ ; rows_pu ‖Ga - b‖∞ ; price_change : since the last look, of the
    largest ; cost : of the owners.
    """

    rounds: Array
    consensus_pu: Array
    rows_pu: Array
    price_change: Array
    cost: Array


@dataclass(frozen=True, slots=True)
class Certificate:
    """How good a solution is, judged on the program itself with the owners' unknowns and the atoms' own duals.

    primal_pu : largest residual of an equation, between owners ; consensus_pu : largest copy - owner
    dual_usd_per_kwh : largest slope of the Lagrangian that no limit holds
    cost : the objective ; gap : (cost - central cost)/|central cost|, nan when no central optimum was given
    converged : the stopping rule was met
    """

    primal_pu: float
    consensus_pu: float
    dual_usd_per_kwh: float
    cost: float
    gap: float
    converged: bool


@dataclass(frozen=True, slots=True)
class Warm:
    """Where a solve ended, as a start for a program of the same structure.

    a : (L,) local unknowns ; duals : (m,) of the program's rows ; nu : (c,) of the rows of B
    """

    a: Array
    duals: Array
    nu: Array


@dataclass(frozen=True, slots=True)
class DistributedSolution:
    """x (n,), duals (m,) of the program's rows, rounds, history and certificate; warm : where the atoms stand.

    moving : the program is tangent to another one at a point that is to be left
    """

    x: Array
    duals: Array
    rounds: int
    history: History
    certificate: Certificate
    warm: Warm
    moving: bool


def solve_distributed(
    program: ConvexProgram,
    profile: Profile,
    method: MethodName = "pac",
    options: Options = DEFAULT_OPTIONS,
    *,
    start: Array | None = None,
    central_cost: float | None = None,
) -> DistributedSolution:
    """Solve a program by atoms that exchange only what the method sends.

    start : (n,) unknowns to begin with (None: nearest to 0 within the boxes) ; central_cost : known optimum, for the
    gap. A solve that runs out of rounds is returned as not converged. Raises InputError for a program, profile or
    option that cannot be.
    """
    check_program(program)
    return DistributedSolver(program, profile, method, options).solve(
        program, start=start, central_cost=central_cost
    )


@dataclass(slots=True)
class _Book:
    rows: list[tuple[float, float, float, float, float]] = field(default_factory=list)

    def history(self) -> History:
        return History(*(np.array(column) for column in zip(*self.rows, strict=True)))


class DistributedSolver:
    """A method on a program's atoms; solve() begins anew or from where an earlier solve ended."""

    def __init__(
        self, program: ConvexProgram, profile: Profile, method: MethodName, options: Options = DEFAULT_OPTIONS
    ) -> None:
        check_options(options)
        self.profile, self._name, self._options = profile, method, options
        self.atoms: Atoms = atomise(program, profile)

    def solve(
        self,
        program: ConvexProgram,
        *,
        start: Array | None = None,
        warm: Warm | None = None,
        central_cost: float | None = None,
        bend: Callable[[Array], float] | None = None,
    ) -> DistributedSolution:
        """Solve a program of the structure this solver was made for.

        bend : what linearising has left at unknowns [p.u.]; a program tangent to another is left as soon as it has no
        more to say about that
        """
        atoms = self.atoms = atomise(program, self.profile)
        local = local_problem(atoms)
        worker = build_method(self._name, local, self._options, program.stiffness)
        x = np.clip(np.zeros(len(program.linear)) if start is None else start, program.low, program.high)
        if warm is None:
            worker.begin(atoms.spread(x), np.zeros(len(atoms.rhs)), np.zeros(atoms.n_copy))
        else:
            worker.begin(warm.a, local.local_duals(warm.duals), warm.nu)
        rounds, history, verdict = self._run(worker, program, local, bend)
        x = np.clip(atoms.gathered(worker.a), program.low, program.high)
        duals = local.row_duals(worker.eta)
        certificate = certify(program, atoms, worker.a, duals, central_cost, converged=verdict == "agreed")
        a, _, nu = worker.held()
        warm = Warm(a, duals, nu)
        return DistributedSolution(x, duals, rounds, history, certificate, warm, verdict == "move")

    def _run(
        self,
        worker: Method,
        program: ConvexProgram,
        local: LocalProblem,
        bend: Callable[[Array], float] | None,
    ) -> tuple[int, History, Verdict]:
        stop, atoms, book = self._options.stop, local.atoms, _Book()
        faster = Anderson(worker, self._options.anderson) if self._options.anderson else None
        before, rounds = local.row_duals(worker.eta)[program.price_row], 0
        judge = Judge(self._options)
        while rounds < stop.max_rounds:
            count = min(stop.look_every, stop.max_rounds - rounds)
            (worker if faster is None else faster).advance(count)
            rounds += count
            prices = local.row_duals(worker.eta)[program.price_row]
            x = atoms.gathered(worker.a)
            look = Look(
                consensus_pu=float(np.abs(worker.a[atoms.copy] - worker.a[atoms.own]).max(initial=0.0)),
                rows_pu=float(
                    (np.abs(local.matrix @ worker.a - local.rows.rhs) * local.norm).max(initial=0.0)
                ),
                price_step=float(np.abs(prices - before).max(initial=0.0)),
                price_size=float(np.abs(prices).max(initial=0.0)),
                bend_pu=0.0 if bend is None else bend(x),
            )
            cost = program.cost(x)
            book.rows.append((rounds, look.consensus_pu, look.rows_pu, look.price_change, cost))
            verdict = judge.verdict(look)
            if verdict in ("agreed", "broken", "move"):
                return rounds, book.history(), verdict
            if verdict == "restart":
                worker.restart()
            before = prices
        return rounds, book.history(), "on"


def build_method(name: MethodName, local: LocalProblem, options: Options, stiffness: Array) -> Method:
    """Return a method on a local problem; stiffness : (n,) of the program's columns."""
    one = np.full(len(local.atoms.column), options.rho)
    if options.precondition:
        weight = options.scale * stiffness[local.atoms.column]
    else:
        weight = options.scale * one if name == "admm" else options.gamma * one
    if name == "admm":
        return Admm(local, options, weight)
    return Pac(local, options, weight) if name == "pac" else NstPac(local, options, weight[local.atoms.copy])


def certify(
    program: ConvexProgram,
    atoms: Atoms,
    a: Array,
    duals: Array,
    central_cost: float | None,
    *,
    converged: bool,
) -> Certificate:
    """Judge what the atoms hold against the program that none of them sees."""
    x = np.clip(atoms.gathered(a), program.low, program.high)
    pull = program.pull(x, duals)
    # A limit holds what would move the unknown out of its box.
    moved = np.clip(x - pull, program.low, program.high) - x
    cost = program.cost(x)
    gap = np.nan if central_cost is None else (cost - central_cost) / max(abs(central_cost), 1e-9)
    return Certificate(
        primal_pu=float(np.abs(program.matrix @ x - program.rhs).max(initial=0.0)),
        consensus_pu=float(np.abs(a[atoms.copy] - a[atoms.own]).max(initial=0.0)),
        dual_usd_per_kwh=float(np.abs(moved).max(initial=0.0)),
        cost=cost,
        gap=float(gap),
        converged=converged,
    )
