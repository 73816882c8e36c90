"""`voltier study consumer-market` as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-P", "-m", "voltier.federates.cli", "study"]


def study(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=180)


def test_help_teaches_the_study(tmp_path: Path) -> None:
    assert "consumer-market" in study("--help", cwd=tmp_path).stdout
    done = study("consumer-market", "--help", cwd=tmp_path)
    assert done.returncode == 0
    for text in (
        "--day",
        "--step-minutes",
        "--instances",
        "--seed",
        "--out",
        "Example: voltier",
    ):
        assert text in done.stdout


def test_another_day_in_hours_leaves_key_figures_tables_and_a_page(tmp_path: Path) -> None:
    options = [
        "--day",
        "2020-12-10",
        "--step-minutes",
        "60",
        "--instances",
        "5",
        "--seed",
        "3",
        "--out",
        "study",
    ]
    done = study("consumer-market", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "study"
    assert done.stderr == ""
    kpis = json.loads((tmp_path / "study" / "kpis.json").read_text())
    assert kpis["game.max_tracking_error_kw"] < 1e-6
    assert kpis["game.max_budget_error_usd"] < 1e-6
    assert "Thursday, 10 December 2020" in (tmp_path / "study" / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "study" / "tables" / "periods.csv").is_file()
    again = study("consumer-market", *options, cwd=tmp_path)
    assert again.returncode == 2
    assert "not empty" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["consumer-market", "--step-minutes", "7"], "5, 6, 10, 12, 15, 20, 30, 60"),
        (["consumer-market", "--step-minutes", "soon"], "--step-minutes"),
        (["consumer-market", "--day", "yesterday"], "YYYY-MM-DD"),
        (["consumer-market", "--hours", "3"], "No such option"),
        (["consumer-market", "--transport", "inproc"], "No such option"),
        (["consumer-market", "--set", "primary.period_s=600"], "nothing but inputs"),
        (["designs", "--day", "2020-07-15"], "No such option"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = study(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
