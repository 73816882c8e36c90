"""What clearings certify, turned into rows and events: an event when trouble begins, a row for every operator.

One row an operator, and not one a batch, so that the rows are the same however operators are spread over shards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from voltier.agents.operator import Rows
from voltier.market.consumer import Game
from voltier.market.pricing import Tariffs
from voltier.market.secondary import SecondaryDispatch

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Flags = NDArray[np.bool_]

TRACKING_KW = 1e-6
"""Largest miss of a target that still counts as met by a consumer market."""
BUDGET_USD_PER_H = 1e-6
"""Largest gap between what a consumer market pays and receives that still counts as closed."""


def event(source: str, t_s: int, kind: str, text: str) -> Rows:
    """Return a row of the event log."""
    return Rows("events", t_s, {"source": [source], "kind": [kind], "text": [text]})


class Onset:
    """Remembers who is in trouble, so that it is told when it begins and not as long as it lasts.

    n : how many are watched ; rest : times without trouble after which new trouble is told again
    """

    def __init__(self, n: int, rest: int = 1) -> None:
        self._rest, self._quiet = rest, np.full(n, rest)

    def begun(self, now: Flags) -> list[int]:
        """Return whose trouble begins now, in order."""
        begun = np.flatnonzero(now & (self._quiet >= self._rest))
        self._quiet = np.where(now, 0, self._quiet + 1)
        return [int(i) for i in begun]


class BudgetWatch:
    """Tells of tariff limits that keep a secondary market's budgets from closing. name : (n_smo,) operators."""

    def __init__(self, name: Sequence[str]) -> None:
        self._name = name
        self._active, self._reactive = Onset(len(name)), Onset(len(name))

    def events(self, t_s: int, tariffs: Tariffs) -> list[Rows]:
        """Return an event for each budget that has begun to stay open."""
        open_usd = tariffs.budget_residual_usd_per_h
        q_open_usd = tariffs.q_budget_residual_usd_per_h
        begun = [("active", i, open_usd[i]) for i in self._active.begun(tariffs.capped)]
        begun += [("reactive", i, q_open_usd[i]) for i in self._reactive.begun(tariffs.q_capped)]
        return [
            event("smo", t_s, "budget-open", f"{self._name[i]}: tariff limits leave the budget of {kind} energy "
                  f"open by {usd:+.4f} $/h, {'kept' if usd > 0.0 else 'paid'} by the operator")
            for kind, i, usd in begun
        ]  # fmt: skip


def secondary_certificate(
    t_s: int, smo: Index, dispatch: SecondaryDispatch, tariffs: Tariffs, solve_s: float
) -> Rows:
    """Return the certificates of a batch of secondary clearings, one row an operator.

    smo : (n_smo,) positions in the whole run; solve_s : wall time of the batch, of which each gets an even share.
    """
    columns = {
        "position": smo.astype(np.float64),
        "residual": dispatch.residual,
        "converged": dispatch.converged.astype(np.float64),
        "p_shortage_kw": dispatch.p_shortage_kw,
        "q_shortage_kvar": dispatch.q_shortage_kvar,
        "budget_residual_usd_per_h": tariffs.budget_residual_usd_per_h,
        "q_budget_residual_usd_per_h": tariffs.q_budget_residual_usd_per_h,
        "capped": tariffs.capped.astype(np.float64),
        "q_capped": tariffs.q_capped.astype(np.float64),
        "solve_s": np.full(len(smo), solve_s / len(smo)),
    }
    return Rows("secondary_clearings", t_s, columns)


class GameBook:
    """Certificates of the consumer markets of a shard, gathered over a recording period.

    name, position : (n_cmo,) of the operators, positions in the whole run.
    """

    def __init__(self, name: Sequence[str], position: Index) -> None:
        self._name, self._position = name, position
        n = len(name)
        # Houses whose sum is near zero cross it many times an hour.
        self._infeasible, self._degenerate, self._inexact = Onset(n), Onset(n, rest=60), Onset(n)
        self._start_over()

    def _start_over(self) -> None:
        self._minutes, self._solve_s = 0, 0.0
        self._tracking, self._budget, self._side = np.zeros((3, len(self._name)))
        self._n_degenerate, self._n_infeasible = np.zeros((2, len(self._name)))

    def add(self, t_s: int, game: Game, solve_s: float) -> list[Rows]:
        """Enter a minute's games, played in solve_s seconds; return events of what begins to be amiss."""
        track, budget = game.tracking_error_kw, game.budget_error_usd_per_h
        within = game.feasible
        self._minutes += 1
        self._solve_s += solve_s
        self._tracking = np.maximum(self._tracking, np.abs(track))
        self._budget = np.maximum(self._budget, np.abs(budget))
        self._side += game.side_payment_usd_per_h
        self._n_degenerate += game.degenerate
        self._n_infeasible += ~within
        inexact = within & ~((np.abs(track) <= TRACKING_KW) & (np.abs(budget) <= BUDGET_USD_PER_H))
        told = [("game-infeasible", i, f"its houses cannot reach the target; they miss it by {-track[i]:+.4f} kW")
                for i in self._infeasible.begun(~within)]  # fmt: skip
        told += [("game-degenerate", i, "wishes cancel and cannot carry prices; a side payment of "
                  f"{game.side_payment_usd_per_h[i]:+.4f} $/h closes the budget")
                 for i in self._degenerate.begun(game.degenerate)]  # fmt: skip
        told += [("game-inexact", i, f"target missed by {-track[i]:+.2e} kW, budget open by {budget[i]:+.2e} $/h")
                 for i in self._inexact.begun(inexact)]  # fmt: skip
        return [event("cmo", t_s, kind, f"{self._name[i]}: {text}") for kind, i, text in told]

    def close(self, t_s: int) -> Rows:
        """Return the rows of the period that began at t_s, and start over."""
        n = max(self._minutes, 1)
        columns = {
            "position": self._position.astype(np.float64),
            "tracking_error_kw": self._tracking,
            "budget_error_usd_per_h": self._budget,
            "side_payment_usd_per_h": self._side / n,
            "degenerate_share": self._n_degenerate / n,
            "infeasible_share": self._n_infeasible / n,
            "solve_s": np.full(len(self._name), self._solve_s / len(self._name)),
        }
        self._start_over()
        return Rows("consumer_clearings", t_s, columns)
