"""What a round costs as atoms become many: copies of IEEE 123 at one substation, and the IEEE 8500-node feeder.

Files of the 8500-node feeder are not packaged. The copies are parallel feeders, so they say what size costs in time
and nothing on how rounds grow with depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.errors import InputError, Problem
from voltier.grid.flow.threephase import solve_power_flow
from voltier.grid.readers.opendss import read_opendss
from voltier.grid.threephase import Branches, ThreePhaseNetwork, VoltageLoads
from voltier.market.primary.distributed.atoms import Atoms, atomise, per_node
from voltier.market.primary.distributed.dispatch import JointCurrentFamily
from voltier.market.primary.distributed.local import local_problem
from voltier.market.primary.distributed.options import MethodName, Options
from voltier.market.primary.distributed.program import ConvexProgram
from voltier.market.primary.distributed.solve import build_method
from voltier.market.primary.distributed.tangent_current import CurrentTangent
from voltier.market.primary.problem import PrimaryBids
from voltier.market.primary.three_phase.problem import SocialWeights, scale_problem
from voltier.scenarios.studies.distributed_cases import PRICES, spot_bids, spot_network

Index = NDArray[np.int64]
Array = NDArray[np.float64]
Market = tuple[ThreePhaseNetwork, sparse.csc_matrix, PrimaryBids]

LARGE = Path("opendss") / "8500-Node" / "Master-unbal.dss"
"""Where the 8500-node feeder is within a folder of feeder files."""
LARGE_NAME = "ieee8500"
LARGE_LIMITS_PU = (0.90, 1.05)
N_SOURCE = 3
WARM_UP, REPEATS, ENOUGH_S = 100, 3, 0.2
"""Rounds before timing, timings of which the fastest counts, and the seconds that one of them should take."""


@dataclass(frozen=True, slots=True)
class ScalingPoint:
    """One size. atoms, unknowns, copies : how many ; s_per_round : of each method, all atoms on one core [s]."""

    label: str
    atoms: int
    unknowns: int
    copies: int
    s_per_round: dict[MethodName, float]


def scaling(
    feeders: Sequence[str],
    copies: Sequence[int],
    methods: Sequence[MethodName],
    files: Path | None,
    tell: Callable[[str], None],
) -> Iterator[ScalingPoint]:
    """Yield the time of a round for packaged feeders, for each number of copies of IEEE 123, and for the large feeder.

    files : folder that may hold the large feeder's files ; tell : is told what comes next
    """
    for name in feeders:
        tell(name)
        yield _measured(name, spot_network(name), methods)
    one = spot_network("ieee123") if copies else None
    for count in copies:
        tell(f"ieee123 x{count}")
        assert one is not None
        yield _measured(f"ieee123 x{count}", side_by_side(one, count), methods)
    if files is not None and (files / LARGE).is_file():
        tell(LARGE_NAME)
        yield _measured(LARGE_NAME, large_market(files / LARGE), methods)


def _measured(label: str, market: Market, methods: Sequence[MethodName]) -> ScalingPoint:
    program, start = idle_program(*market)
    atoms = atomise(program, per_node(program))
    spent = {name: seconds_per_round(program, start, name) for name in methods}
    return ScalingPoint(label, atoms.n_atom, len(atoms.column), atoms.n_copy, spent)


def idle_program(
    network: ThreePhaseNetwork, share: sparse.csc_matrix, bids: PrimaryBids
) -> tuple[ConvexProgram, Array]:
    """Return the program tangent at the power flow of the forecasts, and that point's unknowns."""
    base, tangent = network.s_phase_kva, CurrentTangent(network, share)
    problem = scale_problem(bids, PRICES, SocialWeights(), base)
    forecast = np.asarray(share @ (bids.p0_kw + 1j * bids.q0_kvar)) / base
    point = tangent.point(solve_power_flow(network, forecast).v, PRICES.import_usd_per_kwh)
    program = JointCurrentFamily(tangent, network, problem).at(point)
    x = tangent.start(point, problem.bids.start, 0.0)
    return program, np.clip(x, program.low, program.high)


def seconds_per_round(
    program: ConvexProgram, start: Array, method: MethodName, options: Options | None = None
) -> float:
    """Return process seconds of a round of all atoms on one core, the best of some timings after a warm-up."""
    options = options or Options()
    atoms: Atoms = atomise(program, per_node(program))
    worker = build_method(method, local_problem(atoms), options, program.stiffness)
    worker.begin(atoms.spread(start), np.zeros(len(atoms.rhs)), np.zeros(atoms.n_copy))
    worker.advance(WARM_UP)
    began = process_time()
    worker.advance(WARM_UP)
    count = int(np.clip(WARM_UP * ENOUGH_S / max(process_time() - began, 1e-6), 20, 20_000))
    spent = []
    for _ in range(REPEATS):
        began = process_time()
        worker.advance(count)
        spent.append((process_time() - began) / count)
    return min(spent)


def side_by_side(market: Market, count: int) -> Market:
    """Return count copies of a market without loads of its own, fed from one substation."""
    network, share, bids = market
    if network.loads.across.shape[0] or network.angle_rad is not None:
        remedy = "a network without voltage-dependent loads and in the nominal frame"
        raise InputError([Problem("copies", "network", len(network.bus), remedy)])
    n, n_bus = network.y.shape[0], len(network.bus)
    total = N_SOURCE + count * (n - N_SOURCE)

    def moved(node: Index, k: int) -> Index:
        return np.where(node < N_SOURCE, node, node + k * (n - N_SOURCE))

    def tiled(value: Array) -> Array:
        return np.concatenate([value[:N_SOURCE], np.tile(value[N_SOURCE:], count)])

    y, parts = sparse.coo_matrix(network.y), range(count)
    place = (
        np.concatenate([moved(y.row, k) for k in parts]),
        np.concatenate([moved(y.col, k) for k in parts]),
    )
    held = sparse.coo_matrix(share)
    where = (
        np.concatenate([moved(held.row, k) for k in parts]),
        np.concatenate([held.col + k * share.shape[1] for k in parts]),
    )
    none = np.zeros(0, dtype=complex)
    whole = replace(
        network,
        bus=tuple(f"{k}.{bus}" for k in parts for bus in network.bus),
        node_bus=np.concatenate(
            [network.node_bus[:N_SOURCE], *(network.node_bus[N_SOURCE:] + k * n_bus for k in parts)]
        ),
        node_phase=np.concatenate(
            [network.node_phase[:N_SOURCE], *(network.node_phase[N_SOURCE:] for _ in parts)]
        ),
        bus_node=np.concatenate([moved(network.bus_node, k) for k in parts]),
        bus_ratio=np.tile(network.bus_ratio, (count, 1)),
        y=sparse.csr_matrix((np.tile(y.data, count), place), shape=(total, total)),
        branches=_copied(network.branches, count, moved),
        loads=VoltageLoads(sparse.csr_matrix((0, total), dtype=complex), np.zeros(0), none, none, none),
        v_min_pu=tiled(network.v_min_pu),
        v_max_pu=tiled(network.v_max_pu),
        kv_ll=np.tile(network.kv_ll, count),
        tap_layout=None,
    )
    shares = sparse.csc_matrix((np.tile(held.data, count), where), shape=(total, count * share.shape[1]))
    names = PrimaryBids.__dataclass_fields__
    return whole, shares, replace(bids, **{name: np.tile(getattr(bids, name), count) for name in names})


def _copied(branches: Branches, count: int, moved: Callable[[Index, int], Index]) -> Branches:
    same = ("from_ratio", "to_ratio", "y_ff", "y_ft", "y_tf", "y_tt", "i_max_pu")
    return replace(
        branches,
        name=tuple(f"{k}.{name}" for k in range(count) for name in branches.name),
        from_node=np.concatenate([moved(branches.from_node, k) for k in range(count)]),
        to_node=np.concatenate([moved(branches.to_node, k) for k in range(count)]),
        **{name: np.concatenate([getattr(branches, name)] * count) for name in same},
    )


def large_market(path: Path) -> Market:
    """Return the 8500-node feeder with its own loads, and flexible devices beside every second of them."""
    network = read_opendss(
        path, settle_controls=True, v_min_pu=LARGE_LIMITS_PU[0], v_max_pu=LARGE_LIMITS_PU[1]
    )
    loads, at = network.loads, np.arange(0, network.loads.across.shape[0], 2)
    kw = (loads.s_power + loads.s_current + loads.s_impedance).real[at] * network.s_phase_kva
    at, kw = at[kw > 0.0], kw[kw > 0.0]
    touched = (abs(loads.across[at]) > 0).astype(float)
    share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T)
    zero = np.zeros(len(kw))
    # The loads themselves follow their voltage: the devices' forecast is nothing, and their room is half a load.
    room = replace(
        spot_bids(kw), p0_kw=zero, p_min_kw=-0.5 * kw, p_max_kw=0.5 * kw, q0_kvar=zero, q_min_kvar=-0.5 * kw,
        q_max_kvar=0.5 * kw,
    )  # fmt: skip
    return network, share, room
