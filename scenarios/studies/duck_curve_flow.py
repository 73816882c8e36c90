"""AC check of a dispatch by OpenDSS, hour by hour, with regulators that follow their relays or stay where told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import NotConvergedError
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.regulators import initial_taps, next_taps
from voltier.scenarios.studies.duck_curve_case import HOURS, DuckCase, spread

Array = NDArray[np.float64]
Index = NDArray[np.int64]

TAP_PASSES = 50


@dataclass(frozen=True, slots=True)
class DayFlow:
    """Power flows of a day.

    head_kw, loss_kw : (T,) import and losses ; v_pu : (T, n_bus, 3) magnitudes, nan where absent ; tap : (T, n_reg)
    """

    head_kw: Array
    loss_kw: Array
    v_pu: Array
    tap: Index


def day_flow(
    case: DuckCase, p_kw: Array, q_kvar: Array, battery_kw: Array, tap: Index | None = None
) -> DayFlow:
    """Solve every hour; p_kw, q_kvar : (T, n) injections of the buses with load, battery_kw : (T, k).

    tap : (T, n_reg); None lets regulators follow their relays from the hour before, and the first hour from the last.
    Raises NotConvergedError where there is no power flow or the taps do not settle.
    """
    engine, feeder = OpenDssFlow(case.feeder), case.feeder
    taps = np.zeros((HOURS, len(feeder.regulators.name)), dtype=np.int64)
    head, loss, volts = np.zeros(HOURS), np.zeros(HOURS), np.zeros((HOURS, len(feeder.bus), 3))
    now = initial_taps(feeder)
    # A second day begins where the first one ended.
    for hour in range(HOURS if tap is not None else 2 * HOURS):
        t = hour % HOURS
        p, q = spread(case, p_kw[t]), spread(case, q_kvar[t])
        np.add.at(p, case.battery_bus, battery_kw[t][:, None] / 3.0)
        now = now if tap is None else tap[t]
        for _ in range(TAP_PASSES):
            flow = engine.solve(p, q, now)
            wanted = now if tap is not None else next_taps(feeder, flow, now)
            if np.array_equal(wanted, now):
                break
            now = wanted
        else:
            raise NotConvergedError(f"regulators do not settle in hour {t} after {TAP_PASSES} moves")
        taps[t], head[t], loss[t], volts[t] = now, -flow.p_cc_kw.sum(), flow.loss_kw, np.abs(flow.v_pu)
    return DayFlow(head, loss, volts, taps)
