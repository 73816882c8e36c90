"""What the methods of distributed clearing tell, as a section of the study's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from voltier.scenarios.report.style import Section, rows_html

if TYPE_CHECKING:
    from voltier.scenarios.studies.distributed_clearing import CaseFound

ANDERSON_WINDOW = 30
KEPT = (
    "Bids and limits, costs, the multipliers of own equations (which hold an atom's own price) and the choice of own "
    "set-points as far as no neighbour's equation names them stay inside the atom under every method."
)
TOLD = {
    "pac": (
        "its value of each unknown that the copying atom's equations name: voltages, currents or flows at the boundary",
        "ν̂, the multiplier of each copy, shortened by a private, ever new share γ̂ of the last step",
        "boundary values as they are; multipliers only up to a part of a step while the rounds last. At rest both ends "
        "know the price of the boundary they share",
    ),
    "nst-pac": (
        "â, the same values, drawn out beyond the last step by α times a private share",
        "its own â of each copy, and ν̂, drawn out by θ times a private share",
        "as PAC; copies are told too, for the penalty is on the whole residual of the coupling",
    ),
    "admm": (
        "z, the mean of all holders' values, once it has been cut to the owner's limits",
        "ã + u, its copy plus the scaled multiplier",
        "nothing is masked: who keeps z and what came in can take the difference between rounds and has the multiplier",
    ),
}


def privacy(cases: Sequence[CaseFound], title: Mapping[str, str]) -> Section:
    """Return what is sent by whom under each method that was run, and what Anderson acceleration would need."""
    methods = list(dict.fromkeys(case.method for case in cases))
    header = [
        "method",
        "an owner tells who copies",
        "who copies tells the owner",
        "what the other end can learn",
    ]
    rows = [[title[name], *TOLD[name]] for name in methods]
    rows.append(
        [
            "Anderson acceleration of any",
            f"besides, every atom adds its part to up to {ANDERSON_WINDOW} sums over <i>all</i> atoms in each round",
            f"all atoms hear the {ANDERSON_WINDOW} weights that follow",
            "no single atom's step from a sum of many, but somebody must add up over the feeder, every round waits "
            "for the slowest, and masks must be off: it mixes rounds that have to be comparable",
        ]
    )
    largest = max(cases, key=lambda case: int(case.kpis["values_told_per_round"]))
    told = ", ".join(
        f"{title[case.method]} {_values(case):,}" for case in cases if case.market.key == largest.market.key
    )
    weights = "Step sizes are set from how many buses hang below a boundary: topology, which neighbours are told once."
    note = (
        f'<p class="note">{KEPT} {weights} Masks are no encryption: at the fixed point every masked value equals the '
        f"true one, and a neighbour that knows an atom's equations could fit its bids to many clearings. Numbers told "
        f"in a round by all atoms of {largest.market.key} together: {told}.</p>"
    )
    finding = (
        "Between neighbours go boundary values and multipliers of boundaries, no bid, no cost and no limit"
    )
    return Section("privacy", "What is told to whom", finding, rows_html(header, rows, numeric_from=9) + note)


def _values(case: CaseFound) -> int:
    return int(case.kpis["values_told_per_round"])
