"""An MQTT broker for tests, as a process of its own on a free port."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_DOUBLES = Path(__file__).parents[2] / "docs" / "hardware"
THERMOSTAT, INVERTER = _DOUBLES / "thermostat.py", _DOUBLES / "inverter.py"

_SERVE = """
import asyncio, sys
from amqtt.broker import Broker
async def main():
    broker = Broker({
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{sys.argv[1]}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    })
    await broker.start()
    await asyncio.Event().wait()
asyncio.run(main())
"""


@contextlib.contextmanager
def mqtt_broker() -> Iterator[str]:
    """Run a broker; yields its host:port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with process(["-c", _SERVE, str(port)]) as broker:
        until = time.monotonic() + 20.0
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                break
            assert time.monotonic() < until, "the MQTT broker does not start"
            assert broker.poll() is None
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def thermostats(broker: str, run: str, houses: list[str], *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run emulated thermostats of some houses."""
    names = [part for house in houses for part in ("--house", house)]
    with process([str(THERMOSTAT), "--broker", broker, "--run", run, *names, *options]) as emulator:
        yield emulator


@contextlib.contextmanager
def process(arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python with some arguments until the context ends."""
    started = subprocess.Popen([sys.executable, "-P", *arguments], stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.kill()
        started.wait()
