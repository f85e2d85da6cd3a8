"""Pictures: panels per unit, bounds, convergence; animations: length, speed and what is drawn."""

from contextlib import contextmanager

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import StepPatch
from PIL import Image

from ocpkit import (
    DDP,
    MPC,
    AugmentedLagrangian,
    FunctionCost,
    FunctionDynamics,
    FunctionTerminalCost,
    Problem,
    ProblemError,
    Solution,
    Stage,
    simulate,
)
from ocpkit import math as m
from ocpkit.models.task import Task
from ocpkit.plotting.plot import animate, animation_writer, plot_closed_loop, plot_solution
from ocpkit.solution.history import Iteration
from ocpkit.solution.solution import Status


def build(horizon=40, **options):
    return Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * u[0], x[2] + 0.1 * u[1]]),
        cost=lambda x, u: u[0] ** 2 + u[1] ** 2,
        terminal_cost=lambda x: m.dot(x, x),
        x0=[1.0, 0.0, 1.0],
        horizon=horizon,
        **options,
    )


def make_task(seen=None, **changes):
    def draw(axes, x, u):
        if seen is not None:
            seen.append((x.copy(), u.copy()))
        axes.plot([x[0]], [x[2]], *([[0.0]] if len(axes.name) == 2 else []), marker="o")

    choices = {
        "name": "carts",
        "summary": "bring two carts home",
        "source": "none",
        "build": build,
        "time_step": 0.1,
        "state_labels": ("first position [m]", "first speed [m/s]", "second position [m]"),
        "control_labels": ("force [N]", "speed command [m/s]"),
        "draw": draw,
        "view": (-1.5, 1.5, -1.0, 1.5),
    }
    return Task(**(choices | changes))


def still(states):
    """A solution that no solver has touched, without controls to speak of."""
    return Solution(
        problem_name="p",
        solver="s",
        states=states,
        controls=np.zeros((len(states) - 1, 2)),
        cost=np.nan,
        status=Status.INVALID_INPUT,
        history=(Iteration(index=0, cost=np.nan),),
    )


def seconds_of(path):
    with Image.open(path) as image:
        durations = []
        for i in range(image.n_frames):
            image.seek(i)
            durations.append(image.info["duration"] / 1000)
    return sum(durations)


def labels(figure):
    return [axes.get_ylabel() for axes in figure.axes]


def test_entries_of_one_unit_share_a_panel():
    figure = plot_solution(DDP().solve(build()), make_task())
    assert labels(figure) == [
        "states [m]",
        "first speed [m/s]",
        "force [N]",
        "speed command [m/s]",
        "gain ‖K‖",
        "convergence",
    ]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "first position",
        "second position",
    ]
    assert all(axes.get_xlabel() == "time [s]" for axes in figure.axes[:-1])
    assert figure.axes[0].get_xlim() == pytest.approx((0, 4))
    assert "converged" in figure.get_suptitle()


def test_costs_end_at_the_cost_and_gains_are_those_of_the_policy():
    problem = build()
    solution = DDP().solve(problem)
    figure = plot_solution(solution, problem=problem)
    assert labels(figure) == ["states", "controls", "gain ‖K‖", "cost", "convergence"]
    running, total = figure.axes[3].lines
    x, u = solution.states, solution.controls
    phi = problem.terminal_cost.value(x[-1], problem.parameters)
    assert np.all(np.diff(running.get_ydata()) >= 0)
    assert running.get_ydata()[-1] == pytest.approx(sum(a[0] ** 2 + a[1] ** 2 for a in u))
    assert total.get_ydata() == pytest.approx([running.get_ydata()[-1] + phi])
    drawn = [patch for patch in figure.axes[2].patches if isinstance(patch, StepPatch)]
    gains = [np.linalg.norm(K[1]) for K in solution.feedback_gains]
    assert drawn[1].get_data().values == pytest.approx(gains)


def test_without_a_task_entries_are_numbered_and_time_counts_stages():
    figure = plot_solution(DDP().solve(build()))
    assert labels(figure) == ["states", "controls", "gain ‖K‖", "convergence"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["x[0]", "x[1]", "x[2]"]
    assert figure.axes[0].get_xlabel() == "stage"


def test_curves_hold_the_numbers_of_the_solution():
    solution = DDP().solve(build())
    figure = plot_solution(solution)
    states, controls = figure.axes[0].lines, [p for p in figure.axes[1].patches if isinstance(p, StepPatch)]
    assert np.array_equal(np.stack([line.get_ydata() for line in states], axis=1), solution.states)
    assert np.array_equal(np.stack([patch.get_data().values for patch in controls], axis=1), solution.controls)


@pytest.mark.slow
def test_bounds_are_drawn_where_they_are_finite():
    problem = build(control_bounds=([-1.0, -np.inf], [1.0, 0.5]))
    free = plot_solution(DDP().solve(build()), problem=build())
    held = plot_solution(DDP().solve(build()), problem=problem)
    assert len(held.axes[1].patches) - len(free.axes[1].patches) == 3


def test_sizes_that_change_along_the_horizon():
    wide, narrow = (
        FunctionDynamics(lambda x, u: m.stack([x[0] + u[0]]), 2, 1, next_state_size=1),
        FunctionDynamics(lambda x, u: x + u[0] + u[1], 1, 2),
    )
    stages = [
        Stage(wide, FunctionCost(lambda x, u: u[0] ** 2, 2, 1)),
        Stage(narrow, FunctionCost(lambda x, u: m.dot(u, u), 1, 2)),
    ]
    problem = Problem(tuple(stages), FunctionTerminalCost(lambda x: x[0] ** 2, 1), np.ones(2))
    figure = plot_solution(DDP().solve(problem), problem=problem)
    assert [len(axes.lines) for axes in figure.axes[:1]] == [2]


def test_a_history_without_numbers_still_draws(tmp_path):
    plot_solution(still(np.zeros((3, 1))), path=tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_picture_is_saved_and_the_users_figures_are_left_alone(tmp_path):
    backend = matplotlib.get_backend()
    plot_solution(DDP().solve(build()), make_task(), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert min(image.size) > 500
    assert matplotlib.get_backend() == backend


@pytest.mark.slow
def test_animation_runs_in_real_time_and_holds_its_end(tmp_path):
    seen = []
    solution, task = DDP().solve(build()), make_task(seen)
    animate(solution, task, tmp_path / "a.gif")
    assert seconds_of(tmp_path / "a.gif") == pytest.approx(4.0 + 1.0, rel=0.05)
    assert np.array_equal(seen[0][0], solution.states[0])
    assert np.array_equal(seen[-1][0], solution.states[-1])
    assert np.array_equal(seen[-1][1], solution.controls[-1])


class FakeWriter:
    """Counts frames instead of drawing them."""

    def __init__(self, path, fps):
        self.fps, self.frames = fps, 0

    @contextmanager
    def saving(self, figure, path, dpi):
        yield

    def grab_frame(self):
        self.frames += 1


@pytest.mark.parametrize("horizon", [1, 7, 100, 300, 5000])
@pytest.mark.parametrize("time_step", [0.001, 0.02, 0.05, 0.4])
def test_an_animation_has_at_most_150_frames_in_real_time_if_these_suffice(horizon, time_step, monkeypatch):
    made = []
    monkeypatch.setattr("ocpkit.plotting.plot.animation_writer", lambda *a: made.append(FakeWriter(*a)) or made[0])
    seen, states = [], np.arange(horizon + 1.0)[:, None] * np.ones(3)
    animate(still(states), make_task(seen, time_step=time_step), "a.gif")
    (writer,) = made
    assert writer.frames <= 150
    assert 10 <= writer.fps <= 25
    assert [seen[0][0][0], seen[-1][0][0]] == [0, horizon]
    steps = writer.frames - round(writer.fps) - 1
    if time_step <= 0.1 and 0.5 <= horizon * time_step <= 12:
        assert steps / writer.fps == pytest.approx(horizon * time_step, rel=0.05)


def test_animation_in_three_dimensions_and_other_time_units(tmp_path):
    task = make_task(view=(-1, 1, -1, 1, 0, 2), time_unit="year")
    animate(DDP().solve(build(3)), task, tmp_path / "a.gif")
    assert seconds_of(tmp_path / "a.gif") > 1


def test_an_animation_as_a_page_holds_its_frames_and_its_controls(tmp_path):
    animate(DDP().solve(build(3)), make_task(), tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert page.count("data:image/png;base64") > 3
    assert "play_animation" in page
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


@pytest.mark.parametrize(
    ("name", "message"), [("a.avi", "ends in .gif, .html or .mp4"), ("a.mp4", "needs the program ffmpeg")]
)
def test_formats_that_cannot_be_written(name, message, monkeypatch):
    monkeypatch.setattr("matplotlib.animation.FFMpegWriter.isAvailable", lambda: False)
    with pytest.raises(ProblemError, match=message):
        animation_writer(name)


# ------------------------------------------------------------------------------------------------- closed loops
def test_a_closed_loop_shows_states_controls_bounds_cost_and_the_health_of_each_tick(tmp_path):
    problem = build(horizon=10, control_bounds=(-1.0, [0.5, np.inf]))
    loop = simulate(MPC(problem, AugmentedLagrangian()), 7, time_step=0.1)
    figure = plot_closed_loop(loop, make_task(), tmp_path / "loop.png", problem=problem)
    assert (tmp_path / "loop.png").stat().st_size > 1000
    positions, speeds, force, command, cost, solve = figure.axes
    np.testing.assert_array_equal(positions.lines[0].get_ydata(), loop.states[:, 0])
    np.testing.assert_allclose(speeds.lines[0].get_xdata(), np.arange(8) * 0.1)
    assert [len(stairs_of(axes)) for axes in (force, command)] == [3, 2]
    np.testing.assert_array_equal(stairs_of(force)[0].get_data().values, loop.controls[:, 0])
    np.testing.assert_array_equal(cost.lines[0].get_ydata(), [each.cost for each in loop.commands])
    assert [line.get_label() for line in solve.lines] == ["optimal"]
    np.testing.assert_allclose(solve.lines[0].get_ydata(), 1e3 * loop.seconds)
    assert "7 ticks (optimal 7)" in figure.get_suptitle()


def test_a_lost_loop_is_drawn_and_says_when():
    problem = build(horizon=2)
    loop = simulate(MPC(problem), 5, plant=lambda x, u: np.full(3, 1e200))
    figure = plot_closed_loop(loop)
    assert loop.lost_at == 2
    assert "lost at tick 2" in figure.get_suptitle()
    assert [line.get_label() for line in figure.axes[-1].lines] == ["optimal", "held", "lost"]


def test_a_loop_has_the_time_unit_of_its_task():
    task = make_task(lambda *_: None, time_unit="year")
    loop = simulate(MPC(build(horizon=2)), 2)
    assert {axes.get_xlabel() for axes in plot_closed_loop(loop, task).axes} == {"time [year]"}
    assert {axes.get_xlabel() for axes in plot_closed_loop(loop).axes} == {"time [s]"}


def test_a_loop_that_was_lost_at_once_has_a_picture_and_no_animation(tmp_path):
    problem = build(horizon=2).replace(x0=np.full(3, 1e200))
    loop = simulate(MPC(problem), 5)
    assert loop.lost_at == 0
    assert "lost at tick 0" in plot_closed_loop(loop).get_suptitle()
    with pytest.raises(ProblemError, match="nothing to animate"):
        animate(loop, make_task(lambda *_: None), tmp_path / "a.gif")


def stairs_of(axes):
    return [patch for patch in axes.patches if isinstance(patch, StepPatch)]
