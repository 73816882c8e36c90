"""Primary market operator: collects the SMOs' bids, clears the feeder, sends set-points and prices, settles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from voltier.agents.alarm_answer import AlarmAnswer
from voltier.agents.clock import MINUTE_S, MarketClock
from voltier.agents.messages import (
    Alarm,
    Array,
    Conditions,
    ImportSchedule,
    Index,
    Measurement,
    Message,
    PrimarySchedule,
    SmoBids,
    Taps,
)
from voltier.agents.operator import Mail, Outbox, Rows
from voltier.agents.primary_rules import PrimaryRules, as_bids, as_prices, merge_bids
from voltier.grid.errors import ClearingAborted
from voltier.market.primary.formulation import PrimaryFormulation
from voltier.market.primary.problem import PrimaryClearing, PrimaryPrices, cost_usd_per_h
from voltier.market.primary.three_phase.shares import PhaseBaseline
from voltier.market.resilience.coefficients import Coefficients, unweighted
from voltier.market.settlement import PrimaryPeriod, settle_primary

_LEAST_ASKED_SHARE = 0.05
"""Moves smaller than this share of the feeder's power say nothing of how well agents deliver."""
_DELIVERY_RATE = 0.2
"""Weight of the newest period in what the operator expects of its agents' delivery."""


@dataclass(frozen=True, slots=True)
class _Period:
    """A primary period under way: what was offered, at which prices, and what came of it (None: no market)."""

    t_s: int
    bids: SmoBids
    conditions: Conditions
    prices: PrimaryPrices
    clearing: PrimaryClearing | None
    expected_import_kw: float


class PrimaryOperator:
    """Clears the primary market each primary period and re-weights it while an alarm is on.

    formulation : the market and its network, with the SMOs in their order.
    shards : positions of the SMOs that each "smo.k" serves. has_generator : (n_smo,) bool.
    first_party : number of settlement rows that belong to the secondary markets and so come before this one's.
    """

    name = "pmo"

    def __init__(
        self,
        formulation: PrimaryFormulation,
        shards: Sequence[Index],
        has_generator: NDArray[np.bool_],
        first_party: int,
        rules: PrimaryRules,
        clock: MarketClock,
    ) -> None:
        self._formulation, self._rules, self._clock = formulation, rules, clock
        self._shards, self._has_generator, self._first_party = list(shards), has_generator, first_party
        self._conditions: Conditions | None = None
        self._tap: Index | None = None
        self._period: _Period | None = None
        self._last: PrimaryClearing | None = None
        self._sound: PrimaryClearing | None = None
        self._import_kwh, self._measured_s = 0.0, 0
        self._undelivered = 0.0
        self._answer = AlarmAnswer(rules.recovery_periods, rules.stop_share, formulation.s_base_kva)
        self._ledger = np.zeros((len(has_generator) + int(has_generator.sum()) + 2, 3))

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Settle the period just over, then clear the one that begins."""
        outbox = Outbox()
        t_s = now_s // MINUTE_S * MINUTE_S
        bids = self._read(t_s, inbox)
        if self._period is not None:
            self._settle(t_s, bids, outbox)
        if t_s < self._clock.end_s:
            clearing, expected_kw = None, np.nan
            if self._rules.design != "no_market":
                cleared = self._clear(t_s, bids, outbox)
                clearing = self._last = self._by_policy(t_s, cleared, outbox)
                self._send(t_s, bids, clearing, outbox)
                self._record(t_s, bids, clearing, cleared, outbox)
                expected_kw = clearing.p_import_kw + self._expected_miss_kw(bids, clearing)
            assert self._conditions is not None
            self._period = _Period(t_s, bids, self._conditions, self._prices(), clearing, expected_kw)
        return outbox

    # ------------------------------------------------------------------ reading

    def _read(self, t_s: int, inbox: Sequence[Mail]) -> SmoBids:
        alarms: list[Alarm] = []
        for mail in inbox:
            body = mail.body
            if isinstance(body, Conditions):
                self._conditions = body
            elif isinstance(body, Alarm):
                alarms.append(body)
            elif isinstance(body, Taps):
                self._tap = body.tap
            elif isinstance(body, Measurement):
                self._import_kwh -= float(body.p_cc_kw.sum()) * MINUTE_S / 3600.0
                self._measured_s += MINUTE_S
        if self._rules.design == "hierarchical":
            self._answer.hear(alarms)
        return self._offers(t_s, [mail.body for mail in inbox])

    def _offers(self, t_s: int, bodies: Sequence[Message]) -> SmoBids:
        """Return what every SMO offers and what its meters say."""
        parts = [body for body in bodies if isinstance(body, SmoBids)]
        return merge_bids(parts, np.arange(len(self._has_generator)))

    # ------------------------------------------------------------------ clearing

    def _clear(self, t_s: int, bids: SmoBids, outbox: Outbox) -> PrimaryClearing:
        base, prices = as_bids(bids), self._prices()
        baseline = PhaseBaseline(bids.p0_phase_kw, bids.q0_phase_kvar)

        def clear(weights: Coefficients, bound: bool = self._rules.relaxation_bound) -> PrimaryClearing:
            weighted = replace(base, alpha_usd_per_kw2h=weights.alpha, beta_p_usd_per_kw2h=weights.beta_p)
            paid = replace(prices, loss_usd_per_kwh=weights.xi)
            return self._formulation.clear(weighted, paid, baseline=baseline, tap=self._tap, bound=bound)

        miss_kw = 0.0 if self._last is None else self._expected_miss_kw(bids, self._last)
        clearing, done = self._answer.clear(clear, unweighted(base, prices), bids.resilience_score, miss_kw)
        if done is not None:
            outbox.rows.append(_event(t_s, "mitigation", done))
        return clearing

    def _by_policy(self, t_s: int, clearing: PrimaryClearing, outbox: Outbox) -> PrimaryClearing:
        """Accept a sound clearing; treat any other as the scenario says, with an event."""
        if clearing.status == "optimal":
            self._sound = clearing
            return clearing
        why = f"failed: {clearing.note}"
        if clearing.status == "relaxed":
            beyond = f"voltage by {clearing.v_slack_pu:.4f} p.u., current by {clearing.i_slack_pu:.4f} p.u."
            why = f"exceeds its limits, {beyond}"
        policy = self._rules.policy
        if policy == "abort":
            raise ClearingAborted(f"primary clearing at {t_s} s {why}; primary.policy is abort")
        if clearing.status == "relaxed" and policy == "relax":
            # Its multipliers are the penalty on limits it could not keep, which nobody should pay.
            prices = (
                "those of the last sound clearing" if self._sound else "the marginal import price everywhere"
            )
            outbox.rows.append(
                _event(t_s, "clearing-relaxed", f"{why}; its dispatch is used, prices are {prices}")
            )
            return self._formulation.priced_as(clearing, self._sound, self._prices())
        if self._last is None:
            raise ClearingAborted(f"the first primary clearing {why}; there is no earlier one to hold")
        outbox.rows.append(_event(t_s, "clearing-held", f"{why}; the last set-points stay in force"))
        return self._last

    def _prices(self) -> PrimaryPrices:
        assert self._conditions is not None
        return as_prices(self._rules, self._conditions)

    # ------------------------------------------------------------------ sending and recording

    def _send(self, t_s: int, bids: SmoBids, clearing: PrimaryClearing, outbox: Outbox) -> None:
        for k, smo in enumerate(self._shards):
            schedule = PrimarySchedule(
                t_s=t_s,
                smo=smo,
                p_kw=clearing.p_kw[smo],
                q_kvar=clearing.q_kvar[smo],
                gen_kw=clearing.gen_kw[smo],
                dlmp_p_usd_per_kwh=clearing.dlmp_p_usd_per_kwh[smo],
                dlmp_q_usd_per_kvarh=clearing.dlmp_q_usd_per_kvarh[smo],
            )
            outbox.mail.append(Mail(self.name, f"smo.{k}", schedule))
        import_kw = clearing.p_import_kw + self._expected_miss_kw(bids, clearing)
        load_kw = self._load_kw(bids, clearing)
        expected = ImportSchedule(t_s=t_s, p_cc_kw=-import_kw, load_kw=load_kw)
        outbox.mail.append(Mail(self.name, "resilience", expected))

    def _load_kw(self, bids: SmoBids, clearing: PrimaryClearing) -> float:
        """Return the feeder's load net of what is behind the meters, as forecast [kW]."""
        return float(-bids.p0_kw.sum())

    def _expected_miss_kw(self, bids: SmoBids, clearing: PrimaryClearing) -> float:
        """Return how much of the requested moves will not come, if agents respond as they lately did [kW]."""
        return self._undelivered * float((clearing.p_kw - bids.p0_kw).sum())

    def _record(
        self, t_s: int, bids: SmoBids, clearing: PrimaryClearing, cleared: PrimaryClearing, outbox: Outbox
    ) -> None:
        """Record the clearing in force, and the certificate of the one just made, in force or not."""
        primary = {
            "p0_kw": bids.p0_kw,
            "p_min_kw": bids.p_min_kw,
            "p_max_kw": bids.p_max_kw,
            "beta_p_usd_per_kw2h": bids.beta_p_usd_per_kw2h,
            "p_kw": clearing.p_kw,
            "q_kvar": clearing.q_kvar,
            "gen_kw": clearing.gen_kw,
            "dlmp_usd_per_kwh": clearing.dlmp_p_usd_per_kwh,
            "dlmp_q_usd_per_kvarh": clearing.dlmp_q_usd_per_kvarh,
            "v_pu": self._formulation.v_at_operators(clearing),
            "rs": bids.resilience_score,
        }
        outbox.rows.append(Rows("primary", t_s, primary))
        by_phase = self._formulation.phase_columns(clearing)
        if by_phase is not None:
            outbox.rows.append(Rows("dlmp", t_s, by_phase))
        numbers = (
            "gap", "ac_residual_pu", "kkt_residual", "cost_usd_per_h", "lower_bound_usd_per_h", "iterations", "solve_s",
        )  # fmt: skip
        certificate: dict[str, Sequence[float | str]] = {"market": ["primary"], "status": [cleared.status]}
        certificate |= {name: [getattr(cleared, name)] for name in numbers}
        outbox.rows.append(Rows("clearings", t_s, certificate))

    # ------------------------------------------------------------------ after the fact

    def _settle(self, t_s: int, bids: SmoBids, outbox: Outbox) -> None:
        """Settle the period just over on its meters, and state what it really cost."""
        period = self._period
        assert period is not None
        hours = self._measured_s / 3600.0
        import_kw = self._import_kwh / hours
        self._import_kwh, self._measured_s = 0.0, 0
        # The bulk grid is paid for what was drawn at the marginal price of that, whatever was scheduled.
        marginal = period.prices.marginal_usd_per_kwh(import_kw)
        dlmp_p, dlmp_q, dlmp_gen = self._settled_prices(period.clearing, marginal)
        self._ledger += settle_primary(
            PrimaryPeriod(
                p_meter_kw=bids.p_meter_kw,
                q_meter_kvar=bids.q_meter_kvar,
                gen_meter_kw=bids.gen_meter_kw,
                dlmp_p_usd_per_kwh=dlmp_p,
                dlmp_q_usd_per_kvarh=dlmp_q,
                dlmp_gen_usd_per_kwh=dlmp_gen,
                p_cc_kw=-import_kw,
                price_usd_per_kwh=marginal,
            ),
            self._has_generator,
            hours,
        )
        if t_s % self._rules.settlement_period_s == 0:
            columns = {
                "position": self._first_party + np.arange(len(self._ledger), dtype=np.float64),
                "energy_usd": self._ledger[:, 0],
                "flexibility_usd": self._ledger[:, 1],
                "penalty_usd": self._ledger[:, 2],
            }
            outbox.rows.append(Rows("settlement", t_s - self._rules.settlement_period_s, columns))
            self._ledger = np.zeros_like(self._ledger)
        self._learn_delivery(period, bids)
        self._answer.review(import_kw)
        outbox.rows.append(self._system_rows(period, bids, import_kw))

    def _settled_prices(
        self, clearing: PrimaryClearing | None, marginal: float
    ) -> tuple[Array, Array, Array]:
        """Return the prices of active and reactive power and of generation; without a market, the bulk grid's."""
        if clearing is None:
            flat = np.full(len(self._has_generator), marginal)
            return flat, np.zeros_like(flat), flat
        gen = self._formulation.generator_prices(clearing)
        return clearing.dlmp_p_usd_per_kwh, clearing.dlmp_q_usd_per_kvarh, gen

    def _learn_delivery(self, period: _Period, bids: SmoBids) -> None:
        """Learn from the agents' meters which share of the requested moves is not delivered."""
        if period.clearing is None:
            return
        asked_kw = float((period.clearing.p_kw - period.bids.p0_kw).sum())
        if abs(asked_kw) < _LEAST_ASKED_SHARE * float(np.abs(period.bids.p0_kw).sum()):
            return
        missed = float((period.clearing.p_kw - bids.p_meter_kw).sum()) / asked_kw
        self._undelivered += _DELIVERY_RATE * (float(np.clip(missed, 0.0, 0.5)) - self._undelivered)

    def _system_rows(self, period: _Period, bids: SmoBids, import_kw: float) -> Rows:
        """State the period's conditions and its realised cost: import, own generation, disutility, losses."""
        offer, prices = as_bids(period.bids), period.prices
        p_kw = offer.p0_kw if period.clearing is None else period.clearing.p_kw
        loss_kw = float(bids.p_meter_kw.sum() + bids.gen_meter_kw.sum()) + import_kw
        cost = cost_usd_per_h(offer, prices, p_kw, offer.q0_kvar, bids.gen_meter_kw, import_kw, loss_kw)
        columns: dict[str, Sequence[float]] = {
            "price_usd_per_kwh": [prices.import_usd_per_kwh],
            "temp_air_c": [period.conditions.temp_air_c],
            "pv_available": [period.conditions.pv_available],
            "p_import_scheduled_kw": [period.expected_import_kw],
            "p_import_kw": [import_kw],
            "cost_usd_per_h": [cost],
        }
        return Rows("system", period.t_s, columns)


def _event(t_s: int, kind: str, text: str) -> Rows:
    return Rows("events", t_s, {"source": ["pmo"], "kind": [kind], "text": [text]})
