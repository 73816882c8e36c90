"""What each step from plain McCormick envelopes to an exact dispatch contributes: bound, losses, mismatch, time.

The relaxed products of voltages and currents need not be those of any power flow: over wide ranges the cheapest
point of the program creates power in the network, its losses are negative. Narrower ranges, tangents of the convex
losses, and cones take that away step by step; only the exact dispatch is a power flow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from scipy import sparse

from voltier.grid.errors import NotConvergedError
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.current_injection.bound import BoundSolver
from voltier.market.primary.current_injection.bounds import Tightening, limits_of, operator_power
from voltier.market.primary.current_injection.case import Case, Stage
from voltier.market.primary.current_injection.mccormick import McCormick
from voltier.market.primary.current_injection.quadratic import QuadraticSolver
from voltier.market.primary.current_injection.terminals import (
    VoltageTarget,
    build_response,
    build_terminals,
)
from voltier.market.primary.exact import LIMIT_TOLERANCE_PU
from voltier.market.primary.problem import ScaledBids
from voltier.market.primary.three_phase.exact import ExactDispatch
from voltier.market.primary.three_phase.problem import ScaledProblem, check_share

PLAIN, CONES, EXACT = "not tightened", "cones", "exact"


@dataclass(frozen=True, slots=True)
class StageResult:
    """Where the market stands after a step.

    name : "not tightened", the names of the bound's stages, "cones" (a relaxation of its own), "exact"
    bound_usd_per_h : proven lower bound, of "exact" the cost itself ; gap : its distance from the exact cost, relative
    loss_kw : what the step's model says the network loses ; mismatch : mean difference of powers and products of
    voltages and currents, relative to the mean power ; seconds : of this step alone ; programs : solved in it
    """

    name: str
    bound_usd_per_h: float
    gap: float
    loss_kw: float
    mismatch: float
    seconds: float
    programs: int


def relaxation_stages(
    network: ThreePhaseNetwork, share: sparse.spmatrix, bids: ScaledBids, *, gap_wanted: float = 1e-4
) -> tuple[StageResult, ...]:
    """Return all steps in order, the exact dispatch last.

    network : with its taps, limits and loads ; share : (n, n_smo) of the operators ; bids : scaled by s_phase_kva
    gap_wanted : at which rounds of tightening end. Raises NotConvergedError where no dispatch is found that keeps the
    limits.
    """
    base, exact = network.s_phase_kva, _exact(network, share, bids)
    cost = exact.bound_usd_per_h
    solver = BoundSolver(network, share)
    rounds = solver.bound(bids, method="mccormick+obbt", cut_off=cost / base, gap_wanted=gap_wanted)
    # Without a cut-off: what the cones tell by themselves.
    cones = solver.bound(bids, method="cones").stages[-1]
    stages = [_plain(network, share, bids), *_by_name(rounds.stages, base), _result(cones, base), exact]
    return tuple(replace(stage, gap=(cost - stage.bound_usd_per_h) / abs(cost)) for stage in stages)


def _result(stage: Stage, base: float) -> StageResult:
    """Return a stage of a bound in money and power; its gap is left to who knows the exact cost."""
    bound, loss = base * stage.bound, base * stage.loss_pu
    return StageResult(stage.name, bound, np.nan, loss, stage.mismatch, stage.seconds, stage.programs)


def _exact(network: ThreePhaseNetwork, share: sparse.spmatrix, bids: ScaledBids) -> StageResult:
    """Return the exact dispatch, from a cold start."""
    dispatch = ExactDispatch(network, check_share(network, share))
    problem = ScaledProblem(bids, 0.0, 1.0)
    dispatch.solve(network, problem, warm=False)
    # The first solve of a process compiles its kernels; the second one is timed.
    began = perf_counter()
    outcome = dispatch.solve(network, problem, warm=False)
    seconds = perf_counter() - began
    point = outcome.point
    if point is None or not outcome.solved or max(outcome.v_slack, outcome.i_slack) > LIMIT_TOLERANCE_PU:
        raise NotConvergedError(f"no dispatch was found that keeps the limits: {outcome.note or 'exceeded'}")
    injected = np.abs(dispatch.points.injection(point.u))
    mismatch = outcome.ac_residual / float(injected[injected > 0.0].mean())
    base = network.s_phase_kva
    return StageResult(EXACT, base * point.cost, 0.0, base * point.loss, mismatch, seconds, 0)


def _plain(network: ThreePhaseNetwork, share: sparse.spmatrix, bids: ScaledBids) -> StageResult:
    """Return what the envelopes give on ranges that were evaluated once and not tightened."""
    began = perf_counter()
    terminals = build_terminals(network, share)
    tightening = Tightening(terminals, build_response(terminals, network.v_source_pu))
    limits = limits_of(network.v_min_pu, network.v_max_pu, network.v_source_pu)
    bounds = tightening.run(operator_power(terminals, bids), limits, rounds=0)
    relaxation = McCormick(terminals, network)
    wires = tightening.drops(relaxation.wire, bounds)
    point = QuadraticSolver().solve(relaxation.build(Case(bids, VoltageTarget(), bounds), wires))
    state = relaxation.read(point.x)
    missing, asked = np.abs(relaxation.missing(state)), np.abs(relaxation.asked(state))
    seconds, base = perf_counter() - began, network.s_phase_kva
    loss, mismatch = base * relaxation.model_loss(state), float(missing.sum() / asked.sum())
    return StageResult(PLAIN, base * point.bound, np.nan, loss, mismatch, seconds, 1)


def _by_name(stages: Sequence[Stage], base: float) -> list[StageResult]:
    """Take each stage's repetitions together: its last result, all its time and programs; probing joins its rounds."""
    joined: dict[str, StageResult] = {}
    for stage in stages:
        name = "cut-off" if stage.name in ("probing", "closed") else stage.name
        result = replace(_result(stage, base), name=name)
        before = joined.get(name)
        if before is not None:
            seconds, programs = before.seconds + result.seconds, before.programs + result.programs
            result = replace(result, seconds=seconds, programs=programs)
        joined[name] = result
    return list(joined.values())
