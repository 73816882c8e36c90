"""Markets cleared by atoms: rounds, seconds per round and accuracy against the central solver's, and how they scale.

Run with OMP_NUM_THREADS=1. Seconds are of the process (CPU), so that waiting on a shared machine does not enter. The
columns 1e-3 and 1e-4 are the rounds after which relative cost error, consensus and equations [p.u.] stay within that,
0 where they do not; what follows is where the default stopping rule ends. --csv FILE writes rounds against accuracy,
--quick leaves out IEEE-123 and most of the scaling. The IEEE 8500-node feeder is timed where VOLTIER_FEEDER_FILES
names a folder with opendss/8500-Node.
"""

import argparse
import csv
import os
from dataclasses import replace
from pathlib import Path
from time import process_time

import numpy as np
from scipy import sparse

from voltier.market.primary.distributed.atoms import atomise, per_node
from voltier.market.primary.distributed.horizon import HorizonTangents, scaled_storage
from voltier.market.primary.distributed.options import MethodName, Options, StoppingRule
from voltier.market.primary.distributed.program import solve_central
from voltier.market.primary.distributed.solve import DistributedSolution, solve_distributed
from voltier.market.primary.distributed.successive import solve_successive
from voltier.market.primary.distributed.tangent_current import CurrentTangent
from voltier.market.primary.problem import PrimaryPrices
from voltier.market.primary.three_phase.batteries import Batteries, with_batteries
from voltier.market.primary.three_phase.multi_period import DaySearch, ThreePhaseDay
from voltier.market.primary.three_phase.problem import SocialWeights, scale_problem
from voltier.scenarios.studies.distributed_cases import (
    FEEDERS,
    FORMULATIONS,
    AtomMarket,
    CentralOptimum,
    atom_market,
    central_optimum,
    spot_network,
)
from voltier.scenarios.studies.distributed_clearing import METHODS, TRACED, differences
from voltier.scenarios.studies.distributed_scaling import scaling, seconds_per_round

PLAIN = Options(precondition=False, mask=0.0)
SCALED = Options(mask=0.0)


def lasting(solution: DistributedSolution, cost: float, goal: float) -> int:
    """Return the rounds after which all residuals stay within the goal, 0 where they do not."""
    error = errors(solution, cost)
    bad = np.flatnonzero(~(error < goal))
    first = int(bad[-1]) + 1 if len(bad) else 0
    return int(solution.history.rounds[first]) if first < len(error) else 0


def errors(solution: DistributedSolution, cost: float) -> np.ndarray:
    """Return the larger of relative cost error and residuals at each look."""
    h = solution.history
    return np.maximum(np.abs(h.cost / cost - 1.0), np.maximum(h.consensus_pu, h.rows_pu))


def anderson_seconds(
    market: AtomMarket, central: CentralOptimum, method: MethodName, options: Options
) -> float:
    """Return process seconds of a round with Anderson acceleration, from the difference of two solves."""
    spent = []
    for rounds in (100, 600):
        rule = StoppingRule(primal_pu=1e-30, look_every=rounds, max_rounds=rounds)
        began = process_time()
        solve_distributed(
            central.program,
            per_node(central.program),
            method,
            replace(options, stop=rule),
            start=market.start,
        )
        spent.append(process_time() - began)
    return (spent[1] - spent[0]) / 500.0


VARIANTS: tuple[tuple[str, MethodName, Options], ...] = (
    ("PAC, one step", "pac", PLAIN),
    ("PAC, own rows whole", "pac", SCALED),
    ("PAC, own rows whole, masked", "pac", replace(SCALED, mask=0.5)),
    ("ADMM, one weight 0.1", "admm", replace(PLAIN, rho=0.1)),
    ("ADMM, one weight 0.3", "admm", PLAIN),
    ("ADMM, one weight 1", "admm", replace(PLAIN, rho=1.0)),
    ("ADMM, scaled", "admm", SCALED),
    ("ADMM, scaled, Anderson 30", "admm", replace(SCALED, anderson=30)),
    ("NST-PAC, one weight 0.3", "nst-pac", PLAIN),
    ("NST-PAC, W = w", "nst-pac", replace(SCALED, row_weight=0.3)),
    ("NST-PAC, scaled, no momentum", "nst-pac", replace(SCALED, extrapolation=(0.0, 0.0, 0.0))),
    ("NST-PAC, scaled", "nst-pac", SCALED),
    ("NST-PAC, scaled, masked", "nst-pac", replace(SCALED, mask=0.5)),
    ("NST-PAC, scaled, Anderson 10", "nst-pac", replace(SCALED, anderson=10, extrapolation=(0.0, 0.0, 0.0))),
    ("NST-PAC, scaled, Anderson 30", "nst-pac", replace(SCALED, anderson=30, extrapolation=(0.0, 0.0, 0.0))),
)  # fmt: skip


def compare(market: AtomMarket, curves: list[tuple[str, str, int, float]]) -> None:
    """Print one block of the table and keep the curves."""
    central = central_optimum(market.now, market.flat)
    program = central.program
    atoms = atomise(program, per_node(program))
    solve_central(program)
    began = process_time()
    solve_central(program)
    qp_s = process_time() - began
    print(
        f"\n{market.key}: {atoms.n_atom} atoms, {len(atoms.column)} unknowns, {atoms.n_copy} copies; central program "
        f"{1e3 * qp_s:.1f} ms"
    )
    for label, method, options in VARIANTS:
        report(market, central, label, method, options, qp_s, curves)


def report(
    market: AtomMarket, central: CentralOptimum, label: str, method: MethodName, options: Options, qp_s: float,
    curves: list[tuple[str, str, int, float]],
) -> None:  # fmt: skip
    program, profile, cost = central.program, per_node(central.program), central.solution.cost
    traced = solve_distributed(
        program, profile, method, replace(options, stop=TRACED.stop), start=market.start
    )
    found = solve_distributed(program, profile, method, options, start=market.start, central_cost=cost)
    if options.anderson:
        speed = anderson_seconds(market, central, method, options)
    else:
        speed = seconds_per_round(program, market.start, method, options)
    off = differences(market, found, central)
    print(
        f"  {label:32}{lasting(traced, cost, 1e-3):8}{lasting(traced, cost, 1e-4):8}"
        f"{found.rounds:8}{'' if found.certificate.converged else '*':1}{1e3 * speed:9.3f}"
        f"{found.rounds * speed / qp_s:9.1f}{off['cost_error']:10.1e}{off['set_point_error_pu']:9.1e}"
        f"{off['dlmp_error']:9.1e}",
        flush=True,
    )
    for rounds, error in zip(traced.history.rounds, errors(traced, cost), strict=True):
        curves.append((market.key, label, int(rounds), float(error)))


def scale_up(copies: tuple[int, ...]) -> None:
    """Print seconds per round against atoms."""
    files = os.environ.get("VOLTIER_FEEDER_FILES")
    print(
        "\nscaling, three-phase: process seconds of 1,000 rounds of all atoms; copies of IEEE 123 at one substation"
    )
    print(
        f"{'':14}{'atoms':>8}{'unknowns':>10}"
        + "".join(f"{method:>9}" for method in METHODS)
        + "   µs per atom and round"
    )
    for point in scaling(FEEDERS, copies, METHODS, Path(files) if files else None, lambda text: None):
        spent = [point.s_per_round[method] for method in METHODS]
        print(f"{point.label:14}{point.atoms:8}{point.unknowns:10}" + "".join(f"{1e3 * s:9.3f}" for s in spent)
              + "   " + " ".join(f"{1e6 * s / point.atoms:.2f}" for s in spent), flush=True)  # fmt: skip
    if not files:
        print("ieee8500: skipped, VOLTIER_FEEDER_FILES names no folder with opendss/8500-Node")


def clear_day(n_period: int = 24, k: int = 3) -> None:
    """Print the time of a three-phase IEEE-34 horizon with batteries."""
    network, share, bids = spot_network("ieee34")
    n, one = len(network.node_bus), np.ones(k)
    at = np.random.default_rng(0).choice(np.arange(3, n), k, replace=False)
    places = sparse.csc_matrix((one, (at, np.arange(k))), shape=(n, k))
    batteries = Batteries(
        60 * one, 60 * one, 10 * one, 200 * one, 80 * one, 80 * one, 0.95 * one, 0.95 * one, 0.005 * one
    )
    hour = np.arange(n_period)
    names = ("p0_kw", "p_min_kw", "p_max_kw", "q0_kvar", "q_min_kvar", "q_max_kvar")
    day = [
        replace(bids, **{name: getattr(bids, name) * size for name in names})
        for size in 0.95 + 0.05 * np.sin(2 * np.pi * (hour - 8) / 24)
    ]
    prices = [PrimaryPrices(p, 1e-5, 0.1) for p in 0.1 + 0.05 * np.sin(2 * np.pi * (hour - 10) / 24)]
    market, base = ThreePhaseDay(network, share, places, hours=1.0, n_period=n_period), network.s_phase_kva
    market.clear(day, prices, batteries)
    began = process_time()
    central = market.clear(day, prices, batteries)
    spent = process_time() - began
    problems = [
        with_batteries(scale_problem(b, p, SocialWeights(), base), batteries, base)
        for b, p in zip(day, prices, strict=True)
    ]
    tangent = CurrentTangent(network, sparse.csc_matrix(sparse.hstack([share, places])), batteries=k)
    horizon = HorizonTangents(tangent, network, problems, scaled_storage(batteries, 1.0, n_period, base))
    first = DaySearch(market, problems, batteries).start().points
    point = [tangent.point(p.v, price.import_usd_per_kwh) for p, price in zip(first, prices, strict=True)]
    x = horizon.start(point, [p.u for p in first], [p.head for p in first])
    program = horizon.at(point)
    print(f"\nIEEE-34, {n_period} h, {k} batteries, {len(program.linear)} unknowns; central AC-exact {spent:.2f} s\n"
          f"{'':30}{'rounds':>8}{'points':>8}{'CPU s':>8}{'cost off':>10}")  # fmt: skip
    for method in ("nst-pac", "admm"):
        for by_period in (False, True):
            began = process_time()
            found = solve_successive(
                horizon,
                point,
                x,
                per_node(program, by_period=by_period),
                method,
                Options(),
            )
            spent, off = (
                process_time() - began,
                found.solution.certificate.cost * base / central.cost_usd - 1.0,
            )
            label = f"{method}, atoms {'of a period' if by_period else 'of all periods'}"
            print(f"{label:30}{found.rounds:8}{found.points:8}{spent:8.2f}{off:10.1e}"
                  f"{'' if found.converged else ' not converged'}", flush=True)  # fmt: skip


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    curves: list[tuple[str, str, int, float]] = []
    print(f"{'':34}{'1e-3':>8}{'1e-4':>8}{'stopped':>8}{'s/1000':>10}{'/central':>9}{'cost':>10}{'set p.u.':>9}"
          f"{'price':>9}   (* not converged)")  # fmt: skip
    for formulation in FORMULATIONS:
        for name in FEEDERS[:2] if arguments.quick else FEEDERS:
            compare(atom_market(name, formulation), curves)
    clear_day()
    scale_up((4,) if arguments.quick else (4, 16, 64))
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            csv.writer(file).writerows([("problem", "method", "round", "error"), *curves])


if __name__ == "__main__":
    main()
