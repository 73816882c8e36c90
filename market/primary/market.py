"""The primary market: one call clears the feeder AC-exactly and certifies the result."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from voltier.grid.network import BalancedNetwork
from voltier.market.primary.exact import LIMIT_TOLERANCE_PU, ExactDispatch, ExactPoint
from voltier.market.primary.problem import (
    PrimaryBids,
    PrimaryClearing,
    PrimaryPrices,
    SetPoints,
    box_problems,
    check_nodes,
    cost_usd_per_h,
    failed_clearing,
    scale_bids,
)
from voltier.market.primary.relaxation import Relaxation

Array = NDArray[np.float64]
Index = NDArray[np.int64]

Dispatcher = Callable[[BalancedNetwork, Index], ExactDispatch]
"""Makes what dispatches one network structure with operators at these nodes."""

# The gap is relative to the cost, but never to less than this [$/h].
SMALLEST_COST_USD_PER_H = 1e-3


class PrimaryMarket:
    """Clears one network structure again and again; bids, prices, taps and limits may change.

    network : the balanced feeder; node : (n,) the operators' nodes; dispatcher : makes the dispatch, by one program
    unless it is told otherwise. Raises InputError for a node that is not on the network.
    """

    def __init__(
        self, network: BalancedNetwork, node: Index, *, dispatcher: Dispatcher = ExactDispatch
    ) -> None:
        check_nodes(network, node)
        self._network, self._node = network, np.array(node, dtype=np.int64)
        self.dispatch = dispatcher(network, self._node)
        self._relaxation: Relaxation | None = None

    def clear(
        self,
        bids: PrimaryBids,
        prices: PrimaryPrices,
        *,
        network: BalancedNetwork | None = None,
        bound: bool = True,
        warm: bool = True,
    ) -> PrimaryClearing:
        """Return the dispatch, its prices and its certificate.

        network : the network after a tap change (same structure; None: as built); bound : solve the
        relaxation too; warm : start from the last clearing. Bids that no dispatch can serve give status
        "failed", limits that none can keep give "relaxed"; neither raises.
        """
        began = perf_counter()
        network = self._network if network is None else network
        scaled = scale_bids(bids, prices, network.s_base_kva)
        wrong = box_problems(scaled)
        if len(bids.p0_kw) != len(self._node):
            wrong = f"{len(bids.p0_kw)} bids for {len(self._node)} operators"
        if wrong:
            return failed_clearing(len(self._node), len(network.parent), wrong, perf_counter() - began)
        point = self.dispatch.solve(network, scaled, warm=warm)
        if not point.solved:
            return failed_clearing(len(self._node), len(network.parent), point.note, perf_counter() - began)
        lower, residual = -np.inf, np.nan
        relaxed = max(point.v_slack, point.l_slack) > LIMIT_TOLERANCE_PU
        # With limits given up, the bound of the problem with limits says nothing of this cost.
        if bound and not relaxed:
            if self._relaxation is None:
                self._relaxation = Relaxation(self._network, self._node)
            loose = self._relaxation.solve(network, scaled)
            lower, residual = loose.bound * network.s_base_kva, loose.residual
        return self._clearing(bids, prices, network, point, (lower, residual, began))

    def judge(self, points: SetPoints, slack_pu: float, *, network: BalancedNetwork) -> PrimaryClearing:
        """Return the clearing that set-points and prices of others make, judged by their power flow.

        slack_pu : excess over a limit that counts as none. Cost, bounds and optimality are nan: they need the bids.
        Set-points without a power flow give status "failed".
        """
        began = perf_counter()
        u = np.stack([points.p_kw, points.q_kvar, points.gen_kw]) / network.s_base_kva
        guess = np.zeros((4, len(network.parent)))
        guess[2] = network.v_root_pu**2
        state, sweeps = self.dispatch.flow(network, u, guess)
        if sweeps < 0:
            note = "the set-points have no power flow"
            return failed_clearing(len(self._node), len(network.parent), note, perf_counter() - began)
        base, unknown = network.s_base_kva, float(np.nan)
        over_v, over_i = _voltage_slack(network, state[2]), _current_slack(network, state[3])
        return PrimaryClearing(
            p_kw=points.p_kw,
            q_kvar=points.q_kvar,
            gen_kw=points.gen_kw,
            dlmp_p_usd_per_kwh=points.dlmp_node_p_usd_per_kwh[self._node],
            dlmp_q_usd_per_kvarh=points.dlmp_node_q_usd_per_kvarh[self._node],
            dlmp_node_p_usd_per_kwh=points.dlmp_node_p_usd_per_kwh,
            v_pu=np.sqrt(state[2]),
            p_import_kw=float(state[0, 0]) * base,
            q_import_kvar=float(state[1, 0]) * base,
            loss_kw=float(network.r_pu @ state[3]) * base,
            cost_usd_per_h=unknown,
            lower_bound_usd_per_h=unknown,
            gap=unknown,
            ac_residual_pu=self.dispatch.ac_residual(network, u, state),
            kkt_residual=unknown,
            relaxation_residual_pu=unknown,
            status="relaxed" if max(over_v, over_i) > slack_pu else "optimal",
            note="",
            v_slack_pu=over_v,
            i_slack_pu=over_i,
            solve_s=perf_counter() - began,
            iterations=0,
        )

    def _clearing(
        self,
        bids: PrimaryBids,
        prices: PrimaryPrices,
        network: BalancedNetwork,
        point: ExactPoint,
        bound: tuple[float, float, float],
    ) -> PrimaryClearing:
        lower, residual, began = bound
        n, base = len(network.parent), network.s_base_kva
        p, q, gen = point.u * base
        loss = float(network.r_pu @ point.state[3]) * base
        head = float(point.state[0, 0]) * base
        cost = cost_usd_per_h(bids, prices, p, q, gen, head, loss)
        relaxed = max(point.v_slack, point.l_slack) > LIMIT_TOLERANCE_PU
        node_price = -point.y[:n]
        return PrimaryClearing(
            p_kw=p,
            q_kvar=q,
            gen_kw=gen,
            dlmp_p_usd_per_kwh=node_price[self._node],
            dlmp_q_usd_per_kvarh=-point.y[n : 2 * n][self._node],
            dlmp_node_p_usd_per_kwh=node_price,
            v_pu=np.sqrt(point.state[2]),
            p_import_kw=head,
            q_import_kvar=float(point.state[1, 0]) * base,
            loss_kw=loss,
            cost_usd_per_h=cost,
            lower_bound_usd_per_h=lower,
            gap=(cost - lower) / max(abs(cost), SMALLEST_COST_USD_PER_H),
            ac_residual_pu=point.ac_residual,
            kkt_residual=point.kkt,
            relaxation_residual_pu=residual,
            status="relaxed" if relaxed else "optimal",
            note=point.note,
            v_slack_pu=_voltage_slack(network, point.state[2]),
            i_slack_pu=_current_slack(network, point.state[3]),
            solve_s=perf_counter() - began,
            iterations=point.iterations,
        )


def _current_slack(network: BalancedNetwork, square: Array) -> float:
    return float(np.maximum(np.sqrt(square[1:]) - network.i_max_pu[1:], 0.0).max(initial=0.0))


def _voltage_slack(network: BalancedNetwork, square: Array) -> float:
    v = np.sqrt(square[1:])
    return float(np.maximum(v - network.v_max_pu[1:], network.v_min_pu[1:] - v).max(initial=0.0))
