"""Runs at the pace of the wall clock: they take the time they should, give the same rows, and tell their lag."""

import time
from pathlib import Path

import numpy as np
import pytest
import toy_market as toy

from voltier.federates.inproc import run_threads
from voltier.federates.launch import Launch, run_federation
from voltier.federates.local import run_local
from voltier.federates.pace import pace_of
from voltier.federates.session import run_scenario
from voltier.scenarios.results import read_table
from voltier.scenarios.schema import load_scenario

pytestmark = [pytest.mark.federation, pytest.mark.usefixtures("nothing_left_behind")]

FACTOR = 60.0
PACED = toy.ToySettings(end_s=180, realtime=FACTOR)


def run_toy(settings: toy.ToySettings, run_dir: Path, transport: str) -> dict:
    config, case = toy.write_config(settings, run_dir), toy.ToyCase(settings)
    if transport == "none":
        sink = case.open_sink(run_dir)
        operators = [case.build_operator(name) for name in case.operator_names()]
        run_local(operators, case.market_clock(), sink.write, sink.commit, pace_of(case.pacing()))
        sink.close()
    elif transport == "inproc":
        run_threads(case, run_dir, lambda beats: None)
    else:
        launch = Launch(config, run_dir, transport=transport, builder="toy_market:case", timeout_s=20.0)
        run_federation(launch, case, lambda beats: None)
    return toy.read_rows(run_dir)


@pytest.mark.parametrize("transport", ["none", "inproc", "zmq"])
def test_a_paced_run_takes_its_time_and_gives_the_same_rows(transport: str, tmp_path: Path) -> None:
    expected = run_toy(toy.ToySettings(end_s=180), tmp_path / "free", "none")
    began = time.monotonic()
    rows = run_toy(PACED, tmp_path / "paced", transport)
    # From second 0 to smo's and pmo's last instants, at 180 and 181 s.
    assert time.monotonic() - began >= 181.0 / FACTOR
    lags = {key: row for key, row in rows.items() if key[0] == "realtime"}
    late = {key for key, row in rows.items() if row.get("kind") == ["lag"]}
    assert {key: row for key, row in rows.items() if key not in lags and key not in late} == expected
    lag_ms = np.concatenate([row["lag_ms"] for row in lags.values()])
    names = [name for row in lags.values() for name in row["operator"]]
    # three minutes: resilience, wholesale, smo, cmo, grid; primary clearing and re-clearing in the first; the end
    assert len(names) == 3 * 5 + 2 + 2
    assert set(names) == set(toy.ToyCase(PACED).operator_names())
    assert lag_ms.min() >= 0.0


def test_the_real_market_paced_by_the_command_line_section(tmp_path: Path) -> None:
    overrides = ["primary.period_s=60", "hours=0.016666666666666666", "federation.realtime=10"]
    overrides += [
        "primary.relaxation_bound=false",
        "recording.settlement_period_s=60",
        "federation.lag_budget_ms=1e4",
    ]
    run = run_scenario(load_scenario("ieee123-hour", overrides), tmp_path / "run")
    table = read_table(run, "realtime").to_pandas()
    assert sorted(table.operator.unique()) == ["cmo.0", "grid", "pmo", "resilience", "smo.0", "wholesale"]
    # The kernels load in the first minute, on a busy machine; that it keeps up at all is what is tested here.
    assert table.lag_ms.median() < 1000.0
    assert "lag" not in read_table(run, "events")["kind"].to_pylist()
