"""What the bus alone costs: the market clock, routes and message sizes of a day, with operators that do not
think.

`python benchmarks/bench_bus.py [MINUTES]` prints milliseconds per simulated minute, and what that makes for a
day of 1,440 minutes. Naive is HELICS as its tutorials use it: one federate an operator, woken by every
message.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import helics as h
import numpy as np

from voltier.agents.clock import MINUTE_S, MarketClock
from voltier.agents.messages import (
    Conditions,
    Injections,
    Measurement,
    PrimarySchedule,
    SmaBids,
    SmaMeters,
    SmaSchedule,
    SmoBids,
    Taps,
)
from voltier.agents.operator import Mail, Outbox, Rows
from voltier.federates.helics import Connection
from voltier.federates.helics_bus import HelicsBus
from voltier.federates.launch import Launch, run_federation
from voltier.federates.local import run_local
from voltier.federates.node import run_operator
from voltier.federates.ports import SOUND, Channel
from voltier.federates.pulse import Pulse, write_beats
from voltier.federates.wiring import Wiring, wire_time

N_SMO, N_SMA, N_HOUSE, N_PHASE_NODE = 85, 504, 1008, 253
DAY_MINUTES = 1440


class Payload:
    """An operator that sends messages and rows of the real sizes."""

    def __init__(self, name: str, shards: int) -> None:
        self.name = name
        self.role, _, shard = name.partition(".")
        self.shards, self.k = range(shards), int(shard or 0)
        self.rng = np.random.default_rng(1)

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Send what is due."""
        outbox = Outbox()
        getattr(self, self.role)(now_s, now_s // MINUTE_S * MINUTE_S, outbox)
        return outbox

    def fill(self, kind: type, t_s: int, n: int) -> object:
        """Make a message with n rows of numbers that need all their digits."""
        names = [name for name in kind.__struct_fields__ if name not in ("t_s", "version")]
        index = ("sma", "smo", "bus", "phase", "tap")
        return kind(t_s=t_s, **{x: np.arange(n) if x in index else self.rng.normal(size=n) for x in names})

    def rows(self, table: str, now_s: int, n: int, columns: int) -> Rows:
        """Make table rows."""
        return Rows(table, now_s, {f"c{i}": self.rng.normal(size=n) for i in range(columns)})

    def wholesale(self, now_s: int, t_s: int, outbox: Outbox) -> None:
        """Send conditions."""
        body = Conditions(t_s=t_s, price_usd_per_kwh=0.1, temp_air_c=20.0, pv_available=0.5)
        outbox.mail += [Mail(self.name, to, body) for to in ("pmo", *(f"cmo.{k}" for k in self.shards))]

    def resilience(self, now_s: int, t_s: int, outbox: Outbox) -> None:
        """Send nothing: there is no attack."""

    def smo(self, now_s: int, t_s: int, outbox: Outbox) -> None:
        """Send a bid when the primary market clears, else a schedule."""
        n = len(self.shards)
        if now_s % MINUTE_S == 0 and t_s % 300 == 0:
            outbox.mail.append(Mail(self.name, "pmo", self.fill(SmoBids, t_s, N_SMO // n)))
            return
        outbox.mail.append(Mail(self.name, f"cmo.{self.k}", self.fill(SmaSchedule, t_s, N_SMA // n)))
        outbox.mail.append(Mail(self.name, "grid", self.fill(Injections, t_s, 15 // n)))
        outbox.rows.append(self.rows("secondary", now_s, N_SMA // n, 12))

    def pmo(self, now_s: int, t_s: int, outbox: Outbox) -> None:
        """Send set-points."""
        for k in self.shards:
            schedule = self.fill(PrimarySchedule, t_s, N_SMO // len(self.shards))
            outbox.mail.append(Mail(self.name, f"smo.{k}", schedule))
        outbox.rows.append(self.rows("primary", now_s, N_SMO, 8))

    def cmo(self, now_s: int, t_s: int, outbox: Outbox) -> None:
        """Send bids, meters and injections."""
        n = len(self.shards)
        outbox.mail.append(Mail(self.name, f"smo.{self.k}", self.fill(SmaBids, t_s, N_SMA // n)))
        if t_s >= 0:
            outbox.mail.append(Mail(self.name, f"smo.{self.k}", self.fill(SmaMeters, t_s, N_SMA // n)))
            outbox.mail.append(Mail(self.name, "grid", self.fill(Injections, t_s, N_PHASE_NODE // n)))
            outbox.rows.append(self.rows("consumer", now_s, N_HOUSE // n, 4))

    def grid(self, now_s: int, t_s: int, outbox: Outbox) -> None:
        """Send measurements, and record the wall clock."""
        measured = self.fill(Measurement, t_s, 3)
        outbox.mail += [Mail(self.name, to, measured) for to in ("pmo", "resilience")]
        outbox.mail.append(Mail(self.name, "pmo", self.fill(Taps, t_s, 7)))
        outbox.rows.append(self.rows("grid", now_s, N_PHASE_NODE, 3))
        outbox.rows.append(Rows("clock", now_s, {"wall_s": np.array([time.monotonic()])}))


class Tally:
    """A sink that keeps a sum of all numbers, and the wall clock of the grid."""

    def __init__(self, path: Path) -> None:
        self.path, self.total, self.kilobytes, self.wall_s = path, 0.0, 0.0, []

    def write(self, rows: Rows) -> None:
        """Add rows up."""
        if rows.table == "clock":
            self.wall_s.append(float(rows.columns["wall_s"][0]))
            return
        for values in rows.columns.values():
            self.total += float(np.sum(values))
            self.kilobytes += 8e-3 * len(values)

    def commit(self, now_s: int) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Write the result."""
        seconds = self.wall_s[-1] - self.wall_s[0]
        result = {"s": seconds, "minutes": len(self.wall_s) - 1, "total": self.total, "kb": self.kilobytes}
        self.path.write_text(json.dumps(result), encoding="utf-8")


class PayloadCase:
    """The case that all processes build."""

    def __init__(self, config: Path) -> None:
        settings = json.loads(config.read_text(encoding="utf-8"))
        self.minutes, self.shards = settings["minutes"], settings["shards"]

    def operator_names(self) -> list[str]:
        """Name all operators."""
        sharded = [f"{role}.{k}" for role in ("smo", "cmo") for k in range(self.shards)]
        return ["wholesale", "resilience", "pmo", "grid", *sharded]

    def build_operator(self, name: str) -> Payload:
        """Build one operator."""
        return Payload(name, self.shards)

    def market_clock(self) -> MarketClock:
        """Return the clock."""
        return MarketClock(primary_period_s=300, end_s=self.minutes * MINUTE_S)

    def open_sink(self, run_dir: Path) -> Tally:
        """Open the tally."""
        return Tally(run_dir / "result.json")

    def channel(self) -> Channel:
        """Let all mail arrive."""
        return SOUND


class OneFederateBus(HelicsBus):
    """The naive bus: one HELICS federate that reads and writes, woken by every message."""

    def join(self) -> None:
        """Let the ear speak; the mouth only makes up the numbers."""
        pair = self.pair
        pair.mouth, idle = pair.ear, pair.mouth
        h.helicsFederateSetFlagOption(pair.ear, h.HELICS_FLAG_UNINTERRUPTIBLE, False)
        silent = threading.Thread(target=lambda: h.helicsFederateEnterExecutingMode(idle))
        silent.start()
        pair._together = lambda step: getattr(h, f"helicsFederate{step}")(pair.ear)  # type: ignore[method-assign]
        super().join()
        silent.join()
        h.helicsFederateDisconnect(idle)

    def advance(self, now_s: int, slot: int = 0) -> None:
        """Ask until the instant has come."""
        while h.helicsFederateRequestTime(self.pair.ear, wire_time(self.name, now_s)) < wire_time(
            self.name, now_s
        ):
            pass

    def leave(self) -> None:
        """Leave."""
        h.helicsFederateDisconnect(self.pair.ear)


def run_naive(config: Path, name: str, broker: str, key: str) -> None:
    """Run one naive federate."""
    case = PayloadCase(config)
    bus = OneFederateBus(name, Wiring(case.operator_names()), Connection("zmq", broker, key, "127.0.0.1"))
    pulse = Pulse(name, write_beats(1))
    run_operator(case.build_operator(name), case.market_clock(), bus, pulse)
    pulse.end()


def measure(transport: str, shards: int, minutes: int) -> dict[str, float]:
    """Run one set-up and return its tally. transport : none, inproc, zmq, tcp, or naive (over zmq)."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        (run_dir / "logs").mkdir()
        config = run_dir / "case.json"
        config.write_text(json.dumps({"minutes": minutes, "shards": shards}), encoding="utf-8")
        case = PayloadCase(config)
        if transport == "none":
            sink = case.open_sink(run_dir)
            operators = [case.build_operator(name) for name in case.operator_names()]
            run_local(operators, case.market_clock(), sink.write, sink.commit)
            sink.close()
        elif transport == "inproc":
            from voltier.federates.inproc import run_threads

            run_threads(case, run_dir, lambda beats: None)
        else:
            here = [sys.executable, "-P", __file__, "--naive", str(config)]
            naive = {name: [*here, name, "{broker}", "{key}"] for name in case.operator_names()}
            launch = Launch(
                config,
                run_dir,
                transport="zmq" if transport == "naive" else transport,
                builder="bench_bus:PayloadCase",
                commands=naive if transport == "naive" else {},
            )
            run_federation(launch, case, lambda beats: None)
        return json.loads((run_dir / "result.json").read_text(encoding="utf-8"))


def main(minutes: int = 360) -> None:
    """Print the table."""
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    reference: dict[int, float] = {}
    print(f"{'transport':10} {'shards':>6} {'ms/minute':>10} {'s/day':>7} {'ratio':>6} {'difference':>10}")
    for transport, shards in [(t, 1) for t in ("none", "inproc", "zmq", "tcp", "naive")] + [
        ("none", 4),
        ("zmq", 4),
    ]:
        found = measure(transport, shards, minutes)
        reference.setdefault(shards, found["total"])
        ms = 1000.0 * found["s"] / found["minutes"]
        if (transport, shards) == ("zmq", 1):
            ours = ms
        ratio = f"{ms / ours:.1f}x" if transport == "naive" else ""
        # Sums of different order: rounding only.
        difference = abs(found["total"] - reference[shards])
        print(
            f"{transport:10} {shards:6} {ms:10.2f} {ms * DAY_MINUTES / 1e3:7.1f} {ratio:>6} {difference:9.1e}"
        )
    print(f"rows: {found['kb'] / found['minutes']:.0f} kB a minute")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--naive"]:
        run_naive(Path(sys.argv[2]), *sys.argv[3:])
    else:
        main(*(int(text) for text in sys.argv[1:]))
