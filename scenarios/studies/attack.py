"""Attack on primary-level generators: import before it, under it, and after the market has answered.

Published figures of attack 2b: V. J. Nair, PhD thesis, MIT 2025. The published "cost" is an objective value
in its own units, so only its changes compare; the published numbers do not close among themselves, so the
shape is what a reproduction must show.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from voltier.grid.errors import InputError, Problem
from voltier.scenarios.schema import Scenario, load_scenario
from voltier.scenarios.studies.cases import CaseKpis, Run, markdown_table, number, ratio, run_cases, share

STATES = ("before", "attacked", "mitigated")
PUBLISHED: dict[str, dict[str, tuple[float, float, float]]] = {
    "ieee123-attack-2b": {
        "import_{}_kw": (1325.0, 1821.0, 1328.0),
        "cost_{}_usd_per_h": (10752.0, 11500.0, 14156.0),
        "load_{}_kw": (2064.0, 2023.0, 1775.0),
    }
}
_SERIES: tuple[tuple[str, str, int], ...] = (
    ("import [kW]", "import_{}_kw", 1),
    ("cost [$/h]", "cost_{}_usd_per_h", 2),
    ("load [kW]", "load_{}_kw", 1),
    ("generation [kW]", "generation_{}_kw", 1),
    ("losses [kW]", "losses_{}_kw", 1),
)
_SINGLE: tuple[tuple[str, str, int], ...] = (
    ("generation lost [kW]", "attack.generation_lost_kw", 1),
    ("generation added by the answer [kW]", "attack.generation_added_kw", 1),
    ("curtailment by the answer [kW]", "attack.curtailment_kw", 1),
    ("alarm after [s]", "attack.detection_delay_s", 0),
    ("largest curtailment of an SMO [kW]", "attack.curtailment_smo_max_kw", 2),
    ("Spearman, score against curtailment of SMOs", "attack.curtailment_smo_spearman", 2),
    ("Spearman, score against share of room, SMOs", "attack.curtailment_share_smo_spearman", 2),
    ("Spearman, score against share of room, SMAs", "attack.curtailment_share_sma_spearman", 2),
)


def cases(base: str = "ieee123-attack-2b", overrides: Sequence[str] = ()) -> dict[str, Scenario]:
    """Return the attack with the market's answer, and without it."""
    return {
        "mitigated": load_scenario(base, [*overrides, "resilience.mitigate=true"]),
        "unmitigated": load_scenario(base, [*overrides, "resilience.mitigate=false"]),
    }


def study_attack(
    run: Run, out: Path, *, base: str = "ieee123-attack-2b", overrides: Sequence[str] = ()
) -> CaseKpis:
    """Run the attack with and without mitigation into out/<case>; write out/kpis.json and out/attack.md.

    Raises InputError if out holds something already, the scenario is wrong, or it has no attack.
    """
    scenarios = cases(base, overrides)
    if any(scenario.attack is None for scenario in scenarios.values()):
        raise InputError(
            [Problem(base, "attack", "nothing", "give the scenario an attack, or take ieee123-attack-2b")]
        )
    kpis = run_cases(scenarios, run, out)
    (out / "attack.md").write_text(page(kpis, base), encoding="utf-8")
    return kpis


def page(kpis: CaseKpis, base: str) -> str:
    """Return the study as Markdown: the three states beside the published ones, and the answer's parts."""
    ours, without = kpis["mitigated"], kpis["unmitigated"]
    rows = []
    for title, key, digits in _SERIES:
        values = [ours.get("attack." + key.format(state)) for state in STATES]
        rows.append([title, *(number(value, digits) for value in values), *_changes(values)])
        published = PUBLISHED.get(base, {}).get(key)
        if published is not None:
            rows.append(
                [f"published: {title}", *(number(value, 0) for value in published), *_changes(published)]
            )
    facts = [[title, number(ours.get(key), digits)] for title, key, digits in _SINGLE]
    facts.append(["import error after mitigation", share(ours.get("attack.import_error_share"), 2)])
    facts.append(
        ["import under attack without mitigation [kW]", number(without.get("attack.import_attacked_kw"), 1)]
    )
    return (
        f"# Attack {base}\n\n"
        + markdown_table(["", *STATES, "attacked / before", "mitigated / before"], rows)
        + "\n"
        + markdown_table(["", "value"], facts)
    )


def _changes(values: Sequence[float | None]) -> list[str]:
    before, attacked, mitigated = values
    quotients = (ratio(attacked, before), ratio(mitigated, before))
    return [share(None if quotient is None else quotient - 1.0) for quotient in quotients]
