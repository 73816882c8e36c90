"""An attack bites in the minute of its event, and ends in that of its release, whatever carries the mail."""

from pathlib import Path

import numpy as np
import pytest

from voltier.federates.session import run_scenario
from voltier.scenarios.results import read_table
from voltier.scenarios.schema import load_scenario

pytestmark = [pytest.mark.federation, pytest.mark.usefixtures("nothing_left_behind")]

# Neither in a minute in which the primary market clears.
STRIKES, RELEASES = 7, 12
OVERRIDES = [
    "hours=0.25",
    "attack.start=20:07",
    "attack.end=20:12",
    "primary.relaxation_bound=false",
    "recording.settlement_period_s=900",
]


@pytest.mark.parametrize("transport", ["none", "zmq"])
def test_generators_fall_and_return_in_the_minute_of_the_event(transport: str, tmp_path: Path) -> None:
    run = run_scenario(load_scenario("ieee123-attack-2b", OVERRIDES), tmp_path / "run", transport=transport)
    kinds = {row["kind"]: row["t_s"] // 60 for row in read_table(run, "events").to_pylist()}
    assert (kinds["attack"], kinds["attack-over"]) == (STRIKES, RELEASES)
    substation = read_table(run, "substation")
    import_kw = -np.bincount(substation["t_s"].to_numpy() // 60, substation["p_kw"].to_numpy())
    steps_kw = np.diff(import_kw, prepend=import_kw[0])
    # four generators at part load of 650 kW; loads change by tens of kW a minute
    assert steps_kw[STRIKES] > 250.0
    assert steps_kw[RELEASES] < -250.0
    assert np.abs(np.delete(steps_kw, [STRIKES, RELEASES])).max() < 150.0
