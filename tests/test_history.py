"""Histories: each kind of solver has columns named for what they hold."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from test_constrained import swing
from test_noise import scalar

from ocpkit import (
    DDP,
    EMSA,
    ILQG,
    IPOPT,
    MSA,
    AugmentedLagrangian,
    Constraint,
    DDPIteration,
    GradientDescent,
    InteriorPoint,
    Iteration,
    NLPIteration,
    OuterIteration,
    PenaltyIteration,
    Solution,
)
from ocpkit.solution.history import KINDS, History, as_record, columns, from_record

SAVED = Path(__file__).parent / "saved"
ROW = {"constraints": (Constraint(lambda x, u: u[0], -1.5, 1.5, "push"),)}
IN_C = DDP(engine="c")
MADE_BY: dict[str, tuple[Any, Any, type[Iteration]]] = {
    "ddp": (DDP(engine="numpy"), swing, DDPIteration),
    "ddp in c": (IN_C, swing, DDPIteration),
    "al": (AugmentedLagrangian(inner=DDP(engine="numpy")), lambda: swing(**ROW), OuterIteration),
    "al in c": (AugmentedLagrangian(inner=IN_C), lambda: swing(**ROW), OuterIteration),
    "ip": (InteriorPoint(inner=DDP(engine="numpy")), lambda: swing(**ROW), OuterIteration),
    "ip in c": (InteriorPoint(inner=IN_C), lambda: swing(**ROW), OuterIteration),
    "gd": (GradientDescent(max_iterations=3), swing, Iteration),
    "msa": (MSA(max_iterations=3), swing, Iteration),
    "emsa": (EMSA(max_iterations=3), swing, PenaltyIteration),
    "ipopt": (IPOPT(), lambda: swing(**ROW), NLPIteration),
    "ilqg": (ILQG(inner=DDP(engine="numpy")), lambda: scalar(0.1, 0.1, 0.1), DDPIteration),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE_BY)
def test_every_solver_writes_its_kind_which_survives_a_file(name: str, tmp_path: Path) -> None:
    solver, build, kind = MADE_BY[name]
    solution = solver.solve(build())
    assert {type(line) for line in solution.history} == {kind}
    solution.save(tmp_path / "s.npz")
    assert repr([*Solution.load(tmp_path / "s.npz").history]) == repr([*solution.history])  # NaN is not equal to itself


@pytest.mark.parametrize("name", ["al", "al in c", "ip", "ip in c"])
def test_columns_of_outer_iterations_hold_what_they_are_called(name: str) -> None:
    solver, build, _ = MADE_BY[name]
    solution = solver.solve(build())
    first, last = solution.history[0], solution.history[-1]
    assert sum(line.inner_iterations for line in solution.history) == solution.details.inner_iterations > 0
    assert first.penalty == solver.penalty.initial
    barrier = solver.barrier if isinstance(solver, InteriorPoint) else None
    expected = (0.0, 0.0) if barrier is None else (barrier.first, barrier.last)
    assert (first.barrier, last.barrier) == expected
    assert last.violation <= solver.constraint_tolerance
    assert last.infeasibility == last.violation


def test_kinds_are_all_those_there_are() -> None:
    assert set(KINDS.values()) == {Iteration, *Iteration.__subclasses__()}
    for kind in KINDS.values():
        assert ("index", *columns(kind)) == tuple(field.name for field in fields(kind))


@pytest.mark.parametrize("kind", KINDS.values())
def test_rows_give_back_what_was_appended(kind: type[Iteration]) -> None:
    lines = [kind(index=i, cost=1.5 * i, gradient_norm=1.0, **{columns(kind)[-1]: 2.0 * i}) for i in range(5)]
    history = History(lines)
    assert history == lines
    assert history[1:3] == tuple(lines[1:3])
    assert from_record(as_record(history), "any") == lines
    assert History(lines[:0]) == [] == from_record(as_record(lines[:0]), "any")


def test_lines_of_two_kinds_do_not_mix() -> None:
    history = History([DDPIteration(index=0, cost=1.0)])
    with pytest.raises(TypeError, match=r"a OuterIteration cannot follow lines of kind DDPIteration"):
        history.append(OuterIteration(index=1, cost=1.0))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ddp", DDPIteration),
        ("al", OuterIteration),
        ("ipopt", NLPIteration),
        ("emsa", PenaltyIteration),
        ("gd", Iteration),
        ("ilqg", DDPIteration),
    ],
)
def test_lines_of_an_older_version_get_their_names(name: str, kind: type[Iteration]) -> None:
    history = Solution.load(SAVED / f"{name}.npz").history
    assert {type(line) for line in history} == {kind}
    if kind is OuterIteration:
        assert (history[0].penalty, history[-1].violation) == (30.0, pytest.approx(8.67e-12, rel=1e-2))
    if kind is PenaltyIteration:
        assert all(line.penalty > 0 for line in history[1:])
    if kind is NLPIteration:
        assert history[-1].violation == pytest.approx(1.29e-13, rel=1e-2)


def test_old_names_are_deprecated() -> None:
    line = OuterIteration(index=0, cost=1.0, penalty=2.0, violation=3.0)
    with pytest.warns(DeprecationWarning, match="it is called 'violation'"):
        assert line.gap == 3.0
    with pytest.warns(DeprecationWarning, match="it is called 'penalty'"):
        assert line.regularization == 2.0
    with pytest.warns(DeprecationWarning, match="its solver has none"):
        assert Iteration(index=0, cost=1.0).gap == 0.0


def test_a_line_of_ones_own_is_kept_as_what_is_known_of_it() -> None:
    class Own(DDPIteration):
        """A subclass that no file knows."""

    line = {"index": 0, "cost": 1.0, "gradient_norm": 1.0, "gap": 2.0}
    assert from_record(as_record([Own(**line)]), "Own") == [DDPIteration(**line)]
