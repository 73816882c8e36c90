"""Names, columns and order of the results tables; injections into the grid are positive, load negative."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from voltier.agents.devices.kinds import DEVICE_COLUMNS

ColumnType = Literal["number", "integer", "text"]

NUMBER: ColumnType = "number"
INTEGER: ColumnType = "integer"
TEXT: ColumnType = "text"


def _numbers(*names: str) -> dict[str, ColumnType]:
    return dict.fromkeys(names, NUMBER)


@dataclass(frozen=True, slots=True)
class TableSpec:
    """Columns of a table, without t_s, which every table has first.

    keys : text columns that name the fixed rows of each time; none in a table whose rows come as they happen.
    columns : what an operator delivers, name → type.
    """

    columns: Mapping[str, ColumnType]
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableLayout:
    """A table of one run: its columns and the names of its fixed rows.

    keys : key column → one entry for each row, all of the same length; empty in a table without fixed rows.
    columns : name → type of what an operator delivers.
    """

    columns: Mapping[str, ColumnType]
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def n_rows(self) -> int | None:
        """Number of fixed rows, or None."""
        return len(next(iter(self.keys.values()))) if self.keys else None


def layout(table: str, **keys: tuple[str, ...]) -> TableLayout:
    """Return the layout of a table of TABLES with its row names; keys are exactly the table's key columns."""
    spec = TABLES[table]
    if tuple(keys) != spec.keys:
        raise ValueError(f"table {table} has the key columns {spec.keys}, not {tuple(keys)}")
    if len({len(names) for names in keys.values()}) > 1:
        raise ValueError(f"the key columns of table {table} differ in length")
    return TableLayout(spec.columns, MappingProxyType(dict(keys)))


TABLES: Mapping[str, TableSpec] = MappingProxyType(
    {
        # One row for each SMO and primary period: bid (p0, box, beta), clearing, voltage, price.
        "primary": TableSpec(
            _numbers(
                "p0_kw", "p_min_kw", "p_max_kw", "beta_p_usd_per_kw2h", "p_kw", "q_kvar", "gen_kw",
                "dlmp_usd_per_kwh", "dlmp_q_usd_per_kvarh", "v_pu", "rs",
            ),
            ("bus",),
        ),
        # One row for each bus, phase and primary period of a three-phase market: prices in force, the parts of each
        # (they sum up to it), and the dispatch's voltage; nan where nothing feeds the phase. bundled: what the operator
        # at the bus pays for energy, reactive power and voltage support, per kWh; nan where it takes next to nothing.
        "dlmp": TableSpec(
            _numbers(
                "dlmp_usd_per_kwh", "dlmp_q_usd_per_kvarh", "energy_usd_per_kwh", "loss_usd_per_kwh",
                "voltage_usd_per_kwh", "congestion_usd_per_kwh", "regulation_usd_per_kwh",
                "energy_q_usd_per_kvarh", "loss_q_usd_per_kvarh", "voltage_q_usd_per_kvarh",
                "congestion_q_usd_per_kvarh", "regulation_q_usd_per_kvarh", "v_pu", "bundled_usd_per_kwh",
            ),
            ("bus", "phase"),
        ),
        # One row for each SMA and minute: bid, schedule, reserve dp, tariff, meter, scores after the minute.
        "secondary": TableSpec(
            _numbers(
                "p0_kw", "p_min_kw", "p_max_kw", "p_kw", "q_kvar", "dp_kw", "tariff_usd_per_kwh",
                "p_meter_kw", "cs", "ts", "rs",
            ),
            ("smo", "sma"),
        ),
        # One row for each SMO and minute: certificate of its clearing and tariffs. residual: largest error of a balance
        # [kW, kvar] or relative excess over a stage's bound; shortage: set-point less schedule; budget_residual: what
        # limits on tariffs leave with the operator; converged, capped: 0 or 1; solve_s: even share of the wall time.
        "secondary_clearings": TableSpec(
            _numbers(
                "residual", "converged", "p_shortage_kw", "q_shortage_kvar", "budget_residual_usd_per_h",
                "q_budget_residual_usd_per_h", "capped", "q_capped", "solve_s",
            ),
            ("smo",),
        ),
        # One row for each consumer operator and recording period, over its minutes: largest errors by size, mean side
        # payment, shares of minutes with one and with a target out of reach; solve_s: wall time, an even share.
        "consumer_clearings": TableSpec(
            _numbers(
                "tracking_error_kw", "budget_error_usd_per_h", "side_payment_usd_per_h", "degenerate_share",
                "infeasible_share", "solve_s",
            ),
            ("cmo",),
        ),
        # One row for each house (cma) of a consumer operator (cmo): plan, share of the game, meter, prices. tariff: of
        # its agent; paid_usd: since the last record, metered energy at the tariff less given_usd; this is what
        # the consumer market pays for its outcome beyond the tariff.
        "consumer": TableSpec(
            _numbers(
                "p0_kw", "p_min_kw", "p_max_kw", "p_kw", "p_meter_kw", "mu", "mu_tilde", "tariff", "paid_usd",
                "given_usd",
            ),
            ("cmo", "cma"),
        ),
        # One row for each house: what its devices inject (loads negative), temperatures, stored and owed energy.
        # nan: no such temperature; ev_missing_kwh: what a car that is away left without, else zero.
        "devices": TableSpec(_numbers(*DEVICE_COLUMNS), ("cma",)),
        # One row for each bus, phase and minute, from the three-phase power flow; powers of engine gridlabd's own too.
        "grid": TableSpec(_numbers("v_pu", "p_kw", "q_kvar"), ("bus", "phase")),
        # Injection into the bulk grid by phase (import negative); loss_kw closes each phase's balance.
        # balance_error_kw: their sum less the engine's own count of the losses, same on each row.
        "substation": TableSpec(_numbers("p_kw", "q_kvar", "loss_kw", "balance_error_kw"), ("phase",)),
        # One row for each regulated phase and minute: position with which the minute's power flow was solved.
        "taps": TableSpec({"tap": INTEGER}, ("regulator", "phase")),
        # One row for each area of the transmission grid and second: mean frequency and its extremes, its rate of change
        # over half a second where that is largest, generation, load, flow out over the tie lines; feeder: the load that
        # is copies of the feeder, in area 2 alone.
        "bulk": TableSpec(
            _numbers(
                "frequency_hz", "frequency_min_hz", "frequency_max_hz", "rocof_hz_per_s", "generation_mw",
                "load_mw", "export_mw", "feeder_mw",
            ),
            ("area",),
        ),
        # One row for each primary period: conditions, import as planned and as metered, cost as it was.
        "system": TableSpec(
            _numbers(
                "price_usd_per_kwh", "temp_air_c", "pv_available", "p_import_scheduled_kw", "p_import_kw",
                "cost_usd_per_h"
            )
        ),
        # One row for each primary clearing; iterations: programs solved, or rounds of a distributed solver; solve_s,
        # here as elsewhere, is wall time and so differs from run to run.
        "clearings": TableSpec(
            {
                "market": TEXT, "status": TEXT,
                **_numbers(
                    "gap", "ac_residual_pu", "kkt_residual", "cost_usd_per_h", "lower_bound_usd_per_h",
                    "iterations", "solve_s",
                ),
            }
        ),
        # One row for each area and clearing of a federated primary market: rounds that the areas took to agree, slots
        # in which they exchanged packets, what the area sent. Only rounds are the same in every run.
        "areas": TableSpec(
            {
                "area": TEXT, "failure": TEXT, **_numbers("rounds", "slots", "packets", "sent_bytes", "solve_s"),
            }
        ),
        # One row for each instant of each operator of a paced run: how much later than due it began to decide [ms].
        "realtime": TableSpec({"operator": TEXT, "lag_ms": NUMBER}),
        # One row for each device outside and minute: set-point, last measurement and its age at the end, time from the
        # clearing that asked for a change of power to its measurement in this minute (nan: none was measured).
        "hardware": TableSpec(_numbers("set_kw", "measured_kw", "dead_time_s", "age_s"), ("house", "device")),
        # One row for each house, battery and array that lives in GridLAB-D, and recording period: mean power of its
        # minutes (loads negative), indoor temperature or state of charge at its end; nan where there is none.
        "gridlabd": TableSpec(_numbers("p_kw", "q_kvar", "temp_indoor_c", "soc"), ("object",)),
        "events": TableSpec({"source": TEXT, "kind": TEXT, "text": TEXT}),
        # One row for each party of each market and settlement; receipts positive, columns sum to zero.
        "settlement": TableSpec(
            _numbers("energy_usd", "flexibility_usd", "penalty_usd"), ("market", "party")
        ),
    }
)  # fmt: skip
"""Every table a run may write. TableSpec.keys names the key columns, whose rows the run's layout fixes."""
