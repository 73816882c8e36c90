"""Premises that live in GridLAB-D: who is drawn, what the model says, what is recorded, what is refused."""

import re

import numpy as np
import pytest

from voltier.agents.premises import PremisesRecord, draw_premises
from voltier.grid.errors import InputError
from voltier.grid.feeder import read_feeder
from voltier.grid.flow.port import OwnPower
from voltier.grid.writers.glm_network import GlmFeeder
from voltier.grid.writers.glm_premises import Site, celsius, fahrenheit, premises_model
from voltier.scenarios.build_gridlabd import weather_of
from voltier.scenarios.inputs import conditions
from voltier.scenarios.metrics_gridlabd import gridlabd_kpis
from voltier.scenarios.panels import Block
from voltier.scenarios.schema import load_scenario

FEEDER = read_feeder("ieee13")
SITE = Site(37.6, -122.4, -8.0)
ENGINE = "feeder.engine=gridlabd"


def objects(text: str) -> dict[str, dict[str, str]]:
    """Properties of every object of a model by its name."""
    found = {}
    for kind, body in re.findall(r"object (\w+) \{\n(.*?)\n\}", text, re.S):
        properties = dict(line.strip(" ;").split(" ", 1) for line in body.splitlines())
        found[properties["name"]] = {"class": kind, **properties}
    return found


def test_premises_stand_at_fed_phases_of_load_buses_and_more_of_one_moves_no_other() -> None:
    few = draw_premises(FEEDER, 5, houses=4, batteries=2, pv=3)
    many = draw_premises(FEEDER, 5, houses=40, batteries=9, pv=3)
    assert set(many.bus.tolist()) <= set(FEEDER.load_buses.tolist())
    assert FEEDER.has_phase[many.bus, many.phase].all()
    for name in ("bus", "phase", "floor_m2", "heating_c", "skew_s"):
        np.testing.assert_array_equal(getattr(many, name)[:4], getattr(few, name))
    np.testing.assert_array_equal(many.battery_kwh[:2], few.battery_kwh)
    np.testing.assert_array_equal(many.pv_kw, few.pv_kw)
    assert not np.array_equal(draw_premises(FEEDER, 6, houses=40, batteries=0, pv=0).bus, many.bus)
    assert (many.cooling_c - many.heating_c > 2.0).all()
    assert few.objects[3:6] == ("gld_house_0003", "gld_battery_0000", "gld_battery_0001")


def test_the_model_has_each_behind_its_meter_and_transformer() -> None:
    premises = draw_premises(FEEDER, 5, houses=2, batteries=1, pv=3)
    model = GlmFeeder.of(FEEDER, keeps_open=True)
    found = objects(premises_model(model, premises, SITE))
    by_class = [found[name]["class"] for name in premises.objects]
    assert by_class == ["house", "house", "battery", "solar", "solar", "solar"]
    service = found["service_3"]
    letter = "ABC"[premises.phase[2]]
    assert (service["from"], service["to"]) == (model.name[premises.bus[2]], "premises_3")
    assert service["phases"] == f"{letter}S"
    rating = found[service["configuration"]]
    assert float(rating["primary_voltage"]) == pytest.approx(model.v_base_v[premises.bus[2]])
    assert float(rating[f"power{letter}_rating"]) == 25.0
    house = found["gld_house_0001"]
    assert house["parent"] == "meter_gld_house_0001"
    assert found[house["parent"]]["parent"] == "premises_2"
    assert celsius(np.array(float(house["cooling_setpoint"]))) == pytest.approx(premises.cooling_c[1])
    middle = fahrenheit(float(premises.cooling_c[1] + premises.heating_c[1]) / 2.0)
    assert float(house["air_temperature"]) == pytest.approx(middle)
    follower = found["gld_battery_0000_inverter"]
    assert (follower["sense_object"], follower["four_quadrant_control_mode"]) == (
        "premises_1",
        "LOAD_FOLLOWING",
    )
    # houses take the first climate of a model
    assert next(name for name, thing in found.items() if thing["class"] == "climate") == house["weather"]


def test_what_is_not_fed_takes_no_premises() -> None:
    feeder = read_feeder("ieee123")
    premises = draw_premises(feeder, 1, houses=1, batteries=0, pv=0)
    premises.bus[0] = feeder.bus.index("610")
    with pytest.raises(InputError, match="610"):
        premises_model(GlmFeeder.of(feeder, keeps_open=True), premises, SITE)


def test_a_record_is_the_mean_of_its_minutes() -> None:
    record, none = PremisesRecord(180), np.full(2, np.nan)
    idle = np.zeros((3, 3))

    def own(k: int) -> OwnPower:
        return OwnPower(idle, idle, np.array([-k, 1.0]), np.zeros(2), np.array([20.0 + k, np.nan]), none)

    rows = [record.take(60 * k, own(k)) for k in range(6)]
    assert [len(found) for found in rows] == [0, 0, 1, 0, 0, 1]
    last = rows[5][0]
    assert (last.table, last.t_s) == ("gridlabd", 180)
    np.testing.assert_array_equal(last.columns["p_kw"], [-4.0, 1.0])
    np.testing.assert_array_equal(last.columns["temp_indoor_c"], [25.0, np.nan])


def test_key_figures_by_kind() -> None:
    section = ["gridlabd.houses=2", "gridlabd.batteries=1", "gridlabd.pv=1", ENGINE]
    scenario = load_scenario("ieee123-hour", [*section, "recording.consumer_period_s=900"])
    nan = np.nan
    block = Block(
        np.array([0, 900]),
        {"object": np.array(["gld_house_0000", "gld_house_0001", "gld_battery_0000", "gld_pv_0000"])},
        {
            "p_kw": np.array([[-1.0, -3.0, 0.5, 4.0], [-1.0, -1.0, -0.5, 2.0]]),
            "temp_indoor_c": np.array([[20.0, 22.0, nan, nan], [21.0, 25.0, nan, nan]]),
            "soc": np.array([[nan, nan, 0.4, nan], [nan, nan, 0.6, nan]]),
        },
    )
    kpis = gridlabd_kpis(block, scenario)
    assert kpis == {
        "gridlabd.house_kwh": pytest.approx(1.5),
        "gridlabd.house_kwh_per_day": pytest.approx(36.0),
        "gridlabd.indoor_mean_c": pytest.approx(22.0),
        "gridlabd.indoor_min_c": 20.0,
        "gridlabd.indoor_max_c": 25.0,
        "gridlabd.pv_kwh": pytest.approx(1.5),
        "gridlabd.battery_net_kwh": pytest.approx(0.0),
        "gridlabd.battery_final_soc": pytest.approx(0.6),
    }
    assert gridlabd_kpis(None, scenario) == {}


def test_the_weather_is_that_of_the_market() -> None:
    scenario = load_scenario("ieee123-hour", ["start=2020-07-15T11:00"])
    weather, series = weather_of(scenario), conditions(scenario)
    air_c, pv, dni, dhi, ghi = weather.at(0)
    # the series begin one minute before the run
    assert (air_c, pv) == (series.temp_air_c[1], series.pv_available[1])
    assert weather.at(-60)[0] == series.temp_air_c[0]
    # near noon of a day in July the sun stands high: global is direct times its height, and diffuse
    assert 0.8 * dni < ghi - dhi < dni


@pytest.mark.parametrize(
    ("sets", "field", "remedy"),
    [
        (["gridlabd.houses=3"], "feeder.engine", "leave the section gridlabd out"),
        ([ENGINE, "gridlabd.houses=2", "gridlabd.batteries=3"], "gridlabd.batteries", "at most 2"),
        ([ENGINE, "gridlabd.houses=-1"], "gridlabd.houses", "at least 0"),
        ([ENGINE, "gridlabd.house=1"], "gridlabd.house", "houses"),
        ([ENGINE, "gridlabd.pv=1.5"], "gridlabd.pv", "whole number"),
        ([ENGINE, "gridlabd.houses=0"], "gridlabd", "at least one"),
    ],
)
def test_bad_input_is_named_with_its_remedy(sets: list[str], field: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        load_scenario("ieee123-hour", sets)
    assert [problem.field for problem in caught.value.problems] == [field]
    assert remedy in str(caught.value)
