"""Which properties of GridLAB-D objects are read or change nothing at the start; all others are refused by name.

GridLAB-D itself stops at a property that it does not know. One that it knows and the reader does not must not be lost
either: it may draw power, open a line or add an impedance.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from voltier.grid.errors import Problem
from voltier.grid.readers.glm_syntax import GlmObject

NODES = ("node", "load", "meter", "capacitor")
LINES = ("overhead_line", "underground_line")
SWITCHES = ("switch", "fuse", "recloser", "sectionalizer")
LINKS = (*LINES, *SWITCHES, "regulator", "transformer")
CONFIGURATIONS = (
    *("line_configuration", "line_spacing", "overhead_line_conductor", "underground_line_conductor"),
    *("transformer_configuration", "regulator_configuration"),
)

_SUFFIX = "(A|B|C|AN|BN|CN|AB|BC|CA)"
_RATING = r"rating\.(summer|winter)\.(continuous|emergency)"
READ = {
    "node": r"bustype|phases|nominal_voltage|voltage_[ABC]",
    "load": rf"constant_(power|current|impedance)_{_SUFFIX}(_real|_reac)?|base_power_[ABC]"
    r"|(power|current|impedance)_(fraction|pf)_[ABC]",
    "capacitor": "phases_connected|cap_nominal_voltage|capacitor_[ABC]|switch[ABC]|control|control_level|pt_phase",
    "link": "from|to|phases|status",
    "line": "configuration|length",
    "switch": "operating_mode|phase_[ABC]_state",
    "fuse": "phase_[ABC]_status",
    "regulator": "configuration|tap_[ABC]",
    "transformer": "configuration",
    "line_configuration": rf"[zc][123][123]|conductor_[ABCN]|spacing|{_RATING}",
    "line_spacing": "distance_[ABCN][ABCNE]",
    "overhead_line_conductor": f"geometric_mean_radius|resistance|diameter|{_RATING}",
    "underground_line_conductor": "outer_diameter|conductor_(gmr|diameter|resistance)|insulation_relative_permitivitty"
    f"|neutral_(gmr|diameter|resistance|strands)|shield_(gmr|diameter|resistance|thickness)|{_RATING}",
    "transformer_configuration": "connect_type|power[ABC]?_rating|primary_voltage|secondary_voltage"
    "|resistance|reactance|impedance|shunt_(resistance|reactance|impedance)",
    "regulator_configuration": "connect_type|raise_taps|lower_taps|regulation|Control|Type|tap_pos_[ABC]",
}
"""What the reader looks at; a pattern per class or kind of class."""

HARMLESS = {
    "object": "name|parent|groupid|latitude|longitude|rank",
    "node": "maximum_voltage_error|mean_repair_time|reference_bus|busflags|frequency_measure_type",
    "meter": r"measured_\w+|price|price_base|power_market|bill_day|bill_mode|monthly_fee"
    r"|(first|second|third)_tier_(price|energy)|customer_interrupted(_secondary)?",
    "load": r"load_class|load_priority|measured_\w+",
    "capacitor": "(voltage|VAr|current)_(set_low|set_high|deadband|deadband_center)|remote_sense(_B)?"
    "|time_delay|dwell_time|lockout_time|init_switch[ABC]_state|cap_[ABC]_switch_count",
    "link": "mean_repair_time|nominal_voltage",
    "recloser": "retry_time|max_number_of_tries|number_of_tries",
    "fuse": "current_limit|mean_replacement_time|repair_dist_type",
    "regulator": "sense_node|initial_tap_[ABC]|msg_mode",
    "transformer": "use_thermal_model|climate|aging_constant|aging_granularity|ambient_temperature"
    "|(top_oil|winding)_hot_spot_temperature|percent_loss_of_life",
    "transformer_configuration": "install_type|coolant_type|cooling_type|core_coil_weight|tank_fittings_weight"
    "|oil_volume|rated_winding_time_constant|rated_winding_hot_spot_rise|rated_top_oil_rise"
    "|installed_insulation_life",
    "regulator_configuration": "band_center|band_width|time_delay|dwell_time|CT_phase|PT_phase|control_level"
    "|compensator_[rx]_setting_[ABC]|current_transducer_ratio|power_transducer_ratio|reverse_flow_control",
}
"""What GridLAB-D accepts without effect on the voltages at the start: places, prices, ageing, settings of controls."""

_FAMILY = {
    **{kind: ("object", "node", kind) for kind in NODES},
    **dict.fromkeys(LINES, ("object", "link", "line")),
    **{kind: ("object", "link", "switch", kind) for kind in ("switch", "recloser", "sectionalizer")},
    **{kind: ("object", "link", kind) for kind in ("fuse", "regulator", "transformer")},
    **{kind: ("object", kind) for kind in CONFIGURATIONS},
}
_KNOWN = {
    kind: re.compile("|".join(table[part] for part in parts for table in (READ, HARMLESS) if part in table))
    for kind, parts in _FAMILY.items()
}
_REMEDIES = (
    (
        rf"(power|current|shunt|prerotated_current|current_inj)_{_SUFFIX}",
        "not read; write it as constant_power, constant_current or constant_impedance of a load",
    ),
    (
        r"(switch|fuse|regulator)_(impedance|resistance|reactance)",
        "the element is ideal here; remove the property, or put a line of that impedance in series",
    ),
    (
        "full_load_loss|no_load_loss|reactance_resistance_ratio",
        "give resistance, reactance and shunt_impedance instead",
    ),
    ("service_status|in|out|in_svc|out_svc", "not read; remove the object if it is out of service"),
)


def unread_properties(objects: Iterable[GlmObject]) -> Iterator[Problem]:
    """Find the properties of nodes, links and configurations that are neither read nor known to change nothing."""
    for item in objects:
        known = _KNOWN.get(item.kind)
        for key in item.text if known else ():
            if known and not known.fullmatch(key):
                yield item.problem(key, _remedy(key))


def repeated_names(objects: Iterable[GlmObject]) -> Iterator[Problem]:
    """Find objects that another one before them is named like; GridLAB-D refuses them too."""
    first: dict[str, GlmObject] = {}
    for item in objects:
        for key in dict.fromkeys(key for key in item.keys if "@" not in key):
            other = first.setdefault(key, item)
            if other is not item:
                remedy = f"give each object a name of its own; {other.file}:{other.line} has this one"
                yield item.problem("name", remedy, key)


def _remedy(key: str) -> str:
    for pattern, remedy in _REMEDIES:
        if re.fullmatch(pattern, key):
            return remedy
    return "the property is not read; correct its name (capitals count), or remove it if it may be left out"
