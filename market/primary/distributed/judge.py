"""What follows from a look at the residuals: the one rule by which all methods and all transports go on or end."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from voltier.market.primary.distributed.options import Options

Verdict = Literal["on", "restart", "move", "agreed", "broken"]

# Linearising may leave this share of the residual that the stopping rule leaves.
BEND_SHARE = 0.5
# A program whose residuals are below this share of what linearising leaves has no more to say about the true one.
EARLY_SHARE = 0.3


class Look(NamedTuple):
    """Largest residuals of all atoms. consensus_pu ‖Ba‖∞ ; rows_pu ‖Ga - b‖∞

    price_step : largest change of a price since the last look ; price_size : largest price
    bend_pu : what linearising has left, 0 for a program that is not tangent to anything
    """

    consensus_pu: float
    rows_pu: float
    price_step: float
    price_size: float
    bend_pu: float

    @property
    def worst_pu(self) -> float:
        """The larger primal residual."""
        return float(np.maximum(self.consensus_pu, self.rows_pu))

    @property
    def price_change(self) -> float:
        """Change of the prices, of the largest."""
        return self.price_step / max(self.price_size, 1e-12)


class Judge:
    """Judges one look after the other at one program."""

    def __init__(self, options: Options) -> None:
        self._options, self._best = options, np.inf

    def verdict(self, look: Look) -> Verdict:
        """Say whether to stop, to go on, or what to change.

        "move" : to the point that the unknowns describe ; "restart" : without momentum, residuals have grown too much
        """
        options, worst = self._options, look.worst_pu
        if not np.isfinite(worst):
            return "broken"
        solved = worst <= options.stop.primal_pu and look.price_change <= options.stop.price_change
        if look.bend_pu > BEND_SHARE * options.stop.primal_pu:
            if solved or worst <= EARLY_SHARE * look.bend_pu:
                return "move"
        elif solved:
            return "agreed"
        if worst > options.restart_growth * self._best:
            self._best = worst
            return "restart"
        self._best = min(self._best, worst)
        return "on"
