"""What a power-flow engine takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, Problem

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class OwnPower:
    """What devices that live in the engine injected beside the injections given, load negative.

    p_kw, q_kvar : (n_bus, 3) into the feeder, as the power flow saw it
    object_p_kw, object_q_kvar : (n,) of each device, at its own meter
    temp_indoor_c, soc : (n,) indoor temperature, state of charge of 0 to 1; nan where a device has none
    """

    p_kw: Array
    q_kvar: Array
    object_p_kw: Array
    object_q_kvar: Array
    temp_indoor_c: Array
    soc: Array


@dataclass(frozen=True, slots=True)
class Flow:
    """A solved power flow of a feeder.

    v_pu : (n_bus, 3) complex phase-to-ground voltages over kv_ll/√3, nan where there is no fed phase
    p_cc_kw, q_cc_kvar : (3,) injection of the feeder into the bulk grid by phase, import negative [kW, kvar]
    loss_kw : series losses of the feeder [kW]
    i_regulator_a : (n_reg,) complex current through each regulator towards to_bus, at to_bus [A]
    converged : whether the engine met its tolerance
    own : of the devices that live in the engine, None where none do; their losses are not in loss_kw
    note : what an observer should know of how this solution came about, "" where nothing was out of the ordinary
    """

    v_pu: Complex
    p_cc_kw: Array
    q_cc_kvar: Array
    loss_kw: float
    i_regulator_a: Complex
    converged: bool
    note: str = ""
    own: OwnPower | None = None


class PowerFlow(Protocol):
    """An engine that solves one feeder again and again."""

    def solve(self, p_kw: Array, q_kvar: Array, tap: Index) -> Flow:
        """Solve for constant-power injections at every bus and phase.

        p_kw, q_kvar : (n_bus, 3) injections, load negative [kW, kvar]; zero where there is no phase
        tap : (n_reg,) regulator positions, rows of feeder.regulators
        Raises NotConvergedError when the iteration ends without a solution, InputError when the engine cannot
        represent the case.
        """
        ...


@runtime_checkable
class Clocked(Protocol):
    """An engine in which time passes."""

    def begin(self, t_s: int) -> None:
        """Say the simulated second, a whole minute, that the next solutions are for; it never goes back."""
        ...


def check_places(bus: tuple[str, ...], mask: Mask, p_kw: Array, q_kvar: Array) -> None:
    """Raise InputError where power is injected outside what an engine serves; arrays are (n_bus, 3)."""
    if not (p_kw[~mask].any() or q_kvar[~mask].any()):
        return
    remedy = "inject only where the bus has the phase and a ground reference, and is joined to the source"
    places = zip(*np.nonzero(~mask & ((p_kw != 0) | (q_kvar != 0))), strict=True)
    raise InputError(
        [
            Problem(
                f"injections, bus {bus[i]} phase {'abc'[k]}",
                "p_kw, q_kvar",
                (p_kw[i, k], q_kvar[i, k]),
                remedy,
            )
            for i, k in places
        ]
    )
