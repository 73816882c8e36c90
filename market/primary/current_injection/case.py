"""One clearing on its way to a bound: what is known of it, and the steps taken."""

from __future__ import annotations

from dataclasses import dataclass, replace

from voltier.market.primary.current_injection.bounds import (
    Bounds,
    Limits,
    Near,
    Tightening,
    operator_power,
)
from voltier.market.primary.current_injection.intervals import Rectangle, meet
from voltier.market.primary.current_injection.terminals import Terminals, VoltageTarget
from voltier.market.primary.problem import ScaledBids


@dataclass(frozen=True, slots=True)
class Case:
    """One clearing and what has been proven about it.

    bids : with the ranges that are still possible ; bounds, near : from tightening
    extra : (n_quantity,) ranges of the cone relaxation's quantities found otherwise, None: none
    """

    bids: ScaledBids
    target: VoltageTarget
    bounds: Bounds
    near: Near | None = None
    extra: Rectangle | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One step towards a bound: what it was, the bound after it, its time and the programs it solved.

    mismatch_pu : largest difference between powers and products of voltages and currents in its solution
    mismatch : mean difference relative to the mean power ; loss_pu : losses of its model ; nan where not asked for
    """

    name: str
    bound: float
    seconds: float
    programs: int
    mismatch_pu: float
    mismatch: float
    loss_pu: float


def tightened(
    case: Case, terminals: Terminals, tightening: Tightening, limits: Limits, found: tuple[ScaledBids, Near]
) -> Case:
    """Tighten a case once more, from newly found ranges of the operators and what it knows already."""
    bids, near = found
    known = case.bounds
    if case.extra is not None:
        v, ok = meet(known.v, case.extra[: terminals.n_node])
        known = replace(known, v=v, feasible=known.feasible and ok)
    bounds = tightening.run(operator_power(terminals, bids), limits, known=known, near=near)
    return replace(
        case, bids=bids, near=near, bounds=replace(bounds, feasible=bounds.feasible and known.feasible)
    )
