"""GridLAB-D transformers, regulators, switches, capacitors and loads, in siemens, volt and watt."""

from __future__ import annotations

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
PAIRS = {"AB": (0, 1), "BC": (1, 2), "CA": (2, 0)}
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
    remedy = "give resistance, reactance and shunt_impedance instead"
    values.unknown(config, ("full_load_loss", "no_load_loss", "reactance_resistance_ratio"), remedy)
    for key, number in (
        ("primary_voltage", v_primary),
        ("secondary_voltage", v_secondary),
        ("power_rating", s_va),
    ):
        if not number > 0:
            values.problems.append(config.problem(key, "write a number above zero"))
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
    raise_taps = values.real(config, "raise_taps", "", 16.0)
    regulation = values.real(config, "regulation", "", 0.1)
    if not raise_taps > 0:
        values.problems.append(config.problem("raise_taps", "write a number above zero"))
        return []
    links = []
    for phase in phases:
        letter = "ABC"[phase]
        fixed = config.text.get("Control", "MANUAL").upper() in ("MANUAL", "1")
        own = f"tap_{letter}" in item.text
        if not fixed and not own and f"tap_pos_{letter}" not in config.text:
            remedy = "the regulator is read at its taps; state where it stands"
            values.problems.append(config.problem(f"tap_pos_{letter}", remedy))
        tap = (
            values.real(item, f"tap_{letter}", "")
            if own
            else values.real(config, f"tap_pos_{letter}", "", 0.0)
        )
        change = tap * regulation / raise_taps
        ratio = 1.0 + change if kind == "A" else 1.0 / (1.0 - change)
        links.append(Link(item.name, (ends[0], phase), (ends[1], phase), ratio))
    return links


def switch_links(
    values: Values, item: GlmObject, ends: tuple[str, str], phases: tuple[int, ...]
) -> list[Link]:
    """Give the closed phases of a switch, fuse, recloser or sectionaliser, as ideal connections."""
    states, suffix = (FUSE_STATES, "status") if item.kind == "fuse" else (SWITCH_STATES, "state")
    whole = values.word(item, "status", states, "CLOSED")
    links = []
    for phase in phases:
        key = f"phase_{'ABC'[phase]}_{suffix}"
        own = values.word(item, key, states) if key in item.text else whole
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
    for phase in phases:
        letter = "ABC"[phase]
        var = values.real(item, f"capacitor_{letter}", "VA", 0.0)
        if values.word(item, f"switch{letter}", SWITCH_STATES, "OPEN") != "closed" or var == 0.0:
            continue
        one, other = PAIRS[("AB", "BC", "CA")[phase]]
        across = np.zeros(3)
        across[one], across[other] = 1.0, -1.0 if delta else 0.0
        y += 1j * var / rated_v**2 * np.outer(across, across)
    used = tuple(np.flatnonzero(np.abs(y).sum(axis=0)).tolist())
    if not used:
        return None
    return Element(item.name, tuple((bus, phase) for phase in used), (), y[np.ix_(used, used)])


def load_draws(values: Values, item: GlmObject, bus: str, base_v: float) -> list[Draw]:
    """Give the draws of a load; base_v : phase voltage that a constant current or impedance is turned into power at.

    Keys without a second letter (constant_power_A) mean a phase, or with D among the phases the pair that begins with
    it. A constant current keeps its angle to the voltage: it is written for voltages at 0, -120 and +120 degrees.
    base_power with its fractions and power factors is at the load's nominal_voltage.
    """
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
    shares = [0j, 0j, 0j]
    for k, part in enumerate(ZIP_PARTS if base_va else ()):
        va = base_va * values.real(item, f"{part}_fraction_{suffix}", "pu", 0.0)
        factor = values.real(item, f"{part}_pf_{suffix}", "pu", 1.0)
        if not 0 < abs(factor) <= 1:
            values.problems.append(item.problem(f"{part}_pf_{suffix}", "write a power factor in (0, 1]"))
            continue
        shares[k] = complex(va * abs(factor), np.copysign(va * np.sqrt(1.0 - factor**2), factor))
    return shares[0], shares[1], shares[2]
