"""The transmission grid as a federate: the same seconds as in one process, figures and a section of the report."""

import json
from pathlib import Path

import numpy as np
import pytest

from voltier.federates.session import run_scenario
from voltier.scenarios.results import read_table
from voltier.scenarios.schema import Scenario, load_scenario

pytestmark = [pytest.mark.federation, pytest.mark.usefixtures("nothing_left_behind")]


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    pytest.importorskip("andes", reason='the transmission grid needs the extra "voltier[bulk]"')
    settings = ["hours=0.083333", "bulk.copies=550", "bulk.start=17:02", "start=2020-07-15T17:00"]
    return load_scenario("ieee123-hour", settings)


@pytest.fixture(scope="module")
def here(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_scenario(scenario, tmp_path_factory.mktemp("here") / "run", transport="none")


def test_a_federation_has_the_seconds_of_one_process(scenario: Scenario, here: Path, tmp_path: Path) -> None:
    apart = run_scenario(scenario, tmp_path / "apart", transport="zmq")
    ours, theirs = read_table(here, "bulk"), read_table(apart, "bulk")
    assert ours.schema == theirs.schema
    for column in ours.column_names:
        # To the last bit, like all other tables.
        np.testing.assert_array_equal(
            ours[column].to_numpy(zero_copy_only=False), theirs[column].to_numpy(zero_copy_only=False)
        )
    np.testing.assert_array_equal(ours["t_s"].to_numpy(), np.repeat(np.arange(120, 300), 2))
    feeders_mw = ours["feeder_mw"].to_numpy()[1::2]
    substation_kw = read_table(here, "substation")["p_kw"].to_numpy().reshape(-1, 3).sum(axis=1)
    # The last second of a minute is past the ramp: import is load, 550 times.
    np.testing.assert_allclose(feeders_mw[59::60], -0.55 * substation_kw[2:], rtol=1e-9)
    kpis = json.loads((apart / "kpis.json").read_text())
    assert kpis["bulk.frequency_before_hz"] == pytest.approx(60.0, abs=1e-6)
    assert kpis["bulk.frequency_nadir_hz"] <= kpis["bulk.settling_hz"]
    assert {"bulk.rocof_hz_per_s", "bulk.settling_deviation_hz"} <= kpis.keys()
    report = (apart / "report.html").read_text(encoding="utf-8")
    assert 'id="bulk-figure"' in report
    assert "Transmission grid" in report
