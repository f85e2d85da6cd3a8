"""A network as an ordinary `Problem`: `ocpkit.solvers.ddp.ddp.DDP` takes DDPNOpt's steps.

The states are the activations of one sample, the controls the rows [W b] of a layer, and the functions are written
with `ocpkit.math` and differentiated by CasADi, so that torch has no part in this side. A batch is either one Problem
whose state stacks the samples, or one Problem for each sample with the policies averaged by hand (Alg. 3).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import ocpkit.math as m
from nn.dense import assert_near, control_of
from nn.strategies import few_examples, randn, randomize, seeds
from ocpkit import DDP, Problem
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.problem.functions import FunctionCost, FunctionDynamics, FunctionTerminalCost
from ocpkit.problem.stage import Stage
from ocpkit.recursion.curvature import Adam, AdaptiveDiagonal, Exact, Identity, Proximal
from ocpkit.solution.trajectory import Trajectory
from ocpkit_nn.experiments.stacked import Stacked
from ocpkit_nn.layers.losses import MeanSquaredError
from ocpkit_nn.optim.ddpnopt import DDPNOpt

SIZES = (3, 4, 2, 3)
ETA, GAMMA = 0.01, 0.3  # a rate at which q_uᵀ M⁻¹η q_u stays below one, so that V_xx of the literal formulas is ≥ 0


def network(seed: int, batch: int) -> tuple[nn.Sequential, Tensor, Tensor]:
    """tanh, tanh, identity; float targets for ½‖x − y‖²."""
    first, second, last = (nn.Linear(n, following) for n, following in pairwise(SIZES))
    model = nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), last)
    generator = randomize(model, seed)
    return model, randn(generator, batch, SIZES[0]), randn(generator, batch, SIZES[-1])


def layer(inputs: int, outputs: int, batch: int, activation: Callable[[Any], Any]) -> Callable[..., Any]:
    """f(x, u) of `batch` stacked samples (batch · inputs,) that share the control u, the rows of [W b]."""

    def step(x: Any, u: Any, p: Any) -> Any:
        outcome = []
        for i in range(batch):
            for row in range(outputs):
                at = row * (inputs + 1)
                h = u[at + inputs] + m.sum(m.stack([u[at + j] * x[i * inputs + j] for j in range(inputs)]))
                outcome.append(activation(h))
        return m.stack(outcome)

    return step


@cache
def template(batch: int) -> Problem:
    """The stacked problem of `batch` samples, with the targets as parameters; traced once."""
    goals, stages = {"parameter_size": batch * SIZES[-1]}, []
    for t, (n, following) in enumerate(pairwise(SIZES)):
        function = layer(n, following, batch, m.tanh if t < len(SIZES) - 2 else lambda h: h)
        sizes = batch * n, following * (n + 1)
        dynamics = FunctionDynamics(function, *sizes, next_state_size=batch * following, **goals)
        stages.append(Stage(dynamics, FunctionCost(lambda x, u, p: 0.0 * u[0], *sizes, **goals)))
    outputs = batch * SIZES[-1]
    terminal = FunctionTerminalCost(lambda x, p: m.sum((x - p) ** 2) / (2 * batch), outputs, **goals)
    return Problem(tuple(stages), terminal, np.zeros(batch * SIZES[0]), parameters=np.zeros(outputs))


def as_problem(model: nn.Sequential, inputs: Tensor, targets: Tensor) -> Problem:
    """J = (1/B) Σ ½‖x_T − y‖² for the batch as one stacked state."""
    controls = tuple(control_of(module).numpy() for module in model if isinstance(module, nn.Linear))
    parameters = targets.flatten().numpy()
    return template(len(inputs)).replace(x0=inputs.flatten().numpy(), controls=controls, parameters=parameters)


def assert_controls(model: nn.Sequential, controls: Any, tolerance: float = 1e-9) -> None:
    layers = [module for module in model if isinstance(module, nn.Linear)]
    for module, control in zip(layers, controls, strict=True):
        assert_near(control_of(module), torch.as_tensor(np.asarray(control)), tolerance)


def core_step(problem: Problem, curvature: Any, **options: Any) -> list[np.ndarray[Any, Any]]:
    """Return the controls after one full step of the core's solver."""
    solver = DDP(second_order=False, line_search=None, curvature=curvature, max_iterations=1, **options)
    return list(solver.solve(problem).controls)


CURVATURES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "identity": (lambda: Identity(ETA), {"lr": ETA}),
    "diagonal": (lambda: AdaptiveDiagonal(ETA, 0.99, 1.0), {"lr": ETA, "eps": 1.0}),
    "adam": (lambda: Adam(ETA, epsilon=1.0), {"lr": ETA, "eps": 1.0}),
    "exact": (lambda: Exact(GAMMA), {"lr": 1.0, "damping": GAMMA}),
}


@pytest.mark.parametrize("curvature", CURVATURES)
@few_examples
@given(seed=seeds)
def test_one_trajectory_is_trained_by_the_cores_ddp(curvature: str, seed: int) -> None:
    """B = 1, Q_uu as the core has it: M/η (Alg. 3 as printed) and, for "exact", vanilla DDP's own Q_uu + γ I."""
    model, inputs, targets = network(seed, 1)
    make, options = CURVATURES[curvature]
    expected = core_step(as_problem(model, inputs, targets), make())
    start = control_of(model[0])
    optimizer = DDPNOpt(
        model, MeanSquaredError(), curvature=curvature, terminal="ggn", control_hessian="literal", **options
    )
    optimizer.step(inputs, targets)
    assert_controls(model, expected)
    assert float((control_of(model[0]) - start).abs().max()) > 1e-6


@pytest.mark.parametrize("curvature", ["identity", "diagonal", "adam"])
@few_examples
@given(seed=seeds, batch=st.integers(2, 3))
def test_a_stacked_batch_without_feedback_is_the_baseline(curvature: str, seed: int, batch: int) -> None:
    """Prop. 2: the samples share the control, and the gradient of the mean cost is the mean of their Q_u."""
    model, inputs, targets = network(seed, batch)
    make, options = CURVATURES[curvature]
    expected = core_step(as_problem(model, inputs, targets), make(), feedback=False)
    DDPNOpt(model, MeanSquaredError(), curvature=curvature, feedback="none", **options).step(inputs, targets)
    assert_controls(model, expected)


def averaged_step(
    problems: list[Problem], curvature: Any, feedforward: Callable[[int, np.ndarray[Any, Any]], Any], scale: float
) -> list[np.ndarray[Any, Any]]:
    """Alg. 3 from the core's parts: backward passes sample by sample, then u ← u + k + mean_i K_i δx_i."""
    engines = [NumpyEngine(problem) for problem in problems]
    nominal = [engine.rollout(problem.controls) for engine, problem in zip(engines, problems)]
    policies = []
    for engine, trajectory in zip(engines, nominal):
        stages, terminal = engine.expand(trajectory, second_order=False)
        terminal = replace(terminal, xx=scale * terminal.xx)
        policies.append(engine.backward_pass(stages, terminal, curvature, feedback=True, tikhonov=0.0))
    x, controls = [problem.x0 for problem in problems], []
    for t, u in enumerate(problems[0].controls):
        gradient = np.mean([policy.steps[t].Q.u for policy in policies], axis=0)
        feedback = np.mean(
            [policy.steps[t].K @ (x[i] - nominal[i].states[t]) for i, policy in enumerate(policies)], axis=0
        )
        controls.append(u + feedforward(t, gradient) + feedback)
        x = [
            problem.stages[t].dynamics.step(x[i], controls[t], problem.parameter(t))
            for i, problem in enumerate(problems)
        ]
    return controls


@pytest.mark.parametrize("control_hessian", ["proximal", "literal"])
@few_examples
@given(seed=seeds, batch=st.integers(1, 3))
def test_a_batch_is_the_cores_recursion_sample_by_sample(control_hessian: str, seed: int, batch: int) -> None:
    """V_xx^i of each sample is its share 1/B of the batch's curvature; M/η is shared, with k = −η E[Q_u]."""
    model, inputs, targets = network(seed, batch)
    problems = [as_problem(model, inputs[i : i + 1], targets[i : i + 1]) for i in range(batch)]
    curvature: Any = Identity(ETA) if control_hessian == "literal" else Proximal(Identity(ETA))
    expected = averaged_step(problems, curvature, lambda t, gradient: -ETA * gradient, 1 / batch)
    optimizer = DDPNOpt(
        model,
        MeanSquaredError(),
        lr=ETA,
        curvature="identity",
        terminal="ggn",
        control_hessian=control_hessian,
    )
    optimizer.step(inputs, targets)
    assert_controls(model, expected)


def stacked_step(problem: Problem, gradient: np.ndarray[Any, Any], curvature: Any, open_loop: str) -> list[Any]:
    """One step of the core on the stacked state, with V_xx = (1/B) Σ_j ∇φ_j ∇φ_jᵀ, each ∇φ_j in its own block."""
    engine, batch = NumpyEngine(problem), len(gradient)
    nominal = engine.rollout(problem.controls)
    stages, terminal = engine.expand(nominal, second_order=False)
    columns = np.zeros((terminal.x.size, batch))
    for j, own in enumerate(np.split(np.arange(terminal.x.size), batch)):
        columns[own, j] = gradient[j] / batch**0.5
    terminal = replace(terminal, xx=columns @ columns.T)
    proximal = Proximal(curvature())
    steps = engine.backward_pass(stages, terminal, proximal, feedback=True, tikhonov=0.0).steps
    x, controls, baseline = problem.x0, [], curvature()
    for t, (u, step) in enumerate(zip(problem.controls, steps)):
        operator, direction = baseline(t, step.Q)
        k = step.k if open_loop == "levenberg" else -operator.solve(direction)
        controls.append(u + k + step.K @ (x - nominal.states[t]))
        x = problem.stages[t].dynamics.step(x, controls[t], problem.parameter(t))
    return controls


@pytest.mark.parametrize("open_loop", ["baseline", "levenberg"])
@pytest.mark.parametrize("curvature", ["identity", "diagonal", "adam"])
@few_examples
@given(seed=seeds, batch=st.integers(1, 3))
def test_a_stacked_batch_is_the_cores_recursion(curvature: str, open_loop: str, seed: int, batch: int) -> None:
    model, inputs, targets = network(seed, batch)
    problem = as_problem(model, inputs, targets)
    with torch.no_grad():
        gradient = MeanSquaredError().gradient(model(inputs), targets).numpy()
    make: Callable[[], Any] = {
        "identity": lambda: Identity(0.3),
        "diagonal": lambda: AdaptiveDiagonal(0.3, 0.9, 0.1),
        "adam": lambda: Adam(0.3, epsilon=0.1),
    }[curvature]
    options = {"identity": {}, "diagonal": {"eps": 0.1, "decay": 0.9}, "adam": {"eps": 0.1}}[curvature]
    expected = stacked_step(problem, gradient, make, open_loop)
    optimizer = Stacked(model, MeanSquaredError(), 0.3, curvature=curvature, open_loop=open_loop, **options)
    optimizer.step(inputs, targets)
    assert_controls(model, expected)


@few_examples
@given(seed=seeds, batch=st.integers(1, 3))
def test_with_the_losss_own_hessian_the_cores_solver_takes_the_stacked_step(seed: int, batch: int) -> None:
    """iLQR with a proximal cost ‖δu‖²/2η; the loss's Hessian I/B has C columns for each sample."""
    model, inputs, targets = network(seed, batch)
    problem = as_problem(model, inputs, targets)
    expected = core_step(problem, Proximal(Identity(0.3)))
    value = core_step(problem, Proximal(Identity(0.3)), feedback=False)
    options: dict[str, Any] = {"curvature": "identity", "terminal": "ggn", "open_loop": "levenberg"}
    optimizer = Stacked(model, MeanSquaredError(), 0.3, feedback="full", **options)
    optimizer.step(inputs, targets)
    assert_controls(model, expected)
    assert any(np.abs(a - b).max() > 1e-8 for a, b in zip(expected, value))


@few_examples
@given(seed=seeds)
def test_the_nominal_trajectory_is_the_forward_pass(seed: int) -> None:
    """States of the Problem are the activations, and J is the mean loss."""
    model, inputs, targets = network(seed, 3)
    problem = as_problem(copy.deepcopy(model), inputs, targets)
    trajectory: Trajectory = NumpyEngine(problem).rollout(problem.controls)
    with torch.no_grad():
        hidden = model[:2](inputs)
        outputs = model(inputs)
    assert_near(torch.as_tensor(trajectory.states[1]), hidden.flatten(), 1e-12)
    assert_near(torch.as_tensor(trajectory.states[-1]), outputs.flatten(), 1e-12)
    assert trajectory.cost == pytest.approx(float(MeanSquaredError().value(outputs, targets).mean()), rel=1e-12)
