"""Where the bulk grid pays to be rid of power: the market throttles PV and has houses consume."""

from datetime import date, timedelta

import numpy as np
import pytest

from voltier.federates.local import run_local
from voltier.scenarios.build import build_operator, market_clock, operator_names
from voltier.scenarios.schema import load_scenario


@pytest.fixture(scope="module")
def prices(tmp_path_factory):
    """A leap year in which every MWh costs -300 $."""
    path = tmp_path_factory.mktemp("prices") / "negative.csv"
    days = [date(2020, 1, 1) + timedelta(n) for n in range(366)]
    rows = [f"2020,{d.month},{d.day},{hour},-300.0" for d in days for hour in range(1, 25)]
    path.write_text("\n".join(["year,month,day,hour_ending,price_usd_per_mwh", *rows]) + "\n")
    return path


def noon(prices, *overrides):
    """Return the rows of ten minutes at noon by table: lists of columns in order of time."""
    scenario = load_scenario(
        "ieee123-hour",
        [
            "hours=0.16666666666666666",
            "start=2020-07-15 12:00",
            "recording.consumer_period_s=60",
            "iot.loss=0",
            "wholesale.import_slope_usd_per_kwh_per_mw=0",
            f"inputs.price_csv={prices}",
            *overrides,
        ],
    )
    tables = {}
    operators = [build_operator(scenario, name) for name in operator_names(scenario)]
    run_local(
        operators,
        market_clock(scenario),
        lambda rows: tables.setdefault(rows.table, []).append(rows.columns),
        lambda now_s: None,
    )
    return tables


def test_pv_is_throttled_and_bids_reach_down_by_all_of_it(prices):
    tables = noon(prices)
    free = noon(prices, "design=no_market")
    sun_kw = np.array([minute["pv_kw"] for minute in free["devices"]])
    pv_kw = np.array([minute["pv_kw"] for minute in tables["devices"]])
    assert (pv_kw >= 0.0).all()
    assert (pv_kw <= sun_kw + 1e-12).all()  # rounding of one difference
    # Beta-distributed response: reliable 0.95, average 0.77, unreliable 0.33 in the mean, 0.81 over all
    assert 0.1 < pv_kw.sum() / sun_kw.sum() < 0.35
    for bid, sun in zip(tables["consumer"], sun_kw, strict=True):
        # the bid took the sun to be that of the minute before: equal within 1 % at noon
        assert (bid["p0_kw"] - bid["p_min_kw"] >= 0.99 * sun - 1e-9).all()
    import_kw = [-minute["p_kw"].sum() for minute in tables["substation"]]
    assert min(import_kw) > 1000.0 + max(-minute["p_kw"].sum() for minute in free["substation"])
    # three MW come in: at the far end marginal losses take up to a sixth off the 0.3 $/kWh
    assert max(minute["dlmp_usd_per_kwh"].max() for minute in tables["primary"]) < -0.24


def test_without_a_local_market_nobody_throttles(prices):
    one, other = (noon(prices, f"design={design}")["devices"] for design in ("primary_only", "no_market"))
    for minute, same in zip(one, other, strict=True):
        assert minute["pv_kw"].sum() > 600.0
        np.testing.assert_array_equal(minute["pv_kw"], same["pv_kw"])
