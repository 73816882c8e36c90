"""The power-flow engines: they agree where they model the same, keep no memory, and refuse the rest."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from voltier.grid.errors import InputError, NotConvergedError
from voltier.grid.feeder import read_feeder
from voltier.grid.flow.engines import ENGINES, engine
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.flow.pandapower import BalancedTree
from voltier.grid.network import balanced_network

EQUAL_TAPS = np.array([7, 7, 7, -1, -1, -1, 5, 5, 5])


@pytest.fixture(scope="module")
def feeder():
    return read_feeder("ieee123")


@pytest.fixture(scope="module")
def engines(feeder):
    return {name: engine(name, feeder) for name in ENGINES}


def loading(feeder, share=1.0):
    """Published spot loads as constant power, delta loads half to each phase."""
    p_kw, q_kvar = np.zeros((2, len(feeder.bus), 3))
    loads = feeder.spot_loads
    for bus, phases, p, q in zip(loads.bus, loads.phase, loads.p_kw, loads.q_kvar, strict=True):
        rows = ["abc".index(letter) for letter in phases]
        p_kw[bus, rows] -= share * p / len(rows)
        q_kvar[bus, rows] -= share * q / len(rows)
    return p_kw, q_kvar


def transposed(feeder):
    """The same feeder with lines that a sequence model takes as they are."""
    lines = feeder.lines
    count = lines.has_phase.sum(axis=1)
    pairs = lines.has_phase[:, :, None] & lines.has_phase[:, None, :]

    def mean(matrix):
        own = np.einsum("kii->k", matrix) / count
        mutual = (matrix.sum(axis=(1, 2)) - own * count) / np.maximum(count * (count - 1), 1)
        return np.where(
            pairs, np.where(np.eye(3, dtype=bool), own[:, None, None], mutual[:, None, None]), 0.0
        )

    return replace(feeder, lines=replace(lines, r_ohm=mean(lines.r_ohm), x_ohm=mean(lines.x_ohm)))


@pytest.mark.parametrize("name", list(ENGINES))
def test_power_is_conserved_and_export_is_positive(engines, feeder, name):
    for share, sign in ((0.8, -1.0), (-0.3, 1.0)):
        p_kw, q_kvar = loading(feeder, share)
        flow = engines[name].solve(p_kw, q_kvar, EQUAL_TAPS)
        # pandapower's three-phase Newton stops at 1e-11 MVA, but reads its source power with 1e-6 kW noise
        assert flow.p_cc_kw.sum() == pytest.approx(p_kw.sum() - flow.loss_kw, abs=1e-4)
        assert np.sign(flow.p_cc_kw.sum()) == sign
        assert flow.loss_kw > 0
        assert flow.converged


@pytest.mark.parametrize("name", list(ENGINES))
def test_voltages_stand_where_there_is_a_fed_phase(engines, feeder, name):
    flow = engines[name].solve(*loading(feeder), EQUAL_TAPS)
    dead = np.isin(feeder.bus, ["251", "350", "451"])
    assert (np.isfinite(flow.v_pu) == (feeder.has_phase & ~dead[:, None])).all()
    first, last = feeder.bus.index("150r"), feeder.bus.index("149")
    # a closed switch has no drop at all
    assert np.array_equal(flow.v_pu[first], flow.v_pu[last])
    # the regulator's ratio, less the 1e-6 ohm that OpenDSS's transformers keep
    ratio = flow.v_pu[first] / flow.v_pu[feeder.source_bus]
    assert np.abs(ratio - 1.04375).max() < 1e-6


def test_three_phase_engines_agree_exactly_on_transposed_lines(engines, feeder):
    """pandapower knows sequence impedances only; give OpenDSS the same and nothing is left but rounding.

    1e-6 pu: OpenDSS's three regulators in series keep 1e-6 ohm each (2e-7 pu at full load).
    """
    twin = transposed(feeder)
    p_kw, q_kvar = loading(feeder)
    exact = OpenDssFlow(twin).solve(p_kw, q_kvar, EQUAL_TAPS)
    flow = engines["pandapower-three-phase"].solve(p_kw, q_kvar, EQUAL_TAPS)
    assert np.nanmax(np.abs(flow.v_pu - exact.v_pu)) < 1e-6
    assert flow.loss_kw == pytest.approx(exact.loss_kw, abs=1e-3)
    assert np.abs(flow.i_regulator_a - exact.i_regulator_a).max() < 1e-3


def test_three_phase_engines_differ_by_transposition_on_the_real_lines(engines, feeder):
    """The stated price of sequence impedances: 0.006 pu at most, at bus 66 phase a, measured; rounded up."""
    p_kw, q_kvar = loading(feeder)
    real = engines["opendss"].solve(p_kw, q_kvar, EQUAL_TAPS)
    flow = engines["pandapower-three-phase"].solve(p_kw, q_kvar, EQUAL_TAPS)
    assert 1e-3 < np.nanmax(np.abs(np.abs(flow.v_pu) - np.abs(real.v_pu))) < 6.5e-3
    assert flow.loss_kw == pytest.approx(real.loss_kw, rel=0.01)
    assert np.abs(flow.p_cc_kw - real.p_cc_kw).max() < 10.0


def test_balanced_engine_obeys_the_branch_equations(feeder):
    """An independent check of the network's arrays: power balance and drop at each branch, to 1e-9 pu."""
    tap = feeder.regulators.published_tap
    network = balanced_network(feeder, tap)
    rng = np.random.default_rng(5)
    n = len(network.parent)
    p_kw, q_kvar = rng.uniform(-60, 20, n), rng.uniform(-30, 10, n)
    tree = BalancedTree(network).solve(network, p_kw, q_kvar)
    v, send = tree.v_pu, tree.send_kva / network.s_base_kva
    drop_start = network.ratio[1:] * v[network.parent[1:]]
    current = np.conj(send[1:] / drop_start)
    z = (network.r_pu + 1j * network.x_pu)[1:]
    assert np.abs(drop_start - z * current - v[1:]).max() < 1e-9
    leaving = np.bincount(network.parent[1:], send[1:].real, n) + 1j * np.bincount(
        network.parent[1:], send[1:].imag, n
    )
    arriving = np.concatenate([[tree.import_kva / network.s_base_kva], v[1:] * np.conj(current)])
    inject = (p_kw + 1j * q_kvar) / network.s_base_kva + 1j * network.b_pu * np.abs(v) ** 2
    assert np.abs(arriving + inject - leaving).max() < 1e-9


def test_balanced_engine_sees_what_three_balanced_phases_see(engines, feeder):
    """Loads on three-phase buses, alike in all phases: the untransposed lines are all that differs.

    0.012 pu: mutual impedances of 0.38 to 0.50 ohm/mile spread the phases around their mean; the mean of
    the three phases is met to 5e-4 pu (second order in the spread).
    """
    buses = [feeder.bus.index(bus) for bus in ("35", "47", "48", "65", "76", "300")]
    p_kw, q_kvar = np.zeros((2, len(feeder.bus), 3))
    p_kw[buses], q_kvar[buses] = -120.0, -50.0
    real = engines["opendss"].solve(p_kw, q_kvar, EQUAL_TAPS)
    flow = engines["pandapower-balanced"].solve(p_kw, q_kvar, EQUAL_TAPS)
    gap = np.abs(flow.v_pu[buses]) - np.abs(real.v_pu[buses])
    assert np.abs(gap).max() < 0.012
    assert np.abs(gap.mean(axis=1)).max() < 5e-4
    assert flow.loss_kw == pytest.approx(real.loss_kw, rel=0.01)
    assert np.abs(flow.i_regulator_a[:3]).mean() == pytest.approx(
        np.abs(real.i_regulator_a[:3]).mean(), rel=0.01
    )


@pytest.mark.filterwarnings("ignore")  # pandapower divides by zero on its way to divergence
@pytest.mark.parametrize("name", list(ENGINES))
def test_an_engine_has_no_memory(feeder, engines, name):
    """Same input, same bits, whatever was solved before: other loads, other taps, a failure."""
    used, p_q = engines[name], loading(feeder)
    first = used.solve(*p_q, EQUAL_TAPS)
    used.solve(*loading(feeder, -0.5), np.zeros(9, dtype=np.int64))
    with pytest.raises(NotConvergedError):
        used.solve(*loading(feeder, 300.0), EQUAL_TAPS)
    used.solve(*loading(feeder, 0.3), EQUAL_TAPS)
    again, fresh = used.solve(*p_q, EQUAL_TAPS), engine(name, feeder).solve(*p_q, EQUAL_TAPS)
    for other in (again, fresh):
        assert np.array_equal(first.v_pu, other.v_pu, equal_nan=True)
        assert np.array_equal(first.p_cc_kw, other.p_cc_kw)
        assert first.loss_kw == other.loss_kw


def test_two_opendss_engines_do_not_disturb_each_other(feeder):
    one, other = OpenDssFlow(feeder), OpenDssFlow(feeder, spot_loads=True)
    zero = np.zeros((len(feeder.bus), 3))
    assert one.solve(zero, zero, EQUAL_TAPS).p_cc_kw.sum() > -20.0
    assert other.solve(zero, zero, EQUAL_TAPS).p_cc_kw.sum() < -3000.0
    assert one.solve(zero, zero, EQUAL_TAPS).p_cc_kw.sum() > -20.0


@pytest.mark.parametrize("name", list(ENGINES))
@pytest.mark.parametrize(("bus", "phase"), [("2", 0), ("451", 1)])
def test_injection_where_nothing_is_connected_is_refused(feeder, engines, name, bus, phase):
    p_kw, q_kvar = np.zeros((2, len(feeder.bus), 3))
    p_kw[feeder.bus.index(bus), phase] = 5.0
    with pytest.raises(InputError, match=f"bus {bus} phase {'abc'[phase]}"):
        engines[name].solve(p_kw, q_kvar, EQUAL_TAPS)


def test_pandapower_averages_impedances_behind_taps_that_differ_between_phases(feeder, engines):
    """On transposed lines nothing else is left: 0.0006 pu at the published taps, measured; rounded up."""
    twin = transposed(feeder)
    p_kw, q_kvar = loading(feeder, 0.8)
    exact = OpenDssFlow(twin).solve(p_kw, q_kvar, feeder.regulators.published_tap)
    flow = engines["pandapower-three-phase"].solve(p_kw, q_kvar, feeder.regulators.published_tap)
    assert 1e-4 < np.nanmax(np.abs(np.abs(flow.v_pu) - np.abs(exact.v_pu))) < 7e-4
    # ratios themselves are exact, for the idle side of a regulator has the voltage of its loaded side
    first, last = feeder.bus.index("25"), feeder.bus.index("25r")
    assert np.abs(flow.v_pu[last, 2] / flow.v_pu[first, 2] - (1.0 - 0.00625)) < 1e-9


@pytest.mark.parametrize("name", ["ieee13", "ieee34", "ieee123"])
def test_power_grid_model_takes_every_line_and_tap_as_it_is(name):
    """Laterals, uneven taps, single-phase capacitors, a delta winding; 1e-6 pu: OpenDSS's regulators keep 1e-6 ohm."""
    feeder = read_feeder(name)
    p_kw, q_kvar = loading(feeder, 0.8)
    tap = feeder.regulators.published_tap
    ours, theirs = (engine(tool, feeder).solve(p_kw, q_kvar, tap) for tool in ("power-grid-model", "opendss"))
    assert np.array_equal(np.isfinite(ours.v_pu), np.isfinite(theirs.v_pu))
    assert np.nanmax(np.abs(ours.v_pu - theirs.v_pu)) < 1e-6
    assert ours.loss_kw == pytest.approx(theirs.loss_kw, abs=1e-3)
    assert np.abs(ours.p_cc_kw - theirs.p_cc_kw).max() < 1e-2
    assert np.abs(ours.q_cc_kvar - theirs.q_cc_kvar).max() < 1e-2
    assert np.abs(ours.i_regulator_a - theirs.i_regulator_a).max() < 1e-3


def test_power_grid_model_has_no_ground_behind_a_delta_winding(feeder):
    behind = feeder.bus.index("610")
    capacitors = feeder.capacitors
    twin = replace(feeder, capacitors=replace(capacitors, bus=np.array([behind, *capacitors.bus[1:]])))
    with pytest.raises(InputError, match=r"610.*use the engine opendss"):
        engine("power-grid-model", twin)


def test_a_tool_that_is_not_installed_is_named_with_its_remedy(feeder, monkeypatch):
    monkeypatch.setitem(sys.modules, "power_grid_model", None)
    monkeypatch.delitem(sys.modules, "voltier.grid.flow.power_grid_model", raising=False)
    with pytest.raises(InputError, match="power_grid_model is not installed: pip install"):
        engine("power-grid-model", feeder)


def test_an_unknown_engine_is_refused_with_the_names_there_are(feeder):
    with pytest.raises(InputError, match="opendss, pandapower-balanced"):
        engine("spreadsheet", feeder)
