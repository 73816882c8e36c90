"""Watching over the processes of one run: who died, who is silent, and how all end together."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from voltier.federates import exit_codes
from voltier.federates.pulse import Beat, parse_beat
from voltier.federates.wiring import Wiring, wire_time
from voltier.grid.errors import ClearingAborted, FederationError, VoltierError

LOG_LINES = 15
# After the first bad news, so long is waited for the news that explains it [s].
_EXPLAIN_S = 0.7
_TERMINATE_S = 5.0
_KIND_RANK = {"external": 0, "clearing": 1, "operator": 1, "input": 1, "wiring": 1, "": 2, "bus": 3}


_SAID = ("input", "wiring", "clearing")
"""Kinds of failure whose text says what to do: the end of the log would repeat it below a traceback."""


@dataclass(slots=True)
class Child:
    """A process under watch. beat : its last sign of life; changed : when that last brought news [s]."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    beat: Beat
    changed: float = field(default_factory=time.monotonic)

    @property
    def exited_well(self) -> bool:
        """Whether it has ended as it should."""
        return self.process.poll() == exit_codes.DONE

    @property
    def exited_badly(self) -> bool:
        """Whether it has ended, but not as it should."""
        return self.process.poll() not in (None, exit_codes.DONE)


class Supervisor:
    """Holds the processes of a run. Use as a context: on leaving it, no process is left."""

    def __init__(self) -> None:
        self.children: dict[str, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._rest: dict[str, bytes] = {}
        # The children read standard input from this pipe: it ends when this process does, however that
        # happens.
        self._lifeline_end, self._lifeline = os.pipe()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()

    def spawn(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        """Start a process in a session of its own, its standard error in log."""
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                list(command),
                stdin=self._lifeline_end,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(env),
                start_new_session=True,
            )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self.children[name] = Child(name, process, log, Beat(name=name, state="starting"))
        self._rest[name] = b""
        self._selector.register(process.stdout, selectors.EVENT_READ, name)

    def dismiss(self, name: str) -> None:
        """End one process and forget it."""
        child = self.children.pop(name)
        _end(child)
        assert child.process.stdout is not None
        if child.process.stdout in [key.fileobj for key in self._selector.get_map().values()]:
            self._selector.unregister(child.process.stdout)
        child.process.stdout.close()

    def listen(self, timeout_s: float) -> None:
        """Take in signs of life for at most timeout_s, returning early when some have come."""
        if not self._selector.get_map():
            time.sleep(timeout_s)
            return
        for key, _ in self._selector.select(timeout_s):
            data = os.read(key.fd, 65536)
            if data:
                self._hear(self.children[key.data], data)
            else:
                self._selector.unregister(key.fileobj)

    def drain(self) -> None:
        """Take in all that was said so far; to be called when the processes have ended."""
        while self._selector.get_map():
            self.listen(0.05)

    def check(self) -> None:
        """Raise FederationError, or ClearingAborted, if a process has died or failed; the text says how."""
        if self._suspects():
            until = time.monotonic() + _EXPLAIN_S
            while (left := until - time.monotonic()) > 0:
                self.listen(left)
            raise self._verdict(min(self._suspects(), key=_guilt))

    def check_silence(self, timeout_s: float, wiring: Wiring) -> None:
        """Raise FederationError if nobody has moved for timeout_s, saying who waits for whom."""
        running = [child for child in self.children.values() if child.process.poll() is None]
        if any(child.beat.state == "awaiting" for child in running):
            return  # somebody outside is waited for, under a time limit of its own
        if running and time.monotonic() - max(child.changed for child in running) > timeout_s:
            raise FederationError(
                f"no federate has moved for {timeout_s:g} s\n{waiting_list(running, wiring)}"
            )

    @property
    def beats(self) -> dict[str, Beat]:
        """The last sign of life of every process."""
        return {name: child.beat for name, child in self.children.items()}

    @property
    def all_done(self) -> bool:
        """Whether every process has ended as it should."""
        return all(child.exited_well for child in self.children.values())

    def end_all(self) -> None:
        """End every process and its descendants: politely, then by force. Returns within 10 s."""
        for child in self.children.values():
            if child.process.poll() is None:
                child.process.terminate()
        until = time.monotonic() + _TERMINATE_S
        while (
            any(child.process.poll() is None for child in self.children.values()) and time.monotonic() < until
        ):
            self.listen(0.05)
        for name in list(self.children):
            self.dismiss(name)
        self._selector.close()
        for end in (self._lifeline_end, self._lifeline):
            os.close(end)

    def _hear(self, child: Child, data: bytes) -> None:
        *lines, self._rest[child.name] = (self._rest[child.name] + data).split(b"\n")
        for line in lines:
            try:
                beat = parse_beat(line)
            except msgspec.DecodeError:
                # A foreign federate may say what it likes on standard output.
                continue
            before = child.beat
            if (beat.state, beat.t_s, beat.instants) != (before.state, before.t_s, before.instants):
                child.changed = time.monotonic()
            child.beat = msgspec.structs.replace(beat, address=beat.address or before.address)

    def _suspects(self) -> list[Child]:
        return [c for c in self.children.values() if c.exited_badly or c.beat.state == "failed"]

    def _verdict(self, child: Child) -> VoltierError:
        code = child.process.poll()
        if child.beat.kind == "external":
            return FederationError(child.beat.text)  # it is said to the author of somebody else's program
        if child.beat.state == "failed":
            how = f"failed: {child.beat.text}"
        elif code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended with exit code {code}"
        moment = "" if child.beat.t_s is None else f" at simulated second {child.beat.t_s}"
        log = f"log: {child.log}" if child.beat.kind in _SAID else last_lines(child.log)
        text = f"federate {child.name} {how}{moment}\n{log}"
        return ClearingAborted(text) if child.beat.kind == "clearing" else FederationError(text)


def waiting_list(running: Sequence[Child], wiring: Wiring) -> str:
    """Say of each process what it is doing and, if it waits, for whom."""
    at = {
        child.name: wire_time(child.name, child.beat.t_s) if child.beat.t_s is not None else -1.0
        for child in running
    }
    lines = []
    for child in running:
        beat = child.beat
        line = f"  {child.name} has been {beat.state} for {beat.state_s:.0f} s"
        if _is_stopped(child.process.pid):
            line = f"  {child.name} is stopped by a signal (SIGSTOP)"
        elif beat.state == "waiting":
            behind = [name for name in wiring.senders(child.name) if name in at and at[name] < at[child.name]]
            line += f" for simulated second {beat.t_s}: {', '.join(behind) or 'nobody'} is behind"
        elif beat.t_s is not None:
            line += f" at simulated second {beat.t_s}"
        lines.append(line)
    return "\n".join(lines)


def _is_stopped(pid: int) -> bool:
    """Say whether somebody has put a process to sleep, as Linux tells."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"
    return False


def last_lines(log: Path) -> str:
    """Return the end of a log, and where it lies."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join([f"last lines of {log}:", *(f"  {line}" for line in lines or ["(empty)"])])


def _guilt(child: Child) -> tuple[int, float]:
    """Order suspects: killed from outside, own failure, odd exit; last those whom only the bus told."""
    killed = child.beat.state != "failed" and (child.process.poll() or 0) < 0
    return (0 if killed else _KIND_RANK[child.beat.kind], child.changed)


def _end(child: Child) -> None:
    """End a process, and what it may have left behind in its group, by force."""
    with suppress(ProcessLookupError):
        os.killpg(child.process.pid, signal.SIGKILL)
    child.process.wait()
