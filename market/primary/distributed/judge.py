"""What follows from a look at the residuals: the one rule by which all methods and all transports go on or end."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from voltier.market.primary.distributed.options import Options

Verdict = Literal["on", "restart", "agreed", "broken"]


class Look(NamedTuple):
    """Largest residuals of all atoms. consensus_pu ‖Ba‖∞ ; rows_pu ‖Ga - b‖∞

    dual_step : largest change of a multiplier since the last look ; dual_size : largest multiplier
    """

    consensus_pu: float
    rows_pu: float
    dual_step: float
    dual_size: float

    @property
    def worst_pu(self) -> float:
        """The larger primal residual."""
        return float(np.maximum(self.consensus_pu, self.rows_pu))

    @property
    def dual_change(self) -> float:
        """Relative change of the multipliers."""
        return self.dual_step / max(self.dual_size, 1e-12)


class Judge:
    """Judges one look after the other at one program."""

    def __init__(self, options: Options) -> None:
        self._options, self._best = options, np.inf

    def verdict(self, look: Look) -> Verdict:
        """Say whether to stop, to go on, or to go on without momentum because the residuals have grown too much."""
        options, worst = self._options, look.worst_pu
        if not np.isfinite(worst):
            return "broken"
        if worst <= options.stop.primal_pu and look.dual_change <= options.stop.dual_change:
            return "agreed"
        if worst > options.restart_growth * self._best:
            self._best = worst
            return "restart"
        self._best = min(self._best, worst)
        return "on"
