"""Re-weighting of coefficients and the search for its strength."""

from dataclasses import replace

import numpy as np
import pytest

from voltier.grid.feeder import read_feeder
from voltier.grid.network import balanced_network
from voltier.market.primary.market import PrimaryMarket
from voltier.market.primary.problem import PrimaryBids, PrimaryClearing, PrimaryPrices
from voltier.market.resilience.coefficients import Coefficients, reweight, unweighted
from voltier.market.resilience.mitigation import restore_import

PRICES = PrimaryPrices(0.10, 0.0, 0.10)
BASE_KVA = 1000.0


class Feeder123:
    """The 85 loads of IEEE-123 with 20 % flexibility and ten generators, and a market to clear them."""

    def __init__(self) -> None:
        feeder = read_feeder("ieee123")
        network = balanced_network(feeder, feeder.regulators.published_tap, v_max_pu=1.10)
        rows = feeder.load_buses
        p = np.bincount(feeder.spot_loads.bus, feeder.spot_loads.p_kw, len(feeder.bus))[rows] * 0.6
        n = len(p)
        gen = np.where(np.arange(n) % 9 == 0, 60.0, 0.0)
        self.bids = PrimaryBids(
            p0_kw=-p, p_min_kw=-p, p_max_kw=-0.8 * p,
            beta_p_usd_per_kw2h=0.6 / (0.2 * p), q0_kvar=-0.3 * p, q_min_kvar=-0.3 * p, q_max_kvar=-0.3 * p,
            beta_q_usd_per_kvar2h=np.full(n, 1e-3), gen_max_kw=gen, alpha_usd_per_kw2h=np.full(n, 0.3 / 60.0),
        )  # fmt: skip
        self.scores = np.random.default_rng(7).uniform(0.3, 1.0, n)
        self.market = PrimaryMarket(network, network.node_of_bus[rows])
        self.base = unweighted(self.bids, PRICES)

    def clear(self, weights: Coefficients) -> PrimaryClearing:
        bids = replace(self.bids, alpha_usd_per_kw2h=weights.alpha, beta_p_usd_per_kw2h=weights.beta_p)
        return self.market.clear(bids, replace(PRICES, loss_usd_per_kwh=weights.xi), bound=False)

    def at(self, mu: float, delta_kw: float, scores: np.ndarray | None = None) -> Coefficients:
        rs, base = self.scores if scores is None else scores, self.base
        return reweight(base, rs, delta_kw, mu, BASE_KVA)


def coefficients(alpha, beta_p, xi=0.1, gen_room_kw=None, load_room_kw=None) -> Coefficients:
    """Coefficients as bid, with a kilowatt of room each unless given."""
    one = np.ones(len(alpha))
    rooms = (one if room is None else np.asarray(room) for room in (gen_room_kw, load_room_kw))
    return Coefficients(np.asarray(alpha), np.asarray(beta_p), xi, one, one, *rooms)


@pytest.fixture(scope="module")
def feeder() -> Feeder123:
    return Feeder123()


def test_weights_by_hand() -> None:
    base = coefficients([1.0, 3.0], [4.0, 4.0], xi=0.2)
    weights = reweight(base, np.array([1.0, 0.5]), 300.0, 0.1, BASE_KVA)
    # Δ = 0.3 p.u., ΣRS = 1.5: pull = (2, 1); α/mean = (0.5, 1.5), β/mean = (1, 1)
    np.testing.assert_allclose(weights.gamma_alpha, [1 / 2.0, 1 / 2.5])
    np.testing.assert_allclose(weights.gamma_beta, [1 / 3.0, 1 / 2.0])
    np.testing.assert_allclose(weights.alpha, [0.5, 1.2])
    assert weights.xi == pytest.approx(0.2 / np.mean([0.5, 0.4, 1 / 3, 0.5]))


def test_absent_generators_stay_out_of_the_means() -> None:
    room = [1.0, 1.0, 0.0]
    one, other = (
        reweight(
            coefficients([1.0, 2.0, last], np.ones(3), gen_room_kw=room), np.ones(3), 100.0, 0.05, BASE_KVA
        )
        for last in (1e6, 0.0)
    )
    np.testing.assert_array_equal(one.gamma_alpha, other.gamma_alpha)
    assert one.gamma_alpha[2] == 1.0
    assert one.xi == other.xi


def test_weights_depend_neither_on_units_nor_on_size() -> None:
    rng = np.random.default_rng(1)
    alpha, beta, rs, size = (
        rng.uniform(0.1, 1, 9),
        rng.uniform(0.1, 1, 9),
        rng.uniform(0, 1, 9),
        rng.uniform(1, 50, 9),
    )
    one = reweight(coefficients(alpha, beta), rs, 200.0, 0.05, BASE_KVA)
    cents = reweight(coefficients(100 * alpha, 100 * beta), rs, 200.0, 0.05, BASE_KVA)
    # The same marginal cost at full use, spread over more room: a larger operator of the same kind.
    larger = reweight(coefficients(alpha, beta / size, load_room_kw=size), rs, 200.0, 0.05, BASE_KVA)
    np.testing.assert_allclose(one.gamma_beta, cents.gamma_beta)
    np.testing.assert_allclose(one.gamma_beta, larger.gamma_beta)


def test_more_import_lowers_costs_and_raises_the_loss_price() -> None:
    rng = np.random.default_rng(2)
    base, rs = coefficients(rng.uniform(0.1, 1, 9), rng.uniform(0.1, 1, 9)), rng.uniform(0.1, 1, 9)
    more = reweight(base, rs, 200.0, 0.1, BASE_KVA)
    less = reweight(base, rs, -200.0, 1.0, BASE_KVA)
    assert np.all(more.gamma_alpha < 1.0)
    assert np.all(more.gamma_beta < 1.0)
    assert more.xi > 0.1
    assert np.all(less.gamma_alpha > 1.0)
    assert less.xi < 0.1


def test_weights_stay_within_their_limits() -> None:
    base, rs = coefficients(np.ones(4), np.ones(4)), np.array([0.1, 0.4, 0.7, 1.0])
    strong, weak = (reweight(base, rs, delta, 1e-9, BASE_KVA) for delta in (500.0, -500.0))
    np.testing.assert_allclose(strong.gamma_alpha, 1 / 50.0)
    np.testing.assert_allclose(weak.gamma_alpha, 1 / 0.2)


def test_no_scores_no_effect() -> None:
    weights = reweight(coefficients(np.ones(3), np.ones(3)), np.zeros(3), 500.0, 0.01, BASE_KVA)
    np.testing.assert_array_equal(weights.gamma_alpha, 1.0)
    np.testing.assert_array_equal(weights.gamma_beta, 1.0)
    assert weights.xi == 0.1


def test_import_falls_steadily_with_mu(feeder: Feeder123) -> None:
    imports = [feeder.clear(feeder.at(mu, 100.0)).p_import_kw for mu in np.geomspace(10.0, 1e-4, 15)]
    # Clearings are optimal to 1e-6 of the price, which moves no import by more than a hundredth of a kW.
    assert np.all(np.diff(imports) < 1e-2)
    assert imports[0] - imports[-1] > 150.0


def test_import_is_restored_and_the_resilient_are_called_on(feeder: Feeder123) -> None:
    before = feeder.clear(feeder.base)
    target_kw = before.p_import_kw - 120.0
    result = restore_import(feeder.clear, feeder.base, feeder.scores, 120.0, target_kw, BASE_KVA)
    assert result.reached
    assert result.clearing.p_import_kw == pytest.approx(target_kw, abs=0.1)  # the stated tolerance
    assert np.all(result.coefficients.gamma_beta < 1.0)
    relief = (result.clearing.p_kw - before.p_kw) / (feeder.bids.p_max_kw - feeder.bids.p_min_kw)
    inner = relief < 0.999
    assert np.corrcoef(relief[inner], feeder.scores[inner])[0, 1] > 0.5


def test_exhausted_resources_give_the_strongest_weights_and_say_so(feeder: Feeder123) -> None:
    result = restore_import(feeder.clear, feeder.base, feeder.scores, 5000.0, -5000.0, BASE_KVA)
    assert not result.reached
    np.testing.assert_allclose(result.coefficients.gamma_beta, 1 / 50.0)
    weakest = feeder.clear(feeder.at(1e-3, 100.0)).p_import_kw
    assert result.clearing.p_import_kw <= weakest + 0.1


def test_nothing_is_done_without_need_or_without_scores(feeder: Feeder123) -> None:
    before = feeder.clear(feeder.base).p_import_kw
    idle = restore_import(feeder.clear, feeder.base, feeder.scores, 50.0, before + 10.0, BASE_KVA)
    assert idle.reached
    assert np.isinf(idle.mu)
    helpless = restore_import(feeder.clear, feeder.base, 0.0 * feeder.scores, 50.0, before - 50.0, BASE_KVA)
    assert not helpless.reached
    assert helpless.coefficients is feeder.base


def test_surplus_is_absorbed_too(feeder: Feeder123) -> None:
    before = feeder.clear(feeder.base).p_import_kw
    result = restore_import(feeder.clear, feeder.base, feeder.scores, -30.0, before + 30.0, BASE_KVA)
    assert result.reached
    assert result.clearing.p_import_kw == pytest.approx(before + 30.0, abs=0.1)
    assert np.all(result.coefficients.gamma_alpha[feeder.base.gen_room_kw > 0] > 1.0)


def test_failed_clearing_ends_the_search(feeder: Feeder123) -> None:
    calls = 0

    def fails_later(weights: Coefficients) -> PrimaryClearing:
        nonlocal calls
        calls += 1
        clearing = feeder.clear(weights)
        return replace(clearing, status="failed", p_import_kw=np.nan) if calls > 2 else clearing

    before = feeder.clear(feeder.base).p_import_kw
    result = restore_import(fails_later, feeder.base, feeder.scores, 60.0, before - 60.0, BASE_KVA)
    assert calls == 3
    assert not result.reached
    assert result.clearing.status == "optimal"
