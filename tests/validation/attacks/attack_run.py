"""A shipped attack scenario, run once; what both attacks must show."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from voltier.federates.session import run_scenario
from voltier.scenarios.results import read_table
from voltier.scenarios.schema import load_scenario


class AttackRun:
    """kpis, and the minutes of the run: import, loads and generation at the meters, losses [kW], events."""

    def __init__(self, name, seed):
        self.scenario = load_scenario(name, [f"seed={seed}"])
        with TemporaryDirectory() as folder:
            path = run_scenario(self.scenario, Path(folder) / "run", transport="none")
            self.kpis = json.loads((path / "kpis.json").read_text(encoding="utf-8"))
            substation, grid = read_table(path, "substation"), read_table(path, "grid")
            secondary, events = read_table(path, "secondary"), read_table(path, "events").to_pylist()
        self.events = [(row["t_s"], row["kind"]) for row in events]
        self.import_kw = -by_minute(substation, "p_kw")
        self.loss_kw = by_minute(substation, "loss_kw")
        self.load_kw = -by_minute(secondary, "p_meter_kw")
        self.generation_kw = by_minute(grid, "p_kw") + self.load_kw

    def attack(self, name):
        return self.kpis[f"attack.{name}"]


def by_minute(table, column):
    minute = table["t_s"].to_numpy() // 60
    return np.bincount(minute, table[column].to_numpy())


@cache
def attack_run(name, seed):
    return AttackRun(name, seed)


def check_import_restored(run):
    assert abs(run.attack("import_error_share")) < 0.01
    assert run.attack("import_attacked_kw") > 1.1 * run.attack("import_before_kw")


def check_scores_decide(run):
    # share of the room that an operator's consumers give against its score
    assert run.attack("curtailment_share_smo_spearman") >= 0.5


def check_order_and_signs(run):
    assert run.attack("cost_before_usd_per_h") < run.attack("cost_attacked_usd_per_h")
    assert run.attack("cost_attacked_usd_per_h") < run.attack("cost_mitigated_usd_per_h")
    assert run.attack("generation_lost_kw") > 0.0
    assert run.attack("generation_added_kw") > 0.0
    assert run.attack("curtailment_kw") > 0.0
    assert run.attack("load_mitigated_kw") < run.attack("load_attacked_kw")


def check_energy_closes(run):
    # a load flow converges to better than 1e-3 kW; what is imported and generated is used or lost
    np.testing.assert_allclose(run.import_kw + run.generation_kw, run.load_kw + run.loss_kw, atol=1e-3)
    # the fall of the import is what generators add, consumers give and the lines lose less
    fall_kw = run.attack("import_attacked_kw") - run.attack("import_mitigated_kw")
    less_lost_kw = run.attack("losses_attacked_kw") - run.attack("losses_mitigated_kw")
    parts_kw = run.attack("generation_added_kw") + run.attack("curtailment_kw") + less_lost_kw
    assert fall_kw == pytest.approx(parts_kw, abs=2e-3)


def check_events(run):
    """One alarm, within two primary periods of the attack, none before or after; generators answer in that minute."""
    start_s, end_s = run.scenario.attack_window_s
    alarms_s = [t_s for t_s, kind in run.events if kind == "alarm"]
    assert len(alarms_s) == 1
    assert start_s < alarms_s[0] <= start_s + 600
    (clear_s,) = [t_s for t_s, kind in run.events if kind == "all-clear"]
    assert end_s < clear_s <= end_s + 600
    before, struck = run.generation_kw[start_s // 60 - 1], run.generation_kw[start_s // 60]
    # the attacked ones of 2a give 0.85 of their 261 kW at least, those of 2b 0.7 of their 650 kW
    assert before - struck > 200.0
    assert run.generation_kw[end_s // 60] - run.generation_kw[end_s // 60 - 1] > 200.0
