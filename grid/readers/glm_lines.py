"""GridLAB-D lines: configurations by conductor geometry or by matrices, to elements in siemens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voltier.grid.readers.circuit import Complex, Element
from voltier.grid.readers.glm_syntax import GlmObject
from voltier.grid.readers.glm_values import Values
from voltier.grid.readers.line_constants import (
    cable_capacitance_uf_per_mile,
    capacitance_uf_per_mile,
    carson_ohm_per_mile,
    concentric_neutral_ft,
    without_grounded,
)

Array = NDArray[np.float64]
FEET_PER_MILE = 5280.0
CONDUCTORS = ("overhead_line_conductor", "underground_line_conductor")
SYMMETRY = 1e-3  # of the largest entry; published matrices are rounded to four digits
OHM_PER_MILE, NF_PER_MILE = "Ohm/mile", "nF/mile"


@dataclass(frozen=True, slots=True)
class LineSettings:
    """What the powerflow module says for all lines: frequency [Hz] and whether lines have capacitance."""

    frequency_hz: float
    capacitance: bool


@dataclass(frozen=True, slots=True)
class _PerMile:
    """Series impedance [ohm/mile] and capacitance [µF/mile] between the phases of a line."""

    z_ohm: Complex
    c_uf: Array


def line_element(
    values: Values, line: GlmObject, ends: tuple[str, str], phases: tuple[int, ...], settings: LineSettings
) -> Element | None:
    """Give the element of an overhead or underground line; None, and problems, where it cannot be read."""
    config = values.refer(line, "configuration", ("line_configuration",))
    length_ft = values.real(line, "length", "ft")
    if config is None or not phases:
        return None
    before = len(values.problems)
    per_mile = _per_mile(values, line, config, phases, settings)
    i_max_a = _rating(values, config, phases)
    if not length_ft > 0:
        values.problems.append(line.problem("length", "write a length above zero"))
    if len(values.problems) > before:
        return None
    miles = length_ft / FEET_PER_MILE
    series = np.linalg.inv(per_mile.z_ohm * miles)
    half = 0.5j * 2.0 * np.pi * settings.frequency_hz * 1e-6 * per_mile.c_uf * miles
    return Element(
        name=line.name,
        from_terminals=tuple((ends[0], phase) for phase in phases),
        to_terminals=tuple((ends[1], phase) for phase in phases),
        y_siemens=np.block([[series + half, -series], [-series, series + half]]),
        i_max_a=i_max_a,
    )


def _per_mile(
    values: Values, line: GlmObject, config: GlmObject, phases: tuple[int, ...], settings: LineSettings
) -> _PerMile:
    if any(f"z{k}{k}" in config.text for k in (1, 2, 3)):
        z_ohm = _matrix(values, config, "z", OHM_PER_MILE, phases)
        c_nf = _matrix(values, config, "c", NF_PER_MILE, phases).real
        return _PerMile(z_ohm, c_nf * 1e-3 * settings.capacitance)
    spacing = values.refer(config, "spacing", ("line_spacing",))
    letters = ["ABC"[phase] for phase in phases]
    wires = [values.refer(config, f"conductor_{letter}", CONDUCTORS) for letter in letters]
    neutral = values.refer(config, "conductor_N", CONDUCTORS) if "conductor_N" in config.text else None
    neutral = neutral if "N" in line.text.get("phases", "").upper() else None
    found = [wire for wire in wires if wire is not None]
    if spacing is None or len(found) < len(wires):
        return _nothing(len(phases))
    kinds = {wire.kind for wire in [*found, *([neutral] if neutral else [])]}
    if len(kinds) > 1:
        values.problems.append(
            config.problem("conductor_A", "use overhead or underground conductors, not both")
        )
        return _nothing(len(phases))
    letters += ["N"] if neutral else []
    if kinds == {"overhead_line_conductor"}:
        return _overhead(
            values, spacing, letters, [*found, *([neutral] if neutral else [])], len(phases), settings
        )
    return _underground(values, spacing, letters, found, neutral, settings)


def _nothing(count: int) -> _PerMile:
    return _PerMile(np.eye(count, dtype=np.complex128), np.zeros((count, count)))


def _matrix(values: Values, config: GlmObject, letter: str, unit: str, phases: tuple[int, ...]) -> Complex:
    """Read z11 ... z33 or c11 ... c33; what is missing is zero, and both halves must be alike."""
    matrix = np.zeros((3, 3), dtype=np.complex128)
    for i in range(3):
        for j in range(3):
            matrix[i, j] = values.complex(config, f"{letter}{i + 1}{j + 1}", unit, 0.0)
    for i, j in ((i, j) for i in phases for j in phases if i < j):
        if abs(matrix[i, j] - matrix[j, i]) > SYMMETRY * np.abs(matrix).max():
            remedy = f"write the same number as for {letter}{i + 1}{j + 1}; GridLAB-D mirrors nothing"
            values.problems.append(config.problem(f"{letter}{j + 1}{i + 1}", remedy))
    missing = [phase for phase in phases if letter == "z" and matrix[phase, phase] == 0]
    remedy = "give the self impedance of every phase of the line"
    values.problems += [config.problem(f"z{phase + 1}{phase + 1}", remedy) for phase in missing]
    return matrix[np.ix_(phases, phases)] if not missing else np.eye(len(phases), dtype=np.complex128)


def _distances(values: Values, spacing: GlmObject, letters: list[str]) -> Array:
    """Read distance_AB and the like [ft]; the diagonal stays zero."""
    distance_ft = np.zeros((len(letters), len(letters)))
    for i, one in enumerate(letters):
        for j, other in enumerate(letters[:i]):
            here, there = f"distance_{other}{one}", f"distance_{one}{other}"
            key = here if here in spacing.text else there
            distance_ft[i, j] = distance_ft[j, i] = values.real(spacing, key, "ft")
            if not distance_ft[i, j] > 0:
                values.problems.append(spacing.problem(key, "give the distance between the conductors"))
                distance_ft[i, j] = distance_ft[j, i] = 1.0
    return distance_ft


def _positive(values: Values, wire: GlmObject, key: str, unit: str) -> float:
    value = values.real(wire, key, unit)
    if not value > 0:
        values.problems.append(wire.problem(key, "write a number above zero"))
    return value if value > 0 else 1.0


def _overhead(
    values: Values,
    spacing: GlmObject,
    letters: list[str],
    wires: list[GlmObject],
    kept: int,
    settings: LineSettings,
) -> _PerMile:
    distance_ft = _distances(values, spacing, letters)
    r_ohm = np.array([_positive(values, wire, "resistance", OHM_PER_MILE) for wire in wires])
    gmr_ft = np.array([_positive(values, wire, "geometric_mean_radius", "ft") for wire in wires])
    z_ohm = carson_ohm_per_mile(r_ohm, distance_ft + np.diag(gmr_ft), settings.frequency_hz)
    c_uf = np.zeros((kept, kept))
    if settings.capacitance:
        radius_ft = np.array([_positive(values, wire, "diameter", "in") for wire in wires]) / 24.0
        height_ft = np.array([_positive(values, spacing, f"distance_{letter}E", "ft") for letter in letters])
        c_uf = capacitance_uf_per_mile(distance_ft + np.diag(radius_ft), height_ft, kept)
    return _PerMile(without_grounded(z_ohm, kept), c_uf)


def _underground(
    values: Values,
    spacing: GlmObject,
    letters: list[str],
    wires: list[GlmObject],
    neutral: GlmObject | None,
    settings: LineSettings,
) -> _PerMile:
    """Cables with concentric neutral strands, a tape shield, or neither; their grounded parts are eliminated."""
    kept, between = len(wires), _distances(values, spacing, letters)
    core = wires if neutral is None else [*wires, neutral]
    r_ohm = [_positive(values, wire, "conductor_resistance", OHM_PER_MILE) for wire in core]
    gmr_ft = [_positive(values, wire, "conductor_gmr", "ft") for wire in core]
    index, own_ft, c_uf = list(range(len(core))), np.diag(gmr_ft), np.zeros(kept)
    rings: list[tuple[int, float]] = []
    for k, wire in enumerate(wires):
        ring = _ring(values, wire)
        if ring is not None:
            ring_r, ring_gmr_ft, circle_ft, strand_in, strands = ring
            rings.append((len(index), circle_ft))
            index.append(k)
            r_ohm.append(ring_r)
            gmr_ft.append(ring_gmr_ft)
            if settings.capacitance:
                conductor_ft = _positive(values, wire, "conductor_diameter", "in") / 24.0
                permittivity = values.real(wire, "insulation_relative_permitivitty", "", 1.0)
                c_uf[k] = cable_capacitance_uf_per_mile(
                    permittivity, circle_ft, conductor_ft, strand_in / 24.0, strands
                )
    # a ring is as far from other cables as its own core is, and from its core as its radius
    distance_ft = (between + own_ft)[np.ix_(index, index)]
    for row, circle_ft in rings:
        core_row = index[row]
        distance_ft[row, core_row] = distance_ft[core_row, row] = circle_ft
    np.fill_diagonal(distance_ft, gmr_ft)
    z_ohm = carson_ohm_per_mile(np.array(r_ohm), distance_ft, settings.frequency_hz)
    return _PerMile(without_grounded(z_ohm, kept), np.diag(c_uf))


def _ring(values: Values, wire: GlmObject) -> tuple[float, float, float, float, int] | None:
    """Give resistance [ohm/mile], mean radius [ft], circle [ft], strand diameter [in] and number of strands."""
    if values.real(wire, "shield_gmr", "ft", 0.0) > 0:
        gmr_ft = values.real(wire, "shield_gmr", "ft")
        return _positive(values, wire, "shield_resistance", OHM_PER_MILE), gmr_ft, gmr_ft, 0.0, 0
    strands = round(values.real(wire, "neutral_strands", "", 0.0))
    if strands == 0 or values.real(wire, "neutral_gmr", "ft", 0.0) == 0:
        return None
    strand_in = _positive(values, wire, "neutral_diameter", "in")
    circle_ft = (_positive(values, wire, "outer_diameter", "in") - strand_in) / 24.0
    gmr_ft = concentric_neutral_ft(_positive(values, wire, "neutral_gmr", "ft"), strands, circle_ft)
    return (
        _positive(values, wire, "neutral_resistance", OHM_PER_MILE) / strands,
        gmr_ft,
        circle_ft,
        strand_in,
        strands,
    )


def _rating(values: Values, config: GlmObject, phases: tuple[int, ...]) -> float:
    """Give the lowest continuous summer rating of the conductors or of the configuration, inf without one."""
    letters = ["ABC"[phase] for phase in phases]
    named = [values.find(config.text.get(f"conductor_{letter}", "")) for letter in letters]
    rated = [
        item for item in (config, *named) if item is not None and "rating.summer.continuous" in item.text
    ]
    return min((values.real(item, "rating.summer.continuous", "A") for item in rated), default=float("inf"))
