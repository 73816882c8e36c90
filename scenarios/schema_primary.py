"""The sections about the primary market: what is cleared, by whom, and what the areas' mail goes through."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from voltier.scenarios.schema_sections import (
    MINUTE_S,
    Count,
    NotNegative,
    PeriodS,
    Policy,
    Section,
    Share,
)

Formulation = Literal["branch_flow", "current_injection"]
Solver = Literal["central", "pac", "nst-pac", "admm"]


# Beyond, one part of the objective drowns the others in rounding.
Weight = Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)]


class WeightsSection(Section):
    """What the three-phase market's objective is made of; the ratios to generation count. The defaults: plain cost."""

    disutility: Annotated[Weight, Field(description="weight of leaving the forecasts")] = 1.0
    generation: Annotated[
        float, Field(ge=1e-6, le=1e6, allow_inf_nan=False, description="weight of generation and import")
    ] = 1.0
    loss: Annotated[Weight, Field(description="weight of losses at primary.loss_usd_per_kwh")] = 1.0
    voltage_usd_per_pu2h: Annotated[
        Weight,
        Field(description="price of each phase node's squared distance to v_target_pu [$/h per pu²]"),
    ] = 0.0
    v_target_pu: Annotated[
        float, Field(ge=0.8, le=1.2, description="voltage aimed at; below 1 saves energy [pu]")
    ] = 1.0


class ChannelSection(Section):
    """What mail between areas suffers on its way, by HELICS filters.

    Losses and delays change no result, only how long it takes; an area that is cut off makes clearings fail.
    """

    loss: Annotated[Share, Field(lt=1.0, description="share of packets that are lost")] = 0.0
    delay_slots: Annotated[
        int,
        Field(ge=0, le=10, description="slots that each packet is late; a slot is one exchange of packets"),
    ] = 0
    jitter_slots: Annotated[
        int,
        Field(
            ge=0,
            le=10,
            description="slots that a packet is late beyond, at most: packets overtake each other",
        ),
    ] = 0

    cut_areas: Annotated[
        tuple[Count, ...],
        Field(strict=False, description="numbers of areas of whose mail nothing arrives for a time"),
    ] = ()
    cut_start_s: Annotated[
        int, Field(ge=0, multiple_of=MINUTE_S, description="when that begins, in simulated seconds [s]")
    ] = 0
    cut_end_s: Annotated[
        PeriodS | None, Field(description="when it ends, in simulated seconds [s]; none: never")
    ] = None


class PrimarySection(Section):
    """The primary market: the feeder's optimal power flow, and who computes it."""

    formulation: Annotated[
        Formulation,
        Field(
            description="branch_flow: the balanced equivalent of the feeder, one price a bus; "
            "current_injection: every phase of every bus, a price each"
        ),
    ] = "branch_flow"
    weights: Annotated[
        WeightsSection, Field(description="the objective's parts, with current_injection only")
    ] = WeightsSection()
    solver: Annotated[
        Solver,
        Field(
            description="central: one program that sees every bid; pac, nst-pac, admm: parts of the feeder that "
            "exchange what they share at their borders until they agree"
        ),
    ] = "central"
    transport: Annotated[
        Literal["local", "federated"],
        Field(
            description="where a distributed solver runs: local: all parts within the primary operator; federated: "
            "every area a federate, to which alone its secondary operators bid"
        ),
    ] = "local"
    atoms: Annotated[
        Literal["node", "lateral", "area"],
        Field(description="the parts of a local distributed solver; federated parts are areas"),
    ] = "node"
    areas: Annotated[int, Field(ge=2, le=64, description="areas, about; each connected and of like size")] = 8
    channel: Annotated[
        ChannelSection, Field(description="disturbances of the mail between areas, federated over zmq or tcp")
    ] = ChannelSection()
    period_s: Annotated[PeriodS, Field(description="time between clearings [s]")] = 300
    loss_usd_per_kwh: Annotated[
        NotNegative, Field(description="what the objective pays for losses [$/kWh]")
    ] = 0.1
    relaxation_bound: Annotated[
        bool, Field(description="solve the convex relaxation too, and so certify the gap of each clearing")
    ] = True
    policy: Annotated[Policy, Field(description="what to do when a clearing fails")] = "relax"
