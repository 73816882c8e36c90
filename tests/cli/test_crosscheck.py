"""`voltier crosscheck` and `voltier compare` on a short run, as a user types them."""

import contextlib
import csv
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from voltier.federates.cli import _guarded, app


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str


def voltier(*arguments: str, cwd: Path) -> Done:
    """The command line in this process, from words to exit code; imports are paid once."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = _guarded(lambda: app(list(arguments), standalone_mode=False))
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes with a market in ours/, and the public tables of it in theirs/."""
    path = tmp_path_factory.mktemp("runs")
    done = voltier(
        "run",
        "ieee123-hour",
        "--hours",
        "0.1666667",
        "--transport",
        "none",
        "--quiet",
        "--out",
        "ours",
        cwd=path,
    )
    assert done.code == 0, done.stderr
    (path / "theirs" / "tables").mkdir(parents=True)
    for name in ("grid", "substation", "primary", "system"):
        shutil.copy(path / "ours" / "tables" / f"{name}.parquet", path / "theirs" / "tables")
    return path


def test_a_run_stands_up_to_two_other_engines(folder: Path) -> None:
    done = voltier("crosscheck", "ours", "--engines", "opendss,power-grid-model", cwd=folder)
    assert done.code == 0, done.stderr
    assert "within" in done.stdout
    # units are no markup, and nothing is cut where there is no terminal
    assert "Δ|v| [p.u.]" in done.stdout and "[s]" in done.stdout and "…" not in done.stdout
    found = json.loads((folder / "ours" / "crosscheck" / "crosscheck.json").read_text())
    assert list(found) == ["opendss", "power-grid-model"]
    # the run's own engine gives the same bits; the other differs by the 1e-6 ohm that OpenDSS's regulators keep
    assert found["opendss"]["voltage.max_difference_pu"] == 0.0
    assert 0.0 < found["power-grid-model"]["voltage.max_difference_pu"] < 1e-6
    with (folder / "ours" / "crosscheck" / "crosscheck.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 10
    assert {row["engine"] for row in rows} == set(found)
    page = (folder / "ours" / "crosscheck" / "crosscheck.html").read_text()
    assert "All engines are within the limits." in page
    kpis = json.loads((folder / "ours" / "kpis.json").read_text())
    assert kpis["crosscheck.power-grid-model.within_limits"] == 1


def test_an_engine_beyond_the_limits_ends_with_code_five(folder: Path) -> None:
    strict = folder / "strict.yaml"
    strict.write_text("extends: ieee123-hour\ncrosscheck: {v_pu: 1.0e-12}\n")
    done = voltier(
        "crosscheck", "ours", "--engines", "power-grid-model", "--every", "5",
        "--scenario", "strict.yaml", "--out", "strict", cwd=folder,
    )  # fmt: skip
    assert done.code == 5, done.stderr
    assert "beyond" in done.stdout
    assert json.loads((folder / "strict" / "crosscheck.json").read_text())["power-grid-model"]["minutes"] == 2


def test_tables_of_another_tool_are_checked_on_a_named_scenario(folder: Path) -> None:
    done = voltier(
        "crosscheck", "theirs", "--engines", "opendss", "--scenario", "ieee123-hour", "--quiet", cwd=folder
    )
    assert (done.code, done.stdout) == (0, ""), done.stderr
    page = (folder / "theirs" / "crosscheck" / "crosscheck.html").read_text()
    assert "recorded no taps" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], ["nowhere", "no run directory"]),
        (["ours", "--engines", "abacus"], ["abacus", "power-grid-model"]),
        (["ours", "--engines", ","], ["--engines", "opendss"]),
        (["ours", "--every", "0"], ["--every", "1 or more"]),
        (["theirs"], ["theirs", "--scenario"]),
        (["broken", "--engines", "opendss"], ["grid", "needs the tables grid and substation"]),
        (["early", "--engines", "opendss"], ["grid", "the table has no rows", "run it longer"]),
    ],
)
def test_wrong_input_is_code_two_and_says_what_to_do(
    folder: Path, arguments: list[str], said: list[str]
) -> None:
    if "broken" in arguments and not (folder / "broken").exists():
        shutil.copytree(folder / "ours", folder / "broken")
        (folder / "broken" / "tables" / "grid.parquet").unlink()
    if "early" in arguments and not (folder / "early").exists():
        shutil.copytree(folder / "ours", folder / "early")
        path = folder / "early" / "tables" / "grid.parquet"
        pq.write_table(pq.read_table(path).slice(0, 0), path)
    done = voltier("crosscheck", *arguments, cwd=folder)
    assert done.code == 2
    for text in said:
        assert text in done.stderr


def test_a_damaged_file_of_a_run_is_named(folder: Path) -> None:
    shutil.copytree(folder / "ours", folder / "damaged")
    for name, command in (("kpis.json", "compare"), ("manifest.json", "report")):
        (folder / "damaged" / name).write_text("{")
        done = voltier(command, "damaged", cwd=folder)
        assert done.code == 2
        assert name in done.stderr and "cannot be read as a JSON object" in done.stderr


def test_compare_sets_tables_of_another_tool_beside_a_run(folder: Path) -> None:
    done = voltier("compare", "ours", "theirs", "--out", "both.html", cwd=folder)
    assert done.code == 0, done.stderr
    page = (folder / "both.html").read_text()
    assert "theirs came without a manifest" in page
    assert "None: every customer had voltage in every minute." in page
    with (folder / "both.csv").open() as file:
        head, *rows = csv.reader(file)
    assert head == ["key", "ieee123-hour", "theirs"]
    figures = {key: (float(ours), float(theirs)) for key, ours, theirs in rows if ours and theirs}
    # the same tables: the same sums, in the same order
    for key in (
        "energy.import_kwh",
        "losses.energy_kwh",
        "voltage.range_a_outside_share",
        "welfare.cost_usd",
    ):
        assert figures[key][0] == figures[key][1]


def test_compare_says_when_feeders_differ_or_phases_are_missing(folder: Path) -> None:
    shutil.copytree(folder / "theirs", folder / "other")
    path = folder / "other" / "tables" / "grid.parquet"
    table = pq.read_table(path)
    names = ["x" + bus for bus in table["bus"].to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("bus"), "bus", [names]), path)
    shutil.copytree(folder / "theirs", folder / "flat")
    pq.write_table(table.drop_columns(["phase"]), folder / "flat" / "tables" / "grid.parquet")
    done = voltier("compare", "ours", "other", "flat", "--out", "feeders.html", cwd=folder)
    assert done.code == 0, done.stderr
    page = (folder / "feeders.html").read_text()
    assert "other is on another feeder than ieee123-hour" in page
    assert "flat has no phases in its table grid" in page


@pytest.mark.parametrize("kind", ["empty", "garbled"])
def test_compare_refuses_what_is_no_run(folder: Path, kind: str) -> None:
    path = folder / kind
    (path / "tables").mkdir(parents=True)
    if kind == "garbled":
        (path / "tables" / "grid.parquet").write_bytes(b"not parquet")
    done = voltier("compare", "ours", kind, cwd=folder)
    assert done.code == 2
    assert ("cannot be read as parquet" if kind == "garbled" else "no run directory") in done.stderr
