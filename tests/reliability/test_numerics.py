"""Ill-conditioned problems end in honest statuses; the same solve gives the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.reliability import conditioning
from ocpkit import DDP, models
from ocpkit.solution.solution import Solution


@pytest.mark.slow
def test_converged_is_said_of_the_optimum_only() -> None:
    found = conditioning.cases(range(5), ["ddp, numpy", "ipopt"])
    assert [case for case in found if not case.honest] == []
    assert sum(case.status == "CONVERGED" for case in found) > len(found) / 2


def test_the_reference_is_the_riccati_solution() -> None:
    """No controls near the solver's cost less than J* in extended precision, at any condition number."""
    rng = np.random.default_rng(0)
    for kappa in conditioning.KAPPAS:
        quadratic = conditioning.Quadratic.random(kappa, 7)
        u, optimum = DDP(engine="numpy").solve(quadratic.problem()).controls, quadratic.optimum()
        for size in (0.0, 1e-3, 1.0):
            assert quadratic.cost(u + size * rng.normal(size=u.shape)) >= optimum * (1 - 1e-12)


@pytest.mark.parametrize("engine", ["numpy", "vm", "c"])
def test_the_same_solve_gives_the_same_bits(engine: str) -> None:
    def solve() -> Solution:
        return DDP(engine=engine, max_iterations=8).solve(models.get("pendulum").build(horizon=40))

    first, second = solve(), solve()
    for name in ("states", "controls", "feedback_gains", "value_hessians"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert [line.cost for line in first.history] == [line.cost for line in second.history]
