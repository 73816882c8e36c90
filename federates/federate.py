"""A federate as a process: signals, lifeline, signs of life, exit code. Launcher and containers use it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from voltier.agents.operator import Operator
from voltier.federates import exit_codes
from voltier.federates.carving import ALONE, CarvedOperator, wiring_alone
from voltier.federates.node import GuardedSink, run_operator, run_recorder
from voltier.federates.pace import pace_of
from voltier.federates.ports import Case, Door, OutsiderError, load_builder
from voltier.federates.pulse import Kind, Pulse, write_beats
from voltier.federates.wiring import RECORDER, Wiring
from voltier.grid.errors import ClearingAborted, FederationError, InputError

BROKER = "broker"
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class FederateOptions:
    """How one federate runs. config : the resolved scenario; builder : "module:function" that makes a Case of
    it.

    lifeline : end when standard input ends, that is when the launcher is gone. door : where somebody outside who
    plays the operator comes in; None: we play it.
    """

    name: str
    config: Path
    run_dir: Path
    builder: str
    transport: str
    broker: str
    key: str
    interface: str
    lifeline: bool
    door: Door | None = None


def run_federate(options: FederateOptions) -> NoReturn:
    """Run one federate and end the process with its exit code."""
    life = _Life(options.name, lifeline=options.lifeline)
    life.run(lambda: _take_part(options, life))


def run_broker(
    transport: str, operators: int, key: str, *, interface: str, port: int, lifeline: bool
) -> NoReturn:
    """Run a HELICS broker until so many operators (the recorder is one) have left; end the process."""
    life = _Life(BROKER, lifeline=lifeline)

    def serve() -> None:
        from voltier.federates.helics import FEDERATES_PER_OPERATOR, Broker

        broker = Broker(transport, FEDERATES_PER_OPERATOR * operators, key, interface=interface, port=port)
        life.pulse.turn("listening", address=broker.address)
        while not broker.wait(timeout_s=60.0):
            pass
        broker.close()

    life.run(serve)


def _take_part(options: FederateOptions, life: _Life) -> None:
    life.pulse.turn("building")
    case: Case = load_builder(options.builder)(options.config)
    # Operators are built before HELICS is loaded: its threads start in a process that is ready to answer.
    if options.name == RECORDER:
        part = _recording(options, case, life)
    elif options.door is not None:
        part = _passing_on(options, options.door, case, life)
    else:
        part = _acting(options, case, life)
    part()


def _acting(options: FederateOptions, case: Case, life: _Life) -> Callable[[], None]:
    operator = case.build_operator(options.name)
    from voltier.federates.helics import Connection
    from voltier.federates.helics_bus import HelicsBus

    connection = Connection(options.transport, options.broker, options.key, options.interface)

    pace = pace_of(case.pacing())

    def act() -> None:
        wiring = Wiring(case.operator_names())
        bus = HelicsBus(options.name, wiring, connection, case.channel(), paced=pace is not None)
        run_operator(operator, case.market_clock(), bus, life.pulse, pace)

    return act


def _passing_on(options: FederateOptions, door: Door, case: Case, life: _Life) -> Callable[[], None]:
    wiring, clock = Wiring(case.operator_names()), case.market_clock()
    played, inner, carved = options.name, wiring, None
    if door.bus:
        carved = case.carve(options.name, door.bus)
        played, inner = f"{ALONE}{door.bus}", wiring_alone(wiring, options.name, door.bus)
    external = case.external_part(played)
    from voltier.federates.external import ExternalOperator
    from voltier.federates.foreign import write_invitation
    from voltier.federates.gate import Gate
    from voltier.federates.helics import Connection
    from voltier.federates.helics_bus import HelicsBus

    connection = Connection(options.transport, options.broker, options.key, options.interface)

    def pass_on() -> None:
        gate = Gate(played, inner, clock, door)
        life.last_duty = lambda: gate.close("the run has ended")
        write_invitation(options.run_dir, gate.part, clock, external, door, gate.address)
        life.pulse.turn("awaiting", address=gate.address)
        gate.welcome()
        operator: Operator = ExternalOperator(played, gate, inner, clock, external)
        if carved is not None:
            operator = CarvedOperator(carved[0], operator, carved[1])
        run_operator(operator, clock, HelicsBus(options.name, wiring, connection), life.pulse)
        gate.close()

    return pass_on


def _recording(options: FederateOptions, case: Case, life: _Life) -> Callable[[], None]:
    sink = GuardedSink(case.open_sink(options.run_dir))
    life.last_duty = sink.close
    from voltier.federates.helics import Connection
    from voltier.federates.helics_bus import RecorderBus

    connection = Connection(options.transport, options.broker, options.key, options.interface)

    pace = pace_of(case.pacing())

    def record() -> None:
        bus = RecorderBus(Wiring(case.operator_names()), connection, paced=pace is not None)
        run_recorder(sink, case.market_clock(), bus, life.pulse, pace)

    return record


class _Life:
    """Everything about being a process. last_duty : done before the process ends, whatever ends it."""

    def __init__(self, name: str, *, lifeline: bool) -> None:
        # Libraries in C++ print to standard output as they please; it becomes the log, and ours a private
        # copy.
        told = os.dup(1)
        os.dup2(2, 1)
        self.pulse = Pulse(name, write_beats(told))
        self.last_duty: Callable[[], None] = lambda: None
        self._ending = threading.Lock()
        # A blocked call into HELICS would keep Python's own handlers waiting: a thread takes the signals
        # instead.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        threading.Thread(target=self._obey_signals, name="signals", daemon=True).start()
        if lifeline:
            threading.Thread(target=self._watch_lifeline, name="lifeline", daemon=True).start()
        self.pulse.start()

    def run(self, work: Callable[[], None]) -> NoReturn:
        """Do the work and end the process."""
        kind: Kind
        try:
            work()
        except OutsiderError as error:
            print(error, file=sys.stderr)
            self.pulse.end("external", str(error))
            self._end(exit_codes.FEDERATE)
        except ClearingAborted as error:
            self._fail(exit_codes.CLEARING, "clearing", error)
        except InputError as error:
            self._fail(exit_codes.INPUT, "input", error)
        except FederationError as error:
            kind = "bus" if type(error).__name__ == "BusLostError" else "wiring"
            self._fail(exit_codes.FEDERATE, kind, error)
        except BaseException as error:
            self._fail(exit_codes.FEDERATE, "operator", error)
        self.pulse.end()
        self._close_helics()
        self._end(exit_codes.DONE)

    def _fail(self, code: int, kind: Kind, error: BaseException) -> NoReturn:
        traceback.print_exception(error)
        self.pulse.end(kind, f"{type(error).__name__}: {error}")
        self._end(code)

    def _end(self, code: int) -> NoReturn:
        # The lock is never given back: only one thread ends the process.
        self._ending.acquire()
        try:
            self.last_duty()
        except BaseException:
            traceback.print_exc()
            code = code or exit_codes.FEDERATE
        sys.stderr.flush()
        # HELICS threads may hang in a broken federation: no exit handlers.
        os._exit(code)

    def _close_helics(self) -> None:
        library = sys.modules.get("helics")
        if library is not None:
            library.helicsCloseLibrary()

    def _obey_signals(self) -> NoReturn:
        number = signal.sigwait(_STOP_SIGNALS)
        print(f"ended by {signal.Signals(number).name}", file=sys.stderr)
        self._end(128 + number)

    def _watch_lifeline(self) -> None:
        while os.read(0, 64):
            pass
        print("ended because the launcher is gone", file=sys.stderr)
        self._end(exit_codes.FEDERATE)
