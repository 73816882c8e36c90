"""Real processes and a real broker: what these tests need around them."""

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE))

from living import federates_of  # noqa: E402


@pytest.fixture(autouse=True)
def toy_market_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the federates import toy_market."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))


@pytest.fixture
def nothing_left_behind(tmp_path: Path) -> Iterator[None]:
    """Check that no process of a run in tmp_path, and no new child, is alive after the test."""
    before = set(psutil.Process().children(recursive=True))  # helpers that libraries of earlier tests keep
    yield
    alive = federates_of(tmp_path)
    for process in alive:
        process.kill()
    assert alive == []
    assert set(psutil.Process().children(recursive=True)) <= before
