"""The shipped scenario of attack 2b: its answer, and its shape beside the published one.

Published (V. J. Nair, PhD thesis, MIT 2025): import 1325 kW, +37 % under attack, 1328 kW after it; 284 kW more
generation and 307 kW less load, figures that do not close among themselves.
"""

import pytest
from attack_run import (
    attack_run,
    check_energy_closes,
    check_events,
    check_import_restored,
    check_order_and_signs,
    check_scores_decide,
)

from voltier.scenarios.build import build_operator
from voltier.scenarios.schema import load_scenario

CHECKS = [
    check_import_restored,
    check_scores_decide,
    check_order_and_signs,
    check_energy_closes,
    check_events,
]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("seed", [1, 2])
def test_attack_2b(check, seed):
    check(attack_run("ieee123-attack-2b", seed))


def test_the_share_at_which_an_answer_is_content_reaches_the_market():
    pmo = build_operator(load_scenario("ieee123-attack-2b", ["resilience.stop_share=0.02"]), "pmo")
    assert pmo._rules.stop_share == 0.02


def test_its_shape_is_the_published_one():
    run = attack_run("ieee123-attack-2b", 1)
    assert run.attack("import_before_kw") == pytest.approx(1325.0, rel=0.05)
    assert 1.30 < run.attack("import_attacked_kw") / run.attack("import_before_kw") < 1.45
    assert run.attack("generation_added_kw") == pytest.approx(284.0, rel=0.1)
    assert run.attack("generation_mitigated_kw") == pytest.approx(
        480.0, rel=0.01
    )  # the one left, at its limit
    assert 150.0 < run.attack("curtailment_kw") < 350.0
