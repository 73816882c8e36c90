"""The transmission grid in the time domain: balance, droop, seconds, and what it says when it cannot go on."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from voltier.agents.bulk import COLUMNS, BulkOperator
from voltier.agents.messages import Measurement
from voltier.agents.operator import Mail
from voltier.grid.bulk import BulkGrid, BulkTrace, by_second, join, rocof_hz_per_s
from voltier.grid.errors import FederationError, InputError
from voltier.scenarios.build import check_data
from voltier.scenarios.schema import load_scenario

with_andes = pytest.mark.usefixtures("andes")
BEFORE_MW, STEP_MW = 700.0, 359.0


@pytest.fixture(scope="module")
def andes():
    return pytest.importorskip("andes", reason='the transmission grid needs the extra "voltier[bulk]"')


@pytest.fixture(scope="module")
def struck(andes):
    """A grid, its trace over a steady second and two minutes after the published step."""
    grid = BulkGrid(BEFORE_MW)
    return grid, join([grid.now(), grid.step(1.0, BEFORE_MW), grid.step(121.0, BEFORE_MW + STEP_MW)])


def test_power_balances_at_every_instant(struck):
    _, trace = struck
    residual_mw = trace.electrical_mw.sum(axis=1) - trace.load_mw.sum(axis=1) - trace.loss_mw
    # Newton's method stops at 1e-4 p.u. of 100 MVA.
    np.testing.assert_allclose(residual_mw, 0.0, atol=0.01)


def test_an_area_uses_exports_and_loses_what_it_generates(struck):
    grid, trace = struck
    lost_mw = -trace.load_mw - trace.export_mw
    for area in (1, 2):
        lost_mw[:, area - 1] += trace.electrical_mw[:, grid.machines.area == area].sum(axis=1)
    # Each area's own lines lose some, and with the tie lines they lose all.
    assert (lost_mw > 0.0).all()
    tie_mw = trace.export_mw.sum(axis=1)
    np.testing.assert_allclose(lost_mw.sum(axis=1) + tie_mw, trace.loss_mw, atol=0.01)
    # Area 1 feeds area 2, as in the book.
    assert (trace.export_mw[:, 0] > 0.0).all()


def test_nothing_moves_before_the_step(struck):
    _, trace = struck
    calm = trace.t_s <= 1.0
    np.testing.assert_allclose(trace.machine_hz[calm], 60.0, atol=1e-7)
    np.testing.assert_allclose(trace.feeder_mw[calm], BEFORE_MW, atol=1e-9)


def test_governors_settle_on_their_droop(struck):
    grid, trace = struck
    assert grid.machines.stiffness_mw_per_hz == pytest.approx(4 * 900 / 0.05 / 60)
    added_mw = trace.mechanical_mw[-1] - trace.mechanical_mw[0]
    deviation_hz = trace.frequency_hz[-1] - 60.0
    # In two minutes the slowest mode, the governors' 7 s, has died out to exp(-17).
    np.testing.assert_allclose(-added_mw.sum() / grid.machines.stiffness_mw_per_hz, deviation_hz, rtol=1e-4)
    needed_mw = (trace.load_mw.sum(axis=1) + trace.loss_mw)[[0, -1]]
    assert added_mw.sum() == pytest.approx(needed_mw[1] - needed_mw[0], abs=0.02)
    # Published anchor: 359 MW / 1200 MW/Hz = 0.299 Hz. Lower voltage takes some 70 MW off the other loads, and lines
    # lose some 40 MW more, which leaves a tenth less.
    np.testing.assert_allclose(deviation_hz, -0.299, atol=0.035)


def test_kinetic_energy_is_what_turbines_give_and_the_grid_does_not_take(struck):
    grid, trace = struck
    surplus_mw = trace.mechanical_mw - trace.electrical_mw
    # Work since the first instant against 2 H S Δω: twice the kinetic energy at nominal speed, per unit of speed.
    work_mws = np.concatenate(
        [
            np.zeros((1, 4)),
            np.cumsum(np.diff(trace.t_s)[:, None] * (surplus_mw[1:] + surplus_mw[:-1]) / 2, axis=0),
        ]
    )
    speed_pu = trace.machine_hz / 60.0 - 1.0
    # The trapezoidal rule is that of the simulation; the tolerance is Newton's 0.01 MW over two minutes.
    np.testing.assert_allclose(work_mws, 2.0 * grid.machines.inertia_mws * speed_pu, atol=1.2)


def test_small_steps_are_as_good_as_finer_ones(andes, monkeypatch):
    """The long steps after small changes stay within a few mHz of steps of a hundredth of a second."""

    def played():
        grid = BulkGrid(BEFORE_MW)
        return join([grid.now(), grid.step(8.0, BEFORE_MW + 40.0)])

    ours = played()
    monkeypatch.setattr("voltier.grid.bulk._LEGS_SMALL", ((np.inf, 0.01),))
    finer = played()
    assert len(finer.t_s) > 10 * len(ours.t_s)
    for area in (0, 1):
        interpolated = np.interp(ours.t_s, finer.t_s, finer.frequency_hz[:, area])
        np.testing.assert_allclose(ours.frequency_hz[:, area], interpolated, atol=5e-3)


@with_andes
def test_it_says_when_the_grid_collapses():
    grid = BulkGrid(BEFORE_MW)
    # Twice the published step is more than the lines to area 2's load can carry.
    with pytest.raises(FederationError, match=r"bulk grid collapses at .* s"):
        grid.step(60.0, BEFORE_MW + 800.0)


@with_andes
def test_more_feeders_than_load_are_refused():
    with pytest.raises(InputError, match=r"area 2 has a load of 1575 MW.*fewer bulk\.copies"):
        BulkGrid(1600.0)


@with_andes
def test_nothing_is_printed_and_no_file_is_left(tmp_path, monkeypatch, capfd):
    home, scratch, here = (tmp_path / name for name in ("home", "tmp", "here"))
    for folder in (home, scratch, here):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(here)
    grid = BulkGrid(BEFORE_MW)
    grid.step(2.0, BEFORE_MW)
    with pytest.raises(FederationError):
        grid.step(60.0, BEFORE_MW + 800.0)
    assert capfd.readouterr() == ("", "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not (home / ".andes").exists()


def test_without_andes_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "andes", None)
    with pytest.raises(InputError, match=r"voltier\[bulk\]"):
        BulkGrid(BEFORE_MW)
    with pytest.raises(InputError, match=r"voltier\[bulk\]"):
        check_data(load_scenario("ieee123-hour", ["bulk.copies=2"]))


def ramp_trace(t_s, hz):
    n = len(t_s)
    hz = np.asarray(hz)
    both = np.column_stack([hz, 2.0 * hz - 60.0])
    zeros, pair = np.zeros(n), np.zeros((n, 2))
    return BulkTrace(
        t_s=np.asarray(t_s), machine_hz=both, mechanical_mw=pair, electrical_mw=pair + np.array([3.0, 5.0]),
        frequency_hz=both, load_mw=pair, export_mw=pair, feeder_mw=zeros + 7.0, loss_mw=zeros, v_min_pu=zeros + 1.0,
    )  # fmt: skip


def test_rate_of_change_is_over_half_a_second():
    t_s = np.linspace(0.0, 2.0, 21)
    trace = ramp_trace(t_s, 60.0 - 0.3 * np.maximum(t_s - 1.0, 0.0))
    rocof = rocof_hz_per_s(trace)
    # Whole windows within the fall have its slope, one half within it has half of that.
    np.testing.assert_allclose(rocof[15:, 0], -0.3, atol=1e-12)
    assert rocof[np.searchsorted(t_s, 1.25 - 1e-9), 1] == pytest.approx(-0.6 * 0.3 / 0.5, abs=1e-12)


def test_seconds_hold_the_instants_up_to_their_end():
    trace = ramp_trace([0.5, 1.0, 1.5, 2.0 + 1e-9, 3.0], [60.0, 59.9, 59.7, 59.8, 60.1])
    seconds = by_second(trace, np.array([1, 2]))
    np.testing.assert_array_equal(seconds.t_s, [0, 1, 2])
    np.testing.assert_allclose(seconds.frequency_hz[:, 0], [59.95, 59.75, 60.1])
    np.testing.assert_allclose(seconds.frequency_min_hz[:, 0], [59.9, 59.7, 60.1])
    np.testing.assert_allclose(seconds.frequency_max_hz[:, 1], [60.0, 59.6, 60.2])
    np.testing.assert_allclose(seconds.generation_mw, [[3.0, 5.0]] * 3)
    np.testing.assert_allclose(seconds.feeder_mw, [[0.0, 7.0]] * 3)


@with_andes
def test_the_operator_records_every_second_from_its_start():
    operator = BulkOperator(copies=550, start_s=60)
    rows = []
    for t_s in (0, 60, 120):
        measured = Measurement(t_s=t_s, p_cc_kw=np.full(3, -400.0 - t_s), q_cc_kvar=np.zeros(3))
        outbox = operator.decide(t_s + 5, [Mail("grid", "bulk", measured)])
        assert outbox.mail == []
        rows += outbox.rows
    assert [piece.t_s for piece in rows] == list(range(60, 180))
    assert {piece.table for piece in rows} == {"bulk"}
    assert set(rows[0].columns) == set(COLUMNS)
    # Import is load: 3 (400 + 60) kW, 550 times, and 60 kW a phase more after a ramp of a second.
    assert rows[0].columns["feeder_mw"][1] == pytest.approx(0.55 * 3 * 460.0)
    assert rows[-1].columns["feeder_mw"][1] == pytest.approx(0.55 * 3 * 520.0)


def test_no_module_of_a_run_without_it_needs_andes():
    import subprocess

    code = "import sys, voltier.scenarios.build, voltier.agents.grid; sys.exit('andes' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], cwd=Path.home()).returncode == 0
