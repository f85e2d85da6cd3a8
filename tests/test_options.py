"""Every option changes something, or is refused: all options of solvers, controllers, batches and exports."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ocpkit.math as m
from ocpkit import (
    DDP,
    EMSA,
    FDDP,
    ILQG,
    ILQR,
    IPOPT,
    MPC,
    MSA,
    SQP,
    AugmentedLagrangian,
    Automatic,
    Barrier,
    Constraint,
    Damping,
    Fatrop,
    FunctionDynamics,
    GradientDescent,
    InteriorPoint,
    KalmanFilter,
    LineSearch,
    Penalty,
    PrimalDual,
    Problem,
    ProblemError,
    Solution,
    registry,
    rk4,
    simulate,
    solve_batch,
)
from ocpkit.control.export import export_c
from ocpkit.recursion.curvature import Adam, AdaptiveDiagonal, Identity, Proximal
from ocpkit.solvers.driver import Solver

Array = Any
T = 15


# ------------------------------------------------------------------------------------------------ problems
def rates(x: Array, u: Array, p: Array) -> Array:
    return m.stack([x[1], u[0] - p[0] * m.sin(x[0])])


def growing(x: Array, u: Array) -> Array:
    """Noise that grows with the angle."""
    return m.stack([m.stack([0.0 * x[0]]), m.stack([0.1 * (1 + x[0] ** 2)])])


def declare(**changes: Any) -> Problem:
    """A pendulum that has to swing far: Q_uu needs damping, and full steps are too long."""
    declaration: dict[str, Any] = {
        "dynamics": rk4(rates, 0.2),
        "cost": lambda x, u: 0.01 * u[0] ** 2 + 0.5 * m.cos(2 * x[0]),
    }
    declaration |= {"terminal_cost": lambda x: 30 * (1 + m.cos(x[0])) + 3 * x[1] ** 2, "x0": [0.3, 0.0], "horizon": T}
    declaration |= {"control_size": 1, "parameters": [9.81], "controls": [0.1]}
    return Problem.from_functions(**(declaration | changes))


SWING = declare()
GAPS = declare(states=np.linspace([0.3, 0.0], [3.0, 1.0], T + 1))
BOUNDED = declare(control_bounds=(-5, 5))
LIMITED = declare(
    constraints=(Constraint(lambda x, u: x[1], -3, 3, "speed"),),
    terminal_constraints=(Constraint(lambda x: x[0] - 2.5, 0, 0, "goal"),),
)
CONVEX = declare(cost=lambda x, u: u[0] ** 2 + m.dot(x, x), terminal_cost=lambda x: m.dot(x, x))
HARD = declare(controls=[15.0])
"""Far from an optimum, so that full steps are refused."""
SHORT = declare(cost=lambda x, u: u[0] ** 2 + m.dot(x, x), terminal_cost=lambda x: m.dot(x, x), horizon=3)
NOISY = declare(cost=lambda x, u: u[0] ** 2 + m.dot(x, x), noise=growing)


def kalman() -> KalmanFilter:
    return KalmanFilter(NOISY, lambda x: m.stack([x[0]]), 0.3, covariance=0.1)


# ------------------------------------------------------------------------------------------------ the table
Row = tuple[Problem, dict[str, Any], Any]
"""A problem, other options, and the value of this one that must matter there."""

OF_EVERY: dict[str, Row] = {
    "max_iterations": (SHORT, {}, 1),
    "time_limit": (SHORT, {}, 1e-9),
    "scaling": (HARD, {}, False),
}
OF_DDP: dict[str, Row] = OF_EVERY | {
    "second_order": (SWING, {}, False),
    "feedback": (SWING, {"max_iterations": 3}, False),
    "curvature": (SWING, {"max_iterations": 3}, Identity(1e-3)),
    "gradient_tolerance": (SWING, {}, 1e9),
    "cost_tolerance": (CONVEX, {"gradient_tolerance": 1e-300}, 1e9),
    "gap_tolerance": (GAPS, {"gradient_tolerance": 1e9}, 1e9),
    "damping": (SWING, {}, Damping(initial=10.0)),
    "tikhonov": (SWING, {}, 1.0),
    "line_search": (SWING, {"max_iterations": 5}, None),
    "infeasible_start": (SWING, {}, True),
    "engine": (SWING, {}, "vm"),
}
OF_PARTS: dict[str, Row] = {
    "target": (SWING, {"damping": Damping(initial=1.0)}, Damping(initial=1.0, target="state")),
    "initial": (SWING, {}, Damping(initial=10.0)),
    "minimum": (SWING, {"damping": Damping(initial=1.0)}, Damping(initial=1.0, minimum=0.9)),
    "maximum": (SWING, {}, Damping(maximum=0.1)),
    "factor": (SWING, {"damping": Damping(initial=1.0)}, Damping(initial=1.0, factor=5.0)),
    "growth": (SWING, {"damping": Damping(initial=1.0)}, Damping(initial=1.0, growth="quadratic")),
    "min_step_size": (HARD, {}, LineSearch(min_step_size=0.9)),
    "armijo": (declare(controls=[5.0]), {}, LineSearch(armijo=0.9)),
}
"""The options of the damping and of the line search: a problem, the other value, and the part with this one."""
OF_FIRST_ORDER: dict[str, Row] = OF_EVERY | {"gradient_tolerance": (SWING, {"max_iterations": 5}, 1e9)}
OF_AUGMENTED: dict[str, Row] = {
    "max_iterations": (LIMITED, {}, 1),
    "time_limit": (LIMITED, {}, 1e-9),
    "scaling": (LIMITED, {}, False),
    "inner": (LIMITED, {}, DDP(engine="numpy", max_iterations=1)),
    "constraint_tolerance": (LIMITED, {}, 1e9),
    "gradient_tolerance": (LIMITED, {"max_iterations": 2, "constraint_tolerance": 1e9}, 1e9),
    "first_tolerance": (LIMITED, {}, 1e-8),
    "penalty": (LIMITED, {}, Penalty(initial=300.0)),
}
STRICT = Penalty(required_decrease=1e-9)
OF_SCHEDULES: list[tuple[Penalty | Barrier, dict[str, Any]]] = [
    (Penalty(), {"initial": 300.0}),
    (STRICT, {"maximum": 20.0}),
    (STRICT, {"factor": 2.0}),
    (Penalty(), {"required_decrease": 1e-9}),
    (Barrier(), {"first": 1.0}),
    (Barrier(), {"last": 1e-4}),
    (Barrier(), {"factor": 0.5}),
]
"""The options of the schedules of ρ and μ: a schedule, and the option with another value."""
OF_PLUGINS: dict[str, Row] = OF_EVERY | {
    "tolerance": (SWING, {}, 1e-1),
    "feasibility_tolerance": (SHORT, {}, 1e-300),
}
TABLE: dict[type[Solver], dict[str, Row]] = {
    DDP: OF_DDP,
    ILQR: OF_DDP | {"second_order": (SWING, {}, True), "line_search": (HARD, {"max_iterations": 5}, None)},
    FDDP: OF_DDP | {"infeasible_start": (SWING, {}, False)},
    ILQG: {
        "max_iterations": (NOISY, {}, 1),
        "time_limit": (NOISY, {}, 1e-9),
        "scaling": (NOISY, {}, False),
        "inner": (NOISY, {}, DDP(engine="numpy", max_iterations=1)),
        "hessian_tolerance": (NOISY, {}, 1e9),
        "estimator": (NOISY, {"max_iterations": 3}, kalman()),
    },
    AugmentedLagrangian: OF_AUGMENTED,
    InteriorPoint: OF_AUGMENTED | {"barrier": (LIMITED, {}, Barrier(first=1.0))},
    Automatic: OF_EVERY | {"tolerance": (SWING, {}, 1e9), "engine": (SWING, {}, "vm")},
    PrimalDual: OF_EVERY | {"max_iterations": (LIMITED, {}, 1), "tolerance": (LIMITED, {}, 1e-2)},
    MSA: OF_FIRST_ORDER
    | {
        "minimization": (SWING, {"max_iterations": 3}, "gradient"),
        "learning_rate": (SWING, {"minimization": "gradient", "max_iterations": 3}, 1e-4),
        "relaxation": (SWING, {"max_iterations": 3}, 0.1),
        "patience": (SWING, {"minimization": "gradient", "learning_rate": 1.0, "max_iterations": 40}, 1),
        "stage_iterations": (BOUNDED, {"max_iterations": 3}, 1),
    },
    EMSA: OF_FIRST_ORDER
    | {
        "penalty": (SWING, {"max_iterations": 3}, 100.0),
        "penalty_factor": (SWING, {"max_iterations": 8}, 50.0),
        "min_penalty": (SWING, {"max_iterations": 8, "penalty": 10.0}, 9.0),
        "max_penalty": (SWING, {"max_iterations": 8, "penalty": 1e-6, "min_penalty": 1e-7}, 1e-5),
        "squared": (SWING, {"max_iterations": 3}, False),
        "stage_iterations": (SWING, {"max_iterations": 3}, 1),
    },
    GradientDescent: OF_FIRST_ORDER
    | {
        "learning_rate": (SWING, {"max_iterations": 3}, 1e-4),
        "rule": (SWING, {"max_iterations": 3}, "adam"),
        "line_search": (HARD, {"max_iterations": 3}, False),
        "armijo": (HARD, {"max_iterations": 20}, 0.9),
    },
    IPOPT: OF_PLUGINS,
    Fatrop: OF_PLUGINS | {"max_iterations": (SWING, {}, 1)},
    SQP: OF_PLUGINS
    | {
        "qp_solver": (LIMITED, {"max_iterations": 5}, "no such solver"),
        "convexify": (SWING, {"max_iterations": 5}, "eigen-reflect"),
    },
}
ENTRIES = [(kind, name) for kind, rows in TABLE.items() for name in rows]


def base(kind: type[Solver], **options: Any) -> Solver:
    """A solver on the NumPy engine, also inside."""
    names = {field.name for field in fields(kind)}
    if "inner" in names:
        return kind(**({"inner": DDP(engine="numpy", max_iterations=50)} | options))
    return kind(**(({"engine": "numpy"} if "engine" in names else {}) | options))


def fingerprint(solution: Solution) -> tuple[Any, ...]:
    """All that a solve says, but for its time."""
    lines = [replace(line, seconds=0.0) for line in solution.history]
    controls = np.concatenate([np.ravel(u) for u in solution.controls])
    return solution.status, repr(lines), controls.tobytes(), solution.details.engine


def matters(make: Callable[[dict[str, Any]], Any], options: dict[str, Any], name: str, value: Any) -> bool:
    """Whether an option changes what is made, or is refused."""
    assert name not in options
    before = make(options)
    try:
        after = make(options | {name: value})
    except ProblemError:
        return True
    return bool(before != after)


def limited(options: dict[str, Any], name: str) -> dict[str, Any]:
    """The same with few iterations, where these are not in question."""
    return options if name == "max_iterations" else {"max_iterations": 30} | options


def test_the_table_holds_every_option() -> None:
    assert {kind for kind in TABLE} == {registry.get(name) for name in registry.names()}
    for kind, rows in TABLE.items():
        assert {field.name for field in fields(kind)} == {*rows}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name"), ENTRIES, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_an_option_of_a_solver_matters(kind: type[Solver], name: str) -> None:
    problem, options, value = TABLE[kind][name]
    options = limited(options, name)
    assert matters(lambda given: fingerprint(base(kind, **given).solve(problem)), options, name, value)


def test_the_table_holds_every_option_of_a_part() -> None:
    assert {*OF_PARTS} == {field.name for kind in (Damping, LineSearch) for field in fields(kind)}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["numpy", "c", "batch", "inner"])
@pytest.mark.parametrize("name", OF_PARTS)
def test_an_option_of_a_part_matters(name: str, engine: str) -> None:
    problem, options, part = OF_PARTS[name]
    options = {"max_iterations": 30} | options
    key = "damping" if isinstance(part, Damping) else "line_search"

    def solve(given: dict[str, Any]) -> Any:
        if engine == "batch":
            batch = solve_batch(problem, solver=DDP(**given))
            return batch.controls.tobytes(), batch.status.tolist(), batch.iterations.tolist()
        if engine == "inner":
            solver = AugmentedLagrangian(inner=DDP(engine="numpy", **given), max_iterations=4)
            return fingerprint(solver.solve(LIMITED))
        return fingerprint(DDP(engine=engine, **given).solve(problem))

    assert solve(options) != solve(options | {key: part})


def test_the_table_holds_every_option_of_a_schedule() -> None:
    held = {(type(part), *change) for part, change in OF_SCHEDULES}
    assert held == {(kind, field.name) for kind in (Penalty, Barrier) for field in fields(kind)}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["numpy", "c"])
@pytest.mark.parametrize(("part", "change"), OF_SCHEDULES, ids=str)
def test_an_option_of_a_schedule_matters(part: Penalty | Barrier, change: dict[str, float], engine: str) -> None:
    kind, key = (AugmentedLagrangian, "penalty") if isinstance(part, Penalty) else (InteriorPoint, "barrier")

    def solve(given: Penalty | Barrier) -> Any:
        inner = DDP(engine=engine, max_iterations=50)
        return fingerprint(kind(inner=inner, max_iterations=30, **{key: given}).solve(LIMITED))  # type: ignore[arg-type]

    assert solve(part) != solve(replace(part, **change))


@pytest.mark.parametrize("name", OF_DDP)
def test_an_option_matters_in_c_too(name: str) -> None:
    problem, options, value = OF_DDP[name]
    value = "numpy" if name == "engine" else value
    solver = {"engine": "c"} if name != "engine" else {}
    options = limited(options, name)
    assert matters(lambda given: fingerprint(DDP(**(solver | given)).solve(problem)), options, name, value)


@pytest.mark.slow
@pytest.mark.parametrize("outer", [AugmentedLagrangian, InteriorPoint, ILQG])
@pytest.mark.parametrize("name", OF_DDP)
def test_an_option_of_an_inner_solver_matters(outer: type[Any], name: str) -> None:
    """Tolerances of the inner solver, which the others set themselves, are refused."""
    _, options, value = OF_DDP[name]
    if outer is not ILQG and name in ("gradient_tolerance", "cost_tolerance"):
        with pytest.raises(ProblemError):
            outer(inner=DDP(**{name: value}))
        return
    states = GAPS.states if name == "gap_tolerance" else None
    problem = replace(declare(noise=growing, controls=[15.0]) if outer is ILQG else LIMITED, states=states)
    value = "numpy" if name == "engine" else value
    start = {} if name == "engine" else {"engine": "numpy"}
    options = start | limited({key: each for key, each in options.items() if "tolerance" not in key}, name)

    def solve(given: dict[str, Any]) -> Any:
        solution = outer(inner=DDP(**given), max_iterations=4).solve(problem)
        return fingerprint(solution), solution.details.inner_iterations

    assert matters(solve, options, name, value)


def test_the_defaults_of_an_inner_solver_are_no_refusal() -> None:
    for tolerance in ("gradient_tolerance", "cost_tolerance"):
        for outer in (AugmentedLagrangian, InteriorPoint):
            outer(inner=ILQR(max_iterations=7))
            with pytest.raises(ProblemError, match=tolerance):
                outer(inner=DDP(**{tolerance: 1e-3}))


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (DDP, {"curvature": Identity(0.1), "damping": Damping(initial=1.0)}),
        (DDP, {"curvature": Identity(0.1), "damping": Damping()}),
        (GradientDescent, {"line_search": False, "armijo": 0.1}),
        (MSA, {"learning_rate": 0.1}),
        (MSA, {"minimization": "gradient", "relaxation": 0.5}),
        (MSA, {"minimization": "gradient", "stage_iterations": 3}),
        (Fatrop, {"time_limit": 1.0}),
    ],
)
def test_options_that_exclude_each_other_are_refused(make: type[Solver], options: dict[str, Any]) -> None:
    with pytest.raises(ProblemError):
        make(**options)


# ------------------------------------------------------------------------------------------------ no memory
CURVATURES = {
    "adam": lambda: Adam(0.05),
    "diagonal": lambda: AdaptiveDiagonal(0.05),
    "momentum": lambda: Identity(0.01, momentum=0.9),
    "proximal": lambda: Proximal(Adam(0.05)),
    "used before": lambda: Adam(
        0.05, memory={t: {"count": 3, "mean": np.ones(1), "square": np.ones(1)} for t in range(T)}
    ),
    "of one's own": lambda: Counting(),
}


class Counting:
    """A curvature that grows with every call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, t: int, Q: Any) -> Any:
        self.calls += 1
        return Identity(1 / (1 + self.calls))(t, Q)


@pytest.mark.parametrize("kind", [DDP, ILQR, FDDP])
@pytest.mark.parametrize("problem", [SWING, BOUNDED], ids=["free", "bounded"])
@pytest.mark.parametrize("name", CURVATURES)
def test_a_solver_gives_one_answer(kind: type[DDP], problem: Problem, name: str) -> None:
    curvature = CURVATURES[name]()
    solver = kind(curvature=curvature, line_search=None, max_iterations=4)
    first, again = solver.solve(problem), solver.solve(problem)
    fresh = kind(curvature=CURVATURES[name](), line_search=None, max_iterations=4).solve(problem)
    assert fingerprint(first) == fingerprint(again) == fingerprint(fresh)
    assert repr(vars(curvature)) == repr(vars(CURVATURES[name]()))


@pytest.mark.parametrize("kind", TABLE)
def test_every_solver_gives_one_answer(kind: type[Solver]) -> None:
    problem = NOISY if kind is ILQG else SWING
    solver = base(kind, max_iterations=3, **({"estimator": kalman()} if kind is ILQG else {}))
    assert fingerprint(solver.solve(problem)) == fingerprint(solver.solve(problem))


# ------------------------------------------------------------------------------------------------ batches and export
@pytest.mark.slow
@pytest.mark.parametrize("name", OF_DDP)
def test_an_option_matters_in_a_batch(name: str) -> None:
    problem, options, value = OF_DDP[name]
    if name == "gap_tolerance":
        return  # a batch takes no state guess, and has no gaps

    def solve(given: dict[str, Any]) -> Any:
        batch = solve_batch(problem, solver=DDP(**given))
        return batch.controls.tobytes(), batch.status.tolist(), batch.iterations.tolist(), repr(batch.feedback_gains)

    assert matters(solve, limited(options, name), name, value)


BATCH: dict[str, Any] = {
    "x0": [[0.2, 0.0]],
    "parameters": [[5.0]],
    "controls": np.ones((1, T, 1)),
    "solver": DDP(max_iterations=2),
}
BATCH |= {"dtype": "float32", "device": "no such device"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in inspect.signature(solve_batch).parameters if name != "problem"])
def test_an_argument_of_a_batch_matters(name: str) -> None:
    def solve(given: dict[str, Any]) -> Any:
        batch = solve_batch(SWING, **({"solver": DDP(max_iterations=20)} | given))
        return batch.controls.tobytes(), batch.iterations.tolist()

    if name == "solver":
        assert solve({}) != solve({name: BATCH[name]})
    else:
        assert matters(solve, {}, name, BATCH[name])


@pytest.mark.parametrize("name", [*OF_DDP, "feasibility_tolerance"])
def test_an_option_matters_in_exported_c(name: str, tmp_path: Path) -> None:
    _, options, value = OF_DDP.get(name, (SWING, {}, 0.3))

    def export(given: dict[str, Any]) -> Any:
        own = {key: given[key] for key in given if key == "feasibility_tolerance"}
        solver = DDP(**{key: value for key, value in given.items() if key not in own})
        return [path.read_text() for path in export_c(BOUNDED, solver, tmp_path, "case", **own)]

    # the engine is what Python would take
    assert matters(export, options, name, value) != (name == "engine")


# ------------------------------------------------------------------------------------------------ controllers
STEADY = Constraint(lambda x, u: x[1] - 0.5, -np.inf, 0.0, "slow")
TOO_FAST = declare(x0=[0.3, 4.0], constraints=(Constraint(lambda x, u: x[1], -3, 3, "speed"),))
"""x_0 breaks a row that no control of stage 0 can mend."""
MOVED = declare(
    dynamics=rk4(lambda x, u: m.stack([x[1], u[0] - 9.81 * m.sin(x[0])]), 0.2),
    terminal_cost=lambda x, p: 30 * (x[0] - p[0]) ** 2 + x[1] ** 2,
    parameters=[0.0],
)
"""Its goal moves after the first tick: one iteration of IPOPT then leaves gaps."""
OF_MPC: dict[str, tuple[Problem, dict[str, Any], Any]] = {
    "problem": (SWING, {}, CONVEX),
    "solver": (SWING, {}, DDP(max_iterations=1, engine="numpy")),
    "first_solver": (SWING, {"solver": DDP(max_iterations=1, engine="numpy")}, DDP(max_iterations=2, engine="numpy")),
    "delay": (SWING, {}, 2),
    "feasibility_tolerance": (MOVED, {"solver": IPOPT(max_iterations=1), "first_solver": IPOPT()}, 1e9),
    "ask_at_start": (TOO_FAST, {"solver": AugmentedLagrangian()}, True),
}


@pytest.mark.parametrize("name", [field.name for field in fields(MPC) if field.init])
def test_an_option_of_the_controller_matters(name: str) -> None:
    problem, options, value = OF_MPC[name]

    def run(given: dict[str, Any]) -> Any:
        controller = MPC(**({"problem": problem, "solver": DDP(engine="numpy")} | given))
        loop = simulate(controller, 4, parameters=lambda tick: [2.0 * (tick > 0)] if problem is MOVED else [9.81])
        return loop.controls.tobytes(), [command.health for command in loop.commands]

    if name == "problem":
        assert run({}) != run({"problem": value})
    elif name == "solver":
        assert run({}) != run({"solver": value, "first_solver": value})
    else:
        assert matters(run, options, name, value)


OF_SIMULATE: dict[str, tuple[dict[str, Any], Any]] = {
    "ticks": ({}, 5),
    "x0": ({}, [0.5, 0.5]),
    "plant": ({}, lambda x, u: 0.5 * x),
    "measurement_noise": ({}, 0.1),
    "process_noise": ({}, 0.1),
    "parameters": ({}, lambda tick: [1.0]),
    "seed": ({"process_noise": 0.1}, 1),
    "time_step": ({}, 0.1),
    "estimator": ({}, KalmanFilter(SWING, lambda x: m.stack([x[0]]), 0.3, covariance=0.1)),
}


@pytest.mark.parametrize("name", [name for name in inspect.signature(simulate).parameters if name != "controller"])
def test_an_option_of_the_simulation_matters(name: str) -> None:
    options, value = OF_SIMULATE[name]

    def run(given: dict[str, Any]) -> Any:
        loop = simulate(MPC(SWING, DDP(engine="numpy", max_iterations=2)), **({"ticks": 3} | given))
        return loop.states.tobytes(), loop.controls.tobytes(), loop.time_step

    assert run(options) != run(options | {name: value})


# ------------------------------------------------------------------------------------------------ declarations
OF_DECLARATION: dict[str, Any] = {
    "dynamics": rk4(rates, 0.1),
    "cost": lambda x, u: u[0] ** 2,
    "terminal_cost": lambda x: x[0] ** 2,
    "x0": [0.1, 0.1],
    "horizon": 7,
    "control_size": 2,
    "parameters": [5.0],
    "control_bounds": (-1, 1),
    "constraints": (STEADY,),
    "terminal_constraints": (Constraint(lambda x: x[0]),),
    "noise": lambda x, u: m.stack([m.stack([0.1 * x[0]]), m.stack([x[1]])]),
    "controls": [0.7],
    "states": np.ones((T + 1, 2)),
    "derivatives": "central",
    "name": "other",
    "angles": (0,),
}


@pytest.mark.parametrize("name", inspect.signature(Problem.from_functions).parameters)
def test_an_option_of_a_declaration_matters(name: str) -> None:
    def read(problem: Problem) -> Any:
        first, states = problem.stages[0], problem.states
        x, u, p = np.array([0.4, 0.2]), np.full(problem.control_sizes[0], 0.3), problem.parameter(0)
        return (
            *(problem.x0.tolist(), problem.horizon, problem.control_sizes, p.tolist(), problem.name, str(problem)),
            *(first.dynamics.step(x, u, p).tolist(), first.cost.value(x, u, p), first.noise_matrix(x, u, p).tolist()),
            *(
                problem.terminal_cost.value(x, p),
                problem.control_bounds[0].tolist(),
                np.ravel(problem.controls).tolist(),
            ),
            *(None if states is None else np.ravel(states).tolist(), first.dynamics.traced_function is None),
            problem.angles,
        )

    start = {"controls": None} if name == "control_size" else {}
    assert read(declare(**start)) != read(declare(**(start | {name: OF_DECLARATION[name]})))


def test_a_number_of_controls_that_dynamics_contradict_is_refused() -> None:
    dynamics = FunctionDynamics(rates, 2, 1, parameter_size=1)
    with pytest.raises(ProblemError, match="control_size"):
        declare(dynamics=dynamics, control_size=2)


# ------------------------------------------------------------------------------------------------ by name
@pytest.mark.parametrize("name", ["al", "ip", "ilqg"])
def test_options_of_the_inner_solver_are_reached_by_name(name: str) -> None:
    solver: Any = registry.make(name, engine="numpy", max_iterations=9)
    assert (solver.inner.engine, solver.max_iterations) == ("numpy", 9)
    assert solver.inner == replace(registry.get(name)().inner, engine="numpy")  # type: ignore[attr-defined]
    assert registry.make("ilqg", tolerance=1e-3).inner.gradient_tolerance == 1e-3  # type: ignore[attr-defined]
    for other in ("ipopt", "gd", "msa"):
        with pytest.raises(ProblemError, match="engine"):
            registry.make(other, engine="numpy")
