"""What the primary market is asked and answers: bids, prices, clearing, and their objective."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, Problem
from voltier.grid.network import BalancedNetwork

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PrimaryBids:
    """Bids of the secondary market operators, one row each; injection into the grid is positive.

    p0_kw, p_min_kw, p_max_kw : (n,) forecast injection and its flexibility box [kW]
    q0_kvar, q_min_kvar, q_max_kvar : (n,) the same for reactive power [kvar]
    beta_p_usd_per_kw2h, beta_q_usd_per_kvar2h : (n,) disutility of leaving the forecast, beta·(P - P0)²
    gen_max_kw : (n,) dispatchable generation beside the box, 0 to gen_max at unity power factor [kW]
    alpha_usd_per_kw2h : (n,) its cost, alpha/2·G²
    """

    p0_kw: Array
    p_min_kw: Array
    p_max_kw: Array
    beta_p_usd_per_kw2h: Array
    q0_kvar: Array
    q_min_kvar: Array
    q_max_kvar: Array
    beta_q_usd_per_kvar2h: Array
    gen_max_kw: Array
    alpha_usd_per_kw2h: Array


@dataclass(frozen=True, slots=True)
class PrimaryPrices:
    """Prices the feeder meets at its head, and the price of its own losses.

    The import P (negative: export) costs import_usd_per_kwh·P + import_slope_usd_per_kw2h/2·P² [$/h].
    """

    import_usd_per_kwh: float
    import_slope_usd_per_kw2h: float
    loss_usd_per_kwh: float

    def marginal_usd_per_kwh(self, p_import_kw: float) -> float:
        """Return the price of the last kilowatt of an import."""
        return self.import_usd_per_kwh + self.import_slope_usd_per_kw2h * p_import_kw


@dataclass(frozen=True, slots=True)
class PrimaryClearing:
    """A cleared primary market with its certificate.

    p_kw, q_kvar, gen_kw : (n,) dispatch of each operator; its injection is p_kw + gen_kw [kW, kvar]
    dlmp_p_usd_per_kwh, dlmp_q_usd_per_kvarh : (n,) cost of one more unit of load at the operator's node
    dlmp_node_p_usd_per_kwh : (n_node,) the same at every node
    v_pu : (n_node,) voltage magnitudes; p_import_kw, q_import_kvar : drawn from the bulk grid; loss_kw
    cost_usd_per_h : the objective at the dispatch (penalties of "relaxed" not included)
    lower_bound_usd_per_h : dual value of the cone relaxation; -inf where there is no bound
    gap : (cost - lower bound)/|cost|; inf without a bound
    ac_residual_pu : largest residual of the branch-flow equations at the dispatch
    kkt_residual : largest of relative stationarity, limit violation and complementarity
    relaxation_residual_pu : max(v·l - P² - Q²) of the relaxation; nan when it was not solved
    status : "optimal"; "relaxed" (limits could not all be met, v_slack_pu and i_slack_pu say by how much, and
    the prices contain the penalty on the violation: see priced_as); or "failed" (every quantity is nan)
    note : what else the reader must know, in words
    solve_s, iterations : wall time and quadratic programs solved
    """

    p_kw: Array
    q_kvar: Array
    gen_kw: Array
    dlmp_p_usd_per_kwh: Array
    dlmp_q_usd_per_kvarh: Array
    dlmp_node_p_usd_per_kwh: Array
    v_pu: Array
    p_import_kw: float
    q_import_kvar: float
    loss_kw: float
    cost_usd_per_h: float
    lower_bound_usd_per_h: float
    gap: float
    ac_residual_pu: float
    kkt_residual: float
    relaxation_residual_pu: float
    status: str
    note: str
    v_slack_pu: float
    i_slack_pu: float
    solve_s: float
    iterations: int


@dataclass(frozen=True, slots=True)
class SetPoints:
    """What a market that others have cleared makes known: no bid, no cost.

    p_kw, q_kvar, gen_kw : (n,) dispatch of each operator
    dlmp_node_p_usd_per_kwh, dlmp_node_q_usd_per_kvarh : (n_node,)
    """

    p_kw: Array
    q_kvar: Array
    gen_kw: Array
    dlmp_node_p_usd_per_kwh: Array
    dlmp_node_q_usd_per_kvarh: Array


def failed_clearing(n_smo: int, n_node: int, note: str, solve_s: float) -> PrimaryClearing:
    """Return a clearing without a dispatch: every quantity is nan, so that nothing can be used by mistake."""
    each, nodal, none = np.full(n_smo, np.nan), np.full(n_node, np.nan), float(np.nan)
    return PrimaryClearing(
        p_kw=each,
        q_kvar=each,
        gen_kw=each,
        dlmp_p_usd_per_kwh=each,
        dlmp_q_usd_per_kvarh=each,
        dlmp_node_p_usd_per_kwh=nodal,
        v_pu=nodal,
        p_import_kw=none,
        q_import_kvar=none,
        loss_kw=none,
        cost_usd_per_h=none,
        lower_bound_usd_per_h=-np.inf,
        gap=np.inf,
        ac_residual_pu=np.inf,
        kkt_residual=np.inf,
        relaxation_residual_pu=none,
        status="failed",
        note=note,
        v_slack_pu=none,
        i_slack_pu=none,
        solve_s=solve_s,
        iterations=0,
    )


@dataclass(frozen=True, slots=True)
class ScaledBids:
    """Bids in per unit with the objective divided by the power base, so that every dual is already in $/kWh.

    low, high, start : (3, n) boxes and forecast of net power, reactive power and generation [p.u.]
    weight : (3, n) curvature of the cost; linear : (3, n) its slope at zero; constant : cost at zero [$/kWh]
    import_price, import_curvature, loss_price : of power drawn at the head and of losses [$/kWh]
    """

    low: Array
    high: Array
    start: Array
    weight: Array
    linear: Array
    constant: float
    import_price: float
    import_curvature: float
    loss_price: float


def scale_bids(bids: PrimaryBids, prices: PrimaryPrices, s_base_kva: float) -> ScaledBids:
    """Return the bids per unit of s_base_kva; cost in $/h is s_base_kva times the scaled objective."""
    zero = np.zeros_like(bids.gen_max_kw)
    low = np.stack([bids.p_min_kw, bids.q_min_kvar, zero]) / s_base_kva
    high = np.stack([bids.p_max_kw, bids.q_max_kvar, bids.gen_max_kw]) / s_base_kva
    start = np.stack([bids.p0_kw, bids.q0_kvar, zero]) / s_base_kva
    curvature = np.stack(
        [2.0 * bids.beta_p_usd_per_kw2h, 2.0 * bids.beta_q_usd_per_kvar2h, bids.alpha_usd_per_kw2h]
    )
    weight = curvature * s_base_kva
    return ScaledBids(
        low=low,
        high=high,
        start=start,
        weight=weight,
        linear=-weight * start,
        constant=0.5 * float(np.sum(weight * start**2)),
        import_price=prices.import_usd_per_kwh,
        import_curvature=prices.import_slope_usd_per_kw2h * s_base_kva,
        loss_price=prices.loss_usd_per_kwh,
    )


def price_scale(bids: ScaledBids) -> float:
    """Return a size of prices [$/kWh] against which duals are judged."""
    marginal = np.abs(bids.weight[2] * bids.high[2])
    dearest = float(marginal.max()) if marginal.size else 0.0
    return max(abs(bids.import_price), abs(bids.loss_price), min(dearest, 10.0), 1e-2)


def cost_usd_per_h(
    bids: PrimaryBids,
    prices: PrimaryPrices,
    p_kw: Array,
    q_kvar: Array,
    gen_kw: Array,
    p_import_kw: float,
    loss_kw: float,
) -> float:
    """Return the market's objective at a dispatch [$/h]."""
    own = (
        0.5 * bids.alpha_usd_per_kw2h * gen_kw**2
        + bids.beta_p_usd_per_kw2h * (p_kw - bids.p0_kw) ** 2
        + bids.beta_q_usd_per_kvar2h * (q_kvar - bids.q0_kvar) ** 2
    )
    head = prices.import_usd_per_kwh * p_import_kw + 0.5 * prices.import_slope_usd_per_kw2h * p_import_kw**2
    return float(own.sum() + prices.loss_usd_per_kwh * loss_kw + head)


def priced_as(
    clearing: PrimaryClearing, sound: PrimaryClearing | None, prices: PrimaryPrices
) -> PrimaryClearing:
    """Return a clearing with the dLMPs of a sound one, for one whose own contain penalties.

    sound : None for none so far; then every node meets the marginal price of the import, and reactive power is free.
    """
    if sound is None:
        marginal = prices.marginal_usd_per_kwh(clearing.p_import_kw)
        return replace(
            clearing,
            dlmp_p_usd_per_kwh=np.full_like(clearing.dlmp_p_usd_per_kwh, marginal),
            dlmp_q_usd_per_kvarh=np.zeros_like(clearing.dlmp_q_usd_per_kvarh),
            dlmp_node_p_usd_per_kwh=np.full_like(clearing.dlmp_node_p_usd_per_kwh, marginal),
        )
    return replace(
        clearing,
        dlmp_p_usd_per_kwh=sound.dlmp_p_usd_per_kwh,
        dlmp_q_usd_per_kvarh=sound.dlmp_q_usd_per_kvarh,
        dlmp_node_p_usd_per_kwh=sound.dlmp_node_p_usd_per_kwh,
    )


def check_nodes(network: BalancedNetwork, node: Index) -> None:
    """Raise InputError for every operator that is not at an energised node of the network."""
    n_node = len(network.parent)
    problems = [
        Problem(
            where=f"operator {k}",
            field="node",
            value=int(at),
            remedy=f"place it on an energised bus (node 0 to {n_node - 1})",
        )
        for k, at in enumerate(node)
        if not 0 <= at < n_node
    ]
    if problems:
        raise InputError(problems)


def box_problems(bids: ScaledBids) -> str:
    """Say what makes bids and prices unusable (not finite, empty boxes, not convex), or "" when they are sound."""
    if not all(np.all(np.isfinite(part)) for part in (bids.low, bids.high, bids.start, bids.weight)):
        return "a bid is not finite"
    prices = bids.import_price, bids.import_curvature, bids.loss_price
    if not all(np.isfinite(price) for price in prices):
        return "a price is not finite"
    if not (np.all(np.isfinite(bids.linear)) and np.isfinite(bids.constant)):
        return "a cost is too large for its numbers"
    if np.any(bids.low > bids.high):
        return f"{int(np.count_nonzero(bids.low > bids.high))} boxes are empty"
    if np.any(bids.weight < 0.0) or bids.import_curvature < 0.0:
        return "a cost curvature is negative"
    if bids.loss_price < 0.0:
        return "the price of losses is negative"
    return ""
