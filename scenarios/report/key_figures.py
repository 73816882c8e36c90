"""The table of key figures: flat keys with units at their end, turned into labels and readable numbers."""

from __future__ import annotations

import html
from collections.abc import Mapping

from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import Section, absent, number, percent, rate, rows_html

UNITS = {
    "usd_per_kw2h": "$/kW²h",
    "usd_per_kvarh": "$/kvarh",
    "usd_per_kwh": "$/kWh",
    "usd_per_h": "$/h",
    "usd": "$",
    "kwh": "kWh",
    "kvarh": "kvarh",
    "kvar": "kvar",
    "kva": "kVA",
    "kw": "kW",
    "pu": "p.u.",
    "ms": "ms",
    "s": "s",
    "min": "min",
    "h": "h",
    "gb": "GB",
    "kb": "kB",
    "mb": "MB",
    "mib": "MiB",
    "percent": "%",
    "degc": "°C",
    "house_h": "house-hours",
    "branch_h": "branch-hours",
    "c_h": "°C h",
    "c": "°C",
    "pp": "pp",
    "hz_per_s": "Hz/s",
    "hz": "Hz",
    "mw": "MW",
}
"""Unit suffixes of the keys, the longest match wins."""

WORDS = {
    "dlmp": "dLMP",
    "pv": "PV",
    "ev": "EV",
    "smo": "SMO",
    "sma": "SMA",
    "pmo": "PMO",
    "cmo": "CMO",
    "cma": "CMA",
    "ac": "AC",
    "hvac": "HVAC",
    "dg": "DG",
    "socp": "SOCP",
    "rs": "RS",
    "cs": "CS",
    "ts": "TS",
    "p05": "5th percentile",
    "p95": "95th percentile",
    "cpu": "CPU",
    "rss": "memory",
    "kkt": "KKT",
    "abs": "absolute",
    "max": "largest",
    "min": "smallest",
    "wall": "wall time",
    "std": "standard deviation",
    "n": "number of",
}
SHARE = "share"
"""Last word of keys from 0 to 1, shown in per cent."""

LABELS = {
    "attack.curtailment_smo_max_kw": "Largest curtailment at an SMO",
    "attack.curtailment_sma_max_kw": "Largest curtailment at an SMA",
    "attack.curtailment_smo_spearman": "Rank correlation of score and curtailment, SMOs",
    "attack.curtailment_sma_spearman": "Rank correlation of score and curtailment, SMAs",
    "attack.curtailment_share_smo_spearman": "Rank correlation of score and curtailed share, SMOs",
    "attack.curtailment_share_sma_spearman": "Rank correlation of score and curtailed share, SMAs",
    "attack.import_error_share": "Import against the level before",
    "attack.load_before_kw": "Net load before",
    "attack.load_attacked_kw": "Net load attacked",
    "attack.load_mitigated_kw": "Net load mitigated",
    "energy.load_kwh": "Net load",
    "energy.deferrable_kwh": "Deferrable loads",
    "energy.block_kwh": "Flexible blocks",
    "energy.stored_change_kwh": "Change of energy stored",
    "comfort.mean_temp_indoor_c": "Mean indoor temperature",
    "comfort.min_temp_indoor_c": "Lowest indoor temperature",
    "comfort.max_temp_indoor_c": "Highest indoor temperature",
    "comfort.outside_limits_house_h": "Time outside limits",
    "comfort.outside_limits_c_h": "Excursions, added up",
    "comfort.worst_excursion_c": "Largest excursion",
    "comfort.rms_from_wanted_c": "Distance from wanted, rms",
    "comfort.water_outside_limits_house_h": "Time of hot water outside limits",
    "comfort.water_worst_excursion_c": "Largest excursion of hot water",
    "bills.total_usd": "All houses",
    "bills.house_mean_usd": "Mean of a house",
    "bills.house_p05_usd": "5th percentile of houses",
    "bills.house_median_usd": "Median of houses",
    "bills.house_p95_usd": "95th percentile of houses",
    "bills.transferred_usd": "Moved between houses by consumer market",
    "bills.house_least_given_usd": "Least that it gives a house",
    "bills.house_most_given_usd": "Most that it gives a house",
    "bills.side_payments_usd": "Its side payments",
    "ev.departures_below_target": "Departures below target",
    "ev.missing_kwh": "Missing at departures",
    "ev.worst_missing_kwh": "Most missing at a departure",
    "pv.self_used_kwh": "Used behind its own meter",
    "pv.self_use_share": "Used behind its own meter, share",
    **{
        f"{kind}.{key}": label
        for kind in ("ev", "battery")
        for key, label in (
            ("min_soc_share", "Lowest state of charge"),
            ("max_soc_share", "Highest state of charge"),
            ("outside_soc_limits_house_h", "Time outside limits of charge"),
            ("worst_soc_excess_kwh", "Worst excess over limits of charge"),
        )
    },
    "voltage.range_a_outside_share": "Outside ANSI range A",
    "voltage.range_a_worst_excess_pu": "Worst excess over range A",
    "voltage.range_a_longest_min": "Longest time outside range A",
    "voltage.range_b_outside_share": "Outside ANSI range B",
    "voltage.range_b_worst_excess_pu": "Worst excess over range B",
    "voltage.range_b_longest_min": "Longest time outside range B",
    "voltage.mean_unbalance_share": "Mean unbalance of phases",
    "voltage.max_unbalance_share": "Largest unbalance of phases",
    "voltage.unbalance_above_limit_share": "Unbalance above 3 %",
    "interruptions.saidi_min": "SAIDI",
    "interruptions.saifi": "SAIFI",
    "interruptions.maifi": "MAIFI",
    "interruptions.customers": "Customers",
    "loading.p50_share": "Median of branches and times",
    "loading.p95_share": "95th percentile",
    "loading.p99_share": "99th percentile",
    "loading.max_share": "Largest",
    "loading.overloaded_branch_h": "Branches above their rating",
    "welfare.cost_usd": "Social cost",
    "welfare.total_usd": "Welfare, its negative",
    "welfare.import_usd": "Import at the wholesale price",
    "bills.sma_mean_usd": "Mean of a secondary agent",
    "bills.sma_p05_usd": "5th percentile of agents",
    "bills.sma_median_usd": "Median of agents",
    "bills.sma_p95_usd": "95th percentile of agents",
    "attack.time_to_recover_min": "Until import has recovered",
    "clearings.without_bound": "Without a lower bound",
    "performance.wall_s": "Wall time",
    "bulk.frequency_nadir_hz": "Lowest frequency",
    "bulk.nadir_deviation_hz": "Lowest, against before",
    "bulk.rocof_hz_per_s": "Largest change over half a second",
    "bulk.settling_hz": "Settling frequency",
    "bulk.settling_deviation_hz": "Settling, against before",
    "bulk.rebound_hz": "Rebound afterwards",
    "bulk.feeders_before_mw": "Feeders' load before",
    "bulk.feeders_rise_mw": "Feeders' rise, settled",
    "bulk.feeders_largest_rise_mw": "Feeders' largest rise",
    "bulk.tie_before_mw": "Tie flow before",
    "bulk.tie_swing_mw": "Largest swing of the tie flow",
    "bulk.tie_settling_rise_mw": "Rise of the tie flow, settled",
}
"""Labels where the words of the key alone would puzzle."""

MOST_CHANGE = 10.0
"""Largest ratio that is shown as a change: beyond it the reference is next to nothing."""
GROUPS = {
    "prices": "Prices",
    "energy": "Energy",
    "voltage": "Voltage",
    "attack": "Attack",
    "bulk": "Transmission grid",
    "ev": "Cars",
    "pv": "PV",
}
STAGES = ("before", "attacked", "mitigated", "recovered", "after")


def split_key(key: str) -> tuple[str, str, str]:
    """Split "prices.mean_dlmp_usd_per_kwh" into group, label and unit: "Prices", "Mean dLMP", "$/kWh"."""
    group, _, rest = key.rpartition(".")
    words = rest.split("_")
    unit = SHARE if words[-1] == SHARE else ""
    for first in range(1, len(words)):
        if "_".join(words[first:]) in UNITS:
            unit, words = UNITS["_".join(words[first:])], words[:first]
            break
    label = LABELS.get(key) or " ".join(WORDS.get(word, word) for word in words)
    group = group.replace(".", " · ").replace("_", " ")
    return GROUPS.get(group, group[:1].upper() + group[1:]) or "Run", label[:1].upper() + label[1:], unit


def readable(value: object, unit: str) -> str:
    """Write a value with its unit, as plain text; large energies in MWh, shares in per cent."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    if unit == SHARE:
        return rate(value)
    if unit == "kWh" and abs(value) >= 1e4:
        value, unit = value / 1e3, "MWh"
    if unit == "kvarh" and abs(value) >= 1e4:
        value, unit = value / 1e3, "Mvarh"
    if unit == "p.u." and abs(value) >= 0.01:
        text = f"{value:.4f}"
    elif unit == "Hz":
        text = f"{value:.3f}".replace("-", "−")
    elif isinstance(value, int) and not unit:
        text = f"{value:,d}"
    else:
        text = number(float(value))
    return f"{text}\u00a0{unit}" if unit else text


def is_study(kpis: Mapping[str, object]) -> bool:
    """Say whether the key figures hold one flat object per case rather than one for the run."""
    return bool(kpis) and all(isinstance(value, Mapping) for value in kpis.values())


def grouped(keys: list[str]) -> dict[str, list[str]]:
    """Keys by group, groups and keys in order of first appearance."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(split_key(key)[0], []).append(key)
    return groups


def case_table(cases: Mapping[str, Mapping[str, object]], *, reference: str | None = None) -> str:
    """One HTML table: a column for each case, a row for each key; changes against `reference` in brackets."""
    keys = list(dict.fromkeys(key for kpis in cases.values() for key in kpis))
    rows = []
    for group, members in grouped(keys).items():
        rows.append([f"<b>{html.escape(group)}</b>", *[""] * len(cases)])
        for key in members:
            _, label, unit = split_key(key)
            cells = [
                html.escape(readable(kpis.get(key), unit))
                + ("" if name == reference else _change(kpis, cases.get(reference or ""), key))
                for name, kpis in cases.items()
            ]
            rows.append([f'<span title="{html.escape(key)}">{html.escape(label)}</span>', *cells])
    return rows_html(["", *(html.escape(name) for name in cases)], rows, css="cases")


def _change(kpis: Mapping[str, object], reference: Mapping[str, object] | None, key: str) -> str:
    """Change of a number against the reference's in per cent, where that means something."""
    value, base = kpis.get(key), (reference or {}).get(key)
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (value, base))
    if not numbers or not base or "violations" in key or abs(value / base) > MOST_CHANGE:  # type: ignore[operator]
        return ""
    return f" <small>({percent(value / base - 1)})</small>"  # type: ignore[operator]


def _group_card(group: str, keys: list[str], kpis: Mapping[str, object]) -> str:
    rows = []
    for key in keys:
        _, label, unit = split_key(key)
        rows.append(
            [
                f'<span title="{html.escape(key)}">{html.escape(label)}</span>',
                html.escape(readable(kpis[key], unit)),
            ]
        )
    return f'<div class="card"><h3>{html.escape(group)}</h3>{rows_html([], rows)}</div>'


def _stage_card(keys: list[str], kpis: Mapping[str, object]) -> tuple[str, list[str]]:
    """Table of what is known before, during and after the attack; and the keys that do not fit in it."""
    table: dict[tuple[str, str], dict[str, object]] = {}
    rest = []
    for key in keys:
        stage = next((stage for stage in STAGES if f"_{stage}_" in key), None)
        if stage is None:
            rest.append(key)
        else:
            _, label, unit = split_key(key.replace(f"_{stage}_", "_"))
            table.setdefault((label, unit), {})[stage] = kpis[key]
    if not table:
        return "", rest
    stages = [stage for stage in STAGES if any(stage in row for row in table.values())]
    rows = [
        [html.escape(label), *(html.escape(readable(row.get(stage), unit)) for stage in stages)]
        for (label, unit), row in table.items()
    ]
    return f'<div class="card wide"><h3>Attack</h3>{rows_html(["", *stages], rows)}</div>', rest


def section(run: Run) -> Section:
    """Key figures in groups."""
    kpis = run.kpis
    if not kpis:
        reason = "This run wrote no key figures; it has not reached its end."
        return absent("key-figures", "Key figures", reason)
    if is_study(kpis):
        return Section("key-figures", "Key figures", f"{len(kpis)} cases side by side", case_table(kpis))
    cards = []
    for group, keys in grouped(list(kpis)).items():
        if group == "Attack":
            card, keys = _stage_card(keys, kpis)
            cards.append(card)
        if keys:
            cards.append(
                _group_card(group if group != "Attack" or not cards[-1] else "Attack, further", keys, kpis)
            )
    body = f'<div class="cards">{"".join(cards)}</div>'
    return Section("key-figures", "Key figures", "", body)
