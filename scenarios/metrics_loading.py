"""Thermal loading of lines and transformers: branch currents against ratings, of a run's recorded dispatch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, NotConvergedError, Problem
from voltier.grid.feeder import Feeder
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.flow.port import Complex
from voltier.grid.threephase import ANGLE_RAD, ThreePhaseNetwork
from voltier.grid.threephase_build import three_phase_network
from voltier.scenarios.crosscheck import Dispatch, read_dispatch
from voltier.scenarios.panels import Array

Kpis = dict[str, float | int | None]

MOST_FLOWS = 1440
"""Power flows at most: every minute of a day; of a longer run, evenly spaced ones."""


@dataclass(frozen=True, slots=True)
class Loading:
    """Loading of the branches that have a rating.

    t_s : (n_t,) ; name : (n_branch,) ; share : (n_t, n_branch) largest current of any phase and end over the rating
    """

    t_s: NDArray[np.int64]
    name: tuple[str, ...]
    share: Array


def loading(run_dir: Path, feeder: Feeder) -> Loading | str:
    """Return the loading over a run; or why there is none to show, in a sentence.

    Tables hold magnitudes of voltage without angles: currents come from a power flow of the recorded injections and
    taps in OpenDSS, in three phases whatever engine the run had.
    """
    try:
        return loading_of(read_dispatch(run_dir, feeder), feeder)
    except (InputError, NotConvergedError) as error:
        return f"No loading: {error}"


def loading_of(dispatch: Dispatch, feeder: Feeder) -> Loading:
    """Solve a dispatch at up to MOST_FLOWS times.

    Raises NotConvergedError where no voltages carry it, InputError for a feeder that cannot be represented, or has no
    ratings.
    """
    rows = np.arange(0, len(dispatch.t_s), -(-len(dispatch.t_s) // MOST_FLOWS))
    network = three_phase_network(feeder, dispatch.tap[0], loads=False)
    rated = np.isfinite(network.branches.i_max_pu)
    if not rated.any():
        remedy = "give a line or transformer its rating"
        raise InputError([Problem(f"feeder {feeder.name}", "ratings", "none", remedy)])
    engine = OpenDssFlow(feeder)
    share = np.empty((len(rows), int(rated.sum())))
    for out, k in enumerate(rows.tolist()):
        flow = engine.solve(dispatch.p_kw[k], dispatch.q_kvar[k], dispatch.tap[k])
        share[out] = (largest_current_pu(network, flow.v_pu) / network.branches.i_max_pu)[rated]
    names = tuple(np.array(network.branches.name, dtype=object)[rated].tolist())
    return Loading(dispatch.t_s[rows], names, share)


def largest_current_pu(network: ThreePhaseNetwork, v_pu: Complex) -> Array:
    """Return the largest current of each branch, of any phase and end; (n_branch,).

    v_pu : (n_bus, 3) voltages of the buses themselves, which holds on both sides of a regulator
    """
    branches, layout = network.branches, network.tap_layout
    assert layout is not None
    places = (v_pu * np.exp(-1j * ANGLE_RAD)).ravel()
    near, far = (np.where(place >= 0, places[place], 0.0) for place in (layout.from_place, layout.to_place))
    i_from = np.einsum("mij,mj->mi", branches.y_ff, near) + np.einsum("mij,mj->mi", branches.y_ft, far)
    i_to = np.einsum("mij,mj->mi", branches.y_tf, near) + np.einsum("mij,mj->mi", branches.y_tt, far)
    return np.asarray(np.maximum(np.abs(i_from), np.abs(i_to)).max(axis=1))


def loading_kpis(found: Loading) -> Kpis:
    """Return percentiles over all branches and times, the largest, and the time that branches are above their rating.

    overloaded_branch_h: Σ over branches of the time above 100 %.
    """
    step_h = float(np.median(np.diff(found.t_s))) / 3600.0 if len(found.t_s) > 1 else 1.0 / 60.0
    p50, p95, p99 = (float(value) for value in np.percentile(found.share, (50.0, 95.0, 99.0)))
    return {
        "loading.p50_share": p50,
        "loading.p95_share": p95,
        "loading.p99_share": p99,
        "loading.max_share": float(found.share.max()),
        "loading.overloaded_branch_h": float((found.share > 1.0).sum() * step_h),
    }
