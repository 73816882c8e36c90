"""The transmission grid that a feeder hangs on, in the time domain: a load in, frequencies and flows out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from voltier.grid.errors import FederationError
from voltier.grid.kundur import (
    FEEDER,
    NOMINAL_HZ,
    S_BASE_MVA,
    Array,
    Index,
    lines_of,
    machines_of,
    quiet,
    two_areas,
)

RAMP_S = 1.0
"""Time in which a change of the load happens [s], unless told otherwise."""
ROCOF_WINDOW_S = 0.5
"""Window of the rate of change of frequency [s], what relays and grid codes commonly measure over."""
_SMALL_MW = 40.0
_LEGS_SMALL = ((5.0, 0.1), (np.inf, 0.5))
_LEGS = ((5.0, 1.0 / 30.0), (20.0, 0.1), (np.inf, 0.25))
"""Steps of integration after a change of the load, up to _SMALL_MW and above: until so many seconds after it, steps of
so many. Beyond five seconds, swings of 0.5 Hz between the areas are what lasts."""
_LOWEST_PU, _BAND_HZ = 0.7, 3.0
"""Beyond, protection that is not modelled would have separated the grid."""


@dataclass(frozen=True, slots=True)
class BulkTrace:
    """A stretch of the grid's life at n_t instants, for n_m machines and areas 1 and 2.

    t_s : (n_t,) instants [s], in order, unevenly spaced. machine_hz : (n_t, n_m) frequencies. mechanical_mw,
    electrical_mw : (n_t, n_m) power of turbines, and of generators into the grid. frequency_hz, load_mw : (n_t, 2)
    mean frequency by inertia and consumption of each area. export_mw : (n_t, 2) flow over the tie lines out of each
    area, at its own end. feeder_mw : (n_t,) the part of area 2's load that is the feeders'. loss_mw : (n_t,) losses of
    all lines. v_min_pu : (n_t,) lowest voltage of any bus.
    """

    t_s: Array
    machine_hz: Array
    mechanical_mw: Array
    electrical_mw: Array
    frequency_hz: Array
    load_mw: Array
    export_mw: Array
    feeder_mw: Array
    loss_mw: Array
    v_min_pu: Array

    def between(self, start_s: float, end_s: float) -> BulkTrace:
        """Return the instants with start_s <= t < end_s."""
        keep = (self.t_s >= start_s) & (self.t_s < end_s)
        return BulkTrace(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})


def join(traces: Sequence[BulkTrace]) -> BulkTrace:
    """Return traces that follow each other as one."""
    return BulkTrace(
        **{
            field.name: np.concatenate([getattr(trace, field.name) for trace in traces])
            for field in fields(BulkTrace)
        }
    )


def rocof_hz_per_s(trace: BulkTrace, window_s: float = ROCOF_WINDOW_S) -> Array:
    """Return the change of each area's frequency over the window that ends at each instant, by its length.

    (n_t, 2) [Hz/s]; before a whole window has passed, the window reaches back to the first instant's frequency as if
    it had held before.
    """
    earlier_s = trace.t_s - window_s
    before = np.column_stack([np.interp(earlier_s, trace.t_s, area) for area in trace.frequency_hz.T])
    return np.asarray((trace.frequency_hz - before) / window_s)


@dataclass(frozen=True, slots=True)
class BulkSeconds:
    """A trace second by second: n seconds, areas 1 and 2.

    t_s : (n,) begin of each second. frequency_hz, frequency_min_hz, frequency_max_hz : (n, 2) mean and extremes within
    the second; rocof_hz_per_s : (n, 2) change of frequency over half a second, the largest within the second by size.
    generation_mw, load_mw, export_mw, feeder_mw : (n, 2) means; feeder_mw is zero in area 1.
    """

    t_s: Index
    frequency_hz: Array
    frequency_min_hz: Array
    frequency_max_hz: Array
    rocof_hz_per_s: Array
    generation_mw: Array
    load_mw: Array
    export_mw: Array
    feeder_mw: Array


def by_second(trace: BulkTrace, area: Index, before: BulkTrace | None = None) -> BulkSeconds:
    """Return the seconds of a trace from its first instant on. area : (n_m,) area of each machine.

    before : what came before the trace, for the rate of change at its beginning; none: a steady state.
    """
    # An instant at the end of a second belongs to it; sums of steps miss whole seconds by rounding.
    second = np.ceil(trace.t_s - 1e-6).astype(np.int64) - 1
    t_s, first, count = np.unique(second, return_index=True, return_counts=True)
    whole = trace if before is None else join([before, trace])
    rocof = rocof_hz_per_s(whole)[-len(trace.t_s) :]
    high, low = np.maximum.reduceat(rocof, first), np.minimum.reduceat(rocof, first)

    def mean(values: Array) -> Array:
        return np.asarray(np.add.reduceat(values, first) / count[:, None])

    return BulkSeconds(
        t_s=t_s,
        frequency_hz=mean(trace.frequency_hz),
        frequency_min_hz=np.minimum.reduceat(trace.frequency_hz, first),
        frequency_max_hz=np.maximum.reduceat(trace.frequency_hz, first),
        rocof_hz_per_s=np.where(high > -low, high, low),
        generation_mw=mean(trace.electrical_mw @ (area[:, None] == np.array([1, 2]))),
        load_mw=mean(trace.load_mw),
        export_mw=mean(trace.export_mw),
        feeder_mw=mean(np.column_stack([np.zeros_like(trace.feeder_mw), trace.feeder_mw])),
    )


def join_seconds(parts: Sequence[BulkSeconds]) -> BulkSeconds:
    """Return seconds that follow each other as one."""
    return BulkSeconds(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(BulkSeconds)
        }
    )


class BulkGrid:
    """Two areas with a load of feeders in area 2, simulated step by step.

    Starts in equilibrium at t_s with the feeders drawing p_mw (consumption positive: the grid's view), which replace as
    much of area 2's own load. Only governors act: no secondary control, so that a lasting change of load leaves a
    lasting deviation. Raises InputError and FederationError as two_areas does.
    """

    def __init__(self, p_mw: float, t_s: float = 0.0) -> None:
        self._system = two_areas(p_mw)
        self.machines = machines_of(self._system)
        self._lines = lines_of(self._system)
        self._start_s, self.t_s, self._p_mw = t_s, t_s, p_mw
        loads, buses = self._system.PQ, self._system.Bus
        self._feeder = loads.idx.v.index(FEEDER)
        own = [i for i in range(loads.n) if i != self._feeder]
        self._own_bus = np.array([buses.idx.v.index(loads.bus.v[i]) for i in own], dtype=np.int64)
        # Constant currents: power goes with voltage.
        self._own_mw_per_pu = loads.Ppf.v[own] / buses.v.v[self._own_bus] * S_BASE_MVA
        self._own_in_area = np.array([buses.area.v[i] for i in self._own_bus])[:, None] == np.array([1, 2])

    def now(self) -> BulkTrace:
        """Return the present state as a trace of one instant."""
        dae = self._system.dae
        feeder_mw = np.array([self._p_mw])
        return self._trace(np.array([self.t_s]), dae.x[None, :].copy(), dae.y[None, :].copy(), feeder_mw)

    def step(self, t_s: float, p_mw: float, ramp_s: float = RAMP_S) -> BulkTrace:
        """Advance to t_s, the feeders' power going to p_mw in the first ramp_s seconds; return what came after now.

        Raises FederationError when machines fall out of step, voltage collapses or no solution is found.
        """
        begin_s, before_mw = self.t_s, self._p_mw

        def load_mw(at_s: Array) -> Array:
            return np.asarray(np.interp(at_s, [begin_s, begin_s + ramp_s], [before_mw, p_mw]))

        t, x, y = self._integrate(t_s, load_mw)
        self.t_s, self._p_mw = t_s, float(load_mw(np.array(t_s)))
        trace = self._trace(t, x, y, load_mw(t))
        self._check(trace)
        return trace

    def _integrate(self, t_s: float, load_mw: Callable[[Array], Array]) -> tuple[Array, Array, Array]:
        """Integrate to t_s; return instants, states and algebraic variables of every step."""
        system, begin_s = self._system, self.t_s
        routine, series = system.TDS, system.dae.ts
        power_pu = system.PQ.Ppf.v
        small = abs(float(load_mw(np.array(t_s))) - self._p_mw) <= _SMALL_MW

        def set_load(at_s: Array, _: object) -> None:
            power_pu[self._feeder] = load_mw(at_s + self._start_s) / S_BASE_MVA

        routine.callpert = set_load
        with quiet() as complaints:
            for end_s, step_s in _legs(begin_s, t_s, _LEGS_SMALL if small else _LEGS):
                routine.config.tf, routine.config.tstep = end_s - self._start_s, step_s
                try:
                    done = routine.run(no_summary=True)
                except Exception as error:
                    raise FederationError(f"ANDES gave up the bulk grid near {end_s:g} s: {error}") from error
                if not done:
                    at_s = float(system.dae.t) + self._start_s
                    raise FederationError(f"the bulk grid collapses at {at_s:.2f} s: {'; '.join(complaints)}")
        found = series.t + self._start_s, series.x.copy(), series.y.copy()
        # ANDES would keep every step of the run.
        system.dae.clear_ts()
        return found

    def _trace(self, t_s: Array, x: Array, y: Array, feeder_mw: Array) -> BulkTrace:
        generator, bus = self._system.GENROU, self._system.Bus
        machine_hz = x[:, generator.omega.a] * NOMINAL_HZ
        v_pu = y[:, bus.v.a]
        here_mw, there_mw = self._lines.flow_mw(v_pu * np.exp(1j * y[:, bus.a.a]))
        load_mw = (v_pu[:, self._own_bus] * self._own_mw_per_pu) @ self._own_in_area
        load_mw[:, 1] += feeder_mw
        tie = self._lines.tie
        return BulkTrace(
            t_s=t_s,
            machine_hz=machine_hz,
            mechanical_mw=y[:, generator.tm.a] * S_BASE_MVA,
            electrical_mw=y[:, generator.Pe.a] * S_BASE_MVA,
            frequency_hz=machine_hz @ self.machines.area_share,
            load_mw=load_mw,
            export_mw=np.column_stack([end_mw[:, tie].sum(axis=1) for end_mw in (here_mw, there_mw)]),
            feeder_mw=feeder_mw,
            loss_mw=(here_mw + there_mw).sum(axis=1),
            v_min_pu=v_pu.min(axis=1),
        )

    def _check(self, trace: BulkTrace) -> None:
        """Raise FederationError once the grid is where protection would have acted."""
        off_hz = np.abs(trace.machine_hz - NOMINAL_HZ).max(axis=1)
        lost = (trace.v_min_pu < _LOWEST_PU) | (off_hz > _BAND_HZ)
        if lost.any():
            i = int(np.argmax(lost))
            raise FederationError(
                f"the bulk grid collapses at {trace.t_s[i]:.2f} s: {trace.v_min_pu[i]:.2f} p.u. at the lowest bus, "
                f"{off_hz[i]:.2f} Hz off; the feeders draw {trace.feeder_mw[i]:.0f} MW"
            )


def _legs(begin_s: float, end_s: float, legs: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yield (end of a leg, its step) from a change of the load on."""
    for after_s, step_s in legs:
        leg_s = min(begin_s + after_s, end_s)
        yield leg_s, step_s
        if leg_s == end_s:
            return
