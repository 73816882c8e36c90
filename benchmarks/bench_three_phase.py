"""AC-exact three-phase market: ours cold and warm against Ipopt (casadi) on the same problem, and a large feeder.

Run with OMP_NUM_THREADS=1. Times are medians after one warm-up; Ipopt's is its solve alone, its symbolic set-up is
shown beside. `drift` is the day of small changes that a market clears in fact.
"""

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter, process_time

import numpy as np
from scipy import sparse

from voltier.grid.feeder import read_feeder
from voltier.grid.threephase import Branches, ThreePhaseNetwork, VoltageLoads
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.market.primary.three_phase.multi_period import Batteries, ThreePhaseDay
from voltier.market.primary.three_phase.problem import SocialWeights
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
    compare("made up, 5000 buses", large_case(5000, 1500), ipopt=False, steps=3)
    clear_day(build_case("ieee123", 0.8, (0.90, 1.10)), 24, 63)


if __name__ == "__main__":
    main()
