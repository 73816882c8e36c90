"""The section of a scenario about devices outside: real thermostats and inverters behind an MQTT broker."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from voltier.scenarios.schema_sections import Positive, Section


class HardwareDevice(Section):
    """A device outside; it takes the place of the house's simulated one."""

    house: Annotated[str, Field(min_length=1, description='name of the house, "house_0000" ...')]
    kind: Annotated[
        Literal["hvac", "battery"], Field(description="thermostat with heat pump, or battery with inverter")
    ] = "hvac"
    rated_kw: Annotated[
        Positive | None, Field(description="its rating [kW]; none: that of the device it stands for")
    ] = None


class HardwareSection(Section):
    """Where devices outside are reached, and what happens when they are not."""

    broker: Annotated[str, Field(pattern=r"^[^\s:/]+:\d+$", description="MQTT broker, host:port")]
    devices: Annotated[
        tuple[HardwareDevice, ...], Field(strict=False, min_length=1, description="one a house and kind")
    ]
    run: Annotated[
        str | None,
        Field(pattern=r"^[^\s/+#]+$", description="second level of all topics; none: the scenario's name"),
    ] = None
    timeout_s: Annotated[
        Positive, Field(description="wall time without a reading after which a device is silent [s]")
    ] = 120.0
    silence: Annotated[
        Literal["hold", "simulate", "abort"],
        Field(description="a silent device: keep its last reading, simulate it from there, or end the run"),
    ] = "hold"
    tls: Annotated[bool, Field(description="speak TLS with the broker")] = False

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        seen = [(device.house, device.kind) for device in self.devices]
        for pair in seen:
            if seen.count(pair) > 1:
                raise ValueError(f"{pair[0]} has two devices of the kind {pair[1]}; give one")
        return self
