"""The duck-curve case on IEEE 34: loads, suns, flexible shares and batteries of a day in San Francisco.

After R. Haider, G. Ferro, M. Robba and A. M. Annaswamy, "Flattening the duck curve: a case for distributed decision
making", IEEE PES General Meeting 2022. What it leaves open and what is taken here: duck_curve_readings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import Feeder, read_feeder
from voltier.market.primary.three_phase.batteries import Batteries
from voltier.scenarios.inputs import DATA, PACKAGED, read_weather, weather_minutes
from voltier.scenarios.schema_sections import InputsSection

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Start = Literal["min", "mid", "full"]
Split = Literal["matched", "by_size"]
Shed = Literal["space_cooling_share", "all_share", "none"]

HOURS = 24
BUILDINGS_CSV = DATA / "loads" / "san_francisco_buildings_hourly_kw.csv"
FLEXIBLE_CSV = DATA / "loads" / "san_francisco_flexible_share_month_hour.csv"
YEAR = 2006
"""A year whose 1 January is a Sunday, as in the buildings' table."""

NODES = (
    "800", "802", "806", "808", "810", "812", "814", "850", "816", "818", "820", "822", "824", "826", "828", "830",
    "854", "856", "852", "832", "888", "858", "864", "834", "842", "844", "846", "848", "860", "836", "840", "862",
    "838",
)  # fmt: skip
"""Bus of the study's node 1, 2, ...: depth first from the head, laterals before the main line goes on."""
MERGED = ("890", "888")
"""Customers of the first bus are connected at the second: the two ends of a customer's line are one node."""
BATTERY_NODES = (6, 19, 27)
CLUSTERS = ((3, 4, 5, 6), (19, 20, 21), (26, 27))
HOSPITAL_NODE, SCHOOL_NODE, HOME_NODES = 26, 21, (3, 4, 5, 20)
CAPACITY_KWH = np.array([450.0, 540.0, 800.0])
RATING_KW = np.array([120.0, 200.0, 185.0])
START_KWH: Mapping[Start, Array] = {
    "min": np.array([45.0, 0.0, 160.0]),
    "mid": np.array([120.0, 400.0, 400.0]),
    "full": CAPACITY_KWH,
}
EFFICIENCY = 0.95
"""Of charging, and of discharging: our choice, the paper gives none. There is no self-discharge."""

POWER_FACTOR, INVERTER_POWER_FACTOR, PV_SHARE = 0.95, 0.8, 0.38
HOME, SCHOOL, HOSPITAL = "home", "primary_school", "hospital"
MATCHED_KINDS = (
    "retail_store", "small_office", "medium_office", "fast_food_restaurant", "full_service_restaurant",
)  # fmt: skip
HOME_DAYS = 31
"""Days around the day over which a home's load is averaged, so that one home stands for many."""
LARGEST_HOMES_KW = 30.0
"""What is larger is commercial where kinds go by size alone."""
TIME_VARIANCE_H2, SIZE_VARIANCE = 0.075, 0.1


@dataclass(frozen=True, slots=True)
class Reading:
    """How the day is read.

    month_day : of the typical year, "03-31" ; seed : of the shifts of flexible shares ; split : who is a business ;
    shed : column of what homes may shed, or "none"
    """

    month_day: str = "03-31"
    seed: int = 1
    split: Split = "matched"
    shed: Shed = "space_cooling_share"


@dataclass(frozen=True, slots=True)
class DuckCase:
    """A day of the feeder. T = 24 hours, standard time; n buses with load; k batteries.

    feeder : with the customers of MERGED moved ; bus : (n,) rows of its buses ; kind : (n,) building of each
    phase_share : (n, 3) of a bus's load, and of its PV, on each phase
    load_kw, pv_kw : (T, n) consumption and PV output, positive ; shed_max_kw : (T, n) what consumption may fall by
    battery_bus : (k,) rows of their buses ; agent : (n_agent,) buses of each local agent
    """

    feeder: Feeder
    bus: Index
    kind: tuple[str, ...]
    phase_share: Array
    load_kw: Array
    pv_kw: Array
    shed_max_kw: Array
    battery_bus: Index
    agent: tuple[Index, ...]

    @property
    def load_kvar(self) -> Array:
        """Reactive consumption, fixed, (T, n)."""
        return self.load_kw * np.tan(np.arccos(POWER_FACTOR))

    @property
    def net_kw(self) -> Array:
        """Net consumption of the feeder without control and without losses, (T,)."""
        return np.asarray((self.load_kw - self.pv_kw).sum(axis=1))


def build_case(reading: Reading) -> DuckCase:
    """Return the day. Raises InputError for a date that is none."""
    day = _day(reading.month_day)
    feeder = _merged(read_feeder("ieee34"))
    by_phase = _average_by_phase(feeder)
    average = by_phase.sum(axis=1)
    bus = np.flatnonzero(average > 0.0)
    kind = building_kinds(feeder, average, reading.split)
    shapes = load_shapes(day)
    load = np.stack([average[b] * shapes[k] for b, k in zip(bus, kind, strict=True)], axis=1)
    pv = PV_SHARE * average[bus] * pv_shape(day)[:, None]
    row = {name: k for k, name in enumerate(feeder.bus)}
    return DuckCase(
        feeder=feeder,
        bus=bus,
        kind=kind,
        phase_share=by_phase[bus] / average[bus, None],
        load_kw=load,
        pv_kw=pv,
        shed_max_kw=load * flexible_shares(reading, day.month, kind),
        battery_bus=np.array([row[NODES[node - 1]] for node in BATTERY_NODES]),
        agent=_agents(row),
    )


def batteries(start: Start, *, rating_kw: Array = RATING_KW, capacity_kwh: Array = CAPACITY_KWH) -> Batteries:
    """Return the three batteries; the day ends with the middle state's energy at least, wherever it began."""
    share = capacity_kwh / CAPACITY_KWH
    return Batteries(
        charge_max_kw=rating_kw,
        discharge_max_kw=rating_kw,
        energy_min_kwh=START_KWH["min"] * share,
        energy_max_kwh=capacity_kwh,
        energy_start_kwh=START_KWH[start] * share,
        energy_end_kwh=START_KWH["mid"] * share,
        charge_efficiency=np.full(3, EFFICIENCY),
        discharge_efficiency=np.full(3, EFFICIENCY),
        wear_usd_per_kwh=np.zeros(3),
    )


def building_kinds(feeder: Feeder, average_kw: Array, split: Split) -> tuple[str, ...]:
    """Return the building at each bus with load; average_kw : (n_bus,).

    "matched" : one bus for each commercial kind, those whose averages are nearest by ratio, all others homes;
    "by_size" : every bus above LARGEST_HOMES_KW the commercial kind nearest to it, all others homes. The kinds that the
    paper places are there in both.
    """
    level = _yearly_average_kw()
    row = {name: k for k, name in enumerate(feeder.bus)}
    fixed = {row[NODES[HOSPITAL_NODE - 1]]: HOSPITAL, row[NODES[SCHOOL_NODE - 1]]: SCHOOL}
    fixed |= {row[NODES[node - 1]]: HOME for node in HOME_NODES}
    loaded = np.flatnonzero(average_kw > 0.0)
    free = np.array([b for b in loaded.tolist() if b not in fixed])
    away = np.abs(np.log(average_kw[free][None, :] / np.array([level[k] for k in MATCHED_KINDS])[:, None]))
    if split == "matched":
        which, where = linear_sum_assignment(away)
    else:
        where = np.flatnonzero(average_kw[free] > LARGEST_HOMES_KW)
        which = away[:, where].argmin(axis=0)
    placed = fixed | {int(free[j]): MATCHED_KINDS[i] for i, j in zip(which, where, strict=True)}
    return tuple(placed.get(int(b), HOME) for b in loaded)


def load_shapes(day: datetime) -> dict[str, Array]:
    """Return each building's load of the day over the day's mean, (24,); a home's is that of the days around it."""
    at = (datetime(YEAR, day.month, day.day) - datetime(YEAR, 1, 1)).days
    around = (at + np.arange(HOME_DAYS) - HOME_DAYS // 2) % 365
    shapes = {}
    for name, kw in _buildings().items():
        own = kw.reshape(365, HOURS)[around].mean(axis=0) if name == HOME else kw.reshape(365, HOURS)[at]
        shapes[name] = own / own.mean()
    return shapes


def pv_shape(day: datetime) -> Array:
    """Return PV output over its rating, (24,) means of the hours, of the typical year's day."""
    weather = read_weather(PACKAGED["weather_csv"])
    _, output = weather_minutes(weather, day, np.arange(HOURS * 60), InputsSection())
    return output.reshape(HOURS, 60).mean(axis=1)


def flexible_shares(reading: Reading, month: int, kind: tuple[str, ...]) -> Array:
    """Return what may be shed of each bus's load, (24, n) shares: of homes only, each with its own shift and size."""
    rng = np.random.default_rng(reading.seed)
    shift_h = rng.normal(0.0, np.sqrt(TIME_VARIANCE_H2), len(kind))
    size = 1.0 + rng.normal(0.0, np.sqrt(SIZE_VARIANCE), len(kind))
    if reading.shed == "none":
        return np.zeros((HOURS, len(kind)))
    share = _flexible(month, reading.shed)
    hour = np.arange(HOURS)[:, None] - shift_h
    shifted = np.interp(hour % HOURS, np.arange(HOURS + 1), np.append(share, share[0]))
    home = np.array([k == HOME for k in kind])
    return np.clip(shifted * size, 0.0, 1.0) * home


def spread(case: DuckCase, p_kw: Array) -> Array:
    """Spread powers of the buses with load over their phases: (n,) to (n_bus, 3)."""
    out = np.zeros((len(case.feeder.bus), 3))
    out[case.bus] = p_kw[:, None] * case.phase_share
    return out


def _agents(row: Mapping[str, int]) -> tuple[Index, ...]:
    clustered = {node for cluster in CLUSTERS for node in cluster}
    alone = [(node,) for node in range(2, len(NODES) + 1) if node not in clustered]
    return tuple(np.array([row[NODES[node - 1]] for node in nodes]) for nodes in (*CLUSTERS, *alone))


def _day(month_day: str) -> datetime:
    try:
        return datetime.strptime(f"{YEAR}-{month_day}", "%Y-%m-%d")
    except ValueError as error:
        remedy = "give month and day of a year of 365 days, such as 03-31"
        raise InputError([Problem("study duck-curve", "--day", month_day, remedy)]) from error


def _merged(feeder: Feeder) -> Feeder:
    gone, kept = (feeder.bus.index(name) for name in MERGED)
    loads = feeder.spot_loads
    return replace(feeder, spot_loads=replace(loads, bus=np.where(loads.bus == gone, kept, loads.bus)))


def _average_by_phase(feeder: Feeder) -> Array:
    """Return the published active loads by bus and phase, (n_bus, 3); a load between two phases is halved."""
    out = np.zeros((len(feeder.bus), 3))
    loads = feeder.spot_loads
    for bus, letters, p in zip(loads.bus, loads.phase, loads.p_kw, strict=True):
        for letter in letters:
            out[bus, "abc".index(letter)] += p / len(letters)
    return out


def _buildings() -> dict[str, Array]:
    import pandas as pd

    table = pd.read_csv(BUILDINGS_CSV, comment="#")
    return {
        name[:-3]: table[name].to_numpy(dtype=np.float64) for name in table.columns if name.endswith("_kw")
    }


def _yearly_average_kw() -> dict[str, float]:
    return {name: float(kw.mean()) for name, kw in _buildings().items()}


def _flexible(month: int, column: str) -> Array:
    import pandas as pd

    table = pd.read_csv(FLEXIBLE_CSV, comment="#")
    return table[table["month"] == month].sort_values("hour")[column].to_numpy(dtype=np.float64)
