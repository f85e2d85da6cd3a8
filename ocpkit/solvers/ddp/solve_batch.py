"""Many problems of one shape, solved at once by DDP: other x0, parameters and guesses, the same functions and bounds.

problem = models.get("cartpole").build()
solution = solve_batch(problem, controls=np.random.default_rng(0).normal(size=(1000, problem.horizon, 1)))
best = DDP().solve(problem, controls=solution.controls[solution.best])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ocpkit.boundary.arrays import Array, real_array
from ocpkit.engines.batch.torch import TorchEngine
from ocpkit.engines.graphs import trace_problem
from ocpkit.errors import ProblemError, UnsupportedProblem, first_line, unknown_name
from ocpkit.problem.problem import Problem
from ocpkit.solution.solution import Status
from ocpkit.solvers.ddp.batched import STATUSES, BatchedDDP
from ocpkit.solvers.ddp.ddp import DDP, ILQR
from ocpkit.solvers.driver import Clock

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchSolution:
    """Solutions of `solve_batch` for each of B problems.

    Attributes
    ----------
    states, controls
        (B, T + 1, n) and (B, T, m).
    cost
        J (B,).
    status
        A `Status` for each problem (B,).
    iterations
        Of each problem (B,).
    gradient_norm
        max_t ‖Q_u + y‖_∞ (B,); NaN where the last backward pass failed.
    feedforward, feedback_gains
        k (B, T, m) and K (B, T, m, n) of the policy u + k + K (x̂ − x) along the solution, angles modulo 2π; NaN where
        the last backward pass failed. K is None without feedback.
    multipliers
        y (B, T, m) of the control bounds; None without bounds.
    seconds
        Wall-clock time of the whole batch.
    """

    states: Array
    controls: Array
    cost: Array
    status: NDArray[np.object_]
    iterations: NDArray[np.int64]
    gradient_norm: Array
    feedforward: Array
    feedback_gains: Array | None
    multipliers: Array | None
    seconds: float

    def __len__(self) -> int:
        return len(self.cost)

    @property
    def converged(self) -> NDArray[np.bool_]:
        """Whether each problem has converged (B,)."""
        return np.array([status is Status.CONVERGED for status in self.status], dtype=bool)

    @property
    def best(self) -> int:
        """Number of the problem of lowest finite cost, among those that have converged if any has.

        Raises
        ------
        ProblemError
            If no cost is finite.
        """
        finite = np.isfinite(self.cost)
        candidates = finite & self.converged if (finite & self.converged).any() else finite
        if not candidates.any():
            raise ProblemError("none of the problems has a finite cost, so none is the best; look at their status")
        return int(np.where(candidates, self.cost, np.inf).argmin())


def solve_batch(
    problem: Problem,
    *,
    x0: ArrayLike | None = None,
    parameters: ArrayLike | None = None,
    controls: ArrayLike | None = None,
    solver: DDP | None = None,
    dtype: str = "float64",
    device: str = "cpu",
) -> BatchSolution:
    """Solve B problems that differ in x0, parameters and guesses.

    Each one is solved as `solver` would solve it alone, with its own line search, regularization and status.

    Parameters
    ----------
    problem
        What they have in common; its x0, parameters and controls stand in for what is not given.
    x0
        (B, n).
    parameters
        (B, n_p), or one row per stage and one for the end, (B, T + 1, n_p).
    controls
        Guesses (B, T, m).
    solver
        A `DDP` or `ILQR` with its options, `ILQR()` by default; without a `curvature` of its own and an infeasible
        start. Its engine stays at ``"auto"``: batches run in torch.
    dtype
        ``"float64"`` or ``"float32"``. In float32 a problem has converged also when the promised decrease is lost in
        the rounding of J, 16 ε S = 1.9e-6 S; S is Σ |ℓ_t| + |φ|, with ``scaling=False`` 1 + |J|.
    device
        Where torch computes: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …

    Raises
    ------
    ProblemError
        If shapes do not fit, or numbers are not finite; names the argument.
    UnsupportedProblem
        If the problem cannot be traced, has constraints beyond control bounds, noise, a state guess, or sizes that
        change along the horizon; or if the solver has options that batches do not know.
    """
    clock, solver = Clock(), ILQR() if solver is None else solver
    _check(problem, solver)
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, tuple(DTYPES))
    engine = TorchEngine(problem, trace_problem(problem), DTYPES[dtype], _device(device))
    T, n, m, n_p = problem.horizon, problem.state_sizes[0], problem.control_sizes[0], problem.parameters.shape[-1]
    start = _batched(problem.x0 if x0 is None else x0, x0 is None, (n,), "x0")
    guess = _batched(np.stack(problem.controls) if controls is None else controls, controls is None, (T, m), "controls")
    p = _parameters(problem.parameters if parameters is None else parameters, parameters is None, T, n_p)
    count = _count(x0=start, parameters=p, controls=guess)
    x, p, u = (np.broadcast_to(array, (count, *array.shape[1:])) for array in (start, p, guess))
    u_first = engine.clip(engine.tensor(u.swapaxes(0, 1)))
    begin = engine.rollout(engine.tensor(x), u_first, engine.tensor(p.swapaxes(0, 1)))
    end = BatchedDDP(solver, problem, engine, begin).run(clock)
    return BatchSolution(
        states=_by_problem(end.along.states),
        controls=_by_problem(end.along.controls),
        cost=end.along.cost.cpu().numpy(),
        status=np.array([STATUSES[code] for code in end.status.tolist()], dtype=object),
        iterations=end.iterations.cpu().numpy(),
        gradient_norm=end.policy.gradient_norm.cpu().numpy(),
        feedforward=_by_problem(end.policy.k),
        feedback_gains=None if end.policy.K is None else _by_problem(end.policy.K),
        multipliers=None if end.policy.multipliers is None else _by_problem(end.policy.multipliers),
        seconds=clock(),
    )


def _check(problem: Any, solver: Any) -> None:
    if not isinstance(problem, Problem):
        raise ProblemError(f"expected a Problem to solve, got {type(problem).__name__}")
    if not isinstance(solver, DDP):
        raise UnsupportedProblem(f"batches are solved by DDP or ILQR, got {type(solver).__name__}")
    solver.check_noise(problem)
    solver.check(problem)
    if solver.curvature is not None:
        raise UnsupportedProblem("a batch cannot use a curvature of your own; solve the problems one by one")
    if solver.engine != "auto":
        raise UnsupportedProblem(f"a batch runs in torch, not on the engine {solver.engine!r}; leave it at 'auto'")
    if solver.infeasible_start or problem.states is not None:
        raise UnsupportedProblem(
            "a batch starts from controls, not from a state guess with gaps; use problem.replace(states=None) with DDP "
            "or ILQR, or solve the problems one by one"
        )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch says "not compiled with CUDA enabled" by an assertion
        raise ProblemError(f"device {name!r} is not usable: {first_line(error)}") from error
    return device


def _batched(value: ArrayLike, alone: bool, shape: tuple[int, ...], what: str) -> Array:
    """Check an array of shape (B, *shape); what the problem brings itself gets B = 1."""
    array = real_array(value, what)[None] if alone else real_array(value, what)
    if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
        expected = "(B, " + ", ".join(map(str, shape)) + ")"
        raise ProblemError(f"{what} has shape {array.shape}, expected {expected}")
    if not len(array):
        raise ProblemError(f"{what} holds no problem: its shape is {array.shape}")
    if not np.isfinite(array).all():
        bad = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(1)))
        raise ProblemError(f"{what} of problem {bad} is not finite")
    return array


def _parameters(value: ArrayLike, alone: bool, horizon: int, size: int) -> Array:
    """Check parameters and give every problem one row per stage and one for the end (B, T + 1, n_p)."""
    rows = real_array(value, "parameters")
    per_stage = rows.ndim == (2 if alone else 3)
    checked = _batched(rows, alone, (horizon + 1, size) if per_stage else (size,), "parameters")
    return checked if per_stage else np.broadcast_to(checked[:, None], (len(checked), horizon + 1, size))


def _count(**arrays: Array) -> int:
    """Return B, which all arrays that are not shared must agree on."""
    counts = {name: len(array) for name, array in arrays.items() if len(array) != 1}
    if len(set(counts.values())) > 1:
        raise ProblemError(f"the arrays hold different numbers of problems: {counts}")
    return next(iter(counts.values()), 1)


def _by_problem(series: torch.Tensor) -> Array:
    """Return (T, B, …) as an array (B, T, …)."""
    return np.ascontiguousarray(series.transpose(0, 1).cpu().numpy())
