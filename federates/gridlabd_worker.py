"""GridLAB-D in a process of its own: it takes a model, then again and again values to set, a time and values to read.

Started by `python -m voltier.federates.gridlabd_worker`; one JSON line in, one JSON line out, on the standard pipes.
GridLAB-D keeps global state, is not thread-safe, and can run on for minutes after a power flow without solution, so
nothing else lives here, and a watchdog outside the interpreter ends the process when one request takes too long.
"""

from __future__ import annotations

import cmath
import faulthandler
import math
import os
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_COMPLEX = re.compile(rf"({_NUMBER})({_NUMBER})([ijdr])")
_REAL = re.compile(rf"{_NUMBER}(?![\d.]*[ijdr])")
# as many digits as a double has, instead of six
_COMPLEX_FORMAT = "%+.17lg%+.17lg%c"


class Request(msgspec.Struct):
    """What the worker is asked for.

    model : GLM text to load, once, before anything else ; writes : (object, property, text) to set
    until : ISO time to step to after that, "" for none ; reads : (object, property) whose complex values are wanted
    sums : (class, property) of which the sum over all objects is wanted, after these
    limit_s : wall time after which the process ends itself
    """

    limit_s: float
    model: str = ""
    writes: list[tuple[str, str, str]] = []
    until: str = ""
    reads: list[tuple[str, str]] = []
    sums: list[tuple[str, str]] = []


class Reply(msgspec.Struct):
    """What it answers. values : real and imaginary parts in turn ; error : what GridLAB-D said, "" when all is well."""

    values: list[float]
    error: str = ""


def parse_complex(text: str) -> complex:
    """Read "+2401.7-1.2d V" (degrees), "…r" (radians), "+1+2j" or "3.5"; ValueError for anything else.

    The package's own typed reading takes the angle of a polar value for its imaginary part.
    """
    found = _COMPLEX.match(text.strip())
    if found is None:
        real = _REAL.match(text.strip())
        if real is None:
            raise ValueError(f"GridLAB-D gave {text!r} for a complex number")
        return complex(float(real[0]))
    first, second, kind = float(found[1]), float(found[2]), found[3]
    if kind in "ij":
        return complex(first, second)
    return cmath.rect(first, math.radians(second) if kind == "d" else second)


class _Failed(Exception):
    """GridLAB-D returned an error code."""


def _serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until the pipe ends, which it does with the parent."""
    simulator = _simulator()
    for line in requests:
        request = msgspec.json.decode(line, type=Request)
        # a thread of C, which fires although GridLAB-D holds the interpreter
        faulthandler.dump_traceback_later(request.limit_s, exit=True)
        try:
            reply = Reply(_answer(simulator, request))
        except (_Failed, ValueError) as error:
            reply = Reply([], "\n".join([str(error), *_last_messages(simulator)]))
        faulthandler.cancel_dump_traceback_later()
        replies.write(msgspec.json.encode(reply) + b"\n")
        replies.flush()


def _simulator() -> Any:
    from gridlabd import DirectGridLabD

    simulator = DirectGridLabD()
    simulator.enable_message_capture(True)
    simulator.set_message_capture_limit(200)
    return simulator


def _answer(simulator: Any, request: Request) -> list[float]:
    if request.model:
        _load(simulator, request.model)
    for name, key, text in request.writes:
        _expect(simulator.set_property(name, key, text), f"set_property {name} {key} {text}")
    if request.until:
        simulator.clear_messages()
        code, reached = simulator.step_to(request.until)
        _expect(code, f"step_to {request.until}")
        if reached[:19] != request.until.replace("T", " "):
            raise _Failed(f"step_to {request.until} ended at {reached}")
    values = [_read(simulator, name, key) for name, key in request.reads]
    for kind, key in request.sums:
        values.append(sum(map(parse_complex, simulator.get_properties_by_class(kind, key).values()), 0j))
    return [part for value in values for part in (value.real, value.imag)]


def _read(simulator: Any, name: str, key: str) -> complex:
    code, text = simulator.get_property(name, key)
    _expect(code, f"get_property {name} {key}")
    return parse_complex(text)


def _load(simulator: Any, model: str) -> None:
    """Load a model, which GridLAB-D reads from a file only."""
    with tempfile.TemporaryDirectory(prefix="voltier-gridlabd-") as folder:
        path = Path(folder) / "model.glm"
        path.write_text(model, encoding="utf-8")
        _expect(simulator.load_glm([str(path)]), "load_glm")
    simulator.set_global("complex_format", _COMPLEX_FORMAT)
    _expect(simulator.setup_after_load(), "setup_after_load")


def _expect(code: Any, call: str) -> None:
    if code.name != "SUCCESS":
        raise _Failed(f"{call}: {code.name}")


def _last_messages(simulator: Any) -> list[str]:
    """Give what GridLAB-D said last, without the ratings it warns of."""
    said = [message["message"] for message in simulator.get_messages()]
    return [f"  {text}" for text in said if "rating on phase" not in text][-6:]


def main() -> None:
    """Serve on the standard pipes; what GridLAB-D prints goes to standard error."""
    # a Ctrl-C at the terminal is for the parent, who ends this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, replies)
    sys.stderr.flush()
    # GridLAB-D's own end can wait for threads that are gone
    os._exit(0)


if __name__ == "__main__":
    main()
