"""An exported case takes part in a foreign HELICS federation, on its own helics.json."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from voltier.federates.exchange_formats import write_files
from voltier.grid.feeder import read_feeder
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.writers.glm_network import gridlabd_bus_names
from voltier.scenarios.exchange import export_gridlabd
from voltier.scenarios.schema import load_scenario

pytest.importorskip("gridlabd")
pytestmark = pytest.mark.federation
HERE = Path(__file__).parent


def test_a_foreign_federation_drives_gridlabd(tmp_path: Path, nothing_left_behind: None) -> None:
    sets = ["feeder.name=ieee13", "feeder.regulators=published", "hours=0.25"]
    fleet = ["fleet.pv_nodes=5", "fleet.battery_nodes=5", "fleet.dg_nodes=6"]
    write_files(tmp_path, export_gridlabd(load_scenario("ieee123-hour", [*sets, *fleet])))
    topics = tmp_path / "helics.json"
    peer = subprocess.Popen(
        [sys.executable, str(HERE / "gridlabd_peer.py"), str(topics)], stdout=subprocess.PIPE, text=True
    )
    assert peer.stdout is not None
    try:
        options = peer.stdout.readline().strip()
        config = json.loads(topics.read_text())
        topics.write_text(json.dumps(config | {"core_init_string": options}))
        done = subprocess.run(
            [sys.executable, "-m", "voltier.federates.gridlabd_federate", str(tmp_path / "federate.json")],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        heard = json.loads(peer.communicate(timeout=30)[0])
    finally:
        peer.kill()
        peer.wait()
    feeder = read_feeder("ieee13")
    names = gridlabd_bus_names(feeder)
    p_kw, q_kvar = np.zeros((2, *feeder.has_phase.shape))
    for topic in config["subscriptions"]:
        _, name, load = topic["key"].split("/")
        place = names.index(name), "ABC".index(load[-1])
        p_kw[place], q_kvar[place] = -40.0, -10.0
    wanted = OpenDssFlow(feeder).solve(p_kw, q_kvar, feeder.regulators.published_tap)
    base_v = feeder.kv_ll * 1000.0 / np.sqrt(3.0)
    for key, (real, imaginary) in heard.items():
        bus, what = re.fullmatch(r"gridlabd/(\w+)/(\w+)", key).groups()
        k, phase = names.index(bus), "ABC".index(what[-1])
        if what.startswith("voltage"):
            # as the engine: OpenDSS's regulators keep a small impedance
            assert abs(complex(real, imaginary) / base_v[k] - wanted.v_pu[k, phase]) < 5e-6
        else:
            assert real / 1000.0 == pytest.approx(-wanted.p_cc_kw[phase], abs=0.02)
    assert len(heard) == len(config["publications"])


def test_a_configuration_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "federate.json").write_text('{"helics": "helics.json"}')
    done = subprocess.run(
        [sys.executable, "-m", "voltier.federates.gridlabd_federate", str(tmp_path / "federate.json")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "model" in done.stderr
    assert "voltier export gridlabd" in done.stderr
