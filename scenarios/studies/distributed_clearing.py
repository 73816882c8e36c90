"""Distributed clearing of the primary market beside the central one: rounds, accuracy, time and what is told.

A case is a feeder, a formulation and a method with its default options, an atom at every node. Rounds to an accuracy
are those on the program tangent at the central optimum from a flat start; a whole clearing moves that point too.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, Problem
from voltier.market.primary.distributed.atoms import atomise, per_node
from voltier.market.primary.distributed.options import MethodName, Options, StoppingRule
from voltier.market.primary.distributed.solve import DistributedSolution, solve_distributed
from voltier.market.primary.distributed.successive import SuccessiveSolution, solve_successive
from voltier.scenarios.manifest import write_json
from voltier.scenarios.studies.cases import CaseKpis, new_directory
from voltier.scenarios.studies.distributed_cases import (
    FEEDERS,
    FORMULATIONS,
    AtomMarket,
    CentralOptimum,
    Formulation,
    atom_market,
    central_optimum,
)
from voltier.scenarios.studies.distributed_page import write_page
from voltier.scenarios.studies.distributed_scaling import ScalingPoint, scaling, seconds_per_round

Array = NDArray[np.float64]

METHODS: tuple[MethodName, ...] = get_args(MethodName)
GOALS = (1e-3, 1e-4)
"""Accuracies whose rounds are counted: of relative cost, consensus and equations alike."""
TRACED = Options(stop=StoppingRule(primal_pu=1e-6, price_change=1e-6, max_rounds=20_000))
"""Goes on beyond the default rule, for the picture and for the rounds to an accuracy."""
TARGETS = {"cost_error": 1e-3, "set_point_error_pu": 1e-3, "dlmp_error": 0.02}
"""What a distributed clearing may differ by from the central one; prices of the largest price."""
TOLD_PER_COPY = {"pac": 2, "nst-pac": 3, "admm": 2}
"""Numbers that pass between owner and copying atom in a round: a and ν̂; the copy too; what is averaged, and back."""
COPIES = (4, 16, 64)
COLUMNS = ("case", "round", "cost_error", "consensus_pu", "equations_pu", "price_change")

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CaseFound:
    """What one method did on one market. traced : on the program at the central optimum, beyond the stopping rule.

    cost_error : (k,) relative, at each of its looks ; kpis : its key figures
    """

    market: AtomMarket
    method: MethodName
    traced: DistributedSolution
    cost_error: Array
    kpis: dict[str, Any]

    @property
    def worst(self) -> Array:
        """The largest of relative cost error, consensus [p.u.] and equations [p.u.] at each look, (k,)."""
        history = self.traced.history
        return np.maximum(self.cost_error, np.maximum(history.consensus_pu, history.rows_pu))


def study_distributed_clearing(
    out: Path,
    *,
    feeders: Sequence[str] = FEEDERS,
    formulations: Sequence[str] = FORMULATIONS,
    methods: Sequence[str] = METHODS,
    copies: Sequence[int] = COPIES,
    feeder_files: Path | None = None,
    tell: Tell = lambda text: None,
) -> CaseKpis:
    """Clear each market by each method; write out/kpis.json, one flat object a case, histories.csv and index.html.

    copies : how many copies of IEEE 123 to time a round of, 0 and below none ; feeder_files : folder that may hold the
    8500-node feeder ; tell : is told what is being done. Raises InputError if out holds something already or an option
    is wrong.
    """
    _check(feeders, formulations, methods, copies)
    new_directory(out)
    chosen = [cast(MethodName, name) for name in dict.fromkeys(methods)]
    cases: list[CaseFound] = []
    kpis: CaseKpis = {}
    for formulation in dict.fromkeys(formulations):
        for feeder in dict.fromkeys(feeders):
            for case in clear_market(atom_market(feeder, cast(Formulation, formulation)), chosen, tell):
                cases.append(case)
                kpis[f"{case.market.key}.{case.method}"] = case.kpis
                write_json(out / "kpis.json", kpis)
    write_histories(out / "histories.csv", cases)
    sizes = [count for count in dict.fromkeys(copies) if count > 0]
    points = list(scaling(list(dict.fromkeys(feeders)), sizes, chosen, feeder_files, tell))
    kpis |= {f"scaling.{point.label.replace(' ', '_')}": scaling_kpis(point) for point in points}
    write_json(out / "kpis.json", kpis)
    write_page(out / "index.html", cases, points, TARGETS)
    return kpis


def clear_market(market: AtomMarket, methods: Sequence[MethodName], tell: Tell) -> list[CaseFound]:
    """Clear a market centrally and by each method."""
    tell(f"{market.key}: central")
    now = central_optimum(market.now, market.flat)
    later = central_optimum(market.later, now.point)
    found = []
    for method in methods:
        tell(f"{market.key}: {method}")
        found.append(_clear(market, method, now, later))
    return found


def _clear(market: AtomMarket, method: MethodName, now: CentralOptimum, later: CentralOptimum) -> CaseFound:
    program, options, profile = now.program, Options(), per_node(now.program)
    central = now.solution.cost
    traced = solve_distributed(program, profile, method, TRACED, start=market.start, central_cost=central)
    solution = solve_distributed(program, profile, method, options, start=market.start, central_cost=central)
    cold = solve_successive(market.now, market.flat, market.start, profile, method, options)
    warm = solve_successive(
        market.later, cold.point, cold.solution.x, profile, method, options, warm=cold.solution.warm
    )
    cost_error = np.abs(traced.history.cost / central - 1.0)
    atoms = atomise(program, profile)
    found = CaseFound(market, method, traced, cost_error, {})
    found.kpis.update(
        {
            "atoms": atoms.n_atom,
            "unknowns": len(atoms.column),
            "values_told_per_round": TOLD_PER_COPY[method] * atoms.n_copy,
            **{f"rounds_to_{goal:.0e}": rounds_to(found, goal) for goal in GOALS},
            "rounds": solution.rounds,
            "converged": solution.certificate.converged,
            **differences(market, solution, now),
            "consensus_pu": solution.certificate.consensus_pu,
            "equations_pu": solution.certificate.primal_pu,
            "s_per_1000_rounds": 1e3 * seconds_per_round(program, market.start, method),
            **_clearing_kpis("cold", market, cold, now),
            **_clearing_kpis("warm", market, warm, later),
        }
    )
    return found


def rounds_to(case: CaseFound, goal: float) -> int | None:
    """Return the rounds after which cost error, consensus and equations stay within the goal, None if they do not."""
    bad = np.flatnonzero(~(case.worst < goal))
    first = int(bad[-1]) + 1 if len(bad) else 0
    return int(case.traced.history.rounds[first]) if first < len(case.worst) else None


def differences(
    market: AtomMarket, solution: DistributedSolution, central: CentralOptimum
) -> dict[str, float]:
    """Return relative cost error, largest difference of a set-point [p.u.], and of a price, of the largest price."""
    true, found = market.dlmp(central.solution.y), market.dlmp(solution.duals)
    return {
        "cost_error": abs(solution.certificate.cost / central.solution.cost - 1.0),
        "set_point_error_pu": float(np.abs(solution.x - central.solution.x)[market.controls].max()),
        "dlmp_error": float(np.abs(found - true).max() / np.abs(true).max()),
    }


def _clearing_kpis(
    name: str, market: AtomMarket, found: SuccessiveSolution[Any], central: CentralOptimum
) -> dict[str, Any]:
    values: dict[str, Any] = {
        "rounds": found.rounds,
        "points": found.points,
        "converged": found.converged,
        **differences(market, found.solution, central),
    }
    return {f"{name}.{key}": value for key, value in values.items()}


def scaling_kpis(point: ScalingPoint) -> dict[str, Any]:
    """Return one size's figures under flat keys."""
    times = {f"{method}.s_per_1000_rounds": 1e3 * s for method, s in point.s_per_round.items()}
    return {"atoms": point.atoms, "unknowns": point.unknowns, "copied": point.copies, **times}


def write_histories(path: Path, cases: Sequence[CaseFound]) -> None:
    """Write every look of every case as a line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for case in cases:
            h = case.traced.history
            columns = (h.rounds, case.cost_error, h.consensus_pu, h.rows_pu, h.price_change)
            for rounds, *values in zip(*columns, strict=True):
                row = [f"{value:.4e}" for value in values]
                writer.writerow([f"{case.market.key}.{case.method}", int(rounds), *row])


def _check(
    feeders: Sequence[str], formulations: Sequence[str], methods: Sequence[str], copies: Sequence[int]
) -> None:
    known: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
        "--feeder": (feeders, FEEDERS),
        "--formulation": (formulations, FORMULATIONS),
        "--method": (methods, METHODS),
    }
    study = "study distributed-clearing"
    problems = [
        Problem(study, option, name, f"take {', '.join(some)}")
        for option, (given, some) in known.items()
        for name in given
        if name not in some
    ]
    problems += [
        Problem(study, "--copies", count, "at most 1000, 0 for none") for count in copies if count > 1000
    ]
    if problems:
        raise InputError(problems)
