"""The primary market: one call clears the feeder AC-exactly and certifies the result."""

from __future__ import annotations

from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from voltier.grid.network import BalancedNetwork
from voltier.market.primary.exact import LIMIT_TOLERANCE_PU, ExactDispatch, ExactPoint
from voltier.market.primary.problem import (
    PrimaryBids,
    PrimaryClearing,
    PrimaryPrices,
    box_problems,
    check_nodes,
    cost_usd_per_h,
    failed_clearing,
    scale_bids,
)
from voltier.market.primary.relaxation import Relaxation

Array = NDArray[np.float64]
Index = NDArray[np.int64]

# The gap is relative to the cost, but never to less than this [$/h].
SMALLEST_COST_USD_PER_H = 1e-3


class PrimaryMarket:
    """Clears one network structure again and again; bids, prices, taps and limits may change.

    network : the balanced feeder; node : (n,) the operators' nodes. Raises InputError for a node that is
    not on it.
    """

    def __init__(self, network: BalancedNetwork, node: Index) -> None:
        check_nodes(network, node)
        self._network, self._node = network, np.array(node, dtype=np.int64)
        self._exact = ExactDispatch(network, self._node)
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
        point = self._exact.solve(network, scaled, warm=warm)
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
            i_slack_pu=float(
                np.maximum(np.sqrt(point.state[3, 1:]) - network.i_max_pu[1:], 0.0).max(initial=0.0)
            ),
            solve_s=perf_counter() - began,
            iterations=point.iterations,
        )


def _voltage_slack(network: BalancedNetwork, square: Array) -> float:
    v = np.sqrt(square[1:])
    return float(np.maximum(v - network.v_max_pu[1:], network.v_min_pu[1:] - v).max(initial=0.0))
