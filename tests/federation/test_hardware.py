"""Thermostats outside, as processes behind a real broker, in the loop of the real market."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from broker import mqtt_broker, process, thermostats

from voltier.federates.session import run_scenario
from voltier.grid.errors import FederationError
from voltier.scenarios.results import read_table
from voltier.scenarios.schema import Scenario, load_scenario

pytestmark = [pytest.mark.federation, pytest.mark.usefixtures("nothing_left_behind")]

FACTOR = 60.0
HOUSES = [f"house_{k:04d}" for k in range(0, 1008, 48)]
BASE = ["primary.relaxation_bound=false", "recording.consumer_period_s=60", f"federation.realtime={FACTOR:g}"]


def scenario(name: str, broker: str, houses: list[str], *overrides: str) -> Scenario:
    devices = ", ".join(f"{{house: {house}}}" for house in houses)
    section = f"hardware={{broker: '{broker}', run: test, timeout_s: 2, devices: [{devices}]}}"
    return load_scenario(name, [*BASE, section, *overrides])


def table(run: Path, name: str) -> pd.DataFrame:
    return read_table(run, name).to_pandas()


def test_an_attack_is_answered_by_thermostats_within_a_minute(tmp_path: Path) -> None:
    """The published laboratory test: 130 kW fall out, thermostats take load off with each one-minute clearing."""
    overrides = [
        "hours=0.2", "attack.start=20:05", "attack.end=null", "attack.buses=[47]", "resilience.warm_up_min=3",
        "resilience.consecutive=1", "primary.period_s=60", "recording.settlement_period_s=60",
    ]  # fmt: skip
    options = ("--factor", f"{FACTOR:g}", "--relay-s", "8", "--outdoor-c", "12")
    with mqtt_broker() as broker, thermostats(broker, "test", HOUSES, *options):
        run = run_scenario(scenario("ieee123-attack-2b", broker, HOUSES, *overrides), tmp_path / "run")
    hardware, devices = table(run, "hardware"), table(run, "devices")
    # 8 s of relay, three from the clearing to the order, a few until the emulator tells; the rest of the minute is
    # room for a busy machine, on which a second is a minute here. The first minute is left to loading.
    dead_s = hardware[hardware.t_s >= 60].dead_time_s.dropna()
    assert len(dead_s) >= len(HOUSES) // 2
    assert dead_s.min() >= 8.0
    assert dead_s.max() <= 60.0
    # What they draw is what the market asked for, once the relay has switched.
    assert np.abs(hardware.measured_kw - hardware.set_kw)[hardware.t_s >= 120].median() < 1e-3
    load_kw = -hardware.groupby("t_s").measured_kw.sum()
    alarm_s = int(table(run, "events").query("kind == 'alarm'").t_s.min())
    assert alarm_s == 360  # the minute after the attack
    assert load_kw[alarm_s] < 0.98 * load_kw[alarm_s - 60]
    assert load_kw[alarm_s + 60 :].min() < 0.95 * load_kw[alarm_s - 60]
    # The grid sees the meters: a house's heat pump draws what was last measured before its consumer market acted.
    seen = devices[devices.cma == HOUSES[0]].set_index("t_s").hvac_kw
    told = hardware[hardware.house == HOUSES[0]].set_index("t_s").measured_kw
    np.testing.assert_allclose(seen.loc[120:], told.shift().loc[120:], atol=1e-9)


def test_a_silent_device_keeps_its_last_word_and_is_told(tmp_path: Path) -> None:
    with mqtt_broker() as broker, thermostats(broker, "test", HOUSES[1:3], "--factor", "60") as emulator:
        case = scenario("ieee123-hour", broker, HOUSES[1:3], "hours=0.16666666666666666")
        stop_at: list[int] = []

        def watch(now_s: int, states: object) -> None:
            if now_s >= 180 and not stop_at:
                emulator.kill()
                stop_at.append(now_s)

        run = run_scenario(case, tmp_path / "run", transport="none", watch=watch)
    events = table(run, "events").query("source == 'device'")
    assert events.kind.tolist() == ["device-silent"] * 2
    assert (events.t_s > 180).all()
    measured = table(run, "hardware").pivot_table(index="t_s", columns="house", values="measured_kw")
    assert (measured.loc[240:].nunique() == 1).all()
    assert table(run, "grid").t_s.max() == 540  # the market goes on


def test_a_silent_device_ends_the_run_if_the_scenario_says_so(tmp_path: Path) -> None:
    with mqtt_broker() as broker:
        emulator = thermostats(broker, "test", HOUSES[1:2], "--factor", "60")
        case = scenario("ieee123-hour", broker, HOUSES[1:2], "hardware.silence=abort")
        with emulator as started:
            watch = lambda now_s, states: started.kill() if now_s >= 60 else None  # noqa: E731
            with pytest.raises(
                FederationError, match=f"{HOUSES[1]}/hvac silent at .* hardware.silence is abort"
            ):
                run_scenario(case, tmp_path / "run", transport="none", watch=watch)


LIAR = """
import sys, time
from paho.mqtt import client as mqtt
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
host, _, port = sys.argv[1].rpartition(":")
client.connect(host, int(port))
client.loop_start()
for payload in (b'{"p_kw": -1.0, "temp_c": 21.5}', b'{"p_kw": 100, "temp_c": 21.5}', b'nonsense'):
    client.publish(sys.argv[2], payload, qos=1)
while True:
    time.sleep(0.2)
    client.publish(sys.argv[2], b'{"p_kw": -1.0, "temp_c": 21.5}', qos=1)
"""


def test_malformed_and_impossible_measurements_are_refused_and_the_market_goes_on(tmp_path: Path) -> None:
    name = f"voltier/test/{HOUSES[1]}/hvac/state"
    with mqtt_broker() as broker:
        case = scenario("ieee123-hour", broker, HOUSES[1:2], "hours=0.08333333333333333")
        with process(["-c", f"import time; time.sleep(1.0)\n{LIAR}", broker, name]):
            run = run_scenario(case, tmp_path / "run", transport="none")
    events = table(run, "events").query("source == 'device'")
    assert events.kind.tolist() == ["device-refused"] * 2
    assert events.text.str.contains("out of range: p_kw = 100").any()
    assert events.text.str.contains("malformed").any()
    assert (table(run, "hardware").measured_kw == -1.0).all()


def test_without_a_broker_the_run_ends_before_time_zero_and_says_where_it_looked(tmp_path: Path) -> None:
    case = scenario("ieee123-hour", "127.0.0.1:9", HOUSES[:1])
    began = time.monotonic()
    with pytest.raises(FederationError, match=r"no MQTT broker answers at 127\.0\.0\.1:9"):
        run_scenario(case, tmp_path / "run")
    assert time.monotonic() - began < 60.0
