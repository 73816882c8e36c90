"""The network between devices and operators, simulated packet burst by packet burst with SimPy.

Each SMO has a gateway. In every minute a gateway carries one set-point packet down to, and one meter packet up from,
each of its agents; packets are late or lost at random, and a compromised gateway forges traffic on top. An agent whose
set-point does not arrive in time does not hear of it and keeps to its plan; of an agent whose meter packet is lost its
operator keeps the last reading it has, and scores and settles the minute by that. Each agent's losses are its own.
Operators see traffic counts only; the anomaly follows from them.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import simpy
from numpy.typing import NDArray

from voltier.agents.clock import MINUTE_S
from voltier.agents.randomness import stream

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

FORGED_SHARE = 1.0
"""Forged packets of a compromised gateway, as a share of its honest ones (mean)."""
_ANOMALOUS_SIGMAS = 4.0


@dataclass(frozen=True, slots=True)
class IotSpec:
    """latency_s : mean delay of a packet, exponential; loss : share of packets lost; compromised : SMO positions."""

    latency_s: float
    loss: float
    compromised: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a minute brought, (n_sma,) each.

    delivered : whether the set-point arrived in time ; metered : whether the reading arrived ; anomaly : 0 to 1
    """

    delivered: Mask
    metered: Mask
    anomaly: Array


class IotNetwork:
    """Gateways of one shard. smo_index : positions of its SMOs in the whole run; smo_offset : first agent of each."""

    def __init__(self, spec: IotSpec, seed: int, smo_index: Index, smo_offset: Index) -> None:
        self._spec, self._offset = spec, smo_offset
        self._streams = [stream(seed, "iot", int(i)) for i in smo_index]
        self._compromised = np.isin(smo_index, spec.compromised)
        n = len(smo_index)
        self._packets = np.zeros(n)
        self._delivered, self._metered = np.zeros((2, int(smo_offset[-1])), dtype=bool)
        self._expected = 2.0 * np.diff(smo_offset) * (1.0 - spec.loss)
        self._env = simpy.Environment()

    def minute(self) -> Traffic:
        """Let one minute of traffic pass."""
        self._packets[:] = 0.0
        self._delivered[:] = False
        self._metered[:] = False
        for k in range(len(self._streams)):
            self._env.process(self._gateway(k))
        self._env.run(until=self._env.now + MINUTE_S)
        anomaly = self._judge()
        anomalies = np.repeat(anomaly, np.diff(self._offset))
        return Traffic(self._delivered.copy(), self._metered.copy(), anomalies)

    def _gateway(self, k: int) -> Generator[simpy.Event, None, None]:
        """Carry one minute's bursts: set-points down, then meters up, then whatever is forged."""
        rng, spec = self._streams[k], self._spec
        first, last = self._offset[k], self._offset[k + 1]
        n = int(last - first)
        delay_s = rng.exponential(spec.latency_s, n) if spec.latency_s > 0.0 else np.zeros(n)
        lost = rng.random((2, n)) < spec.loss
        extra = rng.poisson(FORGED_SHARE * 2 * n) if self._compromised[k] else 0
        # Half of what is left of the minute is enough for a controller to act on a set-point.
        yield self._env.timeout(min(float(delay_s.max(initial=0.0)), MINUTE_S / 2))
        self._delivered[first:last] = ~lost[0] & (delay_s < MINUTE_S / 2)
        self._packets[k] += n - int(lost[0].sum())
        yield self._env.timeout(1.0)
        self._metered[first:last] = ~lost[1]
        self._packets[k] += n - int(lost[1].sum()) + extra

    def _judge(self) -> Array:
        """Mark gateways that carry more packets than their agents can have sent; half a mark at four sigmas."""
        spread = np.sqrt(self._expected * self._spec.loss)
        z = (self._packets - self._expected) / np.maximum(spread, 1.0)
        return np.clip(z / _ANOMALOUS_SIGMAS - 0.5, 0.0, 1.0)
