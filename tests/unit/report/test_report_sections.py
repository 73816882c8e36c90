"""Sections of the report say what the tables say; the small rules that they share."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_run import MadeUp, Page, drawn, figure_of, finding, write_run

from voltier.grid.feeder import read_feeder
from voltier.scenarios.report import clearings, write_report
from voltier.scenarios.report.feeder_map import MOST_FRAMES, frame_times, segments
from voltier.scenarios.report.key_figures import readable, split_key
from voltier.scenarios.report.panel import pivot
from voltier.scenarios.report.picture import blend
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import PHASE_COLOR, clock, number


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


def test_clearings_without_a_bound_have_no_empty_picture_and_no_largest_gap():
    market, status = np.array(["primary"] * 2, dtype=object), np.array(["optimal"] * 2, dtype=object)
    values = {"gap": np.full(2, np.nan), "ac_residual_pu": np.full(2, 1e-14), "solve_s": np.array([2.0, 4.0])}
    figure = clearings._figure(["primary"], market, np.array([0, 300]), values)
    assert [note.text for note in figure.layout.annotations] == ["AC residual [p.u.]", "solve time [ms]"]
    said = clearings._finding(["primary"], market, status, values)
    assert "2 of them without a certified bound" in said and "gap" not in said
