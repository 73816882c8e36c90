"""PV with a smart inverter: power factor 0.8 to 1, and it can throttle at a cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from voltier.agents.devices.device import Array, Device, Moment, Outlook, Response, Wish, idle_rows
from voltier.agents.devices.fleet import Fleet
from voltier.agents.devices.inverter import reactive_room_kvar
from voltier.market.planning.household import DeviceRows

SPILL_USD_PER_KW2H = 0.01
"""Cost of sun not used, squared: at 5 kW the first kW not used costs nothing, the last 0.1 $/kWh."""


@dataclass(frozen=True, slots=True)
class Pv(Device):
    """PV units. rated_kva : rating of panel and inverter."""

    key: ClassVar[str] = "pv"

    rated_kva: Array

    @classmethod
    def draw(cls, fleet: Fleet) -> Self:
        """Draw houses at the nodes with PV, and ratings that sum to the fleet's."""
        spec = fleet.spec
        nodes, _ = fleet.dg_nodes()
        at = fleet.hosts(spec.pv_units, nodes, "pv", "pv_units")
        return cls(at=at, rated_kva=_sizes(spec.pv_units, spec.pv_kva, fleet.stream("pv sizes")))

    def counted_kw(self, outlook: Outlook) -> Array:
        """Return the sun's power: what storage in the house is to take up."""
        return np.asarray(self.rated_kva[:, None] * outlook.pv_available[None, :])

    def rows(self, x: Array, outlook: Outlook) -> DeviceRows:
        """Use the sun, or where consumption is paid spill some."""
        return replace(
            idle_rows(x, len(outlook.pv_available)),
            g_max_kw=self.counted_kw(outlook),
            w_spill_usd_per_kw2h=np.full(len(x), SPILL_USD_PER_KW2H),
        )

    def offer(self, x: Array, wish: Wish, moment: Moment, window_h: float) -> Response:
        """Expect the sun of the minute known and offer to throttle all of it, so that the market pays for spilling.

        A wish that had spilt already would be the next baseline, for which nobody pays.
        """
        sun_kw = moment.pv_available * self.rated_kva
        return Response(sun_kw, np.zeros(len(x)), sun_kw)

    def realise(self, p_kw: Array, response: Response, moment: Moment) -> Array:
        """Throttle by as much as was asked, at most to nothing, whatever the sun turns out to be."""
        return np.maximum(moment.pv_available * self.rated_kva - (response.p_kw - p_kw), 0.0)

    def reactive_room_kvar(self, p_kw: Array) -> Array:
        """Return the inverter's room."""
        return reactive_room_kvar(p_kw, self.rated_kva)


def _sizes(n: int, total: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw n ratings of 2 to 10 kVA, most of them small, that sum exactly to the total."""
    if n == 0:
        return np.zeros(0)
    draw = 2.0 + 8.0 * rng.beta(1.2, 3.0, n)
    return draw * total / draw.sum()
