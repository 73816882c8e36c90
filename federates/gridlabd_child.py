"""The parent's end of the GridLAB-D process: a time limit on every request, and an end in any case."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import IO

import msgspec
import numpy as np
from numpy.typing import NDArray

from voltier.federates.gridlabd_worker import Reply, Request

LOG_LINES = 6
# the parent gives up first, so that the text says what happened; the worker's own watchdog is for a dead parent
_WATCHDOG_MARGIN_S = 2.0
_END_S = 5.0


class ChildLost(Exception):
    """The process hangs or has died."""


class GridlabdSaid(Exception):
    """GridLAB-D reported a failure, such as a power flow without solution."""


class GridlabdChild:
    """One GridLAB-D in a new interpreter (started, not forked), reached through plain pipes.

    It ends when this object goes, when this process ends however that happens, and when a request takes too long.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "voltier.federates.gridlabd_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._said: deque[bytes] = deque(maxlen=LOG_LINES)
        _in_background(_pass_on, self._process.stdout, self._lines)
        _in_background(_remember, self._process.stderr, self._said)
        self._finalise = weakref.finalize(self, _end, self._process)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def ask(self, request: Request) -> NDArray[np.complex128]:
        """Send a request and wait for the values. Raises ChildLost, GridlabdSaid."""
        limit_s = request.limit_s
        request.limit_s += _WATCHDOG_MARGIN_S
        assert self._process.stdin is not None
        # a pipe that nobody reads is full at some time: to send may take for ever, too
        _in_background(_send, self._process.stdin, msgspec.json.encode(request) + b"\n")
        try:
            line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            raise ChildLost(f"its process has not answered for {limit_s:g} s{self._last_words()}") from None
        if not line:
            raise ChildLost(f"its process {self._how_it_ended()}{self._last_words()}")
        reply = msgspec.json.decode(line, type=Reply)
        if reply.error:
            raise GridlabdSaid(f"it reports: {reply.error}")
        return np.array(reply.values).view(np.complex128)

    def end(self) -> None:
        """End the process by force: it holds nothing worth keeping."""
        self._finalise()

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            return "closed its pipe"
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def _last_words(self) -> str:
        """Give the end of what it printed."""
        return "".join(f"\n  {line.decode(errors='replace')}" for line in self._said)


def _in_background(listen: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=listen, args=arguments, name="gridlabd", daemon=True).start()


def _send(stdin: IO[bytes], data: bytes) -> None:
    """Send; that the process is gone is seen at the other pipe."""
    with suppress(OSError, ValueError):
        stdin.write(data)
        stdin.flush()


def _pass_on(stdout: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    """Pass lines on; an empty one is the end."""
    for line in stdout:
        lines.put(line)
    lines.put(b"")


def _remember(stderr: IO[bytes], said: deque[bytes]) -> None:
    """Keep the last lines; GridLAB-D warns by the thousand when it finds no solution."""
    # its progress shares a line with what it says, after carriage returns
    ends = (line.rpartition(b"\r")[2].strip() for line in stderr)
    said.extend(end for end in ends if end and not end.startswith((b"WARNING", b"Processing")))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
