"""What operators do for the first time takes longer, as kernels are loaded then: in a paced run they do it before time.

Each rehearses on two markets of two agents; nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from voltier.federates.wiring import role_of


def rehearse(name: str) -> None:
    """Let an operator's process load the kernels of its role."""
    rehearsal = _REHEARSALS.get(role_of(name))
    if rehearsal is not None:
        rehearsal()


def _secondary() -> None:
    from voltier.market.pricing import TariffRules, price_secondary
    from voltier.market.secondary import SecondaryBids, clear_secondary

    one, none = np.ones(4), np.zeros(2)
    zero = 0.0 * one
    bids = SecondaryBids(np.array([0, 2, 4]), zero, -one, one, zero, -one, one, one, one, one)
    dispatch = clear_secondary(bids, none + 1.0, none)
    price_secondary(bids, dispatch, none + 0.1, none, 0.1 * one, TariffRules(0.05, 0.01, 0.258))


def _consumer() -> None:
    from voltier.market.consumer import play_game

    one = np.ones(4)
    play_game(np.array([0, 2, 4]), 0.0 * one, -one, one, one, np.ones(2), 0.1 * np.ones(2))


_REHEARSALS: dict[str, Callable[[], None]] = {"smo": _secondary, "cmo": _consumer}
