"""Reading the properties of GridLAB-D objects: numbers with units, complex numbers, phases, references."""

from __future__ import annotations

import cmath
import re
from collections.abc import Iterable

import numpy as np

from voltier.grid.errors import Problem
from voltier.grid.readers.glm_syntax import GlmObject

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
REAL = re.compile(rf"^({NUMBER})\s*([A-Za-z%/]*)$")
COMPLEX = re.compile(rf"^({NUMBER})\s*({NUMBER})([ijdr])\s*([A-Za-z%/]*)$")
IMAGINARY = re.compile(rf"^({NUMBER})([ij])\s*([A-Za-z%/]*)$")
SCALES = {
    "ft": {
        "ft": 1.0,
        "mile": 5280.0,
        "mi": 5280.0,
        "m": 1 / 0.3048,
        "km": 1000 / 0.3048,
        "yd": 3.0,
        "in": 1 / 12,
    },
    "in": {"in": 1.0, "ft": 12.0, "mm": 1 / 25.4, "cm": 1 / 2.54, "m": 1 / 0.0254},
    "V": {"V": 1.0, "kV": 1e3, "MV": 1e6},
    "A": {"A": 1.0, "kA": 1e3},
    "VA": {
        "VA": 1.0,
        "W": 1.0,
        "VAr": 1.0,
        "kVA": 1e3,
        "kW": 1e3,
        "kVAr": 1e3,
        "MVA": 1e6,
        "MW": 1e6,
        "MVAr": 1e6,
    },
    "kVA": {"kVA": 1.0, "VA": 1e-3, "MVA": 1e3},
    "Ohm": {"Ohm": 1.0, "kOhm": 1e3},
    "Ohm/mile": {"Ohm/mile": 1.0, "Ohm/km": 1.609344, "Ohm/ft": 5280.0, "Ohm/kft": 5.28},
    "nF/mile": {"nF/mile": 1.0, "uF/mile": 1e3, "nF/km": 1.609344},
    "pu": {"pu": 1.0, "%": 0.01},
    "": {},
}


class Values:
    """The objects of a model by name, and the problems found while their properties are read."""

    def __init__(self, objects: Iterable[GlmObject], problems: list[Problem]) -> None:
        self.problems = problems
        self._by_key = {key: item for item in objects for key in item.keys}

    def refer(self, item: GlmObject, key: str, kinds: tuple[str, ...] = ()) -> GlmObject | None:
        """Find the object that a property names; None, and a problem, where there is none of these classes."""
        other = self._by_key.get(item.text.get(key, ""))
        if other is not None and (not kinds or other.kind in kinds):
            return other
        self.problems.append(item.problem(key, f"name an object of class {' or '.join(kinds) or 'node'}"))
        return None

    def find(self, name: str) -> GlmObject | None:
        """Find an object by name or class:number."""
        return self._by_key.get(name)

    def real(self, item: GlmObject, key: str, unit: str, default: float | None = None) -> float:
        """Read a number in the unit given; a missing one without default, or what is no number, is a problem."""
        value = self.complex(item, key, unit, default)
        if value.imag:
            self.problems.append(item.problem(key, "write a real number"))
        return value.real

    def complex(self, item: GlmObject, key: str, unit: str, default: complex | None = None) -> complex:
        """Read 1.5, 1+2j, 1+2i, 2+30d (degrees) or 2+0.5r (radians), with or without a unit."""
        text = item.text.get(key)
        if text is None:
            if default is None:
                self.problems.append(item.problem(key, f"give a number [{unit}]"))
            return 0j if default is None else complex(default)
        parsed = _parse(text)
        if parsed is None or not np.isfinite(parsed[0]):
            self.problems.append(
                item.problem(key, f"write a number [{unit}]; schedules and players are not read")
            )
            return 0j
        value, written = parsed
        scale = SCALES[unit].get(written) if written else 1.0
        if scale is None:
            known = ", ".join(SCALES[unit]) or "no unit"
            self.problems.append(item.problem(key, f"write the value in one of: {known}"))
            return 0j
        return value * scale

    def word(self, item: GlmObject, key: str, choices: dict[str, str], default: str | None = None) -> str:
        """Read a keyword or its number; choices : what may be written → what it means."""
        text = item.text.get(key, default if default is not None else "").upper()
        if text not in choices:
            self.problems.append(item.problem(key, f"write one of {', '.join(choices)}"))
            return ""
        return choices[text]

    def phases(self, item: GlmObject) -> tuple[int, ...]:
        """Read the phases present; D, N, G and separators carry no conductor of their own here."""
        text = item.text.get("phases", "").upper().replace("|", "").replace(" ", "")
        if not text or set(text) - set("ABCDNG"):
            self.problems.append(
                item.problem("phases", "write the phases out of A, B, C, N, D; S is not supported")
            )
            return ()
        return tuple(k for k, letter in enumerate("ABC") if letter in text)


def _parse(text: str) -> tuple[complex, str] | None:
    text = text.strip()
    # "5j" is imaginary, not five of a unit j
    if (match := REAL.match(text)) and match[2] not in ("i", "j"):
        return complex(float(match[1])), match[2]
    if match := IMAGINARY.match(text):
        return complex(0.0, float(match[1])), match[3]
    if match := COMPLEX.match(text):
        first, second, kind, unit = float(match[1]), float(match[2]), match[3], match[4]
        if kind in "ij":
            return complex(first, second), unit
        return cmath.rect(first, np.deg2rad(second) if kind == "d" else second), unit
    return None
