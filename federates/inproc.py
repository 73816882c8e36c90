"""The whole federation as threads of this process, over one HELICS core without sockets: for debuggers."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from voltier.agents.operator import Operator
from voltier.federates.helics import FEDERATES_PER_OPERATOR, Broker, BusLostError, Connection, shared_core
from voltier.federates.helics_bus import HelicsBus, RecorderBus
from voltier.federates.node import GuardedSink, run_operator, run_recorder
from voltier.federates.pace import pace_of
from voltier.federates.ports import Case
from voltier.federates.pulse import Beat, Pulse
from voltier.federates.wiring import RECORDER, Wiring

_LOOK_S = 0.1


def run_threads(case: Case, run_dir: Path, progress: Callable[[Mapping[str, Beat]], None]) -> None:
    """Run broker, operators and recorder as threads until all are done.

    progress : called some ten times a second with the state of all. The first error of an operator passes
    through.
    """
    names = case.operator_names()
    wiring, clock = Wiring(names), case.market_clock()
    operators = [case.build_operator(name) for name in names]
    sink = GuardedSink(case.open_sink(run_dir))
    key = secrets.token_urlsafe(12)
    federates = FEDERATES_PER_OPERATOR * (len(names) + 1)
    broker = Broker("inproc", federates, key)
    core_name = f"core-{key}"
    core = shared_core(Connection("inproc", broker.address, key), core_name, federates)
    connection = Connection("inproc", broker.address, key, core=core_name)
    pace = pace_of(case.pacing())
    paced = pace is not None
    beats: dict[str, Beat] = {}
    errors: list[BaseException] = []

    def start(name: str, work: Callable[[Pulse], None]) -> threading.Thread:
        pulse = Pulse(name, lambda beat: beats.__setitem__(name, beat))

        def live() -> None:
            pulse.start()
            try:
                work(pulse)
                pulse.end()
            except BaseException as error:
                errors.append(error)
                pulse.end("operator", str(error))

        thread = threading.Thread(target=live, name=name, daemon=True)
        thread.start()
        return thread

    def act(operator: Operator, pulse: Pulse) -> None:
        bus = HelicsBus(operator.name, wiring, connection, case.channel(), paced=paced)
        run_operator(operator, clock, bus, pulse, pace)

    def record(pulse: Pulse) -> None:
        run_recorder(sink, clock, RecorderBus(wiring, connection, paced=paced), pulse, pace)

    threads = [start(operator.name, partial(act, operator)) for operator in operators]
    threads.append(start(RECORDER, record))
    try:
        while any(thread.is_alive() for thread in threads) and not errors:
            time.sleep(_LOOK_S)
            progress(dict(beats))
    finally:
        if pace is not None:
            pace.release()
        broker.close()
        for thread in threads:
            thread.join(timeout=5.0)
        sink.close()
        del core
    if errors:
        raise next((error for error in errors if not isinstance(error, BusLostError)), errors[0])
