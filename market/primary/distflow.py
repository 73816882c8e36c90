"""Exact balanced power flow of a radial feeder: backward and forward sweeps of the branch-flow equations.

Node 0 is the slack and parent[j] < j. With P, Q the sending-end flow of the branch above node j, l its
squared current, w = ratio²·v_parent the squared voltage at its sending end (all in p.u.):

    P = r l - p_j + Σ P_children        v_j = w - 2 (r P + x Q) + (r² + x²) l
    Q = x l - q_j - b_j v_j + Σ Q_children        l = (P² + Q²) / w
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

SWEEP_TOLERANCE_PU = 1e-13
SWEEP_LIMIT = 200


@njit(cache=True)
def sweep(
    parent: Index,
    r: Array,
    x: Array,
    ratio: Array,
    b: Array,
    v_root: float,
    p: Array,
    q: Array,
    state: Array,
) -> int:
    """Solve the power flow for injections p, q [p.u.], overwriting state; return the sweeps used, or -1.

    state : (4, n_node) rows P, Q, v, l; its v and l are the starting guess. v_root : voltage magnitude of
    the slack. -1 means voltage collapse or no convergence; state is then meaningless.
    """
    n = parent.size
    P, Q, v, l = state[0], state[1], state[2], state[3]  # noqa: E741 (the symbol of the equations)
    v[0] = v_root * v_root
    l[0] = 0.0
    for count in range(1, SWEEP_LIMIT + 1):
        for j in range(n):
            P[j] = r[j] * l[j] - p[j]
            Q[j] = x[j] * l[j] - q[j] - b[j] * v[j]
        for j in range(n - 1, 0, -1):
            P[parent[j]] += P[j]
            Q[parent[j]] += Q[j]
        change = 0.0
        for j in range(1, n):
            w = ratio[j] * ratio[j] * v[parent[j]]
            square = P[j] * P[j] + Q[j] * Q[j]
            new_l = square / w
            new_v = w - 2.0 * (r[j] * P[j] + x[j] * Q[j]) + (r[j] * r[j] + x[j] * x[j]) * new_l
            if not new_v > 1e-4:
                return -1
            # What matters of l is the voltage and loss it makes; on an ideal branch it matters not at all.
            change = max(change, abs(new_v - v[j]), abs(new_l - l[j]) * (r[j] + abs(x[j])))
            v[j] = new_v
            l[j] = new_l
        if change < SWEEP_TOLERANCE_PU:
            return count
    return -1


@njit(cache=True)
def flow_residual(
    parent: Index,
    r: Array,
    x: Array,
    ratio: Array,
    b: Array,
    p: Array,
    q: Array,
    state: Array,
) -> float:
    """Return the largest absolute residual of the branch-flow equations at state [p.u.].

    The current equation is taken as l·w - P² - Q² and, like the others, on every branch.
    """
    n = parent.size
    P, Q, v, l = state[0], state[1], state[2], state[3]  # noqa: E741
    down_p = np.zeros(n)
    down_q = np.zeros(n)
    for j in range(n - 1, 0, -1):
        down_p[parent[j]] += P[j]
        down_q[parent[j]] += Q[j]
    worst = 0.0
    for j in range(1, n):
        w = ratio[j] * ratio[j] * v[parent[j]]
        worst = max(
            worst,
            abs(P[j] - r[j] * l[j] + p[j] - down_p[j]),
            abs(Q[j] - x[j] * l[j] + q[j] + b[j] * v[j] - down_q[j]),
            abs(v[j] - w + 2.0 * (r[j] * P[j] + x[j] * Q[j]) - (r[j] * r[j] + x[j] * x[j]) * l[j]),
            abs(l[j] * w - P[j] * P[j] - Q[j] * Q[j]),
        )
    return worst
