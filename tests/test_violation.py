"""What the constrained solvers say where rows do not hold, and controls that never leave their bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_problems import random_problem

import ocpkit.math as m
from ocpkit import (
    DDP,
    IPOPT,
    AugmentedLagrangian,
    Constraint,
    InteriorPoint,
    Problem,
    Status,
    registry,
    rk4,
    with_free_parameters,
)
from ocpkit.solvers.driver import Solver

SOLVERS: dict[str, Solver] = {
    f"{name} {engine}": solver(inner=DDP(max_iterations=300, engine=engine))
    for name, solver in (("al", AugmentedLagrangian), ("ip", InteriorPoint))
    for engine in ("numpy", "c")
}


def drift(**changes: Any) -> Problem:
    declaration: dict[str, Any] = {
        "dynamics": lambda x, u: x + 0.1 * u,
        "cost": lambda x, u: 0.05 * u @ u,
        "terminal_cost": lambda x: ((x - 1) ** 2).sum(),
        "x0": [1.0, 0.5],
        "horizon": 15,
        "control_size": 2,
    }
    return Problem.from_functions(**(declaration | changes))


def at_end(function: Any, lower: float, upper: float) -> dict[str, Any]:
    return {"terminal_constraints": (Constraint(function, lower, upper, "end"),)}


ENDS = {
    "a point": (at_end(lambda x: x, 0.0, 0.0), Status.CONVERGED),
    "a set of 1e-6": (at_end(lambda x: x, -1e-6, 1e-6), Status.CONVERGED),
    "rows that say the same": (at_end(lambda x: m.concatenate([x, 2 * x]), 0.0, 0.0), Status.CONVERGED),
    "the square of an equality": (at_end(lambda x: m.dot(x, x), 0.0, 0.0), Status.GAVE_UP),
    "a square that is not positive": (at_end(lambda x: m.dot(x, x), -np.inf, 0.0), Status.GAVE_UP),
    "a cube": (at_end(lambda x: x**3, 0.0, 0.0), Status.GAVE_UP),
    "a square below zero": (at_end(lambda x: x[0] ** 2, -np.inf, -1.0), Status.INFEASIBLE),
    "out of reach": ({"control_bounds": (-1, 1)} | at_end(lambda x: x, 9.0, 9.0), Status.INFEASIBLE),
    "rows that contradict each other": (
        {
            "constraints": (
                Constraint(lambda x, u: u[0], 1.0, 2.0, "push"),
                Constraint(lambda x, u: u[0], -2.0, -1.0, "pull"),
            )
        },
        Status.INFEASIBLE,
    ),
    "no number at the guess": ({"cost": lambda x, u: m.sqrt(u[0] - 1) + u @ u}, Status.INVALID_INPUT),
}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_how_it_ends(solver: str, end: str) -> None:
    changes, status = ENDS[end]
    solution = SOLVERS[solver].solve(drift(**changes))
    assert solution.status is status
    if status is Status.INFEASIBLE:
        assert solution.details.violation.amount > 0


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 60), excess=st.floats(0.1, 3.0))
def test_infeasible_by_construction_is_never_converged(seed: int, excess: float) -> None:
    """A first control that must be at least the other's bound and more."""
    problem = random_problem(seed)
    rows = (
        Constraint(lambda x, u: u[0], -np.inf, 1.0, "at most"),
        Constraint(lambda x, u: u[0], 1.0 + excess, np.inf, "at least"),
    )
    stage = problem.stages[0]
    other = type(stage)(stage.dynamics, stage.cost, constraints=rows)
    problem = problem.replace(stages=(other,) * problem.horizon, terminal_constraints=())
    for name in ("al", "ip"):
        solution = registry.make(name, inner=DDP(max_iterations=300, engine="vm")).solve(problem)
        assert solution.status in (Status.INFEASIBLE, Status.GAVE_UP)


def stopping(at: int, error: type[BaseException] | None = None) -> Any:
    def callback(line: Any) -> bool:
        if line.index >= at and error is not None:
            raise error
        return bool(line.index < at)

    return callback


WAYS_OUT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "to the end": ({}, {}),
    "at once": ({"max_iterations": 0}, {}),
    "after one iteration": ({"max_iterations": 1}, {}),
    "after two": ({"max_iterations": 2}, {}),
    "no time": ({"time_limit": 1e-9}, {}),
    "little time": ({"time_limit": 3e-4}, {}),
    "stopped": ({}, {"callback": stopping(1)}),
    "interrupted": ({}, {"callback": stopping(1, KeyboardInterrupt)}),
    "interrupted at once": ({}, {"callback": stopping(0, KeyboardInterrupt)}),
}
MODELS: dict[str, dict[str, Any]] = {
    "free": {},
    "rows": {"constraints": (Constraint(lambda x, u: x[0], -0.9, 2.0, "room"),)},
    "rows against the bounds": {"constraints": (Constraint(lambda x, u: u[0], 1.0, 2.0, "push"),)},
    "not finite": {"cost": lambda x, u: m.sqrt(x[0] - 5) + u @ u},
    "one side": {"control_bounds": (-np.inf, 0.2)},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in registry.names() if n not in ("ipopt", "fatrop", "sqp")])
@pytest.mark.parametrize("way", WAYS_OUT)
def test_controls_are_inside_their_bounds_on_every_way_out(name: str, way: str) -> None:
    options, call = WAYS_OUT[way]
    solver = registry.make(name, **options)
    for changes in MODELS.values():
        problem = drift(**({"control_bounds": ([-0.6, -0.4], [0.4, np.inf]), "controls": [3.0, -2.0]} | changes))
        if "constraints" in changes and not solver.handles_constraints:
            continue
        solution = solver.solve(problem, **call)
        lower, upper = problem.control_bounds
        controls = np.concatenate(list(solution.controls))
        assert ((controls >= lower) & (controls <= upper)).all()
        if name == "ip" and solution.history:  # else there was no time to roll the guess out, perhaps
            states, cost = problem.rollout(solution.controls)
            np.testing.assert_allclose(solution.states, states, atol=1e-12)
            assert solution.cost == pytest.approx(cost, rel=1e-12, nan_ok=True)


def test_gaps_that_a_plugin_leaves_are_named() -> None:
    """From a far guess of the time IPOPT keeps the goal and tears the dynamics."""
    goal = (3.0, -1.0)
    problem = Problem.from_functions(
        dynamics=rk4(lambda x, u: m.stack([u[0], m.cos(x[0]), m.sin(x[0])]), dt=lambda p: p[0] / 40),
        cost=lambda x, u: 0.0 * u[0],
        terminal_cost=lambda x, p: p[0],
        x0=[np.pi / 2, 0, 0],
        horizon=40,
        control_size=1,
        control_bounds=(-1.5, 1.5),
        parameters=[10.0],
        terminal_constraints=(Constraint(lambda x: x[1:], goal, goal, "goal"),),
    )
    free = with_free_parameters(problem, [0], lower=0.1, upper=100.0)
    solution = IPOPT().solve(free)
    assert solution.status is Status.INFEASIBLE
    steps = zip(free.stages, solution.states, solution.controls, solution.states[1:])
    gaps = [float(np.abs(stage.dynamics.step(x, u, free.parameter(0)) - after).max()) for stage, x, u, after in steps]
    assert max(gaps) > 0.1
    worst = solution.details.violation
    assert (worst.stage, worst.row) == (np.argmax(gaps), "")
    assert worst.amount == pytest.approx(max(gaps), rel=1e-6)
