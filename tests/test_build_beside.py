"""Builds beside: a solve never waits for a compiler, and what is begun leaves nothing behind."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import casadi as ca
import numpy as np
import pytest
from problems import BY_NAME, scalar

from ocpkit import DDP, MPC, AugmentedLagrangian, InteriorPoint, Problem, Status, UnsupportedProblem, models
from ocpkit.autodiff.symbol import from_casadi, to_casadi
from ocpkit.engines.c import build as builds
from ocpkit.engines.c import library
from ocpkit.engines.c.build import begin_build
from ocpkit.engines.c.compiler import CompilerError, find_compiler
from ocpkit.engines.graphs import trace_problem
from ocpkit.solution.history import Iteration
from ocpkit.solvers.ddp import switch

LONGEST = 60.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds_beside: None) -> Path:
    """An empty cache."""
    monkeypatch.setenv("OCPKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def slow_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a compiler hang, with a process of its own; return the file that says that it has begun."""
    script, begun = tmp_path / "cc", tmp_path / "begun"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo slow 1.0 && exit\nsleep 61.5 & echo $! > {begun}.new\n'
        f"mv {begun}.new {begun}; wait\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(script))
    return begun


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(process: int) -> bool:
    """Whether a process has ended; one that nobody waits for stays in the table."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def built(problem: Problem) -> Callable[[Iteration], None]:
    """A callback that holds a solve until its solver is built."""

    def wait(line: Iteration) -> None:
        with suppress(UnsupportedProblem):
            begin_build(trace_problem(problem)).wait(LONGEST)

    return wait


# ------------------------------------------------------------------------------------------------ switching
def test_a_solve_goes_over_to_c_in_the_middle(folder: Path) -> None:
    """The rest goes on as if nothing had happened, and the next solve is in C from the start."""
    problem = BY_NAME["pendulum"].problem()
    solution, reference = DDP().solve(problem, callback=built(problem)), DDP(engine="numpy").solve(problem)
    assert solution.details.engine == "c"
    assert "from iteration" in solution.details.why
    assert solution.details.seconds.compile > 0
    assert solution.details.seconds.generate > 0
    assert solution.iterations == reference.iterations
    for line, expected in zip(solution.history, reference.history, strict=True):
        assert line.cost == pytest.approx(expected.cost, rel=1e-9)
        assert (line.step_size, line.regularization) == (expected.step_size, expected.regularization)
    assert "from iteration" not in DDP().solve(problem).details.why


@pytest.mark.parametrize("iteration", [0, 1, 4])
def test_gaps_and_damping_go_along(iteration: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From wherever a solve goes over, gaps open or closed, what Q_uu is damped in included."""
    problem = BY_NAME["pendulum"].problem()
    torn = np.random.default_rng(3).standard_normal((61, 2))
    monkeypatch.setattr(switch, "WORTH", float("inf"))

    def go_over(line: Iteration) -> None:
        if line.index == iteration:
            monkeypatch.setattr(switch, "WORTH", 0.0)
            built(problem)(line)

    solution = DDP().solve(problem, states=torn, callback=go_over)
    reference = DDP(engine="numpy").solve(problem, states=torn)
    assert solution.details.why.endswith(f"from iteration {iteration + 2} on")
    assert solution.iterations == reference.iterations
    for line, expected in zip(solution.history, reference.history, strict=True):
        assert line.cost == pytest.approx(expected.cost, rel=1e-9)
        assert line.gap == pytest.approx(expected.gap, rel=1e-7)


def test_c_without_optimization_serves_until_the_other_is_ready(folder: Path) -> None:
    """A solve takes first the one and then the other, each from the memory as it is; one file is left."""
    problem, engines = BY_NAME["pendulum"].problem(), list[bool]()
    build = begin_build(trace_problem(problem))

    def watch(line: Iteration) -> None:
        if line.index == 1:
            wait_for(lambda: build.look() is not None)
        if line.index == 3:
            build.wait(LONGEST)
        assert (build.library is None) <= (line.index < 3)
        engines.append(build.look() is build.quick)

    solution, reference = DDP().solve(problem, callback=watch), DDP(engine="numpy").solve(problem)
    assert build.quick is not None
    assert build.quick.quick
    assert not build.library.quick
    assert build.library.origin in solution.details.why
    assert [line.cost for line in solution.history] == pytest.approx(
        [line.cost for line in reference.history], rel=1e-9
    )
    assert len(list(folder.glob("*.so"))) == 1


def test_a_later_process_goes_on_from_what_an_interrupted_build_has_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = BY_NAME["pendulum"].problem()
    build = begin_build(trace_problem(problem))
    wait_for(lambda: build.look() is not None)
    build.end()
    if build.library is not None:
        pytest.skip("the compiler was quicker than this test")
    monkeypatch.setattr(library, "_loaded", {})
    first = DDP().solve(problem, callback=lambda line: None if line.index else wait_for_library(problem))
    assert first.details.engine == "c"
    assert first.details.seconds.compile > 0
    assert len(list(folder.glob("*.so"))) == 1


def wait_for_library(problem: Problem) -> None:
    begin_build(trace_problem(problem)).wait(LONGEST)


@pytest.mark.parametrize("solver", [AugmentedLagrangian(), InteriorPoint()], ids=["al", "ip"])
def test_constrained_solvers_compile_what_they_solve(solver: AugmentedLagrangian, folder: Path) -> None:
    problem = models.get("minimum-time").build(horizon=10)
    reference = solver.solve(problem)
    build = solver.compile(problem)
    assert build is not None
    assert build.wait(LONGEST) is not None
    solution = solver.solve(problem)
    assert (reference.details.engine, solution.details.engine) == ("vm", "c")
    assert solution.cost == pytest.approx(reference.cost, rel=1e-8)


def test_an_operation_that_c_lacks(folder: Path) -> None:
    problem = Problem.from_functions(
        dynamics=lambda x, u: x + u + 0.1 * from_casadi(ca.erfinv(0.1 * to_casadi(x)))[:, 0],
        cost=lambda x, u: x[0] ** 4 + u[0] ** 2,
        terminal_cost=lambda x: x[0] ** 2,
        x0=[1.0],
        horizon=3,
        control_size=1,
    )
    assert "has no counterpart in C's library" in DDP().solve(problem, callback=built(problem)).details.why


def test_one_build_for_all_who_ask(folder: Path) -> None:
    first, second = (begin_build(trace_problem(scalar(0.71))) for _ in range(2))
    assert first is second
    assert first.wait(LONGEST) is second.wait(LONGEST)
    assert begin_build(trace_problem(scalar(0.71))).look() is first.library
    assert len(list(folder.glob("*.so"))) == 1


def test_the_next_build_begins_when_its_turn_comes(folder: Path) -> None:
    first, second = (begin_build(trace_problem(scalar(a))) for a in (0.72, 0.73))
    assert first.process is not None
    assert second.process is None
    assert second.wait(LONGEST) is not None
    assert first.wait(LONGEST) is not None


def test_nothing_is_built_where_that_is_forbidden(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCPKIT_BUILD_BESIDE", "0")
    assert "OCPKIT_BUILD_BESIDE=0" in DDP().solve(scalar(0.74)).details.why
    assert DDP().compile(scalar(0.74)) is None


# ------------------------------------------------------------------------------------- a compiler that hangs
@pytest.mark.parametrize("engine", ["auto", "c"])
def test_the_time_limit_holds_whatever_the_compiler_does(
    engine: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_compiler(tmp_path, monkeypatch)
    problem = models.get("pendulum").build()
    began, spent = time.perf_counter(), time.process_time()
    solution = DDP(engine=engine, time_limit=0.5, gradient_tolerance=1e-300, cost_tolerance=1e-300).solve(problem)
    assert time.perf_counter() - began < LONGEST / 2  # a busy machine may stop this process, but not for so long
    assert time.process_time() - spent < 2.0
    assert solution.status in (Status.TIME_LIMIT, Status.STALLED, Status.CONVERGED)
    if engine == "c":
        assert solution.status is Status.TIME_LIMIT
        assert "was not compiled within 0.35 s" in solution.details.why
    begin_build(trace_problem(problem)).end()


def test_the_end_of_a_build_ends_its_compiler(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = slow_compiler(tmp_path, monkeypatch)
    build = begin_build(trace_problem(scalar(0.75)))
    wait_for(begun.exists)
    build.end()
    wait_for(lambda: gone(int(begun.read_text())))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("ending", ["exit", "kill", "fork"])
def test_a_build_ends_with_the_process_that_wants_it(
    ending: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where that is killed; a process forked in the middle has nothing to do with it."""
    begun = slow_compiler(tmp_path, monkeypatch)
    lasting = "time.sleep(60)" * (ending == "kill")
    forked = "import os; child = os.fork()\nif child == 0: sys.exit(0)\nos.waitpid(child, 0)\n" * (ending == "fork")
    code = (
        "import sys, time; from pathlib import Path; from ocpkit.engines.c.build import begin_build\n"
        "from ocpkit.engines.graphs import trace_problem; from problems import scalar\n"
        "build = begin_build(trace_problem(scalar(0.76)))\n"
        f"while not Path({str(begun)!r}).exists(): time.sleep(0.02)\n"
        f"{forked}assert build.look() is None\nprint(build.process.pid, flush=True)\n{lasting}"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        builder = int(process.stdout.readline())
        if ending == "kill":
            process.send_signal(signal.SIGKILL)
        process.wait(LONGEST)
    wait_for(lambda: gone(builder) and gone(int(begun.read_text())))
    assert list(folder.iterdir()) == []


def test_a_builder_that_is_killed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = slow_compiler(tmp_path, monkeypatch)
    build = begin_build(trace_problem(scalar(0.77)))
    wait_for(begun.exists)
    assert build.process is not None
    build.process.kill()
    with pytest.raises(CompilerError, match="was killed by signal 9"):
        build.wait(LONGEST)
    assert DDP().solve(scalar(0.77)).details.why.endswith("was killed by signal 9")
    os.kill(int(begun.read_text()), signal.SIGKILL)


def test_no_processes_are_to_be_had(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    find_compiler()  # which starts one
    monkeypatch.setattr(builds.subprocess, "Popen", refuse)
    solution = DDP().solve(scalar(0.78))
    assert solution.success
    assert "no process can be started beside: Resource temporarily unavailable" in solution.details.why


# -------------------------------------------------------------------------------------------- a controller
def test_a_controller_builds_before_it_runs(folder: Path) -> None:
    controller = MPC(models.get("pendulum").build(), DDP(max_iterations=2))
    assert controller.warm_up(LONGEST)
    assert controller.plan is None
    command = controller.step(controller.problem.x0)
    assert command.plan is not None
    assert command.plan.details.engine == "c"
    assert (command.tick, len(folder.parts) > 0) == (0, True)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_controller_is_copied_in_the_middle_of_its_build(duplicate: Callable[[MPC], MPC], folder: Path) -> None:
    """The copy builds for itself, or takes what the other one has built."""
    controller = MPC(models.get("pendulum").build(), DDP(max_iterations=2))
    other = duplicate(controller)
    assert other.step(other.problem.x0).plan is not None
    assert controller.warm_up(LONGEST)
    assert other.warm_up(LONGEST)


def test_a_build_that_was_ended_begins_again(folder: Path) -> None:
    build = begin_build(trace_problem(scalar(0.79)))
    build.end()
    assert build.wait(LONGEST) is not None


def test_ticks_do_not_wait_for_a_compiler_that_hangs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_compiler(tmp_path, monkeypatch)
    controller = MPC(models.get("pendulum").build(), DDP(max_iterations=2))
    assert not controller.warm_up(0.1)
    command = controller.step(controller.problem.x0)
    assert command.seconds < 10
    assert command.plan is not None
    assert command.plan.details.engine == "vm"
    begin_build(trace_problem(controller.problem)).end()


def test_without_a_compiler_a_controller_is_rehearsed_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    controller = MPC(models.get("pendulum").build(), DDP(max_iterations=2), delay=1)
    assert not controller.warm_up()
    assert (controller.tick, controller.plan, len(controller.pending)) == (0, None, 1)
