"""Three-phase power flow by OpenDSS (EPRI), through OpenDSSDirect; the circuit is built once, in memory."""

from __future__ import annotations

import numpy as np
from opendssdirect import dss
from opendssdirect._utils import DSSException

from voltier.grid.errors import NotConvergedError
from voltier.grid.feeder import Feeder
from voltier.grid.flow.port import Array, Complex, Flow, Index, check_places
from voltier.grid.perunit import PerUnit
from voltier.grid.topology import merged_buses, reached

TOLERANCE_PU = 1e-10
MAX_ITERATIONS = 100
FREQUENCY_HZ = 60.0
# small enough to be ideal (1 MVA through a regulator moves the voltage by 2e-7 pu), large enough for the LU
REGULATOR_X_PERCENT, REGULATOR_KVA = 1e-4, 5000.0
SOURCE_OHM = 1e-7
MODEL_NUMBER = {"PQ": 1, "Z": 2, "I": 5}
ALWAYS_THIS_MODEL = "vminpu=0.01 vmaxpu=10 vlowpu=0.001"


class OpenDssFlow:
    """OpenDSS behind the PowerFlow port, in a context of its own, so several engines can live in one process.

    One constant-power wye load stands at every fed (bus, phase); closed switches merge their buses;
    regulators are ideal ratios without OpenDSS controls; capacitors are constant susceptances; lines keep
    their full matrices. Behind a delta winding, where a phase-to-ground load would float, no injection is
    accepted. Every solution starts from the one without loads: the same input gives the same bits, whatever
    was solved before.

    spot_loads : also connect the published spot loads with their models (wye, delta; PQ, I, Z).
    """

    def __init__(self, feeder: Feeder, *, spot_loads: bool = False) -> None:
        self._feeder = feeder
        self._dss = dss.NewContext()
        # The tool would take the whole process back to the directory it was loaded in.
        self._dss.Basic.AllowChangeDir(False)
        self._lib = self._dss.dss_lib
        self._bus = merged_buses(feeder)
        self._fed = reached(feeder)
        self._load_mask = reached(feeder, through_delta=False)
        self._load_bus, self._load_phase = np.nonzero(self._load_mask)
        volts = np.asarray(PerUnit(1.0, feeder.kv_ll).v_base_v)
        self._v_base_v = np.broadcast_to(volts[:, None], self._fed.shape)[self._fed]
        self._spot_loads = spot_loads
        self._start()
        self._node = self._node_of_terminal()

    def solve(self, p_kw: Array, q_kvar: Array, tap: Index) -> Flow:
        """Solve for constant-power injections at every bus and phase (see PowerFlow.solve)."""
        check_places(self._feeder.bus, self._load_mask, p_kw, q_kvar)
        self._set_tap(tap)
        self._set_power(np.column_stack([p_kw[self._load_mask], q_kvar[self._load_mask]]))
        try:
            volts = self._volts()
        except NotConvergedError:
            # a diverged circuit may hold not-a-numbers that no later solution gets rid of
            self._start()
            raise
        v_pu = np.full(self._fed.shape, np.nan + 1j * np.nan)
        v_pu[self._fed] = volts[self._node] / self._v_base_v
        circuit = self._dss.Circuit
        loss_kw = circuit.Losses()[0] / 1000.0
        circuit.SetActiveElement("vsource.source")
        power = np.array(self._dss.CktElement.Powers()[:6])
        return Flow(v_pu, power[0::2], power[1::2], loss_kw, self._regulator_current(), converged=True)

    def _start(self) -> None:
        """Build the circuit without injections, taps neutral."""
        self._power = np.zeros((len(self._load_bus), 2))
        self._tap = np.zeros(len(self._feeder.regulators.name), dtype=np.int64)
        self._build()

    def _volts(self) -> Complex:
        """Solve, and give the voltages of OpenDSS's nodes [V]."""
        solution, name = self._dss.Solution, self._feeder.name
        try:
            # the direct solution is without injections: from there, no trace of the previous call is left
            solution.SolveDirect()
            solution.SolveNoControl()
        except DSSException as error:
            raise NotConvergedError(f"OpenDSS stopped on feeder {name}: {error}") from error
        volts = np.array(self._dss.Circuit.AllBusVolts()).view(np.complex128)
        if not solution.Converged() or not np.isfinite(volts).all():
            raise NotConvergedError(
                f"OpenDSS found no power flow of feeder {name} in {MAX_ITERATIONS} iterations; "
                f"injections sum to {self._power[:, 0].sum():.0f} kW and {self._power[:, 1].sum():.0f} kvar"
            )
        return volts

    def _set_power(self, wanted: Array) -> None:
        """Hand over the injections that changed, (n_load, 2); OpenDSS counts consumption."""
        lib = self._lib
        for k in np.flatnonzero((wanted != self._power).any(axis=1)).tolist():
            lib.Loads_Set_idx(k + 1)
            lib.Loads_Set_kW(-wanted[k, 0])
            lib.Loads_Set_kvar(-wanted[k, 1])
        self._power = wanted

    def _set_tap(self, tap: Index) -> None:
        moved = np.flatnonzero(tap != self._tap).tolist()
        if not moved:
            return
        regulators, lib = self._feeder.regulators, self._lib
        for k in moved:
            lib.Transformers_Set_idx(k + 1)
            lib.Transformers_Set_Wdg(2)
            lib.Transformers_Set_Tap(1.0 + float(tap[k] * regulators.tap_step_pu[k]))
        self._tap = np.array(tap)
        # a moved tap rebuilds all admittances, those of loads too: unloaded, they depend on taps alone
        self._set_power(np.zeros_like(self._power))
        self._dss.Solution.SolveDirect()

    def _regulator_current(self) -> Complex:
        currents = np.empty(len(self._tap), dtype=np.complex128)
        for k in range(len(currents)):
            self._lib.Transformers_Set_idx(k + 1)
            # conductors: winding 1 phase, neutral, winding 2 phase, neutral; into the element at each
            flat = self._dss.CktElement.Currents()
            currents[k] = -complex(flat[4], flat[5])
        return currents

    def _node_of_terminal(self) -> Index:
        """Find each fed (bus, phase) among OpenDSS's nodes."""
        position = {name: k for k, name in enumerate(self._dss.Circuit.AllNodeNames())}
        terminals = zip(*np.nonzero(self._fed), strict=True)
        return np.array([position[f"b{self._bus[bus]}.{phase + 1}"] for bus, phase in terminals])

    def _build(self) -> None:
        feeder = self._feeder
        self._run("clear")
        self._run(f"set defaultbasefrequency={FREQUENCY_HZ}")
        self._run(
            f"new circuit.feeder bus1={self._at(feeder.source_bus, 'abc')} phases=3 "
            f"basekv={float(feeder.kv_ll[feeder.source_bus])!r} pu={feeder.source_v_pu!r} angle=0 "
            f"r1=0 x1={SOURCE_OHM} r0=0 x0={SOURCE_OHM}"
        )
        self._add_lines()
        self._add_regulators()
        self._add_transformers()
        self._add_capacitors()
        for bus, phase in zip(self._load_bus.tolist(), self._load_phase.tolist(), strict=True):
            where = f"bus1={self._at(bus, 'abc'[phase])} phases=1 conn=wye kv={self._kv_ln(bus)!r}"
            self._run(f"new load.l{bus}_{phase} {where} model=1 kw=0 kvar=0 {ALWAYS_THIS_MODEL}")
        if self._spot_loads:
            self._add_spot_loads()
        self._run("set controlmode=off")
        self._run(f"set mode=snap tolerance={TOLERANCE_PU} maxiterations={MAX_ITERATIONS}")
        self._run("solve")

    def _run(self, command: str) -> None:
        self._dss.Text.Command(command)

    def _kv_ln(self, bus: int) -> float:
        return float(PerUnit(1.0, float(self._feeder.kv_ll[bus])).v_base_v) / 1000.0

    def _at(self, bus: int, phases: str) -> str:
        """Name a terminal; bus names may hold anything, so OpenDSS sees row numbers."""
        return ".".join([f"b{self._bus[bus]}", *(str("abc".index(letter) + 1) for letter in phases)])

    def _add_lines(self) -> None:
        lines = self._feeder.lines
        for k, has_phase in enumerate(lines.has_phase):
            letters = "".join(letter for letter, there in zip("abc", has_phase, strict=True) if there)
            pick = np.ix_(has_phase, has_phase)
            c_nf = lines.b_us[k][pick] * 1e3 / (2.0 * np.pi * FREQUENCY_HZ)
            self._run(
                f"new line.line{k} bus1={self._at(lines.from_bus[k], letters)} "
                f"bus2={self._at(lines.to_bus[k], letters)} phases={len(letters)} length=1 units=none "
                f"rmatrix={_lower(lines.r_ohm[k][pick])} xmatrix={_lower(lines.x_ohm[k][pick])} "
                f"cmatrix={_lower(c_nf)}"
            )

    def _add_regulators(self) -> None:
        regulators = self._feeder.regulators
        for k, (i, j, phase) in enumerate(
            zip(regulators.from_bus, regulators.to_bus, regulators.phase, strict=True)
        ):
            kv, width = self._kv_ln(i), float(regulators.tap_step_pu[k] * regulators.max_tap[k])
            letter = "abc"[phase]
            self._run(
                f"new transformer.reg{k} phases=1 windings=2 "
                f"xhl={REGULATOR_X_PERCENT} %loadloss=0 ppm_antifloat=0 "
                f"buses=({self._at(i, letter)} {self._at(j, letter)}) conns=(wye wye) kvs=({kv!r} {kv!r}) "
                f"kvas=({REGULATOR_KVA} {REGULATOR_KVA}) "
                f"wdg=2 mintap={1 - width!r} maxtap={1 + width!r} tap=1"
            )

    def _add_transformers(self) -> None:
        transformers = self._feeder.transformers
        for k, (i, j) in enumerate(zip(transformers.from_bus, transformers.to_bus, strict=True)):
            conn = {"delta": "delta", "wye_grounded": "wye"}[transformers.conn_high[k]]
            high, low = float(transformers.v_high_kv_ll[k]), float(transformers.v_low_kv_ll[k])
            s_kva = float(transformers.s_kva[k])
            self._run(
                f"new transformer.xfm{k} phases=3 windings=2 xhl={transformers.x_percent[k]} "
                f"%loadloss={transformers.r_percent[k]} %noloadloss=0 %imag=0 "
                f"buses=({self._at(i, 'abc')} {self._at(j, 'abc')}) conns=({conn} {conn}) "
                f"kvs=({high!r} {low!r}) kvas=({s_kva!r} {s_kva!r})"
            )

    def _add_capacitors(self) -> None:
        capacitors = self._feeder.capacitors
        for k, (bus, phase) in enumerate(zip(capacitors.bus, capacitors.phase, strict=True)):
            kv_ln = float(capacitors.kv_ll[k]) / np.sqrt(3.0)
            self._run(
                f"new capacitor.cap{k} bus1={self._at(bus, 'abc'[phase])} phases=1 conn=wye "
                f"kv={float(kv_ln)!r} kvar={capacitors.q_kvar[k]}"
            )

    def _add_spot_loads(self) -> None:
        loads = self._feeder.spot_loads
        for k, (bus, phase) in enumerate(zip(loads.bus, loads.phase, strict=True)):
            kv = self._kv_ln(bus) if loads.connection[k] == "wye" else float(self._feeder.kv_ll[bus])
            self._run(
                f"new load.spot{k} bus1={self._at(bus, phase)} phases=1 conn={loads.connection[k]} kv={kv!r} "
                f"model={MODEL_NUMBER[loads.model[k]]} kw={loads.p_kw[k]} kvar={loads.q_kvar[k]} "
                f"{ALWAYS_THIS_MODEL}"
            )


def _lower(matrix: Array) -> str:
    """Write a symmetric matrix the OpenDSS way, lower triangle by rows."""
    rows = (" ".join(repr(float(value)) for value in matrix[i, : i + 1]) for i in range(len(matrix)))
    return f"[{' | '.join(rows)}]"
