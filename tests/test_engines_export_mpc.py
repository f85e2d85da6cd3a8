"""The exported controller: tick by tick what `MPC.step` does, failures included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from problems import BY_NAME
from test_engines_export import build, run
from test_mpc import upright

import ocpkit.math as m
from ocpkit import DDP, MPC, Health, Problem, Status, models
from ocpkit.control.export import export_c

HEALTHS = list(Health)
IN_C = (
    *(Status.ITERATION_LIMIT, Status.CONVERGED, Status.STALLED),
    *(Status.INFEASIBLE, Status.DIVERGED, Status.INVALID_INPUT),
)
TICKS = """
#include <stdio.h>
#include "case.h"
/* Each line of the input: which of two controllers, the parameter, and the state; after a line, what it commands. */
int main(void) {
  static case_mpc controllers[2];
  double x[case_STATE], p, u[case_CONTROL];
  int which;
  while (scanf("%d %lf", &which, &p) == 2) {
    for (int i = 0; i < case_STATE; i++)
      if (scanf("%lf", x + i) != 1) return 1;
    const case_command command = case_mpc_step(controllers + which, x, &p, 1, u);
    printf("%ld %ld %ld", command.health, command.status, command.offset);
    for (int i = 0; i < case_CONTROL; i++) printf(" %.17g", u[i]);
    printf("\\n");
  }
  return 0;
}
"""


def bounded_quadrotor() -> Problem:
    """Rotors that cannot pull, nor push more than twice what hovering needs; 0.6 s of a flip."""
    problem = models.get("quadrotor").build(horizon=30)
    hover = np.asarray(problem.controls[0])
    stage = replace(problem.stages[0], control_lower=0.0 * hover, control_upper=2.0 * hover)
    return problem.replace(stages=(stage,) * 30)


def with_a_hole() -> Problem:
    """Balance a pendulum near p [rad]; the model is not finite beyond 10 rad."""

    def cost(x, u, p):
        return 0.05 * ((x[0] - p[0]) ** 2 + 0.01 * u[0] ** 2 + m.where(m.greater(x[0], 10.0), np.nan, 0.0))

    return upright(cost=cost, terminal_cost=lambda x: 5 * (x[0] - np.pi) ** 2, horizon=5, parameters=[np.pi])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "iterations", "push"),
    [(bounded_quadrotor(), 1, 0.01), (models.get("cartpole-bounded").build(horizon=40), 2, 0.002)],
    ids=["quadrotor", "cartpole"],
)
def test_a_closed_loop_in_c_is_that_of_python(problem: Problem, iterations: int, push: float, tmp_path: Path) -> None:
    """Python is given the states that C measured, and asked for the control at every tick."""
    export_c(problem, DDP(), tmp_path, "case")
    lines = run(build(tmp_path, "case", "closed_loop"), "40", str(iterations), str(push))
    rows = np.array([[float(word) for word in line.split()] for line in lines])[:, 1:]
    n, step = len(problem.x0), problem.stages[0].dynamics.step
    told, states, controls = rows[:, :6], rows[:, 6 : 6 + n], rows[:, 6 + n :]
    controller = MPC(problem, DDP(max_iterations=iterations, engine="numpy"))
    commands = [controller.step(x) for x in states]
    expected = [
        [HEALTHS.index(c.health), IN_C.index(c.status), c.iterations, c.offset, c.plan.history[-1].gap, c.cost]
        for c in commands
        if c.plan is not None
    ]
    np.testing.assert_allclose(told, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(controls, [command.control for command in commands], rtol=1e-9, atol=1e-9)
    moved = np.array([step(x, u, problem.parameter(0)) for x, u in zip(states, controls)])[:-1]
    assert 0 < np.abs(states[1:] - moved).max() <= push * (1 + 1e-9)
    lower, upper = problem.stages[0].control_lower, problem.stages[0].control_upper
    assert ((controls == lower) | (controls == upper)).any(axis=1).sum() > 3


def test_failures_hold_the_plan_until_it_is_used_up(tmp_path: Path) -> None:
    """What a supervisor is told is what Python tells; two controllers in one program do not disturb each other."""
    problem = with_a_hole()
    export_c(problem, DDP(), tmp_path, "case")
    (tmp_path / "ticks.c").write_text(TICKS)
    rng, jobs = np.random.default_rng(0), list[tuple[int, float, list[float]]]()
    for tick in range(10):
        beyond = 2 <= tick < 8
        jobs.append((0, np.pi, [20.0, 0.0] if beyond else [np.pi + 0.1 * rng.normal(), 0.0]))
        jobs.append((1, np.pi + 0.1 * tick, [np.pi + 0.1 * rng.normal(), 0.0]))
    text = "\n".join(" ".join(map(repr, [which, float(p), *map(float, x)])) for which, p, x in jobs)
    lines = run(build(tmp_path, "case", "ticks"), given=text)
    controllers = [MPC(problem, DDP(max_iterations=1, engine="numpy")) for _ in range(2)]
    for (which, p, x), line in zip(jobs, lines, strict=True):
        command = controllers[which].step(x, [p])
        expected = [HEALTHS.index(command.health), IN_C.index(command.status), command.offset, *command.control]
        np.testing.assert_allclose([float(word) for word in line.split()], expected, rtol=1e-9, atol=1e-9)
    healths = [int(line.split()[0]) for line in lines[::2]]
    assert healths[2:8] == [2, 2, 2, 2, 3, 3]


def test_a_measurement_that_is_not_finite_leaves_the_plan_to_go_on_alone(tmp_path: Path) -> None:
    problem = with_a_hole()
    export_c(problem, DDP(), tmp_path, "case")
    (tmp_path / "ticks.c").write_text(TICKS)
    p = repr(np.pi)
    lost, first, alone = (
        line.split() for line in run(build(tmp_path, "case", "ticks"), given=f"1 {p} nan 0\n0 {p} 3.3 0\n0 {p} nan 0\n")
    )
    assert lost == ["3", "5", "0", "nan"]
    assert first[0] == "0"
    plan = MPC(problem, DDP(engine="numpy")).step([3.3, 0.0]).plan
    assert plan is not None
    assert alone[:3] == ["2", "5", "1"]
    assert float(alone[3]) == pytest.approx(plan.controls[1][0], abs=1e-8)


def test_stages_of_several_sizes_have_a_solver_but_no_receding_horizon(tmp_path: Path) -> None:
    files = export_c(BY_NAME["varying-sizes"].problem(), DDP(), tmp_path, "case")
    assert "closed_loop.c" not in {path.name for path in files}
    assert "mpc" not in (tmp_path / "case.h").read_text()
