"""Which federates of a run are alive."""

import contextlib
from pathlib import Path

import psutil


def federates_of(run_dir: Path) -> list[psutil.Process]:
    """Return the living federates of a run; the broker's command does not name the run, its log does."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE or "voltier.federates.cli" not in process.cmdline():
                continue
            if any(
                str(run_dir) in text for text in [*process.cmdline(), *(f.path for f in process.open_files())]
            ):
                found.append(process)
    return found
