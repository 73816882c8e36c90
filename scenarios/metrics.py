"""Key figures of a run, computed from its tables alone: flat names with the unit at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from voltier.grid.feeder import read_feeder
from voltier.scenarios.manifest import RunDirectory
from voltier.scenarios.metrics_attack import attack_kpis
from voltier.scenarios.metrics_bulk import bulk_kpis
from voltier.scenarios.metrics_gridlabd import gridlabd_kpis
from voltier.scenarios.metrics_hardware import hardware_kpis, realtime_kpis
from voltier.scenarios.metrics_household import flexibility_kpis, household_kpis
from voltier.scenarios.metrics_interruptions import customers_at, interruption_kpis
from voltier.scenarios.metrics_loading import loading, loading_kpis
from voltier.scenarios.metrics_physical import MINUTE_H, generation_kw, load_kw, substation_kpis
from voltier.scenarios.metrics_voltage import voltage_kpis
from voltier.scenarios.metrics_welfare import sma_bill_kpis, welfare_kpis
from voltier.scenarios.panels import Array, Block, read_block
from voltier.scenarios.results import read_table, table_names
from voltier.scenarios.schema import Scenario

Kpis = dict[str, float | int | None]

_PRICE_PARTS = ("energy", "loss", "voltage", "congestion", "regulation")


def write_kpis(run_dir: Path | str, performance: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Compute the key figures of a run, write kpis.json and return them.

    performance : figures that no table holds, such as {"wall_s": 31.2}; they appear as performance.wall_s.
    A figure that the run cannot have (a price without a market) is left out.
    """
    run = RunDirectory(Path(run_dir))
    kpis = compute_kpis(run.path, run.scenario())
    kpis |= {f"performance.{name}": float(value) for name, value in (performance or {}).items()}
    # JSON has no NaN: a figure that came out undefined is null, which a reader cannot take for a number.
    clean = {name: value if value is None or np.isfinite(value) else None for name, value in kpis.items()}
    run.write_json("kpis.json", clean)
    return clean


def compute_kpis(run_dir: Path, scenario: Scenario) -> Kpis:
    """Return all key figures of a run but those of its performance."""
    blocks = {
        name: read_block(run_dir, name)
        for name in (
            "grid", "substation", "primary", "secondary", "consumer", "devices", "system",
            "settlement", "secondary_clearings", "consumer_clearings", "dlmp", "bulk", "gridlabd",
        )
    }  # fmt: skip
    kpis: Kpis = {}
    kpis |= _energy(blocks["grid"], blocks["substation"], blocks["primary"], scenario)
    kpis |= _devices(blocks["devices"], scenario.recording.consumer_period_s / 3600.0)
    kpis |= flexibility_kpis(blocks["secondary"])
    kpis |= household_kpis(
        blocks["consumer"], blocks["devices"], blocks["system"], blocks["consumer_clearings"], scenario
    )  # fmt: skip
    kpis |= _prices(blocks["primary"], blocks["secondary"], blocks["system"])
    kpis |= _phase_prices(blocks["dlmp"])
    kpis["prices.retail_usd_per_kwh"] = scenario.wholesale.retail_usd_per_kwh
    grid = blocks["grid"]
    if grid is not None:
        kpis |= voltage_kpis(grid, (scenario.feeder.v_min_pu, scenario.feeder.v_max_pu))
        kpis |= interruption_kpis(grid, customers_at(grid, scenario))
        kpis |= _loading(run_dir, scenario)
    kpis |= welfare_kpis(blocks["system"], blocks["substation"], scenario.primary.period_s)
    kpis |= sma_bill_kpis(blocks["settlement"], blocks["secondary"])
    kpis |= _scores(blocks["secondary"])
    kpis |= _settlement(blocks["settlement"])
    kpis |= _clearings(run_dir)
    kpis |= _areas(run_dir)
    kpis |= realtime_kpis(run_dir)
    kpis |= hardware_kpis(run_dir)
    kpis |= gridlabd_kpis(blocks["gridlabd"], scenario)
    kpis |= _lower_clearings(blocks["secondary_clearings"], blocks["consumer_clearings"])
    kpis |= _events(run_dir)
    kpis |= attack_kpis(run_dir, scenario, blocks)
    kpis |= bulk_kpis(blocks["bulk"], scenario)
    return kpis


def _energy(grid: Block | None, substation: Block | None, primary: Block | None, scenario: Scenario) -> Kpis:
    """Energy over the run; load is what consumers draw net of their own PV and batteries."""
    kpis: Kpis = {} if substation is None else substation_kpis(substation)
    if grid is not None:
        kpis["energy.load_kwh"] = _kwh(load_kw(grid, primary, scenario))
        if scenario.generators:
            kpis["energy.generation_kwh"] = _kwh(generation_kw(primary, scenario, grid.t_s))
    return kpis


def _devices(devices: Block | None, hours: float) -> Kpis:
    """Energy by kind of device, from the records that stand for one recording period each."""
    if devices is None:
        return {}
    kpis: Kpis = {
        f"energy.{column.removesuffix('_kw')}_kwh": abs(float(devices.sum(column).sum()) * hours)
        for column in devices.values
        if column.endswith("_kw") and column != "battery_kw"
    }
    kpis["energy.battery_discharge_kwh"] = float(np.maximum(devices["battery_kw"], 0.0).sum() * hours)
    stored_kwh = devices.sum("battery_kwh") + devices.sum("ev_kwh")
    kpis["energy.stored_change_kwh"] = float(stored_kwh[-1] - stored_kwh[0])
    return kpis


def _prices(primary: Block | None, secondary: Block | None, system: Block | None) -> Kpis:
    """Mean prices: plain over agents and clearings, and weighted by the energy that was drawn at them."""
    kpis: Kpis = {}
    if primary is not None:
        dlmp = primary["dlmp_usd_per_kwh"]
        kpis["prices.mean_dlmp_usd_per_kwh"] = float(dlmp.mean())
        kpis["prices.mean_dlmp_energy_weighted_usd_per_kwh"] = _weighted(dlmp, -primary["p_kw"])
        kpis["prices.std_dlmp_usd_per_kwh"] = float(dlmp.std())
        kpis["prices.max_dlmp_usd_per_kwh"] = float(dlmp.max())
    if secondary is not None:
        tariff = secondary["tariff_usd_per_kwh"]
        kpis["prices.mean_tariff_usd_per_kwh"] = float(tariff.mean())
        kpis["prices.mean_tariff_energy_weighted_usd_per_kwh"] = _weighted(tariff, -secondary["p_meter_kw"])
    if system is not None:
        kpis["prices.mean_wholesale_usd_per_kwh"] = float(system["price_usd_per_kwh"].mean())
    return kpis


def _phase_prices(dlmp: Block | None) -> Kpis:
    """Mean parts of the phases' prices, plain over phases and clearings, and how far a bus' phases are apart."""
    if dlmp is None:
        return {}
    fed = np.isfinite(dlmp["dlmp_usd_per_kwh"][0])
    kpis: Kpis = {
        f"prices.mean_dlmp_{part}_usd_per_kwh": float(dlmp[f"{part}_usd_per_kwh"][:, fed].mean())
        for part in _PRICE_PARTS
    }
    price, bus = dlmp["dlmp_usd_per_kwh"][:, fed], dlmp.keys["bus"][fed]
    first = np.flatnonzero(np.append(True, bus[1:] != bus[:-1]))
    spread = np.maximum.reduceat(price, first, axis=1) - np.minimum.reduceat(price, first, axis=1)
    kpis["prices.mean_phase_spread_usd_per_kwh"] = float(spread.mean())
    kpis["prices.max_phase_spread_usd_per_kwh"] = float(spread.max())
    return kpis


def _loading(run_dir: Path, scenario: Scenario) -> Kpis:
    """Thermal loading; none where the tables do not hold the whole feeder."""
    found = loading(run_dir, read_feeder(scenario.feeder.name))
    return {} if isinstance(found, str) else loading_kpis(found)


def _scores(secondary: Block | None) -> Kpis:
    """Scores of the secondary agents at the end of the run."""
    if secondary is None:
        return {}
    kpis: Kpis = {}
    for column, name in (("cs", "commitment"), ("ts", "trust"), ("rs", "resilience")):
        last = secondary[column][-1]
        kpis[f"scores.mean_{name}"] = float(last.mean())
        kpis[f"scores.min_{name}"] = float(last.min())
    return kpis


def _settlement(settlement: Block | None) -> Kpis:
    """Money moved, what the primary operator keeps, and how far any period's ledger is from zero."""
    if settlement is None:
        return {}
    energy, flexibility, penalty = (
        settlement[f"{name}_usd"] for name in ("energy", "flexibility", "penalty")
    )
    total = energy + flexibility + penalty
    market, party = settlement.keys["market"], settlement.keys["party"]
    imbalance = [np.abs(column[:, market == name].sum(axis=1)).max()
                 for name in sorted(set(market)) for column in (energy, flexibility, penalty)]  # fmt: skip
    return {
        "settlement.imbalance_usd": float(max(imbalance)),
        "settlement.pmo_surplus_usd": float(total[:, party == "pmo"].sum()),
        "settlement.turnover_usd": float(np.maximum(total, 0.0).sum()),
        "settlement.flexibility_usd": float(np.maximum(flexibility, 0.0).sum()),
        "settlement.penalty_usd": float(np.maximum(penalty, 0.0).sum()),
    }


def _clearings(run_dir: Path) -> Kpis:
    """Certificates of the clearings, by market."""
    if "clearings" not in table_names(run_dir):
        return {}
    table = read_table(run_dir, "clearings").to_pydict()
    status, market = (np.asarray(table[name], dtype=object) for name in ("status", "market"))
    gap = np.asarray(table["gap"], dtype=np.float64)
    kpis: Kpis = {
        "clearings.count": len(status),
        "clearings.without_bound": int((~np.isfinite(gap[market == "primary"])).sum()),
        "clearings.failed": int((status == "failed").sum()),
        "clearings.relaxed": int((status == "relaxed").sum()),
        "clearings.max_gap": _largest(gap),
        "clearings.max_ac_residual_pu": _largest(np.asarray(table["ac_residual_pu"], dtype=np.float64)),
    }
    solve_s = np.asarray(table["solve_s"], dtype=np.float64)
    for name in sorted(set(market)):
        kpis[f"clearings.{name}_median_solve_ms"] = float(np.median(solve_s[market == name]) * 1e3)
    return kpis


def _areas(run_dir: Path) -> Kpis:
    """What the areas of a federated primary market took to agree, and sent to do so."""
    if "areas" not in table_names(run_dir):
        return {}
    table = read_table(run_dir, "areas")
    clearings = max(len(np.unique(table["t_s"].to_numpy())), 1)
    rounds, slots, sent = (table[name].to_numpy() for name in ("rounds", "slots", "sent_bytes"))
    if not len(rounds):
        return {}
    return {
        "areas.count": len(set(table["area"].to_pylist())),
        "areas.median_rounds": float(np.median(rounds)),
        "areas.max_rounds": int(rounds.max()),
        "areas.median_slots": float(np.median(slots)),
        "areas.sent_per_clearing_kb": float(sent.sum()) / clearings / 1e3,
    }


def _lower_clearings(secondary: Block | None, consumer: Block | None) -> Kpis:
    """Certificates of the secondary clearings and of the consumer games."""
    kpis: Kpis = {}
    if secondary is not None:
        open_usd_per_h = np.abs(secondary["budget_residual_usd_per_h"]) + np.abs(
            secondary["q_budget_residual_usd_per_h"]
        )
        kpis["clearings.secondary_max_residual"] = float(secondary["residual"].max())
        kpis["clearings.secondary_not_converged"] = int((secondary["converged"] == 0).sum())
        kpis["clearings.secondary_open_budget_usd"] = _kwh(open_usd_per_h)
    if consumer is not None:
        kpis["game.max_tracking_error_kw"] = float(consumer["tracking_error_kw"].max())
        kpis["game.max_budget_error_usd_per_h"] = float(consumer["budget_error_usd_per_h"].max())
        kpis["game.degenerate_share"] = float(consumer["degenerate_share"].mean())
        kpis["game.infeasible_share"] = float(consumer["infeasible_share"].mean())
    return kpis


def _events(run_dir: Path) -> Kpis:
    """How many events there were, and of which kind."""
    kinds = read_table(run_dir, "events")["kind"].to_pylist() if "events" in table_names(run_dir) else []
    counts: Kpis = {f"events.{kind.replace('-', '_')}": kinds.count(kind) for kind in sorted(set(kinds))}
    return {"events.total": len(kinds), **counts}


def _kwh(p_kw: Array) -> float:
    return float(p_kw.sum() * MINUTE_H)


def _weighted(price: Array, consumption_kw: Array) -> float:
    weight = np.maximum(consumption_kw, 0.0)
    return float((price * weight).sum() / weight.sum()) if weight.any() else float("nan")


def _largest(values: Array) -> float | None:
    """Return the largest of the values that are there (a bound not asked for is NaN)."""
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else None
