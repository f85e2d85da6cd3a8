"""A warm start goes on from the whole state of a constrained solver: multipliers, penalty, barrier, inner tolerance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ocpkit.math as m
from ocpkit import (
    DDP,
    AugmentedLagrangian,
    Barrier,
    Constraint,
    InteriorPoint,
    Penalty,
    Problem,
    ProblemError,
    Solution,
    Status,
    shifted,
)

A, B = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.005], [0.1]])
METHODS = [AugmentedLagrangian, InteriorPoint]


def cart(**changes: Any) -> Problem:
    """A cart on a track that must not be faster than 0.05."""
    declaration: dict[str, Any] = {
        "dynamics": lambda x, u: A @ x + B @ u,
        "cost": lambda x, u: 10 * x[0] ** 2 + 0.01 * u[0] ** 2,
        "terminal_cost": lambda x: 100 * x @ x,
        "x0": [1.0, 0.0],
        "horizon": 30,
        "control_size": 1,
        "control_bounds": (-1, 1),
        "constraints": (Constraint(lambda x, u: x[1], -0.05, 0.05, "speed"),),
    }
    return Problem.from_functions(**(declaration | changes))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["numpy", "c"])
@pytest.mark.parametrize("method", METHODS)
def test_the_next_tick_starts_as_far_as_the_last_one_came(method: Any, engine: str) -> None:
    """Cold, the speed is 16 times its limit on the way; with a penalty that begins anew it is twice the limit."""
    problem, solver = cart(), method(inner=DDP(engine=engine))
    solved = solver.solve(problem)
    tick = problem.replace(x0=solved.states[1])
    guess = shifted(tick, solved)
    warm, cold = solver.solve(tick, guess, states=guess.states), solver.solve(tick)
    assert warm.success
    assert warm.cost == pytest.approx(cold.cost, rel=1e-6)
    assert max(line.violation for line in warm.history) < 1e-3
    assert max(line.violation for line in cold.history) > 0.5
    assert warm.iterations < cold.iterations
    assert warm.history[0].penalty == solved.history[-1].penalty


@pytest.mark.parametrize("engine", ["numpy", "c"])
@pytest.mark.parametrize("method", METHODS)
def test_a_guess_may_be_vectors_or_the_rows_of_an_array(method: Any, engine: str) -> None:
    problem, solver = cart(), method(max_iterations=2, inner=DDP(engine=engine))
    controls, states = np.full((30, 1), -0.1), np.linspace([1.0, 0.0], [0.8, 0.0], 31)
    rows = solver.solve(problem, controls=controls, states=states)
    vectors = solver.solve(problem, controls=[*controls], states=[*states])
    np.testing.assert_array_equal(rows.controls, vectors.controls)
    assert rows.cost == vectors.cost


@pytest.mark.parametrize("method", METHODS)
def test_c_and_python_go_on_alike(method: Any) -> None:
    problem = cart()
    first = [method(max_iterations=3, inner=DDP(engine=engine)).solve(problem) for engine in ("numpy", "c")]
    assert first[0].warm_start == first[1].warm_start
    again = [method(inner=DDP(engine=engine)).solve(problem, one) for engine, one in zip(("numpy", "c"), first)]
    for line, other in zip(*(one.history for one in again), strict=True):
        assert line.penalty == other.penalty
        assert line.violation == pytest.approx(other.violation, rel=1e-4, abs=1e-9)
    assert again[0].warm_start == again[1].warm_start


@pytest.mark.parametrize("method", METHODS)
def test_a_solve_cut_in_pieces_ends_where_the_whole_does(method: Any) -> None:
    problem = cart()
    whole, piece = method().solve(problem), method(max_iterations=2).solve(problem)
    for _ in range(whole.iterations):
        if piece.success:
            break
        piece = method(max_iterations=2).solve(problem, piece)
    assert piece.success
    assert piece.cost == pytest.approx(whole.cost, rel=1e-6)


def test_options_that_ask_for_more_are_kept() -> None:
    solved = AugmentedLagrangian().solve(cart())
    assert solved.warm_start is not None
    assert 1e3 < solved.warm_start.penalty < 1e6
    strong = AugmentedLagrangian(penalty=Penalty(initial=1e6), gradient_tolerance=1e-4).solve(cart(), solved)
    assert strong.history[0].penalty == 1e6
    weak = AugmentedLagrangian(penalty=Penalty(maximum=1e5)).solve(cart(), solved)
    assert weak.history[0].penalty == 1e3  # two powers below the largest, which leaves it room to grow


def test_another_structure_begins_anew() -> None:
    """Multipliers that do not fit are left out, and the penalty that belongs to them."""
    solved = AugmentedLagrangian().solve(cart())
    two = cart(constraints=(*cart().stages[0].constraints, Constraint(lambda x, u: x[0], -9.0, 9.0, "rail")))
    solver = AugmentedLagrangian()
    assert solver.solve(two, solved).history[0].penalty == solver.penalty.initial


def test_a_barrier_begins_at_its_first_value_behind_a_method_without() -> None:
    solved = AugmentedLagrangian().solve(cart())
    assert InteriorPoint().first(solved.warm_start, Barrier()).barrier == Barrier().first
    inside = InteriorPoint().solve(cart(), solved)
    assert inside.warm_start is not None
    assert inside.warm_start.barrier == Barrier().last


def test_what_grew_in_vain_is_not_handed_on() -> None:
    hopeless = cart(constraints=(Constraint(lambda x, u: m.stack([u[0]]), 2.0, np.inf, "more than there is"),))
    failed = AugmentedLagrangian().solve(hopeless)
    assert failed.status in (Status.INFEASIBLE, Status.GAVE_UP)
    assert failed.warm_start is not None
    assert failed.warm_start.penalty == Penalty().initial


def test_it_is_saved_with_the_solution(tmp_path: Path) -> None:
    solved = AugmentedLagrangian(max_iterations=3).solve(cart())
    solved.save(tmp_path / "s.npz")
    assert Solution.load(tmp_path / "s.npz").warm_start == solved.warm_start
    assert solved.warm_start is not None
    assert DDP().solve(cart(constraints=())).warm_start is None


def test_a_horizon_that_shrinks_goes_on_from_the_last_solve() -> None:
    """A landing: every solve ends at the same moment; each but the first needs a few outer iterations."""
    h = 0.1

    def landing(horizon: int, x0: Any) -> Problem:
        return Problem.from_functions(
            dynamics=lambda x, u: m.stack([x[0] + h * x[1], x[1] + h * (u[0] - 1.0)]),
            cost=lambda x, u: h * u[0] ** 2,
            terminal_cost=lambda x: 0.0 * x[0],
            x0=x0,
            horizon=horizon,
            control_size=1,
            control_bounds=(0, 3),
            constraints=(Constraint(lambda x, u: x[1], -1.2, 1.2, "speed"),),
            terminal_constraints=(Constraint(lambda x: x, 0, 0, "touchdown"),),
        )

    solver, x = AugmentedLagrangian(inner=DDP(engine="numpy")), np.array([2.0, 0.0])
    plan, paid, iterations = solver.solve(landing(30, x)), 0.0, list[int]()
    best = plan.cost
    for left in range(29, 20, -1):
        x, paid = plan.states[1], paid + h * plan.controls[0, 0] ** 2
        problem = landing(left, x)
        with pytest.raises(ProblemError, match=rf"{left + 1} entries, expected {left}.*shifted"):
            solver.solve(problem, plan)
        guess = shifted(problem, plan)
        plan = solver.solve(problem, guess, states=guess.states)
        assert plan.success
        assert paid + plan.cost == pytest.approx(best, rel=1e-5)
        iterations.append(plan.iterations)
    assert sum(iterations) <= 3 * len(iterations)


def test_a_plan_of_other_sizes_is_not_shifted() -> None:
    plan = DDP().solve(cart(constraints=()))
    other = cart(
        dynamics=lambda x, u: x + m.stack([u[0], u[1]]), control_size=2, constraints=(), cost=lambda x, u: u @ u
    )
    with pytest.raises(ProblemError, match=r"one size, here \(2, 2\)"):
        shifted(other, plan)
