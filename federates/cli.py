"""The command line. Each command imports what it needs, so that help and federates start quickly."""

from __future__ import annotations

import errno
import io
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from voltier.federates import exit_codes
from voltier.federates.conformance import check
from voltier.federates.exchange_formats import exports, imports
from voltier.federates.interruption import Interrupted, interruptible
from voltier.federates.options import (
    AnswerOption,
    HoursOption,
    JoinOption,
    QuietOption,
    RealtimeCommand,
    RealtimeOption,
    ScenarioArgument,
    SeedOption,
    SetOption,
    TransportOption,
    fresh,
    overrides,
    refuse,
    require_run,
    require_tables,
)
from voltier.federates.ports import DEFAULT_BUILDER, Door
from voltier.federates.studies import studies
from voltier.federates.wiring import LOOPBACK
from voltier.grid.errors import ClearingAborted, FederationError, InputError, VoltierError

app = typer.Typer(
    name="voltier",
    help="Co-simulation of distribution grids coordinated by hierarchical local electricity markets.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done, 2 bad input, 3 a federate failed, 4 a clearing failed under policy abort, "
    "5 a crosscheck beyond its limits, 130 interrupted.",
)


app.add_typer(studies)
app.add_typer(exports)
app.add_typer(imports)


@app.callback(invoke_without_command=True)
def _without_command(context: typer.Context) -> None:
    """Print the help when no command is given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


_PATIENCE_S = 10.0
"""Ending all processes and joining the tables takes less than this; a second Ctrl-C within it changes nothing."""


@app.command(cls=RealtimeCommand)
def run(
    scenario: ScenarioArgument,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/SCENARIO-TIME.")] = None,
    hours: HoursOption = None,
    seed: SeedOption = None,
    override: SetOption = None,
    transport: TransportOption = "zmq",
    realtime: RealtimeOption = None,
    external: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE", help="Let a program from outside play smo.0, grid, ..., or smo:BUS; repeatable."
        ),
    ] = None,
    interface: Annotated[str, typer.Option(help="Own address that external programs reach.")] = LOOPBACK,
    join_limit: JoinOption = 120.0,
    answer_limit: AnswerOption = 60.0,
    quiet: QuietOption = False,
) -> None:
    """Run a scenario and report on it.

    With --external everything else is started, and where and how the program outside has to join is printed and
    written to external/ROLE.json in the run directory.
    """
    from voltier.federates.foreign import Invitations, doors_for
    from voltier.federates.session import run_scenario
    from voltier.federates.show import console, following, show_result
    from voltier.scenarios.schema import load_scenario

    named = {"hours": hours, "seed": seed, "federation.realtime": realtime}
    case = load_scenario(scenario, overrides(override, **named))
    path = out or fresh(Path("runs"), case.name)
    doors = doors_for(case, external or [], transport, interface, join_limit, answer_limit)
    with following(case, quiet=quiet) as line, interruptible(path):
        watch = Invitations(line, path, {} if quiet else doors, console)
        run_scenario(case, path, transport=transport, watch=watch, doors=doors)
    if not quiet:
        show_result(console, path)


@app.command("list")
def list_scenarios() -> None:
    """List the scenarios of the library."""
    from voltier.federates.show import console, show_scenarios
    from voltier.scenarios.schema import scenario_names

    show_scenarios(console, scenario_names())


@app.command()
def validate(scenario: ScenarioArgument, override: SetOption = None) -> None:
    """Check a scenario and its data files, and tell every problem found."""
    from voltier.federates.gridlabd_engine import check_gridlabd
    from voltier.scenarios.build import check_data
    from voltier.scenarios.schema import load_scenario

    case = load_scenario(scenario, override or [])
    check_data(case)
    check_gridlabd(case.feeder.engine)
    typer.echo(f"{case.name}: no problems found")


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    from voltier.scenarios.schema import json_schema

    typer.echo(json_schema(), nl=False)


@app.command()
def report(run_dir: Annotated[Path, typer.Argument(metavar="DIR", help="Run directory.")]) -> None:
    """Write the report of a run again, after joining its tables if nobody has."""
    from voltier.federates.session import conclude

    require_run(run_dir)
    typer.echo(conclude(run_dir))


@app.command()
def compare(
    run_dirs: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR", help="Run directories; of another tool, tables/NAME.parquet are enough."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Page to write; its key figures stand beside it as .csv.")] = Path(
        "compare.html"
    ),
) -> None:
    """Set runs beside each other on one page; the first is the reference.

    Key figures, net load, import, prices and voltages, the ranges of ANSI C84.1, thermal loading, interruptions and
    bills. A run of another tool that has just the public tables (grid, substation, primary, secondary, system) is
    compared as far as these go.

    Example: voltier compare runs/AS-USUAL runs/HIERARCHY theirs --out compare.html
    """
    from voltier.scenarios.report import write_comparison

    for run_dir in run_dirs:
        require_tables(run_dir)
    typer.echo(write_comparison(run_dirs, out))


@app.command()
def crosscheck(
    run_dir: Annotated[
        Path, typer.Argument(metavar="DIR", help="Run directory, of any tool that writes the tables.")
    ],
    every: Annotated[
        int | None,
        typer.Option(
            metavar="MINUTES",
            help="Replay only every so many minutes; default: each, but every 15th in slow pandapower.",
        ),
    ] = None,
    engines: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Engines to replay in; default: all, and each must be installed."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the results; default DIR/crosscheck.")
    ] = None,
    scenario: Annotated[
        str | None, typer.Option(help="Scenario that names feeder and limits; default: the run's own.")
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Replay a run in other power-flow engines and tell how far they are from it.

    Injections and taps of each minute go through pandapower, OpenDSS, power-grid-model and GridLAB-D; a page, a CSV
    and a JSON file compare voltages, losses and import with the run's. Ends with code 5 when an engine is beyond the
    limits of the scenario's section crosscheck.

    Example: voltier crosscheck runs/DAY --every 15 --engines opendss,power-grid-model
    """
    require_tables(run_dir)
    from voltier.federates.gridlabd_engine import process_engines
    from voltier.federates.show import console, counting, show_crosscheck
    from voltier.scenarios.studies.crosscheck import crosscheck as check

    folder = out or run_dir / "crosscheck"
    names = None if engines is None else [name.strip() for name in engines.split(",") if name.strip()]
    with counting(quiet=quiet) as progress, process_engines() as outside:
        found = check(
            run_dir,
            folder,
            engines=names,
            every_min=every,
            outside=outside,
            scenario=scenario,
            progress=progress,
        )
    if not quiet:
        show_crosscheck(console, found, folder)
    if not all(kpis["within_limits"] for kpis in found.values()):
        raise typer.Exit(exit_codes.CROSSCHECK)


app.command("check")(check)


@app.command()
def doctor() -> None:
    """Check this installation: versions, solvers, HELICS, and a few simulated minutes."""
    from voltier.federates.doctor import examine

    if not examine():
        raise typer.Exit(exit_codes.FEDERATE)


@app.command()
def prepare(
    scenario: ScenarioArgument,
    out: Annotated[Path, typer.Option(help="Run directory to make.")],
    override: SetOption = None,
) -> None:
    """Make the run directory of a federation that containers or a scheduler will start."""
    from voltier.scenarios.build import check_data
    from voltier.scenarios.manifest import RunDirectory
    from voltier.scenarios.schema import load_scenario

    case = load_scenario(scenario, override or [])
    check_data(case)
    run_dir = RunDirectory.create(out, case, transport="zmq")
    typer.echo(run_dir.config)


@app.command()
def federate(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="pmo, smo.0, ..., recorder, or broker.")],
    scenario: Annotated[Path | None, typer.Option(help="config.resolved.yaml of the run.")] = None,
    run_dir: Annotated[Path, typer.Option(help="Run directory; only the recorder writes there.")] = Path(),
    broker: Annotated[str, typer.Option(help="Address of the HELICS broker.")] = "tcp://127.0.0.1:23404",
    key: Annotated[str, typer.Option(help="Key of the broker.")] = "voltier",
    transport: Annotated[str, typer.Option(help="zmq or tcp.")] = "zmq",
    interface: Annotated[
        str, typer.Option(help="Own address that others reach; default: HELICS decides.")
    ] = "",
    port: Annotated[int, typer.Option(help="Port of the broker (role broker); 0: any free one.")] = 23404,
    operators: Annotated[int, typer.Option(help="Operators to wait for (role broker).")] = 0,
    builder: Annotated[str, typer.Option(help="module:function that makes the case.")] = DEFAULT_BUILDER,
    lifeline: Annotated[bool, typer.Option("--lifeline", help="End when standard input ends.")] = False,
    external: Annotated[
        bool, typer.Option("--external", help="Let somebody outside play it, through a door of its own.")
    ] = False,
    door_key: Annotated[str, typer.Option(help="Key of the door's broker.")] = "voltier",
    door_interface: Annotated[str, typer.Option(help="Own address for the door.")] = LOOPBACK,
    door_port: Annotated[int, typer.Option(help="Port of the door's broker; 0: any free one.")] = 0,
    door_bus: Annotated[str, typer.Option(help="Bus of the one operator of a shard that is played.")] = "",
    join_limit: JoinOption = 120.0,
    answer_limit: AnswerOption = 60.0,
) -> None:
    """Run one federate, or the broker; containers and schedulers start a federation with this."""
    from voltier.federates.federate import BROKER, FederateOptions, run_broker, run_federate
    from voltier.federates.ports import load_builder

    if transport not in ("zmq", "tcp"):
        refuse("--transport", transport, "take zmq or tcp")
    if scenario is None and (role != BROKER or operators == 0):
        refuse("--scenario", scenario, "give the config.resolved.yaml of the run")
    if role == BROKER:
        if scenario is not None and operators == 0:
            operators = len(load_builder(builder)(scenario).operator_names()) + 1
        run_broker(transport, operators, key, interface=interface, port=port, lifeline=lifeline)
    assert scenario is not None
    load_builder(builder)
    run_federate(
        FederateOptions(
            name=role,
            config=scenario,
            run_dir=run_dir,
            builder=builder,
            transport=transport,
            broker=broker,
            key=key,
            interface=interface,
            lifeline=lifeline,
            door=Door(transport, door_key, door_interface, door_port, join_limit, answer_limit, bus=door_bus)
            if external
            else None,
        )
    )


def main() -> NoReturn:
    """Run the command line and end with one of its exit codes."""
    # A terminal that cannot show a sign shows a question mark; a finished run must not fail for it.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    with _signals_interrupt():
        sys.exit(_guarded(lambda: app(standalone_mode=False)))


def _guarded(command: Callable[[], Any]) -> int:
    """Turn errors into a message and an exit code."""
    try:
        code = command()
    except InputError as error:
        return _complain(error, exit_codes.INPUT)
    except ClearingAborted as error:
        return _complain(error, exit_codes.CLEARING)
    except (FederationError, VoltierError) as error:
        return _complain(error, exit_codes.FEDERATE)
    except Interrupted as error:
        return _complain(error, exit_codes.INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        return _complain(Interrupted("interrupted"), exit_codes.INTERRUPTED)
    except OSError as error:
        remedy = "; free space or choose another --out" if error.errno == errno.ENOSPC else ""
        text = f"{error.filename or 'output'}: {error.strerror}{remedy}"
        return _complain(VoltierError(text), exit_codes.FEDERATE)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command_path = context.command_path if context else "voltier"
        print(f"voltier: {error.format_message()} Try {command_path} --help.", file=sys.stderr)
        return exit_codes.INPUT
    if code == exit_codes.INTERRUPTED:
        # typer turns Ctrl-C into this code and says nothing
        return _complain(Interrupted("interrupted"), exit_codes.INTERRUPTED)
    return code if isinstance(code, int) else exit_codes.DONE


def _complain(error: BaseException, code: int) -> int:
    print("\n".join([f"voltier: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
    return code


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Treat being told to end like Ctrl-C; told again, first let what was begun be put in order."""
    told_s: list[float] = []

    def interrupt(number: int, frame: object) -> None:
        if not told_s or time.monotonic() - told_s[-1] > _PATIENCE_S:
            told_s.append(time.monotonic())
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
