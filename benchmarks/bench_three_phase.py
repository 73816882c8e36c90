"""AC-exact three-phase market: ours against Ipopt (casadi), its programs against HiGHS, large feeders, a day.

Run with OMP_NUM_THREADS=1. Times are medians after one warm-up; Ipopt's is its solve alone, its symbolic set-up is
shown beside. `drift` is the day of small changes that a market clears in fact. The IEEE 8500-node feeder is cleared
where VOLTIER_FEEDER_FILES names a folder with opendss/8500-Node.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time

import highspy
import numpy as np
from scipy import sparse

from voltier.grid.feeder import read_feeder
from voltier.grid.flow.nodal import branch_currents
from voltier.grid.flow.threephase import solve_power_flow
from voltier.grid.readers.opendss import read_opendss
from voltier.grid.threephase import Branches, ThreePhaseNetwork, VoltageLoads
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.persistent import PersistentSolver
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices
from voltier.market.primary.three_phase.batteries import Batteries
from voltier.market.primary.three_phase.exact import ExactDispatch
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.market.primary.three_phase.multi_period import ThreePhaseDay
from voltier.market.primary.three_phase.period import Period
from voltier.market.primary.three_phase.problem import SocialWeights, check_share, scale_problem
from voltier.market.primary.three_phase.reference import ReferenceProgram

PRICES = PrimaryPrices(0.10, 1e-5, 0.10)
WEIGHTS = SocialWeights()
Case = tuple[ThreePhaseNetwork, sparse.csc_matrix, PrimaryBids]


def build_case(name: str, load: float, v: tuple[float, float]) -> Case:
    """Return a feeder whose spot loads bid, flexible by a quarter, one in eight with a generator."""
    feeder = read_feeder(name)
    tap = feeder.regulators.published_tap
    full = three_phase_network(feeder, tap)
    network = three_phase_network(feeder, tap, loads=False, v_min_pu=v[0], v_max_pu=v[1])
    touched = (abs(full.loads.across) > 0).astype(float)
    share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T)
    p = load * (full.loads.s_power + full.loads.s_current + full.loads.s_impedance).real * full.s_phase_kva
    return network, share, make_bids(p)


def make_bids(p: np.ndarray) -> PrimaryBids:
    n = len(p)
    return PrimaryBids(
        p0_kw=-p, p_min_kw=-1.1 * p, p_max_kw=-0.75 * p, beta_p_usd_per_kw2h=0.2 / p,
        q0_kvar=-0.4 * p, q_min_kvar=-0.6 * p, q_max_kvar=-0.2 * p, beta_q_usd_per_kvar2h=0.05 / p,
        gen_max_kw=np.where(np.arange(n) % 8 == 0, 30.0, 0.0), alpha_usd_per_kw2h=np.full(n, 0.12 / 30.0),
    )  # fmt: skip


def large_case(n_bus: int, n_smo: int) -> Case:
    """Return a made-up feeder of three-phase trunks and one-phase laterals with thousands of phase nodes."""
    rng = np.random.default_rng(0)
    phases_of: list[tuple[int, ...]] = [(0, 1, 2)]
    edges = []
    for bus in range(1, n_bus):
        above = int(rng.integers(max(0, bus - 40), bus)) if bus > 3 else bus - 1
        up = phases_of[above]
        whole = len(up) < 3 or bus < 4 or rng.random() < 0.5
        phases_of.append(up if whole else (int(rng.integers(3)),))
        edges.append((above, bus, np.array(phases_of[bus])))
    bus_node = np.full((n_bus, 3), -1)
    pairs = [(bus, phase) for bus in range(n_bus) for phase in phases_of[bus]]
    for node, (bus, phase) in enumerate(pairs):
        bus_node[bus, phase] = node
    n, m = len(pairs), len(edges)
    turn = np.exp(1j * np.array([0.0, -2.0, 2.0]) * np.pi / 3.0)
    z_wire = (0.0016 + 0.004j) * np.ones((3, 3)) + (0.0031 + 0.006j) * np.eye(3)
    ends, y = np.full((2, m, 3), -1), np.zeros((4, m, 3, 3), dtype=complex)
    row, column, value = [], [], []
    for k, (above, bus, ph) in enumerate(edges):
        z = z_wire[np.ix_(ph, ph)] * rng.uniform(5.0, 25.0) / n_bus
        series = np.linalg.inv(z * turn[ph][None, :] / turn[ph][:, None])
        ends[0, k, ph], ends[1, k, ph] = bus_node[above, ph], bus_node[bus, ph]
        for part, sign in enumerate((1, -1, -1, 1)):
            y[part, k][np.ix_(ph, ph)] = sign * series
            a, b = np.meshgrid(ends[part // 2, k, ph], ends[part % 2, k, ph], indexing="ij")
            row.append(a.ravel())
            column.append(b.ravel())
            value.append(sign * series.ravel())
    place = (np.concatenate(row), np.concatenate(column))
    none = np.zeros(0, dtype=complex)
    network = ThreePhaseNetwork(
        bus=tuple(str(bus) for bus in range(n_bus)), node_bus=np.array([bus for bus, _ in pairs]),
        node_phase=np.array([phase for _, phase in pairs]), bus_node=bus_node, bus_ratio=np.ones((n_bus, 3)),
        y=sparse.csr_matrix((np.concatenate(value), place), shape=(n, n)),
        branches=Branches(
            tuple(f"{a}-{b}" for a, b, _ in edges), *ends, np.ones((m, 3)), np.ones((m, 3)), *y, np.full(m, np.inf)
        ),
        loads=VoltageLoads(sparse.csr_matrix((0, n), dtype=complex), np.zeros(0), none, none, none),
        v_source_pu=1.03, v_min_pu=np.full(n, 0.95), v_max_pu=np.full(n, 1.05), s_phase_kva=1000.0 / 3.0,
        kv_ll=np.full(n_bus, 4.16),
    )  # fmt: skip
    at = rng.choice(np.arange(3, n), n_smo, replace=False)
    share = sparse.csc_matrix((np.ones(n_smo), (at, np.arange(n_smo))), shape=(n, n_smo))
    return network, share, make_bids(rng.uniform(0.5, 1.5, n_smo) * 2500.0 / n_smo)


def feeder_8500(path: Path, n_smo: int) -> Case:
    """Return the IEEE 8500-node feeder with flexible devices beside n_smo of its loads, a third with a generator.

    Wires that the file's own loads overload are rated 10 % above that current.
    """
    network = read_opendss(path, settle_controls=True, v_min_pu=0.90, v_max_pu=1.05)
    idle = solve_power_flow(network, np.zeros(len(network.node_bus), dtype=complex)).v
    current = np.maximum(*(np.abs(end).max(axis=1) for end in branch_currents(network, idle)))
    i_max = np.maximum(network.branches.i_max_pu, 1.1 * current)
    network = replace(network, branches=replace(network.branches, i_max_pu=i_max))
    rng, loads = np.random.default_rng(0), network.loads
    kw = (loads.s_power + loads.s_current + loads.s_impedance).real * network.s_phase_kva
    at = np.sort(rng.choice(len(kw), n_smo, replace=False))
    touched = (abs(loads.across[at]) > 0).astype(float)
    share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T)
    kw, zero = kw[at], np.zeros(n_smo)
    return network, share, PrimaryBids(
        p0_kw=zero, p_min_kw=-0.5 * kw, p_max_kw=0.5 * kw, beta_p_usd_per_kw2h=0.2 / kw,
        q0_kvar=zero, q_min_kvar=-0.5 * kw, q_max_kvar=0.5 * kw, beta_q_usd_per_kvar2h=0.05 / kw,
        gen_max_kw=np.where(rng.random(n_smo) < 1.0 / 3.0, 2.0 * kw, 0.0), alpha_usd_per_kw2h=0.06 / kw,
    )  # fmt: skip


def median_ms(work: Callable[[], object], repeats: int) -> float:
    """Return the median wall time of repeated calls after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        began = perf_counter()
        work()
        seconds.append(perf_counter() - began)
    return 1e3 * float(np.median(seconds))


def drift(bids: PrimaryBids, steps: int) -> list[PrimaryBids]:
    """Return bids that change smoothly and by 2 % noise per operator."""
    rng = np.random.default_rng(5)
    names = ("p0_kw", "p_min_kw", "p_max_kw", "q0_kvar", "q_min_kvar", "q_max_kvar")
    day = []
    for k in range(steps):
        size = (0.95 + 0.05 * np.sin(2 * np.pi * k / steps)) * rng.normal(1.0, 0.02, len(bids.p0_kw))
        day.append(replace(bids, **{name: getattr(bids, name) * size for name in names}))
    return day


def compare(name: str, case: Case, *, ipopt: bool, steps: int) -> None:
    """Print one line of the table."""
    network, share, bids = case
    market = ThreePhaseMarket(network, share)
    ours = market.clear(bids, PRICES)
    cold = median_ms(lambda: market.clear(bids, PRICES, warm=False), 7)
    day = [market.clear(each, PRICES) for each in drift(bids, steps)]
    warm = 1e3 * float(np.median([c.solve_s for c in day]))
    solved = sum(c.status == "optimal" for c in day)
    verdict = ""
    line = f"{name:26}{len(network.node_bus):7}{share.shape[1]:6}{cold:9.1f}{warm:9.1f}"
    if ipopt:
        began = perf_counter()
        program = ReferenceProgram(network, share, bids, PRICES, WEIGHTS)
        setup = 1e3 * (perf_counter() - began)
        theirs = program.solve()
        ms = median_ms(program.solve, 3)
        verdict = f"Ipopt {theirs.status}, "
        off = abs(ours.cost_usd_per_h / theirs.cost_usd_per_h - 1.0)
        line += f"{ms:9.0f}{setup:9.0f}{ms / cold:7.1f}{ms / warm:7.1f}{off:10.1e}"
    else:
        line += " " * 42
    print(
        f"{line}{ours.iterations:5}{ours.ac_residual_pu:10.1e}  {ours.status}, {verdict}drift {solved}/{len(day)}"
    )


def clear_8500(steps: int) -> None:
    """Print what clearing a period of the IEEE 8500-node feeder takes, or why it was not cleared."""
    path = Path(os.environ.get("VOLTIER_FEEDER_FILES", "")) / "opendss" / "8500-Node" / "Master-unbal.dss"
    if not path.is_file():
        print("IEEE 8500: skipped, VOLTIER_FEEDER_FILES names no folder with opendss/8500-Node")
        return
    began = perf_counter()
    network, share, bids = feeder_8500(path, 600)
    read = perf_counter()
    market = ThreePhaseMarket(network, share)
    built = perf_counter()
    cold = market.clear(bids, PRICES, bound=False)
    rng, warm = np.random.default_rng(5), []
    for _ in range(steps):
        # forecasts that move by a twentieth of the room, at another price of import
        p0 = 0.05 * rng.uniform(-1.0, 1.0, len(bids.p0_kw)) * bids.p_max_kw
        prices = PrimaryPrices(0.10 * rng.uniform(0.9, 1.1), 1e-5, 0.10)
        warm.append(market.clear(replace(bids, p0_kw=p0), prices, bound=False))
    every = [cold, *warm]
    bound = np.abs(cold.v_price_usd_per_puh) > 1e-3, cold.i_price_usd_per_puh > 1e-3
    print(f"IEEE 8500: {len(network.node_bus)} nodes, {share.shape[1]} operators; read {read - began:.2f} s, "
          f"set-up {built - read:.2f} s, cold {cold.solve_s:.2f} s, warm {np.median([c.solve_s for c in warm]):.2f} s; "
          f"{', '.join(c.status for c in every)}; {cold.iterations} programs cold; at most: AC residual "
          f"{max(c.ac_residual_pu for c in every):.1e} p.u., KKT {max(c.kkt_residual for c in every):.1e}, excess of "
          f"voltage {max(c.v_slack_pu for c in every):.1e}, of current {max(c.i_slack_pu for c in every):.1e} p.u.; "
          f"limits that bind: {bound[0].sum()} voltages, {bound[1].sum()} wires")  # fmt: skip


def programs(case: Case) -> None:
    """Print the program at the first point, with the convex Hessian and without one, by PIQP as we use it and HiGHS."""
    network, share, bids = case
    exact = ExactDispatch(network, check_share(network, share))
    problem = scale_problem(bids, PRICES, WEIGHTS, network.s_phase_kva)
    period = Period(exact.points, exact.net, problem)
    point = period.start(None)
    program = exact.program(period.loaded(point), elastic=False)
    program.bid(period.bids, 0.0)
    period.fill(point, 0.0, exact=False)
    tangent = exact.points.wire_tangent(exact.net, point.current)
    data = program.data(point.gradient, period.bids, point.u, period.room(point), tangent)
    linear = {**data, "P": sparse.csc_matrix(data["P"].shape)}
    for name, one in (("quadratic", data), ("linear", linear)):
        solver = PersistentSolver(goal=1e-9, content=0.0, step_limit=80)
        ms = median_ms(lambda solver=solver, one=one: solver.solve(**one), 7)
        result, solved = solver.solve(**one)
        theirs, value, status = by_highs(one)
        off = abs(result.info.primal_obj - value) / max(abs(value), 1e-12)
        print(f"IEEE 123, one {name} program: ours {ms:.2f} ms ({result.info.iter} steps, "
              f"{'solved' if solved else 'not solved'}), HiGHS {theirs:.2f} ms ({status}), ratio {theirs / ms:.1f}, "
              f"objectives apart by {off:.1e}")  # fmt: skip


def by_highs(data: dict) -> tuple[float, float, str]:
    """Return HiGHS's milliseconds, objective and verdict; the model's set-up is not counted."""
    matrix, rhs = data["A"], data["b"]
    low, high = rhs, rhs
    if "G" in data:
        matrix = sparse.csc_matrix(sparse.vstack([matrix, data["G"]]))
        low, high = np.append(low, np.full(len(data["h_u"]), -np.inf)), np.append(high, data["h_u"])
    # Without columns of like size its method takes the quadratic program, which is convex, for one that is not.
    size = 1.0 / np.maximum(np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=0)).ravel()), 1e-3)
    scale = sparse.diags(size)
    matrix, lower = sparse.csc_matrix(matrix @ scale), sparse.csc_matrix(scale @ data["P"].T @ scale)
    model = highspy.HighsModel()
    lp = model.lp_
    lp.num_row_, lp.num_col_ = matrix.shape
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = data["c"] * size, data["x_l"] / size, data["x_u"] / size
    lp.row_lower_, lp.row_upper_ = low, high
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
    if lower.nnz:
        lower.eliminate_zeros()
        model.hessian_.dim_, model.hessian_.format_ = lower.shape[0], highspy.HessianFormat.kTriangular
        model.hessian_.start_, model.hessian_.index_ = lower.indptr, lower.indices
        model.hessian_.value_ = lower.data
    seconds = []
    for _ in range(4):
        solver = highspy.Highs()
        solver.silent()
        solver.setOptionValue("threads", 1)
        solver.setOptionValue("time_limit", 30.0)
        solver.setOptionValue("qp_regularization_value", 0.0)
        solver.passModel(model)
        began = perf_counter()
        solver.run()
        seconds.append(perf_counter() - began)
    status = solver.modelStatusToString(solver.getModelStatus())
    return 1e3 * float(np.median(seconds[1:])), solver.getInfo().objective_function_value, status


def clear_day(case: Case, n_period: int, n_battery: int) -> None:
    """Print the time of a horizon with batteries."""
    network, share, bids = case
    rng = np.random.default_rng(0)
    n, one = len(network.node_bus), np.ones(n_battery)
    at = rng.choice(np.arange(3, n), n_battery, replace=False)
    places = sparse.csc_matrix((one, (at, np.arange(n_battery))), shape=(n, n_battery))
    batteries = Batteries(
        6 * one, 6 * one, one, 14 * one, 5 * one, 5 * one, 0.95 * one, 0.95 * one, 0.005 * one
    )
    hour = np.arange(n_period)
    size = 0.8 + 0.2 * np.sin(2 * np.pi * (hour - 8) / 24)
    price = 0.1 + 0.05 * np.sin(2 * np.pi * (hour - 10) / 24)
    names = ("p0_kw", "p_min_kw", "p_max_kw", "q0_kvar", "q_min_kvar", "q_max_kvar")
    day = [replace(bids, **{name: getattr(bids, name) * s for name in names}) for s in size]
    prices = [PrimaryPrices(p, 1e-5, 0.10) for p in price]
    market = ThreePhaseDay(network, share, places, hours=1.0, n_period=n_period)
    market.clear(day, prices, batteries)
    began, busy = perf_counter(), process_time()
    c = market.clear(day, prices, batteries)
    print(f"{n_period} h with {n_battery} batteries: {perf_counter() - began:.2f} s wall, "
          f"{process_time() - busy:.2f} s CPU, {c.status}, {c.iterations} programs, KKT {c.kkt_residual:.1e}, "
          f"AC {c.ac_residual_pu:.1e} p.u.")  # fmt: skip


def main() -> None:
    """Print the comparison."""
    print(f"{'':26}{'nodes':>7}{'smo':>6}{'cold ms':>9}{'warm ms':>9}{'Ipopt ms':>9}{'set-up':>9}"
          f"{'ratio':>7}{'warm':>7}{'cost off':>10}{'its':>5}{'AC p.u.':>10}")  # fmt: skip
    for name, load, v in (
        ("ieee13", 0.8, (0.90, 1.10)),
        ("ieee34", 0.8, (0.90, 1.10)),
        ("ieee123", 0.8, (0.90, 1.10)),
        ("ieee123", 1.0, (0.95, 1.05)),
    ):
        compare(f"{name} {v[0]} to {v[1]}", build_case(name, load, v), ipopt=True, steps=50)
    programs(build_case("ieee123", 1.0, (0.95, 1.05)))
    compare("made up, 5000 buses", large_case(5000, 1500), ipopt=False, steps=3)
    clear_8500(3)
    clear_day(build_case("ieee123", 0.8, (0.90, 1.10)), 24, 63)


if __name__ == "__main__":
    main()
