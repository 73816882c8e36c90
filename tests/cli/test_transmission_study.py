"""`voltier study transmission` as a user types it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from voltier.agents.operator import Rows
from voltier.scenarios.manifest import RunDirectory
from voltier.scenarios.results import TableWriter
from voltier.scenarios.schema import load_scenario
from voltier.scenarios.tables import layout

COMMAND = [sys.executable, "-P", "-m", "voltier.federates.cli", "study", "transmission"]
LEVELS_KW = {"unmitigated": (1300.0, 1900.0, 1900.0, 1300.0), "mitigated": (1300.0, 1900.0, 1302.0, 800.0)}
"""Import before the attack, in its first minutes, in its later ones, and after it."""


def study(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=180)


def attack_study(out: Path) -> Path:
    """Runs of an attack from minute 2 to 6 of a quarter of an hour, as far as the study reads them."""
    settings = [
        "hours=0.25",
        "attack.start=null",
        "attack.end=null",
        "attack.start_s=120",
        "attack.end_s=360",
    ]
    scenario = load_scenario("ieee123-attack-2b", settings)
    for case, (before, struck, late, after) in LEVELS_KW.items():
        run = RunDirectory.create(out / case, scenario)
        writer = TableWriter(run.path, {"substation": layout("substation", phase=("a", "b", "c"))})
        for minute, kw in enumerate([before] * 2 + [struck] * 2 + [late] * 2 + [after]):
            zero = np.zeros(3)
            columns = {"p_kw": np.full(3, -kw / 3), "q_kvar": zero, "loss_kw": zero, "balance_error_kw": zero}
            writer.add(Rows("substation", 60 * minute, columns))
        writer.finalise()
        run.finish("done")
    return out


@pytest.fixture
def andes():
    return pytest.importorskip("andes", reason='the transmission grid needs the extra "voltier[bulk]"')


def test_help_teaches_the_study(tmp_path: Path) -> None:
    done = study("--help", cwd=tmp_path)
    assert done.returncode == 0
    for text in ("--ideal", "--run", "--copies", "voltier[bulk]", "Example: voltier"):
        assert text in done.stdout


@pytest.mark.usefixtures("andes")
def test_the_published_figures_give_the_published_deviations(tmp_path: Path) -> None:
    done = study("--ideal", "--out", "ideal", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip(), done.stderr) == ("ideal", "")
    kpis = json.loads((tmp_path / "ideal" / "kpis.json").read_text())
    assert kpis.keys() == {"unmitigated", "mitigated"}
    # Published: about -0.3 Hz and next to nothing; the bands are those its plots, which cannot be read, allow.
    assert kpis["unmitigated"]["bulk.settling_deviation_hz"] == pytest.approx(-0.3, abs=0.1)
    assert abs(kpis["mitigated"]["bulk.settling_deviation_hz"]) < 0.05
    # 359 MW less 359 * 493 / 496 MW.
    assert kpis["mitigated"]["bulk.feeders_rise_mw"] == pytest.approx(359 * 3 / 496, abs=1e-6)
    page = (tmp_path / "ideal" / "index.html").read_text(encoding="utf-8")
    assert "Published and ours" in page
    assert 'id="step-figure"' in page


@pytest.mark.usefixtures("andes")
def test_runs_of_an_attack_study_are_played(tmp_path: Path) -> None:
    attack_study(tmp_path / "attack")
    done = study("--run", "attack", "--copies", "500", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kpis = json.loads((tmp_path / "out" / "kpis.json").read_text())
    without, answered = kpis["unmitigated"], kpis["mitigated"]
    # 600 kW of import, 500 times; the market's answer leaves 2 kW of it.
    assert without["bulk.feeders_rise_mw"] == pytest.approx(300.0, abs=0.1)
    # The two minutes in which it settles begin with the second in which the other 299 MW go.
    assert answered["bulk.feeders_rise_mw"] == pytest.approx(1.0 + 299.0 / 2 / 120, abs=0.1)
    assert without["bulk.frequency_nadir_hz"] == answered["bulk.frequency_nadir_hz"]
    # 300 MW over 1200 MW/Hz, a tenth less for the relief of other loads.
    assert without["bulk.settling_deviation_hz"] == pytest.approx(-0.25, abs=0.04)
    assert abs(answered["bulk.settling_deviation_hz"]) < 0.05
    assert answered["bulk.rebound_hz"] > 0.2
    table = pq.read_table(tmp_path / "out" / "tables" / "bulk_mitigated.parquet")
    assert table.num_rows == 2 * 60 * 7
    again = study("--run", "attack", "--out", "out", cwd=tmp_path)
    assert again.returncode == 2
    assert "not empty" in again.stderr


@pytest.mark.usefixtures("andes")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--run", "nowhere"), "it has no run unmitigated and no run mitigated"),
        (("--ideal", "--copies", "5"), "--ideal has everything published"),
        (("--run", "attack", "--seed", "2"), "with --run the runs are there already"),
        (("--base", "ieee123-hour"), "give the scenario an attack"),
        (("--copies", "0"), "--copies"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = study(*arguments, "--out", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()
