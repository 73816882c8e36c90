"""Double-entry settlement of one period on metered energy, at each level of the market by its own operator.

Every amount is a transfer from one party to another, so each column of the books sums to zero. Chain of payments:
bulk grid <-> primary operator <-> SMOs and their generators, SMO <-> SMA. Positive = the party receives money.
What is left at the primary operator is the merchandising surplus (losses and congestion); what is left at an SMO
comes of the difference between the energy it scheduled and the energy that was metered.
Books are (n_party, 3) arrays with the columns energy, flexibility, penalty [$].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voltier.market.scores import commitment_error

Array = NDArray[np.float64]
Index = NDArray[np.int64]

ENERGY, FLEXIBILITY, PENALTY = range(3)


@dataclass(frozen=True, slots=True)
class SettlementRules:
    """Pay for moved power (tau) and for flexibility held ready (rho), penalty for broken commitments (psi)."""

    flexibility_usd_per_kwh: float
    reserve_usd_per_kwh: float
    penalty_usd_per_kwh: float


@dataclass(frozen=True, slots=True)
class SecondaryPeriod:
    """The agents' period, all (n_sma,), injections positive: meters, contract and tariffs."""

    p_meter_kw: Array
    q_meter_kvar: Array
    p_sched_kw: Array
    p0_kw: Array
    dp_kw: Array
    tariff_usd_per_kwh: Array
    tariff_q_usd_per_kvarh: Array


@dataclass(frozen=True, slots=True)
class PrimaryPeriod:
    """The SMOs' period, (n_smo,) each: meters of the agents and of the SMO's own generator, and dLMPs.

    dlmp_gen_usd_per_kwh : price of generation, which may feed other phases than the agents' loads
    p_cc_kw : metered injection of the feeder into the bulk grid (import negative), settled at price_usd_per_kwh
    """

    p_meter_kw: Array
    q_meter_kvar: Array
    gen_meter_kw: Array
    dlmp_p_usd_per_kwh: Array
    dlmp_q_usd_per_kvarh: Array
    dlmp_gen_usd_per_kwh: Array
    p_cc_kw: float
    price_usd_per_kwh: float


def settle_secondary(offset: Index, period: SecondaryPeriod, rules: SettlementRules, dt_h: float) -> Array:
    """Settle the SMAs with their SMOs over dt_h hours; return the books, rows: all SMAs, then all SMOs.

    offset : (n_smo + 1,) first SMA of each SMO. Energy: tariff x metered P and Q. Flexibility: tau |P* - P0| + rho
    delta on the schedule, SMO to SMA. Penalty: psi max(0, |P - P*| - delta), SMA to SMO.
    """
    n_sma, n_smo = len(period.p_meter_kw), len(offset) - 1
    books = np.zeros((n_sma + n_smo, 3))
    sma, smo = np.arange(n_sma), n_sma + np.repeat(np.arange(n_smo), np.diff(offset))
    energy = (
        period.tariff_usd_per_kwh * period.p_meter_kw + period.tariff_q_usd_per_kvarh * period.q_meter_kvar
    )
    _transfer(books[:, ENERGY], smo, sma, dt_h * energy)
    moved_kw = np.abs(period.p_sched_kw - period.p0_kw)
    kept = rules.flexibility_usd_per_kwh * moved_kw + rules.reserve_usd_per_kwh * period.dp_kw
    _transfer(books[:, FLEXIBILITY], smo, sma, dt_h * kept)
    broken_kw = commitment_error(period.p_meter_kw, period.p_sched_kw, period.dp_kw)
    _transfer(books[:, PENALTY], sma, smo, dt_h * rules.penalty_usd_per_kwh * broken_kw)
    return books


def settle_primary(period: PrimaryPeriod, has_generator: NDArray[np.bool_], dt_h: float) -> Array:
    """Settle SMOs, generators and the bulk grid with the primary operator over dt_h hours; return the books.

    has_generator : (n_smo,) which SMOs have one. Rows: all SMOs, the generators, the primary operator, the bulk grid.
    SMOs are paid the dLMPs of their node, generators that of theirs, the bulk grid its price.
    """
    n_smo, generator_smo = len(period.p_meter_kw), np.flatnonzero(has_generator)
    n_gen = len(generator_smo)
    pmo, bulk = n_smo + n_gen, n_smo + n_gen + 1
    books = np.zeros((bulk + 1, 3))
    active = period.dlmp_p_usd_per_kwh * period.p_meter_kw
    reactive = period.dlmp_q_usd_per_kvarh * period.q_meter_kvar
    _transfer(books[:, ENERGY], pmo, np.arange(n_smo), dt_h * (active + reactive))
    generated = period.dlmp_gen_usd_per_kwh[generator_smo] * period.gen_meter_kw[generator_smo]
    _transfer(books[:, ENERGY], pmo, n_smo + np.arange(n_gen), dt_h * generated)
    _transfer(books[:, ENERGY], bulk, pmo, dt_h * period.price_usd_per_kwh * np.array([period.p_cc_kw]))
    return books


def _transfer(account: Array, payer: Index | int, payee: Index | int, usd: Array) -> None:
    """Move money from payers to payees (rows of the account, one row may stand for all)."""
    np.subtract.at(account, np.broadcast_to(payer, usd.shape), usd)
    np.add.at(account, np.broadcast_to(payee, usd.shape), usd)
