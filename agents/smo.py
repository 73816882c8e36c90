"""Secondary market operators: bids up, set-points down, tariffs to their agents, scores and settlement.

One operator object serves the SMOs of one shard; each SMO's arithmetic is independent of its neighbours in the shard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from voltier.agents.certificates import BudgetWatch, Onset, event, secondary_certificate
from voltier.agents.clock import MINUTE_S, OFFSET_S, MarketClock
from voltier.agents.messages import (
    Array,
    Attack,
    Index,
    Injections,
    PrimarySchedule,
    SmaBids,
    SmaMeters,
    SmaSchedule,
    SmoBids,
)
from voltier.agents.operator import Mail, Outbox, Rows
from voltier.agents.primary_rules import select_bids
from voltier.grid.errors import ClearingAborted
from voltier.market.pricing import TariffRules, Tariffs, price_secondary
from voltier.market.scores import (
    CommitmentRules,
    TrustRules,
    resilience_score,
    smo_resilience_score,
    update_commitment,
    update_trust,
)
from voltier.market.secondary import SecondaryBids, SecondaryDispatch, clear_secondary, sum_by_market
from voltier.market.settlement import SecondaryPeriod, SettlementRules, settle_secondary

_NO_GENERATOR_ALPHA = 1.0
"""Cost coefficient of a generator of zero size; any positive number serves."""
SHORTAGE_KW = 0.01
"""Smallest miss of a set-point worth an event [kW, kvar]; meters of this class see no less."""


@dataclass(frozen=True, slots=True)
class SmoRows:
    """The SMOs of one shard and their agents.

    smo, bus : (n_smo,) positions in the whole run and in the feeder's bus table; name : their names.
    sma : (n_sma,) positions of the agents in the whole run, of n_sma_total; offset : (n_smo + 1,) first agent of each.
    phases : (n_smo, 3) phases present at the bus; gen_max_kw, alpha_usd_per_kw2h : (n_smo,) own generator.
    """

    smo: Index
    bus: Index
    name: tuple[str, ...]
    sma: Index
    n_sma_total: int
    offset: Index
    phases: np.ndarray
    gen_max_kw: Array
    alpha_usd_per_kw2h: Array


@dataclass(frozen=True, slots=True)
class SecondaryRules:
    """Market rules of the secondary level. design : "hierarchical", "primary_only" or "no_market"."""

    design: str
    epsilon: float
    retail_usd_per_kwh: float
    tariffs: TariffRules
    settlement: SettlementRules
    policy: str
    commitment: CommitmentRules
    trust: TrustRules
    commitment_weight: float
    commitment_start: float
    settlement_period_s: int


@dataclass(frozen=True, slots=True)
class _Reading:
    """The newest reading that an operator has of each of its agents, (n_sma,): power, and anomaly of its traffic."""

    p_kw: Array
    q_kvar: Array
    anomaly: Array


class SecondaryOperator:
    """All SMOs of one shard. Reads bids and meters, asks the primary market, clears, prices, scores, settles.

    market : the areas that take the SMOs' bids, by name, each with the positions among rows.smo of those that bid to
    it; None: the primary operator takes all
    """

    def __init__(
        self,
        shard: int,
        rows: SmoRows,
        rules: SecondaryRules,
        clock: MarketClock,
        market: Mapping[str, Index] | None = None,
    ) -> None:
        self.name = f"smo.{shard}"
        self._market = market
        self._rows, self._rules, self._clock = rows, rules, clock
        n_smo, n_sma = len(rows.smo), len(rows.sma)
        self._cs = np.full(n_sma, rules.commitment_start)
        # Agents start with the reputation of a long clean record, not as strangers.
        self._trust_r, self._trust_s = np.full(n_sma, 1.0 / (1.0 - rules.trust.forgetting)), np.zeros(n_sma)
        self._ts = np.full(n_sma, 1.0)
        self._tariff, self._tariff_q = np.full(n_sma, rules.retail_usd_per_kwh), np.zeros(n_sma)
        self._attacked = np.zeros(n_smo, dtype=bool)
        self._bids: SecondaryBids | None = None
        self._p0_phase_kw, self._q0_phase_kvar = np.zeros((2, n_smo, 3))
        self._primary: PrimarySchedule | None = None
        self._dispatch: SecondaryDispatch | None = None
        self._gen_kw = np.zeros(n_smo)
        self._meter_kwh, self._meter_kvarh, self._gen_kwh = np.zeros((3, n_smo))
        self._metered_s = 0
        self._ledger = np.zeros((n_smo + n_sma, 3))
        self._short, self._budgets = Onset(n_smo), BudgetWatch(rows.name)
        self._reading = np.full((3, n_sma), np.nan)
        self._q_offered_kvar = np.zeros(n_smo)

    def decide(self, now_s: int, inbox: Sequence[Mail]) -> Outbox:
        """Act at the start of a minute (settle, score, bid or clear) or after the primary market (clear)."""
        outbox = Outbox()
        t_s, offset_s = now_s // MINUTE_S * MINUTE_S, now_s % MINUTE_S
        # Meters are about the minute just over, whose bids are still at hand: they are read before the new bids.
        for mail in sorted(inbox, key=lambda mail: not isinstance(mail.body, SmaMeters)):
            self._read(mail, outbox)
        if offset_s == OFFSET_S["smo"] and t_s % self._rules.settlement_period_s == 0 and t_s > 0:
            self._report_settlement(t_s, outbox)
        if t_s == self._clock.end_s or (offset_s == OFFSET_S["smo"] and self._clock.is_primary(t_s)):
            self._offer(self._bid_up(t_s), outbox)
        else:
            self._clear(t_s, outbox)
        return outbox

    # ------------------------------------------------------------------ reading

    def _read(self, mail: Mail, outbox: Outbox) -> None:
        body = mail.body
        if isinstance(body, SmaBids):
            self._bids = self._as_bids(body)
            self._p0_phase_kw, self._q0_phase_kvar = body.p0_phase_kw, body.q0_phase_kvar
        elif isinstance(body, SmaMeters):
            self._settle(body, outbox)
        elif isinstance(body, PrimarySchedule):
            self._primary = body
        elif isinstance(body, Attack):
            hit = np.isin(self._rows.smo, body.smo)
            self._attacked = np.where(hit, body.active, self._attacked)

    def _as_bids(self, body: SmaBids) -> SecondaryBids:
        return SecondaryBids(
            offset=self._rows.offset,
            p0_kw=body.p0_kw,
            p_min_kw=body.p_min_kw,
            p_max_kw=body.p_max_kw,
            q0_kvar=body.q0_kvar,
            q_min_kvar=body.q_min_kvar,
            q_max_kvar=body.q_max_kvar,
            beta_p_usd_per_kw2h=body.beta_p_usd_per_kw2h,
            beta_q_usd_per_kvar2h=body.beta_q_usd_per_kvar2h,
            resilience_score=self._score(),
        )

    def _score(self) -> Array:
        return resilience_score(self._cs, self._ts, self._rules.commitment_weight)

    # ------------------------------------------------------------------ upwards

    def _offer(self, offer: SmoBids, outbox: Outbox) -> None:
        if self._market is None:
            outbox.mail.append(Mail(self.name, "pmo", offer))
            return
        for taker, here in self._market.items():
            outbox.mail.append(Mail(self.name, taker, select_bids(offer, here)))

    def _bid_up(self, t_s: int) -> SmoBids:
        """Offer the agents' boxes and own generator to the primary market, with the meters of the period just over."""
        bids, rows = self._bids, self._rows
        assert bids is not None
        hours = max(self._metered_s, MINUTE_S) / 3600.0
        flex_kw = bids.p_max_kw - bids.p_min_kw
        self._q_offered_kvar = self._sum(bids.q0_kvar)
        offer = SmoBids(
            t_s=t_s,
            smo=rows.smo,
            p0_kw=self._sum(bids.p0_kw),
            p_min_kw=self._sum(bids.p_min_kw),
            p_max_kw=self._sum(bids.p_max_kw),
            beta_p_usd_per_kw2h=1.0 / self._sum(1.0 / bids.beta_p_usd_per_kw2h),
            q0_kvar=self._q_offered_kvar,
            q_min_kvar=self._sum(bids.q_min_kvar),
            q_max_kvar=self._sum(bids.q_max_kvar),
            beta_q_usd_per_kvar2h=1.0 / self._sum(1.0 / bids.beta_q_usd_per_kvar2h),
            p0_phase_kw=self._p0_phase_kw,
            q0_phase_kvar=self._q0_phase_kvar,
            gen_max_kw=rows.gen_max_kw,
            alpha_usd_per_kw2h=np.where(rows.gen_max_kw > 0, rows.alpha_usd_per_kw2h, _NO_GENERATOR_ALPHA),
            resilience_score=smo_resilience_score(rows.offset, flex_kw, self._score()),
            p_meter_kw=self._meter_kwh / hours,
            q_meter_kvar=self._meter_kvarh / hours,
            gen_meter_kw=self._gen_kwh / hours,
        )
        self._meter_kwh, self._meter_kvarh, self._gen_kwh = np.zeros((3, len(rows.smo)))
        self._metered_s = 0
        return offer

    def _sum(self, values: Array) -> Array:
        return sum_by_market(self._rows.offset, values)

    # ------------------------------------------------------------------ clearing

    def _clear(self, t_s: int, outbox: Outbox) -> None:
        bids, rows = self._bids, self._rows
        assert bids is not None
        p_target, q_target = self._sum(bids.p0_kw), self._sum(bids.q0_kvar)
        dlmp_p = np.full(len(rows.smo), self._rules.retail_usd_per_kwh)
        dlmp_q = np.zeros(len(rows.smo))
        if self._primary is not None:
            dlmp_p, dlmp_q = self._primary.dlmp_p_usd_per_kwh, self._primary.dlmp_q_usd_per_kvarh
            self._gen_kw = np.where(self._attacked, 0.0, self._primary.gen_kw)
            if self._rules.design == "hierarchical":
                p_target = self._primary.p_kw
                # Inverters give the support that was asked for; the loads' own reactive drift is nobody's to steer.
                q_target = q_target + (self._primary.q_kvar - self._q_offered_kvar)
        began = perf_counter()
        dispatch = clear_secondary(bids, p_target, q_target, epsilon=self._rules.epsilon)
        solve_s = perf_counter() - began
        missed = self._judge(t_s, dispatch, outbox)
        if self._rules.policy == "hold" and self._dispatch is not None:
            dispatch = _hold(bids, dispatch, self._dispatch, missed)
        self._dispatch = dispatch
        tariffs = self._price(dispatch, dlmp_p, dlmp_q)
        if tariffs is not None:
            outbox.rows += self._budgets.events(t_s, tariffs)
            outbox.rows.append(secondary_certificate(t_s, rows.smo, dispatch, tariffs, solve_s))
        schedule = SmaSchedule(
            t_s=t_s,
            sma=rows.sma,
            p_kw=dispatch.p_kw,
            q_kvar=dispatch.q_kvar,
            dp_kw=dispatch.dp_kw,
            dq_kvar=dispatch.dq_kvar,
            tariff_usd_per_kwh=self._tariff,
            tariff_q_usd_per_kvarh=self._tariff_q,
        )
        outbox.mail.append(Mail(self.name, self.name.replace("smo", "cmo"), schedule))
        if rows.gen_max_kw.any():
            outbox.mail.append(Mail(self.name, "grid", self._generator_injections(t_s)))

    def _price(self, dispatch: SecondaryDispatch, dlmp_p: Array, dlmp_q: Array) -> Tariffs | None:
        """Set the tariffs; return them with their certificate where there is a secondary market."""
        if self._rules.design == "hierarchical":
            assert self._bids is not None
            tariffs = price_secondary(self._bids, dispatch, dlmp_p, dlmp_q, self._tariff, self._rules.tariffs)
            self._tariff, self._tariff_q = tariffs.p_usd_per_kwh, tariffs.q_usd_per_kvarh
            return tariffs
        self._tariff = np.repeat(dlmp_p, np.diff(self._rows.offset))
        self._tariff_q = np.zeros(len(self._rows.sma))
        return None

    def _judge(self, t_s: int, dispatch: SecondaryDispatch, outbox: Outbox) -> NDArray[np.bool_]:
        """Turn a missed set-point into an event when it begins, and into an end of the run under policy abort.

        Returns which SMOs missed theirs. Under policy relax their agents go as far as their boxes allow.
        """
        p_short, q_short = dispatch.p_shortage_kw, dispatch.q_shortage_kvar
        short = (np.abs(p_short) > SHORTAGE_KW) | (np.abs(q_short) > SHORTAGE_KW)
        for i in self._short.begun(short):
            text = (
                f"{self._rows.name[i]} misses its set-point by {p_short[i]:+.2f} kW, {q_short[i]:+.2f} kvar"
            )
            outbox.rows.append(event("smo", t_s, "shortage", text))
        for k in np.flatnonzero(~dispatch.converged):
            text = f"{self._rows.name[k]}: the clearing's iteration ended early; its last schedule is used"
            outbox.rows.append(event("smo", t_s, "clearing-failed", text))
        if self._rules.policy == "abort" and (short.any() or not dispatch.converged.all()):
            worst = int(np.argmax(np.abs(p_short) + np.abs(q_short) + ~dispatch.converged))
            raise ClearingAborted(
                f"secondary market of {self._rows.name[worst]} at {t_s} s misses its set-point by "
                f"{p_short[worst]:+.3f} kW, {q_short[worst]:+.3f} kvar, and secondary.policy is abort"
            )
        return short | ~dispatch.converged

    def _generator_injections(self, t_s: int) -> Injections:
        here = np.flatnonzero(self._rows.gen_max_kw > 0)
        smo, phase = np.nonzero(self._rows.phases[here])
        share = self._gen_kw[here] / self._rows.phases[here].sum(axis=1)
        return Injections(
            t_s=t_s,
            bus=self._rows.bus[here][smo],
            phase=phase.astype(np.int64),
            p_kw=share[smo],
            q_kvar=np.zeros(len(smo)),
        )

    # ------------------------------------------------------------------ after the fact

    def _settle(self, body: SmaMeters, outbox: Outbox) -> None:
        """Score and settle the minute that the meters are about."""
        dispatch, bids = self._dispatch, self._bids
        assert dispatch is not None
        assert bids is not None
        meters = self._complete(body, dispatch)
        hours = MINUTE_S / 3600.0
        # The schedule is the commitment. The flexibility kept ready is the operator's to call, no excuse to miss it;
        # and a curtailed load takes its reactive power along, so only active power is judged.
        no_excuse = np.zeros_like(meters.p_kw)
        self._cs = update_commitment(self._cs, meters.p_kw, dispatch.p_kw, no_excuse, self._rules.commitment)
        self._trust_r, self._trust_s, self._ts = update_trust(
            self._trust_r, self._trust_s, meters.anomaly, self._rules.trust
        )
        period = SecondaryPeriod(
            p_meter_kw=meters.p_kw,
            q_meter_kvar=meters.q_kvar,
            p_sched_kw=dispatch.p_kw,
            p0_kw=bids.p0_kw,
            dp_kw=dispatch.dp_kw,
            tariff_usd_per_kwh=self._tariff,
            tariff_q_usd_per_kvarh=self._tariff_q,
        )
        self._ledger += settle_secondary(self._rows.offset, period, self._rules.settlement, hours)
        self._meter_kwh += self._sum(meters.p_kw) * hours
        self._meter_kvarh += self._sum(meters.q_kvar) * hours
        self._gen_kwh += self._gen_kw * hours
        self._metered_s += MINUTE_S
        outbox.rows.append(self._secondary_rows(body.t_s, meters, bids, dispatch))

    def _complete(self, body: SmaMeters, dispatch: SecondaryDispatch) -> _Reading:
        """Return a reading of every agent: the last one of those whose newest was lost on the way.

        Agents never read before are taken at their word: they did what their schedule says, with clean traffic.
        """
        here = np.searchsorted(self._rows.sma, body.sma)
        self._reading[:, here] = body.p_kw, body.q_kvar, body.anomaly
        word = np.stack([dispatch.p_kw, dispatch.q_kvar, np.zeros_like(dispatch.p_kw)])
        return _Reading(*np.where(np.isnan(self._reading), word, self._reading))

    def _secondary_rows(
        self, t_s: int, meters: _Reading, bids: SecondaryBids, dispatch: SecondaryDispatch
    ) -> Rows:
        columns = {
            "position": self._rows.sma.astype(np.float64),
            "p0_kw": bids.p0_kw,
            "p_min_kw": bids.p_min_kw,
            "p_max_kw": bids.p_max_kw,
            "p_kw": dispatch.p_kw,
            "q_kvar": dispatch.q_kvar,
            "dp_kw": dispatch.dp_kw,
            "tariff_usd_per_kwh": self._tariff,
            "p_meter_kw": meters.p_kw,
            "cs": self._cs,
            "ts": self._ts,
            "rs": self._score(),
        }
        return Rows("secondary", t_s, columns)

    def _report_settlement(self, t_s: int, outbox: Outbox) -> None:
        """Close the secondary books of the settlement period that ends at t_s."""
        rows = self._rows
        columns = {
            "position": np.concatenate([rows.sma, rows.n_sma_total + rows.smo]).astype(np.float64),
            "energy_usd": self._ledger[:, 0],
            "flexibility_usd": self._ledger[:, 1],
            "penalty_usd": self._ledger[:, 2],
        }
        outbox.rows.append(Rows("settlement", t_s - self._rules.settlement_period_s, columns))
        self._ledger = np.zeros_like(self._ledger)


def _hold(
    bids: SecondaryBids, dispatch: SecondaryDispatch, last: SecondaryDispatch, missed: NDArray[np.bool_]
) -> SecondaryDispatch:
    """Keep the agents of the SMOs that missed their set-points at their last schedule, within their new boxes."""
    agent = missed[bids.market_of_agent]
    p_kw = np.where(agent, np.clip(last.p_kw, bids.p_min_kw, bids.p_max_kw), dispatch.p_kw)
    q_kvar = np.where(agent, np.clip(last.q_kvar, bids.q_min_kvar, bids.q_max_kvar), dispatch.q_kvar)
    return replace(
        dispatch,
        p_kw=p_kw,
        q_kvar=q_kvar,
        dp_kw=np.minimum(p_kw - bids.p_min_kw, bids.p_max_kw - p_kw),
        dq_kvar=np.minimum(q_kvar - bids.q_min_kvar, bids.q_max_kvar - q_kvar),
        p_shortage_kw=dispatch.p_shortage_kw + sum_by_market(bids.offset, dispatch.p_kw - p_kw),
        q_shortage_kvar=dispatch.q_shortage_kvar + sum_by_market(bids.offset, dispatch.q_kvar - q_kvar),
    )
