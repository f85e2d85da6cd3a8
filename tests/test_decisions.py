"""The decision table of DDP against what the NumPy loop, the batch and the loop in C do, by problems for its rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import ocpkit.math as m
from ocpkit import DDP, Damping, LineSearch, Problem, Status, models, solve_batch
from ocpkit.recursion.curvature import Identity
from ocpkit.solvers.ddp.batched import BatchedDDP
from ocpkit.solvers.ddp.damping import QUADRATIC, Level
from ocpkit.solvers.ddp.decisions import DECISIONS, Change, End, Event, end_of_progress, of_infinity, of_step

SCHEDULES = {
    "geometric": Damping(),
    "quadratic": QUADRATIC,
    "started": Damping(initial=3.0),
    "state": Damping(target="state"),
}


# ------------------------------------------------------------------------------------------------ the schedule
@pytest.mark.parametrize("schedule", [Damping(), QUADRATIC])
def test_the_schedule_by_hand(schedule: Damping) -> None:
    f, least = schedule.factor, schedule.minimum
    up = [f, f**2, f**3] if schedule.growth == "quadratic" else [f, f, f]
    level, expected = schedule.start(), least
    for i, factor in enumerate(up):
        level = schedule.raised(level)
        expected = expected if i == 0 else expected * factor
        assert level.value == pytest.approx(expected, rel=1e-14)
    level = schedule.lowered(Level(1.0, 1.0))
    assert level.value == pytest.approx(1 / f)
    second = 1 / f**3 if schedule.growth == "quadratic" else 1 / f**2
    assert schedule.lowered(level).value == pytest.approx(second)
    assert schedule.lowered(Level(least, 1.0)).value == 0
    assert not schedule.exhausted(Level(schedule.maximum, 1.0))
    assert schedule.exhausted(schedule.raised(Level(schedule.maximum, 1.0)))


# ------------------------------------------------------------------------------------------------ μ along a solve
def swing_up(controls: float = 0.1) -> Problem:
    """A pendulum that starts where Q_uu is indefinite."""
    return Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + 0.2 * x[1], x[1] + 0.2 * (u[0] - 9.81 * m.sin(x[0]))]),
        cost=lambda x, u: 0.01 * u[0] ** 2 + 0.5 * m.cos(2 * x[0]),
        terminal_cost=lambda x: 30 * (1 + m.cos(x[0])) + 3 * x[1] ** 2,
        x0=[0.3, 0.0],
        horizon=15,
        controls=[controls],
    )


PROBLEMS = {
    "swing": swing_up,
    "far": lambda: swing_up(15.0),
    "acrobot": lambda: models.get("acrobot").build(),
    "cart-pole": lambda: models.get("cartpole").build(),
}


def replayed(schedule: Damping, level: Level, step_size: float, found: float) -> Level | None:
    """The level after an iteration that the table allows, and whose μ is the one found; None if there is none.

    The event of the step comes first, then Q_uu may be indefinite, or barely definite, any number of times.
    """
    event = of_step(step_size) if step_size > 0 else Event.NO_STEP
    change = {Change.LOWER: schedule.lowered, Change.RAISE: schedule.raised, Change.KEEP: lambda level: level}
    level = change[DECISIONS[event].change](level)
    for _ in range(200):
        if level.value == pytest.approx(found, rel=1e-12, abs=0):
            return level
        level = change[DECISIONS[Event.INDEFINITE].change](level)
    return None


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vm", "c"])  # the loop in Python, with the faster sweeps, and the one in C
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_damping_follows_the_table(name: str, schedule: str, engine: str) -> None:
    damping = SCHEDULES[schedule]
    solution = DDP(engine=engine, damping=damping, max_iterations=60).solve(PROBLEMS[name]())
    history = list(solution.history)
    level: Level | None = damping.start()
    if history[0].regularization != damping.initial:  # Q_uu was indefinite at the guess
        level = replayed(damping, Level(damping.initial, 1.0), 0.0, history[0].regularization)
    seen = set()
    for line, following in pairwise(history[1:]):
        assert level is not None
        assert line.regularization == pytest.approx(level.value, rel=1e-12)
        seen.add(of_step(line.step_size) if line.step_size > 0 else Event.NO_STEP)
        level = replayed(damping, level, line.step_size, following.regularization)
    assert Event.LARGE_STEP in seen


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_damping_of_a_batch_follows_the_table(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each problem of a batch has the damping that the NumPy engine gives it alone, after every iteration."""
    damping, guesses = SCHEDULES[schedule], np.array([0.1, 3.0, 15.0])
    path = list[dict[int, float]]()
    step = BatchedDDP._step

    def watched(self: BatchedDDP) -> None:
        path.append({int(i): float(mu) for i, mu in zip(self.progress.number, self.progress.damping)})
        step(self)

    monkeypatch.setattr(BatchedDDP, "_step", watched)
    solver = DDP(damping=damping, max_iterations=20)
    solve_batch(swing_up(), controls=guesses[:, None, None] * np.ones((3, 15, 1)), solver=solver)
    for i, guess in enumerate(guesses):
        alone = replace(solver, engine="numpy").solve(swing_up(guess))
        ours = [levels[i] for levels in path if i in levels]
        assert ours == pytest.approx([line.regularization for line in alone.history[1:]], rel=1e-9)


# ------------------------------------------------------------------------------------------------ how solves end
def cubic(**changes: Any) -> Problem:
    """ℓ = u³ + u: no minimum, and Q_uu < 0 for u < 0."""
    declaration: dict[str, Any] = {"dynamics": lambda x, u: x + u, "cost": lambda x, u: -(u[0] ** 2)}
    declaration |= {"terminal_cost": lambda x: 0 * x[0], "x0": [0.0], "horizon": 2, "controls": [-1.0]}
    return Problem.from_functions(**(declaration | changes))


@dataclass(frozen=True)
class Ending:
    """A problem whose solve ends by one row of the table."""

    event: Event
    problem: Any
    solver: DDP
    exhausted: bool = False
    blown_up: bool = False


ENDINGS = {
    "not finite at the guess": Ending(
        Event.NOT_FINITE_AT_GUESS,
        lambda: cubic(cost=lambda x, u: m.sqrt(u[0]) + u[0] ** 2, controls=[0.0]),
        DDP(),
    ),
    "indefinite at the largest damping": Ending(
        Event.INDEFINITE, cubic, DDP(damping=Damping(maximum=0.5, minimum=0.1)), exhausted=True
    ),
    "no step at the largest damping": Ending(
        Event.NO_STEP,
        lambda: swing_up(15.0),
        DDP(damping=Damping(maximum=5e-3), line_search=LineSearch(min_step_size=1.0, armijo=0.999)),
        exhausted=True,
    ),
    "no finite step": Ending(
        Event.NO_FULL_STEP,
        lambda: cubic(
            cost=lambda x, u: (u[0] - 3) ** 2, terminal_cost=lambda x: m.log(2 - x[0]) * 1e-6, controls=[0.0]
        ),
        DDP(line_search=None, damping=Damping(maximum=5e-3)),
        exhausted=True,
    ),
    "falls for ever": Ending(
        Event.BOTTOMLESS,
        lambda: cubic(cost=lambda x, u: -m.exp(-u[0]) * 1e-3, controls=[0.0]),
        DDP(max_iterations=5000),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["numpy", "c", "batch"])
@pytest.mark.parametrize("name", ENDINGS)
def test_an_ending_follows_the_table(name: str, engine: str) -> None:
    ending = ENDINGS[name]
    decision = DECISIONS[ending.event]
    expected = decision.exhausted if ending.exhausted else decision.status
    if expected is End.OF_PROGRESS:
        expected = end_of_progress(blown_up=ending.blown_up, closed=True)
    if engine == "batch":
        status = solve_batch(ending.problem(), solver=ending.solver).status[0]
    else:
        status = replace(ending.solver, engine=engine).solve(ending.problem()).status
    assert status is expected


def test_a_curvature_of_ones_own_is_not_damped() -> None:
    """Where nothing can be raised, a refused step is the end."""
    solution = DDP(curvature=Identity(1e3), max_iterations=50).solve(swing_up())
    assert solution.status in (Status.STALLED, Status.ITERATION_LIMIT)
    assert all(line.regularization == 0 for line in solution.history)


def test_the_ends_of_progress() -> None:
    assert end_of_progress(blown_up=True, closed=True) is Status.DIVERGED
    assert end_of_progress(blown_up=False, closed=True) is Status.STALLED
    assert end_of_progress(blown_up=False, closed=False) is Status.GAVE_UP


def test_every_event_has_a_row() -> None:
    assert {*DECISIONS} == {*Event}
    assert of_infinity(had_policy=True) is Event.NOT_FINITE
