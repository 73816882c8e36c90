"""A program from outside takes a part: what is wrong with it is said in one line, and nothing hangs."""

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import toy_market as toy

from voltier.federates import exit_codes
from voltier.federates.cli import _guarded
from voltier.federates.external import ExternalOperator
from voltier.federates.foreign import write_invitation
from voltier.federates.gate import Gate
from voltier.federates.launch import Launch, run_federation
from voltier.federates.local import run_local
from voltier.federates.ports import Door
from voltier.federates.wiring import Wiring
from voltier.grid.errors import FederationError

pytestmark = [pytest.mark.federation, pytest.mark.usefixtures("nothing_left_behind")]

FOREIGN = Path(__file__).with_name("foreign_smo.py")
# Starting seven processes takes seconds on a busy machine; a hang would take the limits of Door and Launch many times.
END_WITHIN_S = 40.0


def invited(run_dir: Path, name: str) -> Path:
    """Wait for an invitation."""
    path, until = run_dir / "external" / f"{name}.json", time.monotonic() + 20.0
    while not path.is_file():
        assert time.monotonic() < until, "no invitation"
        time.sleep(0.05)
    return path


def play(run_dir: Path, *faults: str, end_s: int = 600, join_s: float = 15.0) -> list[tuple[int, str]]:
    """Run the toy market with programs of these faults in the place of smo.0; return their exit codes and words."""
    config = toy.write_config(toy.ToySettings(end_s=end_s), run_dir)
    door = Door("zmq", "sesame", join_s=join_s, answer_s=3.0)
    launch = Launch(config, run_dir, builder="toy_market:case", timeout_s=20.0, doors={"smo.0": door})
    ended: list[tuple[int, str]] = []

    def start() -> None:
        path = invited(run_dir, "smo.0")
        started = [
            subprocess.Popen(
                [sys.executable, "-P", str(FOREIGN), str(path), fault], stderr=subprocess.PIPE, text=True
            )
            for fault in faults
        ]
        for process in started:
            try:
                _, said = process.communicate(timeout=10.0)
            except subprocess.TimeoutExpired:
                process.kill()  # it sleeps, as its fault wants it
                _, said = process.communicate()
            ended.append((process.returncode, said))

    foreign = threading.Thread(target=start)
    foreign.start()
    began = time.monotonic()
    try:
        run_federation(launch, toy.ToyCase(toy.ToySettings(end_s=end_s)), lambda beats: None)
    finally:
        took_s = time.monotonic() - began
        foreign.join()
        assert took_s < END_WITHIN_S
    return ended


def events(run_dir: Path, kind: str) -> list[str]:
    rows = toy.read_rows(run_dir)
    return [
        text
        for (name, _), row in rows.items()
        if name.startswith("events")
        for text, its in zip(row["text"], row["kind"], strict=True)
        if its == kind
    ]


def test_a_sound_program_takes_part_to_the_end(tmp_path: Path) -> None:
    (code, said), *_ = play(tmp_path / "run", "none")
    assert code == 0, said
    assert events(tmp_path / "run", "external-lost") == []
    assert toy.read_rows(tmp_path / "run")["substation", 544]


def meet(fault: str) -> None:
    """Play the toy market in this process with a program of this fault at a gate."""
    case = toy.ToyCase(toy.ToySettings(end_s=600))
    wiring, clock, part = Wiring(case.operator_names()), case.market_clock(), case.external_part("smo.0")
    door = Door("zmq", "sesame", join_s=15.0, answer_s=2.0)
    gate = Gate("smo.0", wiring, clock, door)
    with tempfile.TemporaryDirectory() as folder:
        path = write_invitation(Path(folder), gate.part, clock, part, door, gate.address)
        program = subprocess.Popen(
            [sys.executable, "-P", str(FOREIGN), str(path), fault], stderr=subprocess.DEVNULL
        )
        try:
            gate.welcome()
            others = [case.build_operator(name) for name in case.operator_names() if name != "smo.0"]
            operator = ExternalOperator("smo.0", gate, wiring, clock, part)
            run_local([operator, *others], clock, lambda rows: None, lambda now_s: None)
        finally:
            gate.close("over")
            program.kill()
            program.wait()


@pytest.mark.parametrize(
    ("fault", "words"), [("wrong unit", "published in MW"), ("out of range", "SmoBids.p0_kw is -7")]
)
def test_a_fault_ends_a_run_with_its_exit_code_and_one_line(
    fault: str, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _guarded(lambda: play(tmp_path / "run", fault)) == exit_codes.FEDERATE
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("voltier: ")]
    assert line.startswith("voltier: the external smo.0 ")
    assert words in line


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing topic", "is wired wrongly: nobody is at the other end of cmo.0/from/smo.0"),
        ("strange topic", "it subscribes to wholesale/Conditions/price, which nobody publishes"),
        ("wrong unit", "smo.0/Injections/p_kw is published in MW, expected kW"),
        ("wrong type", "smo.0/Injections/p_kw is published as string, expected double_vector"),
        (
            "wrong period",
            "sent no SmaSchedule to cmo.0 at simulated second 2 (HELICS time 62 s) and let that time pass",
        ),
        (
            "wrong offset",
            "sent no SmoBids to pmo at simulated second 0 (HELICS time 60 s) and let that time pass",
        ),
        ("silent", "did not answer within 2 s at simulated second 0; it had said nothing yet"),
        (
            "out of range",
            "sent to pmo at simulated second 0: SmoBids.p0_kw is -7 in row 3, expected no less than",
        ),
        ("not finite", "sent SmoBids with a number that is not finite, which JSON cannot carry"),
        ("text", "sent SmoBids that cannot be read"),
        ("strange rows", "SmoBids.smo is [0, 1, 2, 3, ...] (7 rows), expected [0, 1, 2, 3, ...] (6 rows)"),
        ("oversized", "sent 5000000 bytes to pmo at once; the longest message allowed has 4000000"),
    ],
)
def test_a_fault_is_refused_in_one_line(fault: str, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert _guarded(lambda: meet(fault)) == exit_codes.FEDERATE
    assert time.monotonic() - began < END_WITHIN_S
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("voltier: ")]
    assert line.startswith("voltier: the external smo.0 ")
    assert words in line


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("wrong key", "turned away for another key, or for leaving again: 1"),
        ("never ready", "nobody entered"),
    ],
)
def test_nobody_who_may_join_in_time_is_said_so(fault: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(
        FederationError, match=r"^the external smo\.0 did not join within 3 s at tcp://"
    ) as caught:
        play(tmp_path / "run", fault, join_s=3.0)
    assert why in str(caught.value)


def test_a_wrong_key_does_not_keep_the_right_one_out(tmp_path: Path) -> None:
    (wrong, said), (right, _) = play(tmp_path / "run", "wrong key", "late")
    assert (wrong, right) == (1, 0)
    assert "broker key does not match" in said
    assert events(tmp_path / "run", "external-lost") == []


def test_who_comes_late_is_turned_away_and_the_run_goes_on(tmp_path: Path) -> None:
    (code, _), (late, said) = play(tmp_path / "run", "none", "late", end_s=12_000)
    assert late == 1
    assert "already in initialization mode" in said
    # HELICS 3.6.1 takes a whole federation down with the one who comes late: here that of the door, not the run's.
    (text,) = events(tmp_path / "run", "external-lost")
    assert "left, or was taken down, before" in text or "ended the federation" in text
    assert code != 0


@pytest.mark.parametrize(
    ("fault", "why"), [("killed", "did not answer within 3 s"), ("leaves", "left, or was taken down, before")]
)
def test_the_market_goes_on_without_a_program_that_is_gone_and_says_so(
    fault: str, why: str, tmp_path: Path
) -> None:
    play(tmp_path / "run", fault)
    (text,) = events(tmp_path / "run", "external-lost")
    assert why in text
    assert "what it said last stays in force" in text
    assert ("substation", 544) in toy.read_rows(tmp_path / "run")
