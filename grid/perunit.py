"""The bases on which ohm, ampere and volt become per unit, and back; power is a plain quotient by s_base_kva.

Bases are of three phases: power s_base_kva, voltage line to line in kV, current of one line wire.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PerUnit:
    """Bases of a place in the network.

    s_base_kva : three-phase power [kVA]
    kv_ll : nominal line-to-line voltage [kV], a number or one per row
    """

    s_base_kva: float
    kv_ll: float | Array

    @property
    def z_base_ohm(self) -> float | Array:
        """Impedance of a phase that draws a third of s_base_kva at nominal voltage [ohm]."""
        return 1000.0 * self.kv_ll**2 / self.s_base_kva

    @property
    def i_base_a(self) -> float | Array:
        """Line current at s_base_kva and nominal voltage [A]."""
        return self.s_base_kva / (np.sqrt(3.0) * self.kv_ll)

    @property
    def v_base_v(self) -> float | Array:
        """Nominal phase-to-neutral voltage [V]."""
        return 1000.0 * self.kv_ll / np.sqrt(3.0)
