"""States that are angles: their differences are taken modulo 2π, wherever states are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_engines_export import build, run

import ocpkit.math as m
from ocpkit import (
    DDP,
    ILQR,
    IPOPT,
    MPC,
    AugmentedLagrangian,
    KalmanFilter,
    Problem,
    ProblemError,
    Solution,
    simulate,
)
from ocpkit.control.export import export_c
from ocpkit.control.plan_feedback import PlanFeedback
from ocpkit.problem.angles import TURN, continued, difference, nearest

Array = Any
H = 0.1
angle = st.floats(-50.0, 50.0)


def near(a: Any) -> Any:
    """The angle in (−π, π] that a is."""
    return m.arctan2(m.sin(a), m.cos(a))


def turning(**options: Any) -> Problem:
    """Turn from 3 to −3 rad, which is 0.283 rad away."""
    return Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + H * x[1], x[1] + H * u[0]]),
        cost=lambda x, u, p: near(x[0] - p[0]) ** 2 + 0.1 * x[1] ** 2 + 0.01 * u[0] ** 2,
        terminal_cost=lambda x, p: 10 * near(x[0] - p[0]) ** 2 + x[1] ** 2,
        **{"x0": [3.0, 0.0], "horizon": 25, "control_size": 1, "parameters": [-3.0], "control_bounds": (-4, 4)}
        | options,
    )


def spinning(**options: Any) -> Problem:
    """A pendulum that shall wind itself up; its first steps turn it by more than half a turn."""
    return Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + H * x[1], x[1] + H * (u[0] - 0.5 * m.sin(x[0]))]),
        cost=lambda x, u: 0.01 * (u @ u) + 0.1 * (1 + m.cos(x[0])),
        terminal_cost=lambda x: 5 * (x[0] - 9) ** 2 + x[1] ** 2,
        **{"x0": [0.5, 0.0], "horizon": 30, "control_size": 1, "controls": [3.0]} | options,
    )


def wrapped(x: Array) -> Array:
    """What a sensor says that counts from −π to π."""
    return np.array([(x[0] + np.pi) % TURN - np.pi, *x[1:]])


# ------------------------------------------------------------------------------------------------ the difference
@given(x=st.tuples(angle, angle), y=st.tuples(angle, angle))
def test_a_difference_is_the_short_way_round(x: tuple[float, float], y: tuple[float, float]) -> None:
    a, b = np.array(x), np.array(y)
    moved = difference(a, b, (1,))
    assert moved[0] == a[0] - b[0]
    assert -np.pi <= moved[1] < np.pi
    assert np.cos(moved[1] - (a[1] - b[1])) == pytest.approx(1.0)
    assert abs(b[1] - nearest(a, b, (1,))[1]) <= np.pi + 1e-9
    if -np.pi <= a[1] - b[1] < np.pi:
        np.testing.assert_array_equal(moved, a - b)
        np.testing.assert_array_equal(nearest(a, b, (1,)), a)
    np.testing.assert_array_equal(difference(np.stack([a, b]), b, (1,))[0], moved)


@given(st.lists(angle, min_size=1, max_size=10))
def test_a_continued_series_never_jumps(series: list[float]) -> None:
    states = [np.array([7.0, value]) for value in series]
    followed = np.array(continued(states, (1,)))
    assert (np.abs(np.diff(followed[:, 1])) <= np.pi + 1e-9).all()
    np.testing.assert_allclose(np.cos(followed), np.cos(states), atol=1e-9)
    np.testing.assert_array_equal(continued(states, ()), states)


@pytest.mark.parametrize("angles", [(2,), (-1,), (0, 0), (0.5,), (True,), "0", None])
def test_what_is_no_index_of_a_state_is_refused(angles: Any) -> None:
    with pytest.raises(ProblemError, match="angles"):
        turning(angles=angles)


def test_angles_belong_to_the_problem() -> None:
    problem = turning(angles=[0])
    assert turning(angles=0).angles == (0,)  # as bounds of one row may be a number
    assert problem.angles == problem.replace(x0=[1.0, 0.0]).angles == (0,)
    np.testing.assert_allclose(problem.difference(np.array([3.0, 9.0]), np.array([-3.0, 1.0])), [6.0 - TURN, 8.0])


# ------------------------------------------------------------------------------------------------ feedback
@given(turns=st.integers(-3, 3), away=st.floats(-3.1, 3.1), t=st.integers(0, 24))
def test_a_policy_has_the_period_of_its_angles(turns: int, away: float, t: int) -> None:
    for plan in POLICIES:
        u = plan.policy(t, plan.states[t] + [away + TURN * turns, 0.3])
        np.testing.assert_allclose(u, plan.controls[t] + plan.feedback_gains[t] @ [away, 0.3], atol=1e-9)


def saved(folder: Path, solution: Solution) -> Solution:
    solution.save(folder / "plan.npz")
    return Solution.load(folder / "plan.npz")


POLICIES = [solver.solve(turning(angles=(0,))) for solver in (DDP(engine="numpy"), AugmentedLagrangian())]


def test_a_saved_policy_keeps_its_angles(tmp_path: Path) -> None:
    plan = saved(tmp_path, POLICIES[0])
    assert plan.angles == (0,)
    np.testing.assert_allclose(plan.policy(3, plan.states[3] + [TURN, 0]), plan.controls[3], atol=1e-12)


def test_one_plan_is_followed_past_the_jump_of_a_sensor() -> None:
    problem = turning(angles=(0,))
    follower, x = PlanFeedback(problem, POLICIES[0]), problem.x0
    for _ in range(25):
        x = problem.stages[0].dynamics.step(x, follower.step(wrapped(x)).control, problem.parameters)
    assert x[0] == pytest.approx(POLICIES[0].states[-1][0], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vm", "c"])
def test_forward_passes_are_alike_in_every_engine(engine: str) -> None:
    """And not what they are without the declaration."""
    costs = {
        (name, angles): np.array(
            [row.cost for row in DDP(engine=name, max_iterations=12).solve(spinning(angles=angles)).history]
        )
        for name in ("numpy", engine)
        for angles in ((), (0,))
    }
    for angles in ((), (0,)):
        np.testing.assert_allclose(costs[engine, angles], costs["numpy", angles], rtol=1e-7)
    assert not np.array_equal(costs["numpy", ()][:8], costs["numpy", (0,)][:8])


def test_a_batch_takes_the_steps_of_one_problem() -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'ocpkit[nn]'")
    from ocpkit import solve_batch

    problem = spinning(angles=(0,))
    batch = solve_batch(problem, x0=[[0.5, 0.0], [0.4, 0.0]], solver=DDP(max_iterations=6))
    for x0, cost in zip(([0.5, 0.0], [0.4, 0.0]), batch.cost):
        alone = DDP(engine="numpy", max_iterations=6).solve(problem.replace(x0=x0))
        assert cost == pytest.approx(alone.cost, rel=1e-6)


# ------------------------------------------------------------------------------------------------ warm starts
@pytest.mark.parametrize("engine", ["numpy", "vm", "c"])
def test_a_guess_that_counts_other_turns_is_the_same_guess(engine: str) -> None:
    problem = turning(angles=(0,))
    states = np.array(POLICIES[0].states)
    jumping = np.array([wrapped(x) for x in states])
    found = [DDP(engine=engine).solve(problem, POLICIES[0], states=guess) for guess in (states, jumping)]
    assert np.abs(np.diff(jumping[:, 0])).max() > np.pi
    assert [solution.iterations for solution in found] == [0, 0]
    assert found[0].cost == pytest.approx(found[1].cost, rel=1e-12)


SOLVERS = {
    "one step": DDP(max_iterations=1),
    "ddp": DDP(),
    "numpy": DDP(engine="numpy"),
    "vm": ILQR(engine="vm"),
    "al": AugmentedLagrangian(),
    "ipopt": IPOPT(),
}


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize("angles", [(0,), ()], ids=["declared", "not declared"])
def test_a_sensor_that_jumps_makes_no_controller_turn_a_circle(solver: Any, angles: tuple[int, ...]) -> None:
    problem = turning(angles=angles)
    controller, x, paid = MPC(problem, solver), problem.x0, 0.0
    for _ in range(40):
        u = controller.step(wrapped(x)).control
        paid += problem.stages[0].cost.value(x, u, problem.parameters)
        x = problem.stages[0].dynamics.step(x, u, problem.parameters)
    assert x[0] - 3.0 == pytest.approx(0.283, abs=0.01)
    assert paid == pytest.approx(0.525, abs=0.005)


@pytest.mark.parametrize("angles", [(0,), ()], ids=["declared", "not declared"])
@pytest.mark.parametrize("delay", [0, 2])
def test_noise_at_the_jump_does_no_harm(angles: tuple[int, ...], delay: int) -> None:
    """The goal is where the sensor jumps, so that every other measurement may."""
    problem, rng = turning(angles=angles, parameters=[np.pi]), np.random.default_rng(3)
    controller, x = MPC(problem, DDP(max_iterations=2), delay=delay), np.array([2.9, 0.0])
    on_their_way, jumps, before = [np.zeros(1)] * delay, 0, 2.9
    for _ in range(60):
        seen = wrapped(x + 0.02 * rng.normal(size=2))
        jumps, before = jumps + (abs(seen[0] - before) > 3), seen[0]
        on_their_way.append(controller.step(seen).control)
        x = problem.stages[0].dynamics.step(x, on_their_way.pop(0), problem.parameters)
        assert abs(x[0] - 3.0) < 0.4
    assert jumps > 5


@pytest.mark.slow
def test_a_controller_in_c_counts_turns_like_python(tmp_path: Path) -> None:
    problem = turning(angles=(0,))
    export_c(problem, DDP(), tmp_path, "case")
    assert "x[0] modulo 2 pi" in (tmp_path / "case.h").read_text()
    (tmp_path / "closed_loop.c").write_text(TICKS)
    controller, x, states, controls = MPC(problem, DDP(max_iterations=1, engine="numpy")), problem.x0, [], []
    for _ in range(20):
        states.append(wrapped(x))
        controls.append(controller.step(states[-1]).control[0])
        x = problem.stages[0].dynamics.step(x, controls[-1:], problem.parameters)
    assert np.abs(np.diff(np.array(states)[:, 0])).max() > 6
    given = "\n".join(f"{a:.17g} {b:.17g}" for a, b in states)
    told = [float(line) for line in run(build(tmp_path, "case", "closed_loop"), given=given)]
    np.testing.assert_allclose(told, controls, rtol=1e-7, atol=1e-8)


TICKS = """
#include <stdio.h>
#include "case.h"
int main(void) {
  static case_mpc controller;
  double x[case_STATE], u[case_CONTROL];
  while (scanf("%lf %lf", x, x + 1) == 2) {
    case_mpc_step(&controller, x, 0, 1, u);
    printf("%.17g\\n", u[0]);
  }
  return 0;
}
"""


# ------------------------------------------------------------------------------------------------ estimates, pictures
def test_an_estimate_goes_on_past_the_jump_of_a_sensor() -> None:
    problem, rng = turning(angles=(0,)), np.random.default_rng(0)
    filters = [KalmanFilter(problem, lambda x: x, 0.01, 0.1, angles=angles) for angles in ((0,), ())]
    x, errors = np.array([3.0, 0.6]), np.zeros((2, 8))
    for tick in range(8):
        seen = wrapped(x + 0.01 * rng.normal(size=2))
        errors[:, tick] = [abs(each.update(seen)[0] - x[0]) for each in filters]
        x = problem.stages[0].dynamics.step(x, np.zeros(1), problem.parameters)
        for each in filters:
            each.predict([0.0])
    assert x[0] > np.pi
    assert errors[0].max() < 0.05
    assert errors[1].max() > 0.5
    with pytest.raises(ProblemError, match="measurements"):
        KalmanFilter(problem, lambda x: x[:1], 0.01, angles=(1,))


def test_pictures_have_no_vertical_lines(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'ocpkit[plot]'")
    from dataclasses import replace

    from ocpkit.plotting.plot import plot_closed_loop, plot_solution

    problem = turning(angles=(0,))
    jumping = np.array([wrapped(x) for x in POLICIES[0].states])
    loop = simulate(MPC(problem, DDP(max_iterations=1)), 12)
    loop = replace(loop, states=np.array([wrapped(x) for x in loop.states]))
    for figure in (plot_solution(replace(POLICIES[0], states=jumping)), plot_closed_loop(loop, problem=problem)):
        (curve,) = (line for line in figure.axes[0].lines if line.get_label() == "x[0]")
        assert np.abs(np.diff(curve.get_ydata())).max() < 1
