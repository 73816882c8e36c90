"""Every typed message that travels between operators, and its JSON form on the wire.

Arrays are numpy in memory and JSON numbers on the wire; a float survives the round trip to the last bit,
so a run over sockets equals a run in one process. Powers are injections into the grid (load negative).
Rows are named by integer positions in the population's tables (smo, sma, house).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

SCHEMA_VERSION = 1


class Message(msgspec.Struct, frozen=True, tag=True, kw_only=True, eq=False):
    """Base of all messages. t_s : start of the interval that the content is about [s]."""

    t_s: int
    version: int = SCHEMA_VERSION


class Conditions(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """wholesale → pmo, cmo, every minute: price and weather of this minute."""

    price_usd_per_kwh: float
    temp_air_c: float
    pv_available: float
    """PV output over PV rating, 0 to 1."""


class Forecast(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """wholesale → cmo, every planning period: the horizon ahead, step_s apart, first entry at t_s."""

    step_s: int
    price_usd_per_kwh: Array
    temp_air_c: Array
    pv_available: Array


class SmaBids(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """cmo → smo, every minute: one row per SMA, for the coming minute. Boxes contain p0_kw, q0_kvar.

    p0_phase_kw, q0_phase_kvar : (n_smo, 3) the same p0_kw and q0_kvar, summed by SMO and phase a to c.
    """

    sma: Index
    p0_kw: Array
    p_min_kw: Array
    p_max_kw: Array
    q0_kvar: Array
    q_min_kvar: Array
    q_max_kvar: Array
    beta_p_usd_per_kw2h: Array
    beta_q_usd_per_kvar2h: Array
    p0_phase_kw: Array
    q0_phase_kvar: Array


class SmaMeters(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """cmo → smo, every minute: mean power that each SMA's meters saw in the minute from t_s, and IoT anomaly 0 to 1.

    One row for each SMA whose reading arrived; of the others the operator keeps the reading it has.
    """

    sma: Index
    p_kw: Array
    q_kvar: Array
    anomaly: Array


class SmoBids(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """smo → pmo, or area, every primary period: flexible net injection and own generator of each SMO.

    p0_phase_kw, q0_phase_kvar : (n_smo, 3) how p0_kw and q0_kvar divide over phases a to c.
    """

    smo: Index
    p0_kw: Array
    p_min_kw: Array
    p_max_kw: Array
    beta_p_usd_per_kw2h: Array
    q0_kvar: Array
    q_min_kvar: Array
    q_max_kvar: Array
    beta_q_usd_per_kvar2h: Array
    p0_phase_kw: Array
    q0_phase_kvar: Array
    gen_max_kw: Array
    alpha_usd_per_kw2h: Array
    resilience_score: Array
    p_meter_kw: Array
    """Mean metered injection over the primary period that ends now, without the generator."""
    q_meter_kvar: Array
    gen_meter_kw: Array


class PrimarySchedule(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """pmo → smo, every primary period: set-points and dLMP at each SMO."""

    smo: Index
    p_kw: Array
    """Set-point of the flexible net injection (without the generator)."""
    q_kvar: Array
    gen_kw: Array
    dlmp_p_usd_per_kwh: Array
    dlmp_q_usd_per_kvarh: Array


class AreaPacket(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """area → area, in every slot of a clearing: all that an area ever tells a neighbour.

    half_round : number of the exchange ; seen : newest exchange that came from the neighbour ; values : what the two
    share at their border [p.u., $/kWh p.u.] ; verdict : largest residuals so far known, by which all stop alike
    halt : code of why the sender gives up, 0 while it does not
    """

    half_round: int
    seen: int
    values: Array
    verdict: Array
    halt: int


class AreaClearing(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """area → pmo, every primary period: set-points of the area's SMOs and prices at its nodes, if its areas agreed.

    failure : why they did not; then all else is empty. rounds : that the agreement took
    """

    failure: str
    rounds: int
    smo: Index
    p_kw: Array
    q_kvar: Array
    gen_kw: Array
    node: Index
    dlmp_p_usd_per_kwh: Array
    dlmp_q_usd_per_kvarh: Array


class AreaMeters(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """area → pmo, every primary period: what is settled on, the means over the period that ends now, and scores."""

    smo: Index
    resilience_score: Array
    p_meter_kw: Array
    q_meter_kvar: Array
    gen_meter_kw: Array


class ImportSchedule(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """pmo → resilience, every primary period: injection into the bulk grid that the substation should see."""

    p_cc_kw: float
    load_kw: float


class SmaSchedule(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """smo → cmo, every minute: schedule, reserved flexibility and tariffs of each SMA."""

    sma: Index
    p_kw: Array
    q_kvar: Array
    dp_kw: Array
    dq_kvar: Array
    tariff_usd_per_kwh: Array
    tariff_q_usd_per_kvarh: Array


class Injections(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """cmo, smo → grid, every minute: injection at (bus, phase), rows into the feeder's bus table, phase 0 to 2."""

    bus: Index
    phase: Index
    p_kw: Array
    q_kvar: Array


class Measurement(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """grid → resilience, pmo, bulk, every minute: injection into the bulk grid by phase (import negative)."""

    p_cc_kw: Array
    q_cc_kvar: Array


class Taps(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """grid → pmo, every minute: positions of the regulators' taps."""

    tap: Index


class Alarm(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """resilience → pmo, every minute while it lasts: an import deviation is confirmed (active), or over.

    target_p_cc_kw : mean before the deviation, to which the power at the substation is to return.
    shortfall_kw : scheduled minus measured injection into the bulk grid, positive when the import is too high.
    """

    active: bool
    target_p_cc_kw: float
    shortfall_kw: float


class Attack(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """attacker → smo: from t_s on the generators at these SMOs deliver nothing (active) or are released."""

    smo: Index
    active: bool


class DeviceSetpoints(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """cmo → device, every minute: what devices outside are to inject. device : positions in the scenario's list."""

    device: Index
    p_kw: Array
    wanted: Array
    """Temperature [degC] or stored energy [kWh] that the plan wants."""


class DeviceReadings(Message, frozen=True, tag=True, kw_only=True, eq=False):
    """device → cmo, every minute: last known power and state of devices outside; those left out are simulated."""

    device: Index
    p_kw: Array
    state: Array
    """Temperature [degC] or stored energy [kWh]."""


AnyMessage = (
    Conditions
    | Forecast
    | SmaBids
    | SmaMeters
    | SmoBids
    | PrimarySchedule
    | AreaPacket
    | AreaClearing
    | AreaMeters
    | ImportSchedule
    | SmaSchedule
    | Injections
    | Measurement
    | Taps
    | Alarm
    | Attack
    | DeviceSetpoints
    | DeviceReadings
)


def _to_wire(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form here; send numbers, text or numpy arrays")


def _from_wire(kind: Any, value: Any) -> Any:
    return np.asarray(value, dtype=np.int64 if kind is Index or kind == Index else np.float64)


_encoder = msgspec.json.Encoder(enc_hook=_to_wire)
_decoder = msgspec.json.Decoder(AnyMessage, dec_hook=_from_wire)

encode: Callable[[Message], bytes] = _encoder.encode
decode: Callable[[bytes | str], AnyMessage] = _decoder.decode
