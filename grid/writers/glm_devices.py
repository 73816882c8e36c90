"""Regulators, transformers, capacitors, injections and spot loads as GLM text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from voltier.grid.threephase import ANGLE_RAD
from voltier.grid.topology import gangs
from voltier.grid.writers.glm_network import GlmFeeder, Index, PhaseInjections, block, clean, number

NEXT = {0: "AB", 1: "BC", 2: "CA"}
"""The pair of phases that begins with a phase."""


def regulator_objects(model: GlmFeeder, tap: Index) -> Iterator[str]:
    """Write regulators at fixed taps; rows between the same buses and with the same steps are one object."""
    regulators = model.feeder.regulators
    for name, rows in regulator_rows(model).items():
        yield _regulator_configuration(model, tap, rows, f"{name}_configuration")
        yield block(
            "regulator",
            {
                "name": name,
                "phases": "".join(sorted("ABC"[regulators.phase[k]] for k in rows)),
                "from": model.name[regulators.from_bus[rows[0]]],
                "to": model.name[regulators.to_bus[rows[0]]],
                "configuration": f"{name}_configuration",
            },
        )


def regulator_rows(model: GlmFeeder) -> dict[str, list[int]]:
    """Give the regulators of the model by name, each with its rows in the regulator table; unfed rows are left out."""
    regulators, found = model.feeder.regulators, dict[str, list[int]]()
    for gang in gangs(model.feeder):
        near = int(regulators.from_bus[gang[0]])
        alike: dict[tuple[float, ...], list[int]] = {}
        for k in (k for k in gang if model.fed[near, regulators.phase[k]]):
            alike.setdefault(_relay(model, k), []).append(k)
        found |= {clean("regulator", regulators.name[rows[0]], rows[0]): rows for rows in alike.values()}
    return found


def _relay(model: GlmFeeder, k: int) -> tuple[float, ...]:
    """Give what one object has once for its phases; the last is the phase sensed, -1 for each its own."""
    regulators = model.feeder.regulators
    names = ("tap_step_pu", "max_tap", "v_set_v", "bandwidth_v", "pt_ratio", "ct_primary_a")
    ends = (regulators.from_bus == regulators.from_bus[k]) & (regulators.to_bus == regulators.to_bus[k])
    single = bool((regulators.sensed_phase == regulators.phase)[ends].all())
    sensed = -1.0 if single else float(regulators.sensed_phase[k])
    return (*(float(getattr(regulators, name)[k]) for name in names), sensed)


def _regulator_configuration(model: GlmFeeder, tap: Index, rows: list[int], name: str) -> str:
    """Write taps and steps, and the relay's settings, which MANUAL control does not use."""
    regulators, first = model.feeder.regulators, rows[0]
    most, sensed = int(regulators.max_tap[first]), int(_relay(model, first)[-1])
    settings = {
        "band_center": regulators.v_set_v[first],
        "band_width": regulators.bandwidth_v[first],
        "power_transducer_ratio": regulators.pt_ratio[first],
        "current_transducer_ratio": regulators.ct_primary_a[first],
    }
    for k in rows:
        letter = "ABC"[regulators.phase[k]]
        settings[f"compensator_r_setting_{letter}"] = regulators.r_comp_v[k]
        settings[f"compensator_x_setting_{letter}"] = regulators.x_comp_v[k]
    properties = {
        "name": name,
        "connect_type": "WYE_WYE",
        "Control": "MANUAL",
        # the ratio of type A is 1 + tap·step, that of type B its counterpart 1/(1 - tap·step)
        "Type": "A",
        **{key: number(float(value)) for key, value in settings.items()},
        **({} if sensed < 0 else {"PT_phase": "ABC"[sensed], "CT_phase": "ABC"[sensed]}),
        "time_delay": "30.0",
        "raise_taps": str(most),
        "lower_taps": str(most),
        "regulation": number(float(regulators.tap_step_pu[first]) * most),
        **{f"tap_pos_{'ABC'[regulators.phase[k]]}": str(int(tap[k])) for k in rows},
    }
    return block("regulator_configuration", properties)


def transformer_objects(model: GlmFeeder) -> Iterator[str]:
    """Write the fed transformers, wye to wye, as series impedances on their own ratings."""
    transformers = model.feeder.transformers
    for k, ends in enumerate(zip(transformers.from_bus.tolist(), transformers.to_bus.tolist(), strict=True)):
        phases = model.phases(*ends)
        if not phases or transformers.conn_low[k] == "delta":
            continue
        near, far = model.outward(*ends)
        kv = {ends[0]: float(transformers.v_high_kv_ll[k]), ends[1]: float(transformers.v_low_kv_ll[k])}
        name = clean("transformer", transformers.name[k], k)
        yield block(
            "transformer_configuration",
            {
                "name": f"{name}_configuration",
                "connect_type": "WYE_WYE",
                "install_type": "PADMOUNT",
                "power_rating": number(float(transformers.s_kva[k])),
                "primary_voltage": number(1000.0 * kv[near]),
                "secondary_voltage": number(1000.0 * kv[far]),
                "resistance": number(float(transformers.r_percent[k]) / 100.0),
                "reactance": number(float(transformers.x_percent[k]) / 100.0),
            },
        )
        yield block(
            "transformer",
            {
                "name": name,
                "phases": phases + "N",
                "from": model.name[near],
                "to": model.name[far],
                "configuration": f"{name}_configuration",
            },
        )


def capacitor_objects(model: GlmFeeder) -> Iterator[str]:
    """Write each row of the capacitor table as a bank of one phase, switched on."""
    capacitors = model.feeder.capacitors
    for k, bus in enumerate(capacitors.bus.tolist()):
        letter = "ABC"[capacitors.phase[k]]
        yield block(
            "capacitor",
            {
                "name": f"capacitor_{k + 1}",
                "parent": model.name[bus],
                "phases": letter + "N",
                "phases_connected": letter + "N",
                "control": "MANUAL",
                "nominal_voltage": number(float(model.v_base_v[bus])),
                "cap_nominal_voltage": number(1000.0 * float(capacitors.kv_ll[k]) / 3.0**0.5),
                f"capacitor_{letter}": number(1000.0 * float(capacitors.q_kvar[k])),
                f"switch{letter}": "CLOSED",
            },
        )


def injection_objects(model: GlmFeeder, injection: PhaseInjections) -> Iterator[str]:
    """Write what is injected at a bus as one load of constant power below zero; fed places of no power have one too."""
    total = np.zeros((len(model.feeder.bus), 3), dtype=np.complex128)
    np.add.at(total, (injection.bus, injection.phase), injection.p_kw + 1j * injection.q_kvar)
    listed = np.zeros(total.shape, dtype=np.bool_)
    listed[injection.bus, injection.phase] = True
    listed &= model.fed
    for bus in np.flatnonzero(listed.any(axis=1)).tolist():
        powers = {
            power_property(phase): number(complex(-1000.0 * total[bus, phase]))
            for phase in np.flatnonzero(listed[bus]).tolist()
        }
        yield block("load", {**_at(model, bus, injection_name(model.name[bus])), **powers})


def injection_name(bus: str) -> str:
    """Name the load that carries a bus's injections. bus : its name in the model."""
    return f"injection_{bus}"


def power_property(phase: int) -> str:
    """Name a load's constant power on a phase, 0 to 2."""
    return f"constant_power_{'ABC'[phase]}"


def spot_load_objects(model: GlmFeeder) -> Iterator[str]:
    """Write each row of the spot loads as a load of its own."""
    spot = model.feeder.spot_loads
    for k, (target, key, value) in enumerate(spot_load_draws(model)):
        properties = _at(model, int(spot.bus[k]), target)
        if spot.connection[k] == "delta":
            properties["phases"] = NEXT["abc".index(spot.phase[k][0])] + "D"
        yield block("load", {**properties, key: number(value)})


def spot_load_draws(model: GlmFeeder) -> Iterator[tuple[str, str, complex]]:
    """Give object, property and value of each row of the spot loads: power [VA], current [A] or impedance [ohm]."""
    spot = model.feeder.spot_loads
    for k, (bus, pair) in enumerate(zip(spot.bus.tolist(), spot.phase, strict=True)):
        first = "abc".index(pair[0])
        across_v = complex(model.v_base_v[bus] * np.exp(1j * ANGLE_RAD[first]))
        if spot.connection[k] == "delta":
            other = "ABC".index(NEXT[first][1])
            across_v -= complex(model.v_base_v[bus] * np.exp(1j * ANGLE_RAD[other]))
        va = 1000.0 * complex(spot.p_kw[k], spot.q_kvar[k])
        if spot.model[k] == "PQ":
            key, value = "constant_power", va
        elif spot.model[k] == "I":
            # GridLAB-D turns the current with the voltage's angle; it is written for nominal angles
            key, value = "constant_current", (va / across_v).conjugate()
        else:
            key, value = "constant_impedance", abs(across_v) ** 2 / va.conjugate()
        yield f"load_{k + 1}", f"{key}_{'ABC'[first]}", complex(value)


def _at(model: GlmFeeder, bus: int, name: str) -> dict[str, str]:
    return {
        "name": name,
        "parent": model.name[bus],
        "phases": model.phases(bus) + "N",
        "nominal_voltage": number(float(model.v_base_v[bus])),
    }
