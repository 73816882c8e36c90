"""Starting a federation on this machine and seeing it to its end."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from voltier.federates.federate import BROKER
from voltier.federates.ports import DEFAULT_BUILDER, Case, Door
from voltier.federates.pulse import Beat
from voltier.federates.supervise import Supervisor
from voltier.federates.wiring import LOOPBACK, RECORDER, Wiring
from voltier.grid.errors import FederationError

_BROKER_START_S = 30.0
_BROKER_ATTEMPTS = 5
_LISTEN_S = 0.1
# One thread a process: the processes themselves are the parallelism, and sums keep their order.
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "RAYON_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    ),
    "1",
)


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start. config : file from which every federate builds its Case by builder ("module:function").

    timeout_s : wall time after which a silent federation is given up [s]. commands : programs to run in place
    of our own, by operator name; "{broker}" and "{key}" in them are filled in. doors : of the operators that
    somebody outside plays, by name.
    """

    config: Path
    run_dir: Path
    transport: str = "zmq"
    builder: str = DEFAULT_BUILDER
    timeout_s: float = 120.0
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    doors: Mapping[str, Door] = field(default_factory=dict)


def run_federation(launch: Launch, case: Case, progress: Callable[[Mapping[str, Beat]], None]) -> None:
    """Run broker, operators and recorder as processes until all are done; leaves no process and no port
    behind.

    progress : called some ten times a second with the state of all. Raises FederationError naming the
    federate that died, failed or kept silent, with the end of its log, and ClearingAborted if an operator
    gave up a clearing.
    """
    names = case.operator_names()
    wiring = Wiring(names)
    env = {**os.environ, **ONE_THREAD}
    key = secrets.token_urlsafe(12)
    with Supervisor() as supervisor:
        address = _start_broker(supervisor, launch, key, operators=len(names) + 1, env=env)
        for name in (*names, RECORDER):
            command = _command(launch, name, address, key)
            supervisor.spawn(name, command, launch.run_dir / "logs" / f"{name}.log", env)
        while not supervisor.all_done:
            supervisor.listen(_LISTEN_S)
            progress(supervisor.beats)
            supervisor.check()
            supervisor.check_silence(launch.timeout_s, wiring)
        supervisor.drain()
        progress(supervisor.beats)


def _start_broker(
    supervisor: Supervisor, launch: Launch, key: str, *, operators: int, env: Mapping[str, str]
) -> str:
    """Start the broker on a free port and return its address."""
    for _ in range(_BROKER_ATTEMPTS):
        options = ["--operators", str(operators), "--port", "0"]
        command = [*_federate(BROKER), *options, *_common(launch.transport, key)]
        supervisor.spawn(BROKER, command, launch.run_dir / "logs" / f"{BROKER}.log", env)
        until = time.monotonic() + _BROKER_START_S
        broker = supervisor.children[BROKER]
        while time.monotonic() < until and broker.process.poll() is None:
            supervisor.listen(_LISTEN_S)
            if broker.beat.address:
                return broker.beat.address
        supervisor.dismiss(BROKER)
    raise FederationError(f"the HELICS broker did not start in {_BROKER_ATTEMPTS} attempts; see {broker.log}")


def _command(launch: Launch, name: str, address: str, key: str) -> list[str]:
    if name in launch.commands:
        return [part.format(broker=address, key=key) for part in launch.commands[name]]
    paths = ["--scenario", str(launch.config), "--run-dir", str(launch.run_dir)]
    options = ["--broker", address, "--builder", launch.builder]
    if name in launch.doors:
        options += door_options(launch.doors[name])
    return [*_federate(name), *paths, *options, *_common(launch.transport, key)]


def door_options(door: Door) -> list[str]:
    """Return the options by which `voltier federate` opens a door."""
    return [
        *("--external", "--door-key", door.key, "--door-interface", door.interface),
        *(("--door-bus", door.bus) if door.bus else ()),
        *(
            "--door-port",
            str(door.port),
            "--join-limit",
            str(door.join_s),
            "--answer-limit",
            str(door.answer_s),
        ),
    ]


def _federate(name: str) -> list[str]:
    return [sys.executable, "-P", "-m", "voltier.federates.cli", "federate", name]


def _common(transport: str, key: str) -> list[str]:
    return ["--transport", transport, "--key", key, "--interface", LOOPBACK, "--lifeline"]
