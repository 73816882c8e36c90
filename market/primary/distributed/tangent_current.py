"""Three-phase current injection as a program of atoms, tangent at a point that need not be a power flow.

Columns: [a, b of the free phase nodes | real and imaginary current into each branch at its from-end | net power,
reactive power, generation of the operators | import | room of the watched wires]. Node voltages are v = φ(a + jb) in
the frame φ = v₀/|v₀| of the point, so that limits of |v| are bounds of a. Rows: active and reactive balance of the free
phase nodes with S = v conj(i) tangent at the point, the import, Ohm's law of every branch and phase, the ratings of
watched wires. A bus owns its voltages, balances and operators, and the branch it is fed through.

Losses are power that is drawn and not consumed, a linear cost; what bends them, 2·price·R·|i|², is added to the branch
currents so that the steps from point to point are those of a convex program with the right slopes.
"""

from __future__ import annotations

from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.flow.derivative import N_SOURCE, balance_of, power_derivative, rebalanced
from voltier.grid.flow.nodal import load_current
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.distributed.program import ConvexProgram
from voltier.market.primary.distributed.wires import wires_of
from voltier.market.primary.three_phase.problem import ScaledProblem

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

# Found on IEEE 13, 34 and 123 [$/kWh per p.u.]; a factor of three either way costs a factor of two in rounds.
CURRENT_STIFFNESS = 0.01
VOLTAGE_STIFFNESS = 10.0


@dataclass(frozen=True, slots=True)
class CurrentPoint:
    """Where powers are linearised. v : (n,) voltages ; i : (w,) currents into the branches' wires at the from-end.

    price_usd_per_kwh : mean price of energy, which weighs the bend of losses
    """

    v: Complex
    i: Complex
    price_usd_per_kwh: float


@dataclass(frozen=True, slots=True)
class Layout:
    """First columns and rows of the blocks. n_free, n_wire, n_smo, n_watched : how many there are of each."""

    n_free: int
    n_wire: int
    n_smo: int
    n_watched: int

    @property
    def current(self) -> int:
        """First column of the currents."""
        return 2 * self.n_free

    @property
    def control(self) -> int:
        """First column of the operators' unknowns."""
        return 2 * (self.n_free + self.n_wire)

    @property
    def head(self) -> int:
        """Column of the import."""
        return self.control + 3 * self.n_smo

    @property
    def n_column(self) -> int:
        """All unknowns."""
        return self.head + 1 + self.n_watched

    @property
    def ohm(self) -> int:
        """First row of Ohm's law; the import's row is before it."""
        return 2 * self.n_free + 1

    @property
    def n_row(self) -> int:
        """All equations."""
        return self.ohm + 2 * self.n_wire + self.n_watched


class CurrentTangent:
    """The program of one network and its operators' shares; at(...) moves it to a point and to bids.

    wires : Ohm's law ; watched : wires whose rating is a row ; batteries : how many of the last operators are
    places of their own beside their bus, battery_place (k,)
    """

    def __init__(
        self,
        network: ThreePhaseNetwork,
        share: sparse.csc_matrix,
        *,
        watched: Index | None = None,
        batteries: int = 0,
    ) -> None:
        self._share, self._balance = sparse.csr_matrix(share), balance_of(network)
        self.wires = wires_of(network)
        none = np.zeros(0, dtype=np.int64)
        self.watched = none if watched is None else watched
        n_wire = len(self.wires.from_node)
        self.layout = Layout(share.shape[0] - N_SOURCE, n_wire, share.shape[1], len(self.watched))
        self._places(network, sparse.csc_matrix(share), batteries)

    def _places(self, network: ThreePhaseNetwork, share: sparse.csc_matrix, batteries: int) -> None:
        layout = self.layout
        bus = np.unique(network.node_bus, return_inverse=True)[1].astype(np.int64)
        from_bus, to_bus = bus[self.wires.from_node], bus[self.wires.to_node]
        graph = nx.Graph()
        graph.add_edges_from(set(zip(from_bus.tolist(), to_bus.tolist(), strict=True)))
        source = int(bus[0])
        depth = nx.single_source_shortest_path_length(graph, source)
        deep = np.array([depth[b] for b in range(int(bus.max()) + 1)])
        onward = deep[to_bus] >= deep[from_bus]
        far, near = np.where(onward, to_bus, from_bus), np.where(onward, from_bus, to_bus)
        n_bus = int(bus.max()) + 1
        first = share.indices[share.indptr[:-1]]
        home = bus[first].astype(np.int64)
        own = home.copy()
        if batteries:
            own[-batteries:] = n_bus + np.arange(batteries)
        self.battery_place = own[len(own) - batteries :]
        free = bus[N_SOURCE:]
        self._column_place = np.concatenate(
            [np.tile(free, 2), np.tile(far, 2), np.tile(own, 3), [source], far[self.watched]]
        ).astype(np.int64)
        self._row_place = np.concatenate(
            [np.tile(free, 2), [source], np.tile(far, 2), far[self.watched]]
        ).astype(np.int64)
        links = [np.unique(np.stack([near, far], axis=1), axis=0)]
        order = np.argsort([depth[int(a)] for a in links[0][:, 0]], kind="stable")
        links[0] = links[0][order]
        if batteries:
            links.append(np.stack([home[-batteries:], own[-batteries:]], axis=1))
        self._edge = np.concatenate(links).astype(np.int64)
        self._stiffness = np.ones(layout.n_column)
        below = _bus_below(graph, source, n_bus) / n_bus
        self._stiffness[: 2 * layout.n_free] = VOLTAGE_STIFFNESS * np.tile(below[free], 2)
        self._stiffness[layout.current : layout.control] = CURRENT_STIFFNESS / np.tile(below[far], 2)
        # An operator is shared where it is a place of its own or spans buses: the end of every path.
        self._stiffness[layout.control : layout.head] = CURRENT_STIFFNESS * n_bus

    def point(self, v: Complex, price_usd_per_kwh: float) -> CurrentPoint:
        """Return the point at voltages, with the currents they drive."""
        i = sparse.linalg.spsolve(sparse.csc_matrix(self.wires.at_i), self.wires.at_v @ v)
        return CurrentPoint(v, np.atleast_1d(i), price_usd_per_kwh)

    def start(self, point: CurrentPoint, u: Array, head: float) -> Array:
        """Return the unknowns at a point; u : (3, n_smo) controls, head : import."""
        layout = self.layout
        x = np.zeros(layout.n_column)
        x[: layout.n_free] = np.abs(point.v[N_SOURCE:])
        x[layout.current : layout.control] = np.concatenate([point.i.real, point.i.imag])
        x[layout.control : layout.head] = u.ravel()
        x[layout.head] = head
        x[layout.head + 1 :] = self.wires.i_max_pu[self.watched] - np.abs(point.i[self.watched])
        return x

    def moved(self, point: CurrentPoint, x: Array, price_usd_per_kwh: float) -> CurrentPoint:
        """Return the point that unknowns of the program at another one describe; every bus can do its own part."""
        layout, f, w = self.layout, self.layout.n_free, self.layout.n_wire
        v = point.v.copy()
        v[N_SOURCE:] = point.v[N_SOURCE:] / np.abs(point.v[N_SOURCE:]) * (x[:f] + 1j * x[f : 2 * f])
        i = x[layout.current : layout.current + w] + 1j * x[layout.current + w : layout.control]
        return CurrentPoint(v, i, price_usd_per_kwh)

    def bends(self, point: CurrentPoint, x: Array) -> Array:
        """Return the largest |v conj(i)| that linearising has left over at x at each place, (n_place,) [p.u.]."""
        new = self.moved(point, x, 0.0)
        off = (new.v - point.v) * np.conj(self._drawn(new) - self._drawn(point))
        out = np.zeros(int(max(self._column_place.max(), self._row_place.max(), self._edge.max())) + 1)
        np.maximum.at(out, self._column_place[: self.layout.n_free], np.abs(off[N_SOURCE:]))
        return out

    def prices(self, problem: ScaledProblem, y: Array) -> Complex:
        """Return the P + jQ multipliers of all phase nodes' balances, (n,) [$/kWh], from those of the rows.

        Losses are priced as import and injections here, which lifts every active multiplier by their price.
        """
        f = self.layout.n_free
        price = np.full(f + N_SOURCE, y[2 * f], dtype=np.complex128)
        price[N_SOURCE:] = y[:f] + 1j * y[f : 2 * f]
        return price - problem.bids.loss_price

    def _drawn(self, point: CurrentPoint) -> Complex:
        return np.asarray(self.wires.out_i @ point.i + self.wires.out_v @ point.v)

    def at(self, network: ThreePhaseNetwork, problem: ScaledProblem, point: CurrentPoint) -> ConvexProgram:
        """Return the program tangent at a point.

        network : as this was made for, but loads, in the same structure, and limits of voltages may be others
        """
        layout, bids, f = self.layout, problem.bids, self.layout.n_free
        matrix, rhs, load_slope, load_base = self._equations(network, point)
        curvature, linear = np.zeros(layout.n_column), np.zeros(layout.n_column)
        flat = slice(layout.control, layout.head)
        curvature[flat], linear[flat] = bids.weight.ravel(), bids.linear.ravel()
        # Losses: import and injections, less what loads take.
        linear[layout.control : layout.control + layout.n_smo] += bids.loss_price
        linear[layout.control + 2 * layout.n_smo : layout.head] += bids.loss_price
        linear[: 2 * f] -= bids.loss_price * load_slope
        curvature[layout.head] = bids.import_curvature
        linear[layout.head] = bids.import_price + bids.loss_price
        bend = 2.0 * max(point.price_usd_per_kwh + bids.loss_price, 0.0) * np.tile(self.wires.r_pu, 2)
        here = np.concatenate([point.i.real, point.i.imag])
        curvature[layout.current : layout.control] = bend
        linear[layout.current : layout.control] -= bend * here
        voltage = problem.voltage_weight
        turn = np.conj(point.v[N_SOURCE:]) / np.abs(point.v[N_SOURCE:])
        goal = turn * problem.v_target
        curvature[: 2 * f] += 2.0 * voltage
        linear[: 2 * f] -= 2.0 * voltage * np.concatenate([goal.real, goal.imag])
        low, high = np.full(layout.n_column, -np.inf), np.full(layout.n_column, np.inf)
        # |v| is a + b²/(2|v₀|) to second order, and b is what the angle has moved since the point: small.
        low[:f], high[:f] = network.v_min_pu[N_SOURCE:], network.v_max_pu[N_SOURCE:]
        low[flat], high[flat] = bids.low.ravel(), bids.high.ravel()
        low[layout.head + 1 :] = 0.0
        constant = bids.constant - bids.loss_price * load_base + 0.5 * float(bend @ here**2)
        constant += voltage * float(np.sum(np.abs(goal) ** 2))
        return ConvexProgram(
            curvature=curvature, linear=linear, matrix=matrix, rhs=rhs, low=low, high=high,
            column_place=self._column_place, row_place=self._row_place,
            column_period=np.zeros(layout.n_column, dtype=np.int64),
            row_period=np.zeros(layout.n_row, dtype=np.int64), edge=self._edge, stiffness=self._stiffness,
            price_row=np.arange(2 * f + 1), constant=constant,
        )  # fmt: skip

    def _equations(
        self, network: ThreePhaseNetwork, point: CurrentPoint
    ) -> tuple[sparse.csr_matrix, Array, Array, float]:
        """Return rows and right-hand sides, and the slope and base of what loads take."""
        layout, f, v = self.layout, self.layout.n_free, point.v
        frame = np.ones(len(v), dtype=complex)
        frame[N_SOURCE:] = v[N_SOURCE:] / np.abs(v[N_SOURCE:])
        load = v * np.conj(network.loads.across.conj().T @ load_current(network, v))
        # What loads take, without the network.
        balance = rebalanced(self._balance, network)
        load_v, load_c = power_derivative(balance._replace(y=np.zeros_like(balance.y)), v)
        drawn = self._drawn(point)
        # S = v conj(i): dS = conj(i) dv + v conj(out_i di + out_v dv), and the loads' own.
        by_v = sparse.csr_matrix(sparse.diags(np.conj(drawn)) + load_v)
        by_vc = sparse.csr_matrix(sparse.diags(v) @ self.wires.out_v.conj() + load_c)
        by_ic = sparse.csr_matrix(sparse.diags(v) @ self.wires.out_i.conj())
        free = sparse.diags(frame).tocsr()[:, N_SOURCE:]
        along = by_v @ free + by_vc @ free.conj()
        across = 1j * (by_v @ free - by_vc @ free.conj())
        power = _with_diagonals(sparse.hstack([along, across, by_ic, -1j * by_ic]), f)
        at = np.concatenate([np.abs(v[N_SOURCE:]), np.zeros(f), point.i.real, point.i.imag])
        base = v * np.conj(drawn) + load - power @ at
        s = self._share
        nothing = sparse.csr_matrix(s.shape)
        inject_p, inject_q = sparse.hstack([s, nothing, s]), sparse.hstack([nothing, s, nothing])
        p, q = sparse.hstack([power.real, -inject_p]).tocsr(), sparse.hstack([power.imag, -inject_q]).tocsr()
        head = sparse.csr_matrix(p[:N_SOURCE].sum(axis=0))
        import_row = sparse.hstack([head, sparse.csr_matrix([[-1.0]])])
        none = sparse.csr_matrix((f, 1))
        balances = sparse.vstack(
            [sparse.hstack([p[N_SOURCE:], none]), sparse.hstack([q[N_SOURCE:], none]), import_row]
        )
        rhs = -np.concatenate([base.real[N_SOURCE:], base.imag[N_SOURCE:], [base.real[:N_SOURCE].sum()]])
        ohm, ohm_rhs = self._ohm(v, free)
        rating, room = self._ratings(point)
        width = layout.n_column
        rows = [_wide(part, width) for part in (balances, ohm)] + [rating]
        slope_v = np.asarray(load_v.sum(axis=0)).ravel(), np.asarray(load_c.sum(axis=0)).ravel()
        slope = np.concatenate(
            [
                (slope_v[0] @ free + slope_v[1] @ free.conj()).real,
                (1j * (slope_v[0] @ free - slope_v[1] @ free.conj())).real,
            ]
        )
        consumed = float(load.real.sum() - slope[:f] @ np.abs(v[N_SOURCE:]))
        return sparse.csr_matrix(sparse.vstack(rows)), np.concatenate([rhs, ohm_rhs, room]), slope, consumed

    def _ohm(self, v: Complex, free: sparse.csr_matrix) -> tuple[sparse.csr_matrix, Array]:
        gap, drop = self.wires.at_v, self.wires.at_i
        by_v = sparse.csr_matrix(gap @ free)
        known = gap[:, :N_SOURCE] @ v[:N_SOURCE]
        rows = sparse.vstack(
            [
                sparse.hstack([by_v.real, -by_v.imag, -drop.real, drop.imag]),
                sparse.hstack([by_v.imag, by_v.real, -drop.imag, -drop.real]),
            ]
        )
        return sparse.csr_matrix(rows), -np.concatenate([known.real, known.imag])

    def _ratings(self, point: CurrentPoint) -> tuple[sparse.csr_matrix, Array]:
        """Return the rows tangent·i + room = rating; the tangent of |i| at i₀ has no constant term."""
        layout, count = self.layout, len(self.watched)
        i = point.i[self.watched]
        turn = i / np.maximum(np.abs(i), 1e-9)
        k = np.arange(count)
        row = np.concatenate([k, k, k])
        column = np.concatenate(
            [
                layout.current + self.watched,
                layout.current + layout.n_wire + self.watched,
                layout.head + 1 + k,
            ]
        )
        value = np.concatenate([turn.real, turn.imag, np.ones(count)])
        return sparse.csr_matrix((value, (row, column)), shape=(count, layout.n_column)), self.wires.i_max_pu[
            self.watched
        ]


def _wide(matrix: sparse.spmatrix, width: int) -> sparse.csr_matrix:
    coo = sparse.coo_matrix(matrix)
    return sparse.csr_matrix((coo.data, (coo.row, coo.col)), shape=(coo.shape[0], width))


def _with_diagonals(power: sparse.spmatrix, f: int) -> sparse.csr_matrix:
    """Return power with entries, zero or not, of every free node's own voltage: where no current flows they vanish."""
    coo, k = sparse.coo_matrix(power), np.arange(f)
    row, column = np.concatenate([coo.row, N_SOURCE + k, N_SOURCE + k]), np.concatenate([coo.col, k, f + k])
    return sparse.csr_matrix((np.append(coo.data, np.zeros(2 * f)), (row, column)), shape=coo.shape)


def _bus_below(graph: nx.Graph, source: int, n_bus: int) -> Array:
    """Return how many buses hang at each bus of a breadth-first tree, itself among them."""
    below = np.ones(n_bus)
    for above, bus in reversed(list(nx.bfs_edges(graph, source))):
        below[above] += below[bus]
    return below
