"""Markets cleared by atoms: rounds, seconds per round and accuracy against the central solver's, and how they scale.

Run with OMP_NUM_THREADS=1. Seconds are of the process (CPU), so that waiting on a shared machine does not enter. The
columns 1e-3 and 1e-4 are the rounds after which relative cost error, consensus and equations [p.u.] stay within that,
0 where they do not. --csv FILE writes rounds against accuracy, --quick leaves out IEEE-123 and the scaling.
"""

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time

import numpy as np
from bench_primary import PRICES as BALANCED_PRICES
from bench_three_phase import PRICES, WEIGHTS, build_case, large_case
from scipy import sparse

from voltier.grid.feeder import read_feeder
from voltier.grid.network import balanced_network
from voltier.market.primary.distributed.atoms import Profile, atomise, per_node
from voltier.market.primary.distributed.horizon import HorizonTangents, scaled_storage
from voltier.market.primary.distributed.options import MethodName, Options, StoppingRule
from voltier.market.primary.distributed.program import CentralSolution, ConvexProgram, solve_central
from voltier.market.primary.distributed.solve import DistributedSolution, solve_distributed
from voltier.market.primary.distributed.successive import solve_successive
from voltier.market.primary.distributed.tangent_branch_flow import BranchFlowPoint, BranchFlowTangent
from voltier.market.primary.distributed.tangent_current import CurrentPoint, CurrentTangent
from voltier.market.primary.market import PrimaryMarket
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices, scale_bids
from voltier.market.primary.three_phase.batteries import Batteries, with_batteries
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.market.primary.three_phase.multi_period import DaySearch, ThreePhaseDay
from voltier.market.primary.three_phase.problem import scale_problem

LOOK = 25
RULE = StoppingRule(primal_pu=2e-5, price_change=1e-4, look_every=LOOK, max_rounds=20_000)
PLAIN = Options(stop=RULE, precondition=False, mask=0.0)
SCALED = Options(stop=RULE, mask=0.0)
FEEDERS = ("ieee13", "ieee34", "ieee123")


@dataclass(frozen=True)
class Case:
    """A program at an AC optimum, unknowns to begin with, rows of balances, columns of set-points."""

    name: str
    program: ConvexProgram
    start: np.ndarray
    balances: slice
    controls: slice
    market: Callable[[], object]


def balanced_case(name: str) -> Case:
    """Return a balanced feeder whose spot loads bid."""
    feeder = read_feeder(name)
    network = balanced_network(feeder, feeder.regulators.published_tap, v_min_pu=0.9, v_max_pu=1.1)
    rows = feeder.load_buses
    p = 0.8 * np.bincount(feeder.spot_loads.bus, feeder.spot_loads.p_kw, len(feeder.bus))[rows]
    gen = np.where(np.arange(len(p)) % 8 == 0, 30.0, 0.0)
    bids = PrimaryBids(
        p0_kw=-p, p_min_kw=-1.1 * p, p_max_kw=-0.8 * p, beta_p_usd_per_kw2h=0.2 / p, q0_kvar=-0.5 * p,
        q_min_kvar=-0.6 * p, q_max_kvar=-0.4 * p, beta_q_usd_per_kvar2h=0.05 / p, gen_max_kw=gen,
        alpha_usd_per_kw2h=np.full(len(p), 0.12 / 30.0),
    )  # fmt: skip
    node = network.node_of_bus[rows]
    market = PrimaryMarket(network, node)
    market.clear(bids, BALANCED_PRICES, bound=False)
    last, tangent = market._exact._warm, BranchFlowTangent(network, node)
    scaled = scale_bids(bids, BALANCED_PRICES, network.s_base_kva)
    program = tangent.at(network, scaled, BranchFlowPoint(last.state, last.y[tangent.size.current :]))
    state = np.zeros_like(last.state)
    state[2] = network.v_root_pu**2
    start = tangent.start(BranchFlowPoint(state, last.y), np.clip(scaled.start, scaled.low, scaled.high))
    size = tangent.size
    return Case(
        f"branch flow {name[4:]}", program, start, slice(0, size.n_node), slice(size.control, size.head),
        lambda: market.clear(bids, BALANCED_PRICES, bound=False, warm=False),
    )  # fmt: skip


def phase_case(name: str) -> Case:
    """Return a three-phase feeder whose spot loads bid."""
    network, share, bids = build_case(name, 0.8, (0.9, 1.1))
    market = ThreePhaseMarket(network, share)
    market.clear(bids, PRICES, bound=False)
    last, tangent = market._exact._warm, CurrentTangent(network, share)
    problem = scale_problem(bids, PRICES, WEIGHTS, network.s_phase_kva)
    program = tangent.at(network, problem, tangent.point(last.v, 0.1))
    flat = CurrentPoint(
        np.full_like(last.v, network.v_source_pu), np.zeros(tangent.layout.n_wire, complex), 0.1
    )
    start = tangent.start(flat, np.clip(problem.bids.start, problem.bids.low, problem.bids.high), 0.0)
    layout = tangent.layout
    return Case(
        f"current injection {name[4:]}", program, start, slice(0, layout.n_free),
        slice(layout.control, layout.head), lambda: market.clear(bids, PRICES, bound=False, warm=False),
    )  # fmt: skip


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


def seconds_per_1000(program: ConvexProgram, profile: Profile, method: MethodName, options: Options) -> float:
    """Return process seconds of 1,000 rounds, the better of two differences, without set-up and looks."""
    thousands = 2 if options.anderson else 5
    best = np.inf
    for _ in range(2):
        spent = []
        for rounds in (200, 200 + 1000 * thousands):
            rule = StoppingRule(primal_pu=1e-30, look_every=rounds, max_rounds=rounds)
            began = process_time()
            solve_distributed(program, profile, method, replace(options, stop=rule))
            spent.append(process_time() - began)
        best = min(best, (spent[1] - spent[0]) / thousands)
    return best


VARIANTS: tuple[tuple[str, MethodName, Options], ...] = (
    ("PAC, one step", "pac", PLAIN),
    ("PAC, scaled", "pac", SCALED),
    ("PAC, scaled, masked", "pac", replace(SCALED, mask=0.5)),
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


def compare(case: Case, curves: list[tuple[str, str, int, float]]) -> None:
    """Print one block of the table and keep the curves."""
    program, central = case.program, solve_central(case.program)
    atoms = atomise(program, per_node(program))
    solve_central(program)
    began = process_time()
    solve_central(program)
    qp_ms = 1e3 * (process_time() - began)
    case.market()
    began = process_time()
    case.market()
    print(
        f"\n{case.name}: {atoms.n_atom} atoms, {len(atoms.column)} unknowns, {atoms.n_copy} copies; central program "
        f"{qp_ms:.1f} ms, central AC-exact clearing {1e3 * (process_time() - began):.1f} ms"
    )
    for label, method, options in VARIANTS:
        report(case, central, label, method, options, curves)


def report(
    case: Case, central: CentralSolution, label: str, method: MethodName, options: Options,
    curves: list[tuple[str, str, int, float]],
) -> None:  # fmt: skip
    program, profile = case.program, per_node(case.program)
    found = solve_distributed(program, profile, method, options, start=case.start, central_cost=central.cost)
    speed = seconds_per_1000(program, profile, method, options)
    away = np.abs(found.x - central.x)[case.controls].max()
    true = central.y[case.balances]
    price = np.abs(found.duals[case.balances] - true).max() / np.abs(true).max()
    print(
        f"  {label:32}{lasting(found, central.cost, 1e-3):8}{lasting(found, central.cost, 1e-4):8}"
        f"{found.rounds:8}{'' if found.certificate.converged else '*':1}{speed:9.3f}"
        f"{found.certificate.gap:10.1e}{away:9.1e}{price:9.1e}",
        flush=True,
    )
    for rounds, error in zip(found.history.rounds, errors(found, central.cost), strict=True):
        curves.append((case.name, label, int(rounds), float(error)))


def scale_up(sizes: tuple[int, ...]) -> None:
    """Print seconds per round against atoms on made-up feeders."""
    print(f"\nscaling, three-phase, made-up feeders: process seconds of 1,000 rounds\n{'buses':>8}{'unknowns':>10}"
          f"{'PAC':>9}{'ADMM':>9}{'NST-PAC':>9}")  # fmt: skip
    for n_bus in sizes:
        network, share, bids = large_case(n_bus, n_bus // 3)
        tangent = CurrentTangent(network, share)
        v = np.full(network.y.shape[0], network.v_source_pu, dtype=complex)
        problem = scale_problem(bids, PRICES, WEIGHTS, network.s_phase_kva)
        program = tangent.at(network, problem, CurrentPoint(v, np.zeros(tangent.layout.n_wire, complex), 0.1))
        profile = per_node(program)
        spent = [seconds_per_1000(program, profile, method, SCALED) for method in ("pac", "admm", "nst-pac")]
        unknowns = len(atomise(program, profile).column)
        print(f"{n_bus:8}{unknowns:10}" + "".join(f"{s:9.3f}" for s in spent), flush=True)


def clear_day(n_period: int = 24, k: int = 3) -> None:
    """Print the time of a three-phase IEEE-34 horizon with batteries."""
    network, share, bids = build_case("ieee34", 0.8, (0.9, 1.1))
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
        with_batteries(scale_problem(b, p, WEIGHTS, base), batteries, base)
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
                Options(stop=StoppingRule()),
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
    print(f"{'':34}{'1e-3':>8}{'1e-4':>8}{'stopped':>8}{'s/1000':>10}{'gap':>10}{'set p.u.':>9}{'price':>9}"
          "   (* not converged)")  # fmt: skip
    for make in (balanced_case, phase_case):
        for name in FEEDERS[:2] if arguments.quick else FEEDERS:
            compare(make(name), curves)
    clear_day()
    if not arguments.quick:
        scale_up((500, 1500, 5000))
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            csv.writer(file).writerows([("problem", "method", "round", "error"), *curves])


if __name__ == "__main__":
    main()
