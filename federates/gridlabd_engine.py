"""GridLAB-D behind the PowerFlow port: the feeder as its model, solved in a supervised process of its own.

It stands in this room because it starts processes, measures wall time and may have to end what does not end by itself;
the grid's operator gets it as a function from above.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import networkx as nx
import numpy as np

from voltier.federates.gridlabd_child import ChildLost, GridlabdChild, GridlabdSaid
from voltier.federates.gridlabd_premises import PremisesInModel
from voltier.federates.gridlabd_worker import Request
from voltier.grid.errors import FederationError, InputError, NotConvergedError, Problem
from voltier.grid.feeder import Feeder
from voltier.grid.flow.port import Array, Complex, Flow, Index, PowerFlow, check_places
from voltier.grid.perunit import PerUnit
from voltier.grid.topology import closed_edges, reached
from voltier.grid.writers.glm_devices import injection_name, power_property, regulator_rows
from voltier.grid.writers.glm_network import GlmFeeder, PhaseInjections, number
from voltier.grid.writers.gridlabd import GlmSetting, gridlabd_model

GRIDLABD = "gridlabd"
MINUTE = timedelta(minutes=1)
START = datetime(2020, 1, 1)
LEAD_MIN = 12
"""Minutes by which a model with premises begins before its first: every solution needs a minute of its own, and the
regulators may take eleven to settle."""
# A power flow without solution ends after 10 times 50 Newton steps, half a second, instead of a minute; one with
# a solution takes less than 10 Newton steps.
LIMIT = "#set iteration_limit=10\n"
# step_to needs something that changes every minute, or it runs past the time it is given
HEARTBEAT = (
    f"schedule heartbeat {{ {','.join(map(str, range(0, 60, 2)))} * * * * 1; "
    f"{','.join(map(str, range(1, 60, 2)))} * * * * 2; }}\n"
)
SETTING = GlmSetting(
    about="its injections set from outside, minute by minute",
    stop="2099-12-31 00:00:00",
    powerflow=(("NR_iteration_limit", "50"), ("line_limits", "false")),
)
BALANCE_SHARE, BALANCE_KW = 1e-4, 0.05
"""What may be missing between injections, import and losses; Newton's rest and printed digits are far below."""
# the property power_losses counts what flows backwards as a loss too
LINK_POWERS = [
    (kind, key)
    for kind in ("overhead_line", "switch", "regulator", "transformer")
    for key in ("power_in", "power_out")
]
REMEDY = "look at the injections of that minute, or choose feeder.engine: opendss"


def check_gridlabd(engine: str) -> None:
    """Raise InputError if this engine is GridLAB-D and its package is not installed."""
    if engine == GRIDLABD and importlib.util.find_spec(GRIDLABD) is None:
        remedy = 'install the package: pip install "voltier[gridlabd]", or choose opendss'
        raise InputError([Problem("feeder", "engine", engine, remedy)])


@contextmanager
def process_engines() -> Iterator[dict[str, Callable[[Feeder], PowerFlow]]]:
    """Give the engines that run as processes, by name, and end at last whatever was made of them."""
    made: list[GridlabdFlow] = []

    def gridlabd(feeder: Feeder) -> PowerFlow:
        check_gridlabd(GRIDLABD)
        made.append(GridlabdFlow(feeder))
        return made[-1]

    try:
        yield {GRIDLABD: gridlabd}
    finally:
        for flow in made:
            flow.close()


@dataclass(frozen=True, slots=True)
class _State:
    """What GridLAB-D is given: taps (n_reg,), injections (n_place, 2) [kW, kvar]."""

    tap: Index
    power: Array


class GridlabdFlow:
    """GridLAB-D's Newton power flow of a feeder, as voltier.grid.writers.gridlabd writes it.

    A load stands at every fed (bus, phase) and is set each time; regulators are held at the taps given. Each solution
    starts from the one before, and ends at a step of 1e-8 of nominal voltage. Behind delta windings no injection is
    accepted; voltages there are those of the high side without zero sequence (line charging there is left out).

    A process that hangs, dies, or finds no solution is replaced once by a new one that starts from the last good
    state and tries the same minute again; the solution then says so in its note.

    Premises that live in the model go on with its clock, which then is that of the run (see begin); a new process has
    them begin again, and the note says so.

    timeout_s : wall time that a solution may take, and a start (which loads the model) ; premises : None, or what
    lives in the model beside the injections
    Raises InputError where the package is missing or the feeder cannot be written as a model.
    """

    def __init__(
        self, feeder: Feeder, *, timeout_s: float = 30.0, premises: PremisesInModel | None = None
    ) -> None:
        check_gridlabd(GRIDLABD)
        self._feeder, self._timeout_s, self._premises = feeder, timeout_s, premises
        self._model = GlmFeeder.of(feeder, keeps_open=True)
        self._mask = self._model.fed
        self._place = np.argwhere(self._mask)
        self._regulators = regulator_rows(self._model)
        self._floating = _high_side(feeder, self._mask)
        self._reads = self._all_reads()
        n_reg = len(feeder.regulators.name)
        self._good = _State(np.zeros(n_reg, dtype=np.int64), np.zeros((len(self._place), 2)))
        self._child: GridlabdChild | None = None
        self._held = self._good
        self._t_s = 0
        self._clock, self._started_s = START, 0

    def begin(self, t_s: int) -> None:
        """Say the simulated second, a whole minute, that the next solutions are for; only premises heed it."""
        self._t_s = t_s

    def solve(self, p_kw: Array, q_kvar: Array, tap: Index) -> Flow:
        """Solve for constant-power injections at every bus and phase (see PowerFlow.solve).

        Raises NotConvergedError when GridLAB-D finds no solution, twice; FederationError when its process hangs or
        dies, twice.
        """
        check_places(self._feeder.bus, self._mask, p_kw, q_kvar)
        state = _State(np.array(tap), np.column_stack([p_kw[self._mask], q_kvar[self._mask]]))
        note = ""
        try:
            flow = self._attempt(state)
        except (ChildLost, GridlabdSaid) as first:
            self.close()
            begun_again = "; its premises begin again at their set-points" if self._premises else ""
            note = f"GridLAB-D was started anew from its last good state{begun_again}: {first}"
            try:
                flow = self._attempt(state)
            except GridlabdSaid as second:
                self.close()
                raise NotConvergedError(self._why(state, second)) from second
            except ChildLost as second:
                self.close()
                raise FederationError(self._why(state, second)) from second
        self._good = state
        return replace(flow, note=note) if note else flow

    def close(self) -> None:
        """End the process; the next solution starts another."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def _why(self, state: _State, error: Exception) -> str:
        total = state.power.sum(axis=0)
        return (
            f"GridLAB-D gave no power flow of feeder {self._feeder.name}, also after a new start from the last good "
            f"state; injections sum to {total[0]:.0f} kW and {total[1]:.0f} kvar; {REMEDY}\n{error}"
        )

    def _attempt(self, state: _State) -> Flow:
        """Bring the process to a state, starting it if there is none, and read the solution."""
        if self._child is None:
            self._start()
        assert self._child is not None
        self._clock = self._next_instant()
        until = self._clock.strftime("%Y-%m-%dT%H:%M:%S")
        writes = self._writes(state)
        values = self._child.ask(
            Request(self._timeout_s, writes=writes, until=until, reads=self._reads, sums=LINK_POWERS)
        )
        self._held = state
        return self._flow(state, values)

    def _next_instant(self) -> datetime:
        """Give the instant to solve: the next minute, with premises the run's, or one of those before the first."""
        after = self._clock + MINUTE
        if self._premises is None:
            return after
        now = self._premises.start + timedelta(seconds=self._t_s)
        if after > now:
            raise FederationError(f"GridLAB-D's premises cannot go back to {now:%Y-%m-%d %H:%M}")
        return after if self._started_s == self._t_s else now

    def _start(self) -> None:
        """Start a process and load the model in the last good state."""
        bus, phase = self._place.T
        injection = PhaseInjections(bus, phase, self._good.power[:, 0], self._good.power[:, 1])
        setting, more, self._clock, self._started_s = SETTING, "", START, self._t_s
        if self._premises is not None:
            self._clock = self._premises.start + timedelta(seconds=self._t_s) - LEAD_MIN * MINUTE
            setting = replace(SETTING, start=f"{self._clock:%Y-%m-%d %H:%M:%S}")
            more = self._premises.text(self._model)
        text = gridlabd_model(self._feeder, self._good.tap, injection, setting=setting) + more
        self._child, self._held = GridlabdChild(), self._good
        try:
            self._child.ask(Request(self._timeout_s, model=LIMIT + text + HEARTBEAT))
        except GridlabdSaid as error:
            raise ChildLost(f"the model could not be loaded: {error}") from error

    def _writes(self, state: _State) -> list[tuple[str, str, str]]:
        """List what differs from what the process holds; loads count consumption [VA]."""
        writes = []
        for k in np.flatnonzero((state.power != self._held.power).any(axis=1)).tolist():
            bus, phase = self._place[k]
            va = -1000.0 * complex(*state.power[k])
            writes.append((injection_name(self._model.name[bus]), power_property(phase), number(va)))
        for name, rows in self._regulators.items():
            moved = [k for k in rows if state.tap[k] != self._held.tap[k]]
            writes += [(name, f"tap_{self._letter(k)}", str(int(state.tap[k]))) for k in moved]
        return writes if self._premises is None else writes + self._premises.writes(self._t_s)

    def _letter(self, regulator: int) -> str:
        return "ABC"[self._feeder.regulators.phase[regulator]]

    def _all_reads(self) -> list[tuple[str, str]]:
        """List what _flow takes apart: voltages, substation, regulators."""
        name = self._model.name
        source = name[self._feeder.source_bus]
        regulators = [(name, self._letter(k)) for name, rows in self._regulators.items() for k in rows]
        return [
            *((name[bus], f"voltage_{'ABC'[phase]}") for bus, phase in self._place.tolist()),
            *((source, f"measured_power_{letter}") for letter in "ABC"),
            *((regulator, f"current_out_{letter}") for regulator, letter in regulators),
            *(() if self._premises is None else self._premises.reads),
        ]

    def _flow(self, state: _State, values: Complex) -> Flow:
        n_place, rows = len(self._place), [k for rows in self._regulators.values() for k in rows]
        n_own = 0 if self._premises is None else len(self._premises.reads)
        volts, import_va, amps, own_values, through_va = np.split(
            values, np.cumsum([n_place, 3, len(rows), n_own])
        )
        v_pu = np.full(self._mask.shape, np.nan + 1j * np.nan)
        bus = self._place[:, 0]
        v_pu[self._mask] = volts / np.asarray(PerUnit(1.0, self._feeder.kv_ll[bus]).v_base_v)
        for there, high in self._floating.items():
            # a delta winding passes no zero sequence
            v_pu[there] = v_pu[high] - v_pu[high].mean()
        current = np.zeros(len(self._feeder.regulators.name), dtype=np.complex128)
        current[rows] = amps
        p_cc_kw = -import_va.real / 1000.0
        loss_kw = float((through_va[0::2] - through_va[1::2]).real.sum() / 1000.0)
        own, injected_kw = None, float(state.power[:, 0].sum())
        if self._premises is not None:
            own, service_loss_kw = self._premises.take(own_values, self._mask.shape)
            loss_kw -= service_loss_kw
            injected_kw += float(own.p_kw.sum())
        missing_kw = injected_kw - float(p_cc_kw.sum()) - loss_kw
        if not abs(missing_kw) < BALANCE_KW + BALANCE_SHARE * np.abs(state.power[:, 0]).sum():
            raise GridlabdSaid(f"its answer lacks {missing_kw:g} kW between injections, import and losses")
        q_cc_kvar = -import_va.imag / 1000.0
        return Flow(v_pu, p_cc_kw, q_cc_kvar, loss_kw, current, converged=True, own=own)


def _high_side(feeder: Feeder, grounded: np.ndarray) -> dict[int, int]:
    """Give, for each bus that hangs on a delta winding, the bus at the high side of that winding."""
    dark = (reached(feeder) & ~grounded).any(axis=1)
    graph = nx.Graph((edge.from_bus, edge.to_bus) for edge in closed_edges(feeder))
    ways = nx.single_source_shortest_path(graph, feeder.source_bus)
    return {
        bus: next(at for at in reversed(ways[bus]) if not dark[at]) for bus in np.flatnonzero(dark).tolist()
    }
