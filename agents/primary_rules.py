"""What everybody who clears the primary market needs: its rules, and how bids and prices are read from mail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voltier.agents.messages import Conditions, Index, SmoBids
from voltier.grid.errors import FederationError
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices


@dataclass(frozen=True, slots=True)
class PrimaryRules:
    """Market rules of the primary level.

    design : "hierarchical", "primary_only" or "no_market". policy : what to do with a failed clearing,
    "hold" | "relax" | "abort". recovery_periods : clearings over which re-weighted coefficients return to normal.
    stop_share : import error, as a share of the import to go back to, at which an answer is left as it is.
    """

    design: str
    loss_usd_per_kwh: float
    import_slope_usd_per_kw2h: float
    relaxation_bound: bool
    policy: str
    settlement_period_s: int
    recovery_periods: int = 3
    stop_share: float = 0.005


def merge_bids(parts: Sequence[SmoBids], smo: Index) -> SmoBids:
    """Join the shards' bids in the order of the SMOs smo (n,). Raises FederationError unless exactly these bid."""
    arrived = np.concatenate([part.smo for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    order = np.argsort(arrived, kind="stable")
    if not np.array_equal(arrived[order], smo):
        missing, strange = np.setdiff1d(smo, arrived), np.setdiff1d(arrived, smo)
        raise FederationError(
            f"primary market: bids of {len(arrived)} SMOs arrived, {len(smo)} take part "
            f"(missing: {_few(missing)}; not of this market: {_few(strange)})"
        )
    if not parts:
        return no_bids(np.zeros(0, dtype=np.int64), 0)
    columns = {
        field: np.concatenate([getattr(part, field) for part in parts])[order]
        for field in SmoBids.__struct_fields__
        if field not in ("t_s", "version")
    }
    return SmoBids(t_s=parts[0].t_s, version=parts[0].version, **columns)


def select_bids(bids: SmoBids, here: Index) -> SmoBids:
    """Return the rows here of bids."""
    names = [name for name in SmoBids.__struct_fields__ if name not in ("t_s", "version")]
    part: dict[str, Any] = {name: getattr(bids, name)[here] for name in names}
    return SmoBids(t_s=bids.t_s, version=bids.version, **part)


def no_bids(smo: Index, t_s: int) -> SmoBids:
    """Return bids of which nothing is known: every number is nan."""
    each, by_phase = np.full(len(smo), np.nan), np.full((len(smo), 3), np.nan)
    names = [name for name in SmoBids.__struct_fields__ if name not in ("t_s", "version", "smo")]
    unknown: dict[str, Any] = {name: by_phase if "_phase_" in name else each for name in names}
    return SmoBids(t_s=t_s, smo=smo, **unknown)


def as_bids(bids: SmoBids) -> PrimaryBids:
    """Return what the market clears of bids that came by mail."""
    return PrimaryBids(
        p0_kw=bids.p0_kw,
        p_min_kw=bids.p_min_kw,
        p_max_kw=bids.p_max_kw,
        beta_p_usd_per_kw2h=bids.beta_p_usd_per_kw2h,
        q0_kvar=bids.q0_kvar,
        q_min_kvar=bids.q_min_kvar,
        q_max_kvar=bids.q_max_kvar,
        beta_q_usd_per_kvar2h=bids.beta_q_usd_per_kvar2h,
        gen_max_kw=bids.gen_max_kw,
        alpha_usd_per_kw2h=bids.alpha_usd_per_kw2h,
    )


def as_prices(rules: PrimaryRules, conditions: Conditions) -> PrimaryPrices:
    """Return the prices of import and losses under the conditions."""
    return PrimaryPrices(
        import_usd_per_kwh=conditions.price_usd_per_kwh,
        import_slope_usd_per_kw2h=rules.import_slope_usd_per_kw2h,
        loss_usd_per_kwh=rules.loss_usd_per_kwh,
    )


def _few(positions: Index) -> str:
    shown = ", ".join(str(k) for k in positions[:5].tolist())
    return (shown + (" ..." if len(positions) > 5 else "")) or "none"
