"""Three-phase power flow of the IEEE 123-node feeder: ours (OpenDSS, built once) against the naive ways."""

from __future__ import annotations

import time

import numpy as np

from voltier.grid.feeder import read_feeder
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.flow.pandapower import PandapowerFlow
from voltier.grid.network import balanced_network, retap

TAPS = np.array([7, 7, 7, -1, -1, -1, 5, 5, 5])  # equal in all phases of a regulator, as pandapower needs
N_STEP = 200


def injections(feeder, rng):
    """Draw one minute: every load bus at half to full published load, all values new."""
    p_kw, q_kvar = np.zeros((2, len(feeder.bus), 3))
    loads = feeder.spot_loads
    for bus, phases, p, q in zip(loads.bus, loads.phase, loads.p_kw, loads.q_kvar, strict=True):
        rows = ["abc".index(letter) for letter in phases]
        share = rng.uniform(0.5, 1.0)
        p_kw[bus, rows] -= share * p / len(rows)
        q_kvar[bus, rows] -= share * q / len(rows)
    return p_kw, q_kvar


def timed(function, cases):
    """Give the median seconds per case and the last result."""
    seconds, result = [], None
    for case in cases:
        start = time.perf_counter()
        result = function(*case)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), result


def main() -> None:
    """Print times, ratios and differences."""
    feeder = read_feeder("ieee123")
    rng = np.random.default_rng(1)
    cases = [injections(feeder, rng) for _ in range(N_STEP)]
    ours = OpenDssFlow(feeder)
    three, balanced = PandapowerFlow(feeder, phases="three"), PandapowerFlow(feeder, phases="balanced")
    last = cases[-3:]
    fast_s, exact = timed(lambda p, q: ours.solve(p, q, TAPS), cases)
    tapped = [(p, q, TAPS + k % 2) for k, (p, q) in enumerate(cases)]
    tapped_s, _ = timed(ours.solve, tapped)
    rebuilt_s, rebuilt = timed(lambda p, q: OpenDssFlow(feeder).solve(p, q, TAPS), last)
    timed(lambda p, q: three.solve(p, q, TAPS), last[:1])
    three_s, three_flow = timed(lambda p, q: three.solve(p, q, TAPS), last)
    balanced_s, _ = timed(lambda p, q: balanced.solve(p, q, TAPS), last)
    network = balanced_network(feeder, TAPS)
    build_s, _ = timed(lambda: balanced_network(feeder, TAPS), [()] * 20)
    retap_s, _ = timed(lambda: retap(network, feeder, TAPS), [()] * 200)
    rows = [
        ("OpenDssFlow, all injections new", fast_s, 0.0),
        ("OpenDssFlow, all taps moved too", tapped_s, 0.0),
        ("OpenDSS circuit built for each step", rebuilt_s, np.nanmax(np.abs(rebuilt.v_pu - exact.v_pu))),
        ("pandapower runpp_3ph (transposed lines)", three_s, np.nanmax(np.abs(three_flow.v_pu - exact.v_pu))),
        ("pandapower runpp, balanced equivalent", balanced_s, float("nan")),
    ]
    print(f"{'IEEE 123, one step':42s}{'ms':>10s}{'ratio':>9s}{'max |dV| pu':>13s}")
    for name, seconds, gap in rows:
        print(f"{name:42s}{1e3 * seconds:10.3f}{seconds / fast_s:9.1f}{gap:13.1e}")
    print(f"balanced_network {1e3 * build_s:.2f} ms, retap {1e3 * retap_s:.3f} ms ({build_s / retap_s:.0f}x)")


if __name__ == "__main__":
    main()
