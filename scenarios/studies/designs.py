"""Three market designs on one input: no market, the primary market alone, and the whole hierarchy; and what houses do
in them: with and without plans outside a local market, with and without the consumer market inside.

Published figures: V. J. Nair, PhD thesis, MIT 2025, and arXiv 2406.06844. Their data set is not public, so
the order and the ratios are what can be compared; the pure numbers stand beside ours for information.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voltier.grid.errors import InputError, Problem
from voltier.scenarios.report.comparison import write_comparison
from voltier.scenarios.schema import Scenario, load_scenario
from voltier.scenarios.studies.cases import CaseKpis, Run, markdown_table, number, ratio, run_cases, share

OUTSIDE, PLANNED, NO_GAME = "no_market_planned", "primary_only_planned", "hierarchical_without_game"
DESIGNS = ("no_market", OUTSIDE, "primary_only", PLANNED, NO_GAME, "hierarchical")
"""Three are no designs of their own. In OUTSIDE and PLANNED houses plan their bill at the flat tariff as those in the
hierarchy do at theirs: they tell what planning does from what the lower markets do. NO_GAME is the hierarchy without
the consumer market: houses share schedules in proportion to what they offer, at the tariff of their agent."""
_SETTINGS = {
    OUTSIDE: ["design=no_market", "consumer.outside_market=retail_tariff"],
    PLANNED: ["design=primary_only", "consumer.outside_market=retail_tariff"],
    NO_GAME: ["design=hierarchical", "consumer.market=false"],
    "hierarchical": ["design=hierarchical", "consumer.market=true"],
}
_CONSUMER_PAGE = {
    "no_market": "no market, wanted temperature held",
    OUTSIDE: "no market, planned at the retail rate",
    NO_GAME: "hierarchy without consumer market",
    "hierarchical": "hierarchy with consumer market",
}
"""Cases of the page on the consumer market, and their names there."""
PUBLISHED: dict[str, dict[str, float]] = {
    "prices.mean_dlmp_usd_per_kwh": {"primary_only": 0.116, "hierarchical": 0.064},
    "prices.mean_tariff_usd_per_kwh": {"no_market": 0.129, "primary_only": 0.116, "hierarchical": 0.082},
}
_FIGURES: tuple[tuple[str, str, int], ...] = (
    ("mean dLMP [$/kWh]", "prices.mean_dlmp_usd_per_kwh", 4),
    ("mean dLMP, energy-weighted [$/kWh]", "prices.mean_dlmp_energy_weighted_usd_per_kwh", 4),
    ("mean local tariff [$/kWh]", "prices.mean_tariff_usd_per_kwh", 4),
    ("mean local tariff, energy-weighted [$/kWh]", "prices.mean_tariff_energy_weighted_usd_per_kwh", 4),
    ("mean wholesale price [$/kWh]", "prices.mean_wholesale_usd_per_kwh", 4),
    ("mean abs(V - 1) [p.u.]", "voltage.mean_abs_deviation_pu", 5),
    ("standard deviation of V [p.u.]", "voltage.std_pu", 5),
    ("lowest voltage [p.u.]", "voltage.min_pu", 4),
    ("highest voltage [p.u.]", "voltage.max_pu", 4),
    ("node-minutes outside the limits", "voltage.violations", 0),
    ("import [kWh]", "energy.import_kwh", 0),
    ("peak import [kW]", "energy.peak_import_kw", 0),
    ("losses [kWh]", "losses.energy_kwh", 1),
    ("heating and cooling [kWh]", "energy.hvac_kwh", 0),
    ("mean indoor temperature [C]", "comfort.mean_temp_indoor_c", 2),
    ("lowest indoor temperature [C]", "comfort.min_temp_indoor_c", 2),
    ("distance from the wanted temperature, rms [C]", "comfort.rms_from_wanted_c", 2),
    ("outside the comfort limits [house-hours]", "comfort.outside_limits_house_h", 1),
    ("cars leaving below their target", "ev.departures_below_target", 0),
    ("all bills [$]", "bills.total_usd", 1),
    ("mean bill of a house [$]", "bills.house_mean_usd", 3),
    ("5 % of houses pay less than [$]", "bills.house_p05_usd", 3),
    ("5 % of houses pay more than [$]", "bills.house_p95_usd", 3),
    ("moved between houses by the consumer market [$]", "bills.transferred_usd", 2),
    ("PV used behind its own meter [share]", "pv.self_use_share", 3),
    ("PV curtailed [kWh]", "pv.curtailed_kwh", 1),
    ("change of energy stored [kWh]", "energy.stored_change_kwh", 0),
    ("called up, hierarchy [kWh]", "flexibility.called_up_kwh", 0),
    ("delivered of what was called [share]", "flexibility.delivered_share", 3),
)
_CHANGES: tuple[tuple[str, str, str, str], ...] = (
    ("dLMP, hierarchy against primary alone", "prices.mean_dlmp_usd_per_kwh", "hierarchical", "primary_only"),
    (
        "tariff, hierarchy against primary alone",
        "prices.mean_tariff_usd_per_kwh",
        "hierarchical",
        "primary_only",
    ),
    ("tariff, hierarchy against no market", "prices.mean_tariff_usd_per_kwh", "hierarchical", "no_market"),
    (
        "tariff, primary alone against no market",
        "prices.mean_tariff_usd_per_kwh",
        "primary_only",
        "no_market",
    ),
    (
        "mean abs(V - 1), hierarchy against primary alone",
        "voltage.mean_abs_deviation_pu",
        "hierarchical",
        "primary_only",
    ),
    ("std of V, hierarchy against primary alone", "voltage.std_pu", "hierarchical", "primary_only"),
    ("losses, hierarchy against primary alone", "losses.energy_kwh", "hierarchical", "primary_only"),
    ("import, hierarchy against primary alone", "energy.import_kwh", "hierarchical", "primary_only"),
    *(
        (f"{title}, hierarchy against primary alone with planning houses", key, "hierarchical", PLANNED)
        for title, key in (
            ("dLMP", "prices.mean_dlmp_usd_per_kwh"),
            ("import", "energy.import_kwh"),
            ("losses", "losses.energy_kwh"),
            ("mean abs(V - 1)", "voltage.mean_abs_deviation_pu"),
        )
    ),
    *(
        (f"{title}, {words}", key, "hierarchical", against)
        for against, words in (
            (NO_GAME, "consumer market on against off"),
            (OUTSIDE, "hierarchy against planning outside any market"),
        )
        for title, key in (
            ("import", "energy.import_kwh"),
            ("all bills", "bills.total_usd"),
            ("distance from the wanted temperature", "comfort.rms_from_wanted_c"),
            ("PV used behind its own meter", "pv.self_use_share"),
        )
    ),
)


def cases(base: str = "ieee123-day", overrides: Sequence[str] = ()) -> dict[str, Scenario]:
    """Return the scenarios of the study: they differ in design, in how houses plan outside it, and in their game.

    Raises InputError for an override of any of these.
    """
    for override in overrides:
        key, _, value = override.partition("=")
        if key in ("design", "consumer.outside_market", "consumer.market"):
            raise InputError(
                [Problem(f"--set {override}", key, value, "the study sets this itself; leave it out")]
            )
    return {
        design: load_scenario(base, [*overrides, *_SETTINGS.get(design, [f"design={design}"])])
        for design in DESIGNS
    }


def study_designs(
    run: Run, out: Path, *, base: str = "ieee123-day", overrides: Sequence[str] = ()
) -> CaseKpis:
    """Run the designs into out/<design>; write out/kpis.json, out/designs.md and out/consumer_market.html.

    Raises InputError if out holds something already or the scenario is wrong.
    """
    kpis = run_cases(cases(base, overrides), run, out)
    (out / "designs.md").write_text(page(kpis, base), encoding="utf-8")
    write_comparison(
        {words: out / design for design, words in _CONSUMER_PAGE.items()},
        out / "consumer_market.html",
        title=f"The consumer market on and off, on {base}",
    )
    return kpis


def comparison(kpis: CaseKpis) -> dict[str, dict[str, float | None]]:
    """Return each change as {"ours": share, "published": share or None}."""
    changes: dict[str, dict[str, float | None]] = {}
    for title, key, of, against in _CHANGES:
        published = PUBLISHED.get(key, {})
        ours = ratio(kpis[of].get(key), kpis[against].get(key))
        theirs = ratio(published.get(of), published.get(against))
        changes[title] = {
            "ours": None if ours is None else ours - 1.0,
            "published": None if theirs is None else theirs - 1.0,
        }
    return changes


def page(kpis: CaseKpis, base: str) -> str:
    """Return the study as Markdown: the figures of each design, and the changes beside the published ones."""
    figures = [
        [title, *(number(kpis[design].get(key), digits) for design in DESIGNS)]
        for title, key, digits in _FIGURES
    ]
    published: list[list[str]] = [
        [f"published: {title}", *(number(PUBLISHED[key].get(design), 3) for design in DESIGNS)]
        for title, key, _ in _FIGURES
        if key in PUBLISHED
    ]
    changes = [
        [title, share(entry["ours"]), share(entry["published"])] for title, entry in comparison(kpis).items()
    ]
    return (
        f"# Market designs on {base}\n\n"
        + markdown_table(["", *DESIGNS], [*figures, *published])
        + "\n"
        + markdown_table(["change", "ours", "published"], changes)
        + "\n"
        + _tariff_over_dlmp(kpis["hierarchical"])
        + "Means are plain means over agents and clearings unless said otherwise.\n"
    )


def _tariff_over_dlmp(kpis: dict[str, Any]) -> str:
    ours = ratio(kpis.get("prices.mean_tariff_usd_per_kwh"), kpis.get("prices.mean_dlmp_usd_per_kwh"))
    theirs = ratio(
        PUBLISHED["prices.mean_tariff_usd_per_kwh"]["hierarchical"],
        PUBLISHED["prices.mean_dlmp_usd_per_kwh"]["hierarchical"],
    )
    return f"Tariff over dLMP in the hierarchy: {number(ours, 2)} (published: {number(theirs, 2)}).\n"
