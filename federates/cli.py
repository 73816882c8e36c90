"""The command line. Each command imports what it needs, so that help and federates start quickly."""

from __future__ import annotations

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
from voltier.federates.ports import DEFAULT_BUILDER
from voltier.grid.errors import ClearingAborted, FederationError, InputError, Problem, VoltierError

app = typer.Typer(
    name="voltier",
    help="Co-simulation of distribution grids coordinated by hierarchical local electricity markets.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done, 2 bad input, 3 a federate failed, 4 a clearing failed under policy abort, "
    "130 interrupted.",
)


@app.callback(invoke_without_command=True)
def _without_command(context: typer.Context) -> None:
    """Print the help when no command is given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


_PATIENCE_S = 10.0
"""Ending all processes and joining the tables takes less than this; a second Ctrl-C within it changes nothing."""

ScenarioArgument = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="Name from `voltier list`, or path of a scenario file.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. primary.period_s=600."),
]
TransportOption = Annotated[
    str, typer.Option(help="zmq or tcp: a process per federate; inproc: threads; none: no HELICS at all.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]


@app.command()
def run(
    scenario: ScenarioArgument,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/SCENARIO-TIME.")] = None,
    hours: Annotated[float | None, typer.Option(help="Length of the run [h].")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    override: SetOption = None,
    transport: TransportOption = "zmq",
    quiet: QuietOption = False,
) -> None:
    """Run a scenario and report on it."""
    from voltier.federates.session import run_scenario
    from voltier.federates.show import console, following, show_result
    from voltier.scenarios.schema import load_scenario

    case = load_scenario(scenario, _overrides(override, hours=hours, seed=seed))
    path = out or _fresh(Path("runs"), case.name)
    with following(case, quiet=quiet) as watch, _interruptible(path):
        run_scenario(case, path, transport=transport, watch=watch)
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
    from voltier.scenarios.build import check_data
    from voltier.scenarios.schema import load_scenario

    case = load_scenario(scenario, override or [])
    check_data(case)
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

    _require_run(run_dir)
    typer.echo(conclude(run_dir))


@app.command()
def compare(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Run directories.")],
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("compare.html"),
) -> None:
    """Set runs beside each other on one page; the first is the reference."""
    from voltier.scenarios.report import write_comparison

    for run_dir in run_dirs:
        _require_run(run_dir)
    typer.echo(write_comparison(run_dirs, out))


@app.command()
def study(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="designs, attack, voltage-regulation or relaxation.")
    ],
    out: Annotated[Path | None, typer.Option(help="Directory; default runs/NAME-TIME.")] = None,
    base: Annotated[str | None, typer.Option(help="Scenario to start from.")] = None,
    hours: Annotated[float | None, typer.Option(help="Length of the runs [h].")] = None,
    sensitivity_hours: Annotated[
        float | None,
        typer.Option(
            help="voltage-regulation: length of the runs of its sensitivity [h]; default at most 6, 0: none."
        ),
    ] = None,
    feeder: Annotated[
        list[str] | None, typer.Option(help="relaxation: a feeder to take; repeat it. Default: all three.")
    ] = None,
    load: Annotated[
        float | None, typer.Option(help="relaxation: factor on the feeders' spot loads; default 1.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    override: SetOption = None,
    transport: TransportOption = "zmq",
    quiet: QuietOption = False,
) -> None:
    """Run several cases of a scenario and compare them; relaxation compares steps of one clearing and runs none."""
    from voltier.federates.session import run_scenario
    from voltier.federates.show import following
    from voltier.scenarios.schema import Scenario
    from voltier.scenarios.studies.attack import study_attack
    from voltier.scenarios.studies.designs import study_designs
    from voltier.scenarios.studies.relaxation import study_relaxation
    from voltier.scenarios.studies.voltage_regulation import study_voltage_regulation

    studies: dict[str, Callable[..., Any]] = {
        "designs": study_designs,
        "attack": study_attack,
        "voltage-regulation": study_voltage_regulation,
        "relaxation": study_relaxation,
    }
    if name not in studies:
        _refuse("study", name, f"take one of {', '.join(studies)}")
    overrides = _overrides(override, hours=hours, seed=seed)
    given = {"base": base, "sensitivity_hours": sensitivity_hours, "feeders": feeder, "load": load}
    chosen = _own_options(name, given | {"overrides": overrides or None})

    def run_case(case: Scenario, path: Path) -> Path:
        with following(case, quiet=quiet) as watch, _interruptible(path):
            return run_scenario(case, path, transport=transport, watch=watch)

    path = out or _fresh(Path("runs"), name)
    if name == "relaxation":
        study_relaxation(path, **chosen)
    else:
        studies[name](run_case, path, **chosen)
    if not quiet:
        typer.echo(path)


def _own_options(study_name: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given; raise InputError for one that the study does not have."""
    runs = ("designs", "attack", "voltage-regulation")
    owners = {
        "base": ("--base", runs),
        "overrides": ("--set, --hours or --seed", runs),
        "sensitivity_hours": ("--sensitivity-hours", ("voltage-regulation",)),
        "feeders": ("--feeder", ("relaxation",)),
        "load": ("--load", ("relaxation",)),
    }
    chosen = {key: value for key, value in given.items() if value is not None}
    for key, value in chosen.items():
        option, names = owners[key]
        if study_name not in names:
            _refuse(option, value, f"leave it out; the study {study_name} has none")
    return chosen


@app.command()
def export(
    target: Annotated[str, typer.Argument(metavar="gridlabd|helics")],
    scenario: ScenarioArgument,
    out: Annotated[Path, typer.Argument(metavar="DIR")],
) -> None:
    """Write a scenario for other tools (not built yet)."""
    if target not in ("gridlabd", "helics"):
        _refuse("target", target, "take gridlabd or helics")
    raise VoltierError(f"export {target} of {scenario} to {out} is not built yet; nothing was written")


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
) -> None:
    """Run one federate, or the broker; containers and schedulers start a federation with this."""
    from voltier.federates.federate import BROKER, FederateOptions, run_broker, run_federate
    from voltier.federates.ports import load_builder

    if transport not in ("zmq", "tcp"):
        _refuse("--transport", transport, "take zmq or tcp")
    if scenario is None and (role != BROKER or operators == 0):
        _refuse("--scenario", scenario, "give the config.resolved.yaml of the run")
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
        )
    )


class _Interrupted(Exception):
    """Ctrl-C, or being told to end, with what remains; typer would end silently on KeyboardInterrupt itself."""


@contextmanager
def _interruptible(run_dir: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        left = f"; {run_dir} holds what was committed, `voltier report {run_dir}` shows it"
        raise _Interrupted("interrupted" + (left if run_dir.exists() else "")) from stop


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
    except _Interrupted as error:
        return _complain(error, exit_codes.INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        return _complain(_Interrupted("interrupted"), exit_codes.INTERRUPTED)
    except OSError as error:
        return _complain(VoltierError(f"{error.filename or 'output'}: {error.strerror}"), exit_codes.FEDERATE)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.TyperException as error:
        print(f"voltier: {error.format_message()} Try voltier --help.", file=sys.stderr)
        return exit_codes.INPUT
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


def _overrides(override: list[str] | None, **named: float | None) -> list[str]:
    """Named options are overrides too, and the last word."""
    return (override or []) + [f"{key}={value}" for key, value in named.items() if value is not None]


def _fresh(folder: Path, name: str) -> Path:
    """Return a path for a new run that is not there yet."""
    from datetime import datetime

    stem = f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    path, n = folder / stem, 1
    while path.exists():
        n += 1
        path = folder / f"{stem}-{n}"
    return path


def _require_run(path: Path) -> None:
    if not (path / "manifest.json").is_file():
        _refuse("DIR", str(path), "this is no run directory; `voltier run` makes one")


def _refuse(field: str, value: object, remedy: str) -> NoReturn:
    raise InputError([Problem("command line", field, value, remedy)])


if __name__ == "__main__":
    main()
