"""The two-area, four-machine system of Kundur as the ANDES package ships it, with a feeder load in area 2.

P. Kundur, Power System Stability and Control, McGraw-Hill 1994, example 12.6. Of the package's versions the one with
ESDC2A exciters is taken, as it stands: four machines of 900 MVA with TGOV1 governors of 5 % droop, 60 Hz. What differs:

- the line trip that it ships with is off;
- turbines give their rating at most; the file lets their valves open to 33 times of it;
- real power of its own loads is a constant current and reactive power a constant impedance, as in the book; ANDES takes
  constant impedances, of whose relief little would be left once tap changers have restored the loads' voltage;
- a feeder load of constant power stands at area 2's load bus, and the load there is smaller by as much.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import FederationError, InputError, Problem

Array = NDArray[np.float64]
Index = NDArray[np.int64]

S_BASE_MVA = 100.0
NOMINAL_HZ = 60.0
FEEDER = "feeder"
_CASE = "kundur/kundur_esdc2a.xlsx"
_LOAD_BUS_AREA_2 = 8
_TIE_FROM = 7


@dataclass(frozen=True, slots=True)
class Machines:
    """The synchronous machines. name : (n,); area : (n,) 1 or 2; rating_mva, droop (p.u. of the rating) : (n,).

    inertia_mws : (n,) kinetic energy at nominal speed [MW s]. area_share : (n, 2) weight of each machine in its
    area's frequency, by inertia.
    """

    name: tuple[str, ...]
    area: Index
    rating_mva: Array
    droop: Array
    inertia_mws: Array
    area_share: Array

    @property
    def stiffness_mw_per_hz(self) -> float:
        """Power that all governors together add for each Hz below nominal, Σ S/(R f) [MW/Hz]."""
        return float((self.rating_mva / self.droop).sum() / NOMINAL_HZ)


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Keep ANDES from printing, and collect what it would have complained about."""
    complaints: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: complaints.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("andes")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield complaints
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def require_andes() -> None:
    """Raise InputError when the package that simulates the bulk grid is not installed."""
    try:
        import andes  # noqa: F401
    except ImportError as error:
        remedy = 'the transmission side needs it; install "voltier[bulk]", or leave bulk out'
        raise InputError([Problem("bulk", "package andes", "not installed", remedy)]) from error


def two_areas(feeder_mw: float) -> Any:
    """Return an initialised ANDES system in equilibrium, where feeder_mw of area 2's load are the feeder's.

    Raises InputError when ANDES is missing or feeder_mw is more than area 2 draws, FederationError when ANDES finds
    no equilibrium.
    """
    require_andes()
    with quiet() as complaints:
        try:
            system = _assemble(feeder_mw)
            found = system.setup() and system.PFlow.run()
            if found:
                system.TDS.init()
        except (InputError, FederationError):
            raise
        except Exception as error:
            raise FederationError(f"ANDES cannot set up the bulk grid: {error}") from error
    if not found or not system.TDS.test_ok:
        raise FederationError(f"the bulk grid has no equilibrium: {'; '.join(complaints)}")
    return system


def _assemble(feeder_mw: float) -> Any:
    """Read the case, change what the module's head says, and generate its equations."""
    import andes
    from andes.system import System

    # Settings files of the user would change the numbers, and generated code would be kept in the home folder.
    options = {"no_output": True}
    system = System(
        case=andes.get_case(_CASE), default_config=True, no_undill=True, autogen_stale=False, options=options
    )
    andes.io.parse(system)
    system.Toggle.u.v[:] = [0.0] * system.Toggle.n
    system.TGOV1.VMAX.v[:] = [1.0] * system.TGOV1.n
    _put_feeder(system, feeder_mw / S_BASE_MVA)
    for load in system.PQ.idx.v[:-1]:
        system.add("ZIP", {"pq": load, "kpp": 0, "kpi": 100, "kpz": 0, "kqp": 0, "kqi": 0, "kqz": 100})
    config = system.PQ.config
    config.p2p, config.p2z, config.q2q, config.q2z = 1.0, 0.0, 1.0, 0.0
    system.TDS.config.no_tqdm = 1
    with TemporaryDirectory(prefix="voltier-bulk-") as folder:
        for model in system.models.values():
            if model.n:
                model.prepare(quick=True, pycode_path=folder)
    system.with_calls = True
    return system


def _put_feeder(system: Any, p_pu: float) -> None:
    """Hand a part of area 2's load over to the feeder; reactive power stays with the rest."""
    loads = system.PQ
    here = list(loads.bus.v).index(_LOAD_BUS_AREA_2)
    if p_pu >= loads.p0.v[here]:
        most_mw = loads.p0.v[here] * S_BASE_MVA
        remedy = f"area 2 has a load of {most_mw:g} MW to replace; set fewer bulk.copies"
        raise InputError(
            [Problem("bulk", "feeder load at the start [MW]", round(p_pu * S_BASE_MVA, 1), remedy)]
        )
    loads.p0.v[here] -= p_pu
    system.add(
        "PQ", {"idx": FEEDER, "name": FEEDER, "bus": _LOAD_BUS_AREA_2, "Vn": 230, "p0": p_pu, "q0": 0.0}
    )


def machines_of(system: Any) -> Machines:
    """Return the machines of a system that is set up."""
    generator, governor = system.GENROU, system.TGOV1
    area_of_bus = dict(zip(system.Bus.idx.v, system.Bus.area.v, strict=True))
    area = np.array([area_of_bus[bus] for bus in generator.bus.v], dtype=np.int64)
    rating_mva = np.array(generator.Sn.v, dtype=np.float64)
    of_machine = [list(governor.syn.v).index(machine) for machine in generator.idx.v]
    # M = 2H, in system base once set up.
    inertia_mws = np.array(generator.M.v) / 2.0 * S_BASE_MVA
    weight = np.where(area[:, None] == np.array([1, 2]), inertia_mws[:, None], 0.0)
    return Machines(
        name=tuple(f"G{bus}" for bus in generator.bus.v),
        area=area,
        rating_mva=rating_mva,
        # The valve's gain in system base over the rating gives the droop back in machine base.
        droop=np.array(governor.R.v)[of_machine] * rating_mva / S_BASE_MVA,
        inertia_mws=inertia_mws,
        area_share=weight / weight.sum(axis=0),
    )


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines as π-circuits in p.u. start, end : (n,) bus rows; series, shunt : (n,) admittances, shunt at each end.

    tie : (n,) which of them join the areas, all from area 1 to area 2.
    """

    start: Index
    end: Index
    series: NDArray[np.complex128]
    shunt: NDArray[np.complex128]
    tie: NDArray[np.bool_]

    def flow_mw(self, v_pu: NDArray[np.complex128]) -> tuple[Array, Array]:
        """Return the power into each line at its two ends, (n_t, n) each [MW], from voltages (n_t, n_bus)."""
        v1, v2 = v_pu[:, self.start], v_pu[:, self.end]
        here = v1 * np.conj((v1 - v2) * self.series + v1 * self.shunt)
        there = v2 * np.conj((v2 - v1) * self.series + v2 * self.shunt)
        return here.real * S_BASE_MVA, there.real * S_BASE_MVA


def lines_of(system: Any) -> Lines:
    """Return the lines and transformers (all at nominal ratio) of a system that is set up."""
    line = system.Line
    row = {bus: i for i, bus in enumerate(system.Bus.idx.v)}
    start, end = (np.array([row[bus] for bus in side.v], dtype=np.int64) for side in (line.bus1, line.bus2))
    return Lines(
        start=start,
        end=end,
        series=1.0 / (np.array(line.r.v) + 1j * np.array(line.x.v)),
        shunt=0.5j * np.array(line.b.v),
        tie=(start == row[_TIE_FROM]) & (end == row[_LOAD_BUS_AREA_2]),
    )
