"""`voltier export ...`: scenarios for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from voltier.federates.options import HoursOption, ScenarioArgument, SetOption, overrides

export = typer.Typer(
    name="export", help="Write a scenario for other tools.", no_args_is_help=True, rich_markup_mode=None
)


@export.callback()
def _group() -> None:
    """Write a scenario for other tools."""


@export.command("helics")
def helics(
    scenario: ScenarioArgument,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="New folder.")],
    hours: HoursOption = None,
    override: SetOption = None,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65534, help="Port of the broker, which takes the next one too; 0: a free one."
        ),
    ] = 0,
) -> None:
    """Write a HELICS federation: runner file, a configuration for each federate, message schemas, README.txt.

    `helics run --path=DIR/runner.json` runs it and gives the tables of `voltier run`.
    """
    from voltier.federates.export_helics import export_helics
    from voltier.federates.helics import free_port
    from voltier.federates.wiring import LOOPBACK
    from voltier.scenarios.schema import load_scenario

    case = load_scenario(scenario, overrides(override, hours=hours))
    typer.echo(export_helics(case, out, port=port or free_port(LOOPBACK)))
