"""The classic tasks: their physics (energy, symmetry, rest), derivatives, arguments, drawings and solutions."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.integrate import simpson
from scipy.spatial.transform import Rotation

from ocpkit import DDP, ILQR, Constraint, Problem, ProblemError, Stage, Status, models
from ocpkit.differences import central_jacobian
from ocpkit.differentiable import with_parameters
from ocpkit.models.acrobot import LINKS
from ocpkit.models.growth import DEPRECIATION, DISCOUNT, ELASTICITY, steady_state
from ocpkit.models.quadrotor import INERTIAS
from ocpkit.models.two_link import TwoLink
from ocpkit.models.two_link_arm import ARM

Array = Any
GRAVITY = 9.81
every_task = pytest.mark.parametrize("name", models.names())


@cache
def built(name: str) -> Problem:
    return models.get(name).build()


def perturbed_controls(problem: Problem, size: float = 0.05) -> list[Array]:
    rng = np.random.default_rng(1)
    return [u + size * rng.normal(size=len(u)) for u in problem.controls]


def step(problem: Problem, x: Array, u: Array) -> Array:
    return problem.stages[0].dynamics.step(np.asarray(x, float), np.asarray(u, float), problem.parameter(0))


# ------------------------------------------------------------------------------------------------ the registry
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


@every_task
@pytest.mark.parametrize("horizon", [1, 2, 7])
def test_short_horizons_build(name, horizon):
    assert models.get(name).build(horizon=horizon).horizon == horizon


def test_friction_slows_every_joint():
    still = step(models.get("acrobot").build(links=replace(LINKS, gravity=0.0)), [0.3, 0.5, 1.0, 1.0], [0.0])
    slowed = step(
        models.get("acrobot").build(links=replace(LINKS, gravity=0.0, friction=0.5)), [0.3, 0.5, 1.0, 1.0], [0.0]
    )
    assert slowed[2:] @ slowed[2:] < still[2:] @ still[2:]


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


# ------------------------------------------------------------------------------------------------ the physics
# A body is (mass, inertia about its centre, its place and angle as a function of the coordinates q): from these,
# and not from the equations of motion, follow the energy ½ Σ m ‖ṙ‖² + I φ̇² + m g height and its power.
Body = tuple[float, float, Callable[[Array], Array]]


def link(length: float, angles: int) -> Callable[[Array], Array]:
    """Place of a point on a hanging link that starts at the origin."""

    def place(q: Array) -> Array:
        angle = q[:angles].sum()
        return np.array([length * np.sin(angle), -length * np.cos(angle), angle])

    return place


def two_links(links: TwoLink) -> list[Body]:
    (m1, m2), (c1, c2), (i1, i2) = links.masses, links.centres, links.inertias
    upper, elbow, lower = link(c1, 1), link(links.lengths[0], 1), link(c2, 2)

    def on_elbow(q: Array) -> Array:
        return lower(q) + np.array([*elbow(q)[:2], 0.0])

    return [(m1, i1 - m1 * c1**2, upper), (m2, i2 - m2 * c2**2, on_elbow)]


def cart_and_bob() -> list[Body]:
    def bob(q: Array) -> Array:
        return np.array([q[0] + 0.5 * np.sin(q[1]), -0.5 * np.cos(q[1]), 0.0])

    return [(1.0, 0.0, lambda q: np.array([q[0], 0.0, 0.0])), (0.1, 0.0, bob)]


def jet(distance: float, x: Array, force: Array) -> float:
    """Power of a force in the body frame on the body's point (0, −distance), by that point's velocity."""
    cos, sin = np.cos(x[2]), np.sin(x[2])
    velocity = x[3:5] + x[5] * distance * np.array([cos, sin])
    return float(np.array([[cos, -sin], [sin, cos]]) @ force @ velocity)


def rotor_power(x: Array, u: Array) -> float:
    """Power of two rotors at ±0.25 m, which push along the body's up axis."""
    up = np.array([-np.sin(x[2]), np.cos(x[2])])
    along = np.array([np.cos(x[2]), np.sin(x[2])])
    sides = zip((0.25, -0.25), u)
    return float(sum(thrust * up @ (x[3:5] + x[5] * r * np.array([-along[1], along[0]])) for r, thrust in sides))


def identity(q: Array) -> Array:
    return q


# task: (arguments without friction, bodies, gravity, power of the controls, controls to try)
MECHANICS: dict[str, tuple[dict[str, Any], list[Body], float, Callable[[Array, Array], float], list[float]]] = {
    "double-integrator": ({}, [(1.0, 0.0, lambda q: np.array([q[0], 0.0, 0.0]))], 0.0, lambda x, u: u[0] * x[1], [0.7]),
    "pendulum": ({"damping": 0.0}, [(1.0, 0.0, link(1.0, 1))], GRAVITY, lambda x, u: u[0] * x[1], [2.0]),
    "cartpole": ({}, cart_and_bob(), GRAVITY, lambda x, u: u[0] * x[2], [3.0]),
    "acrobot": ({}, two_links(LINKS), GRAVITY, lambda x, u: u[0] * x[3], [2.0]),
    "two-link-arm": (
        {"arm": replace(ARM, friction=0.0)},
        two_links(ARM),
        0.0,
        lambda x, u: float(u @ x[2:]),
        [0.3, -0.2],
    ),
    "planar-quadrotor": ({}, [(0.486, 0.00383, identity)], GRAVITY, rotor_power, [2.5, 2.4]),
    "rocket-landing": (
        {},
        [(27e3, 4e6, identity)],
        GRAVITY,
        lambda x, u: jet(15.0, x, 845e3 * u[0] * np.array([-np.sin(u[1]), np.cos(u[1])])),
        [0.5, 0.1],
    ),
}


def energy(bodies: list[Body], gravity: float, x: Array) -> float:
    n = len(x) // 2
    total = 0.0
    for mass, inertia, place in bodies:
        rate = central_jacobian(place, x[:n]) @ x[n:]
        total += 0.5 * mass * rate[:2] @ rate[:2] + 0.5 * inertia * rate[2] ** 2 + mass * gravity * place(x[:n])[1]
    return total


@pytest.mark.parametrize("driven", [False, True], ids=["free", "driven"])
@pytest.mark.parametrize("name", MECHANICS)
def test_energy_changes_by_the_work_of_the_controls(name, driven):
    arguments, bodies, gravity, power, controls = MECHANICS[name]
    dt = 2e-3 * models.get(name).time_step / 0.05
    problem = models.get(name).build(horizon=300, time_step=dt, **arguments)
    n, u = problem.state_sizes[0], np.array(controls) * driven
    x0 = problem.x0 + 0.5 * np.random.default_rng(4).normal(size=n)
    states, _ = problem.replace(x0=x0).rollout([u] * problem.horizon)
    energies = np.array([energy(bodies, gravity, x) for x in states])
    powers = np.array([power(x, u) for x in states])
    work = simpson(powers, dx=dt)
    scale = max(abs(energies - energies[0]).max(), 0.5 * abs(energies[0]))
    assert driven == (abs(work) > 1e-3 * scale)
    assert energies[-1] - energies[0] == pytest.approx(work, abs=1e-6 * scale)


@pytest.mark.parametrize("driven", [False, True], ids=["free", "driven"])
def test_quadrotor_keeps_energy_and_angular_momentum(driven):
    problem = models.get("quadrotor").build(horizon=300, time_step=1e-3)
    x0 = np.random.default_rng(5).normal(size=12)
    u = np.array([1.3, 1.25, 1.2, 1.28]) * driven
    states, _ = problem.replace(x0=x0).rollout([u] * 300)
    body_torque = np.array([0.175 * (u[1] - u[3]), 0.175 * (u[2] - u[0]), 0.0245 * (u[0] - u[1] + u[2] - u[3])])
    energies, momenta, powers, torques = [], [], [], []
    for x in states:
        turn, velocity, spin = Rotation.from_euler("ZYX", x[5:2:-1]).as_matrix(), x[6:9], x[9:]
        energies.append(0.25 * velocity @ velocity + 0.5 * spin @ (INERTIAS * spin) + 0.5 * GRAVITY * x[2])
        momenta.append(turn @ (INERTIAS * spin))
        powers.append(u.sum() * turn[:, 2] @ velocity + body_torque @ spin)
        torques.append(turn @ body_torque)
    work, impulse = simpson(powers, dx=1e-3), simpson(torques, dx=1e-3, axis=0)
    assert energies[-1] - energies[0] == pytest.approx(work, abs=1e-6 * abs(np.array(energies)).max())
    np.testing.assert_allclose(momenta[-1] - momenta[0], impulse, atol=1e-6 * np.abs(momenta).max())


AT_REST = {
    "double-integrator": ([3.0, 0.0], [0.0]),
    "pendulum": ([np.pi, 0.0], [0.0]),
    "cartpole": ([0.7, np.pi, 0.0, 0.0], [0.0]),
    "acrobot": ([np.pi, 0.0, 0.0, 0.0], [0.0]),
    "car-parking": ([1.0, 2.0, 0.3, 0.0], [0.4, 0.0]),
    "unicycle": ([1.0, 2.0, 0.3], [0.0, 0.0]),
    "planar-quadrotor": ([1.0, 2.0, 0.0, 0.0, 0.0, 0.0], [0.486 * GRAVITY / 2] * 2),
    "quadrotor": ([1.0, 2.0, 3.0, 2 * np.pi, 0.0, 0.7, *[0.0] * 6], [0.5 * GRAVITY / 4] * 4),
    "two-link-arm": ([0.4, 1.1, 0.0, 0.0], [0.0, 0.0]),
    "rocket-landing": ([1.0, 2.0, 0.0, 0.0, 0.0, 0.0], [27e3 * GRAVITY / 845e3, 0.0]),
}


@pytest.mark.parametrize("name", AT_REST)
def test_what_rests_stays(name):
    x, u = AT_REST[name]
    np.testing.assert_allclose(step(built(name), x, u), x, atol=1e-12)


def test_growth_rests_in_the_steady_state():
    capital = steady_state(ELASTICITY, DISCOUNT, DEPRECIATION)
    share = DEPRECIATION * capital / capital**ELASTICITY
    assert step(built("growth"), [capital], [np.log(share / (1 - share))])[0] == pytest.approx(capital)


# Mirror images: signs of the state, signs of the control, order of the control.
MIRRORS = {
    "double-integrator": ([-1, -1], [-1], [0]),
    "pendulum": ([-1, -1], [-1], [0]),
    "cartpole": ([-1] * 4, [-1], [0]),
    "acrobot": ([-1] * 4, [-1], [0]),
    "two-link-arm": ([-1] * 4, [-1, -1], [0, 1]),
    "car-parking": ([1, -1, -1, 1], [-1, 1], [0, 1]),
    "unicycle": ([1, -1, -1], [1, -1], [0, 1]),
    "planar-quadrotor": ([-1, 1, -1, -1, 1, -1], [1, 1], [1, 0]),
    "rocket-landing": ([-1, 1, -1, -1, 1, -1], [1, -1], [0, 1]),
    "quadrotor": ([1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1], [1] * 4, [0, 3, 2, 1]),
}


@pytest.mark.parametrize("name", MIRRORS)
def test_mirrored_motion_is_a_motion(name):
    signs, control_signs, order = map(np.array, MIRRORS[name])
    spins = {"drag_torque": 0.0} if name == "quadrotor" else {}  # the rotors' sense of rotation has no mirror image
    problem, rng = models.get(name).build(**spins), np.random.default_rng(6)
    x, u = rng.normal(size=len(signs)), rng.normal(size=len(order))
    mirrored = step(problem, signs * x, control_signs * u[order])
    np.testing.assert_allclose(mirrored, signs * step(problem, x, u), rtol=1e-9, atol=1e-12)


def test_parked_car_turns_on_the_circle_of_its_geometry():
    """At a constant wheel angle the rear axle runs on a circle of radius d / tan w (in the limit of small steps)."""
    problem = models.get("car-parking").build(horizon=400, time_step=1e-3, start=(0.0, 0.0, 0.0, 2.0))
    states = np.array(problem.rollout([np.array([0.4, 0.0])] * 400)[0])
    radius = 2.0 / np.tan(0.4)
    np.testing.assert_allclose(np.hypot(states[:, 0], states[:, 1] - radius), radius, rtol=1e-4)


# ----------------------------------------------------------------------------------------------- the drawings
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


# ---------------------------------------------------------------------------------------------- the solutions
# Where the trajectory must end, and how near the heaviest terminal weights bring it.
ENDS = {
    "double-integrator": ([1.0, 0.0], 0.01),
    "pendulum": ([np.pi, 0.0], 0.02),
    "cartpole": ([0.0, np.pi, 0.0, 0.0], 0.02),
    "acrobot": ([np.pi, 0.0, 0.0, 0.0], 0.06),
    "car-parking": ([0.0, 0.0, 0.0, 0.0], 0.02),
    "unicycle": ([0.0, 2.0, 0.0], 0.02),
    "planar-quadrotor": ([2.0, 1.0, 0.0, 0.0, 0.0, 0.0], 0.02),
    "quadrotor": ([1.0, -2.0, 0.5, 2 * np.pi, *[0.0] * 8], 0.02),
    "two-link-arm": (None, 0.001),
    "rocket-landing": ([0.0] * 6, 0.1),
    "growth": ([steady_state(ELASTICITY, DISCOUNT, DEPRECIATION)], 0.05),
}
SLOW = {"acrobot", "car-parking", "quadrotor"}
FREE = [name for name in models.names() if name in ENDS]  # the others are in test_tasks_under_limits


@cache
def solved(name: str) -> Any:
    return DDP().solve(built(name))


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in FREE])
def test_ddp_solves_the_task(name):
    target, tolerance = ENDS[name]
    solution = solved(name)
    assert solution.status is Status.CONVERGED
    if target is not None:
        np.testing.assert_allclose(solution.states[-1], target, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", FREE)
def test_ilqr_finds_the_same_solution(name):
    solution = ILQR().solve(built(name))
    assert solution.status is Status.CONVERGED
    assert solution.cost == pytest.approx(solved(name).cost, rel=1e-5)


def test_the_hand_reaches_other_goals_by_the_parameter():
    for goal in ([-0.1, 0.4], [0.3, 0.3]):
        solution = DDP().solve(built("two-link-arm").replace(parameters=goal))
        assert solution.status is Status.CONVERGED
        np.testing.assert_allclose(ARM.joints(solution.states[-1])[1], goal, atol=0.001)
        np.testing.assert_allclose(solution.states[-1][2:], 0.0, atol=0.02)


@pytest.mark.parametrize("horizon", [5, 40])
def test_growth_saves_what_brock_and_mirman_proved(horizon):
    """With full depreciation and log utility the saving share is α β in every year, whatever capital there is."""
    problem = models.get("growth").build(horizon=horizon, depreciation=1.0, start=0.05, productivity_growth=0.02)
    solution = DDP(gradient_tolerance=1e-10).solve(problem)
    np.testing.assert_allclose(1 / (1 + np.exp(-solution.controls)), ELASTICITY * DISCOUNT, rtol=1e-6)


def test_growth_consumption_obeys_the_euler_equation():
    """c'/c = β (α A k'^{α−1} + 1 − δ): an identity of the optimum that is not written in the model."""
    solution = DDP(gradient_tolerance=1e-12).solve(built("growth"))
    capital, share = solution.states[:-1, 0], 1 / (1 + np.exp(-solution.controls[:, 0]))
    consumption = (1 - share) * capital**ELASTICITY
    returns = ELASTICITY * capital[1:] ** (ELASTICITY - 1) + 1 - DEPRECIATION
    np.testing.assert_allclose(consumption[1:] / consumption[:-1], DISCOUNT * returns, rtol=1e-6)
