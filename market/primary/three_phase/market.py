"""The three-phase primary market: one call clears an unbalanced feeder AC-exactly and certifies the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.flow.derivative import N_SOURCE
from voltier.grid.flow.nodal import load_power
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.exact import LIMIT_TOLERANCE_PU
from voltier.market.primary.market import SMALLEST_COST_USD_PER_H
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices, box_problems, failed_clearing
from voltier.market.primary.three_phase.exact import ExactDispatch, Outcome
from voltier.market.primary.three_phase.physics import Physics
from voltier.market.primary.three_phase.point import AcPoint, PointSolver
from voltier.market.primary.three_phase.problem import (
    SocialWeights,
    ThreePhaseClearing,
    check_share,
    scale_problem,
    weight_problems,
)

Array = NDArray[np.float64]

Bound = Callable[[ThreePhaseNetwork, PrimaryBids, PrimaryPrices, SocialWeights, ThreePhaseClearing], float]
"""A certified lower bound of the objective [$/h], given the problem and the AC-exact clearing."""

Dispatcher = Callable[[ThreePhaseNetwork, sparse.csc_matrix], ExactDispatch]
"""Makes what dispatches one network structure with operators spread like this."""

DEFAULT_WEIGHTS = SocialWeights()


class ThreePhaseMarket:
    """Clears one network structure again and again; bids, prices, taps, limits and weights may change.

    network : the phase nodes; share : (n_node, n_smo) sparse, how each operator's injection is spread over phase
    nodes, columns sum to 1. lower_bound : called when a clearing asks for a bound; dispatcher : makes the dispatch, by
    one program unless it is told otherwise. Raises InputError for shares that are no distribution.
    """

    def __init__(
        self,
        network: ThreePhaseNetwork,
        share: sparse.spmatrix,
        *,
        lower_bound: Bound | None = None,
        dispatcher: Dispatcher = ExactDispatch,
    ) -> None:
        self._network, self._share = network, check_share(network, share)
        self._lower_bound = lower_bound
        self.dispatch = dispatcher(network, self._share)

    def clear(
        self,
        bids: PrimaryBids,
        prices: PrimaryPrices,
        *,
        network: ThreePhaseNetwork | None = None,
        weights: SocialWeights = DEFAULT_WEIGHTS,
        bound: bool = True,
        warm: bool = True,
    ) -> ThreePhaseClearing:
        """Return the dispatch, its prices and its certificate.

        network : the network after a tap change (same structure; None: as built); bound : ask for the lower
        bound too; without it, or without the market's `lower_bound`, the bound is -inf and the gap inf; warm :
        start from the last clearing. Bids that no dispatch can serve give status "failed", limits that none
        can keep give "relaxed"; neither raises.
        """
        began = perf_counter()
        network = self._network if network is None else network
        problem = scale_problem(bids, prices, weights, network.s_phase_kva)
        wrong = weight_problems(weights) or box_problems(problem.bids)
        if len(bids.p0_kw) != self._share.shape[1]:
            wrong = f"{len(bids.p0_kw)} bids for {self._share.shape[1]} operators"
        if wrong:
            return self._failed(weights, wrong, began)
        outcome = self.dispatch.solve(network, problem, warm=warm)
        if not outcome.solved or outcome.point is None:
            return self._failed(weights, outcome.note, began)
        exact = self.dispatch
        clearing = clearing_at(self._share, exact.points, exact.net, outcome, outcome.point)
        clearing = replace(clearing, weights=weights, solve_s=perf_counter() - began)
        # With limits given up, the bound of the problem with limits says nothing of this cost.
        if not bound or self._lower_bound is None or clearing.status != "optimal":
            return clearing
        lower, cost = self._lower_bound(network, bids, prices, weights, clearing), clearing.cost_usd_per_h
        gap = (cost - lower) / max(abs(cost), SMALLEST_COST_USD_PER_H)
        return replace(clearing, lower_bound_usd_per_h=lower, gap=gap, solve_s=perf_counter() - began)

    def _failed(self, weights: SocialWeights, note: str, began: float) -> ThreePhaseClearing:
        n, n_smo = self._share.shape
        plain = failed_clearing(n_smo, n, note, perf_counter() - began)
        nodal, phase = plain.v_pu, np.full(N_SOURCE, np.nan)
        return ThreePhaseClearing(
            **{field.name: getattr(plain, field.name) for field in fields(plain)},
            dlmp_node_q_usd_per_kvarh=nodal,
            v=nodal.astype(np.complex128),
            p_phase_kw=phase,
            q_phase_kvar=phase,
            load_kw=plain.loss_kw,
            v_price_usd_per_puh=nodal,
            i_price_usd_per_puh=np.full(len(self.dispatch.net.i_max), np.nan),
            weights=weights,
        )


def clearing_at(
    share: sparse.csc_matrix,
    points: PointSolver,
    net: Physics,
    outcome: Outcome,
    point: AcPoint,
) -> ThreePhaseClearing:
    """Report a point, weights and time left to the caller; share : of the operators, the first columns of u."""
    base, n_smo = net.network.s_phase_kva, share.shape[1]
    p, q, gen = point.u[:, :n_smo] * base
    over = max(outcome.v_slack, outcome.i_slack) > LIMIT_TOLERANCE_PU
    source = (point.taken - points.injection(point.u))[:N_SOURCE] * base
    return ThreePhaseClearing(
        p_kw=p,
        q_kvar=q,
        gen_kw=gen,
        dlmp_p_usd_per_kwh=share.T @ point.price.real,
        dlmp_q_usd_per_kvarh=share.T @ point.price.imag,
        dlmp_node_p_usd_per_kwh=point.price.real.copy(),
        dlmp_node_q_usd_per_kvarh=point.price.imag.copy(),
        v_pu=np.abs(point.v),
        v=point.v,
        p_import_kw=float(source.real.sum()),
        q_import_kvar=float(source.imag.sum()),
        p_phase_kw=source.real.copy(),
        q_phase_kvar=source.imag.copy(),
        loss_kw=point.loss * base,
        load_kw=float(load_power(net.network, point.v).real.sum()) * base,
        cost_usd_per_h=point.cost * base,
        lower_bound_usd_per_h=-np.inf,
        gap=np.inf,
        ac_residual_pu=outcome.ac_residual,
        kkt_residual=outcome.kkt,
        relaxation_residual_pu=np.nan,
        status="relaxed" if over else "optimal",
        note=outcome.note,
        v_slack_pu=outcome.v_slack,
        i_slack_pu=outcome.i_slack,
        solve_s=0.0,
        iterations=outcome.iterations,
        v_price_usd_per_puh=np.concatenate([np.zeros(N_SOURCE), point.v_price]) * base,
        i_price_usd_per_puh=point.i_price * base,
        weights=DEFAULT_WEIGHTS,
    )
