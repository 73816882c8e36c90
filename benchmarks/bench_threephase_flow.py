"""Our three-phase power flow against OpenDSS on the same feeders, spot loads included: radial, tied, and large.

The large feeder is many copies of the 123-node feeder behind one source, each with its own regulators.
"""

from __future__ import annotations

import time
from dataclasses import fields, replace

import numpy as np

from voltier.grid.feeder import Feeder, read_feeder
from voltier.grid.flow.nodal import bus_voltages
from voltier.grid.flow.opendss import OpenDssFlow
from voltier.grid.flow.threephase import ThreePhaseFlow
from voltier.grid.threephase import ANGLE_RAD
from voltier.grid.threephase_build import retap_three_phase, three_phase_network

TIES = ("sw1", "sw2", "sw3", "sw4", "sw5", "sw6", "sw7", "sw8")
COPIES = 35  # 8 543 phase nodes: the size of the 8500-node feeder
REPEATS = 50


def copies(feeder: Feeder, count: int) -> Feeder:
    """Lay count copies of a feeder side by side and join their sources by switches."""
    n = len(feeder.bus)

    def table(part):
        columns = {}
        for field in fields(part):
            value = getattr(part, field.name)
            if isinstance(value, tuple):
                named = field.name == "name"
                columns[field.name] = tuple(f"{k}:{v}" if named else v for k in range(count) for v in value)
            else:
                shift = n if field.name in ("bus", "from_bus", "to_bus") else 0
                columns[field.name] = np.concatenate(
                    [value + k * shift if shift else value for k in range(count)]
                )
        return type(part)(**columns)

    switches = table(feeder.switches)
    far = np.arange(1, count) * n + feeder.source_bus
    joined = replace(
        switches,
        name=switches.name + tuple(f"source{k}" for k in range(1, count)),
        from_bus=np.concatenate([switches.from_bus, np.full(count - 1, feeder.source_bus)]),
        to_bus=np.concatenate([switches.to_bus, far]),
        has_phase=np.concatenate([switches.has_phase, np.ones((count - 1, 3), dtype=bool)]),
        closed=np.concatenate([switches.closed, np.ones(count - 1, dtype=bool)]),
    )
    tables = ("lines", "spot_loads", "capacitors", "regulators", "transformers")
    return replace(
        feeder,
        bus=tuple(f"{k}:{bus}" for k in range(count) for bus in feeder.bus),
        has_phase=np.tile(feeder.has_phase, (count, 1)),
        kv_ll=np.tile(feeder.kv_ll, count),
        xy=np.tile(feeder.xy, (count, 1)),
        switches=joined,
        **{name: table(getattr(feeder, name)) for name in tables},
    )


def median_ms(function, repeats):
    """Give the median milliseconds of a call and its last result."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds)), result


def measure(title, feeder, closed, repeats):
    """Print one case: set-up, taps, flow cold and warm, the same by OpenDSS, and the largest difference."""
    tap = feeder.regulators.published_tap
    build_ms, network = median_ms(
        lambda: three_phase_network(feeder, tap, closed=closed), max(repeats // 10, 1)
    )
    retap_ms, _ = median_ms(lambda: retap_three_phase(network, feeder, tap), repeats)
    ready_ms, flow = median_ms(lambda: ThreePhaseFlow(network), max(repeats // 10, 1))
    retune_ms, _ = median_ms(lambda: flow.retuned(network), repeats)
    rng, n = np.random.default_rng(1), len(network.node_bus)
    draws = [0.002 * rng.normal(size=n) * (1 + 0.5j) for _ in range(repeats + 1)]
    drawn = iter(draws)
    cold_ms, _ = median_ms(lambda: flow.solve(next(drawn)), repeats)
    start, again = flow.solve(draws[0]).v, iter(draws)
    warm_ms, _ = median_ms(lambda: flow.solve(next(again), start), repeats)
    once_ms, solved = median_ms(lambda: ThreePhaseFlow(network).solve(np.zeros(n, dtype=complex)), repeats)
    if closed is not None:
        states = np.isin(np.array(feeder.switches.name), closed)
        feeder = replace(feeder, switches=replace(feeder.switches, closed=states))
    engine, zero = OpenDssFlow(feeder, spot_loads=True), np.zeros((len(feeder.bus), 3))
    theirs_ms, theirs = median_ms(lambda: engine.solve(zero, zero, tap), max(repeats // 5, 1))
    v = bus_voltages(network, solved.v) * np.exp(1j * ANGLE_RAD)
    difference = np.nanmax(np.abs(v - theirs.v_pu))
    print(
        f"{title:24s} {n:6d} {build_ms:9.2f} {retap_ms:8.3f} {ready_ms:8.2f} {retune_ms:8.3f} {cold_ms:8.3f} "
        f"{warm_ms:8.3f} {once_ms:9.2f} {theirs_ms:9.2f} {theirs_ms / cold_ms:7.1f} {difference:11.1e}"
    )


def main() -> None:
    """Print times in milliseconds, ratios and differences."""
    names = (
        "build",
        "retap",
        "ready",
        "retune",
        "flow",
        "warm",
        "from zero",
        "OpenDSS",
        "ratio",
        "difference",
    )
    print(f"{'feeder':24s} {'nodes':>6s} " + " ".join(
        f"{name:>{width}s}" for name, width in zip(names, (9, 8, 8, 8, 8, 8, 9, 9, 7, 11), strict=True)
    ))  # fmt: skip
    for name in ("ieee13", "ieee34", "ieee123"):
        measure(name, read_feeder(name), None, REPEATS)
    feeder = read_feeder("ieee123")
    measure("ieee123, ties closed", feeder, TIES, REPEATS)
    measure(f"ieee123 x {COPIES}", copies(feeder, COPIES), None, 5)


if __name__ == "__main__":
    main()
