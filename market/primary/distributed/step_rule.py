"""Step sizes that are sure to converge: the norm of all equations together, by power iteration."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float64]

POWER_ITERATIONS = 200
# The norm is approached from below; and a step at the bound itself would not contract.
SAFETY = 1.02


def squared_norm(matrix: sparse.csr_matrix, row_step: Array, column_step: Array) -> float:
    """Return ‖diag(√row_step) matrix diag(√column_step)‖², from above by the safety; at most 1 for sure convergence.

    With row_step = ργ and column_step = ρ it is ρ²γ‖matrix‖², the condition of the primal-dual hybrid gradient method
    (Chambolle and Pock, J. Math. Imaging and Vision 40, 2011) on G and B together.
    """
    scaled = sparse.csr_matrix(sparse.diags(np.sqrt(row_step)) @ matrix @ sparse.diags(np.sqrt(column_step)))
    if scaled.nnz == 0:
        return 0.0
    back = sparse.csr_matrix(scaled.T)
    # No structure of a grid is orthogonal to these.
    x = 1.0 + 0.5 * np.sin(1.0 + np.arange(scaled.shape[1]))
    value = 0.0
    for _ in range(POWER_ITERATIONS):
        x /= np.linalg.norm(x)
        x = back @ (scaled @ x)
        value = float(np.linalg.norm(x))
    return SAFETY * value
