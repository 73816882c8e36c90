"""A federate's sign of life: what it is doing at which simulated second, as JSON lines."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Literal

import msgspec

PERIOD_S = 0.25

State = Literal[
    "starting",
    "building",
    "awaiting",
    "joining",
    "listening",
    "waiting",
    "deciding",
    "sending",
    "done",
    "failed",
]
Kind = Literal["", "input", "operator", "clearing", "wiring", "external", "bus"]


class Beat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sign of life. t_s : simulated second of the instant that it works on or waits for [s].

    instants : decisions so far. state_s : wall time in this state [s]. kind, text : why it failed. address :
    of the broker. decide_s : wall time spent in decisions [s]; peak_mb : most memory used so far [MB].
    """

    name: str
    state: State
    t_s: int | None = None
    instants: int = 0
    state_s: float = 0.0
    kind: Kind = ""
    text: str = ""
    address: str = ""
    decide_s: float = 0.0
    peak_mb: float = 0.0


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Beat)


def peak_memory_mb() -> float:
    """Return the most memory that this process has held so far [MB]."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes, but bytes on macOS.
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


def parse_beat(line: bytes) -> Beat:
    """Read one line. Raises msgspec.DecodeError if it is something else."""
    return _decoder.decode(line)


def write_beats(descriptor: int) -> Callable[[Beat], None]:
    """Return a function that writes signs of life to an open file descriptor."""

    def write(beat: Beat) -> None:
        os.write(descriptor, _encoder.encode(beat) + b"\n")

    return write


class Pulse:
    """Keeps a federate's state and tells it at every turn of its life and, from a thread, all the time."""

    def __init__(self, name: str, tell: Callable[[Beat], None]) -> None:
        self._name, self._tell = name, tell
        self._state: State = "starting"
        self._t_s: int | None = None
        self._instants = 0
        self._decide_s = 0.0
        self._since = time.monotonic()
        self._ended = threading.Event()
        # Told under a lock, so that nothing follows the last word.
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to beat."""
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def turn(self, state: State, *, address: str = "") -> None:
        """Enter a state outside the time loop, and say so at once."""
        self._state, self._since = state, time.monotonic()
        with self._lock:
            self._tell(msgspec.structs.replace(self.now(), address=address))

    def wait(self, t_s: int) -> None:
        """Wait for the instant at t_s."""
        self._t_s, self._state, self._since = t_s, "waiting", time.monotonic()

    def decide(self) -> None:
        """Begin to work on the instant waited for."""
        self._state, self._since = "deciding", time.monotonic()
        self._instants += 1

    def send(self) -> None:
        """Send what was decided."""
        now = time.monotonic()
        self._decide_s += now - self._since
        self._state, self._since = "sending", now

    def end(self, kind: Kind = "", text: str = "") -> None:
        """Say the last word: done, or why not."""
        with self._lock:
            self._ended.set()
            state: State = "failed" if kind else "done"
            self._tell(msgspec.structs.replace(self.now(), state=state, kind=kind, text=text))

    def now(self) -> Beat:
        """Return the present state."""
        return Beat(
            name=self._name,
            state=self._state,
            t_s=self._t_s,
            instants=self._instants,
            state_s=round(time.monotonic() - self._since, 1),
            decide_s=round(self._decide_s, 3),
            peak_mb=peak_memory_mb(),
        )

    def _beat(self) -> None:
        while not self._ended.wait(PERIOD_S):
            with self._lock:
                if not self._ended.is_set():
                    self._tell(self.now())
