"""What the study of the consumer market finds: the day, its equilibria checked, every mechanism measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from voltier.agents.randomness import stream
from voltier.market.consumer_equilibrium import EquilibriumCheck, check_equilibrium
from voltier.market.consumer_incentives import Incentives, measure_incentives, summarise
from voltier.market.consumer_mechanisms import MECHANISMS, Markets, Mechanism, random_markets
from voltier.scenarios.schema import Scenario
from voltier.scenarios.studies.consumer_day import Day, simulate_day

RANDOM_AGENTS = 3


@dataclass(frozen=True, slots=True)
class ConsumerStudy:
    """All that the study found.

    incentives : markets ("day" or "random") → mechanism → what was measured ; figures : the same, summarised
    reported_wishes : figures of "vcg" on the random markets where the operator takes wishes as reported
    """

    day: Day
    check: EquilibriumCheck
    random: Markets
    incentives: Mapping[str, Mapping[Mechanism, Incentives]]
    figures: Mapping[str, Mapping[Mechanism, Mapping[str, float]]]
    reported_wishes: Mapping[str, float]


def examine(scenario: Scenario, step_minutes: int, instances: int) -> ConsumerStudy:
    """Let the day pass, check its equilibria, and measure every mechanism on its markets and on random ones."""
    day = simulate_day(scenario, step_minutes)
    random = random_markets(stream(scenario.seed, "random consumer markets"), instances, RANDOM_AGENTS)
    markets = {"day": day.markets, "random": random}
    incentives = {
        name: {mechanism: measure_incentives(mechanism, each) for mechanism in MECHANISMS}
        for name, each in markets.items()
    }
    blind = measure_incentives("vcg", random, known_baseline=False)
    return ConsumerStudy(
        day=day,
        check=check_equilibrium(day.game, day.markets, stream(scenario.seed, "starts of the search")),
        random=random,
        incentives=incentives,
        figures={
            name: {mechanism: summarise(each, markets[name]) for mechanism, each in of.items()}
            for name, of in incentives.items()
        },
        reported_wishes=summarise(blind, random),
    )


def key_figures(found: ConsumerStudy) -> dict[str, Any]:
    """Return the key figures, flat; ratios of prices are to the grid price at the same time."""
    day, game, check = found.day, found.day.game, found.check
    total, wished = (np.add.reduceat(p, day.markets.offset[:-1]) for p in (game.p_kw, day.markets.p0_kw))
    within = game.feasible
    # What prices are compared with must be a price: hours at or below zero have none.
    pi = np.where(day.price_usd_per_kwh > 0.0, day.price_usd_per_kwh, np.nan)
    kpis: dict[str, Any] = {
        "game.periods": len(pi),
        "game.max_tracking_error_kw": _largest(game.tracking_error_kw[within]),
        "game.max_budget_error_usd": _largest(game.budget_error_usd_per_h[within]) * day.step_h,
        "game.max_delivery_error_kw": _largest(day.device_kw.sum(axis=1).ravel() - game.p_kw),
        "game.infeasible_share": float((~within).mean()),
        "game.max_shortfall_kw": _largest(game.tracking_error_kw),
        "game.degenerate_share": float(game.degenerate.mean()),
        "equilibrium.max_follower_gain_usd_per_h": float(max(check.follower_gain_usd_per_h.max(), 0.0)),
        "equilibrium.brute_force_gap_usd_per_kwh": _largest(check.price_gap_usd_per_kwh[check.interior]),
        "equilibrium.start_gap_usd_per_kwh": _largest(check.start_gap_usd_per_kwh[check.interior]),
        "equilibrium.settled_share": float(check.settled[check.interior].mean())
        if check.interior.any()
        else None,
        "prices.max_mu_over_grid": _top(game.mu_usd_per_kwh / pi),
        "prices.max_mu_tilde_over_grid": _top(game.mu_tilde_usd_per_kwh / pi),
        "prices.max_pay_over_grid": _top(game.s_usd_per_kwh / pi),
        "load.is_net_load_share": float((total < 0.0).mean()),
        "load.least_kw": float(-wished.max()),
        "load.least_hour": float(day.minute[wished.argmax()] / 60.0),
        "load.peak_kw": float(-wished.min()),
        "flexibility.called_up_kwh": float(np.maximum(total - wished, 0.0).sum() * day.step_h),
        "flexibility.called_down_kwh": float(np.maximum(wished - total, 0.0).sum() * day.step_h),
        "plans.unsolved": day.unsolved,
    }
    for name, of in found.figures.items():
        for mechanism, figures in of.items():
            kpis |= {f"{name}.{mechanism}.{key}": value for key, value in figures.items()}
    kpis["random.vcg.gain_reported_wish_max_usd_per_h"] = found.reported_wishes["gain_wish_max_usd_per_h"]
    return kpis


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max(initial=0.0))


def _top(values: np.ndarray) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmax(values))
