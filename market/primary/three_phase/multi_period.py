"""The three-phase market over many periods, tied together by batteries, AC-exact in every one of them.

Each period is linearised as in the market of one period; a battery is an operator whose net power is minus what it
charges and whose generation is what it discharges, and one sparse program holds all periods and the batteries'
energy e_t = e_(t-1) + h·(efficiency·charge_t - discharge_t/efficiency).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.errors import InputError, Problem
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.exact import KKT_ACCEPTABLE, KKT_TOLERANCE
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices, ScaledBids, box_problems
from voltier.market.primary.three_phase.day_program import DayProgram, DayStep
from voltier.market.primary.three_phase.exact import Outcome
from voltier.market.primary.three_phase.market import DEFAULT_WEIGHTS, clearing_at
from voltier.market.primary.three_phase.period import Period
from voltier.market.primary.three_phase.physics import build_physics
from voltier.market.primary.three_phase.point import AcPoint, PointSolver
from voltier.market.primary.three_phase.problem import (
    ScaledProblem,
    SocialWeights,
    ThreePhaseClearing,
    check_share,
    scale_problem,
)
from voltier.market.primary.three_phase.search import Search
from voltier.market.primary.three_phase.tangent import build_pattern

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Batteries:
    """Batteries of the feeder; (k,) each.

    charge_max_kw, discharge_max_kw : at the grid ; energy_min_kwh, energy_max_kwh : limits of what is stored
    energy_start_kwh : stored at the start ; energy_end_kwh : least to be stored at the end
    charge_efficiency, discharge_efficiency : in (0, 1] ; wear_usd_per_kwh : cost of a discharged kWh
    """

    charge_max_kw: Array
    discharge_max_kw: Array
    energy_min_kwh: Array
    energy_max_kwh: Array
    energy_start_kwh: Array
    energy_end_kwh: Array
    charge_efficiency: Array
    discharge_efficiency: Array
    wear_usd_per_kwh: Array


@dataclass(frozen=True, slots=True)
class DayClearing:
    """A cleared horizon. periods : clearing of each period, of the operators without the batteries; empty if failed.

    charge_kw, discharge_kw : (T, k) at the grid ; energy_kwh : (T, k) stored at the end of each period
    energy_price_usd_per_kwh : (T, k) what a stored kWh is worth at the end of each period
    cost_usd : objective over the horizon ; kkt_residual, ac_residual_pu : worst over the periods
    status : "optimal" or "failed" (limits that no dispatch meets among them; the note says which it is)
    """

    periods: tuple[ThreePhaseClearing, ...]
    charge_kw: Array
    discharge_kw: Array
    energy_kwh: Array
    energy_price_usd_per_kwh: Array
    cost_usd: float
    kkt_residual: float
    ac_residual_pu: float
    status: str
    note: str
    solve_s: float
    iterations: int


class ThreePhaseDay:
    """Clears a horizon of one network structure; the large program is set up once.

    share : (n, n_smo) as in ThreePhaseMarket; battery_share : (n, k) the same for batteries; hours : length of a
    period; n_period : periods in the horizon. Raises InputError for shares that are no distribution and
    for batteries that cannot be.
    """

    def __init__(
        self,
        network: ThreePhaseNetwork,
        share: sparse.spmatrix,
        battery_share: sparse.spmatrix,
        *,
        hours: float,
        n_period: int,
    ) -> None:
        self.network, self._share = network, check_share(network, share)
        self._n_battery, self.hours, self._n_period = battery_share.shape[1], hours, n_period
        both = sparse.csc_matrix(sparse.hstack([self._share, check_share(network, battery_share)]))
        self.net = build_physics(network)
        self.points = PointSolver(build_pattern(self.net, both), both)
        self._program: DayProgram | None = None

    def clear(
        self,
        bids: Sequence[PrimaryBids],
        prices: Sequence[PrimaryPrices],
        batteries: Batteries,
        *,
        weights: SocialWeights = DEFAULT_WEIGHTS,
    ) -> DayClearing:
        """Return dispatch and prices of all periods; bids and prices : one for each period."""
        began = perf_counter()
        check_batteries(batteries, self._n_battery)
        base = self.network.s_phase_kva
        problems = [
            with_batteries(scale_problem(bid, price, weights, base), batteries, base)
            for bid, price in zip(bids, prices, strict=True)
        ]
        wrong = next((word for word in (box_problems(p.bids) for p in problems) if word), "")
        if len(problems) != self._n_period:
            wrong = f"{len(problems)} periods for a horizon of {self._n_period}"
        if wrong:
            return self._failed(wrong, 0, perf_counter() - began)
        search = DaySearch(self, problems, batteries)
        start = search.start()
        if start is None:
            return self._failed("no power flow exists at the start", 0, perf_counter() - began)
        walk = search.run(start)
        if walk.kkt > KKT_ACCEPTABLE:
            return self._failed(walk.note, walk.iterations, perf_counter() - began)
        return self._clearing(search, walk.point, weights, (walk.kkt, walk.iterations, walk.note, began))

    def program(self, loaded: NDArray[np.int64]) -> DayProgram:
        """Return the program that has these wires among its rows."""
        if self._program is None or not np.all(np.isin(loaded, self._program.watched)):
            known = loaded if self._program is None else np.union1d(self._program.watched, loaded)
            self._program = DayProgram(
                self.net, self.points.pattern, known, n_period=self._n_period, n_battery=self._n_battery
            )
        return self._program

    def _clearing(
        self, search: DaySearch, day: DayPoint, weights: SocialWeights, told: tuple[float, int, str, float]
    ) -> DayClearing:
        kkt, iterations, note, began = told
        base, k = self.network.s_phase_kva, self._n_battery
        clearings, worst = [], 0.0
        for period, point in zip(search.periods, day.points, strict=True):
            over_v, over_i = period.violations(point)
            ac = period.ac_residual(point)
            v_slack, i_slack = float(over_v.max(initial=0.0)), float(over_i.max(initial=0.0))
            outcome = Outcome(point, kkt, ac, v_slack, i_slack, iterations, True, note)
            clearing = clearing_at(self.network, self._share, self.points, self.net, outcome, point)
            clearings.append(replace(clearing, weights=weights))
            worst = max(worst, ac)
        u = np.stack([point.u[:, -k:] for point in day.points]) * base
        return DayClearing(
            periods=tuple(clearings),
            charge_kw=-u[:, 0],
            discharge_kw=u[:, 2],
            energy_kwh=search.energy(day.points) * base,
            energy_price_usd_per_kwh=day.worth * self.hours,
            cost_usd=sum(c.cost_usd_per_h for c in clearings) * self.hours,
            kkt_residual=kkt,
            ac_residual_pu=worst,
            status="optimal",
            note=note,
            solve_s=perf_counter() - began,
            iterations=iterations,
        )

    def _failed(self, note: str, iterations: int, solve_s: float) -> DayClearing:
        none = np.full((self._n_period, self._n_battery), np.nan)
        return DayClearing(
            (), none, none, none, none, np.nan, np.inf, np.inf, "failed", note, solve_s, iterations
        )


def with_batteries(problem: ScaledProblem, batteries: Batteries, base: float) -> ScaledProblem:
    """Append the batteries to the operators: net power is minus the charge, generation the discharge."""
    bids, zero = problem.bids, np.zeros(len(batteries.charge_max_kw))
    low = np.stack([-batteries.charge_max_kw / base, zero, zero])
    high = np.stack([zero, zero, batteries.discharge_max_kw / base])
    flat = np.stack([zero, zero, zero])
    wear = np.stack([zero, zero, batteries.wear_usd_per_kwh])

    def joined(own: Array, more: Array) -> Array:
        return np.concatenate([own, more], axis=1)

    extended: ScaledBids = replace(
        bids,
        low=joined(bids.low, low),
        high=joined(bids.high, high),
        start=joined(bids.start, flat),
        weight=joined(bids.weight, flat),
        linear=joined(bids.linear, wear),
    )
    return replace(problem, bids=extended)


def check_batteries(batteries: Batteries, count: int) -> None:
    """Raise InputError for batteries that cannot be."""
    b = batteries
    wrong = {
        "charge_max_kw": b.charge_max_kw < 0.0,
        "discharge_max_kw": b.discharge_max_kw < 0.0,
        "energy_start_kwh": (b.energy_start_kwh < b.energy_min_kwh) | (b.energy_start_kwh > b.energy_max_kwh),
        "energy_end_kwh": b.energy_end_kwh > b.energy_max_kwh,
        "charge_efficiency": (b.charge_efficiency <= 0.0) | (b.charge_efficiency > 1.0),
        "discharge_efficiency": (b.discharge_efficiency <= 0.0) | (b.discharge_efficiency > 1.0),
    }
    problems = [
        Problem(f"battery {k}", name, float(getattr(b, name)[k]), "within its limits; efficiencies in (0, 1]")
        for name, bad in wrong.items()
        for k in np.flatnonzero(bad)
    ]
    if len(b.charge_max_kw) != count:
        problems.append(Problem("batteries", "charge_max_kw", len(b.charge_max_kw), f"{count} of them"))
    if problems:
        raise InputError(problems)


@dataclass(slots=True)
class DayPoint:
    """AC points of all periods; worth : (T, k) fall of the scaled cost with stored energy at each period's end."""

    points: list[AcPoint]
    worth: Array


class DaySearch(Search[DayPoint, DayStep]):
    """The search for a horizon's dispatch."""

    # A program of a horizon takes its time, and the tolerance is met already.
    goal = KKT_TOLERANCE

    def __init__(self, owner: ThreePhaseDay, problems: list[ScaledProblem], batteries: Batteries) -> None:
        self._owner, self._points, net = owner, owner.points, owner.net
        self.periods = [Period(self._points, net, owner.network, problem) for problem in problems]
        self.scale, self.elastic = max(period.scale for period in self.periods), False
        base, hours = owner.network.s_phase_kva, owner.hours
        self._charge = hours * batteries.charge_efficiency
        self._discharge = hours / batteries.discharge_efficiency
        self._start = batteries.energy_start_kwh / base
        self._low = np.tile(batteries.energy_min_kwh / base, (len(problems), 1))
        self._low[-1] = np.maximum(self._low[-1], batteries.energy_end_kwh / base)
        self._high = np.tile(batteries.energy_max_kwh / base, (len(problems), 1))
        self._hours, self._merit_weight = hours, 0.0

    def start(self) -> DayPoint | None:
        """Return the forecast with idle batteries."""
        k = len(self._start)
        found = []
        for period in self.periods:
            u = period.first_controls()
            u[:, -k:] = 0.0
            v = self._points.first_flow(period.net, u, self._owner.network.v_source_pu)
            if v is None:
                return None
            none = np.zeros(len(v) - 3), np.zeros(len(period.net.i_max))
            found.append(period.point(u, v, *none))
        return DayPoint(found, np.zeros_like(self._low))

    def energy(self, points: list[AcPoint]) -> Array:
        """Return what is stored at the end of each period, (T, k) [p.u. h]."""
        k = len(self._start)
        u = np.stack([point.u[:, -k:] for point in points])
        return np.asarray(
            self._start + np.cumsum(-self._charge * u[:, 0] - self._discharge * u[:, 2], axis=0)
        )

    def _excess(self, day: DayPoint) -> Array:
        stored = self.energy(day.points)
        return np.maximum(stored - self._high, 0.0) + np.maximum(self._low - stored, 0.0)

    def residual(self, point: DayPoint) -> float:
        """Return the worst residual of the periods and of the stored energy."""
        stored, worth = self.energy(point.points), point.worth
        rise = np.vstack([worth[1:] - worth[:-1], -worth[-1:]])
        slack = np.maximum(rise, 0.0) * np.maximum(self._high - stored, 0.0)
        slack += np.maximum(-rise, 0.0) * np.maximum(stored - self._low, 0.0)
        worst = max(float(slack.max()) / self.scale, float(self._excess(point).max()))
        return max(worst, *(period.residual(p) for period, p in zip(self.periods, point.points, strict=True)))

    def merit(self, point: DayPoint) -> float:
        """Return cost plus weighted excess over all limits."""
        total = self._merit_weight * float(self._excess(point).sum())
        for period, p in zip(self.periods, point.points, strict=True):
            total += period.merit(p, self._merit_weight)
        return total

    def direction(self, point: DayPoint, proximal: float, *, exact: bool) -> DayStep | None:
        """Fill in all periods at their points and solve the program of the horizon."""
        loaded = [p.loaded(at) for p, at in zip(self.periods, point.points, strict=True)]
        program = self._owner.program(np.unique(np.concatenate(loaded)))
        for t, (period, at) in enumerate(zip(self.periods, point.points, strict=True)):
            period.fill(at, proximal, exact=exact)
            tangent = period.points.wire_tangent(period.net, at.current)
            program.put(t, at, period.bids, period.room(at), tangent)
        stored = self.energy(point.points)
        program.store(self._charge, self._discharge, self._low - stored, self._high - stored)
        step = program.solve()
        if step is not None:
            largest = max(
                float(np.abs(part).max(initial=0.0)) for part in (step.v_price, step.i_price, step.worth)
            )
            self._merit_weight = max(self._merit_weight, 2.0 * largest)
        return step

    def trial(self, point: DayPoint, step: DayStep, share: float) -> DayPoint | None:
        """Return the AC points of all periods a share of the step away."""
        k = len(self._start)
        found = []
        for t, (period, at) in enumerate(zip(self.periods, point.points, strict=True)):
            u, v = period.moved(at, share * step.u[t], share * step.dv[t])
            if v is None:
                return None
            new = period.point(u, v, step.v_price[t], step.i_price[t])
            new.slope[0, -k:] += self._charge * step.worth[t]
            new.slope[2, -k:] += self._discharge * step.worth[t]
            found.append(new)
        return DayPoint(found, step.worth)
