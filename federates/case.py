"""The usual case: a scenario file, built by the scenarios room, recorded in its tables."""

from __future__ import annotations

from pathlib import Path

from voltier.agents.clock import MarketClock
from voltier.agents.operator import Operator, Rows
from voltier.federates.carving import Cut
from voltier.federates.foreign_part import carve, external_part
from voltier.federates.gridlabd_engine import GRIDLABD, GridlabdFlow
from voltier.federates.gridlabd_premises import premises_in_model
from voltier.federates.part import ExternalPart
from voltier.federates.ports import Channel, Pacing, Sink
from voltier.grid.feeder import Feeder
from voltier.grid.flow.engines import engine
from voltier.grid.flow.port import PowerFlow
from voltier.scenarios.build import build_operator, operator_names, table_layouts
from voltier.scenarios.built_case import market_clock
from voltier.scenarios.results import TableWriter
from voltier.scenarios.schema import Scenario, load_scenario


class ScenarioCase:
    """A scenario as a federation runs it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario

    def operator_names(self) -> list[str]:
        """Name every operator."""
        return operator_names(self.scenario)

    def build_operator(self, name: str) -> Operator:
        """Build one operator."""
        if name == "device":
            from voltier.federates.device_operator import build_device_operator

            return build_device_operator(self.scenario)
        return build_operator(self.scenario, name, make_engine=self._engine)

    def _engine(self, name: str, feeder: Feeder) -> PowerFlow:
        if name != GRIDLABD:
            return engine(name, feeder)
        # an attempt, a new start and a second attempt must end before the federation calls the grid silent
        timeout_s = self.scenario.federation.timeout_s / 4.0
        return GridlabdFlow(feeder, timeout_s=timeout_s, premises=premises_in_model(self.scenario, feeder))

    def market_clock(self) -> MarketClock:
        """Return the clock of the run."""
        return market_clock(self.scenario)

    def channel(self) -> Channel:
        """Return the disturbances of the mail between areas."""
        settings = self.scenario.primary.channel.model_dump()
        cut = tuple(f"area.{k}" for k in settings.pop("cut_areas"))
        return Channel(cut=cut, **settings)

    def pacing(self) -> Pacing | None:
        """Return how the run follows the wall clock."""
        federation = self.scenario.federation
        if federation.realtime is None:
            return None
        return Pacing(federation.realtime, federation.lag_budget_ms)

    def external_part(self, name: str) -> ExternalPart:
        """Return the rows that an operator speaks for, and what its scenario does without it."""
        return external_part(self.scenario, name)

    def carve(self, name: str, bus: str) -> tuple[Operator, Cut]:
        """Return a shard of secondary operators without the one at a bus, and what belongs to that one."""
        return carve(self.scenario, name, bus)

    def open_sink(self, run_dir: Path) -> Sink:
        """Open the tables of the run for writing."""
        return _TableSink(TableWriter(run_dir, table_layouts(self.scenario)), self.scenario)


def scenario_case(config: Path) -> ScenarioCase:
    """Make a case from a scenario file. Raises InputError."""
    return ScenarioCase(load_scenario(config))


class _TableSink:
    def __init__(self, writer: TableWriter, scenario: Scenario) -> None:
        self._writer = writer
        self._period_s = scenario.recording.commit_period_s
        # Rows about a minute may come in the next one, those about a settlement period after its end.
        self._margin_s = scenario.recording.settlement_period_s + 300

    def write(self, rows: Rows) -> None:
        self._writer.add(rows)

    def commit(self, now_s: int) -> None:
        if now_s % self._period_s == 0:
            self._writer.commit(before_s=now_s - self._margin_s)

    def close(self) -> None:
        self._writer.close()
