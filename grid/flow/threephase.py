"""Our own three-phase power flow, for radial and meshed networks.

With the admittances and the constant-impedance loads in one matrix, v = z·(i(v) + i_source) is iterated on its
factors; each pass costs two triangular solves. It contracts wherever the loads are small beside the short-circuit
power; where it does not, Newton's method takes over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.errors import InputError, PowerFlowError, Problem
from voltier.grid.flow.derivative import N_SOURCE, PowerJacobian, balance_of, entry_pairs
from voltier.grid.flow.ldl import Pattern, factorise, pattern_of, solve_in_place
from voltier.grid.flow.nodal import injection_needed
from voltier.grid.threephase import ThreePhaseNetwork

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

MAX_PASSES = 200  # a pass costs a hundredth of a Newton step
MAX_STEPS = 40
SHORTEST_STEP = 2.0**-12
ROUNDING = 8.0 * float(np.finfo(np.float64).eps)
# Admittances are inverses and sums of some 1e3 terms; what differs by more than this share of a row is no rounding.
SYMMETRY = 1e-9


@dataclass(frozen=True, slots=True)
class PowerFlow3:
    """A solved three-phase power flow.

    v : (n,) complex voltages of the phase nodes, per unit, rotated frame
    iterations : passes of the fixed point and Newton steps together
    residual_pu : largest missing power at a node beside the source, on the base of a phase
    """

    v: Complex
    iterations: int
    residual_pu: float


def solve_power_flow(
    network: ThreePhaseNetwork, s_injection_pu: Complex, v0: Complex | None = None, tol: float = 1e-10
) -> PowerFlow3:
    """Find the voltages at which injections and the network's own loads balance.

    See ThreePhaseFlow.solve; for many solutions of one network keep a ThreePhaseFlow.
    """
    return ThreePhaseFlow(network).solve(s_injection_pu, v0, tol)


@dataclass(frozen=True, slots=True)
class _Structure:
    """Where the numbers of a network go; the same for all its taps.

    entry, start, column : (w,) place of each part in the joined matrix, which is csr
    first, second, load : entries of across, two by two, and the load they belong to
    free, pattern : entries of the joined matrix between nodes beside the source, and the layout of their factor
    row, mirror : of each free entry its node, and the free entry across the diagonal
    turn, node_turn : take an entry of the joined matrix, and a current at a node beside the source, out of the
    rotated frame: only there the matrix is symmetric
    """

    entry: Index
    start: Index
    column: Index
    first: Index
    second: Index
    load: Index
    free: Index
    row: Index
    mirror: Index
    turn: Complex
    node_turn: Complex
    pattern: Pattern


class ThreePhaseFlow:
    """A network made ready for power flow: factors are kept for any number of injections.

    Raises InputError for admittances that are not symmetric, as those of lines, transformers and capacitors are.
    """

    def __init__(self, network: ThreePhaseNetwork) -> None:
        self._prepare(network, _structure(network))

    def _prepare(self, network: ThreePhaseNetwork, structure: _Structure) -> None:
        self._network, self._structure = network, structure
        loads = network.loads
        data = loads.across.data
        shunt = np.conj(loads.s_impedance) / loads.v_nominal_pu**2
        folded = np.conj(data[structure.first]) * data[structure.second] * shunt[structure.load]
        part, place = np.concatenate([network.y.data, folded]), structure.entry
        count, n = len(structure.column), len(network.node_bus)
        joined = np.bincount(place, part.real, count) + 1j * np.bincount(place, part.imag, count)
        matrix = sparse.csr_matrix((joined, structure.column, structure.start), (n, n))
        held = np.zeros(n, dtype=np.complex128)
        held[:N_SOURCE] = network.v_source_pu
        self._joined, self._source_current = joined, -(matrix @ held)[N_SOURCE:]
        self._s_power = loads.s_power.conj()
        self._s_current: Complex = loads.s_current.conj() / loads.v_nominal_pu
        inner = (joined * structure.turn)[structure.free]
        off = np.abs(inner - inner[structure.mirror])
        size = np.bincount(structure.row, np.abs(inner), n)
        other = structure.row[structure.mirror]
        # not a number is not symmetric
        lopsided = np.flatnonzero(~(off <= SYMMETRY * np.minimum(size[structure.row], size[other])))
        if len(lopsided):
            raise _unsymmetric(network, structure.row[lopsided], other[lopsided], off[lopsided])
        self._factor = factorise(structure.pattern, inner)
        self._size = _row_sums(network.y)

    def retuned(self, network: ThreePhaseNetwork) -> ThreePhaseFlow:
        """Give the flow of the same network at other taps or load levels; the structure is not looked at again."""
        other = ThreePhaseFlow.__new__(ThreePhaseFlow)
        other._prepare(network, self._structure)
        return other

    def solve(self, s_injection_pu: Complex, v0: Complex | None = None, tol: float = 1e-10) -> PowerFlow3:
        """Find the voltages at which injections and the network's own loads balance.

        s_injection_pu : (n,) constant power at each node, on the base of a phase, load negative; at nodes 0 to 2 the
        source takes it up ; v0 : (n,) where to start, nominal voltages when not given
        tol : largest power missing at a node; where admittances are so large that their rounding is more than that,
        their rounding is what is met

        Raises PowerFlowError when neither method finds such voltages.
        """
        network = self._network
        v = np.ones(len(network.node_bus), dtype=np.complex128) if v0 is None else np.array(v0, np.complex128)
        v[:N_SOURCE] = network.v_source_pu
        passes, residual_pu = self._fixed_point(s_injection_pu, v, tol)
        # not a number is never met
        if residual_pu <= tol or residual_pu <= self._met(v, tol):
            return PowerFlow3(v, passes, residual_pu)
        v, steps = self._newton(s_injection_pu, self._unloaded(), tol)
        return PowerFlow3(v, passes + steps, self._residual(s_injection_pu, v))

    def _fixed_point(self, s_injection_pu: Complex, v: Complex, tol: float) -> tuple[int, float]:
        """Iterate v in place; give the number of passes and the largest missing power."""
        structure, factor, across = self._structure, self._factor, self._network.loads.across
        result: tuple[int, float] = _iterate(
            np.conj(s_injection_pu[N_SOURCE:]), self._source_current, structure.node_turn,
            factor.order, factor.l_start, factor.l_row, factor.l_value, factor.d_inverse,
            across.indptr, across.indices, across.data, self._s_power, self._s_current,
            structure.start, structure.column, self._joined,
            v, tol, MAX_PASSES,
        )  # fmt: skip
        return result

    def _unloaded(self) -> Complex:
        """Give the voltages that admittances and constant-impedance loads alone would have."""
        factor, turn = self._factor, self._structure.node_turn
        current = turn * self._source_current
        solve_in_place(
            factor.order, factor.l_start, factor.l_row, factor.l_value, factor.d_inverse,
            current, np.empty_like(current),
        )  # fmt: skip
        held = np.full(N_SOURCE, self._network.v_source_pu, dtype=np.complex128)
        return np.concatenate([held, np.conj(turn) * current])

    def _newton(self, s_injection_pu: Complex, v: Complex, tol: float) -> tuple[Complex, int]:
        """Newton's method on the missing power, steps halved until less is missing."""
        network, f = self._network, len(v) - N_SOURCE
        balance = balance_of(network)
        tangent = PowerJacobian(balance)
        missing = _missing(network, s_injection_pu, v)
        for step in range(MAX_STEPS):
            if np.abs(missing).max(initial=0.0) <= self._met(v, tol):
                return v, step
            tangent.fill(balance, v)
            try:
                move = tangent.factor().solve(np.concatenate([missing.real, missing.imag]))
            except RuntimeError as error:
                raise self._failure(s_injection_pu, v, "the equations became singular") from error
            change, size = np.zeros_like(v), 1.0
            change[N_SOURCE:] = tangent.frame[N_SOURCE:] * (move[:f] + 1j * move[f:])
            before = np.linalg.norm(missing)
            while size >= SHORTEST_STEP:
                missing = _missing(network, s_injection_pu, v + size * change)
                if np.linalg.norm(missing) < (1.0 - 1e-4 * size) * before:
                    break
                size /= 2.0
            else:
                raise self._failure(s_injection_pu, v, "no step brings the mismatch down")
            v = v + size * change
        raise self._failure(s_injection_pu, v, f"{MAX_STEPS} Newton steps were not enough")

    def _residual(self, s_injection_pu: Complex, v: Complex) -> float:
        return float(np.abs(_missing(self._network, s_injection_pu, v)).max(initial=0.0))

    def _met(self, v: Complex, tol: float) -> float:
        """Give the mismatch that counts as none at these voltages."""
        size = np.abs(v).max()
        return max(tol, ROUNDING * float(self._size * size * size))

    def _failure(self, s_injection_pu: Complex, v: Complex, why: str) -> PowerFlowError:
        network, loads = self._network, self._network.loads
        s_kva = network.s_phase_kva * s_injection_pu.sum()
        load_kva = network.s_phase_kva * (loads.s_power + loads.s_current + loads.s_impedance).sum()
        missing_kva = network.s_phase_kva * np.abs(_missing(network, s_injection_pu, v))
        node = int(np.argmax(missing_kva)) + N_SOURCE
        where = f"{network.bus[network.node_bus[node]]}.{'abc'[network.node_phase[node]]}"
        return PowerFlowError(
            f"no voltages carry injections of {s_kva.real:.0f} kW, {s_kva.imag:.0f} kvar and loads of "
            f"{load_kva.real:.0f} kW, {load_kva.imag:.0f} kvar: {why}; "
            f"{missing_kva.max():.3g} kVA are missing at bus {where}"
        )


def _missing(network: ThreePhaseNetwork, s_injection_pu: Complex, v: Complex) -> Complex:
    """Give the power that the injections lack at each node beside the source."""
    lacking: Complex = (s_injection_pu - injection_needed(network, v))[N_SOURCE:]
    return lacking


def _unsymmetric(network: ThreePhaseNetwork, row: Index, column: Index, off: Array) -> InputError:
    """Say between which nodes admittances differ with their direction, the pair of the largest difference."""
    worst = int(np.argmax(np.nan_to_num(off, nan=np.inf)))
    ends = [
        f"{network.bus[network.node_bus[node]]}.{'abc'[network.node_phase[node]]}"
        for node in (row[worst], column[worst])
    ]
    remedy = "mend the branches there: the admittance from one to the other must be that of the way back"
    return InputError([Problem(f"nodes {ends[0]} and {ends[1]}", "y", float(off[worst]), remedy)])


def _row_sums(y: sparse.csr_matrix) -> float:
    rows = np.repeat(np.arange(y.shape[0]), np.diff(y.indptr))
    return float(np.bincount(rows, np.abs(y.data), y.shape[0])[N_SOURCE:].max(initial=0.0))


def _structure(network: ThreePhaseNetwork) -> _Structure:
    y, across, n = network.y, network.loads.across, len(network.node_bus)
    first, second = entry_pairs(across.indptr)
    load = np.repeat(np.arange(across.shape[0]), np.diff(across.indptr))
    row = np.concatenate([np.repeat(np.arange(n), np.diff(y.indptr)), across.indices[first]])
    column = np.concatenate([y.indices, across.indices[second]])
    key, entry = np.unique(row.astype(np.int64) * n + column, return_inverse=True)
    row, column = key // n, key % n
    free = np.flatnonzero((row >= N_SOURCE) & (column >= N_SOURCE))
    across_diagonal = column[free].astype(np.int64) * n + row[free]
    mirror = np.minimum(np.searchsorted(key[free], across_diagonal), len(free) - 1)
    alone = np.flatnonzero(key[free][mirror] != across_diagonal)
    if len(alone):
        ends = row[free][alone], column[free][alone]
        raise _unsymmetric(network, *ends, np.abs(np.asarray(y[ends]).ravel()))
    turn = np.exp(1j * network.rotation_rad)
    inner_start = np.searchsorted(row[free], np.arange(N_SOURCE, n + 1))
    return _Structure(
        entry=entry.astype(np.int64),
        start=np.searchsorted(key, np.arange(n + 1) * n),
        column=column,
        first=first,
        second=second,
        load=load[first],
        free=free,
        row=row[free],
        mirror=mirror,
        turn=turn[row] * np.conj(turn[column]),
        node_turn=turn[N_SOURCE:],
        pattern=pattern_of(inner_start, column[free] - N_SOURCE),
    )


@njit(cache=True, error_model="numpy")
def _iterate(
    s_conj: Complex, i_source: Complex, turn: Complex,
    order: Index, l_start: Index, l_row: Index, l_value: Complex, d_inverse: Complex,
    across_start: Index, across_node: Index, across: Complex, s_power: Complex, s_current: Complex,
    start: Index, column: Index, joined: Complex,
    v: Complex, tol: float, max_passes: int,
) -> tuple[int, float]:  # fmt: skip
    """Iterate v in place until no node's power moves by more than tol, or the iteration does not contract.

    Gives the passes, and the largest power missing against the joined matrix.
    """
    n = len(s_conj)
    last, now, work = np.empty_like(s_conj), np.empty_like(s_conj), np.empty_like(s_conj)
    best, passes = np.inf, 0
    _injected(s_conj, across_start, across_node, across, s_power, s_current, v, now)
    while passes < max_passes:
        for k in range(n):
            last[k] = now[k]
            now[k] = turn[k] * (now[k] + i_source[k])
        solve_in_place(order, l_start, l_row, l_value, d_inverse, now, work)
        for k in range(n):
            v[k + N_SOURCE] = turn[k].conjugate() * now[k]
        passes += 1
        _injected(s_conj, across_start, across_node, across, s_power, s_current, v, now)
        moved = 0.0
        for k in range(n):
            moved = max(moved, _squared(v[k + N_SOURCE]) * _squared(now[k] - last[k]))
        if moved <= tol * tol or not moved < 1e4 * best:
            break
        best = min(best, moved)
    missing = 0.0
    for k in range(n):
        lacking = now[k]
        for p in range(start[k + N_SOURCE], start[k + N_SOURCE + 1]):
            lacking -= joined[p] * v[column[p]]
        size = _squared(v[k + N_SOURCE]) * _squared(lacking)
        if not size <= missing:
            missing = size
            if np.isnan(size):
                break
    return passes, np.sqrt(missing)


@njit(cache=True, error_model="numpy")
def _injected(
    s_conj: Complex, across_start: Index, across_node: Index, across: Complex, s_power: Complex, s_current: Complex,
    v: Complex, current: Complex,
) -> None:  # fmt: skip
    """Write the current into each node beside the source, constant-impedance loads aside."""
    for k in range(len(s_conj)):
        at_node = v[k + N_SOURCE]
        current[k] = s_conj[k] * at_node * (1.0 / _squared(at_node))
    for load in range(len(s_power)):
        v_load = 0j
        for p in range(across_start[load], across_start[load + 1]):
            v_load += across[p] * v[across_node[p]]
        size = _squared(v_load)
        draw = (s_power[load] + s_current[load] * np.sqrt(size)) * v_load * (1.0 / size)
        for p in range(across_start[load], across_start[load + 1]):
            if across_node[p] >= N_SOURCE:
                current[across_node[p] - N_SOURCE] -= across[p].conjugate() * draw


@njit(cache=True)
def _squared(x: complex) -> float:
    return x.real * x.real + x.imag * x.imag
