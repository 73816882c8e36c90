"""Key figures of interruptions: energy not served, SAIDI, SAIFI and MAIFI of IEEE 1366, from the voltages at hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from voltier.scenarios.panels import Array, Block
from voltier.scenarios.schema import Scenario

Kpis = dict[str, float | int | None]

INTERRUPTED_PU = 0.1
"""Voltage below which supply counts as interrupted (IEEE 1159)."""
SUSTAINED_MIN = 5.0
"""An interruption counts for SAIDI and SAIFI when it lasts longer than this, else for MAIFI (IEEE 1366)."""


def interruption_kpis(grid: Block, customers: Array) -> Kpis:
    """Return the figures of a run; all zero where every customer had voltage in every minute.

    grid : v_pu and p_kw by time and node ; customers : (n_rows,) how many stand at each row of it

    A node is interrupted while its voltage is below 0.1 p.u. or not there. saifi: Σ customers × sustained
    interruptions / Σ customers; saidi_min: Σ customers × minutes of these / Σ customers; maifi: as saifi, of those of
    five minutes or less. energy_not_served_kwh: what nodes would have drawn during every interruption, taken as what
    they drew in the last minute before it, or, where a run begins with it, on average later.
    """
    served = customers > 0.0
    total = float(customers[served].sum())
    if total == 0.0:
        return {}
    dark = ~(grid["v_pu"][:, served] >= INTERRUPTED_PU)
    drawn_kw = np.maximum(-grid["p_kw"][:, served], 0.0)
    step_min = float(np.median(np.diff(grid.t_s))) / 60.0 if len(grid.t_s) > 1 else 1.0
    count, long_count, minutes, unserved_kwh = 0.0, 0.0, 0.0, 0.0
    for column in np.flatnonzero(dark.any(axis=0)).tolist():
        weight = float(customers[served][column])
        for first, last in _spells(dark[:, column]):
            length_min = (last - first) * step_min
            sustained = length_min > SUSTAINED_MIN
            count += weight * (not sustained)
            long_count += weight * sustained
            minutes += weight * length_min * sustained
            unserved_kwh += _lacking_kw(drawn_kw[:, column], dark[:, column], first) * length_min / 60.0
    return {
        "interruptions.customers": round(total),
        "interruptions.saidi_min": minutes / total,
        "interruptions.saifi": long_count / total,
        "interruptions.maifi": count / total,
        "interruptions.energy_not_served_kwh": unserved_kwh,
    }


def customers_at(grid: Block, scenario: Scenario | None) -> Array:
    """Count the customers at each row of the grid table, (n_rows,).

    They are the scenario's houses; without a scenario, one at each node that draws power at any time.
    """
    if scenario is None:
        return np.asarray((grid["p_kw"] < 0.0).any(axis=0), dtype=np.float64)
    # The population takes a feeder and random draws, and tables without voltages need none of it.
    from voltier.scenarios.build import feeder_of, population_of

    population, bus = population_of(scenario), feeder_of(scenario).bus
    at = Counter(
        (bus[i], "abc"[k])
        for i, k in zip(population.house_bus.tolist(), population.house_phase.tolist(), strict=True)
    )
    rows = zip(grid.keys["bus"].tolist(), grid.keys["phase"].tolist(), strict=True)
    return np.array([at[row] for row in rows], dtype=np.float64)


def _spells(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Give first and past-the-last position of each run of true values."""
    edges = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


def _lacking_kw(drawn_kw: Array, dark: NDArray[np.bool_], first: int) -> float:
    if first > 0:
        return float(drawn_kw[first - 1])
    return float(drawn_kw[~dark].mean()) if not dark.all() else 0.0
