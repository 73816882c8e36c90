"""GridLAB-D regulators as rows of the regulator table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voltier.grid.readers.glm_syntax import GlmObject
from voltier.grid.readers.glm_values import Values
from voltier.grid.readers.gridlabd import GlmCircuit

if TYPE_CHECKING:
    from voltier.grid.readers.glm_tables import GlmTables

RELAY_V = 120.0
RELAY_RANGE_V = (60.0, 240.0)
"""A band centre in this range is on the relay's side of the voltage transformer, others are on the line's."""
AMPERE_RATIO = 1.0


def regulator_table(tables: GlmTables, glm: GlmCircuit) -> None:
    """Write one row for each regulated phase.

    The tap step is such that the ratio at the tap given is exact: a regulator of type B, 1/(1 - tap·step), has another
    step at every tap, and a table has one. What the model does not say of a relay is written as a relay without line
    drop compensation on 120 V, and noted.
    """
    for item in glm.objects:
        if item.kind == "regulator":
            _rows(tables, glm, item)


def _rows(tables: GlmTables, glm: GlmCircuit, item: GlmObject) -> None:
    values = glm.values
    config = values.refer(item, "configuration")
    assert config is not None
    most = values.real(config, "raise_taps", "", 16.0)
    step = values.real(config, "regulation", "", 0.1) / most
    type_b = config.text.get("Type", "B").upper() in ("B", "2")
    links = [link for link in glm.circuit.links if link.name == item.name]
    relay = _relay(tables, glm, item, config, links[0].to_terminal[0])
    sensed = config.text.get("PT_phase", "").strip().upper()
    for link in links:
        phase = "abc"[link.from_terminal[1]]
        letter = phase.upper()
        holder, key = (
            (item, f"tap_{letter}") if f"tap_{letter}" in item.text else (config, f"tap_pos_{letter}")
        )
        tap = int(values.real(holder, key, "", 0.0))
        row = {
            "regulator": item.name,
            "from_bus": link.from_terminal[0],
            "to_bus": link.to_terminal[0],
            "phase": phase,
            "sensed_phase": sensed.lower() if sensed in ("A", "B", "C") else phase,
            **relay,
            "r_comp_v": _compensation(values, config, "r", letter),
            "x_comp_v": _compensation(values, config, "x", letter),
            "published_tap": str(tap),
            "tap_step_pu": repr(float((link.ratio - 1.0) / tap if tap and type_b else step)),
            "max_tap": str(int(most)),
        }
        tables.add("regulators", item.name, row)
    if type_b:
        tables.notes.append(
            f"{item.name}: of type B; the step written is exact at the tap given, and near it elsewhere"
        )


def _relay(
    tables: GlmTables, glm: GlmCircuit, item: GlmObject, config: GlmObject, bus: str
) -> dict[str, str]:
    """Give set point and width on the relay's side, and the transducers' ratios."""
    values, base_v = glm.values, glm.circuit.v_base_v[bus]
    pt_ratio = values.real(config, "power_transducer_ratio", "", 0.0)
    ct_a = values.real(config, "current_transducer_ratio", "", 0.0)
    center_v = values.real(config, "band_center", "V", 0.0)
    width_v = values.real(config, "band_width", "V", 0.0)
    if not pt_ratio > 0:
        pt_ratio = base_v / RELAY_V
        tables.notes.append(f"{item.name}: no power_transducer_ratio, {pt_ratio:g} written")
    on_relay = RELAY_RANGE_V[0] <= center_v <= RELAY_RANGE_V[1]
    scale = 1.0 if on_relay else 1.0 / pt_ratio
    if not (center_v > 0 and width_v > 0):
        center_v, width_v, scale = base_v / pt_ratio, 2.0, 1.0
        tables.notes.append(f"{item.name}: no band, nominal voltage and 2 V on the relay written")
    if not ct_a > 0:
        ct_a = AMPERE_RATIO
        compensated = any(key.startswith("compensator_") for key in config.text)
        if compensated:
            tables.notes.append(f"{item.name}: no current_transducer_ratio, 1 written")
    numbers = {
        "v_set_v": center_v * scale,
        "bandwidth_v": width_v * scale,
        "pt_ratio": pt_ratio,
        "ct_primary_a": ct_a,
    }
    return {key: repr(float(np.float64(value))) for key, value in numbers.items()}


def _compensation(values: Values, config: GlmObject, part: str, letter: str) -> str:
    return repr(values.real(config, f"compensator_{part}_setting_{letter}", "V", 0.0))
