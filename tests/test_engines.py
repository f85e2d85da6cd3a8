"""Every engine gives what the NumPy engine gives: one sweep block by block, whole solves, and every status."""

from __future__ import annotations

import gc
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from problems import BY_NAME, CASES, LQR, Case, HandWritten, HandWrittenCost, blows_up, no_minimum, runs

import ocpkit.math as m
from ocpkit import (
    DDP,
    FDDP,
    ILQR,
    Constraint,
    Damping,
    FunctionCost,
    FunctionDynamics,
    FunctionTerminalCost,
    Problem,
    ProblemError,
    Solution,
    Stage,
    Status,
    models,
    registry,
    rk4,
    with_free_parameters,
)
from ocpkit.engines.c import library, source
from ocpkit.engines.c.source import c_source
from ocpkit.engines.graphs import trace_problem
from ocpkit.recursion.curvature import Identity
from ocpkit.solvers.constrained.augmented import Augmented
from ocpkit.solvers.ddp.damping import QUADRATIC
from ocpkit.solvers.ddp.solve_batch import solve_batch

ENGINES = ("vm", "c")
TRACED = [case for case in CASES if case.name != "black-box"]
SWEEPS = {
    "second order": DDP(),
    "Gauss-Newton": ILQR(),
    "damped control": DDP(damping=Damping(initial=0.7)),
    "damped state": DDP(damping=Damping(initial=0.3, target="state")),
    "tikhonov": ILQR(tikhonov=0.2),
    "no feedback": DDP(feedback=False, damping=Damping(initial=0.1)),
    "gaps": FDDP(damping=Damping(initial=0.1)),
    "gaps, damped state": FDDP(damping=Damping(initial=0.3, target="state")),
}
IN_BOUNDS = [BY_NAME[name] for name in ("lqr-4-2-50", "lqr-6-6-10", "pendulum", "least-squares", "varying-sizes")]
"""The box sees no model, only Q: one, two, six controls, and numbers that change with the stage."""
BLOCKS = ("states", "controls", "feedforward", "feedback_gains", "value_gradients", "value_hessians")


def assert_equal_blocks(ours: Solution, reference: Solution, tolerance: float = 1e-9, floor: float = 0.0) -> None:
    """Every vector and matrix of every stage agrees, relative to the largest entry of its kind (or the floor)."""
    for name in BLOCKS:
        a, b = getattr(ours, name), getattr(reference, name)
        assert (a is None) == (b is None), name
        if b is not None:
            scale = max(floor, *(float(np.abs(entry).max(initial=0.0)) for entry in b))
            assert len(a) == len(b), name
            for t, (x, y) in enumerate(zip(a, b)):
                np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * scale, err_msg=f"{name} at stage {t}")


def assert_equal_line(ours: Any, reference: Any, scale: float) -> None:
    for name in ("cost", "expected_decrease", "actual_decrease", "gradient_norm", "gap"):
        a, b = getattr(ours, name), getattr(reference, name)
        assert a == pytest.approx(b, rel=1e-7, abs=1e-9 * scale, nan_ok=True), name
    assert ours.regularization == reference.regularization
    assert ours.step_size == reference.step_size


def torn(problem: Problem) -> Problem:
    """The same problem around a state guess with gaps, and controls away from zero."""
    rng = np.random.default_rng(1)
    states = [0.1 * rng.standard_normal(n) for n in problem.state_sizes]
    return problem.replace(states=tuple(states), controls=shaken(problem).controls)


def shaken(problem: Problem) -> Problem:
    rng = np.random.default_rng(2)
    return problem.replace(controls=tuple(u + 0.1 * rng.standard_normal(len(u)) for u in problem.controls))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", SWEEPS, ids=str)
@pytest.mark.parametrize("case", TRACED, ids=str)
def test_one_sweep(case: Case, options: str, engine: str) -> None:
    """k, K, V_x, V_xx, the cost, the gaps and the line search's first promise, at a guess off the optimum."""
    problem = (torn if "gaps" in options else shaken)(case.problem())
    solver = replace(SWEEPS[options], max_iterations=1, engine="numpy")
    once, reference = replace(solver, max_iterations=0), solver.solve(problem)
    assert_equal_blocks(replace(once, engine=engine).solve(problem), once.solve(problem))
    ours = replace(solver, engine=engine).solve(problem)
    scale = 1 + max(abs(line.cost) for line in reference.history)
    for line, expected in zip(ours.history, reference.history, strict=True):
        assert_equal_line(line, expected, scale)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("case", "name"), [run for run in runs("ddp", "ilqr", "fddp") if run[0] in TRACED], ids=str)
def test_whole_solves(case: Case, name: str, engine: str) -> None:
    problem, solver = case.problem(), registry.make(name)
    assert isinstance(solver, DDP)
    assert_equal_solves(replace(solver, engine=engine).solve(problem), replace(solver, engine="numpy").solve(problem))


def assert_equal_solves(ours: Solution, reference: Solution) -> None:
    assert ours.status is reference.status
    assert ours.iterations == reference.iterations
    assert ours.cost == pytest.approx(reference.cost, rel=1e-9, abs=1e-12)
    assert_equal_blocks(ours, reference, 1e-6, floor=1.0)
    scale = 1 + max(abs(line.cost) for line in reference.history)
    for line, expected in zip(ours.history, reference.history, strict=True):
        assert line.cost == pytest.approx(expected.cost, rel=1e-7, abs=1e-9 * scale)
        assert (line.step_size, line.regularization) == (expected.step_size, expected.regularization)


UNDER_LIMITS = [name for name in models.names() if models.get(name).solver != "ddp"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [*sorted({*models.names()} - {*UNDER_LIMITS}), "bryson-denham", "unicycle-obstacles"])
def test_every_task(name: str, engine: str) -> None:
    """Six iterations from the task's guess: later ones amplify rounding where the path to the optimum is chaotic."""
    problem = models.get(name).build()
    if name in UNDER_LIMITS:
        augmented = Augmented(problem)
        problem = augmented.lagrangian(augmented.extended(None, 10.0))
    for solver in (DDP(max_iterations=6), ILQR(max_iterations=6)):
        ours = replace(solver, engine=engine).solve(problem)
        assert_equal_solves(ours, replace(solver, engine="numpy").solve(problem))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_look_at_the_undamped_step_leaves_the_damped_one(engine: str) -> None:
    """Least time under its prices ends damped; policy and |Q_u| are still those of the damping that was."""
    augmented = Augmented(models.get("minimum-time").build())
    problem = augmented.lagrangian(augmented.extended(None, 120.0))
    solver = DDP(gradient_tolerance=1e-2, cost_tolerance=1e-300, damping=QUADRATIC)
    ours, expected = (replace(solver, engine=each).find_stationary(problem) for each in (engine, "numpy"))
    assert expected.history[-1].regularization > 0
    assert_equal_solves(ours, expected)
    assert ours.history[-1].gradient_norm == pytest.approx(expected.history[-1].gradient_norm, rel=1e-7)


def coasting(pushes: tuple[int, ...]) -> Problem:
    """One state, and so many controls at each stage."""
    stages = tuple(
        Stage(
            FunctionDynamics(lambda x, u: m.stack([x[0] - 0.1 * m.sin(x[0]) + m.sum(u)]), 1, k),
            FunctionCost(lambda x, u: x @ x + m.sum(u * u), 1, k),
        )
        for k in pushes
    )
    return Problem(stages=stages, terminal_cost=FunctionTerminalCost(lambda x: 5 * x @ x, 1), x0=np.array([1.0]))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("pushes", [(0, 0, 0), (1, 0, 0, 2)], ids=str)
def test_stages_without_controls(pushes: tuple[int, ...], engine: str) -> None:
    problem = coasting(pushes)
    for solver in (DDP(max_iterations=3), FDDP(max_iterations=3, damping=Damping(initial=0.1))):
        reference = replace(solver, engine="numpy").solve(problem)
        assert_equal_blocks(replace(solver, engine=engine).solve(problem), reference, floor=1.0)


def in_narrow_bounds(problem: Problem) -> Problem:
    """Bounds close to the guess, other ones at every stage, so that some hold and some do not."""
    rng, stages = np.random.default_rng(5), []
    for stage, u in zip(problem.stages, problem.controls):
        lower, upper = u - rng.uniform(0, 0.3, len(u)), u + rng.uniform(0, 0.3, len(u))
        upper[rng.uniform(size=len(u)) < 0.2] = np.inf
        stages.append(replace(stage, control_lower=lower, control_upper=upper))
    return problem.replace(stages=tuple(stages))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", SWEEPS, ids=str)
@pytest.mark.parametrize("case", IN_BOUNDS, ids=str)
def test_one_sweep_in_bounds(case: Case, options: str, engine: str) -> None:
    """The same blocks, and the multipliers, where bounds hold some of the controls."""
    problem = (torn if "gaps" in options else shaken)(in_narrow_bounds(case.problem()))
    solver = replace(SWEEPS[options], max_iterations=1, engine="numpy")
    once, reference = replace(solver, max_iterations=0), solver.solve(problem)
    sweep, expected = replace(once, engine=engine).solve(problem), once.solve(problem)
    assert_equal_blocks(sweep, expected)
    largest = max(float(np.abs(y).max(initial=0.0)) for y in expected.multipliers)
    for ours, theirs in zip(sweep.multipliers, expected.multipliers, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9 * largest)
        np.testing.assert_array_equal(ours == 0, theirs == 0)
    ours = replace(solver, engine=engine).solve(problem)
    scale = 1 + max(abs(line.cost) for line in reference.history)
    for line, other in zip(ours.history, reference.history, strict=True):
        assert_equal_line(line, other, scale)


@pytest.mark.parametrize("engine", ENGINES)
def test_full_steps_without_a_line_search(engine: str) -> None:
    problem = BY_NAME["hand-written"].problem()
    solver = DDP(line_search=None, max_iterations=7, gradient_tolerance=1e-300, cost_tolerance=1e-300)
    assert_equal_solves(replace(solver, engine=engine).solve(problem), replace(solver, engine="numpy").solve(problem))


# ----------------------------------------------------------------------------------------------- statuses
def no_derivative() -> Problem:
    return Problem.from_functions(
        dynamics=lambda x, u: x + u,
        cost=lambda x, u: m.sqrt(u[0]) + u[0] ** 2,
        terminal_cost=lambda x: x[0] ** 2,
        x0=[1.0],
        horizon=3,
    )


def barrier() -> Problem:
    return Problem.from_functions(
        dynamics=lambda x, u: x + u,
        cost=lambda x, u: 0.01 * u[0] ** 2,
        terminal_cost=lambda x: x[0] - 0.05 * m.log(x[0]),
        x0=[3.0],
        horizon=5,
        control_size=1,
    )


class Uphill(HandWrittenCost):
    """A gradient of the wrong sign: no step lowers the cost."""

    def gradient(self, x: Any, u: Any, p: Any) -> Any:
        return tuple(-g for g in super().gradient(x, u, p))


def stalls() -> Problem:
    stage, end = Stage(HandWritten(), Uphill()), FunctionTerminalCost(lambda x: 0 * x[0], 2)
    return Problem(stages=(stage,) * 5, terminal_cost=end, x0=np.array([1.5, 0.0]))


class Slopeless(HandWrittenCost):
    """A gradient in u that is not finite beside a Hessian that is."""

    def gradient(self, x: Any, u: Any, p: Any) -> Any:
        return super().gradient(x, u, p)[0], m.stack([m.sqrt(-1.0 - u[0] ** 2)])


def no_gradient() -> Problem:
    """At the last stage alone, so that without feedback it is that of no other one."""
    first, last = (Stage(HandWritten(), cost) for cost in (HandWrittenCost(), Slopeless()))
    end = FunctionTerminalCost(lambda x: 0 * x[0], 2)
    return Problem(stages=(first,) * 4 + (last,), terminal_cost=end, x0=np.zeros(2))


@pytest.mark.parametrize("engine", ["numpy", *ENGINES])
@pytest.mark.parametrize("feedback", [True, False])
def test_no_gradient_is_not_taken_for_none(feedback: bool, engine: str) -> None:
    with np.errstate(invalid="ignore"):
        solution = ILQR(engine=engine, feedback=feedback, max_iterations=3).solve(no_gradient())
    assert not solution.success
    assert np.isnan(solution.history[0].gradient_norm)


@pytest.mark.slow
@pytest.mark.parametrize("engine", [*ENGINES, "batch"])
def test_the_same_way_on_from_a_saddle(engine: str) -> None:
    """What damped the steps before tells nothing of |Q_uu| where the saddle was left."""
    problem = Problem.from_functions(
        dynamics=rk4(lambda x, u: m.stack([x[1], -9.81 * m.sin(x[0]) + u[0]]), dt=0.05),
        cost=lambda x, u: 0.005 * u @ u,
        terminal_cost=lambda x: 50 * (1 + m.cos(x[0])) + x[1] ** 2,
        x0=[0, 0],
        horizon=60,
        control_size=1,
    )
    expected = DDP(engine="numpy").solve(problem)
    assert expected.details.stationary_points_left == 1
    if engine == "batch":
        together = solve_batch(problem, x0=[[0, 0]], solver=DDP())
        iterations, cost = together.iterations[0], together.cost[0]
    else:
        alone = DDP(engine=engine).solve(problem)
        iterations, cost = alone.iterations, alone.cost
    assert iterations == expected.iterations
    assert cost == pytest.approx(expected.cost, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", [no_minimum, blows_up, no_derivative, barrier, stalls])
def test_the_same_end(make: Any, engine: str) -> None:
    problem = make()
    for solver in (
        DDP(max_iterations=100),
        DDP(max_iterations=100, damping=Damping(target="state")),
        FDDP(max_iterations=100),
    ):
        ours = replace(solver, engine=engine).solve(problem)
        reference = replace(solver, engine="numpy").solve(problem)
        assert ours.status is reference.status
        assert ours.iterations == reference.iterations
        assert ours.details.reason == reference.details.reason
        assert ours.cost == pytest.approx(reference.cost, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_limits_and_callbacks(engine: str) -> None:
    problem, seen = BY_NAME["pendulum"].problem(), list[Any]()
    solution = DDP(engine=engine, max_iterations=3).solve(problem, callback=seen.append)
    assert solution.status is Status.ITERATION_LIMIT
    assert seen == list(solution.history)
    assert [line.index for line in solution.history] == [0, 1, 2, 3]
    assert DDP(engine=engine, max_iterations=0).solve(problem).iterations == 0
    assert DDP(engine=engine, time_limit=1e-9).solve(problem).status is Status.TIME_LIMIT
    stopped = DDP(engine=engine).solve(problem, callback=lambda line: line.index < 4)
    assert (stopped.status, stopped.iterations) == (Status.STOPPED, 4)

    def interrupt(line: Any) -> None:
        if line.index == 2:
            raise KeyboardInterrupt

    interrupted = DDP(engine=engine).solve(problem, callback=interrupt)
    assert (interrupted.status, interrupted.cost) == (Status.INTERRUPTED, interrupted.history[2].cost)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_solve_inside_a_callback_disturbs_nothing(engine: str) -> None:
    problem, solver = BY_NAME["pendulum"].problem(), DDP(engine=engine)
    other = problem.replace(x0=[0.5, 0.0])
    nested = solver.solve(problem, callback=lambda line: bool(solver.solve(other).success))
    assert_equal_blocks(nested, solver.solve(problem), 1e-15)


@pytest.mark.parametrize("engine", ENGINES)
def test_solutions_keep_their_arrays(engine: str) -> None:
    """A later solve of the same problem does not write into an earlier Solution."""
    problem, solver = BY_NAME["least-squares"].problem(), DDP(engine=engine)
    first = solver.solve(problem)
    copies = {name: np.array(getattr(first, name)) for name in BLOCKS}
    solver.solve(problem.replace(x0=[-1.0, 2.0]))
    for name, copy in copies.items():
        np.testing.assert_array_equal(getattr(first, name), copy)


# ------------------------------------------------------------------------------------------------- choice
@pytest.mark.parametrize("engine", ["auto", *ENGINES])
def test_what_cannot_be_traced(engine: str) -> None:
    """auto falls back on NumPy and says why; an engine asked for by name refuses."""
    problem = BY_NAME["black-box"].problem()
    if engine == "auto":
        solution = DDP(engine=engine).solve(problem)
        assert solution.success
        assert solution.details.engine == "numpy"
        assert solution.details.why.startswith("stage 0 ('black-box'): dynamics")
    else:
        with pytest.raises(ProblemError, match="black box"):
            DDP(engine=engine).solve(problem)


def test_a_curvature_of_its_own_runs_on_numpy() -> None:
    problem = BY_NAME["hand-written"].problem()
    solution = DDP(curvature=Identity(0.1), max_iterations=2).solve(problem)
    assert solution.details.engine == "numpy"


def test_what_is_known_of_a_failure_keeps_no_problem_alive() -> None:
    problem = BY_NAME["black-box"].make()
    for x0 in ([0.1, 0.0], [0.2, 0.0]):
        DDP(max_iterations=1).solve(problem.replace(x0=x0))
    stage = weakref.ref(problem.stages[0])
    del problem
    gc.collect()
    assert stage() is None


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_functions_that_are_not_curved_are_so_in_every_engine(engine: str) -> None:
    """DDP then takes v·∇²f = 0; so it does behind constraints and free parameters."""
    f = FunctionDynamics(lambda x, u, p: m.stack([x[0] + p[0] * m.sin(x[0]) * u[0]]), 1, 1, parameter_size=1)
    declaration: dict[str, Any] = {"cost": lambda x, u: x[0] ** 2 + u[0] ** 2, "terminal_cost": lambda x: m.exp(x[0])}
    curved = Problem.from_functions(dynamics=f, x0=[1.0], horizon=5, parameters=[0.5], controls=[0.3], **declaration)
    with_curvature = DDP(engine="numpy", max_iterations=0).solve(curved).value_hessians
    flat = FunctionDynamics(f.function, 1, 1, parameter_size=1)
    flat.curved = False
    problem = curved.replace(stages=(Stage(flat, curved.stages[0].cost),) * 5)
    free = with_free_parameters(problem, [0])
    priced = Augmented(problem.replace(terminal_constraints=(Constraint(lambda x: x),))).template
    assert not any(stage.dynamics.curved for stage in (*free.stages, *priced.stages))
    for each in (problem, free):
        reference = DDP(engine="numpy", max_iterations=0).solve(each)
        assert_equal_blocks(DDP(engine=engine, max_iterations=0).solve(each), reference)
        assert abs(reference.value_hessians[0] - with_curvature[0]).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["numpy", *ENGINES])
def test_threads_may_solve_one_problem_at_once(engine: str) -> None:
    """They share its traced functions, whose memory is each thread's own."""
    problem, interval = BY_NAME["pendulum"].problem(), sys.getswitchinterval()

    def cost(angle: float) -> float:
        return DDP(engine=engine, max_iterations=5).solve(problem.replace(x0=[angle, 0.0])).cost

    angles = np.linspace(0.0, 1.0, 8)
    expected = list(map(cost, angles))
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(cost, angles))
    finally:
        sys.setswitchinterval(interval)
    assert found == expected


def test_unknown_engine() -> None:
    with pytest.raises(ProblemError, match="did you mean 'numpy'"):
        DDP(engine="nunpy")


@pytest.mark.parametrize("engine", ENGINES)
def test_own_derivatives_are_respected(engine: str) -> None:
    """The engines step by the user's formulas, right or wrong, not by derivatives of the cost."""
    reference = DDP(engine="numpy", max_iterations=0).solve(stalls())
    assert_equal_blocks(DDP(engine=engine, max_iterations=0).solve(stalls()), reference)


def test_large_models_wait_for_the_compiler_on_numpy() -> None:
    """The virtual machine would unroll n³ operations."""
    lqr = LQR.random(22, 3, 4)
    solution = DDP().solve(lqr.problem())
    assert solution.cost == pytest.approx(lqr.optimum, rel=1e-10)
    assert solution.details.engine == "numpy"
    larger = Problem.from_functions(
        dynamics=lambda x, u: 0.9 * x,
        cost=lambda x, u: x @ x + u @ u,
        terminal_cost=lambda x: x @ x,
        x0=np.ones(80),
        horizon=2,
        control_size=1,
    )
    with pytest.raises(ProblemError, match="up to 80 states and controls"):
        DDP(engine="vm").solve(larger)


@pytest.mark.parametrize("engine", ENGINES)
def test_dense_linear_quadratic_parts_become_loops(engine: str) -> None:
    """Dense rows of f and a dense quadratic cost, beside rows that are neither; p moves the linear ones."""
    A = LQR.random(9, 2, 1).A

    def step(x: Any, u: Any, p: Any) -> Any:
        following = A @ x + 0.1 * u[0] * np.arange(9)
        return m.concatenate([following[:4] + p[0], m.sin(x[4]), following[5:]])

    problem = Problem.from_functions(
        dynamics=step,
        cost=lambda x, u, p: 0.5 * m.concatenate([x, u]) @ (np.eye(11) + 1) @ m.concatenate([x, u]),
        terminal_cost=lambda x: 0.5 * x @ (np.eye(9) + 1) @ x,
        x0=np.linspace(-1, 1, 9),
        horizon=7,
        control_size=2,
        parameters=[0.3],
    )
    for solver in (DDP(), ILQR()):
        assert_equal_solves(
            replace(solver, engine=engine).solve(problem), replace(solver, engine="numpy").solve(problem)
        )


@pytest.mark.parametrize("part", [7, 40])
def test_models_cut_into_small_functions(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the parts hand on to each other, with curvature of residuals and of f at the end, and without."""
    problem = models.get("two-link-arm").build(horizon=5)
    graph, text = trace_problem(problem), c_source(trace_problem(problem)).text
    monkeypatch.setattr(source, "WHOLE", 0)
    monkeypatch.setattr(source, "PART", part)
    monkeypatch.setattr(library, "_loaded", {})
    known = library.library_key(graph)
    monkeypatch.setattr(library, "library_key", lambda _, *, quick=False: f"{part}-of-{known}-{quick}")
    assert len(c_source(graph).text) > len(text)
    for solver in (DDP(max_iterations=3), ILQR(max_iterations=3)):
        ours, reference = (replace(solver, engine=engine).solve(problem) for engine in ("c", "numpy"))
        assert_equal_blocks(ours, reference)


@pytest.mark.slow
@pytest.mark.parametrize("n", [7, 8, 9, 12])
def test_value_hessians_of_every_stage_are_kept(n: int) -> None:
    """From n = 8 on the C code writes them past the caches, in whole vectors wherever they begin."""
    problem = shaken(LQR.random(n, 2, 7).problem())
    ours, reference = (DDP(engine=engine, max_iterations=0).solve(problem) for engine in ("c", "numpy"))
    assert_equal_blocks(ours, reference)
