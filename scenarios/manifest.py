"""The run directory and its manifest: what ran, with what, on what, and how it ended."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Self

from voltier.grid.errors import InputError, Problem
from voltier.scenarios.inputs import input_files
from voltier.scenarios.schema import Scenario, dump_scenario, load_scenario

Status = Literal["running", "done", "failed", "aborted", "interrupted"]

PACKAGES = (
    "voltier", "andes", "clarabel", "cvxpy", "gridlabd", "helics", "mesa", "msgspec", "numba", "numpy",
    "opendssdirect.py", "pandapower", "piqp", "plotly", "power-grid-model", "pvlib", "pyarrow", "pydantic", "scipy",
    "simpy",
)  # fmt: skip
_SECONDARY_SOLVER = "water filling, compiled"
_PRIMARY_SOLVERS = {
    "branch_flow": (
        "sequential QP on the exact branch flow (PIQP)",
        "second-order cone relaxation (Clarabel)",
    ),
    "current_injection": (
        "sequential QP on the exact three-phase power flow (PIQP)",
        "McCormick relaxation, tightened around the clearing",
    ),
}
"""Formulation of the primary market → what clears it and what bounds its cost."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """A run on disk: config.resolved.yaml, manifest.json, logs/, tables/, kpis.json, report.html."""

    path: Path

    @classmethod
    def create(
        cls,
        path: Path | str,
        scenario: Scenario,
        *,
        command: Sequence[str] | None = None,
        transport: str = "none",
    ) -> Self:
        """Make the directory and write what is known before the run.

        command : by default argv of this process. Raises InputError if the directory holds
        something already or cannot be written.
        """
        run = cls(Path(path).absolute())
        try:
            if run.path.is_dir() and any(run.path.iterdir()):
                remedy = "it is not empty; choose another directory or remove it"
                raise InputError([Problem("run directory", "--out", str(path), remedy)])
            run.logs.mkdir(parents=True, exist_ok=True)
            run.tables.mkdir(exist_ok=True)
            dump_scenario(scenario, run.config)
            run.write_json("manifest.json", _manifest(scenario, command or sys.argv, transport))
        except OSError as error:
            remedy = f"cannot be made and written ({error.strerror or error}); choose another directory"
            raise InputError([Problem("run directory", "--out", str(path), remedy)]) from error
        return run

    @property
    def config(self) -> Path:
        """The scenario with every default spelled out."""
        return self.path / "config.resolved.yaml"

    @property
    def logs(self) -> Path:
        """Folder of the federates' logs."""
        return self.path / "logs"

    @property
    def tables(self) -> Path:
        """Folder of the tables."""
        return self.path / "tables"

    def scenario(self) -> Scenario:
        """Return the scenario that this directory ran."""
        return load_scenario(self.config.resolve())

    def manifest(self) -> dict[str, Any]:
        """Return the manifest as it stands."""
        return read_json(self.path / "manifest.json")

    def finish(self, status: Status, message: str = "") -> None:
        """Note in the manifest how and when the run ended."""
        ended = {"status": status, "ended": _now()} | ({"message": message} if message else {})
        self.write_json("manifest.json", self.manifest() | ended)

    def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write a JSON file of the run by one rename."""
        return write_json(self.path / name, content)


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write indented JSON by one rename; NaN is refused, since JSON has none."""
    passing = path.with_name(path.name + ".tmp")
    passing.write_text(
        json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )
    passing.replace(path)
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run. Raises InputError for one that holds no JSON object."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        remedy = f"cannot be read as a JSON object ({error}); copy the run again"
        raise InputError([Problem(str(path.parent), "file", path.name, remedy)]) from error


def _manifest(scenario: Scenario, command: Sequence[str], transport: str) -> dict[str, Any]:
    primary_solver, bound_solver = _PRIMARY_SOLVERS[scenario.primary.formulation]
    return {
        "scenario": scenario.name,
        "title": scenario.title,
        "status": "running",
        "started": _now(),
        "ended": None,
        "command": list(command),
        "transport": transport,
        "seed": scenario.seed,
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "solvers": {
            "primary": primary_solver,
            "primary_bound": bound_solver if scenario.primary.relaxation_bound else None,
            "secondary": _SECONDARY_SOLVER,
            "power_flow": scenario.feeder.engine,
        },
        "inputs": {name: _hash(path) for name, path in input_files(scenario).items()},
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the checkout this code runs from, with "+" if it was changed; None outside one."""
    here = Path(__file__).resolve().parent
    git = ["git", "-C", str(here)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=5
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _hash(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
