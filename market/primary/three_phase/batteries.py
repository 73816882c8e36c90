"""Batteries of the three-phase market over many periods: what they are, and how they bid in a period.

A battery is an operator whose net power is minus what it charges and whose generation is what it discharges.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, Problem
from voltier.market.primary.problem import ScaledBids
from voltier.market.primary.three_phase.problem import ScaledProblem

Array = NDArray[np.float64]
Direction = NDArray[np.int8]
"""Of each battery: 1 it may only discharge, -1 only charge, 0 both."""


@dataclass(frozen=True, slots=True)
class Batteries:
    """Batteries of the feeder; (k,) each.

    charge_max_kw, discharge_max_kw : at the grid ; energy_min_kwh, energy_max_kwh : limits of what is stored
    energy_start_kwh : stored at the start ; energy_end_kwh : least to be stored at the end
    charge_efficiency, discharge_efficiency : in (0, 1] ; wear_usd_per_kwh : cost of a discharged kWh
    """

    charge_max_kw: Array
    discharge_max_kw: Array
    energy_min_kwh: Array
    energy_max_kwh: Array
    energy_start_kwh: Array
    energy_end_kwh: Array
    charge_efficiency: Array
    discharge_efficiency: Array
    wear_usd_per_kwh: Array


def with_batteries(problem: ScaledProblem, batteries: Batteries, base: float) -> ScaledProblem:
    """Append the batteries to the operators: net power is minus the charge, generation the discharge."""
    bids, zero = problem.bids, np.zeros(len(batteries.charge_max_kw))
    low = np.stack([-batteries.charge_max_kw / base, zero, zero])
    high = np.stack([zero, zero, batteries.discharge_max_kw / base])
    flat = np.stack([zero, zero, zero])
    wear = np.stack([zero, zero, batteries.wear_usd_per_kwh])

    def joined(own: Array, more: Array) -> Array:
        return np.concatenate([own, more], axis=1)

    extended: ScaledBids = replace(
        bids,
        low=joined(bids.low, low),
        high=joined(bids.high, high),
        start=joined(bids.start, flat),
        weight=joined(bids.weight, flat),
        linear=joined(bids.linear, wear),
    )
    return replace(problem, bids=extended)


def in_direction(problem: ScaledProblem, direction: Direction) -> ScaledProblem:
    """Return a problem that has batteries, (k,) the last operators, with the other direction closed to each."""
    k, low, high = len(direction), problem.bids.low.copy(), problem.bids.high.copy()
    low[0, -k:][direction > 0] = 0.0
    high[2, -k:][direction < 0] = 0.0
    return replace(problem, bids=replace(problem.bids, low=low, high=high))


def check_batteries(batteries: Batteries, count: int) -> None:
    """Raise InputError for batteries that cannot be, or are not count."""
    b = batteries
    columns = {field.name: getattr(b, field.name) for field in fields(b)}
    short = [
        Problem("batteries", name, len(value), f"{count} of them")
        for name, value in columns.items()
        if len(value) != count
    ]
    if short:
        raise InputError(short)
    # Not a number is within no limit.
    sound = {
        "charge_max_kw": b.charge_max_kw >= 0.0,
        "discharge_max_kw": b.discharge_max_kw >= 0.0,
        "energy_min_kwh": b.energy_min_kwh <= b.energy_max_kwh,
        "energy_start_kwh": (b.energy_start_kwh >= b.energy_min_kwh)
        & (b.energy_start_kwh <= b.energy_max_kwh),
        "energy_end_kwh": b.energy_end_kwh <= b.energy_max_kwh,
        "charge_efficiency": (b.charge_efficiency > 0.0) & (b.charge_efficiency <= 1.0),
        "discharge_efficiency": (b.discharge_efficiency > 0.0) & (b.discharge_efficiency <= 1.0),
    }
    remedy = "a finite number within the battery's limits; efficiencies in (0, 1]"
    problems = [
        Problem(f"battery {k}", name, float(value[k]), remedy)
        for name, value in columns.items()
        for k in np.flatnonzero(~(np.isfinite(value) & sound.get(name, True)))
    ]
    if problems:
        raise InputError(problems)
