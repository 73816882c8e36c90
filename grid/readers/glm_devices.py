"""GridLAB-D transformers, regulators, switches, capacitors and loads, in siemens, volt and watt."""

from __future__ import annotations

import re

import numpy as np

from voltier.grid.readers.circuit import Complex, Draw, Element, Link
from voltier.grid.readers.glm_syntax import GlmObject
from voltier.grid.readers.glm_values import Values
from voltier.grid.threephase import ANGLE_RAD

THREE = (0, 1, 2)
FLOAT_SHARE = 1e-6
"""Reactive power at nominal voltage, as a share of the rating, that ties a delta secondary to ground."""
TRANSFORMER_KINDS = {
    "WYE_WYE": "wye",
    "1": "wye",
    "SINGLE_PHASE": "single",
    "4": "single",
    "DELTA_DELTA": "delta",
    "2": "delta",
    "DELTA_GWYE": "delta_wye",
    "3": "delta_wye",
}
WYE_REGULATOR = {"WYE_WYE": "wye", "1": "wye"}
SWITCH_STATES = {"OPEN": "open", "0": "open", "CLOSED": "closed", "1": "closed"}
FUSE_STATES = {
    "BLOWN": "open",
    "GOOD": "closed",
    "OPEN": "open",
    "CLOSED": "closed",
    "0": "open",
    "1": "closed",
}
MODES = {"BANKED": "bank", "1": "bank", "INDIVIDUAL": "single", "0": "single"}
PAIRS = {"AB": (0, 1), "BC": (1, 2), "CA": (2, 0)}
OF_ONE_PHASE = re.compile("constant_(power|current|impedance)_[ABC]")
ZIP_PARTS = ("power", "current", "impedance")


def transformer_element(
    values: Values, item: GlmObject, ends: tuple[str, str], phases: tuple[int, ...]
) -> tuple[Element, float] | None:
    """Give the element of a two-winding transformer and its ratio secondary over primary, line to line."""
    config = values.refer(item, "configuration", ("transformer_configuration",))
    if config is None or not phases:
        return None
    before = len(values.problems)
    kind = values.word(config, "connect_type", TRANSFORMER_KINDS)
    v_primary, v_secondary = (
        values.real(config, "primary_voltage", "V"),
        values.real(config, "secondary_voltage", "V"),
    )
    s_va = 1000.0 * values.real(config, "power_rating", "kVA")
    z_pu = values.complex(config, "impedance", "pu", 0.0) + complex(
        values.real(config, "resistance", "pu", 0.0), values.real(config, "reactance", "pu", 0.0)
    )
    for key, number in (
        ("primary_voltage", v_primary),
        ("secondary_voltage", v_secondary),
        ("power_rating", s_va),
    ):
        if not number > 0:
            values.problems.append(config.problem(key, "write a number above zero"))
    _check_phase_ratings(values, config, s_va)
    if z_pu == 0:
        values.problems.append(
            config.problem("reactance", "give an impedance, or join the buses by a switch")
        )
    if kind.startswith("delta") and phases != THREE:
        values.problems.append(item.problem("phases", "a delta winding has phases ABC"))
    if len(values.problems) > before:
        return None
    y_siemens = s_va / (z_pu * v_secondary**2)
    shunt = _transformer_shunt(values, config) * s_va / v_secondary**2
    y = _windings(kind, len(phases), v_secondary / v_primary, y_siemens, shunt)
    # single-phase units are rated by phase voltage
    amps = s_va / (v_primary * (1.0 if kind == "single" else np.sqrt(3.0)))
    sides = [tuple((end, phase) for phase in phases) for end in ends]
    return Element(item.name, sides[0], sides[1], y, float(amps)), v_secondary / v_primary


def _check_phase_ratings(values: Values, config: GlmObject, s_va: float) -> None:
    """Ratings of single phases change nothing, but must add up to power_rating within 1 kVA, as GridLAB-D asks."""
    keys = [key for key in (f"power{letter}_rating" for letter in "ABC") if key in config.text]
    total_va = 1000.0 * sum(values.real(config, key, "kVA") for key in keys)
    if keys and abs(total_va - s_va) > 1000.0:
        values.problems.append(
            config.problem(keys[0], "let the ratings of the phases add up to power_rating")
        )


def _transformer_shunt(values: Values, config: GlmObject) -> complex:
    """Give the no-load admittance at the secondary, p.u.: resistance and reactance side by side."""
    series = values.complex(config, "shunt_impedance", "pu", 0.0)
    r = values.real(config, "shunt_resistance", "pu", series.real)
    x = values.real(config, "shunt_reactance", "pu", series.imag)
    return (1.0 / r if r else 0.0) + (1.0 / (1j * x) if x else 0.0)


def _windings(kind: str, count: int, gain: float, y: complex, shunt: complex) -> Complex:
    """Give the admittance of primary and secondary terminals; gain is secondary over primary voltage, line to line.

    v_secondary_winding = gain·(pattern @ v_primary) behind the impedance 1/y, referred to the secondary.
    """
    if kind in ("wye", "single"):
        pattern, seen = np.eye(count), np.eye(count)
    elif kind == "delta":
        # currents between lines only: a third of the sum is taken off every phase, on both sides
        pattern = seen = np.eye(3) - 1.0 / 3.0
    else:
        # the low side lags by 30 degrees: a wye on the low side has winding a from a to c, on the high side from a to b
        other = np.roll(np.eye(3), -1 if gain < 1.0 else 1, axis=1)
        pattern, seen = (np.eye(3) - other) / np.sqrt(3.0), np.eye(3)
    primary = gain * pattern
    tie = np.eye(count) * (1j * FLOAT_SHARE * abs(y) if kind == "delta" else 0.0)
    return np.block(
        [
            [y * primary.T @ primary, -y * primary.T @ seen],
            [-y * seen.T @ primary, y * seen.T @ seen + shunt * np.eye(count) - tie],
        ]
    )


def regulator_links(
    values: Values, item: GlmObject, ends: tuple[str, str], phases: tuple[int, ...]
) -> list[Link]:
    """Give the ideal ratios of a regulator at its taps.

    A tap of the regulator itself (tap_A) comes before that of its configuration (tap_pos_A). The ratio is 1 + tap·step
    for type A and 1/(1 - tap·step) for type B.
    """
    config = values.refer(item, "configuration", ("regulator_configuration",))
    if config is None:
        return []
    values.word(config, "connect_type", WYE_REGULATOR)
    kind = values.word(config, "Type", {"A": "A", "B": "B", "1": "A", "2": "B"}, "B")
    taps = (values.real(config, "lower_taps", "", 16.0), values.real(config, "raise_taps", "", 16.0))
    regulation = values.real(config, "regulation", "", 0.1)
    if not taps[1] > 0:
        values.problems.append(config.problem("raise_taps", "write a number above zero"))
        return []
    links = []
    for phase in phases:
        change = _tap(values, item, config, "ABC"[phase], taps) * regulation / taps[1]
        ratio = 1.0 + change if kind == "A" else 1.0 / (1.0 - change)
        links.append(Link(item.name, (ends[0], phase), (ends[1], phase), ratio))
    return links


def _tap(values: Values, item: GlmObject, config: GlmObject, letter: str, taps: tuple[float, float]) -> float:
    """Read the tap of a phase; taps : how many there are below and above neutral."""
    holder, key = (item, f"tap_{letter}") if f"tap_{letter}" in item.text else (config, f"tap_pos_{letter}")
    fixed = config.text.get("Control", "MANUAL").upper() in ("MANUAL", "1")
    if not fixed and key not in holder.text:
        remedy = "the regulator is read at its taps; state where it stands"
        values.problems.append(holder.problem(key, remedy))
    tap = values.real(holder, key, "", 0.0)
    if not tap.is_integer() or not -taps[0] <= tap <= taps[1]:
        remedy = f"write a whole number from {-taps[0]:g} (lower_taps) to {taps[1]:g} (raise_taps)"
        values.problems.append(holder.problem(key, remedy))
        return 0.0
    return tap


def switch_links(
    values: Values, item: GlmObject, ends: tuple[str, str], phases: tuple[int, ...]
) -> list[Link]:
    """Give the closed phases of a switch, fuse, recloser or sectionaliser, as ideal connections.

    Phases of a switch have states of their own in operating_mode INDIVIDUAL only; in the default mode BANKED another
    state than that of the whole is a problem, since GridLAB-D passes over it.
    """
    states, suffix = (FUSE_STATES, "status") if item.kind == "fuse" else (SWITCH_STATES, "state")
    whole = values.word(item, "status", states, "CLOSED")
    single = item.kind == "fuse" or values.word(item, "operating_mode", MODES, "BANKED") == "single"
    links = []
    for phase in phases:
        key = f"phase_{'ABC'[phase]}_{suffix}"
        own = values.word(item, key, states) if key in item.text else whole
        if not single and own != whole:
            remedy = (
                "a banked switch is open or closed as a whole; write operating_mode INDIVIDUAL or its status"
            )
            values.problems.append(item.problem(key, remedy))
        if whole == "closed" and own == "closed":
            links.append(Link(item.name, (ends[0], phase), (ends[1], phase)))
    return links


def capacitor_element(values: Values, item: GlmObject, bus: str, nominal_v: float) -> Element | None:
    """Give the closed phases of a capacitor bank, wye or delta; nominal_v is the phase voltage of its bus."""
    phases = values.phases(item)
    rated_v = values.real(
        item, "cap_nominal_voltage", "V", values.real(item, "nominal_voltage", "V", nominal_v)
    )
    delta = "D" in item.text.get("phases_connected", item.text.get("phases", "")).upper()
    y = np.zeros((3, 3), dtype=np.complex128)
    closed = _closed_phases(values, item, phases)
    for phase in phases:
        var = values.real(item, f"capacitor_{'ABC'[phase]}", "VA", 0.0)
        if phase not in closed or var == 0.0:
            continue
        one, other = PAIRS[("AB", "BC", "CA")[phase]]
        across = np.zeros(3)
        across[one], across[other] = 1.0, -1.0 if delta else 0.0
        y += 1j * var / rated_v**2 * np.outer(across, across)
    used = tuple(np.flatnonzero(np.abs(y).sum(axis=0)).tolist())
    if not used:
        return None
    return Element(item.name, tuple((bus, phase) for phase in used), (), y[np.ix_(used, used)])


def _closed_phases(values: Values, item: GlmObject, phases: tuple[int, ...]) -> tuple[int, ...]:
    """Read the switches of a capacitor; under automatic control they must be stated, in a bank be alike."""
    keys = [f"switch{'ABC'[phase]}" for phase in phases]
    states = [values.word(item, key, SWITCH_STATES, "OPEN") for key in keys]
    if item.text.get("control", "MANUAL").upper() not in ("MANUAL", "0"):
        remedy = "the capacitor is read as it stands; state whether the switch is OPEN or CLOSED"
        banked = [key for key in keys if f"capacitor_{key[-1]}" in item.text]
        values.problems += [item.problem(key, remedy) for key in banked if key not in item.text]
    bank = item.text.get("control_level", "INDIVIDUAL").upper() in ("BANK", "0")
    # GridLAB-D moves a bank as a whole, to where the switch of the phase in pt_phase stands
    if bank and (len(set(states)) > 1 or not item.text.get("pt_phase", "")):
        remedy = "give pt_phase and equal switches, or write control_level INDIVIDUAL"
        values.problems.append(item.problem("control_level", remedy))
    return tuple(phase for phase, state in zip(phases, states, strict=True) if state == "closed")


def load_draws(values: Values, item: GlmObject, bus: str, base_v: float) -> list[Draw]:
    """Give the draws of a load; base_v : phase voltage that a constant current or impedance is turned into power at.

    Keys without a second letter (constant_power_A) mean a phase, or with D among the phases the pair that begins with
    it. A constant current keeps its angle to the voltage: it is written for voltages at 0, -120 and +120 degrees.
    base_power with its fractions and power factors is at the load's nominal_voltage; as in GridLAB-D, constant power
    is what the other two fractions leave, whatever power_fraction says.
    """
    _check_written_once(values, item)
    delta = "D" in item.text.get("phases", "").upper()
    draws = []
    for suffix in ("A", "B", "C", "AN", "BN", "CN", "AB", "BC", "CA"):
        paired = suffix in PAIRS or (delta and len(suffix) == 1)
        first = "ABC".index(suffix[0])
        plus, minus = PAIRS[("AB", "BC", "CA")[first]] if paired else (first, None)
        shares = _constant_shares(values, item, suffix, plus, minus, base_v)
        nominal_v = values.real(item, "nominal_voltage", "V", base_v)
        for parts, volts in ((shares, base_v), (_zip_shares(values, item, suffix), nominal_v)):
            if any(parts):
                across_v = volts * (np.sqrt(3.0) if minus is not None else 1.0)
                end = None if minus is None else (bus, minus)
                draws.append(Draw(item.name, (bus, plus), end, float(across_v), *parts))
    return draws


def _check_written_once(values: Values, item: GlmObject) -> None:
    """Find draws written in two ways, of which GridLAB-D takes one: the later one, or base_power."""
    for key in item.text:
        whole = key.removesuffix("_real").removesuffix("_reac")
        base = f"base_power_{whole[-1]}"
        if whole != key and whole in item.text:
            values.problems.append(item.problem(key, f"write this, or {whole}, but not both"))
        elif OF_ONE_PHASE.fullmatch(whole) and values.real(item, base, "VA", 0.0):
            values.problems.append(item.problem(key, f"write this, or {base}, but not both"))


def _constant_shares(
    values: Values, item: GlmObject, suffix: str, plus: int, minus: int | None, base_v: float
) -> tuple[complex, complex, complex]:
    """Read constant_power, constant_current and constant_impedance as power at the base voltage [VA]."""
    power = values.complex(item, f"constant_power_{suffix}", "VA", 0.0)
    current = values.complex(item, f"constant_current_{suffix}", "A", 0.0)
    impedance = values.complex(item, f"constant_impedance_{suffix}", "Ohm", 0.0)
    for part in ("real", "reac"):
        factor = 1.0 if part == "real" else 1j
        power += factor * values.real(item, f"constant_power_{suffix}_{part}", "VA", 0.0)
        current += factor * values.real(item, f"constant_current_{suffix}_{part}", "A", 0.0)
        impedance += factor * values.real(item, f"constant_impedance_{suffix}_{part}", "Ohm", 0.0)
    volts = base_v * np.exp(1j * ANGLE_RAD[plus])
    volts -= base_v * np.exp(1j * ANGLE_RAD[minus]) if minus is not None else 0.0
    by_impedance = abs(volts) ** 2 / np.conj(impedance) if impedance else 0.0
    return power, complex(volts * np.conj(current)), complex(by_impedance)


def _zip_shares(values: Values, item: GlmObject, suffix: str) -> tuple[complex, complex, complex]:
    """Read base_power with its fractions and power factors (negative: leading) [VA]."""
    base_va = values.real(item, f"base_power_{suffix}", "VA", 0.0)
    if not base_va:
        return 0j, 0j, 0j
    current, impedance = (
        values.real(item, f"{part}_fraction_{suffix}", "pu", 0.0) for part in ("current", "impedance")
    )
    shares = [0j, 0j, 0j]
    for k, fraction in enumerate((1.0 - current - impedance, current, impedance)):
        part, va = ZIP_PARTS[k], base_va * fraction
        factor = values.real(item, f"{part}_pf_{suffix}", "pu", 1.0)
        if not 0 < abs(factor) <= 1:
            values.problems.append(item.problem(f"{part}_pf_{suffix}", "write a power factor in (0, 1]"))
            continue
        shares[k] = va * complex(abs(factor), np.copysign(np.sqrt(1.0 - factor**2), factor))
    return shares[0], shares[1], shares[2]
