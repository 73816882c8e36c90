"""Runs that end badly: what was committed stays, the manifest says how it ended, and the report can be made later."""

import errno
import json

import pytest

from voltier.federates import session
from voltier.grid.errors import InputError, VoltierError
from voltier.scenarios import results
from voltier.scenarios.build import table_layouts
from voltier.scenarios.manifest import RunDirectory
from voltier.scenarios.schema import load_scenario

SHORT = load_scenario("ieee123-day", ["hours=0.25", "recording.commit_period_s=60"])


@pytest.fixture(params=[20, 40], ids=["while it runs", "when tables are joined"])
def filling_disk(monkeypatch, request):
    """A disk that is full after some parts, until it is emptied by calling the fixture's value."""
    writer, left = results.pq.ParquetWriter, [request.param]

    class Filling(writer):
        def write_table(self, *args, **options):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write_table(*args, **options)

    monkeypatch.setattr(results.pq, "ParquetWriter", Filling)
    return lambda: monkeypatch.setattr(results.pq, "ParquetWriter", writer)


def test_a_full_disk_ends_the_run_with_its_reason_and_loses_no_commit(tmp_path, filling_disk):
    with pytest.raises(VoltierError, match="No space left") as caught:
        session.run_scenario(SHORT, tmp_path / "run", transport="none")
    assert "voltier report" in caught.value.__notes__[0]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert "No space left" in manifest["message"]
    committed = results.read_table(tmp_path / "run", "substation")["t_s"].to_pylist()
    assert committed
    filling_disk()
    session.conclude(tmp_path / "run")
    assert results.read_table(tmp_path / "run", "substation")["t_s"].to_pylist() == committed
    assert not list((tmp_path / "run" / "tables").rglob("*.tmp"))


def test_a_run_whose_launcher_vanished_is_not_called_done(tmp_path):
    run = session.run_scenario(SHORT, tmp_path / "run", transport="none")
    manifest = json.loads((run / "manifest.json").read_text())
    longer = (run / "config.resolved.yaml").read_text().replace("hours: 0.25", "hours: 1.0")
    for text, status in ((None, "done"), (longer, "interrupted")):
        (run / "manifest.json").write_text(json.dumps(manifest | {"status": "running"}))
        if text:
            (run / "config.resolved.yaml").write_text(text)
        session.conclude(run)
        assert json.loads((run / "manifest.json").read_text())["status"] == status


@pytest.mark.parametrize("out", ["a" * 300, "file/below", "file"])
def test_a_directory_that_cannot_be_made_is_bad_input(tmp_path, out):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another"):
        session.run_scenario(SHORT, tmp_path / out, transport="none")


def test_a_run_that_is_going_on_is_not_touched(tmp_path):
    run = RunDirectory.create(tmp_path / "run", SHORT)
    writer = results.TableWriter(run.path, table_layouts(SHORT))
    with pytest.raises(InputError, match="still going on"):
        session.conclude(run.path)
    writer.close()
