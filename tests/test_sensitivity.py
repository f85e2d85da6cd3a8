"""Derivatives of solutions: against finite differences of solves, and adjoint against forward."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from floors import Floor
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import LQRS
from strategies import smooth_problems
from test_constrained import CASES, swing
from test_noise import scalar

import ocpkit.math as m
from ocpkit import (
    DDP,
    IPOPT,
    SQP,
    AugmentedLagrangian,
    Constraint,
    Fatrop,
    Problem,
    ProblemError,
    Sensitivity,
    Solution,
    rk4,
    torch_layer,
    with_free_parameters,
    without_noise,
)

SHARP = AugmentedLagrangian(gradient_tolerance=1e-11, constraint_tolerance=1e-11)
STEP = 1e-5


def pendulum_with_parameter() -> Problem:
    """Gravity [m/s²] is the parameter."""
    field = lambda x, u, p: m.stack([x[1], -p[0] * m.sin(x[0]) + u[0]])  # noqa: E731
    return swing(dynamics=rk4(field, 0.05), parameters=[9.81])


PROBLEMS = {"dynamics": pendulum_with_parameter} | {k: v for k, v in CASES.items() if k != "stages that differ"}


def solved(problem: Problem) -> Solution:
    solution = SHARP.solve(problem)
    assert solution.success
    return solution


@pytest.mark.parametrize("name", PROBLEMS)
def test_forward_is_the_difference_quotient_and_adjoint_its_transpose(name: str) -> None:
    problem = PROBLEMS[name]()
    rng = np.random.default_rng(0)
    dx0, dp = rng.normal(size=problem.x0.shape), rng.normal(size=problem.parameters.shape)
    solution = solved(problem)
    sensitivity = Sensitivity(problem, solution)
    states, controls = sensitivity.forward(dx0, dp)
    ahead, behind = (
        solved(problem.replace(x0=problem.x0 + h * dx0, parameters=problem.parameters + h * dp)) for h in (STEP, -STEP)
    )
    np.testing.assert_allclose(states, (ahead.states - behind.states) / (2 * STEP), atol=1e-6)
    np.testing.assert_allclose(controls, (ahead.controls - behind.controls) / (2 * STEP), atol=1e-6)
    gx, gu = rng.normal(size=states.shape), rng.normal(size=controls.shape)
    of_x0, of_p = sensitivity.adjoint(gx, gu)
    expected = (gx * states).sum() + (gu * controls).sum()
    assert (of_x0 * dx0).sum() + (of_p * dp).sum() == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_of_a_linear_quadratic_problem_it_is_the_closed_loop() -> None:
    """δx' = (A + B K) δx, δu = K δx with Riccati's gains, whatever the size of δx0."""
    lqr = LQRS[4, 2, 50]
    problem, gains = lqr.problem(), lqr.riccati()[1]
    direction = np.arange(4.0)
    states, controls = Sensitivity(problem, DDP().solve(problem)).forward(direction)
    x = direction
    for t, K in enumerate(gains):
        np.testing.assert_allclose(states[t], x, atol=1e-8)
        np.testing.assert_allclose(controls[t], K @ x, atol=1e-8)
        x = (lqr.A + lqr.B @ K) @ x


@pytest.mark.parametrize("name", ["terminal equality", "control bounds"])
def test_it_is_linear_down_to_the_smallest_directions(name: str) -> None:
    """Rows are kept relative to the data: a direction of 1e-12 has the digits of one of 1."""
    problem = PROBLEMS[name]()
    sensitivity, direction = Sensitivity(problem, solved(problem)), np.array([1.0, 0.5])
    whole = sensitivity.forward(direction)
    for size in (0.0, 1e-12, 1e9):
        for ours, theirs in zip(sensitivity.forward(size * direction), whole):
            np.testing.assert_allclose(ours, size * theirs, atol=1e-9 * size)


@pytest.mark.slow
def test_gradient_of_the_optimal_cost_is_the_costate() -> None:
    """Stages whose sizes differ; S = Σ g·z has the gradient that forward mode gives."""
    converged = Floor()

    @settings(max_examples=20, deadline=None)
    @given(problem=smooth_problems(max_horizon=8), seed=st.integers(0, 2**32 - 1))
    def check(problem: Problem, seed: int) -> None:
        solution = DDP(gradient_tolerance=1e-10, cost_tolerance=1e-300).solve(problem)
        if not converged.when(solution.success):
            return
        sensitivity, rng = Sensitivity(problem, solution), np.random.default_rng(seed)
        direction = rng.normal(size=problem.x0.shape)
        states, controls = sensitivity.forward(direction)
        gx, gu = [rng.normal(size=n) for n in problem.state_sizes], [rng.normal(size=k) for k in problem.control_sizes]
        expected = sum(float(g @ d) for g, d in zip([*gx, *gu], [*states, *controls]))
        assert sensitivity.adjoint(gx, gu)[0] @ direction == pytest.approx(expected, rel=1e-7, abs=1e-7)

    check()
    converged.check(12)


# ---- the torch layer ----------------------------------------------------------------------------------------------


def tensor(value: Any) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


def test_torch_layer_passes_gradcheck_on_a_batch() -> None:
    layer = torch_layer(pendulum_with_parameter())
    x0, p = tensor([[0.4, 0.1], [-0.2, 0.3]]), tensor([[9.0], [10.0]])
    assert torch.autograd.gradcheck(layer, (x0, p), eps=1e-5, atol=1e-6, rtol=1e-5)


def test_torch_layer_passes_gradcheck_under_constraints_and_broadcasts() -> None:
    layer = torch_layer(CASES["parameters at each stage"]())
    x0, p = tensor([[1.0, 0.0], [0.9, 0.0]]), tensor(np.linspace(0.2, 1.0, 21)[:, None])
    states, controls = layer(x0, p)
    assert states.shape == (2, 21, 2)
    assert controls.shape == (2, 20, 1)
    assert torch.autograd.gradcheck(lambda p: layer(x0.detach(), p)[1].mean(0), (p,), eps=1e-5, atol=1e-6)


def test_torch_layer_learns_a_parameter_from_a_demonstration() -> None:
    problem = pendulum_with_parameter()
    layer, target = torch_layer(problem), torch.from_numpy(solved(problem).states)
    guess = tensor([8.0])
    optimizer = torch.optim.LBFGS([guess], line_search_fn="strong_wolfe")

    def miss() -> torch.Tensor:
        optimizer.zero_grad()
        loss = ((layer(parameters=guess)[0] - target) ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(miss)
    assert guess.item() == pytest.approx(9.81, abs=1e-4)


# ---- what has no derivative ---------------------------------------------------------------------------------------


def test_only_a_converged_solution_has_a_derivative() -> None:
    problem = swing()
    with pytest.raises(ProblemError, match="only a converged solution"):
        Sensitivity(problem, DDP(max_iterations=0).solve(problem))


def test_constraints_need_multipliers() -> None:
    problem = CASES["control bounds"]()
    with pytest.raises(ProblemError, match="no multipliers"):
        Sensitivity(problem, replace(IPOPT().solve(problem), multipliers=None))


@pytest.mark.parametrize("solver", [IPOPT(), Fatrop(), SQP()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", ["control bounds", "dynamics"])
def test_the_multipliers_of_nonlinear_programs_do_as_well(name: str, solver: Any) -> None:
    """Those of rows that do not hold are zero, or the derivative would keep them."""
    problem = PROBLEMS[name]()
    reference, solution = solved(problem), solver.solve(problem)
    assert solution.multipliers is not None
    for ours, theirs in zip(solution.multipliers, reference.multipliers or ()):
        np.testing.assert_allclose(
            ours, theirs, atol=1e-4 * max(np.abs(y).max(initial=0.0) for y in reference.multipliers)
        )
        assert ((ours != 0) == (theirs != 0)).all()
    for ours, theirs in zip(*(Sensitivity(problem, each).forward(x0=[1.0, 0.5]) for each in (solution, reference))):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_a_direction_in_which_no_control_keeps_a_constraint() -> None:
    """The second state, which must end at zero, is what it was at first."""
    problem = Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + u[0], x[1]]),
        cost=lambda x, u: u[0] ** 2,
        terminal_cost=lambda x: x[0] ** 2,
        x0=[1.0, 0.0],
        horizon=3,
        terminal_constraints=(Constraint(lambda x: m.stack([x[1]]), 0.0, 0.0),),
    )
    sensitivity = Sensitivity(problem, AugmentedLagrangian().solve(problem))
    states, _ = sensitivity.forward(x0=[1.0, 0.0])
    assert 0 < states[-1, 0] < 1
    with pytest.raises(ProblemError, match="no controls keep the active constraints in this direction"):
        sensitivity.forward(x0=[0.0, 1.0])


def test_noise_and_solutions_without_costates_are_refused() -> None:
    noisy = scalar(0.1, 0.1, 0.1)
    solution = DDP().solve(without_noise(noisy))
    with pytest.raises(ProblemError, match="without_noise"):
        Sensitivity(noisy, solution)
    problem = swing()
    with pytest.raises(ProblemError, match="no co-states"):
        Sensitivity(problem, replace(DDP().solve(problem), value_gradients=None))


def test_a_stationary_point_that_is_no_minimum_has_no_derivative() -> None:
    """±u² are both at rest where u = 0."""
    minimum, maximum = (
        Problem.from_functions(
            dynamics=lambda x, u: x + u,
            cost=lambda x, u, *, sign=sign: sign * u[0] ** 2,
            terminal_cost=lambda x: 0 * x[0],
            x0=[1.0],
            horizon=3,
        )
        for sign in (1.0, -1.0)
    )
    solution = DDP().solve(minimum)
    np.testing.assert_allclose(Sensitivity(minimum, solution).forward([2.0])[0], 2.0)
    with pytest.raises(ProblemError, match="no strict local minimum"):
        Sensitivity(maximum, solution).forward([2.0])


def test_wrong_directions() -> None:
    problem = swing()
    sensitivity = Sensitivity(problem, DDP().solve(problem))
    with pytest.raises(ProblemError, match=r"x0 has shape \(3,\), expected \(2,\)"):
        sensitivity.forward([1, 2, 3])
    with pytest.raises(ProblemError, match="21 states and 20 controls"):
        sensitivity.adjoint(np.zeros((20, 2)), np.zeros((20, 1)))
    with pytest.raises(ProblemError, match="got 21, 19"):
        sensitivity.adjoint(np.zeros((21, 2)), np.zeros((19, 1)))


def test_a_solve_of_the_batch_that_fails_is_named() -> None:
    layer = torch_layer(swing(), DDP(max_iterations=0))
    with pytest.raises(ProblemError, match="entry 0 of the batch"):
        layer(tensor([1.0, 0.0]))


def test_an_empty_batch_is_named() -> None:
    with pytest.raises(ProblemError, match=r"the batch holds no problem: its shape is \(0,\)"):
        torch_layer(swing())(torch.zeros(0, 2))


def test_a_layer_of_changing_sizes_is_refused() -> None:
    with pytest.raises(ProblemError, match="one size along the horizon; use Sensitivity"):
        torch_layer(with_free_parameters(pendulum_with_parameter(), [0]))
