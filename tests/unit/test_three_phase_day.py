"""The three-phase market over several periods: batteries obey their physics, and their prices are right."""

from dataclasses import fields, replace

import numpy as np
import pytest
from scipy import sparse

from voltier.grid.errors import InputError
from voltier.grid.feeder import read_feeder
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices
from voltier.market.primary.three_phase.batteries import Batteries
from voltier.market.primary.three_phase.market import ThreePhaseMarket
from voltier.market.primary.three_phase.multi_period import DayClearing, DaySearch, ThreePhaseDay
from voltier.market.primary.three_phase.problem import SocialWeights

FEEDER = read_feeder("ieee13")
TAP = FEEDER.regulators.published_tap
NETWORK = three_phase_network(FEEDER, TAP, loads=False, v_min_pu=0.9, v_max_pu=1.1)
FULL = three_phase_network(FEEDER, TAP)
TOUCHED = (abs(FULL.loads.across) > 0).astype(float)
SHARE = sparse.csc_matrix(TOUCHED.multiply(1.0 / TOUCHED.sum(axis=1)).T)
LOAD_KW = (FULL.loads.s_power + FULL.loads.s_current + FULL.loads.s_impedance).real * FULL.s_phase_kva
N_NODE, N_SMO = SHARE.shape
AT = np.array([7, 15, 25])
BATTERY_SHARE = sparse.csc_matrix((np.ones(3), (AT, np.arange(3))), shape=(N_NODE, 3))
BATTERIES = Batteries(
    charge_max_kw=np.array([50.0, 80.0, 30.0]), discharge_max_kw=np.array([60.0, 80.0, 30.0]),
    energy_min_kwh=np.array([10.0, 0.0, 5.0]), energy_max_kwh=np.array([100.0, 90.0, 200.0]),
    energy_start_kwh=np.array([40.0, 20.0, 60.0]), energy_end_kwh=np.array([40.0, 30.0, 0.0]),
    charge_efficiency=np.array([0.95, 0.9, 1.0]), discharge_efficiency=np.array([0.95, 0.92, 0.97]),
    wear_usd_per_kwh=np.array([0.005, 0.0, 0.01]),
)  # fmt: skip
HOURS = 0.5
PROFILE = np.array([0.5, 0.4, 0.6, 0.9, 0.8, 0.7])
PRICES = [PrimaryPrices(price, 1e-5, 0.05) for price in (0.06, 0.05, 0.10, 0.20, 0.18, 0.09)]


def bids_at(size: float) -> PrimaryBids:
    p = size * LOAD_KW
    return PrimaryBids(
        p0_kw=-p, p_min_kw=-1.1 * p, p_max_kw=-0.8 * p, beta_p_usd_per_kw2h=0.3 / p,
        q0_kvar=-0.4 * p, q_min_kvar=-0.5 * p, q_max_kvar=-0.3 * p, beta_q_usd_per_kvar2h=0.1 / p,
        gen_max_kw=np.where(np.arange(N_SMO) % 5 == 0, 30.0, 0.0), alpha_usd_per_kw2h=np.full(N_SMO, 4e-3),
    )  # fmt: skip


BIDS = [bids_at(size) for size in PROFILE]


def day(network=NETWORK, n_period: int = 6) -> ThreePhaseDay:
    return ThreePhaseDay(network, SHARE, BATTERY_SHARE, hours=HOURS, n_period=n_period)


@pytest.fixture(scope="module")
def cleared() -> DayClearing:
    return day().clear(BIDS, PRICES, BATTERIES)


def test_batteries_obey_their_physics(cleared: DayClearing) -> None:
    b = BATTERIES
    assert cleared.status == "optimal"
    assert cleared.kkt_residual < 1e-6
    before = np.vstack([b.energy_start_kwh, cleared.energy_kwh[:-1]])
    gained = HOURS * (b.charge_efficiency * cleared.charge_kw - cleared.discharge_kw / b.discharge_efficiency)
    np.testing.assert_allclose(cleared.energy_kwh, before + gained, atol=1e-9)
    # The program keeps stored energy to 1e-6 p.u. h of 333 kVA.
    assert np.all(cleared.energy_kwh >= b.energy_min_kwh - 1e-3)
    assert np.all(cleared.energy_kwh <= b.energy_max_kwh + 1e-3)
    assert np.all(cleared.energy_kwh[-1] >= b.energy_end_kwh - 1e-3)
    assert np.minimum(cleared.charge_kw, cleared.discharge_kw).max() < 1e-3
    assert cleared.charge_kw[:2].sum() > 50.0  # cheap half-hours
    assert cleared.discharge_kw[3:5].sum() > 50.0  # dear ones


def test_every_period_is_an_ac_point_with_the_batteries_in_it(cleared: DayClearing) -> None:
    for t, c in enumerate(cleared.periods):
        power = SHARE @ (c.p_kw + c.gen_kw + 1j * c.q_kvar)
        power = power + BATTERY_SHARE @ (cleared.discharge_kw[t] - cleared.charge_kw[t])
        off = NETWORK.y @ c.v - np.conj(power / NETWORK.s_phase_kva / c.v)
        assert np.abs(off[3:]).max() < 1e-8  # Newton's tolerance on admittances of some 1e3 p.u.
        head = (c.v[:3] * np.conj(off[:3])).sum().real * NETWORK.s_phase_kva
        assert c.p_import_kw == pytest.approx(head, abs=1e-6)


def test_batteries_trade_where_price_and_stored_worth_meet(cleared: DayClearing) -> None:
    b = BATTERIES
    price = np.array([c.dlmp_node_p_usd_per_kwh[AT] for c in cleared.periods])
    worth = cleared.energy_price_usd_per_kwh
    charging = (cleared.charge_kw > 0.1) & (cleared.charge_kw < b.charge_max_kw - 0.1)
    selling = (cleared.discharge_kw > 0.1) & (cleared.discharge_kw < b.discharge_max_kw - 0.1)
    assert charging.any()
    assert selling.any()
    buy, sell = b.charge_efficiency * worth, worth / b.discharge_efficiency + b.wear_usd_per_kwh
    # Optimal to 1e-6 of prices up to 0.25; a battery inside its box has the whole of it to gain.
    np.testing.assert_allclose(price[charging], buy[charging], atol=2e-5)
    np.testing.assert_allclose(price[selling], sell[selling], atol=2e-5)
    free = (cleared.energy_kwh > b.energy_min_kwh + 0.1) & (cleared.energy_kwh < b.energy_max_kwh - 0.1)
    change = np.diff(worth, axis=0)
    np.testing.assert_allclose(change[free[:-1]], 0.0, atol=2e-5)  # what is stored keeps its worth


def test_energy_price_is_the_derivative_of_the_cost(cleared: DayClearing) -> None:
    market, step = day(), 0.5
    for k in range(3):
        move = step * (np.arange(3) == k)
        low, high = (
            market.clear(
                BIDS, PRICES, replace(BATTERIES, energy_start_kwh=BATTERIES.energy_start_kwh + d * move)
            )
            for d in (-1.0, 1.0)
        )
        slope = (low.cost_usd - high.cost_usd) / (2.0 * step)
        # Costs of some 400 $ are exact to about 1e-5 $, and quadratic in between.
        assert cleared.energy_price_usd_per_kwh[0, k] == pytest.approx(slope, abs=5e-5)


def test_without_power_the_periods_are_those_of_the_single_market() -> None:
    still = replace(
        BATTERIES, charge_max_kw=np.zeros(3), discharge_max_kw=np.zeros(3), energy_end_kwh=np.zeros(3)
    )
    whole = day().clear(BIDS, PRICES, still)
    market = ThreePhaseMarket(NETWORK, SHARE)
    alone = [market.clear(bids, prices) for bids, prices in zip(BIDS, PRICES, strict=True)]
    assert whole.cost_usd == pytest.approx(HOURS * sum(c.cost_usd_per_h for c in alone), rel=1e-7)
    for one, two in zip(whole.periods, alone, strict=True):
        np.testing.assert_allclose(one.dlmp_node_p_usd_per_kwh, two.dlmp_node_p_usd_per_kwh, atol=1e-5)
    idle = sum(c.cost_usd_per_h for c in alone) * HOURS
    free_end = replace(BATTERIES, energy_end_kwh=BATTERIES.energy_start_kwh)
    assert day().clear(BIDS, PRICES, free_end).cost_usd < idle


def test_binding_voltage_limits_hold_in_every_period() -> None:
    # High enough to bind at night, when batteries charge less than the limit would like.
    tight = three_phase_network(FEEDER, TAP, loads=False, v_min_pu=0.9, v_max_pu=1.0605)
    c = day(tight).clear(BIDS, PRICES, BATTERIES)
    assert c.status == "optimal"
    highest = np.array([period.v_pu[3:].max() for period in c.periods])
    assert highest.max() == pytest.approx(1.0605, abs=1e-6)
    assert max(period.v_price_usd_per_puh.max() for period in c.periods) > 1.0


def test_impossible_horizons_fail_with_a_reason() -> None:
    beyond = three_phase_network(FEEDER, TAP, loads=False, v_min_pu=1.06, v_max_pu=1.1)
    c = day(beyond).clear(BIDS, PRICES, BATTERIES)
    assert c.status == "failed"
    assert "no solution" in c.note
    assert np.isnan(c.cost_usd)
    assert "5 periods" in day().clear(BIDS[:5], PRICES[:5], BATTERIES).note
    with pytest.raises(InputError, match="charge_efficiency") as caught:
        day().clear(BIDS, PRICES, replace(BATTERIES, charge_efficiency=np.zeros(3)))
    assert len(caught.value.problems) == 3
    one = Batteries(*(getattr(BATTERIES, field.name)[:1] for field in fields(Batteries)))
    with pytest.raises(InputError, match="3 of them"):
        day().clear(BIDS, PRICES, one)


def test_batteries_do_not_burn_power_by_charging_and_discharging_at_once() -> None:
    # Every kWh that is lost earns half a dollar.
    paid = [PrimaryPrices(-0.5, 0.0, 0.0)] * 3
    c = day(n_period=3).clear(BIDS[:3], paid, BATTERIES)
    assert c.status == "optimal"
    assert np.minimum(c.charge_kw, c.discharge_kw).max() < 1e-3  # BOTH_WAYS_KW
    chosen = c.direction != 0
    assert chosen.any()
    assert f"{chosen.sum()} times a battery" in c.note
    assert np.all(c.charge_kw[c.direction > 0] == 0.0)
    assert np.all(c.discharge_kw[c.direction < 0] == 0.0)
    assert c.cost_usd > c.both_ways_usd + 1.0
    before = np.vstack([BATTERIES.energy_start_kwh, c.energy_kwh[:-1]])
    stored = BATTERIES.charge_efficiency * c.charge_kw - c.discharge_kw / BATTERIES.discharge_efficiency
    np.testing.assert_allclose(c.energy_kwh, before + HOURS * stored, atol=1e-9)


def test_directions_are_free_where_none_is_used_both_ways(cleared: DayClearing) -> None:
    assert not cleared.direction.any()
    assert cleared.both_ways_usd == cleared.cost_usd
    assert cleared.note == ""


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("name", [field.name for field in fields(Batteries)])
def test_batteries_that_are_no_numbers_are_input_errors(name: str, value: float) -> None:
    column = getattr(BATTERIES, name).copy()
    column[1] = value
    with pytest.raises(InputError, match=f"battery 1: {name}"):
        day().clear(BIDS, PRICES, replace(BATTERIES, **{name: column}))


@pytest.mark.parametrize(
    ("share", "hours"), [(BATTERY_SHARE[:, :0], 1.0), (BATTERY_SHARE, 0.0), (BATTERY_SHARE, NAN)]
)
def test_horizons_without_batteries_or_length_are_input_errors(
    share: sparse.csc_matrix, hours: float
) -> None:
    with pytest.raises(InputError, match="hours"):
        ThreePhaseDay(NETWORK, SHARE, share, hours=hours, n_period=2)


def test_batteries_whose_limits_are_crossed_are_input_errors() -> None:
    crossed = replace(BATTERIES, energy_min_kwh=BATTERIES.energy_max_kwh + 1.0)
    with pytest.raises(InputError, match="energy_min_kwh"):
        day().clear(BIDS, PRICES, crossed)
    ragged = replace(BATTERIES, wear_usd_per_kwh=np.zeros(2))
    with pytest.raises(InputError, match="wear_usd_per_kwh = 2"):
        day().clear(BIDS, PRICES, ragged)


@pytest.mark.parametrize(
    ("weights", "word"),
    [
        (SocialWeights(loss=-1.0), "weight is negative"),
        (SocialWeights(voltage_usd_per_pu2h=-50.0), "weight is negative"),
        (SocialWeights(generation=NAN), "weight is not finite"),
    ],
)
def test_unusable_weights_fail_a_horizon_with_a_reason(weights: SocialWeights, word: str) -> None:
    c = day().clear(BIDS, PRICES, BATTERIES, weights=weights)
    assert c.status == "failed"
    assert word in c.note


def test_unusable_prices_and_bids_of_one_period_fail_the_horizon_with_a_reason() -> None:
    broken = [*PRICES[:5], PrimaryPrices(NAN, 0.0, 0.0)]
    assert "price is not finite" in day().clear(BIDS, broken, BATTERIES).note
    few = PrimaryBids(*(getattr(BIDS[0], field.name)[:4] for field in fields(PrimaryBids)))
    assert "4 bids" in day().clear([*BIDS[:5], few], PRICES, BATTERIES).note
    with pytest.raises(InputError, match="prices = 5"):
        day().clear(BIDS, PRICES[:5], BATTERIES)


def test_a_search_that_ends_nowhere_is_no_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DaySearch, "residual", lambda self, point: NAN)
    assert day().clear(BIDS, PRICES, BATTERIES).status == "failed"
