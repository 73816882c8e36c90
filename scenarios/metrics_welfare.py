"""Key figures of money: social cost and welfare, what the import is worth, bills of the secondary agents."""

from __future__ import annotations

import numpy as np

from voltier.scenarios.panels import Array, Block

Kpis = dict[str, float | int | None]


def welfare_kpis(system: Block | None, substation: Block | None, period_s: int | None = None) -> Kpis:
    """Return social cost and the value of the import.

    period_s : of the primary market; None: as the rows of system are apart, which a single row does not tell

    cost_usd: Σ cost_usd_per_h · period, the primary objective as it turned out: import, generators, losses and the
    disutility of leaving the plans. total_usd: its negative; plans as such count nothing, so only differences between
    runs of one day say something. import_usd: Σ metered import × wholesale price of its period, export counted back.
    """
    if system is None:
        return {}
    kpis: Kpis = {}
    if period_s is None and len(system.t_s) > 1:
        period_s = int(np.median(np.diff(system.t_s)))
    if "cost_usd_per_h" in system.values and period_s is not None:
        cost_usd = float(system.sum("cost_usd_per_h").sum() * period_s / 3600.0)
        kpis |= {"welfare.cost_usd": cost_usd, "welfare.total_usd": -cost_usd}
    if substation is not None and "price_usd_per_kwh" in system.values:
        at = np.searchsorted(system.t_s, substation.t_s, side="right") - 1
        known = at >= 0
        price = system["price_usd_per_kwh"][at[known], 0]
        kpis["welfare.import_usd"] = float((-substation.sum("p_kw")[known] * price).sum() / 60.0)
    return kpis


def sma_bills_usd(settlement: Block, agents: tuple[str, ...]) -> Array:
    """Return what each secondary agent pays over the run, receipts negative, (n_sma,) [$].

    settlement : receipts of each market's parties ; agents : names of the secondary agents
    """
    own = (settlement.keys["market"] == "secondary") & np.isin(settlement.keys["party"], list(agents))
    total = sum(settlement[f"{name}_usd"][:, own] for name in ("energy", "flexibility", "penalty"))
    return np.asarray(-np.asarray(total).sum(axis=0), dtype=np.float64)


def sma_bill_kpis(settlement: Block | None, secondary: Block | None) -> Kpis:
    """Return mean and percentiles of the agents' bills: energy, flexibility and penalties of the secondary market."""
    if settlement is None or secondary is None:
        return {}
    bills = sma_bills_usd(settlement, tuple(secondary.keys["sma"].tolist()))
    if not len(bills):
        return {}
    p05, median, p95 = (float(value) for value in np.percentile(bills, (5.0, 50.0, 95.0)))
    return {
        "bills.sma_mean_usd": float(bills.mean()),
        "bills.sma_p05_usd": p05,
        "bills.sma_median_usd": median,
        "bills.sma_p95_usd": p95,
    }
