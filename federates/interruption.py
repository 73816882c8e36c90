"""What Ctrl-C, or being told to end, leaves behind: the run directory and a word about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Interrupted(Exception):
    """Ctrl-C, or being told to end, with what remains; typer would end silently on KeyboardInterrupt itself."""


@contextmanager
def interruptible(run_dir: Path) -> Iterator[None]:
    """Turn an interrupt into Interrupted, which says what run_dir holds."""
    try:
        yield
    except KeyboardInterrupt as stop:
        left = f"; {run_dir} holds what was committed, `voltier report {run_dir}` shows it"
        raise Interrupted("interrupted" + (left if run_dir.exists() else "")) from stop
