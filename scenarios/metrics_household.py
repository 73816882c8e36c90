"""Key figures of the people: bills, comfort, cars, batteries, use of their own PV, flexibility they delivered.

Figures over houses come from their records, one minute out of each recording period (five minutes unless set
otherwise): they miss what happens between two records. Bills and figures over agents come from every minute, as noted.
"""

from __future__ import annotations

import numpy as np

from voltier.agents.devices import water_heater
from voltier.scenarios.households import (
    OUTSIDE_C,
    OUTSIDE_KWH,
    Households,
    bills_usd,
    departures,
    excursion_c,
    households,
    rms_from_wanted_c,
    self_used_kw,
    soc_excess_kwh,
)
from voltier.scenarios.panels import Array, Block
from voltier.scenarios.schema import Scenario

Kpis = dict[str, float | int | None]

MINUTE_H = 1.0 / 60.0


def household_kpis(
    consumer: Block | None,
    devices: Block | None,
    system: Block | None,
    side: Block | None,
    scenario: Scenario,
) -> Kpis:
    """Return the figures of the houses; empty where the run did not record them.

    consumer, devices, system : the tables of these names ; side : the table consumer_clearings.
    """
    if consumer is None or devices is None:
        return {}
    houses = households(consumer, devices, scenario)
    kpis = _bills(houses, side) | _comfort(houses) | _cars(houses) | _batteries(houses)
    return kpis | _tanks(devices, houses.period_h) | _pv(houses, system)


def flexibility_kpis(secondary: Block | None) -> Kpis:
    """Return what agents were asked to inject more or less than they had bid to, and what came of it; every minute.

    called: Σ |P − P0| dt by direction. delivered: Σ (P_meter − P0) dt in the direction of the call, so that what loads
    do of themselves cancels over many minutes. missed: Σ |P_meter − P| dt, of which that noise is a part. A bid is what
    an agent wants now, rebound of earlier calls included: the sum of calls is more than energy saved.
    """
    if secondary is None:
        return {}
    called_kw = secondary["p_kw"] - secondary["p0_kw"]
    moved_kw = secondary["p_meter_kw"] - secondary["p0_kw"]
    called = {"up": np.maximum(called_kw, 0.0), "down": np.maximum(-called_kw, 0.0)}
    kpis: Kpis = {f"flexibility.called_{way}_kwh": _kwh(kw) for way, kw in called.items()}
    delivered = {
        "up": float(moved_kw[called_kw > 0.0].sum() * MINUTE_H),
        "down": float(-moved_kw[called_kw < 0.0].sum() * MINUTE_H) + 0.0,
    }
    kpis |= {f"flexibility.delivered_{way}_kwh": value for way, value in delivered.items()}
    total = sum(_kwh(kw) for kw in called.values())
    if total > 0.0:
        kpis["flexibility.delivered_share"] = sum(delivered.values()) / total
    kpis["flexibility.missed_kwh"] = _kwh(np.abs(secondary["p_meter_kw"] - secondary["p_kw"]))
    return kpis


def _bills(houses: Households, side: Block | None) -> Kpis:
    """What houses pay, every minute up to the last record (see `bills_usd`), and what of it is the consumer market's.

    total: Σ bills. transferred: Σ of what consumer markets give to houses that gain by them over the run, and so take
    from others; least, most given: to any house. side_payments: of all markets.
    """
    bill, given = bills_usd(houses), houses.given_usd.sum(axis=0)
    # What cancels in a market without calls leaves rounding.
    given = np.round(given, 9)
    low, middle, high = np.quantile(bill, (0.05, 0.5, 0.95))
    kpis: Kpis = {
        "bills.total_usd": float(bill.sum()),
        "bills.house_mean_usd": float(bill.mean()),
        "bills.house_p05_usd": float(low),
        "bills.house_median_usd": float(middle),
        "bills.house_p95_usd": float(high),
        "bills.transferred_usd": float(np.maximum(given, 0.0).sum()),
        "bills.house_least_given_usd": float(given.min()),
        "bills.house_most_given_usd": float(given.max()),
    }
    if side is not None:
        paid = side["side_payment_usd_per_h"].sum() * houses.period_h
        kpis["bills.side_payments_usd"] = float(paid)
    return kpis


def _comfort(houses: Households) -> Kpis:
    """Indoor temperature against comfort limits and wish.

    outside_limits_house_h: hours · houses more than OUTSIDE_C outside; outside_limits_c_h: Σ excursion dt;
    rms_from_wanted_c: root of the mean of (T − T_wanted)² over houses and records.
    """
    excursion = excursion_c(houses)
    return {
        "comfort.mean_temp_indoor_c": float(houses.temp_c.mean()),
        "comfort.min_temp_indoor_c": float(houses.temp_c.min()),
        "comfort.max_temp_indoor_c": float(houses.temp_c.max()),
        "comfort.outside_limits_house_h": float((excursion > OUTSIDE_C).sum() * houses.period_h),
        "comfort.outside_limits_c_h": float(excursion.sum() * houses.period_h),
        "comfort.worst_excursion_c": float(excursion.max()),
        "comfort.rms_from_wanted_c": float(np.sqrt((rms_from_wanted_c(houses) ** 2).mean())),
    }


def _tanks(devices: Block, period_h: float) -> Kpis:
    """Time and distance of hot water outside its limits; runs made before it was recorded have neither."""
    if "temp_water_c" not in devices.values:
        return {}
    temp_c = devices["temp_water_c"]
    excursion = np.nan_to_num(np.maximum(water_heater.MIN_C - temp_c, temp_c - water_heater.MAX_C), nan=0.0)
    return {
        "comfort.water_outside_limits_house_h": float((excursion > OUTSIDE_C).sum() * period_h),
        "comfort.water_worst_excursion_c": float(np.maximum(excursion, 0.0).max()),
    }


def _cars(houses: Households) -> Kpis:
    """Departures within the run, those with less energy than the target, and what they lack: Σ max(target − E, 0)."""
    has = houses.equipment.ev_kwh > 0.0
    if not has.any():
        return {}
    left = departures(houses)
    kpis: Kpis = {
        "ev.cars": int(has.sum()),
        "ev.departures": len(left.house),
        "ev.departures_below_target": int((left.missing_kwh > 0.0).sum()),
        "ev.missing_kwh": float(left.missing_kwh.sum()),
        "ev.worst_missing_kwh": float(left.missing_kwh.max(initial=0.0)),
    }
    return kpis | _soc("ev", houses.ev_kwh[:, has], houses.equipment.ev_kwh[has], houses.period_h)


def _batteries(houses: Households) -> Kpis:
    has = houses.equipment.battery_kwh > 0.0
    if not has.any():
        return {}
    return _soc("battery", houses.battery_kwh[:, has], houses.equipment.battery_kwh[has], houses.period_h)


def _soc(name: str, energy_kwh: Array, capacity_kwh: Array, period_h: float) -> Kpis:
    """Reach of state of charge, and time and distance outside its limits."""
    excess, soc = soc_excess_kwh(energy_kwh, capacity_kwh), energy_kwh / capacity_kwh
    return {
        f"{name}.min_soc_share": float(soc.min()),
        f"{name}.max_soc_share": float(soc.max()),
        f"{name}.outside_soc_limits_house_h": float((excess > OUTSIDE_KWH).sum() * period_h),
        f"{name}.worst_soc_excess_kwh": float(excess.max()),
    }


def _pv(houses: Households, system: Block | None) -> Kpis:
    """PV energy that houses use behind their own meters, and what of it the sun offered and nobody took.

    self_use_share: Σ min(PV, own consumption) / Σ PV. curtailed: Σ max(sun · rating − PV, 0), at the records that fall
    on a primary period, whose sun the table `system` holds.
    """
    rating = houses.equipment.pv_kva
    if not (rating > 0.0).any():
        return {}
    pv_kw = houses.device_kw["pv_kw"]
    made, used = (float(power.sum() * houses.period_h) for power in (pv_kw, self_used_kw(houses)))
    kpis: Kpis = {"pv.self_used_kwh": used}
    if made > 0.0:
        kpis["pv.self_use_share"] = used / made
    if system is not None:
        times, at, row = np.intersect1d(houses.t_s, system.t_s, return_indices=True)
        step_h = float(np.median(np.diff(times))) / 3600.0 if len(times) > 1 else houses.period_h
        available = system["pv_available"][row] * rating
        kpis["pv.available_kwh"] = float(available.sum() * step_h)
        kpis["pv.curtailed_kwh"] = float(np.maximum(available - pv_kw[at], 0.0).sum() * step_h)
    return kpis


def _kwh(p_kw: Array) -> float:
    return float(p_kw.sum() * MINUTE_H)
