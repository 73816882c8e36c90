"""The operator "device": it stands between the consumers' markets and the devices outside."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from voltier.agents.clock import MINUTE_S, OFFSET_S
from voltier.agents.hardware import DeviceDesk, Silence
from voltier.agents.messages import DeviceSetpoints, Index
from voltier.agents.operator import Mail, Outbox
from voltier.federates.mqtt import MqttLink
from voltier.federates.pace import Pace
from voltier.grid.errors import FederationError
from voltier.scenarios.build_hardware import device_specs, outside_of
from voltier.scenarios.built_case import built_case
from voltier.scenarios.schema import Scenario

_FIRST_WORD_S = 30.0
"""Wall time that devices have to say their first word before the run begins."""
_LOOK_S = 0.02


class DeviceOperator:
    """Reads the devices before the consumers act, tells them what to do after.

    owners : consumer operator → positions of the devices of its houses. end_s : end of the run, when nobody acts.
    """

    name = "device"

    def __init__(
        self, desk: DeviceDesk, link: MqttLink, owners: Mapping[str, Index], *, silence: Silence, end_s: int
    ) -> None:
        self._desk, self._link, self._owners = desk, link, owners
        self._silence, self._end_s = silence, end_s
        self._pace: Pace | None = None

    def paced_by(self, pace: Pace) -> None:
        """Take the wall clock of the run."""
        self._pace = pace

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Read the devices, or tell them what the consumers' mail asks for."""
        self._listen(now_s)
        if now_s % MINUTE_S == OFFSET_S["device"]:
            return self._read(now_s)
        for mail in inbox:
            if isinstance(mail.body, DeviceSetpoints):
                assert self._pace is not None
                deadline_unix_s = self._pace.unix_s(mail.body.t_s + MINUTE_S)
                for device, payload in self._desk.instruct(mail.body, deadline_unix_s):
                    self._link.tell(device, payload)
        return Outbox()

    def close(self) -> None:
        """Leave the broker."""
        self._link.close()

    def _read(self, now_s: int) -> Outbox:
        """Pass on the last readings, and close the books of the minute that is over."""
        t_s = now_s // MINUTE_S * MINUTE_S
        if now_s < 0:
            self._await_first_words(now_s)
        at_s = self._simulated_s(now_s)
        fallen = self._desk.watch(at_s)
        if fallen and self._silence == "abort":
            raise FederationError(f"{', '.join(fallen)} silent at {now_s} s, and hardware.silence is abort")
        outbox = Outbox()
        # The minute's own meters are read from here on, so events of now are the coming minute's.
        outbox.rows += self._desk.events(max(t_s, 0))
        if now_s > 0:
            outbox.rows += self._desk.rows(t_s - MINUTE_S, at_s)
        if now_s < self._end_s:
            for owner, devices in self._owners.items():
                readings = self._desk.readings(t_s, devices, with_silent=self._silence == "hold")
                outbox.mail.append(Mail(self.name, owner, readings))
        return outbox

    def _await_first_words(self, now_s: int) -> None:
        until = time.monotonic() + _FIRST_WORD_S
        while not self._desk.heard_all and time.monotonic() < until:
            time.sleep(_LOOK_S)
            self._listen(now_s)

    def _listen(self, now_s: int) -> None:
        for heard in self._link.take():
            at_s = self._simulated_s(now_s, heard.at_s)
            self._desk.hear(heard.device, heard.payload, at_s, retained=heard.retained)

    def _simulated_s(self, now_s: int, monotonic_s: float | None = None) -> float:
        """Return what the wall clock shows, once it is running."""
        assert self._pace is not None
        return self._pace.simulated_s(monotonic_s) if self._pace.runs else float(now_s)


def build_device_operator(scenario: Scenario) -> DeviceOperator:
    """Connect to the scenario's devices outside. Raises FederationError if no broker answers."""
    hardware, case, factor = scenario.hardware, built_case(scenario), scenario.federation.realtime
    assert hardware is not None
    assert factor is not None
    specs = device_specs(case.population, hardware.devices)
    parts = {
        f"cmo.{k}": outside_of(case.shard(k), hardware.devices) for k in range(scenario.federation.shards)
    }
    return DeviceOperator(
        DeviceDesk(specs, hardware.timeout_s * factor),
        MqttLink(hardware.broker, hardware.run or scenario.name, specs, tls=hardware.tls),
        {name: part.device for name, part in parts.items() if part is not None},
        silence=hardware.silence,
        end_s=scenario.end_s,
    )
