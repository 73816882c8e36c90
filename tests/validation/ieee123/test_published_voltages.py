"""OpenDssFlow against the published solution of the IEEE 123-node feeder (tolerances in params.toml)."""

import csv
import tomllib
from pathlib import Path

import numpy as np
import pytest

from voltier.grid.feeder import DATA, read_feeder
from voltier.grid.flow.opendss import OpenDssFlow

PARAMS = tomllib.loads((Path(__file__).parent / "params.toml").read_text())


def published(name):
    lines = (DATA / "ieee123" / f"published_{name}.csv").read_text().splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


@pytest.fixture(scope="module")
def solved():
    feeder = read_feeder("ieee123")
    zero = np.zeros((len(feeder.bus), 3))
    flow = OpenDssFlow(feeder, spot_loads=True).solve(zero, zero, feeder.regulators.published_tap)
    return feeder, flow


def test_voltages_at_all_nodes(solved):
    feeder, flow = solved
    rows = [row for row in published("voltages") if row["bus"] not in PARAMS["voltage"]["excluded"]]
    assert len(rows) == PARAMS["voltage"]["nodes"]
    at = [feeder.bus.index(row["bus"]) for row in rows], ["abc".index(row["phase"]) for row in rows]
    v_pu = flow.v_pu[at]
    error = np.abs(v_pu) - [float(row["v_pu"]) for row in rows]
    turn = np.exp(-1j * np.deg2rad([float(row["angle_deg"]) for row in rows]))
    assert np.abs(error).max() <= PARAMS["voltage"]["max_error_pu"]
    assert np.abs(np.angle(v_pu * turn, deg=True)).max() <= PARAMS["voltage"]["max_angle_error_deg"]


def test_every_node_of_the_model_is_published_but_the_stubs(solved):
    feeder, _ = solved
    rows = {(row["bus"], row["phase"]) for row in published("voltages")}
    ours = {(feeder.bus[i], "abc"[k]) for i, k in zip(*np.nonzero(feeder.has_phase), strict=True)}
    assert rows <= ours
    assert {bus for bus, _ in ours - rows} == {"251", "350", "451"}


def test_input_and_losses(solved):
    _, flow = solved
    rows = {(row["quantity"], row["phase"]): row for row in published("totals")}
    close = PARAMS["totals"]["relative_error"]
    assert -flow.p_cc_kw.sum() == pytest.approx(float(rows["input", "total"]["p_kw"]), rel=close)
    assert -flow.q_cc_kvar.sum() == pytest.approx(float(rows["input", "total"]["q_kvar"]), rel=close)
    assert flow.loss_kw == pytest.approx(float(rows["losses", "total"]["p_kw"]), rel=close)
    for k, phase in enumerate("abc"):
        assert -flow.p_cc_kw[k] == pytest.approx(float(rows["input", phase]["p_kw"]), rel=close)
