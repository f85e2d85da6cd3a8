"""The solver that chooses: which method, why, and what it does where one stalls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ocpkit
import ocpkit.math as m
from ocpkit import Automatic, Constraint, Problem, ProblemError, Status


def trolley(**changes: Any) -> Problem:
    """Half a second at |u| ≤ 1 N/kg, to rest at zero."""
    declaration: dict[str, Any] = {
        "dynamics": lambda x, u: m.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * u[0]]),
        "cost": lambda x, u: 0.1 * u[0] ** 2,
        "terminal_cost": lambda x: 10 * m.dot(x, x),
        "x0": [0.1, 0.0],
        "horizon": 10,
        "control_size": 1,
        "control_bounds": (-1, 1),
    }
    return Problem.from_functions(**(declaration | changes))


REST = Constraint(lambda x: x, 0.0, 0.0, "rest")


@pytest.mark.parametrize(
    ("changes", "method"),
    [({}, "DDP"), ({"terminal_constraints": (REST,)}, "PrimalDual"), ({"states": np.zeros((11, 2))}, "PrimalDual")],
    ids=["bounds", "rows", "states"],
)
def test_the_method_that_suits_is_taken_and_said(changes: dict[str, Any], method: str) -> None:
    solution = ocpkit.solve(trolley(**changes))
    assert (solution.status, solution.solver) == (Status.CONVERGED, method)
    assert solution.details.notes["method"].startswith(f"{method}: ")


def test_where_one_method_stalls_the_next_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its search cut short, the interior point leaves the rows to the augmented Lagrangian, which says so."""
    monkeypatch.setattr("ocpkit.control.automatic.SEARCH", 1)
    solution = ocpkit.solve(trolley(terminal_constraints=(REST,)))
    assert (solution.status, solution.solver) == (Status.CONVERGED, "AugmentedLagrangian")
    assert "after PrimalDual ended as iteration limit" in solution.details.notes["method"]


def test_a_certificate_is_not_lost_to_what_comes_after() -> None:
    far = Constraint(lambda x: x[0], 50.0, 60.0, "far")
    solution = ocpkit.solve(trolley(terminal_constraints=(far,)))
    assert solution.status is Status.INFEASIBLE
    assert solution.details.violation is not None


def test_limits_are_those_of_all_methods_together() -> None:
    solution = Automatic(max_iterations=1).solve(trolley(terminal_constraints=(REST,)))
    assert solution.status is Status.ITERATION_LIMIT
    assert solution.iterations <= 1


@pytest.mark.parametrize("wrong", [{"problem": "x"}, {"guess": 3}, {"callback": 3}], ids=str)
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProblemError):
        ocpkit.solve(**({"problem": trolley()} | wrong))
