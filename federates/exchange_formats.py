"""Scenarios and feeders in the formats of other tools, on the command line: `voltier export`, `voltier import`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from voltier.federates.options import ScenarioArgument, SetOption, refuse, require_run

exports = typer.Typer(
    name="export",
    help="Write a scenario for other tools. `voltier export gridlabd --help` tells more.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


@exports.callback()
def _writing() -> None:
    """Write a scenario for other tools."""


@exports.command("gridlabd")
def export_to_gridlabd(
    scenario: ScenarioArgument,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make; empty or not there yet.")],
    run: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", help="Finished run whose net loads and taps drive the model."),
    ] = None,
    override: SetOption = None,
) -> None:
    """Write the scenario's feeder as a GridLAB-D case that runs as it is.

    network.glm, model.glm (with a player file for each load point and recorders), model_helics.glm and helics.json for
    a GridLAB-D built with HELICS, federate.json for the pip package, and README.txt, which says how to run each.
    Without --run the loads are the feeder's published spot loads.

    Example: voltier run ieee123-hour --out runs/hour, then voltier export gridlabd ieee123-hour case --run runs/hour
    """
    from voltier.scenarios.exchange import export_gridlabd
    from voltier.scenarios.schema import load_scenario

    if run is not None:
        require_run(run)
    _refuse_full(out)
    write_files(out, export_gridlabd(load_scenario(scenario, override or []), run))
    typer.echo(out / "README.txt")


imports = typer.Typer(
    name="import",
    help="Read feeders of other tools. `voltier import gridlabd --help` tells more.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


@imports.callback()
def _reading() -> None:
    """Read feeders of other tools."""


@imports.command("gridlabd")
def import_from_gridlabd(
    model: Annotated[Path, typer.Argument(metavar="FILE.glm", help="Model to read, with what it includes.")],
    out: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder to make; default: named after the file.")
    ] = None,
) -> None:
    """Make a market's feeder of a GridLAB-D model.

    Writes feeder/ (tables that feeder.name takes), topics.json (which object and property stands behind each topic of a
    bus and phase) and scenario.yaml, to start from. Every problem is told at once, with file, object, property, remedy.

    Example: voltier import gridlabd IEEE-34.glm mine, then voltier validate mine/scenario.yaml
    """
    from voltier.scenarios.build import check_data
    from voltier.scenarios.exchange_import import SCENARIO, import_gridlabd
    from voltier.scenarios.schema import load_scenario

    folder = out or Path(model.stem)
    _refuse_full(folder)
    found = import_gridlabd(model)
    write_files(folder, found.files)
    scenario = load_scenario(folder / SCENARIO)
    check_data(scenario)
    for note in found.notes:
        typer.echo(f"note: {note}")
    feeder = found.feeder
    typer.echo(
        f"{len(feeder.bus)} buses, {len(feeder.lines.name)} lines, {len(feeder.load_buses)} load buses"
    )
    typer.echo(folder / SCENARIO)


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write texts into a folder. files : path within it → text."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _refuse_full(folder: Path) -> None:
    """Raise InputError for a folder that holds something: two cases must not mix."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        refuse("DIR", str(folder), "name a folder that is empty or not there yet")
