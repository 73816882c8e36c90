"""The primary market as a readable cvxpy program: the branch-flow cone relaxation, for reference.

Slow and plain on purpose; `relaxation.Relaxation` is the fast twin that must agree with it. Equations as in
Farivar and Low, IEEE Trans. Power Systems 28(3), 2013, with an ideal ratio at the sending end of each branch.
"""

from __future__ import annotations

from dataclasses import dataclass

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.network import BalancedNetwork
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BranchFlowDispatch:
    """Solution of the reference program; as in PrimaryClearing. residual_pu : max(v·l - P² - Q²)."""

    p_kw: Array
    q_kvar: Array
    gen_kw: Array
    p_import_kw: float
    cost_usd_per_h: float
    dlmp_node_p_usd_per_kwh: Array
    dlmp_node_q_usd_per_kvarh: Array
    v_pu: Array
    residual_pu: float
    status: str


def dispatch_branch_flow(
    network: BalancedNetwork,
    node: Index,
    bids: PrimaryBids,
    prices: PrimaryPrices,
    *,
    solver: str = "CLARABEL",
) -> BranchFlowDispatch:
    """Clear the relaxed primary market with cvxpy; raises cvxpy.SolverError when the solver gives up.

    node : (n,) the operators' nodes.
    """
    base, n = network.s_base_kva, len(network.parent)
    parent = network.parent[1:]
    r, x, ratio2 = network.r_pu[1:], network.x_pu[1:], network.ratio[1:] ** 2
    # Row j of `down` adds what leaves node j into its branches; `up` looks up the parent's voltage.
    down = sparse.csr_matrix((np.ones(n - 1), (parent, np.arange(n - 1))), shape=(n, n - 1))
    place = sparse.csr_matrix((np.ones(len(node)), (node, np.arange(len(node)))), shape=(n, len(node)))
    p, q, gen = (cp.Variable(len(node)) for _ in range(3))
    P, Q, l = (cp.Variable(n - 1) for _ in range(3))  # noqa: E741 (the symbol of the equations)
    v, head_p, head_q = cp.Variable(n), cp.Variable(), cp.Variable()
    first = np.eye(n)[0]
    into_p = cp.hstack([head_p, P - cp.multiply(r, l)])
    into_q = cp.hstack([head_q, Q - cp.multiply(x, l)])
    balance_p = into_p + place @ (p + gen) - down @ P == 0
    balance_q = into_q + place @ q + cp.multiply(network.b_pu, v) - down @ Q == 0
    sent = cp.multiply(ratio2, v[parent])
    drop = v[1:] == sent - 2 * (cp.multiply(r, P) + cp.multiply(x, Q)) + cp.multiply(r**2 + x**2, l)
    cone = cp.norm(cp.vstack([2 * P, 2 * Q, sent - l]), axis=0) <= sent + l
    limits = [first @ v == network.v_root_pu**2]
    limits += [v[1:] >= network.v_min_pu[1:] ** 2, v[1:] <= network.v_max_pu[1:] ** 2]
    rated = np.flatnonzero(np.isfinite(network.i_max_pu[1:]))
    if rated.size:
        limits.append(l[rated] <= network.i_max_pu[1:][rated] ** 2)
    boxes = [
        base * p >= bids.p_min_kw, base * p <= bids.p_max_kw,
        base * q >= bids.q_min_kvar, base * q <= bids.q_max_kvar,
        gen >= 0, base * gen <= bids.gen_max_kw,
    ]  # fmt: skip
    cost = _cost(bids, prices, base, (p, q, gen), head_p)
    cost += prices.loss_usd_per_kwh * cp.sum(cp.multiply(r, l))
    program = cp.Problem(cp.Minimize(cost), [balance_p, balance_q, drop, cone, *limits, *boxes])
    program.solve(solver=solver)
    lossy = (r != 0.0) | (x != 0.0)
    excess = (sent.value * l.value - P.value**2 - Q.value**2)[lossy]
    return BranchFlowDispatch(
        p_kw=p.value * base,
        q_kvar=q.value * base,
        gen_kw=gen.value * base,
        p_import_kw=float(head_p.value) * base,
        cost_usd_per_h=float(program.value) * base,
        dlmp_node_p_usd_per_kwh=-balance_p.dual_value,
        dlmp_node_q_usd_per_kvarh=-balance_q.dual_value,
        v_pu=np.sqrt(v.value),
        residual_pu=float(excess.max(initial=0.0)),
        status=program.status,
    )


def _cost(
    bids: PrimaryBids,
    prices: PrimaryPrices,
    base: float,
    u: tuple[cp.Variable, cp.Variable, cp.Variable],
    head_p: cp.Variable,
) -> cp.Expression:
    """Return the objective but for losses in $/h per kVA of base, so that duals of the balances are $/kWh."""
    p, q, gen = u
    disutility = cp.sum(cp.multiply(bids.beta_p_usd_per_kw2h * base, cp.square(p - bids.p0_kw / base)))
    disutility += cp.sum(cp.multiply(bids.beta_q_usd_per_kvar2h * base, cp.square(q - bids.q0_kvar / base)))
    generation = 0.5 * cp.sum(cp.multiply(bids.alpha_usd_per_kw2h * base, cp.square(gen)))
    imported = prices.import_usd_per_kwh * head_p
    imported += 0.5 * prices.import_slope_usd_per_kw2h * base * cp.square(head_p)
    return disutility + generation + imported
