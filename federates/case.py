"""The usual case: a scenario file, built by the scenarios room, recorded in its tables."""

from __future__ import annotations

from pathlib import Path

from voltier.agents.clock import MarketClock
from voltier.agents.operator import Operator, Rows
from voltier.federates.ports import Sink
from voltier.scenarios.build import build_operator, market_clock, operator_names, table_layouts
from voltier.scenarios.results import TableWriter
from voltier.scenarios.schema import Scenario, load_scenario

# Simulated time between commits [s]: also the size of the tables' row groups.
COMMIT_PERIOD_S = 1800
# Rows about a minute may come in the next one, those about a primary period at its end.
_COMMIT_MARGIN_S = 600


class ScenarioCase:
    """A scenario as a federation runs it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario

    def operator_names(self) -> list[str]:
        """Name every operator."""
        return operator_names(self.scenario)

    def build_operator(self, name: str) -> Operator:
        """Build one operator."""
        return build_operator(self.scenario, name)

    def market_clock(self) -> MarketClock:
        """Return the clock of the run."""
        return market_clock(self.scenario)

    def open_sink(self, run_dir: Path) -> Sink:
        """Open the tables of the run for writing."""
        return _TableSink(TableWriter(run_dir, table_layouts(self.scenario)))


def scenario_case(config: Path) -> ScenarioCase:
    """Make a case from a scenario file. Raises InputError."""
    return ScenarioCase(load_scenario(config))


class _TableSink:
    def __init__(self, writer: TableWriter) -> None:
        self._writer = writer

    def write(self, rows: Rows) -> None:
        self._writer.add(rows)

    def commit(self, now_s: int) -> None:
        if now_s % COMMIT_PERIOD_S == 0:
            self._writer.commit(before_s=now_s - _COMMIT_MARGIN_S)

    def close(self) -> None:
        self._writer.commit()
