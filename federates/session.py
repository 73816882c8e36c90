"""One run from scenario to finished run directory, over any transport."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from voltier.agents.clock import MINUTE_S
from voltier.agents.operator import Operator
from voltier.federates.case import ScenarioCase
from voltier.federates.gridlabd_engine import check_gridlabd
from voltier.federates.local import run_local
from voltier.federates.mqtt import require_mqtt
from voltier.federates.pace import Outward, Pace, attend, pace_of
from voltier.federates.ports import Door
from voltier.federates.progress import Watch, unwatched
from voltier.federates.pulse import Beat, peak_memory_mb
from voltier.federates.rehearsal import rehearse
from voltier.federates.wiring import RECORDER
from voltier.grid.errors import ClearingAborted, InputError, Problem, VoltierError
from voltier.scenarios.build import check_data, table_layouts
from voltier.scenarios.manifest import RunDirectory, Status
from voltier.scenarios.metrics import write_kpis
from voltier.scenarios.report import write_report
from voltier.scenarios.results import TableWriter, read_table
from voltier.scenarios.schema import Scenario
from voltier.scenarios.schema_primary import ChannelSection

TRANSPORTS = ("zmq", "tcp", "inproc", "none")


def run_scenario(
    scenario: Scenario,
    path: Path,
    *,
    transport: str = "zmq",
    watch: Watch = unwatched,
    command: Sequence[str] | None = None,
    doors: Mapping[str, Door] | None = None,
) -> Path:
    """Run a scenario into a new directory; return the directory, with tables, kpis.json and report.html in
    it.

    doors : of the operators that programs from outside play, by name. However the run ends, its tables are
    readable as far as they were committed and the manifest says how it ended. Raises InputError,
    FederationError, ClearingAborted, VoltierError for a disk that fails, or what an operator raised.
    """
    if transport not in TRANSPORTS:
        remedy = f"take one of {', '.join(TRANSPORTS)}"
        raise InputError([Problem("command line", "--transport", transport, remedy)])
    check_data(scenario)
    if scenario.hardware is not None:
        require_mqtt()
    if transport == "none" and scenario.primary.channel != ChannelSection():
        remedy = (
            "take zmq, tcp or inproc: HELICS disturbs the mail of primary.channel, and there is none here"
        )
        raise InputError([Problem("command line", "--transport", transport, remedy)])
    check_gridlabd(scenario.feeder.engine)
    run = RunDirectory.create(path, scenario, command=command, transport=transport)
    try:
        performance = _Meter(scenario, run, transport, watch, doors or {}).run()
        join_tables(run)
        run.finish("done")
        write_kpis(run.path, performance)
        write_report(run.path)
    except BaseException as error:
        _wind_up(run, error)
        if isinstance(error, OSError):
            raise VoltierError(f"cannot write {error.filename}: {error.strerror}") from error
        raise
    return run.path


def _wind_up(run: RunDirectory, error: BaseException) -> None:
    """Note how a run ended and join what was committed; a disk that is full must not hide why it ended."""
    status: Status = "failed"
    if isinstance(error, KeyboardInterrupt):
        status = "interrupted"
    elif isinstance(error, ClearingAborted):
        status = "aborted"
    for step in (partial(run.finish, status, str(error)), partial(join_tables, run)):
        try:
            step()
        except (VoltierError, OSError) as trouble:
            remedy = f"once that is mended, `voltier report {run.path}` joins what was committed"
            error.add_note(f"its directory could not be put in order ({trouble}); {remedy}")


def conclude(path: Path) -> Path:
    """Finish a run that ended without its launcher as run_scenario would have; return its report.

    For runs whose federates were started by containers or a scheduler, and for reports of broken-off runs.
    """
    run = RunDirectory(path)
    join_tables(run)
    if run.manifest()["status"] == "running":
        recorded_s = int(read_table(run.path, "substation")["t_s"].to_numpy().max()) + MINUTE_S
        if recorded_s == run.scenario().end_s:
            run.finish("done")
        else:
            run.finish("interrupted", f"recorded until simulated second {recorded_s}")
    if not (path / "kpis.json").is_file():
        write_kpis(path)
    return write_report(path)


def join_tables(run: RunDirectory) -> None:
    """Join the committed parts of the tables; the recorder may not have lived to do it."""
    TableWriter(run.path, table_layouts(run.scenario())).finalise()


class _Meter:
    """Drives a run and measures it: set-up and wall time, time in decisions, memory."""

    def __init__(
        self,
        scenario: Scenario,
        run: RunDirectory,
        transport: str,
        watch: Watch,
        doors: Mapping[str, Door],
    ) -> None:
        self._doors = doors
        self._scenario, self._run, self._transport, self._watch = scenario, run, transport, watch
        self._case = ScenarioCase(scenario)
        self._started = time.monotonic()
        self._began: float | None = None
        self._beats: Mapping[str, Beat] = {}

    def run(self) -> dict[str, float]:
        """Run to the end and return the figures of its performance."""
        if self._transport == "none":
            self._run_here()
        elif self._transport == "inproc":
            from voltier.federates.inproc import run_threads

            run_threads(self._case, self._run.path, self._look)
        else:
            self._run_processes()
        ended = time.monotonic()
        began = self._began or self._started
        figures = {"wall_s": ended - began, "setup_s": began - self._started}
        figures["speed_x_real_time"] = self._scenario.end_s / (ended - began)
        if self._beats:
            operators = [beat for name, beat in self._beats.items() if name != RECORDER]
            figures["decide_s"] = sum(beat.decide_s for beat in operators)
        separate = self._transport in ("zmq", "tcp")
        peaks = [beat.peak_mb for beat in self._beats.values()] if separate else []
        figures["peak_memory_mb"] = sum(peaks) + peak_memory_mb()
        return figures

    def _run_here(self) -> None:
        case = self._case
        pace = pace_of(case.pacing())
        operators = [case.build_operator(name) for name in case.operator_names()]
        outward = [operator for operator in operators if isinstance(operator, Outward)]
        try:
            for operator in operators:
                if pace is not None:
                    rehearse(operator.name)
                    attend(operator, pace)
            self._play(operators, pace)
        finally:
            for operator in outward:
                operator.close()

    def _play(self, operators: Sequence[Operator], pace: Pace | None) -> None:
        sink = self._case.open_sink(self._run.path)
        self._began = time.monotonic()

        def minute_done(now_s: int) -> None:
            sink.commit(now_s)
            self._watch(now_s, {})

        try:
            run_local(operators, self._case.market_clock(), sink.write, minute_done, pace)
        finally:
            sink.close()

    def _run_processes(self) -> None:
        from voltier.federates.launch import Launch, run_federation

        federation = self._scenario.federation
        # Between two minutes of a paced run nobody moves.
        pause_s = MINUTE_S / federation.realtime if federation.realtime else 0.0
        launch = Launch(
            config=self._run.config.resolve(),
            run_dir=self._run.path.resolve(),
            transport=self._transport,
            timeout_s=federation.timeout_s + pause_s,
            doors=self._doors,
        )
        run_federation(launch, self._case, self._look)

    def _look(self, beats: Mapping[str, Beat]) -> None:
        """Take in the signs of life of a federation."""
        self._beats = beats
        acting = [beat for beat in beats.values() if beat.t_s is not None or beat.state == "done"]
        if self._began is None and any(beat.instants for beat in acting):
            self._began = time.monotonic()
        # Wholesale runs ahead and the recorder behind; the market is where its slowest operator is.
        moments = [beat.t_s for beat in acting if beat.name != RECORDER and beat.t_s is not None]
        self._watch(max(min(moments, default=0), 0), {name: beat.state for name, beat in beats.items()})
