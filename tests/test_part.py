"""Overridden methods of dynamics and costs: every solver and engine obeys them, or refuses by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ocpkit.math as m
from ocpkit import (
    DDP,
    FDDP,
    ILQG,
    ILQR,
    IPOPT,
    MPC,
    SQP,
    AugmentedLagrangian,
    Constraint,
    Fatrop,
    FunctionCost,
    FunctionDynamics,
    FunctionTerminalCost,
    GradientDescent,
    InteriorPoint,
    LeastSquares,
    Problem,
    ProblemError,
    Sensitivity,
    Stage,
    UnsupportedProblem,
    check_derivatives,
    solve_batch,
    with_free_parameters,
)
from ocpkit.engines.graphs import trace_problem
from ocpkit.problem.stage import Cost, Dynamics, TerminalCost
from ocpkit.solvers.driver import Solver

Array = Any
X0, T = np.array([0.0, 0.5]), 8


def f(x: Array, u: Array, p: Array) -> Array:
    return m.stack([x[0] + 0.3 * x[1], x[1] + p[0] * u[0] - 0.1 * m.sin(x[0])])


def dragged(x: Array, u: Array, p: Array) -> Array:
    return 0.9 * f(x, u, p) + 0.05 * m.cos(x)


def cost(x: Array, u: Array) -> Array:
    return u[0] ** 2 + 0.1 * m.dot(x, x)


def dearer(x: Array, u: Array) -> Array:
    return cost(x, u) + 0.5 * u[0] ** 2


def end(x: Array) -> Array:
    return 9 * (x[0] - 1) ** 2 + x[1] ** 2


def steeper(x: Array) -> Array:
    return end(x) + x[1] ** 4


def numbers(values: Array) -> Array:
    """Refuse symbols, as a table or a simulator would."""
    return np.array([float(value) for value in values])


# ------------------------------------------------------------------------------------------------ the overrides
class SymbolicStep(FunctionDynamics):
    def step(self, x: Array, u: Array, p: Array) -> Array:
        return 0.9 * super().step(x, u, p) + 0.05 * m.cos(x)


class NumericStep(FunctionDynamics):
    def step(self, x: Array, u: Array, p: Array) -> Array:
        return 0.9 * numbers(super().step(x, u, p)) + 0.05 * np.cos(numbers(x))


class Written(FunctionDynamics):
    """Brings its own Jacobians, made of the inherited ones; the curvature is inherited."""

    def step(self, x: Array, u: Array, p: Array) -> Array:
        return 0.9 * super().step(x, u, p) + 0.05 * m.cos(x)

    def jacobians(self, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
        fx, fu = super().jacobians(x, u, p)
        return 0.9 * fx - 0.05 * np.eye(2) * m.sin(x), 0.9 * fu


class Twice(Written):
    """Overrides the step of a class that overrides step and Jacobians."""

    def step(self, x: Array, u: Array, p: Array) -> Array:
        return 0.9 * f(x, u, p) + 0.05 * m.cos(x)


class ByHand(Dynamics):
    state_size = next_state_size = 2
    control_size = 1

    def step(self, x: Array, u: Array, p: Array) -> Array:
        return f(x, u, p)

    def jacobians(self, x: Array, u: Array, p: Array) -> tuple[Array, Array]:
        zero, one = 0.0 * x[0], 1.0 + 0.0 * x[0]
        fx = np.array([[one, 0.3 * one], [-0.1 * m.cos(x[0]), one]])
        return fx, np.array([[zero], [p[0] + zero]])


class OfByHand(ByHand):
    def step(self, x: Array, u: Array, p: Array) -> Array:
        return 0.9 * super().step(x, u, p) + 0.05 * m.cos(x)


class SymbolicCost(FunctionCost):
    def value(self, x: Array, u: Array, p: Array) -> float:
        return super().value(x, u, p) + 0.5 * u[0] ** 2


class NumericCost(FunctionCost):
    def value(self, x: Array, u: Array, p: Array) -> float:
        return float(super().value(x, u, p)) + 0.5 * float(u[0]) ** 2


class SymbolicEnd(FunctionTerminalCost):
    def value(self, x: Array, p: Array) -> float:
        return super().value(x, p) + x[1] ** 4


class NumericEnd(FunctionTerminalCost):
    def value(self, x: Array, p: Array) -> float:
        return float(super().value(x, p)) + float(x[1]) ** 4


def patched(numeric: bool) -> FunctionDynamics:
    """A method replaced on the object itself."""
    whole = FunctionDynamics(f, 2, 1, parameter_size=1)

    def step(x: Array, u: Array, p: Array) -> Array:
        x = numbers(x) if numeric else x
        return dragged(x, u, p)

    whole.step = step  # type: ignore[method-assign]
    return whole


RESIDUALS = LeastSquares(lambda x, u: m.stack([np.sqrt(2) * u[0], np.sqrt(0.2) * x[0], np.sqrt(0.2) * x[1]]))
FINAL_RESIDUALS = LeastSquares(lambda x: m.stack([np.sqrt(18) * (x[0] - 1), np.sqrt(2) * x[1]]))
SIZES = {"state_size": 2, "control_size": 1, "parameter_size": 1}
DYNAMICS: dict[str, Callable[[], Dynamics]] = {
    **{
        kind.__name__: lambda kind=kind: kind(f, **SIZES)  # type: ignore[misc]
        for kind in (SymbolicStep, NumericStep, Written, Twice)
    },
    "patched": lambda: patched(numeric=False),
    "patched, numeric": lambda: patched(numeric=True),
    "of a class of one's own": OfByHand,
}
COSTS: dict[str, Callable[[], Cost]] = {
    f"{kind.__name__} of {name}": lambda kind=kind, g=g: kind(g, **SIZES)  # type: ignore[misc]
    for kind in (SymbolicCost, NumericCost)
    for name, g in (("a function", cost), ("residuals", RESIDUALS))
}
ENDS: dict[str, Callable[[], TerminalCost]] = {
    f"{kind.__name__} of {name}": lambda kind=kind, g=g: kind(g, 2, parameter_size=1)  # type: ignore[misc]
    for kind in (SymbolicEnd, NumericEnd)
    for name, g in (("a function", end), ("residuals", FINAL_RESIDUALS))
}
CASES = [*((k, None, None) for k in DYNAMICS), *((None, k, None) for k in COSTS), *((None, None, k) for k in ENDS)]
SOLVERS: dict[str, Solver] = {
    "numpy": DDP(engine="numpy"),
    "vm": DDP(engine="vm"),
    "auto": DDP(),
    "ilqr": ILQR(max_iterations=300),
    "fddp": FDDP(),
    "gd": GradientDescent(),
    "ipopt": IPOPT(),
    "fatrop": Fatrop(),
    "sqp": SQP(),
    "al": AugmentedLagrangian(),
    "ip": InteriorPoint(),
    "ilqg": ILQG(),
}
NEVER = Constraint(lambda x, u: u[0] - 1e3, name="never active")


def problem_of(dynamics: Dynamics, running: Cost, final: TerminalCost, **options: Any) -> Problem:
    return Problem((Stage(dynamics, running, **options),) * T, final, X0, parameters=np.array([0.3]))


def overridden(case: tuple[str | None, ...], **options: Any) -> Problem:
    of_dynamics, of_cost, of_end = case
    return problem_of(
        DYNAMICS[of_dynamics]() if of_dynamics else FunctionDynamics(f, **SIZES),
        COSTS[of_cost]() if of_cost else FunctionCost(cost, **SIZES),
        ENDS[of_end]() if of_end else FunctionTerminalCost(end, 2, parameter_size=1),
        **options,
    )


def written_out(case: tuple[str | None, ...]) -> Problem:
    """The same problem by plain functions."""
    return Problem.from_functions(
        dynamics=dragged if case[0] else f,
        cost=dearer if case[1] else cost,
        terminal_cost=steeper if case[2] else end,
        x0=X0,
        horizon=T,
        control_size=1,
        parameters=[0.3],
    )


cases = pytest.mark.parametrize("case", CASES, ids=lambda case: next(filter(None, case)))


@pytest.mark.slow
@cases
@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_obeys_an_override_or_refuses_it(case: tuple[str | None, ...], name: str) -> None:
    right = DDP(engine="numpy").solve(written_out(case)).cost
    problem = overridden(case, constraints=(NEVER,) if name in ("al", "ip") else ())
    try:
        solution = SOLVERS[name].solve(problem)
    except UnsupportedProblem:
        assert "umeric" in next(filter(None, case))
        assert name in ("vm", "ipopt", "fatrop", "sqp", "al", "ip", "ilqg")
        return
    assert solution.success
    np.testing.assert_allclose(solution.cost, right, rtol=1e-6)
    np.testing.assert_allclose(problem.rollout(solution.controls)[1], right, rtol=1e-6)


@cases
def test_derivatives_of_an_override_are_its_own(case: tuple[str | None, ...]) -> None:
    problem = overridden(case)
    assert check_derivatives(problem).ok
    controls = np.full((T, 1), 0.3)
    J, slope = problem.rollout(controls)[1], 1e-6
    assert written_out(case).rollout(controls)[1] == pytest.approx(J, rel=1e-12)
    first = DDP(max_iterations=0, feedback=False, gradient_tolerance=1e-300, engine="numpy")
    gradient = first.solve(problem, controls=controls).history[0].gradient_norm
    differences = [(problem.rollout(controls + slope * e)[1] - J) / slope for e in np.eye(T)[:, :, None]]
    assert gradient == pytest.approx(np.abs(differences).max(), rel=1e-4)


@pytest.mark.slow
@cases
def test_everything_made_from_a_problem_obeys_an_override(case: tuple[str | None, ...]) -> None:
    """Free parameters, sensitivities, controllers, batches."""
    problem, plain, solver = overridden(case), written_out(case), DDP(gradient_tolerance=1e-10)
    numeric = "umeric" in next(filter(None, case))
    solution, right = solver.solve(problem), solver.solve(plain)
    np.testing.assert_allclose(MPC(problem, solver).step(X0).control, right.controls[0], atol=1e-6)
    makers: tuple[Callable[[Problem, Any], Array], ...] = (
        lambda each, solved: solver.solve(with_free_parameters(each, [0], lower=0.1, upper=0.4)).controls[0],
        lambda each, solved: Sensitivity(each, solved).adjoint(np.ones((T + 1, 2)), np.ones((T, 1)))[1],
        lambda each, solved: solve_batch(each, x0=X0[None], solver=solver).cost,
    )
    for make in makers:
        if numeric:
            with pytest.raises(ProblemError):
                make(problem, solution)
        else:
            np.testing.assert_allclose(make(problem, solution), make(plain, right), rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------------ which derivatives
METHODS = ("step", "jacobians", "hessian_product")


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sets(st.sampled_from(METHODS), min_size=1), min_size=1, max_size=3), st.booleans())
def test_a_derivative_never_belongs_to_an_older_value(layers: list[set[str]], mixin: bool) -> None:
    """Subclasses of subclasses, each of which scales what it overrides: no derivative of a step that is gone is left.

    A layer that overrides derivatives alone is taken at its word, whatever it says.
    """
    kind: type[FunctionDynamics] = FunctionDynamics
    for i, names in enumerate(layers):
        body = {name: _scaled(name, 2.0 + i) for name in names}
        kind = type(f"Layer{i}", (type("Mixin", (), body), kind) if mixin else (kind,), {} if mixin else body)
    part = kind(f, **SIZES)
    latest = max((i for i, names in enumerate(layers) if "step" in names), default=-1)
    x, u, p, v = np.array([0.3, -0.2]), np.array([0.1]), np.array([0.3]), np.array([1.0, -2.0])
    for name in METHODS[1:]:
        by_hand = any(name in names for names in layers[max(latest, 0) :])
        if latest >= 0 and not by_hand:
            _expect_own(part, name, x, u, p, v)
    assert (part.traced_function is None) == (part.sole_function is None) == bool(layers)


def _scaled(name: str, factor: float) -> Callable[..., Any]:
    def method(self: FunctionDynamics, *arguments: Array) -> Any:
        inherited = getattr(FunctionDynamics, name)(self, *arguments)
        return tuple(factor * each for each in inherited) if isinstance(inherited, tuple) else factor * inherited

    return method


def _expect_own(part: FunctionDynamics, name: str, x: Array, u: Array, p: Array, v: Array) -> None:
    """Compare with differences of what the part itself returns."""
    z, h = np.concatenate([x, u]), 1e-5

    def along(g: Callable[[Array, Array], Array]) -> Array:
        return np.stack(
            [(g(*np.split(z + h * e, [2])) - g(*np.split(z - h * e, [2]))) / (2 * h) for e in np.eye(3)], -1
        )

    if name == "jacobians":
        own, measured = part.jacobians(x, u, p), along(lambda x, u: part.step(x, u, p))
        np.testing.assert_allclose(np.hstack(own), measured, atol=1e-6)
    else:
        xx, _, uu = part.hessian_product(x, u, p, v)
        measured = along(lambda x, u: v @ np.hstack(part.jacobians(x, u, p)))
        np.testing.assert_allclose(xx, measured[:2, :2], atol=1e-6)
        np.testing.assert_allclose(uu, measured[2:, 2:], atol=1e-6)


def test_a_part_without_overrides_is_its_function() -> None:
    part, scalar = FunctionDynamics(f, **SIZES), FunctionCost(RESIDUALS, **SIZES)
    assert part.sole_function is f
    assert part.traced_function is not None
    assert scalar.sole_function is RESIDUALS
    black_box = FunctionDynamics(f, **SIZES, derivatives="central")
    assert black_box.sole_function is f
    assert black_box.traced_function is None


def test_a_subclass_without_overrides_is_traced_as_before() -> None:
    class Named(FunctionDynamics):
        """Adds nothing but a name."""

    plain = problem_of(
        FunctionDynamics(f, **SIZES), FunctionCost(cost, **SIZES), FunctionTerminalCost(end, 2, parameter_size=1)
    )
    stage = Stage(Named(f, **SIZES), FunctionCost(cost, **SIZES))
    assert trace_problem(plain).key == trace_problem(replace(plain, stages=(stage,) * T)).key


def test_a_method_is_not_replaced_under_a_problem() -> None:
    """What was traced would not follow."""
    problem = overridden((None, None, None))
    for part, method in ((problem.stages[0].dynamics, "step"), (problem.stages[0].cost, "gradient")):
        with pytest.raises(ProblemError):
            setattr(part, method, lambda *arguments: None)
    with pytest.raises(ProblemError):
        problem.terminal_cost.value = lambda x, p: 0.0  # type: ignore[method-assign]


def test_refusal_names_the_method() -> None:
    problem = overridden((None, "NumericCost of a function", None), constraints=(NEVER,))
    with pytest.raises(UnsupportedProblem, match=r"NumericCost\.value"):
        AugmentedLagrangian().solve(problem)
    with pytest.raises(UnsupportedProblem, match=r"NumericStep\.step"):
        IPOPT().solve(overridden(("NumericStep", None, None)))


# ------------------------------------------------------------------------------------------------ records
class Speed(Constraint):
    def function(self, x: Array, u: Array) -> Array:  # type: ignore[override]
        return x[1]


class Limit(Constraint):
    upper = 4.0


class Norm(LeastSquares):
    def residual(self, x: Array, u: Array) -> Array:  # type: ignore[override]
        return u


class Quick(DDP):
    max_iterations = 3


class Inner(AugmentedLagrangian):
    inner = DDP()


@dataclass(frozen=True, kw_only=True)
class Patient(DDP):
    max_iterations: int = 7


@pytest.mark.parametrize("make", [lambda: Speed(abs), lambda: Limit(abs), lambda: Norm(abs), Quick, Inner])
def test_what_a_subclass_hides_behind_a_field_is_refused(make: Callable[[], object]) -> None:
    """Python would let the object's own field win without a word."""
    with pytest.raises(ProblemError):
        make()
    assert Patient().max_iterations == 7
