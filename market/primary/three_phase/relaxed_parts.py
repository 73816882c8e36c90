"""Prices of the current-injection relaxation taken apart: energy, voltage support, relaxation rent, bounds, limits.

The relaxation keeps Tᴴ i = Y v and replaces the products in the terminals' powers, with w = T v,

    P = a + b,  Q = d - c,    a = Re w·Re i,  b = Im w·Im i,  c = Re w·Im i,  d = Im w·Re i,

by McCormick's four facets each. With L = f + Re(λᴴ(Tᴴ i - Y v)) + multipliers of everything else, stationarity in
the voltages says what a voltage is worth: ∂f/∂v = λ_V - rent - bounds - limits, λ_V = Yᴴ λ. It is often said that
∂f/∂v = λ_V; that holds only where no facet and no bound carries a multiplier. After Nair, PhD thesis, MIT 2025.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from voltier.market.primary.current_injection.intervals import Rectangle
from voltier.market.primary.current_injection.terminals import N_SOURCE

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, slots=True)
class RelaxedDuals:
    """Multipliers of a relaxation's optimum, of a Lagrangian that adds each times (left side - right side).

    Real and imaginary part of a complex multiplier belong to those of its row. n nodes, t terminals.

    price_p, price_q : (t,) cost of one more unit of load at the terminal
    current : (n,) λ of Tᴴ i - Y v = 0
    facet : (4, 4, t) >= 0; products a, b, c, d of the terminals' powers, x y with x of the voltage and y of the
    current; facets x y >= x_low y + y_low x - x_low y_low, x y >= x_high y + y_high x - x_high y_high,
    x y <= x_low y + y_high x - x_low y_high, x y <= x_high y + y_low x - x_high y_low
    v_low, v_high : (n,) >= 0 of the voltages' boxes ; i_low, i_high : (t,) >= 0 of the currents'
    limit : (n,) Σ μ·g of all other rows in the voltages (rings, wires, loads), with slopes g, dh = Re(conj(g)·dv)
    """

    price_p: Array
    price_q: Array
    current: Complex
    facet: Array
    v_low: Complex
    v_high: Complex
    i_low: Complex
    i_high: Complex
    limit: Complex


@dataclass(frozen=True, slots=True)
class RelaxedParts:
    """Worth of power, voltage and current at a relaxation's optimum; complex: of real and imaginary parts.

    energy_p, energy_q : (t,) price of load at each terminal
    support : (n,) λ_V = Yᴴ λ, voltage support ; rent : (n,) of the facets, what the relaxation itself adds
    bounds : (n,) of the voltages' boxes ; limits : (n,) of all other rows ; cost_slope : (n,) ∂f/∂v
    v_residual : largest |cost_slope - (support - rent - bounds - limits)| beside the source's nodes
    i_residual, product_residual : the same for currents, and for the facets' tie to the prices of energy
    """

    energy_p: Array
    energy_q: Array
    support: Complex
    rent: Complex
    bounds: Complex
    limits: Complex
    cost_slope: Complex
    v_residual: float
    i_residual: float
    product_residual: float


def relaxed_parts(
    voltage: sparse.csr_matrix,
    y: sparse.csr_matrix,
    boxes: tuple[Rectangle, Rectangle],
    duals: RelaxedDuals,
    cost_slope: Complex,
) -> RelaxedParts:
    """Take the prices of a relaxation apart.

    voltage : (t, n) T ; y : (n, n) Y ; boxes : of the terminals' voltages w and currents i that the facets stand on
    cost_slope : (n,) ∂f/∂v of losses and voltage regulation at the optimum, df = Re(conj(g)·dv)
    Units are those of the multipliers: with costs per phase base, prices in $/kWh and the rest in $/kWh per unit.
    """
    w, i = boxes
    on_v, on_i = _facet_slopes(duals.facet, w, i)
    support = np.asarray(y.conj().T @ duals.current)
    rent = np.asarray(voltage.conj().T @ on_v)
    bounds = duals.v_high - duals.v_low
    off_v = cost_slope - (support - rent - bounds - duals.limit)
    off_i = voltage @ duals.current + on_i + duals.i_high - duals.i_low
    # A facet that holds a product up from below counts positive.
    held = duals.facet[:, :2].sum(axis=1) - duals.facet[:, 2:].sum(axis=1)
    priced = np.stack([duals.price_p, duals.price_p, -duals.price_q, duals.price_q])
    return RelaxedParts(
        energy_p=duals.price_p,
        energy_q=duals.price_q,
        support=support,
        rent=rent,
        bounds=bounds,
        limits=duals.limit,
        cost_slope=cost_slope,
        v_residual=float(np.abs(off_v[N_SOURCE:]).max(initial=0.0)),
        i_residual=float(np.abs(off_i).max(initial=0.0)),
        product_residual=float(np.abs(held - priced).max(initial=0.0)),
    )


def _facet_slopes(facet: Array, w: Rectangle, i: Rectangle) -> tuple[Complex, Complex]:
    """Return Σ multiplier·derivative of the facets with the terminals' voltages and currents, (t,) each."""
    x_low = np.stack([w.low.real, w.low.imag, w.low.real, w.low.imag])
    x_high = np.stack([w.high.real, w.high.imag, w.high.real, w.high.imag])
    y_low = np.stack([i.low.real, i.low.imag, i.low.imag, i.low.real])
    y_high = np.stack([i.high.real, i.high.imag, i.high.imag, i.high.real])
    under_low, under_high, over_low, over_high = (facet[:, k] for k in range(4))
    by_x = under_low * y_low + under_high * y_high - over_low * y_high - over_high * y_low
    by_y = under_low * x_low + under_high * x_high - over_low * x_low - over_high * x_high
    return by_x[0] + by_x[2] + 1j * (by_x[1] + by_x[3]), by_y[0] + by_y[3] + 1j * (by_y[1] + by_y[2])
