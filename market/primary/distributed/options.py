"""What a distributed method may be told, and how it judges that it is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from voltier.grid.errors import InputError, Problem

Array = NDArray[np.float64]

MethodName = Literal["pac", "nst-pac", "admm"]


@dataclass(frozen=True, slots=True)
class StoppingRule:
    """Stop when no residual of B a = 0 and of G a = b exceeds primal_pu, and the prices have settled.

    price_change : change of any price since the last look, of the largest ; look_every : rounds between looks

    The defaults leave cost within 0.1 %, set-points within 1e-3 p.u. and prices within 2 % of the central ones on
    IEEE 13, 34 and 123, balanced and three-phase, cold and warm. With residuals of 1e-4 and changes of 1e-3 a warm
    three-phase IEEE 34 is 0.2 % off in cost and 3e-3 p.u. in set-points, and ADMM's prices on the balanced IEEE 123 are
    5 % off. Only prices are watched: multipliers of Ohm's law drift for 10,000 rounds where limits nearly coincide, and
    no price follows them.
    """

    primal_pu: float = 2e-5
    price_change: float = 1e-4
    look_every: int = 25
    max_rounds: int = 40_000


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of the distributed methods; whatever a method does not have it ignores.

    stop : the stopping rule
    precondition : steps from the program's stiffness, and for PAC from each atom's own rows; else one step for all
    rho, gamma : for one step for all: proximal term 1/ρ and dual step ργ ; scale : factor on the stiffness
    row_share : share σ of the step rule that an atom's own rows take, in (0, 1), the ties have the rest (PAC)
    row_weight : weight W of an atom's own rows inside its own minimisation (NST-PAC)
    extrapolation : α, φ, θ of NST-PAC ; relaxation : of ADMM, in (0, 2)
    mask : each atom shortens its extrapolations by a private, ever new share of up to this, in [0, 1]
    restart_growth : extrapolations are put to 0 when the primal residual has grown by this since its best
    anderson : rounds that Anderson acceleration looks back, 0 for none; it needs mask 0, for it mixes rounds
    seed : of the private shares
    """

    stop: StoppingRule = field(default_factory=StoppingRule)
    precondition: bool = True
    rho: float = 0.3
    gamma: float = 1.0
    scale: float = 1.0
    row_share: float = 0.5
    row_weight: float = 1e3
    extrapolation: tuple[float, float, float] = (0.0, 0.3, 0.3)
    relaxation: float = 1.6
    mask: float = 0.5
    restart_growth: float = 5.0
    anderson: int = 0
    seed: int = 1


def check_options(options: Options) -> None:
    """Raise InputError for settings without meaning."""
    wrong = {
        "rho": options.rho <= 0.0,
        "gamma": options.gamma <= 0.0,
        "scale": options.scale <= 0.0,
        "row_share": not 0.0 < options.row_share < 1.0,
        "row_weight": options.row_weight <= 0.0,
        "extrapolation": min(options.extrapolation) < 0.0 or max(options.extrapolation) > 1.0,
        "relaxation": not 0.0 < options.relaxation < 2.0,
        "mask": not 0.0 <= options.mask <= 1.0,
        "restart_growth": options.restart_growth <= 1.0,
        "anderson": options.anderson < 0 or (options.anderson > 0 and options.mask > 0.0),
    }
    remedy = "positive; shares in [0, 1], relaxation in (0, 2), growth above 1; no mask where Anderson mixes states"
    problems = [
        Problem("distributed", name, getattr(options, name), remedy) for name, bad in wrong.items() if bad
    ]
    if problems:
        raise InputError(problems)
