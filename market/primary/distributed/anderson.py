"""Anderson acceleration of a method's rounds.

The state s is replaced by the combination of the last states whose steps g(s) - s cancel best (Walker and Ni, SIAM J.
Numerical Analysis 49(4), 2011, type II). The atoms keep their states to themselves, but all must add up the m inner
products of their steps in every round and agree on the m weights: a sum over all atoms that the plain methods lack.
A combination whose step is longer than the last plain one's is taken back.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Share of the largest step product that steadies the least-squares weights.
RIDGE = 1e-10
# Growth of the step within one window at which the accelerated state is abandoned.
GROWTH = 2.0


class Mapped(Protocol):
    """A method whose next round depends on flat alone, and which changes it in place; metric weighs flat's entries."""

    flat: Array
    metric: Array

    def advance(self, count: int) -> None:
        """Advance by count rounds."""


class Anderson:
    """A method accelerated over a window of rounds; rounds are counted as the method's own."""

    def __init__(self, method: Mapped, window: int) -> None:
        self._method, self._window, self._metric = method, window, method.metric
        size = len(method.flat)
        self._steps, self._images = np.zeros((window, size)), np.zeros((window, size))
        self._gram = np.zeros((window, window))
        self._forget()

    def _forget(self) -> None:
        self._count, self._last, self._image = 0, None, None
        self._safe: Array | None = None
        self._least = np.inf

    _last: Array | None
    _image: Array | None

    def advance(self, count: int) -> None:
        """Advance by count rounds."""
        for _ in range(count):
            self._round()

    def _round(self) -> None:
        flat = self._method.flat
        before = flat.copy()
        self._method.advance(1)
        step = (flat - before) * self._metric
        length = float(np.linalg.norm(step))
        if self._safe is not None and not length <= GROWTH * self._least:
            flat[:] = self._safe
            self._forget()
            return
        self._least = min(self._least, length)
        image = flat.copy()
        if self._last is not None and self._image is not None:
            self._remember(step - self._last, image - self._image)
        self._last, self._image, self._safe = step, image, image
        used = min(self._count, self._window)
        if used:
            gram = self._gram[:used, :used]
            steady = gram + RIDGE * max(float(np.trace(gram)), 1e-300) * np.eye(used)
            weight = np.linalg.solve(steady, self._steps[:used] @ step)
            flat[:] = image - weight @ self._images[:used]

    def _remember(self, step: Array, image: Array) -> None:
        at = self._count % self._window
        self._steps[at], self._images[at] = step, image
        self._count += 1
        used = min(self._count, self._window)
        products = self._steps[:used] @ step
        self._gram[at, :used] = self._gram[:used, at] = products
