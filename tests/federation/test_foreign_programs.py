"""The programs of the tutorials, the check of them, and the exported federation: as a user types it."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import helics as h
import numpy as np
import pyarrow.parquet as pq
import pytest

from voltier.agents.messages import Conditions, SmaMeters, encode
from voltier.federates.carving import CarvedOperator
from voltier.federates.case import ScenarioCase
from voltier.federates.helics import free_port
from voltier.federates.local import run_local
from voltier.federates.schemas import message_schemas
from voltier.scenarios.build import build_secondary, table_layouts
from voltier.scenarios.results import TableWriter, read_table
from voltier.scenarios.schema import load_scenario

pytestmark = [pytest.mark.federation, pytest.mark.usefixtures("nothing_left_behind")]

DOCS = Path(__file__).parents[2] / "docs"
VOLTIER = [sys.executable, "-P", "-m", "voltier.federates.cli"]
SHORT = ["--hours", "0.1666666666666667"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def voltier(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*VOLTIER, *arguments], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=180
    )


def run_with(
    role: str, program: list[str], out: Path, *options: str
) -> tuple[subprocess.CompletedProcess, int]:
    """Run a scenario with a program in the place of a role; return the run and the program's exit code."""
    codes: list[int] = []

    def start() -> None:
        path, until = out / "external" / f"{role}.json", time.monotonic() + 60.0
        while not path.is_file() and time.monotonic() < until:
            time.sleep(0.05)
        command = [part.format(invitation=path, run=out, **_address(path)) for part in program]
        codes.append(subprocess.run(command, env=ENVIRONMENT, timeout=120, capture_output=True).returncode)

    thread = threading.Thread(target=start)
    thread.start()
    done = voltier(
        "run", "ieee123-hour", *SHORT, "--external", role, "--out", str(out), *options, cwd=out.parent
    )
    thread.join()
    return done, codes[0]


def _address(path: Path) -> dict[str, str]:
    given = json.loads(path.read_text(encoding="utf-8"))
    return {"broker": given["broker"], "key": given["key"]}


def tables(run_dir: Path) -> dict[str, object]:
    """Return all tables without how long solvers took."""
    return {
        path.stem: pq.read_table(path).drop_columns(
            [name for name in pq.read_schema(path).names if name == "solve_s"]
        )
        for path in sorted((run_dir / "tables").glob("*.parquet"))
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "run"
    done = voltier("run", "ieee123-hour", *SHORT, "--transport", "none", "--out", str(out), cwd=out.parent)
    assert done.returncode == 0, done.stderr
    return out


def same_tables(one: Path, other: Path) -> None:
    ours, theirs = tables(one), tables(other)
    assert ours.keys() == theirs.keys()
    for name, table in ours.items():
        # NaN is no reason to differ: compared by their bytes on disk's types, through pandas.
        assert table.to_pandas().equals(theirs[name].to_pandas()), name


def test_our_own_operator_as_a_program_from_outside_changes_no_bit(tmp_path: Path, reference: Path) -> None:
    own = [*VOLTIER, "federate", "smo.0", "--scenario", "{run}/config.resolved.yaml"]
    own += ["--broker", "{broker}", "--key", "{key}", "--interface", "127.0.0.1"]
    done, code = run_with("smo.0", own, tmp_path / "run")
    assert (done.returncode, code) == (0, 0), done.stderr
    assert "waiting for an external smo.0" in done.stdout
    assert "smo.0/Injections/p_kw" in done.stdout
    same_tables(tmp_path / "run", reference)


def test_the_tutorial_s_operator_bids_is_cleared_and_leaves(tmp_path: Path, reference: Path) -> None:
    program = [sys.executable, "-P", str(DOCS / "foreign_smo.py"), "{invitation}"]
    done, code = run_with("smo.0", program, tmp_path / "run", "--quiet")
    assert (done.returncode, code, done.stdout) == (0, 0, ""), done.stderr
    theirs, ours = (read_table(run, "primary").to_pandas() for run in (tmp_path / "run", reference))
    # The bids of the first period are sums of the same boxes, taken in another order.
    first = [table[table.t_s == 0] for table in (theirs, ours)]
    for column in ("p0_kw", "p_min_kw", "p_max_kw"):
        assert (first[0][column] - first[1][column]).abs().max() < 1e-9
    imports = [read_table(run, "substation").to_pandas().p_kw.sum() for run in (tmp_path / "run", reference)]
    # It spreads set-points by room, ours by disutility: the sums that the grid sees are nearly the same.
    assert imports[0] == pytest.approx(imports[1], rel=0.01)
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_tutorial_s_grid_carries_the_market(tmp_path: Path, reference: Path) -> None:
    program = [sys.executable, "-P", str(DOCS / "foreign_grid.py"), "{invitation}"]
    done, code = run_with("grid", program, tmp_path / "run", "--quiet")
    assert (done.returncode, code) == (0, 0), done.stderr
    theirs, ours = (read_table(run, "substation").to_pandas() for run in (tmp_path / "run", reference))
    assert list(theirs.t_s) == list(ours.t_s)
    # One line in the place of a feeder: losses of a few per cent are all that differs in the first minute.
    assert theirs.p_kw[:3].sum() == pytest.approx(ours.p_kw[:3].sum(), rel=0.05)


def test_a_shard_in_two_pieces_changes_no_bit(tmp_path: Path, reference: Path) -> None:
    """The same operator taken out of its shard and put beside it: every row, every bit."""
    scenario = load_scenario("ieee123-hour", ["hours=0.1666666666666667"])
    case = ScenarioCase(scenario)
    ours, cut = case.carve("smo.0", "35")
    operator = CarvedOperator(ours, build_secondary(scenario, 0, np.array([cut.row])), cut)
    sink = TableWriter(tmp_path, table_layouts(scenario))
    others = [case.build_operator(name) for name in case.operator_names() if name != "smo.0"]
    run_local([operator, *others], case.market_clock(), sink.add, lambda now_s: None)
    sink.finalise()
    same_tables(tmp_path, reference)


@pytest.mark.parametrize(
    ("program", "role"),
    [("foreign_smo.py", "smo.0"), ("foreign_smo.py", "smo:35"), ("foreign_grid.py", "grid")],
)
def test_the_check_passes_the_tutorials(program: str, role: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -P {DOCS / program} {{invitation}}"
    done = voltier("check", "ieee123-hour", "--federate", role, "--command", command, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("passed")
    assert "FAIL" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("wrong unit", "smo.0/Injections/p_kw is published in MW, expected kW"),
        ("none", "SmoBids.smo is [0, 1, 2, 3, ...] (6 rows), expected [0, 1, 2, 3, ...] (85 rows)"),
    ],
)
def test_the_check_says_what_is_wrong_and_where(fault: str, words: str, tmp_path: Path) -> None:
    faulty = Path(__file__).with_name("foreign_smo.py")
    command = f"{sys.executable} -P {faulty} {{invitation}} '{fault}'"
    done = voltier("check", "ieee123-hour", "--federate", "smo.0", "--command", command, cwd=tmp_path)
    assert done.returncode == 2
    assert words in " ".join(done.stdout.split())
    assert done.stdout.rstrip().endswith("not passed")


def test_the_check_does_not_wait_for_a_program_that_has_failed(tmp_path: Path) -> None:
    command = f"{sys.executable} -P -c 'raise SystemExit(3)'"
    began = time.monotonic()
    done = voltier("check", "ieee123-hour", "--federate", "smo.0", "--command", command, cwd=tmp_path)
    # half of the 120 s that it has to join; setting up takes some ten of them
    assert time.monotonic() - began < 60.0
    assert done.returncode == 2
    assert "it ended with exit code 3 before it had joined" in " ".join(done.stdout.split())


# ---------------------------------------------------------------------- the exported federation


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("exported") / "case"
    done = voltier("export", "helics", "ieee123-hour", str(folder), *SHORT, cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder / "runner.json")
    yield folder


def test_helics_run_gives_the_tables_of_voltier_run(exported: Path, tmp_path: Path, reference: Path) -> None:
    case = shutil.copytree(exported, tmp_path / "case")
    beside = str(Path(sys.executable).parent)
    environment = {**ENVIRONMENT, "PATH": f"{beside}{os.pathsep}{os.environ['PATH']}"}
    command = [f"{beside}/helics", "run", f"--path={case / 'runner.json'}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert voltier("report", str(case / "run"), cwd=tmp_path).returncode == 0
    same_tables(case / "run", reference)


def test_the_configurations_make_one_whole_federation(exported: Path) -> None:
    """HELICS loads each file as one federate; nothing is loose but the rows, whose recorder has no file."""
    names = [path.stem for path in sorted(exported.glob("*.json")) if path.stem != "runner"]
    port = free_port("127.0.0.1")
    options = f"--federates={len(names)} --brokerkey=k --localport={port} --loglevel=error"
    broker = h.helicsCreateBroker("zmq", "", f"{options} --localinterface=tcp://127.0.0.1")
    federates = []
    for name in names:
        content = json.loads((exported / f"{name}.json").read_text(encoding="utf-8"))
        content["core_init_string"] = (
            f"--federates=1 --broker_address={h.helicsBrokerGetAddress(broker)} --brokerkey=k "
            f"--localport={free_port('127.0.0.1')} --loglevel=no_print"
        )
        federates.append(h.helicsCreateCombinationFederateFromConfig(json.dumps(content)))
    for federate in federates:
        h.helicsFederateEnterInitializingModeAsync(federate)
    for federate in federates:
        h.helicsFederateEnterInitializingModeComplete(federate)
    query = h.helicsCreateQuery("root", "unconnected_interfaces")
    found = h.helicsQueryExecute(query, federates[0])
    loose = {
        end
        for core in found["cores"]
        for federate in core["federates"]
        for kind in ("unconnected_inputs", "unconnected_target_endpoints", "unconnected_source_endpoints")
        for end in federate.get(kind, [])
    }
    one_way = {end for end in loose if "/to/" not in end and "/from/" not in end}
    rows = {end for end in found["unknown_endpoints"] if not end.startswith("recorder/from/")}
    for federate in federates:
        h.helicsFederateDisconnect(federate)
        h.helicsFederateFree(federate)
    h.helicsBrokerDisconnect(broker)
    assert (one_way, rows, found["unknown_publications"]) == (set(), set(), [])


def test_what_is_sent_keeps_to_the_exported_schemas(exported: Path) -> None:
    assert {path.stem for path in (exported / "schemas").glob("*.json")} == set(message_schemas())
    conditions = Conditions(t_s=0, price_usd_per_kwh=0.1, temp_air_c=20.0, pv_available=0.5)
    n = np.zeros(2)
    meters = SmaMeters(t_s=0, sma=np.arange(2), p_kw=n, q_kvar=n, anomaly=n)
    for body in (conditions, meters):
        schema = json.loads((exported / "schemas" / f"{type(body).__name__}.json").read_text())
        sent = json.loads(encode(body))
        assert set(schema["required"]) <= set(sent) == set(schema["properties"])
        types = {"integer": int, "number": float, "array": list}
        for name, value in sent.items():
            place = schema["properties"][name]
            if "type" in place:
                assert isinstance(value, types[place["type"]]), name
            if "items" in place:
                assert all(isinstance(item, types[place["items"]["type"]]) for item in value), name
    assert message_schemas()["SmoBids"]["properties"]["p0_phase_kw"]["items"]["maxItems"] == 3
    assert message_schemas()["SmoBids"]["properties"]["p0_kw"]["unit"] == "kW"


def test_an_export_into_a_full_folder_is_refused(exported: Path) -> None:
    done = voltier("export", "helics", "ieee123-hour", str(exported), cwd=exported.parent)
    assert done.returncode == 2
    assert "not empty" in done.stderr
