"""What is written for GridLAB-D runs there to our voltages, and what is read from it is the same feeder.

Public models are read from VOLTIER_FEEDER_FILES, as in test_network_readers.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from voltier.federates.exchange_formats import write_files
from voltier.federates.gridlabd_worker import parse_complex
from voltier.federates.session import run_scenario
from voltier.grid.errors import InputError
from voltier.grid.feeder import Feeder, read_feeder
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.flow.threephase import solve_power_flow
from voltier.grid.readers.gridlabd import read_gridlabd
from voltier.grid.writers.glm_network import gridlabd_bus_names
from voltier.scenarios.build import check_data
from voltier.scenarios.exchange import export_gridlabd
from voltier.scenarios.exchange_import import import_gridlabd
from voltier.scenarios.results import read_table
from voltier.scenarios.schema import Scenario, load_scenario

FEEDERS = ("ieee13", "ieee34", "ieee123")
FILES = os.environ.get("VOLTIER_FEEDER_FILES", "")
needs_files = pytest.mark.skipif(
    not Path(FILES, "gridlabd").is_dir(), reason="VOLTIER_FEEDER_FILES names no folder"
)
RECORDED_PU = 2e-5
"""GridLAB-D's recorders write six digits of a voltage at the source, group_recorders twelve; measured 3e-7."""


def scenario_of(feeder: str, *more: str) -> Scenario:
    fleet = ["fleet.pv_nodes=5", "fleet.battery_nodes=5", "fleet.dg_nodes=6"]
    return load_scenario("ieee123-hour", [f"feeder.name={feeder}", *fleet, *more])


def with_spot_loads(feeder: Feeder, tap: np.ndarray) -> np.ndarray:
    idle = np.zeros(feeder.has_phase.shape)
    return OpenDssFlow(feeder, spot_loads=True).solve(idle, idle, tap).v_pu


def by_bus(path: Path) -> dict[tuple[str, int], complex]:
    """Solve a read model with its own loads: phasors by bus and phase."""
    net = read_gridlabd(path)
    v = solve_power_flow(net, np.zeros(len(net.node_bus), dtype=complex)).v * np.exp(1j * net.rotation_rad)
    fed = zip(*np.nonzero(net.bus_node >= 0), strict=True)
    return {(net.bus[b], p): net.bus_ratio[b, p] * v[net.bus_node[b, p]] for b, p in fed}


def recorded(folder: Path, feeder: Feeder) -> np.ndarray:
    """Voltages that GridLAB-D's recorders wrote, (n_time, n_bus, 3) [p.u.], nan where the model has no node."""
    names = gridlabd_bus_names(feeder)
    base_v = dict(zip(names, feeder.kv_ll * 1000.0 / np.sqrt(3.0), strict=True))
    found = None
    for phase, letter in enumerate("ABC"):
        lines = (folder / f"results/voltage_{letter}.csv").read_text().splitlines()
        head, *rows = list(
            csv.reader(line for line in lines if not line.startswith("# ") or "timestamp" in line)
        )
        if found is None:
            found = np.full((len(rows), len(names), 3), np.nan + 1j * np.nan)
        for column, name in enumerate(head[1:], start=1):
            if name in base_v:
                volts = [parse_complex(row[column]) / base_v[name] for row in rows]
                found[:, names.index(name), phase] = volts
    assert found is not None
    # a recorder of a group writes the end of the clock too, and zero for a phase that a node does not have
    return np.where(found == 0, np.nan, found)[:-1]


def run_in_gridlabd(folder: Path) -> None:
    """Run a case as its README says."""
    pytest.importorskip("gridlabd")
    subprocess.run([sys.executable, "run.py"], cwd=folder, timeout=120, capture_output=True, check=True)


@pytest.mark.parametrize("name", FEEDERS)
def test_exported_spot_loads_have_one_power_flow(name: str, tmp_path: Path) -> None:
    feeder = read_feeder(name)
    write_files(tmp_path, export_gridlabd(scenario_of(name, "feeder.regulators=published", "hours=0.25")))
    wanted = with_spot_loads(feeder, feeder.regulators.published_tap)
    ours = by_bus(tmp_path / "snapshot.glm")
    names = gridlabd_bus_names(feeder)
    apart = [
        abs(ours[bus, p] - wanted[b, p]) for b, bus in enumerate(names) for p in range(3) if (bus, p) in ours
    ]
    assert len(apart) > 3 * len(feeder.load_buses) / 2
    # OpenDSS's regulators keep a small impedance; measured 2e-7
    assert max(apart) < 2e-6
    run_in_gridlabd(tmp_path)
    theirs = recorded(tmp_path, feeder)
    assert len(theirs) == 15
    there = np.isfinite(theirs[0])
    assert there.sum() == len(apart) - 3  # the source is a meter, recorded by itself
    assert np.abs(theirs - wanted)[:, there].max() < RECORDED_PU


def test_a_run_is_played_in_gridlabd(tmp_path: Path) -> None:
    # the morning's rise moves a regulator
    scenario = load_scenario("ieee123-day", ["start=2020-07-15T06:00:00", "hours=0.5"])
    run = run_scenario(scenario, tmp_path / "run", transport="none")
    case = tmp_path / "case"
    write_files(case, export_gridlabd(scenario, run))
    assert list((case / "players").glob("regulator_*.tap_*.csv"))
    assert not (case / "loads.glm").exists()
    run_in_gridlabd(case)
    feeder = read_feeder("ieee123")
    theirs = np.abs(recorded(case, feeder))
    bus, phase = np.nonzero(feeder.has_phase)
    ours = read_table(run, "grid")["v_pu"].to_numpy().reshape(30, len(bus))
    apart = np.abs(theirs[:, bus, phase] - ours)
    assert np.isfinite(apart[0]).sum() > 250
    assert np.nanmax(apart) < RECORDED_PU
    # a tap a minute late would show: a step is 6e-3
    assert np.nanmax(np.abs(np.diff(ours, axis=0))) > 3e-3


def test_a_run_of_another_scenario_is_refused(tmp_path: Path) -> None:
    run = run_scenario(load_scenario("ieee123-hour", ["hours=0.25"]), tmp_path / "run", transport="none")
    with pytest.raises(InputError, match=re.escape("config.resolved.yaml")):
        export_gridlabd(scenario_of("ieee13"), run)
    # a run that is shorter than the scenario is played for as long as it was
    files = export_gridlabd(load_scenario("ieee123-hour"), run)
    assert json.loads(files["federate.json"])["duration_s"] == 900
    assert "18:15:00" in files["network.glm"]
    table = run / "tables" / "grid.parquet"
    pq.write_table(pq.read_table(table).slice(0, 0), table)
    with pytest.raises(InputError, match="no rows"):
        export_gridlabd(load_scenario("ieee123-hour"), run)


def test_helics_topics_stand_on_objects_of_the_model(tmp_path: Path) -> None:
    files = export_gridlabd(scenario_of("ieee13"))
    config = json.loads(files["helics.json"])
    assert {"name", "core_type", "period", "publications", "subscriptions"} <= set(config)
    objects = set(re.findall(r"^    name (\S+);", files["network.glm"], flags=re.M))
    topics = config["publications"] + config["subscriptions"]
    for topic in topics:
        info = json.loads(topic["info"])
        assert info["object"] in objects
        assert topic["key"].split("/")[1] in info["object"]
    keys = [topic["key"] for topic in topics]
    assert len(set(keys)) == len(keys)
    assert len(config["subscriptions"]) == files["network.glm"].count("constant_power_")


def same(one: Feeder, other: Feeder, names: Mapping[str, str]) -> None:
    """Check that two feeders are the same, but for names and for what the first does not feed."""
    row = {bus: k for k, bus in enumerate(other.bus)}
    for bus, there in zip(one.bus, one.has_phase, strict=True):
        if names[bus] in row:
            np.testing.assert_array_equal(other.has_phase[row[names[bus]]], there)
    mine = {names[one.bus[int(bus)]]: k for k, bus in enumerate(one.lines.to_bus)}
    ends = [other.bus[int(bus)] for bus in other.lines.to_bus]
    back = [mine[bus] for bus in ends]
    for key in ("r_ohm", "x_ohm", "length_ft", "i_max_a"):
        # twelve digits are written
        np.testing.assert_allclose(
            getattr(other.lines, key), getattr(one.lines, key)[back], rtol=1e-9, atol=1e-9
        )
    # charging comes out of a sum in which the far larger series admittance cancels
    np.testing.assert_allclose(other.lines.b_us, one.lines.b_us[back], atol=1e-5)


@pytest.mark.parametrize("name", FEEDERS)
def test_what_was_exported_is_imported_as_the_same_feeder(name: str, tmp_path: Path) -> None:
    feeder = read_feeder(name)
    write_files(tmp_path, export_gridlabd(scenario_of(name, "feeder.regulators=published")))
    found = import_gridlabd(tmp_path / "snapshot.glm").feeder
    names = dict(zip(feeder.bus, gridlabd_bus_names(feeder), strict=True))
    same(feeder, found, names)
    theirs, ours = found.regulators, feeder.regulators

    def relays(of: Feeder, bus: Mapping[str, str]) -> set[tuple[object, ...]]:
        keys = ("phase", "sensed_phase", "published_tap", "max_tap", "v_set_v", "bandwidth_v", "pt_ratio",
                "ct_primary_a", "r_comp_v", "x_comp_v")  # fmt: skip
        table = of.regulators
        columns = [getattr(table, key).tolist() for key in keys]
        ends = [(bus[of.bus[i]], bus[of.bus[j]]) for i, j in zip(table.from_bus, table.to_bus, strict=True)]
        return set(zip(ends, *columns, strict=True))

    assert relays(found, {bus: bus for bus in found.bus}) == relays(feeder, names)
    np.testing.assert_allclose(np.sort(theirs.tap_step_pu), np.sort(ours.tap_step_pu), rtol=1e-9)
    wanted = with_spot_loads(feeder, ours.published_tap)
    again = with_spot_loads(found, theirs.published_tap)
    held = [k for k, bus in enumerate(feeder.bus) if names[bus] in found.bus]
    rows = [found.bus.index(names[feeder.bus[k]]) for k in held]
    # twelve digits of all numbers
    np.testing.assert_allclose(again[rows], np.where(np.isnan(again[rows]), np.nan, wanted[held]), atol=1e-8)


FOREIGN = """
clock { timezone UTC0; starttime '2020-01-01 00:00:00'; stoptime '2020-01-01 00:00:01'; }
module powerflow { solver_method NR; line_capacitance true; }
object meter { name src; phases ABCN; nominal_voltage 7200; bustype SWING; voltage_A 7344; voltage_B 7344-120d;
    voltage_C 7344+120d; }
object line_configuration { name lc; z11 0.5+1.0j; z22 0.5+1.0j; z33 0.5+1.0j; z12 0.1+0.4j; z21 0.1+0.4j;
    z13 0.1+0.4j; z31 0.1+0.4j; z23 0.1+0.4j; z32 0.1+0.4j; c11 15; c22 15; c33 15; rating.summer.continuous 400; }
object regulator_configuration { name rc; connect_type WYE_WYE; Control OUTPUT_VOLTAGE; band_center 7300;
    band_width 60; time_delay 30; raise_taps 16; lower_taps 16; regulation 0.1; tap_pos_A 5; tap_pos_B 3; tap_pos_C 0; }
object node { name head; phases ABCN; nominal_voltage 7200; }
object regulator { name reg; phases ABC; from src; to head; configuration rc; }
object node { name mid; phases ABCN; nominal_voltage 7200; latitude 47.5; longitude -122.25; }
object overhead_line { name long; phases ABC; from head; to mid; length 2 mile; configuration lc; }
object overhead_line { name short; phases B; from mid; to side; length 1000 ft; configuration lc; }
object load { name side; phases BN; nominal_voltage 7200; constant_current_B 5.385-141.8d; }
object switch { name sw; phases ABC; from mid; to low_head; status CLOSED; }
object switch { name tie; phases ABC; from mid; to spare; status OPEN; }
object node { name spare; phases ABCN; nominal_voltage 7200; }
object node { name low_head; phases ABCN; nominal_voltage 7200; }
object transformer_configuration { name tc; connect_type WYE_WYE; power_rating 500; primary_voltage 12470;
    secondary_voltage 480; resistance 0.01; reactance 0.04; }
object transformer { name tr; phases ABC; from low_head; to low; configuration tc; }
object load { name low; phases ABCD; nominal_voltage 277; constant_power_A 40000+10000j;
    constant_impedance_C 6+2j; }
object load { name low_wye; parent low; phases ABCN; nominal_voltage 277; base_power_B 20000; power_pf_B 0.9;
    power_fraction_B 0.4; current_fraction_B 0.3; current_pf_B 0.9; impedance_fraction_B 0.3; impedance_pf_B 0.9; }
object capacitor { name cap; parent low; phases ABCN; phases_connected ABCN; nominal_voltage 277; control MANUAL;
    capacitor_A 10 kVAr; switchA CLOSED; }
"""


def test_a_foreign_model_becomes_a_feeder(tmp_path: Path) -> None:
    path = tmp_path / "foreign.glm"
    path.write_text(FOREIGN)
    found = import_gridlabd(path)
    write_files(tmp_path / "mine", found.files)
    feeder = read_feeder(tmp_path / "mine" / "feeder")
    wanted = by_bus(path)
    ours = with_spot_loads(feeder, feeder.regulators.published_tap)
    apart = {place: abs(ours[feeder.bus.index(place[0]), place[1]] - v) for place, v in wanted.items()}
    # OpenDSS's regulators keep a small impedance; the step of a regulator of type B is exact at its taps
    assert max(apart.values()) < 2e-6
    assert any("type B" in note for note in found.notes)
    assert any("power_transducer_ratio" in note for note in found.notes)
    relay_v = feeder.regulators.v_set_v * feeder.regulators.pt_ratio
    np.testing.assert_allclose(relay_v, 7300.0)
    np.testing.assert_allclose(feeder.xy[feeder.bus.index("mid")], [-122.25, 47.5])
    topics = json.loads(found.files["topics.json"])
    places = {(topic["object"], topic["property"], topic["phase"]) for topic in topics["subscriptions"]}
    assert ("low", "constant_power_A", "ab") in places
    assert ("low_wye", "constant_power_B", "b") in places
    check_data(load_scenario(tmp_path / "mine" / "scenario.yaml"))


def test_a_foreign_model_without_ratings_has_a_market(tmp_path: Path) -> None:
    path = tmp_path / "foreign.glm"
    path.write_text(FOREIGN.replace(" rating.summer.continuous 400;", ""))
    write_files(tmp_path / "mine", import_gridlabd(path).files)
    scenario = load_scenario(tmp_path / "mine" / "scenario.yaml", ["hours=0.25"])
    run = run_scenario(scenario, tmp_path / "run", transport="none")
    clearings = read_table(run, "clearings")
    assert clearings["status"].to_pylist() == ["optimal"] * 3
    # a bound is there, and none of its limits is one that nothing reaches
    assert np.isfinite(clearings["gap"].to_numpy()).all()


def test_everything_that_no_table_holds_is_told_at_once(tmp_path: Path) -> None:
    text = FOREIGN.replace("constant_power_A 40000+10000j", "constant_power_A -40000+10000j")
    text = text.replace("phases_connected ABCN", "phases_connected ABCD")
    text = text.replace("reactance 0.04;", "reactance 0.04; shunt_resistance 500;")
    path = tmp_path / "foreign.glm"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        import_gridlabd(path)
    said = {(problem.where.split()[-1], problem.field) for problem in caught.value.problems}
    assert len(caught.value.problems) == 3, said
    whole = str(caught.value)
    for text in ("tc", "shunt_resistance", "cap", "phases_connected", "low", "generator", "foreign.glm"):
        assert text in whole


def test_a_loop_is_told_of_the_objects(tmp_path: Path) -> None:
    path = tmp_path / "foreign.glm"
    path.write_text(FOREIGN.replace("from mid; to spare; status OPEN", "from head; to mid; status CLOSED"))
    with pytest.raises(InputError) as caught:
        import_gridlabd(path)
    assert "foreign.glm: tie" in str(caught.value)
    assert "loop" in str(caught.value)


@needs_files
@pytest.mark.parametrize(
    ("file", "included"),
    [("test_IEEE-123_FBS.glm", None), ("test_IEEE_34_NR.glm", "data_configurations_34_node.glm")],
)
def test_public_models_become_feeders(tmp_path: Path, file: str, included: str | None) -> None:
    source, folder = Path(FILES) / "gridlabd", tmp_path / "model"
    folder.mkdir()
    path = Path(shutil.copy(source / file, folder))
    if included:
        shutil.copy(source / included, tmp_path)
    found = import_gridlabd(path)
    write_files(tmp_path / "mine", found.files)
    feeder = read_feeder(tmp_path / "mine" / "feeder")
    wanted = by_bus(path)
    ours = with_spot_loads(feeder, feeder.regulators.published_tap)
    # measured 1.2e-6 behind the unloaded delta unit of the 123-bus feeder, 2e-7 elsewhere
    assert max(abs(ours[feeder.bus.index(bus), p] - v) for (bus, p), v in wanted.items()) < 1e-5
    check_data(load_scenario(tmp_path / "mine" / "scenario.yaml"))
