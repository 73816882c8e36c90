"""Paced runs and devices outside as a user types them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from voltier.federates.options import RealtimeCommand

COMMAND = [sys.executable, "-P", "-m", "voltier.federates.cli"]
SHORT = ["--set", "primary.period_s=60", "--set", "recording.settlement_period_s=60", "--hours", "0.05"]


def voltier(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120)


def test_a_paced_run_tells_its_lag(tmp_path: Path) -> None:
    paced = ["--realtime", "90", "--transport", "none", "--out", "run"]
    done = voltier(
        "run", "ieee123-hour", *SHORT, *paced, "--set", "primary.relaxation_bound=false", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    kpis = json.loads((tmp_path / "run" / "kpis.json").read_text(encoding="utf-8"))
    assert kpis["realtime.lag_p99_ms"] >= kpis["realtime.lag_median_ms"] >= 0.0
    # Three minutes at 90 simulated seconds a second, from second 0 to the grid's last instant.
    assert kpis["performance.wall_s"] >= 124 / 90
    assert 'id="hardware"' in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("given", "factor"),
    [
        (["x", "--realtime"], 1.0),
        (["--realtime", "x"], 1.0),
        (["--realtime", "--quiet", "x"], 1.0),
        (["x", "--realtime", "60", "--quiet"], 60.0),
        (["x", "--realtime=0.5"], 0.5),
        (["x"], None),
    ],
)
def test_realtime_may_stand_without_a_number(given: list[str], factor: float | None) -> None:
    import typer

    from voltier.federates.options import QuietOption, RealtimeOption

    app, seen = typer.Typer(), []

    @app.command(cls=RealtimeCommand)
    def run(scenario: str, realtime: RealtimeOption = None, quiet: QuietOption = False) -> None:
        seen.append((scenario, realtime))

    app(given, standalone_mode=False)
    assert seen == [("x", factor)]


def test_the_laboratory_scenario_is_valid_and_says_when_its_broker_is_missing(tmp_path: Path) -> None:
    assert voltier("validate", "ieee123-hil", cwd=tmp_path).returncode == 0
    # Port 9 discards; nobody runs a broker there.
    broker = ["--set", "hardware.broker=127.0.0.1:9", "--transport", "none", "--out", "run"]
    done = voltier("run", "ieee123-hil", "--realtime", "60", *broker, cwd=tmp_path)
    assert done.returncode == 3
    assert "no MQTT broker answers at 127.0.0.1:9 (hardware.broker)" in done.stderr
    resolved = yaml.safe_load((tmp_path / "run" / "config.resolved.yaml").read_text(encoding="utf-8"))
    assert resolved["federation"]["realtime"] == 60


def test_a_house_without_the_device_is_refused_with_some_that_have_it(tmp_path: Path) -> None:
    wrong = "hardware.devices=[{house: house_0000, kind: battery}, {house: house_9999}]"
    done = voltier("validate", "ieee123-hil", "--set", wrong, cwd=tmp_path)
    assert done.returncode == 2
    assert "hardware.devices.1.house" in done.stderr
