"""The classic tasks as the tests build them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from ocpkit import Problem, models

Array = Any
every_task = pytest.mark.parametrize("name", models.names())


@cache
def built(name: str) -> Problem:
    return models.get(name).build()


def perturbed_controls(problem: Problem, size: float = 0.05) -> list[Array]:
    rng = np.random.default_rng(1)
    return [u + size * rng.normal(size=len(u)) for u in problem.controls]


def step(problem: Problem, x: Array, u: Array) -> Array:
    return problem.stages[0].dynamics.step(np.asarray(x, float), np.asarray(u, float), problem.parameter(0))
