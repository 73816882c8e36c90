"""Runs and pages that the tests of the report share."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from made_up_run import ATTACK_KPIS, KPIS, MadeUp, write_run

from voltier.scenarios.report import write_report


@pytest.fixture(scope="session")
def attack_run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("report") / "attack"
    return write_run(
        run_dir, MadeUp(2.5, start_h=17, attack=True), kpis=KPIS | ATTACK_KPIS, start="2020-07-15T17:00"
    )


@pytest.fixture(scope="session")
def page(attack_run):
    return write_report(attack_run).read_text()


@pytest.fixture(scope="session")
def phase_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("report") / "phases", MadeUp(9.0), by_phase=True)


@pytest.fixture(scope="session")
def phase_page(phase_run):
    return write_report(phase_run).read_text()
