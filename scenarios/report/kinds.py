"""Names and colours of the kinds of device, by their column in the table of devices."""

from __future__ import annotations

from collections.abc import Iterable

from voltier.scenarios.report.style import CASE_COLORS, COLOR

KINDS: dict[str, tuple[str, str]] = {
    "base_kw": ("fixed load", COLOR["base"]),
    "hvac_kw": ("HVAC", COLOR["hvac"]),
    "water_heater_kw": ("water heater", COLOR["water_heater"]),
    "deferrable_kw": ("deferrable load", COLOR["losses"]),
    "block_kw": ("flexible block", COLOR["generator"]),
    "ev_kw": ("EV", COLOR["ev"]),
    "battery_kw": ("battery", COLOR["battery"]),
    "pv_kw": ("PV", COLOR["pv"]),
}
"""In the order in which they are stacked."""


def kinds_of(columns: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return column → (name, colour) of the powers among some columns; kinds unknown here take a spare colour."""
    present = [column for column in columns if column.endswith("_kw")]
    others = sorted(set(present) - KINDS.keys())
    named = {column: KINDS[column] for column in KINDS if column in present}
    return named | {
        column: (column.removesuffix("_kw").replace("_", " "), CASE_COLORS[-1 - i % len(CASE_COLORS)])
        for i, column in enumerate(others)
    }
