"""Detection of an attack from the substation's residual alone."""

import numpy as np
import pytest

from voltier.market.resilience.detection import Detector, DetectorState, observe

DAY = 1440
LOAD_KW = 2_000.0


def alarms(residual_kw, detector: Detector = Detector(), load_kw: float = LOAD_KW) -> np.ndarray:  # noqa: B008
    state, out = DetectorState(), []
    for sample in residual_kw:
        state, alarm = observe(state, float(sample), load_kw, detector)
        out.append(alarm)
    return np.array(out)


def ordinary(seed: int, minutes: int = DAY, sigma_kw: float = 10.0) -> np.ndarray:
    """Gaussian noise on a bias that drifts by 30 kW through the day."""
    noise = np.random.default_rng(seed).normal(0.0, sigma_kw, minutes)
    return noise + 30.0 * np.sin(2.0 * np.pi * np.arange(minutes) / DAY)


@pytest.mark.parametrize("seed", range(20))
def test_no_false_alarm_in_an_ordinary_day(seed: int) -> None:
    assert not alarms(ordinary(seed)).any()


def test_step_is_found_at_the_second_sample() -> None:
    residual = ordinary(1)
    residual[600:] -= 200.0
    found = alarms(residual)
    assert not found[:601].any()
    assert found[601]
    assert found[601:900].all()  # and the attack is not learned as the new normal, however long it lasts


def test_single_outlier_is_ignored() -> None:
    residual = ordinary(2)
    residual[600] -= 500.0
    assert not alarms(residual).any()


def test_alarm_ends_when_the_residual_is_back_for_long_enough() -> None:
    residual = np.zeros(200)
    residual[100:120] = -300.0
    found = alarms(residual, Detector(release=3))
    assert found[101:122].all()
    assert not found[122:].any()


def test_learning_stops_while_suspicious_or_alarmed() -> None:
    state, detector = DetectorState(), Detector(warm_up=5)
    for sample in (1.0, -1.0, 1.0, -1.0, 0.0):
        state, _ = observe(state, sample, LOAD_KW, detector)
    learned = (state.bias_kw, state.variance_kw2, state.learned)
    for _ in range(50):
        state, _ = observe(state, -400.0, LOAD_KW, detector)
    assert state.alarm
    assert (state.bias_kw, state.variance_kw2, state.learned) == learned


def test_first_samples_give_their_mean_and_variance() -> None:
    samples = np.array([3.0, -1.0, 4.0, 1.0, -5.0])
    state = DetectorState()
    for sample in samples:
        state, _ = observe(state, float(sample), LOAD_KW, Detector(warm_up=5, memory=100.0))
    assert state.bias_kw == pytest.approx(samples.mean())
    assert state.variance_kw2 == pytest.approx(samples.var())


def test_no_alarm_during_warm_up() -> None:
    residual = np.zeros(40)
    residual[10:15] = -900.0
    assert not alarms(residual, Detector(warm_up=30)).any()


def test_quiet_feeder_is_judged_by_its_load() -> None:
    residual = np.zeros(100)
    residual[50:] = -15.0
    assert not alarms(residual, load_kw=2_000.0).any()  # 1 % of 2,000 kW is 20 kW
    assert alarms(residual, load_kw=1_000.0)[51:].all()


def test_lower_thresholds_find_more_and_cry_wolf_more() -> None:
    caught, false = [], []
    for sigmas in (1.5, 2.0, 3.0, 4.0, 6.0):
        detector = Detector(sigmas=sigmas, load_share=0.0)
        hits = cries = 0
        for seed in range(12):
            residual = ordinary(seed)
            residual[700:720] -= 35.0
            found = alarms(residual, detector)
            hits += found[700:720].any() and not found[699]
            cries += int(alarms(ordinary(seed), detector).sum())
        caught.append(hits)
        false.append(cries)
    assert false == sorted(false, reverse=True)
    assert false[0] > 50
    assert false[3] == 0
    assert caught[1] >= caught[3] >= caught[4]
    assert caught[2] >= 10
