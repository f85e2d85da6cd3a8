"""The likeliest mistakes of a new user: each is answered by one line that names the place and the way out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ocpkit
import ocpkit.math as m
import ocpkit.models
import ocpkit.registry
from ocpkit import DDP, MPC, AugmentedLagrangian, Constraint, Problem, Solution, rk4, simulate


def step(x: Any, u: Any) -> Any:
    return m.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * u[0]])


def declare(**changes: Any) -> Problem:
    declaration: dict[str, Any] = {
        "dynamics": step,
        "cost": lambda x, u: 0.01 * u[0] ** 2,
        "terminal_cost": lambda x: (x[0] - 1) ** 2 + x[1] ** 2,
        "x0": [0.0, 0.0],
        "horizon": 20,
    }
    return Problem.from_functions(**(declaration | changes))


def branching(x: Any, u: Any) -> Any:
    return step(x, u) if x[0] > 0 else step(x, -u)


LIMIT = Constraint(lambda x, u: x[1], -1.0, 1.0, "speed")
MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "a list instead of m.stack": (lambda: declare(dynamics=lambda x, u: [x[1], u[0], 0.0]), r"dynamics.*\(3,\)"),
    "math.sin instead of m.sin": (
        lambda: declare(dynamics=lambda x, u: m.stack([x[1], math.sin(x[0]) + u[0]])),
        r"ocpkit\.math",
    ),
    "if on a state": (lambda: declare(dynamics=branching), r"m\.where|ocpkit\.math\.where|derivatives="),
    "a cost that is a vector": (lambda: declare(cost=lambda x, u: x), r"cost.*number|cost.*shape"),
    "no return": (lambda: declare(dynamics=lambda x, u: None), r"dynamics returned shape \(\)"),
    "arguments in the wrong number": (lambda: declare(cost=lambda x: 0.0), r"cost.*takes"),
    "x0 of the wrong length": (lambda: declare(x0=[0.0]), r"not this x0 \(1,\): index 1 is out of bounds"),
    "x0 not finite": (lambda: declare(x0=[0.0, np.nan]), r"x0 is not finite at entry 1"),
    "horizon 0": (lambda: declare(horizon=0), r"horizon must be a whole number of at least 1, got 0"),
    "seconds for a horizon": (lambda: declare(horizon=2.5), r"horizon must be a whole number"),
    "bounds that are no pair": (lambda: declare(control_bounds=3.0), r"control_bounds must be a pair"),
    "bounds the wrong way round": (lambda: declare(control_bounds=(1.0, -1.0)), r"lower bound above upper bound"),
    "constraints that are no Constraint": (
        lambda: declare(constraints=(lambda x, u: x[1],)),
        r"must be a sequence of Constraint",
    ),
    "one constraint without a comma": (lambda: declare(constraints=LIMIT), r"must be a sequence of Constraint"),
    "constraints given to DDP": (lambda: DDP().solve(declare(constraints=(LIMIT,))), r"cannot treat.*'al' or 'ipopt'"),
    "a guess of the wrong length": (
        lambda: DDP().solve(declare(), controls=np.zeros((19, 1))),
        r"controls has 19 entries, expected 20",
    ),
    "parameters that the problem has not": (lambda: declare().replace(parameters=[1.0]), r"parameter"),
    "a number for a Problem": (lambda: DDP().solve(declare), r"Problem"),  # type: ignore[arg-type]
    "the class for a solver": (lambda: MPC(declare(), DDP), r"such as DDP\(\), got .*class"),  # type: ignore[arg-type]
    "a stage beyond the horizon": (lambda: DDP().solve(declare()).policy(20, [0, 0]), r"stage 20 is outside"),
    "a measured state of the wrong length": (lambda: MPC(declare()).step([0.0]), r"shape \(1,\), expected \(2,\)"),
    "a negative tolerance": (
        lambda: DDP(gradient_tolerance=-1.0),
        r"gradient_tolerance must be a positive number, got -1",
    ),
    "an engine that is none": (lambda: DDP(engine="gpu"), r"engine.*gpu"),
    "a solver that is none": (lambda: ocpkit.registry.get("ilq"), r"ilq.*ilqr"),
    "a task that is none": (lambda: ocpkit.models.get("cart-pole"), r"cart-pole.*cartpole"),
    "a time step of zero": (lambda: declare(dynamics=rk4(step, dt=0.0)), r"dt"),
    "a file that is no solution": (lambda: Solution.load(__file__), r"not a solution saved by ocpkit"),
    "a plot for a file type that is none": (
        lambda: ocpkit.animate(DDP().solve(declare()), ocpkit.models.get("pendulum"), "film.avi"),
        r"\.gif, \.html or \.mp4",
    ),
    "an inner solver that is no DDP": (lambda: AugmentedLagrangian(inner=MPC), r"inner must be"),  # type: ignore
    "a plant for a controller": (lambda: simulate(declare(), 3), r"controller|MPC"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("mistake", "says"), MISTAKES.values(), ids=MISTAKES.keys())
def test_it_is_answered_in_one_line(mistake: Callable[[], object], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says) as caught:
        mistake()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_problems_and_solutions_introduce_themselves() -> None:
    problem = declare(constraints=(LIMIT,), control_bounds=(-2.0, 2.0), name="cart & co")
    solution = AugmentedLagrangian().solve(problem)
    assert repr(problem) == "<Problem 'cart & co': horizon 20, states 2, controls 1>"
    assert "speed (-1.0 … 1.0)" in str(problem)
    assert "with bounds" in str(problem)
    assert "<td>cart &amp; co</td>" in problem._repr_html_()
    assert repr(solution).startswith("<Solution of 'cart & co' by AugmentedLagrangian: converged, J = ")
    assert "\n" not in repr(solution)
    assert "1 iteration, " in repr(AugmentedLagrangian(max_iterations=1).solve(problem))
    assert "cart &amp; co (horizon 20)" in solution._repr_html_()
