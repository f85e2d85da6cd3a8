"""The control benchmark: its rows, the rule of equal optimality, and the command; nothing here looks at a speed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import page
from benchmarks.control import sweeps, targets
from benchmarks.control.clock import Effort
from benchmarks.control.contestant import Contestant, Outcome, Unavailable
from benchmarks.control.page import sections
from benchmarks.control.race import race
from benchmarks.control.row import INFEASIBLE, OTHER_OPTIMUM, Row, judge
from benchmarks.control.systems.casadi_nlp import Nlp
from benchmarks.control.systems.ocpkit_constrained import Constrained
from benchmarks.control.systems.ocpkit_ddp import Ocpkit
from benchmarks.control.tasks import CONSTRAINED, LQR, TASKS, Task, classic
from ocpkit import Details, models
from ocpkit.solvers.nlp.nlp import IPOPT, Fatrop

ROOT = Path(__file__).resolve().parents[1]
ONE_TURN = Effort(rounds=2, seconds=0.0, budget=0.0)
REQUIRED = ["task", "system", "n", "m", "horizon", "iterations", "cost", "per_iteration_us", "solve_ms", "build_s"]


class Loser:
    """A system that returns a poor answer and claims to have converged."""

    name = "loser"

    def accepts(self, task: Task) -> bool:
        return True

    def prepare(self, task: Task) -> Contestant:
        return Contestant(lambda: Outcome(0.3 * np.ones((task.problem.horizon, 1)), 7))


class Missing(Loser):
    name = "missing"

    def prepare(self, task: Task) -> Contestant:
        raise Unavailable("pip install missing")


@pytest.fixture(scope="module")
def pendulum() -> tuple[list[Row], list[str]]:
    """Rows of a short race with two impostors, and what it reported."""
    said: list[str] = []
    systems = [
        Missing(),
        Nlp("IPOPT", IPOPT(tolerance=1e-6), "expand"),
        Nlp("fatrop", Fatrop(tolerance=1e-6), "expand"),
        Ocpkit("numpy"),
        Loser(),
    ]
    return race(classic("pendulum", horizon=20), systems, ONE_TURN, said.append), said


def test_every_system_that_can_run_gets_a_whole_row(pendulum: tuple[list[Row], list[str]]) -> None:
    rows, said = pendulum
    assert [row.system for row in rows] == ["IPOPT expand", "fatrop expand", "ocpkit numpy", "loser"]
    assert said == ["missing left out: pip install missing"]
    for row in rows:
        assert (row.n, row.m, row.horizon) == (2, 1, 20)
        assert all(value > 0 for value in (row.per_iteration_us, row.solve_ms, row.build_s, row.iterations))


def test_only_equal_optima_are_compared(pendulum: tuple[list[Row], list[str]]) -> None:
    *honest, loser = pendulum[0]
    assert all(row.solve_ratio is not None and not row.note for row in honest)
    assert loser.solve_ratio is None
    assert loser.note.startswith(OTHER_OPTIMUM)


def test_ratios_are_to_ocpkit(pendulum: tuple[list[Row], list[str]]) -> None:
    ours = next(row for row in pendulum[0] if row.system == "ocpkit numpy")
    assert (ours.solve_ratio, ours.iteration_ratio) == (1.0, 1.0)


@given(
    best=st.floats(1e-3, 1e6),
    excess=st.floats(0, 1e-3).filter(lambda e: not 0.99e-6 < e < 1.01e-6),
    negative=st.booleans(),
)
def test_the_rule_is_relative_to_the_best_cost(best: float, excess: float, negative: bool) -> None:
    best = -best if negative else best
    row = Row(task="t", system="a", n=1, m=1, horizon=1, cost=best, solve_ratio=1.0)
    first, second = judge([row, replace(row, system="b", cost=best + excess * abs(best))])
    assert first == row
    assert (second.solve_ratio is None) == (excess > 1e-6)
    assert second.note.startswith(OTHER_OPTIMUM) == (excess > 1e-6)


def test_a_cost_that_is_not_a_number_is_another_optimum() -> None:
    row = Row(task="t", system="a", n=1, m=1, horizon=1, cost=1.0, solve_ratio=1.0)
    good, bad = judge([row, replace(row, cost=float("nan"))])
    assert good.solve_ratio == 1.0
    assert bad.solve_ratio is None


def test_an_infeasible_row_is_neither_the_best_nor_compared() -> None:
    row = Row(task="t", system="a", n=1, m=1, horizon=1, cost=2.0, violation=1e-9, solve_ratio=1.0)
    ours, cheat = judge([row, replace(row, system="b", cost=1.0, violation=1e-3)])
    assert ours == row
    assert cheat.solve_ratio is None
    assert cheat.note.startswith(INFEASIBLE)


def test_constrained_tasks_are_raced_by_both_methods() -> None:
    task = Task(f"{CONSTRAINED} x", lambda: models.get("bryson-denham").build(horizon=10, time_step=0.1), method="al")
    systems = [Ocpkit("vm"), Constrained("vm"), Constrained("vm", other=True), Nlp("IPOPT", IPOPT(), "adaptive")]
    rows = race(task, systems, ONE_TURN, str)
    assert [row.system for row in rows] == ["ocpkit vm", "ocpkit vm other method", "IPOPT adaptive"]
    assert [row.note.partition(",")[0] for row in rows] == ["al", "ip", ""]
    assert all(row.solve_ratio is not None and row.violation <= 2e-8 for row in rows)
    verdicts = {verdict.target: verdict for verdict in targets.judge_targets(rows)}
    assert verdicts["violation, ocpkit vm"].met
    assert verdicts["solve / IPOPT adaptive"].limit == targets.CONSTRAINED_IPOPT


def test_every_task_under_general_constraints_is_raced() -> None:
    raced = {task.name.removeprefix(f"{CONSTRAINED} ") for task in TASKS if task.method}
    assert raced >= {name for name in models.names() if models.get(name).solver == "auto"}


@settings(deadline=None)
@given(st.floats(0, 100), st.floats(0.01, 10), st.floats(0.2, 0.5))
def test_growth_is_measured_as_the_distance_from_a_line(start: float, slope: float, bend: float) -> None:
    row = Row(task=sweeps.HORIZON_SWEEPS[0], system="ocpkit c", n=3, m=2, horizon=1)
    line = [replace(row, horizon=T, per_iteration_us=start + slope * T) for T in sweeps.HORIZONS]
    found = sweeps.fit(line)
    assert found.deviation < 1e-6
    np.testing.assert_allclose(found.slope, slope, rtol=1e-6)
    bent = [replace(r, per_iteration_us=r.per_iteration_us * (1 + bend * (r.horizon == 1000))) for r in line]
    assert sweeps.fit(bent).deviation > bend / 3
    (verdict,) = targets.judge_targets(line)
    assert verdict.met


def test_targets_are_judged_on_the_ratios_of_the_peers() -> None:
    row = Row(task="lqr-40-10", system="Crocoddyl C++", n=40, m=10, horizon=100, iteration_ratio=0.5)
    peers = [row, replace(row, system="fatrop expand", solve_ratio=0.3), replace(row, system="IPOPT expand")]
    assert [verdict.met for verdict in targets.judge_targets(peers)] == [True, False, None]


def test_the_linear_quadratic_tasks_are_stable_and_convex() -> None:
    source = LQR.random(12, 4, 5)
    assert np.abs(np.linalg.eigvals(source.A)).max() < 1
    for weight in (source.Q, source.R, source.F):
        assert np.linalg.eigvalsh(weight).min() > 0


def test_the_page_keeps_what_people_wrote(tmp_path: Path) -> None:
    path, row = tmp_path / "page.md", Row(task="t", system="a", n=1, m=1, horizon=1)
    path.write_text(f"# Title\n{page.START}old{page.END}\nWhat bounds it.\n")
    page.write(path, "Title", "command", {"processor": "abacus"}, sections([row], []))
    text = path.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("\nWhat bounds it.\n")
    assert "abacus" in text
    assert "old" not in text
    path.write_text("no marks")
    with pytest.raises(ValueError, match="no marks"):
        page.write(path, "Title", "command", {}, [])


def test_an_engine_that_did_not_run_is_not_measured_under_its_name() -> None:
    ran = SimpleNamespace(details=Details(engine="numpy", why="no compiler found"))
    assert Ocpkit("numpy").ran(ran)  # type: ignore[arg-type]
    assert not Ocpkit("c").ran(ran)  # type: ignore[arg-type]


def test_the_command_writes_a_list_of_rows(tmp_path: Path) -> None:
    target = tmp_path / "rows.json"
    command = [sys.executable, "-m", "benchmarks.control", "--quick", "--only", "call-overhead", "--json", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    rows = json.loads(target.read_text())
    assert rows
    for row in rows:
        assert set(REQUIRED) <= set(row)
        assert row["task"] == "call-overhead"
        assert row["solve_ms"] > 0
        assert {"processor", "casadi", "numpy"} <= set(row["machine"])
