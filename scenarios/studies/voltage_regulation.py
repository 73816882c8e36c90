"""What local markets do for the voltages of an unbalanced feeder, and how that changes with the size of devices.

Three designs on one input, the primary market clearing every phase by itself, and the hierarchy once more with a price
on the distance of voltages from 1 p.u.; then the whole hierarchy with devices at the ends and in the middle of the
ranges of V. J. Nair, PhD thesis, MIT 2025: batteries of 4 to 8 kW and 10 to 20 kWh, PV of 4 to 10 kW, heat pumps of
5 to 8 kW, chargers of electric vehicles of 2 to 10 kW.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from voltier.grid.errors import InputError, Problem
from voltier.scenarios.schema import Scenario, load_scenario
from voltier.scenarios.schema_sections import FleetSection
from voltier.scenarios.studies.cases import CaseKpis, Run, markdown_table, number, ratio, run_cases, share
from voltier.scenarios.studies.voltage_page import write_page

DESIGNS = ("no_market", "primary_only", "hierarchical")
WEIGHTED = "hierarchical_voltage_weight"
VOLTAGE_USD_PER_PU2H = 1000.0
"""Our choice: a node at 0.95 or 1.05 p.u. costs 2.50 $/h, about as much as 25 kWh of import."""
SHOWN = (*DESIGNS, WEIGHTED)
"""Cases over the whole time, side by side."""
LEVELS = ("low", "middle", "high")
SIZES_KW: Mapping[str, tuple[float, float, float]] = {
    "batteries": (4.0, 6.0, 8.0),
    "pv": (4.0, 7.0, 10.0),
    "heat_pumps": (5.0, 6.5, 8.0),
    "evs": (2.0, 6.0, 10.0),
}
"""Rating of each device at the ends and in the middle of its published range."""
BATTERY_KWH = (10.0, 15.0, 20.0)
HOUSES_PER_EV = 5
"""Where the scenario has no cars: our choice, as many as the feeder has PV units, about."""
REFERENCE = "reference"
SENSITIVITY_H, SENSITIVITY_HOUR = 6.0, 15
"""The sensitivity needs sun, cars that come home and the evening peak: six hours from 15:00 have all of them."""

_FIXED = ("design", "primary.formulation", "primary.weights.voltage_usd_per_pu2h")
_VARIED = ("fleet.battery_kva", "fleet.battery_kwh", "fleet.pv_kva", "fleet.hvac_kw_min", "fleet.hvac_kw_max",
           "fleet.ev_kw_min", "fleet.ev_kw_max")  # fmt: skip
FIGURES: tuple[tuple[str, str, float, int], ...] = (
    ("mean abs(V - 1) [p.u.]", "voltage.mean_abs_deviation_pu", 1.0, 5),
    ("standard deviation of V [p.u.]", "voltage.std_pu", 1.0, 5),
    ("lowest voltage [p.u.]", "voltage.min_pu", 1.0, 4),
    ("highest voltage [p.u.]", "voltage.max_pu", 1.0, 4),
    ("node-minutes outside the limits", "voltage.violations", 1.0, 0),
    ("outside ANSI range A [% of node-minutes]", "voltage.range_a_outside_share", 100.0, 4),
    ("worst excess over range A [p.u.]", "voltage.range_a_worst_excess_pu", 1.0, 5),
    ("longest time outside range A [min]", "voltage.range_a_longest_min", 1.0, 0),
    ("outside ANSI range B [% of node-minutes]", "voltage.range_b_outside_share", 100.0, 4),
    ("worst excess over range B [p.u.]", "voltage.range_b_worst_excess_pu", 1.0, 5),
    ("longest time outside range B [min]", "voltage.range_b_longest_min", 1.0, 0),
    ("mean unbalance [%]", "voltage.mean_unbalance_share", 100.0, 3),
    ("largest unbalance [%]", "voltage.max_unbalance_share", 100.0, 3),
    ("unbalance above 3 % [% of bus-minutes]", "voltage.unbalance_above_limit_share", 100.0, 3),
    ("losses [kWh]", "losses.energy_kwh", 1.0, 1),
    ("import [kWh]", "energy.import_kwh", 1.0, 0),
    ("peak import [kW]", "energy.peak_import_kw", 1.0, 0),
    ("mean dLMP [$/kWh]", "prices.mean_dlmp_usd_per_kwh", 1.0, 4),
    ("mean local tariff [$/kWh]", "prices.mean_tariff_usd_per_kwh", 1.0, 4),
)
"""Title, key figure, factor, digits."""
_SHORT: tuple[tuple[str, str, float, int], ...] = (
    ("size [kW]", "", 1.0, 1),
    ("mean abs(V - 1)", "voltage.mean_abs_deviation_pu", 1.0, 5),
    ("std of V", "voltage.std_pu", 1.0, 5),
    ("lowest V", "voltage.min_pu", 1.0, 4),
    ("highest V", "voltage.max_pu", 1.0, 4),
    ("outside A [%]", "voltage.range_a_outside_share", 100.0, 3),
    ("unbalance [%]", "voltage.max_unbalance_share", 100.0, 2),
    ("losses [kWh]", "losses.energy_kwh", 1.0, 1),
    ("import [kWh]", "energy.import_kwh", 1.0, 0),
    ("dLMP [$/kWh]", "prices.mean_dlmp_usd_per_kwh", 1.0, 4),
)


def cases(
    base: str = "ieee123-day", overrides: Sequence[str] = (), sensitivity_hours: float | None = None
) -> dict[str, Scenario]:
    """Return the designs, the hierarchy with a price on voltages, and that with each kind of device at each size.

    sensitivity_hours : length of the latter [h], 0 for none; by default that of the designs, at most six hours. A
    shorter run than the designs' starts at 15:00 where theirs starts at midnight.
    Raises InputError for an override of what the study sets itself.
    """
    if sensitivity_hours is not None and sensitivity_hours < 0.0:
        remedy = "give a length in hours, or 0 for no sensitivity"
        raise InputError([Problem("study", "--sensitivity-hours", sensitivity_hours, remedy)])
    _refuse(overrides, (*_FIXED, *(_VARIED if sensitivity_hours != 0.0 else ())))
    three_phase = [*overrides, "primary.formulation=current_injection"]
    chosen = {design: load_scenario(base, [*three_phase, f"design={design}"]) for design in DESIGNS}
    whole = chosen["hierarchical"]
    weight = f"primary.weights.voltage_usd_per_pu2h={VOLTAGE_USD_PER_PU2H:g}"
    chosen[WEIGHTED] = load_scenario(base, [*three_phase, "design=hierarchical", weight])
    hours = min(whole.hours, SENSITIVITY_H) if sensitivity_hours is None else sensitivity_hours
    if hours == 0.0:
        return chosen
    settings = [*three_phase, "design=hierarchical", f"hours={hours}"]
    if hours < whole.hours and whole.start_second_of_day == 0:
        settings.append(f"start={whole.start.replace(hour=SENSITIVITY_HOUR).isoformat()}")
    reference = load_scenario(base, settings)
    if reference != whole:
        chosen[REFERENCE] = reference
    for kind in SIZES_KW:
        for i, level in enumerate(LEVELS):
            chosen[f"{kind}_{level}"] = load_scenario(
                base, [*settings, *device_settings(kind, i, whole.fleet)]
            )
    return chosen


def device_settings(kind: str, level: int, fleet: FleetSection) -> list[str]:
    """Return the overrides that give every device of a kind its size at a level of LEVELS."""
    size_kw = SIZES_KW[kind][level]
    if kind == "batteries":
        return [f"fleet.battery_kva={size_kw}", f"fleet.battery_kwh={BATTERY_KWH[level]}"]
    if kind == "pv":
        return [f"fleet.pv_kva={size_kw * fleet.pv_units}"]
    name = {"heat_pumps": "hvac_kw", "evs": "ev_kw"}[kind]
    bounds = [f"fleet.{name}_min={size_kw}", f"fleet.{name}_max={size_kw}"]
    if kind == "evs" and fleet.evs == 0:
        bounds.append(f"fleet.evs={fleet.houses // HOUSES_PER_EV}")
    return bounds


def study_voltage_regulation(
    run: Run,
    out: Path,
    *,
    base: str = "ieee123-day",
    overrides: Sequence[str] = (),
    sensitivity_hours: float | None = None,
) -> CaseKpis:
    """Run the cases into out/<case>; write out/kpis.json, out/voltage_regulation.md and out/voltage_regulation.html.

    Raises InputError if out holds something already or the scenario is wrong.
    """
    scenarios = cases(base, overrides, sensitivity_hours)
    kpis = run_cases(scenarios, run, out)
    (out / "voltage_regulation.md").write_text(page(kpis, scenarios, base), encoding="utf-8")
    write_page(out, {name: out / name for name in SHOWN}, kpis, base)
    return kpis


def page(kpis: CaseKpis, scenarios: Mapping[str, Scenario], base: str) -> str:
    """Return the study as Markdown: the designs side by side, their changes, and the sensitivity."""
    figures = [
        [title, *(_figure(kpis[case].get(key), factor, digits) for case in SHOWN)]
        for title, key, factor, digits in FIGURES
    ]
    changes = [
        [title, *(share(_change(kpis, case, key)) for case in SHOWN[1:])]
        for title, key, _, _ in FIGURES
        if key in ("voltage.mean_abs_deviation_pu", "voltage.std_pu", "voltage.mean_unbalance_share",
                   "losses.energy_kwh", "energy.import_kwh")
    ]  # fmt: skip
    text = (
        f"# Voltage regulation on {base}\n\n"
        f"{_when(scenarios['hierarchical'])}. Range A is 0.95 to 1.05 p.u., range B 0.917 to 1.058 p.u. "
        "(ANSI C84.1, service). Unbalance is the largest deviation of a phase from the mean of the three over "
        f"that mean, of voltages to neutral. The last case prices the squared distance of every phase node from 1 p.u. "
        f"at {VOLTAGE_USD_PER_PU2H:g} $/h per p.u. squared.\n\n"
        + markdown_table(["", *SHOWN], figures)
        + "\n"
        + markdown_table(["change against no market", *SHOWN[1:]], changes)
    )
    return text + _sensitivity(kpis, scenarios)


def _sensitivity(kpis: CaseKpis, scenarios: Mapping[str, Scenario]) -> str:
    names = [name for name in kpis if name not in SHOWN and name != REFERENCE]
    if not names:
        return ""
    reference = REFERENCE if REFERENCE in kpis else "hierarchical"
    rows = [
        [name, number(_size_kw(name), 1)]
        + [_figure(kpis[name].get(key), factor, digits) for _, key, factor, digits in _SHORT[1:]]
        for name in (reference, *names)
    ]
    cars, houses = scenarios["evs_low"].fleet.evs, scenarios["evs_low"].fleet.houses
    return (
        f"\n## Sensitivity to the size of devices\n\n{_when(scenarios[reference])}, whole hierarchy. Every device of "
        f"a kind has the size given; the cases of EVs have {cars} cars in {houses} houses.\n\n"
        + markdown_table(["", *(title for title, *_ in _SHORT)], rows)
    )


def _size_kw(case: str) -> float | None:
    kind, _, level = case.rpartition("_")
    return SIZES_KW[kind][LEVELS.index(level)] if kind in SIZES_KW else None


def _figure(value: float | None, factor: float, digits: int) -> str:
    return number(None if value is None else factor * value, digits)


def _change(kpis: CaseKpis, case: str, key: str) -> float | None:
    quotient = ratio(kpis[case].get(key), kpis["no_market"].get(key))
    return None if quotient is None else quotient - 1.0


def _when(scenario: Scenario) -> str:
    return f"{scenario.hours:g} h from {scenario.start:%Y-%m-%d %H:%M}"


def _refuse(overrides: Sequence[str], own: Sequence[str]) -> None:
    """Raise InputError for overrides of what the study sets itself."""
    remedy = "the study sets this itself; leave it out"
    problems = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key in own:
            problems.append(Problem(f"--set {override}", key, value, remedy))
    if problems:
        raise InputError(problems)
