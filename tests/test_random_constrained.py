"""Forty random constrained problems: no crash, no claim that does not hold, and as often solved as by IPOPT."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache

import casadi as ca
import numpy as np
import pytest
from random_problems import random_problem
from test_constrained import assert_is_kkt_point

from ocpkit import IPOPT, Problem, Solution, Status, registry
from ocpkit.autodiff.differentiable import with_parameters
from ocpkit.solution.complementarity import complementarity
from ocpkit.solvers.constrained.augmented import Augmented
from ocpkit.solvers.constrained.units import first_units
from ocpkit.solvers.guess import Guess
from ocpkit.solvers.nlp.multiple_shooting import Program

SEEDS = range(40)
METHODS = ("al", "ip")


@cache
def solved(seed: int, method: str = "al") -> tuple[Problem, Solution]:
    problem = random_problem(seed)
    return problem, registry.make(method).solve(problem)


def violations(problem: Problem, solution: Solution) -> dict[str, float]:
    """Largest violation of every declared constraint and control bound, by calling the user's functions."""
    found: dict[str, float] = {}
    x, u, none = solution.states, solution.controls, np.zeros(0)
    for t, stage in enumerate(problem.stages):
        for c in stage.constraints:
            g = np.atleast_1d(with_parameters(c.function, 3, c.name)(x[t], u[t], none))
            found[f"{c.name} at stage {t}"] = float(np.maximum(c.lower - g, g - c.upper).max())
        excess = np.maximum(stage.control_lower - u[t], u[t] - stage.control_upper)
        found[f"control bound at stage {t}"] = float(excess.max())
    for c in problem.terminal_constraints:
        g = np.atleast_1d(with_parameters(c.function, 2, c.name)(x[-1], none))
        found[f"{c.name} at the end"] = float(np.maximum(c.lower - g, g - c.upper).max())
    return found


@pytest.mark.parametrize("seed", range(10))
def test_the_first_ten(seed: int) -> None:
    assert_honest(*solved(seed))


def test_most_of_the_first_ten_are_solved() -> None:
    """Else the claims above are of failures alone, or of successes."""
    assert 5 <= sum(solved(seed)[1].success for seed in range(10)) <= 8


def assert_honest(problem: Problem, solution: Solution) -> None:
    """A success is a KKT point; a failure names the constraint and the stage that really fail most."""
    if solution.success and solution.solver == "InteriorPoint":  # y = μ / s is nowhere zero
        assert max(violations(problem, solution).values(), default=0.0) <= 2e-8
        assert complementarity(problem, solution) <= 1e-6
        return
    if solution.success:
        assert_is_kkt_point(problem, solution)
        return
    assert solution.status is Status.INFEASIBLE, solution.status
    found = violations(problem, solution)
    worst = solution.details.violation
    constraint, where = worst.row.partition("[")[0], "the end" if worst.end else f"stage {worst.stage}"
    assert 1e-8 < worst.amount <= 1.01 * found[f"{constraint} at {where}"]  # the largest in its unit
    augmented = Augmented(problem, barrier=solution.solver == "InteriorPoint")
    units = first_units(augmented, Guess((), None, scaling=solution.scaling), scaling=True)
    assert units is not None
    largest = augmented.measure(solution.states, solution.controls, augmented.extended(None, 1.0, 1e-9), units.rows)
    assert worst == replace(largest.worst, amount=worst.amount)
    assert worst.amount == pytest.approx(largest.worst.amount, rel=5e-3)


def least_violation(problem: Problem, solution: Solution) -> float:
    """Σ of violations that IPOPT cannot lower any more from the solution on: minimize Σ s, l − s ≤ g ≤ u + s, s ≥ 0.

    "Infeasible" is a local claim, and IPOPT may leave for another basin, by one rounding of the solution or another. So
    it begins in two ways: with room in every row, and at the solution's own violations with a small barrier.
    """
    program = Program(problem)
    rows, count = program.nlp["g"], program.nlp["g"].numel()
    s = ca.MX.sym("s", count)
    nlp = {"x": ca.vertcat(program.nlp["x"], s), "p": program.nlp["p"], "f": ca.sum1(s)}
    nlp["g"] = ca.vertcat(rows - s, rows + s)
    bounds, infinite, w = program.bounds, np.full(count, np.inf), program.join(solution.states, solution.controls)
    g = np.asarray(ca.Function("g", [program.nlp["x"], program.nlp["p"]], [rows])(w, program.p)).ravel()
    excess = np.maximum(np.maximum(np.ravel(bounds["lbg"]) - g, g - np.ravel(bounds["ubg"])), 0.0)
    least = 0.0
    for start, near in (
        (np.ones(count), {}),
        (excess + 1e-6, {"mu_init": 1e-6, "bound_push": 1e-8, "bound_frac": 1e-8}),
    ):
        options = {"print_time": False, "ipopt": {"print_level": 0, "sb": "yes", "max_iter": 500} | near}
        answer = ca.nlpsol("phase1", "ipopt", nlp, options)(
            x0=np.concatenate([w, start]),
            p=program.p,
            lbx=np.concatenate([bounds["lbx"], np.zeros(count)]),
            ubx=np.concatenate([bounds["ubx"], infinite]),
            lbg=np.concatenate([-infinite, bounds["lbg"]]),
            ubg=np.concatenate([bounds["ubg"], infinite]),
        )
        least = max(least, float(answer["f"]))
        if least > 1e-6:
            break
    return least


@pytest.mark.slow
def test_they_are_solved_as_often_as_by_ipopt() -> None:
    tally: Counter[str] = Counter()
    for seed in SEEDS:
        reference = IPOPT().solve(random_problem(seed))
        tally["ipopt"] += reference.success
        for method in METHODS:
            problem, solution = solved(seed, method)
            assert_honest(problem, solution)
            assert solution.success or least_violation(problem, solution) > 1e-6
            tally[method] += solution.success
            tally[f"same optimum by {method}"] += solution.success and reference.success and _same(solution, reference)
    print(f"of {len(SEEDS)}: {dict(tally)}")
    for method in METHODS:
        assert tally[method] >= tally["ipopt"] - 1
        assert 20 <= tally[method] <= 35  # some, not most, cannot be solved
        assert tally[f"same optimum by {method}"] >= 0.6 * tally[method]  # many have several local optima


def _same(a: Solution, b: Solution) -> bool:
    return abs(a.cost - b.cost) <= 1e-6 * (1 + abs(b.cost))
