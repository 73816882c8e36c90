"""Sections on houses, of a run whose houses are the scenario's and whose tables are made up."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_up_run import Page, drawn, figure_of, finding, numbers, tidy

from voltier.scenarios.build import population_of
from voltier.scenarios.households import bills_usd, departures
from voltier.scenarios.manifest import RunDirectory
from voltier.scenarios.report import write_comparison, write_report
from voltier.scenarios.report.fleet import measures
from voltier.scenarios.report.house import telling
from voltier.scenarios.report.kinds import KINDS, kinds_of
from voltier.scenarios.report.run import Run
from voltier.scenarios.report.style import money, number
from voltier.scenarios.schema import load_scenario

HOURS = 12
FLEET = {
    "houses": 255, "water_heaters": 60, "pv_units": 60, "pv_kva": 240.0, "pv_nodes": 30, "batteries": 50,
    "battery_nodes": 25, "dg_nodes": 40, "evs": 80, "deferrables": 0, "flexible_blocks": 0,
}  # fmt: skip
BARE = FLEET | {
    "pv_units": 0,
    "pv_kva": 0.0,
    "pv_nodes": 0,
    "batteries": 0,
    "battery_nodes": 0,
    "dg_nodes": 0,
    "evs": 0,
}


def write_run(path, fleet, seed=1, **more):
    """A morning whose loads wobble around 1 kW, PV rises, cars stand still and the market asks for a little."""
    settings = [f"hours={HOURS}", "start=2020-07-15T04:00"]
    settings += [f"fleet.{name}={value}" for name, value in fleet.items()]
    scenario = load_scenario("ieee123-day", settings)
    run = RunDirectory.create(path, scenario)
    run.finish("done")
    population, rng = population_of(scenario), np.random.default_rng(seed)
    t_s = np.arange(0, HOURS * 3600, 300)
    shape = (len(t_s), len(population.house_name))
    sun = np.linspace(0.0, 0.9, len(t_s))[:, None]
    base = -1.0 - rng.random(shape)
    device = {
        "base_kw": base, "hvac_kw": -rng.random(shape), "water_heater_kw": np.zeros(shape),
        "pv_kw": sun * rating(population, "pv", "rated_kva"),
        "battery_kw": 0.5 * np.sign(rating(population, "battery", "capacity_kwh")) * np.ones(shape),
        "ev_kw": np.zeros(shape), **more,
    }  # fmt: skip
    devices = device | {
        "temp_indoor_c": 18.9 + 2.0 * rng.random(shape),
        "battery_kwh": 0.5 * rating(population, "battery", "capacity_kwh") * np.ones(shape),
        "ev_kwh": 0.8 * rating(population, "ev", "capacity_kwh") * np.ones(shape),
    }
    wish = sum(device.values())
    sma = [population.sma_name[j] for j in population.house_sma]
    asked = wish + 0.2
    consumer = {
        "p0_kw": wish, "p_min_kw": wish - 0.5, "p_max_kw": wish + 0.5, "p_kw": asked, "p_meter_kw": asked - 0.1,
        "mu": 0.12 * np.ones(shape), "mu_tilde": 0.05 * np.ones(shape),
        "tariff": 0.1 + 0.02 * rng.random(shape), "paid_usd": 0.02 * rng.random(shape),
        "given_usd": 0.01 * rng.random(shape) - 0.005,
    }  # fmt: skip
    tables = {
        "devices": tidy(t_s, devices, cma=list(population.house_name)),
        "consumer": tidy(t_s, consumer, cmo=sma, cma=list(population.house_name)),
        "system": tidy(t_s, {"temp_air_c": 15.0 + 5.0 * sun}),
    }
    for name, table in tables.items():
        pq.write_table(table, path / "tables" / f"{name}.parquet")
    return path


def rating(population, key, name):
    device = next(device for device in population.house.devices if device.key == key)
    return population.house.spread(type(device), name)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("houses") / "run", FLEET)


@pytest.fixture(scope="module")
def page(run_dir):
    return write_report(run_dir).read_text()


def shown(page):
    """Name of each trace of the house's figure → its values for every house of the drop-down."""
    figure, data = figure_of(page, "house-figure"), json.loads(Page(page).data["house-data"])
    assert len(figure.data) == len(data["series"])
    for trace, rows in zip(figure.data, data["series"], strict=True):
        # Five digits on the one side, single precision on the other.
        np.testing.assert_allclose(drawn(trace), np.array(rows[0], dtype=float), rtol=1e-4, atol=1e-6)
    return {
        trace.name: np.array(rows, dtype=float)
        for trace, rows in zip(figure.data, data["series"], strict=True)
    }


def options(page):
    menu = page.split('id="house-choice"')[1].split("</select>")[0]
    return re.findall(r"<option value=\"\d+\"[^>]*>(house_\d+): ([^<]*)</option>", menu)


def test_pages_with_houses_are_well_formed(page):
    parsed = Page(page)
    assert parsed.stack == []
    assert {"house", "fleet", "house-choice", "house-text", "fleet-figure"} <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))


def test_a_house_shows_the_tables_values(page, run_dir):
    houses, values = Run(run_dir).houses, shown(page)
    names = list(houses.name)
    for row, (name, _) in enumerate(options(page)):
        i = names.index(name)
        bill, given = (usd[:, i].cumsum() for usd in (houses.paid_usd, houses.given_usd))
        for title, expected in (
            ("indoors", houses.temp_c[:, i]), ("meter", houses.p_meter_kw[:, i]), ("asked for", houses.p_kw[:, i]),
            ("requested", np.full(len(bill), 0.2)), ("delivered", np.full(len(bill), 0.1)),
            ("without the consumer market's payments", bill + given), ("bill", bill),
        ):  # fmt: skip
            np.testing.assert_allclose(values[title][row], expected, rtol=1e-4, atol=1e-6, err_msg=title)


def test_stacked_devices_add_up_to_the_house(page, run_dir):
    houses, figure = Run(run_dir).houses, figure_of(page, "house-figure")
    stacked = sum(np.nan_to_num(drawn(trace)) for trace in figure.data if trace.stackgroup)
    i = list(houses.name).index(options(page)[0][0])
    np.testing.assert_allclose(stacked, houses.p_meter_kw[:, i] - 0.1, rtol=1e-4, atol=1e-5)


def test_cars_show_when_they_are_away_and_what_they_want(page, run_dir):
    houses, values = Run(run_dir).houses, shown(page)
    left, names = departures(houses), list(houses.name)
    seen = 0
    for row, (name, _) in enumerate(options(page)):
        i = names.index(name)
        stars = np.flatnonzero(np.isfinite(values["wanted at departure"][row]))
        assert stars.tolist() == left.record[left.house == i].tolist()
        seen += len(stars)
        assert set(values["wanted at departure"][row][stars]) <= {90.0}
        away = values["car away"][row] > 0.0
        if houses.equipment.ev_kwh[i] == 0.0:
            assert not away.any() and np.isnan(values["EV"][row]).all()
        else:
            minute = 4 * 60 + 5 * np.arange(len(away))
            stay = (houses.equipment.ev_home_min[i] - houses.equipment.ev_away_min[i]) % 1440
            assert np.array_equal(away, (minute - houses.equipment.ev_away_min[i]) % 1440 < stay)
    assert seen > 0, "some car leaves in the morning"


def test_telling_houses_are_of_every_equipment_and_the_extremes(page, run_dir):
    houses = Run(run_dir).houses
    chosen, bill = telling(houses), bills_usd(houses)
    assert {houses.equipment.kind[i] for i in chosen} == set(houses.equipment.kind)
    assert houses.equipment.kind[next(iter(chosen))] == "PV + battery + EV"
    assert int(np.argmax(bill)) in chosen and int(np.argmin(bill)) in chosen
    assert len(chosen) <= len(set(houses.equipment.kind)) + 7
    assert [name for name, _ in options(page)] == [houses.name[i] for i in chosen]


def test_findings_say_what_the_houses_paid_and_felt(page, run_dir):
    houses = Run(run_dir).houses
    low, middle, high = np.quantile(bills_usd(houses), (0.05, 0.5, 0.95))
    text = finding(page, "fleet")
    assert text.startswith(
        f"Nine in ten houses pay {money(low)} to {money(high)} $ in 12 h, half of them less than {money(middle)}"
    )
    worst = 19.0 - houses.temp_c.min()
    assert f"leave the comfort limits by up to {number(worst)} °C" in text
    assert "delivers 50 %" in finding(page, "house"), "0.1 of 0.2 kW in every record"


def test_boxes_are_the_measures_of_each_equipment(page, run_dir):
    houses, figure = Run(run_dir).houses, figure_of(page, "fleet-figure")
    kind = houses.equipment.kind
    for column, (title, values) in enumerate(measures(houses).items()):
        boxes = [trace for trace in figure.data if (trace.xaxis or "x") == f"x{column + 1 if column else ''}"]
        assert len(boxes) == len(set(kind)), title
        for box in boxes:
            here = kind == box.name.rsplit(" (", 1)[0]
            expected = values[here][np.isfinite(values[here])]
            np.testing.assert_allclose(
                numbers(box.x), expected, rtol=1e-5, atol=1e-6, err_msg=f"{title}, {box.name}"
            )


def test_houses_without_pv_battery_and_car_need_neither(tmp_path):
    text = write_report(write_run(tmp_path / "run", BARE)).read_text()
    values = shown(text)
    assert "PV" not in values and "car away" not in values and "wanted at departure" not in values
    assert np.isnan(values["battery"]).all()
    assert "PV energy" not in finding(text, "fleet")
    assert options(text)[0][1] == "no PV, battery or EV, usual bill"


def test_a_kind_of_device_that_the_report_does_not_know_is_stacked_too(tmp_path):
    more = {"sauna_kw": -np.ones((HOURS * 12, 1))}
    text = write_report(write_run(tmp_path / "run", FLEET, **more)).read_text()
    assert (shown(text)["sauna"] == -1.0).all()
    assert list(kinds_of(["sauna_kw", "pv_kw", "temp_indoor_c", "base_kw"])) == [
        "base_kw",
        "pv_kw",
        "sauna_kw",
    ]
    assert len({color for _, color in KINDS.values()}) == len(KINDS)


def test_run_with_other_houses_than_its_scenario_says_so(tmp_path):
    run_dir = write_run(tmp_path / "run", FLEET)
    path = run_dir / "tables" / "devices.parquet"
    table = pq.read_table(path)
    column = table.column_names.index("ev_kwh")
    pq.write_table(table.set_column(column, "ev_kwh", table["battery_kwh"]), path)
    text = write_report(run_dir).read_text()
    assert text.count("this version draws other houses from the scenario") == 2
    assert "house-figure" not in Page(text).ids


def test_comparison_sets_the_houses_of_runs_side_by_side(tmp_path, run_dir):
    other = write_run(tmp_path / "other", BARE, seed=2)
    text = write_comparison({"first": run_dir, "second": other}, tmp_path / "c.html", title="Two").read_text()
    means = [bills_usd(Run(path).houses).mean() for path in (run_dir, other)]
    expected = f"On average a house pays {money(means[0])} in first, {money(means[1])} in second ($ in 12 h)."
    assert finding(text, "houses") == expected
    names = {trace.name for trace in figure_of(text, "houses-figure").data}
    assert names == {"first", "second"}
    assert "<h1>Two</h1>" in text
