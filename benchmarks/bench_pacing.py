"""How late operators act in a paced run: our waiting for a common origin against HELICS' real-time flag.

`python benchmarks/bench_pacing.py` runs a chain of three operators, each an ear and a mouth as in a run, at four
instants a second; every sixth time the first one thinks for 150 ms, longer than the others are behind it. It prints how
late they act, and how often one acts without the mail of the one before: then a run would have other results.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field

import helics as h
import numpy as np

from voltier.federates.helics import Broker, Connection, Pair, shared_core

STEP_S, ROUNDS = 0.25, 24
OFFSET_S = {"first": 0.0, "second": 0.05, "third": 0.1}
THINK_S, LONG_S = 0.01, 0.16
# rt_lag of HELICS: wall time after which it grants time whoever has not come yet.
LAG_S = {"HELICS flag, lag unlimited": 1000.0, "HELICS flag, lag 20 ms": 0.02}
OURS = "waiting for the origin"


@dataclass
class Seen:
    lag_ms: list[float] = field(default_factory=list)
    without_mail: int = 0


def live(name: str, before: str, after: str, connection: Connection, mode: str, seen: Seen) -> None:
    pair = Pair(name, connection)
    out = pair.writes_to(f"{name}/to", f"{after}/from") if after else None
    into = pair.reads_from(f"{name}/from") if before else None
    # HELICS tells of every grant that it forces; here they are counted.
    for federate in (pair.ear, pair.mouth):
        h.helicsFederateSetIntegerProperty(
            federate, h.HELICS_PROPERTY_INT_CONSOLE_LOG_LEVEL, h.HELICS_LOG_LEVEL_ERROR
        )
    if mode != OURS:
        h.helicsFederateSetFlagOption(pair.ear, h.HELICS_FLAG_REALTIME, True)
        h.helicsFederateSetTimeProperty(pair.ear, h.HELICS_PROPERTY_TIME_RT_LEAD, 0.0)
        h.helicsFederateSetTimeProperty(pair.ear, h.HELICS_PROPERTY_TIME_RT_LAG, LAG_S[mode])
    pair.start(list)
    origin = time.monotonic()
    for k in range(1, ROUNDS):
        at_s = k * STEP_S + OFFSET_S[name]
        for federate in (pair.mouth, pair.ear):
            h.helicsFederateRequestTime(federate, at_s)
        if mode == OURS:
            time.sleep(max(0.0, origin + at_s - time.monotonic()))
        seen.lag_ms.append(1e3 * (time.monotonic() - origin - at_s))
        seen.without_mail += into is not None and not pair.receive(into)
        time.sleep(LONG_S if name == "first" and k % 6 == 0 else THINK_S)
        if out is not None:
            pair.send(out, b"x" * 1000)
    pair.leave()


def run(mode: str) -> Seen:
    key = secrets.token_urlsafe(8)
    names = list(OFFSET_S)
    broker = Broker("inproc", 2 * len(names), key)
    core = shared_core(Connection("inproc", broker.address, key), f"core-{key}", 2 * len(names))
    connection = Connection("inproc", broker.address, key, core=f"core-{key}")
    seen = [Seen() for _ in names]
    around = zip(["", *names], names, [*names[1:], ""], seen, strict=False)
    threads = [
        threading.Thread(target=live, args=(name, before, after, connection, mode, part), daemon=True)
        for before, name, after, part in around
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    broker.wait(10.0)
    del core
    return Seen([lag for part in seen for lag in part.lag_ms], sum(part.without_mail for part in seen))


def main() -> None:
    reference = None
    for mode in (OURS, *LAG_S):
        seen = run(mode)
        p99 = float(np.percentile(seen.lag_ms, 99.0))
        reference = reference or p99
        print(
            f"{mode:28} lag median {np.median(seen.lag_ms):5.1f} ms, p99 {p99:6.1f} ms ({p99 / reference:4.2f} x), "
            f"acted without mail {seen.without_mail} times of {2 * (ROUNDS - 1)}"
        )


if __name__ == "__main__":
    main()
