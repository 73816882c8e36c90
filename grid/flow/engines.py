"""Power-flow engines by name."""

from __future__ import annotations

from collections.abc import Callable

from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import Feeder
from voltier.grid.flow.port import PowerFlow


def _opendss(feeder: Feeder) -> PowerFlow:
    from voltier.grid.flow.opendss import OpenDssFlow

    return OpenDssFlow(feeder)


def _pandapower_balanced(feeder: Feeder) -> PowerFlow:
    from voltier.grid.flow.pandapower import PandapowerFlow

    return PandapowerFlow(feeder, phases="balanced")


def _pandapower_three_phase(feeder: Feeder) -> PowerFlow:
    from voltier.grid.flow.pandapower import PandapowerFlow

    return PandapowerFlow(feeder, phases="three")


def _power_grid_model(feeder: Feeder) -> PowerFlow:
    from voltier.grid.flow.power_grid_model import PowerGridModelFlow

    return PowerGridModelFlow(feeder)


# each tool is imported when it is asked for: pandapower takes seconds
ENGINES: dict[str, Callable[[Feeder], PowerFlow]] = {
    "opendss": _opendss,
    "pandapower-balanced": _pandapower_balanced,
    "pandapower-three-phase": _pandapower_three_phase,
    "power-grid-model": _power_grid_model,
}

BALANCED = "pandapower-balanced"

SEQUENCE_ENGINES = ("pandapower-three-phase",)
"""Engines that know lines by sequence impedances only, as if every line were transposed."""


def three_phase_engines() -> tuple[str, ...]:
    """Name the engines that solve each phase by itself, and so can judge one another."""
    return tuple(name for name in ENGINES if name != BALANCED)


def engine(name: str, feeder: Feeder) -> PowerFlow:
    """Build the engine of this name for a feeder.

    Raises InputError for an unknown name, for a tool that is not installed, and for a feeder it cannot represent.
    """
    if name not in ENGINES:
        raise InputError([Problem("power flow", "engine", name, f"choose one of {', '.join(ENGINES)}")])
    try:
        return ENGINES[name](feeder)
    except ModuleNotFoundError as error:
        remedy = f"the package {error.name} is not installed: pip install 'voltier[crosscheck]'"
        raise InputError([Problem("power flow", "engine", name, remedy)]) from error
