"""A battery with its inverter, that does what its market tells it over MQTT; a double of a real one.

    python inverter.py --broker 127.0.0.1:1883 --run my-run --house house_0010

Like thermostat.py a program of its own: it listens to voltier/RUN/HOUSE/battery/set, follows as far as its rating and
its stored energy go, and tells voltier/RUN/HOUSE/battery/state. Discharging into the grid is positive.
"""

import argparse
import json
import time

from paho.mqtt import client as mqtt


class Battery:
    """Stored energy, a rating, one efficiency for each direction."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.soc_kwh, self.p_kw, self.wanted_kw = options.soc_kwh, 0.0, 0.0
        self.moved = time.monotonic()

    def told(self, payload: bytes) -> None:
        """Take a set-point; one whose deadline is over is not for now."""
        said = json.loads(payload)
        if said["deadline_unix_s"] >= time.time():
            self.wanted_kw = said["p_kw"]

    def live(self) -> None:
        """Let the time since the last call pass."""
        now = time.monotonic()
        hours = (now - self.moved) * self.options.factor / 3600.0
        self.moved = now
        flow_kw = self.p_kw / 0.95 if self.p_kw > 0.0 else self.p_kw * 0.95
        self.soc_kwh = min(max(self.soc_kwh - flow_kw * hours, 0.0), self.options.capacity_kwh)
        empty, full = self.soc_kwh <= 0.0, self.soc_kwh >= self.options.capacity_kwh
        least, most = (0.0 if full else -self.options.rated_kw), (0.0 if empty else self.options.rated_kw)
        self.p_kw = min(max(self.wanted_kw, least), most)

    def state(self) -> str:
        """Say what is measured."""
        return json.dumps({"p_kw": round(self.p_kw, 4), "soc_kwh": round(self.soc_kwh, 4)})


def options_of_command() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="A battery that takes part in a market over MQTT.")
    parser.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST:PORT")
    parser.add_argument("--run", required=True, help="hardware.run of the scenario, or its name")
    parser.add_argument("--house", required=True, help="name of its house")
    parser.add_argument("--factor", type=float, default=1.0, help="as in voltier run --realtime FACTOR")
    parser.add_argument("--rated-kw", type=float, default=5.0)
    parser.add_argument("--capacity-kwh", type=float, default=13.5)
    parser.add_argument("--soc-kwh", type=float, default=6.75, help="stored energy at the start")
    parser.add_argument("--period-s", type=float, default=5.0, help="simulated seconds between measurements")
    return parser.parse_args()


def main() -> None:
    """Run the battery until it is ended."""
    options = options_of_command()
    battery, name = Battery(options), f"voltier/{options.run}/{options.house}/battery"
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.on_connect = lambda *_: client.subscribe(f"{name}/set", 1)
    client.on_message = lambda _client, _data, message: battery.told(message.payload)
    host, _, port = options.broker.rpartition(":")
    client.connect(host, int(port), 15)
    period_s, last = options.period_s / options.factor, 0.0
    while client.loop(timeout=min(0.05, period_s / 4)) == mqtt.MQTT_ERR_SUCCESS:
        before = battery.p_kw
        battery.live()
        if battery.p_kw != before or time.monotonic() - last >= period_s:
            last = time.monotonic()
            client.publish(f"{name}/state", battery.state())
    raise SystemExit(f"the broker at {options.broker} is gone")


if __name__ == "__main__":
    main()
