"""Devices outside: real thermostats and inverters that take the place of simulated ones.

What a device says is judged here, what it is told is written here, and how long it took is measured here; who carries
the bytes is somebody else's business. Powers are injections (a thermostat's are negative), times simulated seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from voltier.agents.clock import MINUTE_S
from voltier.agents.messages import Array, DeviceReadings, DeviceSetpoints, Index
from voltier.agents.operator import Rows

Kind = Literal["hvac", "battery"]
Silence = Literal["hold", "simulate", "abort"]

PAYLOAD_VERSION = 1
STATE_FIELD = {"hvac": "temp_c", "battery": "soc_kwh"}
"""Name of a device's state in its payloads."""
_OVER = 1.1
"""Power up to this share of the rating is believed: ratings are rounded and meters err."""
_TEMP_C = (-40.0, 60.0)
_ASKED_SHARE = 0.05
"""Least change of power, as a share of the rating, of which the dead time is measured."""
_DONE_SHARE = 0.5
"""Share of the change asked for that ends the dead time."""


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device outside. house : its house's name ; rated_kw ; capacity_kwh : of a battery."""

    house: str
    kind: Kind
    rated_kw: float
    capacity_kwh: float = 0.0

    @property
    def name(self) -> str:
        """Name in events."""
        return f"{self.house}/{self.kind}"

    @property
    def power_limits_kw(self) -> tuple[float, float]:
        """Least and most injection that is believed."""
        return -_OVER * self.rated_kw, _OVER * self.rated_kw if self.kind == "battery" else 0.0

    @property
    def state_limits(self) -> tuple[float, float]:
        """Least and most state that is believed."""
        return _TEMP_C if self.kind == "hvac" else (0.0, _OVER * self.capacity_kwh)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a device measured: injection [kW], temperature [degC] or stored energy [kWh], when it was heard [s]."""

    p_kw: float
    state: float
    at_s: float


class _Payload(msgspec.Struct):
    p_kw: float
    temp_c: float | None = None
    soc_kwh: float | None = None


_decode = msgspec.json.Decoder(_Payload).decode
_encode = msgspec.json.Encoder().encode


def read_state(spec: DeviceSpec, payload: bytes, at_s: float) -> Reading | str:
    """Return what a payload says, or why it is refused. Fields that it has beside the known ones are its own affair."""
    try:
        said = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return f"malformed: {error}"
    field = STATE_FIELD[spec.kind]
    state = getattr(said, field)
    if state is None:
        return f"malformed: {field} is missing"
    for name, value, (low, high) in (
        ("p_kw", said.p_kw, spec.power_limits_kw),
        (field, state, spec.state_limits),
    ):
        if not low <= value <= high:
            return f"out of range: {name} = {value:g}, not within {low:g} to {high:g}"
    return Reading(said.p_kw, state, at_s)


def write_setpoint(spec: DeviceSpec, t_s: int, p_kw: float, wanted: float, deadline_unix_s: float) -> bytes:
    """Return the payload of a set-point for the minute from t_s. wanted : temperature or stored energy planned for."""
    content = {
        "version": PAYLOAD_VERSION,
        "t_s": t_s,
        "p_kw": round(p_kw, 4),
        "on": abs(p_kw) >= 0.5 * spec.rated_kw,
        STATE_FIELD[spec.kind]: round(wanted, 3),
        "rated_kw": spec.rated_kw,
        "deadline_s": t_s + MINUTE_S,
        "deadline_unix_s": round(deadline_unix_s, 3),
    }
    return _encode(content)


@dataclass(slots=True)
class _Entry:
    """What is known of one device. asked_s, before_kw, asked_kw : a change of power that is still to come."""

    reading: Reading | None = None
    set_kw: float = np.nan
    silent: bool = False
    asked_s: float = np.nan
    before_kw: float = np.nan
    asked_kw: float = np.nan
    dead_time_s: float = np.nan


class DeviceDesk:
    """Keeps the last word of every device outside, and the time from a clearing to the change that it asked for.

    timeout_s : simulated time without a reading after which a device is silent.
    """

    def __init__(self, specs: Sequence[DeviceSpec], timeout_s: float) -> None:
        self.specs = tuple(specs)
        self._timeout_s = timeout_s
        self._entries = [_Entry() for _ in specs]
        self._events: list[tuple[str, str]] = []
        self._refused: dict[tuple[int, str], tuple[str, int]] = {}

    @property
    def heard_all(self) -> bool:
        """Whether every device has been heard."""
        return all(entry.reading is not None for entry in self._entries)

    def hear(self, device: int, payload: bytes, at_s: float, *, retained: bool = False) -> None:
        """Take in what a device said; what cannot be believed becomes an event.

        retained : the broker had kept it from earlier, nobody knows since when.
        """
        found = (
            "retained: it may be of an earlier run"
            if retained
            else read_state(self.specs[device], payload, at_s)
        )
        if isinstance(found, str):
            key = device, found.partition(":")[0]
            first, count = self._refused.get(key, (found, 0))
            self._refused[key] = first, count + 1
            return
        entry = self._entries[device]
        entry.reading = found
        asked_kw = entry.asked_kw - entry.before_kw
        if (found.p_kw - entry.before_kw) * np.sign(asked_kw) >= _DONE_SHARE * abs(asked_kw):
            entry.dead_time_s = at_s - entry.asked_s
            entry.asked_s = entry.before_kw = entry.asked_kw = np.nan

    def instruct(self, setpoints: DeviceSetpoints, deadline_unix_s: float) -> list[tuple[int, bytes]]:
        """Note what the market asks for; return what each device is to be told."""
        told = []
        for device, p_kw, wanted in zip(setpoints.device, setpoints.p_kw, setpoints.wanted, strict=True):
            spec, entry = self.specs[device], self._entries[device]
            entry.set_kw = float(p_kw)
            self._expect(spec, entry, setpoints.t_s)
            told.append(
                (
                    int(device),
                    write_setpoint(spec, setpoints.t_s, float(p_kw), float(wanted), deadline_unix_s),
                )
            )
        return told

    def watch(self, now_s: float) -> list[str]:
        """Note who has fallen silent and who is back; return the names of those newly silent."""
        fallen = []
        for spec, entry in zip(self.specs, self._entries, strict=True):
            silent = entry.reading is None or now_s - entry.reading.at_s > self._timeout_s
            if silent and not entry.silent:
                fallen.append(spec.name)
                known = (
                    "never heard; simulated until it is"
                    if entry.reading is None
                    else (
                        f"last heard at simulated second {entry.reading.at_s:.0f}, injecting {entry.reading.p_kw:g} kW"
                    )
                )
                self._events.append(("device-silent", f"{spec.name}: {known}"))
            elif entry.silent and not silent:
                self._events.append(("device-back", f"{spec.name} is heard again"))
            entry.silent = silent
        return fallen

    def readings(self, t_s: int, devices: Index, *, with_silent: bool) -> DeviceReadings:
        """Return the last known power and state of some devices; of silent ones only if wanted."""
        known = [
            (device, entry.reading)
            for device in devices.tolist()
            if (entry := self._entries[device]).reading is not None and (with_silent or not entry.silent)
        ]
        return DeviceReadings(
            t_s=t_s,
            device=np.array([device for device, _ in known], dtype=np.int64),
            p_kw=np.array([reading.p_kw for _, reading in known if reading], dtype=np.float64),
            state=np.array([reading.state for _, reading in known if reading], dtype=np.float64),
        )

    def rows(self, t_s: int, now_s: float) -> list[Rows]:
        """Return the table rows of the minute from t_s, at its end, and the events since the last call."""
        rows = self.events(t_s)
        if t_s >= 0:
            entries = self._entries
            columns = {
                "set_kw": np.array([entry.set_kw for entry in entries]),
                "measured_kw": np.array(
                    [entry.reading.p_kw if entry.reading else np.nan for entry in entries]
                ),
                "dead_time_s": np.array([entry.dead_time_s for entry in entries]),
                "age_s": np.array(
                    [now_s - entry.reading.at_s if entry.reading else np.nan for entry in entries]
                ),
            }
            rows.append(Rows("hardware", t_s, columns))
            for entry in entries:
                entry.dead_time_s = np.nan
        return rows

    def events(self, t_s: int) -> list[Rows]:
        """Return and forget what has happened; what was refused for one reason is one event."""
        for (device, _), (first, count) in self._refused.items():
            more = f", and {count - 1} more" if count > 1 else ""
            self._events.append(("device-refused", f"{self.specs[device].name}: {first}{more}"))
        self._refused = {}
        found, self._events = self._events, []
        return [
            Rows("events", t_s, {"source": ["device"], "kind": [kind], "text": [text]})
            for kind, text in found
        ]

    def _expect(self, spec: DeviceSpec, entry: _Entry, t_s: int) -> None:
        """Begin to wait for a change, or go on waiting for one in the same direction."""
        if entry.reading is None:
            return
        change_kw = entry.set_kw - entry.reading.p_kw
        if abs(change_kw) < _ASKED_SHARE * spec.rated_kw:
            entry.asked_s = entry.before_kw = entry.asked_kw = np.nan
        elif np.sign(change_kw) != np.sign(entry.asked_kw - entry.before_kw):
            entry.asked_s, entry.before_kw, entry.asked_kw = float(t_s), entry.reading.p_kw, entry.set_kw


@dataclass(frozen=True, slots=True)
class Outside:
    """Which devices of a shard's houses are outside. device : positions among all devices outside

    kind : key of each one's kind ; kind_row : row of that kind ; house : its house in the shard ; place : its row among
    the devices of its kind
    """

    device: Index
    kind: tuple[str, ...]
    kind_row: Index
    house: Index
    place: Index


class Meters:
    """What the devices outside last measured: it takes the place of what the model of a shard computes."""

    def __init__(self, outside: Outside) -> None:
        self.outside = outside
        self._p_kw, self._state = np.full((2, len(outside.device)), np.nan)

    def take(self, readings: DeviceReadings) -> None:
        """Believe these from now on; of all others, the model."""
        here = np.searchsorted(self.outside.device, readings.device)
        self._p_kw[:], self._state[:] = np.nan, np.nan
        self._p_kw[here], self._state[here] = readings.p_kw, readings.state

    def put_power(self, device_kw: Array) -> None:
        """Overwrite powers, (kinds, n), by those measured."""
        known, outside = ~np.isnan(self._p_kw), self.outside
        device_kw[outside.kind_row[known], outside.house[known]] = self._p_kw[known]

    def put_state(self, state: dict[str, Array]) -> None:
        """Overwrite states by those measured."""
        for kind, place, value in zip(self.outside.kind, self.outside.place, self._state, strict=True):
            if not np.isnan(value):
                state[kind][place] = value
