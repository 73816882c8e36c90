"""What a report reads of a run directory: configuration, manifest, key figures and tables, each read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from voltier.grid.errors import InputError
from voltier.grid.feeder import Feeder, read_feeder
from voltier.scenarios.households import Households, households
from voltier.scenarios.manifest import RunDirectory, read_json
from voltier.scenarios.panels import as_block
from voltier.scenarios.report.panel import Panel, pivot
from voltier.scenarios.results import read_table, table_names


class Run:
    """One run, finished or not. Tables that the run did not write are None.

    In the tables handed out, t_s counts from midnight of the day on which the run starts: it tells the clock.
    """

    def __init__(self, run_dir: Path) -> None:
        self.dir = Path(run_dir)
        self._tables: dict[str, pa.Table | None] = {}
        self._panels: dict[object, Panel | None] = {}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved scenario, as written beside the tables; empty when it is missing."""
        path = self.dir / "config.resolved.yaml"
        return dict(yaml.safe_load(path.read_text()) or {}) if path.exists() else {}

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Versions, seed, hashes and outcome; empty when missing."""
        return _read_json(self.dir / "manifest.json")

    @cached_property
    def kpis(self) -> dict[str, Any]:
        """Key figures; empty for a run that did not reach its end."""
        return _read_json(self.dir / "kpis.json")

    @cached_property
    def feeder(self) -> Feeder | None:
        """The feeder of the scenario, or None when the configuration names none."""
        name = self.setting("feeder", "name")
        return None if name is None else read_feeder(name)

    @cached_property
    def start(self) -> datetime | None:
        """Simulated date and time at which the run starts."""
        value = self.config.get("start")
        return None if value is None else datetime.fromisoformat(str(value))

    @property
    def start_s(self) -> int:
        """Seconds from midnight to the start of the run."""
        return 0 if self.start is None else self.start.hour * 3600 + self.start.minute * 60

    @property
    def name(self) -> str:
        """Name of the scenario, else of the directory."""
        return str(self.config.get("name") or self.manifest.get("scenario") or self.dir.name)

    def setting(self, *keys: str, default: Any = None) -> Any:
        """Look a nested setting up in the resolved scenario."""
        value: Any = self.config
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                return default
            value = value[key]
        return value

    def table(self, name: str) -> pa.Table | None:
        """Return a table with at least one row, or None."""
        if name not in self._tables:
            table = read_table(self.dir, name) if name in table_names(self.dir) else None
            self._tables[name] = self._on_the_clock(table) if table is not None and table.num_rows else None
        return self._tables[name]

    def _on_the_clock(self, table: pa.Table) -> pa.Table:
        place = table.column_names.index("t_s")
        return table.set_column(place, "t_s", pc.add(table["t_s"], self.start_s))

    def panel(self, name: str, *key: str) -> Panel | None:
        """Return a table as matrices of time by key (see pivot); None when it is missing or lacks the key."""
        if (name, *key) not in self._panels:
            table = self.table(name)
            usable = table is not None and all(column in table.column_names for column in key)
            self._panels[(name, *key)] = pivot(table, *key) if usable else None
        return self._panels[(name, *key)]

    def devices(self) -> Panel | None:
        """Return what each kind of device injects, summed over the fleet; columns as in the table."""
        if "devices" not in self._panels:
            table = self.table("devices")
            powers = [] if table is None else [name for name in table.column_names if name.endswith("_kw")]
            summed = (
                None if table is None else table.group_by("t_s").aggregate([(name, "sum") for name in powers])
            )
            panel = (
                None
                if summed is None
                else pivot(summed.rename_columns([n.removesuffix("_sum") for n in summed.column_names]))
            )
            self._panels["devices"] = panel
        return self._panels["devices"]

    @cached_property
    def houses(self) -> Households | str:
        """The houses over time, t_s and minutes from midnight; or why there are none to show, in a sentence."""
        consumer, devices = (
            None if table is None else as_block(table, f"{self.dir}: table {name}")
            for name, table in ((name, self.table(name)) for name in ("consumer", "devices"))
        )
        if not self.config or consumer is None or devices is None:
            return "This run recorded no houses."
        try:
            found = households(consumer, devices, RunDirectory(self.dir).scenario())
        except InputError as error:
            return str(error)
        # Times of these tables tell the clock already.
        return replace(found, start_minute=0)


def _read_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
