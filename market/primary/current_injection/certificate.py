"""What a dual point of a cone program proves, whatever the solver says of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import clarabel
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Program:
    """min ½ xᵀ diag(curvature) x + linear·x + constant, matrix @ x + s = rhs, s in the cones.

    Rows: n_equal of s = 0, n_unequal of s >= 0, then one cone for every clique: of second order for a single
    quantity, else positive semidefinite of order 2·(1 + clique); last, if n_last > 0, one of second order.
    reach : bound of |x| at every point that the program stands for
    """

    curvature: Array
    linear: Array
    constant: float
    matrix: sparse.csc_matrix
    rhs: Array
    n_equal: int
    n_unequal: int
    cliques: tuple[int, ...]
    reach: Array
    n_last: int = 0

    def cones(self) -> list[object]:
        """Return the cones in clarabel's words."""
        out: list[object] = [clarabel.ZeroConeT(self.n_equal), clarabel.NonnegativeConeT(self.n_unequal)]
        for size in self.cliques:
            single = size == 1
            out.append(clarabel.SecondOrderConeT(4) if single else clarabel.PSDTriangleConeT(2 * (1 + size)))
        if self.n_last:
            out.append(clarabel.SecondOrderConeT(self.n_last))
        return out


def certified_value(program: Program, x: Array, z: Array) -> float:
    """Return a lower bound of the program's value at every point within reach; -inf for a useless dual point.

    For any x and any z of the dual cone, f(x*) >= -½ xᵀPx - bᵀz + (Px + q + Aᵀz)ᵀ x*; z is first projected onto
    the cone, and the last term is bounded by what x* can reach.
    """
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(z))):
        return -np.inf
    z = projected(program, z)
    curved = program.curvature * x
    rest = curved + program.linear + program.matrix.T @ z
    return float(-0.5 * (curved @ x) - program.rhs @ z - abs(rest) @ program.reach) + program.constant


def projected(program: Program, z: Array) -> Array:
    """Return the nearest point of the dual cone."""
    out = z.copy()
    at = program.n_equal
    out[at : at + program.n_unequal] = np.maximum(out[at : at + program.n_unequal], 0.0)
    at += program.n_unequal
    for size in program.cliques:
        order = 2 * (1 + size)
        count = 4 if size == 1 else order * (order + 1) // 2
        block = out[at : at + count]
        out[at : at + count] = _second_order(block) if size == 1 else _semidefinite(block, order)
        at += count
    if program.n_last:
        out[at:] = _second_order(out[at:])
    return out


def proves_empty(program: Program, z: Array) -> bool:
    """Say whether z proves that the program has no point within reach: bᵀz + |Aᵀz|·reach < 0."""
    size = float(abs(z).max(initial=0.0))
    if not np.isfinite(size) or size == 0.0:
        return False
    z = projected(program, z / size)
    return bool(program.rhs @ z + abs(program.matrix.T @ z) @ program.reach < 0.0)


def with_cut(program: Program, cut_off: float) -> Program:
    """Return the program with the row: objective <= cut_off, and no objective."""
    curved = np.flatnonzero(program.curvature > 0.0)
    # ½ Σ w x² <= t with t = cut_off - constant - linear·x, written |(√(2w) x, t - 1)| <= t + 1.
    room = cut_off - program.constant
    linear = sparse.csr_matrix(program.linear)
    place = (np.arange(len(curved)), curved)
    shape = (len(curved), len(program.linear))
    root = sparse.csr_matrix((-np.sqrt(2.0 * program.curvature[curved]), place), shape=shape)
    return replace(
        program,
        curvature=np.zeros_like(program.curvature),
        linear=np.zeros_like(program.linear),
        constant=0.0,
        matrix=sparse.vstack([program.matrix, linear, root, linear], format="csc"),
        rhs=np.concatenate([program.rhs, [room + 1.0], np.zeros(len(curved)), [room - 1.0]]),
        n_last=len(curved) + 2,
    )


def _second_order(block: Array) -> Array:
    block = block.copy()
    # Widening the first entry reaches the cone; the projection proper would gain nothing at this distance.
    block[0] = max(block[0], float(np.linalg.norm(block[1:])) * (1.0 + 1e-15))
    return block


def _semidefinite(block: Array, order: int) -> Array:
    column, row = np.tril_indices(order)
    scale = np.where(row == column, 1.0, np.sqrt(0.5))
    matrix = np.zeros((order, order))
    matrix[row, column] = matrix[column, row] = block * scale
    value, vector = np.linalg.eigh(matrix)
    if value[0] >= 0.0:
        return block
    matrix = (vector * np.maximum(value, 0.0)) @ vector.T
    return np.asarray(matrix[row, column] / scale)
