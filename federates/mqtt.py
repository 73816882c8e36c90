"""Topics and connection of devices outside: an MQTT client that gathers what they say and tells them what to do."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from voltier.agents.hardware import DeviceSpec
from voltier.grid.errors import FederationError, InputError, Problem

_CONNECT_S = 10.0
_KEEPALIVE_S = 15
_RECONNECT_S = 5
_QOS = 1
USER_VARIABLE, PASSWORD_VARIABLE = "VOLTIER_MQTT_USER", "VOLTIER_MQTT_PASSWORD"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a device said. device : position ; at_s : reading of time.monotonic() ; retained : kept by the broker."""

    device: int
    payload: bytes
    at_s: float
    retained: bool


def topic(run: str, spec: DeviceSpec, end: str) -> str:
    """Return the topic of a device's set-points (end "set") or measurements (end "state")."""
    return f"voltier/{run}/{spec.house}/{spec.kind}/{end}"


def require_mqtt() -> None:
    """Raise InputError if the MQTT client library is not installed."""
    try:
        import paho.mqtt.client  # noqa: F401
    except ImportError as error:
        remedy = "install the client library: pip install 'voltier[mqtt]'"
        raise InputError([Problem("scenario", "hardware", "set", remedy)]) from error


class MqttLink:
    """A connection to a broker. broker : "host:port".

    Raises FederationError if no broker answers. A broker that is lost later is connected to again, and until then all
    devices are silent. User and password come from the environment, VOLTIER_MQTT_USER and VOLTIER_MQTT_PASSWORD.
    """

    def __init__(self, broker: str, run: str, specs: Sequence[DeviceSpec], *, tls: bool = False) -> None:
        from paho.mqtt import client as mqtt

        self._broker, self._run, self._specs = broker, run, tuple(specs)
        self._device = {topic(run, spec, "state"): i for i, spec in enumerate(self._specs)}
        self._lock, self._heard = threading.Lock(), list[Heard]()
        self._answered, self._refusal = threading.Event(), ""
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(1, _RECONNECT_S)
        if USER_VARIABLE in os.environ:
            self._client.username_pw_set(os.environ[USER_VARIABLE], os.environ.get(PASSWORD_VARIABLE))
        if tls:
            self._client.tls_set(cert_reqs=ssl.CERT_REQUIRED)
        self._client.on_connect, self._client.on_message = self._on_connect, self._on_message
        self._connect()

    def take(self) -> list[Heard]:
        """Return and forget what was heard, in the order of arrival."""
        with self._lock:
            heard, self._heard = self._heard, []
        return heard

    def tell(self, device: int, payload: bytes) -> None:
        """Send a set-point; while the broker is away it waits."""
        self._client.publish(topic(self._run, self._specs[device], "set"), payload, qos=_QOS)

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def _connect(self) -> None:
        host, _, port = self._broker.rpartition(":")
        try:
            self._client.connect(host, int(port), _KEEPALIVE_S)
        except OSError as error:
            reason = error.strerror or str(error)
            raise FederationError(
                f"no MQTT broker answers at {self._broker} (hardware.broker): {reason}; start one, "
                "such as `mosquitto -p 1883`, or name yours"
            ) from error
        self._client.loop_start()
        if not self._answered.wait(_CONNECT_S) or self._refusal:
            self.close()
            reason = self._refusal or f"no answer within {_CONNECT_S:g} s"
            raise FederationError(
                f"the MQTT broker at {self._broker} (hardware.broker) lets nobody in: {reason}"
            )

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        """Subscribe, at every connection anew."""
        if reason.is_failure:
            self._refusal = str(reason)
        else:
            client.subscribe([(name, _QOS) for name in self._device])
        self._answered.set()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        heard = Heard(self._device[message.topic], message.payload, time.monotonic(), bool(message.retain))
        with self._lock:
            self._heard.append(heard)
