"""GridLAB-D as the grid's engine on IEEE 123, kept in its process: against OpenDSS, new processes, and houses in it."""

from __future__ import annotations

import importlib.util
import time
from datetime import datetime

import numpy as np

from voltier.agents.premises import draw_premises
from voltier.federates.gridlabd_engine import GridlabdFlow
from voltier.federates.gridlabd_premises import PremisesInModel
from voltier.grid.feeder import read_feeder
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.writers.glm_premises import Site
from voltier.scenarios.build_gridlabd import Weather

N_STEP, N_NEW, N_HOUSE = 60, 4, 50


def injections(feeder, rng):
    """Draw one minute: every load at half to full published load, all values new."""
    p_kw, q_kvar = np.zeros((2, len(feeder.bus), 3))
    loads = feeder.spot_loads
    for bus, phases, p, q in zip(loads.bus, loads.phase, loads.p_kw, loads.q_kvar, strict=True):
        rows = ["abc".index(letter) for letter in phases]
        share = rng.uniform(0.5, 1.0)
        p_kw[bus, rows] -= share * p / len(rows)
        q_kvar[bus, rows] -= share * q / len(rows)
    return p_kw, q_kvar


def timed(solve, cases):
    """Give the median seconds of a solution and all voltages."""
    seconds, v_pu = [], []
    for case in cases:
        start = time.perf_counter()
        v_pu.append(solve(*case).v_pu)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), np.array(v_pu)


def premises():
    """Houses in the evening of a warm day."""
    drawn = draw_premises(read_feeder("ieee123"), 1, houses=N_HOUSE, batteries=0, pv=0)
    weather = Weather(0, *(np.full(N_STEP + 2, value) for value in (30.0, 0.2, 300.0, 100.0, 200.0)))
    return PremisesInModel(drawn, Site(37.6, -122.4, -8.0), weather, datetime(2020, 7, 15, 18))


def main() -> None:
    """Print times, ratios and differences."""
    if importlib.util.find_spec("gridlabd") is None:
        print('GridLAB-D is not installed: pip install "voltier[gridlabd]"')
        return
    feeder, rng = read_feeder("ieee123"), np.random.default_rng(1)
    taps = feeder.regulators.published_tap
    cases = [(*injections(feeder, rng), taps + k % 2) for k in range(N_STEP)]
    kept, opendss = GridlabdFlow(feeder), OpenDssFlow(feeder)

    def anew(p_kw, q_kvar, tap):
        flow = GridlabdFlow(feeder)
        try:
            return flow.solve(p_kw, q_kvar, tap)
        finally:
            flow.close()

    kept.solve(*cases[0])
    kept_s, theirs = timed(kept.solve, cases)
    opendss_s, ours = timed(opendss.solve, cases)
    anew_s, _ = timed(anew, cases[:N_NEW])
    kept.close()
    lived = GridlabdFlow(feeder, premises=premises())
    for k in range(2):
        lived.begin(60 * k)
        lived.solve(*cases[0])

    def with_houses(p_kw, q_kvar, tap):
        lived.begin(lived._t_s + 60)
        return lived.solve(p_kw, q_kvar, tap)

    lived_s, _ = timed(with_houses, cases)
    lived.close()
    apart = np.nanmax(np.abs(theirs - ours))
    print(f"IEEE 123, every load and a tap new: GridLAB-D kept {1e3 * kept_s:.1f} ms a minute")
    print(f"  OpenDSS in the process      {1e3 * opendss_s:6.1f} ms, {opendss_s / kept_s:.2f} times")
    print(f"  a new GridLAB-D each minute {1e3 * anew_s:6.1f} ms, {anew_s / kept_s:.0f} times")
    print(f"  the same and {N_HOUSE} houses {1e3 * lived_s:13.1f} ms, {lived_s / kept_s:.2f} times")
    print(f"  largest difference of phasors to OpenDSS {apart:.1e} p.u.")


if __name__ == "__main__":
    main()
