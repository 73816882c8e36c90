"""The semidefinite relaxation of the three-phase market and the lower bound that its dual certifies.

Moments of voltages and branch drops (moments.py) replace their products; a positive semidefinite matrix per branch,
voltage-dependent loads between chords and tangents, and the ranges found by bound tightening hold them together.
Every feasible dispatch is a point of the program, on trees and on meshed networks, whatever its prices are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import clarabel
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.current_injection.bounds import Bounds, Tightening
from voltier.market.primary.current_injection.case import Case
from voltier.market.primary.current_injection.certificate import Program, certified_value, proves_empty
from voltier.market.primary.current_injection.collect import Products
from voltier.market.primary.current_injection.envelopes import envelope_rows
from voltier.market.primary.current_injection.intervals import Rectangle, join, meet
from voltier.market.primary.current_injection.layout import (
    Affine,
    Block,
    Layout,
    Scaling,
    cone_rows,
    expand,
    expand_sums,
    pick,
    scale_quantities,
)
from voltier.market.primary.current_injection.load_moments import (
    MARGIN_PU,
    current_rows,
    magnitude_rows,
    power_rows,
    square_rows,
)
from voltier.market.primary.current_injection.moments import Moments, build_moments
from voltier.market.primary.current_injection.terminals import N_SOURCE, Terminals
from voltier.market.primary.problem import ScaledBids

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

# Static regularisation of the solver's linear systems, tried in this order.
REGULARISATION = (1e-9, 1e-8, 1e-7)
SOLVED = ("Solved", "AlmostSolved")
# A dual point that proves less than the value by more than this, relative to it or to one, is not good enough.
PROVEN = 1e-4


@dataclass(frozen=True, slots=True)
class Instance:
    """A case as numbers: the program, the ranges and scaling of its quantities, the rows of its losses."""

    program: Program
    box: Rectangle
    scaling: Scaling
    loss: Affine


@dataclass(frozen=True, slots=True)
class ConePoint:
    """Solution of the relaxation.

    bound : certified lower bound; inf where it is proven that no dispatch keeps the limits, -inf when the solver
    found nothing ; value : objective reached
    u : (3, n_smo) ; head, loss : import and losses of the model
    mean : (n_quantity,) first moments ; spread : (n_quantity,) E|a|² - |E a|², zero when the moments are of one state
    low_price, high_price : (3, n_smo) multipliers of the operators' ranges
    status : the solver's word ; solved : False where it found no point
    """

    bound: float
    value: float
    u: Array
    head: float
    loss: float
    mean: Complex
    spread: Array
    low_price: Array
    high_price: Array
    status: str
    solved: bool
    iterations: int


class ConeRelaxation:
    """The cone program of one network; ranges, bids and prices may change from call to call."""

    def __init__(self, network: ThreePhaseNetwork, terminals: Terminals, tightening: Tightening) -> None:
        self._terminals, self._tightening = terminals, tightening
        self._moments = build_moments(network, terminals)
        self._v_source = float(network.v_source_pu)
        self._phase = np.asarray(network.node_phase)
        n_q, pairs = self._moments.n_quantity, self._moments.pairs
        self._layout = Layout(
            n_smo=terminals.share.shape[1],
            n_quantity=n_q,
            pair_key=pairs[:, 0] * n_q + pairs[:, 1],
            n_size=len(self._moments.loads.sized),
        )
        self._cones = [cone_rows(clique, self._layout) for clique in self._moments.cliques]

    @property
    def moments(self) -> Moments:
        """The network in moments."""
        return self._moments

    @property
    def terminals(self) -> Terminals:
        """Where current enters the network."""
        return self._terminals

    @property
    def layout(self) -> Layout:
        """The columns of the program."""
        return self._layout

    def widest(self, point: ConePoint) -> Index:
        """Return the node of each phase whose moments are least those of one state.

        Neighbours on one phase move together: the three with the largest spread would say the same thing.
        """
        spread = point.spread[: self._moments.n_node]
        worst = [np.argmax(np.where(self._phase == phase, spread, -np.inf)) for phase in range(3)]
        return np.array(worst, dtype=np.int64)

    def build(self, case: Case) -> Instance:
        """Write the numbers of a case."""
        drops = self._tightening.drops(self._moments.drop, case.bounds, case.near)
        box = join(join(case.bounds.v, drops), case.bounds.i[self._moments.loads.active])
        if case.extra is not None:
            box, _ = meet(box, case.extra)
        scaling = scale_quantities(_margin(box), N_SOURCE)
        program, loss = self._program(case, scaling)
        return Instance(program, box, scaling, loss)

    def solve(self, instance: Instance) -> ConePoint:
        """Solve for the least cost and certify its bound."""
        program, scaling, layout = instance.program, instance.scaling, self._layout
        answer, bound, settled = _solve(program)
        x, z, status = np.array(answer.x), np.array(answer.z), str(answer.status)
        first, second = layout.first, layout.first + layout.n_quantity
        deviation = x[first:second] + 1j * x[second : layout.square]
        spread = (x[layout.square : layout.pair] - abs(deviation) ** 2) * scaling.radius**2
        # The operators' ranges are the first rows of the upper and of the lower ranges.
        ranges = z[program.n_equal :]
        lower = layout.head + 2 * int(np.count_nonzero(scaling.radius > 0.0))
        return ConePoint(
            bound=bound,
            value=float(answer.obj_val) + program.constant,
            u=x[: layout.head].reshape(3, -1),
            head=float(x[layout.head]),
            loss=float((instance.loss.real @ x + instance.loss.constant.real)[0]),
            mean=scaling.centre + scaling.radius * deviation,
            spread=spread,
            low_price=ranges[lower : lower + layout.head].reshape(3, -1),
            high_price=ranges[: layout.head].reshape(3, -1),
            status=status,
            solved=settled,
            iterations=int(answer.iterations),
        )

    def mismatch(self, point: ConePoint) -> tuple[float, float]:
        """Return the power missing at nodes when first moments are taken for the state: largest, relative mean."""
        products, terminals = self._moments.taken, self._terminals
        mean, n = point.mean, terminals.n_node
        taken = np.zeros(n, dtype=np.complex128)
        np.add.at(taken, products.row, products.value * mean[products.first] * mean[products.second].conj())
        u = point.u
        injected = terminals.injection(mean[:n], u[0] + u[2] + 1j * u[1])[N_SOURCE:]
        missing = abs(taken[N_SOURCE:] - injected)
        return float(missing.max(initial=0.0)), float(missing.sum() / abs(injected).sum())

    def _program(self, case: Case, scaling: Scaling) -> tuple[Program, Affine]:
        layout, moments = self._layout, self._moments
        bounds, bids, target = case.bounds, case.bids, case.target
        terminals, loads = self._terminals, moments.loads
        equal = [self._balance(scaling), *self._ties(scaling)]
        equal += current_rows(terminals, loads, moments.drawn, layout, scaling)
        equal += power_rows(terminals, loads, layout, scaling)
        unequal = [
            *self._boxes(bids, scaling),
            *self._limits(bounds, scaling),
            *magnitude_rows(loads, bounds, layout, scaling),
            *square_rows(terminals, loads, bounds, layout, scaling),
            *envelope_rows(terminals, loads, bounds, layout, scaling),
        ]
        n_equal = sum(len(rhs) for _, rhs in equal)
        n_unequal = sum(len(rhs) for _, rhs in unequal)
        blocks = [matrix for matrix, _ in [*equal, *unequal]]
        rhs = [side for _, side in [*equal, *unequal]]
        cone_matrix, cone_rhs = self._cone_block()
        curvature, linear = np.zeros(layout.n_column), np.zeros(layout.n_column)
        curvature[: layout.head], linear[: layout.head] = bids.weight.ravel(), bids.linear.ravel()
        curvature[layout.head], linear[layout.head] = bids.import_curvature, bids.import_price
        loss = expand(moments.loss, 1, layout, scaling)
        away = self._away(scaling, target.target)
        for weight, form in ((bids.loss_price, loss), (target.weight, away)):
            linear += weight * form.real.toarray()[0]
        constant = bids.loss_price * loss.constant[0].real + target.weight * away.constant[0].real
        program = Program(
            curvature=curvature,
            linear=linear,
            constant=float(constant) + bids.constant,
            matrix=sparse.vstack([*blocks, cone_matrix], format="csc"),
            rhs=np.concatenate([*rhs, cone_rhs]),
            n_equal=n_equal,
            n_unequal=n_unequal,
            cliques=tuple(len(clique) for clique in moments.cliques),
            reach=self._reach(bounds, bids, scaling),
        )
        return program, loss

    def _balance(self, scaling: Scaling) -> Block:
        """Return rows: power taken by the network less what terminals inject is zero, or the import."""
        layout, terminals, moments = self._layout, self._terminals, self._moments
        n, at_source = (
            terminals.n_node,
            slice(0, int(moments.loads.active[0]) if len(moments.loads.active) else terminals.count),
        )
        network = expand(moments.taken, n, layout, scaling)
        into = expand(moments.loads.injected, n, layout, scaling)
        real, imaginary = network.real - into.real, network.imaginary - into.imaginary
        constant = network.constant - into.constant
        own = sparse.csr_matrix(terminals.share[at_source].sum(axis=0))
        rest = sparse.csr_matrix((1, layout.n_column - 3 * layout.n_smo))
        head = sparse.hstack([own, sparse.csr_matrix(own.shape), own, rest])
        head = sparse.csr_matrix(real[:N_SOURCE].sum(axis=0)) - head
        head = head - pick(np.array([layout.head]), np.ones(1), layout.n_column)
        drawn = terminals.s_power[at_source] + terminals.s_current[at_source] * self._v_source
        matrix = sparse.vstack([real[N_SOURCE:], imaginary[N_SOURCE:], head], format="csr")
        bought = constant.real[:N_SOURCE].sum() + drawn.real.sum()
        side = np.concatenate([constant.real[N_SOURCE:], constant.imag[N_SOURCE:], [bought]])
        return matrix, -side

    def _ties(self, scaling: Scaling) -> list[Block]:
        layout, moments = self._layout, self._moments
        out = []
        sums, products = moments.node_sum, moments.node_product
        if len(sums.row):
            form = expand_sums(sums, int(sums.row.max()) + 1, layout, scaling)
            out += [(form.real, -form.constant.real), (form.imaginary, -form.constant.imag)]
        if len(products.row):
            form = expand(products, int(products.row.max()) + 1, layout, scaling)
            out.append((form.real, -form.constant.real))
            # The square of one voltage has no imaginary part.
            turned = np.flatnonzero(np.diff(form.imaginary.indptr) > 0)
            turned = turned[abs(form.imaginary[turned]).max(axis=1).toarray().ravel() > 1e-13]
            out.append((form.imaginary[turned], -form.constant.imag[turned]))
        return out

    def _boxes(self, bids: ScaledBids, scaling: Scaling) -> list[Block]:
        """Return ranges of the operators, of first moments and, E|x|² <= reach², of squares."""
        layout = self._layout
        free = np.flatnonzero(scaling.radius > 0.0)
        n_q, n = layout.n_quantity, layout.n_column
        high = np.concatenate(
            [bids.high.ravel() + MARGIN_PU, scaling.reach.real[free], scaling.reach.imag[free]]
        )
        low = np.concatenate(
            [MARGIN_PU - bids.low.ravel(), scaling.reach.real[free], scaling.reach.imag[free]]
        )
        column = np.concatenate([np.arange(layout.head), layout.first + free, layout.first + n_q + free])
        one = np.ones(1)
        square = abs(scaling.reach[free]) ** 2
        known = np.flatnonzero(scaling.radius == 0.0)
        still = np.concatenate([layout.first + known, layout.first + n_q + known, layout.square + known])
        return [
            (pick(column, one, n), high),
            (pick(column, -one, n), low),
            (pick(layout.square + free, one, n), square),
            # Columns of constants take no part; they must only be bounded.
            (pick(still, one, n), np.ones(len(still))),
            (pick(still, -one, n), np.ones(len(still))),
        ]

    def _limits(self, bounds: Bounds, scaling: Scaling) -> list[Block]:
        layout, moments = self._layout, self._moments
        node = np.arange(N_SOURCE, moments.n_node)
        square = _squares(node, layout, scaling)
        low, high = bounds.size_low[node] - MARGIN_PU, bounds.size_high[node] + MARGIN_PU
        out = [
            (square.real, high**2 - square.constant.real),
            (-square.real, square.constant.real - low**2),
        ]
        if len(moments.wire_limit):
            form = expand(moments.wire, len(moments.wire_limit), layout, scaling)
            out.append((form.real, moments.wire_limit + MARGIN_PU - form.constant.real))
        return out

    def _cone_block(self) -> Block:
        row, column, value, rhs = [], [], [], []
        count = 0
        for part in self._cones:
            row.append(part[0] + count)
            column.append(part[1])
            value.append(part[2])
            rhs.append(part[3])
            count += len(part[3])
        place = (np.concatenate(row), np.concatenate(column))
        shape = (count, self._layout.n_column)
        return sparse.csr_matrix((np.concatenate(value), place), shape=shape), np.concatenate(rhs)

    def _away(self, scaling: Scaling, target: float) -> Affine:
        """Return Σ |v - target|² over the nodes but the source's."""
        node = np.arange(N_SOURCE, self._moments.n_node)
        shifted = Scaling(scaling.centre - target, scaling.radius, scaling.reach)
        zero = np.zeros_like(node)
        return expand(Products(zero, node, node, np.ones(len(node), complex)), 1, self._layout, shifted)

    def _reach(self, bounds: Bounds, bids: ScaledBids, scaling: Scaling) -> Array:
        """Return a bound of |column| at every feasible dispatch."""
        layout, terminals = self._layout, self._terminals
        out = np.ones(layout.n_column)
        out[: layout.head] = np.maximum(abs(bids.low), abs(bids.high)).ravel()
        v_high = np.maximum(bounds.size_high, 0.0)
        flow = float(self._v_source * np.sum(abs(terminals.y[:N_SOURCE]) @ v_high))
        own = abs(bounds.i.low) + abs(bounds.i.high)
        drawn = float(np.sum(abs(terminals.voltage[:, :N_SOURCE]).T @ own)) * self._v_source
        out[layout.head] = flow + drawn
        size = abs(scaling.reach)
        out[layout.first : layout.square] = np.tile(size, 2)
        out[layout.square : layout.pair] = size**2
        i, j = layout.pair_key // layout.n_quantity, layout.pair_key % layout.n_quantity
        out[layout.pair : layout.size] = np.tile(size[i] * size[j], 2)
        out[layout.size :] = bounds.w_high[self._moments.loads.sized]
        return out


def _squares(quantity: Index, layout: Layout, scaling: Scaling) -> Affine:
    row = np.arange(len(quantity))
    return expand(Products(row, quantity, quantity, np.ones(len(row), complex)), len(row), layout, scaling)


def _margin(box: Rectangle) -> Rectangle:
    room = MARGIN_PU * (1.0 + 1.0j)
    return Rectangle(box.low - room, box.high + room)


def _solve(program: Program) -> tuple[Any, float, bool]:
    """Return the solver's answer of the best bound, that bound, and whether the answer is a solution.

    Settings become more careful while the solver fails or its dual point proves too little.
    """
    curvature = sparse.csc_matrix(sparse.diags(program.curvature))
    data = (curvature, program.linear, program.matrix, program.rhs, program.cones())
    answer, bound, settled = None, -np.inf, False
    for settings in (*(swift_settings(constant) for constant in REGULARISATION), solver_settings()):
        found = clarabel.DefaultSolver(*data, settings).solve()
        x, z = np.array(found.x), np.array(found.z)
        if proves_empty(program, z):
            return found, np.inf, False
        value, proven = float(found.obj_val) + program.constant, certified_value(program, x, z)
        solved = str(found.status) in SOLVED
        if answer is None or (solved, proven) > (settled, bound):
            answer, bound, settled = found, proven, solved
        if solved and value - proven <= PROVEN * max(1.0, abs(value)):
            break
    return answer, bound, settled


def swift_settings(regularisation: float) -> clarabel.DefaultSettings:
    """Return settings that do without refinement of the linear systems, half the time on these programs.

    What is proven does not depend on them. Little regularisation needs fewer iterations; where a program is too
    ill-conditioned for it, the solver says so within the first few.
    """
    settings = solver_settings()
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-6
    settings.static_regularization_constant = regularisation
    settings.iterative_refinement_enable = False
    return settings


def solver_settings() -> clarabel.DefaultSettings:
    """Return settings under which a program stays as it was given."""
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.presolve_enable = False
    settings.chordal_decomposition_enable = False
    settings.max_threads = 1
    settings.direct_solve_method = "qdldl"
    return settings
