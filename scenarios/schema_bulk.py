"""The section of a scenario that puts a transmission grid above the feeder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from voltier.scenarios.schema_sections import ClockTime, Section


class BulkSection(Section):
    """The transmission grid above the feeder, simulated in the time domain; needs the extra voltier[bulk]."""

    system: Annotated[
        Literal["kundur"],
        Field(description="kundur: two areas, four machines of 900 MVA with governors, no secondary control"),
    ] = "kundur"
    copies: Annotated[
        int, Field(gt=0, description="feeders like this one that area 2 carries, in place of as much load")
    ] = 550
    start: Annotated[
        ClockTime | None,
        Field(
            description='wall-clock time, "HH:MM", at which it is in equilibrium and its records begin; by default a '
            "quarter of an hour before the attack, or the start of the run"
        ),
    ] = None
