"""One compiled solver per structure: problems that differ in the numbers of their model share it, each with its own."""

from __future__ import annotations

import itertools
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import casadi as ca
import numpy as np
import pytest
from problems import LQR, HandWritten, HandWrittenCost
from test_engines import assert_equal_blocks, assert_equal_solves, shaken
from typer.testing import CliRunner

import ocpkit.math as m
from ocpkit import DDP, ILQR, AugmentedLagrangian, FunctionTerminalCost, InteriorPoint, Problem, Stage, models
from ocpkit.autodiff.symbol import from_casadi, to_casadi
from ocpkit.cli.commands import app
from ocpkit.engines.c import emit, library
from ocpkit.engines.c.build import begin_build
from ocpkit.engines.c.cache import open_cache
from ocpkit.engines.c.source import c_source
from ocpkit.engines.graphs import ProblemGraph, trace_problem
from ocpkit.engines.numbers import MOST

NUMBERS: dict[str, dict[str, float]] = {
    "cartpole": {"cart_mass": 1.1, "pole_mass": 0.13, "length": 0.6, "gravity": 9.81, "force_weight": 0.013},
    "cartpole-bounded": {"cart_mass": 1.1, "force_limit": 7.0, "time_step": 0.021},
    "quadrotor": {"mass": 0.45, "arm": 0.17, "drag_torque": 0.0245, "level_weight": 4.3, "time_step": 0.019},
    "pendulum": {"mass": 1.1, "length": 0.9, "damping": 0.05, "torque_weight": 0.11},
    "goddard": {"thrust_limit": 3.3, "drag": 310.0, "exhaust_speed": 0.47},
    "unicycle-obstacles": {"speed_weight": 0.12, "turn_weight": 0.13, "terminal_weight": 110.0},
}
"""Numbers of tasks, none of which the model has twice."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a process that has loaded nothing."""
    monkeypatch.setenv("OCPKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(library, "_loaded", {})
    return tmp_path / "cache"


def family(name: str, count: int, **more: Any) -> list[Problem]:
    """The same task with other numbers."""
    rng = np.random.default_rng(len(name))
    drawn = ({key: value * rng.uniform(0.9, 1.1) for key, value in NUMBERS[name].items()} for _ in range(count))
    return [models.get(name).build(**numbers, **more) for numbers in drawn]


def built() -> int:
    return len(open_cache().entries())


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_do_not_show_in_the_text(name: str) -> None:
    graphs = [trace_problem(problem) for problem in family(name, 5)]
    texts, keys = ({each(graph) for graph in graphs} for each in (_text, lambda graph: graph.structure_key))
    assert len(texts) == len(keys) == 1
    assert len({graph.key for graph in graphs}) == len({tuple(graph.numbers) for graph in graphs}) == 5
    (text,) = texts
    for value in np.concatenate([graph.numbers for graph in graphs]):
        digits = emit.literal(abs(value))
        assert len(digits) < 7 or digits not in text


def _text(graph: ProblemGraph) -> str:
    return c_source(graph.structure()).text


@pytest.mark.parametrize("name", ["cartpole", "cartpole-bounded", "pendulum"])
def test_one_build_serves_a_family(name: str, folder: Path) -> None:
    """With curvature and without: also what follows from the numbers alone is each problem's own."""
    for problem in map(shaken, family(name, 4, horizon=12)):
        for solver in (DDP(max_iterations=2), ILQR(max_iterations=2)):
            ours, reference = (replace(solver, engine=engine).solve(problem) for engine in ("c", "numpy"))
            assert ours.details.engine == "c"
            assert_equal_blocks(ours, reference)
    assert built() == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "solver"),
    [("goddard", InteriorPoint), ("unicycle-obstacles", AugmentedLagrangian), ("unicycle-obstacles", InteriorPoint)],
)
def test_numbers_of_priced_rows(name: str, solver: Callable[..., Any], folder: Path) -> None:
    for problem in family(name, 3):
        ours, reference = (solver(inner=DDP(engine=engine)).solve(problem) for engine in ("c", "numpy"))
        assert ours.details.engine == "c"
        assert ours.status is reference.status
        assert ours.cost == pytest.approx(reference.cost, rel=1e-6)
    assert built() == 1


def test_the_cache_shows_one_solver_for_five_masses(folder: Path) -> None:
    for mass in (0.7, 0.8, 0.9, 1.1, 1.3):
        assert DDP(engine="c").solve(models.get("cartpole").build(cart_mass=mass, pole_mass=0.13)).success
    said = CliRunner().invoke(app, ["cache", "list", "--json"]).stdout
    assert said.count('"problem": "cartpole"') == built() == 1


def test_a_build_beside_is_ready_for_other_numbers(folder: Path) -> None:
    first, second = (trace_problem(problem) for problem in family("pendulum", 2))
    assert begin_build(first).wait(120) is not None
    assert begin_build(second).look() is not None


def linear(a: float, q: float, target: float) -> Problem:
    """A problem whose Jacobian, Hessian and a gradient follow from numbers alone."""
    return Problem.from_functions(
        dynamics=lambda x, u: m.stack([x[0] + 0.3 * a * x[1] - a, a * x[1] + 0.3 * q * u[0]]),
        cost=lambda x, u: q * (x[0] - target) ** 2 + a * q * u[0] ** 2 + target * x[1],
        terminal_cost=lambda x: q * target * x[0] ** 2 + q * a * x[1] ** 2 - target * a * x[0],
        x0=[1.0, -1.0],
        horizon=6,
        control_size=1,
    )


def test_derivatives_that_are_numbers(folder: Path) -> None:
    rng = np.random.default_rng(3)
    for a, q, target in rng.uniform(0.6, 0.9, (4, 3)):
        ours, reference = (DDP(engine=engine).solve(linear(a, q, target)) for engine in ("c", "numpy"))
        assert_equal_solves(ours, reference)
    assert built() == 1


def test_stages_of_one_structure_keep_their_own_numbers(folder: Path) -> None:
    def problem(factors: list[float]) -> Problem:
        parts = [linear(factor, 1.1 * factor, 0.7).stages[0] for factor in factors]
        return Problem(
            stages=[part for part in parts for _ in range(3)], terminal_cost=_end(factors[0]), x0=[1.0, -1.0]
        )

    for factors in ([0.61, 0.83], [0.77, 0.59]):
        ours, reference = (DDP(engine=engine).solve(problem(factors)) for engine in ("c", "numpy"))
        assert_equal_solves(ours, reference)
    assert built() == 1


def _end(weight: float) -> FunctionTerminalCost:
    return FunctionTerminalCost(lambda x: weight * x @ x, 2)


# ------------------------------------------------------------------------------- several problems of one library
def test_solves_in_turn_and_in_threads(folder: Path) -> None:
    """Advanced one iteration at a time, so that solves of several numbers are in progress at once."""
    problems = family("cartpole", 3)
    alone = [DDP(engine="c").solve(problem) for problem in problems]

    def solve(i: int) -> tuple[int, Any]:
        return i, DDP(engine="c").solve(problems[i], callback=lambda *_: None)

    order = [0, 1, 0, 2, 1, 0, 2, 1, 0]
    with ThreadPoolExecutor(3) as pool:
        for i, solution in itertools.chain(map(solve, order), pool.map(solve, order)):
            assert solution.cost == alone[i].cost
            np.testing.assert_array_equal(solution.controls, alone[i].controls)
    assert built() == 1


def _cost(pickled: bytes) -> tuple[float, str]:
    solution = DDP(engine="c").solve(pickle.loads(pickled))
    return solution.cost, solution.details.why


@pytest.mark.parametrize(
    "method", [each for each in ("fork", "spawn") if each in multiprocessing.get_all_start_methods()]
)
def test_copies_in_other_processes(method: str, folder: Path) -> None:
    """Forked with the library loaded, or fresh."""
    problems = family("cartpole", 3, horizon=20)
    expected = [DDP(engine="c").solve(problem).cost for problem in problems]
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map(_cost, [pickle.dumps(problem) for problem in problems], 1)
    assert [cost for cost, _ in found] == expected
    assert built() == 1


# ------------------------------------------------------------------------------------------ what stays in the text
def test_values_that_the_structure_depends_on_make_another_one(folder: Path) -> None:
    """A factor 1 is none, 0 leaves a term out, and equal numbers are one."""
    keys = {trace_problem(linear(*numbers)).structure_key for numbers in [(0.7, 0.8, 0.6), (1.0, 0.8, 0.6)]}
    keys |= {trace_problem(linear(*numbers)).structure_key for numbers in [(0.7, 0.8, 0.0), (0.7, 0.7, 0.7)]}
    assert len(keys) == 4
    for numbers in [(1.0, 0.8, 0.6), (0.7, 0.8, 0.0), (0.7, 0.7, 0.7)]:
        ours, reference = (DDP(engine=engine).solve(linear(*numbers)) for engine in ("c", "numpy"))
        assert_equal_solves(ours, reference)


def test_matrices_of_data_stay_tables() -> None:
    """Products of many numbers are CasADi's to compute, once; the key knows them then."""
    graphs = [trace_problem(LQR.random(MOST // 10, 2, 5, seed=seed).problem()) for seed in (1, 2)]
    for graph in graphs:
        assert len(graph.stage_types[0].numbers) == 0
        assert graph.stage_types[0].structure() is graph.stage_types[0]
    assert graphs[0].structure_key != graphs[1].structure_key


def test_tables_of_casadi_keep_their_numbers() -> None:
    def problem(height: float) -> Problem:
        grid = np.linspace(-4.0, 4.0, 9)
        table = ca.interpolant("table", "bspline", [grid], height * np.sin(grid))
        return Problem.from_functions(
            dynamics=lambda x, u: x + 0.3 * u,
            cost=lambda x, u: u[0] ** 2 + from_casadi(table(to_casadi(x[0])))[0, 0],
            terminal_cost=lambda x: 0.3 * x[0] ** 2,
            x0=[1.0],
            horizon=4,
            control_size=1,
        )

    first, second = (trace_problem(problem(height)).stage_types[0] for height in (0.1, 0.2))
    assert len(first.numbers) == 0
    assert first.structure_key != second.structure_key


@pytest.mark.parametrize("name", NUMBERS)
def test_graphs_without_numbers_are_the_same_functions(name: str) -> None:
    rng = np.random.default_rng(5)
    (problem,) = family(name, 1)
    for graph in trace_problem(problem).stage_types:
        structure, sizes = graph.structure(), (graph.state_size, graph.control_size, graph.parameter_size)
        x, u, p = (rng.uniform(0.2, 0.9, size) for size in sizes)
        longer, v = np.concatenate([p, graph.numbers]), rng.standard_normal(graph.next_state_size)
        pairs = [(graph.dynamics.f, structure.dynamics.f), (graph.cost.g, structure.cost.g)]
        pairs += [(graph.dynamics.jacobian, structure.dynamics.jacobian)]
        for original, lifted in pairs:
            np.testing.assert_allclose(lifted(x, u, longer), original(x, u, p), rtol=1e-12, atol=1e-14)
        hessians = (each.dynamics.derivatives.hessian_graph for each in (graph, structure))
        original, lifted = (h(x, u, q, v) for h, q in zip(hessians, (p, longer)))
        np.testing.assert_allclose(lifted, original, rtol=1e-10, atol=1e-12)


def test_hand_written_parts(folder: Path) -> None:
    for dt in (0.11, 0.12, 0.13):
        dynamics = HandWritten()
        dynamics.dt = dt
        stage = Stage(dynamics, HandWrittenCost())
        problem = Problem(stages=(stage,) * 10, terminal_cost=_end(3 * dt), x0=[1.5, 0.0])
        ours, reference = (DDP(engine=engine).solve(problem) for engine in ("c", "numpy"))
        assert_equal_solves(ours, reference)
    assert built() == 1
