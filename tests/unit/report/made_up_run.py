"""A made-up run in the layout of a run directory, and what tests look at in its page."""

import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from voltier.grid.feeder import read_feeder

MINUTE_S = 60


class MadeUp:
    """Series of a plausible day: double-humped demand, PV bell, prices that follow the demand."""

    def __init__(self, hours, start_h=0.0, sma_per_smo=3, attack=False, seed=1):
        self.rng = np.random.default_rng(seed)
        self.feeder = read_feeder("ieee123")
        self.t_s = np.arange(0, round(hours * 3600), MINUTE_S)
        self.h = (self.t_s / 3600 + start_h) % 24
        self.attacked = (
            (self.t_s >= 3600) & (self.t_s < 3600 + 2400) if attack else np.zeros(len(self.t_s), bool)
        )
        self.mitigated = self.attacked & (self.t_s >= 3600 + 600)
        self.smo = self.feeder.load_buses
        self.smo_name = [self.feeder.bus[i] for i in self.smo]
        self.n_smo, self.per = len(self.smo), sma_per_smo
        self.share = self.rng.dirichlet(np.full(self.n_smo, 4.0))
        bump = lambda centre, width: np.exp(-(((self.h - centre) / width) ** 2))  # noqa: E731
        wobble = 1 + 0.02 * self.rng.standard_normal(len(self.t_s))
        self.hvac = 300 * bump(16, 4) * wobble
        self.water = 120 * (bump(7, 1.5) + bump(20, 2)) * wobble
        self.base = 700 * (0.55 + 0.35 * bump(8, 2) + 0.75 * bump(19.5, 3)) * wobble
        self.pv = 620 * np.clip(np.sin((self.h - 6) / 13 * np.pi), 0, None) * (np.abs(self.h - 12.5) < 6.5)
        self.battery = 200 * bump(19.5, 2) - 160 * bump(12, 2)
        self.gen = 350.0 - 260 * self.attacked + 170 * self.mitigated
        self.load = self.base + self.hvac + self.water - 88.0 * self.mitigated
        self.imported = self.load - self.pv - self.battery - self.gen + 300
        self.price = 0.035 + 0.05 * bump(19.5, 2.5) - 0.015 * bump(12, 3)


def tidy(t_s, columns, **keys):
    """A tidy table: columns are (n_t, n) matrices, keys name the n rows."""
    n = len(next(iter(keys.values()))) if keys else 1
    data = {"t_s": np.repeat(t_s, n).astype(np.int64)}
    data |= {key: list(names) * len(t_s) for key, names in keys.items()}
    data |= {
        name: np.broadcast_to(values, (len(t_s), n)).ravel().astype(float) for name, values in columns.items()
    }
    return pa.table(data)


def write_run(
    run_dir, made, *, skip=(), status="done", kpis=None, design="hierarchical", start="2020-07-15T00:00",
    by_phase=False,
):  # fmt: skip
    """Write the made-up series in the layout of a run directory."""
    (run_dir / "tables").mkdir(parents=True)
    tables = {"grid": grid_table(made), "substation": substation_table(made), "events": events_table(made)}
    tables |= {"devices": devices_table(made), "system": system_table(made)}
    if design != "no_market":
        tables |= {"primary": primary_table(made), "secondary": secondary_table(made)}
        tables |= {"clearings": clearings_table(made), "settlement": settlement_table(made)}
        tables |= {"dlmp": dlmp_table(made)} if by_phase else {}
    for name, table in tables.items():
        if name not in skip:
            pq.write_table(table, run_dir / "tables" / f"{name}.parquet")
    config = {
        "name": "made-up",
        "title": "A made-up day",
        "start": start,
        "hours": len(made.t_s) / 60,
        "design": design,
        "feeder": {"name": "ieee123", "v_min_pu": 0.95, "v_max_pu": 1.05},
        "wholesale": {"retail_usd_per_kwh": 0.129},
    }
    (run_dir / "config.resolved.yaml").write_text(yaml.safe_dump(config))
    manifest = {"scenario": "made-up", "status": status, "seed": 1, "packages": {"numpy": np.__version__}}
    (run_dir / "manifest.json").write_text(json.dumps(manifest))
    if kpis is not None:
        (run_dir / "kpis.json").write_text(json.dumps(kpis))
    return run_dir


def grid_table(made):
    bus, phase = np.nonzero(made.feeder.has_phase)
    xy = made.feeder.xy
    far = np.hypot(*(xy - xy[made.feeder.source_bus]).T)
    sag = 0.035 * np.nan_to_num(far / np.nanmax(far))[bus] * (1 + 0.25 * (phase - 1))
    v_pu = (
        1.02
        - np.outer(made.imported / 1200, sag)
        + 1e-4 * made.rng.standard_normal((len(made.t_s), len(bus)))
    )
    weight = np.zeros(len(made.feeder.bus))
    weight[made.smo] = made.share
    p_kw = -np.outer(made.imported, weight[bus] / made.feeder.has_phase.sum(axis=1)[bus])
    names = {"bus": [made.feeder.bus[i] for i in bus], "phase": ["abc"[k] for k in phase]}
    return tidy(made.t_s, {"v_pu": v_pu, "p_kw": p_kw, "q_kvar": 0.4 * p_kw}, **names)


def substation_table(made):
    p_kw = -np.outer(made.imported, [0.4, 0.27, 0.33])
    loss = np.outer(2e-5 * made.imported**2, np.ones(3))  # the whole feeder's, on each phase's row
    return tidy(made.t_s, {"p_kw": p_kw, "q_kvar": 0.3 * p_kw, "loss_kw": loss}, phase=["a", "b", "c"])


def devices_table(made):
    fleet = {
        "base_kw": -made.base,
        "hvac_kw": -made.hvac,
        "water_heater_kw": -made.water,
        "pv_kw": made.pv,
        "battery_kw": made.battery,
        "ev_kw": np.zeros(len(made.t_s)),
    }
    houses = np.full(20, 1 / 20)
    columns = {name: np.outer(values, houses)[::5] for name, values in fleet.items()}
    columns["temp_indoor_c"] = np.full((len(made.t_s[::5]), 20), 21.0)
    return tidy(made.t_s[::5], columns, cma=[f"house_{i}" for i in range(20)])


def system_table(made):
    step = np.arange(0, len(made.t_s), 5)
    planned = made.load - made.pv - made.battery - 50.0
    columns = {
        "price_usd_per_kwh": made.price,
        "temp_air_c": 15 + 5 * np.sin(made.h / 4),
        "pv_available": made.pv / 880,
        "p_import_scheduled_kw": planned,
        "cost_usd_per_h": made.price * made.imported,
    }
    return tidy(made.t_s[step], {name: values[step, None] for name, values in columns.items()})


def primary_table(made):
    step = np.arange(0, len(made.t_s), 5)
    p0 = -np.outer((made.imported + made.gen)[step], made.share)
    p_kw = p0 * (1 - 0.04 * made.rng.random(p0.shape))
    dlmp = (
        made.price[step, None] * (1 + np.outer(made.imported[step] / 9000, made.rng.random(made.n_smo)))
        + 0.012
    )
    gen = np.zeros((len(step), made.n_smo))
    gen[:, :2] = made.gen[step, None] / 2
    columns = {
        "p0_kw": p0,
        "p_min_kw": p0 - 0.2 * np.abs(p0) - 0.4,
        "p_max_kw": p0 + 0.2 * np.abs(p0) + 0.4,
        "p_kw": p_kw,
        "q_kvar": 0.4 * p_kw,
        "gen_kw": gen,
        "dlmp_usd_per_kwh": dlmp,
        "v_pu": np.ones_like(p0),
        "rs": np.full_like(p0, 0.8),
    }
    return tidy(made.t_s[step], columns, bus=made.smo_name)


def dlmp_table(made):
    """Prices by phase whose parts add up; nothing feeds the last node, voltage limits lower some prices."""
    bus, phase = np.nonzero(made.feeder.has_phase)
    step = np.arange(0, len(made.t_s), 5)
    shape = (len(step), len(bus))
    rng = np.random.default_rng(2)
    parts = {
        "energy": np.broadcast_to(made.price[step, None], shape).copy(),
        "loss": 0.004 * rng.random(shape),
        "voltage": -0.01 * (rng.random(shape) < 0.1),
        "congestion": np.zeros(shape),
        "regulation": 0.001 * rng.standard_normal(shape),
    }
    columns = {"dlmp_usd_per_kwh": sum(parts.values()), "dlmp_q_usd_per_kvarh": -0.002 * rng.random(shape)}
    columns |= {f"{name}_usd_per_kwh": values for name, values in parts.items()}
    columns["v_pu"] = np.ones(shape)
    for values in columns.values():
        values[:, -1] = np.nan
    names = {"bus": [made.feeder.bus[i] for i in bus], "phase": ["abc"[k] for k in phase]}
    return tidy(made.t_s[step], columns, **names)


def secondary_table(made):
    n = made.n_smo * made.per
    keys = {
        "smo": [f"smo_{b}" for b in made.smo_name for _ in range(made.per)],
        "sma": [f"sma_{b}_{k}" for b in made.smo_name for k in range(made.per)],
    }
    p0 = -np.outer(made.imported + made.gen, np.repeat(made.share, made.per) / made.per)
    p_kw = p0 * (1 - 0.03 * made.rng.random(n)) * (1 - 0.15 * made.mitigated[:, None])
    final = np.where(
        np.arange(n) % 7 == 0, 0.45, np.where(np.arange(n) % 3 == 0, 0.85, 0.97)
    ) + 0.03 * made.rng.random(n)
    cs = final + (1 - final) * np.exp(-made.t_s[:, None] / 7200)
    tariff = (made.price * 1.25 + 0.02)[:, None] + 0.006 * made.rng.standard_normal(n)
    columns = {
        "p0_kw": p0,
        "p_min_kw": 1.2 * p0,
        "p_max_kw": 0.8 * p0,
        "p_kw": p_kw,
        "q_kvar": 0.4 * p_kw,
        "dp_kw": 0.1 * np.abs(p0),
        "tariff_usd_per_kwh": tariff,
        "cs": cs,
        "ts": 0.9 + 0 * cs,
        "rs": 0.5 * (cs + 0.9),
        "p_meter_kw": p_kw * (1 + 0.05 * made.rng.standard_normal(p_kw.shape)),
    }
    return tidy(made.t_s, columns, **keys)


def clearings_table(made):
    parts = []
    for market, every, gap, solve_s in (("primary", 5, 2e-6, 4e-3), ("secondary", 1, 1e-12, 1e-3)):
        t_s = made.t_s[::every]
        draw = 10 ** (0.3 * made.rng.standard_normal((3, len(t_s))))
        columns = {
            "t_s": t_s,
            "market": [market] * len(t_s),
            "status": ["optimal"] * len(t_s),
            "gap": gap * draw[0],
            "ac_residual_pu": 1e-10 * draw[1],
            "solve_s": solve_s * draw[2],
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def events_table(made):
    rows = [
        (int(t), "smo.0", "shortage", f"smo_{i} cannot meet its set-point")
        for i, t in enumerate(made.t_s[::7])
    ]
    if made.attacked.any():
        rows += [
            (3600, "attacker", "attack", "generators at smo_1 fall to zero output"),
            (3840, "resilience", "alarm", "import deviates by 260 kW"),
            (4200, "pmo", "mitigation", "coefficients re-weighted <b>"),
            (6000, "attacker", "attack-over", "generators are released"),
            (6300, "resilience", "all-clear", "import is back on schedule"),
        ]
    t_s, source, kind, text = zip(*sorted(rows), strict=True)
    return pa.table({"t_s": pa.array(t_s, pa.int64()), "source": source, "kind": kind, "text": text})


def settlement_table(made):
    parties = [*(f"smo_{b}" for b in made.smo_name), "gen_1", "pmo", "bulk"]
    amounts = made.rng.normal(-0.2, 0.05, (len(made.t_s[::5]), len(parties)))
    amounts[:, -1] -= amounts.sum(axis=1)  # the ledger closes at every time
    columns = {
        "energy_usd": amounts,
        "flexibility_usd": np.zeros_like(amounts),
        "penalty_usd": np.zeros_like(amounts),
    }
    return tidy(made.t_s[::5], columns, market=["primary"] * len(parties), party=parties)


KPIS = {
    "energy.import_kwh": 14523.4,
    "energy.losses_kwh": 211.2,
    "energy.pv_kwh": 4711.0,
    "energy.peak_import_kw": 1188.2,
    "prices.mean_dlmp_usd_per_kwh": 0.0637,
    "prices.mean_tariff_usd_per_kwh": 0.0821,
    "voltage.mean_abs_deviation_pu": 0.0113,
    "voltage.violations": 0,
    "voltage.min_pu": 0.9781,
    "performance.wall_s": 38.4,
    "performance.real_time_factor": 2250.0,
    "performance.peak_memory_mb": 1804.0,
    "markets.primary_clearings": 288,
    "markets.largest_gap": 3.1e-6,
}


ATTACK_KPIS = {
    f"attack.{what}_{stage}_{unit}": value
    for what, unit, values in (
        ("import", "kw", (1125.9, 1388.2, 1128.0)),
        ("cost", "usd_per_h", (61.2, 65.4, 80.6)),
        ("load", "kw", (1167.0, 1151.0, 1004.0)),
        ("generation", "kw", (90.0, 0.0, 284.0)),
    )
    for stage, value in zip(("before", "attacked", "mitigated"), values, strict=True)
}


class Page(HTMLParser):
    """Collects what the tests look at: ids, links, section findings, data scripts, outside references."""

    VOID = ("meta", "link", "input", "br", "img", "hr")

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.outside, self.stack, self.data = [], [], [], [], {}
        self._open = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if tag == "a" else []
        self.outside += [given[name] for name in ("src", "srcset") if name in given]
        if tag == "script" and given.get("type") == "application/json":
            self._open = given.get("data-for") or given["id"]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag
        self._open = None

    def handle_data(self, data):
        if self._open:
            self.data[self._open] = self.data.get(self._open, "") + data


def finding(text, anchor):
    found = re.search(rf'<section id="{anchor}">.*?<p class="finding">(.*?)</p>', text, re.S)
    return found.group(1) if found else None


def figure_of(text, name):
    return go.Figure(json.loads(Page(text).data[name]))


def drawn(trace):
    """Values of a trace."""
    return numbers(trace.y)


def numbers(values):
    """Values of an axis; the page holds long ones as packed single precision."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
    return np.array(values, dtype=float)
