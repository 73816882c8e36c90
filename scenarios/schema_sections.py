"""The sections of a scenario: what may be set, in which unit, within which bounds.

Every model is frozen and refuses unknown keys; every field says its unit in its name or its description.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Design = Literal["hierarchical", "primary_only", "no_market"]
Policy = Literal["hold", "relax", "abort"]
Engine = Literal["opendss", "gridlabd", "pandapower-balanced", "pandapower-three-phase", "power-grid-model"]

MINUTE_S = 60


def _bus_name(value: Any) -> Any:
    """Take a bare number for a bus name: 47 in YAML means the bus "47"."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Bus = Annotated[str, BeforeValidator(_bus_name, json_schema_input_type=str | int), Field(min_length=1)]
Buses = Annotated[tuple[Bus, ...], Field(strict=False)]
PeriodS = Annotated[int, Field(gt=0, multiple_of=MINUTE_S)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
ClockTime = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class Section(BaseModel):
    """Base of all sections: frozen, strict about types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FeederSection(Section):
    """The distribution feeder and the engine that judges its three-phase state."""

    name: Annotated[
        str, Field(description='"ieee123", or a folder of feeder tables (relative to the scenario)')
    ] = "ieee123"
    engine: Annotated[Engine, Field(description="three-phase power flow that checks every dispatch")] = (
        "opendss"
    )
    regulators: Annotated[
        Literal["controlled", "published", "neutral"],
        Field(description="tap changers: line-drop control, published positions, or all at zero"),
    ] = "controlled"
    lateral_impedance: Annotated[
        Literal["true_drop", "self"],
        Field(
            description="single-phase laterals in the balanced model: three times the self impedance, or once"
        ),
    ] = "true_drop"
    v_min_pu: Annotated[Positive, Field(description="lower voltage limit [pu]")] = 0.95
    v_max_pu: Annotated[Positive, Field(description="upper voltage limit [pu]")] = 1.05
    primary_v_margin_pu: Annotated[
        float,
        Field(
            ge=0.0,
            lt=0.05,
            description="distance the primary market keeps from both limits, for unbalance [pu]",
        ),
    ] = 0.0

    @model_validator(mode="after")
    def _limits_in_order(self) -> Self:
        if self.v_max_pu - self.v_min_pu <= 2.0 * self.primary_v_margin_pu:
            raise ValueError("v_min_pu + primary_v_margin_pu must lie below v_max_pu - primary_v_margin_pu")
        return self


class FleetSection(Section):
    """How many houses and devices there are; one seed places them."""

    houses: Annotated[int, Field(gt=0, description="houses, each with heating and cooling")] = 1008
    water_heaters: Annotated[Count, Field(description="houses with an electric water heater")] = 348
    pv_units: Annotated[Count, Field(description="houses with PV")] = 207
    pv_kva: Annotated[NotNegative, Field(description="PV rating of all units together [kVA]")] = 880.84
    pv_nodes: Annotated[Count, Field(description="load buses with PV")] = 68
    batteries: Annotated[Count, Field(description="houses with a battery")] = 173
    battery_kva: Annotated[Positive, Field(description="rating of each battery [kVA]")] = 5.0
    battery_kwh: Annotated[Positive, Field(description="capacity of each battery [kWh]")] = 13.5
    battery_nodes: Annotated[Count, Field(description="load buses with a battery")] = 63
    dg_nodes: Annotated[Count, Field(description="load buses with PV or a battery")] = 82
    evs: Annotated[Count, Field(description="houses with an electric vehicle")] = 0
    v2g_share: Annotated[Share, Field(description="share of the vehicles that may also discharge")] = 0.0
    deferrables: Annotated[
        Count,
        Field(description="houses with a washing machine or dishwasher that may wait, beside the base load"),
    ] = 300
    flexible_blocks: Annotated[Count, Field(description="small data centres that may queue some work")] = 0
    flexible_block_kw: Annotated[Positive, Field(description="most that such a site consumes [kW]")] = 20.0
    hvac_kw_min: Annotated[
        Positive, Field(description="electric rating of heating and cooling, at least [kW]")
    ] = 2.0
    hvac_kw_max: Annotated[Positive, Field(description="the same, at most [kW]")] = 5.0
    ev_kw_min: Annotated[Positive, Field(description="rating of a vehicle's charger, at least [kW]")] = 2.0
    ev_kw_max: Annotated[Positive, Field(description="the same, at most [kW]")] = 10.0
    sma_min: Annotated[int, Field(gt=0, description="secondary market agents at each operator, at least")] = 3
    houses_per_sma: Annotated[
        int, Field(gt=0, description="houses that one secondary agent gathers, about")
    ] = 3
    reliable_share: Annotated[Share, Field(description="share of agents that keep their commitments")] = 0.6
    average_share: Annotated[Share, Field(description="share of agents that mostly keep them")] = 0.25
    unreliable_share: Annotated[Share, Field(description="share of agents that often do not")] = 0.15

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        for name in ("water_heaters", "pv_units", "batteries", "evs", "deferrables", "flexible_blocks"):
            if getattr(self, name) > self.houses:
                raise ValueError(f"{name} = {getattr(self, name)} is more than houses = {self.houses}")
        for name in ("hvac_kw", "ev_kw"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if low > high:
                raise ValueError(f"{name}_min = {low:g} is more than {name}_max = {high:g}")
        for units, nodes in (("pv_units", "pv_nodes"), ("batteries", "battery_nodes")):
            if getattr(self, nodes) > getattr(self, units):
                raise ValueError(
                    f"{nodes} = {getattr(self, nodes)} is more than {units} = {getattr(self, units)}"
                )
        if not max(self.pv_nodes, self.battery_nodes) <= self.dg_nodes <= self.pv_nodes + self.battery_nodes:
            raise ValueError(
                "dg_nodes must lie between the larger of pv_nodes and battery_nodes and their sum"
            )
        if (self.pv_units == 0) != (self.pv_kva == 0.0):
            raise ValueError("pv_units and pv_kva must both be zero or both be positive")
        shares = self.reliable_share + self.average_share + self.unreliable_share
        if abs(shares - 1.0) > 1e-9:
            raise ValueError(f"reliable_share, average_share and unreliable_share sum to {shares:g}, not 1")
        return self


class Generator(Section):
    """A generator of a primary-level agent; its cost is quadratic, ½ price/p_max · P²."""

    bus: Annotated[Bus, Field(description="load bus of the feeder, one generator a bus")]
    p_max_kw: Annotated[Positive, Field(description="rated power [kW]")]
    price_usd_per_kwh: Annotated[Positive, Field(description="marginal cost at rated power [$/kWh]")]


class WholesaleSection(Section):
    """The bulk grid as the feeder meets it."""

    import_slope_usd_per_kwh_per_mw: Annotated[
        NotNegative, Field(description="rise of the import price with each MW imported [$/kWh per MW]")
    ] = 0.056
    retail_usd_per_kwh: Annotated[
        Positive, Field(description="flat tariff where there is no market [$/kWh]")
    ] = 0.129


class SecondarySection(Section):
    """The secondary markets: one at each load bus."""

    period_s: Annotated[
        Literal[60], Field(description="time between clearings [s]; one minute of the market clock")
    ] = 60
    epsilon: Annotated[
        float,
        Field(ge=0.0, le=1.0, description="slack left on a finished objective, as a share of its optimum"),
    ] = 0.05
    flexibility_usd_per_kwh: Annotated[NotNegative, Field(description="pay for energy moved [$/kWh]")] = 0.05
    reserve_usd_per_kwh: Annotated[
        NotNegative, Field(description="pay for flexibility kept ready [$/kWh]")
    ] = 0.01
    cap_usd_per_kwh: Annotated[Positive, Field(description="highest tariff [$/kWh]")] = 0.258
    smoothing: Annotated[NotNegative, Field(description="pull towards the last tariff, against the dLMP")] = (
        0.1
    )
    penalty_usd_per_kwh: Annotated[
        NotNegative, Field(description="charge for broken commitments [$/kWh]")
    ] = 0.129
    policy: Annotated[Policy, Field(description="what to do when a clearing fails")] = "relax"


class ForecastErrorSection(Section):
    """Standard deviation of what houses plan by, a day ahead; it grows with the square root of the time ahead.

    Zero everywhere is perfect foresight of weather and price, which the published figures have. Realistic: 1.5 degC,
    0.2 and 0.1.
    """

    temp_air_c: Annotated[NotNegative, Field(description="of the air temperature, added [C]")] = 0.0
    pv_share: Annotated[NotNegative, Field(description="of PV output, as a share of it")] = 0.0
    price_share: Annotated[NotNegative, Field(description="of the wholesale price, as a share of it")] = 0.0


class ConsumerSection(Section):
    """The consumer markets: houses that plan ahead, and the game between them."""

    period_s: Annotated[PeriodS, Field(description="time between plans [s]")] = 3600
    step_s: Annotated[PeriodS, Field(description="step of a plan [s]")] = 3600
    horizon_h: Annotated[int, Field(gt=0, le=72, description="reach of a plan [h]")] = 24
    flexibility_window_s: Annotated[
        PeriodS, Field(description="time over which a device must be able to hold the power it offers [s]")
    ] = 300
    forecast_error: Annotated[
        ForecastErrorSection, Field(description="errors of weather and price forecasts")
    ] = ForecastErrorSection()
    market: Annotated[
        bool,
        Field(
            description="share schedules among houses by the consumer market's game; "
            "without, in proportion to what they offer, at the tariff of their agent"
        ),
    ] = True
    prices: Annotated[
        Literal["common", "individual"],
        Field(
            description="prices of the game: one pair for all houses of a market, or a pair for each house, by which "
            "nobody subsidises another"
        ),
    ] = "common"
    outside_market: Annotated[
        Literal["set_temperature", "retail_tariff"],
        Field(
            description="how houses plan in designs without a local market: "
            "they hold the wanted temperature, or save on the bill at the flat retail tariff"
        ),
    ] = "set_temperature"


class ScoresSection(Section):
    """Commitment, trust and resilience scores, all in [0, 1]."""

    commitment_rate: Annotated[
        Share, Field(description="weight of the latest minute in the commitment score")
    ] = 0.05
    commitment_scale: Annotated[
        Positive, Field(description="relative deviation that lowers a minute's mark to exp(-1)")
    ] = 0.2
    trust_forgetting: Annotated[
        Share, Field(description="what is left of the evidence after each minute")
    ] = 0.98
    commitment_weight: Annotated[Share, Field(description="weight of commitment, against trust")] = 0.5
    commitment_start: Annotated[Share, Field(description="commitment score at the start")] = 1.0


class ResilienceSection(Section):
    """The resilience manager: it watches the import and has the market restore it."""

    enabled: Annotated[bool, Field(description="watch the substation")] = True
    sigmas: Annotated[
        Positive, Field(description="alarm threshold, in standard deviations of the residual")
    ] = 4.0
    load_share: Annotated[
        Share,
        Field(
            description="alarm threshold at least, as a share of the feeder's load net of PV. The usual 1 % lies below "
            "what a thousand houses leave unforeseen from minute to minute (20 kW of 1 to 2 MW, one sigma): a summer "
            "day had up to five false alarms with it, none with 2 % or more; the smallest shipped attack takes 11 %. "
            "primary_only foresees less (30 kW) and may have one a day at 5 %, which its market does not act on"
        ),
    ] = 0.05
    consecutive: Annotated[int, Field(gt=0, description="minutes above the threshold that make an alarm")] = 2
    warm_up_min: Annotated[
        int, Field(gt=0, description="minutes of learning before the first alarm [min]")
    ] = 30
    mitigate: Annotated[bool, Field(description="re-weight the primary market while an alarm lasts")] = True
    stop_share: Annotated[
        Positive,
        Field(
            lt=1.0,
            description="import error, as a share of the import to go back to, at which an answer to an alarm is "
            "no longer corrected; above it each answer takes up half of the error that the last one left",
        ),
    ] = 0.005


class AttackSection(Section):
    """An attack that takes the generators at some buses to zero output."""

    kind: Annotated[Literal["generators"], Field(description="what is attacked")] = "generators"
    buses: Annotated[Buses, Field(min_length=1, description="buses whose generators are attacked")]
    start: Annotated[ClockTime | None, Field(description='wall-clock time of its start, "HH:MM"')] = None
    end: Annotated[ClockTime | None, Field(description='wall-clock time of its end, "HH:MM"')] = None
    start_s: Annotated[PeriodS | None, Field(description="or its start in simulated seconds [s]")] = None
    end_s: Annotated[
        PeriodS | None,
        Field(description="or its end in simulated seconds [s]; none: it lasts to the end of the run"),
    ] = None

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if (self.start is None) == (self.start_s is None):
            raise ValueError('give the start once: start: "HH:MM", or start_s: seconds')
        if self.end is not None and self.end_s is not None:
            raise ValueError('give the end once: end: "HH:MM", or end_s: seconds')
        return self


class IotSection(Section):
    """The network between devices and operators."""

    latency_ms: Annotated[NotNegative, Field(description="mean delay of a packet [ms]")] = 50.0
    loss: Annotated[Share, Field(description="share of packets lost")] = 0.01
    compromised_buses: Annotated[
        Buses, Field(description="load buses whose devices send forged traffic")
    ] = ()


class FederationSection(Section):
    """How the operators are spread over processes; it does not change any result."""

    shards: Annotated[int, Field(gt=0, description="processes that share the secondary operators")] = 1
    timeout_s: Annotated[
        Positive, Field(description="wall time after which a silent federate is given up [s]")
    ] = 120.0
    realtime: Annotated[
        Positive | None,
        Field(
            description="simulated seconds in a second of the wall clock: 1 is real time, 60 a minute a second; "
            "none: as fast as it goes"
        ),
    ] = None
    lag_budget_ms: Annotated[
        Positive, Field(description="how late an operator may act in a paced run before it is an event [ms]")
    ] = 100.0


class RecordingSection(Section):
    """What is written down, and how often."""

    consumer_period_s: Annotated[PeriodS, Field(description="between records of houses and devices [s]")] = (
        300
    )
    settlement_period_s: Annotated[PeriodS, Field(description="between settlements [s]")] = 300
    commit_period_s: Annotated[PeriodS, Field(description="between commits of the tables to disk [s]")] = 1800


class CrosscheckSection(Section):
    """How far `voltier crosscheck` lets another power-flow engine be from the run; beyond, it ends with a code."""

    v_pu: Annotated[
        Positive, Field(description="largest difference of voltage magnitude at any node and minute [pu]")
    ] = 1e-3
    sequence_v_pu: Annotated[
        Positive,
        Field(description="the same for engines that take every line for a transposed one (pandapower) [pu]"),
    ] = 1e-2
    loss_percent: Annotated[
        Positive, Field(description="difference of the energy lost, in per cent of the run's [%]")
    ] = 1.0
    import_percent: Annotated[
        Positive,
        Field(description="largest difference of import in any minute, in per cent of the run's peak [%]"),
    ] = 0.5


class InputsSection(Section):
    """Data files and the site they are about; none stands for the packaged file."""

    weather_csv: Annotated[
        str | None,
        Field(
            description="hourly year: month, day, hour_ending, dni_w_m2, dhi_w_m2, temp_air_c, wind_speed_m_s"
        ),
    ] = None
    price_csv: Annotated[
        str | None, Field(description="hourly prices: year, month, day, hour_ending, price_usd_per_mwh")
    ] = None
    load_profiles_csv: Annotated[
        str | None, Field(description="one day of minutes: minute, then one column of kW for each house")
    ] = None
    ev_sessions_csv: Annotated[
        str | None,
        Field(description="stays of cars at home: arrival_minute (of the day), parked_minutes"),
    ] = None
    latitude_deg: Annotated[float, Field(ge=-90, le=90, description="north of the equator [deg]")] = 37.62
    longitude_deg: Annotated[float, Field(ge=-180, le=180, description="east of Greenwich [deg]")] = -122.38
    utc_offset_h: Annotated[
        float, Field(ge=-12, le=14, description="standard time of the files, from UTC [h]")
    ] = -8.0
    pv_tilt_deg: Annotated[float, Field(ge=0, le=90, description="tilt of the PV modules [deg]")] = 20.0
    pv_azimuth_deg: Annotated[
        float, Field(ge=0, le=360, description="where they face; 180 is south [deg]")
    ] = 180.0
    pv_loss: Annotated[Share, Field(description="losses between module and meter")] = 0.14
