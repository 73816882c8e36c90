"""GridLAB-D as the grid's engine, in its real process: what it solves, and what happens when it does not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from voltier.agents.grid import GridOperator
from voltier.agents.messages import Injections
from voltier.agents.operator import Mail
from voltier.federates.gridlabd_engine import GridlabdFlow
from voltier.federates.gridlabd_worker import parse_complex
from voltier.federates.session import run_scenario
from voltier.grid.errors import FederationError, InputError, NotConvergedError
from voltier.grid.feeder import Feeder, read_feeder
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.flow.port import Flow
from voltier.scenarios.results import read_table
from voltier.scenarios.schema import load_scenario

pytest.importorskip("gridlabd")
pytestmark = pytest.mark.federation

AGREEMENT_PU = 5e-6
"""Measured 5e-7: OpenDSS's regulators keep a small impedance, GridLAB-D's switches 1e-6 ohm."""


def loading(feeder: Feeder, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Published spot loads as constant power, delta loads half to each phase."""
    p_kw, q_kvar = np.zeros((2, len(feeder.bus), 3))
    loads = feeder.spot_loads
    for bus, phases, p, q in zip(loads.bus, loads.phase, loads.p_kw, loads.q_kvar, strict=True):
        rows = ["abc".index(letter) for letter in phases]
        p_kw[bus, rows] -= share * p / len(rows)
        q_kvar[bus, rows] -= share * q / len(rows)
    return p_kw, q_kvar


@pytest.fixture
def small():
    flow = GridlabdFlow(read_feeder("ieee13"), timeout_s=20.0)
    yield flow
    flow.close()


@pytest.mark.parametrize("name", ["ieee13", "ieee34", "ieee123"])
def test_gridlabd_has_the_solution_of_opendss(name: str) -> None:
    feeder = read_feeder(name)
    gridlabd, opendss = GridlabdFlow(feeder), OpenDssFlow(feeder)
    taps = feeder.regulators.published_tap
    for share, tap in ((0.8, taps), (-0.3, -taps // 2), (0.1, taps * 0)):
        p_kw, q_kvar = loading(feeder, share)
        theirs, ours = gridlabd.solve(p_kw, q_kvar, tap), opendss.solve(p_kw, q_kvar, tap)
        # not a number stands at the same places
        np.testing.assert_allclose(theirs.v_pu, ours.v_pu, atol=AGREEMENT_PU, rtol=0)
        # on 24.9 kV a voltage error of 1e-7 p.u. is some watts of charging and flow
        np.testing.assert_allclose(theirs.p_cc_kw, ours.p_cc_kw, atol=0.02)
        np.testing.assert_allclose(theirs.q_cc_kvar, ours.q_cc_kvar, atol=0.02)
        assert theirs.loss_kw == pytest.approx(ours.loss_kw, abs=0.05)
        np.testing.assert_allclose(theirs.i_regulator_a, ours.i_regulator_a, atol=0.01)
        assert theirs.note == ""
    gridlabd.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_process_that_dies_or_hangs_is_replaced_once(small: GridlabdFlow, number: int) -> None:
    small._timeout_s = 5.0
    feeder = small._feeder
    tap = feeder.regulators.published_tap
    before = small.solve(*loading(feeder), tap)
    os.kill(small._child.pid, number)
    after = small.solve(*loading(feeder, 0.9), tap)
    assert "started anew" in after.note
    # both solutions end at 1e-8 of nominal voltage
    fresh = OpenDssFlow(feeder).solve(*loading(feeder, 0.9), tap)
    np.testing.assert_allclose(after.v_pu, fresh.v_pu, atol=AGREEMENT_PU, rtol=0)
    assert np.nanmax(np.abs(after.v_pu - before.v_pu)) > 1e-3
    assert small.solve(*loading(feeder), tap).note == ""


def test_no_power_flow_is_said_with_minute_and_remedy(small: GridlabdFlow) -> None:
    feeder = small._feeder
    grid = GridOperator(
        feeder, small, feeder.regulators.published_tap, controlled=False, v_min_pu=0.95, v_max_pu=1.05
    )

    def minute(k: int, share: float) -> None:
        p_kw, q_kvar = loading(feeder, share)
        bus, phase = np.nonzero(feeder.has_phase)
        body = Injections(t_s=60 * k, bus=bus, phase=phase, p_kw=p_kw[bus, phase], q_kvar=q_kvar[bus, phase])
        grid.decide(60 * k + 4, [Mail("cmo.0", "grid", body)])

    minute(6, 1.0)
    with pytest.raises(NotConvergedError) as caught:
        minute(7, 1e4)
    for text in ("minute 7", "after a new start", "injections sum to", "opendss"):
        assert text in str(caught.value)
    minute(8, 1.0)


def test_a_process_that_never_answers_is_given_up(small: GridlabdFlow) -> None:
    tap = small._feeder.regulators.published_tap
    small._timeout_s = 0.01  # shorter than a start
    started = time.monotonic()
    with pytest.raises(FederationError, match=r"not answered for 0\.01 s"):
        small.solve(*loading(small._feeder), tap)
    assert time.monotonic() - started < 10.0


def test_a_wrong_answer_is_not_taken(small: GridlabdFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    # as if the step had not been solved: injections are set, but nothing wakes the model
    monkeypatch.setattr(GridlabdFlow, "_writes", lambda self, state: [])
    with pytest.raises(NotConvergedError, match="lacks"):
        small.solve(*loading(small._feeder), small._feeder.regulators.published_tap)


def test_what_floats_takes_no_injection() -> None:
    feeder = read_feeder("ieee123")
    p_kw = np.zeros((len(feeder.bus), 3))
    p_kw[feeder.bus.index("610"), 0] = -1.0
    with pytest.raises(InputError, match="610"):
        GridlabdFlow(feeder).solve(p_kw, p_kw, feeder.regulators.published_tap)


def test_the_process_ends_with_its_parent_however_that_ends() -> None:
    code = (
        "import sys, time, numpy as np\n"
        "from voltier.grid.feeder import read_feeder\n"
        "from voltier.federates.gridlabd_engine import GridlabdFlow\n"
        "feeder = read_feeder('ieee13'); flow = GridlabdFlow(feeder)\n"
        "idle = np.zeros(feeder.has_phase.shape)\n"
        "flow.solve(idle, idle, feeder.regulators.published_tap)\n"
        "print(flow._child.pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    # the pipe it reads from ends at once
    assert psutil.wait_procs([worker], timeout=10.0)[1] == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("+2401.7-120d V", 2401.7 * np.exp(-2j * np.pi / 3)),
        ("+1.5e+06+21.5d VA", 1.5e6 * np.exp(1j * np.deg2rad(21.5))),
        ("+2-1e-05j A", 2 - 1e-5j),
        ("+203666+27331.1i", 203666 + 27331.1j),
        ("+1+0.5r", np.exp(0.5j)),
        ("+3.25 V", 3.25),
    ],
)
def test_complex_values_are_read_in_every_notation(text: str, value: complex) -> None:
    assert parse_complex(text) == pytest.approx(value, rel=1e-12)


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="TRUE"):
        parse_complex("TRUE")


def voltages(run: Path) -> np.ndarray:
    return read_table(run, "grid")["v_pu"].to_numpy()


def test_a_federation_with_gridlabd_has_the_voltages_of_opendss(
    tmp_path: Path, nothing_left_behind: None
) -> None:
    sets = ["hours=0.25"]
    ours = run_scenario(load_scenario("ieee123-hour", sets), tmp_path / "opendss", transport="none")
    other = load_scenario("ieee123-hour", [*sets, "feeder.engine=gridlabd"])
    theirs = run_scenario(other, tmp_path / "gridlabd", transport="zmq")
    # the market never sees voltages: its injections are the same, and with them what the engines differ by
    np.testing.assert_allclose(voltages(theirs), voltages(ours), atol=AGREEMENT_PU, rtol=0)
    table = read_table(theirs, "substation")
    assert np.abs(table["balance_error_kw"].to_numpy()).max() < 1e-3


def test_a_note_becomes_an_event() -> None:
    feeder = read_feeder("ieee13")
    solution = OpenDssFlow(feeder).solve(
        *np.zeros((2, *feeder.has_phase.shape)), feeder.regulators.published_tap
    )

    class Restarted:
        def solve(self, p_kw: np.ndarray, q_kvar: np.ndarray, tap: np.ndarray) -> Flow:
            return Flow(
                solution.v_pu, solution.p_cc_kw, solution.q_cc_kvar, solution.loss_kw, solution.i_regulator_a,
                converged=True, note="started anew",
            )  # fmt: skip

    grid = GridOperator(
        feeder, Restarted(), feeder.regulators.published_tap, controlled=False, v_min_pu=0.8, v_max_pu=1.2
    )
    events = [rows.columns for rows in grid.decide(4, []).rows if rows.table == "events"]
    assert events == [{"source": ["grid"], "kind": ["power-flow"], "text": ["started anew"]}]
