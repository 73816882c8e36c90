"""OpenDssFlow against the published solutions of the IEEE 13- and 34-node feeders (tolerances in params.toml)."""

import csv
import tomllib
from pathlib import Path

import numpy as np
import pytest

from voltier.grid.feeder import DATA, read_feeder
from voltier.grid.flow.opendss import OpenDssFlow

CASES = ("ieee13", "ieee34")


@pytest.fixture(scope="module", params=CASES)
def case(request):
    feeder = read_feeder(request.param)
    zero = np.zeros((len(feeder.bus), 3))
    flow = OpenDssFlow(feeder, spot_loads=True).solve(zero, zero, feeder.regulators.published_tap)
    lines = (DATA / request.param / "published_voltages.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    params = tomllib.loads((Path(__file__).parent / request.param / "params.toml").read_text())
    return feeder, flow, rows, params["voltage"]


def test_voltages_at_all_nodes(case):
    feeder, flow, rows, params = case
    assert len(rows) == params["nodes"]
    at = [feeder.bus.index(row["bus"]) for row in rows], ["abc".index(row["phase"]) for row in rows]
    v_pu = flow.v_pu[at]
    error = np.abs(v_pu) - [float(row["v_pu"]) for row in rows]
    turn = np.exp(-1j * np.deg2rad([float(row["angle_deg"]) for row in rows]))
    assert np.abs(error).max() <= params["max_error_pu"]
    assert np.abs(np.angle(v_pu * turn, deg=True)).max() <= params["max_angle_error_deg"]


def test_every_node_of_the_model_is_published(case):
    feeder, _, rows, _ = case
    ours = {(feeder.bus[i], "abc"[k]) for i, k in zip(*np.nonzero(feeder.has_phase), strict=True)}
    assert {(row["bus"], row["phase"]) for row in rows} == ours


@pytest.mark.parametrize(
    ("name", "p_kw", "q_kvar"),
    # IEEE-13: 3466 kW with the distributed load; IEEE-34: 1047 + 722 kW (sums of the published load tables)
    [("ieee13", 3466.0, 2102.0), ("ieee34", 1769.0, 1044.0)],
)
def test_loads_sum_to_the_published_tables(name, p_kw, q_kvar):
    loads = read_feeder(name).spot_loads
    assert loads.p_kw.sum() == pytest.approx(p_kw, rel=1e-12)
    assert loads.q_kvar.sum() == pytest.approx(q_kvar, rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_every_table_says_where_it_comes_from(name):
    for path in sorted((DATA / name).glob("*.csv")):
        head = " ".join(line for line in path.read_text().splitlines() if line.startswith("#"))
        assert "Source: IEEE PES" in head, path.name
        assert "re-tabulated" in head, path.name
        assert "Licence" in head, path.name


def test_mutual_reactance_of_cables_may_be_negative():
    feeder = read_feeder("ieee13")
    row = feeder.lines.name.index("line_692_675")
    assert feeder.lines.x_ohm[row, 0, 2] == pytest.approx(-0.0143 * 500.0 / 5280.0, rel=1e-12)
