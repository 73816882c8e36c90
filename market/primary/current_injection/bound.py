"""Certified lower bounds of the three-phase primary market's cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import numpy as np
from scipy import sparse

from voltier.grid.errors import InputError, Problem
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.current_injection.bounds import Tightening, limits_of, operator_power
from voltier.market.primary.current_injection.by_cones import ConeRounds
from voltier.market.primary.current_injection.by_mccormick import McCormickRounds
from voltier.market.primary.current_injection.case import CONE_WORK, Case, Goal, Stage, relaxed_state
from voltier.market.primary.current_injection.cones import ConeRelaxation
from voltier.market.primary.current_injection.mccormick import McCormick
from voltier.market.primary.current_injection.terminals import (
    VoltageTarget,
    build_response,
    build_terminals,
)
from voltier.market.primary.problem import ScaledBids, box_problems

Method = Literal["auto", "mccormick", "mccormick+obbt", "cones"]
METHODS: tuple[Method, ...] = ("auto", "mccormick", "mccormick+obbt", "cones")
Outcome = Literal["reached", "infeasible", "stalled", "budget", "no goal"]

GAP_WANTED = 0.005
MOST_ROUNDS = 8
BUDGET = 800
# After the McCormick program's own rounds; what a few rounds of probing find is worth most to the cones.
ORDER = ("cones", "probing", "cones", "probing", "cones")
PROBING_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Bound:
    """A lower bound of the scaled cost (times s_phase_kva: $/h) of every dispatch that keeps all limits.

    value : inf where it is proven that no dispatch keeps them (without a cut-off), -inf where nothing was found
    outcome : "reached" what was wanted, "infeasible" proven, "stalled" when further rounds would gain little,
    out of "budget", or "no goal" without a cut-off; in each case the value is the best one proven
    mismatch_pu, mismatch : of the last relaxed state, before any recovery: largest and relative mean difference
    between powers and products of voltages and currents ; loss_pu : losses of its model
    stages : how it came about
    """

    value: float
    method: Method
    outcome: Outcome
    seconds: float
    mismatch_pu: float
    mismatch: float
    loss_pu: float
    stages: tuple[Stage, ...]


class BoundSolver:
    """Lower bounds of one network, built once; bids, prices and targets may change from call to call.

    network : with its taps, limits and loads ; share : (n, n_smo) part of each operator's injection at each node.
    Raises InputError for a network too large for dense responses.
    """

    def __init__(self, network: ThreePhaseNetwork, share: sparse.spmatrix) -> None:
        self._network = network
        v_source = float(network.v_source_pu)
        self._terminals = build_terminals(network, share)
        self._tightening = Tightening(self._terminals, build_response(self._terminals, v_source))
        self._limits = limits_of(network.v_min_pu, network.v_max_pu, v_source)
        self._mccormick: McCormickRounds | None = None
        self._cones: ConeRounds | None = None

    def bound(
        self,
        bids: ScaledBids,
        *,
        target: VoltageTarget | None = None,
        method: Method = "auto",
        cut_off: float | None = None,
        gap_wanted: float = GAP_WANTED,
        mismatch_wanted: float = np.inf,
        rounds: int = MOST_ROUNDS,
        budget: int = BUDGET,
    ) -> Bound:
        """Return a lower bound of the scaled cost.

        cut_off : scaled cost of a known feasible dispatch; with it, rounds of tightening around the optimum go on
        until the gap to it is at most gap_wanted and the relative mean mismatch of a relaxed state at most
        mismatch_wanted, at most `rounds` of one method; the value is then never above it.
        budget : most work in quadratic programs of this network, a cone program counting 50; the first four are
        always solved.
        method : "mccormick", a few quadratic programs; "mccormick+obbt", with probing of the worst terminals;
        "cones", the semidefinite relaxation, with probing where rounds gain little; "auto", the cones only where the
        first leaves more than is wanted. Raises InputError for unusable bids or an unknown method.
        """
        problems = _problems(bids, method)
        if problems:
            raise InputError(problems)
        began = perf_counter()
        bounds = self._tightening.run(operator_power(self._terminals, bids), self._limits)
        goal = Goal(cut_off, gap_wanted, mismatch_wanted, rounds, budget)
        case = Case(bids, VoltageTarget() if target is None else target, bounds)
        if bounds.feasible:
            stages = self._stages(case, method, goal)
        else:
            stages = [Stage("tightening", np.inf, perf_counter() - began, 0, 0, np.nan, np.nan, np.nan)]
        state = relaxed_state(stages)
        value = max(stage.bound for stage in stages)
        return Bound(
            value=value if cut_off is None else min(value, cut_off),
            method=method,
            outcome=_outcome(goal, stages, value),
            seconds=perf_counter() - began,
            mismatch_pu=state.mismatch_pu,
            mismatch=state.mismatch,
            loss_pu=state.loss_pu,
            stages=tuple(stages),
        )

    def _stages(self, case: Case, method: Method, goal: Goal) -> list[Stage]:
        """Run the methods one after the other, each from what the last has proven, until the goal is reached."""
        if method == "cones":
            return self._by_cones().run(case, goal, [], probing=True)[0]
        stages, case = self._by_mccormick().run(case, goal, [], probing=method == "mccormick+obbt")
        if method != "auto":
            return stages
        for step in ORDER[:1] if goal.cut_off is None else ORDER:
            if goal.reached(stages) or not case.bounds.feasible or not goal.affords(stages, CONE_WORK):
                break
            if step == "cones":
                stages, case = self._by_cones().run(case, goal, stages, probing=False)
            else:
                few = replace(goal, rounds=PROBING_ROUNDS)
                stages, case = self._by_mccormick().run(case, few, stages, probing=True)
        return stages

    def _by_mccormick(self) -> McCormickRounds:
        if self._mccormick is None:
            relaxation = McCormick(self._terminals, self._network)
            self._mccormick = McCormickRounds(self._terminals, self._tightening, self._limits, relaxation)
        return self._mccormick

    def _by_cones(self) -> ConeRounds:
        if self._cones is None:
            relaxation = ConeRelaxation(self._network, self._terminals, self._tightening)
            self._cones = ConeRounds(self._terminals, self._tightening, self._limits, relaxation)
        return self._cones


def lower_bound(
    network: ThreePhaseNetwork,
    share: sparse.spmatrix,
    bids: ScaledBids,
    *,
    target: VoltageTarget | None = None,
    method: Method = "auto",
    cut_off: float | None = None,
    gap_wanted: float = GAP_WANTED,
    mismatch_wanted: float = np.inf,
) -> Bound:
    """Return a lower bound of the scaled cost; keep a BoundSolver where a network is asked again and again."""
    solver = BoundSolver(network, share)
    return solver.bound(
        bids,
        target=target,
        method=method,
        cut_off=cut_off,
        gap_wanted=gap_wanted,
        mismatch_wanted=mismatch_wanted,
    )


def _outcome(goal: Goal, stages: list[Stage], value: float) -> Outcome:
    if value == np.inf:
        return "infeasible"
    if goal.cut_off is None:
        return "no goal"
    if goal.reached(stages):
        return "reached"
    return "stalled" if goal.affords(stages, 2 * CONE_WORK) else "budget"


def _problems(bids: ScaledBids, method: str) -> list[Problem]:
    out = []
    word = box_problems(bids)
    if word:
        out.append(Problem("bids", "ranges", word, "give finite ranges with low <= high and convex costs"))
    if bids.loss_price < 0.0:
        out.append(Problem("prices", "loss", bids.loss_price, "give a price of losses that is not negative"))
    if method not in METHODS:
        out.append(Problem("bound", "method", method, f"choose one of {', '.join(METHODS)}"))
    return out
