"""A simulated loop: what it is told of a tick (p, stage, number) reaches plant, estimator, costs and picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocpkit import DDP, MPC, Dynamics, KalmanFilter, Problem, ProblemError, Stage, simulate
from ocpkit.control.closed_loop import ClosedLoop
from ocpkit.control.plan_feedback import PlanFeedback
from ocpkit.plotting.plot import plot_closed_loop

HORIZON, TICKS = 6, 9


def tracking(p: Any = (0.0, 0.0, 0.9), **changes: Any) -> Problem:
    """A scalar state that follows p[0], is pushed by p[1] and decays by p[2]."""
    declaration: dict[str, Any] = {
        "dynamics": lambda x, u, p: p[2] * x + 0.5 * u + p[1],
        "cost": lambda x, u, p: (x[0] - p[0]) ** 2 + 0.01 * u[0] ** 2,
        "terminal_cost": lambda x, p: 3.0 * (x[0] - p[0]) ** 2,
        "x0": [0.3],
        "horizon": HORIZON,
        "control_size": 1,
        "parameters": p,
    }
    return Problem.from_functions(**(declaration | changes))


def paid(loop: ClosedLoop, p: Any) -> float:
    """Cost by hand, from p of every tick and of the last state."""
    x, u = loop.states[:, 0], loop.controls[:, 0]
    running = sum((x[k] - p[k][0]) ** 2 + 0.01 * u[k] ** 2 for k in range(len(u)))
    return float(running + 3.0 * (x[-1] - p[len(u)][0]) ** 2)


def assert_moved_by(loop: ClosedLoop, p: Any) -> None:
    moved = [p[k][2] * loop.states[k] + 0.5 * u + p[k][1] for k, u in enumerate(loop.controls)]
    np.testing.assert_allclose(loop.states[1:], moved, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), preview=st.booleans(), delay=st.integers(0, 2))
def test_the_models_plant_and_the_cost_have_the_parameters_of_their_tick(seed: int, preview: bool, delay: int) -> None:
    """p of a tick may be one vector, or rows of which the first is now; both move the plant by the same numbers."""
    p = np.random.default_rng(seed).uniform(-1, 1, (TICKS + HORIZON + 1, 3))
    problem = tracking(p[: HORIZON + 1] if preview else p[0])
    controller = MPC(problem, DDP(engine="numpy"), delay=delay)
    loop = simulate(controller, TICKS, parameters=lambda k: p[k : k + HORIZON + 1] if preview else p[k])
    assert_moved_by(loop, p)
    end = p[TICKS] if preview else p[TICKS - 1]  # one vector says nothing of the tick after it
    assert loop.cost(problem) == pytest.approx(paid(loop, [*p[:TICKS], end]))


def test_with_a_preview_and_a_delay_each_stage_is_planned_with_the_row_of_its_tick() -> None:
    """The model is exact, so what is planned for a tick happens, however late the control arrives."""
    p = np.random.default_rng(3).uniform(-1, 1, (TICKS + 2 * HORIZON, 3))
    for delay in range(3):
        controller = MPC(tracking(p[: HORIZON + 1]), DDP(engine="numpy"), delay=delay)
        loop = simulate(controller, TICKS, parameters=lambda k: p[k : k + HORIZON + 1])
        for k, command in enumerate(loop.commands[: TICKS - delay]):
            assert command.plan is not None
            np.testing.assert_allclose(command.plan.states[:2], loop.states[k + delay :][:2], atol=1e-9)


def test_without_parameters_of_the_ticks_the_problems_own_are_taken() -> None:
    problem = tracking([0.5, 0.1, 0.8])
    loop = simulate(MPC(problem, DDP(engine="numpy")), TICKS)
    assert loop.parameters is None
    assert_moved_by(loop, [problem.parameters] * (TICKS + 1))
    assert loop.cost(problem) == pytest.approx(paid(loop, [problem.parameters] * (TICKS + 1)))


def test_the_feedback_of_a_plan_is_simulated_stage_by_stage() -> None:
    """Parameters and stages that change along the horizon: what was planned happens, and costs what it was to cost."""
    p = np.random.default_rng(1).uniform(-1, 1, (HORIZON + 1, 3))
    problem = tracking(p)
    slow = tracking(p, dynamics=lambda x, u, p: x + 0.1 * u).stages[0]
    slow = replace(slow, control_lower=-0.2, control_upper=0.2)
    problem = problem.replace(stages=(*problem.stages[:3], slow, *problem.stages[4:]))
    plan = DDP(engine="numpy").solve(problem)
    loop = simulate(PlanFeedback(problem, plan), HORIZON)
    np.testing.assert_allclose(loop.states, plan.states, atol=1e-9)
    assert loop.stages == tuple(range(HORIZON))
    assert loop.cost(problem) == pytest.approx(plan.cost)
    figure = plot_closed_loop(loop, problem=problem)
    dotted = [line for line in figure.axes[1].patches if line.get_linestyle() == ":"]
    assert [np.isfinite(line.get_data().values).sum() for line in dotted] == [1, 1]


def test_beyond_its_end_the_last_stage_of_a_plan_goes_on() -> None:
    problem = tracking(np.random.default_rng(1).uniform(-1, 1, (HORIZON + 1, 3)))
    loop = simulate(PlanFeedback(problem, DDP(engine="numpy").solve(problem)), HORIZON + 2)
    assert loop.stages == (*range(HORIZON), HORIZON - 1, HORIZON - 1)
    assert_moved_by(loop, [problem.parameter(t) for t in loop.stages])


def test_a_plant_of_ones_own_may_take_the_tick() -> None:
    problem, given_to = tracking(), list[int]()

    def plant(x: Any, u: Any, tick: int) -> Any:
        given_to.append(tick)
        return x + 0.1 * tick

    loop = simulate(MPC(problem, DDP(engine="numpy")), 4, plant=plant)
    assert given_to == [0, 1, 2, 3]
    np.testing.assert_allclose(loop.states[:, 0], 0.3 + 0.1 * np.array([0, 0, 1, 3, 6]))
    plain = simulate(MPC(problem, DDP(engine="numpy")), 2, plant=lambda x, u, gain=0.5: gain * x)
    np.testing.assert_allclose(plain.states[:, 0], [0.3, 0.15, 0.075])


def test_dynamics_as_a_plant_get_the_parameters_of_the_tick() -> None:
    heavier = tracking(dynamics=lambda x, u, p: 0.5 * p[2] * x + 0.5 * u + p[1]).stages[0].dynamics
    p = np.random.default_rng(2).uniform(-1, 1, (TICKS, 3))
    loop = simulate(MPC(tracking(p[0]), DDP(engine="numpy")), TICKS, plant=heavier, parameters=lambda k: p[k])
    assert_moved_by(loop, p * [1.0, 1.0, 0.5])


@pytest.mark.parametrize("plant", [lambda x, u: x[:1], lambda x, u: 0.5, lambda x, u: x[:, None] + x])
def test_a_plant_whose_state_has_another_shape_is_refused(plant: Any) -> None:
    """NumPy spread one number over all states."""
    problem = tracking(dynamics=lambda x, u, p: p[2] * x + 0.5 * u[0], x0=[0.3, 0.1])
    with pytest.raises(ProblemError, match=r"the plant's next state has shape .*, expected \(2,\)"):
        simulate(MPC(problem, DDP(engine="numpy")), 3, plant=plant)


@pytest.mark.parametrize("plant", [3.0, lambda x: x, lambda x, u, tick, p: x], ids=["number", "one", "four"])
def test_a_plant_that_is_none_is_refused(plant: Any) -> None:
    with pytest.raises(ProblemError, match=r"\(x, u\) or \(x, u, tick\)"):
        simulate(MPC(tracking()), 1, plant=plant)


def test_an_estimator_filters_with_the_parameters_of_the_tick() -> None:
    """Without noise the filter's estimates are the states, if it knows the tick's push and the sensor's offset."""
    p = np.random.default_rng(4).uniform(-1, 1, (TICKS, 3))
    problem = tracking(p[0])
    estimator = KalmanFilter(problem, lambda x, p: x + p[0], 1e-6)
    loop = simulate(MPC(problem, DDP(engine="numpy")), TICKS, parameters=lambda k: p[k], estimator=estimator)
    np.testing.assert_allclose(loop.known, loop.states[:-1], atol=1e-4)
    with pytest.raises(ProblemError, match=r"parameters has shape \(1,\), expected \(3,\)"):
        estimator.predict([0.0], parameters=[1.0])


def test_an_estimator_on_a_model_without_parameters_needs_none() -> None:
    problem, plain = (
        tracking(),
        tracking(
            (), dynamics=lambda x, u: 0.9 * x + 0.5 * u, cost=lambda x, u: u[0] ** 2, terminal_cost=lambda x: x[0] ** 2
        ),
    )
    estimator = KalmanFilter(plain, lambda x: x, 0.1)
    loop = simulate(MPC(problem), 3, parameters=lambda k: [1.0, 0.0, 0.9], estimator=estimator)
    assert len(loop.controls) == 3


def test_a_filter_beside_a_plan_uses_the_gains_of_each_stage() -> None:
    problem = tracking()
    gains = [np.array([[float(t == 2)]]) for t in range(HORIZON + 1)]  # only stage 2 looks
    estimator = KalmanFilter(problem, lambda x: x, 1e-9, 1.0, gains=gains)
    plan = DDP(engine="numpy").solve(problem)
    loop = simulate(PlanFeedback(problem, plan), HORIZON, x0=[1.0], estimator=estimator)
    wrong = np.abs(loop.known - loop.states[:-1])[:, 0] > 1e-6
    assert wrong.tolist() == [True, True, False, False, False, False]


def test_the_cost_of_other_parameters_than_the_ticks_had_is_refused() -> None:
    loop = simulate(MPC(tracking()), 2, parameters=lambda k: [1.0, 0.0, 0.9])
    other = tracking(
        [1.0], dynamics=lambda x, u, p: x + u, cost=lambda x, u, p: p[0] * u[0] ** 2, terminal_cost=lambda x: 0.0 * x[0]
    )
    with pytest.raises(ProblemError, match=r"3 parameters.* takes 1"):
        loop.cost(other)
    assert replace(loop, parameters=None).cost(other) == pytest.approx(float((loop.controls**2).sum()))


class Forgetful(Dynamics):
    """A hand-written model, of which only `step` is used by a simulation."""

    state_size = control_size = next_state_size = 1

    def step(self, x: Any, u: Any, p: Any) -> Any:
        return p[0] * x + u

    def jacobians(self, x: Any, u: Any, p: Any) -> Any:
        return p[0] * np.eye(1), np.eye(1)


def test_a_hand_written_model_as_the_default_plant() -> None:
    cost = tracking(
        [1.0], dynamics=lambda x, u, p: x, cost=lambda x, u: x[0] ** 2 + u[0] ** 2, terminal_cost=lambda x: x[0] ** 2
    )
    problem = Problem(
        stages=(Stage(Forgetful(), cost.stages[0].cost),) * 3,
        terminal_cost=cost.terminal_cost,
        x0=[1.0],
        parameters=[1.0],
    )
    loop = simulate(MPC(problem, DDP(engine="numpy")), 3, parameters=lambda k: [float(k)])
    np.testing.assert_allclose(loop.states[1:], np.arange(3.0)[:, None] * loop.states[:-1] + loop.controls)
