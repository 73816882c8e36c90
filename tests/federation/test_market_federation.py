"""The real market as a federation: the tables of one process, and readable ones when it is broken off."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from living import federates_of

from voltier.federates.session import run_scenario
from voltier.scenarios.results import read_table, table_names
from voltier.scenarios.schema import load_scenario

pytestmark = [pytest.mark.federation, pytest.mark.usefixtures("nothing_left_behind")]

HOURS = "hours=0.25"


def tables(run_dir: Path) -> dict[str, pa.Table]:
    found = {name: read_table(run_dir, name) for name in table_names(run_dir)}
    # Wall time is no result.
    return {
        name: table.drop_columns(["solve_s"]) if "solve_s" in table.column_names else table
        for name, table in found.items()
    }


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pa.Table]:
    path = tmp_path_factory.mktemp("reference") / "run"
    return tables(run_scenario(load_scenario("ieee123-hour", [HOURS]), path, transport="none"))


@pytest.mark.parametrize("shards", [1, 2])
def test_processes_and_shards_give_the_tables_of_one_process(
    shards: int, tmp_path: Path, reference: dict[str, pa.Table]
) -> None:
    scenario = load_scenario("ieee123-hour", [HOURS, f"federation.shards={shards}"])
    found = tables(run_scenario(scenario, tmp_path / "run", transport="zmq"))
    assert found.keys() == reference.keys()
    for name, table in found.items():
        expected = reference[name]
        assert table.schema == expected.schema
        for column in table.column_names:
            ours, theirs = (t[column].to_numpy(zero_copy_only=False) for t in (table, expected))
            # To the last bit: the kernels are the same, and JSON and HELICS carry doubles whole.
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{name}.{column}")


def test_tables_are_readable_when_the_recorder_itself_is_killed(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    command = [
        sys.executable,
        "-P",
        "-m",
        "voltier.federates.cli",
        "run",
        "ieee123-day",
        "--out",
        str(run_dir),
    ]
    run = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 60.0
    while not list(run_dir.glob("tables/.parts/grid/00000[2-9].parquet")):
        assert time.monotonic() < until, "nothing is committed"
        assert run.poll() is None
        time.sleep(0.1)
    next(p for p in federates_of(run_dir) if "recorder" in p.cmdline()).kill()
    _, said = run.communicate(timeout=30.0)
    assert run.returncode == 3
    assert "federate recorder was killed by SIGKILL" in said
    grid = read_table(run_dir, "grid")
    t_s = np.unique(grid["t_s"].to_numpy())
    np.testing.assert_array_equal(t_s, np.arange(0, t_s[-1] + 60, 60))
    assert json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))["status"] == "failed"
