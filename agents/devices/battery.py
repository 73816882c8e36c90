"""Battery: energy in, energy out, losses both ways.

E' = E + eta_c c dt - g dt / eta_d, with c >= 0 charging and g >= 0 discharging at the grid side; one efficiency for
each direction, so that a round trip keeps eta_c eta_d of the energy (a single efficiency for both would lose nothing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from voltier.agents.devices.device import (
    MINUTE_H,
    Array,
    Device,
    Moment,
    Outlook,
    Response,
    Wish,
    idle_rows,
    over_steps,
)
from voltier.agents.devices.fleet import Fleet
from voltier.agents.devices.inverter import reactive_room_kvar
from voltier.market.planning.household import DeviceRows

ETA_CHARGE, ETA_DISCHARGE = 0.95, 0.95
SOC_MIN, SOC_MAX = 0.1, 0.95
SOC_START = 0.5
LET_GO_SHARE = 0.3
"""Share of a battery's rating that its owner lets the market move (upper end of the published range)."""
EMPTY_USD_PER_KWH = 1.0
"""Penalty of energy outside a battery's limits."""
CYCLE_USD_PER_KW2 = 1e-3
"""Cost of changing power between two steps, squared."""
END_USD_PER_KWH2 = 0.02
"""Pull towards the same energy at the end of the horizon as at the start of the day."""


def step_energy(energy_kwh: Array, p_kw: Array, dt_h: float) -> Array:
    """Return the stored energy after dt_h at injection p_kw (discharge positive)."""
    charge = np.maximum(-p_kw, 0.0) * ETA_CHARGE
    discharge = np.maximum(p_kw, 0.0) / ETA_DISCHARGE
    return energy_kwh + (charge - discharge) * dt_h


def power_band_kw(
    energy_kwh: Array, least_kwh: Array, most_kwh: Array, rated_kw: Array, window_h: Array | float
) -> tuple[Array, Array]:
    """Return the least and most injection over window_h after which the energy lies within its limits.

    Beyond a limit both are what leads back to it, as fast as the rating allows.
    """
    room, stock = most_kwh - energy_kwh, energy_kwh - least_kwh
    least = np.where(room >= 0.0, -room / ETA_CHARGE, -room * ETA_DISCHARGE) / window_h
    most = np.where(stock >= 0.0, stock * ETA_DISCHARGE, stock / ETA_CHARGE) / window_h
    return np.clip(least, -rated_kw, rated_kw), np.clip(most, -rated_kw, rated_kw)


def storage_rows(
    x: Array, charge_kw: Array, discharge_kw: Array, capacity_kwh: Array, dt_h: float
) -> DeviceRows:
    """Return the rows of batteries of any kind; charge_kw, discharge_kw : (n, H) ratings."""
    n, steps = charge_kw.shape
    return replace(
        idle_rows(x, steps),
        gain_c=np.full((n, steps), ETA_CHARGE * dt_h),
        gain_g=np.full(n, dt_h / ETA_DISCHARGE),
        c_max_kw=charge_kw,
        g_max_kw=discharge_kw,
        x_min=over_steps(SOC_MIN * capacity_kwh, steps),
        x_max=over_steps(SOC_MAX * capacity_kwh, steps),
        penalty=np.full(n, EMPTY_USD_PER_KWH),
        w_ramp_usd_per_kw2=np.full(n, CYCLE_USD_PER_KW2),
        shares_meter=np.ones(n, dtype=np.bool_),
    )


@dataclass(frozen=True, slots=True)
class Battery(Device):
    """Stationary batteries; state: stored energy [kWh]. rated_kw : of the inverter ; capacity_kwh."""

    key: ClassVar[str] = "battery"
    state_columns: ClassVar[tuple[str, ...]] = ("battery_kwh",)

    rated_kw: Array
    capacity_kwh: Array

    @classmethod
    def draw(cls, fleet: Fleet) -> Self:
        """Draw houses at the nodes with batteries; all batteries are alike."""
        spec = fleet.spec
        _, nodes = fleet.dg_nodes()
        return cls(
            at=fleet.hosts(spec.batteries, nodes, "batteries", "batteries"),
            rated_kw=np.full(spec.batteries, spec.battery_kva),
            capacity_kwh=np.full(spec.batteries, spec.battery_kwh),
        )

    def rest(self, minute_of_day: int) -> Array:
        """Return half-full batteries."""
        return SOC_START * self.capacity_kwh

    def rows(self, x: Array, outlook: Outlook) -> DeviceRows:
        """Trade within the limits of energy, and come back to the day's start."""
        steps = len(outlook.hour_of_day)
        rated, pull = over_steps(self.rated_kw, steps), np.zeros((len(x), steps))
        pull[:, -1] = END_USD_PER_KWH2
        rows = storage_rows(x, rated, rated, self.capacity_kwh, outlook.step_h)
        return replace(rows, target=over_steps(SOC_START * self.capacity_kwh, steps), w_state=pull)

    def offer(self, x: Array, wish: Wish, moment: Moment, window_h: float) -> Response:
        """Follow the plan; offer what the stored energy and its room can carry through the window."""
        limits = SOC_MIN * self.capacity_kwh, SOC_MAX * self.capacity_kwh
        least, most = power_band_kw(x, *limits, self.rated_kw, window_h)
        p_kw, share_kw = np.clip(wish.p_kw, least, most), LET_GO_SHARE * self.rated_kw
        return Response(p_kw, np.minimum(most - p_kw, share_kw), np.minimum(p_kw - least, share_kw))

    def step(self, x: Array, p_kw: Array, moment: Moment) -> Array:
        """Store what is charged, give what is discharged."""
        return step_energy(x, p_kw, MINUTE_H)

    def reactive_room_kvar(self, p_kw: Array) -> Array:
        """Return the inverter's room."""
        return reactive_room_kvar(p_kw, self.rated_kw)

    def columns(self, x: Array, moment: Moment) -> Mapping[str, Array]:
        """Return the stored energy."""
        return {"battery_kwh": x}
