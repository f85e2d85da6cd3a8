"""The Bellman step of differential dynamic programming, Eq. 2-5 of Liu, Chen & Theodorou (ICLR 2021).

Notation (fixed for the whole library):

|                  | meaning                                 | shapes                 |
| ---------------- | --------------------------------------- | ---------------------- |
| V_x, V_xx        | value gradient and Hessian at x_t       | (n,), (n, n)           |
| Q_x, Q_u         | gradient of Q_t(x, u) = ℓ + V'(f(x, u)) | (n,), (m,)             |
| Q_xx, Q_ux, Q_uu | its Hessian                             | (n, n), (m, n), (m, m) |
| k, K             | policy δu = k + K δx                    | (m,), (m, n)           |

A prime marks the next stage. Expansions are around the nominal (x_t, u_t); the update is
u ← u + α k + K (x̂ − x) along the new trajectory x̂. The co-state of H = ℓ + pᵀ f is V_x.

Methods differ in what goes in, not in the formulas: `curvature` decides what stands for Q_uu, the type of
V_xx (see `value`) whether matrices are dense or factored, and ``feedback=False`` drops Q_ux, which turns
DDP into stage-wise Newton, and with Q_uu = I/η into back-propagation with gradient descent (Prop. 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from ocpkit.boundary.deadline import in_time
from ocpkit.errors import NotPositiveDefinite
from ocpkit.recursion.expansion import Expansion
from ocpkit.recursion.linalg import dot, matvec, transpose
from ocpkit.recursion.value import Value, apply_transposed, reduce, sandwich, solve


class ActionValue(NamedTuple):
    """Gradient and Hessian of Q_t(x, u), the Bellman objective; second derivatives are None where V_xx is."""

    x: Any
    u: Any
    xx: Any = None
    ux: Any = None
    uu: Any = None


class Operator(Protocol):
    """A symmetric positive definite matrix (m, m) that stands for Q_uu."""

    def solve(self, right: Any) -> Any:
        """Return the inverse times a vector (m,) or matrix (m, k)."""

    def dense(self) -> Any:
        """Return the matrix (tests and small problems)."""


Curvature = Callable[[int, ActionValue], tuple[Operator, Any]]
"""Maps (stage, Q) to the operator that stands for Q_uu and the vector that stands for Q_u in k."""


class Bounds(Protocol):
    """Bounds of the steps, in which the quadratic model is minimized (`box.StepBounds`, or those of a batch)."""

    def minimize(self, t: int, H: Any, g: Any) -> Any:
        """Return the minimizer ``k`` and its ``multipliers`` (m,), and ``solve`` with H among the free controls."""


@dataclass(frozen=True)
class BellmanStep:
    """Result of the Bellman step at one stage: the objective Q, the policy, and the value there.

    Attributes
    ----------
    Q
        Derivatives of the Bellman objective.
    k, K
        Feedforward (m,) and feedback gain (m, n); K is None without feedback.
    value
        V_x and V_xx at this stage.
    gap_change
        Change of the cost-to-go that closing the stage's gap brings, to second order.
    multipliers
        y (m,) of the control bounds in a box (see `box`), Q_u + Q_uu k + y = 0; zero where a control is free.
    """

    Q: ActionValue
    k: Any
    K: Any
    value: Value
    gap_change: Any = 0.0
    multipliers: Any = None

    @property
    def slope(self) -> Any:
        """Gradient of the Lagrangian, Q_u + y (m,), which vanishes at a stationary point."""
        return self.Q.u if self.multipliers is None else self.Q.u + self.multipliers

    @property
    def expected_change(self) -> Any:
        """Change of the cost-to-go predicted for a full step by the quadratic model; without a gap, ≤ 0."""
        slope = self.Q.u if self.multipliers is None else self.Q.u - self.multipliers  # kᵀ Q_uu k = −(Q_u + y)ᵀ k
        return dot(slope, self.k) / 2 + self.gap_change


def q_gradient(fx: Any, fu: Any, lx: Any, lu: Any, Vx: Any) -> tuple[Any, Any]:
    """Q_x and Q_u of Eq. 3, at a co-state also the gradients H_x and H_u of the Hamiltonian (Eq. 20)."""
    return lx + matvec(transpose(fx), Vx), lu + matvec(transpose(fu), Vx)


def q_expansion(stage: Expansion, V: Value) -> ActionValue:
    """Eq. 3, or with an outer product for V_xx Eq. 16-17; a gap first moves V_x to where f really lands."""
    Vx = V.x if stage.gap is None else V.x + matvec(V.xx, stage.gap)
    Qx, Qu = q_gradient(stage.fx, stage.fu, stage.lx, stage.lu, Vx)
    if V.xx is None:
        return ActionValue(Qx, Qu)
    Qxx = sandwich(stage.fx, V.xx, stage.fx) + stage.lxx
    Qux = sandwich(stage.fu, V.xx, stage.fx) + stage.lux
    Quu = sandwich(stage.fu, V.xx, stage.fu) + stage.luu
    if stage.contract is not None:
        fxx, fux, fuu = stage.contract(Vx)  # V_x·f_xx, V_x·f_ux, V_x·f_uu
        Qxx, Qux, Quu = Qxx + fxx, Qux + fux, Quu + fuu
    return ActionValue(Qx, Qu, Qxx, Qux, Quu)


def bellman_step(
    t: int,
    stage: Expansion,
    V: Value,
    curvature: Curvature,
    bounds: Bounds | None = None,
    *,
    feedback: bool = True,
) -> BellmanStep:
    """Eq. 3-5 at stage t: from the expansion of the stage and V' to the policy and V.

    Raises
    ------
    NotPositiveDefinite
        If the curvature has no positive definite operator here.
    """
    step = minimize(t, q_expansion(stage, V), curvature, bounds, feedback=feedback, value=type(V))
    gap = stage.gap
    if gap is None:
        return step
    return replace(step, gap_change=dot(gap, V.x) + dot(gap, matvec(V.xx, gap)) / 2)


def minimize(
    t: int,
    Q: ActionValue,
    curvature: Curvature,
    bounds: Bounds | None = None,
    *,
    feedback: bool = True,
    value: type[Value] = Value,
) -> BellmanStep:
    """Eq. 4 and 5: minimize the quadratic model Q over affine policies; `value` is the class of the result's V."""
    H, g = curvature(t, Q)
    if bounds is None:
        k, multipliers = -H.solve(g), None  # Eq. 4
    else:
        H = bounds.minimize(t, H.dense(), g)
        k, multipliers = H.k, H.multipliers
    if not feedback:
        return BellmanStep(Q, k, None, value(Q.x, Q.xx), multipliers=multipliers)
    K = -solve(H, Q.ux)
    Vx = Q.x + apply_transposed(Q.ux, k)  # Eq. 5; in a box as well, for K has rows only where Q_u + Q_uu k = 0
    Vxx = reduce(Q.xx, Q.ux, K)
    return BellmanStep(Q, k, K, value(Vx, Vxx), multipliers=multipliers)


def backward_pass(
    stages: Sequence[Expansion],
    terminal: Value,
    curvature: Curvature,
    bounds: Bounds | None = None,
    *,
    feedback: bool = True,
    tikhonov: float = 0.0,
    state_damping: float = 0.0,
    between_stages: Callable[[int, Value], Value] = lambda t, V: V,
) -> list[BellmanStep]:
    """Alg. 1, lines 2-6: the Bellman step from the last stage to the first.

    Parameters
    ----------
    stages
        Expansions of stages 0 … T-1.
    terminal
        V_T: gradient and Hessian of φ (Hessian None: gradients only, for which feedback must be off).
    curvature
        What stands for Q_uu.
    bounds
        Bounds of the steps; None: there are none.
    feedback
        Keep Q_ux (DDP), or drop it (Prop. 2: stage-wise Newton, gradient descent).
    tikhonov
        ε added to V_xx before each step (Alg. 3, line 12; here the terminal value included).
    state_damping
        μ of V_xx + μ diag |V_xx| before each step.
    between_stages
        From t and V at stage t to what stage t − 1 takes for it, where more lies between two stages than a state.

    Raises
    ------
    NotPositiveDefinite
        With the stage at which the curvature failed.
    """
    steps: list[BellmanStep] = []
    V = terminal
    for t in in_time(reversed(range(len(stages)))):
        try:
            after = V.regularized(tikhonov, state_damping)
            steps.append(bellman_step(t, stages[t], after, curvature, bounds, feedback=feedback))
        except NotPositiveDefinite as error:
            raise NotPositiveDefinite(t) from error
        V = between_stages(t, steps[-1].value)
    return steps[::-1]
