"""The study of the consumer market: who takes part, what a day holds, what it writes, what it refuses."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from voltier.agents.devices.fleet import Stays
from voltier.grid.errors import InputError
from voltier.market.consumer_mechanisms import MECHANISMS
from voltier.scenarios.schema import load_scenario
from voltier.scenarios.studies.consumer_day import simulate_day
from voltier.scenarios.studies.consumer_fleet import CMAS, HOUSES, SIZES, build_houses
from voltier.scenarios.studies.consumer_market import study_consumer_market

STAYS = Stays(np.array([17 * 60 + 7, 23 * 60 + 58]), np.array([14 * 60, 9 * 60 + 1]))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    kpis = study_consumer_market(out, step_minutes=60, instances=15, seed=2)
    tables = {path.stem: pq.read_table(path) for path in (out / "tables").glob("*.parquet")}
    return out, kpis, tables


def column(table, name, shape=(-1,)):
    return table[name].to_numpy().reshape(shape)


# ---------------------------------------------------------------------- agents


def test_every_agent_has_the_equipment_it_is_said_to_have():
    house, offset = build_houses(5, 100, STAYS, 15)
    np.testing.assert_array_equal(offset, [0, 10, 20, 30])
    for device in house.devices:
        count = np.bincount(device.at // HOUSES, minlength=len(CMAS))
        wanted = [HOUSES if device.key == "base" else cma.devices.get(device.key, 0) for cma in CMAS]
        np.testing.assert_array_equal(count, wanted, device.key)
        assert (np.diff(device.at) > 0).all()
        for name, (low, high) in SIZES.get(device.key, {}).items():
            assert ((getattr(device, name) >= low) & (getattr(device, name) <= high)).all()


@pytest.mark.parametrize("step_min", [15, 60])
def test_cars_come_and_leave_at_full_steps(step_min):
    house, _ = build_houses(5, 100, STAYS, step_min)
    cars = next(device for device in house.devices if device.key == "ev")
    for minute in (cars.away_min, cars.home_min):
        assert (minute % step_min == 0).all()
        assert ((minute >= 0) & (minute < 1440)).all()
    assert (cars.away_min != cars.home_min).all()


def test_a_seed_always_draws_the_same_houses_and_another_seed_others():
    houses = [build_houses(seed, 100, STAYS, 15)[0] for seed in (5, 5, 6)]
    batteries = [next(d for d in house.devices if d.key == "battery").rated_kw for house in houses]
    np.testing.assert_array_equal(batteries[0], batteries[1])
    assert not np.array_equal(batteries[0], batteries[2])


# ---------------------------------------------------------------------- the day


def test_key_figures_meet_what_the_market_promises(study):
    _, kpis, _ = study
    assert kpis["game.periods"] == 24
    assert kpis["game.max_tracking_error_kw"] < 1e-6
    assert kpis["game.max_budget_error_usd"] < 1e-6
    assert kpis["game.max_delivery_error_kw"] < 1e-6
    assert kpis["equilibrium.max_follower_gain_usd_per_h"] < 1e-9
    assert kpis["equilibrium.brute_force_gap_usd_per_kwh"] < 1e-9
    assert kpis["equilibrium.start_gap_usd_per_kwh"] < 1e-9
    assert kpis["equilibrium.settled_share"] == 1.0
    assert 0.0 < kpis["game.infeasible_share"] < 0.2
    assert kpis["game.max_shortfall_kw"] > 0.0


def test_the_operator_is_a_net_load_all_day_and_least_about_noon(study):
    _, kpis, _ = study
    assert kpis["load.is_net_load_share"] == 1.0
    assert 10.0 <= kpis["load.least_hour"] <= 15.0
    assert kpis["load.peak_kw"] > 5.0 * kpis["load.least_kw"]


def test_prices_reach_several_times_the_grid_price(study):
    _, kpis, _ = study
    for key in ("mu", "mu_tilde", "pay"):
        # published: about an order of magnitude, of data that are not public
        assert 2.0 < kpis[f"prices.max_{key}_over_grid"] < 20.0


def test_mechanisms_compare_as_they_must(study):
    _, kpis, _ = study
    for name in ("day", "random"):
        assert kpis[f"{name}.published.losers_share"] > 0.1
        assert kpis[f"{name}.published.gain_gamma_max_usd_per_h"] > 0.01
        for told in ("gamma", "wish", "box"):
            assert kpis[f"{name}.vcg.gain_{told}_max_usd_per_h"] < 1e-6
        assert kpis[f"{name}.vcg.losers_share"] == 0.0
        assert (
            kpis[f"{name}.vcg.mean_deficit_usd_per_h"] > kpis[f"{name}.uniform.mean_deficit_usd_per_h"] > 0.0
        )


def test_tables_close_among_themselves(study):
    _, kpis, tables = study
    periods, agents, devices = (tables[name] for name in ("periods", "agents", "devices"))
    p, p0 = (column(agents, name, (24, 3)) for name in ("p_kw", "p0_kw"))
    np.testing.assert_allclose(p.sum(axis=1), column(periods, "p_kw"), atol=1e-9)
    by_device = column(devices, "p_kw", (24, -1, 3))
    wished = column(devices, "wished_kw", (24, -1, 3))
    np.testing.assert_allclose(by_device.sum(axis=1), p, atol=1e-9)
    np.testing.assert_allclose(wished.sum(axis=1), p0, atol=1e-9)
    assert devices["device"][0].as_py() == "base"
    assert not (by_device - wished)[:, 0].any(), "nobody moves the fixed load"
    np.testing.assert_allclose(
        column(periods, "target_kw") - p0.sum(axis=1), column(periods, "asked_kw"), atol=1e-9
    )
    within = column(periods, "feasible")
    assert (~within).mean() == kpis["game.infeasible_share"]
    ends = np.where(
        column(periods, "asked_kw") > 0, column(periods, "offered_up_kw"), -column(periods, "offered_down_kw")
    )
    np.testing.assert_allclose((p - p0).sum(axis=1)[~within], ends[~within], atol=1e-9)
    for mechanism in ("published", "individual"):
        paid = column(agents, f"paid_{mechanism}_usd_per_h", (24, 3)).sum(axis=1)
        np.testing.assert_allclose(paid, column(periods, "price_usd_per_kwh") * p.sum(axis=1), atol=1e-9)


def test_csv_files_say_the_same_as_parquet(study):
    out, _, tables = study
    assert set(tables) == {"periods", "agents", "devices", "incentives", "random_agents"}
    for name, table in tables.items():
        other = csv.read_csv(out / "tables" / f"{name}.csv")
        assert other.column_names == table.column_names
        assert other.num_rows == table.num_rows
    assert tables["random_agents"].num_rows == len(MECHANISMS) * 15 * 3
    figures = {
        tuple(row[k] for k in ("markets", "mechanism", "figure")): row["value"]
        for row in tables["incentives"].to_pylist()
    }
    kpis = json.loads((out / "kpis.json").read_text())
    assert figures["random", "vcg", "losers_share"] == kpis["random.vcg.losers_share"]


def test_the_page_has_every_part_and_needs_no_network(study):
    out, kpis, _ = study
    page = (out / "index.html").read_text(encoding="utf-8")
    for anchor in (
        "injections",
        "coordination",
        "prices",
        "tracking",
        "incentives",
        "money",
        "equilibrium",
        "set-up",
    ):
        assert f'<section id="{anchor}">' in page
    assert "The operator is a net load all day" in page
    assert "nobody loses and no false report gains" in page
    assert "<script src" not in page
    assert str(out) not in page
    assert f"{round(kpis['game.infeasible_share'] * 24)} of 24 requests are beyond reach" in page


def test_a_day_is_the_same_whenever_it_is_simulated(study):
    _, _, tables = study
    again = simulate_day(load_scenario("ieee123-day", ["seed=2"]), 60)
    np.testing.assert_array_equal(again.game.p_kw, column(tables["agents"], "p_kw"))


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"day": "15 July"}, "--day = '15 July'"),
        ({"day": "2021-06-01"}, "the run must lie within the prices"),
        ({"step_minutes": 7}, "--step-minutes = 7"),
        ({"step_minutes": 1}, "5, 6, 10"),
        ({"instances": 0}, "--instances = 0"),
        ({"instances": 10**6}, "1 to 5000"),
        ({"seed": -1}, "--seed = -1"),
        ({"overrides": ["secondary.period_s=60"]}, "nothing but inputs"),
        ({"overrides": ["inputs.price_csv=/nowhere.csv"]}, "nowhere.csv"),
        ({"base": "ieee123-hour"}, "a whole day"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(arguments, said, tmp_path):
    with pytest.raises(InputError, match=said):
        study_consumer_market(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_directory_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not lose me")
    with pytest.raises(InputError, match="not empty"):
        study_consumer_market(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
