"""The derivatives of one stage at (x, u): what the Bellman step needs to know of a model.

Arrays are (rows, columns) = (output, input): f_x is (n', n), f_u is (n', m), ℓ_ux is (m, n). A leading
batch dimension is allowed everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ocpkit import moved

HessianProduct = Callable[[Any], tuple[Any, Any, Any]]


@dataclass(frozen=True)
class Expansion:
    """Taylor coefficients of f and ℓ at one stage.

    Attributes
    ----------
    fx, fu
        Jacobians of the dynamics, (n', n) and (n', m).
    lx, lu, lxx, lux, luu
        Gradient and Hessian of the running cost, (n,), (m,), (n, n), (m, n), (m, m).
    contract
        Maps v (n',) to (v·f_xx, v·f_ux, v·f_uu), or None: first-order dynamics (iLQR, Gauss-Newton).
    gap
        Defect f(x_t, u_t) − x_{t+1} (n',) of an infeasible trajectory, or None.
    """

    fx: Any
    fu: Any
    lx: Any
    lu: Any
    lxx: Any = 0.0
    lux: Any = 0.0
    luu: Any = 0.0
    contract: HessianProduct | None = None
    gap: Any = None


__getattr__ = moved.names(__name__)
