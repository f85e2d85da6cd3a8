"""What a user can declare wrongly, each with the message that must come back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from problems import BY_NAME, HandWritten, HandWrittenCost, declare

import ocpkit.math as m
from ocpkit import (
    DDP,
    FDDP,
    IPOPT,
    SQP,
    Constraint,
    Damping,
    Fatrop,
    FunctionCost,
    FunctionDynamics,
    FunctionTerminalCost,
    LeastSquares,
    LineSearch,
    Problem,
    ProblemError,
    Solution,
    Stage,
    Status,
    UnsupportedProblem,
    check_derivatives,
    registry,
)


def assemble(*stages: Any, **changes: Any) -> Problem:
    """A hand-written problem in R²."""
    declaration = {"terminal_cost": FunctionTerminalCost(lambda x: x @ x, 2), "x0": np.zeros(2)} | changes
    return Problem(stages=stages, **declaration)


def subclass(base: type, **methods: Any) -> Any:
    return type("Wrong", (base,), methods)()


def stage(n: int, k: int, after: int, **options: Any) -> Stage:
    dynamics = FunctionDynamics(lambda x, u: m.stack([x[0] + u[0]] * after), n, k, next_state_size=after, **options)
    return Stage(dynamics, FunctionCost(lambda x, u: u @ u, n, k))


def solve(**changes: Any) -> Solution:
    return DDP().solve(declare(), **changes)


def with_constraints(*constraints: Any) -> Problem:
    return declare(constraints=constraints)


BRANCH = {"dynamics": lambda x, u: x if x[0] > 0 else m.stack([x[1] + u[0], x[0]])}
HAND = (HandWritten(), HandWrittenCost())

WRONG_MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "x0 a matrix": (lambda: declare(x0=[[1.0, 0.0]]), r"x0 has shape \(1, 2\), expected a vector"),
    "x0 empty": (lambda: declare(x0=[]), r"x0 has shape \(0,\)"),
    "x0 NaN": (lambda: declare(x0=[0.0, np.nan]), "x0 is not finite at entry 1"),
    "x0 infinite": (lambda: declare(x0=[np.inf, 0.0]), "x0 is not finite at entry 0"),
    "x0 text": (lambda: declare(x0="zero"), "x0 must hold real numbers"),
    "x0 ragged": (lambda: declare(x0=[[1], [1, 2]]), "x0 must hold real numbers"),
    "x0 complex": (lambda: declare(x0=[1j, 0]), "x0 must hold real numbers"),
    "x0 a complex array": (lambda: declare(x0=np.array([1j, 0])), "x0 must hold real numbers: got complex numbers"),
    "x0 numbers as text": (lambda: declare(x0=["1", "0"]), "x0 must hold real numbers: got text"),
    "x0 missing": (lambda: declare(x0=None), r"x0 is missing"),
    "x0 of another size": (lambda: assemble(Stage(*HAND), x0=np.zeros(3)), r"x0 has shape \(3,\), expected \(2,\)"),
    "horizon zero": (lambda: declare(horizon=0), "horizon must be a whole number of at least 1, got 0"),
    "horizon negative": (lambda: declare(horizon=-1), "horizon must be a whole number of at least 1, got -1"),
    "horizon fractional": (lambda: declare(horizon=1.5), "horizon must be a whole number of at least 1, got 1.5"),
    "horizon text": (lambda: declare(horizon="ten"), "horizon must be a whole number of at least 1, got 'ten'"),
    "horizon boolean": (lambda: declare(horizon=True), "horizon must be a whole number of at least 1, got True"),
    "derivatives unknown": (lambda: declare(derivatives="auto"), "unknown way to differentiate 'auto'; known: casadi"),
    "derivatives misspelt": (lambda: declare(derivatives="centrl"), "did you mean 'central'"),
    "derivatives missing": (lambda: declare(derivatives=None), "unknown way to differentiate None"),
    "dynamics missing": (lambda: declare(dynamics=None), "dynamics: expected a function, got NoneType"),
    "cost a number": (lambda: declare(cost=3.0), "cost: expected a function, got float"),
    "residuals a number": (lambda: declare(cost=LeastSquares(3)), "cost: expected a function, got int"),  # type: ignore[arg-type]
    "too few arguments": (
        lambda: declare(dynamics=lambda x: x),
        r"takes 1 arguments, expected \(x, u\) or \(x, u, p\)",
    ),
    "too many arguments": (lambda: declare(dynamics=lambda x, u, p, t: x), "takes 4 arguments"),
    "terminal cost of (x, u, p)": (lambda: declare(terminal_cost=lambda x, u, p: 0), r"expected \(x\) or \(x, p\)"),
    "next state too short": (
        lambda: declare(dynamics=lambda x, u: m.stack([x[0] + u[0]]), control_size=1),
        r"dynamics: the function returned a state of shape \(1,\), expected \(2,\)",
    ),
    "next state a matrix": (
        lambda: declare(dynamics=lambda x, u: np.eye(2), control_size=1),
        r"a matrix of shape \(2, 2\)",
    ),
    "next state missing": (lambda: declare(dynamics=lambda x, u: None, control_size=1), "None is not a number"),
    "index out of range": (
        lambda: declare(dynamics=lambda x, u: m.stack([x[5], u[0]]), control_size=1),
        "dynamics: the function could not be traced: index 5 is out of bounds",
    ),
    "function fails": (
        lambda: declare(dynamics=lambda x, u: 1 / 0, control_size=1),
        "could not be traced: division by zero",
    ),
    "black box fails": (
        lambda: declare(dynamics=lambda x, u: {}["mass"], control_size=1, derivatives="central"),
        r"dynamics: the function failed on arrays of sizes \(2, 1, 0\): 'mass'",
    ),
    "cost a vector": (
        lambda: declare(cost=lambda x, u: x + u[0]),
        "a cost must be one number, the function returned 2",
    ),
    "black-box cost a vector": (
        lambda: declare(cost=lambda x, u: x + u[0], derivatives="central"),
        "a cost must be one number",
    ),
    "residuals a matrix": (
        lambda: declare(cost=LeastSquares(lambda x, u: np.outer(x, x) + u[0]), control_size=1),
        r"cost: returned a matrix of shape \(2, 2\)",
    ),
    "branch on the state": (lambda: declare(**BRANCH), "Python branch .* cannot be traced; use ocpkit.math.where"),
    "math.sin": (
        lambda: declare(dynamics=lambda x, u: m.stack([math.sin(x[0]) + u[0], x[1]])),
        r"no number yet \(math.sin, float\(\)",
    ),
    "complex step of a real function": (
        lambda: declare(dynamics=lambda x, u: np.real(x) + np.real(u[0]), control_size=1, derivatives="complex"),
        "dynamics: the function does not return complex numbers .* use derivatives='central'",
    ),
    "control size ambiguous": (
        lambda: declare(dynamics=lambda x, u: x + m.sum(u), cost=lambda x, u: u @ u),
        "the number of controls cannot be told .* give control_size=",
    ),
    "control size negative": (lambda: declare(control_size=-1), "sizes must be whole numbers of at least 0"),
    "control size fractional": (lambda: declare(control_size=1.5), "sizes must be whole numbers of at least 0"),
    "control size text": (lambda: declare(control_size="two"), "sizes must be whole numbers of at least 0"),
    "parameters NaN": (lambda: declare(parameters=[np.nan]), "parameters are not finite"),
    "parameters too few rows": (
        lambda: declare(parameters=np.zeros((3, 1))),
        r"parameters have shape \(3, 1\), expected \(n_p,\) or \(6, n_p\)",
    ),
    "parameters a scalar": (lambda: declare(parameters=1.0), r"parameters have shape \(\)"),
    "parameters text": (lambda: declare(parameters="mass"), "parameters must hold real numbers"),
    "parameters of another size": (
        lambda: Problem(
            stages=(stage(1, 1, 1, parameter_size=3),),
            terminal_cost=FunctionTerminalCost(lambda x: x @ x, 1),
            x0=np.zeros(1),
            parameters=np.zeros(2),
        ),
        r"stage 0 .* declared with parameter_size=3, but the problem has 2 parameters",
    ),
    "bounds contradictory": (lambda: declare(control_bounds=(1, -1)), "lower bound above upper bound at entry"),
    "bounds too long": (
        lambda: declare(control_bounds=([0, 0], [1, 1])),
        r"control_lower has shape \(2,\), expected \(1,\)",
    ),
    "bounds NaN": (lambda: declare(control_bounds=(np.nan, 1)), "control_lower is NaN at entry 0"),
    "bounds one number": (lambda: declare(control_bounds=1.0), r"control_bounds must be a pair \(lower, upper\)"),
    "guess too short": (lambda: declare(controls=np.zeros((4, 1))), "controls has 4 entries, expected 5"),
    "guess too wide": (lambda: declare(controls=np.zeros((5, 2)), control_size=1), r"controls\[0\] has shape \(2,\)"),
    "guess NaN": (lambda: declare(controls=np.full((5, 1), np.nan)), r"controls\[0\] is not finite"),
    "guess text": (lambda: declare(controls="go"), "controls must hold real numbers"),
    "states too few": (lambda: declare(states=np.zeros((5, 2))), "states has 5 entries, expected 6"),
    "states too wide": (lambda: declare(states=np.zeros((6, 3))), r"states\[0\] has shape \(3,\), expected \(2,\)"),
    "states a number": (lambda: declare(states=1.0), "states has 1 entries, expected 6"),
    "stages that do not chain": (
        lambda: assemble(stage(2, 1, 2), stage(2, 1, 3), stage(2, 1, 2)),
        r"stage 1 \('stage'\) ends in a state of size 3, but stage 2 takes 2",
    ),
    "terminal cost that does not chain": (lambda: assemble(stage(2, 1, 1)), "size 1, but the terminal cost takes 2"),
    "dynamics and cost of different sizes": (
        lambda: Stage(HandWritten(), FunctionCost(lambda x, u: u @ u, 2, 2)),
        r"dynamics takes \(state, control\) sizes \(2, 1\), cost takes \(2, 2\)",
    ),
    "stage without sizes": (
        lambda: Stage(subclass(HandWritten, state_size=None), HandWrittenCost()),
        "dynamics must define the integer state_size",
    ),
    "no stages": (lambda: assemble(), "the horizon must hold at least 1 stage"),
    "stages that are none": (lambda: assemble(1, 2), "stages must be a sequence of Stage objects"),
    "terminal cost a function": (
        lambda: assemble(Stage(*HAND), terminal_cost=abs),
        "terminal_cost must be a TerminalCost",
    ),
    "step of wrong shape": (
        lambda: assemble(Stage(subclass(HandWritten, step=lambda s, x, u, p: np.zeros(3)), HAND[1])),
        r"stage 0 \('stage'\): dynamics.step returned shape \(3,\), expected \(2,\)",
    ),
    "Jacobian of wrong shape": (
        lambda: assemble(
            Stage(subclass(HandWritten, jacobians=lambda s, x, u, p: (np.eye(3), np.ones((2, 1)))), HAND[1])
        ),
        r"dynamics.jacobians returned shape \(3, 3\), expected \(2, 2\)",
    ),
    "one Jacobian only": (
        lambda: assemble(Stage(subclass(HandWritten, jacobians=lambda s, x, u, p: (np.eye(2),)), HAND[1])),
        r"dynamics.jacobians must return 2 arrays, of shapes \(2, 2\), \(2, 1\); got \(array",
    ),
    "Hessian without uu": (
        lambda: assemble(Stage(HAND[0], subclass(HandWrittenCost, hessian=lambda s, x, u, p: (np.eye(2), 0)))),
        r"cost.hessian must return 3 arrays, of shapes \(2, 2\), \(1, 2\), \(1, 1\)",
    ),
    "gradient a number": (
        lambda: assemble(Stage(HAND[0], subclass(HandWrittenCost, gradient=lambda s, x, u, p: 0.0))),
        r"cost.gradient must return 2 arrays, of shapes \(2,\), \(1,\); got 0.0",
    ),
    "hessian_product of wrong shape": (
        lambda: assemble(
            Stage(subclass(HandWritten, hessian_product=lambda s, x, u, p, v: (np.eye(3), 0, 0)), HAND[1])
        ),
        r"dynamics.hessian_product returned shape \(3, 3\)",
    ),
    "gradient of wrong shape": (
        lambda: assemble(
            Stage(HAND[0], subclass(HandWrittenCost, gradient=lambda s, x, u, p: (np.ones(1), np.ones(1))))
        ),
        r"cost.gradient returned shape \(1,\), expected \(2,\)",
    ),
    "Hessian transposed": (
        lambda: assemble(
            Stage(
                HAND[0], subclass(HandWrittenCost, hessian=lambda s, x, u, p: (np.eye(2), np.ones((2, 1)), np.eye(1)))
            )
        ),
        r"cost.hessian returned shape \(2, 1\), expected \(1, 2\)",
    ),
    "Gauss-Newton Hessian of wrong shape": (
        lambda: assemble(
            Stage(HAND[0], subclass(HandWrittenCost, gauss_newton_hessian=lambda s, x, u, p: (np.eye(3), 0, 0)))
        ),
        r"cost.gauss_newton_hessian returned shape \(3, 3\)",
    ),
    "value a vector": (
        lambda: assemble(Stage(HAND[0], subclass(HandWrittenCost, value=lambda s, x, u, p: np.zeros(2)))),
        r"cost.value returned shape \(2,\), expected \(\)",
    ),
    "lower bound inf": (lambda: declare(control_bounds=(np.inf, np.inf)), "no number keeps a lower bound of inf"),
    "upper bound -inf": (lambda: Constraint(abs, -np.inf, -np.inf, "corridor"), "corridor: no number keeps"),
    "bound NaN after an infinite one": (
        lambda: Stage(
            *(FunctionDynamics(lambda x, u: x + u, 2, 2), FunctionCost(lambda x, u: u @ u, 2, 2)), [-np.inf, np.nan]
        ),
        "control_lower is NaN at entry 1",
    ),
    "controls one dimension too many, of two sizes": (
        lambda: assemble(stage(2, 1, 2), stage(2, 3, 2), controls=np.zeros((2, 1, 3))),
        r"controls\[0\] has shape \(1, 3\), expected \(1,\)",
    ),
    "constraint no function": (lambda: Constraint(3.0), "expected a function, got float"),  # type: ignore[arg-type]
    "constraint contradictory": (
        lambda: Constraint(abs, 1.0, 0.0, "corridor"),
        "corridor: lower bound above upper bound",
    ),
    "constraint NaN": (lambda: Constraint(abs, np.nan), "a bound is NaN; use ±inf"),
    "constraint bound text": (lambda: Constraint(abs, "low"), "constraint: a bound must hold real numbers"),
    "constraint bound missing": (lambda: Constraint(abs, None), "constraint: a bound is missing"),  # type: ignore[arg-type]
    "constraint bounds that do not match": (lambda: Constraint(abs, np.zeros(2), np.zeros(3)), "do not match"),
    "constraints without a tuple": (
        lambda: declare(constraints=Constraint(abs)),
        "must be a sequence of Constraint objects",
    ),
    "terminal constraint a function": (
        lambda: declare(terminal_constraints=(abs,)),
        "terminal_constraints must be a sequence",
    ),
    "constraint bounds of another size": (
        lambda: IPOPT().solve(with_constraints(Constraint(lambda x, u: x, np.zeros(3), 1.0))),
        r"a bound of shape \(3,\) does not fit 2 entries",
    ),
}

WRONG_CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "tolerance negative": (lambda: DDP(gradient_tolerance=-1), "gradient_tolerance must be a positive number, got -1"),
    "tolerance NaN": (lambda: DDP(cost_tolerance=math.nan), "cost_tolerance must be a positive number, got nan"),
    "tolerance text": (lambda: DDP(gap_tolerance="tight"), "gap_tolerance must be a positive number, got 'tight'"),  # type: ignore[arg-type]
    "NLP tolerance negative": (lambda: IPOPT(tolerance=-1e-8), "tolerance must be a positive number"),
    "iterations negative": (lambda: DDP(max_iterations=-1), "max_iterations must be a whole number of at least 0"),
    "iterations fractional": (lambda: DDP(max_iterations=1.5), "max_iterations must be a whole number"),  # type: ignore[arg-type]
    "iterations text": (lambda: DDP(max_iterations="many"), "max_iterations must be a whole number"),  # type: ignore[arg-type]
    "iterations infinite": (lambda: DDP(max_iterations=math.inf), "max_iterations must be a whole number"),  # type: ignore[arg-type]
    "time limit zero": (lambda: DDP(time_limit=0), "time_limit must be a positive number, got 0"),
    "regularize misspelt": (lambda: DDP(damping=Damping(target="controls")), "did you mean 'control'"),
    "regularization factor one": (lambda: DDP(damping=Damping(factor=1)), "factor of the damping must be above 1"),
    "Tikhonov negative": (lambda: DDP(tikhonov=-1), "tikhonov must be a number of at least 0, got -1"),
    "Tikhonov NaN": (lambda: DDP(tikhonov=math.nan), "tikhonov must be a number of at least 0, got nan"),
    "regularization bounds crossed": (lambda: DDP(damping=Damping(minimum=1.0, maximum=0.1)), "must not be above"),
    "step size above one": (lambda: DDP(line_search=LineSearch(min_step_size=2.0)), "min_step_size must be at most 1"),
    "fatrop with a time limit": (lambda: Fatrop(time_limit=1.0), "Fatrop cannot watch the clock"),
    "QP solver misspelt": (lambda: SQP(qp_solver="qrpq"), "did you mean 'qrqp'"),
    "convexification misspelt": (lambda: SQP(convexify="eigenclip"), "did you mean 'eigen-clip'"),
    "solver misspelt": (lambda: registry.get("dpp"), "unknown solver 'dpp'; did you mean 'ddp'"),
    "option misspelt in the registry": (lambda: registry.make("ddp", max_iteratons=3), "max_iteratons"),
    "no problem": (lambda: DDP().solve(None), "expected a Problem to solve, got NoneType"),  # type: ignore[arg-type]
    "warm start an array": (lambda: solve(guess=np.zeros((5, 1))), "a warm start must be a Solution, got ndarray"),
    "warm start of another horizon": (
        lambda: DDP().solve(declare(horizon=3), solve()),
        "the warm start has 5 entries, expected 3, one per stage",
    ),
    "warm start of another horizon, NLP": (
        lambda: IPOPT().solve(declare(horizon=3), solve()),
        "has 5 entries, expected 3",
    ),
    "controls of another width": (lambda: solve(controls=np.zeros((5, 2))), r"controls\[0\] has shape \(2,\)"),
    "states too few": (lambda: solve(states=np.zeros((5, 2))), "states has 5 entries, expected 6"),
    "callback no function": (lambda: solve(callback=3), "callback must be a function of one Iteration, got int"),
    "rollout too short": (lambda: declare().rollout(np.zeros((3, 1))), "controls has 3 entries, expected 5"),
    "replace by another size": (lambda: declare().replace(x0=np.zeros(3)), r"x0 has shape \(3,\), expected \(2,\)"),
    "policy past the end": (lambda: solve().policy(5, [0, 0]), "stage 5 is outside the horizon 0 … 4"),
    "policy before the start": (lambda: solve().policy(-1, [0, 0]), "stage -1 is outside the horizon"),
    "policy between stages": (lambda: solve().policy(0.5, [0, 0]), "stage 0.5 is outside the horizon"),  # type: ignore[arg-type]
    "cost of too many states": (
        lambda: declare().cost(np.zeros((7, 2)), np.zeros((5, 1))),
        "the cost of 5 stages needs 6 states and 5 controls, got 7 and 5",
    ),
    "cost of too few controls": (lambda: declare().cost(np.zeros((6, 2)), np.zeros((4, 1))), "got 6 and 4"),
    "policy of another state": (
        lambda: solve().policy(0, [0, 0, 0]),
        r"state of shape \(3,\) at stage 0, expected \(2,\)",
    ),
    "policy of text": (lambda: solve().policy(0, "ab"), "the state must hold real numbers"),  # type: ignore[arg-type]
    "derivatives at no sample": (
        lambda: check_derivatives(declare(), samples=0),
        "samples must be a whole number of at least 1, got 0",
    ),
    "infeasible start of changing sizes": (
        lambda: FDDP().solve(BY_NAME["varying-sizes"].problem()),
        "the state size changes along the horizon: infeasible_start needs states=",
    ),
}


@pytest.mark.parametrize("kind", WRONG_MODELS)
def test_wrong_model(kind: str) -> None:
    action, message = WRONG_MODELS[kind]
    with pytest.raises(ProblemError, match=message):
        action()


@pytest.mark.parametrize("kind", WRONG_CALLS)
def test_wrong_call(kind: str) -> None:
    action, message = WRONG_CALLS[kind]
    with pytest.raises(ProblemError, match=message):
        action()


@pytest.mark.parametrize(
    ("action", "name"),
    [
        (lambda: DDP(tolerence=1), "tolerence"),
        (lambda: declare(horizn=3), "horizn"),
        (lambda: declare().replace(x_0=0), "x_0"),
    ],
)
def test_unknown_keyword_is_named(action: Callable[[], Any], name: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        action()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"constraints": (Constraint(lambda x, u: x[0]),)}, "the constraints of stage 0"),
        ({"terminal_constraints": (Constraint(lambda x: x[0]),)}, "terminal constraints"),
    ],
)
def test_solver_refuses_what_it_cannot_treat(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(UnsupportedProblem, match=f"cannot treat {what}.*'ipopt'"):
        DDP().solve(declare(**changes))


@pytest.mark.parametrize("solver", [DDP(), FDDP(), IPOPT(), Fatrop()], ids=lambda s: type(s).__name__)
def test_model_that_is_nan_at_the_guess(solver: Any) -> None:
    problem = declare(dynamics=lambda x, u: m.stack([m.sqrt(u[0] - 1), x[1]]))
    solution = solver.solve(problem)
    assert solution.status is Status.INVALID_INPUT
    assert "give other controls" in solution.status.value
    assert not solution.success


def test_black_box_out_of_its_domain_is_nan() -> None:
    """A trial point outside the domain of a black box must not end the solve."""
    problem = declare(
        dynamics=lambda x, u: np.array([math.sqrt(4 + x[0] + u[0]), x[1]]), control_size=1, derivatives="central"
    )
    states, cost = problem.rollout(np.full((5, 1), -50.0))
    assert np.isnan(cost)
    assert np.isnan(states[1]).all()
