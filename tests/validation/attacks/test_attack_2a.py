"""The shipped scenario of attack 2a: three small generators fall out, and the market makes up for them."""

import pytest
from attack_run import (
    attack_run,
    check_energy_closes,
    check_events,
    check_import_restored,
    check_order_and_signs,
    check_scores_decide,
)

CHECKS = [
    check_import_restored,
    check_scores_decide,
    check_order_and_signs,
    check_energy_closes,
    check_events,
]


@pytest.mark.parametrize("check", CHECKS)
def test_attack_2a(check):
    check(attack_run("ieee123-attack-2a", 1))


def test_the_remaining_generators_have_room_for_most_of_what_is_lost():
    run = attack_run("ieee123-attack-2a", 1)
    assert run.attack("generation_lost_kw") == pytest.approx(
        261.0, abs=15.0
    )  # the attacked ones run at their rating
    assert run.attack("generation_added_kw") > run.attack("curtailment_kw")
