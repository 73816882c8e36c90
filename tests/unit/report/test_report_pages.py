"""Pages of a made-up run as a reader gets them: whole, partial and without a market; comparison and picture."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up_run import KPIS, MadeUp, Page, finding, grid_table, write_run

from voltier.grid.errors import InputError
from voltier.scenarios.report import write_comparison, write_picture, write_report
from voltier.scenarios.report.events import MOST_OF_A_KIND
from voltier.scenarios.report.key_figures import readable


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


def test_text_of_a_run_is_escaped(page):
    assert "coefficients re-weighted &lt;b&gt;" in page
    assert "re-weighted <b>" not in page


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
