"""`voltier study duck-curve` as a user types it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-P", "-m", "voltier.federates.cli", "study"]
SMALL = ("--start", "mid", "--no-sensitivity", "--max-rounds", "100")


def study(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=600)


def test_help_teaches_the_study(tmp_path: Path) -> None:
    assert "duck-curve" in study("--help", cwd=tmp_path).stdout
    done = study("duck-curve", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for text in ("--day", "--start", "--max-rounds", "--no-sensitivity", "--seed", "Example: voltier"):
        assert text in done.stdout


def test_one_state_of_charge_leaves_figures_a_table_and_a_page(tmp_path: Path) -> None:
    done = study("duck-curve", *SMALL, "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "out"
    kpis = json.loads((tmp_path / "out" / "kpis.json").read_text())
    assert list(kpis) == ["a", "b", "c", "c_1000", "b_least_energy"]
    assert kpis["a"]["ramping.reduction_percent"] == 0.0
    assert kpis["c"]["distributed.iterations"] == 200
    assert kpis["c"]["storage.final_soc_min"] > 0.0
    # After so few rounds the atoms need not agree; what they sent through OpenDSS ramps less all the same.
    assert kpis["c"]["ramping.head_total_kw"] < kpis["a"]["ramping.head_total_kw"]
    with (tmp_path / "out" / "duck_curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 * len(kpis)
    ramps = sum(abs(float(row["ramp_kw"])) for row in rows if row["case"] == "c")
    # Three decimals of 24 hours.
    assert ramps == pytest.approx(kpis["c"]["ramping.total_kw"], abs=0.02)
    page = (tmp_path / "out" / "index.html").read_text()
    for text in ("How we read the source", "3923.7", "16.97", "Node numbers"):
        assert text in page
    again = study("duck-curve", *SMALL, "--out", "out", cwd=tmp_path)
    assert again.returncode != 0
    assert "not empty" in again.stderr


def test_a_wrong_day_is_said_so(tmp_path: Path) -> None:
    done = study("duck-curve", "--day", "31 March", cwd=tmp_path)
    assert done.returncode != 0
    assert "--day" in done.stderr
    assert "03-31" in done.stderr


@pytest.mark.slow
def test_the_whole_study(tmp_path: Path) -> None:
    done = study("duck-curve", "--quiet", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kpis = json.loads((tmp_path / "out" / "kpis.json").read_text())
    assert kpis["c"]["distributed.converged"]
    assert abs(kpis["c"]["distributed.cost_gap_percent"]) < 0.1
    for name in ("c", "c_min", "c_full"):
        assert kpis[name]["storage.final_soc_min"] > 0.0
        assert kpis[name]["ramping.reduction_percent"] > 20.0
    assert sum(name.startswith("reading_day_") for name in kpis) == 3
