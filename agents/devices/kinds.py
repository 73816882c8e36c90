"""All kinds of devices, in the order in which tables, arrays and draws have them."""

from __future__ import annotations

from voltier.agents.devices.base import Base
from voltier.agents.devices.battery import Battery
from voltier.agents.devices.block import FlexibleBlock
from voltier.agents.devices.deferrable import Deferrable
from voltier.agents.devices.device import Device
from voltier.agents.devices.ev import Car
from voltier.agents.devices.hvac import HeatPump
from voltier.agents.devices.pv import Pv
from voltier.agents.devices.water_heater import WaterHeater

# Base load and heat pumps are drawn from one stream, in this order.
KINDS: tuple[type[Device], ...] = (
    Base, HeatPump, WaterHeater, Pv, Battery, Car, Deferrable, FlexibleBlock,
)  # fmt: skip

KEYS = tuple(kind.key for kind in KINDS)
DEVICE_COLUMNS = (*(f"{key}_kw" for key in KEYS), *(name for kind in KINDS for name in kind.state_columns))
"""Columns of the devices table."""
