"""A thermostat with a heat pump and a room, that does what its market tells it over MQTT; a double of a real one.

    python thermostat.py --broker 127.0.0.1:1883 --run my-run --house house_0003 --house house_0010

It is a program of its own, with nothing but paho-mqtt: read it to learn what a device has to do. It listens to
voltier/RUN/HOUSE/hvac/set, switches after its relay's delay unless the deadline is over, switches off rather than
overheat or overcool, and tells voltier/RUN/HOUSE/hvac/state what it draws. Powers are injections into the grid:
heating at 2 kW is -2.
"""

import argparse
import json
import math
import random
import time

from paho.mqtt import client as mqtt

COLDEST_C, WARMEST_C = 18.0, 26.0


class Thermostat:
    """One room: R [degC/kW], C [kWh/degC], heat pump with a COP, a relay that takes its time."""

    def __init__(self, house: str, options: argparse.Namespace) -> None:
        rng = random.Random(house)
        self.house, self.options = house, options
        self.temp_c = 21.0 + rng.uniform(-0.5, 0.5)
        self.r, self.c, self.cop = 2.0 * rng.uniform(0.8, 1.2), 2.0 * rng.uniform(0.8, 1.2), 3.0
        self.p_kw = -options.start_kw  # injection: what it draws is negative
        self.waiting = []  # (due [monotonic s], power) behind the relay
        self.moved = time.monotonic()

    def told(self, payload: bytes) -> None:
        """Take a set-point; one whose deadline is over is not for now."""
        said = json.loads(payload)
        if said["deadline_unix_s"] < time.time():
            print(f"{self.house}: set-point of {said['t_s']} s came too late", flush=True)
            return
        p_kw = said["p_kw"]
        if self.options.on_off:
            p_kw = -said["rated_kw"] if said["on"] else 0.0
        self.waiting.append((time.monotonic() + self.options.relay_s / self.options.factor, p_kw))

    def live(self) -> None:
        """Let the time since the last call pass: relay, room, comfort."""
        now = time.monotonic()
        hours = (now - self.moved) * self.options.factor / 3600.0
        self.moved = now
        while self.waiting and self.waiting[0][0] <= now:
            self.p_kw = self.waiting.pop(0)[1]
        heating = self.options.outdoor_c < 21.0
        gain = self.r * self.cop * -self.p_kw * (1.0 if heating else -1.0)
        rest = self.options.outdoor_c + gain
        self.temp_c = rest + (self.temp_c - rest) * math.exp(-hours / (self.r * self.c))
        too_far = self.temp_c > WARMEST_C if heating else self.temp_c < COLDEST_C
        if too_far:
            self.p_kw = 0.0

    def state(self) -> str:
        """Say what is measured."""
        return json.dumps({"p_kw": round(self.p_kw, 4), "temp_c": round(self.temp_c, 3)})


def options_of_command() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Thermostats that take part in a market over MQTT.")
    parser.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST:PORT")
    parser.add_argument("--run", required=True, help="hardware.run of the scenario, or its name")
    parser.add_argument("--house", action="append", required=True, help="name of a house; may be given again")
    parser.add_argument("--factor", type=float, default=1.0, help="as in voltier run --realtime FACTOR")
    parser.add_argument("--relay-s", type=float, default=5.0, help="simulated seconds before a switch acts")
    parser.add_argument("--period-s", type=float, default=5.0, help="simulated seconds between measurements")
    parser.add_argument("--outdoor-c", type=float, default=14.0, help="temperature outside")
    parser.add_argument(
        "--start-kw", type=float, default=0.0, help="what it draws before it is told anything"
    )
    parser.add_argument(
        "--on-off", action="store_true", help="a plain relay instead of a variable-speed pump"
    )
    return parser.parse_args()


def main() -> None:
    """Run all thermostats of one process until it is ended."""
    options = options_of_command()
    rooms = {f"voltier/{options.run}/{house}/hvac": Thermostat(house, options) for house in options.house}
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_connect = lambda *_: client.subscribe([(f"{name}/set", 1) for name in rooms])
    client.on_message = lambda _client, _data, message: rooms[message.topic.removesuffix("/set")].told(
        message.payload
    )
    host, _, port = options.broker.rpartition(":")
    client.connect(host, int(port), 15)
    told_s, last = options.period_s / options.factor, 0.0
    while True:
        # One thread for network and rooms: messages are taken in as they come.
        if client.loop(timeout=min(0.05, told_s / 4)) != mqtt.MQTT_ERR_SUCCESS:
            raise SystemExit(f"the broker at {options.broker} is gone")
        before = {name: room.p_kw for name, room in rooms.items()}
        due = time.monotonic() - last >= told_s
        last = time.monotonic() if due else last
        for name, room in rooms.items():
            room.live()
            # A switch is told at once, all else by the period.
            if due or room.p_kw != before[name]:
                client.publish(f"{name}/state", room.state())


if __name__ == "__main__":
    main()
