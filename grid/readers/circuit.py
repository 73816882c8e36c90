"""What network files describe: elements between terminals, in siemens, volt and watt, angles as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Complex = NDArray[np.complex128]
Terminal = tuple[str, int]
"""A bus and its phase 0, 1 or 2."""


@dataclass(frozen=True, slots=True)
class Element:
    """A line, transformer, capacitor or other linear element between at most two buses.

    from_terminals, to_terminals : at most three each, those of a side at one bus; a shunt has no to_terminals
    y_siemens : (k, k) admittance between the terminals in that order
    i_max_a : rating of a wire at the from side, inf where none is known
    """

    name: str
    from_terminals: tuple[Terminal, ...]
    to_terminals: tuple[Terminal, ...]
    y_siemens: Complex
    i_max_a: float = np.inf


@dataclass(frozen=True, slots=True)
class Link:
    """An ideal switch or regulator on one phase: v(to) = ratio·v(from)."""

    name: str
    from_terminal: Terminal
    to_terminal: Terminal
    ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Draw:
    """Consumption from a terminal to another, or to ground (None); a generator draws less than nothing.

    s = s_power + s_current·u + s_impedance·u² with u the magnitude of the voltage across, over v_nominal_v
    """

    name: str
    plus: Terminal
    minus: Terminal | None
    v_nominal_v: float
    s_power_va: complex = 0j
    s_current_va: complex = 0j
    s_impedance_va: complex = 0j


@dataclass(frozen=True, slots=True)
class Circuit:
    """A whole network.

    file : for messages ; v_base_v : base voltage of each bus, phase to neutral [V]
    source_bus, source_v, source_angle_rad : bus of the stiff source, its phase-to-neutral magnitude [V], and the
    angle of its phase a; phases b and c lag and lead it by 120 degrees
    """

    file: str
    v_base_v: dict[str, float]
    source_bus: str
    source_v: float
    source_angle_rad: float
    elements: Sequence[Element]
    links: Sequence[Link]
    draws: Sequence[Draw]
