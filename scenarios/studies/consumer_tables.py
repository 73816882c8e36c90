"""Tables of the study of the consumer market; injections positive, one row a period, an agent, a device or a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from voltier.scenarios.studies.consumer_day import DEVICES
from voltier.scenarios.studies.consumer_findings import ConsumerStudy
from voltier.scenarios.studies.consumer_fleet import CMAS


def write_tables(out: Path, found: ConsumerStudy) -> None:
    """Write every table into a folder, as parquet and as CSV."""
    out.mkdir(parents=True, exist_ok=True)
    tables = {
        "periods": _periods(found),
        "agents": _agents(found),
        "devices": _devices(found),
        "incentives": _figures(found),
        "random_agents": _random(found),
    }
    for name, table in tables.items():
        parquet.write_table(table, out / f"{name}.parquet")
        csv.write_csv(table, out / f"{name}.csv")


def _periods(found: ConsumerStudy) -> pa.Table:
    day, game, markets = found.day, found.day.game, found.day.markets
    columns = {
        "t_s": day.minute * 60,
        "price_usd_per_kwh": day.price_usd_per_kwh,
        "asked_kw": day.asked_kw,
        "offered_up_kw": day.offered_up_kw,
        "offered_down_kw": day.offered_down_kw,
        "target_kw": markets.target_kw,
        "p_kw": np.add.reduceat(game.p_kw, markets.offset[:-1]),
        "s_usd_per_kwh": game.s_usd_per_kwh,
        "mu_usd_per_kwh": game.mu_usd_per_kwh,
        "mu_tilde_usd_per_kwh": game.mu_tilde_usd_per_kwh,
        "side_payment_usd_per_h": game.side_payment_usd_per_h,
        "feasible": game.feasible,
        "degenerate": game.degenerate,
        "tracking_error_kw": game.tracking_error_kw,
        "budget_error_usd_per_h": game.budget_error_usd_per_h,
    }
    return pa.table(columns)


def _agents(found: ConsumerStudy) -> pa.Table:
    day, markets = found.day, found.day.markets
    columns: dict[str, Any] = {
        "t_s": np.repeat(day.minute * 60, len(CMAS)),
        "cma": [cma.name for cma in CMAS] * len(day.minute),
        "p0_kw": markets.p0_kw,
        "p_min_kw": markets.p_min_kw,
        "p_max_kw": markets.p_max_kw,
        "gamma_usd_per_kw2h": markets.gamma_usd_per_kw2h,
        "p_kw": day.game.p_kw,
    }
    for mechanism, of in found.incentives["day"].items():
        columns[f"paid_{mechanism}_usd_per_h"] = of.game.paid_usd_per_h
        columns[f"surplus_{mechanism}_usd_per_h"] = of.surplus_usd_per_h
    return pa.table(columns)


def _devices(found: ConsumerStudy) -> pa.Table:
    day, n = found.day, len(CMAS)
    columns = {
        "t_s": np.repeat(day.minute * 60, len(DEVICES) * n),
        "device": np.tile(np.repeat(DEVICES, n), len(day.minute)),
        "cma": np.tile([cma.name for cma in CMAS], len(day.minute) * len(DEVICES)),
        "wished_kw": day.wished_kw.ravel(),
        "p_kw": day.device_kw.ravel(),
    }
    return pa.table(columns)


def _figures(found: ConsumerStudy) -> pa.Table:
    rows = [
        (name, mechanism, key, value)
        for name, of in found.figures.items()
        for mechanism, figures in of.items()
        for key, value in figures.items()
    ]
    columns = list(zip(*rows, strict=True))
    return pa.table(dict(zip(("markets", "mechanism", "figure", "value"), map(list, columns), strict=True)))


def _random(found: ConsumerStudy) -> pa.Table:
    """One row an agent and mechanism: what it is, its surplus, what false reports bring."""
    m = found.random
    parts = []
    for mechanism, of in found.incentives["random"].items():
        columns = {
            "mechanism": [mechanism] * m.p0_kw.size,
            "market": m.market,
            "price_usd_per_kwh": m.price_usd_per_kwh[m.market],
            "target_kw": m.target_kw[m.market],
            "p0_kw": m.p0_kw,
            "p_min_kw": m.p_min_kw,
            "p_max_kw": m.p_max_kw,
            "gamma_usd_per_kw2h": m.gamma_usd_per_kw2h,
            "p_kw": of.game.p_kw,
            "paid_usd_per_h": of.game.paid_usd_per_h,
            "surplus_usd_per_h": of.surplus_usd_per_h,
            "gain_gamma_usd_per_h": of.gain_gamma_usd_per_h,
            "gain_wish_usd_per_h": of.gain_wish_usd_per_h,
            "gain_box_usd_per_h": of.gain_box_usd_per_h,
            "strategic_factor": of.strategic_factor,
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)
