"""Prices of the current-injection relaxation taken apart, on a plain cvxpy model whose solver gives the multipliers."""

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
from scipy import sparse

from voltier.grid.feeder import read_feeder
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.current_injection.bounds import Tightening, limits_of, operator_power
from voltier.market.primary.current_injection.intervals import linear, sizes
from voltier.market.primary.current_injection.terminals import N_SOURCE, build_response, build_terminals
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices
from voltier.market.primary.three_phase.problem import SocialWeights, scale_problem
from voltier.market.primary.three_phase.relaxed_parts import RelaxedDuals, RelaxedParts, relaxed_parts

PRICES = PrimaryPrices(0.10, 0.0, 0.10)
PLAIN, WEIGHTED = SocialWeights(), SocialWeights(0.2, 0.5, 2.0, 40.0, 0.98)
FREE = slice(N_SOURCE, None)
USES = ("network", "facet", "box", "cost")


def make_bids(p0, flex) -> PrimaryBids:
    width, n = flex * np.abs(p0), len(p0)
    q0 = -0.4 * np.abs(p0)
    return PrimaryBids(
        p0_kw=p0, p_min_kw=p0 - width, p_max_kw=p0 + width, beta_p_usd_per_kw2h=0.3 / np.abs(p0),
        q0_kvar=q0, q_min_kvar=q0 - width, q_max_kvar=q0 + width, beta_q_usd_per_kvar2h=0.1 / np.abs(p0),
        gen_max_kw=np.where(np.arange(n) % 4 == 0, 40.0, 0.0), alpha_usd_per_kw2h=np.full(n, 3e-3),
    )  # fmt: skip


class Model:
    """IEEE-13, McCormick products at terminals; parameters move the load, and each use of the voltages by itself."""

    def __init__(
        self, v_limits, part: float, flex: float, weights: SocialWeights, tol: float = 1e-11
    ) -> None:
        self.exact = {"solver": cp.CLARABEL, "max_threads": 1}
        self.exact |= dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tol)
        feeder, (low, high) = read_feeder("ieee13"), v_limits
        tap = feeder.regulators.published_tap
        net = three_phase_network(feeder, tap, loads=True, load_scale=0.3, v_min_pu=low, v_max_pu=high)
        rated = net.loads.s_power + net.loads.s_current + net.loads.s_impedance
        # Constant power, delta loads among them: every terminal is a pair of products.
        loads = replace(net.loads, s_power=rated, s_current=0.0 * rated, s_impedance=0.0 * rated)
        self.net = replace(net, loads=loads)
        touched = (abs(loads.across) > 0).astype(float)
        share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T)
        bids = make_bids(-part * rated.real * net.s_phase_kva / 0.3, flex)
        self.at = build_terminals(self.net, share)
        self.problem_data = scale_problem(bids, PRICES, weights, net.s_phase_kva)
        limits = limits_of(net.v_min_pu, net.v_max_pu, net.v_source_pu)
        tightening = Tightening(self.at, build_response(self.at, net.v_source_pu))
        self.bounds = tightening.run(operator_power(self.at, self.problem_data.bids), limits)
        assert self.bounds.feasible
        self.boxes = (linear(self.at.voltage, sizes(self.at.voltage), self.bounds.v), self.bounds.i)
        self._build(share.shape[1])
        self.value = self.solve()

    def _build(self, n_smo: int) -> None:
        n, t, bids, at = self.at.n_node, self.at.count, self.problem_data.bids, self.at
        self.v, self.i = (cp.Variable(n), cp.Variable(n)), (cp.Variable(t), cp.Variable(t))
        self.product, self.head, u = cp.Variable((4, t)), cp.Variable(), cp.Variable((3, n_smo))
        self.load = cp.Parameter((2, t), value=np.zeros((2, t)))
        self.shift = {use: cp.Parameter((2, n), value=np.zeros((2, n))) for use in USES}
        v_source, (real, imag) = self.net.v_source_pu, self.v
        into = times(sparse.csr_matrix(at.voltage.conj().T), self.i)
        drawn = times(at.y, self.moved("network"))
        self.balance = [into[k][FREE] - drawn[k][FREE] == 0 for k in range(2)]
        a, b, c, d = (self.product[k] for k in range(4))
        sold_p, sold_q = at.share @ (u[0] + u[2]), at.share @ u[1]
        self.power = [
            a + b + at.s_power.real + self.load[0] - sold_p == 0,
            d - c + at.s_power.imag + self.load[1] - sold_q == 0,
        ]
        v, box = self.moved("box"), self.bounds.v
        self.v_box = [rule for k, part in enumerate(("real", "imag")) for rule in (
            v[k][FREE] >= getattr(box.low, part)[FREE], v[k][FREE] <= getattr(box.high, part)[FREE])]  # fmt: skip
        self.i_box = [rule for k, part in enumerate(("real", "imag")) for rule in (
            self.i[k] >= getattr(self.bounds.i.low, part), self.i[k] <= getattr(self.bounds.i.high, part))]  # fmt: skip
        self.ring = cp.norm(cp.vstack([v[0][FREE], v[1][FREE]]), 2, axis=0) <= self.net.v_max_pu[FREE]
        self.facets = self._facets()
        self.problem = cp.Problem(
            cp.Minimize(self._cost(u)),
            [
                real[:N_SOURCE] == v_source, imag[:N_SOURCE] == 0, u >= bids.low, u <= bids.high,
                self.head + v_source * cp.sum(into[0][:N_SOURCE] - drawn[0][:N_SOURCE]) == 0,
                *self.balance, *self.power, *self.v_box, *self.i_box, self.ring,
                *(rule for row in self.facets for rule in row),
            ],
        )  # fmt: skip

    def _facets(self) -> list[list[cp.Constraint]]:
        out, m = [], cp.multiply
        w = times(self.at.voltage, self.moved("facet"))
        for k, (of_v, of_i) in enumerate(
            (("real", "real"), ("imag", "imag"), ("real", "imag"), ("imag", "real"))
        ):
            x, y, xy = w[of_v == "imag"], self.i[of_i == "imag"], self.product[k]
            x_low, x_high = (getattr(getattr(self.boxes[0], end), of_v) for end in ("low", "high"))
            y_low, y_high = (getattr(getattr(self.boxes[1], end), of_i) for end in ("low", "high"))
            out.append(
                [
                    xy >= m(x_low, y) + m(y_low, x) - x_low * y_low,
                    xy >= m(x_high, y) + m(y_high, x) - x_high * y_high,
                    xy <= m(x_low, y) + m(y_high, x) - x_low * y_high,
                    xy <= m(x_high, y) + m(y_low, x) - x_high * y_low,
                ]
            )
        return out

    def _cost(self, u: cp.Variable) -> cp.Expression:
        data, (real, imag) = self.problem_data, self.moved("cost")
        bids = data.bids
        self.lossy = 0.5 * (self.at.y_network + self.at.y_network.conj().T).toarray()
        size, vectors = np.linalg.eigh(
            np.block([[self.lossy.real, -self.lossy.imag], [self.lossy.imag, self.lossy.real]])
        )
        root = (vectors * np.sqrt(np.maximum(size, 0.0))).T
        own = 0.5 * cp.sum(cp.multiply(bids.weight, cp.square(u))) + cp.sum(cp.multiply(bids.linear, u))
        away = cp.sum_squares(real[FREE] - data.v_target) + cp.sum_squares(imag[FREE])
        loss = cp.sum_squares(root @ cp.hstack([real, imag]))
        traded = bids.import_price * self.head + bids.loss_price * loss
        return own + bids.constant + traded + data.voltage_weight * away

    def moved(self, use: str) -> tuple[cp.Expression, cp.Expression]:
        return self.v[0] + self.shift[use][0], self.v[1] + self.shift[use][1]

    def solve(self) -> float:
        self.problem.solve(**self.exact)
        assert self.problem.status == "optimal"
        return float(self.problem.value)

    def duals(self) -> tuple[RelaxedDuals, np.ndarray]:
        """Multipliers at the optimum and the slope of the cost in the voltages."""
        data, n = self.problem_data, self.at.n_node
        v = self.v[0].value + 1j * self.v[1].value
        current = np.full(n, -data.bids.import_price * self.net.v_source_pu, dtype=complex)
        current[FREE] = pair(self.balance[0], self.balance[1])
        slope = 2.0 * data.bids.loss_price * self.lossy @ v
        slope[FREE] += 2.0 * data.voltage_weight * (v - data.v_target)[FREE]
        out = [np.zeros(n, dtype=complex) for _ in range(3)]
        out[0][FREE], out[1][FREE] = pair(self.v_box[0], self.v_box[2]), pair(self.v_box[1], self.v_box[3])
        out[2][FREE] = self.ring.dual_value * (v / np.abs(v))[FREE]
        duals = RelaxedDuals(
            price_p=self.power[0].dual_value,
            price_q=self.power[1].dual_value,
            current=current,
            facet=np.array([[rule.dual_value for rule in row] for row in self.facets]),
            v_low=out[0],
            v_high=out[1],
            i_low=pair(self.i_box[0], self.i_box[2]),
            i_high=pair(self.i_box[1], self.i_box[3]),
            limit=out[2],
        )
        return duals, slope

    def one_sided(self, parameter: cp.Parameter, place: tuple[int, int], step: float) -> tuple[float, float]:
        """Slopes of the optimal value to the left and to the right."""
        value = []
        for sign in (-1.0, 1.0):
            moved = np.zeros(parameter.shape)
            moved[place] = sign * step
            parameter.value = moved
            value.append(self.solve())
        parameter.value = np.zeros(parameter.shape)
        return (self.value - value[0]) / step, (value[1] - self.value) / step


def times(matrix: sparse.csr_matrix, x) -> tuple[cp.Expression, cp.Expression]:
    """Real and imaginary part of a complex product."""
    real, imag = sparse.csr_matrix(matrix.real), sparse.csr_matrix(matrix.imag)
    return real @ x[0] - imag @ x[1], imag @ x[0] + real @ x[1]


def pair(real: cp.Constraint, imag: cp.Constraint) -> np.ndarray:
    return real.dual_value + 1j * imag.dual_value


# Free of limits; and with voltages pushed to the bottom of their boxes.
SITUATIONS = {
    "plain": ((0.9, 1.1), 0.4, 0.1, PLAIN),
    "weighted": ((0.9, 1.1), 0.4, 0.1, WEIGHTED),
    "low voltage": ((1.04, 1.1), 0.7, 0.3, WEIGHTED),
}


def parts_of(model: Model) -> RelaxedParts:
    duals, slope = model.duals()
    return relaxed_parts(model.at.voltage, model.at.y, model.boxes, duals, slope)


@pytest.fixture(scope="module", params=SITUATIONS)
def case(request):
    model = Model(*SITUATIONS[request.param])
    return request.param, model, parts_of(model)


def test_identity_holds_where_the_ring_of_greatest_magnitude_binds() -> None:
    # A target voltage out of reach pulls voltages up against the ring.
    # Its cost is of the order of 100, which the solver cannot close to 1e-11 as it does where the cost is near 1.
    weights = SocialWeights(0.2, 0.5, 2.0, 2000.0, 1.2)
    parts = parts_of(Model((0.9, 1.055), 0.4, 0.3, weights, tol=1e-10))
    assert np.abs(parts.limits[FREE]).max() > 1.0
    # Multipliers of 16, and directions v/|v| that the solver knows to some 1e-9.
    assert parts.v_residual < 1e-6
    assert max(parts.i_residual, parts.product_residual) < 1e-8


def test_worth_of_voltage_is_support_less_rent_bounds_and_limits(case) -> None:
    name, _, parts = case
    # Stationarity of the solver's own answer, asked for at 1e-11.
    assert parts.v_residual < 1e-8
    assert parts.i_residual < 1e-8
    assert parts.product_residual < 1e-8
    apart = np.abs(parts.support - parts.cost_slope)[FREE].max()
    assert apart > 1e-2  # without rent and bounds the identity is far off
    assert np.abs(parts.rent[FREE]).max() > 1e-2
    assert (np.abs(parts.bounds[FREE]).max() > 1e-2) == (name == "low voltage")


def test_prices_of_load_are_slopes_of_the_optimal_value(case) -> None:
    _, model, parts = case
    smooth = 0
    every = range(0, model.at.count, 7)
    for kind, price in enumerate((parts.energy_p, parts.energy_q)):
        for terminal in every:
            left, right = model.one_sided(model.load, (kind, terminal), 1e-4)
            # The optimal value is convex and has kinks; the solver's 1e-11 over the step, and curvature.
            assert left - 1e-6 <= price[terminal] <= right + 1e-6
            smooth += abs(right - left) < 1e-3 * max(abs(right), 1e-2)
    assert smooth >= len(every)  # at least half have a derivative, so the bracket says something


def test_each_part_is_the_slope_of_its_own_use_of_the_voltages(case) -> None:
    _, model, parts = case
    worth = {
        "network": -parts.support,
        "facet": parts.rent,
        "box": parts.bounds + parts.limits,
        "cost": parts.cost_slope,
    }
    for use in USES:
        smooth = 0
        every = range(N_SOURCE + 1, model.at.n_node, 11)
        for node in every:
            for k, expected in enumerate((worth[use][node].real, worth[use][node].imag)):
                left, right = model.one_sided(model.shift[use], (k, node), 1e-4)
                assert left - 1e-6 <= expected <= right + 1e-6, (use, node, k)
                smooth += abs(right - left) < 1e-2
        assert smooth >= len(every), use
