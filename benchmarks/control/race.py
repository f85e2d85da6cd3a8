"""All systems on one task, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from statistics import median

from benchmarks.control.clock import Effort, in_turn, ratio
from benchmarks.control.contestant import Contestant, Outcome, System, Unavailable
from benchmarks.control.row import Row, judge
from benchmarks.control.tasks import Task
from ocpkit.problem.constraint_rows import largest_violation, problem_rows, row_values

Report = Callable[[str], None]


def race(task: Task, systems: Iterable[System], effort: Effort, report: Report) -> list[Row]:
    """Prepare, run, then time every system that accepts the task.

    Ratios are to the first of ocpkit's engines that works; a system that cannot run is named through `report`.
    """
    contestants, builds = _prepare(task, systems, report)
    outcomes = {name: contestant.solve() for name, contestant in contestants.items()}
    if not outcomes:
        return []
    solving = in_turn({name: c.solve for name, c in contestants.items()}, effort)
    iterating = _time_iterations(contestants, outcomes, effort)
    ours = next((name for name in contestants if name.startswith("ocpkit")), None)
    rows = []
    constraints = problem_rows(task.problem)
    for name, outcome in outcomes.items():
        states, cost = task.problem.rollout(outcome.controls)
        values = row_values(task.problem, constraints, states, outcome.controls)
        per_iteration = iterating.get(name) or [t / max(outcome.iterations, 1) for t in solving[name]]
        rows.append(
            Row(
                task=task.name,
                system=name,
                n=task.problem.state_sizes[0],
                m=task.problem.control_sizes[0],
                horizon=task.problem.horizon,
                iterations=outcome.iterations,
                cost=cost,
                violation=largest_violation(constraints, values)[0] if any(v.size for v in values) else None,
                per_iteration_us=1e6 * median(per_iteration),
                solve_ms=1e3 * median(solving[name]),
                build_s=builds[name],
                iteration_ratio=ratio(iterating[ours], per_iteration) if ours in iterating else None,
                solve_ratio=ratio(solving[ours], solving[name]) if ours else None,
                note=contestants[name].note,
            )
        )
    return judge(rows)


def _prepare(task: Task, systems: Iterable[System], report: Report) -> tuple[dict[str, Contestant], dict[str, float]]:
    """Set the systems up; return them with their build times [s] by name."""
    contestants, builds = dict[str, Contestant](), dict[str, float]()
    for system in systems:
        if not system.accepts(task):
            continue
        start = time.perf_counter()  # compilers run in processes of their own
        try:
            contestants[system.name] = system.prepare(task)
        except Unavailable as error:
            report(f"{system.name} left out: {error}")
        builds[system.name] = time.perf_counter() - start
    return contestants, builds


def _time_iterations(
    contestants: dict[str, Contestant], outcomes: dict[str, Outcome], effort: Effort
) -> dict[str, list[float]]:
    """Return the time of one iteration [s], turn by turn: that of k iterations at the solution less that of none."""
    actions = dict[str, Callable[[], object]]()
    for name, contestant in contestants.items():
        if contestant.iterate is not None:
            for k in (0, contestant.batch):
                actions[f"{name} {k}"] = partial(contestant.iterate, k, outcomes[name].controls)
    times, per_iteration = in_turn(actions, effort), dict[str, list[float]]()
    for name, contestant in contestants.items():
        if contestant.iterate is not None:
            pairs = zip(times[f"{name} {contestant.batch}"], times[f"{name} 0"])
            per_iteration[name] = [(some - none) / contestant.batch for some, none in pairs]
    return per_iteration
