"""The shipped attack scenarios: what both must show, and 2b's shape beside the published one.

Published of 2b (V. J. Nair, PhD thesis, MIT 2025): import 1325 kW, +37 % under attack, 1328 kW after it; 284 kW more
generation and 307 kW less load, figures that do not close among themselves.
"""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from voltier.federates.session import run_scenario
from voltier.scenarios.build import build_operator
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


@pytest.mark.parametrize(
    "check",
    [check_import_restored, check_scores_decide, check_order_and_signs, check_energy_closes, check_events],
)
@pytest.mark.parametrize(("name", "seed"), [("2a", 1), ("2b", 1), ("2b", 2)])
def test_an_attack_is_found_and_made_up_for(name, seed, check):
    check(attack_run(f"ieee123-attack-{name}", seed))


def test_in_2a_the_remaining_generators_have_room_for_most_of_what_is_lost():
    run = attack_run("ieee123-attack-2a", 1)
    # the attacked ones run at their rating
    assert run.attack("generation_lost_kw") == pytest.approx(261.0, abs=15.0)
    assert run.attack("generation_added_kw") > run.attack("curtailment_kw")


def test_the_shape_of_2b_is_the_published_one():
    run = attack_run("ieee123-attack-2b", 1)
    assert run.attack("import_before_kw") == pytest.approx(1325.0, rel=0.05)
    assert 1.30 < run.attack("import_attacked_kw") / run.attack("import_before_kw") < 1.45
    assert run.attack("generation_added_kw") == pytest.approx(284.0, rel=0.1)
    # the one left, at its limit
    assert run.attack("generation_mitigated_kw") == pytest.approx(480.0, rel=0.01)
    assert 150.0 < run.attack("curtailment_kw") < 350.0


def test_the_share_at_which_an_answer_is_content_reaches_the_market():
    pmo = build_operator(load_scenario("ieee123-attack-2b", ["resilience.stop_share=0.02"]), "pmo")
    assert pmo._rules.stop_share == 0.02
