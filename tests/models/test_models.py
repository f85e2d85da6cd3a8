"""The classic tasks as a library of models: their registry, arguments, derivatives and drawings."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from classic import Array, built, every_task, perturbed_controls

from ocpkit import Constraint, Problem, ProblemError, Stage, models
from ocpkit.autodiff.differences import central_jacobian
from ocpkit.autodiff.differentiable import with_parameters
from ocpkit.models.two_link import TwoLink


def test_unknown_task_names_the_nearest():
    with pytest.raises(ProblemError, match="did you mean 'cartpole'"):
        models.get("cart-pole")


def test_modules_are_imported_when_asked_for():
    code = (
        "import sys, ocpkit.models as models; assert 'ocpkit.models.cartpole' not in sys.modules; "
        "models.get('cartpole'); assert 'ocpkit.models.acrobot' not in sys.modules; "
        "assert 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@every_task
def test_the_record_fits_the_problem(name):
    task, problem = models.get(name), built(name)
    assert task.name == problem.name == name
    assert len(task.state_labels) == max(problem.state_sizes)
    assert len(task.control_labels) == max(problem.control_sizes)
    assert all(low < high for low, high in zip(task.view[::2], task.view[1::2]))
    assert len(task.view) in (4, 6)
    arguments = inspect.signature(task.build).parameters
    assert all(argument.kind is argument.KEYWORD_ONLY for argument in arguments.values())
    assert "time_step" not in arguments or arguments["time_step"].default == task.time_step
    assert all(key in getattr(task.build, "func", task.build).__doc__ for key in arguments)
    constrained = problem.terminal_constraints or any(stage.constraints for stage in problem.stages)
    assert (task.solver == "ddp") == (not constrained)


# ---------------------------------------------------------------------------------------------- the arguments
def changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, TwoLink):
        return replace(value, friction=value.friction + 0.1)
    if isinstance(value, tuple):
        return tuple(changed(entry) for entry in value) or ((1.0, 0.5, 0.3),)  # an obstacle where there was none
    if value == np.inf:
        return 0.7
    return 1.05 * value + 0.01


def fingerprint(problem: Problem, controls: list[Array]) -> tuple[Any, ...]:
    controls = [*controls, controls[-1]][: problem.horizon]
    states, cost = problem.rollout(controls)
    limits = [problem.x0.tolist()]
    for t, stage in enumerate(problem.stages):
        limits += [stage.control_lower.tolist(), stage.control_upper.tolist()]
        limits += [rows(g, (states[t], controls[t], problem.parameter(t))) for g in stage.constraints]
    p = problem.parameter(problem.horizon)
    limits += [rows(g, (states[-1], p)) for g in problem.terminal_constraints]
    return problem.horizon, cost, limits


def rows(constraint: Constraint, arguments: tuple[Array, ...]) -> list[Any]:
    """Bounds of a constraint and where its function stands between them."""
    value = with_parameters(constraint.function, len(arguments), constraint.name)(*arguments)
    return [np.asarray(number).tolist() for number in (constraint.lower, value, constraint.upper)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key", "default"),
    [
        (name, key, argument.default)
        for name in models.names()
        for key, argument in inspect.signature(models.get(name).build).parameters.items()
    ],
)
def test_every_argument_changes_the_problem(name, key, default):
    problem = built(name)
    controls = perturbed_controls(problem)
    other = models.get(name).build(**{key: changed(default)})
    if key == "duration":  # the guess of what is free
        assert other.controls[0].tolist() != problem.controls[0].tolist()
        return
    assert fingerprint(other, controls) != fingerprint(problem, controls)


@pytest.mark.parametrize("horizon", [0, -1, 2.5])
@pytest.mark.parametrize("name", models.names())
def test_horizons_that_are_none_are_refused(name, horizon):
    with pytest.raises(ProblemError, match=f"horizon must be a whole number of at least 1, got {horizon}"):
        models.get(name).build(horizon=horizon)


@every_task
@pytest.mark.parametrize("horizon", [1, 2, 7])
def test_short_horizons_build(name, horizon):
    assert models.get(name).build(horizon=horizon).horizon == horizon


# -------------------------------------------------------------------------------------------- the derivatives
def close(actual: Array, measured: Array) -> None:
    np.testing.assert_allclose(actual, measured, rtol=1e-6, atol=1e-6 * (1 + np.abs(measured).max(initial=0.0)))


@every_task
def test_derivatives_equal_differences(name):
    problem, rng = built(name), np.random.default_rng(2)
    controls = perturbed_controls(problem)
    states, _ = problem.rollout(controls)
    spread = 1e-3 if name == "goddard" else 0.05  # the air is e^25 times as dense 0.05 Earth's radii further down
    for t in (0, *rng.integers(1, problem.horizon, size=2)):
        stage, p, n = problem.stages[t], problem.parameter(t), len(states[t])
        z = np.concatenate([states[t], controls[t]]) + spread * rng.normal(size=n + len(controls[t]))
        x, u, costate = z[:n], z[n:], rng.normal(size=len(states[t + 1]))

        close_stage(stage, x, u, p, costate)
    phi, p, x = problem.terminal_cost, problem.parameter(problem.horizon), states[-1]
    close(phi.gradient(x, p), central_jacobian(lambda x: [phi.value(x, p)], x)[0])
    close(phi.hessian(x, p), central_jacobian(lambda x: phi.gradient(x, p), x))


def close_stage(stage: Stage, x: Array, u: Array, p: Array, costate: Array) -> None:
    n, z = len(x), np.concatenate([x, u])

    def jacobian(z: Array) -> Array:
        return np.hstack(stage.dynamics.jacobians(z[:n], z[n:], p))

    def gradient(z: Array) -> Array:
        return np.concatenate(stage.cost.gradient(z[:n], z[n:], p))

    close(jacobian(z), central_jacobian(lambda z: stage.dynamics.step(z[:n], z[n:], p), z))
    product = stage.dynamics.hessian_product(x, u, p, costate)
    close(assembled(product), central_jacobian(lambda z: costate @ jacobian(z), z))
    close(gradient(z), central_jacobian(lambda z: [stage.cost.value(z[:n], z[n:], p)], z)[0])
    close(assembled(stage.cost.hessian(x, u, p)), central_jacobian(gradient, z))


def assembled(blocks: tuple[Array, Array, Array]) -> Array:
    xx, ux, uu = blocks
    return np.block([[xx, ux.T], [ux, uu]])


@every_task
def test_models_run_on_tensors(name):
    """The plain functions give the same numbers for arrays, traced symbols and torch tensors."""
    torch = pytest.importorskip("torch")
    problem = built(name)
    stage, phi, p = problem.stages[3], problem.terminal_cost, problem.parameter(3)
    x, u = problem.rollout(perturbed_controls(problem))[0][3], problem.controls[3]
    tensors = [torch.tensor(np.array(array)) for array in (x, u, p)]
    function = with_parameters(stage.dynamics.function, 3, name)
    np.testing.assert_allclose(function(*tensors), stage.dynamics.step(x, u, p), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(function(x, u, p), stage.dynamics.step(x, u, p), rtol=1e-12, atol=1e-12)
    cost = with_parameters(stage.cost.scalar.function, 3, name)
    np.testing.assert_allclose(cost(*tensors), stage.cost.value(x, u, p), rtol=1e-12)
    for constraint in max((every.constraints for every in problem.stages), key=len):
        limited = with_parameters(constraint.function, 3, constraint.name)
        np.testing.assert_allclose(limited(*tensors), limited(x, u, p), rtol=1e-12, atol=1e-12)
    end = with_parameters(phi.scalar.function, 2, name)
    np.testing.assert_allclose(end(tensors[0], tensors[2]), end(x, p), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@every_task
@pytest.mark.parametrize("end", [0, -1], ids=["start", "end"])
def test_draws_a_frame(name, end):
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    task, problem = models.get(name), built(name)
    states, _ = problem.rollout()
    figure = Figure()
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(projection="3d" if len(task.view) == 6 else None)
    axes.set(xlim=task.view[:2], ylim=task.view[2:4])
    if len(task.view) == 6:
        axes.set_zlim(*task.view[4:])
    before = len(axes.get_children())
    task.draw(axes, states[end], problem.controls[end])
    canvas.draw()
    assert len(axes.get_children()) >= before + 3
    assert (*axes.get_xlim(), *axes.get_ylim()) == pytest.approx(task.view[:4])
