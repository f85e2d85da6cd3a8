"""Parameters chosen with the controls: known optima, the plain nonlinear program, and neighboring designs."""

from __future__ import annotations

from typing import Any

import casadi as ca
import numpy as np
import pytest
from problems import HandWritten, HandWrittenCost
from test_constrained import assert_is_kkt_point, swing

import ocpkit.math as m
from ocpkit import (
    DDP,
    ILQR,
    IPOPT,
    AugmentedLagrangian,
    Constraint,
    FunctionTerminalCost,
    LeastSquares,
    Problem,
    ProblemError,
    Sensitivity,
    Stage,
    chosen_parameters,
    rk4,
    with_free_parameters,
)

PRECISE = DDP(gradient_tolerance=1e-10, cost_tolerance=1e-300)


def carriage(horizon: int = 20, price: float = 3.0) -> Problem:
    """Move a mass p[0] by one meter to rest; a light one needs less force and costs more, price / p[0]."""
    h = 1 / horizon
    return Problem.from_functions(
        dynamics=rk4(lambda x, u, p: m.stack([x[1], u[0] / p[0]]), h),
        cost=lambda x, u: 0.5 * h * u[0] ** 2,
        terminal_cost=lambda x, p: price / p[0],
        x0=[0.0, 0.0],
        horizon=horizon,
        terminal_constraints=(Constraint(lambda x: x, [1.0, 0.0], [1.0, 0.0], "there"),),
        parameters=[2.0],
        name="carriage",
    )


def best_mass(horizon: int, price: float) -> float:
    """u = θ a with the accelerations a of least Σ h a² that reach the goal, so J = α θ² + price/θ, least at this θ."""
    h, t = 1 / horizon, (np.arange(horizon) + 0.5) / horizon
    reach = h * np.stack([1 - t, np.ones(horizon)])
    a = np.linalg.lstsq(reach, np.array([1.0, 0.0]), rcond=None)[0]
    return float((price / (h * a @ a)) ** (1 / 3))


@pytest.mark.slow
@pytest.mark.parametrize("solver", [AugmentedLagrangian(), IPOPT()], ids=str)
@pytest.mark.parametrize("price", [3.0, 40.0])
def test_a_mass_in_closed_form(solver: Any, price: float) -> None:
    problem = carriage(price=price)
    solution = solver.solve(with_free_parameters(problem, [0], lower=0.1, upper=10.0))
    assert solution.success
    assert chosen_parameters(problem, solution) == pytest.approx([best_mass(20, price)], rel=1e-6)


@pytest.mark.parametrize(("lower", "upper", "expected"), [(1.2, 5.0, 1.2), (0.1, 0.4, 0.4)])
def test_bounds_of_a_design_are_kept_and_have_a_multiplier(lower: float, upper: float, expected: float) -> None:
    assert 0.4 < best_mass(20, 3.0) < 1.2
    problem = with_free_parameters(carriage(), [0], lower=lower, upper=upper)
    solution = AugmentedLagrangian().solve(problem)
    assert chosen_parameters(carriage(), solution) == pytest.approx([expected], abs=1e-8)
    assert_is_kkt_point(problem, solution)
    assert abs(solution.multipliers[0][-1]) > 0.1


def swing_to(**changes: Any) -> Problem:
    """A pendulum with spring p[1] and damping p[2], and a goal p[0]."""

    def field(x: Any, u: Any, p: Any) -> Any:
        return m.stack([x[1], -9.81 * m.sin(x[0]) + u[0] - p[1] * (x[0] - p[0]) - p[2] * x[1]])

    declaration: dict[str, Any] = {
        "dynamics": rk4(field, 0.05),
        "cost": lambda x, u, p: 0.05 * ((x[0] - p[0]) ** 2 + 0.1 * u[0] ** 2 + 0.02 * p[1] ** 2 + 0.02 * p[2] ** 2),
        "terminal_cost": lambda x, p: 5 * (x[0] - p[0]) ** 2 + x[1] ** 2,
        "x0": [0.0, 0.0],
        "horizon": 20,
        "parameters": [1.0, 4.0, 0.5],
    }
    return Problem.from_functions(**(declaration | changes))


FREE = [2, 1]  # the damping, then the spring


def test_no_neighboring_design_is_better_and_the_value_knows_its_slope() -> None:
    """At the optimum dJ/dθ = 0; the co-state of θ is that derivative where θ is held."""
    problem = swing_to()
    solution = PRECISE.solve(with_free_parameters(problem, FREE))
    theta = chosen_parameters(problem, solution)
    assert solution.cost == pytest.approx(PRECISE.solve(swing_to(parameters=[1.0, *theta[::-1]])).cost, rel=1e-10)

    def cost(spring: float, damping: float) -> float:
        return PRECISE.solve(swing_to(parameters=[1.0, spring, damping])).cost

    for i in range(2):
        for step in (-1e-2, 1e-2):
            near = theta + step * np.eye(2)[i]
            assert cost(near[1], near[0]) > solution.cost


def test_given_parameters_stay_parameters() -> None:
    problem = swing_to()
    freed = with_free_parameters(problem, FREE)
    np.testing.assert_array_equal(freed.parameters, [1.0])
    moved, direct = freed.replace(parameters=[0.7]), with_free_parameters(swing_to(parameters=[0.7, 4.0, 0.5]), FREE)
    assert DDP().solve(moved).cost == pytest.approx(DDP().solve(direct).cost, rel=1e-10)
    solution = PRECISE.solve(freed)
    slope = Sensitivity(freed, solution).forward(parameters=np.array([1.0]))[0][-1][2:]
    near = [PRECISE.solve(freed.replace(parameters=[p]), solution) for p in (0.999, 1.001)]
    below, above = (chosen_parameters(problem, each) for each in near)
    np.testing.assert_allclose(slope, (above - below) / 0.002, rtol=1e-3, atol=1e-5)


def test_the_same_optimum_as_the_plain_nonlinear_program_of_ipopt() -> None:
    """Here θ is one variable of the program, not a state, and the program is written down by hand."""
    problem = swing_to(control_bounds=(-3.0, 3.0))
    solution = AugmentedLagrangian().solve(with_free_parameters(problem, FREE, lower=0.0, upper=[2.0, 3.0]))
    opti = ca.Opti()
    X, U, theta = opti.variable(2, 21), opti.variable(1, 20), opti.variable(2)
    opti.subject_to(X[:, 0] == 0)
    opti.subject_to(opti.bounded(-3, U, 3))
    opti.subject_to(opti.bounded(0, theta, ca.DM([2, 3])))

    def rates(x: Any, u: Any) -> Any:
        return ca.vertcat(x[1], -9.81 * ca.sin(x[0]) + u - theta[1] * (x[0] - 1) - theta[0] * x[1])

    J = 5 * (X[0, -1] - 1) ** 2 + X[1, -1] ** 2
    for t in range(20):
        x, u, h = X[:, t], U[0, t], 0.05
        k1 = rates(x, u)
        k2 = rates(x + h / 2 * k1, u)
        k3 = rates(x + h / 2 * k2, u)
        k4 = rates(x + h * k3, u)
        opti.subject_to(X[:, t + 1] == x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
        J += 0.05 * ((x[0] - 1) ** 2 + 0.1 * u**2 + 0.02 * ca.sumsqr(theta))
    opti.minimize(J)
    opti.set_initial(theta, [0.5, 3.0])
    opti.solver("ipopt", {"print_time": False, "ipopt": {"print_level": 0, "sb": "yes", "tol": 1e-10}})
    answer = opti.solve()
    assert solution.success
    assert solution.cost == pytest.approx(answer.value(J), rel=1e-7)
    np.testing.assert_allclose(chosen_parameters(problem, solution), answer.value(theta), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("substeps", [1, 3])
@pytest.mark.parametrize(("distance", "limit"), [(1.0, 1.0), (3.0, 0.5)])
def test_the_least_time_to_rest_is_2_roots_of_d_over_a(distance: float, limit: float, substeps: int) -> None:
    """Bang-bang; with an even number of stages the discrete optimum is the continuous one."""
    problem = Problem.from_functions(
        dynamics=rk4(lambda x, u: m.stack([x[1], u[0]]), dt=lambda p: p[0] / 10, substeps=substeps),
        cost=lambda x, u: 0.0 * u[0],
        terminal_cost=lambda x, p: p[0],
        x0=[0.0, 0.0],
        horizon=10,
        control_size=1,
        control_bounds=(-limit, limit),
        terminal_constraints=(Constraint(lambda x: x, [distance, 0.0], [distance, 0.0], "rest"),),
        parameters=[3.0],
    )
    solution = AugmentedLagrangian().solve(with_free_parameters(problem, [0], lower=0.1, upper=20.0))
    assert solution.success
    assert chosen_parameters(problem, solution) == pytest.approx([2 * np.sqrt(distance / limit)], rel=1e-6)


def test_residuals_stay_residuals() -> None:
    cost = LeastSquares(lambda x, u, p: m.stack([0.3 * x[0] - p[0], 0.1 * u[0]]))
    problem = with_free_parameters(swing(cost=cost, parameters=[0.2]), [0])
    x, u = np.array([0.3, -0.2, 0.4]), np.array([0.5])
    J = np.array([[0.3, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.1]])
    xx, ux, uu = problem.stages[1].cost.gauss_newton_hessian(x, u, np.zeros(0))
    np.testing.assert_allclose(np.block([[xx, ux.T], [ux, uu]]), J.T @ J, atol=1e-14)
    assert ILQR().solve(problem).cost == pytest.approx(DDP().solve(problem).cost, rel=1e-8)


def test_hand_written_parts_and_a_state_guess_go_along() -> None:
    stage, n = Stage(HandWritten(), HandWrittenCost()), HandWritten().state_size
    guess = tuple(np.full(n, 0.5) for _ in range(6))
    problem = Problem(
        stages=(stage,) * 5,
        terminal_cost=FunctionTerminalCost(lambda x, p: 5 * m.dot(x - p[0], x - p[0]) + p[0] ** 2, n, parameter_size=1),
        x0=np.full(n, 0.5),
        parameters=np.array([1.0]),
        states=guess,
    )
    freed = with_free_parameters(problem, [0])
    assert freed.states is not None
    assert [len(x) for x in freed.states] == [n, *[n + 1] * 5]
    solution = PRECISE.solve(freed)
    (theta,) = chosen_parameters(problem, solution)
    x = solution.states[-1][:n]
    assert theta == pytest.approx(5 * x.sum() / (5 * n + 1), rel=1e-6)


@pytest.mark.parametrize(
    ("free", "bounds", "message"),
    [
        ([], {}, "distinct entries of the 3 in p"),
        ([0, 0], {}, "distinct entries"),
        ([3], {}, "distinct entries"),
        ([-1], {}, "distinct entries"),
        ([0.5], {}, "distinct entries"),
        (0, {}, "must be a sequence of indices, got 0"),
        ([0], {"lower": 1.0, "upper": 0.0}, "free parameters: lower bound above"),
        ([0], {"lower": [1.0, 2.0]}, "a bound of the free parameters has shape"),
    ],
)
def test_wrong_declarations(free: Any, bounds: Any, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        with_free_parameters(swing_to(), free, **bounds)


def test_a_parameter_that_changes_along_the_horizon_is_no_number() -> None:
    p = np.tile([1.0, 4.0, 0.5], (21, 1))
    p[3, 0] = 2.0
    assert with_free_parameters(swing_to(parameters=p), [1]).parameters.shape == (21, 2)
    with pytest.raises(ProblemError, match="parameter 0 changes along the horizon"):
        with_free_parameters(swing_to(parameters=p), [0])


def test_a_solution_without_free_parameters_has_none() -> None:
    problem = swing_to()
    with pytest.raises(ProblemError, match="no free parameters"):
        chosen_parameters(problem, DDP().solve(problem))
