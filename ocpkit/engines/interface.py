"""Interface of an engine to DDP; the engines know arrays, not algorithms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ocpkit.boundary.arrays import Array
from ocpkit.problem.problem import Problem
from ocpkit.recursion.box import StepBounds
from ocpkit.recursion.value import Value
from ocpkit.solution.trajectory import Trajectory

ENGINES = ("auto", "numpy", "vm", "c")
"""Names of the engines of one problem; ``"auto"`` chooses."""


class Gains(Protocol):
    """An affine policy and the value models along a trajectory, stage by stage."""

    @property
    def feedforward(self) -> Sequence[Array]:
        """k of every stage."""

    @property
    def feedback_gains(self) -> Sequence[Array] | None:
        """K of every stage; None without feedback."""

    @property
    def value_gradients(self) -> Sequence[Array]:
        """V_x at x_0 … x_T, the co-states."""

    @property
    def value_hessians(self) -> Sequence[Array] | None:
        """V_xx at x_0 … x_T; None where it is not kept as dense matrices."""


class AnyPolicy(Gains, Protocol):
    """The result of a backward pass."""

    @property
    def multipliers(self) -> Sequence[Array] | None:
        """y of every stage's control bounds, (m,) each; None without bounds."""

    @property
    def slopes(self) -> Sequence[Array]:
        """Q_u + y of every stage, (m,) each."""

    @property
    def curvatures(self) -> Sequence[Array]:
        """Diagonal of every stage's undamped Q_uu, (m,) each."""

    @property
    def gradient_norm(self) -> float:
        """max_t ‖Q_u + y‖_∞."""

    @property
    def expected_change(self) -> float:
        """Change of J that the quadratic model predicts for the full step."""


class Engine(Protocol):
    """Rollouts and the two passes on one problem; `expand` returns what `backward_pass` takes."""

    name: str
    problem: Problem

    def rollout(self, controls: Sequence[Array]) -> Trajectory:
        """Simulate from x0."""

    def with_gaps(self, states: Sequence[Array], controls: Sequence[Array]) -> Trajectory:
        """Take a state guess as it is; its first state is replaced by x0."""

    def expand(self, trajectory: Trajectory, *, second_order: bool) -> tuple[Any, Value]:
        """Derivatives of every stage and of the terminal cost along a trajectory."""

    def backward_pass(
        self,
        stages: Any,
        terminal: Value,
        curvature: Any,
        bounds: StepBounds | None = None,
        *,
        feedback: bool,
        tikhonov: float,
        state_damping: float = 0.0,
    ) -> AnyPolicy:
        """Alg. 1, lines 2-6; raises NotPositiveDefinite with the stage."""

    def forward_pass(self, nominal: Trajectory, policy: Any, step_size: float) -> Trajectory:
        """Alg. 1, lines 7-12."""

    def first_not_finite(self, stages: Any, terminal: Value) -> int | None:
        """Return the first stage (T: the terminal cost) whose derivatives are not finite, or None."""
