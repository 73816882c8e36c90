"""Devices outside: what they may say, what they are told, how long they take, and whose place they take."""

import json
from dataclasses import replace

import numpy as np
import pytest

from voltier.agents.clock import MarketClock
from voltier.agents.devices.fleet import FleetSpec
from voltier.agents.hardware import DeviceDesk, DeviceSpec, Meters, Reading, read_state, write_setpoint
from voltier.agents.messages import DeviceReadings, DeviceSetpoints
from voltier.agents.population import build_population
from voltier.federates.mqtt import topic
from voltier.federates.wiring import wire_time
from voltier.grid.errors import InputError
from voltier.grid.feeder import read_feeder
from voltier.scenarios.build_hardware import device_specs, outside_of, with_ratings
from voltier.scenarios.schema import load_scenario
from voltier.scenarios.schema_hardware import HardwareDevice

HEAT = DeviceSpec("house_0003", "hvac", 3.0)
STORE = DeviceSpec("house_0007", "battery", 5.0, 13.5)


def say(**content: object) -> bytes:
    return json.dumps(content).encode()


def ask(p_kw: float, t_s: int = 60) -> DeviceSetpoints:
    return DeviceSetpoints(t_s=t_s, device=np.array([0]), p_kw=np.array([p_kw]), wanted=np.array([21.0]))


def kinds(desk: DeviceDesk) -> list[str]:
    return [row.columns["kind"][0] for row in desk.events(0)]


@pytest.mark.parametrize(
    ("spec", "payload", "expected"),
    [
        (HEAT, say(p_kw=-1.5, temp_c=20.5), Reading(-1.5, 20.5, 7.0)),
        (HEAT, say(p_kw=-1.5, temp_c=20.5, firmware="2.1"), Reading(-1.5, 20.5, 7.0)),
        (HEAT, say(p_kw=0, temp_c=-5), Reading(0.0, -5.0, 7.0)),
        (STORE, say(p_kw=-5.4, soc_kwh=13.5), Reading(-5.4, 13.5, 7.0)),
        (STORE, say(p_kw=5.4, soc_kwh=0), Reading(5.4, 0.0, 7.0)),
        (HEAT, b"", "malformed"),
        (HEAT, b"\xff\xfe", "malformed"),
        (HEAT, b"-1.5", "malformed"),
        (HEAT, b'{"p_kw": NaN, "temp_c": 20}', "malformed"),
        (HEAT, b'{"p_kw": 1e999, "temp_c": 20}', "malformed"),
        (HEAT, say(p_kw="-1.5", temp_c=20), "malformed"),
        (HEAT, say(p_kW=-1.5, temp_c=20), "malformed.*p_kw"),
        (HEAT, say(p_kw=-1.5), "malformed: temp_c is missing"),
        (STORE, say(p_kw=-1.5, temp_c=20), "malformed: soc_kwh is missing"),
        (HEAT, say(p_kw=1.5, temp_c=20), "out of range: p_kw = 1.5, not within -3.3 to 0"),
        (HEAT, say(p_kw=-1500, temp_c=20), "out of range: p_kw"),
        (HEAT, say(p_kw=-1.5, temp_c=293.15), "out of range: temp_c = 293.15"),
        (STORE, say(p_kw=0, soc_kwh=-0.1), "out of range: soc_kwh"),
        (STORE, say(p_kw=0, soc_kwh=55), "out of range: soc_kwh"),
    ],
)
def test_a_measurement_is_believed_or_refused_with_a_reason(
    spec: DeviceSpec, payload: bytes, expected: Reading | str
) -> None:
    found = read_state(spec, payload, 7.0)
    if isinstance(expected, str):
        assert isinstance(found, str)
        assert found.startswith(expected.partition(".*")[0])
    else:
        assert found == expected


def test_a_setpoint_says_all_that_the_documentation_promises() -> None:
    assert json.loads(write_setpoint(HEAT, 120, -2.0, 21.25, 1e9)) == {
        "version": 1, "t_s": 120, "p_kw": -2.0, "on": True, "temp_c": 21.25, "rated_kw": 3.0, "deadline_s": 180,
        "deadline_unix_s": 1e9,
    }  # fmt: skip
    told = json.loads(write_setpoint(STORE, 120, 2.0, 6.0, 1e9))
    assert (told["p_kw"], told["soc_kwh"], told["on"]) == (2.0, 6.0, False)
    assert topic("lab", STORE, "set") == "voltier/lab/house_0007/battery/set"


def test_dead_time_runs_from_the_clearing_to_half_of_the_change() -> None:
    desk = DeviceDesk([HEAT], 600.0)
    desk.hear(0, say(p_kw=-2.0, temp_c=21), 58.0)
    desk.instruct(ask(-1.0), 0.0)
    desk.hear(0, say(p_kw=-2.0, temp_c=21), 65.0)
    desk.hear(0, say(p_kw=-1.6, temp_c=21), 70.0)  # less than half
    desk.hear(0, say(p_kw=-1.4, temp_c=21), 75.0)
    desk.hear(0, say(p_kw=-1.0, temp_c=21), 80.0)
    (row,) = desk.rows(60, 122.0)
    assert {name: float(values[0]) for name, values in row.columns.items()} == {
        "set_kw": -1.0, "measured_kw": -1.0, "dead_time_s": 15.0, "age_s": 42.0,
    }  # fmt: skip
    desk.instruct(ask(-1.05, 120), 0.0)  # a change too small to be told from noise
    desk.hear(0, say(p_kw=-1.05, temp_c=21), 125.0)
    assert np.isnan(desk.rows(120, 182.0)[0].columns["dead_time_s"][0])


def test_a_change_that_takes_minutes_is_counted_from_the_first_that_asked() -> None:
    desk = DeviceDesk([HEAT], 600.0)
    desk.hear(0, say(p_kw=-2.0, temp_c=21), 58.0)
    desk.instruct(ask(-1.0, 60), 0.0)
    assert np.isnan(desk.rows(60, 122.0)[0].columns["dead_time_s"][0])
    desk.instruct(ask(-0.8, 120), 0.0)
    desk.hear(0, say(p_kw=-0.9, temp_c=21), 130.0)
    assert desk.rows(120, 182.0)[0].columns["dead_time_s"][0] == 70.0


def test_a_change_in_the_wrong_direction_ends_no_dead_time() -> None:
    desk = DeviceDesk([HEAT], 600.0)
    desk.hear(0, say(p_kw=-2.0, temp_c=21), 58.0)
    desk.instruct(ask(-1.0), 0.0)
    desk.hear(0, say(p_kw=-3.0, temp_c=21), 70.0)
    assert np.isnan(desk.rows(60, 122.0)[0].columns["dead_time_s"][0])


def test_silence_and_return_are_told_once() -> None:
    desk = DeviceDesk([HEAT, STORE], 100.0)
    assert desk.watch(0.0) == ["house_0003/hvac", "house_0007/battery"]
    assert kinds(desk) == ["device-silent", "device-silent"]
    desk.hear(0, say(p_kw=-2.0, temp_c=21), 10.0)
    assert desk.watch(60.0) == []
    assert kinds(desk) == ["device-back"]
    assert desk.watch(111.0) == ["house_0003/hvac"]
    assert desk.watch(171.0) == []
    assert kinds(desk) == ["device-silent"]
    held = desk.readings(120, np.array([0, 1]), with_silent=True)
    assert (held.device.tolist(), held.p_kw.tolist(), held.state.tolist()) == ([0], [-2.0], [21.0])
    assert len(desk.readings(120, np.array([0, 1]), with_silent=False).device) == 0


def test_what_is_refused_changes_nothing_and_is_told() -> None:
    desk = DeviceDesk([HEAT], 100.0)
    desk.hear(0, say(p_kw=-2.0, temp_c=21), 10.0)
    desk.hear(0, say(p_kw=9.0, temp_c=21), 20.0)
    desk.hear(0, say(p_kw=-1.0, temp_c=21), 30.0, retained=True)
    desk.hear(0, say(p_kw=8.0, temp_c=21), 40.0)
    texts = [row.columns["text"][0] for row in desk.events(0)]
    assert texts == [
        "house_0003/hvac: out of range: p_kw = 9, not within -3.3 to 0, and 1 more",
        "house_0003/hvac: retained: it may be of an earlier run",
    ]
    assert desk.events(0) == []
    assert desk.readings(0, np.array([0]), with_silent=True).p_kw.tolist() == [-2.0]


def test_meters_take_the_place_of_the_model_for_their_devices_alone() -> None:
    population = build_population(FleetSpec(), read_feeder("ieee123"), 5)
    owner = population.house.devices[4].at[3]
    devices = [
        HardwareDevice(house="house_0002"),
        HardwareDevice(house=population.house_name[owner], kind="battery"),
    ]
    shards = [population.shard(k, 2) for k in range(2)]
    parts = [outside_of(part, devices) for part in shards]
    assert [part.device.tolist() for part in parts if part] in ([[0, 1]], [[0], [1]])
    part, outside = shards[0], parts[0]
    assert outside is not None
    meters = Meters(outside)
    device_kw = np.ones((len(part.house.devices), len(part.house_name)))
    state = {device.key: np.ones(len(device.at)) for device in part.house.devices}
    meters.put_power(device_kw)
    meters.put_state(state)
    assert (device_kw == 1.0).all()  # nobody was heard yet
    meters.take(DeviceReadings(t_s=0, device=np.array([0]), p_kw=np.array([-2.5]), state=np.array([19.5])))
    meters.put_power(device_kw)
    meters.put_state(state)
    assert (device_kw != 1.0).sum() == 1
    assert device_kw[1, part.house_name.index("house_0002")] == -2.5
    assert (state["hvac"] != 1.0).sum() == 1
    assert state["hvac"][part.house_name.index("house_0002")] == 19.5


def test_a_rating_of_its_own_replaces_that_of_the_house() -> None:
    given = [
        "federation.realtime=1",
        "hardware={broker: 'lab:1883', devices: [{house: house_0002, rated_kw: 1.2}]}",
    ]
    scenario = load_scenario("ieee123-hour", given)
    drawn = build_population(FleetSpec(), read_feeder("ieee123"), 5)
    rated = with_ratings(drawn, scenario)
    assert scenario.hardware is not None
    assert device_specs(rated, scenario.hardware.devices) == [DeviceSpec("house_0002", "hvac", 1.2)]
    changed = rated.house.devices[1].rated_kw != drawn.house.devices[1].rated_kw
    assert np.flatnonzero(changed).tolist() == [2]


def test_a_house_that_is_not_there_or_lacks_the_device_is_named() -> None:
    given = "[{house: house_9999}, {house: house_0000, kind: battery}, {house: house_0001}]"
    overrides = ["federation.realtime=1", f"hardware={{broker: 'lab:1883', devices: {given}}}"]
    population = build_population(replace(FleetSpec(), batteries=63), read_feeder("ieee123"), 5)
    assert 0 not in population.house.devices[4].at
    with pytest.raises(InputError) as caught:
        with_ratings(population, load_scenario("ieee123-hour", overrides))
    assert [problem.field for problem in caught.value.problems] == [
        f"hardware.devices.{i}.house" for i in (0, 1)
    ]


@pytest.mark.parametrize(
    ("hardware", "realtime", "field"),
    [
        ("{broker: 'lab:1883', devices: [{house: house_0001}]}", "null", "federation.realtime"),
        ("{broker: 'mqtt://lab', devices: [{house: house_0001}]}", "1", "hardware.broker"),
        ("{broker: 'lab:1883', devices: []}", "1", "hardware.devices"),
        ("{broker: 'lab:1883', devices: [{house: house_0001}, {house: house_0001}]}", "1", "hardware"),
        ("{broker: 'lab:1883', run: 'a/b', devices: [{house: house_0001}]}", "1", "hardware.run"),
        ("{broker: 'lab:1883', devices: [{house: house_0001, kind: car}]}", "1", "hardware.devices.0.kind"),
    ],
)
def test_wrong_sections_are_refused(hardware: str, realtime: str, field: str) -> None:
    with pytest.raises(InputError) as caught:
        load_scenario("ieee123-hour", [f"hardware={hardware}", f"federation.realtime={realtime}"])
    assert field in [problem.field for problem in caught.value.problems]


def test_devices_are_read_before_the_consumers_act_and_told_after() -> None:
    clock = MarketClock(primary_period_s=300, end_s=120)
    assert list(clock.instants("device")) == [-58, 2, 3, 62, 63, 122]
    assert wire_time("device", 62) < wire_time("cmo", 63) < wire_time("device", 63) < wire_time("grid", 64)
