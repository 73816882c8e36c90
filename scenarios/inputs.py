"""Data files to arrays: weather to minutes and PV availability, prices, house profiles, when cars stand at home."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voltier.agents.clock import MINUTE_S, WARM_UP_S
from voltier.agents.devices.fleet import Stays
from voltier.agents.wholesale import ConditionSeries
from voltier.grid.errors import InputError, Problem
from voltier.scenarios.schema_model import Scenario
from voltier.scenarios.schema_sections import InputsSection

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]

DATA = Path(__file__).parent / "data"
PACKAGED = {
    "weather_csv": DATA / "weather" / "san_francisco_tmy3.csv",
    "price_csv": DATA / "prices" / "caiso_day_ahead_2020_hourly.csv",
    "load_profiles_csv": DATA / "loads" / "european_lv_100_houses_1min_kw.csv",
    "ev_sessions_csv": DATA / "vehicles" / "home_level2_sessions_san_francisco.csv",
}
HOURS_A_DAY, HOURS_A_YEAR = 24, 8760
MINUTES_A_DAY = 1440
# PVWatts module: loss of output per degree above 25 C (NREL/TP-6A20-62641, standard module).
_GAMMA_PER_C = -0.0047
_PLAUSIBLE = {
    "dni_w_m2": (0.0, 1600.0),
    "dhi_w_m2": (0.0, 1200.0),
    "temp_air_c": (-60.0, 60.0),
    "wind_speed_m_s": (0.0, 90.0),
    # Hourly prices beyond 10 $/kWh are a unit mistake: the highest cap in use is half of it.
    "price_usd_per_mwh": (-10_000.0, 10_000.0),
    "year": (1950.0, 2200.0),
    "month": (1.0, 12.0),
    "day": (1.0, 31.0),
    "hour_ending": (1.0, 24.0),
}


def input_files(scenario: Scenario) -> dict[str, Path]:
    """Return the data files that a scenario reads, by the name of their field in inputs."""
    return {name: _path(scenario.inputs, name) for name in PACKAGED}


def conditions(scenario: Scenario) -> ConditionSeries:
    """Return price, air temperature and PV availability of each minute, from one minute before the start.

    The series reach consumer.horizon_h beyond the end. Price holds for its hour; temperature is interpolated
    between its hourly readings; irradiance, an hourly mean, between the middles of its hours.
    Raises InputError.
    """
    minute_of_run = _minutes_of(scenario)
    weather = read_weather(_path(scenario.inputs, "weather_csv"))
    temp_air_c, pv_available = weather_minutes(weather, scenario.start, minute_of_run, scenario.inputs)
    price = _price_minutes(_path(scenario.inputs, "price_csv"), scenario, minute_of_run)
    return ConditionSeries(price_usd_per_kwh=price, temp_air_c=temp_air_c, pv_available=pv_available)


def load_profiles(scenario: Scenario) -> Array:
    """Return a day of minutes of houses without heating: (1440, n_profiles) [kW], consumption positive.

    Minute 0 begins at midnight. Raises InputError.
    """
    path = _path(scenario.inputs, "load_profiles_csv")
    table = _read(path, ["minute"], rows=MINUTES_A_DAY)
    names = [name for name in table.columns if name != "minute"]
    if not names:
        raise InputError(
            [Problem(str(path), "columns", "minute", "give at least one column of kW beside minute")]
        )
    _check_numbers(path, table, ["minute", *names], dict.fromkeys(["minute", *names], (0.0, np.inf)))
    disorder = table["minute"].to_numpy(dtype=np.float64) != np.arange(MINUTES_A_DAY)
    if disorder.any():
        row = int(np.argmax(disorder))
        where, remedy = f"{path}, data row {row + 1}", f"expected {row}; give every minute once, in order"
        raise InputError([Problem(where, "minute", str(table["minute"].iloc[row]), remedy)])
    dead = [name for name in names if not table[name].any()]
    if dead:
        raise InputError(
            [Problem(str(path), dead[0], "all zero", "only its shape is used; remove the column")]
        )
    return np.ascontiguousarray(table[names].to_numpy(dtype=np.float64))


def ev_stays(scenario: Scenario) -> Stays:
    """Return when cars stand at home; stays under an hour or over 23 are no daily rhythm and left out."""
    path = _path(scenario.inputs, "ev_sessions_csv")
    limits = {"arrival_minute": (0.0, MINUTES_A_DAY - 1.0), "parked_minutes": (1.0, np.inf)}
    table = _read(path, list(limits))
    _check_numbers(path, table, list(limits), limits)
    daily = table[table["parked_minutes"].between(60, MINUTES_A_DAY - 60)]
    if daily.empty:
        raise InputError(
            [Problem(str(path), "parked_minutes", "none", "give at least one stay of 60 to 1380 minutes")]
        )
    return Stays(
        arrival_min=daily["arrival_minute"].to_numpy(dtype=np.int64),
        parked_min=daily["parked_minutes"].to_numpy(dtype=np.int64),
    )


def read_weather(path: Path) -> dict[str, Array]:
    """Read an hourly typical year: (8760,) arrays of dni, dhi [W/m²], temperature [C], wind [m/s]."""
    names = ["dni_w_m2", "dhi_w_m2", "temp_air_c", "wind_speed_m_s"]
    table = _read(path, ["month", "day", "hour_ending", *names], rows=HOURS_A_YEAR)
    _check_numbers(path, table, names, _PLAUSIBLE)
    _check_calendar(path, table, ["month", "day", "hour_ending"], year=2019)
    return {name: table[name].to_numpy(dtype=np.float64) for name in names}


def weather_minutes(
    weather: dict[str, Array], start: datetime, minute: NDArray[np.int64], site: InputsSection
) -> tuple[Array, Array]:
    """Return air temperature [C] and PV output over rating at minutes counted from midnight of the start day.

    PV: direct and diffuse irradiance on the tilted plane (isotropic sky), module temperature after Faiman,
    output after PVWatts, less pv_loss, at most the rating. Global irradiance follows from the other two.
    """
    from pvlib import irradiance, pvsystem, temperature

    hour = _middle_hours(start, minute)
    temp_air_c, wind = (
        _between_hours(weather[name], hour - 1.0) for name in ("temp_air_c", "wind_speed_m_s")
    )
    sun = _sun(start, minute, site)
    zenith = sun["apparent_zenith"].to_numpy()
    dni, dhi, ghi = _irradiance(weather, hour, zenith)
    plane = irradiance.get_total_irradiance(
        site.pv_tilt_deg,
        site.pv_azimuth_deg,
        zenith,
        sun["azimuth"].to_numpy(),
        dni=dni,
        ghi=ghi,
        dhi=dhi,
        model="isotropic",
    )
    poa = np.asarray(plane["poa_global"], dtype=np.float64)
    module_c = temperature.faiman(poa, temp_air_c, wind)
    output = np.asarray(pvsystem.pvwatts_dc(poa, module_c, 1.0, _GAMMA_PER_C), dtype=np.float64)
    return temp_air_c, np.clip(output * (1.0 - site.pv_loss), 0.0, 1.0)


def sky_minutes(scenario: Scenario) -> tuple[Array, Array, Array]:
    """Return direct normal, diffuse and global horizontal irradiance [W/m²] of each minute of conditions."""
    minute = _minutes_of(scenario)
    weather = read_weather(_path(scenario.inputs, "weather_csv"))
    zenith = _sun(scenario.start, minute, scenario.inputs)["apparent_zenith"].to_numpy()
    return _irradiance(weather, _middle_hours(scenario.start, minute), zenith)


def _minutes_of(scenario: Scenario) -> NDArray[np.int64]:
    """Return the minutes of conditions, counted from midnight of the start day."""
    first = (scenario.start_second_of_day + WARM_UP_S) // MINUTE_S
    return first + np.arange((scenario.end_s - WARM_UP_S) // MINUTE_S + scenario.consumer.horizon_h * 60)


def _middle_hours(start: datetime, minute: NDArray[np.int64]) -> Array:
    return np.asarray(_hours_from_new_year(start) + (minute + 0.5) / 60.0)


def _sun(start: datetime, minute: NDArray[np.int64], site: InputsSection) -> pd.DataFrame:
    import pandas as pd
    from pvlib import solarposition

    times = pd.DatetimeIndex(_utc_minutes(start, minute, site.utc_offset_h))
    return solarposition.get_solarposition(times, site.latitude_deg, site.longitude_deg, temperature=15.0)


def _irradiance(weather: dict[str, Array], hour: Array, zenith: Array) -> tuple[Array, Array, Array]:
    """Return direct normal, diffuse and global horizontal irradiance [W/m²], zero while the sun is down."""
    up = zenith < 90.0
    dni = np.where(up, _between_hours(weather["dni_w_m2"], hour - 0.5), 0.0)
    dhi = np.where(up, _between_hours(weather["dhi_w_m2"], hour - 0.5), 0.0)
    return dni, dhi, dhi + dni * np.where(up, np.cos(np.radians(zenith)), 0.0)


def _price_minutes(path: Path, scenario: Scenario, minute: NDArray[np.int64]) -> Array:
    """Return the price [$/kWh] at minutes counted from midnight of the start day.

    The run itself must lie within the data; forecasts beyond their end repeat the last day.
    """
    names = ["year", "month", "day", "hour_ending"]
    table = _read(path, [*names, "price_usd_per_mwh"])
    _check_numbers(path, table, ["year", "price_usd_per_mwh"], _PLAUSIBLE)
    year = int(table["year"].iloc[0])
    _check_calendar(path, table, names, year=year)
    n, midnight = len(table), datetime(scenario.start.year, scenario.start.month, scenario.start.day)
    first = round((midnight - datetime(year, 1, 1)).total_seconds() / 3600.0)
    last_hour = first + (scenario.start_second_of_day + scenario.end_s - MINUTE_S) // 3600
    if first < 0 or last_hour >= n or n < HOURS_A_DAY:
        end = datetime(year, 1, 1) + timedelta(hours=n)
        remedy = f"the run must lie within the prices of {path}, {year}-01-01 to {end:%Y-%m-%d %H:%M}, a day at least"
        shown = f"{scenario.start:%Y-%m-%d %H:%M}, {scenario.hours:g} h"
        raise InputError([Problem(f"scenario {scenario.name}", "start", shown, remedy)])
    hour = np.maximum(first + np.floor_divide(minute, 60), 0)
    hour = np.where(hour < n, hour, n - HOURS_A_DAY + (hour - n) % HOURS_A_DAY)
    return table["price_usd_per_mwh"].to_numpy(dtype=np.float64)[hour] / 1000.0


def _hours_from_new_year(start: datetime) -> float:
    """Return the hour of a 365-day year at midnight of the start day; 29 February counts as the 28th."""
    day = 28 if (start.month, start.day) == (2, 29) else start.day
    return (datetime(2019, start.month, day) - datetime(2019, 1, 1)).total_seconds() / 3600.0


def _utc_minutes(start: datetime, minute: NDArray[np.int64], utc_offset_h: float) -> NDArray[np.datetime64]:
    """Middle of each minute in UTC; the sun is that of the start's own year."""
    midnight = np.datetime64(datetime(start.year, start.month, start.day), "s")
    return midnight + (minute * 60 + 30 - round(utc_offset_h * 3600)).astype("timedelta64[s]")


def _between_hours(values: Array, hour: NDArray[np.floating[Any]]) -> Array:
    """Interpolate a year of hourly values, value k at hour k, going on at the beginning after the end."""
    below = np.floor(hour).astype(np.int64)
    share = hour - below
    n = len(values)
    return values[below % n] * (1.0 - share) + values[(below + 1) % n] * share


def _path(inputs: InputsSection, name: str) -> Path:
    given = getattr(inputs, name)
    return PACKAGED[name] if given is None else Path(given)


def _read(path: Path, columns: Sequence[str], rows: int | None = None) -> pd.DataFrame:
    """Read a CSV file with comment lines; all columns asked for must be there, and as many rows as said."""
    import pandas as pd

    try:
        table = pd.read_csv(path, comment="#", skip_blank_lines=True)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(
            [Problem(str(path), "file", path.name, f"cannot be read as CSV: {error}")]
        ) from error
    missing = [name for name in columns if name not in table.columns]
    problems = [Problem(str(path), name, "no such column", "add this column") for name in missing]
    if rows is not None and len(table) != rows:
        problems.append(Problem(str(path), "rows", len(table), f"there must be {rows} rows"))
    elif len(table) == 0:
        problems.append(Problem(str(path), "rows", 0, "there must be at least one row"))
    if problems:
        raise InputError(problems)
    return table


def _check_numbers(
    path: Path, table: pd.DataFrame, names: Sequence[str], limits: dict[str, tuple[float, float]]
) -> None:
    """Refuse what is not a number, missing or beyond its limits; one problem a column, with its first row."""
    import pandas as pd

    problems = []
    for name in names:
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
        low, high = limits[name]
        wrong = ~np.isfinite(values) | (values < low) | (values > high)
        if wrong.any():
            row = int(np.argmax(wrong))
            shown = table[name].iloc[row]
            remedy = f"must be a number from {low:g} to {high:g} ({int(wrong.sum())} such rows)"
            problems.append(Problem(f"{path}, data row {row + 1}", name, str(shown), remedy))
    if problems:
        raise InputError(problems)


def _check_calendar(path: Path, table: pd.DataFrame, names: Sequence[str], year: int) -> None:
    """Refuse rows that are not every hour from 1 January of the year on."""
    _check_numbers(path, table, names, _PLAUSIBLE)
    expected = np.datetime64(f"{year}-01-01T00", "h") + np.arange(len(table))
    days = expected.astype("datetime64[D]")
    months = expected.astype("datetime64[M]")
    calendar = {
        "year": expected.astype("datetime64[Y]").astype(np.int64) + 1970,
        "month": months.astype(np.int64) % 12 + 1,
        "day": (days - months).astype(np.int64) + 1,
        "hour_ending": (expected - days.astype("datetime64[h]")).astype(np.int64) + 1,
    }
    wrong = np.zeros(len(table), dtype=bool)
    for name in names:
        wrong |= table[name].to_numpy() != calendar[name]
    if wrong.any():
        row = int(np.argmax(wrong))
        want = " ".join(f"{name} {calendar[name][row]}" for name in names)
        have = " ".join(f"{name} {table[name].iloc[row]}" for name in names)
        remedy = f"expected {want}; give every hour once, in order, from 1 January on"
        raise InputError([Problem(f"{path}, data row {row + 1}", "calendar", have, remedy)])
