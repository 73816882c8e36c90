"""The studies on the command line, a command each with its own options: `voltier study NAME`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voltier.federates.interruption import interruptible
from voltier.federates.options import (
    HoursOption,
    QuietOption,
    SeedOption,
    SetOption,
    TransportOption,
    fresh,
    overrides,
    refuse,
)

if TYPE_CHECKING:
    from voltier.scenarios.schema import Scenario

studies = typer.Typer(
    name="study",
    help="Run a study into a directory of its own, with kpis.json and a page. `voltier study NAME --help` tells more.",
    rich_markup_mode=None,
)


@studies.callback(invoke_without_command=True)
def _without_study(context: typer.Context) -> None:
    """Print the help when no study is named."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


OutOption = Annotated[Path | None, typer.Option(help="Directory; default runs/NAME-TIME.")]
BaseOption = Annotated[str | None, typer.Option(help="Scenario to start from.")]


@studies.command()
def designs(
    out: OutOption = None,
    base: BaseOption = None,
    hours: HoursOption = None,
    seed: SeedOption = None,
    override: SetOption = None,
    transport: TransportOption = "zmq",
    quiet: QuietOption = False,
) -> None:
    """Compare market designs on one day.

    Without a market, with the primary market alone, with the whole hierarchy; consumer market on and off.
    """
    from voltier.scenarios.studies.designs import study_designs

    path = out or fresh(Path("runs"), "designs")
    changes = overrides(override, hours=hours, seed=seed)
    study_designs(_runner(transport, quiet=quiet), path, overrides=changes, **_given(base=base))
    _tell(path, quiet=quiet)


@studies.command()
def attack(
    out: OutOption = None,
    base: BaseOption = None,
    hours: HoursOption = None,
    seed: SeedOption = None,
    override: SetOption = None,
    transport: TransportOption = "zmq",
    quiet: QuietOption = False,
) -> None:
    """Run an attack with and without mitigation."""
    from voltier.scenarios.studies.attack import study_attack

    path = out or fresh(Path("runs"), "attack")
    changes = overrides(override, hours=hours, seed=seed)
    study_attack(_runner(transport, quiet=quiet), path, overrides=changes, **_given(base=base))
    _tell(path, quiet=quiet)


@studies.command()
def transmission(
    out: OutOption = None,
    base: BaseOption = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Take the runs of this `voltier study attack` directory; nothing is run anew."
        ),
    ] = None,
    copies: Annotated[
        int | None, typer.Option(min=1, help="Feeders like this one in area 2; default 550.")
    ] = None,
    ideal: Annotated[
        bool,
        typer.Option(
            "--ideal", help="Play the published figures, 359 MW and the answer to it; runs nothing."
        ),
    ] = False,
    hours: HoursOption = None,
    seed: SeedOption = None,
    override: SetOption = None,
    transport: TransportOption = "zmq",
    quiet: QuietOption = False,
) -> None:
    """Play an attack into a transmission grid.

    Many feeders like one, and Kundur's two areas in the time domain, with the market's answer and without: lowest
    frequency, its rate of change, where it settles, the flow between the areas. Needs the extra voltier[bulk].

    Example: voltier study attack --out runs/attack && voltier study transmission --run runs/attack
    """
    from voltier.scenarios.studies.transmission import study_ideal, study_transmission

    path = out or fresh(Path("runs"), "transmission")
    changes = overrides(override, hours=hours, seed=seed)
    taken = {
        "--base": base,
        "--run": run,
        "--copies": copies,
        "--hours": hours,
        "--seed": seed,
        "--set": override,
    }
    given = [name for name, value in taken.items() if value is not None]
    with _case_progress(quiet=quiet) as progress:
        if ideal:
            if given:
                refuse(given[0], taken[given[0]], "leave it out: --ideal has everything published")
            study_ideal(path, progress=progress)
        else:
            clash = [name for name in given if name not in ("--run", "--copies")]
            if run is not None and clash:
                refuse(clash[0], taken[clash[0]], "leave it out: with --run the runs are there already")
            study_transmission(
                _runner(transport, quiet=quiet),
                path,
                overrides=changes,
                progress=progress,
                **_given(base=base, runs=run, copies=copies),
            )
    _tell(path, quiet=quiet)


@studies.command()
def voltage_regulation(
    out: OutOption = None,
    base: BaseOption = None,
    hours: HoursOption = None,
    sensitivity_hours: Annotated[
        float | None,
        typer.Option(help="Length of the runs of the sensitivity to sizes [h]; default at most 6, 0: none."),
    ] = None,
    seed: SeedOption = None,
    override: SetOption = None,
    transport: TransportOption = "zmq",
    quiet: QuietOption = False,
) -> None:
    """Voltages under the designs, phase by phase.

    With a weight on voltage too, and with the sensitivity to sizes of devices.
    """
    from voltier.scenarios.studies.voltage_regulation import study_voltage_regulation

    path = out or fresh(Path("runs"), "voltage-regulation")
    changes = overrides(override, hours=hours, seed=seed)
    study_voltage_regulation(
        _runner(transport, quiet=quiet),
        path,
        overrides=changes,
        **_given(base=base, sensitivity_hours=sensitivity_hours),
    )
    _tell(path, quiet=quiet)


@studies.command()
def relaxation(
    out: OutOption = None,
    feeder: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A feeder to take; repeat it. Default: all three."),
    ] = None,
    load: Annotated[float | None, typer.Option(help="Factor on the feeders' spot loads; default 1.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Cure the relaxation of a clearing, step by step.

    From plain envelopes to the exact three-phase dispatch: losses, bound and time of every step. Runs no day.
    """
    from voltier.scenarios.studies.relaxation import study_relaxation

    path = out or fresh(Path("runs"), "relaxation")
    study_relaxation(path, **_given(feeders=feeder, load=load))
    _tell(path, quiet=quiet)


@studies.command()
def distributed_clearing(
    out: OutOption = None,
    feeder: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A feeder to take; repeat it. Default: ieee13, ieee34, ieee123."),
    ] = None,
    formulation: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="branch_flow or current_injection; repeat it. Default: both."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="pac, nst-pac or admm; repeat it. Default: all three."),
    ] = None,
    copies: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help="Copies of IEEE 123 to time a round of; repeat it, 0 for none. Default: 4, 16, 64.",
        ),
    ] = None,
    feeder_files: Annotated[
        Path | None,
        typer.Option(
            envvar="VOLTIER_FEEDER_FILES", help="Folder with opendss/8500-Node, to time that feeder too."
        ),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Let atoms clear the primary market and compare with the central clearing.

    An atom at every node tells its neighbours alone, by PAC, NST-PAC or ADMM: rounds to an accuracy, differences of
    cost, set-points and prices beside their targets, what is told to whom, time by number of atoms. Runs no day.

    Example: voltier study distributed-clearing --feeder ieee13 --copies 0
    """
    from voltier.federates.show import saying
    from voltier.scenarios.studies.distributed_clearing import study_distributed_clearing

    path = out or fresh(Path("runs"), "distributed-clearing")
    chosen = _given(
        feeders=feeder, formulations=formulation, methods=method, copies=copies, feeder_files=feeder_files
    )
    with saying("distributed-clearing", quiet=quiet) as tell:
        study_distributed_clearing(path, tell=tell, **chosen)
    _tell(path, quiet=quiet)


@studies.command()
def consumer_market(
    out: OutOption = None,
    base: BaseOption = None,
    day: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM-DD", help="Day of the prices; default that of the scenario."),
    ] = None,
    step_minutes: Annotated[
        int | None, typer.Option(help="Period of the market, 5 to 60 min; default 15.")
    ] = None,
    instances: Annotated[
        int | None, typer.Option(help="Random markets to measure incentives on; default 200.")
    ] = None,
    seed: SeedOption = None,
    override: SetOption = None,
    quiet: QuietOption = False,
) -> None:
    """Take one consumer market apart.

    One operator and three agents over a day of California's weather and prices. Every period is checked by brute
    force, and what the game does to its agents stands beside three other rules. Takes seconds and no federation;
    reads only inputs.* of a scenario.

    Example: voltier study consumer-market --day 2020-08-24 --step-minutes 30 --seed 7
    """
    from voltier.scenarios.studies.consumer_market import study_consumer_market

    path = out or fresh(Path("runs"), "consumer-market")
    study_consumer_market(
        path,
        overrides=override or [],
        **_given(base=base, day=day, step_minutes=step_minutes, instances=instances, seed=seed),
    )
    _tell(path, quiet=quiet)


@studies.command()
def duck_curve(
    out: OutOption = None,
    day: Annotated[
        str | None, typer.Option(metavar="MM-DD", help="Day of the typical year; default 03-31.")
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Batteries begin min, mid or full; repeat it. Default: all three, mid first."
        ),
    ] = None,
    max_rounds: Annotated[
        int | None, typer.Option(help="Most rounds of each of two stages of NST-PAC; default 3000.")
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option(help="Also other days and other readings of the source, without a network.")
    ] = True,
    seed: Annotated[int | None, typer.Option(help="Seed of the shifts of flexible loads; default 1.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Flatten the duck curve of an unbalanced feeder.

    IEEE 34 with photovoltaics, flexible loads and three batteries over a day in San Francisco: no control, agents
    that lower their own peaks, and network-aware control of the import's ramps by NST-PAC, beside the published
    figures. Each dispatch goes through an OpenDSS power flow. Takes a few minutes and no federation.

    Example: voltier study duck-curve --day 06-15 --start mid --no-sensitivity
    """
    from voltier.scenarios.studies.duck_curve import study_duck_curve

    path = out or fresh(Path("runs"), "duck-curve")
    study_duck_curve(
        path,
        sensitivity=sensitivity,
        tell=(lambda _: None) if quiet else typer.echo,
        **_given(day=day, starts=start, max_rounds=max_rounds, seed=seed),
    )
    _tell(path, quiet=quiet)


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that were given; a study has its own defaults for the others."""
    return {name: value for name, value in options.items() if value is not None}


def _runner(transport: str, *, quiet: bool) -> Callable[[Scenario, Path], Path]:
    """Return what runs one case of a study as a federation."""
    from voltier.federates.session import run_scenario
    from voltier.federates.show import following

    def run_case(case: Scenario, path: Path) -> Path:
        with following(case, quiet=quiet) as watch, interruptible(path):
            return run_scenario(case, path, transport=transport, watch=watch)

    return run_case


@contextmanager
def _case_progress(*, quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """Show how far the cases of a study are, a bar each, as they report it."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    console = Console(stderr=True)
    bars = Progress(console=console, disable=quiet or not console.is_terminal)
    tasks: dict[str, TaskID] = {}

    def show(case: str, done: float) -> None:
        if not tasks:
            bars.start()
        if case not in tasks:
            tasks[case] = bars.add_task(case, total=1.0)
        bars.update(tasks[case], completed=done)

    try:
        yield show
    finally:
        bars.stop()


def _tell(path: Path, *, quiet: bool) -> None:
    if not quiet:
        typer.echo(path)
