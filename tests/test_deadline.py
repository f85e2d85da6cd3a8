"""The time limit, on a clock that the tests move: wherever it is reached, there is a Solution and nothing half made."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import ocpkit.math as m
from ocpkit import DDP, AugmentedLagrangian, Constraint, GradientDescent, InteriorPoint, Problem, Status, models, rk4
from ocpkit.boundary import deadline
from ocpkit.boundary.deadline import OutOfTime, check_time, ending_at, in_any_case
from ocpkit.engines import vm
from ocpkit.solvers import driver, guess
from ocpkit.solvers.driver import Solver

LIMIT = 100.0
ENDS = 12  # moments at which the time is over, from the first look at the clock to the last


class Clock:
    """A clock that stands still until it has been looked at so many times between two steps, and then is late."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, looks: float = float("inf")) -> None:
        self.now, self.looks, self.seen = perf_counter(), looks, 0
        monkeypatch.setattr(deadline, "perf_counter", self.look)
        for module in (driver, guess):
            monkeypatch.setattr(module, "perf_counter", lambda: self.now)

    def look(self) -> float:
        self.seen += 1
        if self.seen > self.looks:
            self.looks, self.now = float("inf"), self.now + 2 * LIMIT
        return self.now


def pushed(**changes: Any) -> Problem:
    """A pendulum that is new to every cache of graphs."""
    declaration: dict[str, Any] = {
        "dynamics": rk4(lambda x, u: m.stack([x[1], u[0] - m.sin(x[0])]), dt=0.1),
        "cost": lambda x, u: 0.05 * (x @ x + u @ u) + m.cos(x[0]),
        "terminal_cost": lambda x: 3 * x @ x,
        "x0": [1.0, 0.0],
        "horizon": 6,
        "control_size": 1,
        "controls": [0.5],
        "control_bounds": (-2.0, 2.0),
    }
    return Problem.from_functions(**(declaration | changes))


def walled() -> Problem:
    return pushed(constraints=(Constraint(lambda x, u: x[1], -0.6, 0.6, "speed"),))


SOLVERS: dict[str, tuple[Solver, Callable[[], Problem]]] = {
    "vm": (DDP(engine="vm", time_limit=LIMIT), pushed),
    "numpy": (DDP(engine="numpy", time_limit=LIMIT), pushed),
    "gd": (GradientDescent(max_iterations=5, time_limit=LIMIT), pushed),
    "al": (AugmentedLagrangian(inner=DDP(engine="vm"), max_iterations=4, time_limit=LIMIT), walled),
    "ip": (InteriorPoint(inner=DDP(engine="vm"), max_iterations=4, time_limit=LIMIT), walled),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_wherever_the_time_ends_there_is_a_solution(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    solver, declare = SOLVERS[name]
    vm._build.cache_clear()
    clock = Clock(monkeypatch)
    whole = solver.solve(declare())
    early = late = 0
    for looks in np.linspace(0, clock.seen - 1, ENDS).astype(int).tolist():
        vm._build.cache_clear()
        problem = declare()
        Clock(monkeypatch, looks)
        cut = solver.solve(problem)
        assert cut.status in (Status.TIME_LIMIT, whole.status)  # graphs that were traced before need fewer looks
        late += cut.status is Status.TIME_LIMIT
        early += not cut.history
        states, cost = problem.rollout(cut.controls)
        np.testing.assert_allclose(cut.states, states, atol=1e-12)
        assert cut.cost == pytest.approx(cost, rel=1e-12)
        if declare is pushed and cut.value_gradients is not None:  # a policy is that of the trajectory beside it
            slope = problem.terminal_cost.gradient(cut.states[-1], problem.parameter(problem.horizon))
            np.testing.assert_allclose(cut.value_gradients[-1], slope, atol=1e-12)
        Clock(monkeypatch)
        again = solver.solve(problem)
        assert (again.status, again.cost) == (whole.status, pytest.approx(whole.cost, rel=1e-12))
    assert 0 < early < late


def test_the_guess_comes_back_inside_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, 0)
    solution = InteriorPoint(time_limit=LIMIT).solve(pushed(), controls=[[5.0]] * 6)
    assert (solution.status, len(solution.history), solution.iterations) == (Status.TIME_LIMIT, 0, 0)
    np.testing.assert_array_equal(solution.controls, np.full((6, 1), 2.0))
    assert "time limit" in str(solution)


@pytest.mark.parametrize("states", [None, np.ones((7, 2))])
@pytest.mark.parametrize("seconds", [7.0, 30.0, 60.0])
def test_a_slow_model_is_called_once_too_often(
    states: NDArray[np.float64] | None, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call takes `seconds`, and all of a rollout more than there are; what is not known then is NaN."""
    clock, calls = Clock(monkeypatch), list[float]()

    def step(x: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.float64]:
        calls.append(clock.now)
        clock.now += seconds
        return np.asarray(x + 0.1 * np.array([x[1], u[0]]))

    problem = pushed(dynamics=step, derivatives="central", horizon=40)
    calls.clear()
    began = clock.now = perf_counter()
    solution = DDP(time_limit=LIMIT).solve(problem, states=None if states is None else np.ones((41, 2)))
    assert solution.status is Status.TIME_LIMIT
    assert sum(moment - began >= 1.02 * LIMIT for moment in calls) <= 1
    assert np.isnan(solution.cost)
    assert np.isnan(solution.states[1:]).all() == (states is None)


def test_a_first_solve_looks_at_the_clock_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No stretch without a look takes a large share of what a first solve begins with."""
    problem = models.get("quadrotor-gate").build()
    vm._build.cache_clear()
    moments = [process_time()]
    monkeypatch.setattr(deadline, "perf_counter", lambda: moments.append(process_time()) or 0.0)
    InteriorPoint(inner=DDP(engine="vm", max_iterations=1), max_iterations=1, time_limit=LIMIT).solve(problem)
    stretches = np.diff([*moments, process_time()])
    assert stretches.max() < 0.25 * stretches.sum()


def test_an_inner_deadline_is_no_later_than_the_one_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "perf_counter", lambda: 5.0)
    with ending_at(4.0), pytest.raises(OutOfTime), ending_at(6.0):
        check_time()
    with ending_at(6.0):
        check_time()
        with ending_at(4.0):
            with in_any_case():
                check_time()
            with pytest.raises(OutOfTime):
                check_time()
        check_time()
    check_time()
