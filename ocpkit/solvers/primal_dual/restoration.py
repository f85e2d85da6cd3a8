"""Feasibility restoration: the least violation of all gaps and rows, near to where the filter accepts no step.

    minimize ρ Σ (p + n) + ζ/2 ‖D (w − w_R)‖²   subject to   c(w) + Σ a v − p + n = 0,   p, n ≥ 0

(Wächter & Biegler 2006, section 3.3), by the same interior point. It ends where the filter of the problem accepts a
point with less violation. Where it converges before that, the violation is stationary: locally, the problem is
infeasible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ocpkit.boundary.arrays import Array
from ocpkit.solvers.primal_dual.blocks import Blocks, Values
from ocpkit.solvers.primal_dual.bounded import Bounded
from ocpkit.solvers.primal_dual.interior import Functions, Interior
from ocpkit.solvers.primal_dual.newton import Iterate, least_squares_duals

PRICE = 1e3  # ρ
NEARNESS = 1.0  # η of ζ = η √μ
TOLERANCE, LEAST_BARRIER = 1e-6, 1e-6  # beside a price of 1000 these are a thousandth of those of a problem
ENOUGH = 0.9  # of the violation that a restoration must come below


class Nearness:
    """The constraints of a program under the objective ζ/2 ‖D (w − w_R)‖²."""

    def __init__(self, program: Functions, reference: Array, weight: float) -> None:
        self.program, self.reference, self.layout = program, reference, program.layout
        self.diagonal = weight / np.maximum(1.0, np.abs(reference)) ** 2

    def values(self, w: Array) -> Values:
        """Evaluate the objective, gaps and rows."""
        away = w - self.reference
        return self.program.values(w)._replace(cost=float(self.diagonal @ away**2) / 2)

    def rollout(
        self, w: Array, step: Array, gains: Sequence[Array], sides: tuple[Array, Array], step_size: float
    ) -> None:
        """Return nothing: gaps are elastic."""

    def derivatives(self, w: Array, costates: Array, multipliers: Array, weight: float = 1.0) -> Blocks:
        """Differentiate them."""
        found = self.program.derivatives(w, costates, multipliers, 0.0)
        for z, hessian in zip(self.layout.z, found.hessians_of):
            hessian.flat[:: len(hessian) + 1] += weight * self.diagonal[z]
        return replace(found, gradient=self.diagonal * (w - self.reference))


def begin(main: Interior) -> Interior:
    """Begin the restoration of an interior point that is blocked."""
    at, count = main.at, len(main.at.duals)
    residual = main.residual(at)
    mu = max(main.mu, float(np.abs(residual).max()))
    functions = Nearness(main.functions, at.w.value, NEARNESS * np.sqrt(mu))
    slacks = main.slacks.with_elastic(count, PRICE)
    half = (mu - PRICE * residual) / (2 * PRICE)
    n = half + np.sqrt(half**2 + mu * residual / (2 * PRICE))
    p = residual + n
    elastic = np.concatenate([p, n])
    size = len(at.v.value)
    v = Bounded(
        np.concatenate([at.v.value, elastic]),
        slacks.lower,
        slacks.upper,
        np.concatenate([np.minimum(at.v.below, PRICE), mu / elastic]),
        np.concatenate([np.minimum(at.v.above, PRICE), np.zeros(len(slacks.lower) - size)]),
    )
    w = replace(at.w, below=np.minimum(at.w.below, PRICE), above=np.minimum(at.w.above, PRICE))
    values = functions.values(w.value)
    start = Iterate(w, v, np.zeros(count), values)
    return Interior(functions, slacks, main.targets, start, mu, TOLERANCE, LEAST_BARRIER)


def original(main: Interior, restoration: Interior) -> Iterate:
    """Return the restoration's point as one of the problem itself, with the multipliers of its bounds."""
    at, size = restoration.at, len(main.at.v.value)
    v = Bounded(at.v.value[:size], main.at.v.lower, main.at.v.upper, at.v.below[:size], at.v.above[:size])
    return Iterate(at.w, v, main.at.duals, main.functions.values(at.w.value))


def succeeded(main: Interior, found: Iterate) -> bool:
    """Whether the problem goes on from there."""
    theta = main.violation(found)
    return theta <= ENOUGH * main.violation(main.at) and main.filter.accepts(theta, main.cost(found))


def resume(main: Interior, found: Iterate) -> None:
    """Go on with the problem, the multipliers of gaps and rows from least squares."""
    gaps = len(found.values.gaps)
    blocks = main.functions.derivatives(found.w.value, found.duals[:gaps], found.duals[gaps:])
    main.filter.add(main.violation(main.at), main.cost(main.at))
    main.at = replace(found, duals=least_squares_duals(main.slacks, blocks, found))
