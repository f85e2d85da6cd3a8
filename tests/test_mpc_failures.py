"""What a controller does when something is missing, raises, runs out of budget, or cannot be saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_engines_export import build, run
from test_engines_export_mpc import HEALTHS, IN_C, TICKS, with_a_hole
from test_warm_start import METHODS, A, B, cart

import ocpkit.math as m
from ocpkit import (
    DDP,
    IPOPT,
    MPC,
    AugmentedLagrangian,
    Cause,
    Constraint,
    Dynamics,
    Fatrop,
    Health,
    Problem,
    Solution,
    Stage,
    Status,
    UnsupportedProblem,
    simulate,
)
from ocpkit.control.export import export_c
from ocpkit.control.plan_feedback import PlanFeedback

NUMPY = DDP(engine="numpy")


def drift(**changes: Any) -> Problem:
    """A scalar state near 0, with a control whose cost makes every stage of a plan different."""
    declaration: dict[str, Any] = {
        "dynamics": lambda x, u: x + 0.1 * u,
        "cost": lambda x, u: x[0] ** 2 + 0.1 * (u[0] - 1) ** 2,
        "terminal_cost": lambda x: x[0] ** 2,
        "x0": [1.0],
        "horizon": 10,
        "control_size": 1,
    }
    return Problem.from_functions(**(declaration | changes))


@pytest.mark.parametrize("missing", [None, [np.nan], [np.inf]], ids=str)
def test_without_a_measurement_the_plan_goes_on_and_the_tick_counts(missing: Any) -> None:
    controller = MPC(drift(), NUMPY)
    plan = controller.step([1.0]).plan
    assert plan is not None
    for age in range(1, 4):
        command = controller.step(missing)
        assert (command.health, command.cause, command.status) == (
            Health.HELD,
            Cause.MEASUREMENT,
            Status.INVALID_INPUT,
        )
        assert (command.offset, command.tick, command.iterations) == (age, age, 0)
        np.testing.assert_array_equal(command.control, plan.controls[age])
        assert not np.isfinite(command.state).any()
    assert controller.step([1.0]).health is Health.OPTIMAL


def test_a_dropout_longer_than_the_plan_is_a_loss_and_the_next_measurement_ends_it() -> None:
    controller = MPC(drift(horizon=3), NUMPY)
    lost = controller.step(None)
    assert lost.health is Health.LOST
    assert "plan" not in lost.reason
    controller.step([1.0])
    told = [controller.step(None) for _ in range(4)]
    assert [command.health for command in told] == [Health.HELD] * 2 + [Health.LOST] * 2
    assert np.isnan(told[-1].control).all()
    assert controller.step([0.5]).health is Health.OPTIMAL


def test_over_a_delay_the_controls_on_their_way_advance_during_a_dropout() -> None:
    problem = drift()
    controller = MPC(problem, NUMPY, delay=2)
    controller.step([1.0])
    for expected in (1, 2):
        command = controller.step(None)
        assert command.plan is not None
        np.testing.assert_array_equal(command.control, command.plan.controls[expected])
        np.testing.assert_array_equal(controller.pending[-1], command.control)


def test_parameters_that_are_missing_are_a_dropout_too() -> None:
    problem = drift(cost=lambda x, u, p: (x[0] - p[0]) ** 2 + 0.1 * u[0] ** 2, parameters=[0.3])
    controller = MPC(problem, NUMPY)
    plan = controller.step([1.0], [0.5]).plan
    assert plan is not None
    command = controller.step([0.9], [np.nan])
    assert (command.health, command.cause, command.offset) == (Health.HELD, Cause.PARAMETERS, 1)
    np.testing.assert_array_equal(command.control, plan.policy(1, [0.9]))  # the state is known


def test_a_prediction_that_blows_up_is_held() -> None:
    problem = drift(dynamics=lambda x, u: x + 0.1 * u + m.where(m.greater(x[0], 5.0), np.inf, 0.0))
    controller = MPC(problem, NUMPY, delay=1)
    controller.step([1.0])
    command = controller.step([6.0])
    assert (command.health, command.cause, command.offset) == (Health.HELD, Cause.PREDICTION, 1)


class Touchy(Dynamics):
    """x + u/10, which refuses large states with an error of its own."""

    state_size = control_size = next_state_size = 1

    def step(self, x: Any, u: Any, p: Any) -> Any:
        if x[0] > 5.0:
            raise RuntimeError("out of the table")
        return x + 0.1 * u

    def jacobians(self, x: Any, u: Any, p: Any) -> Any:
        return np.eye(1), 0.1 * np.eye(1)


def touchy() -> Problem:
    plain = drift()
    return plain.replace(stages=(Stage(Touchy(), plain.stages[0].cost),) * plain.horizon)


def test_a_model_that_raises_is_held_with_what_it_says() -> None:
    controller = MPC(touchy(), NUMPY)
    plan = controller.step([1.0]).plan
    assert plan is not None
    for age in (1, 2):
        command = controller.step([6.0])
        assert (command.health, command.cause, command.offset) == (Health.HELD, Cause.ERROR, age)
        assert "RuntimeError: out of the table" in command.reason
        np.testing.assert_array_equal(command.control, plan.policy(age, [6.0]))
    assert controller.step([1.0]).health is Health.OPTIMAL


def test_a_model_that_raises_before_there_is_a_plan_is_the_declarations_fault() -> None:
    with pytest.raises(RuntimeError, match="out of the table"):
        MPC(touchy(), NUMPY).step([6.0])


def test_a_solver_that_raises_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = MPC(drift(), NUMPY)
    controller.step([1.0])

    def fail(*arguments: Any, **options: Any) -> Solution:
        raise ArithmeticError

    monkeypatch.setattr(DDP, "solve", fail)
    command = controller.step([1.0])
    assert (command.health, command.cause, command.offset) == (Health.HELD, Cause.ERROR, 1)


def test_a_solver_that_cannot_treat_the_problem_says_so_at_every_tick() -> None:
    controller = MPC(cart(), NUMPY, first_solver=AugmentedLagrangian(inner=NUMPY))
    controller.step([1.0, 0.0])
    with pytest.raises(UnsupportedProblem, match="cannot treat the constraints"):
        controller.step([1.0, 0.0])


def test_the_feedback_of_a_plan_goes_on_without_a_measurement() -> None:
    problem = drift()
    plan = NUMPY.solve(problem)
    controller = PlanFeedback(problem, plan)
    controller.step([1.0])
    command = controller.step(None)
    assert (command.health, command.cause) == (Health.HELD, Cause.MEASUREMENT)
    np.testing.assert_array_equal(command.control, plan.controls[1])
    assert controller.step(plan.states[2]).health is Health.OPTIMAL


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_exported_c_and_python_agree_tick_by_tick_through_dropouts(
    seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Measurements come, are missing in part or whole, or lie where the model is not finite; parameters likewise."""
    folder, problem, rng = tmp_path_factory.mktemp("c"), with_a_hole(), np.random.default_rng(seed)
    export_c(problem, DDP(), folder, "case")
    (folder / "ticks.c").write_text(TICKS)
    choices = [[np.nan, 0.0], [np.nan, np.nan], [20.0, 0.0], [np.inf, 0.0], *[[np.pi, 0.1]] * 6]
    jobs = [(rng.choice([np.pi, np.pi, np.nan]), choices[rng.integers(len(choices))]) for _ in range(40)]
    jobs = [(float(p), [float(x[0] + 0.1 * rng.normal()), float(x[1])]) for p, x in jobs]
    text = "\n".join(f"0 {p!r} {x[0]!r} {x[1]!r}" for p, x in jobs)
    lines = run(build(folder, "case", "ticks"), given=text)
    controller = MPC(problem, DDP(max_iterations=1, engine="numpy"))
    for (p, x), line in zip(jobs, lines, strict=True):
        command = controller.step(x, [p])
        expected = [HEALTHS.index(command.health), IN_C.index(command.status), command.offset, *command.control]
        np.testing.assert_allclose([float(word) for word in line.split()], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_budget_keeps_the_limits_that_the_converged_controller_keeps(method: Any, iterations: int) -> None:
    """With a penalty that begins anew at every tick the speed was five times its limit."""
    loop = simulate(MPC(cart(), method(max_iterations=iterations)), 60)
    assert np.abs(loop.states[:, 1]).max() < 0.05 * 1.01
    assert loop.count(Health.HELD) == 0
    exact = simulate(MPC(cart(), method()), 60)
    assert loop.cost(cart()) == pytest.approx(exact.cost(cart()), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_pushes_do_not_wear_the_penalty_out(method: Any) -> None:
    """Through pushes far beyond the limit, which last for several ticks: later ticks do as well as the first."""
    controller = MPC(cart(), method(max_iterations=3, inner=DDP(engine="c")))
    noise = 1e-3 * np.random.default_rng(0).normal(size=(100, 2))  # the same for the first ticks and the last
    x, healths = np.array([1.0, 0.0]), list[Health]()
    for tick in range(500):
        command = controller.step(x)
        healths.append(command.health)
        if tick % 50 in range(20):
            assert command.health is not Health.HELD
            assert abs(x[1]) < 0.055
        x = A @ x + B @ command.control + noise[tick % 100]
        x = x + np.array([0.0, 0.3]) if tick % 50 == 25 else np.array([1.0, 0.0]) if tick % 50 == 49 else x
    first, last = healths[:200], healths[300:]
    assert last.count(Health.OPTIMAL) >= first.count(Health.OPTIMAL)
    assert last.count(Health.HELD) <= first.count(Health.HELD)


@settings(max_examples=12, deadline=None)
@given(k=st.integers(-8, 8), unit=st.integers(-8, 8), seed=st.integers(0, 9))
def test_the_health_does_not_change_with_the_unit_of_a_row(k: int, unit: int, seed: int) -> None:
    """A plan that breaks a row by a given share of its size: its verdict is that of the share, whatever the unit."""
    rng = np.random.default_rng(seed)
    scale, height = 10.0**k, 10.0**unit
    rows = (
        Constraint(lambda x, u: scale * x[0], -scale * height, scale * height, "both"),
        Constraint(lambda x, u: scale * x[0], -np.inf, 0.7 * scale * height, "one"),
        Constraint(lambda x, u: scale * (x[0] - height), name="none"),
    )
    states = height * rng.uniform(0.5, 1.5, (11, 1))
    for row, size in zip(rows, (1.0, 0.7, np.abs(states).max() / height)):
        problem = drift(constraints=(row,), x0=[height])
        found = MPC(problem, AugmentedLagrangian(inner=NUMPY))._check.along(problem, states, np.zeros((10, 1)))
        excess = float(np.maximum(states[1:-1, 0] / height - (0.7 if row.name == "one" else 1.0), 0.0).max())
        assert found.share == pytest.approx(excess / size, rel=1e-9, abs=1e-12)


UNSAVABLE = [5.0, 3.0]  # three times too fast, with controls that brake by 0.2 per tick


def speedy() -> Problem:
    return cart(
        dynamics=lambda x, u: m.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * u[0]]),
        cost=lambda x, u: x[0] ** 2 + 0.01 * u[0] ** 2,
        terminal_cost=lambda x: x[0] ** 2,
        horizon=15,
        control_bounds=(-2.0, 2.0),
        constraints=(Constraint(lambda x, u: x[1], -1.0, 1.0, "rate"),),
    )


@pytest.mark.slow
@pytest.mark.parametrize("iterations", [1, 500])
@pytest.mark.parametrize("method", [*METHODS, IPOPT, Fatrop])
def test_a_state_that_no_control_can_save_is_never_improving(method: Any, iterations: int) -> None:
    controller = MPC(speedy(), method(max_iterations=iterations))
    assert controller.step([1.0, 0.0]).health in (Health.OPTIMAL, Health.IMPROVING)
    command = controller.step(UNSAVABLE)
    assert (command.health, command.cause) == (Health.HELD, Cause.VIOLATION)
    assert command.start_violation is not None
    assert command.start_violation.amount == pytest.approx(2.0)
    assert command.plan_violation is not None
    assert command.plan_violation.share > 0.1
    assert (command.control >= -2.0).all()


@pytest.mark.parametrize("method", METHODS)
def test_from_such_a_state_the_plan_that_breaks_the_row_least_brakes(method: Any) -> None:
    controller, x, speeds = MPC(speedy(), method(max_iterations=3)), np.array(UNSAVABLE), list[float]()
    controller.step([1.0, 0.0])
    for _ in range(14):
        command = controller.step(x)
        x = np.array([x[0] + 0.1 * x[1], x[1] + 0.1 * command.control[0]])
        speeds.append(x[1])
    assert speeds[8] < 1.3
    assert abs(speeds[-1]) < 1.01
    assert command.health in (Health.OPTIMAL, Health.IMPROVING)


def test_a_first_stage_without_state_rows_may_be_declared_by_hand() -> None:
    """Stages with fewer rows at the start: multipliers are shifted all the same, so that ticks converge."""
    problem = cart()
    free = Stage(problem.stages[0].dynamics, problem.stages[0].cost, -1.0, 1.0)
    by_hand = problem.replace(stages=(free, *problem.stages[1:]))
    loops = [simulate(MPC(each, AugmentedLagrangian(max_iterations=5)), 20) for each in (problem, by_hand)]
    np.testing.assert_allclose(loops[0].states, loops[1].states, atol=1e-6)
    assert loops[1].count(Health.OPTIMAL) == loops[0].count(Health.OPTIMAL) == 20


def test_rows_of_the_first_stage_that_a_control_enters_are_asked() -> None:
    """A mixed constraint has two rows; only the one of the state alone is left out at x_0."""
    mixed = Constraint(lambda x, u: m.stack([x[1], x[1] + u[0]]), [-0.05, -0.6], [0.05, 0.6], "mixed")
    command = MPC(cart(constraints=(mixed,)), AugmentedLagrangian()).step([1.0, 0.1])
    assert command.health is Health.OPTIMAL
    assert abs(0.1 + command.control[0]) <= 0.6 + 1e-6
    assert command.start_violation is not None
    assert command.start_violation.row == "mixed[0]"
    assert command.start_violation.amount == pytest.approx(0.05)


def test_a_plan_dearer_than_the_shifted_one_is_not_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, controller = cart(), MPC(cart(), AugmentedLagrangian(inner=NUMPY))
    first = controller.step([1.0, 0.0])
    assert first.plan is not None
    solve = AugmentedLagrangian.solve
    x = problem.rollout(first.plan.controls)[0][1]

    def stopped_at_a_bad_iterate(self: Any, problem: Any, *arguments: Any, **options: Any) -> Solution:
        from dataclasses import replace

        solution = solve(self, problem, *arguments, **options)
        controls = 0.0 * solution.controls
        controls[0] = 0.5  # stands still from then on
        states, cost = problem.rollout(controls)
        last = replace(solution.history[-1], cost=cost, violation=solution.history[0].violation)
        bad = {"controls": controls, "states": np.array(states), "cost": cost, "status": Status.ITERATION_LIMIT}
        return replace(solution, history=(*solution.history, last), **bad)  # type: ignore[arg-type]

    monkeypatch.setattr(AugmentedLagrangian, "solve", stopped_at_a_bad_iterate)
    command = controller.step(x)
    assert (command.health, command.cause, command.offset) == (Health.HELD, Cause.WORSE, 1)
    assert command.plan is first.plan
    np.testing.assert_allclose(command.control, first.plan.policy(1, x))


def test_the_log_says_why_and_how_far(tmp_path: Path) -> None:
    loop = simulate(MPC(speedy(), AugmentedLagrangian(max_iterations=2)), 2, x0=UNSAVABLE)
    record = loop.log()[1]
    assert (record["health"], record["cause"]) == ("held", "violation")
    assert record["start_violation"] == pytest.approx(loop.states[1, 1] - 1.0)
