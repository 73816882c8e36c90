import json
from datetime import datetime
from pathlib import Path

import pytest

from voltier.grid.errors import InputError
from voltier.scenarios.schema import dump_scenario, json_schema, load_scenario, scenario_names


def problems(tmp_path, text, *overrides):
    path = tmp_path / "case.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_scenario(path, overrides)
    return {problem.field: problem for problem in caught.value.problems}


def test_every_scenario_of_the_library_loads_and_has_a_title():
    names = scenario_names()
    assert {"ieee123-day", "ieee123-hour", "ieee123-attack-2a", "ieee123-attack-2b"} <= set(names)
    for name, title in names.items():
        assert load_scenario(name).name == name
        assert title


def test_a_dumped_scenario_reads_back_equal(tmp_path):
    for name in scenario_names():
        scenario = load_scenario(name, ["seed=7", "federation.shards=3"])
        dump_scenario(scenario, tmp_path / "resolved.yaml")
        assert load_scenario(tmp_path / "resolved.yaml") == scenario


def test_extends_merges_sections_and_replaces_lists(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "extends: ieee123-attack-2b\nattack: {buses: [47]}\n"
        "generators: [{bus: 47, p_max_kw: 9, price_usd_per_kwh: 1e-2}]\n"
    )
    scenario = load_scenario(tmp_path / "mine.yaml")
    assert scenario.name == "mine"
    assert scenario.attack.buses == ("47",)
    assert scenario.attack.start == "21:15"
    assert [(g.bus, g.price_usd_per_kwh) for g in scenario.generators] == [("47", 0.01)]
    assert scenario.fleet.houses == 1008


def test_overrides_reach_into_sections_and_lists():
    scenario = load_scenario("ieee123-attack-2b", ["generators.4.p_max_kw=300", "attack=null", "hours=0.5"])
    assert scenario.generators[4].p_max_kw == 300.0
    assert scenario.attack is None
    assert scenario.attack_window_s is None
    assert scenario.end_s == 1800


def test_attack_clock_is_the_wall_clock(tmp_path):
    text = "extends: ieee123-attack-2b\nstart: 2020-07-15 23:00\nattack: {start: 00:30, end: 01:00}\n"
    (tmp_path / "night.yaml").write_text(text)
    scenario = load_scenario(tmp_path / "night.yaml")
    assert scenario.start == datetime(2020, 7, 15, 23)
    assert scenario.attack_window_s == (5400, 7200)


@pytest.mark.parametrize(
    ("text", "field", "line", "remedy"),
    [
        ("name: x\nprimry: {period_s: 300}\n", "primry", 2, 'did you mean "primary"'),
        ("name: x\nprimary:\n  perod_s: 300\n", "primary.perod_s", 3, 'did you mean "period_s"'),
        ("name: x\nlateral_impedance: self\n", "lateral_impedance", 2, '"feeder.lateral_impedance"'),
        ("name: x\nhours: 24h\n", "hours", 2, "without quotes or unit"),
        ("name: x\nhours: '24'\n", "hours", 2, "without quotes or unit"),
        ("name: x\nhours: .nan\n", "hours", 2, "must be"),
        ("name: x\nfleet:\n  houses: -1\n", "fleet.houses", 3, "more than 0"),
        ("name: x\nfleet:\n  battery_kva: -5\n", "fleet.battery_kva", 3, "more than 0"),
        ("name: x\nfleet:\n  water_heaters: 2000\n", "fleet", 2, "more than houses"),
        ("name: x\nseed: 1.5\n", "seed", 2, "whole number"),
        ("name: x\ndesign: flat\n", "design", 2, "one of"),
        ("name: x\nhours: 1\nprimary:\n  period_s: 420\n", "hours", 2, "multiple of primary.period_s = 420"),
        ("name: x\nprimary:\n  period_s: 90\n", "primary.period_s", 3, "multiple of 60"),
        ("name: x\nconsumer:\n  step_s: 5400\n  horizon_h: 25\n", "consumer.step_s", 3, "divide"),
        ("name: x\nhours: 0.01\n", "hours", 2, "whole number of minutes"),
        ("name: x\nsecondary: {period_s: 30}\n", "secondary.period_s", 2, "one of 60"),
        ("name: x\nstart: tomorrow\n", "start", 2, "date"),
        ("name: x\nscores: 3\n", "scores", 2, "section"),
        ("name: x\nfleet: {dg_nodes: 100}\n", "fleet.dg_nodes", 2, "85 load buses"),
        ("name: x\niot:\n  compromised_buses: [47, 4700]\n", "iot.compromised_buses.1", 3, "no such bus"),
        ("name: x\ninputs:\n  weather_csv: none.csv\n", "inputs.weather_csv", 3, "no such file"),
        ("name: x\nprimary: {formulation: three_phase}\n", "primary.formulation", 2, "one of 'branch_flow'"),
        ("name: x\nprimary:\n  weights:\n    loss: 2.0\n", "primary.weights.loss", 4, "to current_injection"),
        ("name: x\nprimary: {weights: {generation: 0.0}}\n", "primary.weights.generation", 2, "at least 1e-06"),
        ("name: x\nprimary: {weights: {generation: 1.0e+30}}\n", "primary.weights.generation", 2, "at most"),
        ("name: x\nprimary: {weights: {disutility: 1.0e+30}}\n", "primary.weights.disutility", 2, "at most"),
        ("name: x\nprimary: {weights: {loss: .nan}}\n", "primary.weights.loss", 2, ""),
        ("name: x\nprimary: {weights: {voltage: 1.0}}\n", "primary.weights.voltage", 2, "there is no such key"),
        ("name: x\nprimary: {formulation: current_injection}\nfeeder: {lateral_impedance: self}\n",
         "feeder.lateral_impedance", 3, "as it is"),
        ("extends: ieee123-dya\n", "extends", 1, 'did you mean "ieee123-day"'),
    ],
)  # fmt: skip
def test_wrong_scenarios_are_named_by_line_field_and_remedy(tmp_path, text, field, line, remedy):
    found = problems(tmp_path, text)[field]
    assert found.where == f"{tmp_path / 'case.yaml'}:{line}"
    assert remedy in found.remedy


def test_all_problems_are_told_at_once(tmp_path):
    found = problems(
        tmp_path, "name: x\nhours: abc\nfleet: {houses: -3, pv_kva: '9 kVA'}\nfoo: 1\n", "seed=-1"
    )
    assert set(found) == {"hours", "fleet.houses", "fleet.pv_kva", "foo", "seed"}
    assert found["seed"].where == "--set seed=-1"


def test_generators_stand_at_load_buses_once(tmp_path):
    text = "name: x\ngenerators:\n"
    for bus in (67, 47, 470, 47):
        text += f"  - {{bus: {bus}, p_max_kw: 10, price_usd_per_kwh: 0.1}}\n"
    assert "already" in problems(tmp_path, text)["generators.3.bus"].remedy
    found = problems(tmp_path, text.replace("bus: 47,", "bus: 48,", 1))
    assert "carries no load" in found["generators.0.bus"].remedy
    assert "no such bus" in found["generators.2.bus"].remedy
    assert set(found) == {"generators.0.bus", "generators.2.bus"}


def test_an_attack_hits_generators_within_the_run():
    for override, field in (
        ("attack.buses=[47, 30]", "attack.buses.1"),
        ("attack.start=23:30", "attack.start"),
        ("hours=1", "attack.start"),
    ):
        with pytest.raises(InputError) as caught:
            load_scenario("ieee123-attack-2b", [override])
        assert [problem.field for problem in caught.value.problems] == [field]


def test_an_engine_with_one_ratio_for_three_phases_needs_regulators_at_rest(tmp_path):
    text = "name: x\nfeeder:\n  engine: pandapower-three-phase\n"
    for regulators in ("controlled", "published"):
        found = problems(tmp_path, text + f"  regulators: {regulators}\n")["feeder.regulators"]
        assert found.where.endswith("case.yaml:4")
        assert "set feeder.regulators to neutral" in found.remedy
    scenario = load_scenario(
        "ieee123-day", ["feeder.engine=pandapower-three-phase", "feeder.regulators=neutral"]
    )
    assert scenario.feeder.regulators == "neutral"


def test_yaml_syntax_errors_name_the_line(tmp_path):
    found = problems(tmp_path, "name: x\nfleet: {houses: [1, 2\nhours: 3\n")["yaml"]
    assert found.where.endswith("case.yaml:3")
    twice = problems(tmp_path, "hours: 1\nname: x\nhours: 2\n")["hours"]
    assert twice.where.endswith("case.yaml:3")
    assert "first on line 1" in twice.remedy


def test_extends_in_a_circle_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: ./b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: ./a.yaml\n")
    with pytest.raises(InputError, match="circle"):
        load_scenario(tmp_path / "a.yaml")


def test_overrides_that_make_no_sense_are_refused():
    for override in ("hours", "=3", "hours.x=3", "generators.0.bus=47", "start=2020-13-45", "seed=[1"):
        with pytest.raises(InputError):
            load_scenario("ieee123-day", [override])


def test_a_disconnected_feeder_is_refused(tmp_path):
    import voltier.grid.feeder as feeder_module

    source = Path(feeder_module.__file__).parent / "data" / "ieee123"
    copy = tmp_path / "feeder"
    copy.mkdir()
    for table in source.iterdir():
        (copy / table.name).write_bytes(table.read_bytes())
    lines = [
        line for line in (copy / "lines.csv").read_text().splitlines() if not line.startswith("line_13_34,")
    ]
    (copy / "lines.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "case.yaml").write_text("name: x\nfeeder: {name: ./feeder}\n")
    with pytest.raises(InputError, match="not joined to the source"):
        load_scenario(tmp_path / "case.yaml")


def test_json_schema_describes_every_field():
    schema = json.loads(json_schema())
    assert schema["additionalProperties"] is False
    for name, model in schema["$defs"].items():
        for field, entry in model.get("properties", {}).items():
            assert entry.get("description"), f"{name}.{field} has no description"
