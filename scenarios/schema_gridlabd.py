"""The section of a scenario about what lives in the engine gridlabd beside the market."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from voltier.scenarios.schema_sections import Section

_MOST = 2000


class GridlabdSection(Section):
    """Houses, batteries and arrays simulated by GridLAB-D; no market knows them. Needs feeder.engine gridlabd."""

    houses: Annotated[
        int, Field(ge=0, le=_MOST, description="houses with heat pump, thermostat, lights, plugs and people")
    ] = 0
    batteries: Annotated[
        int,
        Field(ge=0, le=_MOST, description="batteries that follow the net load of the premises they stand at"),
    ] = 0
    pv: Annotated[int, Field(ge=0, le=_MOST, description="arrays with inverter, at unity power factor")] = 0
