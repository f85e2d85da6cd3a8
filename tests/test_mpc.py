"""Receding horizons: the textbook's feedback law on LQR, and what a supervisor is told when things go wrong."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from problems import BY_NAME, LQRS, pendulum_field
from test_constrained import swing

import ocpkit.math as m
from ocpkit import (
    DDP,
    MPC,
    AugmentedLagrangian,
    Cause,
    Constraint,
    Health,
    Problem,
    ProblemError,
    Status,
    models,
    rk4,
    simulate,
)
from ocpkit.control.closed_loop import ClosedLoop
from ocpkit.control.plan_feedback import PlanFeedback
from ocpkit.control.shifted import shifted
from ocpkit.engines.numpy import NumpyEngine

REAL_TIME = DDP(max_iterations=1)


def upright(**changes: Any) -> Problem:
    """Balance a pendulum at the top, where open loop falls."""
    declaration: dict[str, Any] = {
        "cost": lambda x, u: 0.05 * ((x[0] - np.pi) ** 2 + 0.1 * x[1] ** 2 + 0.01 * u[0] ** 2),
        "terminal_cost": lambda x: 5 * (x[0] - np.pi) ** 2 + x[1] ** 2,
        "x0": [np.pi + 0.3, 0.0],
        "horizon": 30,
    }
    return swing(**(declaration | changes))


def test_on_a_linear_quadratic_problem_every_control_is_riccatis_first_gain() -> None:
    lqr = LQRS[4, 2, 50]
    K = lqr.riccati()[1][0]
    loop = simulate(MPC(lqr.problem()), 10)
    np.testing.assert_allclose(loop.controls, loop.states[:-1] @ K.T, atol=1e-8)
    assert loop.count(Health.OPTIMAL) == 10


@pytest.mark.parametrize("delay", [1, 3])
def test_with_a_delay_the_gain_acts_on_the_state_at_which_the_control_arrives(delay: int) -> None:
    lqr = LQRS[4, 2, 50]
    K = lqr.riccati()[1][0]
    loop = simulate(MPC(lqr.problem(), delay=delay), 12)
    assert (loop.controls[:delay] == 0).all()
    np.testing.assert_allclose(loop.controls[delay:], loop.states[delay:-1] @ K.T, atol=1e-7)


def test_one_iteration_a_tick_follows_the_converged_controller() -> None:
    problem = upright()
    exact, real_time = (simulate(MPC(problem, solver), 40) for solver in (DDP(), REAL_TIME))
    assert real_time.count(Health.HELD) == 0
    assert np.abs(exact.states - real_time.states).max() < 1e-2
    assert abs(real_time.states[-1, 0] - np.pi) < 1e-2


def test_it_balances_a_heavier_plant_in_noise_where_the_plan_alone_falls() -> None:
    problem = upright()
    heavier = rk4(lambda x, u: pendulum_field(x, 0.8 * u), 0.05)

    def plant(x: Any, u: Any) -> Any:
        return np.asarray(heavier(x, u))

    loop = simulate(MPC(problem, REAL_TIME), 80, plant=plant, process_noise=0.01, measurement_noise=0.005, seed=1)
    assert np.abs(loop.states[20:, 0] - np.pi).max() < 0.2
    x, plan = problem.x0, DDP().solve(problem)
    for u in [*plan.controls, *plan.controls]:
        x = plant(x, u)
    assert abs(x[0] - np.pi) > 0.5


def test_bounds_hold_at_every_tick_and_the_multipliers_start_the_next_one() -> None:
    problem = upright(control_bounds=(-5.0, 5.0))
    solver = AugmentedLagrangian()
    loop = simulate(MPC(problem, solver), 15)
    assert loop.count(Health.OPTIMAL) == 15
    assert np.abs(loop.controls).max() <= 5.0
    assert np.abs(loop.controls).max() > 4.999
    cold = solver.solve(problem.replace(x0=loop.states[1]))
    warm = loop.commands[1].plan
    assert warm is not None
    sweeps = [solution.details.inner_iterations for solution in (warm, cold)]
    assert sweeps[0] < sweeps[1]
    assert warm.cost == pytest.approx(cold.cost, rel=1e-6)


def test_parameters_may_change_at_every_tick() -> None:
    goal = upright(
        cost=lambda x, u, p: 0.05 * ((x[0] - p[0]) ** 2 + 0.001 * u[0] ** 2),
        terminal_cost=lambda x, p: 5 * (x[0] - p[0]) ** 2 + x[1] ** 2,
        parameters=[np.pi],
    )
    loop = simulate(MPC(goal, DDP()), 60, parameters=lambda tick: [np.pi if tick < 20 else np.pi - 0.5])
    assert abs(loop.states[20, 0] - np.pi) < 0.05
    assert abs(loop.states[-1, 0] - np.pi + 0.5) < 0.05


def test_a_delay_is_predicted_with_the_parameters_of_the_tick() -> None:
    pushed = Problem.from_functions(
        dynamics=lambda x, u, p: x + p[0] * u,
        cost=lambda x, u: x[0] ** 2 + u[0] ** 2,
        terminal_cost=lambda x: x[0] ** 2,
        x0=[0.0],
        horizon=5,
        controls=[3.0],
        parameters=[1.0],
    )
    for given, reached in ((None, 3.0), ([2.0], 6.0)):
        plan = MPC(pushed, delay=1).step([0.0], parameters=given).plan
        assert plan is not None
        assert plan.states[0] == reached


def test_after_failures_the_last_plan_goes_on_until_it_is_used_up() -> None:
    """The model is not finite for states beyond 10, which the sensor reports from the third tick on."""
    problem = upright(
        cost=lambda x, u: 0.05 * ((x[0] - np.pi) ** 2 + 0.01 * u[0] ** 2 + m.where(m.greater(x[0], 10.0), np.nan, 0.0)),
        horizon=5,
    )
    controller = MPC(problem)
    good = [controller.step(problem.x0) for _ in range(2)]
    assert [command.health for command in good] == [Health.OPTIMAL] * 2
    bad = [controller.step([20.0, 0.0]) for _ in range(6)]
    assert [command.health for command in bad] == [Health.HELD] * 4 + [Health.LOST] * 2
    assert [command.offset for command in bad[:4]] == [1, 2, 3, 4]
    assert np.isfinite([command.control for command in bad[:4]]).all()
    assert np.isnan(bad[-1].control).all()
    again = controller.step(problem.x0)
    assert again.health is Health.OPTIMAL


def test_without_any_plan_it_is_lost_at_once_and_a_simulation_says_when() -> None:
    problem = upright(cost=lambda x, u: x[0] ** 2 + m.where(m.greater(x[0], -1e9), np.nan, u[0]))
    loop = simulate(MPC(problem), 5)
    assert loop.lost_at == 0
    assert len(loop.controls) == 0
    assert loop.commands[0].status is Status.INVALID_INPUT


def interrupted(loop: ClosedLoop) -> None:
    assert loop.broken_off == "interrupted"
    assert loop.lost_at is None
    assert loop.states.shape == (4, 2)
    assert len(loop.controls) == 3
    assert str(loop).endswith("broken off: interrupted")


def test_ctrl_c_in_the_plant_ends_a_simulation_with_what_happened() -> None:
    problem, ticks = upright(), iter(range(9))

    def plant(x: Any, u: Any) -> Any:
        if next(ticks) == 3:
            raise KeyboardInterrupt
        return problem.stages[0].dynamics.step(x, u, problem.parameter(0))

    interrupted(simulate(MPC(problem), 9, plant=plant))


def test_ctrl_c_in_a_solve_ends_a_simulation_with_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A solver returns its iterate; the loop around it is to end all the same."""
    solve, calls = DDP.solve, iter(range(9))

    def solve_or_stop(*arguments: Any, **options: Any) -> Any:
        solution = solve(*arguments, **options)
        return replace(solution, status=Status.INTERRUPTED) if next(calls) == 3 else solution

    monkeypatch.setattr(DDP, "solve", solve_or_stop)
    interrupted(simulate(MPC(upright()), 9))


def test_a_plant_that_is_not_finite_ends_the_simulation() -> None:
    problem = upright()
    loop = simulate(MPC(problem), 9, plant=lambda x, u: np.where(x[0] > 3.5, np.nan, x + 0.2))
    assert "the plant's state is not finite after tick" in loop.broken_off
    assert np.isfinite(loop.states).all()
    assert len(loop.controls) == len(loop.states) - 1 == len(loop.log()) - 1


def test_where_the_model_is_not_finite_at_a_trial_point_the_solver_steps_back() -> None:
    """No torque beyond 6 has a meaning for this model; the full first step asks for more."""
    asked = list[float]()

    def rates(x: Any, u: Any) -> Any:
        if not isinstance(u[0], np.floating):
            return pendulum_field(x, u)
        asked.append(float(u[0]))
        return pendulum_field(x, u) if abs(u[0]) <= 6.0 else np.full(2, np.nan)

    problem = upright(dynamics=rk4(rates, 0.05), derivatives="central", x0=[np.pi - 1.2, 0.0], horizon=20)
    command = MPC(problem, DDP(engine="numpy", max_iterations=3), DDP(engine="numpy", max_iterations=3)).step(
        problem.x0
    )
    assert max(map(abs, asked)) > 6.0
    assert command.health in (Health.OPTIMAL, Health.IMPROVING)
    assert command.plan is not None
    assert np.isfinite(command.plan.states).all()
    assert np.abs(command.plan.controls).max() <= 6.0
    assert command.plan.cost < problem.rollout()[1]


def test_a_plan_that_breaks_a_constraint_does_not_replace_a_feasible_one() -> None:
    """After a push the optimum lies beyond the wall; one outer iteration ends there, while the old plan respects it."""
    walled = upright(constraints=(Constraint(lambda x, u: m.stack([u[0]]), -np.inf, 3.0, "wall"),), horizon=10)
    hasty = AugmentedLagrangian(max_iterations=1)
    strict, lenient = MPC(walled, hasty), MPC(walled, hasty, feasibility_tolerance=100.0)
    for controller in (strict, lenient):
        assert controller.step([np.pi + 0.1, 0.0]).health is Health.OPTIMAL
    before = strict.plan
    held, taken = (controller.step([np.pi - 0.6, 0.0]) for controller in (strict, lenient))
    assert (held.health, held.offset) == (Health.HELD, 1)
    assert held.plan is before
    assert taken.health is Health.IMPROVING
    assert taken.plan is not None
    assert taken.plan.controls.max() > 3.01 >= before.controls.max()


def test_a_plan_that_closes_some_of_its_gap_replaces_the_one_that_leaves_all() -> None:
    """Saturated controls cannot close the gap at once; the next real-time iterations go on from where this one is."""
    problem = models.get("cartpole-bounded").build(horizon=50)
    controller = MPC(problem, REAL_TIME, feasibility_tolerance=1e-6)
    loop = simulate(controller, 6, process_noise=0.01)
    gaps = [command.plan.history[-1].gap for command in loop.commands if command.plan is not None]
    assert max(gaps) > 1e-6
    assert loop.count(Health.OPTIMAL) + loop.count(Health.IMPROVING) == 6


@pytest.mark.parametrize("seconds", [-1, float("nan"), True, "3", None, 1j])
def test_wrong_patience(seconds: Any) -> None:
    controller = MPC(upright())
    with pytest.raises(ProblemError, match="seconds must be a number from 0 on, got " + re.escape(repr(seconds))):
        controller.warm_up(seconds)
    assert (controller.tick, controller.plan) == (0, None)


@pytest.mark.parametrize("ticks", [1, 3, 30, 40])
def test_a_shifted_plan_has_a_gap_only_where_the_plant_was_measured(ticks: int) -> None:
    problem = upright(x0=[np.pi + 0.6, 0.0], horizon=30, terminal_cost=lambda x: 0.1 * x[1] ** 2)
    plan = DDP().solve(problem)
    guess = shifted(problem, plan, ticks)
    moved = NumpyEngine(problem.replace(x0=guess.states[0])).with_gaps(guess.states, guess.controls)
    assert moved.gap < 1e-9
    if ticks < 30:
        np.testing.assert_array_equal(guess.controls[:-ticks], plan.controls[ticks:])
        np.testing.assert_array_equal(guess.states[:-ticks], plan.states[ticks:])


def test_a_state_outside_its_bounds_is_named() -> None:
    """No control changes x_0: by default it is reported, and the plan returns to the limit at once."""
    problem = upright(constraints=(Constraint(lambda x, u: x[1], -1.0, 1.0, "rate"),))
    for ask in (False, True):
        controller = MPC(problem, AugmentedLagrangian(), ask_at_start=ask)
        command = controller.step(problem.x0)
        assert (command.reason, command.start_violation) == ("", None)
        command = controller.step([np.pi, 1.5])
        assert command.start_violation is not None
        assert (command.start_violation.row, command.start_violation.stage) == ("rate", 0)
        assert command.start_violation.amount == pytest.approx(0.5)
        assert command.plan is not None
        if ask:
            assert (command.health, command.status, command.cause) == (Health.HELD, Status.INFEASIBLE, Cause.VIOLATION)
            plan, start = command.reason.split("; ")
            assert plan.startswith("the plan breaks 'rate' at stage ")
            assert start == "x0 violates 'rate' at stage 0 by 0.5, which no control can change"
        else:
            assert command.health is Health.OPTIMAL
            assert np.abs(command.plan.states[1:-1, 1]).max() < 1 + 1e-6


def test_the_log_has_a_line_per_tick_with_what_the_solver_said(tmp_path: Path) -> None:
    """The third solver call of this loop fails: the sensor says 20, where the cost is not finite."""
    problem = upright(
        cost=lambda x, u: 0.05 * ((x[0] - np.pi) ** 2 + 0.01 * u[0] ** 2 + m.where(m.greater(x[0], 10.0), np.nan, 0.0)),
        horizon=3,
    )
    loop = simulate(MPC(problem), 9, plant=lambda x, u: np.array([20.0, 0.0]), time_step=0.05)
    assert loop.lost_at == 3
    loop.write_log(tmp_path / "log.csv")
    with open(tmp_path / "log.csv", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["health"] for line in lines] == ["optimal", "held", "held", "lost"]
    assert [line["status"] for line in lines] == ["converged", *["invalid_input"] * 3]
    np.testing.assert_allclose([float(line["time"]) for line in lines], [0.0, 0.05, 0.1, 0.15])
    np.testing.assert_allclose([float(line["x[0]"]) for line in lines], loop.states[:, 0])
    np.testing.assert_allclose([float(line["u[0]"]) for line in lines[:3]], loop.controls[:, 0])
    assert lines[3]["u[0]"] == ""
    first = loop.commands[0]
    assert first.plan is not None
    assert float(lines[0]["cost"]) == first.plan.cost == first.cost
    assert int(lines[0]["iterations"]) == first.plan.iterations > 1
    assert float(lines[0]["solve_ms"]) == pytest.approx(1e3 * first.seconds)
    assert [command.tick for command in loop.commands] == [0, 1, 2, 3]
    np.testing.assert_array_equal(loop.commands[1].state, [20.0, 0.0])


def test_a_simulation_without_a_tick_says_so_and_has_no_log(tmp_path: Path) -> None:
    loop = simulate(MPC(upright()), 0)
    assert str(loop) == "0 ticks"
    assert loop.known.shape == (0, 2)
    with pytest.raises(ProblemError, match="no tick"):
        loop.write_log(tmp_path / "log.csv")
    for ticks in (-1, 1.5):
        with pytest.raises(ProblemError, match=f"ticks must be a whole number of at least 0, got {ticks}"):
            simulate(MPC(upright()), ticks)  # type: ignore[arg-type]


def test_a_plant_has_states_of_one_size() -> None:
    problem = BY_NAME["varying-sizes"].problem()
    with pytest.raises(ProblemError, match="states and controls of one size"):
        simulate(PlanFeedback(problem, DDP().solve(problem)), 3)


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ({"problem": None}, "takes a Problem"),
        ({"solver": "ddp"}, "takes a Problem and a solver"),
        ({"first_solver": "ddp"}, "first_solver must be a solver such as DDP"),
        ({"delay": -1}, "delay must be a whole number from 0 to 29, below the horizon, got -1"),
        ({"feasibility_tolerance": 0.0}, "feasibility_tolerance must be a positive number"),
        ({"problem": BY_NAME["varying-sizes"].problem()}, "re-uses each stage one tick later"),
        ({"delay": 30}, "delay must be a whole number from 0 to 29, below the horizon, got 30"),
    ],
    ids=["nothing", "name", "warm up", "negative", "zero", "sizes", "long"],
)
def test_wrong_declarations(declaration: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        MPC(**({"problem": upright()} | declaration))


@pytest.mark.parametrize("x", [[1.0], [[3.0, 0.0]], "abc"], ids=str)
def test_measurements_of_the_wrong_shape_are_refused_and_change_nothing(x: Any) -> None:
    controller = MPC(upright())
    controller.step([3.0, 0.0])
    before = replace(controller)
    with pytest.raises(ProblemError, match="measured state"):
        controller.step(x)
    with pytest.raises(ProblemError, match=r"parameters has shape \(2,\), expected \(0,\) or \(31, 0\)"):
        controller.step([3.0, 0.0], [1.0, 2.0])
    assert before.problem is controller.problem
    assert (controller.offset, controller.tick) == (0, 1)
