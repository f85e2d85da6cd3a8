"""A solve as a differentiable layer of torch: (x0, p) ↦ (x*, u*), by `ocpkit.solution.sensitivity` in backward mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocpkit.errors import ProblemError
from ocpkit.problem.constraint_rows import has_rows
from ocpkit.problem.problem import Problem
from ocpkit.solution.sensitivity import Sensitivity
from ocpkit.solution.solution import Solution
from ocpkit.solvers.constrained.augmented_lagrangian import AugmentedLagrangian
from ocpkit.solvers.ddp.damping import QUADRATIC
from ocpkit.solvers.ddp.ddp import DDP
from ocpkit.solvers.driver import Solver

PRECISE = 1e-10  # ‖Q_u‖ asked of the default solvers, so that gradients are good to about its root


def torch_layer(problem: Problem, solver: Solver | None = None) -> Callable[..., tuple[Tensor, Tensor]]:
    """Wrap a problem as a function of tensors.

    Parameters
    ----------
    problem
        Written with `ocpkit.math`; states and controls of one size each along the horizon.
    solver
        Must give co-states, and multipliers where there are constraints; by default DDP, or the augmented Lagrangian
        where there are constraints beside control bounds, to a gradient of 1e-10.

    Returns
    -------
    Callable
        ``layer(x0=None, parameters=None)`` → states (…, T + 1, n) and controls (…, T, m), float64 on the CPU. Leading
        batch dimensions are allowed and broadcast; each problem is solved from the problem's own guess.

    Raises
    ------
    ProblemError
        If sizes change along the horizon, as with free parameters; use `Sensitivity` there.
        When called, if the batch is empty, or a solve does not converge: its solution has no derivative. Names which.
    """
    if not problem.uniform:
        raise ProblemError("a layer needs states and controls of one size along the horizon; use Sensitivity instead")
    return _Layer(problem, _precise_solver(problem) if solver is None else solver)


class _Layer:
    """(x0, p) ↦ (x*, u*) on tensors, with a gradient."""

    def __init__(self, problem: Problem, solver: Solver) -> None:
        self.problem, self.solver = problem, solver

    def __call__(self, x0: Tensor | None = None, parameters: Tensor | None = None) -> tuple[Tensor, Tensor]:
        problem = self.problem
        start = _tensor(problem.x0 if x0 is None else x0)
        p = _tensor(problem.parameters if parameters is None else parameters)
        kept = problem.parameters.ndim
        batch = torch.broadcast_shapes(start.shape[:-1], p.shape[: p.ndim - kept])
        start, p = start.expand(*batch, *start.shape[-1:]), p.expand(*batch, *p.shape[p.ndim - kept :])
        count = int(np.prod(batch))
        if not count:
            raise ProblemError(f"the batch holds no problem: its shape is {tuple(batch)}")
        rows = start.reshape(count, *start.shape[len(batch) :]), p.reshape(count, *p.shape[len(batch) :])
        states, controls = _Solve.apply(problem, self.solver, *rows)  # type: ignore[no-untyped-call]
        return states.reshape(*batch, *states.shape[1:]), controls.reshape(*batch, *controls.shape[1:])


def _precise_solver(problem: Problem) -> Solver:
    if has_rows(problem):
        return AugmentedLagrangian(gradient_tolerance=PRECISE)
    # at the rounding of J many small changes of the damping find a step sooner than few large ones
    return DDP(gradient_tolerance=PRECISE, cost_tolerance=1e-300, damping=QUADRATIC)


class _Solve(torch.autograd.Function):
    """Solve a batch of problems forward; one Bellman pass each backward."""

    @staticmethod
    def forward(ctx: Any, problem: Problem, solver: Solver, x0: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        problems = [
            problem.replace(x0=x.numpy(), parameters=p.numpy()) for x, p in zip(x0.detach(), parameters.detach())
        ]
        ctx.solved = [(each, _solution(solver, each, index)) for index, each in enumerate(problems)]
        states, controls = (
            torch.from_numpy(np.stack([getattr(solution, name) for _, solution in ctx.solved]))
            for name in ("states", "controls")
        )
        return states, controls

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, Tensor, Tensor]:
        states, controls = (g.numpy() for g in gradients)
        results = [Sensitivity(*pair).adjoint(x, u) for pair, x, u in zip(ctx.solved, states, controls)]
        of_x0, of_p = (torch.from_numpy(np.stack(each)) for each in zip(*results))
        return None, None, of_x0, of_p


def _solution(solver: Solver, problem: Problem, index: int) -> Solution:
    solution = solver.solve(problem)
    if not solution.success:
        raise ProblemError(
            f"entry {index} of the batch did not converge and has no derivative: {solution.status.value}"
        )
    return solution


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(np.array(value) if isinstance(value, np.ndarray) else value).to("cpu", torch.float64)
