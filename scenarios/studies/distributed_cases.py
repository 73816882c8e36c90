"""Markets on the published feeders as problems of atoms, balanced and three-phase, with their central optima.

Every spot load is an operator that can give up to a quarter of its load, shift reactive power, and, one in eight, run a
generator. Regulators are at their published taps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.errors import NotConvergedError
from voltier.grid.feeder import read_feeder
from voltier.grid.network import balanced_network
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.distributed.dispatch import BranchFlowFamily, JointCurrentFamily
from voltier.market.primary.distributed.program import CentralSolution, ConvexProgram, solve_central
from voltier.market.primary.distributed.successive import Tangents
from voltier.market.primary.distributed.tangent_branch_flow import BranchFlowPoint, BranchFlowTangent
from voltier.market.primary.distributed.tangent_current import CurrentPoint, CurrentTangent
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices, scale_bids
from voltier.market.primary.three_phase.problem import SocialWeights, scale_problem

Array = NDArray[np.float64]

FEEDERS = ("ieee13", "ieee34", "ieee123")
Formulation = Literal["branch_flow", "current_injection"]
FORMULATIONS: tuple[Formulation, ...] = ("branch_flow", "current_injection")

PRICES = PrimaryPrices(import_usd_per_kwh=0.10, import_slope_usd_per_kw2h=1e-5, loss_usd_per_kwh=0.10)
V_LIMITS_PU = (0.90, 1.10)
LOAD = 0.8
"""Of the published spot loads, at which the default voltage limits can be kept on all three feeders."""
LATER_LOAD, LATER_PRICE = 1.02, 1.05
"""How load and import price have moved when a market is cleared for the second time."""
POINT_LIMIT = 30
BEND_PU = 1e-9
"""What linearising leaves of the central optimum."""

TITLE = {"branch_flow": "branch flow", "current_injection": "three-phase current injection"}


@dataclass(frozen=True, slots=True)
class AtomMarket:
    """A market for atoms. key : "ieee34.current_injection" ; s_base_kva : of powers p.u.

    now, later : its tangent programs at the bids of this clearing and of the next
    flat : the point without flow, at which a cold start begins, and start its unknowns
    controls : columns of the set-points ; dlmp : multipliers of a program's rows -> cost of load at each node [$/kWh]
    """

    key: str
    s_base_kva: float
    now: Tangents[Any]
    later: Tangents[Any]
    flat: Any
    start: Array
    controls: slice
    dlmp: Callable[[Array], Array]


@dataclass(frozen=True, slots=True)
class CentralOptimum:
    """Where the successive central programs end: point, the program tangent there, and its optimum."""

    point: Any
    program: ConvexProgram
    solution: CentralSolution


def atom_market(feeder: str, formulation: Formulation) -> AtomMarket:
    """Return the market of a packaged feeder in one of the two formulations."""
    return (_balanced if formulation == "branch_flow" else _three_phase)(feeder)


def central_optimum(tangents: Tangents[Any], point: Any) -> CentralOptimum:
    """Solve tangent programs with everything in sight until linearising leaves nothing.

    Raises NotConvergedError where it goes on leaving something.
    """
    for _ in range(POINT_LIMIT):
        program = tangents.at(point)
        solution = solve_central(program)
        if tangents.bend(point, solution.x) <= BEND_PU:
            return CentralOptimum(point, program, solution)
        point = tangents.moved(point, solution.x, solution.y)
    raise NotConvergedError(f"the central programs of a market still move after {POINT_LIMIT} points")


def spot_bids(p_kw: Array) -> PrimaryBids:
    """Return the bids beside loads p_kw, consumption positive."""
    n = len(p_kw)
    return PrimaryBids(
        p0_kw=-p_kw, p_min_kw=-1.1 * p_kw, p_max_kw=-0.75 * p_kw, beta_p_usd_per_kw2h=0.2 / p_kw,
        q0_kvar=-0.4 * p_kw, q_min_kvar=-0.6 * p_kw, q_max_kvar=-0.2 * p_kw, beta_q_usd_per_kvar2h=0.05 / p_kw,
        gen_max_kw=np.where(np.arange(n) % 8 == 0, 30.0, 0.0), alpha_usd_per_kw2h=np.full(n, 0.12 / 30.0),
    )  # fmt: skip


def phase_case(
    network: ThreePhaseNetwork, share: sparse.csc_matrix, bids: PrimaryBids, key: str
) -> AtomMarket:
    """Return a three-phase market. share : (n, n_smo) of each operator's power at each phase node."""
    tangent, base = CurrentTangent(network, share), network.s_phase_kva
    layout = tangent.layout
    flat = CurrentPoint(
        np.full(layout.n_free + 3, network.v_source_pu, dtype=complex), np.zeros(layout.n_wire, dtype=complex),
        PRICES.import_usd_per_kwh,
    )  # fmt: skip

    def family(given: PrimaryBids, prices: PrimaryPrices) -> JointCurrentFamily:
        return JointCurrentFamily(tangent, network, scale_problem(given, prices, SocialWeights(), base))

    now = family(bids, PRICES)
    u = np.clip(now.problem.bids.start, now.problem.bids.low, now.problem.bids.high)
    return AtomMarket(
        key, base, now, _later(family, bids), flat, tangent.start(flat, u, 0.0), slice(layout.control, layout.head),
        lambda y: tangent.prices(now.problem, y).real,
    )  # fmt: skip


def spot_network(
    feeder_name: str, load: float = LOAD
) -> tuple[ThreePhaseNetwork, sparse.csc_matrix, PrimaryBids]:
    """Return a feeder without its spot loads, their shares of its phase nodes, and their bids.

    An operator's power is spread evenly over the phases of its load.
    """
    feeder = read_feeder(feeder_name)
    tap = feeder.regulators.published_tap
    loads = three_phase_network(feeder, tap).loads
    network = three_phase_network(feeder, tap, loads=False, v_min_pu=V_LIMITS_PU[0], v_max_pu=V_LIMITS_PU[1])
    touched = (abs(loads.across) > 0).astype(float)
    share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T)
    p_kw = load * (loads.s_power + loads.s_current + loads.s_impedance).real * network.s_phase_kva
    return network, share, spot_bids(p_kw)


def _three_phase(feeder: str) -> AtomMarket:
    return phase_case(*spot_network(feeder), f"{feeder}.current_injection")


def _balanced(feeder_name: str) -> AtomMarket:
    feeder = read_feeder(feeder_name)
    v_min, v_max = V_LIMITS_PU
    network = balanced_network(feeder, feeder.regulators.published_tap, v_min_pu=v_min, v_max_pu=v_max)
    rows, loads = feeder.load_buses, feeder.spot_loads
    bids = spot_bids(LOAD * np.bincount(loads.bus, loads.p_kw, len(feeder.bus))[rows])
    tangent = BranchFlowTangent(network, network.node_of_bus[rows])
    size = tangent.size
    state = np.zeros((4, size.n_node))
    state[2] = network.v_root_pu**2
    flat = BranchFlowPoint(state, np.zeros(size.n_branch))

    def family(given: PrimaryBids, prices: PrimaryPrices) -> BranchFlowFamily:
        return BranchFlowFamily(tangent, network, scale_bids(given, prices, network.s_base_kva))

    now = family(bids, PRICES)
    u = np.clip(now.bids.start, now.bids.low, now.bids.high)
    return AtomMarket(
        f"{feeder_name}.branch_flow", network.s_base_kva, now, _later(family, bids), flat, tangent.start(flat, u),
        slice(size.control, size.head), lambda y: -y[: size.n_node],
    )  # fmt: skip


def _later(family: Callable[[PrimaryBids, PrimaryPrices], Any], bids: PrimaryBids) -> Any:
    names = ("p0_kw", "p_min_kw", "p_max_kw", "q0_kvar", "q_min_kvar", "q_max_kvar")
    moved = replace(bids, **{name: LATER_LOAD * getattr(bids, name) for name in names})
    return family(moved, replace(PRICES, import_usd_per_kwh=LATER_PRICE * PRICES.import_usd_per_kwh))
