"""Scores of agents: commitment from what they deliver, trust from their device traffic, resilience from both.

Published facts: scores lie in [0, 1], higher is better, and are updated after each period from the deviation
between response and contract (Nair, PhD thesis, MIT 2025; ICCPS 2024, arXiv 2311.05145). The formulas and the
constants below are ours. Pure functions of arrays, one entry per agent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CommitmentRules:
    """How commitment scores follow behaviour.

    rate : weight of one period, 0 to 1 ; tolerance : relative error that costs a factor e (absolute variant)
    base_kw : errors are relative to at least this power (also [kvar])
    variant : "absolute" (own error) or "relative" (against the mean of the agent's market)
    """

    rate: float = 0.05
    tolerance: float = 0.2
    base_kw: float = 1.0
    variant: str = "absolute"


@dataclass(frozen=True, slots=True)
class TrustRules:
    """How trust follows anomalies. forgetting : factor per period ; anomaly_weight : weight of an anomaly."""

    forgetting: float = 0.98
    anomaly_weight: float = 1.0


def commitment_error(p_meter: Array, p_sched: Array, dp: Array) -> Array:
    """Return how far a response lies outside its contract, max(0, |meter - schedule| - dp) [kW or kvar]."""
    return np.maximum(0.0, np.abs(p_meter - p_sched) - dp)


def update_commitment(
    cs: Array,
    p_meter_kw: Array,
    p_sched_kw: Array,
    dp_kw: Array,
    rules: CommitmentRules,
    *,
    reactive: tuple[Array, Array, Array] | None = None,
    offset: Index | None = None,
) -> Array:
    """Return the commitment scores after one period, (n_sma,) in [0, 1].

    Relative error e = commitment_error / max(|schedule|, base); with reactive = (meter, schedule, flexibility) [kvar]
    the mean of the active and the reactive one, else the active one alone.
    Absolute: CS <- (1 - rate) CS + rate exp(-e/tolerance).
    Relative: CS <- clip(CS - rate r, 0, 1), r = (e - mean e)/max |e - mean e| within the agent's market, for P and Q
    apart and then averaged; offset : (n_smo + 1,) is needed for it. Raises ValueError for an unknown variant.
    """
    errors = [_relative_error(p_meter_kw, p_sched_kw, dp_kw, rules)]
    if reactive is not None:
        errors.append(_relative_error(*reactive, rules))
    if rules.variant == "absolute":
        return (1.0 - rules.rate) * cs + rules.rate * np.exp(-sum(errors) / len(errors) / rules.tolerance)
    if rules.variant == "relative" and offset is not None:
        step = sum(_relative_to_market(offset, error) for error in errors) / len(errors)
        return np.clip(cs - rules.rate * step, 0.0, 1.0)
    raise ValueError(
        f"commitment variant {rules.variant!r}: use 'absolute', or 'relative' together with offset"
    )


def _relative_error(meter: Array, schedule: Array, flexibility: Array, rules: CommitmentRules) -> Array:
    return commitment_error(meter, schedule, flexibility) / np.maximum(np.abs(schedule), rules.base_kw)


def _relative_to_market(offset: Index, error: Array) -> Array:
    n = offset.size - 1
    market = np.repeat(np.arange(n), np.diff(offset))
    count = np.maximum(np.diff(offset), 1)
    distance = error - (np.bincount(market, weights=error, minlength=n) / count)[market]
    largest = np.zeros(n)
    np.maximum.at(largest, market, np.abs(distance))
    # equal errors differ from their mean by rounding only; that is no difference to punish
    scale = np.where(largest > 1e-12, largest, np.inf)
    return distance / scale[market]


def update_trust(
    r: Array, s: Array, anomaly: Array, rules: TrustRules, alarm_severity: Array | float = 0.0
) -> tuple[Array, Array, Array]:
    """Return (r, s, trust score) after one period of a Beta reputation with forgetting.

    r, s : (n_sma,) weight of good and bad evidence so far ; anomaly : (n_sma,) 0 (clean) to 1
    r <- f r + (1 - anomaly), s <- f s + w anomaly, TS = (1 - severity) (r + 1)/(r + s + 2). An alarm's
    severity, 0 to 1, lowers the score while it lasts and is not remembered.
    """
    r_next = rules.forgetting * r + (1.0 - anomaly)
    s_next = rules.forgetting * s + rules.anomaly_weight * anomaly
    trust = (1.0 - np.asarray(alarm_severity)) * (r_next + 1.0) / (r_next + s_next + 2.0)
    return r_next, s_next, trust


def resilience_score(cs: Array, ts: Array, w: float = 0.5) -> Array:
    """Return w CS + (1 - w) TS, (n_sma,) in [0, 1]."""
    return w * cs + (1.0 - w) * ts


def smo_resilience_score(offset: Index, flex_kw: Array, rs: Array) -> Array:
    """Return each market's score, (n_smo,): mean of its agents' scores weighted by |flexibility|.

    A market without flexibility takes the plain mean; one without agents has score 0.
    """
    n = offset.size - 1
    market = np.repeat(np.arange(n), np.diff(offset))
    weight = np.abs(flex_kw)
    total = np.bincount(market, weights=weight, minlength=n)
    weight = np.where(total[market] > 0.0, weight, 1.0)
    total = np.bincount(market, weights=weight, minlength=n)
    return np.bincount(market, weights=weight * rs, minlength=n) / np.where(total > 0.0, total, 1.0)
