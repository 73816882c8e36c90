"""The report of a made-up run: every section, partial runs, runs without a market, comparison, picture."""

import base64
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from voltier.grid.errors import InputError
from voltier.grid.feeder import read_feeder
from voltier.scenarios.report import write_comparison, write_picture, write_report
from voltier.scenarios.report.events import MOST_OF_A_KIND
from voltier.scenarios.report.feeder_map import MOST_FRAMES, frame_times, segments
from voltier.scenarios.report.key_figures import readable, split_key
from voltier.scenarios.report.panel import pivot
from voltier.scenarios.report.picture import blend
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import PHASE_COLOR, clock, number

MINUTE_S = 60


# ---------------------------------------------------------------------- a made-up run


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


@pytest.fixture(scope="module")
def attack_run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("report") / "attack"
    return write_run(
        run_dir, MadeUp(2.5, start_h=17, attack=True), kpis=KPIS | ATTACK_KPIS, start="2020-07-15T17:00"
    )


@pytest.fixture(scope="module")
def page(attack_run):
    return write_report(attack_run).read_text()


# ---------------------------------------------------------------------- the page as a reader gets it


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


def test_page_is_well_formed_and_needs_no_network(page):
    parsed = Page(page)
    assert parsed.stack == []
    assert parsed.outside == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert {link.removeprefix("#") for link in parsed.links} <= set(parsed.ids)
    assert page.count("plotly.js v") == 1, "plotly.js is inlined exactly once"


def test_every_figure_obeys_plotlys_schema_and_has_data(page):
    figures = {name: json.loads(text) for name, text in Page(page).data.items() if not name.endswith("-data")}
    expected = {"attack", "energy", "prices", "voltage", "node", "devices", "scores", "clearings"}
    assert {f"{name}-figure" for name in expected} | {"map-voltage", "map-dlmp"} == set(figures)
    for name, figure in figures.items():
        drawn = go.Figure(figure)
        assert len(drawn.data) > 0, name


def test_attack_section_tells_what_the_data_say(page):
    text = finding(page, "attack")
    assert text.startswith("At 18:00 the attack lifts the import from ")
    assert "from 1,126 to 1,388 kW (+23 %); the alarm comes 4 min later" in text
    assert text.endswith("the market brings it to 1,128 kW (+0.2 %).")
    assert "<th class=num>attacked</th>" in page, "key figures of the attack stand side by side"


def test_findings_agree_with_the_tables(page, attack_run):
    run = Run(attack_run)
    substation = run.panel("substation", "phase")
    imported = -substation.total("p_kw")
    peak = int(np.argmax(imported))
    assert f"peaks at {number(imported[peak])} kW at {clock(substation.t_s[peak])}" in finding(page, "energy")
    assert "the dLMP averages 0.0637 $/kWh" in finding(page, "prices").replace("The", "the")
    assert "36 % below the retail rate" in finding(page, "prices"), "1 - 0.0821 / 0.129"
    assert finding(page, "settlement").startswith("The ledger sums to 0.00 $")


def test_text_of_a_run_is_escaped(page):
    assert "coefficients re-weighted &lt;b&gt;" in page
    assert "re-weighted <b>" not in page


def test_map_data_are_the_grid_tables_values(page, attack_run):
    data = json.loads(Page(page).data["map-data"])
    grid = Run(attack_run).panel("grid", "bus", "phase")
    frame = data["clock"].index("18:15")
    row = int(np.flatnonzero(grid.t_s == 18.25 * 3600)[0])
    bus = data["bus"].index("76")
    expected = grid["v_pu"][row, grid.names.index("76.b")]
    assert data["v"]["b"][frame][bus] == pytest.approx(expected * 1e4, abs=0.5), "whole numbers of 1e-4 p.u."
    assert data["v"]["b"][frame][data["bus"].index("3")] is None, "bus 3 has only phase c"
    assert len(data["dlmp"][frame]) == len(data["smo"]) == 85


def figure_of(text, name):
    return go.Figure(json.loads(Page(text).data[name]))


def drawn(trace):
    """Values of a trace; the page holds them as packed single precision."""
    return np.frombuffer(base64.b64decode(trace.y["bdata"]), dtype=trace.y["dtype"])


@pytest.fixture(scope="module")
def phase_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("report") / "phases", MadeUp(9.0), by_phase=True)


@pytest.fixture(scope="module")
def phase_page(phase_run):
    return write_report(phase_run).read_text()


def test_runs_without_prices_by_phase_have_no_price_stack(page):
    assert "price-stack" not in Page(page).ids
    assert "dlmp_by" not in json.loads(Page(page).data["map-data"])


def test_price_stack_adds_up_at_every_node_and_hour(phase_page):
    parsed = Page(phase_page)
    assert parsed.stack == []
    series = [np.array(rows, dtype=float) for rows in json.loads(parsed.data["stack-data"])]
    figure = figure_of(phase_page, "price-stack-figure")
    assert len(series) == len(figure.data) == 5 + 5 + 1 + 1, "above zero, below zero, price; reactive price"
    parts, price = series[:10], series[10]
    # Each is rounded to 1e-6 $: ten parts are off by 5e-6 at most, the price by 5e-7.
    np.testing.assert_allclose(np.sum(parts, axis=0), price, atol=6e-6)
    assert np.min(parts[:5]) >= 0.0 and np.max(parts[5:]) <= 0.0
    assert np.min(parts[7]) < -1e-3, "voltage limits lower prices somewhere"
    # 283 nodes less the one without a price; nine hours and the end of the last.
    assert price.shape == (282, 10)
    assert np.array_equal(price[:, -1], price[:, -2])


def test_price_stack_shows_means_of_the_table(phase_page, phase_run):
    panel = Run(phase_run).panel("dlmp", "bus", "phase")
    series = json.loads(Page(phase_page).data["stack-data"])
    third = (panel.t_s >= 2 * 3600) & (panel.t_s < 3 * 3600)
    node = panel.names.index("76.b")
    assert series[1][node][2] == pytest.approx(panel["loss_usd_per_kwh"][third, node].mean(), abs=1e-6)
    energy = np.nanmean(panel["energy_usd_per_kwh"]) / np.nanmean(panel["dlmp_usd_per_kwh"])
    assert f"{100 * energy:.0f} % is energy" in finding(phase_page, "price-stack")
    chosen = re.search(r'<option value="(\d+)" selected>bus ', phase_page.split('id="stack-choice"')[1])
    shown = drawn(figure_of(phase_page, "price-stack-figure").data[10])
    np.testing.assert_allclose(shown, series[10][int(chosen.group(1))], atol=1e-6)


def test_reactive_price_has_its_stack_where_the_table_has_its_parts(tmp_path):
    run_dir = write_run(tmp_path / "run", MadeUp(1.0), by_phase=True)
    path = run_dir / "tables" / "dlmp.parquet"
    table = pq.read_table(path)
    for part in ("loss", "regulation"):
        table = table.append_column(f"{part}_q_usd_per_kvarh", table[f"{part}_usd_per_kwh"])
    pq.write_table(table, path)
    figure = figure_of(write_report(run_dir).read_text(), "price-stack-figure")
    assert [trace.name for trace in figure.data[11:]] == ["losses", "voltage regulation"] * 2 + ["price"]


def test_price_stack_says_what_operators_pay_in_all_where_the_table_has_it(tmp_path, phase_page):
    run_dir = write_run(tmp_path / "run", MadeUp(1.0), by_phase=True)
    path = run_dir / "tables" / "dlmp.parquet"
    table = pq.read_table(path)
    bundled = np.full(table.num_rows, np.nan)
    bundled[:3] = 0.111, 0.123, 7.5  # the last takes next to nothing
    pq.write_table(table.append_column("bundled_usd_per_kwh", pa.array(bundled)), path)
    assert "would pay 0.123 $/kWh (median)" in write_report(run_dir).read_text()
    assert "(median)" not in phase_page, "there was no such column"


def test_map_has_prices_and_wires_of_each_phase(phase_page, phase_run):
    data = json.loads(Page(phase_page).data["map-data"])
    panel = Run(phase_run).panel("dlmp", "bus", "phase")
    frame = data["clock"].index("06:00")
    row = int(np.flatnonzero(panel.t_s == 6 * 3600)[0])
    at = data["smo"].index(data["bus"].index("76"))
    prices = [panel["dlmp_usd_per_kwh"][row, panel.names.index(f"76.{phase}")] for phase in "abc"]
    for phase, price in zip("abc", prices, strict=True):
        assert data["dlmp_by"][phase][frame][at] == pytest.approx(price * 1e5, abs=0.5)
    assert data["dlmp"][frame][at] == pytest.approx(np.mean(prices) * 1e5, abs=0.5)
    lonely = data["smo"].index(data["bus"].index("3"))
    assert [data["dlmp_by"][phase][frame][lonely] is None for phase in "abc"] == [True, True, False]
    layers = figure_of(phase_page, "map-voltage").data[2:5]
    assert all(layer.visible is False for layer in layers)
    assert [layer.line.color for layer in layers] == list(PHASE_COLOR.values())
    assert figure_of(phase_page, "map-voltage").data[5].marker.colorscale is not None, "nodes come after them"


def test_segments_know_their_phases():
    feeder = read_feeder("ieee123")
    wires = segments(feeder)
    carried = {
        (feeder.bus[a], feeder.bus[b]): "".join(np.array(list("abc"))[phases])
        for a, b, phases in zip(wires.start, wires.stop, wires.phases, strict=True)
    }
    assert (carried["1", "2"], carried["1", "3"], carried["1", "7"]) == ("b", "c", "abc")
    assert carried["160", "160r"] == "abc" and carried["25", "25r"] == "ac", (
        "regulators on phases a and c only"
    )


def test_wires_lead_to_nodes_that_are_drawn():
    feeder = read_feeder("ieee123")
    row = {name: i for i, name in enumerate(feeder.bus)}
    kept = segments(feeder).towards(np.array([row["2"], row["7"]]), feeder.source_bus)
    pairs = {(feeder.bus[a], feeder.bus[b]) for a, b in zip(kept.start, kept.stop, strict=True)}
    assert pairs == {("150", "150r"), ("150r", "149"), ("149", "1"), ("1", "2"), ("1", "7")}


def test_prices_hold_until_the_next_clearing(page):
    figure = figure_of(page, "prices-figure")
    shown = [trace for trace in figure.data if trace.mode == "lines"]
    assert {trace.line.shape for trace in shown} == {"hv"}
    dlmp = next(drawn(trace) for trace in figure.data if trace.name == "dLMP, mean")
    assert len(dlmp) == 31, "2.5 hours of five minutes, and the end of the last"
    assert dlmp[-1] == dlmp[-2]


def test_price_panel_marks_the_attack_and_no_other_day(page, phase_page):
    labels = [note.text for note in figure_of(page, "prices-figure").layout.annotations]
    assert "attack 18:00" in labels and "mitigation 18:10" in labels
    assert [note.text for note in figure_of(phase_page, "prices-figure").layout.annotations] == [
        "retail 0.129 $/kWh"
    ]


def test_shares_are_written_in_one_way(tmp_path):
    made = MadeUp(1.0)
    run_dir = write_run(tmp_path / "run", made, skip=("grid",))
    grid = grid_table(made)
    v_pu = np.full(len(grid), 1.0)
    v_pu[:2] = 1.06
    column = grid.column_names.index("v_pu")
    pq.write_table(grid.set_column(column, "v_pu", pa.array(v_pu)), run_dir / "tables" / "grid.parquet")
    kpis = {"voltage.violations_share": 2 / len(grid)}
    (run_dir / "kpis.json").write_text(json.dumps(kpis))
    text = write_report(run_dir).read_text()
    written = readable(2 / len(grid), "share")
    assert written == "0.0118\u00a0%", "2 of 283 x 60 readings"
    assert text.count(written) == 3 and "0.01%" not in text


def test_frequent_events_do_not_hide_rare_ones(tmp_path):
    made = MadeUp(1.0)
    run_dir = write_run(tmp_path / "run", made)
    n = 3 * MOST_OF_A_KIND
    table = {
        "t_s": np.arange(n + 1) * 10,
        "source": ["x"] * (n + 1),
        "kind": ["often"] * n + ["rare"],
        "text": ["-"] * n + ["found me"],
    }
    pq.write_table(pa.table(table), run_dir / "tables" / "events.parquet")
    text = write_report(run_dir).read_text()
    assert "found me" in text
    assert text.count("<td>often</td>") == MOST_OF_A_KIND
    assert f"{n + 1} events" in text


# ---------------------------------------------------------------------- runs that are not complete


def test_crashed_run_with_parts_and_a_ragged_end(tmp_path):
    made = MadeUp(1.0)
    run_dir = write_run(tmp_path / "run", made, skip=("settlement", "clearings", "events"), status="failed")
    secondary = run_dir / "tables" / "secondary.parquet"
    parts = run_dir / "tables" / ".parts" / "secondary"
    parts.mkdir(parents=True)
    whole = pq.read_table(secondary)
    pq.write_table(whole.slice(0, len(whole) - 17), parts / "000001.parquet")
    secondary.unlink()
    text = write_report(run_dir).read_text()
    assert "status “failed”; its tables reach to 00:59." in text
    assert "This run wrote no key figures" in text
    assert finding(text, "scores") is not None


@pytest.mark.parametrize("design", ["no_market"])
def test_run_without_a_market_says_so(tmp_path, design):
    text = write_report(write_run(tmp_path / "run", MadeUp(1.0), design=design, kpis=KPIS)).read_text()
    assert "No primary market cleared, so no node has bids." in text
    assert "No market cleared in this run." in text
    assert finding(text, "energy") is not None
    assert "map-dlmp" not in Page(text).ids


def test_empty_directory_still_gives_a_page(tmp_path):
    text = write_report(tmp_path).read_text()
    assert "no time step was committed" in text
    assert Page(text).stack == []


@pytest.mark.parametrize("missing", ["grid", "substation", "devices", "system", "primary", "secondary"])
def test_any_table_may_be_missing(tmp_path, missing):
    text = write_report(write_run(tmp_path / "run", MadeUp(0.25), skip=(missing,))).read_text()
    assert Page(text).stack == []


def test_day_stays_below_twelve_megabytes(tmp_path):
    path = write_report(write_run(tmp_path / "run", MadeUp(24.0), kpis=KPIS, by_phase=True))
    assert path.stat().st_size < 12e6


# ---------------------------------------------------------------------- comparison and picture


def test_comparison_puts_runs_side_by_side(tmp_path, attack_run):
    other = write_run(
        tmp_path / "plain", MadeUp(1.0), design="no_market", kpis=KPIS | {"energy.import_kwh": 2 * 14523.4}
    )
    text = write_comparison([attack_run, other], tmp_path / "compare.html").read_text()
    assert Page(text).stack == []
    assert "<small>(+100 %)</small>" in text
    assert "made-up (hierarchical)" in text and "made-up (no market)" in text


def test_picture_is_an_svg_with_one_circle_a_node(tmp_path, attack_run):
    path = write_picture(attack_run, tmp_path / "picture.svg")
    root = ET.parse(path).getroot()
    assert len(root.findall("{http://www.w3.org/2000/svg}circle")) == 85
    assert "NaN" not in path.read_text() and "nan" not in path.read_text()
    assert path.stat().st_size < 300e3


def test_picture_of_a_run_without_market_is_refused(tmp_path):
    run_dir = write_run(tmp_path / "run", MadeUp(0.25), design="no_market")
    with pytest.raises(InputError, match="tables grid, primary and substation"):
        write_picture(run_dir, tmp_path / "picture.svg")


# ---------------------------------------------------------------------- small rules


def test_pivot_joins_keys_and_leaves_gaps_empty():
    table = pa.table(
        {"t_s": [0, 60, 60], "bus": ["2", "1", "2"], "phase": ["a", "b", "a"], "v_pu": [1.0, 0.9, 1.1]}
    )
    panel = pivot(table, "bus", "phase")
    assert panel.names == ("2.a", "1.b")
    np.testing.assert_array_equal(panel["v_pu"], [[1.0, np.nan], [1.1, 0.9]])
    np.testing.assert_array_equal(panel.thin(120)["v_pu"], [[1.05, 0.9]])


def test_thin_keeps_a_gapless_grid():
    panel = pivot(pa.table({"t_s": [0, 60, 900], "p_kw": [1.0, 3.0, 5.0]})).thin(300)
    assert panel.t_s.tolist() == [0, 300, 600, 900]
    np.testing.assert_array_equal(panel["p_kw"][:, 0], [2.0, np.nan, np.nan, 5.0])


@pytest.mark.parametrize(
    ("key", "parts", "value", "text"),
    [
        ("prices.mean_dlmp_usd_per_kwh", ("Prices", "Mean dLMP", "$/kWh"), 0.0637, "0.0637\u00a0$/kWh"),
        ("energy.import_kwh", ("Energy", "Import", "kWh"), 31234.5, "31.2\u00a0MWh"),
        ("voltage.violations", ("Voltage", "Violations", ""), 12345, "12,345"),
        (
            "voltage.mean_abs_deviation_pu",
            ("Voltage", "Mean absolute deviation", "p.u."),
            0.0113,
            "0.0113\u00a0p.u.",
        ),
        ("performance.wall_s", ("Performance", "Wall time", "s"), 38.4, "38.4\u00a0s"),
        ("voltage.violations_share", ("Voltage", "Violations share", "share"), 0.0125, "1.25\u00a0%"),
        ("attack.cost_before_usd_per_h", ("Attack", "Cost before", "$/h"), 61.26, "61.3\u00a0$/h"),
    ],
)
def test_keys_become_labels_with_units(key, parts, value, text):
    assert split_key(key) == parts
    assert readable(value, parts[2]) == text


def test_frames_are_round_and_few():
    day = np.arange(0, 86400, 60)
    assert np.diff(frame_times(day)).tolist() == [900] * 95
    assert len(frame_times(np.arange(0, 7 * 86400, 60))) <= MOST_FRAMES


def test_numbers_and_clock_read_well():
    assert [number(x) for x in (12345.6, 0.0637, 2.1e-7, -4.2, float("nan"))] == [
        "12,346",
        "0.0637",
        "2.1e−7",
        "−4.20",
        "–",
    ]
    assert [clock(x) for x in (0, 47000, 90000)] == ["00:00", "13:03", "day 2 01:00"]
    assert blend(((0.0, "#000000"), (1.0, "#ffffff")), 0.5) == "#808080"
