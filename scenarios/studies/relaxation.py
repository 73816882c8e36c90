"""How a relaxation of the three-phase market is cured: losses, bound and time from envelopes to the exact dispatch.

The market stands on a feeder's published spot loads, wye and delta with their voltage dependence. No days are run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from voltier.grid.errors import InputError, Problem
from voltier.grid.feeder import read_feeder
from voltier.grid.threephase import ThreePhaseNetwork
from voltier.grid.threephase_build import three_phase_network
from voltier.market.primary.current_injection.stages import StageResult, relaxation_stages
from voltier.market.primary.problem import PrimaryBids, PrimaryPrices, ScaledBids, scale_bids
from voltier.scenarios.manifest import write_json
from voltier.scenarios.studies.cases import CaseKpis, new_directory
from voltier.scenarios.studies.relaxation_page import write_page

FEEDERS = ("ieee13", "ieee34", "ieee123")
PRICES = PrimaryPrices(import_usd_per_kwh=0.10, import_slope_usd_per_kw2h=0.0, loss_usd_per_kwh=0.0)
V_LIMITS_PU = (0.90, 1.10)
SHED_SHARE, SHED_USD_PER_KWH = 0.3, (0.15, 0.40)
GENERATION_SHARE, GENERATION_USD_PER_KWH = 0.44, (0.05, 0.15)
"""Our choice: a part of each load can be shed, and a generator stands beside it, at prices that differ from load to
load within these ranges; those of generation are the marginal ones at rated power."""
REACTIVE_SHARE, REACTIVE_USD_PER_KVARH = 0.2, 0.05


@dataclass(frozen=True, slots=True)
class SpotMarket:
    """A market on a feeder's spot loads: network, (n, n_load) shares of the operators, and their scaled bids."""

    network: ThreePhaseNetwork
    share: sparse.csc_matrix
    bids: ScaledBids


def spot_market(feeder_name: str, load: float) -> SpotMarket:
    """Let every spot load, times `load`, be an operator that can shed, generate and shift reactive power.

    Regulators are at their published taps. What an operator moves is spread evenly over the phases of its load.
    """
    feeder = read_feeder(feeder_name)
    network = three_phase_network(
        feeder,
        feeder.regulators.published_tap,
        load_scale=load,
        v_min_pu=V_LIMITS_PU[0],
        v_max_pu=V_LIMITS_PU[1],
    )
    loads = network.loads
    touched = (abs(loads.across) > 0).astype(float)
    share = sparse.csc_matrix(touched.multiply(1.0 / touched.sum(axis=1)).T)
    p_kw = (loads.s_power + loads.s_current + loads.s_impedance).real * network.s_phase_kva
    n = len(p_kw)
    # Golden steps fill a range evenly in any order and need no draw.
    between = np.modf((np.arange(n) + 1.0) * 0.5 * (np.sqrt(5.0) - 1.0))[0]
    shed_price = np.interp(between, (0.0, 1.0), SHED_USD_PER_KWH)
    gen_price = np.interp(between, (0.0, 1.0), GENERATION_USD_PER_KWH)
    nothing, gen_kw = np.zeros(n), GENERATION_SHARE * p_kw
    bids = PrimaryBids(
        p0_kw=nothing, p_min_kw=nothing, p_max_kw=SHED_SHARE * p_kw,
        beta_p_usd_per_kw2h=shed_price / p_kw,
        q0_kvar=nothing, q_min_kvar=-REACTIVE_SHARE * p_kw, q_max_kvar=REACTIVE_SHARE * p_kw,
        beta_q_usd_per_kvar2h=REACTIVE_USD_PER_KVARH / p_kw,
        gen_max_kw=gen_kw, alpha_usd_per_kw2h=gen_price / gen_kw,
    )  # fmt: skip
    return SpotMarket(network, share, scale_bids(bids, PRICES, network.s_phase_kva))


def study_relaxation(out: Path, *, feeders: Sequence[str] = FEEDERS, load: float = 1.0) -> CaseKpis:
    """Take the steps on each feeder; write out/kpis.json, one flat object a feeder, and out/index.html.

    load : factor on the published spot loads. Raises InputError if out holds something already or an option is wrong,
    NotConvergedError where the feeder cannot carry the load.
    """
    _check(feeders, load)
    new_directory(out)
    found: dict[str, tuple[StageResult, ...]] = {}
    kpis: CaseKpis = {}
    for name in dict.fromkeys(feeders):
        market = spot_market(name, load)
        found[name] = relaxation_stages(market.network, market.share, market.bids)
        kpis[name] = stage_kpis(found[name])
        write_json(out / "kpis.json", kpis)
    write_page(out, found, load)
    return kpis


def stage_kpis(stages: Sequence[StageResult]) -> dict[str, float | None]:
    """Return the figures of each step under its name, "not_tightened.loss_kw"; null where a step has none."""
    kpis: dict[str, float | None] = {}
    for stage in stages:
        values = {
            "loss_kw": stage.loss_kw,
            "bound_usd_per_h": stage.bound_usd_per_h,
            "gap": stage.gap,
            "mismatch_share": stage.mismatch,
            "solve_s": stage.seconds,
        }
        prefix = stage.name.replace(" ", "_").replace("-", "_")
        kpis |= {f"{prefix}.{key}": x if np.isfinite(x) else None for key, x in values.items()}
    return kpis


def _check(feeders: Sequence[str], load: float) -> None:
    problems = [
        Problem("study relaxation", "--feeder", name, f"take {', '.join(FEEDERS)}")
        for name in feeders
        if name not in FEEDERS
    ]
    if not 0.0 < load <= 2.0:
        problems.append(Problem("study relaxation", "--load", load, "give a factor above 0, at most 2"))
    if problems:
        raise InputError(problems)
