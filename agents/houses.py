"""The houses of a shard as arrays: what each could do next, what it does, and how that changes it; no loop over houses.

Arrays of all devices have one row a kind, in the order of KINDS, and one column a house.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voltier.agents.devices.device import LOAD_TAN_PHI, Moment, Response, Wish
from voltier.agents.devices.kinds import KEYS
from voltier.agents.population import Houses

Array = NDArray[np.float64]

State = Mapping[str, Array]
"""State of the devices of each kind, by its key: one number for each house that owns one."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What each house would inject, and how far the market may move it; powers are injections.

    device_kw : (kinds, n) wished injection of each device
    up_kw, down_kw : (kinds, n) how much more, how much less each could inject for the whole window
    q0_kvar, q_room_kvar : (n,) reactive injection without support, and the room of the inverters to both sides
    responses : the same by kind
    """

    device_kw: Array
    up_kw: Array
    down_kw: Array
    q0_kvar: Array
    q_room_kvar: Array
    responses: tuple[Response, ...]

    @property
    def p0_kw(self) -> Array:
        """Wished injection of each house."""
        return self.device_kw.sum(axis=0)


def at_rest(house: Houses, minute_of_day: int = 0) -> dict[str, Array]:
    """Return the state in which a run begins at a minute of the day."""
    return {device.key: device.rest(minute_of_day) for device in house.devices}


def make_offer(
    house: Houses, state: State, moment: Moment, wishes: Mapping[str, Wish], window_h: float
) -> Offer:
    """Follow the plan from the present state, and offer what can be held for window_h and made good ever after."""
    wished, up, down = np.zeros((3, len(KEYS), house.n))
    responses = []
    for row, device in enumerate(house.devices):
        response = device.offer(state[device.key], wishes[device.key], moment, window_h)
        wished[row, device.at] = response.p_kw
        up[row, device.at], down[row, device.at] = response.up_kw, response.down_kw
        responses.append(response)
    q0, room = reactive_kvar(house, wished)
    return Offer(wished, up, down, q0, room, tuple(responses))


def reactive_kvar(house: Houses, device_kw: Array) -> tuple[Array, Array]:
    """Return what the loads inject of themselves and the room of the inverters to both sides, (n,) [kvar] each."""
    q0, room = np.zeros((2, house.n))
    for row, device in enumerate(house.devices):
        if device.lags:
            q0 += LOAD_TAN_PHI * device_kw[row]
        else:
            room[device.at] += device.reactive_room_kvar(device_kw[row, device.at])
    return q0, room


def move_devices(offer: Offer, moved_kw: Array) -> Array:
    """Split each house's departure from its wish over its devices, in proportion to what each offered: (kinds, n)."""
    room = np.where(moved_kw >= 0.0, offer.up_kw, offer.down_kw)
    total = room.sum(axis=0)
    share = np.divide(room, total, out=np.zeros_like(room), where=total > 0.0)
    return offer.device_kw + share * moved_kw


def realise(house: Houses, offer: Offer, device_kw: Array, moment: Moment) -> Array:
    """Return what the minute really brings where devices were asked for device_kw: people and sun follow no bids."""
    real = np.zeros_like(device_kw)
    for row, (device, response) in enumerate(zip(house.devices, offer.responses, strict=True)):
        real[row, device.at] = device.realise(device_kw[row, device.at], response, moment)
    return real


def step_houses(house: Houses, state: State, moment: Moment, device_kw: Array) -> dict[str, Array]:
    """Return the state after a minute in which the devices inject device_kw, (kinds, n)."""
    return {
        device.key: device.step(state[device.key], device_kw[row, device.at], moment)
        for row, device in enumerate(house.devices)
    }


def device_columns(house: Houses, state: State, device_kw: Array, moment: Moment) -> dict[str, Array]:
    """Return the columns of the devices table, (n,) each; powers and energies of what a house lacks are zero.

    A temperature that a house lacks is nan.
    """
    columns = {f"{key}_kw": device_kw[row] for row, key in enumerate(KEYS)}
    for device in house.devices:
        for name, values in device.columns(state[device.key], moment).items():
            full = np.full(house.n, 0.0 if name.endswith("_kwh") else np.nan)
            full[device.at] = values
            columns[name] = full
    return columns
