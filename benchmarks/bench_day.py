"""Time a whole run in one process, by operator: who spends the day's seconds.

Run: .venv/bin/python benchmarks/bench_day.py [SCENARIO] [KEY=VALUE ...]
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence

from voltier.agents.operator import Mail, Operator, Outbox, Rows
from voltier.federates.local import run_local
from voltier.federates.wiring import role_of
from voltier.scenarios.build import build_operator, market_clock, operator_names
from voltier.scenarios.schema import load_scenario


class Timed:
    """An operator that counts the seconds and calls of its decisions."""

    def __init__(self, operator: Operator) -> None:
        self.name, self._operator = operator.name, operator
        self.longest_s, self.total_s, self.calls = 0.0, 0.0, 0

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Decide, and note how long it took."""
        began = time.perf_counter()
        outbox = self._operator.decide(now_s, inbox)
        took_s = time.perf_counter() - began
        self.total_s += took_s
        self.longest_s = max(self.longest_s, took_s)
        self.calls += 1
        return outbox


def main(name: str = "ieee123-day", *overrides: str) -> None:
    """Print one row for each role, and what is left for carrying mail and rows."""
    scenario = load_scenario(name, overrides)
    began = time.perf_counter()
    operators = [Timed(build_operator(scenario, operator)) for operator in operator_names(scenario)]
    built_s = time.perf_counter() - began
    rows: Counter[str] = Counter()

    def count(item: Rows) -> None:
        rows[item.table] += len(next(iter(item.columns.values())))

    began = time.perf_counter()
    run_local(operators, market_clock(scenario), count, lambda now_s: None)
    run_s = time.perf_counter() - began
    simulated = f"{scenario.end_s / 3600:g} h simulated in {run_s:.2f} s, {scenario.end_s / run_s:.0f} times real time"
    print(f"{scenario.name}: {simulated}; building took {built_s:.2f} s; {rows.total():,} table rows")
    print(f"{'role':<14}{'seconds':>9}{'share':>8}{'calls':>8}{'mean ms':>10}{'longest ms':>12}")
    for role in dict.fromkeys(role_of(operator.name) for operator in operators):
        mine = [operator for operator in operators if role_of(operator.name) == role]
        total_s, calls = sum(o.total_s for o in mine), sum(o.calls for o in mine)
        longest_ms = 1e3 * max(o.longest_s for o in mine)
        print(
            f"{role:<14}{total_s:>9.2f}{total_s / run_s:>8.1%}{calls:>8}"
            f"{1e3 * total_s / calls:>10.2f}{longest_ms:>12.1f}"
        )
    rest_s = run_s - sum(operator.total_s for operator in operators)
    print(f"{'mail and rows':<14}{rest_s:>9.2f}{rest_s / run_s:>8.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
