"""The scenario as one frozen value, and the checks that need more than one section."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from voltier.scenarios.schema_bulk import BulkSection
from voltier.scenarios.schema_gridlabd import GridlabdSection
from voltier.scenarios.schema_hardware import HardwareSection
from voltier.scenarios.schema_primary import ChannelSection, PrimarySection, WeightsSection
from voltier.scenarios.schema_sections import (
    MINUTE_S,
    AttackSection,
    ConsumerSection,
    CrosscheckSection,
    Design,
    FederationSection,
    FeederSection,
    FleetSection,
    Generator,
    InputsSection,
    IotSection,
    RecordingSection,
    ResilienceSection,
    ScoresSection,
    SecondarySection,
    Section,
    WholesaleSection,
)

DAY_S = 86_400
_BULK_BEFORE_ATTACK_S = 900


def _midnight(value: Any) -> Any:
    """Take a bare date for its midnight."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime(value.year, value.month, value.day)
    return value


class Scenario(Section):
    """All that determines a run: same scenario, same tables."""

    model_config = ConfigDict(title="voltier scenario")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="short name, no blanks")]
    title: Annotated[str, Field(description="one line that says what the scenario is about")] = ""
    seed: Annotated[int, Field(ge=0, description="seed of everything random")] = 1
    start: Annotated[
        datetime,
        BeforeValidator(_midnight, json_schema_input_type=date | datetime),
        Field(
            description="first moment, local standard time: a date, or a date and time in whole minutes; "
            "month and day pick the weather, the date picks the price"
        ),
    ] = datetime(2020, 7, 15)
    hours: Annotated[
        float, Field(gt=0, le=24 * 366, description="length of the run [h], in whole minutes")
    ] = 24.0
    design: Annotated[Design, Field(description="market design: both levels, the primary alone, or none")] = (
        "hierarchical"
    )
    feeder: FeederSection = FeederSection()
    fleet: FleetSection = FleetSection()
    generators: Annotated[
        tuple[Generator, ...], Field(strict=False, description="primary-level generators, one a bus")
    ] = ()
    wholesale: WholesaleSection = WholesaleSection()
    primary: PrimarySection = PrimarySection()
    secondary: SecondarySection = SecondarySection()
    consumer: ConsumerSection = ConsumerSection()
    scores: ScoresSection = ScoresSection()
    resilience: ResilienceSection = ResilienceSection()
    attack: Annotated[AttackSection | None, Field(description="none: nobody attacks")] = None
    bulk: Annotated[BulkSection | None, Field(description="none: no transmission grid")] = None
    iot: IotSection = IotSection()
    federation: FederationSection = FederationSection()
    hardware: Annotated[
        HardwareSection | None, Field(description="devices outside, in the loop; none: all are simulated")
    ] = None
    gridlabd: Annotated[
        GridlabdSection | None,
        Field(description="devices that live in the engine gridlabd; none: it has none"),
    ] = None
    recording: RecordingSection = RecordingSection()
    crosscheck: CrosscheckSection = CrosscheckSection()
    inputs: InputsSection = InputsSection()

    @property
    def end_s(self) -> int:
        """End of the simulated time [s], exclusive; it begins at 0."""
        return round(self.hours * 3600)

    @property
    def start_second_of_day(self) -> int:
        """Wall-clock second of the day at simulated second 0."""
        return self.start.hour * 3600 + self.start.minute * 60

    @property
    def attack_window_s(self) -> tuple[int, int | None] | None:
        """Simulated seconds at which the attack starts and ends (None: never); None without an attack."""
        if self.attack is None:
            return None
        attack = self.attack
        start_s = attack.start_s if attack.start is None else self.simulated_s(attack.start)
        end_s = attack.end_s if attack.end is None else self.simulated_s(attack.end, after_s=start_s)
        assert start_s is not None
        return start_s, end_s

    @property
    def bulk_start_s(self) -> int | None:
        """Simulated second at which the transmission grid's records begin; None without one."""
        if self.bulk is None:
            return None
        if self.bulk.start is not None:
            return self.simulated_s(self.bulk.start)
        return 0 if self.attack_window_s is None else max(self.attack_window_s[0] - _BULK_BEFORE_ATTACK_S, 0)

    def simulated_s(self, clock_time: str, after_s: int | None = None) -> int:
        """Return the first simulated second, later than after_s if given, at which clocks show "HH:MM"."""
        hours, minutes = clock_time.split(":")
        s = (int(hours) * 3600 + int(minutes) * 60 - self.start_second_of_day) % DAY_S
        while after_s is not None and s <= after_s:
            s += DAY_S
        return s

    @property
    def end(self) -> datetime:
        """Wall-clock time at which the run ends."""
        return self.start + timedelta(seconds=self.end_s)

    @model_validator(mode="after")
    def _periods_divide(self) -> Self:
        wrong = [*_wrong_length(self), *_wrong_periods(self), *_wrong_engine(self), *_wrong_attack(self)]
        wrong += [
            *_wrong_formulation(self),
            *_wrong_transport(self),
            *_wrong_bulk(self),
            *_wrong_hardware(self),
            *_wrong_gridlabd(self),
        ]
        if wrong:
            # One error of many lines; schema_problems takes it apart into one problem a line.
            raise ValueError("\n".join(f"{field}|{value}|{remedy}" for field, value, remedy in wrong))
        return self


def _wrong_length(scenario: Scenario) -> list[tuple[str, object, str]]:
    wrong: list[tuple[str, object, str]] = []
    seconds = Fraction(str(scenario.hours)) * 3600
    # 1/3 h written as 0.333333 counts as 20 min: a second of tolerance, nobody means less.
    if abs(seconds / MINUTE_S - round(seconds / MINUTE_S)) * MINUTE_S > 1 or round(seconds / MINUTE_S) < 1:
        wrong.append(("hours", scenario.hours, "give a whole number of minutes, such as 0.5 or 24"))
    elif scenario.end_s % scenario.primary.period_s:
        period_s = scenario.primary.period_s
        wrong.append(("hours", scenario.hours, f"give a multiple of primary.period_s = {period_s} s"))
    elif scenario.end_s % scenario.recording.settlement_period_s:
        period_s = scenario.recording.settlement_period_s
        wrong.append(
            ("hours", scenario.hours, f"give a multiple of recording.settlement_period_s = {period_s} s")
        )
    if scenario.start.tzinfo is not None:
        wrong.append(
            ("start", scenario.start.isoformat(), "leave the time zone out; it is local standard time")
        )
    if scenario.start.second or scenario.start.microsecond:
        wrong.append(("start", scenario.start.isoformat(), "begin on a whole minute"))
    return wrong


def _wrong_periods(scenario: Scenario) -> list[tuple[str, object, str]]:
    wrong: list[tuple[str, object, str]] = []
    consumer, primary_s = scenario.consumer, scenario.primary.period_s
    if consumer.horizon_h * 3600 % consumer.step_s:
        remedy = f"it must divide consumer.horizon_h = {consumer.horizon_h} h; 3600 and 900 do"
        wrong.append(("consumer.step_s", consumer.step_s, remedy))
    if consumer.period_s % consumer.step_s and consumer.step_s % consumer.period_s:
        remedy = f"it must divide consumer.period_s = {consumer.period_s} s, or be a multiple of it"
        wrong.append(("consumer.step_s", consumer.step_s, remedy))
    if consumer.period_s % primary_s:
        remedy = f"give a multiple of primary.period_s = {primary_s} s"
        wrong.append(("consumer.period_s", consumer.period_s, remedy))
    if scenario.recording.settlement_period_s % primary_s:
        remedy = f"give a multiple of primary.period_s = {primary_s} s"
        wrong.append(("recording.settlement_period_s", scenario.recording.settlement_period_s, remedy))
    return wrong


def _wrong_engine(scenario: Scenario) -> list[tuple[str, object, str]]:
    feeder = scenario.feeder
    if feeder.engine != "pandapower-three-phase" or feeder.regulators == "neutral":
        return []
    remedy = (
        "set feeder.regulators to neutral, or feeder.engine to opendss: taps move each phase by itself, "
        "and pandapower-three-phase averages the impedances that they scale"
    )
    return [("feeder.regulators", feeder.regulators, remedy)]


def _wrong_formulation(scenario: Scenario) -> list[tuple[str, object, str]]:
    wrong: list[tuple[str, object, str]] = []
    primary, lateral = scenario.primary, scenario.feeder.lateral_impedance
    if primary.formulation == "branch_flow":
        plain = WeightsSection()
        for name, value in primary.weights:
            if value != getattr(plain, name):
                remedy = "set primary.formulation to current_injection, or leave it out: branch_flow has plain cost"
                wrong.append((f"primary.weights.{name}", value, remedy))
    elif lateral != "true_drop":
        remedy = "leave it out: current_injection has every phase of every line as it is"
        wrong.append(("feeder.lateral_impedance", lateral, remedy))
    return wrong


def _wrong_transport(scenario: Scenario) -> list[tuple[str, object, str]]:
    primary = scenario.primary
    if primary.transport == "local":
        if primary.channel == ChannelSection():
            return []
        remedy = "leave it out, or set primary.transport to federated: only mail between federates can be disturbed"
        return [("primary.channel", "set", remedy)]
    wrong: list[tuple[str, object, str]] = []
    if scenario.design == "no_market":
        wrong.append(("primary.transport", "federated", "leave it out: there is no primary market to clear"))
    if primary.solver != "nst-pac":
        remedy = "set it to nst-pac, the solver that federates run, or primary.transport to local"
        wrong.append(("primary.solver", primary.solver, remedy))
    if primary.formulation == "current_injection":
        remedy = (
            "set it to branch_flow, or primary.transport to local: three-phase areas are no federates yet"
        )
        wrong.append(("primary.formulation", primary.formulation, remedy))
    wrong += _wrong_cut(primary.channel, scenario.end_s)
    private = "set it to false: it needs every bid in one place, and areas keep theirs to themselves"
    if primary.relaxation_bound:
        wrong.append(("primary.relaxation_bound", True, private))
    if scenario.resilience.mitigate:
        wrong.append(("resilience.mitigate", True, private))
    return wrong


def _wrong_cut(channel: ChannelSection, end_s: int) -> list[tuple[str, object, str]]:
    start_s, until_s = channel.cut_start_s, channel.cut_end_s
    if until_s is not None and until_s <= start_s:
        return [("primary.channel.cut_end_s", until_s, f"it must be later than cut_start_s = {start_s} s")]
    if start_s >= end_s:
        return [("primary.channel.cut_start_s", start_s, f"it must be within the run, before {end_s} s")]
    if not channel.cut_areas and (start_s or until_s is not None):
        return [
            ("primary.channel.cut_areas", "none", "name the areas that are cut off, or leave the times out")
        ]
    return []


def _wrong_bulk(scenario: Scenario) -> list[tuple[str, object, str]]:
    start_s = scenario.bulk_start_s
    if start_s is None or start_s < scenario.end_s:
        return []
    assert scenario.bulk is not None
    shown = f"{scenario.start:%H:%M} to {scenario.end:%H:%M}"
    return [("bulk.start", scenario.bulk.start, f"it must start within the run, {shown}")]


def _wrong_hardware(scenario: Scenario) -> list[tuple[str, object, str]]:
    if scenario.hardware is None or scenario.federation.realtime:
        return []
    remedy = "give --realtime, or leave the section hardware out: real devices follow the wall clock"
    return [("federation.realtime", None, remedy)]


def _wrong_gridlabd(scenario: Scenario) -> list[tuple[str, object, str]]:
    section, engine = scenario.gridlabd, scenario.feeder.engine
    if section is None:
        return []
    wrong: list[tuple[str, object, str]] = []
    if engine != "gridlabd":
        remedy = "set it to gridlabd, or leave the section gridlabd out: its devices live in that engine"
        wrong.append(("feeder.engine", engine, remedy))
    most = max(section.houses, section.pv)
    if not most + section.batteries:
        remedy = "give at least one house or array, or leave the section out"
        wrong.append(("gridlabd", "no devices", remedy))
    if section.batteries > most:
        remedy = f"give at most {most}, as many as houses or pv: a battery follows what its premises draw"
        wrong.append(("gridlabd.batteries", section.batteries, remedy))
    return wrong


def _wrong_attack(scenario: Scenario) -> list[tuple[str, object, str]]:
    wrong: list[tuple[str, object, str]] = []
    buses = [generator.bus for generator in scenario.generators]
    for i, bus in enumerate(buses):
        if bus in buses[:i]:
            wrong.append(
                (f"generators.{i}.bus", bus, "there is a generator at this bus already; merge the two")
            )
    if scenario.attack is None or scenario.attack_window_s is None:
        return wrong
    for i, bus in enumerate(scenario.attack.buses):
        if bus not in buses:
            remedy = "no generator stands there; generators stand at " + (", ".join(buses) or "no bus")
            wrong.append((f"attack.buses.{i}", bus, remedy))
    start_s, end_s = scenario.attack_window_s
    field = "attack.start_s" if scenario.attack.start is None else "attack.start"
    if not 0 <= start_s < scenario.end_s:
        shown = f"{scenario.start:%H:%M} to {scenario.end:%H:%M} (0 to {scenario.end_s} s)"
        wrong.append((field, scenario.attack.start or start_s, f"it must start within the run, {shown}"))
    elif end_s is not None and end_s <= start_s:
        wrong.append(("attack.end_s", end_s, f"it must end after its start at {start_s} s"))
    return wrong
