"""The derivatives of the whole unrolled J by torch's autograd: no stages, no recursion, nothing of ocpkit's.

The trick that gives state derivatives too: push every state by s_t,

    x_0 = x̄_0 + s_0,   x_{t+1} = f_t(x_t, u_t) + s_{t+1},   z = (s_0, u_0, s_1, u_1, …, s_T);

then at s = 0 the derivatives of J in s_t are those of the cost-to-go J_t in x_t (Eq. 8), since only the
running costs from t on depend on s_t.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise, zip_longest
from typing import Any

import numpy as np
import torch

from ocpkit import Problem
from ocpkit.engines.numpy import NumpyEngine, Policy
from ocpkit.recursion.bellman import Curvature
from ocpkit.solution.trajectory import Trajectory

TOLERANCE = 1e-9
torch.set_num_threads(1)


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float64)


def unrolled_cost(
    problem: Problem, controls: Sequence[torch.Tensor], pushes: Sequence[torch.Tensor] | None = None
) -> Any:
    """J(u), or J(s, u), from the plain functions that the problem was made of."""
    cost, x = tensor(0.0), tensor(problem.x0)
    for t, stage in enumerate(problem.stages):
        x = x if pushes is None else x + pushes[t]
        cost = cost + _number(stage.cost.scalar, x, controls[t])
        x = stage.dynamics.function(x, controls[t])
    x = x if pushes is None else x + pushes[-1]
    return cost + _number(problem.terminal_cost.scalar, x)


def _number(scalar: Any, *arguments: torch.Tensor) -> Any:
    value = scalar.function(*arguments)
    return 0.5 * (value * value).sum() if scalar.least_squares else value


class Unrolled:
    """Gradient and Hessian of J in z = (s_0, u_0, …, s_T) at s = 0, and where each block lies.

    Attributes
    ----------
    x, u
        Slices of z: ``gradient[x[t]]`` is ∇_{x_t} J, ``hessian[u[t], x[t]]`` is ∇²_{u_t x_t} J.
    """

    def __init__(self, problem: Problem, controls: Sequence[np.ndarray] | None = None) -> None:
        controls = problem.controls if controls is None else controls
        blocks = interleave([np.zeros(n) for n in problem.state_sizes], controls)
        edges = np.cumsum([0, *map(len, blocks)])
        slices = [slice(a, b) for a, b in pairwise(edges)]
        self.x, self.u = slices[::2], slices[1::2]

        def cost(z: torch.Tensor) -> Any:
            return unrolled_cost(problem, [z[s] for s in self.u], [z[s] for s in self.x])

        z = tensor(np.concatenate(blocks))
        self.gradient = torch.autograd.functional.jacobian(cost, z).numpy()
        self.hessian = torch.autograd.functional.hessian(cost, z, vectorize=True).numpy()

    @property
    def controls(self) -> np.ndarray:
        """Indices of z that are controls."""
        return np.concatenate([np.arange(s.start, s.stop) for s in self.u])

    def newton_step(self) -> np.ndarray:
        """−(∇²_ū J)⁻¹ ∇_ū J over the whole control sequence, stacked."""
        every = self.controls
        return -np.linalg.solve(self.hessian[np.ix_(every, every)], self.gradient[every])


def interleave(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    """(a_0, b_0, a_1, b_1, …)."""
    return [item for item in chain.from_iterable(zip_longest(first, second)) if item is not None]


def backward(
    problem: Problem, curvature: Curvature, *, second_order: bool = True, feedback: bool = True, tikhonov: float = 0.0
) -> tuple[NumpyEngine, Trajectory, Policy]:
    """The library's backward pass along the rollout of the problem's own controls."""
    engine = NumpyEngine(problem)
    nominal = engine.rollout(problem.controls)
    stages, terminal = engine.expand(nominal, second_order=second_order)
    return engine, nominal, engine.backward_pass(stages, terminal, curvature, feedback=feedback, tikhonov=tikhonov)


def assert_close(actual: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """‖actual − expected‖ ≤ tolerance · max(1, ‖expected‖), with equal shapes."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    error, size = np.linalg.norm(actual - expected), np.linalg.norm(expected)
    assert error <= tolerance * max(1.0, size), f"error {error:.2e} at size {size:.2e}:\n{actual}\n{expected}"
