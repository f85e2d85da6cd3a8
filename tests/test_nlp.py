"""CasADi's NLP solvers on the same problems: the same optimum, the same co-states, honest statuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from problems import BY_NAME, LQRS, Case, HandWritten, HandWrittenCost, blows_up, pendulum_field, runs

import ocpkit.math as m
from ocpkit import (
    DDP,
    IPOPT,
    SQP,
    Constraint,
    Failure,
    Fatrop,
    FunctionTerminalCost,
    Iteration,
    Problem,
    Reason,
    Stage,
    Status,
    UnsupportedProblem,
    registry,
    rk4,
)
from ocpkit.problem.graphs import trace_stage
from ocpkit.solvers.ddp.damping import QUADRATIC
from ocpkit.solvers.nlp import finishing, nlp

ALL = [IPOPT(), Fatrop(), SQP()]
SHARP = DDP(gradient_tolerance=1e-9, cost_tolerance=1e-300, damping=QUADRATIC)  # of two mirrored swing-ups theirs


@pytest.mark.slow
@pytest.mark.parametrize(("case", "solver"), runs("ipopt", "fatrop", "sqp"), ids=str)
def test_same_optimum_as_ddp(case: Case, solver: str) -> None:
    problem = case.problem()
    solution, reference = registry.make(solver).solve(problem), SHARP.solve(problem)
    assert solution.status is Status.CONVERGED
    assert solution.iterations <= case.budget[solver]
    assert solution.cost == pytest.approx(reference.cost, rel=1e-6)
    if case.optimum is not None:
        assert solution.cost == pytest.approx(case.optimum, rel=1e-8)
    for ours, theirs in zip(solution.controls, reference.controls):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    for ours, theirs in zip(solution.value_gradients, reference.value_gradients):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * (1 + np.abs(theirs).max()))


@pytest.mark.parametrize("solver", ALL, ids=lambda s: type(s).__name__)
def test_costates_are_the_riccati_value_gradients(solver: Any) -> None:
    """V_x = P_t x_t, so the sign is that of H = ℓ + pᵀ f."""
    lqr = LQRS[4, 2, 50]
    solution, (P, _) = solver.solve(lqr.problem()), lqr.riccati()
    expected = np.stack([P_t @ x for P_t, x in zip(P, solution.states)])
    np.testing.assert_allclose(solution.value_gradients, expected, rtol=1e-7, atol=1e-8)


def bounded_pendulum(**changes: Any) -> Problem:
    declaration: dict[str, Any] = {
        "dynamics": rk4(pendulum_field, 0.05),
        "cost": lambda x, u: 0.05 * (x[0] ** 2 + 0.1 * u[0] ** 2),
        "terminal_cost": lambda x: x[0] ** 2 + 0.1 * x[1] ** 2,
        "x0": [1.0, 0.0],
        "horizon": 20,
    }
    return Problem.from_functions(**(declaration | changes))


@pytest.mark.parametrize("solver", ALL, ids=lambda s: type(s).__name__)
def test_control_bounds(solver: Any) -> None:
    """At a bounded optimum a projected gradient step of length one does not move the controls."""
    slow = {"dynamics": lambda x, u: m.stack([x[0] + 0.2 * x[1], x[1] + 0.2 * u[0]]), "horizon": 30}
    free, bounded = (
        solver.solve(bounded_pendulum(**slow)),
        solver.solve(bounded_pendulum(**slow, control_bounds=(-0.8, 0.5))),
    )
    assert free.success
    assert bounded.success
    assert bounded.cost > free.cost
    assert bounded.controls.min() == pytest.approx(-0.8, abs=1e-5)
    assert bounded.controls.max() == pytest.approx(0.5, abs=1e-5)
    assert ((bounded.controls > -0.79) & (bounded.controls < 0.49)).sum() > 5
    stage = bounded_pendulum(**slow).stages[0]
    for t, (x, u) in enumerate(zip(bounded.states, bounded.controls)):
        fu, lu = stage.dynamics.jacobians(x, u, np.zeros(0))[1], stage.cost.gradient(x, u, np.zeros(0))[1]
        Qu = lu + fu.T @ bounded.value_gradients[t + 1]
        np.testing.assert_allclose(np.clip(u - Qu, -0.8, 0.5), u, atol=1e-5)


@pytest.mark.parametrize("solver", ALL, ids=lambda s: type(s).__name__)
def test_constraints_at_stages_and_at_the_end(solver: Any) -> None:
    """A speed limit that depends on p, and a terminal equality."""
    problem = bounded_pendulum(
        parameters=[1.2],
        constraints=(Constraint(lambda x, u, p: m.stack([x[1] / p[0], x[1] + 0 * u[0]]), [-1, -10], [1, 10]),),
        terminal_constraints=(Constraint(lambda x: x[0], 0.1, 0.1, "angle"),),
    )
    solution = solver.solve(problem)
    assert solution.status is Status.CONVERGED
    assert np.abs(solution.states[:-1, 1]).max() <= 1.2 + 1e-6
    assert np.abs(solution.states[:-1, 1]).max() >= 1.2 - 1e-4  # it is active
    assert solution.states[-1, 0] == pytest.approx(0.1, abs=1e-7)
    states, _ = problem.rollout(solution.controls)
    np.testing.assert_allclose(np.stack(states), solution.states, atol=1e-6)
    assert solution.history[-1].violation <= 1e-6


@pytest.mark.parametrize("solver", ALL, ids=lambda s: type(s).__name__)
def test_infeasible_is_not_called_solved(solver: Any) -> None:
    limit = Constraint(lambda x: x[0], 50.0, 60.0)
    problem = bounded_pendulum(control_bounds=(-1, 1), terminal_constraints=(limit,))
    solution = type(solver)(max_iterations=60).solve(problem)
    assert not solution.success
    assert solution.status in (Status.INFEASIBLE, Status.GAVE_UP, Status.ITERATION_LIMIT)
    assert solution.history[-1].violation > 1e-3


def test_ipopt_proves_infeasibility() -> None:
    problem = bounded_pendulum(constraints=(Constraint(lambda x, u: u[0] ** 2 + 1, upper=0.5),))
    solution = IPOPT().solve(problem)
    assert solution.status is Status.INFEASIBLE
    assert solution.details.reason == Reason(
        failure=Failure.PLUGIN_STATUS, plugin="ipopt", answer="Infeasible_Problem_Detected"
    )


@pytest.mark.parametrize("solver", [IPOPT, Fatrop, SQP])
def test_iteration_limit(solver: Any) -> None:
    solution = solver(max_iterations=2).solve(BY_NAME["pendulum"].problem())
    assert solution.status is Status.ITERATION_LIMIT
    assert np.isfinite(solution.cost)


@pytest.mark.parametrize("solver", [IPOPT, SQP])
def test_time_limit(solver: Any) -> None:
    solution = solver(time_limit=1e-9).solve(BY_NAME["pendulum"].problem())
    assert solution.status is Status.TIME_LIMIT


@pytest.mark.parametrize("solver", [IPOPT(), SQP()], ids=lambda s: type(s).__name__)
def test_callback_sees_every_iteration_and_can_stop(solver: Any) -> None:
    seen: list[Iteration] = []
    solution = solver.solve(BY_NAME["least-squares"].problem(), callback=seen.append)
    assert [line.index for line in seen] == list(range(solution.iterations + 1))
    assert [line.cost for line in seen] == [line.cost for line in solution.history]
    assert solution.history[0].gradient_norm > 1e-3 > solution.history[-1].gradient_norm
    stopped = solver.solve(BY_NAME["least-squares"].problem(), callback=lambda line: line.index < 2)
    assert stopped.status is Status.STOPPED
    assert stopped.iterations == 2
    assert stopped.cost == solution.history[2].cost


def test_fatrop_reports_guess_and_result() -> None:
    seen: list[Iteration] = []
    solution = Fatrop().solve(BY_NAME["least-squares"].problem(), callback=seen.append)
    assert [line.index for line in seen] == [0, solution.iterations]
    assert solution.iterations > 1


@pytest.mark.parametrize("solver", [IPOPT(), SQP()], ids=lambda s: type(s).__name__)
def test_interrupt_returns_the_iterate(solver: Any) -> None:
    def interrupt(line: Iteration) -> None:
        if line.index == 3:
            raise KeyboardInterrupt

    solution = solver.solve(BY_NAME["pendulum"].problem(), callback=interrupt)
    assert solution.status is Status.INTERRUPTED
    assert solution.iterations == 3
    assert solution.cost == solution.history[3].cost


def test_interrupt_while_the_answer_is_checked_returns_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In DDP, which keeps the interrupt as its own status, and around it."""
    problem = BY_NAME["pendulum"].problem()
    optimum = IPOPT().solve(problem)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    doubt = replace(optimum, status=Status.INTERRUPTED)
    for owner, name, patch in ((finishing.DDP, "solve", lambda *_, **__: doubt), (nlp, "finish", interrupted)):
        monkeypatch.setattr(owner, name, patch)
        solution = IPOPT().solve(problem)
        assert solution.status is Status.INTERRUPTED
        assert solution.cost == optimum.cost


def test_error_in_a_callback_comes_through() -> None:
    def fail(line: Iteration) -> None:
        raise LookupError("from the callback")

    with pytest.raises(LookupError, match="from the callback"):
        IPOPT().solve(BY_NAME["pendulum"].problem(), callback=fail)


@pytest.mark.parametrize("solver", ALL, ids=lambda s: type(s).__name__)
def test_console_stays_silent(solver: Any, capfd: pytest.CaptureFixture[str]) -> None:
    solver.solve(BY_NAME["lqr-2-1-20"].problem())
    assert capfd.readouterr() == ("", "")


def test_warm_start() -> None:
    problem = BY_NAME["pendulum"].problem()
    cold = DDP().solve(problem)
    assert SQP().solve(problem, cold).iterations <= 2
    assert IPOPT().solve(problem, cold).cost == pytest.approx(cold.cost, rel=1e-8)


@pytest.mark.parametrize("solver", [IPOPT(), Fatrop()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("units", [1.0, 1e20])
def test_a_guess_is_not_called_optimal_in_units_that_hide_the_gradient(solver: Any, units: float) -> None:
    """In meters, or in 1e-20 m: the co-states of the latter are below any tolerance, whatever the slope by u is."""
    problem = Problem.from_functions(
        dynamics=lambda x, u: x + 0.1 * units * u,
        cost=lambda x, u: 0.05 * u[0] ** 2,
        terminal_cost=lambda x: (x[0] / units - 1) ** 2,
        x0=[0.0],
        controls=1,
        horizon=20,
    )
    solution, optimum = solver.solve(problem), DDP().solve(problem)
    assert optimum.success
    if solution.success:
        assert solution.cost == pytest.approx(optimum.cost, rel=1e-6)
    else:
        assert units > 1  # at 1 it always succeeds
        assert solution.status is Status.STALLED
        assert solution.details.reason.failure is Failure.CAN_FALL
    assert solver.solve(problem, guess=optimum).success


def test_unstable_system_from_a_state_guess() -> None:
    problem = blows_up()
    assert IPOPT().solve(problem).status is Status.INVALID_INPUT  # its rollout overflows
    solution = IPOPT().solve(problem, states=np.full((31, 1), 3.0))
    assert solution.status is Status.CONVERGED
    assert np.isfinite(problem.rollout(solution.controls)[1])


class Numbers(HandWrittenCost):
    def value(self, x: Any, u: Any, p: Any) -> float:
        return float(super().value(x, u, p))


def test_stage_that_cannot_be_traced_is_named() -> None:
    good, bad = Stage(HandWritten(), HandWrittenCost()), Stage(HandWritten(), Numbers(), name="brake")
    end = FunctionTerminalCost(lambda x: x @ x, 2)
    problem = Problem(stages=(good, bad), terminal_cost=end, x0=np.zeros(2))
    with pytest.raises(UnsupportedProblem, match=r"stage 1 \('brake'\): cost cannot be traced .* 'ddp', 'ilqr'"):
        IPOPT().solve(problem)
    with pytest.raises(UnsupportedProblem, match="dynamics cannot be traced"):
        IPOPT().solve(BY_NAME["black-box"].problem())


def test_traced_stage_equals_the_stage() -> None:
    for name in ("hand-written", "least-squares", "parameters", "cart-pole"):
        problem, rng = BY_NAME[name].problem(), np.random.default_rng(0)
        stage, p = problem.stages[0], problem.parameter(0)
        traced = trace_stage(stage, len(p))
        x, u = rng.normal(size=problem.state_sizes[0]), rng.normal(size=problem.control_sizes[0])
        np.testing.assert_allclose(traced.f(x, u, p).full()[:, 0], stage.dynamics.step(x, u, p), rtol=1e-13)
        assert float(traced.l(x, u, p)) == pytest.approx(stage.cost.value(x, u, p), rel=1e-13)


@pytest.mark.parametrize("solver", ALL, ids=lambda s: type(s).__name__)
def test_a_hanging_pendulum_is_left(solver: Any) -> None:
    """Stationary at u = 0, where the cost is a maximum along a swing; Fatrop cannot be asked a second time."""
    step = rk4(lambda x, u: m.stack([x[1], u[0] - 9.81 * m.sin(x[0])]), 0.05)
    problem = Problem.from_functions(
        dynamics=step,
        cost=lambda x, u: 0.005 * u[0] ** 2,
        terminal_cost=lambda x: 50 * (1 + m.cos(x[0])) + 5 * x[1] ** 2,
        x0=[0.0, 0.0],
        horizon=60,
        control_size=1,
    )
    solution = solver.solve(problem)
    assert solution.status is Status.CONVERGED
    assert solution.cost == pytest.approx(3.6492269753, rel=1e-8)
