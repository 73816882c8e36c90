"""The current-injection market with McCormick envelopes: a quadratic program with the network's own equations.

Y v = Tᴴ i is exact; powers of terminals are sums of products of voltage and current parts,

    P = Re w Re i + Im w Im i,      Q = Im w Re i - Re w Im i,      w = T v,

and each product lies between its envelopes over the ranges of its factors (after Nair, PhD thesis, MIT 2025).
Losses Re(vᴴ Y v) are convex and enter the cost as they are. The import, a linear function of v, may still leave
less than the losses over: `cuts` adds tangents of Re(vᴴ Y v) <= import + injections where the loads allow it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.current_injection.bounds import LIMIT_SLACK_PU, Bounds
from voltier.market.primary.current_injection.case import Case
from voltier.market.primary.current_injection.collect import parts
from voltier.market.primary.current_injection.columns import Columns
from voltier.market.primary.current_injection.intervals import Rectangle, polar
from voltier.market.primary.current_injection.layout import pick
from voltier.market.primary.current_injection.quadratic import QuadraticProgram
from voltier.market.primary.current_injection.terminals import N_SOURCE, Terminals
from voltier.market.primary.problem import ScaledBids
from voltier.market.primary.three_phase.physics import rated_wires

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Index = NDArray[np.int64]
Rows = tuple[sparse.csr_matrix, Array, Array]

# Room added to ranges, so that the program has an inside where a range is a point [p.u.].
MARGIN_PU = 1e-7
RATING_TANGENTS = 13


@dataclass(frozen=True, slots=True)
class State:
    """A solution read back : u (3, n_smo), import, v (n,), currents i of the terminals beyond the source (t,)."""

    u: Array
    head: float
    v: Complex
    i: Complex


class McCormick:
    """The program of one network; ranges, bids and prices may change from call to call."""

    def __init__(self, terminals: Terminals, network: ThreePhaseNetwork) -> None:
        self._terminals, self._v_source = terminals, float(network.v_source_pu)
        self.wire, self._i_max = rated_wires(network)
        self._at_source = np.flatnonzero(terminals.node < N_SOURCE)
        self.active = np.arange(len(self._at_source), terminals.count)
        self._sized = np.flatnonzero(terminals.s_current[self.active] != 0.0)
        self.columns = Columns(
            n_smo=terminals.share.shape[1],
            n_free=terminals.n_node - N_SOURCE,
            n_terminal=len(self.active),
            n_size=len(self._sized),
        )
        self._w, self._w_constant = self._of_voltage(terminals.voltage[self.active])
        hermitian = 0.5 * (terminals.y_network + terminals.y_network.conj().T)
        self._loss = self._quadratic(sparse.csr_matrix(hermitian))
        passive = 0.5 * (terminals.load_impedance + terminals.load_impedance.conj().T)
        self.can_cut = bool(np.all(terminals.load_impedance.diagonal().real >= 0.0))
        self._drawn = self._quadratic(sparse.csr_matrix(hermitian + passive))
        self._equal = self._equations()
        self._wire_rows, self._wire_constant = self._of_voltage(self.wire)

    def build(self, case: Case, wires: Rectangle, cuts: list[Complex] | None = None) -> QuadraticProgram:
        """Write the numbers of a case.

        wires : ranges of the rated wires' currents, wire @ v ; cuts : voltages at which to add tangents of the losses
        """
        columns, bounds, bids, target = self.columns, case.bounds, case.bids, case.target
        curvature, linear, constant = self._loss
        matrix = 2.0 * bids.loss_price * curvature
        c, extra = bids.loss_price * linear, bids.loss_price * constant
        diagonal = np.zeros(columns.count)
        diagonal[: columns.head], diagonal[columns.head] = bids.weight.ravel(), bids.import_curvature
        diagonal[columns.v : columns.i] += 2.0 * target.weight
        c[: columns.head] += bids.linear.ravel()
        c[columns.head] += bids.import_price
        c[columns.v : columns.v + columns.n_free] -= 2.0 * target.weight * target.target
        extra += bids.constant + target.weight * columns.n_free * target.target**2
        low, high = self._ranges(bounds, bids)
        rows = [*self._envelopes(bounds), *self._rings(bounds), *self._magnitudes(bounds)]
        rows += self._ratings(wires)
        if cuts:
            rows.append(self._cuts(cuts))
        return QuadraticProgram(
            p=sparse.csc_matrix(matrix + sparse.diags(diagonal)),
            c=c,
            constant=float(extra),
            a=self._equal[0],
            b=self._equal[1],
            g=sparse.vstack([row[0] for row in rows], format="csc"),
            g_low=np.concatenate([row[1] for row in rows]),
            g_high=np.concatenate([row[2] for row in rows]),
            low=low,
            high=high,
        )

    def read(self, x: Array) -> State:
        """Return a solution in its own words."""
        k = self.columns
        v = np.full(k.n_free + N_SOURCE, self._v_source, dtype=np.complex128)
        v[N_SOURCE:] = x[k.v : k.v + k.n_free] + 1j * x[k.v + k.n_free : k.i]
        i = x[k.i : k.i + k.n_terminal] + 1j * x[k.i + k.n_terminal : k.product]
        return State(x[: k.head].reshape(3, -1), float(x[k.head]), v, i)

    def asked(self, state: State) -> Complex:
        """Return what the terminals are to inject [p.u.]."""
        t = self._terminals
        w = t.voltage[self.active] @ state.v
        power = t.share[self.active] @ (state.u[0] + state.u[2] + 1j * state.u[1])
        return np.asarray(power - t.s_power[self.active] - t.s_current[self.active] * abs(w))

    def missing(self, state: State) -> Complex:
        """Return what w conj(i) lacks to what the terminals are to inject [p.u.]."""
        w = self._terminals.voltage[self.active] @ state.v
        return np.asarray(self.asked(state) - w * np.conj(state.i))

    def model_loss(self, state: State) -> float:
        """Return import and injections less consumption, what the model's power balance leaves for losses."""
        t = self._terminals
        w = t.voltage @ state.v
        power = t.share @ (state.u[0] + state.u[2] + 1j * state.u[1])
        net = (power - t.s_power - t.s_current * abs(w)).real.sum()
        return state.head + float(net) - float((state.v.conj() @ (t.load_impedance @ state.v)).real)

    def factors_of(self, active: int) -> tuple[Array, Array]:
        """Return rows and constants of Re w, Im w, Re i, Im i of an active terminal."""
        k = self.columns
        rows = np.zeros((4, k.count))
        for part in range(2):
            rows[part] = self._w[part][active].toarray()[0]
            rows[2 + part, k.i + part * k.n_terminal + active] = 1.0
        w0 = self._w_constant[active]
        return rows, np.array([w0.real, w0.imag, 0.0, 0.0])

    def _of_voltage(
        self, matrix: sparse.csr_matrix
    ) -> tuple[tuple[sparse.csr_matrix, sparse.csr_matrix], Complex]:
        """Return Re and Im of matrix @ v as rows and constants."""
        k, m = self.columns, matrix.shape[0]
        own_re, own_im = parts(matrix[:, N_SOURCE:])
        before, after = sparse.csr_matrix((m, k.v)), sparse.csr_matrix((m, k.count - k.i))
        re = sparse.hstack([before, own_re, -own_im, after], format="csr")
        im = sparse.hstack([before, own_im, own_re, after], format="csr")
        constant = np.asarray(matrix[:, :N_SOURCE].sum(axis=1), dtype=np.complex128).ravel() * self._v_source
        return (re, im), constant

    def _quadratic(self, hermitian: sparse.csr_matrix) -> tuple[sparse.csr_matrix, Array, float]:
        """Return M, c, k with vᴴ H v = xᵀ M x + cᵀx + k."""
        k, (own_re, own_im) = self.columns, parts(hermitian[N_SOURCE:, N_SOURCE:])
        block = sparse.bmat([[own_re, -own_im], [own_im, own_re]])
        shape = (k.count - k.i,) * 2
        matrix = sparse.block_diag(
            [sparse.csr_matrix((k.v, k.v)), block, sparse.csr_matrix(shape)], format="csr"
        )
        source = np.full(N_SOURCE, self._v_source)
        towards = 2.0 * (hermitian[N_SOURCE:, :N_SOURCE] @ source)
        linear = np.zeros(k.count)
        linear[k.v : k.i] = np.concatenate([towards.real, towards.imag])
        return matrix, linear, float((source @ (hermitian[:N_SOURCE, :N_SOURCE] @ source)).real)

    def _equations(self) -> tuple[sparse.csc_matrix, Array]:
        """Return currents, powers of the terminals, and the import."""
        t, k = self._terminals, self.columns
        into_re, into_im = parts(t.voltage[self.active].conj().T)
        (re, im), constant = self._of_voltage(t.y)
        currents = [
            self._column(k.i, [into_re, -into_im]),
            self._column(k.i, [into_im, into_re]),
        ]
        real, imaginary = re - currents[0], im - currents[1]
        rows = [real[N_SOURCE:], imaginary[N_SOURCE:], *self._powers()]
        power = t.s_power[self.active]
        sides = [-constant.real[N_SOURCE:], -constant.imag[N_SOURCE:], -power.real, -power.imag]
        at = self._at_source
        own = sparse.csr_matrix(t.share[at].sum(axis=0))
        drawn = float((t.s_power[at] + t.s_current[at] * self._v_source).real.sum())
        head = self._v_source * sparse.csr_matrix(real[:N_SOURCE].sum(axis=0))
        head = head - self._column(0, [own, sparse.csr_matrix(own.shape), own])
        head = head - pick(np.array([k.head]), np.ones(1), k.count)
        rows.append(head)
        sides.append(np.array([-self._v_source * constant.real[:N_SOURCE].sum() - drawn]))
        return sparse.vstack(rows, format="csc"), np.concatenate(sides)

    def _powers(self) -> list[sparse.csr_matrix]:
        """Return a + b + s_current·|w| - share·(p + g) and d - c + … - share·q."""
        t, k = self._terminals, self.columns
        one, share = sparse.identity(k.n_terminal, format="csr"), t.share[self.active]
        place = (self._sized, np.arange(k.n_size))
        size = t.s_current[self.active][self._sized]
        none = sparse.csr_matrix(one.shape)
        out = []
        for blocks, value, who in (
            ([one, one, none, none], size.real, [share, None, share]),
            ([none, none, -one, one], size.imag, [None, share, None]),
        ):
            own = [sparse.csr_matrix(share.shape) if part is None else part for part in who]
            follow = sparse.csr_matrix((value, place), shape=(k.n_terminal, k.n_size))
            row = self._column(k.product, blocks) + self._column(k.size, [follow]) - self._column(0, own)
            out.append(sparse.csr_matrix(row))
        return out

    def _column(self, first: int, blocks: list[sparse.csr_matrix]) -> sparse.csr_matrix:
        """Return rows that are zero but for blocks from a first column on."""
        body = sparse.hstack(blocks, format="csr")
        after = self.columns.count - first - body.shape[1]
        m = body.shape[0]
        return sparse.hstack(
            [sparse.csr_matrix((m, first)), body, sparse.csr_matrix((m, after))], format="csr"
        )

    def _factors(self, bounds: Bounds) -> list[tuple[sparse.csr_matrix, Array, Index, tuple[Array, ...]]]:
        """Return rows and constants of a voltage part, columns of a current part, and ranges of both, per product."""
        k, t = self.columns, np.arange(self.columns.n_terminal)
        w, i = bounds.w[self.active], bounds.i[self.active]
        (re, im), constant = self._w, self._w_constant
        room = MARGIN_PU
        wr, wi = (w.low.real - room, w.high.real + room), (w.low.imag - room, w.high.imag + room)
        ir, ii = (i.low.real - room, i.high.real + room), (i.low.imag - room, i.high.imag + room)
        first, second = k.i + t, k.i + k.n_terminal + t
        return [
            (re, constant.real, first, (*wr, *ir)),
            (im, constant.imag, second, (*wi, *ii)),
            (re, constant.real, second, (*wr, *ii)),
            (im, constant.imag, first, (*wi, *ir)),
        ]

    def _envelopes(self, bounds: Bounds) -> list[Rows]:
        """Return xy >= x̲y + xy̲ - x̲y̲, xy >= x̄y + xȳ - x̄ȳ, xy <= x̲y + xȳ - x̲ȳ, xy <= x̄y + xy̲ - x̄y̲."""
        k, out = self.columns, []
        for part, (rows, constant, column, (xl, xh, yl, yh)) in enumerate(self._factors(bounds)):
            at = k.product + part * k.n_terminal + np.arange(k.n_terminal)
            product = pick(at, np.ones(1), k.count)
            for x, y, above in ((xl, yl, True), (xh, yh, True), (xl, yh, False), (xh, yl, False)):
                row = product - pick(column, x, k.count) - sparse.diags(y) @ rows
                side = y * constant - x * y
                free = np.full(k.n_terminal, np.inf)
                out.append((row, side, free) if above else (row, -free, side))
        return out

    def _rings(self, bounds: Bounds) -> list[Rows]:
        """Return tangents of the largest and the chord of the smallest magnitude of each node."""
        k, sector = self.columns, polar(bounds.v[N_SOURCE:])
        f = np.arange(k.n_free)
        low, high = sector.angle_low, sector.angle_high
        free = np.full(k.n_free, np.inf)
        out: list[Rows] = []
        for part in (0.0, 0.5, 1.0):
            turn = (1.0 - part) * low + part * high
            row = pick(k.v + f, np.cos(turn), k.count) + pick(k.v + k.n_free + f, np.sin(turn), k.count)
            out.append((row, -free, bounds.size_high[N_SOURCE:] + MARGIN_PU))
            if part == 0.5:
                # Beyond a right angle the largest magnitude is the one farthest behind.
                ahead = np.cos(0.5 * (high - low))
                size = np.where(ahead >= 0.0, bounds.size_low[N_SOURCE:], bounds.size_high[N_SOURCE:])
                out.append((row, size * ahead - MARGIN_PU, free))
        return out

    def _ratings(self, wires: Rectangle) -> list[Rows]:
        """Return tangents of |i| <= i_max for wires that could be overloaded, over the angles they can have."""
        sector = polar(wires)
        loaded = np.flatnonzero(sector.high > self._i_max)
        if len(loaded) == 0:
            return []
        re, im = (part[loaded] for part in self._wire_rows)
        constant, high = self._wire_constant[loaded], self._i_max[loaded] + LIMIT_SLACK_PU
        out: list[Rows] = []
        for part in np.linspace(0.0, 1.0, RATING_TANGENTS):
            turn = np.exp(-1j * ((1.0 - part) * sector.angle_low[loaded] + part * sector.angle_high[loaded]))
            ahead = sparse.diags(turn.real) @ re - sparse.diags(turn.imag) @ im
            out.append((ahead, np.full(len(loaded), -np.inf), high - (turn * constant).real))
        return out

    def _magnitudes(self, bounds: Bounds) -> list[Rows]:
        """Return Re(e^(-jθ) w) <= |w| for angles of the range, and |w| cos(half the range) <= Re(e^(-jθ) w)."""
        k = self.columns
        if k.n_size == 0:
            return []
        sector = polar(bounds.w[self.active][self._sized])
        low, high = sector.angle_low, sector.angle_high
        m = pick(k.size + np.arange(k.n_size), np.ones(1), k.count)
        re, im = (part[self._sized] for part in self._w)
        constant, free = self._w_constant[self._sized], np.full(k.n_size, np.inf)
        out: list[Rows] = []
        for part in (0.1, 0.5, 0.9):
            turn = np.exp(-1j * ((1.0 - part) * low + part * high))
            ahead = sparse.diags(turn.real) @ re - sparse.diags(turn.imag) @ im
            fixed = (turn * constant).real
            out.append((ahead - m, -free, MARGIN_PU - fixed))
            if part == 0.5:
                slope = np.cos(0.5 * (high - low))
                out.append((sparse.diags(slope) @ m - ahead, -free, MARGIN_PU + fixed))
        return out

    def _cuts(self, cuts: list[Complex]) -> Rows:
        """Return tangents of Re(vᴴ Y v) <= import + injections at given voltages."""
        k, t = self.columns, self._terminals
        matrix, linear, constant = self._drawn
        balance = np.zeros(k.count)
        balance[k.product : k.product + 2 * k.n_terminal] = 1.0
        balance[k.head] = 1.0
        own = np.asarray(t.share[self._at_source].sum(axis=0)).ravel()
        balance[: k.n_smo] += own
        balance[2 * k.n_smo : 3 * k.n_smo] += own
        at = self._at_source
        drawn = float((t.s_power[at] + t.s_current[at] * self._v_source).real.sum())
        support = np.flatnonzero(balance)
        support = np.union1d(support, np.arange(k.v, k.i))
        rows, sides = [], []
        for v in cuts:
            x = np.zeros(k.count)
            x[k.v : k.i] = np.concatenate([v[N_SOURCE:].real, v[N_SOURCE:].imag])
            curved = matrix @ x
            rows.append((balance - linear - 2.0 * curved)[support])
            sides.append(constant - float(x @ curved) + drawn - MARGIN_PU)
        first = np.arange(len(cuts) + 1) * len(support)
        matrix = sparse.csr_matrix(
            (np.concatenate(rows), np.tile(support, len(cuts)), first), shape=(len(cuts), k.count)
        )
        return matrix, np.array(sides), np.full(len(cuts), np.inf)

    def _ranges(self, bounds: Bounds, bids: ScaledBids) -> tuple[Array, Array]:
        k = self.columns
        low, high = np.empty(k.count), np.empty(k.count)
        low[: k.head], high[: k.head] = bids.low.ravel(), bids.high.ravel()
        reach = self._head_reach(bounds, bids)
        low[k.head], high[k.head] = -reach, reach
        v, i = bounds.v[N_SOURCE:], bounds.i[self.active]
        low[k.v : k.i] = np.concatenate([v.low.real, v.low.imag])
        high[k.v : k.i] = np.concatenate([v.high.real, v.high.imag])
        low[k.i : k.product] = np.concatenate([i.low.real, i.low.imag])
        high[k.i : k.product] = np.concatenate([i.high.real, i.high.imag])
        for part, (_, _, _, (xl, xh, yl, yh)) in enumerate(self._factors(bounds)):
            corner = np.stack([xl * yl, xl * yh, xh * yl, xh * yh])
            at = slice(k.product + part * k.n_terminal, k.product + (part + 1) * k.n_terminal)
            low[at], high[at] = corner.min(axis=0), corner.max(axis=0)
        sized = self.active[self._sized]
        low[k.size :], high[k.size :] = bounds.w_low[sized], bounds.w_high[sized]
        return low - MARGIN_PU, high + MARGIN_PU

    def _head_reach(self, bounds: Bounds, bids: ScaledBids) -> float:
        """Return a bound of the import's size."""
        t = self._terminals
        flow = float(np.sum(abs(t.y[:N_SOURCE]) @ bounds.size_high))
        own = np.maximum(abs(bounds.i.low), abs(bounds.i.high))
        drawn = float(np.sum(abs(t.voltage[:, :N_SOURCE]).T @ (2.0 * own)))
        return self._v_source * (flow + drawn)
