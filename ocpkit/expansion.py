"""The derivatives of one stage at (x, u): what the Bellman step needs to know of a model.

Arrays are (rows, columns) = (output, input): f_x is (n', n), f_u is (n', m), ℓ_ux is (m, n). A leading
batch dimension is allowed everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ocpkit.problem import Array, Stage

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


def expand(stage: Stage, x: Array, u: Array, p: Array, *, second_order: bool, gap: Array | None = None) -> Expansion:
    """Expand a stage at (x, u): to second order in everything that is `curved`, or by Gauss-Newton."""
    fx, fu = stage.dynamics.jacobians(x, u, p)
    lx, lu = stage.cost.gradient(x, u, p)
    hessian = stage.cost.hessian if second_order else stage.cost.gauss_newton_hessian
    lxx, lux, luu = hessian(x, u, p)
    curved = second_order and stage.dynamics.curved
    contract = (lambda v: stage.dynamics.hessian_product(x, u, p, v)) if curved else None
    return Expansion(fx, fu, lx, lu, lxx, lux, luu, contract, gap)


def expand_first_order(stage: Stage, x: Array, u: Array, p: Array) -> Expansion:
    """Gradients only, for methods that carry a co-state but no value Hessian."""
    return Expansion(*stage.dynamics.jacobians(x, u, p), *stage.cost.gradient(x, u, p))
