"""Impedance and capacitance of lines from their geometry (Carson's equations as modified by Kersting).

W. H. Kersting, Distribution System Modeling and Analysis, chapters 4 and 5; lengths in feet, results per mile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

EARTH_OHM_M = 100.0
PERMITTIVITY_UF_PER_MILE = 1.424e-2  # of air


def carson_ohm_per_mile(r_ohm_per_mile: Array, distance_ft: Array, frequency_hz: float) -> Complex:
    """Give the primitive impedance of parallel conductors over earth, (n, n).

    r_ohm_per_mile : (n,) ; distance_ft : (n, n) with the geometric mean radii on the diagonal

    z_ij = 0.00158836 f (+ r_i) + j 0.00202237 f (ln(1/D_ij) + 7.6786 + ln(rho/f)/2)
    """
    earth = 7.6786 + 0.5 * np.log(EARTH_OHM_M / frequency_hz)
    x_ohm = 0.00202237 * frequency_hz * (earth - np.log(distance_ft))
    z_ohm: Complex = 0.00158836 * frequency_hz + 1j * x_ohm + np.diag(r_ohm_per_mile)
    return z_ohm


def without_grounded(matrix: Complex, kept: int) -> Complex:
    """Eliminate the conductors from kept on, which are at ground potential all along (Kron)."""
    if kept == len(matrix):
        return matrix
    rest = matrix[kept:, kept:]
    reduced: Complex = matrix[:kept, :kept] - matrix[:kept, kept:] @ np.linalg.solve(
        rest, matrix[kept:, :kept]
    )
    return reduced


def capacitance_uf_per_mile(distance_ft: Array, height_ft: Array, kept: int) -> Array:
    """Give the capacitance of overhead conductors, grounded ones from kept on eliminated, (kept, kept).

    distance_ft : (n, n) with the radii on the diagonal ; height_ft : (n,) above ground

    Potential coefficients ln(S_ij/D_ij)/(2 pi eps), S the distance to the image: S_ij² = D_ij² + 4 h_i h_j.
    """
    apart = distance_ft - np.diag(np.diag(distance_ft))
    image = np.sqrt(apart**2 + 4.0 * np.outer(height_ft, height_ft))
    potential = np.log(image / distance_ft) / (2.0 * np.pi * PERMITTIVITY_UF_PER_MILE)
    reduced = without_grounded(potential.astype(np.complex128), kept)
    return np.asarray(np.linalg.inv(reduced).real, dtype=np.float64)


def concentric_neutral_ft(gmr_strand_ft: float, strands: int, circle_ft: float) -> float:
    """Give the geometric mean radius of a ring of neutral strands on a circle of that radius."""
    return float((gmr_strand_ft * strands * circle_ft ** (strands - 1)) ** (1.0 / strands))


def cable_capacitance_uf_per_mile(
    permittivity: float, circle: float, conductor: float, strand: float, strands: int
) -> float:
    """Give the capacitance of a cable to its grounded neutral strands, or to its shield (strands 0).

    circle, conductor, strand : radii in one unit, of the neutral's circle, the conductor, a strand
    """
    ring = np.log(strands * strand / circle) / strands if strands else 0.0
    return float(2.0 * np.pi * PERMITTIVITY_UF_PER_MILE * permittivity / (np.log(circle / conductor) - ring))
