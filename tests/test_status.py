"""How DDP, iLQR and FDDP end, and that they say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from problems import BY_NAME, LQRS, HandWritten, HandWrittenCost, no_minimum

import ocpkit.math as m
from ocpkit import (
    DDP,
    FDDP,
    Dynamics,
    Failure,
    FunctionCost,
    FunctionTerminalCost,
    Iteration,
    Problem,
    Stage,
    Status,
    registry,
    rk4,
)
from ocpkit.recursion.curvature import Identity
from ocpkit.solvers.ddp.solve_batch import solve_batch


class WrongGradient(HandWrittenCost):
    def gradient(self, x: Any, u: Any, p: Any) -> Any:
        return tuple(-g for g in super().gradient(x, u, p))


def flat_end(size: int = 2) -> FunctionTerminalCost:
    return FunctionTerminalCost(lambda x: 0 * x[0], size)


class Brittle(Dynamics):
    """x' = x + √(−(u − 1)²): a number at u = 1 only, so that no step is possible."""

    state_size = control_size = next_state_size = 1

    def step(self, x: Any, u: Any, p: Any) -> Any:
        return x + np.sqrt(-((u - 1.0) ** 2))

    def jacobians(self, x: Any, u: Any, p: Any) -> Any:
        return np.eye(1), np.eye(1)

    def hessian_product(self, x: Any, u: Any, p: Any, costate: Any) -> Any:
        return np.zeros((1, 1)), np.zeros((1, 1)), np.zeros((1, 1))


def test_status_converged_at_the_guess() -> None:
    problem = LQRS[2, 1, 20].problem()
    first = DDP().solve(problem)
    again = DDP().solve(problem, first)
    assert again.status is Status.CONVERGED
    assert again.iterations == 0


def test_status_stalled() -> None:
    """A gradient of the wrong sign: no step can lower the cost, and DDP says so instead of pretending."""
    stage = Stage(HandWritten(), WrongGradient())
    problem = Problem(stages=(stage,) * 5, terminal_cost=flat_end(), x0=np.array([1.5, 0.0]))
    solution = DDP().solve(problem)
    assert solution.status is Status.STALLED
    assert solution.iterations < 100
    assert solution.cost == pytest.approx(solution.history[0].cost, rel=1e-12)


def test_status_iteration_limit() -> None:
    solution = DDP(max_iterations=3).solve(BY_NAME["pendulum"].problem())
    assert solution.status is Status.ITERATION_LIMIT
    assert solution.iterations == 3
    assert DDP(max_iterations=0).solve(BY_NAME["pendulum"].problem()).iterations == 0


def test_status_time_limit() -> None:
    solution = DDP(time_limit=1e-9).solve(BY_NAME["pendulum"].problem())
    assert solution.status is Status.TIME_LIMIT
    assert solution.iterations == 0


def test_status_stopped() -> None:
    solution = DDP().solve(BY_NAME["pendulum"].problem(), callback=lambda line: line.index < 4)
    assert solution.status is Status.STOPPED
    assert solution.iterations == 4


def test_status_interrupted_in_a_callback() -> None:
    def interrupt(line: Iteration) -> None:
        if line.index == 4:
            raise KeyboardInterrupt

    solution = DDP().solve(BY_NAME["pendulum"].problem(), callback=interrupt)
    assert solution.status is Status.INTERRUPTED
    assert solution.iterations == 4
    assert solution.cost == solution.history[4].cost


class Interrupting(HandWritten):
    calls = 0

    def step(self, x: Any, u: Any, p: Any) -> Any:
        self.calls += 1
        if self.calls == 60:
            raise KeyboardInterrupt
        return super().step(x, u, p)


def test_status_interrupted_in_the_model() -> None:
    dynamics = Interrupting()
    stage = Stage(dynamics, HandWrittenCost())
    problem = Problem(stages=(stage,) * 25, terminal_cost=flat_end(), x0=np.array([1.5, 0.0]))
    solution = DDP(engine="numpy").solve(problem)
    assert solution.status is Status.INTERRUPTED
    assert len(solution.history) >= 1
    assert problem.rollout(solution.controls)[1] == pytest.approx(solution.cost)


@pytest.mark.parametrize("name", ["ddp", "ilqg", "al", "gd"])
def test_an_interrupt_before_there_is_an_iterate_is_passed_on(name: str) -> None:
    dynamics = Interrupting()
    stage = Stage(dynamics, FunctionCost(lambda x, u: x @ x + u @ u, 2, 1))
    problem = Problem(stages=(stage,) * 25, terminal_cost=flat_end(), x0=np.array([1.5, 0.0]))
    options = {"engine": "numpy"} if name == "ddp" else {}
    options |= {"inner": DDP(engine="numpy")} if name in ("ilqg", "al") else {}
    dynamics.calls = 50  # in the middle of the guess's rollout; what is traced calls it once or twice
    with pytest.raises(KeyboardInterrupt):
        registry.make(name, **options).solve(problem)  # type: ignore[arg-type]


def test_gaps_that_no_step_closes_are_given_up() -> None:
    cost = FunctionCost(lambda x, u: x[0] ** 2 + u[0] ** 2, 1, 1)
    problem = Problem(
        stages=(Stage(Brittle(), cost),) * 4,
        terminal_cost=FunctionTerminalCost(lambda x: x[0] ** 2, 1),
        x0=np.ones(1),
        controls=(np.ones(1),) * 4,
        states=tuple(np.array([float(t + 1)]) for t in range(5)),
    )
    solution = FDDP().solve(problem)
    assert solution.status is Status.GAVE_UP
    assert solution.history[-1].gap == 1.0


def test_status_of_a_problem_without_a_minimum() -> None:
    problem = no_minimum()
    solution = DDP().solve(problem)
    assert solution.status is Status.DIVERGED
    assert np.isfinite(solution.cost)


@pytest.mark.parametrize("engine", ["numpy", "vm", "c"])
def test_there_is_no_minimum_in_any_unit(engine: str) -> None:
    """J that falls to −1e60 times what it was ends all engines and batches, after as many iterations."""
    scaled = Problem.from_functions(
        dynamics=lambda x, u: x + u,
        cost=lambda x, u, p: -p[0] * u @ u,
        terminal_cost=lambda x, p: p[0] * x[0],
        x0=[0.5],
        horizon=3,
        control_size=1,
        parameters=[1.0],
    )
    units = [[1e-30], [1.0], [1e30]]
    alone = [DDP(engine=engine).solve(scaled.replace(parameters=p)) for p in units]
    assert [solution.status for solution in alone] == [Status.DIVERGED] * 3
    together = solve_batch(scaled, parameters=units, solver=DDP())
    assert list(together.status) == [Status.DIVERGED] * 3
    assert {*together.iterations.tolist(), *(solution.iterations for solution in alone)} == {alone[0].iterations}


def test_status_diverged_by_a_large_learning_rate() -> None:
    solver = DDP(curvature=Identity(10.0), line_search=None, feedback=False)
    solution = solver.solve(BY_NAME["hand-written"].problem())
    assert solution.status is Status.DIVERGED
    assert all(np.isfinite(x).all() for x in (solution.states, solution.controls))


def test_status_invalid_input_names_what_is_not_finite() -> None:
    """J is finite at the guess, but a derivative is not."""
    problem = Problem.from_functions(
        dynamics=lambda x, u: x + u,
        cost=lambda x, u: m.sqrt(u[0]) + u[0] ** 2,
        terminal_cost=lambda x: x[0] ** 2,
        x0=[1.0],
        horizon=3,
    )
    solution = DDP().solve(problem)
    assert solution.status is Status.INVALID_INPUT
    assert solution.details.reason.failure is Failure.NOT_FINITE


@pytest.mark.parametrize("engine", ["numpy", "vm", "c", "auto"])
def test_a_saddle_that_may_not_be_left_is_called_one(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hanging at rest, paid for not being upright; "auto" would change its engine on the way."""
    monkeypatch.setattr("ocpkit.solvers.driver.MOST_DEPARTURES", 0)
    problem = Problem.from_functions(
        dynamics=rk4(lambda x, u: m.stack([x[1], u[0] - 9.81 * m.sin(x[0])]), dt=0.05),
        cost=lambda x, u: (0.011 if engine == "auto" else 0.01) * u[0] ** 2,  # which no other test compiles
        terminal_cost=lambda x: 50 * (1 + m.cos(x[0])),
        x0=[0, 0],
        horizon=40,
        control_size=1,
    )
    assert DDP(engine=engine).solve(problem).status is Status.SADDLE
