"""A distribution feeder as columnar tables, read from a folder of CSV files and checked whole.

Rows refer to buses by their position in the bus table. Phases are 0, 1, 2 for a, b, c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, Problem
from voltier.grid.tables import Column, Table, read_table
from voltier.grid.topology import check_feeder, check_references

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

DATA = Path(__file__).parent / "data"
FEET_PER_MILE = 5280.0
PAIRS = ((0, 0, "aa"), (0, 1, "ab"), (0, 2, "ac"), (1, 1, "bb"), (1, 2, "bc"), (2, 2, "cc"))


@dataclass(frozen=True, slots=True)
class Lines:
    """Line segments; matrices are of the whole segment, rows and columns of absent phases are zero.

    from_bus, to_bus : (n,) rows of the bus table
    has_phase : (n, 3)
    r_ohm, x_ohm : (n, 3, 3) series impedance [ohm]
    b_us : (n, 3, 3) shunt susceptance [µS]
    length_ft : (n,) [ft]
    i_max_a : (n,) thermal rating of a wire [A]
    """

    name: tuple[str, ...]
    from_bus: Index
    to_bus: Index
    has_phase: Mask
    r_ohm: Array
    x_ohm: Array
    b_us: Array
    length_ft: Array
    i_max_a: Array


@dataclass(frozen=True, slots=True)
class SpotLoads:
    """Published loads: consumption at nominal voltage, load positive as in the IEEE tables.

    bus : (n,); connection : "wye" or "delta"; phase : "a", or "ab" for a delta load; model : "PQ", "I" or "Z"
    p_kw, q_kvar : (n,) consumption [kW, kvar]
    """

    bus: Index
    connection: tuple[str, ...]
    phase: tuple[str, ...]
    model: tuple[str, ...]
    p_kw: Array
    q_kvar: Array


@dataclass(frozen=True, slots=True)
class Capacitors:
    """Single-phase shunt capacitors to neutral, each q_kvar [kvar] when the line voltage is kv_ll [kV]."""

    bus: Index
    phase: Index
    q_kvar: Array
    kv_ll: Array


@dataclass(frozen=True, slots=True)
class Regulators:
    """Step-voltage regulators, one row per regulated phase: v(to_bus) = (1 + tap·tap_step_pu)·v(from_bus).

    phase, sensed_phase : (n,) the phase moved, and the phase whose voltage and current decide
    v_set_v, bandwidth_v : (n,) set point and full width of the dead band [V on the relay]
    pt_ratio, ct_primary_a : (n,) voltage transformer ratio, current transformer primary [A]
    r_comp_v, x_comp_v : (n,) line-drop compensation [V at rated ct current]
    published_tap, max_tap : (n,) tap of the published solution; largest tap either way
    tap_step_pu : (n,)
    """

    name: tuple[str, ...]
    from_bus: Index
    to_bus: Index
    phase: Index
    sensed_phase: Index
    published_tap: Index
    tap_step_pu: Array
    max_tap: Index
    v_set_v: Array
    bandwidth_v: Array
    pt_ratio: Array
    ct_primary_a: Array
    r_comp_v: Array
    x_comp_v: Array


@dataclass(frozen=True, slots=True)
class Switches:
    """Ideal switches: name, buses, phases carried, and whether closed."""

    name: tuple[str, ...]
    from_bus: Index
    to_bus: Index
    has_phase: Mask
    closed: Mask


@dataclass(frozen=True, slots=True)
class Transformers:
    """Three-phase two-winding transformers; impedance in percent; conn is "delta" or "wye_grounded"."""

    name: tuple[str, ...]
    from_bus: Index
    to_bus: Index
    s_kva: Array
    v_high_kv_ll: Array
    v_low_kv_ll: Array
    conn_high: tuple[str, ...]
    conn_low: tuple[str, ...]
    r_percent: Array
    x_percent: Array


@dataclass(frozen=True, slots=True)
class Feeder:
    """A radial feeder.

    bus : names in table order; has_phase : (n_bus, 3); kv_ll : (n_bus,) nominal voltage [kV line to line]
    xy : (n_bus, 2) drawing coordinates, nan where unknown
    source_bus : row of the bus held at source_v_pu (phase a at 0 degrees, positive sequence)
    """

    name: str
    bus: tuple[str, ...]
    has_phase: Mask
    kv_ll: Array
    xy: Array
    lines: Lines
    spot_loads: SpotLoads
    capacitors: Capacitors
    regulators: Regulators
    switches: Switches
    transformers: Transformers
    source_bus: int
    source_v_pu: float

    @property
    def load_buses(self) -> Index:
        """Rows of the buses that carry spot loads, in the order of the bus table."""
        return np.unique(self.spot_loads.bus)


COLUMNS: dict[str, tuple[Column, ...]] = {
    "buses": (
        Column("bus", unique=True),
        Column("phases", "phases"),
        Column("nominal_kv_ll", "number", positive=True),
        Column("x", "number", optional=True),
        Column("y", "number", optional=True),
    ),
    "line_configs": (
        Column("config", unique=True),
        Column("phases", "phases"),
        *(Column(f"r_{pair}_ohm_per_mile", "number", low=0) for _, _, pair in PAIRS),
        # between the wires of a cable with concentric neutrals the mutual reactance can be below zero
        *(Column(f"x_{pair}_ohm_per_mile", "number", low=0 if i == j else -math.inf) for i, j, pair in PAIRS),
        *(Column(f"b_{pair}_us_per_mile", "number") for _, _, pair in PAIRS),
        Column("ampacity_a", "number", positive=True),
    ),
    "lines": (
        Column("line", unique=True),
        Column("from_bus"),
        Column("to_bus"),
        Column("phases", "phases"),
        Column("config"),
        Column("length_ft", "number", positive=True),
    ),
    "spot_loads": (
        Column("bus"),
        Column("connection", choices=("wye", "delta")),
        Column("phase", choices=("a", "b", "c", "ab", "bc", "ca")),
        Column("model", choices=("PQ", "I", "Z")),
        Column("p_kw", "number", low=0),
        Column("q_kvar", "number"),
    ),
    "capacitors": (
        Column("bus"),
        Column("phase", choices=("a", "b", "c")),
        Column("q_kvar", "number", positive=True),
        Column("nominal_kv_ll", "number", positive=True),
    ),
    "regulators": (
        Column("regulator"),
        Column("from_bus"),
        Column("to_bus"),
        Column("phase", choices=("a", "b", "c")),
        Column("sensed_phase", choices=("a", "b", "c")),
        Column("v_set_v", "number", positive=True),
        Column("bandwidth_v", "number", positive=True),
        Column("pt_ratio", "number", positive=True),
        Column("ct_primary_a", "number", positive=True),
        Column("r_comp_v", "number", low=0),
        Column("x_comp_v", "number", low=0),
        Column("published_tap", "integer"),
        Column("tap_step_pu", "number", positive=True),
        Column("max_tap", "integer", positive=True),
    ),
    "switches": (
        Column("switch", unique=True),
        Column("from_bus"),
        Column("to_bus"),
        Column("phases", "phases"),
        Column("normal_state", choices=("open", "closed")),
    ),
    "transformers": (
        Column("transformer", unique=True),
        Column("from_bus"),
        Column("to_bus"),
        Column("s_kva", "number", positive=True),
        Column("v_high_kv_ll", "number", positive=True),
        Column("conn_high", choices=("delta", "wye_grounded")),
        Column("v_low_kv_ll", "number", positive=True),
        Column("conn_low", choices=("delta", "wye_grounded")),
        Column("r_percent", "number", positive=True),
        Column("x_percent", "number", positive=True),
    ),
    "source": (Column("bus"), Column("v_pu", "number", low=0.5, high=1.5)),
}


def read_feeder(source: str | Path) -> Feeder:
    """Read a feeder that comes with voltier, such as "ieee123", or a folder of tables in the same layout.

    A text is the name of a feeder at hand first, else a folder. Raises InputError with all problems found:
    file, row, column, value and remedy of each.
    """
    folder = (
        DATA / source if isinstance(source, str) and (DATA / source / "buses.csv").is_file() else Path(source)
    )
    if not folder.is_dir():
        known = ", ".join(sorted(path.name for path in DATA.iterdir() if path.is_dir()))
        remedy = f"name a feeder at hand ({known}) or a folder with tables in the same layout"
        raise InputError([Problem("feeder", "source", str(source), remedy)])
    problems: list[Problem] = []
    tables = {
        name: read_table(folder / f"{name}.csv", columns, problems) for name, columns in COLUMNS.items()
    }
    strangers = check_references(tables)
    problems += strangers
    if strangers or not all(table.sound for table in tables.values()):
        raise InputError(problems)
    # wrong numbers do not hide what is wrong with the structure, so both are reported together
    feeder = _assemble(folder.name, tables)
    problems += check_feeder(feeder, tables)
    if problems:
        raise InputError(problems)
    return feeder


def _assemble(name: str, tables: dict[str, Table]) -> Feeder:
    buses = tables["buses"]
    row = {bus: k for k, bus in enumerate(buses.text("bus"))}
    return Feeder(
        name=name,
        bus=buses.text("bus"),
        has_phase=buses.phases("phases"),
        kv_ll=buses.number("nominal_kv_ll"),
        xy=np.column_stack([buses.number("x"), buses.number("y")]),
        lines=_lines(tables["lines"], tables["line_configs"], row),
        spot_loads=_spot_loads(tables["spot_loads"], row),
        capacitors=_capacitors(tables["capacitors"], row),
        regulators=_regulators(tables["regulators"], row),
        switches=_switches(tables["switches"], row),
        transformers=_transformers(tables["transformers"], row),
        source_bus=row[tables["source"].text("bus")[0]],
        source_v_pu=float(tables["source"].number("v_pu")[0]),
    )


def _bus(table: Table, column: str, row: dict[str, int]) -> Index:
    return np.array([row[bus] for bus in table.text(column)], dtype=np.int64)


def _phase(table: Table, column: str) -> Index:
    return np.array(["abc".index(letter) for letter in table.text(column)], dtype=np.int64)


def _lines(lines: Table, configs: Table, row: dict[str, int]) -> Lines:
    position = {config: k for k, config in enumerate(configs.text("config"))}
    config = np.array([position[name] for name in lines.text("config")], dtype=np.int64)
    has_phase = lines.phases("phases")
    present = has_phase[:, :, None] & has_phase[:, None, :]
    length_ft = lines.number("length_ft")

    def total(quantity: str, unit: str) -> Array:
        per_mile = np.zeros((len(configs), 3, 3))
        for i, j, pair in PAIRS:
            per_mile[:, i, j] = per_mile[:, j, i] = configs.number(f"{quantity}_{pair}_{unit}_per_mile")
        return np.where(present, per_mile[config] * (length_ft / FEET_PER_MILE)[:, None, None], 0.0)

    return Lines(
        name=lines.text("line"),
        from_bus=_bus(lines, "from_bus", row),
        to_bus=_bus(lines, "to_bus", row),
        has_phase=has_phase,
        r_ohm=total("r", "ohm"),
        x_ohm=total("x", "ohm"),
        b_us=total("b", "us"),
        length_ft=length_ft,
        i_max_a=configs.number("ampacity_a")[config],
    )


def _spot_loads(table: Table, row: dict[str, int]) -> SpotLoads:
    return SpotLoads(
        bus=_bus(table, "bus", row),
        connection=table.text("connection"),
        phase=table.text("phase"),
        model=table.text("model"),
        p_kw=table.number("p_kw"),
        q_kvar=table.number("q_kvar"),
    )


def _capacitors(table: Table, row: dict[str, int]) -> Capacitors:
    return Capacitors(
        bus=_bus(table, "bus", row),
        phase=_phase(table, "phase"),
        q_kvar=table.number("q_kvar"),
        kv_ll=table.number("nominal_kv_ll"),
    )


def _regulators(table: Table, row: dict[str, int]) -> Regulators:
    return Regulators(
        name=table.text("regulator"),
        from_bus=_bus(table, "from_bus", row),
        to_bus=_bus(table, "to_bus", row),
        phase=_phase(table, "phase"),
        sensed_phase=_phase(table, "sensed_phase"),
        published_tap=table.integer("published_tap"),
        tap_step_pu=table.number("tap_step_pu"),
        max_tap=table.integer("max_tap"),
        v_set_v=table.number("v_set_v"),
        bandwidth_v=table.number("bandwidth_v"),
        pt_ratio=table.number("pt_ratio"),
        ct_primary_a=table.number("ct_primary_a"),
        r_comp_v=table.number("r_comp_v"),
        x_comp_v=table.number("x_comp_v"),
    )


def _switches(table: Table, row: dict[str, int]) -> Switches:
    return Switches(
        name=table.text("switch"),
        from_bus=_bus(table, "from_bus", row),
        to_bus=_bus(table, "to_bus", row),
        has_phase=table.phases("phases"),
        closed=np.array([state == "closed" for state in table.text("normal_state")], dtype=np.bool_),
    )


def _transformers(table: Table, row: dict[str, int]) -> Transformers:
    return Transformers(
        name=table.text("transformer"),
        from_bus=_bus(table, "from_bus", row),
        to_bus=_bus(table, "to_bus", row),
        s_kva=table.number("s_kva"),
        v_high_kv_ll=table.number("v_high_kv_ll"),
        v_low_kv_ll=table.number("v_low_kv_ll"),
        conn_high=table.text("conn_high"),
        conn_low=table.text("conn_low"),
        r_percent=table.number("r_percent"),
        x_percent=table.number("x_percent"),
    )
