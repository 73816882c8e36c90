"""The live line of a run: how far, how fast, and what each federate is doing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

_STYLE = {
    "starting": "yellow",
    "building": "yellow",
    "awaiting": "bold yellow",
    "joining": "yellow",
    "listening": "dim",
    "waiting": "dim",
    "deciding": "bold green",
    "sending": "green",
    "done": "blue",
    "failed": "bold red",
    "dead": "bold red",
}
_BAR_CELLS = 20


class Watch(Protocol):
    """Follows a run. now_s : simulated second that all have reached; states : federate → what it is doing."""

    def __call__(self, now_s: int, states: Mapping[str, str]) -> None:
        """Take note of the state of the run."""
        ...


def unwatched(now_s: int, states: Mapping[str, str]) -> None:
    """Watch nothing."""


class ProgressLine:
    """A Watch that shows one live line on a terminal. end_s : length of the run [s]."""

    def __init__(self, console: Console, name: str, end_s: int) -> None:
        self._name, self._end_s = name, end_s
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._began: float | None = None
        self._shown = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._live.stop()

    def __call__(self, now_s: int, states: Mapping[str, str]) -> None:
        """Redraw, at most some eight times a second."""
        now = time.monotonic()
        if self._began is None and now_s > 0:
            self._began = now
        if now - self._shown < 0.12:
            return
        self._shown = now
        self._live.update(self._line(now_s, states, now), refresh=True)

    def _line(self, now_s: int, states: Mapping[str, str], now: float) -> Text:
        done = round(_BAR_CELLS * min(max(now_s / self._end_s, 0.0), 1.0))
        line = Text.assemble(
            (f"{self._name} ", "bold"),
            ("━" * done, "green"),
            ("━" * (_BAR_CELLS - done), "dim"),
            f" {clock_text(now_s)} of {clock_text(self._end_s)} ",
        )
        if self._began is not None and now > self._began:
            line.append(f" {now_s / (now - self._began):,.0f} x real time ")
        for name, state in states.items():
            line.append(f" {name}", _STYLE[state])
        return line


def clock_text(s: int) -> str:
    """Write simulated seconds as hours and minutes."""
    return f"{max(s, 0) // 3600:02d}:{max(s, 0) // 60 % 60:02d}"
