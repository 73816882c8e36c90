"""The three-phase market over many periods, tied together by batteries, AC-exact in every one of them.

Each period is linearised as in the market of one period, and one sparse program holds all periods and the batteries'
energy e_t = e_(t-1) + h·(efficiency·charge_t - discharge_t/efficiency). Nothing in it keeps a battery from charging
and discharging at once, which pays where power is worth less than nothing; where one does, it is given the direction
of its net power and the horizon is searched again.
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
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices, box_problems
from voltier.market.primary.three_phase.batteries import (
    Batteries,
    Direction,
    check_batteries,
    in_direction,
    with_batteries,
)
from voltier.market.primary.three_phase.day_program import DayProgram, DayStep
from voltier.market.primary.three_phase.exact import Outcome
from voltier.market.primary.three_phase.market import DEFAULT_WEIGHTS, clearing_at
from voltier.market.primary.three_phase.period import Period
from voltier.market.primary.three_phase.physics import build_physics
from voltier.market.primary.three_phase.point import AcPoint, point_solver
from voltier.market.primary.three_phase.problem import (
    ScaledProblem,
    SocialWeights,
    ThreePhaseClearing,
    check_share,
    scale_problem,
    weight_problems,
)
from voltier.market.primary.three_phase.search import Search, Walk

Array = NDArray[np.float64]

# Power that a battery charges and discharges at once which is the solver's rounding [kW].
BOTH_WAYS_KW = 1e-3


@dataclass(frozen=True, slots=True)
class DayClearing:
    """A cleared horizon. periods : clearing of each period, of the operators without the batteries; empty if failed.

    charge_kw, discharge_kw : (T, k) at the grid ; energy_kwh : (T, k) stored at the end of each period
    energy_price_usd_per_kwh : (T, k) what a stored kWh is worth at the end of each period
    direction : (T, k) 1 or -1 where a battery would have charged and discharged at once, and so may only discharge or
    only charge; 0 elsewhere. Prices are those of these directions
    cost_usd : objective over the horizon ; both_ways_usd : the same where batteries may do both at once, which no
    choice of directions undercuts (if the search found the best of its optima)
    kkt_residual, ac_residual_pu : worst over the periods
    status : "optimal" or "failed" (limits that no dispatch meets among them; the note says which it is)
    """

    periods: tuple[ThreePhaseClearing, ...]
    charge_kw: Array
    discharge_kw: Array
    energy_kwh: Array
    energy_price_usd_per_kwh: Array
    direction: Direction
    cost_usd: float
    both_ways_usd: float
    kkt_residual: float
    ac_residual_pu: float
    status: str
    note: str
    solve_s: float
    iterations: int


class ThreePhaseDay:
    """Clears a horizon of one network structure; the large program is set up once.

    share : (n, n_smo) as in ThreePhaseMarket; battery_share : (n, k) the same for batteries; hours : length of a
    period; n_period : periods in the horizon. Raises InputError for shares that are no distribution, without
    a battery, and for periods without length.
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
        if battery_share.shape[1] == 0 or not 0.0 < hours < np.inf:
            value, remedy = (
                (battery_share.shape[1], hours),
                "one battery at least, which ties periods together; hours > 0",
            )
            raise InputError([Problem("horizon", "batteries, hours", value, remedy)])
        self._share = check_share(network, share)
        self._n_battery, self.hours, self._n_period = battery_share.shape[1], hours, n_period
        both = sparse.csc_matrix(sparse.hstack([self._share, check_share(network, battery_share)]))
        self.net = build_physics(network)
        self.points = point_solver(self.net, both)
        self._program: DayProgram | None = None

    def clear(
        self,
        bids: Sequence[PrimaryBids],
        prices: Sequence[PrimaryPrices],
        batteries: Batteries,
        *,
        weights: SocialWeights = DEFAULT_WEIGHTS,
    ) -> DayClearing:
        """Return dispatch and prices of all periods; bids and prices : one for each period.

        Raises InputError for prices that are not as many as bids, and for batteries that cannot be.
        """
        began = perf_counter()
        if len(bids) != len(prices):
            remedy = f"one for each of the {len(bids)} periods that have bids"
            raise InputError([Problem("horizon", "prices", len(prices), remedy)])
        check_batteries(batteries, self._n_battery)
        wrong = weight_problems(weights) or self._size_problem(bids)
        if wrong:
            return self._failed(wrong, 0, began)
        base = self.net.network.s_phase_kva
        problems = [
            with_batteries(scale_problem(bid, price, weights, base), batteries, base)
            for bid, price in zip(bids, prices, strict=True)
        ]
        wrong = next((word for word in (box_problems(p.bids) for p in problems) if word), "")
        if wrong:
            return self._failed(wrong, 0, began)
        found = self._search(problems, batteries)
        if isinstance(found, str):
            return self._failed(found, 0, began)
        if not found.walk.kkt <= KKT_ACCEPTABLE:
            return self._failed(found.walk.note, found.iterations, began)
        return self._clearing(found, weights, began)

    def _size_problem(self, bids: Sequence[PrimaryBids]) -> str:
        if len(bids) != self._n_period:
            return f"{len(bids)} periods for a horizon of {self._n_period}"
        n_smo = self._share.shape[1]
        return next((f"{len(b.p0_kw)} bids for {n_smo} operators" for b in bids if len(b.p0_kw) != n_smo), "")

    def _search(self, problems: list[ScaledProblem], batteries: Batteries) -> _Found | str:
        """Search with both directions open, then with one where both were used, until none is."""
        direction = np.zeros((self._n_period, self._n_battery), dtype=np.int8)
        base, iterations, loose = self.net.network.s_phase_kva, 0, np.nan
        while True:
            one_way = [in_direction(p, way) for p, way in zip(problems, direction, strict=True)]
            search = DaySearch(self, one_way, batteries)
            start = search.start()
            if start is None:
                return "no power flow exists at the start"
            walk = search.run(start)
            iterations += walk.iterations
            cost = sum(point.cost for point in walk.point.points) * base * self.hours
            loose = cost if not direction.any() else loose
            found = _Found(search, walk, direction, cost, loose, iterations)
            walk.note = _note(found)
            net, both = _exchanged(walk.point, self._n_battery, BOTH_WAYS_KW / base)
            # Each round closes at least one more direction, so there is a last one.
            if not (walk.kkt <= KKT_ACCEPTABLE and both.any()):
                return found
            direction = np.where(both, np.where(net < 0.0, -1, 1), direction).astype(np.int8)

    def program(self, loaded: NDArray[np.int64]) -> DayProgram:
        """Return the program that has these wires among its rows."""
        if self._program is None or not np.all(np.isin(loaded, self._program.watched)):
            known = loaded if self._program is None else np.union1d(self._program.watched, loaded)
            self._program = DayProgram(
                self.net, self.points.pattern, known, n_period=self._n_period, n_battery=self._n_battery
            )
        return self._program

    def _clearing(self, found: _Found, weights: SocialWeights, began: float) -> DayClearing:
        search, day, kkt, note = found.search, found.walk.point, found.walk.kkt, found.walk.note
        base, k = self.net.network.s_phase_kva, self._n_battery
        clearings, worst = [], 0.0
        for period, point in zip(search.periods, day.points, strict=True):
            over_v, over_i = period.violations(point)
            ac = period.ac_residual(point)
            v_slack, i_slack = float(over_v.max(initial=0.0)), float(over_i.max(initial=0.0))
            outcome = Outcome(point, kkt, ac, v_slack, i_slack, found.iterations, True, note)
            clearing = clearing_at(self._share, self.points, self.net, outcome, point)
            clearings.append(replace(clearing, weights=weights))
            worst = max(worst, ac)
        u = np.stack([point.u[:, -k:] for point in day.points]) * base
        return DayClearing(
            periods=tuple(clearings),
            charge_kw=-u[:, 0],
            discharge_kw=u[:, 2],
            energy_kwh=search.energy(day.points) * base,
            energy_price_usd_per_kwh=day.worth * self.hours,
            direction=found.direction,
            cost_usd=found.cost_usd,
            both_ways_usd=found.both_ways_usd,
            kkt_residual=kkt,
            ac_residual_pu=worst,
            status="optimal",
            note=note,
            solve_s=perf_counter() - began,
            iterations=found.iterations,
        )

    def _failed(self, note: str, iterations: int, began: float) -> DayClearing:
        none = np.full((self._n_period, self._n_battery), np.nan)
        return DayClearing(
            periods=(),
            charge_kw=none,
            discharge_kw=none,
            energy_kwh=none,
            energy_price_usd_per_kwh=none,
            direction=np.zeros(none.shape, dtype=np.int8),
            cost_usd=np.nan,
            both_ways_usd=np.nan,
            kkt_residual=np.inf,
            ac_residual_pu=np.inf,
            status="failed",
            note=note,
            solve_s=perf_counter() - began,
            iterations=iterations,
        )


@dataclass(slots=True)
class DayPoint:
    """AC points of all periods; worth : (T, k) fall of the scaled cost with stored energy at each period's end."""

    points: list[AcPoint]
    worth: Array


@dataclass(slots=True)
class _Found:
    """Where a search over the directions of the batteries ended; fields as in DayClearing."""

    search: DaySearch
    walk: Walk[DayPoint]
    direction: Direction
    cost_usd: float
    both_ways_usd: float
    iterations: int


def _note(found: _Found) -> str:
    """Return what the search has to say, and first what was done to the batteries' directions."""
    count, note = np.count_nonzero(found.direction), found.walk.note
    if count == 0:
        return note
    why = f"{count} times a battery would charge and discharge at once"
    if not found.walk.kkt <= KKT_ACCEPTABLE:
        return f"{why}; with one direction each no dispatch was found: {note}"
    dearer = f"{why}; kept to one direction each, {found.cost_usd - found.both_ways_usd:.4g} $ dearer"
    return f"{dearer}; {note}" if note else dearer


def _exchanged(day: DayPoint, n_battery: int, least: float) -> tuple[Array, NDArray[np.bool_]]:
    """Return the net power of the batteries, (T, k) [p.u.], and where more than least goes both ways at once."""
    u = np.stack([point.u[:, -n_battery:] for point in day.points])
    return u[:, 0] + u[:, 2], np.minimum(-u[:, 0], u[:, 2]) > least


class DaySearch(Search[DayPoint, DayStep]):
    """The search for a horizon's dispatch."""

    # A program of a horizon takes its time, and the tolerance is met already.
    goal = KKT_TOLERANCE

    def __init__(self, owner: ThreePhaseDay, problems: list[ScaledProblem], batteries: Batteries) -> None:
        self._owner, self._points, net = owner, owner.points, owner.net
        self.periods = [Period(self._points, net, problem) for problem in problems]
        self.scale, self.elastic = max(period.scale for period in self.periods), False
        base, hours = owner.net.network.s_phase_kva, owner.hours
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
            at = period.at_rest(u)
            if at is None:
                return None
            found.append(at)
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
            new = period.point(u, v, step.v_price[t], step.i_price[t])
            if new is None:
                return None
            new.slope[0, -k:] += self._charge * step.worth[t]
            new.slope[2, -k:] += self._discharge * step.worth[t]
            found.append(new)
        return DayPoint(found, step.worth)
