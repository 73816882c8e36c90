"""What a consumer market's rule does to its agents: who loses, who gains by a false report, what it costs.

Measured, not assumed: every agent's best false report is searched on a grid that narrows on its best point, with all
others truthful; then all agents report as suits them, one after the other, until nobody gains. An agent that
misreports must deliver what it is told, so false boxes and wishes are those within its true box.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from voltier.market.consumer import Array, Flags, Game, Index
from voltier.market.consumer_mechanisms import Markets, Mechanism, play, surplus_usd_per_h
from voltier.market.secondary import sum_by_market

Told = Literal["gamma", "wish", "box"]
TOLERANCE_USD_PER_H = 1e-6
"""Losses and gains below this are rounding."""

_LARGEST_FACTOR = 10.0
_POINTS, _NARROWINGS, _ROUNDS = 25, 3, 12


@dataclass(frozen=True, slots=True)
class Incentives:
    """Outcome of a mechanism on markets that report the truth, and what follows when they do not.

    game : outcome under the truth ; surplus_usd_per_h : (n_cma,) against paying pi P0
    gain_gamma_usd_per_h, gain_wish_usd_per_h, gain_box_usd_per_h : (n_cma,) most gained by a false report of gamma
    (a tenth to ten times), of P0 (anywhere in the box) or of the box (any smaller share of it) ; >= 0
    unavoidable : (n_cmo,) pi D < sum gamma (P - P0)^2, where closing the budget makes somebody lose by any rule
    strategic_factor : (n_cma,) reported over true gamma once all report as suits them
    strategic_cost_ratio : (n_cmo,) true disutility of the dispatch then, and of what is bought outside, over that under
    the truth
    """

    game: Game
    surplus_usd_per_h: Array
    gain_gamma_usd_per_h: Array
    gain_wish_usd_per_h: Array
    gain_box_usd_per_h: Array
    unavoidable: Flags
    strategic_factor: Array
    strategic_cost_ratio: Array


def measure_incentives(mechanism: Mechanism, true: Markets, *, known_baseline: bool = True) -> Incentives:
    """Measure a mechanism on markets as they truly are.

    known_baseline : whether the operator knows the true wishes from meters; otherwise it takes those reported
    """
    baseline = true.p0_kw if known_baseline else None
    game = play(mechanism, true, baseline)
    honest = surplus_usd_per_h(game, true)
    gains = {told: _gains(mechanism, true, baseline, told, honest) for told in ("gamma", "wish", "box")}
    factor = _strategic(mechanism, true, baseline)
    gamma = true.gamma_usd_per_kw2h
    told = play(mechanism, replace(true, gamma_usd_per_kw2h=gamma * factor), baseline)
    honest_cost, cost = (_cost_usd_per_h(g, true) for g in (game, told))
    least = sum_by_market(true.offset, gamma * (game.p_kw - true.p0_kw) ** 2)
    moved = sum_by_market(true.offset, game.p_kw - true.p0_kw)
    return Incentives(
        game=game,
        surplus_usd_per_h=honest,
        gain_gamma_usd_per_h=gains["gamma"],
        gain_wish_usd_per_h=gains["wish"],
        gain_box_usd_per_h=gains["box"],
        unavoidable=true.price_usd_per_kwh * moved < least - TOLERANCE_USD_PER_H,
        strategic_factor=factor,
        strategic_cost_ratio=np.divide(cost, honest_cost, out=np.ones_like(cost), where=honest_cost > 0.0),
    )


def _cost_usd_per_h(game: Game, true: Markets) -> Array:
    """Return the true disutility of each market and what it buys outside, (n_cmo,)."""
    disutility = sum_by_market(true.offset, true.gamma_usd_per_kw2h * (game.p_kw - true.p0_kw) ** 2)
    return disutility + true.outside_usd_per_kwh * np.abs(game.tracking_error_kw)


def summarise(incentives: Incentives, true: Markets) -> dict[str, float]:
    """Return the figures of a mechanism: shares of agents and markets, means and extremes in $/h."""
    game, surplus = incentives.game, incentives.surplus_usd_per_h
    loses = surplus < -TOLERANCE_USD_PER_H
    deficit = game.budget_error_usd_per_h
    within = game.feasible
    moved = np.abs(sum_by_market(true.offset, game.p_kw - true.p0_kw)).sum()
    figures = {
        "max_tracking_error_kw": float(np.abs(game.tracking_error_kw[within]).max(initial=0.0)),
        "max_budget_error_usd_per_h": float(np.abs(deficit).max(initial=0.0)),
        "mean_deficit_usd_per_h": float(deficit.mean()),
        "deficit_usd_per_kwh": float(deficit.sum() / moved) if moved > 0.0 else 0.0,
        "losers_share": float(loses.mean()),
        "unavoidable_share": float(incentives.unavoidable.mean()),
        "mean_loss_usd_per_h": float(-surplus[loses].mean()) if loses.any() else 0.0,
        "max_loss_usd_per_h": float(np.abs(surplus[loses]).max(initial=0.0)),
        "mean_surplus_usd_per_h": float(surplus.mean()),
        "strategic_factor": float(np.exp(np.log(incentives.strategic_factor).mean())),
        "strategic_cost_ratio": float(incentives.strategic_cost_ratio.mean()),
    }
    for told in ("gamma", "wish", "box"):
        gain = getattr(incentives, f"gain_{told}_usd_per_h")
        figures[f"gain_{told}_share"] = float((gain > TOLERANCE_USD_PER_H).mean())
        figures[f"gain_{told}_mean_usd_per_h"] = float(gain.mean())
        figures[f"gain_{told}_max_usd_per_h"] = float(gain.max(initial=0.0))
    return figures


# ---------------------------------------------------------------------- false reports


def _tell(reported: Markets, rows: Index, told: Told, value: Array) -> Markets:
    """Return reports in which some rows tell a value: log10 of the factor, place in the box, or share of the box."""
    p0, low, high = (x.copy() for x in (reported.p0_kw, reported.p_min_kw, reported.p_max_kw))
    if told == "gamma":
        gamma = reported.gamma_usd_per_kw2h.copy()
        gamma[rows] *= 10.0**value
        return replace(reported, gamma_usd_per_kw2h=gamma)
    if told == "wish":
        p0[rows] = low[rows] + value * (high[rows] - low[rows])
        return replace(reported, p0_kw=p0)
    low[rows] = p0[rows] - value * (p0[rows] - low[rows])
    high[rows] = p0[rows] + value * (high[rows] - p0[rows])
    return replace(reported, p_min_kw=low, p_max_kw=high)


def _outcomes(
    mechanism: Mechanism, true: Markets, reported: Markets, baseline: Array | None, told: Told, position: int
) -> tuple[Index, Callable[[Array], Array]]:
    """Return the markets that have an agent at a position, and its true surplus as a function of what it tells.

    The function takes and returns (k, n) values, n markets.
    """
    here = np.flatnonzero(np.diff(true.offset) > position)
    row, n_cma = true.offset[here] + position, true.p0_kw.size

    def surplus(value: Array) -> Array:
        k = len(value)
        rows = (row + n_cma * np.arange(k)[:, None]).ravel()
        told_markets = _tell(reported.tile(k), rows, told, value.ravel())
        known = None if baseline is None else np.tile(baseline, k)
        return surplus_usd_per_h(play(mechanism, told_markets, known), true.tile(k))[rows].reshape(k, -1)

    return here, surplus


def _gains(mechanism: Mechanism, true: Markets, baseline: Array | None, told: Told, honest: Array) -> Array:
    """Return what each agent gains by its best false report, others truthful, (n_cma,)."""
    gain = np.zeros_like(honest)
    low, high = (-np.log10(_LARGEST_FACTOR), np.log10(_LARGEST_FACTOR)) if told == "gamma" else (0.0, 1.0)
    for position in range(int(np.diff(true.offset).max(initial=0))):
        here, surplus = _outcomes(mechanism, true, true, baseline, told, position)
        row = true.offset[here] + position
        best = _narrow(surplus, np.full(len(here), low), np.full(len(here), high))[1]
        gain[row] = np.maximum(best - honest[row], 0.0)
    return gain


def _narrow(surplus: Callable[[Array], Array], low: Array, high: Array) -> tuple[Array, Array]:
    """Return the best value of each market and what it brings, by a grid that narrows on its best point."""
    column = np.arange(len(low))
    best, brings = low, np.full(len(low), -np.inf)
    for _ in range(_NARROWINGS):
        tried = low + np.linspace(0.0, 1.0, _POINTS)[:, None] * (high - low)
        outcome = surplus(tried)
        at = outcome.argmax(axis=0)
        better = outcome[at, column] > brings
        best = np.where(better, tried[at, column], best)
        brings = np.where(better, outcome[at, column], brings)
        width = (high - low) / (_POINTS - 1)
        low, high = np.maximum(low, best - width), np.minimum(high, best + width)
    return best, brings


def _strategic(mechanism: Mechanism, true: Markets, baseline: Array | None) -> Array:
    """Return reported over true gamma once agents have answered one another's reports in turn, (n_cma,)."""
    factor = np.ones_like(true.gamma_usd_per_kw2h)
    bound = float(np.log10(_LARGEST_FACTOR))
    for _ in range(_ROUNDS):
        before = factor.copy()
        for position in range(int(np.diff(true.offset).max(initial=0))):
            # Told relative to the truth: the row's own earlier report is taken back first.
            row = true.offset[:-1][np.diff(true.offset) > position] + position
            others = factor.copy()
            others[row] = 1.0
            reported = replace(true, gamma_usd_per_kw2h=true.gamma_usd_per_kw2h * others)
            here, surplus = _outcomes(mechanism, true, reported, baseline, "gamma", position)
            stay = surplus(np.log10(factor[row])[None])[0]
            best, brings = _narrow(surplus, np.full(len(here), -bound), np.full(len(here), bound))
            factor[row] = np.where(brings > stay + TOLERANCE_USD_PER_H, 10.0**best, factor[row])
        if np.array_equal(before, factor):
            break
    return factor
