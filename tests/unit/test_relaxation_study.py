"""The study of the relaxation: what each step gives on the small feeder, and what its page and figures say of it."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from voltier.grid.errors import InputError, NotConvergedError
from voltier.market.primary.current_injection.stages import CONES, EXACT, PLAIN, relaxation_stages
from voltier.scenarios.studies.relaxation import spot_market, stage_kpis, study_relaxation
from voltier.scenarios.studies.relaxation_page import _signed_log


@cache
def steps(feeder="ieee13", load=1.0):
    market = spot_market(feeder, load)
    return relaxation_stages(market.network, market.share, market.bids)


def test_plain_envelopes_create_power_and_the_steps_take_it_back():
    names = [stage.name for stage in steps()]
    assert names[0] == PLAIN and names[-2:] == [CONES, EXACT]
    loss_kw = {stage.name: stage.loss_kw for stage in steps()}
    exact_kw = loss_kw[EXACT]
    # IEEE 13 loses some 3 % of its 3.5 MW; operators shed and generate about half of it.
    assert 10.0 < exact_kw < 100.0
    assert loss_kw[PLAIN] < -10.0 * exact_kw
    assert loss_kw[PLAIN] < loss_kw["envelopes"] < 0.0
    # The last steps end within 0.02 % of the exact cost, of which losses are some hundredth.
    assert loss_kw[names[-3]] == pytest.approx(exact_kw, rel=0.01)
    assert loss_kw[CONES] == pytest.approx(exact_kw, rel=0.02)


def test_bounds_rise_and_never_pass_the_exact_cost():
    *rounds, cones, exact = steps()
    bounds = [stage.bound_usd_per_h for stage in rounds]
    assert np.all(np.diff(bounds) >= 0.0)
    assert max(*bounds, cones.bound_usd_per_h) <= exact.bound_usd_per_h
    for stage in steps():
        gap = 1.0 - stage.bound_usd_per_h / exact.bound_usd_per_h
        assert stage.gap == pytest.approx(gap, abs=1e-12)
    # An AC power flow ends at 1e-10 p.u. of power; the mean load of a node is some 0.1 p.u.
    assert exact.mismatch < 1e-8
    assert min(stage.mismatch for stage in (*rounds, cones)) > exact.mismatch


def test_limits_that_nothing_can_keep_are_told():
    market = spot_market("ieee13", 1.0)
    n = market.network.y.shape[0]
    tight = replace(market.network, v_min_pu=np.full(n, 1.049), v_max_pu=np.full(n, 1.05))
    with pytest.raises(NotConvergedError, match="no dispatch was found that keeps the limits"):
        relaxation_stages(tight, market.share, market.bids)


def test_operators_stand_at_the_loads_and_shed_no_more_than_their_share():
    market = spot_market("ieee13", 0.5)
    np.testing.assert_allclose(np.asarray(market.share.sum(axis=0)).ravel(), 1.0)
    loads = market.network.loads
    p = (loads.s_power + loads.s_current + loads.s_impedance).real
    np.testing.assert_allclose(market.bids.high[0], 0.3 * p, rtol=1e-12)
    np.testing.assert_allclose(market.bids.high[2], 0.44 * p, rtol=1e-12)
    # 13 buses, 3,466 kW in the published table
    assert p.sum() * market.network.s_phase_kva == pytest.approx(0.5 * 3466.0)


def test_it_writes_figures_and_a_page(tmp_path):
    out = tmp_path / "relaxation"
    kpis = study_relaxation(out, feeders=["ieee13"])
    assert json.loads((out / "kpis.json").read_text()) == kpis
    expected = stage_kpis(steps())
    found = kpis["ieee13"]
    assert set(found) == set(expected)
    for key in found:
        if not key.endswith("solve_s"):
            # The same programs in the same process.
            assert found[key] == pytest.approx(expected[key], rel=1e-6, abs=1e-9), key
    html = (out / "index.html").read_text(encoding="utf-8")
    assert all(f'id="{name}-figure"' in html for name in ("losses", "closeness"))
    assert f"ieee13: {found['exact.loss_kw']:.1f} kW are lost" in html
    assert "plain McCormick" in html
    with pytest.raises(InputError, match="not empty"):
        study_relaxation(out, feeders=["ieee13"])


def test_losses_of_both_signs_share_an_axis():
    assert _signed_log([-90.0, 0.0, 90.0, 990.0]).tolist() == pytest.approx([-1.0, 0.0, 1.0, 2.0])
