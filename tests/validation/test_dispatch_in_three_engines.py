"""The market's AC-exact dispatch has the same voltages in our engine, OpenDSS and GridLAB-D."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from voltier.grid.errors import InputError
from voltier.grid.feeder import Feeder, read_feeder
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.flow.threephase import solve_power_flow
from voltier.grid.readers.gridlabd import read_gridlabd
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.grid.threephase_build import three_phase_network
from voltier.grid.topology import reached
from voltier.grid.writers.glm_network import PhaseInjections, gridlabd_bus_names
from voltier.grid.writers.gridlabd import write_gridlabd
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.market.primary.three_phase.problem import ThreePhaseClearing

FEEDERS = ("ieee13", "ieee34", "ieee123")
AGREEMENT_PU = 1e-3  # a sixth of a regulator step
NUMBER = r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?"

RUN_GRIDLABD = """
import json, sys
from gridlabd import DirectGridLabD
model = DirectGridLabD()
model.setup_before_load()
model.load_glm([sys.argv[1]])
model.setup_after_load()
model.start()
model.run()
found = {name: [model.get_property(name, "voltage_" + p)[1] for p in "ABC"] for name in json.loads(sys.argv[2])}
open(sys.argv[3], "w").write(json.dumps(found))
"""


def places(net: ThreePhaseNetwork, v: np.ndarray) -> np.ndarray:
    """Phasors of every bus and phase, (n_bus, 3), nan where nothing feeds it."""
    phasor = v * np.exp(1j * net.rotation_rad)
    return np.where(net.bus_node >= 0, net.bus_ratio * phasor[net.bus_node], np.nan)


def load_places(feeder: Feeder) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bus, phase and published load [kW] of every place with a spot load; a delta load halves between its two."""
    kw = np.zeros((len(feeder.bus), 3))
    spot = feeder.spot_loads
    for bus, letters, p_kw in zip(spot.bus, spot.phase, spot.p_kw, strict=True):
        for letter in letters:
            kw[bus, "abc".index(letter)] += p_kw / len(letters)
    bus, phase = np.nonzero(kw)
    return bus, phase, kw[bus, phase]


def cleared(feeder: Feeder, *, loads: bool) -> tuple[ThreePhaseNetwork, ThreePhaseClearing, PhaseInjections]:
    """A clearing with a flexible device at every load place and generators at every third.

    loads : the devices stand beside the published loads and deliver; else they take the loads' place.
    """
    net = three_phase_network(
        feeder, feeder.regulators.published_tap, loads=loads, v_min_pu=0.9, v_max_pu=1.1
    )
    bus, phase, load_kw = load_places(feeder)
    n = len(bus)
    node = net.bus_node[bus, phase]
    share = sparse.csc_matrix((np.ones(n), (node, np.arange(n))), (len(net.node_bus), n))
    p0 = (0.2 if loads else -0.8) * load_kw
    width = 0.5 * np.abs(p0)
    bids = PrimaryBids(
        p0_kw=p0, p_min_kw=p0 - width, p_max_kw=p0 + width, beta_p_usd_per_kw2h=0.3 / np.abs(p0),
        q0_kvar=0.4 * p0, q_min_kvar=0.4 * p0 - width, q_max_kvar=0.4 * p0 + width,
        beta_q_usd_per_kvar2h=0.1 / np.abs(p0),
        gen_max_kw=np.where(np.arange(n) % 3 == 0, 1.5 * load_kw, 0.0), alpha_usd_per_kw2h=np.full(n, 5e-4),
    )  # fmt: skip
    c = ThreePhaseMarket(net, share).clear(bids, PrimaryPrices(0.10, 0.0, 0.10))
    assert c.status == "optimal", c.note
    assert c.gen_kw.max() > 1.0
    return net, c, PhaseInjections(bus, phase, c.p_kw + c.gen_kw, c.q_kvar)


def by_opendss(feeder: Feeder, injection: PhaseInjections, *, loads: bool) -> np.ndarray:
    p_kw, q_kvar = np.zeros((2, len(feeder.bus), 3))
    np.add.at(p_kw, (injection.bus, injection.phase), injection.p_kw)
    np.add.at(q_kvar, (injection.bus, injection.phase), injection.q_kvar)
    engine = OpenDssFlow(feeder, spot_loads=loads)
    return engine.solve(p_kw, q_kvar, feeder.regulators.published_tap).v_pu


def by_gridlabd(feeder: Feeder, path: Path) -> np.ndarray:
    pytest.importorskip("gridlabd")
    fed = reached(feeder, through_delta=False)
    names = gridlabd_bus_names(feeder)
    held = [name for name, there in zip(names, fed.any(axis=1), strict=True) if there]
    result = path.with_suffix(".json")
    # a process of its own with a limit: GridLAB-D holds global state, and can hang after a failure
    subprocess.run(
        [sys.executable, "-c", RUN_GRIDLABD, str(path), json.dumps(held), str(result)],
        cwd=path.parent,
        timeout=60,
        capture_output=True,
        check=True,
    )
    v_pu = np.full(fed.shape, np.nan + 1j * np.nan)
    for name, texts in json.loads(result.read_text()).items():
        bus = names.index(name)
        volts = np.array([phasor(text) for text in texts]) / (feeder.kv_ll[bus] * 1000.0 / np.sqrt(3.0))
        v_pu[bus] = np.where(fed[bus], volts, np.nan)
    return v_pu


def phasor(text: str) -> complex:
    """GridLAB-D prints +2400-120d (degrees) or +1+2j, also with exponents."""
    size, angle, kind = re.fullmatch(rf"({NUMBER})({NUMBER})([dij])", text.split()[0]).groups()
    if kind == "d":
        return complex(float(size) * np.exp(1j * np.deg2rad(float(angle))))
    return complex(float(size), float(angle))


def largest_difference(one: np.ndarray, other: np.ndarray, fed: np.ndarray) -> float:
    """Largest phasor difference over all fed places; nan if an engine lacks one."""
    return float(np.abs(one - other)[fed].max())


@pytest.mark.parametrize("loads", [False, True], ids=["devices", "devices and spot loads"])
@pytest.mark.parametrize("solver", ["NR", "FBS"])
@pytest.mark.parametrize("name", FEEDERS)
def test_dispatch_has_one_power_flow(name: str, solver: str, loads: bool, tmp_path: Path) -> None:
    feeder = read_feeder(name)
    net, c, injection = cleared(feeder, loads=loads)
    fed = net.bus_node >= 0
    ours = places(net, c.v)
    opendss = by_opendss(feeder, injection, loads=loads)
    path = write_gridlabd(
        feeder,
        feeder.regulators.published_tap,
        injection,
        tmp_path / "case.glm",
        loads=loads,
        solver=solver,
    )
    gridlabd = by_gridlabd(feeder, path)
    idle = places(net, solve_power_flow(net, np.zeros(len(net.node_bus), dtype=complex)).v)
    # the dispatch itself is far larger than what is allowed to differ
    assert largest_difference(ours, idle, fed) > 5 * AGREEMENT_PU
    # measured at most 1.9e-7: OpenDSS's regulators have a small impedance
    assert largest_difference(ours, opendss, fed) < AGREEMENT_PU
    # measured at most 9.6e-6 (NR) and 4.6e-6 (FBS): six printed digits, and NR's impedance of ideal elements
    assert largest_difference(ours, gridlabd, fed) < AGREEMENT_PU


@pytest.mark.parametrize("name", FEEDERS)
def test_written_model_is_read_back_as_the_same_network(name: str, tmp_path: Path) -> None:
    feeder = read_feeder(name)
    net, c, injection = cleared(feeder, loads=True)
    path = write_gridlabd(
        feeder, feeder.regulators.published_tap, injection, tmp_path / "case.glm", loads=True
    )
    back = read_gridlabd(path, s_base_kva=3.0 * net.s_phase_kva)
    v = places(back, solve_power_flow(back, np.zeros(len(back.node_bus), dtype=complex)).v)
    row = {bus: k for k, bus in enumerate(back.bus)}
    ours, worst = places(net, c.v), 0.0
    for bus, written in enumerate(gridlabd_bus_names(feeder)):
        phases = np.flatnonzero(net.bus_node[bus] >= 0)
        if len(phases):
            worst = max(worst, np.abs(ours[bus, phases] - v[row[written], phases]).max())
    # twelve digits are written; measured 2e-11
    assert worst < 1e-8


def test_written_admittances_are_those_of_the_tables(tmp_path: Path) -> None:
    feeder = read_feeder("ieee34")
    net = three_phase_network(feeder, feeder.regulators.published_tap, loads=False)
    nothing = np.zeros(0)
    none = PhaseInjections(nothing.astype(int), nothing.astype(int), nothing, nothing)
    path = write_gridlabd(feeder, feeder.regulators.published_tap, none, tmp_path / "case.glm")
    back = read_gridlabd(path, s_base_kva=3.0 * net.s_phase_kva)
    names = gridlabd_bus_names(feeder)
    order = [
        back.bus_node[back.bus.index(names[b]), p] for b, p in zip(net.node_bus, net.node_phase, strict=True)
    ]
    assert sorted(order) == list(range(len(net.node_bus)))
    # a node's base place may be another bus of the node there: bring both to this one
    gain = np.array(
        [
            back.bus_ratio[back.bus.index(names[b]), p]
            for b, p in zip(net.node_bus, net.node_phase, strict=True)
        ]
    )
    theirs = back.y.toarray()[np.ix_(order, order)] / np.outer(gain, gain)
    ours = net.y.toarray()
    # twelve digits are written
    assert np.abs(theirs - ours).max() < 1e-10 * np.abs(ours).max()


def test_what_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    feeder = read_feeder("ieee123")
    stub = np.array([feeder.bus.index("610")])
    one = np.ones(1)
    floating = PhaseInjections(stub, np.array([0]), one, one)
    path = tmp_path / "case.glm"
    with pytest.raises(InputError) as caught:
        write_gridlabd(feeder, np.array([1]), floating, path)
    text = str(caught.value)
    assert "bus 610" in text
    assert "one tap per row" in text
    assert not path.exists()


@pytest.mark.parametrize(
    ("table", "value", "where", "remedy"),
    [
        ("p_kw", [-1.0, np.nan], "row 1", "finite"),
        ("q_kvar", [np.inf, 0.0], "row 0", "finite"),
        ("p_kw", [-1.0, 0.0, 0.0], "injections", "one length"),
        ("bus", [2, -1], "row 1", "from 0 to 13"),
        ("bus", [2, 999], "row 1", "from 0 to 13"),
        ("bus", [2.0, 3.0], "injections", "integers"),
        ("phase", [3, 0], "row 0", "from 0 to 2"),
    ],
)
def test_injections_that_are_none_are_named(
    table: str, value: list[float], where: str, remedy: str, tmp_path: Path
) -> None:
    feeder = read_feeder("ieee13")
    given = {"bus": [3, 4], "phase": [1, 2], "p_kw": [-1.0, -2.0], "q_kvar": [0.0, 0.0], table: value}
    injection = PhaseInjections(**{key: np.array(values) for key, values in given.items()})
    with pytest.raises(InputError) as caught:
        write_gridlabd(feeder, feeder.regulators.published_tap, injection, tmp_path / "case.glm")
    (found,) = caught.value.problems
    assert where in found.where
    assert remedy in found.remedy
    assert not (tmp_path / "case.glm").exists()


@pytest.mark.parametrize("tap", [2.5, np.nan, 17.0])
def test_taps_that_are_none_are_named(tap: float, tmp_path: Path) -> None:
    feeder = read_feeder("ieee13")
    taps = feeder.regulators.published_tap.astype(float)
    taps[1] = tap
    empty = np.zeros(0, dtype=int)
    nothing = PhaseInjections(empty, empty, np.zeros(0), np.zeros(0))
    with pytest.raises(InputError) as caught:
        write_gridlabd(feeder, taps, nothing, tmp_path / "case.glm")
    (found,) = caught.value.problems
    assert feeder.regulators.name[1] in found.where
    assert "whole number" in found.remedy
