"""Network-aware control of the duck-curve case: least ramping of the import over the three-phase current injection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.errors import NotConvergedError
from voltier.grid.flow.threephase import solve_power_flow
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.grid.threephase_build import retap_three_phase, three_phase_network
from voltier.market.primary.distributed.atoms import per_node
from voltier.market.primary.distributed.horizon import HorizonTangents, scaled_storage
from voltier.market.primary.distributed.options import Options, StoppingRule
from voltier.market.primary.distributed.ramp import RampPrice, RampTangents
from voltier.market.primary.distributed.successive import (
    CentralSuccessive,
    SuccessiveSolution,
    central_successive,
    solve_successive,
)
from voltier.market.primary.distributed.tangent_current import CurrentPoint, CurrentTangent
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices
from voltier.market.primary.three_phase.batteries import Batteries, Direction, in_direction, with_batteries
from voltier.market.primary.three_phase.problem import ScaledProblem, SocialWeights, scale_problem
from voltier.scenarios.studies.duck_curve_balance import both_ways
from voltier.scenarios.studies.duck_curve_case import HOURS, INVERTER_POWER_FACTOR, DuckCase
from voltier.scenarios.studies.duck_curve_flow import day_flow

Array = NDArray[np.float64]
Index = NDArray[np.int64]

RAMP_USD_PER_KW = 0.1
"""The unit of the objective: total ramping has no price of its own."""
EFFORT_SHARE = 0.02
"""Marginal cost of a device at its limit over the price of ramping: decides between dispatches of equal ramping."""
WIDE_PU = (0.8, 1.25)
PLAN_PASSES = 10
TAP_SLACK = 1
"""Taps that a dispatch asks for may differ by this from those it was found at: relays have a dead band."""
CENTRAL_GOAL_PU = 1e-5
"""What linearising may leave: 3 W."""
ANDERSON: dict[str, Any] = {"anderson": 10, "mask": 0.0, "extrapolation": (0.0, 0.0, 0.0)}
PUBLISHED_ROUNDS, ROUNDS_A_POINT = 1000, 250
"""The paper's iterations, and after how many of them the program moves to a new tangent point."""


def until_agreed(max_rounds: int) -> tuple[Options, ...]:
    """Return the stages of our stopping rule: roughly first, so that the tangent points are near, then closely."""
    rough = StoppingRule(primal_pu=1e-3, price_change=3e-2, max_rounds=max_rounds)
    return Options(stop=rough, **ANDERSON), Options(stop=StoppingRule(max_rounds=max_rounds), **ANDERSON)


def as_published(rounds: int = PUBLISHED_ROUNDS) -> tuple[Options, ...]:
    """Return stages of together as many iterations, with Nesterov steps and masked, and without a stopping rule."""
    never = StoppingRule(
        primal_pu=0.0, price_change=0.0, look_every=ROUNDS_A_POINT, max_rounds=ROUNDS_A_POINT
    )
    return (Options(stop=never),) * (rounds // ROUNDS_A_POINT)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A day's dispatch.

    p_kw, q_kvar : (T, n) injection of buses with load ; charge_kw, discharge_kw, energy_kwh : (T, k), energy at the
    ends of hours ; head_kw : (T,) import, losses included ; v_pu : (T, n_node) magnitudes of phase nodes
    price : (T, n_free) multipliers of active balances over the ramp's price, of free phase nodes
    """

    p_kw: Array
    q_kvar: Array
    charge_kw: Array
    discharge_kw: Array
    energy_kwh: Array
    head_kw: Array
    v_pu: Array
    price: Array


@dataclass(frozen=True, slots=True)
class ByAtoms:
    """Where the atoms ended: last solution, rounds and tangent points of all stages, atoms, seconds of processor."""

    last: SuccessiveSolution[Sequence[CurrentPoint]]
    rounds: int
    points: int
    atoms: int
    seconds: float


class NetworkControl:
    """Programs of the day at given taps.

    tap : (T, n_reg) ; direction : (T, k) 1 where a battery may only discharge, -1 only charge, 0 both
    """

    def __init__(
        self,
        case: DuckCase,
        devices: Batteries,
        tap: Index,
        direction: Direction,
        *,
        cyclic: bool,
        v_limits_pu: tuple[float, float],
    ) -> None:
        self.case, self._devices = case, devices
        first = three_phase_network(
            case.feeder, tap[0], loads=False, v_min_pu=v_limits_pu[0], v_max_pu=v_limits_pu[1]
        )
        known: dict[bytes, ThreePhaseNetwork] = {}
        for row in tap:
            known.setdefault(row.tobytes(), retap_three_phase(first, case.feeder, row))
        self.networks = [known[row.tobytes()] for row in tap]
        self.base_kva = first.s_phase_kva
        self.share = sparse.csc_matrix(sparse.hstack([_load_share(case, first), _battery_share(case, first)]))
        k = len(case.battery_bus)
        made = {key: CurrentTangent(network, self.share, batteries=k) for key, network in known.items()}
        tangents = [made[row.tobytes()] for row in tap]
        self.problems = [
            in_direction(_problem(case, devices, t, self.base_kva), direction[t]) for t in range(HOURS)
        ]
        storage = scaled_storage(devices, 1.0, HOURS, self.base_kva)
        horizon = HorizonTangents(tangents, self.networks, self.problems, storage)
        self.tangents = RampTangents(horizon, RampPrice(RAMP_USD_PER_KW, cyclic))

    def start(self) -> tuple[list[CurrentPoint], Array]:
        """Return point and unknowns of the day without control."""
        point, head = [], []
        for network, problem, tangent in zip(
            self.networks, self.problems, self.tangents.horizon.tangents, strict=True
        ):
            s = self.share @ (problem.bids.start[0] + problem.bids.start[2] + 1j * problem.bids.start[1])
            v = solve_power_flow(network, s).v
            point.append(tangent.point(v, RAMP_USD_PER_KW))
            head.append(float((v * np.conj(network.y @ v)).real[:3].sum()))
        return point, self.tangents.start(point, [problem.bids.start for problem in self.problems], head)

    def central(self, goal_pu: float) -> tuple[CentralSuccessive[Sequence[CurrentPoint]], float]:
        """Return the optimum found by a solver that sees everything, and its seconds of processor."""
        point, _ = self.start()
        began = process_time()
        found = central_successive(self.tangents, point, goal_pu)
        return found, process_time() - began

    def by_atoms(self, stages: Sequence[Options]) -> ByAtoms:
        """Return where NST-PAC ends, an atom for each bus and battery; every stage goes on where the last one ended."""
        point, x = self.start()
        profile = per_node(self.tangents.at(point))
        warm, rounds, points, began = None, 0, 0, process_time()
        for options in stages:
            found = solve_successive(self.tangents, point, x, profile, "nst-pac", options, warm=warm)
            rounds, points = rounds + found.rounds, points + found.points
            x, warm = found.solution.x, found.solution.warm
            last, point = found, self.tangents.moved(found.point, x, found.solution.duals)
        return ByAtoms(last, rounds, points, len(np.unique(profile.atom_of_place)), process_time() - began)

    def dispatch(self, point: Sequence[CurrentPoint], x: Array, y: Array) -> Dispatch:
        """Return what unknowns of the program at a point mean."""
        horizon, base, k = self.tangents.horizon, self.base_kva, len(self.case.battery_bus)
        layout, parts = horizon.layout, horizon.split(x)
        u = parts[:, layout.control : layout.head].reshape(HOURS, 3, -1)
        moved = horizon.moved(point, x, y)
        height = layout.n_row
        price = np.stack([y[t * height : t * height + layout.n_free] for t in range(HOURS)])
        return Dispatch(
            p_kw=base * (u[:, 0, :-k] + u[:, 2, :-k]),
            q_kvar=base * u[:, 1, :-k],
            charge_kw=-base * u[:, 0, -k:],
            discharge_kw=base * u[:, 2, -k:],
            energy_kwh=base * horizon.stored(x),
            head_kw=base * parts[:, layout.head],
            v_pu=np.abs(np.stack([one.v for one in moved])),
            price=price / RAMP_USD_PER_KW,
        )


def _problem(case: DuckCase, devices: Batteries, t: int, base: float) -> ScaledProblem:
    """Return the hour's boxes: load that may be shed, reactive power of inverters, batteries, and their efforts."""
    load, pv, shed = case.load_kw[t], case.pv_kw[t], case.shed_max_kw[t]
    reactive = np.tan(np.arccos(INVERTER_POWER_FACTOR)) * pv
    p0, q0 = pv - load, -case.load_kvar[t]
    bids = PrimaryBids(
        p0_kw=p0, p_min_kw=p0, p_max_kw=p0 + shed, beta_p_usd_per_kw2h=_effort(shed), q0_kvar=q0,
        q_min_kvar=q0 - reactive, q_max_kvar=q0 + reactive, beta_q_usd_per_kvar2h=_effort(reactive),
        gen_max_kw=np.zeros_like(p0), alpha_usd_per_kw2h=np.zeros_like(p0),
    )  # fmt: skip
    free = PrimaryPrices(import_usd_per_kwh=0.0, import_slope_usd_per_kw2h=0.0, loss_usd_per_kwh=0.0)
    problem = with_batteries(scale_problem(bids, free, SocialWeights(), base), devices, base)
    weight, k = problem.bids.weight.copy(), len(devices.charge_max_kw)
    weight[0, -k:], weight[2, -k:] = (
        2.0 * base * _effort(rating) for rating in (devices.charge_max_kw, devices.discharge_max_kw)
    )
    return replace(problem, bids=replace(problem.bids, weight=weight))


def _effort(limit: Array) -> Array:
    """Return beta of the cost beta·u² whose slope at the limit is EFFORT_SHARE of the ramp's price."""
    return np.where(
        limit > 0.0, 0.5 * EFFORT_SHARE * RAMP_USD_PER_KW / np.where(limit > 0.0, limit, 1.0), 0.0
    )


def _load_share(case: DuckCase, network: ThreePhaseNetwork) -> sparse.csc_matrix:
    operator, phase = np.nonzero(case.phase_share > 0.0)
    node = network.bus_node[case.bus[operator], phase]
    shape = (network.y.shape[0], len(case.bus))
    return sparse.csc_matrix((case.phase_share[operator, phase], (node, operator)), shape=shape)


def _battery_share(case: DuckCase, network: ThreePhaseNetwork) -> sparse.csc_matrix:
    k = len(case.battery_bus)
    node = network.bus_node[case.battery_bus].ravel()
    return sparse.csc_matrix(
        (np.full(3 * k, 1.0 / 3.0), (node, np.repeat(np.arange(k), 3))), shape=(network.y.shape[0], k)
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What the day settles to: control at taps that its own dispatch asks of the relays, its optimum, seconds of it."""

    control: NetworkControl
    tap: Index
    optimum: CentralSuccessive[Sequence[CurrentPoint]]
    dispatch: Dispatch
    seconds: float


def plan_day(
    case: DuckCase,
    devices: Batteries,
    tap: Index,
    *,
    cyclic: bool = True,
    v_limits_pu: tuple[float, float] = (0.95, 1.05),
) -> Plan:
    """Alternate between the central optimum and the relays' taps, from the taps of a day without control.

    The first optimum knows wide limits of voltages, for these taps are another day's. A battery that an optimum would
    charge and discharge at once is kept to the direction of its net power from then on. Raises NotConvergedError where
    the limits cannot be met or that does not end.
    """
    direction = np.zeros((HOURS, len(case.battery_bus)), dtype=np.int8)
    limits = WIDE_PU
    for _ in range(PLAN_PASSES):
        control = NetworkControl(case, devices, tap, direction, cyclic=cyclic, v_limits_pu=limits)
        optimum, seconds = control.central(CENTRAL_GOAL_PU)
        found = control.dispatch(optimum.point, optimum.solution.x, optimum.solution.y)
        both = both_ways(found.charge_kw, found.discharge_kw)
        wanted = day_flow(case, found.p_kw, found.q_kvar, found.discharge_kw - found.charge_kw).tap
        settled = np.abs(wanted - tap).max() <= TAP_SLACK
        if limits == v_limits_pu and settled and not both.any():
            return Plan(control, tap, optimum, found, seconds)
        way = np.where(found.charge_kw > found.discharge_kw, -1, 1)
        direction, limits = np.where(both, way, direction).astype(np.int8), v_limits_pu
        tap = tap if settled else wanted
    raise NotConvergedError(f"taps and directions of batteries do not settle in {PLAN_PASSES} passes")
