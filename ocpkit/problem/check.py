"""Check of a problem's derivatives: every block is compared with central differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ocpkit.autodiff.differences import central_jacobian
from ocpkit.boundary.arrays import Array, whole_number
from ocpkit.problem.problem import Problem
from ocpkit.problem.stage import Stage, TerminalCost

Block = tuple[str, Array, Array]
"""Name, what the model declares, what differences measure."""


@dataclass(frozen=True)
class DerivativeReport:
    """The worst entry of all derivatives compared; `ok` says whether it is within the tolerance.

    Attributes
    ----------
    error
        |declared − measured| / (1 + largest entry of the block); infinite where a number is not finite.
    tolerance
        Largest error that counts as right.
    place
        Stage, or the terminal cost.
    block, entry
        Which derivative (``"fx"``, ``"luu"``, …) and which entry of it.
    declared, measured
        The model's value and that of central differences.
    entries
        Number of entries compared.
    """

    error: float
    tolerance: float
    place: str
    block: str
    entry: tuple[int, ...]
    declared: float
    measured: float
    entries: int

    @property
    def ok(self) -> bool:
        """Whether every entry is within the tolerance."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        verdict = "derivatives agree" if self.ok else "derivatives DISAGREE"
        return (
            f"{verdict} ({self.entries} entries compared); worst: {self.block}{list(self.entry)} of {self.place}: "
            f"declared {self.declared:.10g}, differences {self.measured:.10g}, relative error {self.error:.1e} "
            f"(tolerance {self.tolerance:.0e})"
        )


def check_derivatives(
    problem: Problem, *, samples: int = 3, spread: float = 0.5, tolerance: float = 1e-4, seed: int = 0
) -> DerivativeReport:
    """Compare gradients, Jacobians and Hessians of all distinct stages and of the end with central differences.

    Parameters
    ----------
    samples
        Points per stage: the guess (zeros where it is not finite), then random ones around it.
    spread
        Standard deviation of the random points [state and control units].
    tolerance
        Largest relative error that counts as right; differences themselves err by up to about 1e-6.
    seed
        Of the random points.

    Raises
    ------
    ProblemError
        If `samples` is below 1.
    """
    samples = whole_number(samples, "samples")
    rng, worst, entries = np.random.default_rng(seed), None, 0
    with np.errstate(all="ignore"):
        for place, (name, declared, measured) in _blocks_of(problem, samples, spread, rng):
            report = _compare(place, name, np.asarray(declared, dtype=float), measured, tolerance)
            entries += measured.size
            if report is not None and (worst is None or report.error > worst.error):
                worst = report
    assert worst is not None  # the terminal gradient has at least one entry
    return replace(worst, entries=entries)


def _blocks_of(problem: Problem, samples: int, spread: float, rng: np.random.Generator) -> Iterator[tuple[str, Block]]:
    states = problem.states if problem.states is not None else problem.rollout()[0]
    for sample in range(samples):
        for t, stage in problem.distinct_stages:
            x, u = _near(states[t], sample, spread, rng), _near(problem.controls[t], sample, spread, rng)
            for block in _stage_blocks(stage, x, u, problem.parameter(t), rng):
                yield f"stage {t} ({stage.name!r})", block
        x = _near(states[-1], sample, spread, rng)
        for block in _terminal_blocks(problem.terminal_cost, x, problem.parameter(problem.horizon)):
            yield "the terminal cost", block


def _near(point: Array, sample: int, spread: float, rng: np.random.Generator) -> Array:
    """Return the guess for the first sample, then a random point around it."""
    center = np.where(np.isfinite(point), point, 0.0)
    return center if sample == 0 else center + spread * rng.normal(size=center.shape)


def _stage_blocks(stage: Stage, x: Array, u: Array, p: Array, rng: np.random.Generator) -> Iterator[Block]:
    f, cost, n, z = stage.dynamics, stage.cost, len(x), np.concatenate([x, u])
    v = rng.normal(size=f.next_state_size)

    def by_differences(function: Callable[[Array, Array], Any]) -> tuple[Array, Array]:
        jacobian = central_jacobian(lambda y: function(y[:n], y[n:]), z)
        return jacobian[..., :n], jacobian[..., n:]

    fx, fu = by_differences(lambda x, u: f.step(x, u, p))
    lx, lu = by_differences(lambda x, u: cost.value(x, u, p))
    yield from zip(("fx", "fu"), f.jacobians(x, u, p), (fx, fu))
    yield from zip(("lx", "lu"), cost.gradient(x, u, p), (lx, lu))
    vfx = by_differences(lambda x, u: v @ f.jacobians(x, u, p)[0])[0]
    vfu = by_differences(lambda x, u: v @ f.jacobians(x, u, p)[1])
    yield from zip(("v·fxx", "v·fux", "v·fuu"), f.hessian_product(x, u, p, v), (vfx, *vfu))
    lxx = by_differences(lambda x, u: cost.gradient(x, u, p)[0])[0]
    luz = by_differences(lambda x, u: cost.gradient(x, u, p)[1])
    yield from zip(("lxx", "lux", "luu"), cost.hessian(x, u, p), (lxx, *luz))


def _terminal_blocks(cost: TerminalCost, x: Array, p: Array) -> Iterator[Block]:
    yield "phi_x", cost.gradient(x, p), central_jacobian(lambda y: np.asarray(cost.value(y, p)), x)
    yield "phi_xx", cost.hessian(x, p), central_jacobian(lambda y: cost.gradient(y, p), x)


def _compare(place: str, name: str, declared: Array, measured: Array, tolerance: float) -> DerivativeReport | None:
    """Report the worst entry of one block; None for an empty block."""
    if measured.size == 0:
        return None
    error = np.abs(declared - measured) / (1 + np.abs(measured).max())
    error = np.where(np.isfinite(error), error, np.inf)
    entry = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
    return DerivativeReport(
        float(error[entry]), tolerance, place, name, entry, float(declared[entry]), float(measured[entry]), 0
    )
