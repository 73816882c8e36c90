"""What was really drawn, generated, imported and lost, whatever the operators' meters heard of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voltier.scenarios.panels import Array, Block
from voltier.scenarios.schema import Scenario

Kpis = dict[str, float | int | None]

MINUTE_H = 1.0 / 60.0


def substation_kpis(substation: Block) -> Kpis:
    """Return import, export, peak and losses; balance.max_error_kw where the table has its column."""
    import_kw, loss_kw = -substation.sum("p_kw"), substation.sum("loss_kw")
    kpis: Kpis = {
        "energy.import_kwh": float(np.maximum(import_kw, 0.0).sum() * MINUTE_H),
        "energy.export_kwh": float(np.maximum(-import_kw, 0.0).sum() * MINUTE_H),
        "energy.peak_import_kw": float(import_kw.max()),
        "losses.energy_kwh": float(loss_kw.sum() * MINUTE_H),
    }
    if "balance_error_kw" in substation.values:
        kpis["balance.max_error_kw"] = float(np.abs(substation["balance_error_kw"]).max())
    return kpis | {"losses.max_kw": float(loss_kw.max())}


def generation_kw(primary: Block | None, scenario: Scenario, t_s: NDArray[np.int64]) -> Array:
    """Return what the primary-level generators inject at each time, (n_t,) [kW].

    They hold the set-point of the clearing in force, and give nothing before the first one or while attacked.
    """
    if primary is None:
        return np.zeros(len(t_s))
    at = np.searchsorted(primary.t_s, t_s, side="right") - 1
    given = np.where((at >= 0)[:, None], primary["gen_kw"][np.maximum(at, 0)], 0.0)
    if scenario.attack is not None and scenario.attack_window_s is not None:
        start_s, stop_s = scenario.attack_window_s
        under = (t_s >= start_s) & (t_s < (scenario.end_s if stop_s is None else stop_s))
        hit = np.isin(primary.keys["bus"], scenario.attack.buses)
        given = np.where(under[:, None] & hit[None, :], 0.0, given)
    return np.asarray(given.sum(axis=1))


def load_kw(grid: Block, primary: Block | None, scenario: Scenario) -> Array:
    """Return what consumers draw net of their own PV and batteries, (n_t,) [kW], at the times of the grid table."""
    return np.asarray(generation_kw(primary, scenario, grid.t_s) - grid.sum("p_kw"))
