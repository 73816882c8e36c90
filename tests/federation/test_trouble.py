"""What goes wrong with one federate ends the run quickly, by name, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import toy_market as toy
from living import federates_of

from voltier.federates.launch import Launch, run_federation
from voltier.grid.errors import ClearingAborted, FederationError

pytestmark = [pytest.mark.federation, pytest.mark.usefixtures("nothing_left_behind")]

LONG = toy.ToySettings(end_s=360_000, pause_s=0.005)
# What a user is promised.
END_WITHIN_S = 10.0


def launch_toy(settings: toy.ToySettings, run_dir: Path, **options: object) -> None:
    config = toy.write_config(settings, run_dir)
    launch = Launch(config, run_dir, builder="toy_market:case", **{"timeout_s": 20.0, **options})
    run_federation(launch, toy.ToyCase(settings), lambda beats: None)


def process_of(run_dir: Path, name: str) -> psutil.Process:
    """Wait until a federate has been at work for a while, and return it."""
    rows, until = run_dir / "rows.jsonl", time.monotonic() + 20.0
    while not (rows.is_file() and rows.stat().st_size > 20_000):
        assert time.monotonic() < until, "the toy market does not get going"
        time.sleep(0.05)
    return next(p for p in federates_of(run_dir) if p.cmdline()[p.cmdline().index("federate") + 1] == name)


@pytest.mark.parametrize(
    "victim", ["wholesale", "resilience", "smo.0", "pmo", "cmo.0", "grid", "recorder", "broker"]
)
def test_a_killed_federate_ends_the_run_and_is_named(victim: str, tmp_path: Path) -> None:
    run_dir, struck = tmp_path / "run", []

    def strike() -> None:
        process_of(run_dir, victim).kill()
        struck.append(time.monotonic())

    threading.Thread(target=strike).start()
    with pytest.raises(
        FederationError, match=rf"federate {victim} was killed by SIGKILL(?s:.)*last lines of"
    ):
        launch_toy(LONG, run_dir)
    assert time.monotonic() - struck[0] < END_WITHIN_S
    if victim != "recorder":
        # The recorder was told to end and had the time to write what it held.
        assert '"closed"' in (run_dir / "rows.jsonl").read_text(encoding="utf-8").splitlines()[-1]


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        (
            "raise",
            FederationError,
            "federate cmo.0 failed: ZeroDivisionError: toy trouble(?s:.)*toy_market.py",
        ),
        ("abort", ClearingAborted, "federate cmo.0 failed: ClearingAborted: toy clearing failed"),
        ("exit", FederationError, "federate cmo.0 ended with exit code 7"),
    ],
)
def test_a_failing_operator_is_named_not_those_who_lost_the_bus(
    kind: str, error: type[Exception], text: str, tmp_path: Path
) -> None:
    settings = toy.ToySettings(trouble="cmo.0", trouble_kind=kind)
    with pytest.raises(error, match=text):
        launch_toy(settings, tmp_path / "run")


def test_a_silent_federation_is_given_up_and_says_who_waits_for_whom(tmp_path: Path) -> None:
    settings = toy.ToySettings(trouble="grid", trouble_kind="hang")
    with pytest.raises(FederationError) as caught:
        launch_toy(settings, tmp_path / "run", timeout_s=8.0)  # starting takes seconds on a busy machine
    text = str(caught.value)
    assert "no federate has moved for 8 s" in text
    assert "grid has been deciding" in text
    assert "resilience has been waiting" in text
    assert "for simulated second 360: grid is behind" in text


def test_a_foreign_federate_in_another_unit_is_refused_before_time_zero(tmp_path: Path) -> None:
    foreign = [
        sys.executable,
        "-P",
        str(Path(__file__).with_name("foreign_wholesale.py")),
        "{broker}",
        "{key}",
    ]
    with pytest.raises(
        FederationError, match=r"wired wrongly: .*wholesale/Conditions/price_usd_per_kwh is published in"
    ):
        launch_toy(toy.ToySettings(), tmp_path / "run", commands={"wholesale": foreign})
    assert not any('"commit"' in line for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines())


def test_a_route_without_another_end_is_refused_before_time_zero(tmp_path: Path) -> None:
    foreign = [
        sys.executable,
        "-P",
        str(Path(__file__).with_name("foreign_wholesale.py")),
        "{broker}",
        "{key}",
        "mute",
    ]
    with pytest.raises(
        FederationError, match=r"wired wrongly: .*(nobody publishes|nobody is at the other end)"
    ):
        launch_toy(toy.ToySettings(), tmp_path / "run", commands={"wholesale": foreign})


def test_two_runs_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def one(run_dir: Path) -> None:
        try:
            launch_toy(toy.ToySettings(end_s=1800), run_dir)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(tmp_path / name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert toy.read_rows(tmp_path / "a") == toy.read_rows(tmp_path / "b")


LAUNCHER = """
import sys
from pathlib import Path
import toy_market as toy
from voltier.federates.cli import _guarded, _signals_interrupt
from test_trouble import LONG, launch_toy
with _signals_interrupt():
    sys.exit(_guarded(lambda: launch_toy(LONG, Path(sys.argv[1]))))
"""


def start_launcher(run_dir: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-P", "-c", LAUNCHER, str(run_dir)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_launcher_ends_everything_and_exits_with_130(
    number: signal.Signals, tmp_path: Path
) -> None:
    launcher = start_launcher(tmp_path / "run")
    process_of(tmp_path / "run", "grid")
    launcher.send_signal(number)
    _, said = launcher.communicate(timeout=END_WITHIN_S)
    assert launcher.returncode == 130
    assert said.decode().strip() == "voltier: interrupted"
    assert federates_of(tmp_path) == []
    assert '"closed"' in (tmp_path / "run" / "rows.jsonl").read_text(encoding="utf-8").splitlines()[-1]


def test_federates_end_by_themselves_when_the_launcher_is_killed(tmp_path: Path) -> None:
    launcher = start_launcher(tmp_path / "run")
    process_of(tmp_path / "run", "grid")
    launcher.kill()
    launcher.communicate()
    until = time.monotonic() + END_WITHIN_S
    while federates_of(tmp_path) and time.monotonic() < until:
        time.sleep(0.1)
    assert federates_of(tmp_path) == []
