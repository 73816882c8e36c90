"""Certified bounds of the three-phase market in one table: gaps by stage, mismatch, and times beside HiGHS and Ipopt.

Run with OMP_NUM_THREADS=1: `python benchmarks/bench_bounds.py [feeder ...] [--quick] [--csv FILE]`. One row for each
feeder, load (0.3, 1, 1.3) and kind of limits. Gaps [%] are to the cost of the AC-exact market:

    plain   McCormick on ranges that were evaluated once, usually meant by the relaxation; its losses are negative
    closed  on ranges tightened in closed form ; tangent  with tangents of the losses
    cut-off  after rounds with the cut-off of the exact cost ; cones  one cone program on the ranges of "closed"
    gap     what BoundSolver proves when asked for a gap of 0.5 % and a mismatch of 1 %, in `s` seconds

Mismatch: relative mean difference of powers to products of voltages and currents, of the relaxed state [%] and, p.u.,
of the recovered one. Ratios: relaxation, the McCormick program with tangents for its quadratic costs, PIQP against
HiGHS; tightening, least and greatest voltage of the terminal with the largest mismatch over that program (4 linear
programs), PIQP against HiGHS, closed-form tightening beside; recovery, ours from a cold start against Ipopt. Times are
CPU times of one thread: wall times where nothing else runs.
"""

import argparse
import csv
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter, process_time

import highspy
import numpy as np
from scipy import sparse

from voltier.grid.feeder import read_feeder
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.current_injection.bound import BoundSolver
from voltier.market.primary.current_injection.bounds import Tightening, limits_of, operator_power
from voltier.market.primary.current_injection.by_mccormick import within_cut_off
from voltier.market.primary.current_injection.case import Case, Stage
from voltier.market.primary.current_injection.mccormick import McCormick
from voltier.market.primary.current_injection.near import margin
from voltier.market.primary.current_injection.quadratic import QuadraticProgram, QuadraticSolver
from voltier.market.primary.current_injection.terminals import (
    VoltageTarget,
    build_response,
    build_terminals,
)
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices, ScaledBids, scale_bids
from voltier.market.primary.three_phase.exact import ExactDispatch
from voltier.market.primary.three_phase.point import AcPoint
from voltier.market.primary.three_phase.problem import ScaledProblem, SocialWeights, check_share
from voltier.market.primary.three_phase.reference import ReferenceProgram

PRICES = PrimaryPrices(0.10, 0.0, 0.0)
TIES = {"ieee123": ("sw1", "sw2", "sw3", "sw4", "sw5", "sw6", "sw7", "sw8")}
LOADS = (0.3, 1.0, 1.3)
WIDE = (0.9, 1.1)
# How far a limit is moved inside the voltages of the free optimum to make it bind [p.u.].
BINDING = 0.005
GAP_WANTED, MISMATCH_WANTED = 0.005, 0.01


@dataclass(frozen=True, slots=True)
class BenchCase:
    """One row: name, the market, and its AC-exact optimum."""

    name: str
    network: ThreePhaseNetwork
    share: sparse.csc_matrix
    offers: PrimaryBids
    optimum: AcPoint

    @property
    def bids(self) -> ScaledBids:
        """The offers, scaled."""
        return scale_bids(self.offers, PRICES, self.network.s_phase_kva)


def make_network(feeder_name: str, load: float, *, closed: bool) -> ThreePhaseNetwork:
    """Return a feeder with its spot loads as they are (wye and delta ZIP), at published or, where light, no taps."""
    feeder = read_feeder(feeder_name)
    published = feeder.regulators.published_tap
    tap = published if load >= 1.0 and not closed else np.zeros_like(published)
    ties = TIES[feeder_name] if closed else None
    return three_phase_network(feeder, tap, load_scale=load, v_min_pu=WIDE[0], v_max_pu=WIDE[1], closed=ties)


def make_bids(network: ThreePhaseNetwork, *, seed: int = 0) -> tuple[sparse.csc_matrix, PrimaryBids]:
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
    return share, bids


def whole_load_case(
    feeder_name: str, load: float
) -> tuple[ThreePhaseNetwork, sparse.csc_matrix, PrimaryBids]:
    """Return a market in which the loads themselves bid, as in a scenario: the network has none of its own."""
    network = make_network(feeder_name, load, closed=False)
    share, bids = make_bids(network)
    loads = network.loads
    s = loads.s_power + loads.s_current + loads.s_impedance
    p, q = s.real * network.s_phase_kva, s.imag * network.s_phase_kva
    moved = replace(
        bids, p0_kw=bids.p0_kw - p, p_min_kw=bids.p_min_kw - p, p_max_kw=bids.p_max_kw - p,
        q0_kvar=bids.q0_kvar - q, q_min_kvar=bids.q_min_kvar - q, q_max_kvar=bids.q_max_kvar - q,
    )  # fmt: skip
    none = np.zeros(len(s), dtype=complex)
    return (
        replace(network, loads=replace(loads, s_power=none, s_current=none, s_impedance=none)),
        share,
        moved,
    )


def solve_exactly(
    network: ThreePhaseNetwork, share: sparse.csc_matrix, offers: PrimaryBids
) -> AcPoint | None:
    """Return the AC-exact optimum, None where no dispatch keeps the limits."""
    bids = scale_bids(offers, PRICES, network.s_phase_kva)
    exact = ExactDispatch(network, check_share(network, share))
    answer = exact.solve(network, ScaledProblem(bids, 0.0, 1.0), warm=False)
    kept = max(answer.v_slack, answer.i_slack) < 1e-8
    return answer.point if answer.solved and kept else None


def bench_cases(feeder_name: str, *, quick: bool = False) -> Iterator[BenchCase]:
    """Yield loads light, nominal and heavy; free, with the upper and with the lower limit binding; ties closed."""
    loads = (1.0,) if quick else LOADS
    for load in loads:
        market = whole_load_case(feeder_name, load)
        optimum = solve_exactly(*market)
        if optimum is not None:
            yield BenchCase(f"{feeder_name} {load:.1f} loads bid", *market, optimum)
    for closed in (False, True) if feeder_name in TIES and not quick else (False,):
        for load in loads:
            yield from limited_cases(feeder_name, load, closed=closed)


def limited_cases(feeder_name: str, load: float, *, closed: bool) -> Iterator[BenchCase]:
    """Yield a market without binding limits, with the upper one and with the lower one binding."""
    network = make_network(feeder_name, load, closed=closed)
    share, bids = make_bids(network)
    free = solve_exactly(network, share, bids)
    if free is None:
        return
    name = f"{feeder_name} {load:.1f}{' ties' if closed else ''}"
    yield BenchCase(f"{name} free", network, share, bids, free)
    size, n = abs(free.v[3:]), network.y.shape[0]
    limits = (
        ("upper", WIDE[0], float(size.max()) - BINDING),
        ("lower", float(size.min()) + BINDING, WIDE[1]),
    )
    for word, low, high in limits:
        bound = replace(network, v_min_pu=np.full(n, low), v_max_pu=np.full(n, high))
        optimum = solve_exactly(bound, share, bids)
        if optimum is not None:
            yield BenchCase(f"{name} {word}", bound, share, bids, optimum)


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
    return Stage(
        "not tightened", point.bound, seconds, 1, 1, missing.max(), missing.sum() / asked.sum(), loss
    )


def tangent_costs(program: QuadraticProgram) -> QuadraticProgram:
    """Return the program with its costs replaced by their tangent at the middle of the ranges."""
    middle = 0.5 * (program.low + program.high)
    return replace(program, p=sparse.csc_matrix(program.p.shape), c=program.c + program.p @ middle)


def highs_of(program: QuadraticProgram) -> highspy.Highs:
    """Return HiGHS with the linear program loaded."""
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
    return solver


def seconds_of(work: Callable[[], object], repeats: int = 1) -> float:
    """Return the least CPU time of repeated calls."""
    seconds = []
    for _ in range(repeats):
        began = process_time()
        work()
        seconds.append(process_time() - began)
    return min(seconds)


def optima(program: QuadraticProgram, costs: list[np.ndarray]) -> tuple[tuple[float, float], float]:
    """Return seconds of PIQP and of HiGHS for the same linear programs, and the largest difference of their values.

    Both keep what they know from one objective to the next: PIQP its factorisation's pattern, HiGHS its basis.
    """
    ours, theirs = QuadraticSolver(), highs_of(program)
    ours.solve(program)
    values = np.zeros((2, len(costs)))
    column = np.arange(len(program.c), dtype=np.int32)

    def by_piqp() -> None:
        for k, cost in enumerate(costs):
            values[0, k] = ours.solve(replace(program, c=cost, constant=0.0)).value

    def by_highs() -> None:
        for k, cost in enumerate(costs):
            theirs.changeColsCost(len(column), column, cost)
            theirs.run()
            values[1, k] = theirs.getInfo().objective_function_value

    seconds = seconds_of(by_piqp), seconds_of(by_highs)
    return seconds, float(np.abs(values[0] - values[1]).max())


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; see the module's docstring."""

    case: str
    gap_plain: float
    gap_closed: float
    gap_tangent: float
    gap_cut_off: float
    gap_cones: float
    gap: float
    outcome: str
    mismatch_plain: float
    mismatch: float
    recovered_pu: float
    loss_plain_kw: float
    loss_kw: float
    ac_loss_kw: float
    s: float
    closed_form_ms: float
    relax_ms: float
    relax_x_highs: float
    tighten_ms: float
    tighten_x_highs: float
    recover_ms: float
    recover_x_ipopt: float
    cost_off: float


def row_of(case: BenchCase) -> Row:
    """Measure one case."""
    optimum, base = case.optimum, case.network.s_phase_kva
    solver = BoundSolver(case.network, case.share)
    plain = plain_envelopes(case)
    began = process_time()
    bound = solver.bound(
        case.bids, cut_off=optimum.cost, gap_wanted=GAP_WANTED, mismatch_wanted=MISMATCH_WANTED
    )
    seconds = process_time() - began
    cones = solver.bound(case.bids, method="cones", cut_off=optimum.cost, rounds=0)
    names = [stage.name for stage in bound.stages]
    first = bound.stages[: names.index("cones")] if "cones" in names else bound.stages
    tangent = [stage for stage in first if stage.name == "loss tangents"] or first[:1]

    def gap(value: float) -> float:
        return 100.0 * (optimum.cost - value) / abs(optimum.cost)

    relax, tighten, closed = linear_programs(case)
    recover, cost_off = recovery(case)
    return Row(
        case=case.name, gap_plain=gap(plain.bound), gap_closed=gap(first[0].bound), gap_tangent=gap(tangent[-1].bound),
        gap_cut_off=gap(first[-1].bound), gap_cones=gap(cones.stages[0].bound), gap=gap(bound.value),
        outcome=bound.outcome, mismatch_plain=100.0 * plain.mismatch, mismatch=100.0 * bound.mismatch,
        recovered_pu=recovered_mismatch(case), loss_plain_kw=base * plain.loss_pu, loss_kw=base * bound.loss_pu,
        ac_loss_kw=base * optimum.loss, s=seconds, closed_form_ms=1e3 * closed,
        relax_ms=1e3 * relax[0], relax_x_highs=relax[1] / relax[0],
        tighten_ms=1e3 * tighten[0], tighten_x_highs=tighten[1] / tighten[0],
        recover_ms=1e3 * recover[0], recover_x_ipopt=recover[1] / recover[0], cost_off=cost_off,
    )  # fmt: skip


def linear_programs(case: BenchCase) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Return seconds (PIQP, HiGHS) of the relaxation and of tightening one terminal, and of closed-form tightening."""
    relaxation, program = first_program(case, 40)
    linear = tangent_costs(program)
    relax, off = optima(linear, [linear.c])
    point = QuadraticSolver().solve(program)
    assert off <= 1e-6 * (1.0 + abs(point.value)), f"{case.name}: PIQP and HiGHS differ by {off}"
    cut_off = case.optimum.cost + margin(case.optimum.cost)
    within = within_cut_off(program, point.x, cut_off)
    worst = int(np.argmax(abs(relaxation.missing(relaxation.read(point.x)))))
    rows, _ = relaxation.factors_of(worst)
    tighten, _ = optima(within, [sign * row for row in rows[:2] for sign in (1.0, -1.0)])
    network = case.network
    terminals = build_terminals(network, case.share)
    tightening = Tightening(terminals, build_response(terminals, network.v_source_pu))
    limits = limits_of(network.v_min_pu, network.v_max_pu, network.v_source_pu)
    power = operator_power(terminals, case.bids)
    return relax, tighten, seconds_of(lambda: tightening.run(power, limits), 3)


def recovery(case: BenchCase) -> tuple[tuple[float, float], float]:
    """Return seconds of our recovery and of Ipopt on the same problem, and the relative difference of costs."""
    exact = ExactDispatch(case.network, check_share(case.network, case.share))
    problem = ScaledProblem(case.bids, 0.0, 1.0)
    ours = seconds_of(lambda: exact.solve(case.network, problem, warm=False), 3)
    program = ReferenceProgram(case.network, case.share, case.offers, PRICES, SocialWeights())
    began = process_time()
    theirs = program.solve()
    seconds = process_time() - began
    cost = case.optimum.cost * case.network.s_phase_kva
    return (ours, seconds if theirs.success else np.nan), abs(theirs.cost_usd_per_h / cost - 1.0)


def recovered_mismatch(case: BenchCase) -> float:
    """Return the largest power missing at any node beyond the source, at the recovered dispatch [p.u.]."""
    terminals, u, v = build_terminals(case.network, case.share), case.optimum.u, case.optimum.v
    taken = v * np.conj(terminals.y @ v)
    missing = taken - terminals.injection(v, u[0] + u[2] + 1j * u[1])
    return float(abs(missing[3:]).max())


HEAD = (
    f"{'':25s}|{'gap % after':^45s}| {'got':>7s} {'':>10s}|{'mismatch %':^14s} {'p.u.':>7s}|{'losses kW':^23s}|"
    f"{'':>7s}|{'closed':>7s}|{'relaxation':^13s}|{'tightening':^13s}|{'recovery':^13s}|\n"
    f"{'case':25s}|{'plain':>8s} {'closed':>8s} {'tangent':>8s} {'cut-off':>8s} {'cones':>8s} | {'gap %':>7s} "
    f"{'':>10s}|{'plain':>7s} {'before':>6s} {'after':>7s}|{'plain':>8s} {'model':>7s} {'AC':>6s}|{'s':>7s}|{'ms':>7s}|"
    f"{'ms':>6s} {'x HiGHS':>6s}|{'ms':>6s} {'x HiGHS':>6s}|{'ms':>6s} {'x Ipopt':>6s}|"
)


def line_of(row: Row) -> str:
    """Return a line of the table."""
    return (
        f"{row.case:25s}|{row.gap_plain:8.1f} {row.gap_closed:8.2f} {row.gap_tangent:8.3f} {row.gap_cut_off:8.4f} "
        f"{row.gap_cones:8.4f} | {row.gap:7.4f} {row.outcome:>10s}|{row.mismatch_plain:7.1f} {row.mismatch:6.3f} "
        f"{row.recovered_pu:7.0e}|{row.loss_plain_kw:8.0f} {row.loss_kw:7.1f} {row.ac_loss_kw:6.1f}|{row.s:7.2f}|"
        f"{row.closed_form_ms:7.1f}|{row.relax_ms:6.1f} {row.relax_x_highs:6.1f} |{row.tighten_ms:6.0f} "
        f"{row.tighten_x_highs:6.1f} |{row.recover_ms:6.1f} {row.recover_x_ipopt:6.1f} |"
    )


def main() -> None:
    """Print the table and, where asked for, write it as CSV."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("feeder", nargs="*", default=["ieee13", "ieee34", "ieee123"])
    parser.add_argument("--quick", action="store_true", help="nominal load and open ties only")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there as well")
    asked = parser.parse_args()
    print(HEAD)
    began, rows = perf_counter(), []
    for feeder_name in asked.feeder:
        for case in bench_cases(feeder_name, quick=asked.quick):
            rows.append(row_of(case))
            print(line_of(rows[-1]), flush=True)
    if asked.csv is not None:
        with asked.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(Row.__dataclass_fields__))
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    print(f"largest gap {max(row.gap for row in rows):.3f} %, largest mismatch before recovery "
          f"{max(row.mismatch for row in rows):.3f} %, after {max(row.recovered_pu for row in rows):.0e} p.u., "
          f"{perf_counter() - began:.0f} s in all")  # fmt: skip


if __name__ == "__main__":
    main()
