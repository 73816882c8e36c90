"""Detection of an attack from the power at the substation alone, one residual a sample, no side effects.

residual = measured minus scheduled injection of the feeder into the bulk grid (negative: more import than
meant). Its usual mean and spread are learned by exponential averages from samples that look normal, and
only from those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, slots=True)
class Detector:
    """Settings.

    sigmas : alarm threshold in standard deviations of the normal residual; load_share : and at least this
    share of the feeder's load; consecutive : samples in a row beyond it that raise the alarm; release :
    samples in a row within it that clear it; warm_up : first samples, which are only learned from; memory :
    samples the averages span
    """

    sigmas: float = 4.0
    load_share: float = 0.01
    consecutive: int = 2
    warm_up: int = 30
    release: int = 3
    memory: float = 60.0


@dataclass(frozen=True, slots=True)
class DetectorState:
    """What has been learned and seen.

    bias_kw, variance_kw2 : usual mean and variance of the residual; learned : samples behind them
    beyond, within : samples in a row beyond / within the threshold; alarm : whether it is on
    """

    bias_kw: float = 0.0
    variance_kw2: float = 0.0
    learned: int = 0
    beyond: int = 0
    within: int = 0
    alarm: bool = False


def threshold_kw(state: DetectorState, load_kw: float, detector: Detector) -> float:
    """Return how far the residual may be from its bias [kW]; load_kw : consumption of the feeder."""
    return max(detector.sigmas * float(np.sqrt(state.variance_kw2)), detector.load_share * abs(load_kw))


def observe(
    state: DetectorState, residual_kw: float, load_kw: float, detector: Detector
) -> tuple[DetectorState, bool]:
    """Take one sample; return the next state and whether the alarm is on."""
    if state.learned < detector.warm_up:
        return _learn(state, residual_kw, detector), False
    suspicious = abs(residual_kw - state.bias_kw) > threshold_kw(state, load_kw, detector)
    beyond = state.beyond + 1 if suspicious else 0
    within = 0 if suspicious else state.within + 1
    alarm = within < detector.release if state.alarm else beyond >= detector.consecutive
    if not (suspicious or alarm or state.alarm):
        state = _learn(state, residual_kw, detector)
    return replace(state, beyond=beyond, within=within, alarm=alarm), alarm


def _learn(state: DetectorState, residual_kw: float, detector: Detector) -> DetectorState:
    """Move mean and variance towards a normal sample; the first samples count equally."""
    learned = state.learned + 1
    share = max(1.0 / learned, 1.0 / detector.memory)
    off = residual_kw - state.bias_kw
    return replace(
        state,
        bias_kw=state.bias_kw + share * off,
        variance_kw2=(1.0 - share) * (state.variance_kw2 + share * off**2),
        learned=learned,
    )
