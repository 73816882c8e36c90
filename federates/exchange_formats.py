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
