"""Where a solve begins: the guess that a problem declares, zeros, and random ones.

* ``given``: controls and states as declared; without states these are rolled out.
* ``zeros``: u = 0, put inside its bounds, rolled out.
* ``random-k``: u anywhere inside its bounds, or around the declared ones; rolled out for even k, and for odd k x_0 at
  every stage, or the declared states, with noise of a tenth of the largest entry of their kind.

A rollout that overflows is replaced by x_0 at every stage. All systems are given the same numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from benchmarks.robustness.answer import largest
from ocpkit import Problem
from ocpkit.boundary.arrays import Array

GIVEN, ZEROS, RANDOM = "given", "zeros", "random-"
NOISE = 0.1
LARGEST = 1e8  # entry of a rollout that is taken


def names(count: int) -> list[str]:
    """The first so many of: given, zeros, random-0, random-1, …"""
    return [GIVEN, ZEROS, *(f"{RANDOM}{k}" for k in range(count - 2))][:count]


def begin(problem: Problem, guess: str) -> Problem:
    """Return the problem with a guess of controls and states."""
    rng = np.random.default_rng(zlib.crc32(f"{problem.name} {guess}".encode()))
    if guess == GIVEN:
        states = problem.states if problem.states is not None else _rolled_out(problem, problem.controls)
        return problem.replace(states=states)
    if guess == ZEROS:
        controls = problem.clip([np.zeros(m) for m in problem.control_sizes])
        return problem.replace(controls=tuple(controls), states=_rolled_out(problem, controls))
    controls = [_random(rng, stage, u) for stage, u in zip(problem.stages, problem.controls)]
    if int(guess.removeprefix(RANDOM)) % 2 == 0:
        return problem.replace(controls=tuple(controls), states=_rolled_out(problem, controls))
    x = _constant(problem, controls) if problem.states is None else list(problem.states)
    noisy = [each + NOISE * size * rng.normal(size=len(each)) for each, size in zip(x, largest(x))]
    return problem.replace(controls=tuple(controls), states=(problem.x0, *noisy[1:]))


def _random(rng: np.random.Generator, stage: object, u: Array) -> Array:
    """Draw controls of a stage: uniform between two bounds, else normal around the declared ones."""
    lower, upper = (np.broadcast_to(getattr(stage, f"control_{side}"), len(u)) for side in ("lower", "upper"))
    with np.errstate(invalid="ignore"):
        inside = np.where(np.isfinite(lower) & np.isfinite(upper), lower + rng.random(len(u)) * (upper - lower), np.nan)
    around = np.clip(u + np.maximum(np.abs(u), 0.5) * rng.normal(size=len(u)), lower, upper)
    return np.where(np.isnan(inside), around, inside)


def _rolled_out(problem: Problem, controls: Sequence[Array]) -> tuple[Array, ...] | None:
    """None, which is the rollout itself, or x_0 everywhere where that overflows."""
    with np.errstate(all="ignore"):
        states = problem.simulate(list(controls))
    fine = all(np.isfinite(x).all() and np.abs(x).max(initial=0.0) <= LARGEST for x in states)
    return None if fine else tuple(_constant(problem, controls))


def _constant(problem: Problem, controls: Sequence[Array]) -> list[Array]:
    """x_0 at every stage, and below it the free parameters, which are the last controls of the first stage."""
    chosen = controls[0][len(controls[0]) - (problem.state_sizes[-1] - problem.state_sizes[0]) :]
    return [problem.x0, *(np.concatenate([problem.x0, chosen])[:n] for n in problem.state_sizes[1:])]
