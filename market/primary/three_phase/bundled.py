"""One tariff for energy, reactive power and voltage support together (after Nair, PhD thesis, MIT 2025).

(λ_P P + λ_Q Q + voltage support)/P is what a unit of energy costs with everything else on top. It has no meaning
where P is near zero, so the three payments are the result, and the quotient only an extra.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.grid.threephase import ThreePhaseNetwork
from voltier.market.primary.problem import PrimaryClearing
from voltier.market.primary.three_phase.problem import ThreePhaseClearing

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

SMALLEST_POWER_KW = 0.1
"""Power below which payments are not divided by it."""


@dataclass(frozen=True, slots=True)
class BundledTariff:
    """What operators pay, (n_smo,) each; negative: they are paid.

    active_usd_per_h, reactive_usd_per_h, support_usd_per_h : the three payments
    tariff_usd_per_kwh : their sum per kWh of net consumption (of an operator that injects: what it gets per kWh);
    nan where `defined` is False, which is where |P| <= SMALLEST_POWER_KW
    """

    active_usd_per_h: Array
    reactive_usd_per_h: Array
    support_usd_per_h: Array
    tariff_usd_per_kwh: Array
    defined: NDArray[np.bool_]


def bundled_tariff(
    clearing: PrimaryClearing, support_usd_per_h: Array, *, dlmp_gen_usd_per_kwh: Array | None = None
) -> BundledTariff:
    """Bundle the payments of a clearing.

    support_usd_per_h : (n_smo,), see support_payment ; dlmp_gen_usd_per_kwh : (n_smo,) what a unit of generation is
    paid, None: the operators' own prices
    """
    price = clearing.dlmp_p_usd_per_kwh
    gen_price = price if dlmp_gen_usd_per_kwh is None else dlmp_gen_usd_per_kwh
    consumed_kw = -(clearing.p_kw + clearing.gen_kw)
    active = -price * clearing.p_kw - gen_price * clearing.gen_kw
    reactive = -clearing.dlmp_q_usd_per_kvarh * clearing.q_kvar
    defined = np.abs(consumed_kw) > SMALLEST_POWER_KW
    total = active + reactive + support_usd_per_h
    tariff = np.full_like(total, np.nan)
    tariff[defined] = total[defined] / consumed_kw[defined]
    return BundledTariff(active, reactive, support_usd_per_h, tariff, defined)


def support_worth(network: ThreePhaseNetwork, clearing: ThreePhaseClearing) -> Complex:
    """Return λ_V = Yᴴ λ of an AC-exact clearing, (n,): worth of real and imaginary part of each voltage [$/h per p.u.].

    With the nodes' currents i as unknowns of their own, i = Y v, and prices π = λ_P + jλ_Q of their power v·conj(i),
    stationarity in i says λ = -conj(π)·v; in v it says ∂f/∂v = λ_V - π·i - limits. The relaxation has the rent of its
    facets in the place of π·i (see RelaxedParts).
    """
    price = clearing.dlmp_node_p_usd_per_kwh + 1j * clearing.dlmp_node_q_usd_per_kvarh
    worth = network.y.conj().T @ (-np.conj(price) * clearing.v)
    return np.asarray(network.s_phase_kva * worth)


def support_payment(
    v: Complex, worth_usd_per_puh: Complex, share: sparse.csc_matrix, ratio: Array | float = 1.0
) -> Array:
    """Return what each operator pays for voltage support [$/h], (n_smo,), never negative.

    v : (n,) voltages, rotated frame, where 1 + 0j is the aim of every phase
    worth_usd_per_puh : (n,) worth of the real and of the imaginary part of each voltage, see support_worth; of a
    relaxation it is the support of RelaxedParts times the power base of a phase
    ratio : (nnz,) voltage at the operator's bus over that of its phase node, for each entry of share

    Each part's worth is paid for that part's own distance: |λ_re|·|v_re - 1| + |λ_im|·|v_im|; an operator pays the
    mean of its phase nodes, weighted by its shares. The price of energy has what limits of voltage cost in it
    already: this payment is a charge on top, not a part of the marginal cost.
    """
    at_bus, worth = ratio * v[share.indices], worth_usd_per_puh[share.indices] / ratio
    away = np.abs(worth.real) * np.abs(at_bus.real - 1.0) + np.abs(worth.imag) * np.abs(at_bus.imag)
    smo = np.repeat(np.arange(share.shape[1]), np.diff(share.indptr))
    return np.asarray(np.bincount(smo, share.data * away, share.shape[1]), dtype=np.float64)
