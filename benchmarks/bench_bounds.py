"""Certified bounds of the three-phase market by feeder and case: every stage, its gap, model losses and time.

Run with OMP_NUM_THREADS=1; `python benchmarks/bench_bounds.py [feeder ...]`. Costs are those of the AC-exact market.
The first McCormick program, on ranges without any tightening, is what is usually meant by the relaxation; its losses
are negative. HiGHS solves the same program with the quadratic costs replaced by their tangents, as PIQP does beside.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter

import highspy
import numpy as np
from scipy import sparse

from voltier.grid.feeder import read_feeder
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.current_injection.bound import Bound, BoundSolver
from voltier.market.primary.current_injection.bounds import Tightening, limits_of, operator_power
from voltier.market.primary.current_injection.case import Case, Stage
from voltier.market.primary.current_injection.mccormick import McCormick
from voltier.market.primary.current_injection.quadratic import QuadraticProgram, QuadraticSolver
from voltier.market.primary.current_injection.terminals import (
    VoltageTarget,
    build_response,
    build_terminals,
)
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices, ScaledBids, scale_bids
from voltier.market.primary.three_phase.exact import ExactDispatch
from voltier.market.primary.three_phase.point import AcPoint
from voltier.market.primary.three_phase.problem import ScaledProblem, check_share

PRICES = PrimaryPrices(0.10, 0.0, 0.0)
TIES = {"ieee123": ("sw1", "sw2", "sw3", "sw4", "sw5", "sw6", "sw7", "sw8")}
LOADS = (0.3, 1.0, 1.3)
WIDE = (0.9, 1.1)
# How far a limit is moved inside the voltages of the free optimum to make it bind [p.u.].
BINDING = 0.005


@dataclass(frozen=True, slots=True)
class BenchCase:
    """One row: name, the market, and its AC-exact optimum."""

    name: str
    network: ThreePhaseNetwork
    share: sparse.csc_matrix
    bids: ScaledBids
    optimum: AcPoint


def make_network(feeder_name: str, load: float, *, closed: bool) -> ThreePhaseNetwork:
    """Return a feeder with its spot loads as they are (wye and delta ZIP), at published or, where light, no taps."""
    feeder = read_feeder(feeder_name)
    published = feeder.regulators.published_tap
    tap = published if load >= 1.0 and not closed else np.zeros_like(published)
    ties = TIES[feeder_name] if closed else None
    return three_phase_network(feeder, tap, load_scale=load, v_min_pu=WIDE[0], v_max_pu=WIDE[1], closed=ties)


def make_bids(network: ThreePhaseNetwork, *, seed: int = 0) -> tuple[sparse.csc_matrix, ScaledBids]:
    """Return an operator at every load: up to half of it can be shed, 0.44 kW of generation stand beside each kW."""
    rng = np.random.default_rng(seed)
    loads = network.loads
    touched = abs(loads.across) > 0
    share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T.astype(float))
    p = (loads.s_power + loads.s_current + loads.s_impedance).real * network.s_phase_kva
    n = len(p)
    gen = np.where(rng.random(n) < 0.7, 0.63 * p * rng.uniform(0.2, 1.8, n), 0.0)
    bids = PrimaryBids(
        p0_kw=np.zeros(n), p_min_kw=np.zeros(n), p_max_kw=p * rng.uniform(0.1, 0.5, n),
        beta_p_usd_per_kw2h=rng.uniform(0.15, 0.40, n) / p, q0_kvar=np.zeros(n), q_min_kvar=-0.2 * p,
        q_max_kvar=0.2 * p, beta_q_usd_per_kvar2h=0.05 / p, gen_max_kw=gen,
        alpha_usd_per_kw2h=rng.uniform(0.05, 0.15, n) / np.maximum(gen, 1.0),
    )  # fmt: skip
    return share, scale_bids(bids, PRICES, network.s_phase_kva)


def whole_load_case(feeder_name: str, load: float) -> tuple[ThreePhaseNetwork, sparse.csc_matrix, ScaledBids]:
    """Return a market in which the loads themselves bid, as in a scenario: the network has none of its own."""
    network = make_network(feeder_name, load, closed=False)
    share, bids = make_bids(network)
    loads = network.loads
    s = loads.s_power + loads.s_current + loads.s_impedance
    start = np.stack([-s.real, -s.imag, np.zeros(len(s))])
    moved = replace(
        bids, low=bids.low + start, high=bids.high + start, start=start,
        linear=-bids.weight * start, constant=0.5 * float(np.sum(bids.weight * start**2)),
    )  # fmt: skip
    none = np.zeros(len(s), dtype=complex)
    return (
        replace(network, loads=replace(loads, s_power=none, s_current=none, s_impedance=none)),
        share,
        moved,
    )


def solve_exactly(network: ThreePhaseNetwork, share: sparse.csc_matrix, bids: ScaledBids) -> AcPoint | None:
    """Return the AC-exact optimum, None where no dispatch keeps the limits."""
    answer = ExactDispatch(network, check_share(network, share)).solve(
        network, ScaledProblem(bids, 0.0, 1.0), warm=False
    )
    kept = max(answer.v_slack, answer.i_slack) < 1e-8
    return answer.point if answer.solved and kept else None


def bench_cases(feeder_name: str) -> Iterator[BenchCase]:
    """Yield loads light, nominal and heavy; free, with the upper and with the lower limit binding; ties closed."""
    for load in LOADS:
        market = whole_load_case(feeder_name, load)
        optimum = solve_exactly(*market)
        if optimum is not None:
            yield BenchCase(f"{feeder_name} {load:.1f} loads bid", *market, optimum)
    for closed in (False, True) if feeder_name in TIES else (False,):
        for load in LOADS:
            network = make_network(feeder_name, load, closed=closed)
            share, bids = make_bids(network)
            free = solve_exactly(network, share, bids)
            if free is None:
                continue
            name = f"{feeder_name} {load:.1f}{' ties' if closed else ''}"
            yield BenchCase(f"{name} free", network, share, bids, free)
            size = abs(free.v[3:])
            for word, low, high in (
                ("upper", WIDE[0], float(size.max()) - BINDING),
                ("lower", float(size.min()) + BINDING, WIDE[1]),
            ):
                n = network.y.shape[0]
                bound = replace(network, v_min_pu=np.full(n, low), v_max_pu=np.full(n, high))
                optimum = solve_exactly(bound, share, bids)
                if optimum is not None:
                    yield BenchCase(f"{name} {word}", bound, share, bids, optimum)


@dataclass(frozen=True, slots=True)
class LossPicture:
    """What a picture of losses by stage needs: names, model losses [kW], mean mismatch [%], and the AC losses."""

    stage: tuple[str, ...]
    loss_kw: tuple[float, ...]
    mismatch_percent: tuple[float, ...]
    ac_loss_kw: float


def loss_picture(case: BenchCase) -> LossPicture:
    """Return the model losses from plain envelopes over tightening and loss tangents to the cones."""
    ours = BoundSolver(case.network, case.share).bound(
        case.bids, method="mccormick", cut_off=case.optimum.cost, gap_wanted=1e-4
    )
    cones = BoundSolver(case.network, case.share).bound(case.bids, method="cones", cut_off=case.optimum.cost)
    stages = [plain_envelopes(case), *ours.stages, cones.stages[-1]]
    base = case.network.s_phase_kva
    return LossPicture(
        stage=tuple(stage.name for stage in stages),
        loss_kw=tuple(base * stage.loss_pu for stage in stages),
        mismatch_percent=tuple(100.0 * stage.mismatch for stage in stages),
        ac_loss_kw=base * case.optimum.loss,
    )


def first_program(case: BenchCase, rounds: int) -> tuple[McCormick, QuadraticProgram]:
    """Return the McCormick program after so many rounds of tightening, without tangents of losses."""
    network = case.network
    terminals = build_terminals(network, case.share)
    tightening = Tightening(terminals, build_response(terminals, network.v_source_pu))
    limits = limits_of(network.v_min_pu, network.v_max_pu, network.v_source_pu)
    bounds = tightening.run(operator_power(terminals, case.bids), limits, rounds=rounds)
    relaxation = McCormick(terminals, network)
    wires = tightening.drops(relaxation.wire, bounds)
    return relaxation, relaxation.build(Case(case.bids, VoltageTarget(), bounds), wires)


def plain_envelopes(case: BenchCase) -> Stage:
    """Return what McCormick gives on ranges that were evaluated once and not tightened."""
    began = perf_counter()
    relaxation, program = first_program(case, 0)
    point = QuadraticSolver().solve(program)
    state = relaxation.read(point.x)
    missing, asked = abs(relaxation.missing(state)), abs(relaxation.asked(state))
    seconds, loss = perf_counter() - began, relaxation.model_loss(state)
    return Stage("not tightened", point.bound, seconds, 1, missing.max(), missing.sum() / asked.sum(), loss)


def tangent_costs(program: QuadraticProgram) -> QuadraticProgram:
    """Return the program with its costs replaced by their tangent at the middle of the ranges."""
    middle = 0.5 * (program.low + program.high)
    return replace(program, p=sparse.csc_matrix(program.p.shape), c=program.c + program.p @ middle)


def solve_with_highs(program: QuadraticProgram) -> tuple[float, float]:
    """Return optimal value and seconds of HiGHS on the linear program."""
    rows = sparse.csr_matrix(sparse.vstack([program.a, program.g]))
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(program.c), rows.shape[0]
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = program.c, program.low, program.high
    lp.row_lower_ = np.concatenate([program.b, program.g_low])
    lp.row_upper_ = np.concatenate([program.b, program.g_high])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = rows.indptr, rows.indices, rows.data
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.passModel(lp)
    began = perf_counter()
    solver.run()
    return solver.getInfo().objective_function_value, perf_counter() - began


def print_bound(case: BenchCase, bound: Bound, label: str) -> None:
    cost, base = case.optimum.cost, case.network.s_phase_kva
    gap = 100.0 * (cost - bound.value) / abs(cost)
    programs = sum(stage.programs for stage in bound.stages)
    print(
        f"{case.name:24s} {label:18s} {gap:9.4f} {base * bound.loss_pu:9.1f} {base * case.optimum.loss:8.1f} "
        f"{100.0 * bound.mismatch:9.3f} {programs:6d} {bound.seconds:8.3f}"
    )


def print_stage(case: BenchCase, stage: Stage) -> None:
    cost, base = case.optimum.cost, case.network.s_phase_kva
    gap = 100.0 * (cost - stage.bound) / abs(cost)
    print(
        f"{case.name:24s} {stage.name:18s} {gap:9.4f} {base * stage.loss_pu:9.1f} {base * case.optimum.loss:8.1f} "
        f"{100.0 * stage.mismatch:9.3f} {stage.programs:6d} {stage.seconds:8.3f}"
    )


def print_probing(case: BenchCase, bound: Bound) -> None:
    """Say what probing solved, how long it took and what the round after it gained."""
    for before, after in zip(bound.stages, bound.stages[1:], strict=False):
        if before.name == "probing":
            gained = 100.0 * (after.bound - before.bound) / abs(case.optimum.cost)
            print(
                f"{'':24s}   probing: {before.programs} programs, {before.seconds:.2f} s, gap {gained:.4f} % less"
            )


def print_alternative(case: BenchCase) -> None:
    """Print PIQP beside HiGHS on the linear form of the first program."""
    _, program = first_program(case, 40)
    linear = tangent_costs(program)
    solver = QuadraticSolver()
    solver.solve(linear)
    began = perf_counter()
    ours = solver.solve(linear)
    ours_s = perf_counter() - began
    theirs, theirs_s = solve_with_highs(linear)
    print(
        f"{case.name:24s} LP: PIQP {1e3 * ours_s:.1f} ms, HiGHS {1e3 * theirs_s:.1f} ms, ratio {theirs_s / ours_s:.1f},"
        f" difference {abs(ours.value - linear.constant - theirs):.1e}"
    )


def main() -> None:
    """Print the table."""
    head = ("gap %", "model kW", "AC kW", "mism. %", "progr.", "s")
    widths = (9, 9, 8, 9, 6, 8)
    columns = " ".join(f"{word:>{width}s}" for word, width in zip(head, widths, strict=True))
    print(f"{'case':24s} {'method':18s} {columns}")
    for feeder_name in sys.argv[1:] or ("ieee13", "ieee34", "ieee123"):
        for case in bench_cases(feeder_name):
            print_stage(case, plain_envelopes(case))
            solver = BoundSolver(case.network, case.share)
            goals = (("mccormick", 1e-4), ("mccormick+obbt", 1e-4), ("cones", 0.005), ("auto", 0.005))
            for method, gap_wanted in goals:
                bound = solver.bound(
                    case.bids, method=method, cut_off=case.optimum.cost, gap_wanted=gap_wanted
                )
                if method == "mccormick":
                    print_stage(case, bound.stages[0])
                    print_stage(case, bound.stages[min(3, len(bound.stages) - 1)])
                print_bound(case, bound, method)
                print_probing(case, bound)
            print_alternative(case)


if __name__ == "__main__":
    main()
