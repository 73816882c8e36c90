"""Key figures of what lives in the engine gridlabd."""

from __future__ import annotations

import numpy as np

from voltier.scenarios.panels import Block
from voltier.scenarios.schema import Scenario

Kpis = dict[str, float | int | None]


def gridlabd_kpis(block: Block | None, scenario: Scenario) -> Kpis:
    """Return energies by kind, house energy a day, indoor temperatures, and charge at the end; empty without any.

    Energy is that of whole recording periods, by each one's own meter.
    """
    if block is None or scenario.gridlabd is None or not len(block.t_s):
        return {}
    hours = scenario.recording.consumer_period_s / 3600.0
    energy_kwh = block["p_kw"].sum(axis=0) * hours
    kind = np.array([name.split("_")[1] for name in block.keys["object"]])
    kpis: Kpis = {}
    if scenario.gridlabd.houses:
        used_kwh = -energy_kwh[kind == "house"]
        inside_c = block["temp_indoor_c"][:, kind == "house"]
        kpis |= {
            "gridlabd.house_kwh": float(used_kwh.sum()),
            "gridlabd.house_kwh_per_day": float(used_kwh.mean() * 24.0 / (hours * len(block.t_s))),
            "gridlabd.indoor_mean_c": float(inside_c.mean()),
            "gridlabd.indoor_min_c": float(inside_c.min()),
            "gridlabd.indoor_max_c": float(inside_c.max()),
        }
    if scenario.gridlabd.pv:
        kpis["gridlabd.pv_kwh"] = float(energy_kwh[kind == "pv"].sum())
    if scenario.gridlabd.batteries:
        kpis["gridlabd.battery_net_kwh"] = float(energy_kwh[kind == "battery"].sum())
        kpis["gridlabd.battery_final_soc"] = float(block["soc"][-1, kind == "battery"].mean())
    return kpis
