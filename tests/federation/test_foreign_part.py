"""What a part's rows are, and what is refused of mail that does not keep to them."""

import numpy as np
import pytest

from voltier.agents.messages import SmaBids, SmaMeters
from voltier.federates.border import check_body
from voltier.federates.foreign_part import external_part
from voltier.federates.part import ExternalPart
from voltier.scenarios.build_primary import areas_of
from voltier.scenarios.schema import load_scenario

PART = ExternalPart(rows={"SmaMeters>smo.0": [4, 5, 6]})


def meters(*sma):
    zero = np.zeros(len(sma))
    return SmaMeters(t_s=0, sma=np.array(sma), p_kw=zero, q_kvar=zero, anomaly=zero)


@pytest.mark.parametrize("sma", [(4, 5, 6), (4, 6), ()])
def test_readings_may_be_missing(sma):
    assert check_body(meters(*sma), "smo.0", 0, PART) is None


@pytest.mark.parametrize("sma", [(4, 7), (3,), (4, 4, 5)])
def test_readings_of_others_or_twice_are_refused(sma):
    found = check_body(meters(*sma), "smo.0", 0, PART)
    assert found is not None
    assert "expected some of [4, 5, 6]" in found


@pytest.mark.parametrize(("rows", "words"), [(2, ""), (3, "p0_phase_kw has 3 rows, expected 2")])
def test_bids_by_phase_have_a_row_for_each_operator(rows, words):
    each, by_phase = np.zeros(3), np.zeros((rows, 3))
    bids = SmaBids(
        t_s=0, sma=np.arange(3), p0_kw=each, p_min_kw=each, p_max_kw=each, q0_kvar=each, q_min_kvar=each,
        q_max_kvar=each, beta_p_usd_per_kw2h=1.0 + each, beta_q_usd_per_kvar2h=1.0 + each,
        p0_phase_kw=by_phase, q0_phase_kvar=by_phase,
    )  # fmt: skip
    assert words in (check_body(bids, "smo.0", 0, ExternalPart(n_smo=2)) or "")
    assert bool(words) == (check_body(bids, "smo.0", 0, ExternalPart(n_smo=2)) is not None)


def test_with_areas_each_takes_the_bids_of_its_own_operators():
    scenario = load_scenario("ieee123-areas", ["primary.areas=4"])
    part, area = external_part(scenario, "smo.0"), areas_of(scenario).of_smo
    bids = {key: rows for key, rows in part.rows.items() if key.startswith("SmoBids>")}
    assert set(bids) == {f"SmoBids>area.{k}" for k in np.unique(area)}
    assert sorted(at for rows in bids.values() for at in rows) == list(range(len(area)))
    for row in part.facts["smo"]:
        assert row["bids_to"] == f"area.{area[row['smo']]}"
        assert row["smo"] in bids[f"SmoBids>{row['bids_to']}"]
