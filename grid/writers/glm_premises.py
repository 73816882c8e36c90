"""Houses, batteries and photovoltaics of GridLAB-D's own as GLM text: residential, generators, climate modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from voltier.grid.errors import InputError, Problem
from voltier.grid.writers.glm_network import Array, GlmFeeder, Index, block, number

SKY, PLANE = "premises_sky", "premises_plane"
"""The weather of the houses, and that in the plane of the panels, as climate objects."""
SERVICE_KVA = 25.0
_FEET2_PER_M2 = 10.763910417
_SERVICE_V = 120.0
# shares of a day's largest use by hour: low at night, a small peak in the morning, the large one in the evening
_LIGHTS = "* 0-5 * * * 0.1; * 6-8 * * * 0.4; * 9-16 * * * 0.15; * 17-22 * * * 0.8; * 23 * * * 0.3"
_PLUGS = "* 0-5 * * * 0.5; * 6-8 * * * 0.8; * 9-16 * * * 0.6; * 17-22 * * * 1.0; * 23 * * * 0.7"
_AT_HOME = "* 0-7 * * * 1.0; * 8-16 * * * 0.4; * 17-23 * * * 1.0"
_DEADBAND_K = 1.0
# a battery charges from what is exported and discharges into what is drawn; between the two it rests
_CHARGE_ON_W, _CHARGE_OFF_W, _DISCHARGE_OFF_W, _DISCHARGE_ON_W = -100.0, 0.0, 200.0, 300.0
_LOCKOUT_S, _INVERTER_EFFICIENCY, _ROUND_TRIP, _RESERVE = 60.0, 0.97, 0.9, 0.1
START_SOC = 0.5


@dataclass(frozen=True, slots=True)
class Premises:
    """Premises behind a service transformer each; the first have what there are fewer of.

    bus, phase : (n,) rows of the feeder's bus table, 0 to 2 ; floor_m2, heating_c, cooling_c, lights_kw, plugs_kw,
    skew_s : (n_house,) floor area, set-points, largest use, how much later than others ; battery_kw, battery_kwh :
    (n_battery,) ratings of inverter and store ; pv_kw : (n_pv,)
    """

    bus: Index
    phase: Index
    floor_m2: Array
    heating_c: Array
    cooling_c: Array
    lights_kw: Array
    plugs_kw: Array
    skew_s: Index
    battery_kw: Array
    battery_kwh: Array
    pv_kw: Array

    @property
    def objects(self) -> tuple[str, ...]:
        """Name everything that has a meter: gld_house_0000 ..., gld_battery_0000 ..., gld_pv_0000 ..."""
        counts = {"house": len(self.floor_m2), "battery": len(self.battery_kw), "pv": len(self.pv_kw)}
        return tuple(f"gld_{kind}_{k:04}" for kind, count in counts.items() for k in range(count))


@dataclass(frozen=True, slots=True)
class Site:
    """Where the sun is seen from. latitude_deg, longitude_deg : north, east positive ; utc_offset_h : of its clocks."""

    latitude_deg: float
    longitude_deg: float
    utc_offset_h: float


def fahrenheit(celsius: float) -> float:
    """Give a temperature as GridLAB-D counts it."""
    return celsius * 1.8 + 32.0


def celsius(fahrenheit: Array) -> Array:
    """Give GridLAB-D's temperatures in Celsius."""
    return (fahrenheit - 32.0) / 1.8


def per_square_foot(w_m2: float) -> float:
    """Give an irradiance as GridLAB-D counts it [W/sf]."""
    return w_m2 / _FEET2_PER_M2


def service_name(k: int) -> str:
    """Name the service transformer of the k-th premises."""
    return f"service_{k + 1}"


def meter_name(thing: str) -> str:
    """Name the meter of a house, battery or array; consumption is positive."""
    return f"meter_{thing}"


def premises_model(model: GlmFeeder, premises: Premises, site: Site) -> str:
    """Give the text to append to a feeder's model (gridlabd_model).

    Raises InputError for premises at a place that the model does not hold.
    """
    problems = [
        Problem(
            f"premises at bus {model.feeder.bus[bus]}", "phase", "abc"[phase], "the source does not feed it"
        )
        for bus, phase in zip(premises.bus.tolist(), premises.phase.tolist(), strict=True)
        if not model.fed[bus, phase]
    ]
    if problems:
        raise InputError(problems)
    return "".join([*_surroundings(site), *_services(model, premises), *_things(model, premises)])


def _surroundings(site: Site) -> Iterator[str]:
    """Write modules, schedules, and the climates, which are set from outside."""
    yield "module residential {\n    implicit_enduses NONE;\n    ANSI_voltage_check FALSE;\n}\n"
    yield "module generators;\nmodule climate;\n"
    for name, hours in (("lights", _LIGHTS), ("plugs", _PLUGS), ("at_home", _AT_HOME)):
        yield f"schedule premises_{name} {{ {hours}; }}\n"
    # houses take the first climate of a model
    for name in (SKY, PLANE):
        yield block(
            "climate",
            {
                "name": name,
                # without a place the sun's position is no number, and with it every temperature of a house
                "latitude": number(site.latitude_deg),
                "longitude": number(site.longitude_deg),
                "tz_meridian": number(15.0 * site.utc_offset_h),
                "temperature": number(fahrenheit(20.0)),
                "humidity": "0.5",
                "solar_direct": "0",
                "solar_diffuse": "0",
                "solar_global": "0",
            },
        )


def _services(model: GlmFeeder, premises: Premises) -> Iterator[str]:
    """Write a center-tapped transformer and a meter for each premises; impedances are usual ones of its size."""
    places = list(zip(model.v_base_v[premises.bus].tolist(), premises.phase.tolist(), strict=True))
    for primary_v, phase in sorted(set(places)):
        yield block(
            "transformer_configuration",
            {
                "name": _configuration(primary_v, phase),
                "connect_type": "SINGLE_PHASE_CENTER_TAPPED",
                "install_type": "POLETOP",
                "primary_voltage": number(primary_v),
                "secondary_voltage": number(_SERVICE_V),
                "power_rating": number(SERVICE_KVA),
                f"power{'ABC'[phase]}_rating": number(SERVICE_KVA),
                "impedance": "0.006+0.0136j",
                "impedance1": "0.012+0.0204j",
                "impedance2": "0.012+0.0204j",
            },
        )
    for k, bus in enumerate(premises.bus.tolist()):
        phases = f"{'ABC'[premises.phase[k]]}S"
        yield _meter(f"premises_{k + 1}", phases)
        yield block(
            "transformer",
            {
                "name": service_name(k),
                "phases": phases,
                "from": model.name[bus],
                "to": f"premises_{k + 1}",
                "configuration": _configuration(*places[k]),
            },
        )


def _configuration(primary_v: float, phase: int) -> str:
    return f"service_{round(primary_v)}_v_{'ABC'[phase]}"


def _meter(name: str, phases: str, parent: str = "") -> str:
    above = {"parent": parent} if parent else {}
    return block(
        "triplex_meter", {"name": name, **above, "phases": phases, "nominal_voltage": number(_SERVICE_V)}
    )


def _things(model: GlmFeeder, premises: Premises) -> Iterator[str]:
    """Write houses, batteries and arrays, each behind a meter of its own."""
    for thing in premises.objects:
        kind, k = thing.split("_")[1], int(thing.rpartition("_")[2])
        phases = f"{'ABC'[premises.phase[k]]}S"
        yield _meter(meter_name(thing), phases, f"premises_{k + 1}")
        yield from {"house": _house, "battery": _battery, "pv": _pv}[kind](premises, k, thing, phases)


def _house(premises: Premises, k: int, name: str, phases: str) -> Iterator[str]:
    heating_f, cooling_f = (fahrenheit(float(c[k])) for c in (premises.heating_c, premises.cooling_c))
    # it begins where its thermostat rests
    inside = number((heating_f + cooling_f) / 2.0)
    yield block(
        "house",
        {
            "name": name,
            "parent": meter_name(name),
            "weather": SKY,
            "floor_area": number(float(premises.floor_m2[k]) * _FEET2_PER_M2),
            "thermal_integrity_level": "NORMAL",
            "heating_setpoint": number(heating_f),
            "cooling_setpoint": number(cooling_f),
            "thermostat_deadband": number(1.8 * _DEADBAND_K),
            "heating_system_type": "HEAT_PUMP",
            "cooling_system_type": "ELECTRIC",
            "auxiliary_system_type": "NONE",
            "fan_type": "ONE_SPEED",
            "air_temperature": inside,
            "mass_temperature": inside,
        },
    )
    skew = str(int(premises.skew_s[k]))
    plugs = {"power_fraction": "0.8", "impedance_fraction": "0.2", "power_pf": "0.97", "impedance_pf": "1.0"}
    for kind, use, schedule, more in (
        ("lights", float(premises.lights_kw[k]), "lights", {"type": "CFL", "placement": "INDOOR"}),
        ("ZIPload", float(premises.plugs_kw[k]), "plugs", {"heatgain_fraction": "0.9", **plugs}),
    ):
        power = (
            {"installed_power": number(use), "demand": "premises_lights"}
            if kind == "lights"
            else {"base_power": f"premises_{schedule}*{number(use)}"}
        )
        yield block(
            kind, {"name": f"{name}_{schedule}", "parent": name, "schedule_skew": skew, **more, **power}
        )
    people = {"number_of_occupants": "3", "occupancy_fraction": "premises_at_home"}
    yield block("occupantload", {"name": f"{name}_people", "parent": name, "schedule_skew": skew, **people})


def _battery(premises: Premises, k: int, name: str, phases: str) -> Iterator[str]:
    watts = number(1000.0 * float(premises.battery_kw[k]))
    follow = {
        "four_quadrant_control_mode": "LOAD_FOLLOWING",
        "sense_object": f"premises_{k + 1}",
        "max_charge_rate": watts,
        "max_discharge_rate": watts,
        "charge_on_threshold": number(_CHARGE_ON_W),
        "charge_off_threshold": number(_CHARGE_OFF_W),
        "discharge_off_threshold": number(_DISCHARGE_OFF_W),
        "discharge_on_threshold": number(_DISCHARGE_ON_W),
        # the battery's own reserve_state_of_charge is not heeded here
        "soc_reserve": number(_RESERVE),
        "charge_lockout_time": number(_LOCKOUT_S),
        "discharge_lockout_time": number(_LOCKOUT_S),
    }
    yield _inverter(name, phases, watts, follow)
    yield block(
        "battery",
        {
            "name": name,
            "parent": f"{name}_inverter",
            "use_internal_battery_model": "TRUE",
            "battery_type": "LI_ION",
            "generator_mode": "SUPPLY_DRIVEN",
            "nominal_voltage": "240",
            "rated_power": watts,
            "battery_capacity": f"{number(1000.0 * float(premises.battery_kwh[k]))} Wh",
            "round_trip_efficiency": number(_ROUND_TRIP),
            "state_of_charge": number(START_SOC),
        },
    )


def _pv(premises: Premises, k: int, name: str, phases: str) -> Iterator[str]:
    watts = number(1000.0 * float(premises.pv_kw[k]))
    mode = {"four_quadrant_control_mode": "CONSTANT_PF", "power_factor": "1.0"}
    yield _inverter(name, phases, watts, mode, efficiency=1.0)
    yield block(
        "solar",
        {
            "name": name,
            "parent": f"{name}_inverter",
            "weather": PLANE,
            "panel_type": "SINGLE_CRYSTAL_SILICON",
            "rated_power": watts,
            "orientation": "DEFAULT",
            # the plane's irradiance is given such that rating times it is the output: no losses are taken off twice;
            # what the package cannot turn off is a temperature coefficient of 0.013 % a degree
            "derating": "1.0",
            "soiling": "1.0",
            "shading_factor": "1.0",
        },
    )


def _inverter(
    name: str, phases: str, watts: str, mode: dict[str, str], *, efficiency: float = _INVERTER_EFFICIENCY
) -> str:
    return block(
        "inverter",
        {
            "name": f"{name}_inverter",
            "parent": meter_name(name),
            "phases": phases,
            "inverter_type": "FOUR_QUADRANT",
            "generator_mode": "SUPPLY_DRIVEN",
            "generator_status": "ONLINE",
            "use_multipoint_efficiency": "FALSE",
            "inverter_efficiency": number(efficiency),
            "rated_power": watts,
            **mode,
        },
    )
