"""The reference day, with cars and all other devices: whatever the market asks, nobody is cold or stranded."""

import numpy as np
import pytest

from voltier.agents.devices.battery import SOC_MAX, SOC_MIN, Battery
from voltier.agents.devices.block import FlexibleBlock
from voltier.agents.devices.deferrable import Deferrable
from voltier.agents.devices.hvac import HeatPump
from voltier.agents.devices.water_heater import MAX_C, MIN_C
from voltier.federates.local import run_local
from voltier.scenarios.build import build_operator, market_clock, operator_names, population_of
from voltier.scenarios.schema import load_scenario

NEAR = 1e-9  # rounding of a day of sums


def day(design):
    """Return the scenario and the consumer and devices tables of its day: columns (n_record, n_house)."""
    scenario = load_scenario(
        "ieee123-day",
        [
            f"design={design}",
            "fleet.evs=250",
            "fleet.v2g_share=0.3",
            "fleet.flexible_blocks=5",
            # What the primary market certifies of itself, and how often it clears, is not looked at here.
            "primary.relaxation_bound=false",
            "primary.period_s=900",
            "recording.settlement_period_s=900",
        ],
    )
    rows = {"consumer": [], "devices": []}
    run_local(
        [build_operator(scenario, name) for name in operator_names(scenario)],
        market_clock(scenario),
        lambda row: rows[row.table].append(row.columns) if row.table in rows else None,
        lambda now_s: None,
    )
    tables = [{name: np.array([row[name] for row in part]) for name in part[0]} for part in rows.values()]
    return scenario, *tables


@pytest.mark.parametrize("design", ["hierarchical", "primary_only"])
def test_everybody_is_comfortable_all_day(design):
    scenario, consumer, devices = day(design)
    house = population_of(scenario).house
    called = np.abs(consumer["p_kw"] - consumer["p0_kw"]).sum(axis=1)
    assert (called.max() > 100.0) == (design == "hierarchical")
    room = house.kind(HeatPump)
    assert (devices["temp_indoor_c"] >= room.min_c).all()
    assert (devices["temp_indoor_c"] <= room.max_c).all()
    assert np.nanmin(devices["temp_water_c"]) >= MIN_C
    assert np.nanmax(devices["temp_water_c"]) <= MAX_C
    size = house.spread(Battery, "capacity_kwh")
    assert (devices["battery_kwh"] >= SOC_MIN * size - NEAR).all()
    assert (devices["battery_kwh"] <= SOC_MAX * size + NEAR).all()
    assert devices["ev_missing_kwh"].max() <= NEAR
    assert (devices["ev_kw"] < -1.0).any()  # so there were cars to charge
    assert (devices["block_queue_kwh"] <= house.spread(FlexibleBlock, "queue_kwh") + NEAR).all()
    load = house.kind(Deferrable)
    end_min = (
        5 * np.arange(len(devices["base_kw"])) + 1
    ) % 1440  # a record holds what its minute left behind
    since = (end_min[:, None] - load.deadline_min) % 1440
    idle = since < (load.release_min - load.deadline_min) % 1440  # between deadline and the next release
    assert idle.any()
    assert devices["deferrable_kwh"][:, load.at][idle].max() <= NEAR
