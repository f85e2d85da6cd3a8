"""The augmented Lagrangian: known optima, the KKT conditions by another route, and honest failures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from floors import Floor
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import HandWritten, HandWrittenCost, pendulum_field
from strategies import smooth_problems

import ocpkit.math as m
from ocpkit import (
    DDP,
    ILQR,
    IPOPT,
    AugmentedLagrangian,
    Constraint,
    Failure,
    FunctionTerminalCost,
    LeastSquares,
    Penalty,
    Problem,
    ProblemError,
    Reason,
    Solution,
    Stage,
    Status,
    UnsupportedProblem,
    rk4,
)
from ocpkit.solvers.nlp.multiple_shooting import Point, Program


def bryson_denham(limit: float, horizon: int = 100) -> Problem:
    """Move from 0 to 0 in one second, velocity 1 to -1, never above `limit`; J* = 4/(9 limit) for limit ≤ 1/6."""
    h = 1 / horizon
    return Problem.from_functions(
        dynamics=rk4(lambda x, u: m.stack([x[1], u[0]]), dt=h),
        cost=lambda x, u: 0.5 * h * u[0] ** 2,
        terminal_cost=lambda x: 0 * x[0],
        x0=[0.0, 1.0],
        horizon=horizon,
        constraints=(Constraint(lambda x, u: x[0], -np.inf, limit, "height"),),
        terminal_constraints=(Constraint(lambda x: x, [0, -1], [0, -1], "end"),),
        name="bryson-denham",
    )


def swing(**changes: Any) -> Problem:
    declaration: dict[str, Any] = {
        "dynamics": rk4(pendulum_field, 0.05),
        "cost": lambda x, u: 0.05 * (x[0] ** 2 + 0.1 * u[0] ** 2),
        "terminal_cost": lambda x: x[0] ** 2 + 0.1 * x[1] ** 2,
        "x0": [1.0, 0.0],
        "horizon": 20,
        "name": "swing",
    }
    return Problem.from_functions(**(declaration | changes))


def kkt_residual(problem: Problem, solution: Solution) -> float:
    """‖∇_w L‖_∞ of the nonlinear program in states and controls, with the solution's co-states and multipliers."""
    program = Program(problem)
    rows: list[Any] = []
    bound = np.zeros(sum(problem.state_sizes) + sum(problem.control_sizes))
    place = 0
    for t, (stage, y) in enumerate(zip(problem.stages, solution.multipliers)):
        rows.append(-solution.value_gradients[t + 1])
        if t == 0:
            rows.append(-solution.value_gradients[0])
        limits = np.isfinite(stage.control_lower) | np.isfinite(stage.control_upper)
        k = len(y) - int(limits.sum())
        rows.append(y[:k])
        place += problem.state_sizes[t]
        bound[place + np.flatnonzero(limits)] = y[k:]
        place += problem.control_sizes[t]
    rows.append(solution.multipliers[-1])
    w = program.join(solution.states, solution.controls)
    return program.errors(Point(w, bound, np.concatenate(rows)), None)[0]


def assert_is_kkt_point(problem: Problem, solution: Solution, tolerance: float = 1e-5) -> None:
    """Feasible to 1e-8, stationary, and multipliers only of active rows, with the right sign."""
    program = Program(problem)
    assert program.violation(program.join(solution.states, solution.controls)) <= 2e-8
    assert kkt_residual(problem, solution) <= tolerance
    for t, (stage, y) in enumerate(zip(problem.stages, solution.multipliers)):
        u, p = solution.controls[t], problem.parameter(t)
        values, lower, upper = [], [], []
        for c in stage.constraints:
            g = np.atleast_1d(c.function(solution.states[t], u) if not len(p) else c.function(solution.states[t], u, p))
            values.append(g)
            lower.append(np.broadcast_to(c.lower, g.shape))
            upper.append(np.broadcast_to(c.upper, g.shape))
        limits = np.isfinite(stage.control_lower) | np.isfinite(stage.control_upper)
        g = np.concatenate([*values, u[limits]])
        low = np.concatenate([*lower, np.asarray(stage.control_lower)[limits]])
        high = np.concatenate([*upper, np.asarray(stage.control_upper)[limits]])
        assert ((y <= 0) | (g >= high - 1e-7)).all()
        assert ((y >= 0) | (g <= low + 1e-7)).all()


@pytest.mark.parametrize("limit", [1 / 6, 1 / 9, 0.05])
def test_bryson_denham_approaches_its_known_optimum(limit: float) -> None:
    """J* = 4/(9 l) (Bryson & Ho 1975, sec. 3.11), up to the O(h²) of piecewise constant controls."""
    coarse, fine = (AugmentedLagrangian().solve(bryson_denham(limit, T)) for T in (50, 100))
    assert coarse.success
    assert fine.success
    optimum = 4 / (9 * limit)
    assert fine.cost == pytest.approx(optimum, rel=5e-3)
    assert abs(fine.cost - optimum) < abs(coarse.cost - optimum)
    assert_is_kkt_point(bryson_denham(limit), fine)


CASES = {
    "control bounds": lambda: swing(control_bounds=(-0.8, 0.5)),
    "one-sided bound": lambda: swing(control_bounds=(-np.inf, 0.5)),
    "state bound": lambda: swing(constraints=(Constraint(lambda x, u: x[1], -1.0, np.inf, "rate"),)),
    "mixed": lambda: swing(constraints=(Constraint(lambda x, u: x[1] * u[0], -0.3, 0.3, "power"),)),
    "equality along the way": lambda: swing(
        constraints=(Constraint(lambda x, u: u[0] - 2 * x[0], 0.0, 0.0, "spring"),)
    ),
    "terminal equality": lambda: swing(terminal_constraints=(Constraint(lambda x: x, 0.0, 0.0, "rest"),)),
    "curved obstacle": lambda: Problem.from_functions(
        dynamics=lambda x, u: x + 0.1 * u,
        cost=lambda x, u: 0.05 * u @ u,
        terminal_cost=lambda x: 50 * ((x - np.array([2.0, 0.0])) ** 2).sum(),
        x0=[0.0, 0.1],
        horizon=20,
        control_size=2,
        constraints=(Constraint(lambda x, u: 0.25 - (x[0] - 1) ** 2 - x[1] ** 2, name="obstacle"),),
    ),
    "residuals": lambda: swing(
        cost=LeastSquares(lambda x, u: m.stack([0.3 * x[0], 0.1 * u[0]])), control_bounds=(-0.8, 0.5)
    ),
    "parameters at each stage": lambda: swing(
        constraints=(Constraint(lambda x, u, p: u[0] - p[0], name="limit"),),
        parameters=np.linspace(0.2, 1.0, 21)[:, None],
    ),
    "stages that differ": lambda: _two_kinds(),
}


def _two_kinds() -> Problem:
    free, bounded = swing(), swing(control_bounds=(-0.5, 0.5))
    limited = swing(constraints=(Constraint(lambda x, u: m.stack([x[1], u[0]]), -1.0, 1.0, "both"),))
    return free.replace(stages=(free.stages[0],) * 5 + (bounded.stages[0],) * 10 + (limited.stages[0],) * 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_same_optimum_as_ipopt_and_a_kkt_point(name: str) -> None:
    problem = CASES[name]()
    solution, reference = AugmentedLagrangian().solve(problem), IPOPT().solve(problem)
    assert solution.success, str(solution)
    assert reference.success
    assert solution.cost == pytest.approx(reference.cost, rel=1e-6, abs=1e-8)
    assert solution.cost > AugmentedLagrangian().solve(_without_constraints(problem)).cost + 1e-6  # they matter
    assert_is_kkt_point(problem, solution)


def _without_constraints(problem: Problem) -> Problem:
    stages = {id(s): Stage(s.dynamics, s.cost) for s in problem.stages}
    return problem.replace(stages=tuple(stages[id(s)] for s in problem.stages), terminal_constraints=())


def test_gauss_newton_inside_finds_the_same_optimum() -> None:
    problem = CASES["residuals"]()
    solution = AugmentedLagrangian(inner=ILQR()).solve(problem)
    assert solution.success
    assert solution.cost == pytest.approx(AugmentedLagrangian().solve(problem).cost, rel=1e-8)


def test_without_constraints_it_is_the_inner_solver() -> None:
    problem = swing()
    solution, reference = AugmentedLagrangian().solve(problem), AugmentedLagrangian().inner.solve(problem)
    assert solution.success
    assert solution.cost == pytest.approx(reference.cost, rel=1e-10)


def test_hand_written_dynamics_keep_their_derivatives() -> None:
    stage = Stage(HandWritten(), HandWrittenCost(), control_lower=-0.1, control_upper=0.1)
    n = stage.dynamics.state_size
    problem = Problem(
        stages=(stage,) * 10, terminal_cost=FunctionTerminalCost(lambda x: 5 * x @ x, n), x0=np.full(n, 0.5)
    )
    solution, reference = AugmentedLagrangian().solve(problem), IPOPT().solve(problem)
    assert solution.success
    assert solution.cost == pytest.approx(reference.cost, rel=1e-6)


# ---- failures ---------------------------------------------------------------------------------------------------


def test_an_end_out_of_reach_is_infeasible_and_says_which_row() -> None:
    problem = swing(control_bounds=(-1, 1), terminal_constraints=(Constraint(lambda x: x, 9.0, 9.0, "too far"),))
    for solver in (AugmentedLagrangian(), IPOPT()):
        solution = solver.solve(problem)
        assert solution.status is Status.INFEASIBLE
        assert solution.details.violation.row.startswith("too far")
        assert solution.details.violation.end
        assert solution.details.violation.stage == problem.horizon


def test_rows_that_contradict_each_other_are_infeasible_and_name_a_stage() -> None:
    rows = (Constraint(lambda x, u: u[0], 1.0, 2.0, "push"), Constraint(lambda x, u: u[0], -2.0, -1.0, "pull"))
    solution = AugmentedLagrangian().solve(swing(constraints=rows))
    assert solution.status is Status.INFEASIBLE
    assert not solution.details.violation.end
    assert solution.details.violation.row in ("push", "pull")


def test_an_x0_outside_the_state_bounds_is_named_at_once() -> None:
    rows = (
        Constraint(lambda x, u: m.stack([x[0] + u[0], x[0]]), -1.0, [-0.5, 0.7], "rail"),  # u could mend the first
        Constraint(lambda x, u: x[1], -0.1, 0.1, "rate"),
    )
    outside = AugmentedLagrangian().solve(swing(constraints=rows))
    assert outside.status is Status.INFEASIBLE
    assert outside.iterations == 0
    reason = outside.details.reason
    assert replace(reason, amount=0.0) == Reason(failure=Failure.START_BREAKS_ROW, row="rail[1]", stage=0)
    assert reason.amount == pytest.approx(0.3)
    assert IPOPT().solve(swing(constraints=rows)).details.reason == reason
    later = swing(constraints=rows, x0=[0.7, 0.0])
    assert AugmentedLagrangian(max_iterations=1).solve(later).details.reason is None


def test_a_callback_stops_it_with_the_best_iterate() -> None:
    solution = AugmentedLagrangian().solve(bryson_denham(0.1), callback=lambda i: i.index < 2)
    assert solution.status is Status.STOPPED
    assert np.isfinite(solution.states).all()


@pytest.mark.parametrize(
    "options",
    [
        {"constraint_tolerance": 0.0},
        {"inner": IPOPT()},
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(ProblemError, match=next(iter(options))):
        AugmentedLagrangian(**options)


@pytest.mark.parametrize("options", [{"initial": -1.0}, {"factor": 1.0}, {"required_decrease": 1.0}], ids=str)
def test_wrong_schedules_of_the_penalty(options: dict[str, Any]) -> None:
    with pytest.raises(ProblemError, match=next(iter(options))):
        Penalty(**options)


def test_a_black_box_cost_says_what_to_do() -> None:
    problem = swing(cost=lambda x, u: float(x[0]) ** 2 + float(u[0]) ** 2, derivatives="central", control_bounds=(0, 1))
    with pytest.raises(UnsupportedProblem, match=r"ocpkit\.math"):
        AugmentedLagrangian().solve(problem)


@pytest.mark.slow
def test_random_problems_never_claim_what_does_not_hold() -> None:
    """Control bounds and a terminal row that may or may not be reachable."""
    converged = Floor()

    @settings(max_examples=25, deadline=None)
    @given(problem=smooth_problems(max_horizon=12), limit=st.floats(0.05, 2.0), target=st.floats(-1.0, 1.0))
    def check(problem: Problem, limit: float, target: float) -> None:
        stages = {id(s): Stage(s.dynamics, s.cost, -limit, limit) for s in problem.stages}
        row = Constraint(lambda x: x[0], target, np.inf, "at least")
        problem = problem.replace(stages=tuple(stages[id(s)] for s in problem.stages), terminal_constraints=(row,))
        solution = AugmentedLagrangian().solve(problem)
        assert isinstance(solution.status, Status)
        assert np.isfinite(solution.cost)
        if converged.when(solution.success):
            assert_is_kkt_point(problem, solution, 1e-4)

    check()
    converged.check(8)


class Overflowing(DDP):
    """An inner solver whose second answer is finite by its own account and not by the problem's."""

    def find_stationary(self, problem: Problem, *args: Any, **kwargs: Any) -> Solution:
        solution = super().find_stationary(problem, *args, **kwargs)
        return solution if not args else replace(solution, controls=solution.controls + 1e200)


def test_an_iterate_whose_cost_overflows_is_not_kept() -> None:
    solver = AugmentedLagrangian(inner=Overflowing(engine="numpy"), gradient_tolerance=1e-300, max_iterations=10)
    with np.errstate(over="ignore"):
        solution = solver.solve(swing())
    assert not solution.success
    assert np.isfinite(solution.cost)
    assert np.isfinite([line.cost for line in solution.history]).all()


class Losing(DDP):
    """An inner solver that finds nothing where it is warm-started, and blames the model."""

    def find_stationary(self, problem: Problem, *args: Any, **kwargs: Any) -> Solution:
        solution = super().find_stationary(problem, *args, **kwargs)
        return solution if not args else replace(solution, status=Status.INVALID_INPUT, value_gradients=None)


def test_a_model_that_was_finite_is_no_invalid_input_later() -> None:
    """ρ grows after each failure, and the last good iterate is returned."""
    solver, problem = AugmentedLagrangian(inner=Losing(engine="numpy")), bryson_denham(0.1, horizon=10)
    solution = solver.solve(problem)
    assert solution.status is Status.DIVERGED
    assert solution.history[-1].penalty > solver.penalty.maximum
    good = replace(solver, inner=DDP(engine="numpy"), max_iterations=1).solve(problem)
    np.testing.assert_array_equal(solution.controls, good.controls)
