"""The device network: what arrives, what is lost, who is suspected."""

import numpy as np
import pytest

from voltier.agents.iot import IotNetwork, IotSpec

OFFSET = np.array([0, 3, 7, 12, 15])


def run(spec, minutes, smo=(0, 1, 2, 3), offset=OFFSET, seed=5):
    network = IotNetwork(spec, seed, np.array(smo), np.asarray(offset))
    traffic = [network.minute() for _ in range(minutes)]
    return np.array([t.delivered for t in traffic]), np.array([t.anomaly for t in traffic])


def test_without_loss_everything_arrives_and_nobody_is_suspected():
    delivered, anomaly = run(IotSpec(0.05, 0.0), 60)
    assert delivered.all()
    assert not anomaly.any()


def test_all_lost_means_none_delivered():
    assert not run(IotSpec(0.05, 1.0), 5)[0].any()


def test_readings_are_lost_on_their_own_and_alike_in_any_shard():
    spec = IotSpec(0.05, 0.2)
    whole = [IotNetwork(spec, 5, np.arange(4), OFFSET).minute() for _ in range(1)]
    network, part = (
        IotNetwork(spec, 5, np.arange(4), OFFSET),
        IotNetwork(spec, 5, np.array([2, 3]), np.array([0, 5, 8])),
    )
    traffic, in_part = [network.minute() for _ in range(400)], [part.minute() for _ in range(400)]
    metered = np.array([t.metered for t in traffic])
    delivered = np.array([t.delivered for t in traffic])
    # 6,000 draws: four standard deviations are 0.021; both arriving together as often as chance has it
    assert metered.mean() == pytest.approx(0.8, abs=0.021)
    assert (metered & delivered).mean() == pytest.approx(0.64, abs=0.025)
    np.testing.assert_array_equal(np.array([t.metered for t in in_part]), metered[:, 7:])
    np.testing.assert_array_equal(whole[0].metered, metered[0])


def test_the_share_lost_is_the_one_asked_for():
    delivered, _ = run(IotSpec(0.05, 0.2), 400)
    # 6,000 draws: four standard deviations are 0.021
    assert 1 - delivered.mean() == pytest.approx(0.2, abs=0.021)


def test_what_is_far_too_late_counts_as_not_delivered():
    delivered, _ = run(IotSpec(60.0, 0.0), 200)
    # exponential delay of mean 60 s against a deadline of 30 s; 3,000 draws, four standard deviations
    assert delivered.mean() == pytest.approx(1 - np.exp(-0.5), abs=0.036)


def test_a_gateway_carries_the_same_in_any_shard():
    delivered, anomaly = run(IotSpec(0.05, 0.1, (2,)), 120)
    part = run(IotSpec(0.05, 0.1, (2,)), 120, smo=(2, 3), offset=[0, 5, 8])
    np.testing.assert_array_equal(part[0], delivered[:, 7:])
    np.testing.assert_array_equal(part[1], anomaly[:, 7:])


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.3, 0.9])
def test_no_loss_however_large_makes_honest_gateways_suspect(loss):
    _, anomaly = run(IotSpec(0.05, loss), 500)
    # an honest gateway of five agents, of whose ten packets 90 % are usually lost, is lucky at times
    assert anomaly.mean() < 0.01


def test_all_gateways_may_be_compromised():
    _, anomaly = run(IotSpec(0.05, 0.01, (0, 1, 2, 3)), 200)
    assert anomaly.mean(axis=0).min() > 0.3


def test_ordinary_losses_raise_no_suspicion():
    _, anomaly = run(IotSpec(0.05, 0.01), 1440)
    assert anomaly.max() < 0.5


def test_a_gateway_that_forges_traffic_from_the_start_is_suspected():
    _, anomaly = run(IotSpec(0.05, 0.01, (1,)), 300)
    suspected, honest = anomaly[60:, 3:7].mean(), np.delete(anomaly[60:], range(3, 7), axis=1).mean()
    # its normal must not be learned from forged traffic; half as much again is four or more sigmas
    assert suspected > 0.3
    assert honest < 0.02
