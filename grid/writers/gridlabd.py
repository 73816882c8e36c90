"""A feeder as a GridLAB-D model (.glm)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import Feeder
from voltier.grid.writers.glm_devices import (
    capacitor_objects,
    injection_objects,
    regulator_objects,
    spot_load_objects,
    transformer_objects,
)
from voltier.grid.writers.glm_network import (
    FREQUENCY_HZ,
    GlmFeeder,
    Index,
    Mask,
    PhaseInjections,
    line_objects,
    node_objects,
    number,
    switch_objects,
)

SWITCH_OHM = (
    1e-6  # GridLAB-D's own 1e-4 shifts voltages of a 4 kV feeder by 1e-4 p.u.; 1e-7 changes nothing any more
)

VOLTAGE_ERROR = (
    "1e-8"  # Newton's last step, a share of nominal voltage; 1e-9 is below rounding on 25 kV feeders
)


@dataclass(frozen=True, slots=True)
class GlmSetting:
    """What surrounds the objects of a model.

    about : first line, a comment ; start, stop : as '2020-01-01 00:00:00', UTC ; modules : loaded beside powerflow
    powerflow : settings of that module beside the solver, line capacitance, frequency, switches and tolerance
    """

    about: str = "one instant: regulators at fixed taps, injections as loads below zero"
    start: str = "2020-01-01 00:00:00"
    stop: str = "2020-01-01 00:00:01"
    modules: tuple[str, ...] = ()
    powerflow: tuple[tuple[str, str], ...] = ()

    def header(self, name: str, solver: str) -> str:
        """Write clock and modules. name : of the feeder."""
        settings = {
            "solver_method": solver,
            "line_capacitance": "true",
            "nominal_frequency": number(FREQUENCY_HZ),
            "default_resistance": str(SWITCH_OHM),
            "default_maximum_voltage_error": VOLTAGE_ERROR,
            **dict(self.powerflow),
        }
        return "".join(
            [
                f"// feeder {' '.join(name.split())}, {self.about}\n",
                f"clock {{\n    timezone UTC0;\n    starttime '{self.start}';\n    stoptime '{self.stop}';\n}}\n",
                *(f"module {module};\n" for module in self.modules),
                "module powerflow {\n",
                *(f"    {key} {value};\n" for key, value in settings.items()),
                "}\n",
            ]
        )


def write_gridlabd(
    feeder: Feeder,
    tap: Index,
    injection: PhaseInjections,
    path: Path,
    *,
    loads: bool = False,
    solver: Literal["NR", "FBS"] = "NR",
) -> Path:
    """Write the feeder as a static GridLAB-D model and give the path; see gridlabd_model."""
    path.write_text(gridlabd_model(feeder, tap, injection, loads=loads, solver=solver), encoding="utf-8")
    return path


def gridlabd_model(
    feeder: Feeder,
    tap: Index,
    injection: PhaseInjections,
    *,
    loads: bool = False,
    solver: Literal["NR", "FBS"] = "NR",
    setting: GlmSetting | None = None,
) -> str:
    """Give the feeder as the text of a GridLAB-D model; buses are named as gridlabd_bus_names says.

    tap : (n_reg,) fixed positions, rows of feeder.regulators ; injection : what devices inject beside the spot loads,
    as constant power ; loads : take in the spot loads, wye and delta, constant power, current or impedance
    solver : Newton (NR), or forward-backward sweep (FBS), for which open switches are left out
    setting : clock and modules; none is one second, for the power flow alone

    What the source does not feed, and what hangs on delta windings alone (voltages to ground float there), is left
    out, and so are open switches that lead there. Lines keep their phase matrices with capacitance; wye transformers
    are series impedances; links point away from the source. Raises InputError with all problems: a wrong number of
    taps, taps that are no whole numbers or out of range; injections that are no numbers, of unequal lengths or at rows
    and phases that do not exist; injections, loads or capacitors at places that are left out; a transformer fed on some
    phases only; bus names that become equal.
    """
    malformed = [*_malformed(feeder, injection)]
    if malformed:
        raise InputError(malformed)
    model = GlmFeeder.of(feeder, keeps_open=solver == "NR")
    problems = [*_misplaced(model, injection, loads), *_unfit(model, tap)]
    if problems:
        raise InputError(problems)
    blocks = [
        (setting or GlmSetting()).header(feeder.name, solver),
        *node_objects(model),
        *line_objects(model),
        *switch_objects(model),
        *regulator_objects(model, tap),
        *transformer_objects(model),
        *capacitor_objects(model),
        *injection_objects(model, injection),
        *(spot_load_objects(model) if loads else ()),
    ]
    return "".join(blocks)


def _malformed(feeder: Feeder, injection: PhaseInjections) -> Iterator[Problem]:
    """Find injections that name no place of the feeder, or no power."""
    table = {name: np.asarray(getattr(injection, name)) for name in ("bus", "phase", "p_kw", "q_kvar")}
    if len({values.shape for values in table.values()}) > 1 or table["bus"].ndim != 1:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in table.items())
        yield Problem("injections", "shape", shapes, "give four arrays of one length")
        return
    for name, count in (("bus", len(feeder.bus)), ("phase", 3)):
        rows = table[name]
        if not np.issubdtype(rows.dtype, np.integer):
            yield Problem("injections", name, str(rows.dtype), "give an array of integers")
            continue
        for k in np.flatnonzero(~np.isin(rows, np.arange(count))).tolist():
            yield Problem(f"injections, row {k}", name, rows[k].item(), f"write a row from 0 to {count - 1}")
    for name in ("p_kw", "q_kvar"):
        for k in np.flatnonzero(~np.isfinite(table[name])).tolist():
            yield Problem(f"injections, row {k}", name, float(table[name][k]), "write a finite number")


def _misplaced(model: GlmFeeder, injection: PhaseInjections, loads: bool) -> Iterator[Problem]:
    """Find what stands at places that are left out; injections of nothing may stand anywhere."""
    feeder, fed = model.feeder, model.fed
    used = (injection.p_kw != 0) | (injection.q_kvar != 0)
    drawn = [
        ("injections", bus, [phase])
        for bus, phase in zip(injection.bus[used].tolist(), injection.phase[used].tolist(), strict=True)
    ]
    capacitors, spot = feeder.capacitors, feeder.spot_loads
    drawn += [
        ("capacitors", bus, [phase])
        for bus, phase in zip(capacitors.bus.tolist(), capacitors.phase.tolist(), strict=True)
    ]
    if loads:
        letters = [["abc".index(letter) for letter in pair] for pair in spot.phase]
        drawn += [("spot_loads", bus, phases) for bus, phases in zip(spot.bus.tolist(), letters, strict=True)]
    remedy = "stand only where the source feeds the phase and voltages have a ground reference"
    for table, bus, phases in drawn:
        if not fed[bus, phases].all():
            letters_there = "".join("abc"[phase] for phase in phases)
            yield Problem(f"{table}, bus {feeder.bus[bus]}", "phase", letters_there, remedy)


def _unfit(model: GlmFeeder, tap: Index) -> Iterator[Problem]:
    """Find transformers that are fed in part, or wound differently on their sides, and taps that do not fit."""
    feeder, transformers = model.feeder, model.feeder.transformers
    if len(tap) != len(feeder.regulators.name):
        remedy = f"give one tap per row of the regulator table, {len(feeder.regulators.name)}"
        yield Problem(f"feeder {feeder.name}", "tap", len(tap), remedy)
    else:
        most = feeder.regulators.max_tap
        for k in np.flatnonzero(~((np.abs(tap) <= most) & (np.asarray(tap) == np.round(tap)))).tolist():
            remedy = f"write a whole number within ±{most[k]}"
            yield Problem(f"regulators, {feeder.regulators.name[k]}", "tap", float(tap[k]), remedy)
    alive: Mask = model.fed[transformers.from_bus] & model.fed[transformers.to_bus]
    for k in np.flatnonzero(alive.any(axis=1)).tolist():
        where, low = f"transformers, {transformers.name[k]}", transformers.conn_low[k]
        if not alive[k].all():
            yield Problem(where, "phases", "".join(np.array(list("abc"))[alive[k]]), "feed all three phases")
        if "delta" in (low, transformers.conn_high[k]):
            yield Problem(where, "conn_low", low, "behind what is fed otherwise too, connect wye_grounded")
