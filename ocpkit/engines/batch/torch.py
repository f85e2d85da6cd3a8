"""The engine for batches: the recursion of `bellman` on torch tensors, one leading dimension for the problems.

B problems share horizon, functions and bounds; x0, parameters and guesses are their own. Nothing couples them, so that
one that fails, or is not finite, leaves the others as they are. Series have the shape (T, B, …).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import casadi as ca
import numpy as np
import torch
from torch import Tensor

from ocpkit.engines.batch.box import Factor, minimize_in_boxes
from ocpkit.engines.batch.elementwise import elementwise
from ocpkit.engines.graphs import ProblemGraph, StageGraph, TerminalGraph
from ocpkit.errors import UnsupportedProblem
from ocpkit.problem.angles import TURN
from ocpkit.problem.problem import Problem
from ocpkit.recursion.bellman import ActionValue, bellman_step
from ocpkit.recursion.box import BoxMinimum
from ocpkit.recursion.curvature import Metric
from ocpkit.recursion.expansion import Expansion, HessianProduct
from ocpkit.recursion.value import Value

# Stages times problems whose derivatives are computed at once: on a CPU their scalars should stay in its caches, on
# other devices calls should be few.
AT_ONCE_ON_CPU, AT_ONCE = 2**14, 2**20

Record = TypeVar("Record", bound="PerProblem")


class PerProblem:
    """A dataclass of tensors; a dimension counts problems: of vectors (B,) the first, of series the second."""

    def take(self: Record, problems: Tensor) -> Record:
        """Return the named problems, by number or by a mask (B,)."""
        taken: dict[str, Any] = {
            name: value.take(problems) if isinstance(value, PerProblem) else value[_at(value, problems)]
            for name, value in self.parts()
        }
        return replace(self, **taken)  # type: ignore[type-var]

    def put(self: Record, problems: Tensor, new: Record) -> None:
        """Overwrite the named problems in place."""
        for name, value in self.parts():
            if isinstance(value, PerProblem):
                value.put(problems, getattr(new, name))
            else:
                value[_at(value, problems)] = getattr(new, name)

    def parts(self) -> Iterator[tuple[str, Any]]:
        """Yield names and values of the fields that are not None."""
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is not None:
                yield field.name, value


def join(records: Sequence[Record]) -> Record:
    """Put the problems of several records side by side."""
    joined: dict[str, Any] = {}
    for name, value in records[0].parts():
        parts = [getattr(record, name) for record in records]
        joined[name] = join(parts) if isinstance(value, PerProblem) else torch.cat(parts, 0 if value.ndim == 1 else 1)
    return replace(records[0], **joined)  # type: ignore[type-var]


def _at(tensor: Tensor, problems: Tensor) -> Any:
    return problems if tensor.ndim == 1 else (slice(None), problems)


@dataclass(frozen=True)
class Trajectories(PerProblem):
    """B trajectories.

    Attributes
    ----------
    states, controls
        (T + 1, B, n) and (T, B, m).
    parameters
        (T + 1, B, n_p).
    cost, magnitude
        J and Σ |ℓ_t| + |φ| (B,).
    """

    states: Tensor
    controls: Tensor
    parameters: Tensor
    cost: Tensor
    magnitude: Tensor

    @cached_property
    def finite(self) -> Tensor:
        """Whether J and every state are finite numbers, (B,)."""
        return self.cost.isfinite() & self.states.isfinite().all(-1).all(0)

    def choose(self, trial: Tensor) -> Trajectories:
        """Return of several trials, series (T, A, B, …), the named one (B,) of each problem."""
        each = torch.arange(len(trial), device=trial.device)
        states, controls = self.states[:, trial, each], self.controls[:, trial, each]
        return Trajectories(states, controls, self.parameters, self.cost[trial, each], self.magnitude[trial, each])


@dataclass(frozen=True)
class Policies(PerProblem):
    """B results of a backward pass.

    Attributes
    ----------
    k, K
        Feedforward (T, B, m) and feedback gains (T, B, m, n); K is None without feedback.
    multipliers
        y (T, B, m) of the control bounds; None without bounds.
    gradient_norm, expected_change
        max_t ‖Q_u + y‖_∞, and the change of J that the quadratic model predicts for a full step, (B,).
    decrement, rounding, unit
        As `ocpkit.solvers.verdicts.optimality` has them, (B,), and D of the damping (1, B, m).
    failed, finite
        Whether Q_uu was not positive definite somewhere, and whether all derivatives were finite, (B,).
    """

    k: Tensor
    K: Tensor | None
    multipliers: Tensor | None
    gradient_norm: Tensor
    expected_change: Tensor
    decrement: Tensor
    rounding: Tensor
    unit: Tensor
    failed: Tensor
    finite: Tensor

    def forget(self, problems: Tensor) -> None:
        """Overwrite what is known of the named problems by NaN."""
        for _, tensor in self.parts():
            if tensor.is_floating_point():
                tensor[_at(tensor, problems)] = torch.nan


class DampedHessians:
    """Q_uu + μ D of every problem (B, m, m), factored when first solved with; `failed` (B,) says where that failed."""

    def __init__(self, matrix: Tensor, failed: Tensor) -> None:
        self._matrix, self._failed = matrix, failed

    @cached_property
    def _factor(self) -> Factor:
        factor = Factor(self._matrix)
        self._failed |= factor.failed
        return factor

    def solve(self, right: Tensor) -> Tensor:
        """Solve for vectors (B, m) or matrices (B, m, n); with I where there is no factor."""
        return self._factor.solve(right)

    def dense(self) -> Tensor:
        """Return the matrices."""
        return self._matrix


@dataclass
class BatchedCurvature:
    """Q_uu + μ D of every problem.

    Parameters
    ----------
    damping, metric
        μ (B,), and D of which some may be known; None: I.
    failed
        Set where a matrix has no factor, (B,).
    """

    damping: Tensor
    failed: Tensor
    metric: Metric | None = None

    def __call__(self, t: int, Q: ActionValue) -> tuple[DampedHessians, Tensor]:
        unit = torch.ones_like(Q.u) if self.metric is None else self.metric.diagonal(Q)
        added = torch.where(self.damping[:, None] > 0, self.damping[:, None] * unit, 0)
        return DampedHessians(Q.uu + torch.diag_embed(added), self.failed), Q.u


@dataclass
class BatchedBounds:
    """Bounds of the steps of every problem: `recursion.box.StepBounds` on tensors.

    Parameters
    ----------
    lower, upper
        lower − u_t and upper − u_t (T, B, m).
    multipliers
        Those of the last pass (T, B, m), whose active set the search begins with; overwritten where it does not fail.
    failed
        Set where there is no minimum, (B,).
    """

    lower: Tensor
    upper: Tensor
    multipliers: Tensor
    failed: Tensor

    def minimize(self, t: int, H: Tensor, g: Tensor) -> BoxMinimum:
        """Minimize ½ kᵀ H k + gᵀ k (B, m) within the bounds of stage t."""
        minimum, failed = minimize_in_boxes(H, g, self.lower[t], self.upper[t], self.multipliers[t])
        self.failed |= failed
        self.multipliers[t] = torch.where(self.failed[:, None], self.multipliers[t], minimum.multipliers)
        return minimum


class TorchEngine:
    """Rollouts and the two passes of DDP on B problems at once.

    Parameters
    ----------
    problem, graph
        What all of them share.
    dtype, device
        Of every tensor.

    Raises
    ------
    UnsupportedProblem
        If sizes change along the horizon.
    """

    def __init__(self, problem: Problem, graph: ProblemGraph, dtype: torch.dtype, device: torch.device) -> None:
        for sizes, what in ((problem.state_sizes, "state"), (problem.control_sizes, "control")):
            if len(set(sizes)) > 1:
                raise UnsupportedProblem(
                    f"the {what} size changes along the horizon ({min(sizes)} to {max(sizes)}); batches need one size"
                )
        self.graph, self.dtype, self.device, self.angles = graph, dtype, device, list(problem.angles)
        self.stage_types = [graph.stage_types[stage_type] for stage_type in graph.type_of_stage]
        self.bounds: tuple[Tensor, Tensor] | None = None
        if problem.bounded:
            lower, upper = (
                self.tensor(np.stack([getattr(stage, side) for stage in problem.stages]))
                for side in ("control_lower", "control_upper")
            )
            self.bounds = lower, upper

    def tensor(self, array: Any) -> Tensor:
        """Copy an array to the device."""
        return torch.tensor(array, dtype=self.dtype, device=self.device)

    def clip(self, controls: Tensor) -> Tensor:
        """Return the nearest controls (T, B, m) inside the bounds."""
        if self.bounds is None:
            return controls
        lower, upper = self.bounds
        return controls.clamp(lower[:, None], upper[:, None])

    def no_policies(self, count: int, *, feedback: bool) -> Policies:
        """Return memory for the policies of `count` problems, all NaN."""
        stage_type, T = self.stage_types[0], len(self.stage_types)
        m, n = stage_type.control_size, stage_type.state_size

        def unknown(*shape: int) -> Tensor:
            return torch.full(shape, torch.nan, dtype=self.dtype, device=self.device)

        never = torch.zeros(count, dtype=torch.bool, device=self.device)
        gains = unknown(T, count, m, n) if feedback else None
        multipliers = None if self.bounds is None else unknown(T, count, m)
        return Policies(
            k=unknown(T, count, m),
            K=gains,
            multipliers=multipliers,
            gradient_norm=unknown(count),
            expected_change=unknown(count),
            decrement=unknown(count),
            rounding=unknown(count),
            unit=torch.zeros(1, count, m, dtype=self.dtype, device=self.device),
            failed=never,
            finite=never.clone(),
        )

    def rollout(self, x0: Tensor, controls: Tensor, parameters: Tensor) -> Trajectories:
        """Simulate from x0 (B, n)."""
        states, costs = [x0], list[Tensor]()
        for t, stage_type in enumerate(self.stage_types):
            following, running = _step(stage_type)(states[t], controls[t], parameters[t])
            states.append(following[..., 0])
            costs.append(running[..., 0, 0])
        cost, magnitude = self._cost(costs, states[-1], parameters[-1])
        return Trajectories(torch.stack(states), controls, parameters, cost, magnitude)

    def forward_pass(self, nominal: Trajectories, policy: Policies, step_sizes: Tensor) -> Trajectories:
        """Alg. 1, lines 7-12, for several α (A,) at once: series (T, A, B, …), costs (A, B)."""
        shape = (len(step_sizes), *nominal.states.shape[1:])
        states, controls, costs = [nominal.states[0].expand(shape)], list[Tensor](), list[Tensor]()
        p = nominal.parameters
        for t, stage_type in enumerate(self.stage_types):
            u = nominal.controls[t] + step_sizes[:, None, None] * policy.k[t]
            if policy.K is not None:
                moved = states[t] - nominal.states[t]
                if self.angles:
                    moved[..., self.angles] -= TURN * (moved[..., self.angles] / TURN + 0.5).floor()
                u = u + (policy.K[t] * moved[..., None, :]).sum(-1)
            if self.bounds is not None:
                u = u.clamp(self.bounds[0][t], self.bounds[1][t])
            following, running = _step(stage_type)(states[t], u, p[t])
            controls.append(u)
            states.append(following[..., 0])
            costs.append(running[..., 0, 0])
        cost, magnitude = self._cost(costs, states[-1], p[-1])
        return Trajectories(torch.stack(states), torch.stack(controls), p, cost, magnitude)

    def backward_pass(
        self,
        along: Trajectories,
        damping: Tensor,
        multipliers: Tensor | None,
        *,
        second_order: bool,
        feedback: bool,
        tikhonov: Tensor,
        state_damping: Tensor,
        unit: Tensor | None,
    ) -> Policies:
        """Alg. 1, lines 2-6.

        Parameters
        ----------
        along
            B trajectories.
        damping, tikhonov
            μ of Q_uu + μ D, and what is added to the diagonal of V_xx, (B,).
        multipliers
            Multipliers (T, B, m) of an earlier pass; overwritten where this one does not fail. None without bounds.
        state_damping
            μ of V_xx + μ diag |V_xx|, (B,).
        unit
            D (1, B, m), zero where it is not known; None: I.
        """
        failed, bounds = torch.zeros_like(damping, dtype=torch.bool), None
        if self.bounds is not None and multipliers is not None:
            lower, upper = (side[:, None] - along.controls for side in self.bounds)
            bounds = BatchedBounds(lower, upper, multipliers, failed)
        metric = None if unit is None else Metric({unit.shape[-1]: unit[0]}, along.magnitude[:, None])
        curvature = BatchedCurvature(damping, failed, metric)
        V, finite = self._terminal_value(along, second_order)
        ridge = tikhonov[:, None, None]
        k, K, y = list[Tensor](), list[Tensor](), list[Tensor]()
        slope, change, decrement, rounding = (torch.zeros_like(damping) for _ in range(4))
        on_state, hessian_diagonals = state_damping[:, None], list[Tensor]()
        for t, stage in self._expansions(along, second_order):
            finite &= _finite(stage)
            after = V.regularized(ridge, on_state)
            step = bellman_step(t, stage, after, curvature, bounds, feedback=feedback)
            V = step.value
            hessian_diagonals.append(step.Q.uu.diagonal(0, -2, -1).abs())
            if step.slope.shape[-1]:
                slope = torch.maximum(slope, step.slope.abs().amax(-1))  # a NaN stays one, unlike with fmax
                ratios = torch.where(step.slope == 0, 0, step.slope.square() / hessian_diagonals[-1])
                decrement = torch.maximum(decrement, ratios.amax(-1))
            rounding = rounding + (hessian_diagonals[-1] * along.controls[t].square()).sum(-1)
            rounding = rounding + (V.xx.diagonal(0, -2, -1).abs() * along.states[t].square()).sum(-1)
            change = change + step.expected_change
            k.append(step.k)
            if feedback:
                K.append(step.K)
            if step.multipliers is not None:
                y.append(step.multipliers)
        gains, multipliers = (torch.stack(series[::-1]) if series else None for series in (K, y))
        numbers = slope, change, decrement, rounding, _geometric_mean(torch.stack(hessian_diagonals))[None]
        return Policies(torch.stack(k[::-1]), gains, multipliers, *numbers, failed, finite)

    def _cost(self, costs: list[Tensor], final: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """J and Σ |ℓ_t| + |φ|, summed from the first stage on."""
        cost, magnitude = torch.zeros_like(costs[0]), torch.zeros_like(costs[0])
        for part in (*costs, self._final(final, p)):
            cost, magnitude = cost + part, magnitude + part.abs()
        return cost, magnitude

    def _expansions(self, along: Trajectories, second_order: bool) -> Iterator[tuple[int, Expansion]]:
        """Expand from the last stage to the first, as many stages at once as pay."""
        most = AT_ONCE_ON_CPU if self.device.type == "cpu" else AT_ONCE
        count, last = max(1, most // along.states.shape[1]), len(self.stage_types)
        while last > 0:
            stage_type, first = self.stage_types[last - 1], last - 1
            while first > 0 and last - first < count and self.stage_types[first - 1] is stage_type:
                first -= 1
            part = slice(first, last)
            z = along.states[part], along.controls[part], along.parameters[part]
            fx, fu, lx, lu, lxx, lux, luu = _expand(stage_type, second_order)(*z)
            for t in reversed(range(first, last)):
                i, at = t - first, tuple(series[t - first] for series in z)
                contract = _contraction(stage_type, at) if second_order else None
                yield t, Expansion(fx[i], fu[i], lx[i, ..., 0], lu[i, ..., 0], lxx[i], lux[i], luu[i], contract)
            last = first

    def _terminal_value(self, along: Trajectories, second_order: bool) -> tuple[Value, Tensor]:
        gradient, hessian = _expand_terminal(self.graph.terminal, second_order)(along.states[-1], along.parameters[-1])
        finite = gradient.isfinite().flatten(1).all(-1) & hessian.isfinite().flatten(1).all(-1)
        return Value(gradient[..., 0], hessian), finite

    def _final(self, states: Tensor, parameters: Tensor) -> Tensor:
        return _terminal(self.graph.terminal)(states, parameters)[0][..., 0, 0]


def _geometric_mean(values: Tensor) -> Tensor:
    """Return that of the positive entries over the first dimension, or 0."""
    positive = values > 0
    logs = torch.where(positive, values, 1).log().sum(0) / positive.sum(0).clamp(min=1)
    return torch.where(positive.any(0), logs.exp(), 0)


def _finite(stage: Expansion) -> Tensor:
    """Whether all blocks are, for every problem."""
    blocks = (stage.fx, stage.fu, stage.lx, stage.lu, stage.lxx, stage.lux, stage.luu)
    return torch.cat([block.flatten(1) for block in blocks], -1).isfinite().all(-1)


def _contraction(stage_type: StageGraph, at: tuple[Tensor, ...]) -> HessianProduct:
    n = stage_type.state_size

    def contract(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (product,) = _hessian(stage_type)(*at, v)
        return product[..., :n, :n], product[..., n:, :n], product[..., n:, n:]

    return contract


@lru_cache(maxsize=64)
def _step(stage_type: StageGraph) -> Callable[..., tuple[Tensor, ...]]:
    """(x, u, p) → f, ℓ."""
    x, u, p, _ = stage_type.symbols()
    return elementwise([x, u, p], stage_type.step(x, u, p))


@lru_cache(maxsize=64)
def _expand(stage_type: StageGraph, second_order: bool) -> Callable[..., tuple[Tensor, ...]]:
    """(x, u, p) → f_x, f_u, ℓ_x, ℓ_u, ℓ_xx, ℓ_ux, ℓ_uu."""
    x, u, p, _ = stage_type.symbols()
    n, fz = stage_type.state_size, stage_type.dynamics.jacobian(x, u, p)
    lz, lzz = stage_type.cost.expand(ca.vertcat(x, u), (x, u, p), second_order)
    blocks = [fz[:, :n], fz[:, n:], lz[:n, :], lz[n:, :], lzz[:n, :n], lzz[n:, :n], lzz[n:, n:]]
    return elementwise([x, u, p], blocks)


@lru_cache(maxsize=64)
def _hessian(stage_type: StageGraph) -> Callable[..., tuple[Tensor, ...]]:
    """(x, u, p, v) → v·f_zz."""
    x, u, p, v = stage_type.symbols()
    return elementwise([x, u, p, v], [stage_type.dynamics.hessian(ca.vertcat(x, u), v, (x, u, p))])


@lru_cache(maxsize=64)
def _terminal(graph: TerminalGraph) -> Callable[..., tuple[Tensor, ...]]:
    """(x, p) → φ."""
    x, p = ca.SX.sym("x", graph.state_size), ca.SX.sym("p", graph.parameter_size)
    return elementwise([x, p], [graph.cost.value((x, p))])


@lru_cache(maxsize=64)
def _expand_terminal(graph: TerminalGraph, second_order: bool) -> Callable[..., tuple[Tensor, ...]]:
    """(x, p) → φ_x, φ_xx."""
    x, p = ca.SX.sym("x", graph.state_size), ca.SX.sym("p", graph.parameter_size)
    return elementwise([x, p], graph.expand(x, p, second_order=second_order)[1:])
