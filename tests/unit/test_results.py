import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voltier.agents.operator import Rows
from voltier.grid.errors import InputError, VoltierError
from voltier.scenarios import results
from voltier.scenarios.manifest import RunDirectory
from voltier.scenarios.panels import as_block
from voltier.scenarios.results import TABLES, TableWriter, layout, read_table, table_names
from voltier.scenarios.schema import load_scenario

N_SMA = 7
LAYOUTS = {
    "secondary": layout(
        "secondary",
        smo=tuple(f"smo_{i // 3}" for i in range(N_SMA)),
        sma=tuple(f"sma_{i}" for i in range(N_SMA)),
    ),
    "events": layout("events"),
}


def numbers(minute, rows):
    values = np.random.default_rng(minute).random((N_SMA, len(TABLES["secondary"].columns)))
    return {name: values[rows, k] for k, name in enumerate(TABLES["secondary"].columns)}


def whole(minute):
    return Rows("secondary", 60 * minute, numbers(minute, slice(None)))


def shards(minute, parts):
    return [Rows("secondary", 60 * minute, {"position": rows, **numbers(minute, rows)}) for rows in parts]


def event(t_s, source, text):
    return Rows("events", t_s, {"source": [source], "kind": ["note"], "text": [text]})


def test_files_do_not_depend_on_shards_or_on_the_order_of_arrival(tmp_path):
    one, many = TableWriter(tmp_path / "one", LAYOUTS), TableWriter(tmp_path / "many", LAYOUTS)
    parts = [np.array([5, 6]), np.array([0, 2, 4]), np.array([1, 3])]
    for minute in range(20):
        one.add(whole(minute))
        for rows in shards(minute, parts[minute % 3 :] + parts[: minute % 3]):
            many.add(rows)
        notes = [event(60 * minute, "smo", f"b{minute}"), event(60 * minute, "pmo", "a")]
        for note in notes:
            one.add(note)
        for note in reversed(notes):
            many.add(note)
        if minute % 6 == 5:
            one.commit(60 * minute - 60)
            many.commit(60 * minute - 60)
    one.finalise()
    many.finalise()
    for name in LAYOUTS:
        files = [tmp_path / run / "tables" / f"{name}.parquet" for run in ("one", "many")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_table_comes_back_as_it_was_given(tmp_path):
    writer = TableWriter(tmp_path, LAYOUTS)
    for minute in range(5):
        writer.add(whole(minute))
    writer.finalise()
    table = read_table(tmp_path, "secondary")
    assert table.column_names == ["t_s", "smo", "sma", *TABLES["secondary"].columns]
    assert table["t_s"].to_pylist() == [60 * minute for minute in range(5) for _ in range(N_SMA)]
    assert table["sma"].to_pylist()[:N_SMA] == list(LAYOUTS["secondary"].keys["sma"])
    expected = np.concatenate([numbers(minute, slice(None))["p_kw"] for minute in range(5)])
    assert (table["p_kw"].to_numpy() == expected).all()
    assert not (tmp_path / "tables" / ".parts").exists()


def test_row_groups_are_the_commits(tmp_path):
    writer = TableWriter(tmp_path, LAYOUTS)
    for minute in range(6):
        writer.add(whole(minute))
        if minute in (1, 3):
            writer.commit()
    writer.finalise()
    assert pq.read_metadata(tmp_path / "tables" / "secondary.parquet").num_row_groups == 3


def test_a_running_table_is_readable_up_to_the_last_commit(tmp_path):
    writer = TableWriter(tmp_path, LAYOUTS)
    with pytest.raises(InputError, match="nothing is committed"):
        read_table(tmp_path, "secondary")
    for minute in range(10):
        writer.add(whole(minute))
    writer.commit(before_s=300)
    assert set(read_table(tmp_path, "secondary")["t_s"].to_pylist()) == {0, 60, 120, 180, 240}
    assert table_names(tmp_path) == ["secondary"]


def test_rows_that_miss_their_commit_are_put_in_order_at_the_end(tmp_path):
    writer = TableWriter(tmp_path, LAYOUTS)
    for minute in (0, 2, 1, 3):
        writer.add(whole(minute))
        writer.commit()
    before = read_table(tmp_path, "secondary")
    writer.finalise()
    times = read_table(tmp_path, "secondary")["t_s"].to_pylist()
    assert times == sorted(times) == before["t_s"].to_pylist()
    assert len(times) == 4 * N_SMA


def test_kill_9_of_the_writer_loses_no_committed_part(tmp_path):
    script = textwrap.dedent("""
        import sys
        sys.path.insert(0, sys.argv[2])
        from test_results import LAYOUTS, TableWriter, whole
        from pathlib import Path
        writer = TableWriter(Path(sys.argv[1]), LAYOUTS)
        for minute in range(10_000):
            writer.add(whole(minute))
            writer.commit()
            print(minute, flush=True)
    """)
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    for _ in range(30):
        committed = int(child.stdout.readline())
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    times = read_table(tmp_path, "secondary")["t_s"].to_numpy()
    assert times.max() >= 60 * committed
    assert len(times) == N_SMA * (times.max() // 60 + 1)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (Rows("nothing", 0, {}), "no table"),
        (Rows("events", 0, {"source": ["a"], "kind": ["b"]}), r"missing \['text'\]"),
        (Rows("events", 0, {"source": ["a"], "kind": ["b"], "text": ["c", "d"]}), "differ in length"),
        (Rows("secondary", 0, {**numbers(0, slice(0, 3))}), "do not fit"),
        (Rows("secondary", 0, {"position": np.array([0, 1, 7]), **numbers(0, slice(0, 3))}), "do not fit"),
        (Rows("secondary", 0, {"position": np.array([0, 1, 1]), **numbers(0, slice(0, 3))}), "came twice"),
    ],
)
def test_rows_that_do_not_fit_the_layout_are_refused(tmp_path, rows, said):
    writer = TableWriter(tmp_path, LAYOUTS)
    with pytest.raises(VoltierError, match=said):
        writer.add(rows)
        writer.commit()


def test_a_full_disk_is_told_with_the_path(tmp_path, monkeypatch):
    writer = TableWriter(tmp_path, LAYOUTS)
    writer.add(whole(0))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results.pq, "ParquetWriter", full)
    with pytest.raises(VoltierError, match=r"secondary/000001\.parquet: No space left on device"):
        writer.commit()


def test_run_directory_explains_itself(tmp_path):
    scenario = load_scenario("ieee123-hour", ["seed=5"])
    run = RunDirectory.create(tmp_path / "run", scenario, command=["voltier", "run"], transport="zmq")
    manifest = run.manifest()
    assert manifest["status"] == "running"
    assert manifest["seed"] == 5
    assert manifest["packages"]["numpy"] == np.__version__
    assert set(manifest["inputs"]) == {"weather_csv", "price_csv", "load_profiles_csv", "ev_sessions_csv"}
    assert all(len(entry["sha256"]) == 64 for entry in manifest["inputs"].values())
    assert run.scenario() == scenario
    run.finish("failed", "federate grid ended with 1")
    assert run.manifest()["status"] == "failed"
    assert run.manifest()["ended"] is not None
    with pytest.raises(InputError, match="not empty"):
        RunDirectory.create(tmp_path / "run", scenario)


def test_a_run_broken_off_within_a_minute_is_read_without_that_minute():
    def table(counts):
        t_s = np.repeat(60 * np.arange(len(counts)), counts)
        party = [f"p{k}" for n in counts for k in range(n)]
        return pa.table({"t_s": t_s, "party": party, "energy_usd": np.arange(len(t_s), dtype=float)})

    block = as_block(table([3, 3, 2]), "run")
    np.testing.assert_array_equal(block.t_s, [0, 60])
    np.testing.assert_array_equal(block["energy_usd"], [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    with pytest.raises(InputError, match="same rows"):
        as_block(table([3, 2, 3]), "run")
