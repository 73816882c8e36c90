"""GridLAB-D as a federate of a foreign federation: topics of a helics.json, the model in a process of its own.

`python -m voltier.federates.gridlabd_federate federate.json`; `voltier export gridlabd` writes that file.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import helics
import msgspec

from voltier.federates import exit_codes
from voltier.federates.gridlabd_child import ChildLost, GridlabdChild, GridlabdSaid
from voltier.federates.gridlabd_engine import HEARTBEAT, LIMIT, check_gridlabd
from voltier.federates.gridlabd_worker import Request
from voltier.grid.errors import FederationError, InputError, Problem, VoltierError
from voltier.grid.writers.glm_network import number


class FederateConfig(msgspec.Struct, forbid_unknown_fields=True):
    """What federate.json says; paths are relative to its folder. start : of the model, as in its clock block."""

    helics: str
    model: str
    start: str
    duration_s: int
    period_s: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class _Port:
    """A HELICS interface and the property behind it."""

    interface: Any
    target: str
    key: str


def run_gridlabd_federate(path: Path) -> None:
    """Take part in a federation until the model's time is over.

    Raises InputError for a configuration that cannot be read, FederationError when GridLAB-D fails.
    """
    check_gridlabd("gridlabd")
    config = _read(path)
    model = (path.parent / config.model).read_text(encoding="utf-8")
    # the simulator is loaded first: a model that cannot be read must not leave a federation waiting
    child = GridlabdChild()
    try:
        child.ask(Request(config.timeout_s, model=LIMIT + model + HEARTBEAT))
        federate = helics.helicsCreateValueFederateFromConfig(str(path.parent / config.helics))
        try:
            _take_part(federate, child, config)
        finally:
            helics.helicsFederateDisconnect(federate)
    except (ChildLost, GridlabdSaid) as error:
        raise FederationError(f"GridLAB-D, {error}") from error
    except helics.HelicsException as error:
        raise FederationError(f"HELICS, by {config.helics}: {error}") from error
    finally:
        child.end()
        helics.helicsCloseLibrary()


def _read(path: Path) -> FederateConfig:
    try:
        return msgspec.json.decode(path.read_bytes(), type=FederateConfig)
    except (msgspec.DecodeError, OSError) as error:
        remedy = "give the federate.json that voltier export gridlabd writes"
        raise InputError([Problem(str(path), "file", str(error), remedy)]) from error


def _take_part(federate: Any, child: GridlabdChild, config: FederateConfig) -> None:
    publications = [
        _port(federate.publications[name], helics.helicsPublicationGetInfo)
        for name in sorted(federate.publications)
    ]
    inputs = [
        _port(federate.subscriptions[name], helics.helicsInputGetInfo)
        for name in sorted(federate.subscriptions)
    ]
    reads = [(port.target, port.key) for port in publications]
    start = datetime.fromisoformat(config.start).replace(tzinfo=UTC)
    helics.helicsFederateEnterExecutingMode(federate)
    for t_s in range(config.period_s, config.duration_s + 1, config.period_s):
        granted_s = helics.helicsFederateRequestTime(federate, float(t_s))
        if granted_s != t_s:
            raise FederationError(
                f"the federation ended before second {t_s} of {config.duration_s} (granted {granted_s:g})"
            )
        writes = [
            (port.target, port.key, number(complex(helics.helicsInputGetComplex(port.interface))))
            for port in inputs
            if helics.helicsInputIsUpdated(port.interface)
        ]
        until = (start + timedelta(seconds=t_s)).strftime("%Y-%m-%dT%H:%M:%S")
        values = child.ask(Request(config.timeout_s, writes=writes, until=until, reads=reads))
        for port, value in zip(publications, values.tolist(), strict=True):
            helics.helicsPublicationPublishComplex(port.interface, value)


def _port(interface: Any, info: Any) -> _Port:
    place = json.loads(info(interface))
    return _Port(interface, place["object"], place["property"])


def main() -> int:
    """Run with the configuration named on the command line."""
    if len(sys.argv) != 2:
        print("usage: python -m voltier.federates.gridlabd_federate federate.json", file=sys.stderr)
        return exit_codes.INPUT
    try:
        run_gridlabd_federate(Path(sys.argv[1]))
    except InputError as error:
        print(f"voltier: {error}", file=sys.stderr)
        return exit_codes.INPUT
    except VoltierError as error:
        print(f"voltier: {error}", file=sys.stderr)
        return exit_codes.FEDERATE
    return exit_codes.DONE


if __name__ == "__main__":
    sys.exit(main())
