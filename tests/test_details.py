"""What solvers say, as records: kept in files, read from older ones, and put into the words that are printed."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from problems import BY_NAME

from ocpkit import (
    DDP,
    Details,
    Failure,
    Iteration,
    PhaseTimes,
    Reason,
    Solution,
    WorstRow,
)
from ocpkit.engines.numpy import NumpyEngine
from ocpkit.recursion.curvature import Exact
from ocpkit.solvers.driver import Run, Solver

SAVED = Path(__file__).parent / "saved"  # by version 0.1, whose details were sentences


def full() -> Details:
    """Details with a value in each field."""
    return Details(
        engine="c",
        why="compiled in 0.3 s",
        reason=Reason(failure=Failure.START_BREAKS_ROW, stage=0, row="rail[1]", amount=0.25),
        violation=WorstRow(amount=0.5, row="rest[0]", stage=20, end=True),
        inner_iterations=12,
        cost_without_noise=3.5,
        stationary_points_left=2,
        seconds=PhaseTimes(derivatives=0.1, backward=0.2, forward=0.3, line_search=0.4, compile=0.5),
        notes={"sweeps": "7"},
    )


def test_a_record_survives_a_file() -> None:
    empty = Details()
    assert all(getattr(full(), each.name) != getattr(empty, each.name) for each in fields(Details))
    for details in (empty, full()):
        assert Details.from_record(json.loads(json.dumps(details.as_record())), 20) == details


def test_words_are_read_back() -> None:
    """All but the seconds, which are not printed."""
    assert Details.from_words(full().words(), 20) == replace(full(), seconds=PhaseTimes())
    assert Details.from_words({}, 20) == Details()


@pytest.mark.parametrize("failure", Failure)
def test_the_reason_of_every_failure_is_read_back_from_its_sentence(failure: Failure) -> None:
    given: dict[str, Any] = {"stage": 3, "row": "rail[1]", "amount": 0.5, "iterations": 7}
    given |= {"plugin": "ipopt", "answer": "Restoration_Failed"}
    own = {name: value for name, value in given.items() if f"{{{name}" in failure.value}
    reason = Reason(failure=failure, **own)
    assert "{" not in str(reason)
    assert Reason.from_words(str(reason)) == reason


@pytest.mark.parametrize(
    ("worst", "words"),
    [
        (WorstRow(amount=0.0), "0.00e+00"),
        (WorstRow(amount=9.81, row="too far[0]", stage=20, end=True), "9.81e+00 (largest: 'too far[0]' at the end)"),
        (WorstRow(amount=0.3, row="it's", stage=4), '3.00e-01 (largest: "it\'s" at stage 4)'),
        (WorstRow(amount=0.1, stage=7, state=1), "1.00e-01 (largest: the dynamics of stage 7, state 1)"),
    ],
)
def test_the_worst_row_in_words(worst: WorstRow, words: str) -> None:
    assert str(worst) == words
    assert WorstRow.from_words(words, 20) == worst


# --------------------------------------------------------------------------------------------------- old files
OLD = {
    "ddp": Details(engine="numpy", why="as asked"),
    "al": Details(
        engine="numpy",
        why="as asked",
        violation=WorstRow(amount=1.30e-11, row="push", stage=4),
        inner_iterations=8,
    ),
    "al-outside": Details(
        reason=Reason(failure=Failure.START_BREAKS_ROW, stage=0, row="rail", amount=0.3),
        violation=WorstRow(amount=0.3, row="rail", stage=0),
        inner_iterations=0,
    ),
    "ipopt": Details(engine="casadi ipopt"),
    "emsa": Details(engine="numpy"),
    "gd": Details(engine="numpy"),
    "ilqg": Details(inner_iterations=4, cost_without_noise=3.77580936),
}


@pytest.mark.parametrize("name", OLD)
def test_a_file_of_an_older_version_is_read(name: str, tmp_path: Path) -> None:
    solution = Solution.load(SAVED / f"{name}.npz")
    assert solution.details == OLD[name]
    solution.save(tmp_path / "again.npz")
    again = Solution.load(tmp_path / "again.npz")
    assert (again.details, repr(again.history)) == (solution.details, repr(solution.history))
    assert str(again) == str(solution)


def test_all_files_are_looked_at() -> None:
    assert {path.stem for path in SAVED.glob("*.npz")} == {*OLD}


# --------------------------------------------------------------------------------------------- what a solve says
@pytest.mark.parametrize("engine", ["numpy", "vm"])
def test_the_seconds_of_the_phases_are_those_of_the_solve(engine: str) -> None:
    problem, solver = BY_NAME["pendulum"].problem(), DDP(engine=engine)
    solver.solve(problem)  # whose derivatives are built now
    solution = solver.solve(problem)
    phases = solution.details.seconds
    parts = [phases.derivatives, phases.backward, phases.forward]
    assert all(part is not None and part > 0 for part in parts)
    assert phases.line_search == 0  # every step is a full one, or none
    assert 0 < sum(filter(None, parts)) < solution.seconds
    assert phases.compile is None


def test_phases_add_up() -> None:
    a, b = PhaseTimes(backward=1.0, compile=2.0), PhaseTimes(backward=0.5, forward=0.25)
    assert a + b == b + a == PhaseTimes(backward=1.5, forward=0.25, compile=2.0)


# -------------------------------------------------------------------------------------------------- deprecated
def test_details_by_key_are_deprecated() -> None:
    details = full()
    with pytest.warns(DeprecationWarning, match="use its attributes"):
        assert details["inner iterations"] == "12"
    with pytest.warns(DeprecationWarning, match="use its attributes"):
        assert details.get("none") is None
    with pytest.warns(DeprecationWarning, match="use its attributes"):
        assert dict(details) == details.words()


class OldRun(Run):
    """A run written for version 0.1, with a dict of its own."""

    def __init__(self, problem: Any, guess: Any) -> None:
        self.engine, self.details = NumpyEngine(problem), {"engine": "numpy", "sweeps": "one"}  # type: ignore[assignment]
        self.trajectory = self.engine.rollout(guess.controls)

    def start(self) -> Iteration:
        stages, terminal = self.engine.expand(self.trajectory, second_order=False)
        self.policy = self.engine.backward_pass(stages, terminal, Exact(1e-9), feedback=True, tikhonov=0.0)
        return Iteration(index=0, cost=self.trajectory.cost)

    def step(self) -> Iteration:
        return self.start()


class Old(Solver):
    def begin(self, problem: Any, guess: Any) -> OldRun:
        return OldRun(problem, guess)


def test_a_solver_of_ones_own_may_still_say_things_in_a_dict() -> None:
    with pytest.warns(DeprecationWarning, match="give it a Details"):
        solution = Old(max_iterations=1).solve(BY_NAME["least-squares"].problem())
    assert replace(solution.details, seconds=PhaseTimes()) == Details(engine="numpy", notes={"sweeps": "one"})
    assert "sweeps" in str(solution)
    assert type(solution.history[0]) is Iteration
