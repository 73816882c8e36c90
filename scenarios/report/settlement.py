"""Who paid whom: the ledger summed by kind of party."""

from __future__ import annotations

import html
import re

import numpy as np

from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import Section, absent, money, rows_html

COLUMNS = ("energy_usd", "flexibility_usd", "penalty_usd")
NAMES = {
    "pmo": "primary market operator",
    "smo": "secondary market operators",
    "sma": "secondary market agents",
    "bulk": "bulk grid",
    "gen": "local generators",
    "cmo": "consumer market operators",
    "cma": "consumer market agents",
}


def kind_of(party: str) -> str:
    """Kind of a party from its name: smo_35 and smo.0 are both "smo"."""
    return re.split(r"[_.]", party, maxsplit=1)[0]


def section(run: Run) -> Section:
    """Sums by kind of party; the last row shows that the ledger closes."""
    table = run.table("settlement")
    if table is None:
        return absent("settlement", "Settlement", "No settlement took place in this run.")
    columns = [name for name in COLUMNS if name in table.column_names]
    amounts = np.column_stack([table[name].to_numpy().astype(float) for name in columns])
    kinds = np.array([kind_of(party) for party in table["party"].to_pylist()], dtype=object)
    rows, totals = [], {}
    for kind in dict.fromkeys(kinds.tolist()):
        sums = np.nansum(amounts[kinds == kind], axis=0)
        totals[kind] = float(sums.sum())
        parties = len(set(np.array(table["party"].to_pylist(), dtype=object)[kinds == kind]))
        rows.append(
            [html.escape(NAMES.get(kind, kind)), f"{parties:,}", *(money(x) for x in (*sums, sums.sum()))]
        )
    closing = np.nansum(amounts, axis=0)
    rows.append(["<b>sum</b>", "", *(f"<b>{money(x)}</b>" for x in (*closing, closing.sum()))])
    header = ["party", "number", *(name.removesuffix("_usd") + " [$]" for name in columns), "total [$]"]
    finding = f"The ledger sums to {money(float(closing.sum()))} $"
    if "pmo" in totals:
        finding += f"; the primary market operator's surplus is {money(totals['pmo'])} $"
    note = '<p class="note">Received is positive, paid negative.</p>'
    return Section("settlement", "Settlement", finding, rows_html(header, rows) + note)
