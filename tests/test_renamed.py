"""The options that solvers had before `Damping`, `LineSearch`, `Penalty` and `Barrier` mean what they did, and warn."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import Any

import pytest

from ocpkit import (
    DDP,
    FDDP,
    ILQR,
    MSA,
    AugmentedLagrangian,
    Barrier,
    Damping,
    InteriorPoint,
    LineSearch,
    Penalty,
    ProblemError,
    registry,
)
from ocpkit.solvers.ddp.damping import QUADRATIC

ALIASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "regularize": ({"regularize": "state"}, {"damping": replace(QUADRATIC, target="state")}),
    "initial": ({"initial_regularization": 2.0}, {"damping": replace(QUADRATIC, initial=2.0)}),
    "bounds": (
        {"min_regularization": 1e-7, "max_regularization": 1e3},
        {"damping": replace(QUADRATIC, minimum=1e-7, maximum=1e3)},
    ),
    "factor": ({"regularization_factor": 3.0}, {"damping": replace(QUADRATIC, factor=3.0)}),
    "no line search": ({"line_search": False}, {"line_search": None}),
    "a line search": ({"line_search": True, "armijo": 0.1}, {"line_search": LineSearch(armijo=0.1)}),
    "steps": ({"min_step_size": 0.1}, {"line_search": LineSearch(min_step_size=0.1)}),
    "beside the new": (
        {"damping": Damping(initial=3.0), "regularize": "state"},
        {"damping": Damping(initial=3.0, target="state")},
    ),
}


@pytest.mark.parametrize("kind", [DDP, ILQR, FDDP])
@pytest.mark.parametrize("name", ALIASES)
def test_an_old_option_is_translated_once_with_a_warning(kind: type[DDP], name: str) -> None:
    old, new = ALIASES[name]
    with pytest.warns(DeprecationWarning, match=r"write (damping=Damping|line_search=)") as caught:
        solver = kind(**old)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert solver == kind(**new)
    assert pickle.loads(pickle.dumps(solver)) == solver
    assert replace(solver, max_iterations=3) == kind(**new, max_iterations=3)


CONSTRAINED: dict[str, tuple[type[Any], dict[str, Any], dict[str, Any]]] = {
    "penalty": (
        AugmentedLagrangian,
        {"initial_penalty": 3.0, "max_penalty": 1e6, "penalty_factor": 5.0, "enough": 0.5},
        {"penalty": Penalty(initial=3.0, maximum=1e6, factor=5.0, required_decrease=0.5)},
    ),
    "penalty of an interior point": (InteriorPoint, {"initial_penalty": 3.0}, {"penalty": Penalty(initial=3.0)}),
    "barrier": (
        InteriorPoint,
        {"first_barrier": 1e-2, "last_barrier": 1e-6, "barrier_factor": 0.2},
        {"barrier": Barrier(first=1e-2, last=1e-6, factor=0.2)},
    ),
}


@pytest.mark.parametrize("name", CONSTRAINED)
def test_old_options_of_constrained_solvers_are_translated(name: str) -> None:
    kind, old, new = CONSTRAINED[name]
    with pytest.warns(DeprecationWarning, match=r"write (penalty=Penalty|barrier=Barrier)") as caught:
        solver = kind(**old)
    assert len(caught) == 1
    assert solver == kind(**new)
    assert pickle.loads(pickle.dumps(solver)) == solver
    assert replace(solver, max_iterations=3) == kind(**new, max_iterations=3)


def test_an_old_spelling_is_translated() -> None:
    with pytest.warns(DeprecationWarning, match="for minimisation write minimization"):
        assert MSA(minimisation="gradient") == MSA(minimization="gradient")  # type: ignore[call-arg]


def test_replace_takes_old_options() -> None:
    with pytest.warns(DeprecationWarning, match="maximum"):
        changed = replace(DDP(damping=Damping(initial=1.0)), max_regularization=1e3)  # type: ignore[call-arg]
    assert changed == DDP(damping=Damping(initial=1.0, maximum=1e3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"line_search": None, "armijo": 0.1}, "armijo has no effect"),
        ({"armijo": 2.0}, "armijo below 1"),
        ({"regularize": "controls"}, "did you mean 'control'"),
    ],
)
def test_what_was_refused_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.warns(DeprecationWarning, match="old options"), pytest.raises(ProblemError, match=message):
        DDP(**options)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(TypeError, match="regularizes"):
        DDP(regularizes="state")  # type: ignore[call-arg]


def test_a_subclass_that_sets_an_old_name_is_refused() -> None:
    class Hidden(DDP):
        regularize = "state"

    with pytest.raises(ProblemError, match="regularize"):
        Hidden()


def test_a_subclass_of_ones_own() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Careful(DDP):
        damping: Damping | None = Damping(initial=1.0)  # noqa: RUF009

    assert Careful().schedule.initial == 1.0
    assert Careful(damping=None).schedule == Damping()


@pytest.mark.parametrize("value", [True, "state", LineSearch()])
def test_parts_are_checked(value: Any) -> None:
    with pytest.raises(ProblemError, match="damping must be a Damping or None"):
        DDP(damping=value)
    with pytest.raises(ProblemError, match="line_search must be a LineSearch or None"):
        DDP(line_search=3)  # type: ignore[arg-type]


def test_the_registry_takes_parts() -> None:
    solver: Any = registry.make("al", damping=Damping(initial=1.0))
    assert solver.inner.damping == Damping(initial=1.0)
