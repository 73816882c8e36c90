"""Key figures of an attack: before it, under it, and once the market has answered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voltier.scenarios.metrics_physical import generation_kw, load_kw
from voltier.scenarios.panels import Array, Block
from voltier.scenarios.results import read_table, table_names
from voltier.scenarios.schema import Scenario

Kpis = dict[str, float | int | None]
Window = tuple[int, int]

BEFORE_S = 900
"""Length of the window before the attack [s]; its mean is what the manager has the import go back to."""
MITIGATED_S = 1800
"""Length at most of the window at the end of the attack [s]. Load between two clearings cannot be foreseen, and answers
follow it by one period: over a quarter of an hour that alone may leave 1 % of the import, over half an hour 0.5 %."""

RECOVERED_SHARE = 0.02
"""Distance of the import from its mean before the attack, as a share of it, within which it has recovered."""
SMOOTHED_MIN, HELD_MIN = 5, 15
"""Minutes over which import is averaged, and for which it must stay recovered."""


def attack_kpis(run_dir: Path, scenario: Scenario, blocks: Mapping[str, Block | None]) -> Kpis:
    """Compare the quarter of an hour before the attack, the attack until its answer, and its last half hour.

    Load is what consumers draw net of their own PV and batteries; generation is what primary generators
    deliver; curtailment is the fall of load by the answer; cost is that of the primary periods as they turned
    out (import, generators, losses, disutility), not as planned. Empty without an attack.
    """
    if scenario.attack_window_s is None:
        return {}
    windows, delay_s = attack_windows(run_dir, scenario, blocks["primary"])
    kpis: Kpis = {"attack.detection_delay_s": delay_s}
    grid, substation, primary = blocks["grid"], blocks["substation"], blocks["primary"]
    if grid is None or substation is None:
        return kpis
    n = min(len(grid.t_s), len(substation.t_s))
    t_s = grid.t_s[:n]
    series = {
        "import_{}_kw": -substation.sum("p_kw")[:n],
        "load_{}_kw": load_kw(grid, primary, scenario)[:n],
        "generation_{}_kw": generation_kw(primary, scenario, t_s),
        "losses_{}_kw": substation.sum("loss_kw")[:n],
    }
    for state, window in windows.items():
        for name, values in series.items():
            kpis["attack." + name.format(state)] = _mean_within(t_s, values, window)
        if blocks["system"] is not None:
            system = blocks["system"]
            cost = _mean_within(system.t_s, system["cost_usd_per_h"][:, 0], window)
            kpis[f"attack.cost_{state}_usd_per_h"] = cost
    kpis |= _differences(kpis)
    import_kw = -substation.sum("p_kw")[:n]
    kpis["attack.time_to_recover_min"] = time_to_recover_min(t_s, import_kw, windows["before"])
    if "mitigated" in windows:
        kpis |= _who_curtails(blocks, windows["before"], windows["mitigated"])
    return kpis


def time_to_recover_min(t_s: NDArray[np.int64], import_kw: Array, before: Window) -> float | None:
    """Return the minutes from the attack to the import's recovery; None where a run ends without.

    t_s, import_kw : (n_t,) minute by minute ; before : window before the attack, which begins at its end

    Recovered is the first minute from which the import, averaged over five minutes, stays within 2 % of its mean
    before the attack for a quarter of an hour. An attack that ends by itself ends in a recovery too.
    """
    level = _mean_within(t_s, import_kw, before)
    later = import_kw[t_s >= before[1]]
    if level is None or len(later) < HELD_MIN:
        return None
    smooth = np.convolve(later, np.full(SMOOTHED_MIN, 1.0 / SMOOTHED_MIN), mode="valid")
    inside = np.abs(smooth - level) <= RECOVERED_SHARE * abs(level)
    length = HELD_MIN - SMOOTHED_MIN + 1
    held = np.convolve(inside, np.ones(length), mode="valid") > length - 0.5
    # What is inside in the first minutes has not left yet, unless it never leaves.
    left = np.flatnonzero(~inside)
    begins = np.flatnonzero(held)
    if not len(left):
        return 0.0
    begins = begins[begins > left[0]]
    return float(begins[0]) if len(begins) else None


def attack_windows(
    run_dir: Path, scenario: Scenario, primary: Block | None
) -> tuple[dict[str, Window], int | None]:
    """Return the windows "before", "attacked" and, where the market answered, "mitigated", and the delay [s].

    A window is (from, to) in simulated seconds; the delay is from attack to alarm, None if nobody noticed.
    """
    assert scenario.attack_window_s is not None
    start_s, stop_s = scenario.attack_window_s
    end_s = scenario.end_s if stop_s is None else min(stop_s, scenario.end_s)
    alarm_s = _first_alarm(run_dir, start_s, end_s)
    windows = {"before": (max(start_s - BEFORE_S, 0), start_s), "attacked": (start_s, end_s)}
    if alarm_s is None or primary is None or not scenario.resilience.mitigate:
        return windows, None if alarm_s is None else alarm_s - start_s
    later = primary.t_s[primary.t_s >= alarm_s]
    if len(later) and later[0] < end_s:
        answer_s = int(later[0])
        windows["attacked"] = (start_s, answer_s)
        # The first answer is corrected by the next ones; the window is what they settle on.
        windows["mitigated"] = (max(end_s - MITIGATED_S, answer_s), end_s)
    return windows, alarm_s - start_s


def _mean_within(t_s: NDArray[np.int64], values: Array, window: Window) -> float | None:
    """Return the mean over a window, or None if it holds no time."""
    here = (t_s >= window[0]) & (t_s < window[1])
    return float(values[here].mean()) if here.any() else None


def _first_alarm(run_dir: Path, start_s: int, end_s: int) -> int | None:
    if "events" not in table_names(run_dir):
        return None
    events = read_table(run_dir, "events").to_pylist()
    alarms = [row["t_s"] for row in events if row["kind"] == "alarm" and start_s <= row["t_s"] < end_s]
    return min(alarms, default=None)


def _differences(kpis: Kpis) -> Kpis:
    """Return what the attack took and what the answer gave, where both windows have a value."""

    def change(name: str, start: str, end: str) -> float | None:
        a, b = kpis.get(f"attack.{name}_{start}_kw"), kpis.get(f"attack.{name}_{end}_kw")
        return None if a is None or b is None else b - a

    lost, added = change("generation", "attacked", "before"), change("generation", "attacked", "mitigated")
    fallen, before = change("load", "mitigated", "attacked"), kpis.get("attack.import_before_kw")
    residual = change("import", "before", "mitigated")
    return {
        "attack.generation_lost_kw": lost,
        "attack.generation_added_kw": added,
        "attack.curtailment_kw": fallen,
        "attack.import_error_share": None if residual is None or not before else residual / before,
    }


def _who_curtails(blocks: Mapping[str, Block | None], before: Window, window: Window) -> Kpis:
    """Rank correlation of resilience score and curtailment, over operators and agents that had room.

    Curtailment is what the answer adds to what the set-point gave above the agent's own plan before the attack; the
    share is of the room to give.
    """
    kpis: Kpis = {}
    for name, level in (("primary", "smo"), ("secondary", "sma")):
        block = blocks[name]
        assert block is not None
        here = (block.t_s >= window[0]) & (block.t_s < window[1])
        earlier = (block.t_s >= before[0]) & (block.t_s < before[1])
        above = block["p_kw"] - block["p0_kw"]
        score, room = block["rs"][here].mean(axis=0), (block["p_max_kw"] - block["p0_kw"])[here].mean(axis=0)
        given = above[here].mean(axis=0) - above[earlier].mean(axis=0)
        # Below a watt of room there is nothing to rank.
        able = room > 1e-3
        kpis[f"attack.curtailment_{level}_max_kw"] = float(given.max()) if len(given) else None
        kpis[f"attack.curtailment_{level}_spearman"] = _rank_correlation(score[able], given[able])
        kpis[f"attack.curtailment_share_{level}_spearman"] = _rank_correlation(
            score[able], given[able] / room[able]
        )
    return kpis


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    """Return Spearman's coefficient, or None where one side does not vary."""
    if len(a) < 3 or np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return None
    # Half a second to import, and only attacks need it.
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)
