"""Key figures of a run of which there are tables alone, such as another tool's: what these tell without a scenario."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from voltier.scenarios.metrics_interruptions import customers_at, interruption_kpis
from voltier.scenarios.metrics_physical import substation_kpis
from voltier.scenarios.metrics_voltage import RANGES_PU, voltage_kpis
from voltier.scenarios.metrics_welfare import sma_bill_kpis, welfare_kpis
from voltier.scenarios.panels import Block, read_block

Kpis = dict[str, float | int | None]

PRICES = (
    ("primary", "dlmp_usd_per_kwh", "mean_dlmp"),
    ("secondary", "tariff_usd_per_kwh", "mean_tariff"),
    ("system", "price_usd_per_kwh", "mean_wholesale"),
)
"""Table, column and name of each mean price."""


def public_kpis(run_dir: Path) -> Kpis:
    """Return the figures that a run's public tables tell, under the names that a run of ours has them.

    Violations of voltage are of ANSI range A, a customer is a node that draws power. Figures of tables and columns that
    are not there are left out. Raises InputError for tables whose times differ in their rows.
    """
    names = ("grid", "substation", "primary", "secondary", "system", "settlement")
    blocks = {name: read_block(run_dir, name) for name in names}
    kpis: Kpis = {}
    substation = _with(blocks["substation"], "p_kw", "loss_kw")
    if substation is not None:
        kpis |= substation_kpis(substation)
    for table, column, name in PRICES:
        block = _with(blocks[table], column)
        if block is not None:
            kpis[f"prices.{name}_usd_per_kwh"] = float(np.nanmean(block[column]))
    grid = _with(blocks["grid"], "v_pu")
    if grid is not None:
        kpis |= voltage_kpis(grid, RANGES_PU["range_a"])
    grid = _with(grid, "p_kw")
    if grid is not None:
        kpis |= interruption_kpis(grid, customers_at(grid, None))
    kpis |= welfare_kpis(blocks["system"], substation)
    settlement = _with(blocks["settlement"], "energy_usd", "flexibility_usd", "penalty_usd")
    return kpis | sma_bill_kpis(settlement, blocks["secondary"])


def _with(block: Block | None, *columns: str) -> Block | None:
    """Return a block that has these columns, else None."""
    return None if block is None or any(name not in block.values for name in columns) else block
