"""One front for the distributed methods: rounds, stopping rule, restart, history, certificate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from voltier.market.primary.distributed.admm import Admm
from voltier.market.primary.distributed.anderson import Anderson
from voltier.market.primary.distributed.atoms import Atoms, Profile, atomise
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
    """Where a solve ended, as a start for a program of the same structure: local unknowns and multipliers."""

    a: Array
    eta: Array
    nu: Array


@dataclass(frozen=True, slots=True)
class DistributedSolution:
    """x (n,), duals (m,) of the program's rows, rounds, history and certificate; warm : where the atoms stand."""

    x: Array
    duals: Array
    rounds: int
    history: History
    certificate: Certificate
    warm: Warm


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
    ) -> DistributedSolution:
        """Solve a program of the structure this solver was made for."""
        atoms = self.atoms = atomise(program, self.profile)
        local = local_problem(atoms)
        worker = build_method(self._name, local, self._options, program.stiffness)
        x = np.clip(np.zeros(len(program.linear)) if start is None else start, program.low, program.high)
        if warm is None:
            worker.begin(atoms.spread(x), np.zeros(len(atoms.rhs)), np.zeros(atoms.n_copy))
        else:
            worker.begin(warm.a, warm.eta, warm.nu)
        rounds, history, converged = self._run(worker, program, local)
        x = np.clip(atoms.gathered(worker.a), program.low, program.high)
        duals = local.row_duals(worker.eta)
        certificate = certify(program, atoms, worker.a, duals, central_cost, converged=converged)
        warm = Warm(worker.a.copy(), worker.eta.copy(), worker.nu.copy())
        return DistributedSolution(x, duals, rounds, history, certificate, warm)

    def _run(self, worker: Method, program: ConvexProgram, local: LocalProblem) -> tuple[int, History, bool]:
        stop, atoms, book = self._options.stop, local.atoms, _Book()
        faster = Anderson(worker, self._options.anderson) if self._options.anderson else None
        before, best, rounds, converged = local.row_duals(worker.eta)[program.price_row], np.inf, 0, False
        while rounds < stop.max_rounds and not converged:
            count = min(stop.look_every, stop.max_rounds - rounds)
            (worker if faster is None else faster).advance(count)
            rounds += count
            prices = local.row_duals(worker.eta)[program.price_row]
            largest = float(np.abs(prices).max(initial=0.0))
            change = float(np.abs(prices - before).max(initial=0.0)) / max(largest, 1e-12)
            tie = float(np.abs(worker.a[atoms.copy] - worker.a[atoms.own]).max(initial=0.0))
            row = float((np.abs(local.matrix @ worker.a - local.rows.rhs) * local.norm).max(initial=0.0))
            cost = program.cost(atoms.gathered(worker.a))
            book.rows.append((rounds, tie, row, change, cost))
            worst = max(tie, row)
            converged = worst <= stop.primal_pu and change <= stop.price_change
            if not np.isfinite(worst):
                break
            if worst > self._options.restart_growth * best:
                worker.restart()
                best = worst
            best, before = min(best, worst), prices
        return rounds, book.history(), converged


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
